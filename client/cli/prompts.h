/* prompts: files of many prompts, read line by line as they come; the ending of the name decides the form.
 *
 *   .txt    a prompt a line; blank lines and lines that begin with # are skipped
 *   .jsonl  a JSON object a line: prompt, negative, seed, width, height or size "WxH", steps, guidance,
 *           loras [{"file": PATH, "weight": W}]
 *   .csv    RFC 4180 with a header row that names columns of the same names; loras is PATH[:W];PATH[:W]...
 *
 * UTF-8, with or without a byte order mark, LF or CR LF. What a line does not say is absent. A line that is broken is told
 * by its number, field, value and limit, and costs no other; of a row over several lines the first counts. Paths of LoRAs
 * are as on a command line: from the current directory.
 *
 * Memory   what a prompt points to lives until the callback returns
 * Threads  one a reader
 */
#ifndef WEIR_CLIENT_CLI_PROMPTS_H
#define WEIR_CLIENT_CLI_PROMPTS_H

#include "client/weir.h"

#define WEIR_CLI_PROMPT_LINE_BYTES_MAX 65536 /* also of a row over several lines */
#define WEIR_CLI_PROMPTS_MAX 1000000         /* of one file */

enum weir_cli_prompts_kind { WEIR_CLI_PROMPTS_TXT, WEIR_CLI_PROMPTS_JSONL, WEIR_CLI_PROMPTS_CSV };

struct weir_cli_prompts_sink {
    /* False: enough; the reader ends with INTERRUPTED. */
    bool (*prompt)(void *context, const struct weir_prompt *prompt);
    void (*fault)(void *context, uint32_t line, const struct weir_error *why);
    void *context;
};

/* Errors   BAD_ARGUMENT (another ending), NOT_FOUND, IO, BAD_FILE (a .csv whose header is unusable), TOO_LARGE, NO_MEMORY,
 *          INTERRUPTED; the words begin with the path */
enum weir_status weir_cli_prompts_read(const char *path, const struct weir_cli_prompts_sink *sink,
                                       struct weir_error *error);

/* The same from bytes that come in pieces of any size. Fuzzed. finish() takes the last line, which may lack its end. */
struct weir_cli_prompts;
enum weir_status weir_cli_prompts_open(enum weir_cli_prompts_kind kind, const struct weir_cli_prompts_sink *sink,
                                       struct weir_cli_prompts **out, struct weir_error *error);
enum weir_status weir_cli_prompts_feed(struct weir_cli_prompts *prompts, const void *bytes, size_t count,
                                       struct weir_error *error);
enum weir_status weir_cli_prompts_finish(struct weir_cli_prompts *prompts, struct weir_error *error);
void weir_cli_prompts_close(struct weir_cli_prompts **prompts);

/* "FILE:0.8" is 4 bytes of file and a number behind; without one, all of it and `number` as it was. */
size_t weir_cli_split_number(const char *text, double *number);
/* "WIDTHxHEIGHT", each from 1 to 65536. */
bool weir_cli_size_read(const char *text, uint32_t *width, uint32_t *height);

#endif
