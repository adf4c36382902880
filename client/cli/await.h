/* await: the jobs behind an id, of one job or of a batch, and waiting for all of them with one line of progress.
 *
 * Threads  one caller
 */
#ifndef WEIR_CLIENT_CLI_AWAIT_H
#define WEIR_CLIENT_CLI_AWAIT_H

#include "client/weir.h"

struct weir_cli_jobs {
    char id[WEIR_JOB_BYTES]; /* as asked for */
    bool is_batch, is_list;  /* is_list: of a list of prompts, as every batch is */
    size_t count;
    struct weir_job_line *lines; /* by part; of a job alone only `job` is set */
};

/* A job's id, or a batch's. destroy() it after OK. Errors: NOT_FOUND, those of weir_client_show. */
enum weir_status weir_cli_jobs_find(struct weir_client *client, const char *id, struct weir_cli_jobs *out,
                                    struct weir_error *error);
void weir_cli_jobs_destroy(struct weir_cli_jobs *jobs);

struct weir_cli_awaited {
    uint64_t items, made;
    uint64_t ready, lost;   /* of jobs that have ended: can be fetched, will never be made */
    bool image, ended;      /* every job is terminal */
    const char *state;      /* "succeeded", else the first other one */
    enum weir_status cause; /* of the first that did not succeed */
    char words[400];
};

/* Returns when every job is terminal. Progress goes to stderr. `goes_on` is asked ten times a second: false is
 * INTERRUPTED, and the jobs go on. That jobs fail is no error of this call. */
enum weir_status weir_cli_await(struct weir_client *client, const struct weir_cli_jobs *jobs, bool quiet,
                                weir_on_idle *goes_on, void *context, struct weir_cli_awaited *out,
                                struct weir_error *error);

#endif
