/* Ops of which every value is made by itself: activate, concat, table_add, regroup, embed, and what follows a
 * product. */
#include "kernels/cuda/kernel.cuh"

template <typename T> __global__ void activate(enum weir_activation activation, uint64_t count, const T *x, T *y)
{
    WEIR_EACH(i, count) weir_write(y + i, weir_act(activation, weir_read(x + i)));
}

/* Of two halves: the value, and behind it the gate. */
template <typename T> __global__ void activate_gated(struct weir_activate s, uint64_t count, const T *x, T *y)
{
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, s.channels);
        const T *from = x + at.quotient * 2 * s.channels + at.rest;
        weir_write(y + i, weir_read(from) * weir_act(s.activation, weir_read(from + s.channels)));
    }
}

template <enum weir_activation A> __global__ void activate_8(uint64_t count, const bf16 *x, bf16 *y)
{
    WEIR_EACH(i, count)
    {
        float values[8];
        weir_read_8(x + i * 8, values);
#pragma unroll
        for (int n = 0; n < 8; n++) values[n] = weir_act_fast<A>(values[n]);
        weir_write_8(y + i * 8, values);
    }
}

enum weir_status weir_cuda_run_activate(const struct weir_cuda_run *run)
{
    const struct weir_activate *s = &run->plan->shape.activate;
    const uint64_t count = (uint64_t)s->rows * s->tokens * s->channels;
    if (weir_activation_is_gated(s->activation)) {
        WEIR_BY_TYPE(s->dtype, T,
                     (activate_gated<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                         *s, count, (const T *)run->operands[WEIR_ACTIVATE_X], (T *)run->operands[WEIR_ACTIVATE_Y])));
        return weir_launched();
    }
    if (s->dtype == WEIR_BF16 && s->channels % WEIR_EIGHT == 0) {
        WEIR_BY_PLAIN_ACTIVATION(
            s->activation, A,
            (activate_8<A><<<weir_blocks(count / 8, THREADS), THREADS, 0, run->stream->stream>>>(
                count / 8, (const bf16 *)run->operands[WEIR_ACTIVATE_X], (bf16 *)run->operands[WEIR_ACTIVATE_Y])));
        return weir_launched();
    }
    WEIR_BY_TYPE(
        s->dtype, T,
        (activate<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
            s->activation, count, (const T *)run->operands[WEIR_ACTIVATE_X], (T *)run->operands[WEIR_ACTIVATE_Y])));
    return weir_launched();
}

template <typename T> __global__ void concat(struct weir_concat s, uint64_t count, const T *a, const T *b, T *y)
{
    const uint32_t channels = s.a_channels + s.b_channels;
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, channels);
        const uint64_t token = at.quotient;
        const uint32_t c = at.rest;
        y[i] = c < s.a_channels ? a[token * s.a_channels + c] : b[token * s.b_channels + (c - s.a_channels)];
    }
}

enum weir_status weir_cuda_run_concat(const struct weir_cuda_run *run)
{
    const struct weir_concat *s = &run->plan->shape.concat;
    const uint64_t count = (uint64_t)s->rows * s->tokens * (s->a_channels + s->b_channels);
    if (s->dtype == WEIR_BF16 && s->a_channels % WEIR_EIGHT == 0 && s->b_channels % WEIR_EIGHT == 0) { /* only moved */
        struct weir_concat eights = *s;
        eights.a_channels /= 8;
        eights.b_channels /= 8;
        concat<uint4><<<weir_blocks(count / 8, THREADS), THREADS, 0, run->stream->stream>>>(
            eights, count / 8, (const uint4 *)run->operands[WEIR_CONCAT_A], (const uint4 *)run->operands[WEIR_CONCAT_B],
            (uint4 *)run->operands[WEIR_CONCAT_Y]);
        return weir_launched();
    }
    WEIR_BY_TYPE(s->dtype, T,
                 (concat<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_CONCAT_A], (const T *)run->operands[WEIR_CONCAT_B],
                     (T *)run->operands[WEIR_CONCAT_Y])));
    return weir_launched();
}

template <typename T>
__global__ void table_add(struct weir_table_add s, uint64_t count, const float *table, const T *x, T *y)
{
    const uint64_t row = (uint64_t)s.vectors * s.channels, given = (uint64_t)s.given * s.channels;
    WEIR_EACH(i, count)
    {
        const uint64_t at = i % row; /* x's vectors are repeated, and follow without gaps */
        weir_write(y + i, table[at] + weir_read(x + i / row * given + at % given));
    }
}

enum weir_status weir_cuda_run_table_add(const struct weir_cuda_run *run)
{
    const struct weir_table_add *s = &run->plan->shape.table_add;
    const uint64_t count = (uint64_t)s->rows * s->vectors * s->channels;
    WEIR_BY_TYPE(s->dtype, T,
                 (table_add<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const float *)run->plan->layer->weight, (const T *)run->operands[WEIR_TABLE_ADD_X],
                     (T *)run->operands[WEIR_TABLE_ADD_Y])));
    return weir_launched();
}

template <typename T> __global__ void regroup(struct weir_regroup s, uint64_t count, const T *x, T *y)
{
    const uint32_t copies = s.out / s.in, together = s.in / s.out; /* one of them is 0 but when both are 1 */
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, s.out);
        const T *token = x + at.quotient * s.in;
        const uint32_t c = at.rest;
        if (copies) {
            y[i] = token[c / copies];
        } else {
            float sum = 0;
            for (uint32_t k = 0; k < together; k++) sum += weir_read(token + (uint64_t)c * together + k);
            weir_write(y + i, sum / (float)together);
        }
    }
}

enum weir_status weir_cuda_run_regroup(const struct weir_cuda_run *run)
{
    const struct weir_regroup *s = &run->plan->shape.regroup;
    const uint64_t count = (uint64_t)s->rows * s->tokens * s->out;
    WEIR_BY_TYPE(s->dtype, T,
                 (regroup<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_REGROUP_X], (T *)run->operands[WEIR_REGROUP_Y])));
    return weir_launched();
}

template <typename T>
__global__ void embed(struct weir_embed s, uint64_t count, const int32_t *ids, const T *table, const float *positions,
                      T *y)
{
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, s.channels);
        const uint64_t position = weir_split_by(at.quotient, s.tokens).rest;
        float value = weir_read(table + (uint64_t)ids[at.quotient] * s.channels + at.rest);
        if (positions) value += positions[position * s.channels + at.rest];
        weir_write(y + i, value);
    }
}

enum weir_status weir_cuda_run_embed(const struct weir_cuda_run *run)
{
    const struct weir_embed *s = &run->plan->shape.embed;
    const struct weir_cuda_packed *layer = run->plan->layer;
    const uint64_t count = (uint64_t)s->rows * s->tokens * s->channels;
    WEIR_BY_TYPE(s->dtype, T,
                 (embed<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const int32_t *)run->operands[WEIR_EMBED_IDS], (const T *)layer->weight, layer->bias,
                     (T *)run->operands[WEIR_EMBED_Y])));
    return weir_launched();
}

/* --- what follows a product --------------------------------------------------------------------------------------- */

template <typename T>
__global__ void epilogue(struct weir_linear s, bool gated, uint64_t count, const T *sums, const T *residual,
                         const T *gate, T *y)
{
    const uint32_t width = gated ? s.out / 2 : s.out;
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, width);
        const uint64_t token = at.quotient;
        const uint32_t c = at.rest;
        const T *from = sums + token * s.out + c;
        float value = weir_read(from);
        if (gated) {
            value *= weir_act(s.activation, weir_read(from + width));
        } else {
            value = weir_act(s.activation, value);
        }
        if (s.gate_vectors) {
            const uint64_t row = weir_split_by(token, s.tokens).quotient;
            value *= weir_read(gate + (row * s.gate_vectors + s.gate_vector) * width + c);
        }
        if (s.residual) value += weir_read(residual + i);
        weir_write(y + i, value);
    }
}

/* The same, eight channels of a token a thread. */
template <enum weir_activation A>
__global__ void epilogue_8(struct weir_linear s, uint64_t count, const bf16 *sums, const bf16 *residual,
                           const bf16 *gate, bf16 *y)
{
    constexpr bool gated = A == WEIR_ACT_GEGLU || A == WEIR_ACT_GEGLU_TANH;
    const uint32_t width = gated ? s.out / 2 : s.out;
    WEIR_EACH(i, count)
    {
        const struct weir_split at = weir_split_by(i, width / 8);
        const uint64_t token = at.quotient;
        const uint32_t c = at.rest * 8;
        const bf16 *from = sums + token * s.out + c;
        float values[8], others[8];
        weir_read_8(from, values);
        if (gated) {
            weir_read_8(from + width, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] *= weir_act_fast<A>(others[n]);
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] = weir_act_fast<A>(values[n]);
        }
        if (s.gate_vectors) {
            const uint64_t row = weir_split_by(token, s.tokens).quotient;
            weir_read_8(gate + (row * s.gate_vectors + s.gate_vector) * width + c, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] *= others[n];
        }
        if (s.residual) {
            weir_read_8(residual + i * 8, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] += others[n];
        }
        weir_write_8(y + i * 8, values);
    }
}

enum weir_status weir_cuda_epilogue(const struct weir_linear *s, cudaStream_t stream, const void *sums,
                                    const void *residual, const void *gate, void *y)
{
    const uint64_t count = (uint64_t)s->rows * s->tokens * weir_linear_width(s);
    if (s->dtype == WEIR_BF16 && weir_linear_width(s) % WEIR_EIGHT == 0) {
        WEIR_BY_ACTIVATION(
            s->activation, A,
            (epilogue_8<A><<<weir_blocks(count / 8, THREADS), THREADS, 0, stream>>>(
                *s, count / 8, (const bf16 *)sums, (const bf16 *)residual, (const bf16 *)gate, (bf16 *)y)));
        return weir_launched();
    }
    WEIR_BY_TYPE(s->dtype, T,
                 (epilogue<T><<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(
                     *s, weir_activation_is_gated(s->activation), count, (const T *)sums, (const T *)residual,
                     (const T *)gate, (T *)y)));
    return weir_launched();
}
