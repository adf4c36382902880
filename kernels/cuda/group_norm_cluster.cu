/* group_norm in bf16 of entries that are small, in one launch: a cluster of blocks (sm_90; one block elsewhere) has
 * whole groups of a batch entry, each block a part of the pixels, and of these what fits in its shared memory, so
 * that x is read once; what does not is read again. */
#include "kernels/cuda/group_norm_parts.cuh"

#define BLOCKS_MAX 8 /* of a cluster, that every processor of the generation has */
#define THREADS_MIN 256
#define STREAMED 4 /* pixels a thread, all on their way at once */

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
static __device__ __forceinline__ uint32_t cluster_number(void)
{
    uint32_t number;
    asm("mov.u32 %0, %%clusterid.x;" : "=r"(number));
    return number;
}

static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

static __device__ __forceinline__ void cluster_arrive(void)
{
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

static __device__ __forceinline__ void cluster_wait(void)
{
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

static __device__ __forceinline__ void put_moments(struct moments *here, uint32_t rank, struct moments moments)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(weir_shared_address(here)), "r"(rank));
    asm volatile("st.shared::cluster.v2.f64 [%0], {%1, %2};" ::"r"(there), "d"(moments.mean), "d"(moments.squares)
                 : "memory");
}
#else /* clusters of one block */
static __device__ __forceinline__ uint32_t cluster_number(void)
{
    return blockIdx.x;
}

static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    return 0;
}

static __device__ __forceinline__ void cluster_arrive(void)
{
}

static __device__ __forceinline__ void cluster_wait(void)
{
    __syncthreads();
}

static __device__ __forceinline__ void put_moments(struct moments *here, uint32_t, struct moments moments)
{
    *here = moments;
}
#endif

/* Grid: clusters of a batch entry, each a set of channels a line. Shared memory: moments [groups][blocks], which all
 * blocks of the cluster write, then the room. */
__global__ void __launch_bounds__(THREADS_MAX, 2)
    clusters(struct weir_group_norm s, const __grid_constant__ struct share share, const float *gamma,
             const float *beta, const bf16 *x, bf16 *y)
{
    extern __shared__ __align__(16) unsigned char memory[];
    struct moments *const moments = (struct moments *)memory;
    const struct room room = room_of(memory + share.groups * share.parts * sizeof(struct moments), &share);
    const uint32_t rank = cluster_rank(), first = blockIdx.y * share.channels, begin = rank * share.pixels;
    const uint32_t lane = threadIdx.x * share.by_columns >> BY_SHIFT, column = threadIdx.x - lane * share.columns;
    const uint32_t count = s.pixels - begin < share.pixels ? s.pixels - begin : share.pixels;
    const uint64_t corner = ((uint64_t)cluster_number() * s.pixels + begin) * s.channels + first;
    const struct strip strip = { corner + (uint64_t)lane * s.channels + column * 8,
                                 (uint64_t)share.lanes * s.channels,
                                 lane,
                                 share.lanes,
                                 lane < share.lanes ? count : 0,
                                 share.rounds - share.kept,
                                 share.kept,
                                 room.kept + threadIdx.x,
                                 share.lanes * share.columns };
    struct tally t = {};
    cluster_arrive();
    fetch_kept(&strip, x);
    weir_read_8(x + corner + column * 8, t.pivots);
    for (uint32_t c = threadIdx.x; c < share.channels; c += blockDim.x) {
        room.factors[c] = gamma[first + c];
        room.summands[c] = beta[first + c];
        room.means[c] = weir_read(x + corner + c);
    }
    add_streamed<STREAMED>(&strip, x, &t);
    add_kept(&strip, &t);
    put_tally(&room, &share, &strip, &t);
    __syncthreads();
    gather_lanes(&room, &share, (float)count);
    cluster_wait(); /* all blocks are there */
    for (uint32_t g = threadIdx.x / 32; g < share.groups; g += blockDim.x / 32) {
        const struct moments of_group = gather_channels(&room, &share, g, count);
        if (threadIdx.x % 32 < share.parts) put_moments(moments + g * share.parts + rank, threadIdx.x % 32, of_group);
    }
    cluster_arrive();
    cluster_wait();
    gather_parts(&room, &share, moments, s.pixels, s.eps);
    __syncthreads();
    float a[8], b[8];
    weir_read_8(room.factors + column * 8, a);
    weir_read_8(room.summands + column * 8, b);
    normalise_streamed<STREAMED>(&strip, s.silu, a, b, x, y);
    normalise_kept(&strip, s.silu, a, b, y);
}

/* --- who gets what ------------------------------------------------------------------------------------------------ */

/* Measured with two rows on an H200 (kernels/lab/unet3d.md). */
#define CHANNELS_MIN 32                        /* of a cluster: 64 bytes of a pixel */
#define CHANNELS_ENOUGH 128                    /* where a row has BLOCKS_MIN clusters all the same */
#define BLOCKS_MIN 64                          /* of a row: two of them are one for each multiprocessor, about */
#define EIGHTS_MIN 2048                        /* of a block, where there are more of them for BLOCKS_MIN */
#define EIGHTS_MAX 16384                       /* of a block, where a cluster can have more of them */
#define THREAD_EIGHTS 8                        /* of which fewer are enough for a thread */
#define CACHED_VALUES_MAX ((uint64_t)12000000) /* of a row: what is read again is in the cache */
#define ENTRY_VALUES_MAX ((uint64_t)2097152)   /* of a batch entry: more are the whole grid's */
#define FEW_VALUES_MAX ((uint64_t)49152)       /* of a block without others in its cluster, where a row has few */
#define MANY_VALUES_MAX ((uint64_t)131072)

/* Whole groups and whole eights. */
static uint32_t set_channels(const struct weir_group_norm *s, uint32_t least)
{
    const uint32_t per_group = s->channels / s->groups;
    uint32_t groups = 1;
    while (groups < s->groups &&
           (groups * per_group % WEIR_EIGHT != 0 || groups * per_group < least || s->groups % groups != 0))
        groups++;
    return groups * per_group;
}

static size_t moments_bytes(const struct share *share, const struct weir_group_norm *s)
{
    return (size_t)share->channels / (s->channels / s->groups) * share->parts * sizeof(struct moments);
}

static struct share share_of(const struct weir_cuda *cuda, const struct weir_group_norm *s)
{
    struct share share = {};
    const uint32_t blocks_max = cuda->generation == GENERATION ? BLOCKS_MAX : 1;
    share.channels = set_channels(s, CHANNELS_MIN);
    while (share.channels < CHANNELS_ENOUGH && share.channels < s->channels) {
        const uint32_t wider = set_channels(s, share.channels + 1);
        if ((uint64_t)s->batch * (s->channels / wider) < BLOCKS_MIN) break;
        share.channels = wider;
    }
    const uint64_t eights = (uint64_t)s->pixels * (share.channels / WEIR_EIGHT);
    const uint64_t sets = (uint64_t)s->batch * (s->channels / share.channels);
    share.parts = 1;
    while (share.parts < blocks_max && (eights > (uint64_t)EIGHTS_MAX * share.parts ||
                                        (sets * share.parts < BLOCKS_MIN && eights >= 2 * EIGHTS_MIN * share.parts)))
        share.parts *= 2;
    share.threads = THREADS_MAX;
    while (share.threads > THREADS_MIN && share.threads > share.channels / WEIR_EIGHT * 2 &&
           eights <= (uint64_t)share.threads * THREAD_EIGHTS * share.parts)
        share.threads /= 2;
    size_t room = shared_of_device(cuda);
    if (sets * share.parts > BLOCKS_MIN && (uint64_t)s->batch * s->pixels * s->channels <= CACHED_VALUES_MAX)
        room = (room - 1024) / 2; /* two blocks on a multiprocessor, each with 1 KiB of its own */
    const size_t moments = moments_bytes(&share, s);
    complete_share(&share, s, room > moments ? room - moments : 0);
    return share;
}

bool weir_group_norm_clusters_take(const struct weir_cuda *cuda, const struct weir_group_norm *s)
{
    const struct share share = share_of(cuda, s);
    const uint64_t blocks = (uint64_t)s->batch * (s->channels / share.channels);
    if (moments_bytes(&share, s) + room_bytes(&share, share.kept) > shared_of_device(cuda)) return false;
    if (cuda->generation == GENERATION) return (uint64_t)s->pixels * s->channels <= ENTRY_VALUES_MAX;
    return (uint64_t)s->pixels * share.channels <= (blocks < BLOCKS_MIN ? FEW_VALUES_MAX : MANY_VALUES_MAX);
}

enum weir_status weir_group_norm_clusters_run(const struct weir_cuda *cuda, const struct weir_group_norm *s,
                                              cudaStream_t stream, const float *gamma, const float *beta, const bf16 *x,
                                              bf16 *y)
{
    const struct share share = share_of(cuda, s);
    cudaLaunchAttribute cluster = {};
    cudaLaunchConfig_t launch = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = share.parts, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    launch.gridDim = dim3(s->rows * s->batch * share.parts, s->channels / share.channels);
    launch.blockDim = dim3(share.threads);
    launch.dynamicSmemBytes = moments_bytes(&share, s) + room_bytes(&share, share.kept), launch.stream = stream;
    launch.attrs = &cluster, launch.numAttrs = share.parts > 1;
    if (cudaFuncSetAttribute(clusters, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_of_device(cuda)) !=
            cudaSuccess ||
        cudaLaunchKernelEx(&launch, clusters, *s, share, gamma, beta, x, y) != cudaSuccess)
        return WEIR_DEVICE;
    return weir_launched();
}
