/* cluster: a broker and workers as children of this process, watched by a thread.
 *
 * Everything lies in one directory: ledger.db, store/, and run/ (mode 0700) with the sockets. A dead worker is started
 * again with back-off; a dead broker, or a worker that says its configuration or model is unusable (exit codes 64, 69,
 * 74), ends the cluster: weir_cluster_failed() says why. Children die with this process (PR_SET_PDEATHSIG) and stand in
 * process groups of their own, so that Ctrl-C reaches only us.
 *
 * Threads  one caller; the watching thread is the cluster's own
 */
#ifndef WEIR_CLIENT_CLI_CLUSTER_H
#define WEIR_CLIENT_CLI_CLUSTER_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_CLUSTER_WORKERS_MAX 64

struct weir_cluster_options {
    const char *dir;       /* made when missing */
    const char *model;     /* of every worker; NULL: the default demo model */
    const char *device;    /* "auto", "cpu", ... */
    const char *precision; /* "f32", "bf16"; NULL: f32 */
    const char *workers;   /* "2" or "text=1,denoise=2,decode=1"; NULL: one that does all */
    int64_t threads;       /* of each worker; 0: the cores shared out */
    bool forward_log;      /* children's stderr goes to ours, line by line; else only their last line is kept */
    bool test_timers;
};

struct weir_cluster;

/* Returns when the broker serves; workers may still be loading.
 * Errors  BAD_ARGUMENT (the --workers spec), IO, and what the broker died of */
enum weir_status weir_cluster_start(const struct weir_cluster_options *options, struct weir_cluster **out,
                                    struct weir_error *error);
/* OK while it runs; else why it cannot go on. */
enum weir_status weir_cluster_failed(struct weir_cluster *cluster, struct weir_error *error);
int weir_cluster_worker_count(const struct weir_cluster *cluster);
/* Asks workers, then the broker, to finish; kills what has not ended after a few seconds. */
void weir_cluster_stop(struct weir_cluster **cluster);

#endif
