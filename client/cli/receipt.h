/* receipt: what a film or image says of itself (PROTOCOL.md section 10), read by weir-encode, checked here, and turned
 * into the request that makes it again. It comes from outside: nothing in it is believed but its form.
 *
 * Memory   the texts of a receipt live until weir_cli_receipt_destroy()
 * Threads  any
 */
#ifndef WEIR_CLIENT_CLI_RECEIPT_H
#define WEIR_CLIENT_CLI_RECEIPT_H

#include "client/weir.h"

/* A file that the maker of a film or image gave: by its digest until weir_cli_receipt_give() has found it. */
struct weir_cli_receipt_file {
    const char *what, *flag; /* "LoRA", "--lora" */
    const char *digest;      /* 64 hex digits */
    const char *path;        /* or NULL */
};
#define WEIR_CLI_RECEIPT_FILES_MAX 10 /* eight LoRAs, a control image, a start image */

struct weir_cli_receipt {
    struct weir_request request; /* of one item; model NULL, model_digest set */
    struct weir_lora loras[8];
    struct weir_cli_receipt_file files[WEIR_CLI_RECEIPT_FILES_MAX];
    size_t file_count;
    const char *model; /* as the worker that made it called it: a name, never a path that leaves a folder */
    const char *numerics_class, *encoder;
    void *json; /* internal */
};

/* Runs `weir-encode probe --receipt` beside this program. `*text` is free()d.
 * Errors   BAD_FILE (damaged, another kind, no receipt), NOT_FOUND, IO, NO_MEMORY, INTERNAL */
enum weir_status weir_cli_receipt_read(const char *path, char **text, struct weir_error *error);
/* BAD_FILE: no receipt of version 1, or a field of it is missing or of another kind; the words name it and `path`. */
enum weir_status weir_cli_receipt_parse(const char *text, const char *path, struct weir_cli_receipt *out,
                                        struct weir_error *error);
/* Finds, by its SHA-256, which of the files `path` is; it must outlive the receipt.
 * BAD_ARGUMENT: none of this kind. IO, NOT_FOUND */
enum weir_status weir_cli_receipt_give(struct weir_cli_receipt *receipt, const char *flag, const char *path,
                                       struct weir_error *error);
/* Puts the files into the request. BAD_ARGUMENT: one was not given; the words name its digest and flag. */
enum weir_status weir_cli_receipt_complete(struct weir_cli_receipt *receipt, struct weir_error *error);
void weir_cli_receipt_destroy(struct weir_cli_receipt *receipt);

#endif
