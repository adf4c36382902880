#include "proto/fetch.h"

#include "proto/base/bytes.h"
#include "proto/base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum { POLL_MS = 50, CHUNK = WEIR_WIRE_CHUNK_BYTES_MAX };

struct run {
    const struct weir_fetch *fetch;
    void *socket;
    struct weir_sha256 sha;
    uint64_t sequence;   /* of the last FETCH, which is its number as well */
    uint64_t asked, got; /* bytes: up to which was asked, and up to which they came */
};

static uint32_t part(const struct run *run, uint64_t offset)
{
    const uint64_t left = run->fetch->artefact->bytes - offset;
    return left < CHUNK ? (uint32_t)left : CHUNK;
}

/* Asks for more while the window allows it. UNAVAILABLE: not connected yet, or the queue is full. */
static enum weir_status ask(struct run *run, struct weir_error *error)
{
    const Weir__Pb__Artefact *artefact = run->fetch->artefact;
    while (run->asked < artefact->bytes && run->asked - run->got < (uint64_t)WEIR_FETCH_OUTSTANDING_MAX * CHUNK) {
        Weir__Pb__Fetch body = WEIR__PB__FETCH__INIT;
        body.has_number = body.has_digest = body.has_ticket = body.has_offset = body.has_bytes = 1;
        body.number = run->sequence + 1;
        body.digest = artefact->digest;
        body.ticket = artefact->ticket;
        body.offset = run->asked;
        body.bytes = part(run, run->asked);
        const enum weir_status status =
            weir_wire_send(run->socket, NULL, WEIR_MESSAGE_FETCH, run->sequence + 1, &body.base, error);
        if (status != WEIR_OK) return status;
        run->sequence++;
        run->asked += body.bytes;
    }
    return WEIR_OK;
}

static enum weir_status take(struct run *run, const Weir__Pb__Chunk *chunk, struct weir_error *error)
{
    const struct weir_fetch *fetch = run->fetch;
    const uint32_t wanted = part(run, run->got);
    if (run->got == run->asked || chunk->number != run->got / CHUNK + 1) {
        return weir_fail(error, WEIR_PROTOCOL, "%s sent a chunk that was not asked for", fetch->artefact->endpoint);
    }
    if (chunk->offset != run->got || chunk->total != fetch->artefact->bytes || chunk->data.len != wanted) {
        return weir_fail(error, WEIR_PROTOCOL, "%s sent %zu bytes at %llu of %llu where %u at %llu of %llu were asked",
                         fetch->artefact->endpoint, chunk->data.len, (unsigned long long)chunk->offset,
                         (unsigned long long)chunk->total, wanted, (unsigned long long)run->got,
                         (unsigned long long)fetch->artefact->bytes);
    }
    weir_sha256_update(&run->sha, chunk->data.data, chunk->data.len);
    run->got += chunk->data.len;
    return fetch->take(fetch->context, chunk->offset, chunk->data.data, chunk->data.len, error);
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
        status = weir_fail(error, WEIR_NOT_FOUND, "%s does not have it any more", run->fetch->artefact->endpoint);
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

static enum weir_status read_all(struct run *run, struct weir_error *error)
{
    const struct weir_fetch *fetch = run->fetch;
    uint64_t deadline_ms = weir_clock_now_ms() + fetch->first_ms;
    while (run->got < fetch->artefact->bytes) {
        if (!fetch->goes_on(fetch->context)) return weir_fail(error, WEIR_CANCELLED, "cancelled");
        const enum weir_status asked = ask(run, error);
        if (asked != WEIR_OK && asked != WEIR_UNAVAILABLE) return asked;
        const short events = asked == WEIR_OK ? ZMQ_POLLIN : ZMQ_POLLIN | ZMQ_POLLOUT;
        zmq_pollitem_t item = { .socket = run->socket, .events = events };
        zmq_poll(&item, 1, POLL_MS); /* a signal only ends the wait early */
        bool any = true;
        for (int i = 0; any && i < WEIR_FETCH_OUTSTANDING_MAX; i++) {
            const enum weir_status status = receive(run, &any, error);
            if (status != WEIR_OK) return status;
            if (any) deadline_ms = weir_clock_now_ms() + fetch->stall_ms;
        }
        if (run->got < fetch->artefact->bytes && weir_clock_now_ms() >= deadline_ms) {
            return weir_fail(error, WEIR_TIMEOUT, "%s gave %llu of %llu bytes, then nothing in time",
                             fetch->artefact->endpoint, (unsigned long long)run->got,
                             (unsigned long long)fetch->artefact->bytes);
        }
    }
    return WEIR_OK;
}

enum weir_status weir_fetch_run(const struct weir_fetch *fetch, struct weir_error *error)
{
    const char *endpoint = fetch->artefact->endpoint;
    struct run run = { .fetch = fetch };
    if (is_gone(endpoint)) return weir_fail(error, WEIR_UNAVAILABLE, "nobody is at %s", endpoint);
    enum weir_status status =
        weir_wire_connect(fetch->zmq, endpoint, WEIR_SOCKET_TENSOR, fetch->insecure_dev, &run.socket, error);
    if (status != WEIR_OK) return status;
    weir_sha256_init(&run.sha);
    status = read_all(&run, error);
    uint8_t digest[WEIR_SHA256_BYTES];
    weir_sha256_final(&run.sha, digest);
    if (status == WEIR_OK && memcmp(digest, fetch->artefact->digest.data, sizeof digest) != 0) {
        status = weir_fail(error, WEIR_BAD_FILE, "the bytes from %s have another digest", endpoint);
    }
    const int linger_ms = 0;
    zmq_setsockopt(run.socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(run.socket);
    return status;
}
