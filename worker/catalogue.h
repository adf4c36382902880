/* catalogue: what `weir models` prints: every model folder that a name would find, what it is and can do, or why not. */
#ifndef WEIR_WORKER_CATALOGUE_H
#define WEIR_WORKER_CATALOGUE_H

#include "proto/status.h"

#include <stdbool.h>

/* Two lines a model on stdout. verify: every byte of every file is hashed anew, hub blobs' names not believed.
 * Errors  BAD_FILE with `verify`, when a file is not what its name says; all were printed then. A folder that cannot be
 *         used is no error: it is listed with its reason. */
enum weir_status weir_catalogue_print(bool verify, struct weir_error *error);

#endif
