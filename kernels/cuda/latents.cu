/* What stands between the samplers and the networks: latents_pack, guidance, sampler_step, to_rgb8. Every operation is
 * rounded by itself, in the order of ref. */
#include "kernels/cuda/kernel.cuh"

template <typename T>
__global__ void latents_pack(struct weir_latents_pack s, uint64_t count, const float *x, const float *k, T *y)
{
    const uint64_t plane = (uint64_t)s.frames * s.pixels;
    WEIR_EACH(i, count)
    {
        const struct weir_split token = weir_split_by(i, s.channels);
        const uint64_t row = token.quotient / plane, at = token.quotient - row * plane, c = token.rest;
        const uint64_t item = weir_split_by(row, s.copies).quotient;
        const float scale = s.scaled ? k[item * WEIR_SAMPLER_COEFFICIENTS + 12] : 1.0f;
        weir_write(y + i, x[(item * s.channels + c) * plane + at] * s.factor * scale);
    }
}

enum weir_status weir_cuda_run_latents_pack(const struct weir_cuda_run *run)
{
    const struct weir_latents_pack *s = &run->plan->shape.latents_pack;
    const uint64_t count = (uint64_t)s->items * s->copies * s->frames * s->pixels * s->channels;
    WEIR_BY_TYPE(s->dtype, T,
                 (latents_pack<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const float *)run->operands[WEIR_LATENTS_PACK_X],
                     (const float *)run->operands[WEIR_LATENTS_PACK_K], (T *)run->operands[WEIR_LATENTS_PACK_Y])));
    return weir_launched();
}

template <typename T>
__global__ void guidance(struct weir_guidance s, uint64_t count, const T *x, const float *scale, float *y)
{
    const uint64_t plane = (uint64_t)s.frames * s.pixels, row = plane * s.channels;
    WEIR_EACH(i, count)
    {
        const uint64_t item = i / row, c = i / plane % s.channels, at = i % plane;
        const T *from = x + item * s.copies * row + at * s.channels + c;
        const float u = weir_read(from);
        y[i] = s.copies == 1 ? u : u + scale[item] * (weir_read(from + row) - u);
    }
}

enum weir_status weir_cuda_run_guidance(const struct weir_cuda_run *run)
{
    const struct weir_guidance *s = &run->plan->shape.guidance;
    const uint64_t count = (uint64_t)s->items * s->frames * s->pixels * s->channels;
    WEIR_BY_TYPE(s->dtype, T,
                 (guidance<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_GUIDANCE_X],
                     (const float *)run->operands[WEIR_GUIDANCE_SCALE], (float *)run->operands[WEIR_GUIDANCE_Y])));
    return weir_launched();
}

__global__ void sampler_step(struct weir_sampler_step s, uint64_t count, float *x, const float *m, float *previous,
                             const float *coefficients)
{
    WEIR_EACH(i, count)
    {
        const float *k = coefficients + i / s.n * WEIR_SAMPLER_COEFFICIENTS;
        const float before = x[i];
        const float e = (k[4] * (k[12] * before) + k[5] * m[i]) / k[6];
        float x0 = k[0] * before + k[1] * m[i];
        if (k[13] != 0.0f) x0 += k[13] * e;
        x0 /= k[2];
        x0 = x0 < -k[3] ? -k[3] : x0 > k[3] ? k[3] : x0;
        float next = k[7] * before + k[8] * x0;
        if (k[9] != 0.0f) next += k[9] * e;
        if (k[10] != 0.0f) next += k[10] * (k[11] * (x0 - previous[i]));
        if (k[14] != 0.0f) next += k[14] * previous[i];
        x[i] = next;
        previous[i] = x0;
    }
}

enum weir_status weir_cuda_run_sampler_step(const struct weir_cuda_run *run)
{
    const struct weir_sampler_step *s = &run->plan->shape.sampler_step;
    const uint64_t count = (uint64_t)s->items * s->n;
    sampler_step<<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
        *s, count, (float *)run->operands[WEIR_SAMPLER_STEP_X], (const float *)run->operands[WEIR_SAMPLER_STEP_M],
        (float *)run->operands[WEIR_SAMPLER_STEP_PREVIOUS], (const float *)run->operands[WEIR_SAMPLER_STEP_K]);
    return weir_launched();
}

template <typename T> __global__ void to_rgb8(struct weir_to_rgb8 s, uint64_t count, const T *x, uint8_t *y)
{
    WEIR_EACH(i, count)
    {
        float value = 0.5f * weir_read(x + i / 3 * s.channels + i % 3) + 0.5f;
        if (!(value > 0.0f)) value = 0.0f; /* NaN too */
        if (value > 1.0f) value = 1.0f;
        value *= 255.0f;
        y[i] = (uint8_t)(s.round ? rintf(value) : value);
    }
}

enum weir_status weir_cuda_run_to_rgb8(const struct weir_cuda_run *run)
{
    const struct weir_to_rgb8 *s = &run->plan->shape.to_rgb8;
    const uint64_t count = (uint64_t)s->rows * s->tokens * 3;
    WEIR_BY_TYPE(s->dtype, T,
                 (to_rgb8<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_TO_RGB8_X], (uint8_t *)run->operands[WEIR_TO_RGB8_Y])));
    return weir_launched();
}
