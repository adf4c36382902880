/* link: how a worker gets what other tasks made, and gives what it made itself.
 *
 * An input is looked for at hand (shelf.h), then asked from the worker that made it over its tensor socket, then read
 * from the store; whatever the road, its digest is checked before anyone sees it, and what lies in the store with another
 * is removed. An output is put in the store first, and only then offered on this worker's tensor socket.
 *
 * Memory   the link borrows zmq, store and shelf, which outlive it
 * Errors   INPUT_LOST when no road has the bytes (each road's words in the log at debug); TOO_LARGE; STORE; NO_MEMORY;
 *          CANCELLED when `cancel` was set meanwhile
 * Threads  get and put belong to one thread; a struct weir_server to the thread of its socket
 * Blocks   get: at most first_ms + stall_ms a silent peer, then as long as the store takes
 */
#ifndef WEIR_WORKER_LINK_LINK_H
#define WEIR_WORKER_LINK_LINK_H

#include "proto/base/log.h"
#include "proto/wire.h"
#include "worker/link/shelf.h"

#include <stdatomic.h>

#define WEIR_LINK_OUTSTANDING_MAX 4 /* FETCHes of one connection */
#define WEIR_LINK_INPUT_BYTES_MAX (UINT64_C(4) << 30)

struct weir_link {
    void *zmq;
    struct weir_store *store;
    struct weir_shelf *shelf;
    const struct weir_log *log;
    const char *endpoint; /* this worker's tensor socket, for peers */
    bool insecure_dev;
    uint32_t first_ms;         /* how long a peer may take for its first answer (it may be dead) */
    uint32_t stall_ms;         /* ... and between answers */
    const atomic_bool *cancel; /* of the task that runs; may be NULL */
};

/* What a task made, as DONE will tell it. */
struct weir_output {
    char name[65];
    const char *media_type; /* of a literal's life */
    uint8_t digest[WEIR_SHA256_BYTES];
    uint64_t bytes;
    char key[WEIR_KEY_BYTES];
    uint8_t ticket[WEIR_TICKET_BYTES];
    bool is_offered;
};

/* The input's bytes; free(*out). The key in the store is built from tenant, task and digest, never taken from outside. */
enum weir_status weir_link_get(struct weir_link *link, const char *tenant, const Weir__Pb__Input *input, void **out,
                               size_t *out_bytes, struct weir_error *error);

/* What a client gave with its request, from the store, its digest checked; free(*out). The shelf keeps it at hand.
 * Errors   NOT_FOUND in words that name the file, TOO_LARGE over bytes_max, STORE, NO_MEMORY, BAD_FILE (other bytes) */
enum weir_status weir_link_get_file(struct weir_link *link, const char *tenant, const Weir__Pb__FileRef *file,
                                    size_t bytes_max, void **out, size_t *out_bytes, struct weir_error *error);

/* Durable when this returns; name: at most 64 bytes. */
enum weir_status weir_link_put(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                               const char *name, const char *media_type, const void *bytes, size_t count,
                               struct weir_output *out, struct weir_error *error);
/* What other tasks take, and nobody else: after a crash of the machine it may be gone, and is made again (INPUT_LOST). */
enum weir_status weir_link_put_remakeable(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                                          const char *name, const char *media_type, const void *bytes, size_t count,
                                          struct weir_output *out, struct weir_error *error);
enum weir_status weir_link_put_file(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                                    const char *name, const char *media_type, const char *path, struct weir_output *out,
                                    struct weir_error *error);

/* One whole object from one peer into `buffer` of exactly `bytes`; nothing is checked but sizes.
 * Errors   UNAVAILABLE, TIMEOUT (no answer in time), NOT_FOUND (refused), PROTOCOL, CANCELLED, IO */
struct weir_fetch {
    const char *endpoint;
    const uint8_t *digest, *ticket;
    uint64_t bytes;
};
enum weir_status weir_link_fetch(struct weir_link *link, const struct weir_fetch *fetch, uint8_t *buffer,
                                 struct weir_error *error);

/* The other end of it: answers what waits on a tensor ROUTER, at most `turns` messages. Returns how many there were. */
struct weir_server {
    void *socket;
    struct weir_shelf *shelf;
    uint64_t sequence;
    uint8_t *chunk; /* WEIR_WIRE_CHUNK_BYTES_MAX bytes */
};
unsigned weir_server_turn(struct weir_server *server, unsigned turns);

#endif
