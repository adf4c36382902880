/* model_index: what model_index.json and weir.json say, without the files around them.
 *
 * model_index.json   "_class_name", then "component": ["library", "ClassName"]; [null, null] is an absent component;
 *                    other keys are the pipeline's own settings, kept for whoever asks (weir_model_index.config)
 * weir.json          only the keys of struct weir_defaults, each optional; another key is an error that names it
 * Memory   texts live as long as the struct; deinit on a zeroed struct is fine
 * Errors   BAD_MODEL, TOO_LARGE; the words name the file and the key
 */
#ifndef WEIR_WORKER_MODEL_INDEX_H
#define WEIR_WORKER_MODEL_INDEX_H

#include "worker/config.h"

#define WEIR_COMPONENTS_MAX 32

struct weir_component {
    const char *name;       /* "unet" */
    const char *library;    /* "diffusers" */
    const char *class_name; /* "UNet3DConditionModel" */
};

struct weir_model_index {
    const char *class_name;
    struct weir_component components[WEIR_COMPONENTS_MAX];
    size_t component_count;
    struct weir_config *config;
};

enum weir_status weir_model_index_init(struct weir_model_index *index, const char *text, size_t bytes,
                                       const char *label, struct weir_error *error);
void weir_model_index_deinit(struct weir_model_index *index);

/* What a request that says nothing gets; where this says nothing either, the pipeline's own default counts. */
struct weir_defaults {
    int64_t steps, width, height, frames, fps; /* 0: absent */
    double guidance;                           /* NaN: absent */
    const char *sampler;                       /* NULL: absent; "ddim", "dpm++", ... */
    const char *instruction;                   /* NULL: absent */
    struct weir_config *config;
};

#define WEIR_DEFAULTS_ABSENT ((struct weir_defaults){ .guidance = NAN })

enum weir_status weir_defaults_init(struct weir_defaults *defaults, const char *text, size_t bytes, const char *label,
                                    struct weir_error *error);
void weir_defaults_deinit(struct weir_defaults *defaults);

#endif
