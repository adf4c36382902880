/* models: the model folders this worker serves: understood, digested, named.
 *
 * A model's name, which jobs are addressed to: the NAME given to --model; of a folder its last part; of a hub cache
 * ORG/NAME. Two models of one name are refused.
 *
 * Memory   everything lives as long as the models
 * Errors   those of model_dir.h and pipeline.h; CONFLICT for two of one name
 * Threads  read-only once open, but for `pipeline`: each stage of it is its lane's. `quotes` loads nothing, so any
 *          thread may plan with it
 */
#ifndef WEIR_WORKER_MODELS_H
#define WEIR_WORKER_MODELS_H

#include "worker/model_dir.h"
#include "worker/pipelines/pipeline.h"

#define WEIR_MODELS_MAX 64

struct weir_model {
    char *name;
    struct weir_model_dir *dir;
    struct weir_pipeline *pipeline; /* with weights, when a stage brings them in */
    struct weir_pipeline *quotes;   /* without: for resolving and planning beside a running task */
    uint8_t digest[WEIR_SHA256_BYTES];
};

struct weir_models {
    struct weir_model items[WEIR_MODELS_MAX];
    size_t count;
};

enum weir_status weir_models_add(struct weir_models *models, const char *dir_or_name, struct weir_error *error);
void weir_models_close(struct weir_models *models);
/* The one of this name; any, when name is NULL or "" and there is only one. NULL: none. */
const struct weir_model *weir_models_find(const struct weir_models *models, const char *name);

#endif
