/* Softmax attention in bf16 on the tensor cores. A warp has MT times 16 queries of one head and goes through the
 * keys tile by tile, with the maximum and the sum of each query's weights so far; the warps of a block share the
 * tiles, which are brought asynchronously, the next while the last is used. Scores and sums are f32; weights are
 * rounded to bf16 for the product with the values, their sum is not. Keys beyond the end are zeros in shared memory,
 * whatever lies there. Wide heads give their output in slices of VALUES channels, a block each, which makes the
 * scores anew.
 *
 * Fragments as PTX has them for mma.m16n8k16: lane = 4 g + t has rows g and g + 8, columns 2 t and 2 t + 1 (and +
 * 8). */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

#define KEYS 64 /* of a tile, with short sequences SHORT_KEYS or SHORTEST_KEYS */
#define SHORT_KEYS 32
#define SHORTEST_KEYS 16
#define VALUES_MAX 128
#define PAD 8 /* numbers behind a row in shared memory: rows begin in other banks */
#define LOG2_E 1.4426950408889634f

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void copy_16(bf16 *to, const bf16 *from, bool real)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(weir_shared_address(to)), "l"(from),
                 "r"(real ? 16 : 0));
}

/* `tokens` rows of DIM channels from token `first` on, of which `channels` (a multiple of 8) are real, the others
 * zeros; so are rows from `end` on. A row is brought by a power of two of neighbouring threads, so that little is
 * computed. */
template <int DIM, int THREADS_HERE>
static __device__ __forceinline__ void bring(bf16 *to, const bf16 *from, uint64_t step, uint32_t first, uint32_t tokens,
                                             uint32_t end, uint32_t channels)
{
    constexpr uint32_t lanes = DIM <= 32 ? 4 : DIM <= 64 ? 8 : DIM <= 128 ? 16 : DIM <= 256 ? 32 : 64;
    constexpr uint32_t together = lanes < THREADS_HERE ? THREADS_HERE / lanes : 1; /* rows at a time */
    constexpr uint32_t across = lanes < THREADS_HERE ? 1 : lanes / THREADS_HERE;
#pragma unroll
    for (uint32_t part = 0; part < across; part++) {
        const uint32_t c = (threadIdx.x % lanes + part * THREADS_HERE) * 8, row = threadIdx.x / lanes;
        const bf16 *at = from + (uint64_t)(first + row) * step + c;
        bf16 *into = to + row * (DIM + PAD) + c;
        if (c >= DIM) continue;
#pragma unroll 4
        for (uint32_t i = row; i < tokens; i += together) {
            const bool real = first + i < end && c < channels;
            copy_16(into, real ? at : from, real);
            at += together * step;
            into += together * (DIM + PAD);
        }
    }
}

template <int DIM, int VALUES, int TILE, int WARPS, int MT, int STAGES> struct shape_of {
    static constexpr int queries = WARPS * MT * 16;
    static constexpr int k_values = TILE * (DIM + PAD), v_values = TILE * (VALUES + PAD);
    static constexpr bool keep_queries = DIM <= 128; /* in registers; they pass through the second tile of keys */
    static constexpr bool pass_through = keep_queries && STAGES > 1 && queries <= TILE;
    static constexpr int q_values = pass_through ? 0 : queries * (DIM + PAD);
    static constexpr int blocks = WARPS == 4 && DIM > 64 && DIM <= 128 ? 3 : 1; /* that a multiprocessor should hold */
    static constexpr size_t bytes = sizeof(bf16) * (q_values + STAGES * (k_values + v_values));
};

template <int DIM, int VALUES, int TILE, int WARPS, int MT, int STAGES>
__global__ void __launch_bounds__(32 * WARPS, shape_of<DIM, VALUES, TILE, WARPS, MT, STAGES>::blocks)
    attend(struct weir_attention s, uint32_t tiles, uint32_t slices, const bf16 *q, const bf16 *k, const bf16 *v,
           const int32_t *lengths, bf16 *y)
{
    typedef shape_of<DIM, VALUES, TILE, WARPS, MT, STAGES> shape;
    constexpr int threads = 32 * WARPS, parts = DIM / 16, columns = TILE / 8;
    constexpr bool keep_queries = shape::keep_queries;
    extern __shared__ __align__(16) unsigned char memory[];
    bf16 *ks = reinterpret_cast<bf16 *>(memory) + shape::q_values, *vs = ks + STAGES * shape::k_values;
    bf16 *qs = shape::pass_through ? ks + shape::k_values : reinterpret_cast<bf16 *>(memory);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    uint64_t block = blockIdx.x;
    const uint32_t slice = (uint32_t)(block % slices) * VALUES;
    block /= slices;
    const uint32_t first = (uint32_t)(block % tiles) * shape::queries;
    block /= tiles;
    const uint32_t h = (uint32_t)(block % s.heads), kv = h / (s.heads / s.kv_heads);
    block /= s.heads;
    const uint32_t sequence = (uint32_t)(block % s.sequences), row = (uint32_t)(block / s.sequences);
    const uint64_t q_token = weir_first_token(s.query, row, sequence), k_token = weir_first_token(s.key, row, sequence);
    const bf16 *q_from = q + q_token * s.q_stride + s.q_channel + (uint64_t)h * s.head_dim;
    const bf16 *k_from = k + k_token * s.k_stride + s.k_channel + (uint64_t)kv * s.head_dim;
    const bf16 *v_from = v + k_token * s.v_stride + s.v_channel + (uint64_t)kv * s.head_dim + slice;
    const uint64_t q_step = (uint64_t)s.query.token_step * s.q_stride, k_step = (uint64_t)s.key.token_step * s.k_stride;
    const uint64_t v_step = (uint64_t)s.key.token_step * s.v_stride;
    const uint32_t v_channels = s.head_dim - slice; /* at least 1 */
    uint32_t keys = s.key_length;
    if (lengths && (uint32_t)lengths[row] < keys) keys = (uint32_t)lengths[row];
    if (s.causal && first + shape::queries < keys) keys = first + shape::queries; /* that any query here may see */
    const uint32_t rounds = (keys + TILE - 1) / TILE;

    bring<DIM, threads>(qs, q_from, q_step, first, shape::queries, s.query_length, s.head_dim);
    bring<DIM, threads>(ks, k_from, k_step, 0, TILE, keys, s.head_dim);
    bring<VALUES, threads>(vs, v_from, v_step, 0, TILE, keys, v_channels);
    asm volatile("cp.async.commit_group;\n");

    const bf16 *own = qs + warp * MT * 16 * (DIM + PAD) + (lane % 16) * (DIM + PAD) + lane / 16 * 8;
    uint32_t kept[keep_queries ? MT : 1][keep_queries ? parts : 1][4];
    float out[MT][VALUES / 8][4], largest[MT][2], total[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[m][half] = -INFINITY;
            total[m][half] = 0;
        }
#pragma unroll
        for (int n = 0; n < VALUES / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[m][n][i] = 0;
        }
    }
    /* Weights are 2 to factor * (score - largest): with a cap, scores are made what they mean first. */
    const bool plain = s.softcap == 0.0f && s.scale > 0.0f;
    const float factor = plain ? s.scale * LOG2_E : LOG2_E;
    for (uint32_t round = 0; round < rounds; round++) {
        const uint32_t j0 = round * TILE, stage = STAGES > 1 ? round % STAGES : 0;
        const bf16 *k_tile = ks + stage * shape::k_values, *v_tile = vs + stage * shape::v_values;
        if (keep_queries && round == 0) {
            asm volatile("cp.async.wait_group 0;\n");
            __syncthreads();
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int c = 0; c < (keep_queries ? parts : 1); c++)
                    weir_load_4(kept[m][c], own + m * 16 * (DIM + PAD) + c * 16);
            }
            if (shape::pass_through) __syncthreads();
        }
        if (STAGES > 1 && round + 1 < rounds) {
            const uint32_t next = (round + 1) % STAGES;
            bring<DIM, threads>(ks + next * shape::k_values, k_from, k_step, j0 + TILE, TILE, keys, s.head_dim);
            bring<VALUES, threads>(vs + next * shape::v_values, v_from, v_step, j0 + TILE, TILE, keys, v_channels);
            asm volatile("cp.async.commit_group;\n");
            asm volatile("cp.async.wait_group 1;\n");
        } else {
            asm volatile("cp.async.wait_group 0;\n");
        }
        __syncthreads();
        float scores[MT][columns][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int n = 0; n < columns; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) scores[m][n][i] = 0;
            }
        }
        const bf16 *of_keys = k_tile + (lane / 16 * 8 + lane % 8) * (DIM + PAD) + lane / 8 % 2 * 8;
#pragma unroll
        for (int c = 0; c < parts; c++) {
            uint32_t a[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                if (keep_queries) {
#pragma unroll
                    for (int i = 0; i < 4; i++) a[m][i] = kept[m][keep_queries ? c : 0][i];
                } else {
                    weir_load_4(a[m], own + m * 16 * (DIM + PAD) + c * 16);
                }
            }
#pragma unroll
            for (int n = 0; n < columns; n += 2) {
                uint32_t b[4];
                weir_load_4(b, of_keys + n * 8 * (DIM + PAD) + c * 16);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    weir_multiply(scores[m][n], a[m], b[0], b[1]);
                    weir_multiply(scores[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < MT; m++) {
            const uint32_t query = first + (warp * MT + m) * 16 + g; /* and + 8 */
            float most[2] = { largest[m][0], largest[m][1] };
            if (!plain) {
#pragma unroll
                for (int n = 0; n < columns; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        scores[m][n][i] *= s.scale;
                        if (s.softcap != 0.0f)
                            scores[m][n][i] = s.softcap * weir_tanh_fast(__fdividef(scores[m][n][i], s.softcap));
                    }
                }
            }
            if (j0 + TILE > keys || s.causal) {
#pragma unroll
                for (int n = 0; n < columns; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const uint32_t key = j0 + n * 8 + t * 2 + i % 2;
                        if (key >= keys || (s.causal && key > query + i / 2 * 8)) scores[m][n][i] = -INFINITY;
                    }
                }
            }
#pragma unroll
            for (int n = 0; n < columns; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) most[i / 2] = fmaxf(most[i / 2], scores[m][n][i]);
            }
            float base[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                most[half] = weir_most_of_row(most[half]);
                /* The first key is seen by all, so that this is a number after the first tile. */
                const float shrink = weir_power_of_2(factor * (largest[m][half] - most[half]));
                largest[m][half] = most[half];
                base[half] = -factor * most[half];
                total[m][half] *= shrink;
#pragma unroll
                for (int n = 0; n < VALUES / 8; n++) {
                    out[m][n][2 * half] *= shrink;
                    out[m][n][2 * half + 1] *= shrink;
                }
            }
            float sum[2] = { 0, 0 };
#pragma unroll
            for (int n = 0; n < columns; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    scores[m][n][i] = weir_power_of_2(fmaf(scores[m][n][i], factor, base[i / 2]));
                    sum[i / 2] += scores[m][n][i];
                }
            }
            total[m][0] += sum[0]; /* of this lane's keys: the lanes of a row are added at the end */
            total[m][1] += sum[1];
        }
        const bf16 *of_values = v_tile + (lane % 16) * (VALUES + PAD) + lane / 16 * 8;
#pragma unroll
        for (int j = 0; j < TILE / 16; j++) {
            uint32_t a[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                a[m][0] = weir_pair(scores[m][2 * j][0], scores[m][2 * j][1]);
                a[m][1] = weir_pair(scores[m][2 * j][2], scores[m][2 * j][3]);
                a[m][2] = weir_pair(scores[m][2 * j + 1][0], scores[m][2 * j + 1][1]);
                a[m][3] = weir_pair(scores[m][2 * j + 1][2], scores[m][2 * j + 1][3]);
            }
#pragma unroll
            for (int n = 0; n < VALUES / 8; n += 2) {
                uint32_t b[4];
                weir_load_4_turned(b, of_values + j * 16 * (VALUES + PAD) + n * 8);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    weir_multiply(out[m][n], a[m], b[0], b[1]);
                    weir_multiply(out[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
        __syncthreads();
        if (STAGES == 1 && round + 1 < rounds) {
            bring<DIM, threads>(ks, k_from, k_step, j0 + TILE, TILE, keys, s.head_dim);
            bring<VALUES, threads>(vs, v_from, v_step, j0 + TILE, TILE, keys, v_channels);
            asm volatile("cp.async.commit_group;\n");
        }
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t query = first + (warp * MT + m) * 16 + g + half * 8;
            const float inverse =
                1.0f / weir_sum_of_row(total[m][half]); /* the largest weight is 1: so is the sum at least */
            if (query >= s.query_length) continue;
            bf16 *to =
                y + (q_token + (uint64_t)query * s.query.token_step) * s.y_stride + (uint64_t)h * s.head_dim + slice;
#pragma unroll
            for (int n = 0; n < VALUES / 8; n++) {
                const uint32_t c = n * 8 + t * 2;
                if (c < v_channels) {
                    *reinterpret_cast<uint32_t *>(to + c) =
                        weir_pair(out[m][n][2 * half] * inverse, out[m][n][2 * half + 1] * inverse);
                }
            }
        }
    }
}

template <int DIM, int VALUES, int TILE, int WARPS, int MT, int STAGES>
static enum weir_status launch(const struct weir_attention *s, cudaStream_t stream,
                               const struct weir_attention_memory *m)
{
    typedef shape_of<DIM, VALUES, TILE, WARPS, MT, STAGES> shape;
    const uint32_t tiles = (s->query_length + shape::queries - 1) / shape::queries;
    const uint32_t slices = (s->head_dim + VALUES - 1) / VALUES;
    const uint64_t blocks = (uint64_t)s->rows * s->sequences * s->heads * tiles * slices;
    auto kernel = attend<DIM, VALUES, TILE, WARPS, MT, STAGES>;
    if (blocks > 0x7fffffffu) return WEIR_DEVICE;
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shape::bytes) != cudaSuccess)
        return WEIR_DEVICE;
    kernel<<<(unsigned)blocks, 32 * WARPS, shape::bytes, stream>>>(*s, tiles, slices, (const bf16 *)m->q,
                                                                   (const bf16 *)m->k, (const bf16 *)m->v,
                                                                   s->lengths ? m->lengths : NULL, (bf16 *)m->y);
    return weir_launched();
}

/* Everything is read 16 bytes at a time. */
bool weir_attention_bf16_takes(const struct weir_attention *s)
{
    return s->dtype == WEIR_BF16 && s->head_dim <= 512 && s->head_dim % 8 == 0 && s->q_stride % 8 == 0 &&
           s->k_stride % 8 == 0 && s->v_stride % 8 == 0 && s->q_channel % 8 == 0 && s->k_channel % 8 == 0 &&
           s->v_channel % 8 == 0 && s->y_stride % 2 == 0;
}

enum weir_status weir_attention_bf16_run(const struct weir_attention *s, cudaStream_t stream,
                                         const struct weir_attention_memory *m)
{
    /* A warp a sequence. */
    if (s->query_length <= 16 && s->key_length <= SHORTEST_KEYS) {
        if (s->head_dim <= 32) return launch<32, 32, SHORTEST_KEYS, 1, 1, 1>(s, stream, m);
        if (s->head_dim <= 64) return launch<64, 64, SHORTEST_KEYS, 1, 1, 1>(s, stream, m);
        if (s->head_dim <= 128) return launch<128, 128, SHORTEST_KEYS, 1, 1, 1>(s, stream, m);
    }
    if (s->query_length <= 32 && s->key_length <= SHORT_KEYS) {
        if (s->head_dim <= 32) return launch<32, 32, SHORT_KEYS, 1, 2, 1>(s, stream, m);
        if (s->head_dim <= 64) return launch<64, 64, SHORT_KEYS, 1, 2, 1>(s, stream, m);
        if (s->head_dim <= 128) return launch<128, 128, SHORT_KEYS, 1, 2, 1>(s, stream, m);
    }
    if (s->head_dim <= 32) return launch<32, 32, KEYS, 4, 1, 2>(s, stream, m);
    if (s->head_dim <= 64) return launch<64, 64, KEYS, 4, 1, 2>(s, stream, m);
    if (s->head_dim <= 112) return launch<112, 112, KEYS, 4, 1, 2>(s, stream, m);
    if (s->head_dim <= 128) return launch<128, 128, KEYS, 4, 1, 2>(s, stream, m);
    if (s->head_dim <= 256) return launch<256, VALUES_MAX, 32, 2, 1, 2>(s, stream, m);
    return launch<512, VALUES_MAX, 32, 4, 1, 2>(s, stream, m);
}
