/* ops: the contract of every op, for all devices.
 *
 * An op is used in three calls:
 *   pack  once a layer: weights and biases go to the device, in the layout and precision it likes best. Where the device
 *         has loads, a network's layers are packed together, from the file's own numbers
 *   plan  once a shape: picks the algorithm, says its workspace; may allocate
 *   run   every time: only enqueues. No allocation, no host read, no synchronisation; legal inside a captured graph
 * A packed layer may be shared by many plans, a plan by many streams; both outlive the runs queued with them.
 *
 * Letters       R rows (items x guidance rows), T frames, H height, W width, P = H * W pixels, L tokens, C channels
 * Layout        activations are channels-last: [R, T, H, W, C] = [R, L, C] with L = T * H * W. Row-major, last axis
 *               fastest, no gaps. Weights are given as PyTorch stores them, f32
 * Types         `dtype` of a shape is that of its activations: WEIR_F32 on every device, WEIR_BF16 where said so. Sums,
 *               norms' statistics and softmax are f32. `dtype` of a layer is what its products read: with WEIR_BF16,
 *               linear, conv2d and conv_temporal round weights (when packed) and x (on its way in) to the nearest
 *               bf16, half to even; bias, residual, gate and y keep the shape's dtype. (Behind a resize to twice the
 *               size several weights meet the same number: a device may round their sum.) So precision is a layer's own,
 *               and shapes know nothing of it. Where values are bf16 too (weir_device.values: on cuda), shape and layer
 *               both say so, and what is stored is rounded once: sums, norms and softmax stay f32 until then
 * Same bytes    the values of one row depend on that row alone: not on R, its place, threads or batch-mates. On cpu
 *               work is cut by shape alone and each library call runs on one thread. On cuda a library's algorithm is
 *               chosen for the shape of one row, splits no sum between blocks, and runs for the rows as a strided batch
 *               or one after the other; own kernels add the terms of a value in an order that the row's shape decides
 * Operands      run() takes an array of device pointers, one per name of the op's enum; "opt" ones may be NULL when the
 *               shape says that they are absent. y may be the same memory as an operand only where stated
 * Errors        pack, plan: BAD_SHAPE, UNSUPPORTED (a dtype the device does not offer), NO_MEMORY, nothing made. run:
 *               DEVICE, y undefined
 * Judged by     kernels/ref, one file an op
 */
#ifndef WEIR_KERNELS_OPS_H
#define WEIR_KERNELS_OPS_H

#include "kernels/device.h"
#include "kernels/numbers.h"

struct weir_packed; /* a layer's parameters on a device */
struct weir_plan;   /* an op made ready for one shape */
struct weir_load;   /* layers on their way to a device */

enum weir_activation {
    WEIR_ACT_NONE,
    WEIR_ACT_SILU,       /* x * sigmoid(x) */
    WEIR_ACT_GELU,       /* 0.5 x (1 + erf(x / sqrt 2)) */
    WEIR_ACT_GELU_TANH,  /* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    WEIR_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
    WEIR_ACT_RELU,       /* max(x, 0); a NaN stays one */
    WEIR_ACT_GEGLU, /* linear only: out is 2 * C, first half the value a, second half the gate g: y = a * gelu(g) */
    WEIR_ACT_GEGLU_TANH, /* linear only: the same with gelu's tanh form */
};

/* linear: y[r,l,:] = gate[r,vector,:] * act(x[r,l,:] W^T + bias) + residual[r,l,:]
 * Weights  weight [out, in], bias [out] or NULL
 * Shapes   x [R, L, in]; y, residual [R, L, out], with a GEGLU [R, L, out / 2]; gate [R, gate_vectors, the same C], of
 *          which vector number gate_vector counts (gate_vectors 0: no gate). y may be residual. A layer packed for a
 *          GEGLU runs with one, or with NONE: then y has both halves, for low_rank and activate behind it
 * Source   torch.nn.Linear; GEGLU: Shazeer, arXiv:2002.05202; gates: Peebles and Xie, arXiv:2212.09748 */
struct weir_linear {
    uint32_t rows, tokens, in, out;
    enum weir_activation activation;
    bool residual;
    uint32_t gate_vectors, gate_vector;
    enum weir_dtype dtype;
};
enum { WEIR_LINEAR_X, WEIR_LINEAR_RESIDUAL /* opt */, WEIR_LINEAR_GATE /* opt */, WEIR_LINEAR_Y, WEIR_LINEAR_OPERANDS };

/* low_rank: adds to a range of y's channels the product of x with two thin matrices: what an adapter adds to a linear.
 *   y[r,l,channel+o] += gate[r,vector,channel+o] * sum_k (sum_i x[r,l,i] a[i,k]) b[k,o]
 * Shapes   x [R, L, in]; a [in, rank]; b [rank, out]; y [R, L, y_channels], changed in place, channel + out <=
 *          y_channels; gate [R, gate_vectors, y_channels] (gate_vectors 0: no gate). y is none of the others. a and b
 *          are operands, not weights: they change from item to item, and the program does not. They are f32 always
 * Source   Hu et al., arXiv:2106.09685 */
struct weir_low_rank {
    uint32_t rows, tokens, in, rank, out;
    uint32_t y_channels, channel;
    uint32_t gate_vectors, gate_vector;
    enum weir_dtype dtype;
};
enum {
    WEIR_LOW_RANK_X,
    WEIR_LOW_RANK_A,
    WEIR_LOW_RANK_B,
    WEIR_LOW_RANK_GATE /* opt */,
    WEIR_LOW_RANK_Y,
    WEIR_LOW_RANK_OPERANDS
};

/* grouped_linear: a linear for each group of channels by itself: a 1x1 convolution with groups, no bias.
 *   y[r,l,g*O+j] = sum_i weight[g*O+j,i] x[r,l,g*I+i],  I = in / groups, O = out / groups
 * Weights  weight [out, in / groups]
 * Shapes   x [R, L, in]; y [R, L, out]; groups divides both */
struct weir_grouped_linear {
    uint32_t rows, tokens, in, out, groups;
    enum weir_dtype dtype;
};
enum { WEIR_GROUPED_LINEAR_X, WEIR_GROUPED_LINEAR_Y, WEIR_GROUPED_LINEAR_OPERANDS };

/* conv2d: a square convolution of each image, with an optional nearest resize of the input before it.
 *   y[r,t,:,:,o] = bias[o] + row_bias[r,o] + sum weight[o,i,ky,kx] x'[r,t,...,i] + residual[r,t,:,:,o], or with silu
 *   the SiLU of that without a residual
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
    bool residual, row_bias, silu;
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

/* depthwise_conv: each channel of each image by itself, square odd kernel, stride 1, zero padding kernel / 2.
 *   u[r,t,y,x,c] = bias[c] + sum weight[c,ky,kx] act(x[r,t,y+ky-pad,x+kx-pad,c])
 *   act: NONE or SILU, rounded to dtype as if `activate` had stored it; what pads is 0 behind it
 *   plain: y = u. glu: y[..,c] = u[..,c] * silu(u[..,C/2+c]), c < C/2: first half the value, second half the gate
 * Weights  weight [C, kernel, kernel] (of Conv2d [C, 1, k, k]), bias [C] or NULL
 * Shapes   x [R, T, height, width, C]; y the same, with glu C / 2 channels
 * Source   torch.nn.Conv2d(groups=C); the gated form: GLUMBConv of Xie et al., arXiv:2410.10629 */
struct weir_depthwise_conv {
    uint32_t rows, frames, height, width, channels, kernel;
    enum weir_activation activation; /* of x: NONE or SILU */
    bool glu;
    enum weir_dtype dtype;
};
enum { WEIR_DEPTHWISE_CONV_X, WEIR_DEPTHWISE_CONV_Y, WEIR_DEPTHWISE_CONV_OPERANDS };

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

/* rms_norm: a token is `parts` parts of C channels, each normed by itself, and `rest` channels that are copied:
 *   y[r,l,p,:] = act(x[r,l,p,:] / sqrt(mean(x[r,l,p,:]^2) + eps) * gamma[p,:] + beta[p,:]) + residual[r,l,:]
 * Weights  gamma [parts, C], beta [parts, C] or NULL. (Gemma's 1 + weight is added when the layer is packed.)
 * Shapes   x, y [R, L, parts * C + rest]; residual [R, L, C], only with one part and no rest. y may be x or residual
 * Source   Zhang and Sennrich, arXiv:1910.07467 */
struct weir_rms_norm {
    uint32_t rows, tokens, parts, channels, rest; /* parts: at least 1 */
    float eps;
    enum weir_activation activation; /* NONE, RELU or SILU */
    bool residual;
    enum weir_dtype dtype;
};
enum { WEIR_RMS_NORM_X, WEIR_RMS_NORM_RESIDUAL /* opt */, WEIR_RMS_NORM_Y, WEIR_RMS_NORM_OPERANDS };

/* modulated_norm: layer_norm without gamma and beta, then a scale and a shift of each row.
 *   y[r,l,:] = (x - mean) / sqrt(var + eps) * (1 + m[r,scale,:]) + m[r,shift,:]
 * Shapes   x, y [R, L, C]; m [R, vectors, C]. y may be x
 * Source   Peebles and Xie, arXiv:2212.09748 (adaLN) */
struct weir_modulated_norm {
    uint32_t rows, tokens, channels;
    uint32_t vectors, shift, scale;
    float eps;
    enum weir_dtype dtype;
};
enum { WEIR_MODULATED_NORM_X, WEIR_MODULATED_NORM_M, WEIR_MODULATED_NORM_Y, WEIR_MODULATED_NORM_OPERANDS };

/* table_add: y[r,n,:] = table[n,:] + x[r,n % given,:]: a table of vectors (scale, shift and gate of one block or of all,
 * or positions) added to each row, whose own vectors are repeated.
 * Weights  table [vectors, C]
 * Shapes   x [R, given, C], given divides vectors; y [R, vectors, C]. y may be x when given is vectors */
struct weir_table_add {
    uint32_t rows, vectors, given, channels;
    enum weir_dtype dtype;
};
enum { WEIR_TABLE_ADD_X, WEIR_TABLE_ADD_Y, WEIR_TABLE_ADD_OPERANDS };

/* attention: softmax attention of many short or long sequences that may lie strided in one tensor.
 *   y[r,s,i,h,:] = sum_j softmax_j(cap(scale * q[r,s,i,h,:] . k[r,s,j,h',:])) v[r,s,j,h',:]
 *   h' = h / (heads / kv_heads); cap(a) = softcap * tanh(a / softcap), or a when softcap is 0
 * Shapes   a token holds `heads * head_dim` channels (k, v: kv_heads * head_dim), head-major, beginning at *_channel of
 *          a token of *_stride channels. Token i of sequence s of row r is token index
 *            r * row_tokens + (s / inner) * outer_step + (s % inner) * inner_step + i * token_step
 *          of its tensor, with the steps of `query` for q and y, and of `key` for k and v.
 *          So spatial attention of [R, T, P, C] is sequences = T, inner = 1, outer_step = P, token_step = 1; temporal
 *          attention is sequences = P, inner = P, inner_step = 1, token_step = P. Text K/V shared by all frames:
 *          steps 0. y has y_stride channels a token, beginning at channel 0. y must not be q, k or v
 *          causal: key j counts for query i only when j <= i (query_length == key_length)
 *          lengths: i32 [R], key j of row r counts only when j < lengths[r], each 1..key_length (the caller checked)
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
    uint32_t kv_heads; /* divides heads, so at least 1 */
    float softcap;
    bool lengths;
    enum weir_dtype dtype;
};
enum {
    WEIR_ATTENTION_Q,
    WEIR_ATTENTION_K,
    WEIR_ATTENTION_V,
    WEIR_ATTENTION_LENGTHS /* opt */,
    WEIR_ATTENTION_Y,
    WEIR_ATTENTION_OPERANDS
};

/* linear_attention: attention with the kernel relu(q) . relu(k) instead of softmax, linear in the tokens.
 *   y[r,t,i,h,:] = sum_j w_j v[j,h,:] / (sum_j w_j + eps),  w_j = relu(q[i,h,:]) . relu(k[j,h,:])
 * over the tokens j of the same frame. Computed as S = sum_j [v_j; 1] relu(k_j)^T, then S relu(q_i): sums in f32 (on
 * ref in double), in an order that shape alone decides. eps is above 0.
 * Shapes   x [R, T, P, stride]: head h has its q, k and v at channels h * head_step + *_channel; y [R, T, P, heads *
 *          head_dim]. So a fused projection q | k | v has head_step = head_dim and channels 0, C, 2 C; AutoencoderDC's
 *          groups of three heads have head_step = 3 * head_dim and channels 0, head_dim, 2 * head_dim
 * Source   Katharopoulos et al., arXiv:2006.16236; Xie et al., arXiv:2410.10629 */
struct weir_linear_attention {
    uint32_t rows, frames, pixels, stride, heads, head_dim;
    uint32_t head_step, q_channel, k_channel, v_channel;
    float eps;
    enum weir_dtype dtype;
};
enum { WEIR_LINEAR_ATTENTION_X, WEIR_LINEAR_ATTENTION_Y, WEIR_LINEAR_ATTENTION_OPERANDS };

/* rope: rotates the first `heads` heads of each token by its position; further channels are copied.
 *   j < head_dim / 2, a = l * theta^(-2 j / head_dim), computed in f32 as torch does (inverse frequency first):
 *   y[j] = x[j] cos a - x[j + head_dim / 2] sin a;  y[j + head_dim / 2] = x[j + head_dim / 2] cos a + x[j] sin a
 * Shapes   x, y [R, L, C], heads * head_dim <= C, head_dim even; token l has position l. y may be x
 * Source   Su et al., arXiv:2104.09864; transformers models/gemma2 */
struct weir_rope {
    uint32_t rows, tokens, channels, heads, head_dim;
    float theta;
    enum weir_dtype dtype;
};
enum { WEIR_ROPE_X, WEIR_ROPE_Y, WEIR_ROPE_OPERANDS };

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

/* activate: y = act(x), elementwise; with a GEGLU of two halves, as linear does it.
 * Shapes   y [R, L, C]; x the same, or with a GEGLU [R, L, 2 C]. y may be x, but not with a GEGLU */
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

/* regroup: another number of channels without weights.
 *   out a multiple of in: y[r,l,c] = x[r,l,c / (out / in)] (repeat_interleave)
 *   in a multiple of out: y[r,l,c] = the mean of the in / out neighbours x[r,l,c * (in / out) + k], added in order
 * Shapes   x [R, L, in]; y [R, L, out] */
struct weir_regroup {
    uint32_t rows, tokens, in, out;
    enum weir_dtype dtype;
};
enum { WEIR_REGROUP_X, WEIR_REGROUP_Y, WEIR_REGROUP_OPERANDS };

/* pixel_shuffle: channels become 2 x 2 pixels; where there are fewer than 4 * out of them, each is used repeatedly.
 *   y[r,t,2h+i,2w+j,c] = x[r,t,h,w,(4 c + 2 i + j) / (4 out / in)] (+ residual)
 * Shapes   x [R, T, height, width, in]; y, residual [R, T, 2 height, 2 width, out]; 4 * out a multiple of in. y may be
 *          residual
 * Source   torch.nn.functional.pixel_shuffle of repeated channels: diffusers models/autoencoders/autoencoder_dc.py */
struct weir_pixel_shuffle {
    uint32_t rows, frames, height, width, in, out;
    bool residual;
    enum weir_dtype dtype;
};
enum { WEIR_PIXEL_SHUFFLE_X, WEIR_PIXEL_SHUFFLE_RESIDUAL /* opt */, WEIR_PIXEL_SHUFFLE_Y, WEIR_PIXEL_SHUFFLE_OPERANDS };

/* pixel_unshuffle: 2 x 2 pixels become channels, then groups of neighbours their mean.
 *   u[r,t,h,w,4 c + 2 i + j] = x[r,t,2h+i,2w+j,c]
 *   y[r,t,h,w,o] = mean of u[r,t,h,w,o * m + k], k < m = 4 in / out (+ residual)
 * Shapes   x [R, T, height, width, in], height and width even; y, residual [R, T, height / 2, width / 2, out]; 4 * in a
 *          multiple of out. y may be residual
 * Source   as above */
struct weir_pixel_unshuffle {
    uint32_t rows, frames, height, width, in, out;
    bool residual;
    enum weir_dtype dtype;
};
enum {
    WEIR_PIXEL_UNSHUFFLE_X,
    WEIR_PIXEL_UNSHUFFLE_RESIDUAL /* opt */,
    WEIR_PIXEL_UNSHUFFLE_Y,
    WEIR_PIXEL_UNSHUFFLE_OPERANDS
};

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

/* X(op, OP). The order is the order of the table. */
#define WEIR_OP_TABLE(X)                                                                                               \
    X(linear, LINEAR)                                                                                                  \
    X(low_rank, LOW_RANK)                                                                                              \
    X(grouped_linear, GROUPED_LINEAR)                                                                                  \
    X(conv2d, CONV2D)                                                                                                  \
    X(conv_temporal, CONV_TEMPORAL)                                                                                    \
    X(depthwise_conv, DEPTHWISE_CONV)                                                                                  \
    X(group_norm, GROUP_NORM)                                                                                          \
    X(layer_norm, LAYER_NORM)                                                                                          \
    X(rms_norm, RMS_NORM)                                                                                              \
    X(modulated_norm, MODULATED_NORM)                                                                                  \
    X(table_add, TABLE_ADD)                                                                                            \
    X(attention, ATTENTION)                                                                                            \
    X(linear_attention, LINEAR_ATTENTION)                                                                              \
    X(rope, ROPE)                                                                                                      \
    X(embed, EMBED)                                                                                                    \
    X(timestep_embedding, TIMESTEP_EMBEDDING)                                                                          \
    X(activate, ACTIVATE)                                                                                              \
    X(concat, CONCAT)                                                                                                  \
    X(regroup, REGROUP)                                                                                                \
    X(pixel_shuffle, PIXEL_SHUFFLE)                                                                                    \
    X(pixel_unshuffle, PIXEL_UNSHUFFLE)                                                                                \
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
#define WEIR_OPERANDS_MAX 5

/* A layer's parameters as the model file has them, widened to f32. Borrowed for the call. */
struct weir_parameters {
    enum weir_op op;       /* an op above that has weights */
    const float *weight;   /* or gamma, or table */
    const float *bias;     /* or beta, or positions; NULL when the op allows it */
    uint32_t out, in;      /* norms, DEPTHWISE_CONV: out = C; EMBED, TABLE_ADD: out = vocabulary or vectors, in = C */
    uint32_t kernel;       /* CONV2D, DEPTHWISE_CONV; EMBED: positions; GROUPED_LINEAR: groups */
    bool geglu;            /* LINEAR: will run with GEGLU or GEGLU_TANH */
    bool doubled;          /* CONV2D of kernel 3, a hint: will run behind a resize to twice the size */
    enum weir_dtype dtype; /* what the products read at least: a device may keep f32 for an op that it has no such
                              products for; weir_packed.dtype says what it is */
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

    /* Loads: NULL, all three, on a device whose pack() alone is as good. Layers packed by a load have the same bytes as
     * those of pack(), but all travel at once: load_pack gives the layer before its numbers have been read, by threads
     * of the load. Until load_end nothing may run with it, and the numbers (no bias: run_count 0) must stay; of
     * parameters->weight and bias is only read that they are not NULL. load_end waits for all, says what failed on the
     * way, and is called also after a failure, before any layer is destroyed. A load belongs to one thread; a device may
     * have several. */
    enum weir_status (*load_begin)(struct weir_device *device, struct weir_load **out, struct weir_error *error);
    enum weir_status (*load_pack)(struct weir_load *load, const struct weir_parameters *parameters,
                                  const struct weir_numbers *weight, const struct weir_numbers *bias,
                                  struct weir_packed **out, struct weir_error *error);
    enum weir_status (*load_end)(struct weir_load **load, struct weir_error *error);

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
