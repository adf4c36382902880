/* private: a broker and workers of our own in a temporary directory, and a client of them: what `run` and `verify`
 * stand on. The very same path as a cluster, and nothing left running.
 *
 * Threads  one caller
 */
#ifndef WEIR_CLIENT_CLI_PRIVATE_H
#define WEIR_CLIENT_CLI_PRIVATE_H

#include "client/cli/cluster.h"
#include "client/weir.h"

#include <limits.h>
#include <signal.h>

#define WEIR_CLI_WORKERS_WAIT_MS 300000 /* until a worker has said what it serves */

struct weir_cli_private {
    char folder[PATH_MAX]; /* temporary; removed by stop */
    struct weir_cluster *cluster;
    struct weir_client *client;
    const volatile sig_atomic_t *interrupted;
};

/* `options` without its dir. Returns when the broker serves; workers may still be loading. `out` must stay where it is
 * until stop, which is called whatever start returned.
 * Errors   IO, those of weir_cluster_start and weir_client_open */
enum weir_status weir_cli_private_start(const struct weir_cluster_options *options, struct weir_cli_private *out,
                                        struct weir_error *error);
void weir_cli_private_stop(struct weir_cli_private *own);

/* False after Ctrl-C, or when the cluster cannot go on. */
bool weir_cli_private_goes_on(const struct weir_cli_private *own);
/* Why a call of the client ended with INTERRUPTED, when it was not Ctrl-C; any other status as it is. */
enum weir_status weir_cli_private_explain(const struct weir_cli_private *own, enum weir_status status,
                                          struct weir_error *error);
/* weir_client_submit(), again and again while no worker has said what it serves. */
enum weir_status weir_cli_private_submit(const struct weir_cli_private *own, const struct weir_request *request,
                                         char job[WEIR_JOB_BYTES], struct weir_error *error);

#endif
