/* fetch: one whole object from the tensor socket that its artefact names (PROTOCOL.md section 9).
 *
 * Up to WEIR_FETCH_OUTSTANDING_MAX FETCHes are on their way. Their CHUNKs come in the same order, and each must be
 * exactly the part that was asked for; at the end all of them must have the artefact's digest.
 *
 * Memory   borrows everything
 * Errors   BAD_ARGUMENT (endpoint); UNAVAILABLE: nobody is there; TIMEOUT: no answer in time; NOT_FOUND: the peer has it
 *          no more; PROTOCOL: another part than was asked for; BAD_FILE: another digest; CANCELLED by goes_on(); IO; and
 *          what take() says
 * Threads  run() makes a socket of its own, and calls take() and goes_on() itself
 * Blocks   at most first_ms + stall_ms a silent peer; goes_on() is asked at least every 50 ms
 */
#ifndef WEIR_PROTO_FETCH_H
#define WEIR_PROTO_FETCH_H

#include "proto/wire.h"

#define WEIR_FETCH_OUTSTANDING_MAX 4

struct weir_fetch {
    void *zmq;
    const Weir__Pb__Artefact *artefact; /* with endpoint and ticket */
    bool insecure_dev;
    uint32_t first_ms; /* how long the peer may take for its first answer (it may be dead) */
    uint32_t stall_ms; /* ... and between answers */
    /* The next part, which begins at `offset`; nothing is known of its digest yet. */
    enum weir_status (*take)(void *context, uint64_t offset, const void *part, size_t count, struct weir_error *error);
    bool (*goes_on)(void *context);
    void *context;
};

enum weir_status weir_fetch_run(const struct weir_fetch *fetch, struct weir_error *error);

#endif
