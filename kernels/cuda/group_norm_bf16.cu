/* group_norm in bf16, channels counted in eights, of what group_norm_cluster.cu does not take: one launch of a grid
 * whose blocks are all there at once, each with some parts of the batch entries, and all channels. Moments of the
 * parts go to the workspace; when all are there, each block brings those together that it needs. Of a block's last
 * part what fits in its shared memory is read once, the rest twice. */
#include <cooperative_groups.h>

#include "kernels/cuda/group_norm_parts.cuh"

#define CHANNELS_MAX 3072 /* whose sums fit in shared memory */
#define VALUES_MIN 16384  /* of a part, about */
#define STREAMED 8        /* pixels a thread, all on their way at once */

bool weir_group_norm_bf16_takes(const struct weir_group_norm *s)
{
    return s->dtype == WEIR_BF16 && s->channels % WEIR_EIGHT == 0 && s->channels <= CHANNELS_MAX;
}

struct place {
    uint64_t entry, corner; /* corner: of x, where the part begins */
    uint32_t part, count;   /* count: its pixels */
};

static __device__ __forceinline__ struct place place_of(const struct weir_group_norm *s, const struct share *share,
                                                        uint64_t number)
{
    const struct weir_split split = weir_split_by(number, share->parts);
    const uint32_t begin = split.rest * share->pixels;
    struct place place;
    place.entry = split.quotient, place.part = split.rest;
    place.corner = (place.entry * s->pixels + begin) * s->channels;
    place.count = s->pixels - begin < share->pixels ? s->pixels - begin : share->pixels;
    return place;
}

static __device__ __forceinline__ struct strip strip_of(const struct weir_group_norm *s, const struct share *share,
                                                        const struct room *room, const struct place *place, bool last)
{
    const uint32_t lane = threadIdx.x * share->by_columns >> BY_SHIFT, column = threadIdx.x - lane * share->columns;
    struct strip strip;
    strip.start = place->corner + (uint64_t)lane * s->channels + column * 8;
    strip.step = (uint64_t)share->lanes * s->channels;
    strip.lane = lane, strip.lanes = share->lanes;
    strip.end = lane < share->lanes ? place->count : 0;
    strip.kept = last ? share->kept : 0;
    strip.streamed = share->rounds - strip.kept;
    strip.own = room->kept + threadIdx.x, strip.own_step = share->lanes * share->columns;
    return strip;
}

/* Moments: [entries][groups][parts]. How many parts a block has depends on the rows, and so what is kept; the order in
 * which terms are added does not. */
__global__ void __launch_bounds__(THREADS_MAX, 1)
    together(struct weir_group_norm s, const __grid_constant__ struct share share, uint64_t parts,
             struct moments *moments, const float *gamma, const float *beta, const bf16 *x, bf16 *y)
{
    extern __shared__ __align__(16) unsigned char memory[];
    const struct room room = room_of(memory, &share);
    const uint64_t begin = parts * blockIdx.x / gridDim.x, end = parts * (blockIdx.x + 1) / gridDim.x;
    const uint32_t column = threadIdx.x - (threadIdx.x * share.by_columns >> BY_SHIFT) * share.columns;
    const struct place last = place_of(&s, &share, end - 1);
    const struct strip kept = strip_of(&s, &share, &room, &last, true);
    fetch_kept(&kept, x);
    for (uint64_t number = begin; number < end; number++) {
        const struct place place = place_of(&s, &share, number);
        const struct strip strip = strip_of(&s, &share, &room, &place, number + 1 == end);
        struct tally t = {};
        weir_read_8(x + place.corner + column * 8, t.pivots);
        for (uint32_t c = threadIdx.x; c < share.channels; c += blockDim.x)
            room.means[c] = weir_read(x + place.corner + c);
        add_streamed<STREAMED>(&strip, x, &t);
        if (number + 1 == end) add_kept(&strip, &t);
        put_tally(&room, &share, &strip, &t);
        __syncthreads();
        gather_lanes(&room, &share, (float)place.count);
        for (uint32_t g = threadIdx.x / 32; g < share.groups; g += blockDim.x / 32) {
            const struct moments of_group = gather_channels(&room, &share, g, place.count);
            if (threadIdx.x % 32 == 0) moments[(place.entry * share.groups + g) * share.parts + place.part] = of_group;
        }
        __syncthreads();
    }
    cooperative_groups::this_grid().sync();
    uint64_t entry = last.entry + 1; /* another one */
    float a[8], b[8];
    for (uint64_t number = end; number-- > begin;) {
        const struct place place = place_of(&s, &share, number);
        const struct strip strip = strip_of(&s, &share, &room, &place, number + 1 == end);
        if (place.entry != entry) {
            entry = place.entry;
            __syncthreads();
            for (uint32_t c = threadIdx.x; c < share.channels; c += blockDim.x)
                room.factors[c] = gamma[c], room.summands[c] = beta[c];
            __syncthreads();
            gather_parts(&room, &share, moments + entry * share.groups * share.parts, s.pixels, s.eps);
            __syncthreads();
            weir_read_8(room.factors + column * 8, a);
            weir_read_8(room.summands + column * 8, b);
        }
        normalise_streamed<STREAMED>(&strip, s.silu, a, b, x, y);
        normalise_kept(&strip, s.silu, a, b, y);
    }
}

/* So that two rows (a prompt and its negative) are a part for each multiprocessor, where there are enough numbers. */
static struct share share_of_entry(const struct weir_cuda *cuda, const struct weir_group_norm *s)
{
    const uint32_t wanted = ((uint32_t)cuda->multiprocessors / 2 + s->batch - 1) / s->batch;
    const uint64_t enough = (uint64_t)s->pixels * s->channels / VALUES_MIN + 1;
    struct share share = {};
    share.channels = s->channels, share.threads = THREADS_MAX;
    share.parts = wanted < enough ? wanted : (uint32_t)enough;
    if (share.parts > s->pixels) share.parts = s->pixels;
    complete_share(&share, s, shared_of_device(cuda));
    return share;
}

size_t weir_group_norm_bf16_workspace(const struct weir_cuda *cuda, const struct weir_group_norm *s)
{
    if (weir_group_norm_clusters_take(cuda, s)) return 0;
    const struct share share = share_of_entry(cuda, s);
    return (uint64_t)s->rows * s->batch * share.parts * share.groups * sizeof(struct moments);
}

static enum weir_status run_together(const struct weir_cuda *cuda, const struct weir_group_norm *s, cudaStream_t stream,
                                     const float *gamma, const float *beta, struct moments *moments, const bf16 *x,
                                     bf16 *y)
{
    const struct share share = share_of_entry(cuda, s);
    const uint64_t parts = (uint64_t)s->rows * s->batch * share.parts, most = (uint64_t)cuda->multiprocessors;
    cudaLaunchAttribute at_once = {};
    cudaLaunchConfig_t launch = {};
    at_once.id = cudaLaunchAttributeCooperative, at_once.val.cooperative = 1;
    launch.gridDim = dim3((unsigned)(parts < most ? parts : most)), launch.blockDim = dim3(share.threads);
    launch.dynamicSmemBytes = room_bytes(&share, share.kept), launch.stream = stream;
    launch.attrs = &at_once, launch.numAttrs = 1;
    if (cudaFuncSetAttribute(together, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_of_device(cuda)) !=
            cudaSuccess ||
        cudaLaunchKernelEx(&launch, together, *s, share, parts, moments, gamma, beta, x, y) != cudaSuccess)
        return WEIR_DEVICE;
    return weir_launched();
}

enum weir_status weir_group_norm_bf16_run(const struct weir_cuda_run *run)
{
    const struct weir_cuda *cuda = (const struct weir_cuda *)run->plan->head.device;
    const struct weir_group_norm *s = &run->plan->shape.group_norm;
    const float *gamma = (const float *)run->plan->layer->weight, *beta = run->plan->layer->bias;
    const bf16 *x = (const bf16 *)run->operands[WEIR_GROUP_NORM_X];
    bf16 *y = (bf16 *)run->operands[WEIR_GROUP_NORM_Y];
    cudaStream_t stream = run->stream->stream;
    if (weir_group_norm_clusters_take(cuda, s)) return weir_group_norm_clusters_run(cuda, s, stream, gamma, beta, x, y);
    return run_together(cuda, s, stream, gamma, beta, (struct moments *)run->workspace, x, y);
}
