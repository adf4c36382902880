/* Softmax attention in bf16 by the products of warpgroups (sm_90a), for heads of up to 112 channels. A block has one
 * warpgroup that brings queries, keys and values to shared memory, and GROUPS that multiply: each has QUERIES queries
 * of the same head and goes through the keys tile by tile with the sum of each query's weights so far. While one makes
 * weights of its scores, others multiply, and its own products of the tile before end. A multiprocessor takes pass
 * after pass, a pass being GROUPS times QUERIES queries of a head; what the next one needs is on its way meanwhile.
 *
 * Scores and sums are f32; weights are rounded to bf16 for the product with the values, their sum is not. Weights are
 * relative to a score that is the largest so far or up to SLACK (as a power of two) below it: sums are scaled anew only
 * when it is more, which is rare after the first tile. Each query's own scores decide that. Keys beyond the end are
 * zeros in shared memory, whatever lies there.
 *
 * Tiles lie in panels of 64 channels (tiles.cuh); 64 channels of a row are eight parts of 16 bytes. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tiles.cuh"

#define KEYS 80 /* of a tile: 300 keys are four */
#define QUERIES 64
#define GROUPS 3
#define TEAM (128 * (GROUPS + 1))
#define PASSES 2 /* whose queries are in memory */
#define SLACK 8.0f
#define LOG2_E 1.4426950408889634f
#define PANEL 64
#define PANEL_BYTES (KEYS * WEIR_TILE_ROW_BYTES)
#define QUERY_PANEL_BYTES (GROUPS * QUERIES * WEIR_TILE_ROW_BYTES)

template <int DIM> struct sizes {
    static constexpr int panels = (DIM + PANEL - 1) / PANEL, parts = DIM / 16;
    static constexpr int slots = panels == 1 ? 6 : 3;
    static constexpr int query_bytes = panels * QUERY_PANEL_BYTES, tile_bytes = panels * PANEL_BYTES;
    static constexpr int bytes =
        PASSES * query_bytes + slots * 2 * tile_bytes + 1024; /* begins at a multiple of that */
};

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_TILES 1
#endif

#ifdef HAS_TILES
struct pass {
    uint64_t q_token, k_token; /* the first of its sequence */
    uint32_t head, first;      /* query */
    uint32_t keys, rounds;
};
/* Passes are counted through a head, then through heads, sequences and rows. */
static __device__ __forceinline__ struct pass pass_of(const struct weir_attention &s, const int32_t *lengths,
                                                      uint32_t of_head, uint32_t number)
{
    struct pass p;
    p.first = number % of_head * (GROUPS * QUERIES);
    number /= of_head;
    p.head = number % s.heads;
    number /= s.heads;
    const uint32_t sequence = number % s.sequences, row = number / s.sequences;
    p.q_token = weir_first_token(s.query, row, sequence);
    p.k_token = weir_first_token(s.key, row, sequence);
    p.keys = s.key_length;
    if (lengths && (uint32_t)lengths[row] < p.keys) p.keys = (uint32_t)lengths[row];
    if (s.causal && p.first + GROUPS * QUERIES < p.keys) p.keys = p.first + GROUPS * QUERIES; /* that any may see */
    p.rounds = (p.keys + KEYS - 1) / KEYS;
    return p;
}

/* --- the warpgroup that brings ------------------------------------------------------------------------------------ */

/* A barrier of all its threads will know when all came that they have sent for. */
static __device__ __forceinline__ void tell(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* ROWS tokens from `first` on of what a thread reads of a row, zeros from `end` on and where it has no channels. */
template <int ROWS, int TOGETHER>
static __device__ __forceinline__ void bring(uint32_t to, const bf16 *from, uint64_t step, uint32_t row, uint32_t first,
                                             uint32_t end, bool channels)
{
    const bf16 *at = from + (uint64_t)(first + row) * step;
#pragma unroll 5
    for (int i = 0; i < ROWS / TOGETHER; i++) {
        const bool real = channels && first + row + (uint32_t)(i * TOGETHER) < end;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                         to + (uint32_t)(i * TOGETHER * WEIR_TILE_ROW_BYTES)),
                     "l"(real ? at : from), "r"(real ? 16 : 0)
                     : "memory");
        at += TOGETHER * step;
    }
}

struct shared_parts {
    uint32_t queries, keys, values;                  /* by slots */
    uint32_t q_full, q_empty, k_full, v_full, empty; /* barriers, one a slot */
    struct pass *passes;
};

template <int DIM>
static __device__ __forceinline__ void bring_all(const struct weir_attention &s, const struct shared_parts &r,
                                                 uint32_t of_head, uint32_t passes, const bf16 *q, const bf16 *k,
                                                 const bf16 *v, const int32_t *lengths)
{
    using S = sizes<DIM>;
    constexpr uint32_t across = S::panels * 8, together = 128 / across;
    const uint32_t thread = threadIdx.x % 128, part = thread % across, row = thread / across;
    const uint32_t in_row = row * WEIR_TILE_ROW_BYTES + ((part % 8) ^ (row % 8)) * 16;
    const uint32_t in_tile = part / 8 * PANEL_BYTES + in_row, in_queries = part / 8 * QUERY_PANEL_BYTES + in_row;
    const bool mine = part * 8 < DIM, channels = part * 8 < s.head_dim;
    const uint64_t k_step = (uint64_t)s.key.token_step * s.k_stride, v_step = (uint64_t)s.key.token_step * s.v_stride;
    const uint64_t q_step = (uint64_t)s.query.token_step * s.q_stride;
    struct weir_ring ring = {}, pass = {};
    for (uint32_t number = blockIdx.x; number < passes; number += gridDim.x) {
        const struct pass p = pass_of(s, lengths, of_head, number);
        const uint64_t kv = (uint64_t)(p.head / (s.heads / s.kv_heads)) * s.head_dim;
        const bf16 *q_from = q + p.q_token * s.q_stride + s.q_channel + (uint64_t)p.head * s.head_dim;
        const bf16 *k_from = k + p.k_token * s.k_stride + s.k_channel + kv + (channels ? part * 8 : 0);
        const bf16 *v_from = v + p.k_token * s.v_stride + s.v_channel + kv + (channels ? part * 8 : 0);
        const uint32_t q_at = pass.slot * WEIR_BARRIER_BYTES;
        weir_barrier_wait(r.q_empty + q_at, pass.parity ^ 1);
        if (mine)
            bring<GROUPS * QUERIES, together>(r.queries + pass.slot * S::query_bytes + in_queries,
                                              q_from + (channels ? part * 8 : 0), q_step, row, p.first, s.query_length,
                                              channels);
        tell(r.q_full + q_at);
        if (thread == 0) {
            r.passes[pass.slot] = p;
            weir_barrier_arrive(r.q_full + q_at);
        }
        weir_ring_next<PASSES>(&pass);
        for (uint32_t round = 0; round < p.rounds; round++) {
            const uint32_t at = ring.slot * WEIR_BARRIER_BYTES, tile = ring.slot * S::tile_bytes + in_tile;
            weir_barrier_wait(r.empty + at, ring.parity ^ 1);
            if (mine) bring<KEYS, together>(r.keys + tile, k_from, k_step, row, round * KEYS, p.keys, channels);
            tell(r.k_full + at);
            if (mine) bring<KEYS, together>(r.values + tile, v_from, v_step, row, round * KEYS, p.keys, channels);
            tell(r.v_full + at);
            weir_ring_next<S::slots>(&ring);
        }
    }
    asm volatile("cp.async.wait_all;" ::: "memory"); /* nothing is on its way to a block that is gone */
}

/* --- the warpgroups that multiply --------------------------------------------------------------------------------- */

static __device__ __forceinline__ void products_see_copies(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A query's rows of a lane: g and g + 8 of the 16 of its warp. */
struct weights_so_far {
    float largest[2], total[2]; /* the score that weights are relative to; of this lane's keys */
};

/* The tile of keys that begins with j0; limit: of keys; query: the lane's first row. */
struct corner {
    uint32_t j0, limit, query;
};

/* Scores to weights, and `out`, when its last products are done, to what they are relative to now: their tile is free
 * then, unless `freed` is 0. The first key is seen by all, so that this is a number after the first tile. PLAIN: there
 * is neither softcap nor causal, and scale is above 0. */
template <int DIM, bool PLAIN, bool LAST>
static __device__ __forceinline__ void weigh(const struct weir_attention &s, float (&scores)[KEYS / 2],
                                             float (&out)[DIM / 2], struct weights_so_far *w, struct corner at,
                                             uint32_t freed)
{
    const bool meant = !PLAIN && (s.softcap != 0.0f || s.scale <= 0.0f); /* made what they mean first */
    const float factor = meant ? LOG2_E : s.scale * LOG2_E;
    const uint32_t first = at.j0 + threadIdx.x % 4 * 2;
    const bool diagonal = !PLAIN && s.causal && at.j0 + KEYS > at.query + 1;
    if (meant) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            scores[i] *= s.scale;
            if (s.softcap != 0.0f) scores[i] = s.softcap * weir_tanh_fast(__fdividef(scores[i], s.softcap));
        }
    }
    if (LAST || diagonal) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            const uint32_t key = first + (uint32_t)(i / 4 * 8 + i % 2);
            if (key >= at.limit || (diagonal && key > at.query + (uint32_t)(i % 4 / 2 * 8))) scores[i] = -INFINITY;
        }
    }
    float base[2], sum[2] = { 0, 0 }, most[2] = { -INFINITY, -INFINITY };
    bool grows[2];
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) most[i % 4 / 2] = fmaxf(most[i % 4 / 2], scores[i]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        most[half] = weir_most_of_row(most[half]);
        grows[half] = factor * (most[half] - w->largest[half]) > SLACK;
    }
    weir_products_wait<0>();
    if (threadIdx.x % 32 == 0 && freed) weir_barrier_arrive(freed);
    if (__any_sync(0xffffffffu, grows[0] || grows[1])) {
        float shrink[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            shrink[half] = grows[half] ? weir_power_of_2(factor * (w->largest[half] - most[half])) : 1.0f;
            if (grows[half]) w->largest[half] = most[half];
            w->total[half] *= shrink[half];
        }
#pragma unroll
        for (int i = 0; i < DIM / 2; i++) out[i] *= shrink[i % 4 / 2];
    }
#pragma unroll
    for (int half = 0; half < 2; half++) base[half] = -factor * w->largest[half];
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        scores[i] = weir_power_of_2(fmaf(scores[i], factor, base[i % 4 / 2]));
        sum[i % 4 / 2] += scores[i];
    }
#pragma unroll
    for (int half = 0; half < 2; half++) w->total[half] += sum[half];
}

/* query: the lane's first row. Four lanes have 8 numbers of a row side by side in each fourth of 32 channels. */
template <int DIM>
static __device__ __forceinline__ void finish(const struct weir_attention &s, const struct pass &p,
                                              const float (&out)[DIM / 2], const struct weights_so_far &w,
                                              uint32_t query, bf16 *y)
{
    const uint32_t lane = threadIdx.x % 32, mine = lane % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float inverse = 1.0f / weir_sum_of_row(w.total[half]);
        const bool there = query + (uint32_t)half * 8 < s.query_length;
        bf16 *to = y + (p.q_token + (uint64_t)(query + (uint32_t)half * 8) * s.query.token_step) * s.y_stride +
                   (uint64_t)p.head * s.head_dim + mine;
#pragma unroll
        for (int c = 0; c < DIM; c += 32) {
            uint32_t words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int n = c / 8 + i < DIM / 8 ? c / 8 + i : 0;
                words[i] = weir_pair(out[n * 4 + half * 2] * inverse, out[n * 4 + half * 2 + 1] * inverse);
            }
            weir_transpose_4(words, lane);
            if (there && (uint32_t)c + mine < s.head_dim)
                *reinterpret_cast<uint4 *>(to + c) = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }
}

static __device__ __forceinline__ void pack(uint32_t (&weights)[KEYS / 16][4], const float (&scores)[KEYS / 2])
{
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) weights[i / 4][i % 4] = weir_pair(scores[i * 2], scores[i * 2 + 1]);
}

/* Products of 64 queries with a tile of keys, on their way. q, k: descriptors. */
template <int DIM>
static __device__ __forceinline__ void begin_scores(float (&scores)[KEYS / 2], uint32_t q, uint32_t k)
{
    products_see_copies();
    weir_products_begin();
#pragma unroll
    for (uint32_t c = 0; c < DIM / 16; c++) {
        const uint32_t a = q + c / 4 * (QUERY_PANEL_BYTES / 16) + c % 4 * 2;
        const uint32_t b = k + c / 4 * (PANEL_BYTES / 16) + c % 4 * 2;
        if (c == 0)
            weir_product<KEYS>::begin(scores, a, b);
        else
            weir_product<KEYS>::run(scores, a, b);
    }
    weir_products_commit();
}

/* Of weights with a tile of values, v. */
template <int DIM>
static __device__ __forceinline__ void add_values(float (&out)[DIM / 2], const uint32_t (&weights)[KEYS / 16][4],
                                                  uint32_t v)
{
#pragma unroll
    for (uint32_t j = 0; j < KEYS / 16; j++)
        weir_product_turned<DIM>::run(out, weights[j], v + j * (16 * WEIR_TILE_ROW_BYTES / 16));
    weir_products_commit();
}

/* How many tiles of keys the 64 queries from `first` on look at. */
static __device__ __forceinline__ uint32_t rounds_of(const struct weir_attention &s, uint32_t first, uint32_t rounds)
{
    if (first >= s.query_length) return 0;
    const uint32_t seen = (first + QUERIES + KEYS - 1) / KEYS;
    return s.causal && seen < rounds ? seen : rounds;
}

/* The scores of a tile are made while the sums of the one before are, and both while others weigh. */
template <int DIM, bool PLAIN>
static __device__ __forceinline__ void multiply_all(const struct weir_attention &s, const struct shared_parts &r,
                                                    uint32_t passes, bf16 *y)
{
    using S = sizes<DIM>;
    const uint32_t group = threadIdx.x / 128, lane = threadIdx.x % 32,
                   in_group = threadIdx.x % 128 / 32 * 16 + lane / 4;
    const bool speaks = lane == 0;
    const uint32_t queries = weir_tile_descriptor(r.queries + group * QUERIES * WEIR_TILE_ROW_BYTES);
    const uint32_t keys = weir_tile_descriptor(r.keys), values = weir_turned_descriptor(r.values, PANEL_BYTES);
    struct weir_ring ring = {}, pass = {};
    for (uint32_t number = blockIdx.x; number < passes; number += gridDim.x) {
        const uint32_t q_at = pass.slot * WEIR_BARRIER_BYTES, q = queries + pass.slot * (S::query_bytes / 16);
        weir_barrier_wait(r.q_full + q_at, pass.parity);
        const struct pass *p = r.passes + pass.slot; /* read anew where it is used: registers are few */
        const uint32_t first = p->first + group * QUERIES, rounds = rounds_of(s, first, p->rounds);
        float out[DIM / 2], scores[KEYS / 2];
        uint32_t weights[KEYS / 16][4], freed = 0;
        struct weights_so_far w = { { -INFINITY, -INFINITY }, { 0, 0 } };
        struct corner corner = { 0, p->keys, first + in_group };
#pragma unroll
        for (int i = 0; i < DIM / 2; i++) out[i] = 0;
        if (rounds > 0) {
            weir_barrier_wait(r.k_full + ring.slot * WEIR_BARRIER_BYTES, ring.parity);
            begin_scores<DIM>(scores, q, keys + ring.slot * (S::tile_bytes / 16));
            weir_products_wait<0>();
            for (uint32_t round = 1; round < rounds; round++) {
                const uint32_t at = ring.slot * WEIR_BARRIER_BYTES, v = values + ring.slot * (S::tile_bytes / 16);
                weigh<DIM, PLAIN, false>(s, scores, out, &w, corner, freed);
                pack(weights, scores);
                corner.j0 += KEYS;
                freed = r.empty + at;
                weir_barrier_wait(r.v_full + at, ring.parity);
                weir_ring_next<S::slots>(&ring);
                weir_barrier_wait(r.k_full + ring.slot * WEIR_BARRIER_BYTES, ring.parity);
                begin_scores<DIM>(scores, q, keys + ring.slot * (S::tile_bytes / 16));
                add_values<DIM>(out, weights, v);
                if (PLAIN)
                    weir_products_wait<1>();
                else
                    weir_products_wait<0>(); /* there are branches before the sums are used */
            }
            const uint32_t at = ring.slot * WEIR_BARRIER_BYTES;
            weigh<DIM, PLAIN, true>(s, scores, out, &w, corner, freed);
            pack(weights, scores);
            weir_barrier_wait(r.v_full + at, ring.parity);
            products_see_copies();
            weir_products_begin();
            add_values<DIM>(out, weights, values + ring.slot * (S::tile_bytes / 16));
            weir_products_wait<0>();
            if (speaks) weir_barrier_arrive(r.empty + at);
            weir_ring_next<S::slots>(&ring);
        }
        for (uint32_t round = rounds; round < p->rounds; round++) { /* of others alone */
            const uint32_t at = ring.slot * WEIR_BARRIER_BYTES;
            weir_barrier_wait(r.v_full + at, ring.parity);
            if (speaks) weir_barrier_arrive(r.empty + at);
            weir_ring_next<S::slots>(&ring);
        }
        finish<DIM>(s, *p, out, w, first + in_group, y);
        __syncwarp();                          /* together again: else registers do not suffice */
        weir_barrier_arrive(r.q_empty + q_at); /* each thread, since each has read what the pass is */
        weir_ring_next<PASSES>(&pass);
    }
}
#endif

template <int DIM, bool PLAIN>
__global__ void __launch_bounds__(TEAM, 1)
    attend_tiles(struct weir_attention s, uint32_t of_head, uint32_t passes, const bf16 *q, const bf16 *k,
                 const bf16 *v, const int32_t *lengths, bf16 *y)
{
#ifdef HAS_TILES
    using S = sizes<DIM>;
    extern __shared__ unsigned char memory[];
    __shared__ __align__(8) uint64_t barriers[2 * PASSES + 3 * S::slots];
    __shared__ struct pass kept[PASSES];
    struct shared_parts r;
    r.queries = (weir_shared_address(memory) + 1023) & ~1023u;
    r.keys = r.queries + PASSES * S::query_bytes;
    r.values = r.keys + S::slots * S::tile_bytes;
    r.q_full = weir_shared_address(barriers);
    r.q_empty = r.q_full + PASSES * WEIR_BARRIER_BYTES;
    r.k_full = r.q_empty + PASSES * WEIR_BARRIER_BYTES;
    r.v_full = r.k_full + S::slots * WEIR_BARRIER_BYTES;
    r.empty = r.v_full + S::slots * WEIR_BARRIER_BYTES;
    r.passes = kept;
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < PASSES; i++) {
            weir_barrier_init(r.q_full + i * WEIR_BARRIER_BYTES, 128 + 1);
            weir_barrier_init(r.q_empty + i * WEIR_BARRIER_BYTES, 128 * GROUPS);
        }
        for (uint32_t i = 0; i < S::slots; i++) {
            weir_barrier_init(r.k_full + i * WEIR_BARRIER_BYTES, 128);
            weir_barrier_init(r.v_full + i * WEIR_BARRIER_BYTES, 128);
            weir_barrier_init(r.empty + i * WEIR_BARRIER_BYTES, 4 * GROUPS);
        }
    }
    __syncthreads();
    if (threadIdx.x / 128 == GROUPS) {
        weir_registers_fewer<56>();
        bring_all<DIM>(s, r, of_head, passes, q, k, v, lengths);
    } else {
        weir_registers_more<152>();
        multiply_all<DIM, PLAIN>(s, r, passes, y);
    }
#endif
}

template <int DIM, bool PLAIN>
static enum weir_status launch_as(const struct weir_attention *s, uint32_t multiprocessors, cudaStream_t stream,
                                  const struct weir_attention_memory *m)
{
    const uint32_t of_head = (s->query_length + GROUPS * QUERIES - 1) / (GROUPS * QUERIES);
    const uint64_t passes = (uint64_t)s->rows * s->sequences * s->heads * of_head;
    const uint32_t blocks = passes < multiprocessors ? (uint32_t)passes : multiprocessors;
    if (passes > 0x7fffffffu) return WEIR_DEVICE;
    if (cudaFuncSetAttribute(attend_tiles<DIM, PLAIN>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             sizes<DIM>::bytes) != cudaSuccess)
        return WEIR_DEVICE;
    attend_tiles<DIM, PLAIN><<<blocks, TEAM, sizes<DIM>::bytes, stream>>>(
        *s, of_head, (uint32_t)passes, (const bf16 *)m->q, (const bf16 *)m->k, (const bf16 *)m->v,
        s->lengths ? m->lengths : NULL, (bf16 *)m->y);
    return weir_launched();
}

template <int DIM>
static enum weir_status launch(const struct weir_attention *s, uint32_t multiprocessors, cudaStream_t stream,
                               const struct weir_attention_memory *m)
{
    const bool plain = s->softcap == 0.0f && s->scale > 0.0f && !s->causal;
    return plain ? launch_as<DIM, true>(s, multiprocessors, stream, m)
                 : launch_as<DIM, false>(s, multiprocessors, stream, m);
}

#define GENERATION 90
#define DIM_MIN 33  /* of fewer channels half of a panel would be zeros */
#define DIM_MAX 112 /* of more, registers do not hold scores and sums */
#define KEYS_MIN 33

bool weir_attention_tiles_take(const struct weir_cuda *cuda, const struct weir_attention *s)
{
    return cuda->generation == GENERATION && weir_attention_bf16_takes(s) && s->head_dim >= DIM_MIN &&
           s->head_dim <= DIM_MAX && s->query_length > QUERIES && s->key_length >= KEYS_MIN && s->y_stride % 8 == 0;
}

enum weir_status weir_attention_tiles_run(const struct weir_cuda *cuda, const struct weir_attention *s,
                                          cudaStream_t stream, const struct weir_attention_memory *m)
{
    const uint32_t multiprocessors = (uint32_t)cuda->multiprocessors;
    if (s->head_dim <= 64) return launch<64>(s, multiprocessors, stream, m);
    return launch<112>(s, multiprocessors, stream, m);
}
