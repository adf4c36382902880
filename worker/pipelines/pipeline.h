/* pipeline: a family of models made runnable: which networks, which sampler, in which order, in how much memory.
 *
 * Three levels, each made from the one before:
 *   weir_pipeline    a model folder understood: configs and tokenizer, no weights, no device. Says the model's facts
 *   its stages       weir_pipeline_load() brings a stage's weights to a device; read-only then, shared by all slots
 *   a run            weir_text, weir_denoiser, weir_decoder: one stage made ready for one shape: planned ops, an arena,
 * a stream. Made once, used for item after item of that shape; nothing is allocated in a step
 *
 *   WEIR_TRY(weir_pipeline_open(model, &pipeline, error));
 *   WEIR_TRY(weir_item_resolve(weir_pipeline_facts(pipeline), &wish, &item, error));
 *   WEIR_TRY(weir_pipeline_load(pipeline, device, WEIR_PIPELINE_DENOISE, error));
 *   WEIR_TRY(weir_denoiser_create(pipeline, &item, &denoiser, error));      plans; weir_denoiser_bytes() says how much
 *   WEIR_TRY(weir_denoiser_begin(denoiser, &item, &input, NULL, error));   takes the memory, once
 *   while (weir_denoiser_step_index(denoiser) < weir_denoiser_step_count(denoiser))
 *       WEIR_TRY(weir_denoiser_step(denoiser, error));
 *   WEIR_TRY(weir_denoiser_read(denoiser, latents, NULL, error));
 *
 * What passes between stages is host memory, f32, the same on every device:
 *   embedding  [2, text_rows, text_channels] when the item is guided, negative text first; else [1, ...]
 *   latents    weir_item_latent_dims(), in diffusers' order
 *   frames     [count, height, width, 3] uint8
 *
 * Same bytes  an output depends on the texts, the item, the model and the numerics class alone: not on what was run
 *             before in the same handle, on how decode cuts its frames, nor on where a denoise run was resumed
 * Memory      every handle owns what it made; a pipeline outlives its runs, the model its pipeline, the device both
 * Errors      BAD_MODEL, UNSUPPORTED (the words name file, key and value), NO_MEMORY (with the bytes), IO, DEVICE
 * Threads     open, load, unload and close on one thread; a loaded stage is read-only and shared by any number of runs;
 *             each run belongs to one thread at a time
 */
#ifndef WEIR_WORKER_PIPELINES_PIPELINE_H
#define WEIR_WORKER_PIPELINES_PIPELINE_H

#include "kernels/device.h"
#include "proto/base/bytes.h"
#include "worker/nets/lora.h"
#include "worker/pipelines/item.h"

struct weir_model_dir;
struct weir_pipeline;
struct weir_rgb;

/* Every pipeline has the three stages. Encode comes before denoise in one whose facts say control or start, for an item
 * that brings a picture. */
enum weir_pipeline_stage {
    WEIR_PIPELINE_TEXT,
    WEIR_PIPELINE_DENOISE,
    WEIR_PIPELINE_DECODE,
    WEIR_PIPELINE_STAGE_COUNT,
    WEIR_PIPELINE_ENCODE = WEIR_PIPELINE_STAGE_COUNT,
    WEIR_PIPELINE_NET_COUNT
};
const char *weir_pipeline_stage_name(enum weir_pipeline_stage stage); /* "text", "denoise", "decode", "encode" */

/* ---- the model understood ---- */

/* Reads and checks every config of the pipeline: a setting that this build cannot honour is UNSUPPORTED here, not in
 * the middle of a job. Also checks that the networks fit each other. `model` is borrowed. */
enum weir_status weir_pipeline_open(const struct weir_model_dir *model, struct weir_pipeline **out,
                                    struct weir_error *error);
/* Unloads what is loaded. */
void weir_pipeline_close(struct weir_pipeline **pipeline_p);

const struct weir_model_facts *weir_pipeline_facts(const struct weir_pipeline *pipeline);

/* The folders a stage reads, for weir_model_dir_digest: NULL-terminated. */
const char *const *weir_pipeline_components(const struct weir_pipeline *pipeline);

/* The name of the cached embedding of `text`: SHA-256 over the digest of text encoder and tokenizer, the numerics
 * class, the window and the token ids. Needs no weights and no device. Reads (once, cached by the model) the files'
 * hashes. */
enum weir_status weir_pipeline_text_key(struct weir_pipeline *pipeline, const char *numerics_class, const char *text,
                                        bool is_negative, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error);
/* BAD_ARGUMENT for text that the tokenizer refuses. *real: tokens used, start and end included; *whole: what it would
 * take without a window, more than *real when the text is cut. */
enum weir_status weir_pipeline_text_tokens(const struct weir_pipeline *pipeline, const char *text, bool is_negative,
                                           uint32_t *real, uint32_t *whole, struct weir_error *error);

/* BAD_ARGUMENT, in words, when the model's scheduler has no table for the item's sampler and steps: a scheduler whose
 * timesteps begin at 1 has no 1,000th. */
enum weir_status weir_pipeline_check_sampler(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                             struct weir_error *error);

/* ---- memory, before any is taken ---- */

struct weir_pipeline_memory {
    uint64_t weights; /* packed parameters on the device: shared by all runs of the stage */
    uint64_t arena;   /* activations and workspace of one run on the device */
    uint64_t host;    /* buffers in host memory, weights' files in the page cache not counted */
};

/* What a stage of that item will take, to the byte of what load and begin allocate (the allocator's own rounding
 * aside). Plans every op, so it takes a moment (a second for the largest networks), but reads no weights and keeps
 * nothing: works before load. */
enum weir_status weir_pipeline_plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                           enum weir_pipeline_stage stage, const struct weir_item *item,
                                           struct weir_pipeline_memory *out, struct weir_error *error);

/* ---- weights on a device ---- */

/* Loading a loaded stage does nothing. All stages of a pipeline live on one device. */
enum weir_status weir_pipeline_load(struct weir_pipeline *pipeline, struct weir_device *device,
                                    enum weir_pipeline_stage stage, struct weir_error *error);
/* No run of the stage may be left. */
void weir_pipeline_unload(struct weir_pipeline *pipeline, enum weir_pipeline_stage stage);
bool weir_pipeline_loaded(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage);
/* Packed bytes of what is loaded. */
uint64_t weir_pipeline_weight_bytes(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage);

/* ---- text: one text to one embedding ---- */

struct weir_text;
enum weir_status weir_text_create(struct weir_pipeline *pipeline, struct weir_text **out, struct weir_error *error);
void weir_text_destroy(struct weir_text **text_p);
/* Arena and host bytes; nothing is allocated before the first run. */
uint64_t weir_text_bytes(const struct weir_text *text);
/* `out` holds text_rows * text_channels floats. Some families read a negative text otherwise than a prompt. Blocks until
 * done. */
enum weir_status weir_text_run(struct weir_text *text, const char *words, bool is_negative, float *out,
                               struct weir_error *error);

/* ---- adapters ---- */

/* Reads a LoRA file for the pipeline's denoiser, which is loaded: nets/lora.h. Good for as long as the pipeline is open.
 */
enum weir_status weir_pipeline_lora(const struct weir_pipeline *pipeline, const void *bytes, size_t count,
                                    const char *label, struct weir_lora **out, struct weir_error *error);

/* ---- denoise: from noise to latents, a step at a time ---- */

struct weir_denoiser;

/* Where a run stands: all that a checkpoint keeps beside the item. Noise that a sampler adds on the way is not kept: it
 * is drawn again from the item's seed. */
struct weir_denoiser_state {
    uint32_t step;         /* steps done */
    const float *latents;  /* weir_item_latent_count floats */
    const float *previous; /* as many: the data prediction of the last step; NULL where the sampler never looks back */
};

/* Planned for the item's width, height, frames, and whether it is guided. */
enum weir_status weir_denoiser_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                      struct weir_denoiser **out, struct weir_error *error);
void weir_denoiser_destroy(struct weir_denoiser **denoiser_p);
uint64_t weir_denoiser_bytes(const struct weir_denoiser *denoiser);
/* True when this handle can run that item as it is. */
bool weir_denoiser_fits(const struct weir_denoiser *denoiser, const struct weir_item *item);

/* The adapters of the items that are begun from now on, until they are set anew; count 0: none. What they are is copied.
 * Adapters of a shape that was not seen lately (which linears, which ranks) are planned; where they take more memory, the
 * next begin takes it. Drops what was in progress. */
enum weir_status weir_denoiser_adapt(struct weir_denoiser *denoiser, const struct weir_lora_use *uses, size_t count,
                                     struct weir_error *error);

/* What an item is made from: all of it is copied by begin. */
struct weir_denoiser_input {
    const float *embedding;
    const float *control; /* latents of the picture that the network looks at; NULL where the item has none */
    const float *start;   /* of the picture it begins at; NULL where it has none, or with a state */
};

/* Starts an item: draws its noise (state NULL) or takes up a checkpoint. Drops what was in progress. The first begin
 * allocates; later ones do not.
 * Errors   BAD_ARGUMENT: the item does not fit, has other adapters than weir_denoiser_adapt was told, a picture's latents
 *          are missing, or the state has a step over the count or lacks `previous`;
 *          BAD_FILE: the embedding counts no such number of tokens */
enum weir_status weir_denoiser_begin(struct weir_denoiser *denoiser, const struct weir_item *item,
                                     const struct weir_denoiser_input *input, const struct weir_denoiser_state *state,
                                     struct weir_error *error);
/* The steps that the item will take and whether a checkpoint of it holds `previous`: what the two calls below say of an
 * item begun. */
enum weir_status weir_pipeline_walk(const struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t *steps,
                                    bool *looks_back, struct weir_error *error);
/* Of the item begun: mostly item->steps, of which an item that begins at a picture leaves some out. */
uint32_t weir_denoiser_step_count(const struct weir_denoiser *denoiser);
uint32_t weir_denoiser_step_index(const struct weir_denoiser *denoiser); /* steps done */
/* True when a checkpoint of this item must hold `previous`. */
bool weir_denoiser_looks_back(const struct weir_denoiser *denoiser);
/* One step. Blocks until it is done. DEVICE: the item is lost, begin it again. */
enum weir_status weir_denoiser_step(struct weir_denoiser *denoiser, struct weir_error *error);
/* Copies the state out: latents, and `previous` unless NULL. After the last step these are the final latents. */
enum weir_status weir_denoiser_read(struct weir_denoiser *denoiser, float *latents, float *previous,
                                    struct weir_error *error);

/* ---- encode: from a picture to latents ---- */

struct weir_encoder;

/* Planned for the item's width and height. */
enum weir_status weir_encoder_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                     struct weir_encoder **out, struct weir_error *error);
void weir_encoder_destroy(struct weir_encoder **encoder_p);
uint64_t weir_encoder_bytes(const struct weir_encoder *encoder);
/* Brings the picture to the size the item is made at (rgb.h) and encodes it: weir_item_latent_count floats, scaled as the
 * denoiser's are. They depend on picture, size, model and numerics class alone. Blocks until done. */
enum weir_status weir_encoder_run(struct weir_encoder *encoder, const struct weir_rgb *picture, float *latents,
                                  struct weir_error *error);

/* ---- decode: from latents to frames ---- */

struct weir_decoder;

/* Planned for the item's width and height. Decodes `frames_per_run` frames at once (0: what is good for the device);
 * the bytes of a frame do not depend on it. */
enum weir_status weir_decoder_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                     uint32_t frames_per_run, struct weir_decoder **out, struct weir_error *error);
void weir_decoder_destroy(struct weir_decoder **decoder_p);
uint64_t weir_decoder_bytes(const struct weir_decoder *decoder);
bool weir_decoder_fits(const struct weir_decoder *decoder, const struct weir_item *item);
/* Decodes frames first .. first + count - 1 of an item's whole latents into rgb [count, height, width, 3].
 * BAD_ARGUMENT: the item does not fit, or the range leaves the item's frames. Blocks until done. */
enum weir_status weir_decoder_run(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                  uint32_t first, uint32_t count, uint8_t *rgb, struct weir_error *error);
/* The same, before it becomes 8-bit: f32 [count, height, width, channels of the decoder], about -1..1. */
enum weir_status weir_decoder_run_f32(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                      uint32_t first, uint32_t count, float *out, struct weir_error *error);

#endif
