/* group_norm in bf16, channels counted in eights: x is read twice. The pixels of a batch entry are cut into chunks
 * by shape alone. Of a chunk each channel's numbers are summed as distances from its first one, and as squares of
 * these; channels of a group, then chunks, are brought together about their common mean (Chan, Golub and LeVeque,
 * 1979) in f64 and in their order. What is left of a group is a factor and a summand for each channel. */
#include "kernels/cuda/group_norm.cuh"

#define CHUNK_VALUES 16384 /* of all channels, about */
#define CHUNKS_MAX 1024
#define GATHER_THREADS 128
#define CHANNELS_MAX 3072 /* whose sums fit in shared memory beside those of the lanes */

#define SMALL_THREADS 512
#define SMALL_CHANNELS 32 /* of a block at least: 64 bytes of a pixel */
#define SMALL_CHANNELS_MAX 512
#define SMALL_VALUES_MAX ((uint64_t)49152) /* of a block: read twice, the second time from the cache */
#define MANY_BLOCKS 64                     /* of a row: then each may have more */
#define MANY_VALUES_MAX ((uint64_t)131072)

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

/* Channels of a block: whole groups and whole eights. */
static uint32_t small_channels(const struct weir_group_norm *s)
{
    const uint32_t per_group = s->channels / s->groups;
    uint32_t groups = 1;
    while (groups < s->groups &&
           (groups * per_group % 8 != 0 || groups * per_group < SMALL_CHANNELS || s->groups % groups != 0))
        groups++;
    return groups * per_group;
}

/* Small entries: a block has whole groups, and one launch does it all. */
static bool is_small(const struct weir_group_norm *s)
{
    const uint32_t channels = small_channels(s);
    const uint64_t blocks = (uint64_t)s->batch * (s->channels / channels), values = (uint64_t)s->pixels * channels;
    return channels <= SMALL_CHANNELS_MAX && values <= (blocks < MANY_BLOCKS ? SMALL_VALUES_MAX : MANY_VALUES_MAX);
}

/* Factors and summands of each channel of each batch entry, then the chunks' moments. */
size_t weir_group_norm_bf16_workspace(const struct weir_group_norm *s)
{
    if (is_small(s)) return 0;
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

/* To shared memory: by fours, or eight threads would want one bank. */
static __device__ __forceinline__ void put_8(float *to, const float from[8])
{
    *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
    *reinterpret_cast<float4 *>(to + 4) = make_float4(from[4], from[5], from[6], from[7]);
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
            put_8(sums + (lane * spread.columns + column) * 8, sum);
            put_8(squares + (lane * spread.columns + column) * 8, square);
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

/* A block a batch entry and group: the chunks together, and what follows for each channel. */
__global__ void __launch_bounds__(GATHER_THREADS)
    gather(struct weir_group_norm s, uint32_t chunk, uint32_t chunks, const struct moments *moments, const float *gamma,
           const float *beta, float *factors, float *summands)
{
    constexpr uint32_t each = CHUNKS_MAX / GATHER_THREADS;
    __shared__ double parts[32];
    const uint64_t entry = blockIdx.x / s.groups;
    const uint32_t thread = threadIdx.x, g = blockIdx.x % s.groups, per_group = s.channels / s.groups;
    const struct moments *from = moments + entry * chunks * s.groups + g;
    struct moments mine[each]; /* all on their way at once */
    double sum = 0, square = 0;
#pragma unroll
    for (uint32_t i = 0; i < each; i++) {
        const uint32_t n = i * GATHER_THREADS + thread;
        if (n < chunks) mine[i] = from[(uint64_t)n * s.groups];
    }
#pragma unroll
    for (uint32_t i = 0; i < each; i++) {
        const uint32_t n = i * GATHER_THREADS + thread, pixels = n + 1 < chunks ? chunk : s.pixels - n * chunk;
        if (n < chunks) sum += mine[i].mean * pixels;
    }
    const double mean = weir_block_sum(sum, parts) / s.pixels;
#pragma unroll
    for (uint32_t i = 0; i < each; i++) {
        const uint32_t n = i * GATHER_THREADS + thread, pixels = n + 1 < chunks ? chunk : s.pixels - n * chunk;
        const double away = mine[i].mean - mean;
        if (n < chunks) square += mine[i].squares + away * away * pixels * per_group;
    }
    const double scale = 1 / sqrt(weir_block_sum(square, parts) / ((double)s.pixels * per_group) + (double)s.eps);
    for (uint32_t c = g * per_group + thread; c < (g + 1) * per_group; c += GATHER_THREADS) {
        const double factor = scale * (double)gamma[c];
        factors[entry * s.channels + c] = (float)factor;
        summands[entry * s.channels + c] = (float)((double)beta[c] - mean * factor);
    }
}

/* Pixels a thread, all on their way at once: a store to y might change x, so that no load passes it by itself. */
#define NORMALISED 4
static __device__ __forceinline__ void normalise_some(bool silu, const float a[8], const float b[8], const bf16 *x,
                                                      bf16 *y, uint64_t first, uint64_t step, uint32_t count)
{
    uint4 eights[NORMALISED];
#pragma unroll
    for (uint32_t i = 0; i < NORMALISED; i++) {
        if (i < count) eights[i] = *reinterpret_cast<const uint4 *>(x + first + i * step);
    }
#pragma unroll
    for (uint32_t i = 0; i < NORMALISED; i++) {
        float values[8];
        if (i >= count) break;
        weir_read_8(reinterpret_cast<const bf16 *>(&eights[i]), values);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            values[n] = fmaf(values[n], a[n], b[n]);
            if (silu) values[n] = weir_act_fast<WEIR_ACT_SILU>(values[n]);
        }
        weir_write_8(y + first + i * step, values);
    }
}

static __host__ __device__ __forceinline__ uint32_t normalised_pixels(uint32_t channels)
{
    return spread_of(channels).lanes * NORMALISED;
}

__global__ void __launch_bounds__(THREADS) normalise(struct weir_group_norm s, uint32_t pieces, const float *factors,
                                                     const float *summands, const bf16 *x, bf16 *y)
{
    const uint32_t block = gridDim.x - 1 - blockIdx.x; /* what was read last may still be in the cache */
    const uint64_t entry = block / pieces;
    const uint32_t begin = block % pieces * normalised_pixels(s.channels);
    const struct spread spread = spread_of(s.channels);
    const uint32_t column = threadIdx.x % spread.columns, lane = threadIdx.x / spread.columns;
    if (lane >= spread.lanes) return;
    for (uint32_t c = column * 8; c < s.channels; c += spread.columns * 8) {
        float a[8], b[8];
        weir_read_8(factors + entry * s.channels + c, a);
        weir_read_8(summands + entry * s.channels + c, b);
        const uint32_t first = begin + lane, count = (s.pixels - first + spread.lanes - 1) / spread.lanes;
        if (first >= s.pixels) continue;
        normalise_some(s.silu, a, b, x, y, (entry * s.pixels + first) * s.channels + c,
                       (uint64_t)spread.lanes * s.channels, count);
    }
}

/* --- small entries: a block has whole groups ---------------------------------------------------------------------- */

/* Block: `channels` of a batch entry. Each channel's numbers are summed as distances from its first one, and as squares
 * of these, by lanes that take every so-manieth pixel; lanes, then the channels of a group, are brought together as
 * above. Shared memory: sums and squares [lanes][channels], then of each channel its mean and squares, then its factor
 * and summand. */
__global__ void __launch_bounds__(SMALL_THREADS)
    small(struct weir_group_norm s, uint32_t channels, const float *gamma, const float *beta, const bf16 *x, bf16 *y)
{
    extern __shared__ __align__(16) float shared[];
    const uint32_t sets = s.channels / channels, first = blockIdx.x % sets * channels, columns = channels / 8;
    const uint32_t lanes = SMALL_THREADS / columns, column = threadIdx.x % columns, lane = threadIdx.x / columns;
    float *sums = shared, *squares = sums + lanes * channels, *means = squares + lanes * channels;
    float *spreads = means + channels, *factors = spreads + channels, *summands = factors + channels;
    const uint64_t begin = blockIdx.x / sets * s.pixels * s.channels + first;
    const bf16 *from = x + begin;
    const float count = (float)s.pixels;
    if (lane < lanes) {
        float pivots[8], sum[8], square[8], values[8];
        weir_read_8(from + column * 8, pivots);
#pragma unroll
        for (int n = 0; n < 8; n++) sum[n] = square[n] = 0;
#pragma unroll 4
        for (uint32_t p = lane; p < s.pixels; p += lanes) {
            weir_read_8(from + (uint64_t)p * s.channels + column * 8, values);
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float away = values[n] - pivots[n];
                sum[n] += away;
                square[n] = fmaf(away, away, square[n]);
            }
        }
        put_8(sums + lane * channels + column * 8, sum);
        put_8(squares + lane * channels + column * 8, square);
    }
    __syncthreads();
    for (uint32_t c = threadIdx.x; c < channels; c += SMALL_THREADS) {
        float sum = 0, square = 0;
        for (uint32_t i = 0; i < lanes; i++) {
            sum += sums[i * channels + c];
            square += squares[i * channels + c];
        }
        means[c] = weir_read(from + c) + sum / count;
        spreads[c] = fmaxf(square - sum * (sum / count), 0.0f);
    }
    __syncthreads();
    const uint32_t per_group = s.channels / s.groups, of_warp = threadIdx.x % 32;
    for (uint32_t g = threadIdx.x / 32; g < channels / per_group; g += SMALL_THREADS / 32) { /* a warp a group */
        const uint32_t at = g * per_group;
        double sum = 0, square = 0;
        for (uint32_t c = of_warp; c < per_group; c += 32) sum += (double)means[at + c];
        const double mean = weir_warp_sum(sum) / per_group;
        for (uint32_t c = of_warp; c < per_group; c += 32) {
            const double away = (double)means[at + c] - mean;
            square += (double)spreads[at + c] + (double)count * away * away;
        }
        const double scale = 1 / sqrt(weir_warp_sum(square) / ((double)s.pixels * per_group) + (double)s.eps);
        for (uint32_t c = of_warp; c < per_group; c += 32) {
            const double factor = scale * (double)gamma[first + at + c];
            factors[at + c] = (float)factor;
            summands[at + c] = (float)((double)beta[first + at + c] - mean * factor);
        }
    }
    __syncthreads();
    if (lane >= lanes) return;
    float a[8], b[8];
#pragma unroll
    for (int n = 0; n < 8; n++) a[n] = factors[column * 8 + n], b[n] = summands[column * 8 + n];
    const uint64_t step = (uint64_t)lanes * s.channels;
    for (uint32_t p = lane; p < s.pixels; p += lanes * NORMALISED) {
        const uint32_t count = (s.pixels - p + lanes - 1) / lanes;
        normalise_some(s.silu, a, b, x, y, begin + (uint64_t)p * s.channels + column * 8, step, count);
    }
}

static enum weir_status run_small(const struct weir_group_norm *s, cudaStream_t stream, const float *gamma,
                                  const float *beta, const bf16 *x, bf16 *y)
{
    const uint32_t channels = small_channels(s), lanes = SMALL_THREADS / (channels / 8);
    const size_t shared = (2 * (size_t)lanes * channels + 4 * (size_t)channels) * sizeof(float);
    const uint64_t blocks = (uint64_t)s->rows * s->batch * (s->channels / channels);
    small<<<(unsigned)blocks, SMALL_THREADS, shared, stream>>>(*s, channels, gamma, beta, x, y);
    return weir_launched();
}

/* --- both --------------------------------------------------------------------------------------------------------- */

enum weir_status weir_group_norm_bf16_run(const struct weir_cuda_run *run)
{
    const struct weir_group_norm *s = &run->plan->shape.group_norm;
    const float *gamma = (const float *)run->plan->layer->weight, *beta = run->plan->layer->bias;
    const bf16 *x = (const bf16 *)run->operands[WEIR_GROUP_NORM_X];
    bf16 *y = (bf16 *)run->operands[WEIR_GROUP_NORM_Y];
    cudaStream_t stream = run->stream->stream;
    if (is_small(s)) return run_small(s, stream, gamma, beta, x, y);
    const uint64_t batch = (uint64_t)s->rows * s->batch;
    const uint32_t chunk = chunk_pixels(s), chunks = chunks_of(s);
    const struct spread spread = spread_of(s->channels);
    const size_t shared = (2 * (size_t)spread.lanes * spread.columns * 8 + 2 * (size_t)s->channels) * sizeof(float);
    float *factors = (float *)run->workspace, *summands = factors + batch * s->channels;
    struct moments *moments =
        (struct moments *)((char *)run->workspace + weir_cuda_aligned(batch * s->channels * 2 * sizeof(float)));
    const uint32_t piece = normalised_pixels(s->channels), pieces = (s->pixels + piece - 1) / piece;
    chunk_moments<<<(unsigned)(batch * chunks), THREADS, shared, stream>>>(*s, chunk, chunks, x, moments);
    gather<<<(unsigned)(batch * s->groups), GATHER_THREADS, 0, stream>>>(*s, chunk, chunks, moments, gamma, beta,
                                                                         factors, summands);
    normalise<<<(unsigned)(batch * pieces), THREADS, 0, stream>>>(*s, pieces, factors, summands, x, y);
    return weir_launched();
}
