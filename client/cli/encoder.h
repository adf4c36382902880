/* encoder: `weir-encode` beside this program, run once: whatever pictures and films are is its business alone.
 *
 * Blocks   until it ends
 * Threads  any
 */
#ifndef WEIR_CLIENT_CLI_ENCODER_H
#define WEIR_CLIENT_CLI_ENCODER_H

#include "proto/status.h"

#include <stdbool.h>

/* Sanitizers reserve terabytes of address space: there --memory-mib cannot be given. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WEIR_CLI_ENCODER_LIMITS "--cpu-seconds", "60"
#else
#define WEIR_CLI_ENCODER_LIMITS "--cpu-seconds", "60", "--memory-mib", "4096"
#endif

/* arguments  what follows the program's name, up to a NULL
 * folder     where it runs; NULL: here
 * text       holds text_bytes + 1: what it said on standard output, and a NUL; `*over`: there was more
 * path       for messages
 * Errors     as its exit code says: BAD_ARGUMENT, BAD_FILE, IO, NO_MEMORY, INTERNAL, in its words */
enum weir_status weir_cli_encoder_run(const char *const *arguments, const char *folder, char *text, size_t text_bytes,
                                      bool *over, const char *path, struct weir_error *error);

#endif
