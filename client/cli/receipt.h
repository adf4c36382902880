/* receipt: what a film or image says of itself (PROTOCOL.md section 10), read by weir-encode, checked here, and turned
 * into the request that makes it again. It comes from outside: nothing in it is believed but its form.
 *
 * Memory   the texts of a receipt live until weir_cli_receipt_destroy()
 * Threads  any
 */
#ifndef WEIR_CLIENT_CLI_RECEIPT_H
#define WEIR_CLIENT_CLI_RECEIPT_H

#include "client/weir.h"

struct weir_cli_receipt {
    struct weir_request request; /* of one item; model NULL, model_digest set */
    const char *model;           /* as the worker that made it called it: a name, never a path that leaves a folder */
    const char *numerics_class, *encoder;
    void *json; /* internal */
};

/* Runs `weir-encode probe --receipt` beside this program. `*text` is free()d.
 * Errors   BAD_FILE (damaged, another kind, no receipt), NOT_FOUND, IO, NO_MEMORY, INTERNAL */
enum weir_status weir_cli_receipt_read(const char *path, char **text, struct weir_error *error);
/* BAD_FILE: no receipt of version 1, or a field of it is missing or of another kind; the words name it and `path`. */
enum weir_status weir_cli_receipt_parse(const char *text, const char *path, struct weir_cli_receipt *out,
                                        struct weir_error *error);
void weir_cli_receipt_destroy(struct weir_cli_receipt *receipt);

#endif
