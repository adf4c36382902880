/* loop: the broker's sockets and clocks; the only file of the broker that has any.
 *
 * One thread: it sleeps in zmq_poll(), takes what has come (at most WEIR_TURN_MESSAGES_MAX messages a turn), and
 * ends the turn with weir_broker_flush(): one transaction, then the sends.
 *
 * Errors   BAD_ARGUMENT, IO (endpoints, in words), BUSY (another broker has the directory), STORE (the ledger
 *          failed), ...
 */
#ifndef WEIR_BROKER_LOOP_H
#define WEIR_BROKER_LOOP_H

#include "broker/broker.h"

struct weir_loop_options {
    const char *ledger_path;
    const char *store_url;
    const char *workers_endpoint, *clients_endpoint;
    bool test_timers, embedded, insecure_dev;
    const struct weir_log *log;
    int stop_fd; /* readable (a signalfd): stop accepting, finish the turn, return */
};

/* Serves until stop_fd is readable. Prints `ready workers=ENDPOINT clients=ENDPOINT` on stdout when it serves. */
enum weir_status weir_loop_run(const struct weir_loop_options *options, struct weir_error *error);

#endif
