/* group_norm in bf16: what clusters of blocks and the whole grid do alike. A part of a batch entry's pixels is read
 * by one block: of each channel it sums the distances from the part's first number, and their squares; lanes, the
 * channels of a group, then the parts are brought together about their common mean (Chan, Golub and LeVeque, 1979),
 * since channels in f64, in an order that the shape of a row decides. What is left of a group is a factor and a
 * summand for each channel. */
#ifndef WEIR_KERNELS_CUDA_GROUP_NORM_PARTS_CUH
#define WEIR_KERNELS_CUDA_GROUP_NORM_PARTS_CUH

#include "kernels/cuda/group_norm.cuh"

#define THREADS_MAX 512
#define STAGES 4 /* of the copies to shared memory, that are waited for one after the other */
#define GENERATION 90
#define SHARED_MAX (227 * 1024)       /* of a block on sm_90 */
#define SHARED_MAX_OTHERS (99 * 1024) /* as every processor since 8.0 has it */

static inline size_t shared_of_device(const struct weir_cuda *cuda)
{
    return cuda->generation == GENERATION ? SHARED_MAX : SHARED_MAX_OTHERS;
}

/* How the numbers of a batch entry are shared out, with what would cost a division. */
struct share {
    uint32_t channels, groups, per_group; /* whole groups, and whole eights */
    uint32_t parts;                       /* of an entry's pixels */
    uint32_t pixels;                      /* of a part: the last has what is left, at least one */
    uint32_t threads, columns, lanes;     /* of a block: eights of channels side by side, pixels */
    uint32_t by_columns;                  /* n / columns is n * by_columns >> BY_SHIFT, of a thread's number */
    uint32_t slices;                      /* of the lanes, that threads add side by side */
    uint32_t rounds, kept; /* of a part, a pixel a lane each; the last so many are kept in shared memory */
    double by_per_group, by_pixels, by_values; /* by_values: of a group of an entry */
};
#define BY_SHIFT 22

/* Where what lies in a block's shared memory. */
struct room {
    float *factors, *summands, *means, *spreads; /* of each channel; the first two are gamma and beta at first */
    float *sums, *squares;                       /* [lanes][channels] */
    uint4 *kept;                                 /* [rounds][lanes][columns] */
};

static __device__ __forceinline__ struct room room_of(unsigned char *memory, const struct share *share)
{
    const uint32_t channels = share->channels, all = share->lanes * channels;
    struct room room;
    room.factors = (float *)memory;
    room.summands = room.factors + channels, room.means = room.summands + channels;
    room.spreads = room.means + channels, room.sums = room.spreads + channels;
    room.squares = room.sums + all;
    room.kept = (uint4 *)(room.squares + all);
    return room;
}

static inline size_t room_bytes(const struct share *share, uint32_t kept)
{
    const size_t all = (size_t)share->lanes * share->channels;
    return (4 * share->channels + 2 * all) * sizeof(float) + kept * all * sizeof(bf16);
}

/* The rest of a share of which channels, parts (as many as wanted) and threads are there. */
static inline void complete_share(struct share *share, const struct weir_group_norm *s, size_t room)
{
    share->per_group = s->channels / s->groups;
    share->groups = share->channels / share->per_group;
    share->pixels = (s->pixels + share->parts - 1) / share->parts;
    share->parts = (s->pixels + share->pixels - 1) / share->pixels;
    share->columns = share->channels / WEIR_EIGHT;
    share->lanes = share->threads / share->columns;
    share->by_columns = ((1u << BY_SHIFT) + share->columns - 1) / share->columns;
    share->slices = share->threads / share->channels;
    if (share->slices > share->lanes) share->slices = share->lanes;
    if (share->slices == 0) share->slices = 1;
    share->by_per_group = 1.0 / share->per_group, share->by_pixels = 1.0 / s->pixels;
    share->by_values = share->by_per_group * share->by_pixels;
    share->rounds = (share->pixels + share->lanes - 1) / share->lanes;
    const size_t least = room_bytes(share, 0), each = room_bytes(share, 1) - least;
    const size_t fit = room > least ? (room - least) / each : 0;
    share->kept = fit < share->rounds ? (uint32_t)fit : share->rounds;
}

struct moments {
    double mean, squares; /* squares: about the mean, summed */
};

/* To shared memory: by fours, or eight threads would want one bank. */
static __device__ __forceinline__ void put_8(float *to, const float from[8])
{
    *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
    *reinterpret_cast<float4 *>(to + 4) = make_float4(from[4], from[5], from[6], from[7]);
}

static __device__ __forceinline__ void normalise_8(bool silu, const float a[8], const float b[8], const uint4 *eight,
                                                   bf16 *y)
{
    float values[8];
    weir_read_8(reinterpret_cast<const bf16 *>(eight), values);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        values[n] = fmaf(values[n], a[n], b[n]);
        if (silu) values[n] = weir_act_fast<WEIR_ACT_SILU>(values[n]);
    }
    weir_write_8(y, values);
}

static __device__ __forceinline__ void copy_16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(weir_shared_address(to)), "l"(from) : "memory");
}

static __device__ __forceinline__ void wait_all_but(uint32_t stages)
{
    if (stages == 3) asm volatile("cp.async.wait_group 3;" ::: "memory");
    if (stages == 2) asm volatile("cp.async.wait_group 2;" ::: "memory");
    if (stages == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
    if (stages == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* Of eight channels. */
struct tally {
    float pivots[8], sums[8], squares[8];
};

static __device__ __forceinline__ void add_8(struct tally *t, const uint4 *eight)
{
    float values[8];
    weir_read_8(reinterpret_cast<const bf16 *>(eight), values);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float away = values[n] - t->pivots[n];
        t->sums[n] += away;
        t->squares[n] = fmaf(away, away, t->squares[n]);
    }
}

/* What a thread has of a part. */
struct strip {
    uint64_t start, step;    /* its first eight, from one round to the next: numbers of x */
    uint32_t lane, lanes;    /* pixels of the part */
    uint32_t end;            /* of these; 0 for a thread without */
    uint32_t streamed, kept; /* rounds, one after the other */
    uint4 *own;              /* where the first that is kept is */
    uint32_t own_step;
};

static __device__ __forceinline__ bool is_of(const struct strip *strip, uint32_t round)
{
    return strip->lane + round * strip->lanes < strip->end;
}

/* On their way to shared memory. */
static __device__ __forceinline__ void fetch_kept(const struct strip *strip, const bf16 *x)
{
    const uint32_t stage = (strip->kept + STAGES - 1) / STAGES;
#pragma unroll
    for (uint32_t q = 0; q < STAGES; q++) {
        for (uint32_t i = q * stage; i < (q + 1) * stage && i < strip->kept && is_of(strip, strip->streamed + i); i++)
            copy_16(strip->own + i * strip->own_step, x + strip->start + (strip->streamed + i) * strip->step);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
}

template <int TOGETHER>
static __device__ __forceinline__ void fetch_streamed(const struct strip *strip, uint32_t round, uint32_t end,
                                                      const bf16 *x, uint4 eights[TOGETHER])
{
#pragma unroll
    for (uint32_t k = 0; k < TOGETHER; k++) {
        if (round + k < end && is_of(strip, round + k))
            eights[k] = *reinterpret_cast<const uint4 *>(x + strip->start + (round + k) * strip->step);
    }
}

template <int TOGETHER>
static __device__ __forceinline__ void add_streamed(const struct strip *strip, const bf16 *x, struct tally *t)
{
    for (uint32_t i = 0; i < strip->streamed; i += TOGETHER) {
        uint4 eights[TOGETHER];
        fetch_streamed<TOGETHER>(strip, i, strip->streamed, x, eights);
#pragma unroll
        for (uint32_t k = 0; k < TOGETHER; k++) {
            if (i + k < strip->streamed && is_of(strip, i + k)) add_8(t, &eights[k]);
        }
    }
}

static __device__ __forceinline__ void add_kept(const struct strip *strip, struct tally *t)
{
    const uint32_t stage = (strip->kept + STAGES - 1) / STAGES;
#pragma unroll
    for (uint32_t q = 0; q < STAGES; q++) {
        wait_all_but(STAGES - 1 - q);
#pragma unroll 2
        for (uint32_t i = q * stage; i < (q + 1) * stage && i < strip->kept && is_of(strip, strip->streamed + i); i++)
            add_8(t, strip->own + i * strip->own_step);
    }
}

/* The last ones first: of what was read before it may still be in the cache. */
template <int TOGETHER>
static __device__ __forceinline__ void normalise_streamed(const struct strip *strip, bool silu, const float a[8],
                                                          const float b[8], const bf16 *x, bf16 *y)
{
    for (uint32_t end = strip->streamed; end > 0;) {
        const uint32_t begin = end > TOGETHER ? end - TOGETHER : 0;
        uint4 eights[TOGETHER];
        fetch_streamed<TOGETHER>(strip, begin, end, x, eights);
#pragma unroll
        for (uint32_t k = 0; k < TOGETHER; k++) {
            if (begin + k < end && is_of(strip, begin + k))
                normalise_8(silu, a, b, &eights[k], y + strip->start + (begin + k) * strip->step);
        }
        end = begin;
    }
}

static __device__ __forceinline__ void normalise_kept(const struct strip *strip, bool silu, const float a[8],
                                                      const float b[8], bf16 *y)
{
#pragma unroll 2
    for (uint32_t i = 0; i < strip->kept && is_of(strip, strip->streamed + i); i++)
        normalise_8(silu, a, b, strip->own + i * strip->own_step,
                    y + strip->start + (strip->streamed + i) * strip->step);
}

static __device__ __forceinline__ void put_tally(const struct room *room, const struct share *share,
                                                 const struct strip *strip, const struct tally *t)
{
    if (strip->lane >= share->lanes) return;
    put_8(room->sums + threadIdx.x * 8, t->sums);
    put_8(room->squares + threadIdx.x * 8, t->squares);
}

/* The lanes together: first some of them by each thread, then all of a channel by one. */
static __device__ __forceinline__ void gather_lanes(const struct room *room, const struct share *share, float count)
{
    const uint32_t channels = share->channels, all = share->lanes * channels, some = share->slices * channels;
    const float by_count = 1 / count;
    for (uint32_t n = threadIdx.x; n < some; n += blockDim.x) {
        float sum = 0, square = 0;
#pragma unroll 4
        for (uint32_t at = n; at < all; at += some) {
            sum += room->sums[at];
            square += room->squares[at];
        }
        room->sums[n] = sum;
        room->squares[n] = square;
    }
    __syncthreads();
    for (uint32_t c = threadIdx.x; c < channels; c += blockDim.x) {
        float sum = 0, square = 0;
#pragma unroll 4
        for (uint32_t at = c; at < some; at += channels) {
            sum += room->sums[at];
            square += room->squares[at];
        }
        room->means[c] += sum * by_count; /* the pivot */
        room->spreads[c] = fmaxf(square - sum * (sum * by_count), 0.0f);
    }
    __syncthreads();
}

/* Both sums over a warp, alike in all lanes. */
static __device__ __forceinline__ void sum_both(double *a, double *b)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const double other_a = __shfl_xor_sync(0xffffffffu, *a, step), other_b = __shfl_xor_sync(0xffffffffu, *b, step);
        *a += other_a;
        *b += other_b;
    }
}

/* A warp's: the channels of a group together, about their common mean. */
static __device__ __forceinline__ struct moments gather_channels(const struct room *room, const struct share *share,
                                                                 uint32_t group, uint32_t count)
{
    const float *means = room->means + group * share->per_group, *spreads = room->spreads + group * share->per_group;
    const double pivot = (double)means[0];
    double sum = 0, square = 0;
    for (uint32_t c = threadIdx.x % 32; c < share->per_group; c += 32) {
        const double away = (double)means[c] - pivot;
        sum += away;
        square += (double)spreads[c] + (double)count * away * away;
    }
    sum_both(&sum, &square);
    const double away = sum * share->by_per_group;
    const struct moments moments = { pivot + away, square - sum * away * (double)count };
    return moments;
}

/* A warp a group: the parts together, [groups][parts], and what follows for each channel: gamma and beta become a
 * factor and a summand. */
static __device__ __forceinline__ void gather_parts(const struct room *room, const struct share *share,
                                                    const struct moments *moments, uint32_t pixels, float eps)
{
    const uint32_t of_warp = threadIdx.x % 32, per_group = share->per_group;
    for (uint32_t g = threadIdx.x / 32; g < share->groups; g += blockDim.x / 32) {
        const struct moments *of_parts = moments + g * share->parts;
        const double pivot = of_parts[0].mean;
        double sum = 0, square = 0;
        for (uint32_t part = of_warp; part < share->parts; part += 32) {
            const uint32_t left = pixels - part * share->pixels;
            const double count = (double)(left < share->pixels ? left : share->pixels);
            const double away = of_parts[part].mean - pivot;
            sum += away * count;
            square += of_parts[part].squares + away * away * count * per_group;
        }
        sum_both(&sum, &square);
        const double away = sum * share->by_pixels, mean = pivot + away;
        const double all = square - sum * away * per_group; /* a NaN stays one */
        const double scale = rsqrt((all < 0 ? 0 : all) * share->by_values + (double)eps);
        for (uint32_t c = g * per_group + of_warp; c < (g + 1) * per_group; c += 32) {
            const double factor = scale * (double)room->factors[c];
            room->factors[c] = (float)factor;
            room->summands[c] = (float)((double)room->summands[c] - mean * factor);
        }
    }
}

#endif
