/* internal: the table a family of models fills, and what pipeline.c, runs and families share. */
#ifndef WEIR_WORKER_PIPELINES_INTERNAL_H
#define WEIR_WORKER_PIPELINES_INTERNAL_H

#include "kernels/program.h"
#include "worker/nets/bands.h"
#include "worker/nets/lora.h"
#include "worker/pipelines/pipeline.h"
#include "worker/samplers/sampler.h"

#include <pthread.h>

#define WEIR_PIPELINE_COMPONENTS_MAX 8
#define WEIR_PIPELINE_SLOT_NAME_BYTES 32

/* What a family says. A `net` is a stage's network on a device; the driver only hands it back. Programs and nets have
 * the dtype that the device's values lie in (device->values); what is read and written by name here is f32 all the
 * same, but for what passes from prepare to step and from "cut" to "x".
 * The programs' names: text: input "ids" i32 [R, 1, 1, L, 1], output "embedding". prepare, of one item: input "text" [R,
 * 1, 1, L, C], and of a model that looks at a picture "control_latents" f32 [1, C, 1, H W, 1] and "control_scale" f32
 * [R, 1, 1, 1, any]; every output, and "control_scale", is an extern of step by the same name, which has the rows of all
 * items. encode: input "picture" f32 [1, 1, H, W, 3], output "z" [1, 1, h, w, C]. step, R = items * copies (rows as in
 * pipeline.h): externs "latents" and "previous" f32 [items, C, T, H W, 1], inputs "t" [R], "guidance" [items] (when
 * guided, or where the network is told it), "lengths" i32 [R] (where embeddings count their tokens), "k" [items,
 * coefficients]: of sampler_step, and of latents_pack_scaled where a sampler scales what the network is given. With
 * adapters prepare and step have the extern of nets/adapters.h. decode:
 * input "z" f32 [frames, C, 1, h w, 1], outputs "picture" and "rgb". In bands:
 * first "z" of one frame to output "cut" of bands.height rows, then extern "x", a window of those rows from any of them
 * on, to "picture" and "rgb", bands.scale rows for each. */

/* What the text encoder reads of a text, and which of its outputs are the embedding's rows. */
struct weir_text_tokens {
    uint32_t count;       /* ids to be read; what is behind them is padding that they do not see */
    uint32_t first, kept; /* kept are position 0 and those from `first` on, `kept` in all */
    uint32_t real, whole; /* of the text: weir_pipeline_text_tokens */
};
struct weir_pipeline_family {
    const char *name;
    const char *class_name;             /* in model_index.json */
    const char *const *components;      /* NULL-terminated: all that is read */
    const char *const *text_components; /* NULL-terminated: what an embedding depends on */

    /* Reads configs and tokenizer from pipeline->model; fills pipeline->facts and gives its own state. */
    enum weir_status (*open)(struct weir_pipeline *pipeline, void **state, struct weir_error *error);
    void (*close)(void *state);
    enum weir_status (*sampler_config)(const struct weir_pipeline *pipeline, enum weir_item_sampler sampler,
                                       struct weir_sampler_config *out, struct weir_error *error);
    /* Fills pipeline->text_window ids. */
    enum weir_status (*tokens)(const struct weir_pipeline *pipeline, const char *text, bool is_negative, int32_t *ids,
                               struct weir_text_tokens *out, struct weir_error *error);

    /* shapes_only: no weights are read; the net can be planned with, not run. */
    enum weir_status (*net_open)(const struct weir_pipeline *pipeline, struct weir_device *device,
                                 enum weir_pipeline_stage stage, bool shapes_only, void **net,
                                 struct weir_error *error);
    void (*net_close)(enum weir_pipeline_stage stage, void *net);
    uint64_t (*net_bytes)(enum weir_pipeline_stage stage, const void *net);

    void (*build_text)(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p, uint32_t tokens);
    /* Of one item. Adapters: those of its rows, count 0: none. */
    void (*build_prepare)(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                          const struct weir_item *item, const struct weir_adapters *adapters);
    /* For so many items of that item's shape. */
    void (*build_step)(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                       const struct weir_item *item, uint32_t items, const struct weir_adapters *adapters);
    /* The denoiser's layers, of which adapters name linears. */
    const struct weir_params *(*adapted_params)(const void *net);
    void (*build_decode)(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                         const struct weir_item *item, uint32_t frames);
    /* How one frame's decode is cut, and its two programs; both NULL in a family that never cuts. */
    struct weir_bands (*decode_bands)(const struct weir_pipeline *pipeline, const struct weir_item *item);
    void (*build_decode_bands)(const struct weir_pipeline *pipeline, const void *net, const struct weir_item *item,
                               struct weir_program *once, struct weir_program *band);
    /* NULL in a family that takes no picture. */
    void (*build_encode)(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                         const struct weir_item *item);
    /* What passes from prepare to step. */
    uint32_t (*slot_count)(const void *net);
    void (*slot_name)(const void *net, uint32_t index, char *out, size_t room);
    uint32_t (*picture_channels)(const struct weir_pipeline *pipeline);
};

struct weir_pipeline {
    const struct weir_pipeline_family *family;
    const struct weir_model_dir *model; /* borrowed */
    struct weir_model_facts facts;
    uint32_t text_window;  /* ids that the text encoder reads at most */
    float guidance_factor; /* what the network is told, or guided with, is the item's guidance times it */
    float time_factor;     /* and the sampler's timestep times it */
    float latent_factor;   /* the encoder's output times it are latents */
    uint64_t whole_max;    /* bytes of a frame's values in decode; where they take more, it runs in bands */
    void *state;           /* the family's */
    pthread_mutex_t loading;             /* of the two below: a stage's own thread reads its own net without */
    struct weir_device *device;          /* of all that are loaded */
    void *nets[WEIR_PIPELINE_NET_COUNT]; /* NULL: not loaded */
    pthread_mutex_t lock;                /* of text_digest */
    char text_digest[WEIR_SHA256_HEX_BYTES];
};

/* pipeline.h */
struct weir_factors {
    struct weir_adapter_shape shape;
    float *values; /* `bytes` of them, laid out as nets/adapters.h says */
    size_t bytes;  /* 0: they change nothing */
    size_t use_count;
};

extern const struct weir_pipeline_family weir_pipeline_modelscope;
extern const struct weir_pipeline_family weir_pipeline_sana;
extern const struct weir_pipeline_family weir_pipeline_sana_control;
extern const struct weir_pipeline_family weir_pipeline_sana_sprint;

/* A program and its arena: what every run is made of. */
struct weir_run {
    struct weir_device *device;
    struct weir_stream *stream; /* NULL before start */
    uint8_t *arena;
};
enum weir_status weir_run_create_program(struct weir_device *device, struct weir_program **out,
                                         struct weir_error *error);
enum weir_status weir_run_start(struct weir_run *run, struct weir_device *device, size_t bytes,
                                struct weir_error *error);
void weir_run_stop(struct weir_run *run);
enum weir_status weir_run_write(struct weir_run *run, size_t offset, const void *host, size_t bytes,
                                struct weir_error *error);
/* Waits for all that was queued, then for the copy. */
enum weir_status weir_run_read(struct weir_run *run, size_t offset, void *host, size_t bytes, struct weir_error *error);
/* Another arena of so many bytes, which begins with the first `keep` of the old one. Does nothing before start. */
enum weir_status weir_run_enlarge(struct weir_run *run, size_t keep, size_t bytes, struct weir_error *error);
/* Queued: both lie in the arena and do not overlap. */
enum weir_status weir_run_copy(struct weir_run *run, size_t to, size_t from, size_t bytes, struct weir_error *error);
enum weir_status weir_run_program(struct weir_run *run, const struct weir_program *program, size_t offset,
                                  const struct weir_binding *bindings, size_t binding_count, struct weir_error *error);

/* The runs, planned with any net of the stage: loaded or of shapes alone. */
enum weir_status weir_text_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                struct weir_text **out, struct weir_error *error);
enum weir_status weir_denoiser_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                    const struct weir_item *item, uint32_t seats, struct weir_denoiser **out,
                                    struct weir_error *error);
enum weir_status weir_encoder_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                   const struct weir_item *item, struct weir_encoder **out, struct weir_error *error);
enum weir_status weir_decoder_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                   const struct weir_item *item, uint32_t frames_per_run, struct weir_decoder **out,
                                   struct weir_error *error);
/* Of what a run takes, the part in host memory. */
uint64_t weir_text_host_bytes(const struct weir_text *text);
uint64_t weir_denoiser_host_bytes(const struct weir_denoiser *denoiser);
uint64_t weir_encoder_host_bytes(const struct weir_encoder *encoder);
uint64_t weir_decoder_host_bytes(const struct weir_decoder *decoder);

/* The sampler of an item, *out NULL before; *start, where it begins at a picture. */
enum weir_status weir_pipeline_sampler(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                       struct weir_sampler **out, struct weir_sampler_start *start,
                                       struct weir_error *error);

/* Checks that a stage is loaded: running one that is not is the caller's fault, and says so. */
enum weir_status weir_pipeline_net(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage, void **net,
                                   struct weir_error *error);

#endif
