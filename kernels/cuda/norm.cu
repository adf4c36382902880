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

/* --- bf16, channels counted in eights: the token is read once and kept in registers
 * -------------------------------- */

#define KEPT_MAX 12 /* eights a lane */

/* What a token's norm needs beside x. */
struct factors {
    const float *gamma, *beta; /* layer_norm, rms_norm; beta may be NULL */
    const bf16 *by, *shift;    /* modulated_norm: of row 0, and the next row `row` further */
    const bf16 *residual;      /* rms_norm, or NULL */
    uint64_t row;
    uint32_t tokens; /* of a row */
    float eps;
};
enum norm { LAYER, RMS, RMS_RELU, RMS_SILU, MODULATED };

template <int LANES> static __device__ __forceinline__ float sum_of_lanes(float value)
{
    for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step, LANES);
    return value;
}

/* LANES lanes a token, each with KEPT times 8 channels, LANES * 8 apart. */
template <enum norm NORM, int LANES, int KEPT>
__global__ void __launch_bounds__(THREADS)
    norm_8(struct factors f, uint32_t channels, uint64_t tokens, const bf16 *x, bf16 *y)
{
    const uint64_t wanted = ((uint64_t)blockIdx.x * THREADS + threadIdx.x) / LANES;
    const uint64_t token = wanted < tokens ? wanted : tokens - 1; /* all lanes take part in the sums */
    const uint32_t lane = threadIdx.x % LANES;
    float values[KEPT][8], sum = 0, mean = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t c = (k * LANES + lane) * 8;
        if (c < channels) {
            weir_read_8(x + token * channels + c, values[k]);
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) values[k][n] = 0;
        }
    }
    if (NORM == LAYER || NORM == MODULATED) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
#pragma unroll
            for (int n = 0; n < 8; n++) sum += values[k][n];
        }
        mean = sum_of_lanes<LANES>(sum) / (float)channels;
    }
    float square = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const bool inside = (k * LANES + lane) * 8 < channels;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float away = inside ? values[k][n] - mean : 0.0f;
            square = fmaf(away, away, square);
        }
    }
    const float scale = 1.0f / sqrtf(sum_of_lanes<LANES>(square) / (float)channels + f.eps);
    if (wanted >= tokens) return;
    const uint64_t row = NORM == MODULATED ? weir_split_by(token, f.tokens).quotient * f.row : 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t c = (k * LANES + lane) * 8;
        float a[8], b[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
        if (c >= channels) continue;
        if (NORM == MODULATED) {
            weir_read_8(f.by + row + c, a);
            weir_read_8(f.shift + row + c, b);
        } else {
            weir_read_8(f.gamma + c, a);
            if (f.beta) weir_read_8(f.beta + c, b);
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float value = (values[k][n] - mean) * scale;
            values[k][n] = NORM == MODULATED ? value * (1.0f + a[n]) + b[n] : value * a[n] + b[n];
        }
        if (NORM == RMS || NORM == RMS_RELU || NORM == RMS_SILU) {
            constexpr enum weir_activation A = NORM == RMS_RELU   ? WEIR_ACT_RELU
                                               : NORM == RMS_SILU ? WEIR_ACT_SILU
                                                                  : WEIR_ACT_NONE;
#pragma unroll
            for (int n = 0; n < 8; n++) values[k][n] = weir_act_fast<A>(values[k][n]);
            if (f.residual) {
                weir_read_8(f.residual + token * channels + c, a);
#pragma unroll
                for (int n = 0; n < 8; n++) values[k][n] += a[n];
            }
        }
        weir_write_8(y + token * channels + c, values[k]);
    }
}

template <enum norm NORM, int LANES, int KEPT>
static void launch_8(const struct factors *f, uint32_t channels, uint64_t tokens, cudaStream_t stream, const void *x,
                     void *y)
{
    const uint64_t blocks = (tokens * LANES + THREADS - 1) / THREADS;
    norm_8<NORM, LANES, KEPT>
        <<<(unsigned)blocks, THREADS, 0, stream>>>(*f, channels, tokens, (const bf16 *)x, (bf16 *)y);
}

static bool fits_8(enum weir_dtype dtype, uint32_t channels, uint64_t tokens)
{
    return dtype == WEIR_BF16 && channels % WEIR_EIGHT == 0 && channels <= KEPT_MAX * 256 && tokens < (uint64_t)1 << 33;
}

template <enum norm NORM>
static enum weir_status run_8(const struct factors *f, uint32_t channels, uint64_t tokens, cudaStream_t stream,
                              const void *x, void *y)
{
    if (channels <= 64) {
        launch_8<NORM, 8, 1>(f, channels, tokens, stream, x, y);
    } else if (channels <= 128) {
        launch_8<NORM, 16, 1>(f, channels, tokens, stream, x, y);
    } else if (channels <= 256) {
        launch_8<NORM, 32, 1>(f, channels, tokens, stream, x, y);
    } else if (channels <= 512) {
        launch_8<NORM, 32, 2>(f, channels, tokens, stream, x, y);
    } else if (channels <= 1024) {
        launch_8<NORM, 32, 4>(f, channels, tokens, stream, x, y);
    } else if (channels <= 1280) {
        launch_8<NORM, 32, 5>(f, channels, tokens, stream, x, y);
    } else if (channels <= 2304) {
        launch_8<NORM, 32, 9>(f, channels, tokens, stream, x, y);
    } else {
        launch_8<NORM, 32, KEPT_MAX>(f, channels, tokens, stream, x, y);
    }
    return weir_launched();
}

/* ------------------------------------------------------------------------------------------------------------------ */

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
    if (fits_8(s->dtype, s->channels, tokens)) {
        struct factors f = {};
        f.gamma = (const float *)layer->weight;
        f.beta = layer->bias;
        f.eps = s->eps;
        return run_8<LAYER>(&f, s->channels, tokens, run->stream->stream, run->operands[WEIR_LAYER_NORM_X],
                            run->operands[WEIR_LAYER_NORM_Y]);
    }
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
    if (fits_8(s->dtype, s->channels, tokens)) {
        struct factors f = {};
        f.gamma = (const float *)layer->weight;
        f.beta = layer->bias;
        f.residual = s->residual ? (const bf16 *)run->operands[WEIR_RMS_NORM_RESIDUAL] : NULL;
        f.eps = s->eps;
        const void *x = run->operands[WEIR_RMS_NORM_X];
        void *y = run->operands[WEIR_RMS_NORM_Y];
        cudaStream_t stream = run->stream->stream;
        if (s->activation == WEIR_ACT_RELU) return run_8<RMS_RELU>(&f, s->channels, tokens, stream, x, y);
        if (s->activation == WEIR_ACT_SILU) return run_8<RMS_SILU>(&f, s->channels, tokens, stream, x, y);
        return run_8<RMS>(&f, s->channels, tokens, stream, x, y);
    }
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
    if (fits_8(s->dtype, s->channels, tokens)) {
        const bf16 *m = (const bf16 *)run->operands[WEIR_MODULATED_NORM_M];
        struct factors f = {};
        f.by = m + (uint64_t)s->scale * s->channels;
        f.shift = m + (uint64_t)s->shift * s->channels;
        f.row = (uint64_t)s->vectors * s->channels;
        f.tokens = s->tokens;
        f.eps = s->eps;
        return run_8<MODULATED>(&f, s->channels, tokens, run->stream->stream, run->operands[WEIR_MODULATED_NORM_X],
                                run->operands[WEIR_MODULATED_NORM_Y]);
    }
    WEIR_BY_TYPE(s->dtype, T,
                 (modulated_norm<T><<<blocks_of(tokens), THREADS, 0, run->stream->stream>>>(
                     *s, tokens, (const T *)run->operands[WEIR_MODULATED_NORM_X],
                     (const T *)run->operands[WEIR_MODULATED_NORM_M], (T *)run->operands[WEIR_MODULATED_NORM_Y])));
    return weir_launched();
}
