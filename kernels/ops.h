/* ops: the contract of every op, for all devices.
 *
 * An op is used in three calls:
 *   pack  once a layer: weights and biases go to the device, in the layout and precision it likes best
 *   plan  once a shape: picks the algorithm, says its workspace; may allocate
 *   run   every time: only enqueues. No allocation, no host read, no synchronisation; legal inside a captured graph
 * A packed layer may be shared by many plans, a plan by many streams; both outlive the runs queued with them.
 *
 * Letters       R rows (items x guidance rows), T frames, H height, W width, P = H * W pixels, L tokens, C channels
 * Layout        activations are channels-last: [R, T, H, W, C] = [R, L, C] with L = T * H * W. Row-major, last axis
 *               fastest, no gaps. Weights are given as PyTorch stores them, f32
 * Types         `dtype` of a shape is that of its activations: WEIR_F32 on every device, WEIR_BF16 where said so. Sums,
 *               norms' statistics and softmax are f32
 * Same bytes    the values of one row depend on that row alone: not on R, its place, threads or batch-mates
 * Operands      run() takes an array of device pointers, one per name of the op's enum; "opt" ones may be NULL when the
 *               shape says that they are absent. y may be the same memory as an operand only where stated
 * Errors        pack, plan: BAD_SHAPE, UNSUPPORTED, NO_MEMORY, nothing made. run: DEVICE, y undefined
 * Judged by     kernels/ref, one file an op
 */
#ifndef WEIR_KERNELS_OPS_H
#define WEIR_KERNELS_OPS_H

#include "kernels/device.h"

struct weir_packed; /* a layer's parameters on a device */
struct weir_plan;   /* an op made ready for one shape */

enum weir_activation {
    WEIR_ACT_NONE,
    WEIR_ACT_SILU,       /* x * sigmoid(x) */
    WEIR_ACT_GELU,       /* 0.5 x (1 + erf(x / sqrt 2)) */
    WEIR_ACT_GELU_TANH,  /* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    WEIR_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
    WEIR_ACT_GEGLU, /* linear only: out is 2 * C, first half the value a, second half the gate g: y = a * gelu(g) */
};

/* linear: y[r,l,:] = act(x[r,l,:] W^T + bias) + residual[r,l,:]
 * Weights  weight [out, in], bias [out] or NULL
 * Shapes   x [R, L, in]; y, residual [R, L, out], with GEGLU [R, L, out / 2]. y may be residual
 * Source   torch.nn.Linear; GEGLU: Shazeer, arXiv:2002.05202 */
struct weir_linear {
    uint32_t rows, tokens, in, out;
    enum weir_activation activation;
    bool residual;
    enum weir_dtype dtype;
};
enum { WEIR_LINEAR_X, WEIR_LINEAR_RESIDUAL /* opt */, WEIR_LINEAR_Y, WEIR_LINEAR_OPERANDS };

/* conv2d: a square convolution of each image, with an optional nearest resize of the input before it.
 *   y[r,t,:,:,o] = bias[o] + row_bias[r,o] + sum weight[o,i,ky,kx] x'[r,t,...,i] + residual[r,t,:,:,o]
 * Weights  weight [out, in, kernel, kernel], bias [out] or NULL
 * Shapes   x [R, T, height, width, in]; x' is x resized to resize_height x resize_width (both 0: x itself) by
 *          source = floor(target * size / resized); zero padding of `pad` before and `pad_end` after each axis;
 *          y, residual [R, T, H', W', out], H' = (height(') + pad + pad_end - kernel) / stride + 1; row_bias [R, out].
 *          y may be residual
 * Source   torch.nn.Conv2d, torch.nn.functional.interpolate(mode="nearest") */
struct weir_conv2d {
    uint32_t rows, frames, height, width, in, out;
    uint32_t kernel, stride, pad, pad_end;
    uint32_t resize_height, resize_width;
    bool residual, row_bias;
    enum weir_dtype dtype;
};
enum {
    WEIR_CONV2D_X,
    WEIR_CONV2D_ROW_BIAS /* opt */,
    WEIR_CONV2D_RESIDUAL /* opt */,
    WEIR_CONV2D_Y,
    WEIR_CONV2D_OPERANDS
};

/* conv_temporal: a convolution over time alone, kernel 3, zero padding 1.
 *   y[r,t,p,o] = bias[o] + sum weight[o,i,k] x[r,t+k-1,p,i] + residual[r,t,p,o]
 * Weights  weight [out, in, 3] (of Conv3d [out, in, 3, 1, 1]), bias [out]
 * Shapes   x [R, T, P, in]; y, residual [R, T, P, out]. y may be residual */
struct weir_conv_temporal {
    uint32_t rows, frames, pixels, in, out;
    bool residual;
    enum weir_dtype dtype;
};
enum { WEIR_CONV_TEMPORAL_X, WEIR_CONV_TEMPORAL_RESIDUAL /* opt */, WEIR_CONV_TEMPORAL_Y, WEIR_CONV_TEMPORAL_OPERANDS };

/* group_norm: normalise each group of channels over all pixels of each batch entry, scale, shift, optional SiLU.
 *   y[b,p,c] = act((x[b,p,c] - mean[b,g]) / sqrt(var[b,g] + eps) * gamma[c] + beta[c]),  g = c / (C / groups)
 * Weights  gamma, beta [C]
 * Shapes   x, y [rows * batch, pixels, C]: batch = frames for statistics per frame, or 1 with pixels = T * P for
 *          statistics over all frames; biased variance about the mean, never E[x*x] - mean*mean. y may be x
 * Source   Wu and He, arXiv:1803.08494 */
struct weir_group_norm {
    uint32_t rows, batch, pixels, channels, groups;
    float eps;
    bool silu;
    enum weir_dtype dtype;
};
enum { WEIR_GROUP_NORM_X, WEIR_GROUP_NORM_Y, WEIR_GROUP_NORM_OPERANDS };

/* layer_norm: y[r,l,:] = (x - mean) / sqrt(var + eps) * gamma + beta over the last axis, biased variance. y may be x.
 * Weights  gamma, beta [C] */
struct weir_layer_norm {
    uint32_t rows, tokens, channels;
    float eps;
    enum weir_dtype dtype;
};
enum { WEIR_LAYER_NORM_X, WEIR_LAYER_NORM_Y, WEIR_LAYER_NORM_OPERANDS };

/* attention: softmax attention of many short or long sequences that may lie strided in one tensor.
 *   y[r,s,i,h,:] = sum_j softmax_j(scale * q[r,s,i,h,:] . k[r,s,j,h,:]) v[r,s,j,h,:]
 * Shapes   a token holds `heads * head_dim` channels, head-major, beginning at *_channel of a token of *_stride
 *          channels. Token i of sequence s of row r is token index
 *            r * row_tokens + (s / inner) * outer_step + (s % inner) * inner_step + i * token_step
 *          of its tensor, with the steps of `query` for q and y, and of `key` for k and v.
 *          So spatial attention of [R, T, P, C] is sequences = T, inner = 1, outer_step = P, token_step = 1; temporal
 *          attention is sequences = P, inner = P, inner_step = 1, token_step = P. Text K/V shared by all frames:
 *          steps 0. y has y_stride channels a token, beginning at channel 0. y must not be q, k or v
 *          causal: key j counts for query i only when j <= i (query_length == key_length)
 * Source   Vaswani et al., arXiv:1706.03762; diffusers models/attention_processor.py */
struct weir_sequence_layout {
    uint32_t row_tokens, inner, outer_step, inner_step, token_step;
};
struct weir_attention {
    uint32_t rows, sequences, query_length, key_length, heads, head_dim;
    struct weir_sequence_layout query, key;
    uint32_t q_stride, q_channel, k_stride, k_channel, v_stride, v_channel, y_stride;
    float scale;
    bool causal;
    enum weir_dtype dtype;
};
enum { WEIR_ATTENTION_Q, WEIR_ATTENTION_K, WEIR_ATTENTION_V, WEIR_ATTENTION_Y, WEIR_ATTENTION_OPERANDS };

/* embed: y[r,l,:] = table[ids[r,l],:] + positions[l,:]
 * Weights  table [vocabulary, C], positions [positions, C] or NULL
 * Shapes   ids i32 [R, L], each in 0..vocabulary-1 (the caller checked); L <= positions; y [R, L, C] */
struct weir_embed {
    uint32_t rows, tokens, channels, vocabulary, positions;
    enum weir_dtype dtype;
};
enum { WEIR_EMBED_IDS, WEIR_EMBED_Y, WEIR_EMBED_OPERANDS };

/* timestep_embedding: y[r,:] = [cos(t f_0) .. cos(t f_{h-1}), sin(t f_0) .. sin(t f_{h-1})], h = dim / 2,
 * f_i = exp(-ln(10000) i / (h - downscale_freq_shift)); sin before cos unless flip_sin_to_cos
 * Shapes   t f32 [R]; y [R, dim], dim even
 * Source   diffusers models/embeddings.py get_timestep_embedding */
struct weir_timestep_embedding {
    uint32_t rows, dim;
    bool flip_sin_to_cos;
    float downscale_freq_shift;
    enum weir_dtype dtype;
};
enum { WEIR_TIMESTEP_EMBEDDING_T, WEIR_TIMESTEP_EMBEDDING_Y, WEIR_TIMESTEP_EMBEDDING_OPERANDS };

/* activate: y = act(x), elementwise, any activation but GEGLU; x, y [R, L, C]. y may be x */
struct weir_activate {
    uint32_t rows, tokens, channels;
    enum weir_activation activation;
    enum weir_dtype dtype;
};
enum { WEIR_ACTIVATE_X, WEIR_ACTIVATE_Y, WEIR_ACTIVATE_OPERANDS };

/* concat: y[r,l,:] = [a[r,l,:], b[r,l,:]]; a [R, L, a_channels], b [R, L, b_channels] */
struct weir_concat {
    uint32_t rows, tokens, a_channels, b_channels;
    enum weir_dtype dtype;
};
enum { WEIR_CONCAT_A, WEIR_CONCAT_B, WEIR_CONCAT_Y, WEIR_CONCAT_OPERANDS };

/* latents_pack: diffusers' order to channels-last, once for each guidance row of an item, times a factor, and where
 * `scaled`, times what the sampler's row of the item says (k[12] of sampler_step).
 *   y[i * copies + r, t, p, c] = x[i, c, t, p] * factor (* k[i, 12])
 * Shapes   x f32 [items, C, T, P]; k f32 [items, WEIR_SAMPLER_COEFFICIENTS]; y [items * copies, T, P, C] */
struct weir_latents_pack {
    uint32_t items, copies, frames, pixels, channels;
    float factor;
    bool scaled;
    enum weir_dtype dtype;
};
enum { WEIR_LATENTS_PACK_X, WEIR_LATENTS_PACK_K /* opt */, WEIR_LATENTS_PACK_Y, WEIR_LATENTS_PACK_OPERANDS };

/* guidance: classifier-free guidance, and back to diffusers' order.
 *   copies 2 (rows: negative, then positive): y[i,c,t,p] = u + g[i] * (v - u), u = x[2i,t,p,c], v = x[2i+1,t,p,c]
 *   copies 1: y[i,c,t,p] = x[i,t,p,c]
 * Shapes   x [items * copies, T, P, C]; g f32 [items] (opt with copies 1); y f32 [items, C, T, P]
 * Source   Ho and Salimans, arXiv:2207.12598 */
struct weir_guidance {
    uint32_t items, copies, frames, pixels, channels;
    enum weir_dtype dtype;
};
enum { WEIR_GUIDANCE_X, WEIR_GUIDANCE_SCALE, WEIR_GUIDANCE_Y, WEIR_GUIDANCE_OPERANDS };

/* sampler_step: one step of a solver that is linear in x, the model output m, and the last data prediction or noise.
 *   e  = (k[4] * (k[12] * x) + k[5] * m) / k[6]
 *   x0 = ((k[0] * x + k[1] * m) + k[13] * e) / k[2], clamped to +-k[3] (infinity: as it is; a NaN stays one)
 *   x  = (((k[7] * x + k[8] * x0) + k[9] * e) + k[10] * (k[11] * (x0 - previous))) + k[14] * previous;  previous = x0
 * The term of k[9], k[10], k[13] or k[14] is left out when that is 0, so what it would have read may be anything.
 * `previous` is x0 of the step before, or, where k[14] is not 0, noise that the caller drew for this step.
 * Each operation is rounded to f32 in the order written, so that all devices agree, and agree with diffusers on a CPU
 * Shapes   x, m, previous f32 [items, n]; k f32 [items, WEIR_SAMPLER_COEFFICIENTS]. x and previous are updated in place
 * Source   struct weir_sampler_coefficients of worker/samplers/sampler.h, number by number */
#define WEIR_SAMPLER_COEFFICIENTS 15
struct weir_sampler_step {
    uint32_t items, n;
    enum weir_dtype dtype; /* WEIR_F32 always */
};
enum {
    WEIR_SAMPLER_STEP_X,
    WEIR_SAMPLER_STEP_M,
    WEIR_SAMPLER_STEP_PREVIOUS,
    WEIR_SAMPLER_STEP_K,
    WEIR_SAMPLER_STEP_OPERANDS
};

/* to_rgb8: y = (uint8) (clamp(0.5 x + 0.5, 0, 1) * 255), truncated, or rounded half to even; NaN gives 0
 * Shapes   x [R, L, channels], of which the first three are used; y uint8 [R, L, 3] */
struct weir_to_rgb8 {
    uint32_t rows, tokens, channels;
    bool round;
    enum weir_dtype dtype;
};
enum { WEIR_TO_RGB8_X, WEIR_TO_RGB8_Y, WEIR_TO_RGB8_OPERANDS };

/* X(op, OP, has weights). The order is the order of the table. */
#define WEIR_OP_TABLE(X)                                                                                               \
    X(linear, LINEAR)                                                                                                  \
    X(conv2d, CONV2D)                                                                                                  \
    X(conv_temporal, CONV_TEMPORAL)                                                                                    \
    X(group_norm, GROUP_NORM)                                                                                          \
    X(layer_norm, LAYER_NORM)                                                                                          \
    X(attention, ATTENTION)                                                                                            \
    X(embed, EMBED)                                                                                                    \
    X(timestep_embedding, TIMESTEP_EMBEDDING)                                                                          \
    X(activate, ACTIVATE)                                                                                              \
    X(concat, CONCAT)                                                                                                  \
    X(latents_pack, LATENTS_PACK)                                                                                      \
    X(guidance, GUIDANCE)                                                                                              \
    X(sampler_step, SAMPLER_STEP)                                                                                      \
    X(to_rgb8, TO_RGB8)

enum weir_op {
#define X(op, OP) WEIR_OP_##OP,
    WEIR_OP_TABLE(X)
#undef X
        WEIR_OP_COUNT
};
#define WEIR_OPERANDS_MAX 4

/* A layer's parameters as the model file has them, widened to f32. Borrowed for the call. */
struct weir_parameters {
    enum weir_op op;       /* LINEAR, CONV2D, CONV_TEMPORAL, GROUP_NORM, LAYER_NORM or EMBED */
    const float *weight;   /* or gamma, or table */
    const float *bias;     /* or beta, or positions; NULL when the op allows it */
    uint32_t out, in;      /* GROUP_NORM, LAYER_NORM: out = C; EMBED: out = vocabulary, in = C */
    uint32_t kernel;       /* CONV2D; EMBED: positions */
    bool geglu;            /* LINEAR: will run with GEGLU */
    enum weir_dtype dtype; /* what the products read: the precision of the stage */
    const char *name;      /* for the words of errors: "down_blocks.0.resnets.0.conv1"; or NULL */
    /* Only the shape is kept: packed_bytes() and plan() tell the truth, run() must not be called. The values are not
     * read (weight and bias say by not being NULL that they exist): a network's memory is known before its weights. */
    bool shape_only;
};

/* The heads of every device's own structs: what shapes are checked against. */
#define WEIR_LAYER_NAME_MAX 96 /* longer names are cut; they are only read by people */
struct weir_packed {
    struct weir_device *device;
    enum weir_op op;
    uint32_t out, in, kernel; /* as in weir_parameters */
    bool bias, geglu;
    enum weir_dtype dtype;
    char name[WEIR_LAYER_NAME_MAX];
};
struct weir_plan {
    struct weir_device *device;
    enum weir_op op;
};
struct weir_stream {
    struct weir_device *device;
};

struct weir_ops {
    enum weir_status (*pack)(struct weir_device *device, const struct weir_parameters *parameters,
                             struct weir_packed **out, struct weir_error *error);
    void (*packed_destroy)(struct weir_packed *packed);
    /* On the device. A plan may add to it: a shape can want the weights laid out in another way. */
    size_t (*packed_bytes)(const struct weir_packed *packed);

    /* One plan call an op: `shape` is the op's struct above; `packed` is NULL for ops without weights.
     * `*workspace_bytes` is what run() wants as scratch; it may be shared with other ops of the same stream. */
    enum weir_status (*plan[WEIR_OP_COUNT])(struct weir_device *device, const struct weir_packed *packed,
                                            const void *shape, struct weir_plan **out, size_t *workspace_bytes,
                                            struct weir_error *error);
    void (*plan_destroy)(struct weir_plan *plan);

    enum weir_status (*run)(const struct weir_plan *plan, struct weir_stream *stream, void *const operands[],
                            void *workspace);
};

/* "linear", "conv2d", ... */
const char *weir_op_name(enum weir_op op);

#endif
