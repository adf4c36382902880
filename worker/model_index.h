/* model_index: what model_index.json, a weights index and weir.json say, without the files around them.
 *
 * model_index.json   "_class_name", then "component": ["library", "ClassName"]; [null, null] is an absent component;
 *                    other keys are the pipeline's own settings, kept for whoever asks (weir_model_index.config)
 * weights index      "weight_map": tensor -> file, a bare name that ends in .safetensors; the rest is ignored
 * weir.json          only the keys of struct weir_defaults, each optional; another key is an error that names it
 * Memory   texts live as long as the struct; deinit on a zeroed struct is fine
 * Errors   BAD_MODEL, TOO_LARGE; the words name the file and the key
 */
#ifndef WEIR_WORKER_MODEL_INDEX_H
#define WEIR_WORKER_MODEL_INDEX_H

#include "worker/config.h"
#include "worker/safetensors.h"

#define WEIR_COMPONENTS_MAX 32
#define WEIR_WEIGHTS_INDEX_BYTES_MAX ((size_t)16 << 20)
#define WEIR_WEIGHTS_SHARDS_MAX 256

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

/* Which file of a sharded set holds which tensor. */
struct weir_weights_index {
    void *root;         /* owns all texts */
    const char **files; /* sorted by bytes, each once */
    size_t file_count;
};

enum weir_status weir_weights_index_init(struct weir_weights_index *index, const char *text, size_t bytes,
                                         const char *label, struct weir_error *error);
void weir_weights_index_deinit(struct weir_weights_index *index);
/* The file of a tensor, or NULL. */
const char *weir_weights_index_file(const struct weir_weights_index *index, const char *tensor);
/* Calls `each` for every tensor until it returns false. */
void weir_weights_index_each(const struct weir_weights_index *index,
                             bool (*each)(void *context, const char *tensor, const char *file), void *context);

/* What a request that says nothing gets; where this says nothing either, the pipeline's own default counts. */
struct weir_defaults {
    int64_t steps, width, height, frames, fps; /* 0: absent */
    double guidance;                           /* NaN: absent */
    const char *sampler;                       /* NULL: absent; "ddim", "dpm++", ... */
    const char *instruction;                   /* NULL: absent */
    int64_t
        decode_whole_mib; /* 0: absent; a picture whose decode takes more memory is decoded in bands, where it can */
    struct weir_config *config;
};

#define WEIR_DEFAULTS_ABSENT ((struct weir_defaults){ .guidance = NAN })

enum weir_status weir_defaults_init(struct weir_defaults *defaults, const char *text, size_t bytes, const char *label,
                                    struct weir_error *error);
void weir_defaults_deinit(struct weir_defaults *defaults);

#endif
