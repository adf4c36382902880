/* batch: a file of prompts becomes a batch and is handed over; what single lines are refused for is told in the end.
 *
 * Threads  one caller
 */
#ifndef WEIR_CLIENT_CLI_BATCH_H
#define WEIR_CLIENT_CLI_BATCH_H

#include "client/weir.h"

#define WEIR_CLI_EXIT_PARTLY 3   /* some prompts or items could not be made, the others were */
#define WEIR_CLI_FAULTS_MAX 1000 /* told one by one; more are counted */

struct weir_cli_fault {
    uint32_t line;
    char *words;
};
struct weir_cli_batch {
    const char *path; /* of the file */
    struct weir_batch *batch;
    struct weir_cli_fault faults[WEIR_CLI_FAULTS_MAX];
    size_t fault_count;
    uint64_t faults_all, prompts;
    struct weir_error failed; /* what ends the reading */
    bool quiet, terminal, shown;
};

/* Reads `path` into a batch; files that lines name are uploaded. `out` is large: not on a small stack. close() it whatever
 * came. An error is one of the file as a whole, or that none of its lines is usable; tell() says what single lines lack. */
enum weir_status weir_cli_batch_read(struct weir_client *client, const struct weir_request *request, const char *key,
                                     const char *path, struct weir_cli_batch *out, struct weir_error *error);
/* Hands it over, shows progress. While nobody serves the model, `more` says whether to try again. */
typedef bool weir_cli_more(void *context, uint64_t waited_ms);
enum weir_status weir_cli_batch_submit(struct weir_client *client, struct weir_cli_batch *batch, bool quiet,
                                       weir_cli_more *more, void *context, struct weir_error *error);
/* What a person calls it by: the batch's id, or that of its only job. NULL: nothing was accepted. */
const char *weir_cli_batch_name(const struct weir_cli_batch *batch);
/* Every fault on stderr, by line: "prompts.csv:17: steps 0: ...". False when there is none. */
bool weir_cli_batch_tell(struct weir_cli_batch *batch);
void weir_cli_batch_close(struct weir_cli_batch *batch);

#endif
