/* attention: one item is a block of queries of some sequences and heads of one row.
 *
 * For each sequence and head the item copies the keys, turned round, and the values into its slice, so that both
 * products run along memory: scores = q k^T for QUERY_BLOCK queries at a time, softmax over each of their rows, then
 * the sum of the values. The scores of a block are kept whole, so the softmax needs no second look. Long sequences are
 * cut into several query blocks of QUERIES_MAX; short ones (the 16 frames of a pixel) are handled some at a time with
 * all their heads, so that neighbours in memory are read together. Causal attention sets the weights of later keys to
 * zero. Where rows have lengths, nothing beyond a row's own is read. Heads that share their keys copy them once. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define QUERY_BLOCK 24     /* a multiple of the rows of simd's tiles; its scores stay in the first caches */
#define QUERIES_MAX 512    /* of one item: copying the keys once more costs little beside that many queries */
#define ITEM_FLOPS 4000000 /* short sequences are put together until they make about so many */

struct attention_plan {
    struct weir_cpu_plan head;
    struct weir_attention shape;
    uint32_t query_blocks, queries; /* of a sequence; queries in each */
    uint32_t sequence_blocks, sequences;
    uint32_t head_blocks, heads;
    uint32_t keys_padded, dim_padded;                                 /* to whole vectors */
    size_t values_offset, queries_offset, scores_offset, sums_offset; /* in the slice; the keys are first */
};

static uint32_t smaller_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Token i of a sequence, counted from the tensor's first token. */
static size_t token_of(const struct weir_sequence_layout *l, uint32_t row, uint32_t sequence, uint32_t i)
{
    return (size_t)row * l->row_tokens + (size_t)(sequence / l->inner) * l->outer_step +
           (size_t)(sequence % l->inner) * l->inner_step + (size_t)i * l->token_step;
}

struct scratch {
    float *keys, *values, *queries, *scores, *sums;
};

static uint32_t keys_of(const struct weir_attention *s, void *const operands[], uint32_t row)
{
    return s->lengths ? (uint32_t)((const int32_t *)operands[WEIR_ATTENTION_LENGTHS])[row] : s->key_length;
}

/* Which keys and values head h looks at. */
static uint32_t kv_head(const struct weir_attention *s, uint32_t h)
{
    return h / (s->heads / s->kv_heads);
}

static void copy_keys_and_values(const struct attention_plan *plan, void *const operands[], uint32_t row,
                                 uint32_t sequence, uint32_t h, const struct scratch *to)
{
    const struct weir_attention *s = &plan->shape;
    const uint32_t keys = keys_of(s, operands, row);
    const size_t channel = (size_t)kv_head(s, h) * s->head_dim;
    const size_t first = token_of(&s->key, row, sequence, 0);
    const size_t k_step = (size_t)s->key.token_step * s->k_stride, v_step = (size_t)s->key.token_step * s->v_stride;
    const float *k = (const float *)operands[WEIR_ATTENTION_K] + first * s->k_stride + s->k_channel + channel;
    const float *v = (const float *)operands[WEIR_ATTENTION_V] + first * s->v_stride + s->v_channel + channel;

    for (uint32_t j = 0; j < keys; j++) {
        for (uint32_t d = 0; d < s->head_dim; d++) to->keys[(size_t)d * plan->keys_padded + j] = k[j * k_step + d];
        memcpy(to->values + (size_t)j * plan->dim_padded, v + j * v_step, s->head_dim * sizeof(float));
        for (uint32_t d = s->head_dim; d < plan->dim_padded; d++) to->values[(size_t)j * plan->dim_padded + d] = 0;
    }
    for (uint32_t d = 0; d < s->head_dim; d++) { /* products with these are made and not looked at */
        for (uint32_t j = keys; j < weir_cpu_padded(keys); j++) to->keys[(size_t)d * plan->keys_padded + j] = 0;
    }
}

/* Queries first..first + count - 1 of one sequence and head, at most QUERY_BLOCK. */
static void attend(const struct attention_plan *plan, const struct weir_cpu_simd *simd, void *const operands[],
                   uint32_t row, uint32_t sequence, uint32_t h, uint32_t first, uint32_t count,
                   const struct scratch *scratch)
{
    const struct weir_attention *s = &plan->shape;
    const uint32_t row_keys = keys_of(s, operands, row);
    const size_t channel = (size_t)h * s->head_dim;
    const float *q = (const float *)operands[WEIR_ATTENTION_Q] + s->q_channel + channel;
    float *y = (float *)operands[WEIR_ATTENTION_Y] + channel;
    float factors[QUERY_BLOCK];

    for (uint32_t i = 0; i < count; i++) {
        simd->scale(q + token_of(&s->query, row, sequence, first + i) * s->q_stride, s->scale,
                    scratch->queries + (size_t)i * s->head_dim, s->head_dim);
    }
    simd->product(count, weir_cpu_padded(row_keys), s->head_dim, scratch->queries, s->head_dim, scratch->keys,
                  plan->keys_padded, scratch->scores, plan->keys_padded);
    for (uint32_t i = 0; i < count; i++) {
        float *scores = scratch->scores + (size_t)i * plan->keys_padded;
        const uint32_t keys = s->causal ? smaller_of(first + i + 1, row_keys) : row_keys;
        if (s->softcap > 0) simd->softcap(scores, s->softcap, keys);
        factors[i] = 1 / simd->softmax(scores, keys);
        memset(scores + keys, 0, (row_keys - keys) * sizeof(float));
    }
    simd->product(count, plan->dim_padded, row_keys, scratch->scores, plan->keys_padded, scratch->values,
                  plan->dim_padded, scratch->sums, plan->dim_padded);
    for (uint32_t i = 0; i < count; i++) {
        simd->scale(scratch->sums + (size_t)i * plan->dim_padded, factors[i],
                    y + token_of(&s->query, row, sequence, first + i) * s->y_stride, s->head_dim);
    }
}

static void attention_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct attention_plan *plan = (const struct attention_plan *)run->plan;
    const struct weir_attention *s = &plan->shape;
    char *slice = weir_cpu_slice(run, slot);
    const struct scratch scratch = { .keys = (float *)(void *)slice,
                                     .values = (float *)(void *)(slice + plan->values_offset),
                                     .queries = (float *)(void *)(slice + plan->queries_offset),
                                     .scores = (float *)(void *)(slice + plan->scores_offset),
                                     .sums = (float *)(void *)(slice + plan->sums_offset) };
    const uint32_t first_query = item % plan->query_blocks * plan->queries;
    item /= plan->query_blocks;
    const uint32_t first_head = item % plan->head_blocks * plan->heads;
    item /= plan->head_blocks;
    const uint32_t first_sequence = item % plan->sequence_blocks * plan->sequences;
    const uint32_t row = item / plan->sequence_blocks;
    const uint32_t last_query = smaller_of(first_query + plan->queries, s->query_length);
    const uint32_t last_head = smaller_of(first_head + plan->heads, s->heads);
    const uint32_t last_sequence = smaller_of(first_sequence + plan->sequences, s->sequences);

    for (uint32_t sequence = first_sequence; sequence < last_sequence; sequence++) {
        for (uint32_t h = first_head; h < last_head; h++) {
            if (h == first_head || kv_head(s, h) != kv_head(s, h - 1)) {
                copy_keys_and_values(plan, run->operands, row, sequence, h, &scratch);
            }
            for (uint32_t i = first_query; i < last_query; i += QUERY_BLOCK) {
                attend(plan, run->cpu->simd, run->operands, row, sequence, h, i,
                       smaller_of(QUERY_BLOCK, last_query - i), &scratch);
            }
        }
    }
}

static void attention_run(struct weir_cpu_run *run)
{
    const struct attention_plan *plan = (const struct attention_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->sequence_blocks * plan->head_blocks * plan->query_blocks,
                   attention_item);
}

static void cut(struct attention_plan *plan, const struct weir_attention *s)
{
    const uint64_t flops = 4 * (uint64_t)s->query_length * s->key_length * s->head_dim; /* a sequence and head */
    plan->queries = weir_cpu_piece(s->query_length, QUERIES_MAX);
    plan->heads = plan->sequences = 1;
    if (flops < ITEM_FLOPS) {
        plan->queries = s->query_length;
        plan->heads = flops * s->heads <= ITEM_FLOPS ? s->heads : weir_cpu_piece(s->heads, ITEM_FLOPS / flops);
        if (plan->heads == s->heads) plan->sequences = weir_cpu_piece(s->sequences, ITEM_FLOPS / (flops * s->heads));
    }
    plan->query_blocks = (s->query_length + plan->queries - 1) / plan->queries;
    plan->head_blocks = (s->heads + plan->heads - 1) / plan->heads;
    plan->sequence_blocks = (s->sequences + plan->sequences - 1) / plan->sequences;
}

struct weir_cpu_plan *weir_cpu_plan_attention(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                              const struct weir_attention *s, struct weir_error *error)
{
    (void)cpu;
    (void)layer;
    struct attention_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->keys_padded = weir_cpu_padded(s->key_length);
    plan->dim_padded = weir_cpu_padded(s->head_dim);
    cut(plan, s);
    const size_t keys = (size_t)s->head_dim * plan->keys_padded, values = (size_t)s->key_length * plan->dim_padded;
    plan->values_offset = weir_cpu_aligned(keys * sizeof(float));
    plan->queries_offset = plan->values_offset + weir_cpu_aligned(values * sizeof(float));
    plan->scores_offset = plan->queries_offset + weir_cpu_aligned(QUERY_BLOCK * (size_t)s->head_dim * sizeof(float));
    plan->sums_offset = plan->scores_offset + QUERY_BLOCK * (size_t)plan->keys_padded * sizeof(float);
    plan->head.slice_bytes = plan->sums_offset + QUERY_BLOCK * (size_t)plan->dim_padded * sizeof(float);
    plan->head.run = attention_run;
    return &plan->head;
}
