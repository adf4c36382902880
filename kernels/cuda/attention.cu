/* Softmax attention of any layout, summed in f32: a block has a tile of queries of one head and goes through the
 * keys tile by tile, with the maximum and the sum of each query's weights so far (Milakov and Gimelshein,
 * arXiv:1805.02867). Scores are made from chunks of the head's channels, values are brought a few keys at a time, so
 * that any head fits. What the tensor cores take is in attention_bf16.cu and attention_tiles.cu. */
#include "kernels/cuda/attention.cuh"

#define CHANNELS 32 /* of q and k in shared memory at a time */
#define VALUES 16   /* keys whose v is in shared memory at a time */
#define HEAD_DIM_MAX 512

static __device__ __forceinline__ float row_max(float value)
{
    for (int step = 8; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step, 16));
    return value;
}

static __device__ __forceinline__ float row_sum(float value)
{
    for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step, 16);
    return value;
}

/* 16 x 16 threads: queries ty * Q .., keys tx, tx + 16, ... (K of them), channels tx, tx + 16, ... (D of them). */
template <int Q, int K, int D, typename T>
__global__ void __launch_bounds__(256)
    attend(struct weir_attention s, uint32_t tiles, const T *q, const T *k, const T *v, const int32_t *lengths, T *y)
{
    __shared__ float qs[16 * Q][CHANNELS + 1], ks[16 * K][CHANNELS + 1], weights[16 * Q][16 * K + 1];
    __shared__ float vs[VALUES][16 * D];
    const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    uint64_t block = blockIdx.x;
    const uint32_t first = (uint32_t)(block % tiles) * (16 * Q);
    block /= tiles;
    const uint32_t h = (uint32_t)(block % s.heads), kv = h / (s.heads / s.kv_heads);
    block /= s.heads;
    const uint32_t sequence = (uint32_t)(block % s.sequences), row = (uint32_t)(block / s.sequences);
    const uint64_t q_token = weir_first_token(s.query, row, sequence), k_token = weir_first_token(s.key, row, sequence);
    const T *q_from = q + q_token * s.q_stride + s.q_channel + (uint64_t)h * s.head_dim;
    const T *k_from = k + k_token * s.k_stride + s.k_channel + (uint64_t)kv * s.head_dim;
    const T *v_from = v + k_token * s.v_stride + s.v_channel + (uint64_t)kv * s.head_dim;
    uint32_t keys = s.key_length;
    if (lengths && (uint32_t)lengths[row] < keys) keys = (uint32_t)lengths[row];
    uint32_t keys_here = keys; /* that any query of the tile may see */
    if (s.causal && first + 16 * Q < keys_here) keys_here = first + 16 * Q;

    float out[Q][D], largest[Q], total[Q];
    for (int i = 0; i < Q; i++) {
        largest[i] = -INFINITY;
        total[i] = 0;
        for (int d = 0; d < D; d++) out[i][d] = 0;
    }
    for (uint32_t j0 = 0; j0 < keys_here; j0 += 16 * K) {
        float scores[Q][K];
        for (int i = 0; i < Q; i++) {
            for (int j = 0; j < K; j++) scores[i][j] = 0;
        }
        for (uint32_t c0 = 0; c0 < s.head_dim; c0 += CHANNELS) {
            for (uint32_t n = threadIdx.x; n < 16 * Q * CHANNELS; n += 256) {
                const uint32_t i = n / CHANNELS, c = c0 + n % CHANNELS;
                const bool inside = first + i < s.query_length && c < s.head_dim;
                qs[i][n % CHANNELS] =
                    inside ? weir_read(q_from + (uint64_t)(first + i) * s.query.token_step * s.q_stride + c) : 0.0f;
            }
            for (uint32_t n = threadIdx.x; n < 16 * K * CHANNELS; n += 256) {
                const uint32_t j = n / CHANNELS, c = c0 + n % CHANNELS;
                const bool inside = j0 + j < keys_here && c < s.head_dim;
                ks[j][n % CHANNELS] =
                    inside ? weir_read(k_from + (uint64_t)(j0 + j) * s.key.token_step * s.k_stride + c) : 0.0f;
            }
            __syncthreads();
#pragma unroll 8
            for (int c = 0; c < CHANNELS; c++) {
                float a[Q], b[K];
                for (int i = 0; i < Q; i++) a[i] = qs[ty * Q + i][c];
                for (int j = 0; j < K; j++) b[j] = ks[tx + 16 * j][c];
                for (int i = 0; i < Q; i++) {
                    for (int j = 0; j < K; j++) scores[i][j] = fmaf(a[i], b[j], scores[i][j]);
                }
            }
            __syncthreads();
        }
        for (int i = 0; i < Q; i++) {
            const uint32_t query = first + ty * Q + i;
            float most = largest[i], sum = 0;
            for (int j = 0; j < K; j++) {
                const uint32_t key = j0 + tx + 16 * j;
                float score = s.scale * scores[i][j];
                if (s.softcap != 0.0f) score = s.softcap * tanhf(score / s.softcap);
                if (key >= keys_here || (s.causal && key > query)) score = -INFINITY;
                scores[i][j] = score;
                most = fmaxf(most, score);
            }
            most = row_max(most);
            const float shrink = expf(largest[i] - most);
            for (int j = 0; j < K; j++) {
                const float weight = expf(scores[i][j] - most);
                weights[ty * Q + i][tx + 16 * j] = weight;
                sum += weight;
            }
            total[i] = total[i] * shrink + row_sum(sum);
            largest[i] = most;
            for (int d = 0; d < D; d++) out[i][d] *= shrink;
        }
        for (uint32_t b = 0; b < 16 * K && j0 + b < keys_here; b += VALUES) {
            for (uint32_t n = threadIdx.x; n < VALUES * 16 * D; n += 256) {
                const uint32_t j = n / (16 * D), c = n % (16 * D);
                const bool inside = j0 + b + j < keys_here && c < s.head_dim;
                vs[j][c] =
                    inside ? weir_read(v_from + (uint64_t)(j0 + b + j) * s.key.token_step * s.v_stride + c) : 0.0f;
            }
            __syncthreads();
#pragma unroll 4
            for (int j = 0; j < VALUES; j++) {
                float a[Q];
                for (int i = 0; i < Q; i++) a[i] = weights[ty * Q + i][b + j];
                for (int d = 0; d < D; d++) {
                    const float value = vs[j][tx + 16 * d];
                    for (int i = 0; i < Q; i++) out[i][d] = fmaf(a[i], value, out[i][d]);
                }
            }
            __syncthreads();
        }
    }
    for (int i = 0; i < Q; i++) {
        const uint32_t query = first + ty * Q + i;
        if (query >= s.query_length) continue;
        T *to = y + (q_token + (uint64_t)query * s.query.token_step) * s.y_stride + (uint64_t)h * s.head_dim;
        for (int d = 0; d < D; d++) {
            const uint32_t c = tx + 16 * d;
            if (c < s.head_dim) weir_write(to + c, out[i][d] / total[i]);
        }
    }
}

template <int Q, int K, int D, typename T>
static enum weir_status launch(const struct weir_attention *s, cudaStream_t stream,
                               const struct weir_attention_memory *t)
{
    const uint32_t tiles = (s->query_length + 16 * Q - 1) / (16 * Q);
    const uint64_t blocks = (uint64_t)s->rows * s->sequences * s->heads * tiles;
    if (blocks > 0x7fffffffu) return WEIR_DEVICE;
    attend<Q, K, D, T><<<(unsigned)blocks, 256, 0, stream>>>(
        *s, tiles, (const T *)t->q, (const T *)t->k, (const T *)t->v, s->lengths ? t->lengths : NULL, (T *)t->y);
    return weir_launched();
}

/* Short sequences have small tiles; so do wide heads, whose sums fill the registers. */
template <int Q, int K, typename T>
static enum weir_status launch_narrow(const struct weir_attention *s, cudaStream_t stream,
                                      const struct weir_attention_memory *t)
{
    if (s->head_dim <= 16) return launch<Q, K, 1, T>(s, stream, t);
    if (s->head_dim <= 32) return launch<Q, K, 2, T>(s, stream, t);
    if (s->head_dim <= 64) return launch<Q, K, 4, T>(s, stream, t);
    return launch<Q, K, 8, T>(s, stream, t);
}

template <typename T>
static enum weir_status launch_any(const struct weir_attention *s, cudaStream_t stream,
                                   const struct weir_attention_memory *t)
{
    if (s->head_dim > 256) return launch<2, 2, 32, T>(s, stream, t);
    if (s->head_dim > 128) return launch<4, 2, 16, T>(s, stream, t);
    if (s->query_length <= 16 && s->key_length <= 16) return launch_narrow<1, 1, T>(s, stream, t);
    return launch_narrow<4, 4, T>(s, stream, t);
}

enum weir_status weir_cuda_prepare_attention(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                             struct weir_error *error)
{
    (void)cuda;
    if (plan->shape.attention.head_dim <= HEAD_DIM_MAX) return WEIR_OK;
    return weir_fail(error, WEIR_UNSUPPORTED, "device cuda: attention takes heads of up to %d channels, not %u",
                     HEAD_DIM_MAX, plan->shape.attention.head_dim);
}

enum weir_status weir_cuda_run_attention(const struct weir_cuda_run *run)
{
    const struct weir_attention *s = &run->plan->shape.attention;
    const struct weir_attention_memory t = { run->operands[WEIR_ATTENTION_Q], run->operands[WEIR_ATTENTION_K],
                                             run->operands[WEIR_ATTENTION_V],
                                             (const int32_t *)run->operands[WEIR_ATTENTION_LENGTHS],
                                             run->operands[WEIR_ATTENTION_Y] };
    const struct weir_cuda *cuda = (const struct weir_cuda *)run->plan->head.device;
    if (weir_attention_tiles_take(cuda, s)) return weir_attention_tiles_run(cuda, s, run->stream->stream, &t);
    if (weir_attention_bf16_takes(s)) return weir_attention_bf16_run(s, run->stream->stream, &t);
    return s->dtype == WEIR_F32 ? launch_any<float>(s, run->stream->stream, &t)
                                : launch_any<bf16>(s, run->stream->stream, &t);
}
