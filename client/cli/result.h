/* result: a report as JSON, for --json and `weir show`. */
#ifndef WEIR_CLIENT_CLI_RESULT_H
#define WEIR_CLIENT_CLI_RESULT_H

#include "client/weir.h"

/* One line on stdout: job, state, what was asked for, tasks; with `path` also the item's path, sha256, seed, seconds
 * and receipt. path NULL: the whole job. */
void weir_cli_result_json(const struct weir_report *report, uint32_t item, const char *path);
/* The same for people, several lines. */
void weir_cli_result_text(const struct weir_report *report);

#endif
