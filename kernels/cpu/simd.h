/* simd: the loops of the cpu device that are ours, as a table for each instruction set.
 *
 * simd_body.h is compiled three times: for any processor (4 lanes, no fused multiply-add), for AVX2 with FMA (8 lanes)
 * and for AVX-512 (16 lanes). Every sum has a fixed order that depends on the shape and the number of lanes alone, so a
 * result depends on the instruction set (which is in the numerics class) and on nothing else.
 *
 * exp: 2^n p(r) with a polynomial of degree 6, within 2 ulp of the true value for -87.3 <= x <= 88.7; 0 below, clamped
 * above; NaN stays NaN. Phi (the normal distribution, for GELU): within 3e-7.
 */
#ifndef WEIR_KERNELS_CPU_SIMD_H
#define WEIR_KERNELS_CPU_SIMD_H

#include "kernels/ops.h"

struct weir_cpu_simd {
    const char *name;
    uint32_t lanes;

    /* y = act(x) + residual (or NULL); y may be x or residual. */
    void (*activate)(enum weir_activation activation, const float *x, const float *residual, float *y, size_t count);
    /* y[l,:] = x[l, 0..width-1] * gelu(x[l, width..2*width-1]) + residual[l,:] (or NULL). */
    void (*geglu)(const float *x, const float *residual, float *y, size_t tokens, size_t width);

    /* sums[c] = sum over p of x[p,c] - about[c]; squares[c] = the same of its square. Sums of 32 in f32, of those in
     * f64. With `about` near the values, f32 keeps what matters even when they are far from zero. */
    void (*channel_sums)(const float *x, size_t pixels, size_t channels, const float *about, double *sums);
    void (*channel_squares)(const float *x, size_t pixels, size_t channels, const float *about, double *squares);
    /* y[p,c] = act((x[p,c] - mean[c]) * scale[c] + beta[c]); y may be x. */
    void (*normalise)(const float *x, float *y, size_t pixels, size_t channels, const float *mean, const float *scale,
                      const float *beta, bool silu);
    void (*layer_norm)(const float *x, float *y, size_t tokens, size_t channels, const float *gamma, const float *beta,
                       float eps);

    /* c[i,j] = sum over k, in order, of a[i,k] b[k,j]; columns is a multiple of `lanes`. */
    void (*product)(size_t rows, size_t columns, size_t inner, const float *a, size_t a_stride, const float *b,
                    size_t b_stride, float *c, size_t c_stride);
    /* x[0..count-1] = exp(x - max x); returns their sum. */
    float (*softmax)(float *x, size_t count);
    /* y = x * factor */
    void (*scale)(const float *x, float factor, float *y, size_t count);
};

extern const struct weir_cpu_simd weir_cpu_simd_base, weir_cpu_simd_avx2, weir_cpu_simd_avx512;

#endif
