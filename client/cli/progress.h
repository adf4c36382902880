/* progress: what a person sees while a job runs: a bar on a terminal, a line a change in a pipe. Always on stderr. */
#ifndef WEIR_CLIENT_CLI_PROGRESS_H
#define WEIR_CLIENT_CLI_PROGRESS_H

#include "client/weir.h"

struct weir_cli_progress {
    const char *label;   /* in front of every line: "1/3", or "" */
    bool quiet, terminal;
    bool shown;          /* a bar stands on the terminal's last line */
    const char *stage;
    uint32_t index, step_printed;
    uint64_t first_step_ms; /* when the first step of this task was seen, for the remaining time */
    uint32_t first_step;
};

void weir_cli_progress_init(struct weir_cli_progress *progress, const char *label, bool quiet);
/* For weir_client_wait; always true. */
bool weir_cli_progress_show(void *context, const struct weir_progress *event);
/* Removes the bar. */
void weir_cli_progress_clear(struct weir_cli_progress *progress);

#endif
