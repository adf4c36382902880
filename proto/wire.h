/* wire: ZeroMQ frames <-> messages. Every size limit of the protocol is checked here, once.
 *
 * A message is two frames: a 32-byte header and a protobuf body (PROTOCOL.md section 2). On a ROUTER the routing id
 * comes before them. Nothing that arrives is trusted: lengths are checked before anything is allocated, a body may use
 * at most WEIR_WIRE_GROWTH times its own size of memory, every text, bytes and repeated field has its limit, texts are
 * UTF-8 without NUL, ids, tokens and digests have exactly their size.
 *
 * Memory   a decoded message owns its body; weir_message_release() frees it
 * Threads  a socket belongs to one thread; the rest is pure
 */
#ifndef WEIR_PROTO_WIRE_H
#define WEIR_PROTO_WIRE_H

#include "proto/status.h"
#include "proto/weir.pb-c.h"

#include <stdbool.h>

#define WEIR_WIRE_VERSION 1
#define WEIR_WIRE_HEADER_BYTES 32
#define WEIR_WIRE_CONTROL_BYTES_MAX (1u << 20)
#define WEIR_WIRE_TENSOR_BYTES_MAX (8u << 20)
#define WEIR_WIRE_CHUNK_BYTES_MAX (4u << 20)
#define WEIR_WIRE_GROWTH 64
#define WEIR_ROUTING_BYTES_MAX 255

/* Who sends it: X(NAME, number, body message in C, direction). Directions: W worker->broker, B broker->worker,
 * C client->broker, A broker->client, F to a tensor socket, T from a tensor socket. */
#define WEIR_MESSAGE_TABLE(X)                                                                                          \
    X(HELLO, 1, hello, W)                                                                                              \
    X(PING, 2, ping, WBCA)                                                                                             \
    X(PONG, 3, pong, WBCA)                                                                                             \
    X(CREDIT, 4, credit, W)                                                                                            \
    X(RENEW, 5, renew, W)                                                                                              \
    X(DONE, 6, done, W)                                                                                                \
    X(FAIL, 7, fail, W)                                                                                                \
    X(RELEASE, 8, release, W)                                                                                          \
    X(QUOTED, 9, quoted, W)                                                                                            \
    X(BYE, 10, bye, W)                                                                                                 \
    X(WHO, 20, who, B)                                                                                                 \
    X(WELCOME, 21, welcome, B)                                                                                         \
    X(LEASE, 22, lease, B)                                                                                             \
    X(LEASE_OK, 23, lease_ok, B)                                                                                       \
    X(RENEW_ACK, 24, renew_ack, B)                                                                                     \
    X(DONE_ACK, 25, done_ack, B)                                                                                       \
    X(FAIL_ACK, 26, fail_ack, B)                                                                                       \
    X(RELEASE_ACK, 27, release_ack, B)                                                                                 \
    X(CANCEL, 28, cancel, B)                                                                                           \
    X(STALE, 29, stale, B)                                                                                             \
    X(DRAIN, 30, drain, B)                                                                                             \
    X(QUOTE, 31, quote, B)                                                                                             \
    X(UNSUPPORTED, 32, unsupported, WBCA)                                                                              \
    X(SUBMIT, 40, submit, C)                                                                                           \
    X(SHOW, 41, show, C)                                                                                               \
    X(LIST, 42, list, C)                                                                                               \
    X(CANCEL_JOB, 43, cancel_job, C)                                                                                   \
    X(WATCH, 44, watch, C)                                                                                             \
    X(STATUS, 45, status, C)                                                                                           \
    X(ACCEPTED, 60, accepted, A)                                                                                       \
    X(REFUSED, 61, refused, AT)                                                                                        \
    X(JOB_VIEW, 62, job_view, A)                                                                                       \
    X(JOBS, 63, jobs, A)                                                                                               \
    X(EVENT, 64, event, A)                                                                                             \
    X(STATUS_VIEW, 65, status_view, A)                                                                                 \
    X(FETCH, 80, fetch, F)                                                                                             \
    X(CHUNK, 81, chunk, T)

enum weir_message_type {
#define X(NAME, number, body, direction) WEIR_MESSAGE_##NAME = number,
    WEIR_MESSAGE_TABLE(X)
#undef X
};
const char *weir_message_name(uint32_t type); /* "HELLO"; "?" */

/* What a socket accepts: an "or" of these. */
enum weir_direction {
    WEIR_DIRECTION_W = 1,
    WEIR_DIRECTION_B = 2,
    WEIR_DIRECTION_C = 4,
    WEIR_DIRECTION_A = 8,
    WEIR_DIRECTION_F = 16,
    WEIR_DIRECTION_T = 32,
};

struct weir_routing {
    uint8_t length; /* 0 on sockets that are no ROUTER */
    uint8_t bytes[WEIR_ROUTING_BYTES_MAX];
};

struct weir_message {
    enum weir_message_type type;
    struct weir_routing from;
    union {
        const ProtobufCMessage *base; /* NULL when released */
        const Weir__Pb__Hello *hello;
        const Weir__Pb__Ping *ping;
        const Weir__Pb__Pong *pong;
        const Weir__Pb__Credit *credit;
        const Weir__Pb__Renew *renew;
        const Weir__Pb__Done *done;
        const Weir__Pb__Fail *fail;
        const Weir__Pb__Release *release;
        const Weir__Pb__Quoted *quoted;
        const Weir__Pb__Welcome *welcome;
        const Weir__Pb__Lease *lease;
        const Weir__Pb__LeaseOk *lease_ok;
        const Weir__Pb__RenewAck *renew_ack;
        const Weir__Pb__DoneAck *done_ack;
        const Weir__Pb__FailAck *fail_ack;
        const Weir__Pb__ReleaseAck *release_ack;
        const Weir__Pb__Cancel *cancel;
        const Weir__Pb__Stale *stale;
        const Weir__Pb__Quote *quote;
        const Weir__Pb__Unsupported *unsupported;
        const Weir__Pb__Submit *submit;
        const Weir__Pb__Show *show;
        const Weir__Pb__List *list;
        const Weir__Pb__CancelJob *cancel_job;
        const Weir__Pb__Watch *watch;
        const Weir__Pb__Status *status;
        const Weir__Pb__Accepted *accepted;
        const Weir__Pb__Refused *refused;
        const Weir__Pb__JobView *job_view;
        const Weir__Pb__Jobs *jobs;
        const Weir__Pb__Event *event;
        const Weir__Pb__StatusView *status_view;
        const Weir__Pb__Fetch *fetch;
        const Weir__Pb__Chunk *chunk;
    } body;
    void *arena; /* the body's memory */
};

/* Header and body as bytes, without a socket: what receive() does with what came in. Fuzzed.
 * accepts  "or" of enum weir_direction
 * Errors   PROTOCOL in words (nothing is allocated then); UNSUPPORTED for a well-formed message of unknown type or
 *          another direction: `*type_seen` says which, so that UNSUPPORTED can be answered */
enum weir_status weir_wire_decode(const void *header, size_t header_bytes, const void *body, size_t body_bytes,
                                  unsigned accepts, struct weir_message *out, uint32_t *type_seen,
                                  struct weir_error *error);
void weir_message_release(struct weir_message *message);

/* Fills the header for a packed body. */
void weir_wire_header(enum weir_message_type type, uint64_t sequence, const void *body, size_t body_bytes,
                      uint8_t out[WEIR_WIRE_HEADER_BYTES]);

/* Sends one message, never blocks. `to` is NULL on a DEALER. `sequence` is counted up by the caller's connection.
 * Errors   UNAVAILABLE (no such peer, or its queue is full: EHOSTUNREACH, EAGAIN), IO. A success proves nothing
 *          about arrival. */
enum weir_status weir_wire_send(void *socket, const struct weir_routing *to, enum weir_message_type type,
                                uint64_t sequence, const ProtobufCMessage *body, struct weir_error *error);

/* Takes one message if one is there, never blocks. Every frame of a malformed one is read away.
 * Errors   TIMEOUT (nothing there), PROTOCOL, UNSUPPORTED; out->from is set for the last two as well */
enum weir_status weir_wire_receive(void *socket, bool router, unsigned accepts, struct weir_message *out,
                                   uint32_t *type_seen, struct weir_error *error);

/* A socket with the options of PROTOCOL.md section 3 (mandatory routing, HWM, heartbeats, MAXMSGSIZE, linger), bound or
 * connected. type is ZMQ_ROUTER or ZMQ_DEALER.
 * endpoint  ipc://PATH (at most 107 bytes of path) or tcp://127.0.0.1:PORT, tcp://[::1]:PORT with `insecure_dev`;
 *           anything else without CURVE is refused. tcp port `*` on bind: *bound (WEIR_ENDPOINT_BYTES, may be NULL)
 *           says what was taken
 * Errors    BAD_ARGUMENT (endpoint, in words), IO (errno's words) */
#define WEIR_ENDPOINT_BYTES 128
enum weir_socket_kind { WEIR_SOCKET_CONTROL, WEIR_SOCKET_TENSOR };
enum weir_status weir_wire_bind(void *zmq, const char *endpoint, enum weir_socket_kind kind, bool insecure_dev,
                                void **out, char bound[WEIR_ENDPOINT_BYTES], struct weir_error *error);
enum weir_status weir_wire_connect(void *zmq, const char *endpoint, enum weir_socket_kind kind, bool insecure_dev,
                                   void **out, struct weir_error *error);

#endif
