/* model_places: where models may lie, and what a NAME or a path leads to.
 *
 * Memory   texts are the struct's own
 * Errors   NOT_FOUND (words list where was looked), CONFLICT (a NAME of two ORGs in the hub cache), TOO_LARGE,
 *          NO_MEMORY
 * Threads  reads the environment: not beside setenv
 */
#ifndef WEIR_WORKER_MODEL_PLACES_H
#define WEIR_WORKER_MODEL_PLACES_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_MODEL_PLACES_MAX 32

/* A found model, as weir_folder_init wants it. */
struct weir_model_place {
    char *root;   /* absolute, without symlinks */
    char *inside; /* of the root: "", "snapshots/REVISION" in a hub cache, or the folder's name when it has links into a
                     sibling that is a model folder itself: the root then holds both */
    bool hub;
};

enum weir_status weir_model_place_find(const char *dir_or_name, struct weir_model_place *out, struct weir_error *error);
void weir_model_place_deinit(struct weir_model_place *place);

/* As weir_model_dir_list. */
void weir_model_places_list(void (*each)(void *context, const char *name, const char *path), void *context);

/* ^[a-z0-9][a-z0-9._-]{0,63}$ */
bool weir_model_name_is_valid(const char *name);

#endif
