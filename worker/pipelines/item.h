/* item: one picture or clip to make, with every blank filled; and what a model says of itself so that blanks can be.
 *
 * A wish is what a person wrote, an item what will be computed: one seed, one size, one number of steps. A worker that
 * has the model resolves the first into the second when it is asked for a quote, so the job row says all that its bytes
 * depend on. Plain values without pointers: safe to copy and compare.
 *
 *   struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
 *   wish.frames = 8;
 *   WEIR_TRY(weir_item_resolve(&facts, &wish, &item, error));
 *
 * Order    the wish, else weir.json, else the pipeline's own default (facts hold the winner of the last two)
 * Units    pixels, frames, steps, frames a second
 * Errors   BAD_ARGUMENT, TOO_LARGE, UNSUPPORTED: the words name the flag, the value and the limit
 * Threads  all functions are pure
 */
#ifndef WEIR_WORKER_PIPELINES_ITEM_H
#define WEIR_WORKER_PIPELINES_ITEM_H

#include "proto/base/bytes.h"
#include "worker/pipelines/sana_bins.h"

#include <math.h>
#include <stdbool.h>

/* Far beyond what any network here was trained for; memory is the limit that counts. They keep products of sizes
 * inside 64 bits. */
#define WEIR_ITEM_SIZE_MAX 16384
#define WEIR_ITEM_FRAMES_MAX 65536
#define WEIR_ITEM_STEPS_MAX 1000
#define WEIR_ITEM_FPS_MAX 240
#define WEIR_ITEM_GUIDANCE_MAX 1000.0
#define WEIR_ITEM_CONTROL_SCALE_MAX 10.0
#define WEIR_ITEM_NAME_BYTES 16
#define WEIR_ITEM_LORAS_MAX 8
#define WEIR_ITEM_LORA_WEIGHT_MAX 100.0

/* X(SYMBOL, name on the command line) ; numbers travel on the wire: append only. */
#define WEIR_ITEM_SAMPLER_TABLE(X)                                                                                     \
    X(DDIM, "ddim")                                                                                                    \
    X(DPM_SOLVER, "dpm++")                                                                                             \
    X(FLOW_DPM_SOLVER, "flow-dpm++")                                                                                   \
    X(FLOW_EULER, "flow-euler")                                                                                        \
    X(SCM, "scm")
enum weir_item_sampler {
#define X(symbol, name) WEIR_ITEM_SAMPLER_##symbol,
    WEIR_ITEM_SAMPLER_TABLE(X)
#undef X
        WEIR_ITEM_SAMPLER_COUNT /* also: none is the default */
};

/* The precision the initial noise is drawn in: other numbers of the same seed, as in diffusers. */
enum weir_item_noise { WEIR_ITEM_NOISE_F32, WEIR_ITEM_NOISE_F16, WEIR_ITEM_NOISE_COUNT };

struct weir_model_facts {
    char family[WEIR_ITEM_NAME_BYTES]; /* "modelscope" */
    uint32_t size_min, size_multiple;  /* width and height are at least, and multiples of */
    uint32_t bins;                     /* not 0: the sample_size whose sizes items are made at (sana_bins.h) */
    uint32_t latent_channels,
        latent_factor; /* latents are [latent_channels, frames, height / factor, width / factor] of the size made */
    /* The embedding of one text is f32 [text_rows, text_channels]: a row for each of text_tokens. A family whose
     * networks must not see padding has one row more: its first number says how many tokens are real, 1..text_tokens;
     * the rest of it, and the rows of padding, are 0. */
    uint32_t text_tokens, text_rows, text_channels;
    uint32_t train_timesteps;                   /* the most steps a sampler of it can take */
    uint32_t width, height, frames, steps, fps; /* defaults */
    uint32_t frames_max;
    double guidance;
    bool loras;                     /* the denoiser takes low-rank adapters */
    bool guidance_inside;           /* the network is told its guidance: never a second row, no negative text */
    enum weir_item_sampler sampler; /* WEIR_ITEM_SAMPLER_COUNT: the folder's own scheduler is not offered, name one */
    uint32_t samplers;              /* bit i: enum weir_item_sampler i fits the networks of this family */
    bool control;                   /* it looks at a picture, which a request must then bring */
    bool start;                     /* it may begin at a picture instead of noise */
    double control_scale, strength; /* defaults, of those that do */
};

/* A request as a person writes it. Integers WEIR_ITEM_UNSET, a NaN and NULL are blanks. */
#define WEIR_ITEM_UNSET INT64_MIN
struct weir_item_wish {
    int64_t width, height, frames, steps, fps;
    double guidance;
    const char *sampler; /* "ddim", "dpm++", "flow-dpm++", "flow-euler", "scm" */
    const char *noise;   /* "f32", "f16" */
    uint64_t seed;
    const uint8_t *control, *start; /* digests of the files, WEIR_SHA256_BYTES; NULL: none */
    double control_scale, strength;
};
#define WEIR_ITEM_WISH_NONE                                                                                            \
    ((struct weir_item_wish){ .width = WEIR_ITEM_UNSET,                                                                \
                              .height = WEIR_ITEM_UNSET,                                                               \
                              .frames = WEIR_ITEM_UNSET,                                                               \
                              .steps = WEIR_ITEM_UNSET,                                                                \
                              .fps = WEIR_ITEM_UNSET,                                                                  \
                              .guidance = (double)NAN,                                                                 \
                              .control_scale = (double)NAN,                                                            \
                              .strength = (double)NAN })

/* A low-rank adapter of the denoiser. */
struct weir_item_lora {
    uint8_t digest[WEIR_SHA256_BYTES]; /* SHA-256 of its file */
    uint64_t bytes;                    /* of the file */
    double weight;                     /* its products count so many times; 0 changes nothing, to the byte */
};

/* What an item's pixels depend on, beside the model, the texts and the numerics class. */
struct weir_item {
    uint32_t width, height, frames, steps, fps;
    double guidance; /* guidance happens above 1 */
    enum weir_item_sampler sampler;
    enum weir_item_noise noise;
    uint64_t seed;
    bool has_control, has_start;
    uint8_t control[WEIR_SHA256_BYTES]; /* of the file with the picture that the network looks at; 0 without one */
    uint8_t start[WEIR_SHA256_BYTES];   /* of the one it begins at */
    double control_scale, strength;     /* 0 without one; strength is over 0, to 1: the share of the way to be gone */
    uint32_t lora_count;                /* none when resolved: the caller's to fill in */
    struct weir_item_lora loras[WEIR_ITEM_LORAS_MAX];
};

/* Of the files of all its adapters. */
uint64_t weir_item_lora_bytes(const struct weir_item *item);

enum weir_status weir_item_resolve(const struct weir_model_facts *facts, const struct weir_item_wish *wish,
                                   struct weir_item *out, struct weir_error *error);
/* The same checks on an item that came from elsewhere (a worker does not trust a lease). */
enum weir_status weir_item_check(const struct weir_model_facts *facts, const struct weir_item *item,
                                 struct weir_error *error);

/* Whether every step asks the network twice: with the negative text, and with the prompt. */
bool weir_item_guided(const struct weir_model_facts *facts, const struct weir_item *item);
/* The steps that an item leaves out because it begins at a picture, as diffusers counts them: all but
 * steps * strength, rounded up. */
uint32_t weir_item_first_step(const struct weir_item *item);
/* The size an item is made at: its own; where the model has bins, the nearest, from which its picture is resized and
 * cropped. */
struct weir_sana_size weir_item_made(const struct weir_model_facts *facts, const struct weir_item *item);
/* latent_channels, frames, height / factor, width / factor: of the size made. */
void weir_item_latent_dims(const struct weir_model_facts *facts, const struct weir_item *item, uint32_t dims[4]);
/* Floats of an item's latents. */
size_t weir_item_latent_count(const struct weir_model_facts *facts, const struct weir_item *item);
/* Floats of an item's embedding: (2 when guided, else 1) * text_rows * text_channels. */
size_t weir_item_embedding_count(const struct weir_model_facts *facts, const struct weir_item *item);
/* Bytes of one frame of 8-bit RGB. */
size_t weir_item_frame_bytes(const struct weir_item *item);

const char *weir_item_sampler_name(enum weir_item_sampler sampler);
/* The names of `samplers` (bits, as in the facts), with commas, for words; `out` has room for all. */
#define WEIR_ITEM_SAMPLER_WORDS 128
void weir_item_sampler_words(uint32_t samplers, char out[WEIR_ITEM_SAMPLER_WORDS]);
const char *weir_item_noise_name(enum weir_item_noise noise);

#endif
