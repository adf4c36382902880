/* mapping: a file mapped read-only, known to the guard that explains a SIGBUS.
 *
 * Memory   init maps the whole file; the descriptor stays the caller's and may be closed after it
 * Errors   IO, NO_MEMORY; an empty file is a mapping of no bytes
 * Threads  any; the guard's table is process-wide, because a signal handler is given nothing else to look at
 */
#ifndef WEIR_WORKER_MAPPING_H
#define WEIR_WORKER_MAPPING_H

#include "proto/status.h"

/* Mappings the guard can name; one more is mapped all the same, and its SIGBUS stays bare. */
#define WEIR_MAPPINGS_GUARDED_MAX 1024

struct weir_mapping {
    const void *bytes;
    size_t count;
    int guard; /* its row of the guard's table, or -1 */
};

enum weir_status weir_mapping_init(struct weir_mapping *mapping, int fd, const char *label, struct weir_error *error);
void weir_mapping_deinit(struct weir_mapping *mapping);

#endif
