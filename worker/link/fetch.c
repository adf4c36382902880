/* One object from one peer: up to four FETCHes are on their way, each CHUNK is copied to its place. */
#include "proto/base/clock.h"
#include "worker/link/link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum { POLL_MS = 50, CHUNK = WEIR_WIRE_CHUNK_BYTES_MAX };

struct run {
    struct weir_link *link;
    const struct weir_fetch *fetch;
    uint8_t *buffer;
    void *socket;
    uint64_t sequence, asked, got; /* asked: bytes up to which was asked; got: bytes that came */
    struct slot {
        bool waits;
        uint64_t number, offset;
    } slots[WEIR_LINK_OUTSTANDING_MAX];
};

static uint32_t part(const struct run *run, uint64_t offset)
{
    const uint64_t left = run->fetch->bytes - offset;
    return left < CHUNK ? (uint32_t)left : CHUNK;
}

/* Asks for more while there are free slots. UNAVAILABLE: not connected yet, or the queue is full. */
static enum weir_status ask(struct run *run, struct weir_error *error)
{
    for (size_t i = 0; i < WEIR_LINK_OUTSTANDING_MAX && run->asked < run->fetch->bytes; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->waits) continue;
        Weir__Pb__Fetch body = WEIR__PB__FETCH__INIT;
        body.has_number = body.has_digest = body.has_ticket = body.has_offset = body.has_bytes = 1;
        body.number = run->sequence + 1;
        body.digest = (ProtobufCBinaryData){ WEIR_SHA256_BYTES, (uint8_t *)(uintptr_t)run->fetch->digest };
        body.ticket = (ProtobufCBinaryData){ WEIR_TICKET_BYTES, (uint8_t *)(uintptr_t)run->fetch->ticket };
        body.offset = run->asked;
        body.bytes = part(run, run->asked);
        const enum weir_status status =
            weir_wire_send(run->socket, NULL, WEIR_MESSAGE_FETCH, run->sequence + 1, &body.base, error);
        if (status != WEIR_OK) return status;
        run->sequence++;
        *slot = (struct slot){ true, body.number, body.offset };
        run->asked += body.bytes;
    }
    return WEIR_OK;
}

static enum weir_status take(struct run *run, const Weir__Pb__Chunk *chunk, struct weir_error *error)
{
    for (size_t i = 0; i < WEIR_LINK_OUTSTANDING_MAX; i++) {
        struct slot *slot = &run->slots[i];
        if (!slot->waits || slot->number != chunk->number) continue;
        if (chunk->offset != slot->offset || chunk->total != run->fetch->bytes ||
            chunk->data.len != part(run, slot->offset)) {
            return weir_fail(error, WEIR_PROTOCOL,
                             "%s sent %zu bytes at %llu of %llu where %u at %llu of %llu were asked",
                             run->fetch->endpoint, chunk->data.len, (unsigned long long)chunk->offset,
                             (unsigned long long)chunk->total, part(run, slot->offset),
                             (unsigned long long)slot->offset, (unsigned long long)run->fetch->bytes);
        }
        memcpy(run->buffer + slot->offset, chunk->data.data, chunk->data.len);
        run->got += chunk->data.len;
        slot->waits = false;
        return WEIR_OK;
    }
    return weir_fail(error, WEIR_PROTOCOL, "%s sent a chunk that was not asked for", run->fetch->endpoint);
}

static enum weir_status receive(struct run *run, bool *any, struct weir_error *error)
{
    struct weir_message message;
    uint32_t type_seen;
    enum weir_status status = weir_wire_receive(run->socket, false, WEIR_DIRECTION_T, &message, &type_seen, error);
    *any = status != WEIR_TIMEOUT;
    if (status == WEIR_TIMEOUT) return WEIR_OK;
    if (status != WEIR_OK) return status;
    if (message.type == WEIR_MESSAGE_CHUNK) {
        status = take(run, message.body.chunk, error);
    } else if (message.type == WEIR_MESSAGE_REFUSED) {
        status = weir_fail(error, WEIR_NOT_FOUND, "%s does not have it any more", run->fetch->endpoint);
    }
    weir_message_release(&message);
    return status;
}

/* True when nobody listens at an ipc endpoint: a dead worker is not waited for. */
static bool is_gone(const char *endpoint)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof address.sun_path) return false;
    strcpy(address.sun_path, endpoint + 6);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    const bool gone = connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 &&
                      (errno == ECONNREFUSED || errno == ENOENT);
    close(fd);
    return gone;
}

enum weir_status weir_link_fetch(struct weir_link *link, const struct weir_fetch *fetch, uint8_t *buffer,
                                 struct weir_error *error)
{
    struct run run = { .link = link, .fetch = fetch, .buffer = buffer };
    enum weir_status status = WEIR_OK;
    uint64_t deadline_ms = weir_clock_now_ms() + link->first_ms;

    if (is_gone(fetch->endpoint)) return weir_fail(error, WEIR_UNAVAILABLE, "nobody is at %s", fetch->endpoint);
    WEIR_TRY(weir_wire_connect(link->zmq, fetch->endpoint, WEIR_SOCKET_TENSOR, link->insecure_dev, &run.socket, error));
    while (run.got < fetch->bytes) {
        if (link->cancel && atomic_load(link->cancel)) {
            status = weir_fail(error, WEIR_CANCELLED, "cancelled");
            goto cleanup;
        }
        status = ask(&run, error);
        if (status != WEIR_OK && status != WEIR_UNAVAILABLE) goto cleanup;
        zmq_pollitem_t item = { .socket = run.socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, POLL_MS);
        bool any = true;
        for (int i = 0; any && i < WEIR_LINK_OUTSTANDING_MAX; i++) {
            WEIR_TRY(receive(&run, &any, error));
            if (any) deadline_ms = weir_clock_now_ms() + link->stall_ms;
        }
        if (run.got < fetch->bytes && weir_clock_now_ms() >= deadline_ms) {
            status = weir_fail(error, WEIR_TIMEOUT, "%s gave %llu of %llu bytes, then nothing in time", fetch->endpoint,
                               (unsigned long long)run.got, (unsigned long long)fetch->bytes);
            goto cleanup;
        }
    }
    status = WEIR_OK;
cleanup:
    if (run.socket) {
        const int linger_ms = 0;
        zmq_setsockopt(run.socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(run.socket);
    }
    return status;
}
