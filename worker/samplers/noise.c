/* How it works: noise.h. The polynomials are written one fused multiply-add at a time because the order of roundings is
 * the contract: the bits are those of torch's AVX2 code, whose compiler fuses each product with the sum that follows.
 * Each fmaf is one rounding, whether a library does it or an instruction; so blocks are compiled twice, once for
 * processors with AVX2 and FMA, where eight numbers go at a time, and nothing is chosen but speed.
 */
#include "worker/samplers/noise.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NOISE_VERSION 1u
#define TWIST_DISTANCE 397
#define BLOCK 16 /* numbers made together: 8 radii, 8 angles */

static const double two_pi = 6.283185307179586476925286766559;

void weir_noise_init(struct weir_noise *noise, uint64_t seed)
{
    noise->words[0] = (uint32_t)(seed & 0xffffffffu);
    for (uint32_t i = 1; i < WEIR_NOISE_WORDS; i++) {
        const uint32_t before = noise->words[i - 1];
        noise->words[i] = 1812433253u * (before ^ (before >> 30)) + i;
    }
    noise->next = WEIR_NOISE_WORDS;
    noise->spare_present = false;
    noise->spare = 0;
}

static void twist(struct weir_noise *noise)
{
    uint32_t *words = noise->words;
    for (uint32_t i = 0; i < WEIR_NOISE_WORDS; i++) {
        const uint32_t joined = (words[i] & 0x80000000u) | (words[(i + 1) % WEIR_NOISE_WORDS] & 0x7fffffffu);
        words[i] = words[(i + TWIST_DISTANCE) % WEIR_NOISE_WORDS] ^ (joined >> 1) ^ ((joined & 1) ? 0x9908b0dfu : 0);
    }
    noise->next = 0;
}

static uint32_t draw_u32(struct weir_noise *noise)
{
    if (noise->next >= WEIR_NOISE_WORDS) twist(noise);
    uint32_t y = noise->words[noise->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float draw_uniform_f32(struct weir_noise *noise)
{
    return (float)(draw_u32(noise) & 0xffffffu) * 0x1p-24f;
}

static double draw_uniform_f64(struct weir_noise *noise)
{
    const uint64_t high = draw_u32(noise); /* the first draw is the high half */
    const uint64_t both = (high << 32) | draw_u32(noise);
    return (double)(both & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* What is compiled twice must become part of its caller. */
#define INLINE static inline __attribute__((always_inline))

/* ln x for x from 2^-24 to 1. */
INLINE float log_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    float e = (float)((int32_t)(bits >> 23) - 126); /* x = m * 2^e, m in [0.5, 1) */
    bits = (bits & 0x7fffffu) | 0x3f000000u;
    float m;
    memcpy(&m, &bits, sizeof m);
    const bool is_low = m < 0.707106781186547524f;
    e = is_low ? e - 1.0f : e;
    m = is_low ? (m - 1.0f) + m : m - 1.0f;
    const float z = m * m;
    float y = 7.0376836292e-2f;
    y = fmaf(y, m, -1.1514610310e-1f);
    y = fmaf(y, m, 1.1676998740e-1f);
    y = fmaf(y, m, -1.2420140846e-1f);
    y = fmaf(y, m, 1.4249322787e-1f);
    y = fmaf(y, m, -1.6668057665e-1f);
    y = fmaf(y, m, 2.0000714765e-1f);
    y = fmaf(y, m, -2.4999993993e-1f);
    y = fmaf(y, m, 3.3333331174e-1f);
    y *= m;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y = fmaf(-z, 0.5f, y);
    m += y;
    return fmaf(e, 0.693359375f, m);
}

/* sin x and cos x for x in [0, 2 pi]. */
INLINE void sincos_f32(float x, float *sine, float *cosine)
{
    int32_t octant = (int32_t)(x * 1.27323954473516f);
    octant = (octant + 1) & ~1;
    const float turns = (float)octant;
    x = fmaf(turns, -0.78515625f, x);
    x = fmaf(turns, -2.4187564849853515625e-4f, x);
    x = fmaf(turns, -3.77489497744594108e-8f, x);
    const float z = x * x;

    float even = 2.443315711809948e-5f; /* cos x */
    even = fmaf(even, z, -1.388731625493765e-3f);
    even = fmaf(even, z, 4.166664568298827e-2f);
    even *= z;
    even = fmaf(even, z, -(z * 0.5f));
    even += 1.0f;

    float odd = -1.9515295891e-4f; /* sin x */
    odd = fmaf(odd, z, 8.3321608736e-3f);
    odd = fmaf(odd, z, -1.6666654611e-1f);
    odd *= z;
    odd = fmaf(odd, x, x);

    const bool swapped = (octant & 2) != 0;
    const float up = swapped ? even : odd, along = swapped ? odd : even;
    *sine = octant & 4 ? -up : up;
    *cosine = (octant - 2) & 4 ? along : -along;
}

/* Box and Muller's change of 16 uniforms to 16 normals, in place, block after block. */
INLINE void change_blocks(float *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += BLOCK) {
        for (int j = 0; j < BLOCK / 2; j++) {
            const float radius = sqrtf(-2.0f * log_f32(1.0f - data[j]));
            float sine, cosine;
            sincos_f32((float)two_pi * data[j + BLOCK / 2], &sine, &cosine);
            /* + 0: torch adds the mean, which turns -0 into 0 */
            data[j] = radius * cosine + 0.0f;
            data[j + BLOCK / 2] = radius * sine + 0.0f;
        }
    }
}

static void change_anywhere(float *data, size_t blocks)
{
    change_blocks(data, blocks);
}

#if defined(__x86_64__) && !defined(WEIR_NOISE_PORTABLE) /* defined by a test */
__attribute__((target("avx2,fma"))) static void change_with_fma(float *data, size_t blocks)
{
    change_blocks(data, blocks);
}
#endif

static void normal_blocks(float *data, size_t blocks)
{
#if defined(__x86_64__) && !defined(WEIR_NOISE_PORTABLE) /* defined by a test */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        change_with_fma(data, blocks);
        return;
    }
#endif
    change_anywhere(data, blocks);
}

/* The path of calls of fewer than 16 numbers. */
static double normal_single(struct weir_noise *noise)
{
    if (noise->spare_present) {
        noise->spare_present = false;
        return noise->spare;
    }
    const double u1 = draw_uniform_f64(noise), u2 = draw_uniform_f64(noise);
    const double radius = sqrt(-2.0 * log1p(-u2));
    noise->spare = radius * sin(two_pi * u1);
    noise->spare_present = true;
    return radius * cos(two_pi * u1);
}

/* The nearest half, ties to even, as a float. Normals stay far below the largest half, so overflow is not treated. */
static float round_to_f16(float x)
{
    if (fabsf(x) < 0x1p-14f) { /* subnormal halves are 2^-24 apart, as are floats from 0.5 to 1 */
        const float shifted = fabsf(x) + 0.5f;
        return copysignf(shifted - 0.5f, x);
    }
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0xfffu + ((bits >> 13) & 1);
    bits &= ~UINT32_C(0x1fff);
    memcpy(&x, &bits, sizeof x);
    return x;
}

void weir_noise_normal_f32(struct weir_noise *noise, float *out, size_t count)
{
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++) out[i] = (float)normal_single(noise);
        return;
    }
    for (size_t i = 0; i < count; i++) out[i] = draw_uniform_f32(noise);
    normal_blocks(out, count / BLOCK);
    if (count % BLOCK != 0) { /* the last 16 are drawn anew, over some that were done */
        float *last = out + count - BLOCK;
        for (size_t i = 0; i < BLOCK; i++) last[i] = draw_uniform_f32(noise);
        normal_blocks(last, 1);
    }
}

void weir_noise_normal_f16(struct weir_noise *noise, float *out, size_t count)
{
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++) out[i] = round_to_f16((float)normal_single(noise));
        return;
    }
    /* Unlike f32, what is left over below a whole block is not drawn before the last 16 are. */
    for (size_t i = 0; i < count; i += BLOCK) {
        float *block = out + (i + BLOCK <= count ? i : count - BLOCK);
        for (size_t j = 0; j < BLOCK; j++) block[j] = draw_uniform_f32(noise);
        normal_blocks(block, 1);
        for (size_t j = 0; j < BLOCK; j++) block[j] = round_to_f16(block[j]);
    }
}

/* Leaves the generator where a draw of so many numbers leaves it, one word a number: f32 draws the last block anew, f16
 * the rest of a block together with numbers before it. */
static void skip_draw(struct weir_noise *noise, bool is_f16, size_t count)
{
    const size_t rest = count % BLOCK;
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++) (void)normal_single(noise);
        return;
    }
    for (size_t left = count - (is_f16 ? rest : 0) + (rest != 0 ? BLOCK : 0); left > 0;) {
        if (noise->next >= WEIR_NOISE_WORDS) twist(noise);
        const size_t here = WEIR_NOISE_WORDS - noise->next;
        const size_t taken = left < here ? left : here;
        noise->next += (uint32_t)taken;
        left -= taken;
    }
}

void weir_noise_draw(uint64_t seed, bool first_f16, uint32_t index, float *out, size_t count)
{
    struct weir_noise noise;
    weir_noise_init(&noise, seed);
    for (uint32_t i = 0; i < index; i++) skip_draw(&noise, i == 0 && first_f16, count);
    if (index == 0 && first_f16)
        weir_noise_normal_f16(&noise, out, count);
    else
        weir_noise_normal_f32(&noise, out, count);
}

void weir_noise_save(const struct weir_noise *noise, uint8_t out[WEIR_NOISE_STATE_BYTES])
{
    uint64_t spare_bits;
    static_assert(sizeof spare_bits == sizeof noise->spare, "double is 64 bits");
    memcpy(&spare_bits, &noise->spare, sizeof spare_bits);
    weir_store_u32(out, NOISE_VERSION);
    out += 4;
    for (size_t i = 0; i < WEIR_NOISE_WORDS; i++) weir_store_u32(out + 4 * i, noise->words[i]);
    out += 4 * WEIR_NOISE_WORDS;
    weir_store_u32(out, noise->next);
    weir_store_u32(out + 4, noise->spare_present);
    weir_store_u64(out + 8, noise->spare_present ? spare_bits : 0);
}

enum weir_status weir_noise_load(struct weir_noise *noise, const uint8_t *bytes, size_t count, struct weir_error *error)
{
    if (count != WEIR_NOISE_STATE_BYTES)
        return weir_fail(error, WEIR_BAD_FILE, "a generator state has %zu bytes, not %d", count,
                         WEIR_NOISE_STATE_BYTES);
    const uint8_t *tail = bytes + 4 + 4 * WEIR_NOISE_WORDS;
    const uint32_t version = weir_load_u32(bytes), next = weir_load_u32(tail), present = weir_load_u32(tail + 4);
    const uint64_t spare_bits = weir_load_u64(tail + 8);
    double spare;
    memcpy(&spare, &spare_bits, sizeof spare);
    if (version != NOISE_VERSION)
        return weir_fail(error, WEIR_BAD_FILE, "a generator state is of version %u, not %u", version, NOISE_VERSION);
    if (next > WEIR_NOISE_WORDS || present > 1 || !isfinite(spare) || (present == 0 && spare_bits != 0))
        return weir_fail(error, WEIR_BAD_FILE, "a generator state has position %u and flag %u", next, present);
    for (size_t i = 0; i < WEIR_NOISE_WORDS; i++) noise->words[i] = weir_load_u32(bytes + 4 + 4 * i);
    noise->next = next;
    noise->spare_present = present == 1;
    noise->spare = spare;
    return WEIR_OK;
}
