/* What depends on where a token or a step is: rope and timestep_embedding. Frequencies and angles are rounded to f32
 * where the originals round them, as on ref. */
#include "kernels/cuda/kernel.cuh"

/* One thread a pair of channels of all heads, or one of those behind the heads. */
template <typename T> __global__ void rope(struct weir_rope s, uint64_t count, const T *x, T *y)
{
    const uint32_t half = s.head_dim / 2, behind = s.heads * s.head_dim, work = half + s.channels - behind;
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, work);
        const uint64_t base = at.quotient * s.channels;
        const uint32_t j = at.rest;
        if (j >= half) {
            y[base + behind + j - half] = x[base + behind + j - half];
            continue;
        }
        const float exponent = (float)(2 * j) / (float)s.head_dim;
        const float frequency = 1.0f / (float)pow((double)s.theta, (double)exponent);
        const float angle = (float)weir_split_by(at.quotient, s.tokens).rest * frequency;
        const float cosine = cosf(angle), sine = sinf(angle);
#pragma unroll 4
        for (uint32_t h = 0; h < s.heads; h++) {
            const uint64_t from = base + (uint64_t)h * s.head_dim + j;
            const float first = weir_read(x + from), second = weir_read(x + from + half);
            weir_write(y + from, first * cosine - second * sine);
            weir_write(y + from + half, second * cosine + first * sine);
        }
    }
}

enum weir_status weir_cuda_run_rope(const struct weir_cuda_run *run)
{
    const struct weir_rope *s = &run->plan->shape.rope;
    const uint64_t count = (uint64_t)s->rows * s->tokens * (s->head_dim / 2 + s->channels - s->heads * s->head_dim);
    WEIR_BY_TYPE(s->dtype, T,
                 (rope<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_ROPE_X], (T *)run->operands[WEIR_ROPE_Y])));
    return weir_launched();
}

template <typename T>
__global__ void timestep_embedding(struct weir_timestep_embedding s, uint64_t count, const float *t, T *y)
{
    const uint32_t half = s.dim / 2;
    const float length = (float)half - s.downscale_freq_shift;
    WEIR_EACH(n, count)
    {
        const uint64_t row = n / half;
        const uint32_t i = (uint32_t)(n % half);
        const float exponent = (float)-9.210340371976184 /* -ln 10000 */ * (float)i / length;
        const float frequency = (float)exp((double)exponent);
        const float angle = t[row] * frequency;
        T *to = y + row * s.dim + i;
        weir_write(s.flip_sin_to_cos ? to : to + half, cosf(angle));
        weir_write(s.flip_sin_to_cos ? to + half : to, sinf(angle));
    }
}

enum weir_status weir_cuda_run_timestep_embedding(const struct weir_cuda_run *run)
{
    const struct weir_timestep_embedding *s = &run->plan->shape.timestep_embedding;
    const uint64_t count = (uint64_t)s->rows * (s->dim / 2);
    WEIR_BY_TYPE(s->dtype, T,
                 (timestep_embedding<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const float *)run->operands[WEIR_TIMESTEP_EMBEDDING_T],
                     (T *)run->operands[WEIR_TIMESTEP_EMBEDDING_Y])));
    return weir_launched();
}
