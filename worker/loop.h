/* loop: the control thread of a worker: what it says to the broker and to peers, and when.
 *
 * It owns the sockets, never computes and never waits but in poll: leases are renewed, quotes handed to the clerk,
 * cancels passed on by a flag, results repeated until the broker has them, whatever the lanes are doing. When
 * the broker is silent for three heartbeats, HELLO is said again and again with all leases that are still held, and the
 * task in hand goes on.
 *
 * Ends     OK after DRAIN, SIGTERM or SIGINT: what waits was released, what runs was finished or stopped behind a
 *          checkpoint, BYE was said. UNAVAILABLE: no broker for lost_ms_max. PROTOCOL: the broker speaks another
 *          version
 * Threads  the calling thread, which must have SIGTERM, SIGINT and SIGHUP blocked before any thread was made
 */
#ifndef WEIR_WORKER_LOOP_H
#define WEIR_WORKER_LOOP_H

#include "worker/crew.h"
#include "worker/rows.h"

#include <signal.h>

struct weir_loop_options {
    void *zmq;
    const char *broker;
    bool insecure_dev;
    const struct weir_log *log;
    const struct weir_models *models;
    struct weir_device *device;
    struct weir_stages *stages; /* for the lanes' threads */
    struct weir_lanes lanes;
    struct weir_rows *rows;     /* how large batches should be */
    struct weir_quoter *quoter; /* for the clerk */
    struct weir_server *server; /* the tensor socket, bound */
    const char *tensor_endpoint;
    unsigned stage_mask;
    uint64_t lost_ms_max; /* how long to look for a broker that is away */
};

enum weir_status weir_loop_run(const struct weir_loop_options *options, struct weir_error *error);

#endif
