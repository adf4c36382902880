/* group_norm in bf16, channels counted in eights: x is read twice. The pixels of a batch entry are cut into chunks
 * by shape alone. Of a chunk each channel's numbers are summed as distances from its first one, and as squares of
 * these; channels of a group, then chunks, are brought together about their common mean (Chan, Golub and LeVeque,
 * 1979) in f64 and in their order. What is left of a group is a factor and a summand for each channel. */
#include "kernels/cuda/group_norm.cuh"

#define CHUNK_VALUES 16384 /* of all channels, about */
#define CHUNKS_MAX 512
#define CHANNELS_MAX 3072 /* whose sums fit in shared memory beside those of the lanes */

struct moments {
    double mean, squares; /* squares: about the mean, summed */
};

static uint32_t chunk_pixels(const struct weir_group_norm *s)
{
    const uint32_t by_size = CHUNK_VALUES / s->channels, by_count = (s->pixels + CHUNKS_MAX - 1) / CHUNKS_MAX;
    const uint32_t pixels = by_size > by_count ? by_size : by_count;
    return pixels > 0 ? pixels : 1;
}

static uint32_t chunks_of(const struct weir_group_norm *s)
{
    const uint32_t pixels = chunk_pixels(s);
    return (s->pixels + pixels - 1) / pixels;
}

bool weir_group_norm_bf16_takes(const struct weir_group_norm *s)
{
    return s->dtype == WEIR_BF16 && s->channels % WEIR_EIGHT == 0 && s->channels <= CHANNELS_MAX;
}

/* Factors and summands of each channel of each batch entry, then the chunks' moments. */
size_t weir_group_norm_bf16_workspace(const struct weir_group_norm *s)
{
    const uint64_t batch = (uint64_t)s->rows * s->batch;
    return weir_cuda_aligned(batch * s->channels * 2 * sizeof(float)) +
           batch * chunks_of(s) * s->groups * sizeof(struct moments);
}

/* How a block's threads lie over a chunk: `columns` eights of channels side by side, `lanes` pixels. */
struct spread {
    uint32_t columns, lanes;
};
static __host__ __device__ __forceinline__ struct spread spread_of(uint32_t channels)
{
    const uint32_t eights = channels / 8, columns = eights < THREADS ? eights : THREADS;
    struct spread spread = { columns, THREADS / columns };
    return spread;
}

/* Block: a chunk. Shared memory: sums and squares [lanes][channels] of one pass over THREADS eights of channels,
 * then of each channel its mean and squares. */
__global__ void __launch_bounds__(THREADS)
    chunk_moments(struct weir_group_norm s, uint32_t chunk, uint32_t chunks, const bf16 *x, struct moments *out)
{
    extern __shared__ __align__(16) float shared[];
    const uint64_t entry = blockIdx.x / chunks;
    const uint32_t number = blockIdx.x % chunks, begin = number * chunk;
    const uint32_t end = begin + chunk < s.pixels ? begin + chunk : s.pixels;
    const struct spread spread = spread_of(s.channels);
    const uint32_t column = threadIdx.x % spread.columns, lane = threadIdx.x / spread.columns;
    const uint32_t room = spread.lanes * spread.columns * 8;
    float *sums = shared, *squares = sums + room, *means = squares + room, *spreads = means + s.channels;
    const bf16 *from = x + entry * s.pixels * s.channels;
    const float count = (float)(end - begin);
    for (uint32_t first = 0; first < s.channels; first += spread.columns * 8) {
        const uint32_t c = first + column * 8;
        const bool inside = lane < spread.lanes && c < s.channels;
        if (inside) {
            float pivots[8], sum[8], square[8], values[8];
            weir_read_8(from + (uint64_t)begin * s.channels + c, pivots);
#pragma unroll
            for (int n = 0; n < 8; n++) sum[n] = square[n] = 0;
#pragma unroll 4
            for (uint32_t p = begin + lane; p < end; p += spread.lanes) {
                weir_read_8(from + (uint64_t)p * s.channels + c, values);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float away = values[n] - pivots[n];
                    sum[n] += away;
                    square[n] = fmaf(away, away, square[n]);
                }
            }
#pragma unroll
            for (int n = 0; n < 8; n++) {
                sums[(lane * spread.columns + column) * 8 + n] = sum[n];
                squares[(lane * spread.columns + column) * 8 + n] = square[n];
            }
        }
        __syncthreads();
        for (uint32_t n = threadIdx.x; n < spread.columns * 8 && first + n < s.channels; n += THREADS) {
            float sum = 0, square = 0;
            for (uint32_t i = 0; i < spread.lanes; i++) {
                sum += sums[i * spread.columns * 8 + n];
                square += squares[i * spread.columns * 8 + n];
            }
            const float pivot = weir_read(from + (uint64_t)begin * s.channels + first + n);
            means[first + n] = pivot + sum / count;
            spreads[first + n] = fmaxf(square - sum * (sum / count), 0.0f);
        }
        __syncthreads();
    }
    const uint32_t per_group = s.channels / s.groups, of_warp = threadIdx.x % 32;
    for (uint32_t g = threadIdx.x / 32; g < s.groups; g += THREADS / 32) { /* a warp a group */
        const float *of_means = means + g * per_group, *of_spreads = spreads + g * per_group;
        double sum = 0, square = 0;
        for (uint32_t c = of_warp; c < per_group; c += 32) sum += (double)of_means[c];
        const double mean = weir_warp_sum(sum) / per_group;
        for (uint32_t c = of_warp; c < per_group; c += 32) {
            const double away = (double)of_means[c] - mean;
            square += (double)of_spreads[c] + (double)count * away * away;
        }
        square = weir_warp_sum(square);
        if (of_warp > 0) continue;
        struct moments *to = out + (entry * chunks + number) * s.groups + g;
        to->mean = mean;
        to->squares = square;
    }
}

/* One warp a batch entry and group: the chunks together, and what follows for each channel. */
__global__ void gather(struct weir_group_norm s, uint32_t chunk, uint32_t chunks, uint64_t entries,
                       const struct moments *moments, const float *gamma, const float *beta, float *factors,
                       float *summands)
{
    const uint64_t i = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32, entry = i / s.groups;
    const uint32_t lane = threadIdx.x % 32, g = (uint32_t)(i % s.groups), per_group = s.channels / s.groups;
    if (i >= entries) return;
    const struct moments *from = moments + entry * chunks * s.groups + g;
    double sum = 0, square = 0;
    for (uint32_t n = lane; n < chunks; n += 32) {
        const uint32_t pixels = n + 1 < chunks ? chunk : s.pixels - n * chunk;
        sum += from[(uint64_t)n * s.groups].mean * pixels;
    }
    const double mean = weir_warp_sum(sum) / s.pixels;
    for (uint32_t n = lane; n < chunks; n += 32) {
        const uint32_t pixels = n + 1 < chunks ? chunk : s.pixels - n * chunk;
        const double away = from[(uint64_t)n * s.groups].mean - mean;
        square += from[(uint64_t)n * s.groups].squares + away * away * pixels * per_group;
    }
    const double scale = 1 / sqrt(weir_warp_sum(square) / ((double)s.pixels * per_group) + (double)s.eps);
    for (uint32_t c = g * per_group + lane; c < (g + 1) * per_group; c += 32) {
        const double factor = scale * (double)gamma[c];
        factors[entry * s.channels + c] = (float)factor;
        summands[entry * s.channels + c] = (float)((double)beta[c] - mean * factor);
    }
}

__global__ void __launch_bounds__(THREADS)
    normalise(struct weir_group_norm s, uint32_t chunk, uint32_t chunks, const float *factors, const float *summands,
              const bf16 *x, bf16 *y)
{
    const uint64_t entry = blockIdx.x / chunks;
    const uint32_t begin = blockIdx.x % chunks * chunk, end = begin + chunk < s.pixels ? begin + chunk : s.pixels;
    const struct spread spread = spread_of(s.channels);
    const uint32_t column = threadIdx.x % spread.columns, lane = threadIdx.x / spread.columns;
    if (lane >= spread.lanes) return;
    for (uint32_t c = column * 8; c < s.channels; c += spread.columns * 8) {
        float a[8], b[8], values[8];
        weir_read_8(factors + entry * s.channels + c, a);
        weir_read_8(summands + entry * s.channels + c, b);
#pragma unroll 2
        for (uint32_t p = begin + lane; p < end; p += spread.lanes) {
            const uint64_t at = (entry * s.pixels + p) * s.channels + c;
            weir_read_8(x + at, values);
#pragma unroll
            for (int n = 0; n < 8; n++) {
                values[n] = fmaf(values[n], a[n], b[n]);
                if (s.silu) values[n] = weir_act_fast<WEIR_ACT_SILU>(values[n]);
            }
            weir_write_8(y + at, values);
        }
    }
}

enum weir_status weir_group_norm_bf16_run(const struct weir_cuda_run *run)
{
    const struct weir_group_norm *s = &run->plan->shape.group_norm;
    const float *gamma = (const float *)run->plan->layer->weight, *beta = run->plan->layer->bias;
    const bf16 *x = (const bf16 *)run->operands[WEIR_GROUP_NORM_X];
    bf16 *y = (bf16 *)run->operands[WEIR_GROUP_NORM_Y];
    cudaStream_t stream = run->stream->stream;
    const uint64_t batch = (uint64_t)s->rows * s->batch, entries = batch * s->groups;
    const uint32_t chunk = chunk_pixels(s), chunks = chunks_of(s);
    const struct spread spread = spread_of(s->channels);
    const size_t shared = (2 * (size_t)spread.lanes * spread.columns * 8 + 2 * (size_t)s->channels) * sizeof(float);
    float *factors = (float *)run->workspace, *summands = factors + batch * s->channels;
    struct moments *moments =
        (struct moments *)((char *)run->workspace + weir_cuda_aligned(batch * s->channels * 2 * sizeof(float)));
    const unsigned blocks = (unsigned)(batch * chunks), small = (unsigned)((entries * 32 + THREADS - 1) / THREADS);
    chunk_moments<<<blocks, THREADS, shared, stream>>>(*s, chunk, chunks, x, moments);
    gather<<<small, THREADS, 0, stream>>>(*s, chunk, chunks, entries, moments, gamma, beta, factors, summands);
    normalise<<<blocks, THREADS, 0, stream>>>(*s, chunk, chunks, factors, summands, x, y);
    return weir_launched();
}
