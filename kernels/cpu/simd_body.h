/* Included by simd_base.c, simd_avx2.c and simd_avx512.c, each compiled for its own instruction set; SIMD_NAME is the
 * name of the table it makes. Vectors are GCC's, so that + - * / are the processor's own. */
#include "kernels/cpu/simd.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#else
#define LANES 4
#endif

typedef float vector __attribute__((vector_size(LANES * 4), may_alias));
typedef int32_t integers __attribute__((vector_size(LANES * 4), may_alias));
typedef uint32_t words __attribute__((vector_size(LANES * 4), may_alias));
typedef uint16_t halves_at __attribute__((vector_size(LANES * 2), aligned(2), may_alias)); /* in memory, unaligned */
typedef float vector_at __attribute__((vector_size(LANES * 4), aligned(4), may_alias));    /* in memory, unaligned */

#define INLINE static inline __attribute__((always_inline))

INLINE vector load(const float *from)
{
    return *(const vector_at *)from;
}

INLINE void store(float *to, vector value)
{
    *(vector_at *)to = value;
}

INLINE vector broadcast(float value)
{
    return value - (vector){ 0 };
}

/* The first `count` < LANES numbers, others `fill`; nothing beyond them is read or written. */
INLINE vector load_some(const float *from, size_t count, float fill)
{
#if LANES == 16
    return (vector)_mm512_mask_loadu_ps((__m512)broadcast(fill), (__mmask16)((1u << count) - 1), from);
#else
    float lanes[LANES];
    for (size_t i = 0; i < LANES; i++) lanes[i] = fill;
    for (size_t i = 0; i < count; i++) lanes[i] = from[i];
    return load(lanes);
#endif
}

INLINE void store_some(float *to, vector value, size_t count)
{
#if LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
#else
    float lanes[LANES];
    store(lanes, value);
    for (size_t i = 0; i < count; i++) to[i] = lanes[i];
#endif
}

/* The same, a whole vector when `count` is LANES: a constant where these are used in a loop. */
INLINE vector load_part(const float *from, size_t count, float fill)
{
    return count == LANES ? load(from) : load_some(from, count, fill);
}

INLINE void store_part(float *to, vector value, size_t count)
{
    if (count == LANES) {
        store(to, value);
    } else {
        store_some(to, value, count);
    }
}

/* a * b + c in one rounding where the instruction set has it. */
INLINE vector fused(vector a, vector b, vector c)
{
#if LANES == 16
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES == 8
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

INLINE vector choose(integers condition, vector yes, vector no)
{
    return (vector)((condition & (integers)yes) | (~condition & (integers)no));
}

INLINE vector larger(vector a, vector b)
{
#if LANES == 16
    return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return choose((integers)(a > b), a, b);
#endif
}

INLINE vector smaller(vector a, vector b)
{
#if LANES == 16
    return (vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return choose((integers)(a < b), a, b);
#endif
}

/* Half onto half until one is left: the same order always. */
INLINE float sum_of(vector value)
{
#if LANES == 16
    __m256 sum8 = _mm256_add_ps(_mm512_castps512_ps256((__m512)value), _mm512_extractf32x8_ps((__m512)value, 1));
#elif LANES == 8
    __m256 sum8 = (__m256)value;
#endif
#if LANES >= 8
    __m128 sum4 = _mm_add_ps(_mm256_castps256_ps128(sum8), _mm256_extractf128_ps(sum8, 1));
    sum4 = _mm_add_ps(sum4, _mm_movehl_ps(sum4, sum4));
    return _mm_cvtss_f32(_mm_add_ss(sum4, _mm_movehdup_ps(sum4)));
#else
    return (value[0] + value[2]) + (value[1] + value[3]);
#endif
}

INLINE float largest_of(vector value)
{
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)value);
#else
    float largest = value[0];
    for (size_t i = 1; i < LANES; i++) largest = value[i] > largest ? value[i] : largest;
    return largest;
#endif
}

/* x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to a whole number, whose low bits are then n. Bounds are
 * applied as min(bound, x) and max(bound, x), which on x86 give x when it is NaN. */
INLINE vector exponential(vector x)
{
    const vector magic = broadcast(0x1.8p23f);
    const vector low = broadcast(-87.33654f), high = broadcast(88.37626f);
    const vector bounded = larger(low, smaller(high, x));
    const vector rounded = fused(bounded, broadcast(0x1.715476p0f), magic);
    const vector n = rounded - magic;
    vector r = fused(n, broadcast(-0x1.62e4p-1f), bounded); /* ln 2 in two parts, the first with few bits */
    r = fused(n, broadcast(-0x1.7f7d1cp-20f), r);
    vector p = broadcast(0x1.6ab97ap-10f);
    p = fused(p, r, broadcast(0x1.126d0cp-7f));
    p = fused(p, r, broadcast(0x1.55589ap-5f));
    p = fused(p, r, broadcast(0x1.55540ap-3f));
    p = fused(p, r, broadcast(0x1.fffffap-2f));
    p = fused(p, r * r, r + 1.0f);
    const integers power = ((integers)rounded - (integers)magic) << 23;
    const vector value = (vector)((integers)p + power);
    return choose((integers)(x == x), choose((integers)(x < low), broadcast(0), value), x);
}

INLINE vector sigmoid(vector x)
{
    return 1.0f / (1.0f + exponential(-x));
}

/* x Phi(x): the tail beyond |x| is exp(-x*x/2) g(t), t = 1 / (1 + |x| / 4), g a polynomial of degree 9. */
INLINE vector gelu(vector x)
{
    const vector z = smaller(larger(x, -x), broadcast(14));
    const vector t = 1.0f / fused(z, broadcast(0.25f), broadcast(1));
    static const float g[] = { 0.033946896221890434f, -0.19617820849661388f, 0.3950033832533305f,
                               -0.33347167775443665f, 0.30448875517714813f,  -0.020384990494828954f,
                               0.12156823849898736f,  0.09482019178397724f,  0.10022900502663441f,
                               -2.16004101699363e-05f };
    vector tail = broadcast(g[0]);
    for (size_t i = 1; i < WEIR_COUNT(g); i++) tail = fused(tail, t, broadcast(g[i]));
    tail *= exponential(-0.5f * z * z);
    return x * choose((integers)(x > 0.0f), 1.0f - tail, tail);
}

/* 0.5 x (1 + tanh u), where 0.5 (1 + tanh u) = sigmoid(2 u) */
INLINE vector gelu_tanh(vector x)
{
    const vector cube = x * x * x;
    return x * sigmoid(fused(cube, broadcast(0.07135481282553f), x * 1.5957691216057308f));
}

/* x + x^3 p(x^2) near zero, where 1 - 2 / (exp(2 |x|) + 1) would lose what is small. */
INLINE vector hyperbolic_tangent(vector x)
{
    const vector size = larger(x, -x), square = x * x;
    vector p = broadcast(-0.005691985599696636f);
    p = fused(p, square, broadcast(0.020626291632652283f));
    p = fused(p, square, broadcast(-0.05373531952500343f));
    p = fused(p, square, broadcast(0.13331381976604462f));
    p = fused(p, square, broadcast(-0.3333328068256378f));
    const vector near = fused(p * square, x, x);
    const vector far = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
    return choose((integers)(size > 0.625f), choose((integers)(x > 0.0f), far, -far), near);
}

INLINE vector activated(enum weir_activation activation, vector x)
{
    switch (activation) {
    case WEIR_ACT_SILU:
        return x * sigmoid(x);
    case WEIR_ACT_GELU:
    case WEIR_ACT_GEGLU:
        return gelu(x);
    case WEIR_ACT_GELU_TANH:
    case WEIR_ACT_GEGLU_TANH:
        return gelu_tanh(x);
    case WEIR_ACT_QUICK_GELU:
        return x * sigmoid(1.702f * x);
    case WEIR_ACT_RELU:
        return larger(broadcast(0), x); /* x when it is NaN */
    case WEIR_ACT_NONE:
        break;
    }
    return x;
}

INLINE void activate_value(enum weir_activation activation, vector x, const float *residual, float *y, size_t part)
{
    vector value = activated(activation, x);
    if (residual) value += load_part(residual, part, 0);
    store_part(y, value, part);
}

INLINE void activate_all(enum weir_activation activation, const float *x, const float *residual, float *y, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        activate_value(activation, load(x + i), residual ? residual + i : NULL, y + i, LANES);
    }
    if (i < count) {
        const vector rest = load_some(x + i, count - i, 0);
        activate_value(activation, rest, residual ? residual + i : NULL, y + i, count - i);
    }
}

#define CASE(activation, call)                                                                                         \
    case activation:                                                                                                   \
        call;                                                                                                          \
        break;

static void activate(enum weir_activation activation, const float *x, const float *residual, float *y, size_t count)
{
    switch (activation) { /* outside the loop: one loop for each */
        CASE(WEIR_ACT_NONE, activate_all(WEIR_ACT_NONE, x, residual, y, count))
        CASE(WEIR_ACT_SILU, activate_all(WEIR_ACT_SILU, x, residual, y, count))
        CASE(WEIR_ACT_GELU, activate_all(WEIR_ACT_GELU, x, residual, y, count))
        CASE(WEIR_ACT_GELU_TANH, activate_all(WEIR_ACT_GELU_TANH, x, residual, y, count))
        CASE(WEIR_ACT_QUICK_GELU, activate_all(WEIR_ACT_QUICK_GELU, x, residual, y, count))
        CASE(WEIR_ACT_RELU, activate_all(WEIR_ACT_RELU, x, residual, y, count))
        CASE(WEIR_ACT_GEGLU, ) /* not elementwise */
        CASE(WEIR_ACT_GEGLU_TANH, )
    }
}

/* `far` is where a GEGLU's gates are, else NULL. */
INLINE void finish_part(enum weir_activation activation, const float *x, const float *far, const float *gate,
                        const float *residual, float *y, size_t part)
{
    vector value = load_part(x, part, 0);
    if (far) {
        value *= activated(activation, load_part(far, part, 0));
    } else {
        value = activated(activation, value);
    }
    if (gate && residual) {
        value = fused(load_part(gate, part, 0), value, load_part(residual, part, 0));
    } else if (gate) {
        value *= load_part(gate, part, 0);
    } else if (residual) {
        value += load_part(residual, part, 0);
    }
    store_part(y, value, part);
}

INLINE void finish_all(enum weir_activation activation, bool pairs, const float *x, const float *gate,
                       const float *residual, float *y, size_t tokens, size_t width)
{
    for (size_t l = 0; l < tokens; l++, x += pairs ? 2 * width : width, y += width) {
        const float *added = residual ? residual + l * width : NULL;
        size_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            finish_part(activation, x + i, pairs ? x + width + i : NULL, gate ? gate + i : NULL,
                        added ? added + i : NULL, y + i, LANES);
        }
        if (i < width) {
            finish_part(activation, x + i, pairs ? x + width + i : NULL, gate ? gate + i : NULL,
                        added ? added + i : NULL, y + i, width - i);
        }
    }
}

static void finish(enum weir_activation activation, const float *x, const float *gate, const float *residual, float *y,
                   size_t tokens, size_t width)
{
    switch (activation) {
        CASE(WEIR_ACT_NONE, finish_all(WEIR_ACT_NONE, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_SILU, finish_all(WEIR_ACT_SILU, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_GELU, finish_all(WEIR_ACT_GELU, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_GELU_TANH, finish_all(WEIR_ACT_GELU_TANH, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_QUICK_GELU, finish_all(WEIR_ACT_QUICK_GELU, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_RELU, finish_all(WEIR_ACT_RELU, false, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_GEGLU, finish_all(WEIR_ACT_GEGLU, true, x, gate, residual, y, tokens, width))
        CASE(WEIR_ACT_GEGLU_TANH, finish_all(WEIR_ACT_GEGLU_TANH, true, x, gate, residual, y, tokens, width))
    }
}

/* --- norms -------------------------------------------------------------------------------------------------------- */

#define SUM_RUN 32 /* so many are summed in f32 before they are added in f64 */

/* sum + value, or sum + value^2. */
INLINE vector added(bool squares, vector value, vector sum)
{
    if (squares) return fused(value, value, sum);
    return sum + value;
}

/* Sums of `some` channels from x[0] on, over `pixels` pixels: of x - about, or of its square. */
INLINE void lane_sums(const float *x, size_t pixels, size_t channels, const float *about, bool squares, size_t some,
                      double *sums)
{
    double totals[LANES] = { 0 };
    const bool whole = some == LANES;
    const vector middle = whole ? load(about) : load_some(about, some, 0);
    for (size_t p = 0; p < pixels; p += SUM_RUN) {
        const size_t end = pixels - p < SUM_RUN ? pixels : p + SUM_RUN;
        vector run = broadcast(0);
        for (size_t i = p; i < end; i++) {
            const vector value = whole ? load(x + i * channels) : load_some(x + i * channels, some, 0);
            run = added(squares, value - middle, run);
        }
        float lanes[LANES];
        store(lanes, run);
        for (size_t k = 0; k < LANES; k++) totals[k] += (double)lanes[k];
    }
    memcpy(sums, totals, some * sizeof(double));
}

/* The same for 4 * LANES channels at once, a sum each. */
INLINE void wide_sums(const float *x, size_t pixels, size_t channels, const float *about, bool squares, double *sums)
{
    double totals[4][LANES] = { { 0 } };
    vector middle[4];
    for (size_t v = 0; v < 4; v++) middle[v] = load(about + v * LANES);
    for (size_t p = 0; p < pixels; p += SUM_RUN) {
        const size_t end = pixels - p < SUM_RUN ? pixels : p + SUM_RUN;
        vector run[4] = { broadcast(0), broadcast(0), broadcast(0), broadcast(0) };
        for (size_t i = p; i < end; i++) {
            for (size_t v = 0; v < 4; v++) {
                run[v] = added(squares, load(x + i * channels + v * LANES) - middle[v], run[v]);
            }
        }
        for (size_t v = 0; v < 4; v++) {
            float lanes[LANES];
            store(lanes, run[v]);
            for (size_t i = 0; i < LANES; i++) totals[v][i] += (double)lanes[i];
        }
    }
    memcpy(sums, totals, sizeof totals);
}

INLINE void all_sums(const float *x, size_t pixels, size_t channels, const float *about, bool squares, double *sums)
{
    size_t c = 0;
    for (; c + 4 * LANES <= channels; c += 4 * LANES) wide_sums(x + c, pixels, channels, about + c, squares, sums + c);
    for (; c + LANES <= channels; c += LANES) lane_sums(x + c, pixels, channels, about + c, squares, LANES, sums + c);
    if (c < channels) lane_sums(x + c, pixels, channels, about + c, squares, channels - c, sums + c);
}

static void channel_sums(const float *x, size_t pixels, size_t channels, const float *about, double *sums)
{
    all_sums(x, pixels, channels, about, false, sums);
}

static void channel_squares(const float *x, size_t pixels, size_t channels, const float *about, double *squares)
{
    all_sums(x, pixels, channels, about, true, squares);
}

INLINE void normalise_all(const float *x, float *y, size_t pixels, size_t channels, const float *mean,
                          const float *scale, const float *beta, enum weir_activation activation)
{
    for (size_t p = 0; p < pixels; p++, x += channels, y += channels) {
        size_t c = 0;
        for (; c + LANES <= channels; c += LANES) {
            store(y + c, activated(activation, fused(load(x + c) - load(mean + c), load(scale + c), load(beta + c))));
        }
        if (c < channels) {
            const size_t some = channels - c;
            const vector away = load_some(x + c, some, 0) - load_some(mean + c, some, 0);
            const vector value = fused(away, load_some(scale + c, some, 0), load_some(beta + c, some, 0));
            store_some(y + c, activated(activation, value), some);
        }
    }
}

static void normalise(const float *x, float *y, size_t pixels, size_t channels, const float *mean, const float *scale,
                      const float *beta, bool silu)
{
    if (silu) {
        normalise_all(x, y, pixels, channels, mean, scale, beta, WEIR_ACT_SILU);
    } else {
        normalise_all(x, y, pixels, channels, mean, scale, beta, WEIR_ACT_NONE);
    }
}

/* Sum of x, or of (x - mean)^2, over one token. */
INLINE float token_sum(const float *x, size_t channels, bool squares, float mean)
{
    vector first = broadcast(0), second = broadcast(0);
    size_t c = 0;
    for (; c + 2 * LANES <= channels; c += 2 * LANES) {
        const vector a = load(x + c) - mean, b = load(x + c + LANES) - mean;
        first = added(squares, a, first);
        second = added(squares, b, second);
    }
    for (; c + LANES <= channels; c += LANES) first = added(squares, load(x + c) - mean, first);
    if (c < channels) second = added(squares, load_some(x + c, channels - c, mean) - mean, second);
    return sum_of(first + second);
}

static void layer_norm(const float *x, float *y, size_t tokens, size_t channels, const float *gamma, const float *beta,
                       float eps)
{
    for (size_t l = 0; l < tokens; l++, x += channels, y += channels) {
        const float mean = token_sum(x, channels, false, 0) / (float)channels;
        const float variance = token_sum(x, channels, true, mean) / (float)channels;
        const float scale = 1 / sqrtf(variance + eps);
        size_t c = 0;
        for (; c + LANES <= channels; c += LANES) {
            store(y + c, fused((load(x + c) - mean) * scale, load(gamma + c), load(beta + c)));
        }
        if (c < channels) {
            const size_t some = channels - c;
            const vector value = (load_some(x + c, some, mean) - mean) * scale;
            store_some(y + c, fused(value, load_some(gamma + c, some, 0), load_some(beta + c, some, 0)), some);
        }
    }
}

INLINE void rms_norm_part(enum weir_activation activation, const float *x, float scale, const float *gamma,
                          const float *beta, const float *residual, float *y, size_t part)
{
    vector value = load_part(x, part, 0) * scale;
    if (beta) {
        value = fused(value, load_part(gamma, part, 0), load_part(beta, part, 0));
    } else {
        value *= load_part(gamma, part, 0);
    }
    activate_value(activation, value, residual, y, part);
}

INLINE void rms_norm_all(enum weir_activation activation, const float *x, const float *residual, float *y,
                         size_t tokens, size_t channels, size_t step, const float *gamma, const float *beta, float eps)
{
    for (size_t l = 0; l < tokens; l++, x += step, y += step) {
        const float scale = 1 / sqrtf(token_sum(x, channels, true, 0) / (float)channels + eps);
        const float *added_to = residual ? residual + l * step : NULL;
        size_t c = 0;
        for (; c + LANES <= channels; c += LANES) {
            rms_norm_part(activation, x + c, scale, gamma + c, beta ? beta + c : NULL, added_to ? added_to + c : NULL,
                          y + c, LANES);
        }
        if (c < channels) {
            rms_norm_part(activation, x + c, scale, gamma + c, beta ? beta + c : NULL, added_to ? added_to + c : NULL,
                          y + c, channels - c);
        }
    }
}

static void rms_norm(enum weir_activation activation, const float *x, const float *residual, float *y, size_t tokens,
                     size_t channels, size_t step, const float *gamma, const float *beta, float eps)
{
    if (activation == WEIR_ACT_SILU) {
        rms_norm_all(WEIR_ACT_SILU, x, residual, y, tokens, channels, step, gamma, beta, eps);
    } else if (activation == WEIR_ACT_RELU) {
        rms_norm_all(WEIR_ACT_RELU, x, residual, y, tokens, channels, step, gamma, beta, eps);
    } else {
        rms_norm_all(WEIR_ACT_NONE, x, residual, y, tokens, channels, step, gamma, beta, eps);
    }
}

/* --- attention ---------------------------------------------------------------------------------------------------- */

/* A tile of `rows` x `vectors` * LANES results held in registers; both are constants where this is inlined. a[i,k] is at
 * i * a_row + k * a_inner. */
INLINE void tile(size_t rows, size_t vectors, size_t inner, const float *a, size_t a_row, size_t a_inner,
                 const float *b, size_t b_stride, float *c, size_t c_stride)
{
    vector sum[12][4];
    for (size_t i = 0; i < rows; i++) {
        for (size_t v = 0; v < vectors; v++) sum[i][v] = broadcast(0);
    }
    for (size_t k = 0; k < inner; k++) {
        vector row[4];
        for (size_t v = 0; v < vectors; v++) row[v] = load(b + k * b_stride + v * LANES);
        for (size_t i = 0; i < rows; i++) {
            const vector factor = broadcast(a[i * a_row + k * a_inner]);
            for (size_t v = 0; v < vectors; v++) sum[i][v] = fused(factor, row[v], sum[i][v]);
        }
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t v = 0; v < vectors; v++) store(c + i * c_stride + v * LANES, sum[i][v]);
    }
}

/* Rows of a tile so that sums, a row of b and a factor fit the registers: 32 of them with AVX-512, 16 otherwise. */
#if LANES == 16
#define ROWS_1 12
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#else
#define ROWS_1 12
#define ROWS_2 6
#define ROWS_3 4
#define ROWS_4 2
#endif

#define STRIP(vectors)                                                                                                 \
    INLINE void strip_##vectors(size_t rows, size_t inner, const float *a, size_t a_row, size_t a_inner,               \
                                const float *b, size_t b_stride, float *c, size_t c_stride)                            \
    {                                                                                                                  \
        size_t i = 0;                                                                                                  \
        for (; i + ROWS_##vectors <= rows; i += ROWS_##vectors) {                                                      \
            tile(ROWS_##vectors, vectors, inner, a + i * a_row, a_row, a_inner, b, b_stride, c + i * c_stride,         \
                 c_stride);                                                                                            \
        }                                                                                                              \
        for (; i + 4 <= rows; i += 4) {                                                                                \
            tile(4, vectors, inner, a + i * a_row, a_row, a_inner, b, b_stride, c + i * c_stride, c_stride);           \
        }                                                                                                              \
        for (; i < rows; i++) {                                                                                        \
            tile(1, vectors, inner, a + i * a_row, a_row, a_inner, b, b_stride, c + i * c_stride, c_stride);           \
        }                                                                                                              \
    }
STRIP(1)
STRIP(2)
STRIP(3)
STRIP(4)

INLINE void product_of(size_t rows, size_t columns, size_t inner, const float *a, size_t a_row, size_t a_inner,
                       const float *b, size_t b_stride, float *c, size_t c_stride)
{
    size_t j = 0;
    for (; j + 4 * LANES <= columns; j += 4 * LANES) {
        strip_4(rows, inner, a, a_row, a_inner, b + j, b_stride, c + j, c_stride);
    }
    switch ((columns - j) / LANES) {
    case 3:
        strip_3(rows, inner, a, a_row, a_inner, b + j, b_stride, c + j, c_stride);
        break;
    case 2:
        strip_2(rows, inner, a, a_row, a_inner, b + j, b_stride, c + j, c_stride);
        break;
    case 1:
        strip_1(rows, inner, a, a_row, a_inner, b + j, b_stride, c + j, c_stride);
        break;
    default:
        break;
    }
}

static void product(size_t rows, size_t columns, size_t inner, const float *a, size_t a_stride, const float *b,
                    size_t b_stride, float *c, size_t c_stride)
{
    product_of(rows, columns, inner, a, a_stride, 1, b, b_stride, c, c_stride);
}

static void product_turned(size_t rows, size_t columns, size_t inner, const float *a, size_t a_stride, const float *b,
                           size_t b_stride, float *c, size_t c_stride)
{
    product_of(rows, columns, inner, a, 1, a_stride, b, b_stride, c, c_stride);
}

static float softmax(float *x, size_t count)
{
    vector largest = broadcast(-INFINITY), sum = broadcast(0);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) largest = larger(largest, load(x + i));
    if (i < count) largest = larger(largest, load_some(x + i, count - i, -INFINITY));
    const float top = largest_of(largest);
    for (i = 0; i + LANES <= count; i += LANES) {
        const vector value = exponential(load(x + i) - top);
        store(x + i, value);
        sum += value;
    }
    if (i < count) {
        const vector value = exponential(load_some(x + i, count - i, -INFINITY) - top); /* exp(-inf) = 0 */
        store_some(x + i, value, count - i);
        sum += value;
    }
    return sum_of(sum);
}

static void scale(const float *x, float factor, float *y, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) store(y + i, load(x + i) * factor);
    if (i < count) store_some(y + i, load_some(x + i, count - i, 0) * factor, count - i);
}

static void softcap(float *x, float cap, size_t count)
{
    const float inverse = 1 / cap;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) store(x + i, cap * hyperbolic_tangent(load(x + i) * inverse));
    if (i < count) {
        const vector rest = load_some(x + i, count - i, 0);
        store_some(x + i, cap * hyperbolic_tangent(rest * inverse), count - i);
    }
}

static void add(const float *a, const float *b, float *y, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) store(y + i, load(a + i) + load(b + i));
    if (i < count) store_some(y + i, load_some(a + i, count - i, 0) + load_some(b + i, count - i, 0), count - i);
}

/* --- linear attention --------------------------------------------------------------------------------------------- */

/* Rows lie far apart in memory: so many are asked for ahead, since the processor does not guess them. */
#define GATHER_AHEAD 8

INLINE void gather_all(const float *from, size_t from_stride, size_t rows, size_t width, float *to, size_t to_stride,
                       size_t padded, enum weir_activation activation)
{
    for (size_t i = 0; i < rows; i++, from += from_stride, to += to_stride) {
        size_t c = 0;
        for (; i + GATHER_AHEAD < rows && c < width; c += WEIR_ALIGNMENT / sizeof(float)) {
            __builtin_prefetch(from + GATHER_AHEAD * from_stride + c);
        }
        c = 0;
        for (; c + LANES <= width; c += LANES) store(to + c, activated(activation, load(from + c)));
        if (c < width) store_some(to + c, activated(activation, load_some(from + c, width - c, 0)), width - c);
        for (c = width; c < padded; c++) to[c] = 0;
    }
}

static void gather(const float *from, size_t from_stride, size_t rows, size_t width, float *to, size_t to_stride,
                   size_t padded, enum weir_activation activation)
{
    if (activation == WEIR_ACT_SILU) {
        gather_all(from, from_stride, rows, width, to, to_stride, padded, WEIR_ACT_SILU);
    } else if (activation == WEIR_ACT_RELU) {
        gather_all(from, from_stride, rows, width, to, to_stride, padded, WEIR_ACT_RELU);
    } else {
        gather_all(from, from_stride, rows, width, to, to_stride, padded, WEIR_ACT_NONE);
    }
}

static void divide(const float *x, const float *q, const float *z, size_t padded, float *y, size_t y_stride,
                   size_t tokens, size_t dim, float eps)
{
    for (size_t l = 0; l < tokens; l++, x += padded, q += padded, y += y_stride) {
        vector sum = broadcast(0);
        for (size_t d = 0; d < dim; d += LANES) sum = fused(load(q + d), load(z + d), sum);
        scale(x, 1 / (sum_of(sum) + eps), y, dim);
    }
}

/* --- depthwise convolutions --------------------------------------------------------------------------------------- */

#define DEPTHWISE_TILE 8 /* pixels at once: as many sums in flight as hide the time an addition takes */

/* Sums of `pixels` pixels of y from x on, of the vector of channels that begins at `channel`: taps in order, whatever
 * the number of pixels. kernel and pixels are constants where this is inlined, but for kernels that are rare. */
INLINE void depthwise_sums(const struct weir_cpu_depthwise *s, size_t kernel, size_t pixels, size_t x, size_t channel,
                           vector *sums)
{
    const size_t row_floats = (s->width + kernel - 1) * s->stride;
    const float *weight = s->weight + channel;
    for (size_t p = 0; p < pixels; p++) sums[p] = load(s->bias + channel);
    for (size_t ky = 0; ky < kernel; ky++) {
        const size_t row = s->first + ky < kernel ? s->first + ky : s->first + ky - kernel;
        const float *from = s->ring + row * row_floats + x * s->stride + channel;
        for (size_t kx = 0; kx < kernel; kx++, weight += s->stride) {
            const vector factor = load(weight);
            for (size_t p = 0; p < pixels; p++) sums[p] = fused(factor, load(from + (p + kx) * s->stride), sums[p]);
        }
    }
}

INLINE void depthwise_pixels(const struct weir_cpu_depthwise *s, size_t kernel, size_t pixels, size_t x)
{
    vector sums[DEPTHWISE_TILE], gates[DEPTHWISE_TILE];
    for (size_t c = 0; c < s->channels; c += LANES) {
        depthwise_sums(s, kernel, pixels, x, c, sums);
        if (s->gate) {
            depthwise_sums(s, kernel, pixels, x, s->gate + c, gates);
            for (size_t p = 0; p < pixels; p++) sums[p] *= gates[p] * sigmoid(gates[p]);
        }
        float *y = s->y + x * s->y_stride + c;
        if (c + LANES <= s->channels) {
            for (size_t p = 0; p < pixels; p++) store(y + p * s->y_stride, sums[p]);
        } else {
            for (size_t p = 0; p < pixels; p++) store_some(y + p * s->y_stride, sums[p], s->channels - c);
        }
    }
}

INLINE void depthwise_all(const struct weir_cpu_depthwise *s, size_t kernel)
{
    size_t x = 0;
    for (; x + DEPTHWISE_TILE <= s->width; x += DEPTHWISE_TILE) depthwise_pixels(s, kernel, DEPTHWISE_TILE, x);
    for (; x < s->width; x++) depthwise_pixels(s, kernel, 1, x);
}

static void depthwise(const struct weir_cpu_depthwise *s)
{
    if (s->kernel == 3) {
        depthwise_all(s, 3);
    } else if (s->kernel == 5) {
        depthwise_all(s, 5);
    } else {
        depthwise_all(s, s->kernel);
    }
}

/* --- moving channels ---------------------------------------------------------------------------------------------- */

INLINE void rotate_part(const float *x, const float *cosines, const float *sines, float *y, size_t half, size_t part)
{
    const vector a = load_part(x, part, 0), b = load_part(x + half, part, 0);
    const vector c = load_part(cosines, part, 0), s = load_part(sines, part, 0);
    store_part(y, a * c - b * s, part);
    store_part(y + half, b * c + a * s, part);
}

static void rotate(const float *x, const float *cosines, const float *sines, float *y, size_t half)
{
    size_t j = 0;
    for (; j + LANES <= half; j += LANES) rotate_part(x + j, cosines + j, sines + j, y + j, half, LANES);
    if (j < half) rotate_part(x + j, cosines + j, sines + j, y + j, half, half - j);
}

/* The compiler makes vectors of what follows where a step is a constant, which is why the usual ones are. */

INLINE void repeat_all(const float *restrict x, float *restrict y, size_t count, size_t times)
{
    for (size_t c = 0; c + times <= count; c += times, x++) {
        for (size_t k = 0; k < times; k++) y[c + k] = *x;
    }
}

static void repeat(const float *x, float *y, size_t count, size_t times)
{
    switch (times) {
        CASE(2, repeat_all(x, y, count, 2))
        CASE(4, repeat_all(x, y, count, 4))
        CASE(32, repeat_all(x, y, count, 32))
    default:
        repeat_all(x, y, count, times);
        break;
    }
}

INLINE void means_all(const float *restrict x, float *restrict y, size_t count, size_t of)
{
    for (size_t c = 0; c < count; c++) {
        float sum = x[c * of];
        for (size_t k = 1; k < of; k++) sum += x[c * of + k];
        y[c] = sum / (float)of;
    }
}

static void means(const float *x, float *y, size_t count, size_t of)
{
    switch (of) {
        CASE(2, means_all(x, y, count, 2))
        CASE(4, means_all(x, y, count, 4))
    default:
        means_all(x, y, count, of);
        break;
    }
}

/* Channels are collected in parts of so many on the stack, which the compiler knows to be no one else's memory. */
#define PART 64

static void store_collected(const float *part, const float *residual, float *y, size_t count)
{
    if (residual) {
        add(part, residual, y, count);
    } else {
        memcpy(y, part, count * sizeof *y);
    }
}

INLINE void shuffle_all(const float *x, size_t place, size_t times, const float *residual, float *y, size_t count)
{
    float part[PART];
    for (size_t first = 0; first < count; first += PART) {
        const size_t some = count - first < PART ? count - first : PART;
        for (size_t c = 0; c < some; c++) part[c] = x[(4 * (first + c) + place) / times];
        store_collected(part, residual ? residual + first : NULL, y + first, some);
    }
}

static void shuffle(const float *x, size_t place, size_t times, const float *residual, float *y, size_t count)
{
    switch (times) { /* place is below 4: (4 c + place) / 2 is 2 c + place / 2 */
        CASE(1, shuffle_all(x + place, 0, 1, residual, y, count))
        CASE(2, shuffle_all(x + place / 2, 0, 2, residual, y, count))
        CASE(4, shuffle_all(x, 0, 4, residual, y, count))
    default:
        shuffle_all(x, place, times, residual, y, count);
        break;
    }
}

/* `of` divides 4: each channel of x goes into 4 / of of y. */
INLINE void unshuffle_channels(const float *const x[4], size_t of, const float *residual, float *y, size_t count)
{
    const size_t each = 4 / of;
    float part[PART];
    for (size_t first = 0; first < count; first += PART) {
        const size_t some = count - first < PART ? count - first : PART;
        for (size_t c = 0; c < some / each; c++) {
            for (size_t k = 0; k < each; k++) {
                const size_t from = first / each + c;
                float sum = x[k * of][from];
                for (size_t n = 1; n < of; n++) sum += x[k * of + n][from];
                part[c * each + k] = sum / (float)of;
            }
        }
        store_collected(part, residual ? residual + first : NULL, y + first, some);
    }
}

INLINE void unshuffle_any(const float *const x[4], size_t of, const float *residual, float *y, size_t count)
{
    for (size_t o = 0; o < count; o++) {
        float sum = x[o * of % 4][o * of / 4];
        for (size_t n = o * of + 1; n < (o + 1) * of; n++) sum += x[n % 4][n / 4];
        sum /= (float)of;
        y[o] = residual ? sum + residual[o] : sum;
    }
}

static void unshuffle(const float *const x[4], size_t of, const float *residual, float *y, size_t count)
{
    switch (of) {
        CASE(1, unshuffle_channels(x, 1, residual, y, count))
        CASE(2, unshuffle_channels(x, 2, residual, y, count))
        CASE(4, unshuffle_channels(x, 4, residual, y, count))
    default:
        unshuffle_any(x, of, residual, y, count);
        break;
    }
}

/* The upper half of the bits, after adding what carries into it where the lower half counts. */
static void round_bf16(const float *x, uint16_t *y, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vector value = load(x + i);
        const words bits = (words)value, upper = bits >> 16, is_nan = (words)(value != value);
        const words rounded = (bits + 0x7fff + (upper & 1)) >> 16;
        *(halves_at *)(y + i) = __builtin_convertvector((is_nan & (upper | 0x40)) | (~is_nan & rounded), halves_at);
    }
    for (; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        const uint32_t upper = bits >> 16;
        y[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? upper | 0x40 : (bits + 0x7fff + (upper & 1)) >> 16);
    }
}

const struct weir_cpu_simd SIMD_NAME = {
    .name = SIMD_WORDS,
    .lanes = LANES,
    .activate = activate,
    .finish = finish,
    .channel_sums = channel_sums,
    .channel_squares = channel_squares,
    .normalise = normalise,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .product = product,
    .product_turned = product_turned,
    .softmax = softmax,
    .scale = scale,
    .softcap = softcap,
    .add = add,
    .round_bf16 = round_bf16,
    .gather = gather,
    .divide = divide,
    .depthwise = depthwise,
    .rotate = rotate,
    .repeat = repeat,
    .means = means,
    .shuffle = shuffle,
    .unshuffle = unshuffle,
};
