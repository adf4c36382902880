/* layer_norm, rms_norm, modulated_norm: one warp a token, or two a long one; statistics in f32 about the mean. */
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

/* --- bf16, channels counted in eights: the token is read once and kept in registers --------------------------------- */

#define CHANNELS_MAX 3072

/* What a norm needs beside x. */
struct factors {
    const float *gamma, *beta; /* layer_norm, rms_norm; beta may be NULL */
    const bf16 *by, *shift;    /* modulated_norm: of row 0, and the next row `row` further */
    const bf16 *residual;      /* rms_norm, or NULL */
    uint64_t row;
    uint32_t tokens;             /* of a row */
    uint32_t parts, width, rest; /* rms_norm: of a token, its channels, and those to be copied */
    float eps;
};
enum norm { LAYER, RMS, RMS_RELU, RMS_SILU, MODULATED };
static __device__ constexpr bool is_rms(enum norm norm)
{
    return norm == RMS || norm == RMS_RELU || norm == RMS_SILU;
}

/* The sum over LANES lanes, alike in all. More than a warp are a block, and pass the sums of their warps through `warps`. */
template <int LANES> static __device__ __forceinline__ float sum_of_lanes(float value, float *warps)
{
    for (int step = LANES < 32 ? LANES / 2 : 16; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    if (LANES <= 32) return value;
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LANES / 32; i++) sum += warps[i];
    return sum;
}

/* LANES lanes a vector, which is a token or a part of one: so many threads of a block, or all of it where they are more
 * than a warp. Each has KEPT times 8 channels, LANES * 8 apart. */
#define BLOCK_OF(LANES) ((LANES) > 32 ? (LANES) : THREADS)
template <enum norm NORM, int LANES, int KEPT>
__global__ void __launch_bounds__(BLOCK_OF(LANES))
    norm_8(struct factors f, uint32_t channels, uint64_t vectors, const bf16 *x, bf16 *y)
{
    __shared__ float warps[2][BLOCK_OF(LANES) / 32];
    const uint64_t wanted = ((uint64_t)blockIdx.x * BLOCK_OF(LANES) + threadIdx.x) / LANES;
    const uint64_t vector = wanted < vectors ? wanted : vectors - 1; /* all lanes take part in the sums */
    const uint32_t lane = threadIdx.x % LANES;
    uint64_t at = vector * channels, row = 0; /* row: where what it needs beside x begins */
    if (NORM == MODULATED) row = weir_split_by(vector, f.tokens).quotient * f.row;
    if (is_rms(NORM) && f.width != channels) {
        const struct weir_split token = weir_split_by(vector, f.parts);
        const uint64_t rest = token.quotient * f.width + (uint64_t)f.parts * channels;
        row = (uint64_t)token.rest * channels;
        at = token.quotient * f.width + row;
        for (uint32_t c = (token.rest * LANES + lane) * 8; c < f.rest; c += f.parts * LANES * 8) /* a part's share */
            *(uint4 *)(y + rest + c) = *(const uint4 *)(x + rest + c);
    }
    float values[KEPT][8], sum = 0, mean = 0, square = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t c = (k * LANES + lane) * 8;
        if (c < channels) {
            weir_read_8(x + at + c, values[k]);
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) values[k][n] = 0;
        }
    }
    if (!is_rms(NORM)) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
#pragma unroll
            for (int n = 0; n < 8; n++) sum += values[k][n];
        }
        mean = sum_of_lanes<LANES>(sum, warps[0]) / (float)channels;
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const bool inside = (k * LANES + lane) * 8 < channels;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float away = inside ? values[k][n] - mean : 0.0f;
            square = fmaf(away, away, square);
        }
    }
    const float scale = 1.0f / sqrtf(sum_of_lanes<LANES>(square, warps[1]) / (float)channels + f.eps);
    if (wanted >= vectors) return;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t c = (k * LANES + lane) * 8;
        float a[8], b[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
        if (c >= channels) continue;
        if (NORM == MODULATED) {
            weir_read_8(f.by + row + c, a);
            weir_read_8(f.shift + row + c, b);
        } else {
            weir_read_8(f.gamma + row + c, a);
            if (f.beta) weir_read_8(f.beta + row + c, b);
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float value = (values[k][n] - mean) * scale;
            values[k][n] = NORM == MODULATED ? value * (1.0f + a[n]) + b[n] : value * a[n] + b[n];
        }
        if (is_rms(NORM)) {
            constexpr enum weir_activation A = NORM == RMS_RELU   ? WEIR_ACT_RELU
                                               : NORM == RMS_SILU ? WEIR_ACT_SILU
                                                                  : WEIR_ACT_NONE;
#pragma unroll
            for (int n = 0; n < 8; n++) values[k][n] = weir_act_fast<A>(values[k][n]);
            if (f.residual) {
                weir_read_8(f.residual + at + c, a);
#pragma unroll
                for (int n = 0; n < 8; n++) values[k][n] += a[n];
            }
        }
        weir_write_8(y + at + c, values[k]);
    }
}

template <enum norm NORM, int LANES, int KEPT>
static void launch_8(const struct factors *f, uint32_t channels, uint64_t vectors, cudaStream_t stream, const void *x,
                     void *y)
{
    const uint64_t blocks = (vectors * LANES + BLOCK_OF(LANES) - 1) / BLOCK_OF(LANES);
    norm_8<NORM, LANES, KEPT>
        <<<(unsigned)blocks, BLOCK_OF(LANES), 0, stream>>>(*f, channels, vectors, (const bf16 *)x, (bf16 *)y);
}

static bool fits_8(enum weir_dtype dtype, uint32_t channels, uint64_t vectors)
{
    return dtype == WEIR_BF16 && channels % WEIR_EIGHT == 0 && channels <= CHANNELS_MAX && vectors < (uint64_t)1 << 33;
}

template <enum norm NORM>
static enum weir_status run_8(const struct factors *f, uint32_t channels, uint64_t vectors, cudaStream_t stream,
                              const void *x, void *y)
{
    if (channels <= 64) {
        launch_8<NORM, 8, 1>(f, channels, vectors, stream, x, y);
    } else if (channels <= 128) {
        launch_8<NORM, 16, 1>(f, channels, vectors, stream, x, y);
    } else if (channels <= 256) {
        launch_8<NORM, 32, 1>(f, channels, vectors, stream, x, y);
    } else if (channels <= 512) {
        launch_8<NORM, 32, 2>(f, channels, vectors, stream, x, y);
    } else if (channels <= 1024) {
        launch_8<NORM, 32, 4>(f, channels, vectors, stream, x, y);
    } else if (channels <= 1280) {
        launch_8<NORM, 32, 5>(f, channels, vectors, stream, x, y);
    } else if (channels <= 2560) {
        launch_8<NORM, 64, 5>(f, channels, vectors, stream, x, y);
    } else {
        launch_8<NORM, 64, 6>(f, channels, vectors, stream, x, y);
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
__global__ void rms_norm(struct weir_rms_norm s, uint32_t width, uint64_t vectors, const float *gamma,
                         const float *beta, const T *x, const T *residual, T *y)
{
    EACH_TOKEN(vector, vectors) /* a part of a token */
    {
        const struct weir_split token = weir_split_by(vector, s.parts);
        const uint64_t whole = token.quotient * width;
        const uint32_t part = token.rest * s.channels, lane = threadIdx.x % 32;
        const T *from = x + whole + part;
        T *to = y + whole + part;
        float square = 0;
        for (uint32_t c = lane; c < s.channels; c += 32) {
            const float value = weir_read(from + c);
            square = fmaf(value, value, square);
        }
        const float scale = 1.0f / sqrtf(weir_warp_sum(square) / (float)s.channels + s.eps);
        for (uint32_t c = lane; c < s.channels; c += 32) {
            float value = weir_read(from + c) * scale * gamma[part + c];
            if (beta) value += beta[part + c];
            value = weir_act(s.activation, value);
            if (s.residual) value += weir_read(residual + whole + c);
            weir_write(to + c, value);
        }
        for (uint32_t c = width - s.rest + token.rest * 32 + lane; c < width && x != y; c += s.parts * 32)
            y[whole + c] = x[whole + c];
    }
}

enum weir_status weir_cuda_run_rms_norm(const struct weir_cuda_run *run)
{
    const struct weir_rms_norm *s = &run->plan->shape.rms_norm;
    const struct weir_cuda_packed *layer = run->plan->layer;
    const uint64_t vectors = (uint64_t)s->rows * s->tokens * s->parts;
    const void *x = run->operands[WEIR_RMS_NORM_X];
    void *y = run->operands[WEIR_RMS_NORM_Y];
    cudaStream_t stream = run->stream->stream;
    if (fits_8(s->dtype, s->channels, vectors) && s->rest % WEIR_EIGHT == 0) {
        struct factors f = {};
        f.gamma = (const float *)layer->weight;
        f.beta = layer->bias;
        f.residual = s->residual ? (const bf16 *)run->operands[WEIR_RMS_NORM_RESIDUAL] : NULL;
        f.parts = s->parts;
        f.width = weir_rms_norm_width(s);
        f.rest = x == y ? 0 : s->rest;
        f.eps = s->eps;
        if (s->activation == WEIR_ACT_RELU) return run_8<RMS_RELU>(&f, s->channels, vectors, stream, x, y);
        if (s->activation == WEIR_ACT_SILU) return run_8<RMS_SILU>(&f, s->channels, vectors, stream, x, y);
        return run_8<RMS>(&f, s->channels, vectors, stream, x, y);
    }
    WEIR_BY_TYPE(s->dtype, T,
                 (rms_norm<T><<<blocks_of(vectors), THREADS, 0, stream>>>(
                     *s, weir_rms_norm_width(s), vectors, (const float *)layer->weight, layer->bias, (const T *)x,
                     (const T *)run->operands[WEIR_RMS_NORM_RESIDUAL], (T *)y)));
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
