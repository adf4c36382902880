/* group_norm. Small groups: one block does a group of a batch entry from beginning to end. Large ones: the pixels
 * are cut into chunks by shape alone; sums of the chunks, in f64, are added in their order; then once more for the
 * squares about the mean; then every value is normalised. The mean is kept as two f32, since values far from zero
 * lie close together. */
#include "kernels/cuda/group_norm.cuh"

#define WHOLE_VALUES_MAX 8192 /* of a group that one block takes */
#define CHUNK_VALUES 8192     /* of all channels, about */
#define CHANNELS_MAX 6144     /* whose sums fit in shared memory */
#define CHUNKS_MAX 512

static uint32_t chunk_pixels(const struct weir_group_norm *s)
{
    const uint32_t by_size = CHUNK_VALUES / s->channels, by_count = (s->pixels + CHUNKS_MAX - 1) / CHUNKS_MAX;
    const uint32_t pixels = by_size > by_count ? by_size : by_count;
    return pixels > 0 ? pixels : 1;
}

static bool is_whole(const struct weir_group_norm *s)
{
    return (uint64_t)s->pixels * (s->channels / s->groups) <= WHOLE_VALUES_MAX;
}

/* In f64: for each batch entry and group the mean and the scale; then the same number for each chunk. */
enum weir_status weir_cuda_prepare_group_norm(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                              struct weir_error *error)
{
    const struct weir_group_norm *s = &plan->shape.group_norm;
    const uint64_t entries = (uint64_t)s->rows * s->batch * s->groups;
    const uint32_t pixels = chunk_pixels(s);
    if (s->channels > CHANNELS_MAX) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device cuda: group_norm takes up to %d channels, not %u",
                         CHANNELS_MAX, s->channels);
    }
    if (weir_group_norm_bf16_takes(s)) {
        plan->workspace_bytes = weir_group_norm_bf16_workspace(cuda, s);
        return WEIR_OK;
    }
    if (!is_whole(s)) plan->workspace_bytes = entries * (2 + (s->pixels + pixels - 1) / pixels) * sizeof(double);
    return WEIR_OK;
}

static __device__ __forceinline__ float normalised(float x, float mean, float rest, float scale, float gamma,
                                                   float beta, bool silu)
{
    const float value = ((x - mean) - rest) * scale * gamma + beta;
    return silu ? weir_act(WEIR_ACT_SILU, value) : value;
}

template <typename T>
__global__ void whole(struct weir_group_norm s, const float *gamma, const float *beta, const T *x, T *y)
{
    __shared__ double parts[32];
    const uint32_t per_group = s.channels / s.groups, first = blockIdx.x % s.groups * per_group;
    const uint64_t base = (uint64_t)(blockIdx.x / s.groups) * s.pixels * s.channels + first;
    const uint32_t count = s.pixels * per_group;
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        sum += (double)weir_read(x + base + (uint64_t)(i / per_group) * s.channels + i % per_group);
    }
    const double centre = weir_block_sum(sum, parts) / count;
    const float mean = (float)centre, rest = (float)(centre - (double)mean);
    double square = 0;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        const float value = weir_read(x + base + (uint64_t)(i / per_group) * s.channels + i % per_group);
        const float away = (value - mean) - rest;
        square += (double)(away * away);
    }
    const float scale = (float)(1 / sqrt(weir_block_sum(square, parts) / count + (double)s.eps));
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        const uint64_t at = base + (uint64_t)(i / per_group) * s.channels + i % per_group;
        const uint32_t c = first + i % per_group;
        weir_write(y + at, normalised(weir_read(x + at), mean, rest, scale, gamma[c], beta[c], s.silu));
    }
}

/* One chunk of one batch entry, all groups: the sums of x, or of the squares about the mean. A thread has one
 * channel at a time and strides over pixels when there are more threads than channels. */
template <bool SQUARES, typename T>
__global__ void chunk_sums(struct weir_group_norm s, uint32_t chunk, uint32_t chunks, const T *x, const double *means,
                           double *sums)
{
    extern __shared__ double channels[]; /* [lanes][channels of this pass] */
    const uint64_t entry = blockIdx.x / chunks;
    const uint32_t number = blockIdx.x % chunks, per_group = s.channels / s.groups;
    const uint32_t begin = number * chunk, end = begin + chunk < s.pixels ? begin + chunk : s.pixels;
    const uint32_t lanes = s.channels < blockDim.x ? blockDim.x / s.channels : 1;
    const T *from = x + entry * s.pixels * s.channels;
    for (uint32_t n = threadIdx.x; n < lanes * s.channels; n += blockDim.x) {
        const uint32_t c = n % s.channels, lane = n / s.channels;
        double sum = 0;
        float mean = 0, rest = 0;
        if (SQUARES) {
            const double centre = means[entry * s.groups + c / per_group];
            mean = (float)centre;
            rest = (float)(centre - (double)mean);
        }
        for (uint32_t p = begin + lane; p < end; p += lanes) {
            const float value = weir_read(from + (uint64_t)p * s.channels + c);
            if (SQUARES) {
                const float away = (value - mean) - rest;
                sum += (double)(away * away);
            } else {
                sum += (double)value;
            }
        }
        channels[n] = sum;
    }
    __syncthreads();
    for (uint32_t g = threadIdx.x; g < s.groups; g += blockDim.x) {
        double sum = 0;
        for (uint32_t lane = 0; lane < lanes; lane++) {
            for (uint32_t c = g * per_group; c < (g + 1) * per_group; c++) sum += channels[lane * s.channels + c];
        }
        sums[(entry * chunks + number) * s.groups + g] = sum;
    }
}

/* One warp a batch entry and group: lanes take every 32nd chunk, then their sums are added in a fixed order. */
template <bool SQUARES>
__global__ void gather(struct weir_group_norm s, uint32_t chunks, uint64_t entries, const double *sums, double *out)
{
    const double count = (double)s.pixels * (s.channels / s.groups);
    const uint64_t i = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= entries) return;
    const double *from = sums + i / s.groups * chunks * s.groups + i % s.groups;
    double sum = 0;
    for (uint32_t n = threadIdx.x % 32; n < chunks; n += 32) sum += from[(uint64_t)n * s.groups];
    sum = weir_warp_sum(sum);
    if (threadIdx.x % 32 == 0) out[i] = SQUARES ? 1 / sqrt(sum / count + (double)s.eps) : sum / count;
}

template <typename T>
__global__ void normalise(struct weir_group_norm s, uint64_t count, const double *means, const double *scales,
                          const float *gamma, const float *beta, const T *x, T *y)
{
    const uint32_t per_group = s.channels / s.groups;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, s.channels);
        const uint32_t c = pixel.rest;
        const uint64_t at = weir_split_by(pixel.quotient, s.pixels).quotient * s.groups + c / per_group;
        const double centre = means[at];
        const float mean = (float)centre, rest = (float)(centre - (double)mean);
        weir_write(y + i, normalised(weir_read(x + i), mean, rest, (float)scales[at], gamma[c], beta[c], s.silu));
    }
}

template <typename T> static enum weir_status launch(const struct weir_cuda_run *run)
{
    const struct weir_group_norm *s = &run->plan->shape.group_norm;
    const float *gamma = (const float *)run->plan->layer->weight, *beta = run->plan->layer->bias;
    const T *x = (const T *)run->operands[WEIR_GROUP_NORM_X];
    T *y = (T *)run->operands[WEIR_GROUP_NORM_Y];
    cudaStream_t stream = run->stream->stream;
    const uint64_t entries = (uint64_t)s->rows * s->batch * s->groups, batch = (uint64_t)s->rows * s->batch;
    if (is_whole(s)) {
        whole<T><<<(unsigned)entries, THREADS, 0, stream>>>(*s, gamma, beta, x, y);
        return weir_launched();
    }
    const uint32_t chunk = chunk_pixels(s), chunks = (s->pixels + chunk - 1) / chunk;
    const size_t shared = (size_t)(s->channels < THREADS ? THREADS / s->channels : 1) * s->channels * sizeof(double);
    double *means = (double *)run->workspace, *scales = means + entries, *sums = scales + entries;
    const unsigned small = (unsigned)((entries * 32 + THREADS - 1) / THREADS), blocks = (unsigned)(batch * chunks);
    const uint64_t count = batch * s->pixels * s->channels;
    chunk_sums<false, T><<<blocks, THREADS, shared, stream>>>(*s, chunk, chunks, x, means, sums);
    gather<false><<<small, THREADS, 0, stream>>>(*s, chunks, entries, sums, means);
    chunk_sums<true, T><<<blocks, THREADS, shared, stream>>>(*s, chunk, chunks, x, means, sums);
    gather<true><<<small, THREADS, 0, stream>>>(*s, chunks, entries, sums, scales);
    normalise<T><<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(*s, count, means, scales, gamma, beta, x, y);
    return weir_launched();
}

enum weir_status weir_cuda_run_group_norm(const struct weir_cuda_run *run)
{
    if (weir_group_norm_bf16_takes(&run->plan->shape.group_norm)) return weir_group_norm_bf16_run(run);
    return run->plan->shape.group_norm.dtype == WEIR_F32 ? launch<float>(run) : launch<bf16>(run);
}
