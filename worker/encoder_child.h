/* encoder_child: a running weir-encode: started, fed through a pipe, listened to, reaped.
 *
 * The program is a child because FFmpeg is GPL and because a fault in an encoder must not take the worker down. It gets
 * limits of its own, dies with the worker, and what it says on standard error becomes the words of the failure.
 *
 * Errors   by its exit code: 64, 70 INTERNAL; 71 NO_MEMORY; 74 BAD_FILE; 75 IO; killed by a signal INTERNAL; not
 *          there UNSUPPORTED; silent for WEIR_ENCODER_WAIT_MS TIMEOUT; CANCELLED when `cancel` was set
 * Threads  one a child
 */
#ifndef WEIR_WORKER_ENCODER_CHILD_H
#define WEIR_WORKER_ENCODER_CHILD_H

#include "proto/status.h"

#include <stdatomic.h>
#include <stdbool.h>

#define WEIR_ENCODER_WAIT_MS 120000 /* it must read, write or end within */
#define WEIR_ENCODER_TEXT_BYTES 8192

/* Sanitizers reserve terabytes of address space: there --memory-mib cannot be given. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WEIR_ENCODER_LIMITS_MEMORY false
#else
#define WEIR_ENCODER_LIMITS_MEMORY true
#endif

struct weir_encoder_child;

/* words  argv without the program's name, NULL-terminated. cancel may be NULL */
enum weir_status weir_encoder_child_start(const char *program, const char *const *words, const atomic_bool *cancel,
                                          struct weir_encoder_child **out, struct weir_error *error);
/* Feeds its standard input. A child that ended meanwhile is reaped and its words are the error. */
enum weir_status weir_encoder_child_write(struct weir_encoder_child *child, const void *bytes, size_t count,
                                          struct weir_error *error);
/* Closes its input, waits for its end, and frees it. `text` (WEIR_ENCODER_TEXT_BYTES, may be NULL) gets what it printed. */
enum weir_status weir_encoder_child_finish(struct weir_encoder_child **child_p, char *text, struct weir_error *error);
/* Kills and reaps it, if it is there. */
void weir_encoder_child_stop(struct weir_encoder_child **child_p);

#endif
