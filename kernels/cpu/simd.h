/* simd: the loops of the cpu device that are ours, as a table for each instruction set.
 *
 * simd_body.h is compiled three times: for any processor (4 lanes, no fused multiply-add), for AVX2 with FMA (8 lanes)
 * and for AVX-512 (16 lanes). Every sum has a fixed order that depends on the shape and the number of lanes alone, so a
 * result depends on the instruction set (which is in the numerics class) and on nothing else.
 *
 * exp: 2^n p(r) with a polynomial of degree 6, within 2 ulp of the true value for -87.3 <= x <= 88.7; 0 below, clamped
 * above; NaN stays NaN. Phi (the normal distribution, for GELU): within 3e-7. tanh: within 3 ulp.
 */
#ifndef WEIR_KERNELS_CPU_SIMD_H
#define WEIR_KERNELS_CPU_SIMD_H

#include "kernels/ops.h"

/* A row of y of a depthwise convolution, for a block of channels. `ring` holds the `kernel` rows of x that it reads, as
 * a ring whose topmost is row `first`: each `width` + kernel - 1 pixels of `stride` floats, with their padding. Pixels,
 * weights [kernel * kernel] and bias lie alike: the value's channels first, those of the gate (when there is one) from
 * `gate` on; both may be read to whole vectors. */
struct weir_cpu_depthwise {
    const float *ring, *weight, *bias;
    size_t kernel, first, stride, gate;
    size_t width, channels; /* of y */
    float *y;
    size_t y_stride; /* between pixels */
};

struct weir_cpu_simd {
    const char *name;
    uint32_t lanes;

    /* y = act(x) + residual (or NULL); y may be x or residual. */
    void (*activate)(enum weir_activation activation, const float *x, const float *residual, float *y, size_t count);
    /* y[l,:] = gate[:] * act(x[l,:]) + residual[l,:], `width` channels; gate and residual or NULL. With a GEGLU, x has
     * 2 * width channels. y may be residual, or x when it is as wide. */
    void (*finish)(enum weir_activation activation, const float *x, const float *gate, const float *residual, float *y,
                   size_t tokens, size_t width);

    /* sums[c] = sum over p of x[p,c] - about[c]; squares[c] = the same of its square. Sums of 32 in f32, of those in
     * f64. With `about` near the values, f32 keeps what matters even when they are far from zero. */
    void (*channel_sums)(const float *x, size_t pixels, size_t channels, const float *about, double *sums);
    void (*channel_squares)(const float *x, size_t pixels, size_t channels, const float *about, double *squares);
    /* y[p,c] = act((x[p,c] - mean[c]) * scale[c] + beta[c]); y may be x. */
    void (*normalise)(const float *x, float *y, size_t pixels, size_t channels, const float *mean, const float *scale,
                      const float *beta, bool silu);
    void (*layer_norm)(const float *x, float *y, size_t tokens, size_t channels, const float *gamma, const float *beta,
                       float eps);
    /* y[l,:] = act(x[l,:] / sqrt(mean of its squares + eps) * gamma + beta (or NULL)) + residual[l,:] (or NULL);
     * activation NONE, RELU or SILU. The next token is `step` floats further. y may be x or residual. */
    void (*rms_norm)(enum weir_activation activation, const float *x, const float *residual, float *y, size_t tokens,
                     size_t channels, size_t step, const float *gamma, const float *beta, float eps);

    /* c[i,j] = sum over k, in order, of a[i,k] b[k,j]; columns is a multiple of `lanes`. */
    void (*product)(size_t rows, size_t columns, size_t inner, const float *a, size_t a_stride, const float *b,
                    size_t b_stride, float *c, size_t c_stride);
    /* The same of a turned round: c[i,j] = sum over k of a[k,i] b[k,j]. */
    void (*product_turned)(size_t rows, size_t columns, size_t inner, const float *a, size_t a_stride, const float *b,
                           size_t b_stride, float *c, size_t c_stride);
    /* x[0..count-1] = exp(x - max x); returns their sum. */
    float (*softmax)(float *x, size_t count);
    /* y = x * factor */
    void (*scale)(const float *x, float factor, float *y, size_t count);
    /* x = cap * tanh(x / cap) */
    void (*softcap)(float *x, float cap, size_t count);
    /* y = a + b; y may be either. */
    void (*add)(const float *a, const float *b, float *y, size_t count);

    /* y = x to the nearest bf16, half to even; a NaN stays one */
    void (*round_bf16)(const float *x, uint16_t *y, size_t count);

    /* to[i, 0..width-1] = act(from[i,:]), activation NONE, RELU or SILU; to[i, width..padded-1] = 0. */
    void (*gather)(const float *from, size_t from_stride, size_t rows, size_t width, float *to, size_t to_stride,
                   size_t padded, enum weir_activation activation);
    /* y[l,:] = x[l,:] / (q[l,:] . z + eps) over `dim` channels; x, q [tokens, padded] and z [padded] hold zeros beyond
     * them, to whole vectors. */
    void (*divide)(const float *x, const float *q, const float *z, size_t padded, float *y, size_t y_stride,
                   size_t tokens, size_t dim, float eps);
    void (*depthwise)(const struct weir_cpu_depthwise *row);
    /* One head: y[j] = x[j] c[j] - x[half + j] s[j], y[half + j] = x[half + j] c[j] + x[j] s[j]; y may be x. */
    void (*rotate)(const float *x, const float *cosines, const float *sines, float *y, size_t half);

    /* y[c] = x[c / times] */
    void (*repeat)(const float *x, float *y, size_t count, size_t times);
    /* y[c] = mean of x[c * of + k], k < of, added in order */
    void (*means)(const float *x, float *y, size_t count, size_t of);
    /* pixel_shuffle's pixel number `place` = 2 i + j: y[c] = x[(4 c + place) / times] + residual[c] (or NULL) */
    void (*shuffle)(const float *x, size_t place, size_t times, const float *residual, float *y, size_t count);
    /* pixel_unshuffle: u[4 c + place] = x[place][c], y[o] = mean of u[o * of + k], k < of, + residual[o] (or NULL) */
    void (*unshuffle)(const float *const x[4], size_t of, const float *residual, float *y, size_t count);
};

extern const struct weir_cpu_simd weir_cpu_simd_base, weir_cpu_simd_avx2, weir_cpu_simd_avx512;

#endif
