/* scratch: a folder of a task's own under the run folder, for what weir-encode reads and writes as files.
 *
 * Named task-<pid>-<16 hex>. close() removes it with all that is in it, on every path; what a kill -9 left is removed by
 * the next worker that starts in the same run folder.
 *
 * Errors   IO in words
 */
#ifndef WEIR_WORKER_SCRATCH_H
#define WEIR_WORKER_SCRATCH_H

#include "proto/status.h"

#define WEIR_SCRATCH_PATH_BYTES 512

struct weir_scratch {
    char path[WEIR_SCRATCH_PATH_BYTES]; /* "": not open */
};

enum weir_status weir_scratch_open(struct weir_scratch *scratch, const char *run_dir, struct weir_error *error);
void weir_scratch_close(struct weir_scratch *scratch);
/* Removes scratch folders and tensor sockets (tensor-<pid>-...) in `run_dir` whose process is gone. */
void weir_scratch_sweep(const char *run_dir);

/* scratch->path, slash, name. */
void weir_scratch_name(const struct weir_scratch *scratch, const char *name, char out[WEIR_SCRATCH_PATH_BYTES]);
enum weir_status weir_scratch_write(const char *path, const void *bytes, size_t count, struct weir_error *error);

#endif
