#include "proto/wire.h"

#include "proto/base/bytes.h"
#include "proto/wire_limits.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

/* ---- types ---------------------------------------------------------------------------------------------------- */

enum {
    W = WEIR_DIRECTION_W,
    B = WEIR_DIRECTION_B,
    C = WEIR_DIRECTION_C,
    A = WEIR_DIRECTION_A,
    F = WEIR_DIRECTION_F,
    T = WEIR_DIRECTION_T,
    WBCA = W | B | C | A,
    AT = A | T,
};

struct type_row {
    const char *name;
    const ProtobufCMessageDescriptor *body;
    unsigned direction;
};

enum { TYPES = 96 };
static const struct type_row types[TYPES] = {
#define X(NAME, number, body, direction) [number] = { #NAME, &weir__pb__##body##__descriptor, direction },
    WEIR_MESSAGE_TABLE(X)
#undef X
};

const char *weir_message_name(uint32_t type)
{
    return type < TYPES && types[type].name ? types[type].name : "?";
}

/* ---- CRC32C ----------------------------------------------------------------------------------------------------- */

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *bytes, size_t count)
{
    uint64_t wide = crc;
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count; bytes++, count--) crc = __builtin_ia32_crc32qi(crc, *bytes);
    return crc;
}

static uint32_t crc32c_plain(uint32_t crc, const uint8_t *bytes, size_t count)
{
    for (; count; bytes++, count--) {
        crc ^= *bytes;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1u)));
    }
    return crc;
}

static uint32_t crc32c(const void *bytes, size_t count)
{
    const uint32_t start = 0xffffffffu;
    return ~(__builtin_cpu_supports("sse4.2") ? crc32c_sse42(start, bytes, count) : crc32c_plain(start, bytes, count));
}

/* ---- memory of a decoded body ------------------------------------------------------------------------------------ */

/* A chain of blocks with a budget. protobuf-c allocates from it; everything goes at once. */
struct block {
    struct block *next;
};
struct arena {
    ProtobufCAllocator allocator; /* first: so that one pointer is both */
    struct block *blocks;
    size_t left;
};

static void *arena_alloc(void *context, size_t bytes)
{
    struct arena *arena = context;
    if (bytes > arena->left) return NULL;
    struct block *block = calloc(1, sizeof *block + bytes);
    if (!block) return NULL;
    arena->left -= bytes;
    block->next = arena->blocks;
    arena->blocks = block;
    return block + 1;
}

static void arena_free(void *context, void *memory)
{
    (void)context; /* the whole arena goes at once */
    (void)memory;
}

static struct arena *arena_create(size_t budget)
{
    struct arena *arena = calloc(1, sizeof *arena);
    if (!arena) return NULL;
    arena->allocator = (ProtobufCAllocator){ arena_alloc, arena_free, arena };
    arena->left = budget;
    return arena;
}

static void arena_destroy(struct arena *arena)
{
    for (struct block *block = arena ? arena->blocks : NULL; block;) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    free(arena);
}

void weir_message_release(struct weir_message *message)
{
    arena_destroy(message->arena);
    message->arena = NULL;
    message->body.base = NULL;
}

/* ---- bytes <-> messages -------------------------------------------------------------------------------------------- */


void weir_wire_header(enum weir_message_type type, uint64_t sequence, const void *body, size_t body_bytes,
                      uint8_t out[WEIR_WIRE_HEADER_BYTES])
{
    memcpy(out, "WEIR", 4);
    weir_store_u32(out + 4, WEIR_WIRE_VERSION | (uint32_t)type << 16);
    weir_store_u32(out + 8, 0);
    weir_store_u32(out + 12, (uint32_t)body_bytes);
    weir_store_u64(out + 16, sequence);
    weir_store_u32(out + 24, crc32c(body, body_bytes));
    weir_store_u32(out + 28, 0);
}

static enum weir_status check_header(const uint8_t *header, size_t header_bytes, const void *body, size_t body_bytes,
                                     struct weir_error *error)
{
    if (header_bytes != WEIR_WIRE_HEADER_BYTES) {
        return weir_fail(error, WEIR_PROTOCOL, "a header of %zu bytes, not %d", header_bytes, WEIR_WIRE_HEADER_BYTES);
    }
    if (memcmp(header, "WEIR", 4) != 0) return weir_fail(error, WEIR_PROTOCOL, "the magic is not WEIR");
    if (weir_load_u16(header + 4) != WEIR_WIRE_VERSION) {
        return weir_fail(error, WEIR_PROTOCOL, "version %u, spoken is %d", weir_load_u16(header + 4), WEIR_WIRE_VERSION);
    }
    if (weir_load_u32(header + 12) != body_bytes) {
        return weir_fail(error, WEIR_PROTOCOL, "a body of %zu bytes, the header says %u", body_bytes,
                         weir_load_u32(header + 12));
    }
    if (weir_load_u32(header + 8) != 0 || weir_load_u32(header + 28) != 0) {
        return weir_fail(error, WEIR_PROTOCOL, "flags or reserved bytes are not 0");
    }
    if (weir_load_u32(header + 24) != crc32c(body, body_bytes)) {
        return weir_fail(error, WEIR_PROTOCOL, "the body's checksum is another one");
    }
    return WEIR_OK;
}

enum weir_status weir_wire_decode(const void *header, size_t header_bytes, const void *body, size_t body_bytes,
                                  unsigned accepts, struct weir_message *out, uint32_t *type_seen,
                                  struct weir_error *error)
{
    out->body.base = NULL;
    out->arena = NULL;
    *type_seen = 0;
    if (body_bytes > WEIR_WIRE_TENSOR_BYTES_MAX) {
        return weir_fail(error, WEIR_PROTOCOL, "a body of %zu bytes, at most %u", body_bytes, WEIR_WIRE_TENSOR_BYTES_MAX);
    }
    enum weir_status status = check_header(header, header_bytes, body, body_bytes, error);
    if (status != WEIR_OK) return status;

    const uint32_t type = weir_load_u16((const uint8_t *)header + 6);
    *type_seen = type;
    if (type >= TYPES || !types[type].name || !(types[type].direction & accepts)) {
        return weir_fail(error, WEIR_UNSUPPORTED, "message type %u (%s) is not taken here", type, weir_message_name(type));
    }
    if (type != WEIR_MESSAGE_CHUNK && body_bytes > WEIR_WIRE_CONTROL_BYTES_MAX) {
        return weir_fail(error, WEIR_PROTOCOL, "%s of %zu bytes, at most %u", types[type].name, body_bytes,
                         WEIR_WIRE_CONTROL_BYTES_MAX);
    }

    struct arena *arena = arena_create(4096 + WEIR_WIRE_GROWTH * body_bytes);
    if (!arena) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a message of %zu bytes", body_bytes);
    ProtobufCMessage *decoded = protobuf_c_message_unpack(types[type].body, &arena->allocator, body_bytes, body);
    if (!decoded) {
        status = weir_fail(error, WEIR_PROTOCOL, "%s: the body is no such message", types[type].name);
    } else {
        status = weir_wire_limits_check(decoded, error);
    }
    if (status != WEIR_OK) {
        arena_destroy(arena);
        return status;
    }
    out->type = (enum weir_message_type)type;
    out->body.base = decoded;
    out->arena = arena;
    return WEIR_OK;
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

static enum weir_status send_failed(int code, struct weir_error *error)
{
    const bool away = code == EHOSTUNREACH || code == EAGAIN;
    return weir_fail(error, away ? WEIR_UNAVAILABLE : WEIR_IO, "sending: %s", zmq_strerror(code));
}

static int send_bytes(void *socket, const void *bytes, size_t count, int flags)
{
    int sent;
    do {
        sent = zmq_send(socket, bytes, count, flags | ZMQ_DONTWAIT);
    } while (sent < 0 && zmq_errno() == EINTR);
    return sent;
}

enum weir_status weir_wire_send(void *socket, const struct weir_routing *to, enum weir_message_type type,
                                uint64_t sequence, const ProtobufCMessage *body, struct weir_error *error)
{
    assert(types[type].body == body->descriptor);
    const size_t body_bytes = protobuf_c_message_get_packed_size(body);
    const size_t bytes_max = type == WEIR_MESSAGE_CHUNK ? WEIR_WIRE_TENSOR_BYTES_MAX : WEIR_WIRE_CONTROL_BYTES_MAX;
    if (body_bytes > bytes_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s of %zu bytes, at most %zu travel", types[type].name, body_bytes,
                         bytes_max);
    }
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, body_bytes) != 0) {
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a message of %zu bytes", body_bytes);
    }
    protobuf_c_message_pack(body, zmq_msg_data(&frame));
    uint8_t header[WEIR_WIRE_HEADER_BYTES];
    weir_wire_header(type, sequence, zmq_msg_data(&frame), body_bytes, header);

    /* Once the first frame is taken, the rest of the message is: only the first can be refused. */
    if (to && send_bytes(socket, to->bytes, to->length, ZMQ_SNDMORE) < 0) goto refused;
    if (send_bytes(socket, header, sizeof header, ZMQ_SNDMORE) < 0) goto refused;
    if (zmq_msg_send(&frame, socket, ZMQ_DONTWAIT) < 0) goto refused;
    return WEIR_OK;

refused:;
    const int code = zmq_errno();
    zmq_msg_close(&frame);
    return send_failed(code, error);
}

enum { FRAMES_MAX = 3 };

/* All frames of one message; those over FRAMES_MAX are read away. Returns how many there were, -1 when none. */
static int receive_frames(void *socket, zmq_msg_t frames[FRAMES_MAX])
{
    int count = 0;
    for (int more = 1; more;) {
        zmq_msg_t spare, *frame = count < FRAMES_MAX ? &frames[count] : &spare;
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(frame);
            if (zmq_errno() == EINTR) continue;
            return count ? count : -1;
        }
        more = zmq_msg_more(frame);
        if (frame == &spare) zmq_msg_close(&spare);
        count++;
    }
    return count;
}

enum weir_status weir_wire_receive(void *socket, bool router, unsigned accepts, struct weir_message *out,
                                   uint32_t *type_seen, struct weir_error *error)
{
    zmq_msg_t frames[FRAMES_MAX];
    out->body.base = NULL;
    out->arena = NULL;
    out->from.length = 0;
    *type_seen = 0;
    const int count = receive_frames(socket, frames), wanted = router ? 3 : 2;
    if (count < 0) return weir_fail(error, WEIR_TIMEOUT, "no message is there");

    if (router) {
        const size_t length = zmq_msg_size(&frames[0]);
        assert(length <= WEIR_ROUTING_BYTES_MAX); /* libzmq's own bound */
        out->from.length = (uint8_t)length;
        memcpy(out->from.bytes, zmq_msg_data(&frames[0]), length);
    }
    enum weir_status status;
    if (count != wanted) {
        status = weir_fail(error, WEIR_PROTOCOL, "a message of %d frames, %d are wanted", router ? count - 1 : count, 2);
    } else {
        zmq_msg_t *header = &frames[wanted - 2], *body = &frames[wanted - 1];
        status = weir_wire_decode(zmq_msg_data(header), zmq_msg_size(header), zmq_msg_data(body), zmq_msg_size(body),
                                  accepts, out, type_seen, error);
    }
    for (int i = 0; i < count && i < FRAMES_MAX; i++) zmq_msg_close(&frames[i]);
    return status;
}

/* The endpoint's rules: PROTOCOL.md section 3. */
static enum weir_status check_endpoint(const char *endpoint, bool binds, bool insecure_dev, struct weir_error *error)
{
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        const char *path = endpoint + 6;
        if (path[0] != '/') return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: an absolute path is wanted", endpoint);
        if (strlen(path) > 107) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: a socket path of %zu bytes, at most 107 are possible", endpoint,
                             strlen(path));
        }
        if (!binds) return WEIR_OK;
        char folder[PATH_MAX];
        const char *slash = strrchr(path, '/');
        snprintf(folder, sizeof folder, "%.*s", (int)(slash == path ? 1 : slash - path), path);
        struct stat facts;
        if (stat(folder, &facts) != 0) return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: %s", folder, strerror(errno));
        if (facts.st_uid != geteuid() || (facts.st_mode & 077) != 0) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: sockets want a directory of their own with mode 0700", folder);
        }
        return WEIR_OK;
    }
    if (strncmp(endpoint, "tcp://127.0.0.1:", 16) == 0 || strncmp(endpoint, "tcp://[::1]:", 12) == 0) {
        if (insecure_dev) return WEIR_OK;
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: TCP is not encrypted yet; --insecure-dev allows it on loopback",
                         endpoint);
    }
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: ipc:///PATH is wanted, or tcp://127.0.0.1:PORT with --insecure-dev",
                     endpoint);
}

static void set_int(void *socket, int option, int value)
{
    const int failed = zmq_setsockopt(socket, option, &value, sizeof value);
    assert(!failed);
    (void)failed;
}

static void set_options(void *socket, enum weir_socket_kind kind, bool binds)
{
    const int64_t bytes_max =
        (kind == WEIR_SOCKET_TENSOR ? (int64_t)WEIR_WIRE_TENSOR_BYTES_MAX : (int64_t)WEIR_WIRE_CONTROL_BYTES_MAX) + 64;
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &bytes_max, sizeof bytes_max);
    if (binds) set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    set_int(socket, ZMQ_SNDHWM, kind == WEIR_SOCKET_TENSOR ? 16 : binds ? 1000 : 64);
    set_int(socket, ZMQ_RCVHWM, kind == WEIR_SOCKET_TENSOR ? 16 : binds ? 1000 : 64);
    if (!binds) set_int(socket, ZMQ_IMMEDIATE, 1);
    set_int(socket, ZMQ_HEARTBEAT_IVL, 1000);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, 3000);
    set_int(socket, ZMQ_HEARTBEAT_TTL, 4000);
    set_int(socket, ZMQ_HANDSHAKE_IVL, 5000);
    set_int(socket, ZMQ_RECONNECT_IVL, 100);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, 2000);
    set_int(socket, ZMQ_LINGER, 500);
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
}

static enum weir_status open_socket(void *zmq, const char *endpoint, enum weir_socket_kind kind, bool binds,
                                    bool insecure_dev, void **out, struct weir_error *error)
{
    *out = NULL;
    const enum weir_status status = check_endpoint(endpoint, binds, insecure_dev, error);
    if (status != WEIR_OK) return status;
    void *socket = zmq_socket(zmq, binds ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!socket) return weir_fail(error, WEIR_IO, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
    set_options(socket, kind, binds);
    if ((binds ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint)) != 0) {
        const int code = zmq_errno();
        zmq_close(socket);
        return weir_fail(error, WEIR_IO, "%s: %s", endpoint, zmq_strerror(code));
    }
    *out = socket;
    return WEIR_OK;
}

enum weir_status weir_wire_bind(void *zmq, const char *endpoint, enum weir_socket_kind kind, bool insecure_dev,
                                void **out, char bound[WEIR_ENDPOINT_BYTES], struct weir_error *error)
{
    const enum weir_status status = open_socket(zmq, endpoint, kind, true, insecure_dev, out, error);
    if (status != WEIR_OK || !bound) return status;
    size_t bytes = WEIR_ENDPOINT_BYTES;
    if (zmq_getsockopt(*out, ZMQ_LAST_ENDPOINT, bound, &bytes) != 0) {
        zmq_close(*out);
        *out = NULL;
        return weir_fail(error, WEIR_IO, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
    }
    return WEIR_OK;
}

enum weir_status weir_wire_connect(void *zmq, const char *endpoint, enum weir_socket_kind kind, bool insecure_dev,
                                   void **out, struct weir_error *error)
{
    return open_socket(zmq, endpoint, kind, false, insecure_dev, out, error);
}
