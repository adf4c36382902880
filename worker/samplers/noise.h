/* noise: normal numbers equal, bit for bit, to those of a seeded torch.Generator("cpu") on x86-64.
 *
 * A user who knows a seed from diffusers gets that picture, so the generator is torch's Mersenne twister and the change
 * to normals follows torch's vector path down to every fused multiply-add. All of it is portable C with one rounding
 * where one is meant (fmaf), so that every CPU draws the same bits.
 * Two paths, as in torch: 16 numbers and more in one call are made in blocks of 16 from 24-bit uniforms, fewer are made
 * one by one in double precision and keep a spare normal for the next such call. So the cut of a sequence into calls
 * matters: draw a tensor in one call, as diffusers does.
 *
 * Units    mean 0, standard deviation 1
 * Memory   struct weir_noise is the caller's and owns nothing
 * Threads  a generator belongs to one thread
 * Source   Matsumoto and Nishimura, "Mersenne Twister", 1998; S. L. Moshier's Cephes polynomials for log, sin and cos;
 *          judged by torch itself: tests/golden/make_noise.py, tests/golden/live_noise.py
 */
#ifndef WEIR_WORKER_SAMPLERS_NOISE_H
#define WEIR_WORKER_SAMPLERS_NOISE_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_NOISE_WORDS 624

struct weir_noise {
    uint32_t words[WEIR_NOISE_WORDS];
    uint32_t next;      /* of `words`; WEIR_NOISE_WORDS: all are used up */
    bool spare_present; /* a normal left over from the one-by-one path */
    double spare;
};

/* As torch.Generator("cpu").manual_seed(seed): only the low 32 bits of the seed count. */
void weir_noise_init(struct weir_noise *noise, uint64_t seed);

/* torch.randn(count, generator=g, dtype=torch.float32). */
void weir_noise_normal_f32(struct weir_noise *noise, float *out, size_t count);

/* torch.randn(count, generator=g, dtype=torch.float16), each value widened to float (exact). What a pipeline whose text
 * encoder is fp16 draws in diffusers: other numbers than f32 of the same seed, from 11-bit uniforms. */
void weir_noise_normal_f16(struct weir_noise *noise, float *out, size_t count);

/* Draw number `index` of a seed, where every draw takes `count` numbers, as a pipeline draws: number 0 is the latents
 * it starts from (in f16 when `first_f16`), the others, f32, are of samplers that add noise on the way. The earlier
 * ones are drawn again before it, so that a run needs no generator of its own to be resumed anywhere. */
void weir_noise_draw(uint64_t seed, bool first_f16, uint32_t index, float *out, size_t count);

/* The state for a checkpoint: little-endian, versioned, WEIR_NOISE_STATE_BYTES long on every machine.
 * Errors   load: BAD_FILE when the version, the position or the flag is none that save() writes; noise is as before */
#define WEIR_NOISE_STATE_BYTES (4 + 4 * WEIR_NOISE_WORDS + 4 + 4 + 8)
void weir_noise_save(const struct weir_noise *noise, uint8_t out[WEIR_NOISE_STATE_BYTES]);
enum weir_status weir_noise_load(struct weir_noise *noise, const uint8_t *bytes, size_t count,
                                 struct weir_error *error);

#endif
