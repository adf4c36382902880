/* collect: what the jobs behind an id made, written into a folder: a file an item, what they are, and a sheet of all.
 *
 *   00017-2.png          line 17 (of the file of prompts, or the prompt's number), item 2 of it; enough zeros for the
 *                        largest; a film of PNGs is a folder of that name
 *   manifest.json        {"weir":1,"id":ID,"items":[...]}: line, index, prompt, seed and file, sha256, bytes of each, or
 *                        its error
 *   contact-sheet.png    of the first 1,000 pictures; none of films
 *
 * Files that are there already with the right bytes stay: what was interrupted goes on.
 * Threads  one caller
 */
#ifndef WEIR_CLIENT_CLI_COLLECT_H
#define WEIR_CLIENT_CLI_COLLECT_H

#include "client/cli/await.h"

#define WEIR_CLI_SHEET_MAX 1000

struct weir_cli_collected {
    uint64_t made, kept, lost; /* kept: of the made ones, what was there already */
    uint64_t open;             /* not made yet: their job has not ended */
    enum weir_status cause;    /* of the first job that did not succeed */
    char words[400];
};

/* folder  made when missing, with what leads to it. Every path, or with `json` an object, goes to stdout, a line an item;
 *         what is lost to stderr.
 * Errors  IO, those of weir_client_show and weir_client_fetch; lost items are none */
enum weir_status weir_cli_collect(struct weir_client *client, const struct weir_cli_jobs *jobs, const char *folder,
                                  bool json, struct weir_cli_collected *out, struct weir_error *error);

#endif
