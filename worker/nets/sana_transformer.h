/* sana_transformer: diffusers' SanaTransformer2DModel, the denoiser of Sana, SANA-1.5 and Sana-Sprint.
 *
 * Tokens are the pixels of the latents. Each block is a linear attention among them, an attention to the text, and a
 * gated feed-forward with a 3x3 convolution of each channel in it; the time scales, shifts and gates all of them.
 *
 * prepare  what depends on the text alone: keys and values of every block's attention to it, once an item. Nothing in
 *          it looks from one text token to another, so that it needs no lengths
 * step     the network itself; takes those keys and values from slots, so that it never sees the text
 *
 * Shapes   R rows, H and W of any size; L text tokens, of which row r has lengths[r] real ones, 1..L, the others behind
 *          text f32 [R, L, caption], key/value slot i [R, L, 2 cross_heads * cross_head_dim], x [R, 1, H, W, in],
 *          t f32 [R], guidance f32 [R], lengths i32 [R], y [R, 1, H, W, out]
 * Units    t as the scheduler has it, times timestep_scale where the pipeline says so: nothing here scales it. guidance
 *          is the scale of the request times guidance_embeds_scale: the caller's product
 * Memory   weights on the device; the config is copied. With an interpolation_scale every size that is built leaves a
 *          table of positions behind, height * width * width of the network, until close
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   diffusers models/transformers/sana_transformer.py; judged by tests/golden/make_tiny_sana.py
 */
#ifndef WEIR_WORKER_NETS_SANA_TRANSFORMER_H
#define WEIR_WORKER_NETS_SANA_TRANSFORMER_H

#include "kernels/program.h"

#define WEIR_SANA_TRANSFORMER_LAYERS_MAX 128
#define WEIR_SANA_TRANSFORMER_WIDTH_MAX 16384

struct weir_adapters;
struct weir_config;
struct weir_params;
struct weir_weights;
struct weir_sana_controlnet;
struct weir_sana_transformer;

struct weir_sana_transformer_config {
    uint32_t in_channels, out_channels, caption_channels;
    uint32_t layers, heads, head_dim, width; /* width = heads * head_dim */
    uint32_t cross_heads, cross_head_dim;    /* of the attention to the text */
    uint32_t hidden;                         /* the feed-forward's */
    uint32_t sample_size;                    /* side of the latents that it was trained on */
    bool attention_bias, qk_norm, guidance_embeds;
    float norm_eps;
    float interpolation_scale; /* 0: no positions are added */
    double guidance_embeds_scale, timestep_scale;
};

enum weir_status weir_sana_transformer_config_read(const struct weir_config *config,
                                                   struct weir_sana_transformer_config *out, struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_sana_transformer_open(struct weir_device *device,
                                            const struct weir_sana_transformer_config *config,
                                            const struct weir_weights *weights, enum weir_dtype dtype,
                                            struct weir_sana_transformer **out, struct weir_error *error);
void weir_sana_transformer_close(struct weir_sana_transformer **net_p);

const struct weir_sana_transformer_config *weir_sana_transformer_config_of(const struct weir_sana_transformer *net);
/* The linears that adapters may name. */
const struct weir_params *weir_sana_transformer_params(const struct weir_sana_transformer *net);
/* Also the tables of positions of all sizes built so far. */
uint64_t weir_sana_transformer_weight_bytes(const struct weir_sana_transformer *net);
uint64_t weir_sana_transformer_parameter_count(const struct weir_sana_transformer *net);

/* The slots: outputs of prepare, externs of step, of the same names and sizes. */
#define WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES 24
uint32_t weir_sana_transformer_slot_count(const struct weir_sana_transformer *net);
void weir_sana_transformer_slot_name(uint32_t index, char out[WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES]); /* "kv0" */

/* Adds the input "text" and the outputs "kv0", ... to a program, with adapters (NULL: none) their extern too; gives the
 * text. */
struct weir_value weir_sana_transformer_build_prepare(const struct weir_sana_transformer *net, struct weir_program *p,
                                                      uint32_t rows, uint32_t tokens,
                                                      const struct weir_adapters *adapters);

struct weir_sana_transformer_step {
    struct weir_value x;                           /* dims [R, 1, H, W, in] */
    struct weir_value t;                           /* f32, dims [R, 1, 1, 1, 1] */
    struct weir_value guidance;                    /* the same; none without guidance_embeds */
    struct weir_value lengths;                     /* i32, dims [R, 1, 1, 1, 1] */
    uint32_t tokens;                               /* L */
    const struct weir_sana_controlnet *controlnet; /* that walks along (sana_controlnet.h), or NULL */
    const struct weir_adapters *adapters;          /* those of prepare, or NULL; of the transformer's own linears */
};
/* Adds the network to a program, with the externs "kv0", ... and those of the ControlNet; gives y. */
struct weir_value weir_sana_transformer_build_step(const struct weir_sana_transformer *net, struct weir_program *p,
                                                   const struct weir_sana_transformer_step *step);

#endif
