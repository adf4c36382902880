#include "proto/base/half.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define F32_QUIET 0x00400000u

static float f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Every f16 is a normal f32 but zero. A subnormal one is m * 2^-24: its bits, put behind the exponent of 2^-14, read
 * as 2^-14 + m * 2^-24, from which 2^-14 is taken away. No f32 subnormal arises, so that flush-to-zero modes, which a
 * maths library may have set, change nothing. */
static float f16_value(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half & 0x7c00u, rest = half & 0x7fffu;
    uint32_t bits = (rest << 13) + (112u << 23);
    if (exponent == 0) {
        const float magnitude = f32_of_bits(bits + (1u << 23)) - 0x1p-14f;
        memcpy(&bits, &magnitude, sizeof bits);
    } else if (exponent == 0x7c00u) {
        bits = (rest << 13) | 0x7f800000u;
        if (half & 0x3ff) bits |= F32_QUIET;
    }
    return f32_of_bits(bits | sign);
}

static void f16_plain(const uint8_t *bytes, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, bytes + 2 * i, sizeof half);
        out[i] = f16_value(half);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static size_t f16_eights(const uint8_t *bytes, size_t count, float *out)
{
    size_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const __m128i halves = _mm_loadu_si128((const __m128i_u *)(const void *)(bytes + 2 * done));
        _mm256_storeu_ps(out + done, _mm256_cvtph_ps(halves));
    }
    return done;
}

/* Asked of the processor itself: not every compiler's __builtin_cpu_supports knows f16c. That of avx also says that the
 * system saves the wide registers. Asked once: in a virtual machine the question takes as long as thousands of numbers. */
static bool has_f16c(void)
{
    static atomic_int known; /* 1: yes, -1: no, 0: not asked yet */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        uint32_t a, b, c = 0, d;
        answer = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && __builtin_cpu_supports("avx") ? 1 : -1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer > 0;
}

static size_t f16_fast(const uint8_t *bytes, size_t count, float *out)
{
    return has_f16c() ? f16_eights(bytes, count, out) : 0;
}
#else
static size_t f16_fast(const uint8_t *bytes, size_t count, float *out)
{
    (void)bytes, (void)count, (void)out;
    return 0;
}
#endif

void weir_f16_to_f32(const void *bytes, size_t count, float *out)
{
    const size_t done = f16_fast(bytes, count, out);
    f16_plain((const uint8_t *)bytes + 2 * done, count - done, out + done);
}

/* A bf16 is the upper half of an f32, whatever it means. */
void weir_bf16_to_f32(const void *bytes, size_t count, float *out)
{
    const uint8_t *from = bytes;
    size_t i = 0;
#if defined(__x86_64__)
    for (const __m128i zero = _mm_setzero_si128(); i + 8 <= count; i += 8) {
        const __m128i halves = _mm_loadu_si128((const __m128i_u *)(const void *)(from + 2 * i));
        _mm_storeu_ps(out + i, _mm_castsi128_ps(_mm_unpacklo_epi16(zero, halves)));
        _mm_storeu_ps(out + i + 4, _mm_castsi128_ps(_mm_unpackhi_epi16(zero, halves)));
    }
#endif
    for (; i < count; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof half);
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

/* f32 to the upper half of its bits, rounded to nearest even; a NaN stays one. */
static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t nan = bits >> 16 | 0x40, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#if defined(__x86_64__)
/* The same of four, as 32-bit numbers whose sign is that of the 16 bits, so that packing them saturates nothing. */
static __m128i bf16_of_four(const float *values)
{
    const __m128i bits = _mm_castps_si128(_mm_loadu_ps(values));
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    const __m128i rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
    const __m128i nan = _mm_or_si128(bits, _mm_set1_epi32(0x40 << 16));
    const __m128i is_nan = _mm_cmpgt_epi32(_mm_and_si128(bits, _mm_set1_epi32(0x7fffffff)), _mm_set1_epi32(0x7f800000));
    return _mm_srai_epi32(_mm_or_si128(_mm_and_si128(is_nan, nan), _mm_andnot_si128(is_nan, rounded)), 16);
}
#endif

void weir_f32_to_bf16(const float *values, size_t count, void *bytes)
{
    uint8_t *to = bytes;
    size_t i = 0;
#if defined(__x86_64__)
    for (; i + 8 <= count; i += 8) {
        const __m128i eight = _mm_packs_epi32(bf16_of_four(values + i), bf16_of_four(values + i + 4));
        _mm_storeu_si128((__m128i_u *)(void *)(to + 2 * i), eight);
    }
#endif
    for (; i < count; i++) {
        const uint16_t half = bf16_of(values[i]);
        memcpy(to + 2 * i, &half, sizeof half);
    }
}
