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
 *   WEIR_TRY(weir_denoiser_create(pipeline, &item, 1, &denoiser, error));   plans; weir_denoiser_bytes() says how much
 *   WEIR_TRY(weir_denoiser_begin(denoiser, &item, &input, NULL, &seat, error)); takes the memory, once
 *   while (weir_denoiser_step_index(denoiser, seat) < weir_denoiser_step_count(denoiser, seat))
 *       WEIR_TRY(weir_denoiser_step(denoiser, error));
 *   WEIR_TRY(weir_denoiser_read(denoiser, seat, latents, NULL, error));
 *   WEIR_TRY(weir_denoiser_leave(denoiser, seat, error));
 *
 * What passes between stages is host memory, f32, the same on every device:
 *   embedding  [2, text_rows, text_channels] when the item is guided, negative text first; else [1, ...]
 *   latents    weir_item_latent_dims(), in diffusers' order
 *   frames     [count, height, width, 3] uint8
 *
 * Same bytes  an output depends on the texts, the item, the model and the numerics class alone: not on what was run
 *             before in the same handle, on how decode cuts its frames, on where a denoise run was resumed, nor on the
 *             items that were denoised beside it, when they came and went, and in which seat it sat
 * Memory      every handle owns what it made; a pipeline outlives its runs, the model its pipeline, the device both
 * Errors      BAD_MODEL, UNSUPPORTED (the words name file, key and value), NO_MEMORY (with the bytes), IO, DEVICE
 * Threads     open and close on one thread; different stages may be loaded, unloaded, planned and run by as many
 *             threads; a loaded stage is read-only and shared by any number of runs; each run belongs to one thread at
 *             a time
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
/* The same for denoise with so many seats; weir_pipeline_plan_memory is for one. */
enum weir_status weir_pipeline_plan_denoise(struct weir_pipeline *pipeline, struct weir_device *device,
                                            const struct weir_item *item, uint32_t seats,
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

/* What the adapters of one item are together: which linears, at which rank, and the matrices, in host memory,
 * which the plan of a denoise run counts for each seat. Keeps no hold on the adapters. The denoiser is loaded. */
struct weir_factors;
enum weir_status weir_factors_create(const struct weir_pipeline *pipeline, const struct weir_lora_use *uses,
                                     size_t count, struct weir_factors **out, struct weir_error *error);
void weir_factors_destroy(struct weir_factors **factors_p);

/* ---- denoise: from noise to latents, a step at a time, several items at once ---- */

/* A denoiser holds up to `seats` items of one shape: latents of the same size, all guided or none. Each has its own
 * texts, seed, steps, guidance, sampler, adapters and state; a step advances all of them in one run of the network. Items come
 * and go between steps, in any order.
 *
 * Rows   what a program sees: the items that are seated lie one behind the other, without a gap; row i * copies + c of
 *        every value belongs to item i of them, c = 0..copies-1 (copies 2 when guided: negative, then positive). So an
 *        item's rows are contiguous. Who leaves is replaced by the last: an item's place may change between steps, its
 *        seat does not */
struct weir_denoiser;
#define WEIR_DENOISER_SEATS_MAX 16

/* Where a run stands: all that a checkpoint keeps beside the item. Noise that a sampler adds on the way is not kept: it
 * is drawn again from the item's seed. */
struct weir_denoiser_state {
    uint32_t step;         /* steps done */
    const float *latents;  /* weir_item_latent_count floats */
    const float *previous; /* as many: the data prediction of the last step; NULL where the sampler never looks back */
};

/* How many steps an item takes (mostly item->steps), and whether a checkpoint of it must hold `previous`. */
enum weir_status weir_pipeline_walk(const struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t *steps,
                                    bool *looks_back, struct weir_error *error);

/* Planned for the item's width, height, frames, whether it is guided, and in each seat adapters from files of as many bytes
 * as the item's (what they adapt is not known yet: every linear); seats 1..WEIR_DENOISER_SEATS_MAX. The program
 * for all seats is planned here, those for fewer items when first needed. */
enum weir_status weir_denoiser_create(struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t seats,
                                      struct weir_denoiser **out, struct weir_error *error);
void weir_denoiser_destroy(struct weir_denoiser **denoiser_p);
uint64_t weir_denoiser_bytes(const struct weir_denoiser *denoiser);
uint32_t weir_denoiser_seats(const struct weir_denoiser *denoiser);
uint32_t weir_denoiser_seated(const struct weir_denoiser *denoiser); /* seats that are taken */
/* True when this handle can run that item as it is. */
bool weir_denoiser_fits(const struct weir_denoiser *denoiser, const struct weir_item *item);
/* Of files of adapters, for which memory was planned in every seat. */
uint64_t weir_denoiser_lora_bytes(const struct weir_denoiser *denoiser);

/* What an item is made from: all of it is copied by begin, but for `factors`, which are borrowed until it leaves. */
struct weir_denoiser_input {
    const float *embedding;
    const float *control; /* latents of the picture that the network looks at; NULL where the item has none */
    const float *start;   /* of the picture it begins at; NULL where it has none, or with a state */
    const struct weir_factors *factors; /* of its adapters; NULL where it has none */
};

/* Seats an item: draws its noise (state NULL) or takes up a checkpoint. The first begin allocates; later ones do not, but
 * for adapters that take more than was planned. The seat is the item's until it leaves; on an error nobody was seated, and
 * who sits is as he was.
 * Errors   BAD_ARGUMENT: the item does not fit, no seat is free, a picture's latents are missing, `factors` are of another
 *          number of adapters, or the state has a step over the count or lacks `previous`; BAD_FILE: the embedding counts
 *          no such number of tokens */
enum weir_status weir_denoiser_begin(struct weir_denoiser *denoiser, const struct weir_item *item,
                                     const struct weir_denoiser_input *input, const struct weir_denoiser_state *state,
                                     uint32_t *seat, struct weir_error *error);
/* Of the item in that seat; a seat that nobody has is our own fault and asserts. The steps are mostly item->steps, of which
 * an item that begins at a picture leaves some out. */
uint32_t weir_denoiser_step_count(const struct weir_denoiser *denoiser, uint32_t seat);
uint32_t weir_denoiser_step_index(const struct weir_denoiser *denoiser, uint32_t seat); /* steps done */
/* One step of all who sit. Blocks until it is done. BAD_ARGUMENT: nobody sits, or one has no step left. Any other error:
 * all items are lost and all seats free. */
enum weir_status weir_denoiser_step(struct weir_denoiser *denoiser, struct weir_error *error);
/* Copies the state out: latents, and `previous` unless NULL. After the last step these are the final latents. */
enum weir_status weir_denoiser_read(struct weir_denoiser *denoiser, uint32_t seat, float *latents, float *previous,
                                    struct weir_error *error);
/* Frees the seat. DEVICE: as in step. */
enum weir_status weir_denoiser_leave(struct weir_denoiser *denoiser, uint32_t seat, struct weir_error *error);

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

/* The decode tasks that may share an item's picture: 1 where it is decoded undivided. By config and size alone. */
uint32_t weir_pipeline_bands(const struct weir_pipeline *pipeline, const struct weir_item *item);
/* What such a task makes: [1, count, width, channels] of the picture as it is made, from row `first` on. */
struct weir_pipeline_rows {
    uint32_t first, count;
    uint32_t width, channels;
};
/* BAD_ARGUMENT: the picture is not decoded in item->bands bands, or there is no such one. */
enum weir_status weir_pipeline_band_rows(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                         uint32_t band, struct weir_pipeline_rows *out, struct weir_error *error);
/* Decodes frames first .. first + count - 1 of an item's whole latents into rgb [count, height, width, 3].
 * BAD_ARGUMENT: the item does not fit, or the range leaves the item's frames. Blocks until done. */
enum weir_status weir_decoder_run(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                  uint32_t first, uint32_t count, uint8_t *rgb, struct weir_error *error);
/* Something to do, once, when the next run has given the device its first work; where a device has no time of its own,
 * before. A run that fails early does not. */
void weir_decoder_meanwhile(struct weir_decoder *decoder, void (*call)(void *context), void *context);
/* Band `band` of an item with bands, f32, into `out` as weir_pipeline_band_rows says. What comes before all bands is not
 * computed again where the run before this one was of the same latents. */
enum weir_status weir_decoder_run_band(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                       uint32_t band, float *out, struct weir_error *error);
/* A picture as it is made, all its bands' rows, to rgb [height, width, 3] as weir_decoder_run gives it.
 * Errors  NO_MEMORY */
enum weir_status weir_pipeline_finish_picture(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                              const float *made, uint8_t *rgb, struct weir_error *error);
/* Host bytes of the two: `made` whole, and what finishing it takes beside it. */
uint64_t weir_pipeline_finish_bytes(const struct weir_pipeline *pipeline, const struct weir_item *item);
/* The same as weir_decoder_run, before it becomes 8-bit: f32 [count, height, width, channels of the decoder], about -1..1. */
enum weir_status weir_decoder_run_f32(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                      uint32_t first, uint32_t count, float *out, struct weir_error *error);

#endif
