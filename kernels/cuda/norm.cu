/* layer_norm, rms_norm, modulated_norm: one warp a token, statistics in f32 about the mean. */
#include "kernels/cuda/kernel.cuh"

#define WARPS (THREADS / 32)

static unsigned blocks_of(uint64_t tokens)
{
    return weir_blocks(tokens, WARPS);
}

/* Token by token of a grid of warps. */
#define EACH_TOKEN(token, tokens)                                                                                      \
    for (uint64_t token = (uint64_t)blockIdx.x * WARPS + threadIdx.x / 32; token < (tokens);                           \
         token += (uint64_t)gridDim.x * WARPS)

struct centre {
    float mean, scale;
};

template <typename T> static __device__ struct centre centre_of(const T *x, uint32_t channels, float eps)
{
    const uint32_t lane = threadIdx.x % 32;
    float sum = 0, square = 0;
    for (uint32_t c = lane; c < channels; c += 32) sum += weir_read(x + c);
    const float mean = weir_warp_sum(sum) / (float)channels;
    for (uint32_t c = lane; c < channels; c += 32) {
        const float away = weir_read(x + c) - mean;
        square = fmaf(away, away, square);
    }
    const struct centre centre = { mean, 1.0f / sqrtf(weir_warp_sum(square) / (float)channels + eps) };
    return centre;
}

template <typename T>
__global__ void layer_norm(struct weir_layer_norm s, uint64_t tokens, const float *gamma, const float *beta, const T *x,
                           T *y)
{
    EACH_TOKEN(token, tokens)
    {
        const T *from = x + token * s.channels;
        T *to = y + token * s.channels;
        const struct centre centre = centre_of(from, s.channels, s.eps);
        for (uint32_t c = threadIdx.x % 32; c < s.channels; c += 32) {
            weir_write(to + c, (weir_read(from + c) - centre.mean) * centre.scale * gamma[c] + beta[c]);
        }
    }
}

enum weir_status weir_cuda_run_layer_norm(const struct weir_cuda_run *run)
{
    const struct weir_layer_norm *s = &run->plan->shape.layer_norm;
    const struct weir_cuda_packed *layer = run->plan->layer;
    const uint64_t tokens = (uint64_t)s->rows * s->tokens;
    WEIR_BY_TYPE(s->dtype, T,
                 (layer_norm<T><<<blocks_of(tokens), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, (const float *)layer->weight, layer->bias, (const T *)run->operands[WEIR_LAYER_NORM_X],
                     (T *)run->operands[WEIR_LAYER_NORM_Y])));
    return weir_launched();
}

template <typename T>
__global__ void rms_norm(struct weir_rms_norm s, uint64_t tokens, const float *gamma, const float *beta, const T *x,
                         const T *residual, T *y)
{
    EACH_TOKEN(token, tokens)
    {
        const uint64_t at = token * s.channels;
        float square = 0;
        for (uint32_t c = threadIdx.x % 32; c < s.channels; c += 32) {
            const float value = weir_read(x + at + c);
            square = fmaf(value, value, square);
        }
        const float scale = 1.0f / sqrtf(weir_warp_sum(square) / (float)s.channels + s.eps);
        for (uint32_t c = threadIdx.x % 32; c < s.channels; c += 32) {
            float value = weir_read(x + at + c) * scale * gamma[c];
            if (beta) value += beta[c];
            value = weir_act(s.activation, value);
            if (s.residual) value += weir_read(residual + at + c);
            weir_write(y + at + c, value);
        }
    }
}

enum weir_status weir_cuda_run_rms_norm(const struct weir_cuda_run *run)
{
    const struct weir_rms_norm *s = &run->plan->shape.rms_norm;
    const struct weir_cuda_packed *layer = run->plan->layer;
    const uint64_t tokens = (uint64_t)s->rows * s->tokens;
    WEIR_BY_TYPE(s->dtype, T,
                 (rms_norm<T><<<blocks_of(tokens), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, (const float *)layer->weight, layer->bias, (const T *)run->operands[WEIR_RMS_NORM_X],
                     (const T *)run->operands[WEIR_RMS_NORM_RESIDUAL], (T *)run->operands[WEIR_RMS_NORM_Y])));
    return weir_launched();
}

template <typename T>
__global__ void modulated_norm(struct weir_modulated_norm s, uint64_t tokens, const T *x, const T *m, T *y)
{
    EACH_TOKEN(token, tokens)
    {
        const T *from = x + token * s.channels, *vectors = m + token / s.tokens * s.vectors * s.channels;
        const T *by = vectors + (uint64_t)s.scale * s.channels, *shift = vectors + (uint64_t)s.shift * s.channels;
        T *to = y + token * s.channels;
        const struct centre centre = centre_of(from, s.channels, s.eps);
        for (uint32_t c = threadIdx.x % 32; c < s.channels; c += 32) {
            const float value = (weir_read(from + c) - centre.mean) * centre.scale;
            weir_write(to + c, value * (1.0f + weir_read(by + c)) + weir_read(shift + c));
        }
    }
}

enum weir_status weir_cuda_run_modulated_norm(const struct weir_cuda_run *run)
{
    const struct weir_modulated_norm *s = &run->plan->shape.modulated_norm;
    const uint64_t tokens = (uint64_t)s->rows * s->tokens;
    WEIR_BY_TYPE(s->dtype, T,
                 (modulated_norm<T><<<blocks_of(tokens), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, (const T *)run->operands[WEIR_MODULATED_NORM_X],
                     (const T *)run->operands[WEIR_MODULATED_NORM_M], (T *)run->operands[WEIR_MODULATED_NORM_Y])));
    return weir_launched();
}
