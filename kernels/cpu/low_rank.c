/* low_rank: tokens of a row in pieces. A piece goes through the first matrix into the slot's scratch, through the second
 * into more of it, and is then added to y. Loops of whole vectors read the matrices, so those whose rows are none are
 * first copied, with zeros behind each row, to where all items see them. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

#define PIECE_TOKENS 64 /* the matrices are read once for so many */

struct low_rank_plan {
    struct weir_cpu_plan head;
    struct weir_low_rank shape;
    uint32_t rank, out; /* padded to whole vectors */
    uint32_t piece_tokens, pieces;
};

static bool is_copied(const struct low_rank_plan *plan)
{
    return plan->rank != plan->shape.rank || plan->out != plan->shape.out;
}

/* The matrices as items read them; where they are copied, [in, rank] and behind it [rank, out], both padded. */
static const float *factor_a(const struct weir_cpu_run *run)
{
    return is_copied((const struct low_rank_plan *)run->plan) ? weir_cpu_shared(run) : run->operands[WEIR_LOW_RANK_A];
}

static const float *factor_b(const struct weir_cpu_run *run)
{
    const struct low_rank_plan *plan = (const struct low_rank_plan *)run->plan;
    if (!is_copied(plan)) return run->operands[WEIR_LOW_RANK_B];
    return (const float *)weir_cpu_shared(run) + (size_t)plan->shape.in * plan->rank;
}

static void copy_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct low_rank_plan *plan = (const struct low_rank_plan *)run->plan;
    const struct weir_low_rank *s = &plan->shape;
    float *a = weir_cpu_shared(run), *b = a + (size_t)s->in * plan->rank;
    (void)item;
    (void)slot;
    run->cpu->simd->gather(run->operands[WEIR_LOW_RANK_A], s->rank, s->in, s->rank, a, plan->rank, plan->rank,
                           WEIR_ACT_NONE);
    run->cpu->simd->gather(run->operands[WEIR_LOW_RANK_B], s->out, s->rank, s->out, b, plan->out, plan->out,
                           WEIR_ACT_NONE);
}

static void low_rank_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct low_rank_plan *plan = (const struct low_rank_plan *)run->plan;
    const struct weir_low_rank *s = &plan->shape;
    const struct weir_cpu_simd *simd = run->cpu->simd;
    const uint32_t first = item % plan->pieces * plan->piece_tokens, row = item / plan->pieces;
    const uint32_t tokens = s->tokens - first < plan->piece_tokens ? s->tokens - first : plan->piece_tokens;
    const size_t token = (size_t)row * s->tokens + first;
    const float *x = (const float *)run->operands[WEIR_LOW_RANK_X] + token * s->in;
    float *y = (float *)run->operands[WEIR_LOW_RANK_Y] + token * s->y_channels + s->channel;
    float *thin = weir_cpu_slice(run, slot), *wide = thin + (size_t)plan->piece_tokens * plan->rank;
    const float *gate = run->operands[WEIR_LOW_RANK_GATE];
    if (s->gate_vectors) gate += ((size_t)row * s->gate_vectors + s->gate_vector) * s->y_channels + s->channel;

    simd->product(tokens, plan->rank, s->in, x, s->in, factor_a(run), plan->rank, thin, plan->rank);
    simd->product(tokens, plan->out, s->rank, thin, plan->rank, factor_b(run), plan->out, wide, plan->out);
    for (uint32_t l = 0; l < tokens; l++, wide += plan->out, y += s->y_channels) {
        if (s->gate_vectors)
            simd->finish(WEIR_ACT_NONE, wide, gate, y, y, 1, s->out);
        else
            simd->add(y, wide, y, s->out);
    }
}

static void low_rank_run(struct weir_cpu_run *run)
{
    const struct low_rank_plan *plan = (const struct low_rank_plan *)run->plan;
    if (is_copied(plan)) weir_cpu_items(run, 1, copy_item);
    weir_cpu_items(run, plan->shape.rows * plan->pieces, low_rank_item);
}

struct weir_cpu_plan *weir_cpu_plan_low_rank(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                             const struct weir_low_rank *s, struct weir_error *error)
{
    (void)cpu;
    (void)layer;
    struct low_rank_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->rank = weir_cpu_padded(s->rank);
    plan->out = weir_cpu_padded(s->out);
    plan->piece_tokens = weir_cpu_piece(s->tokens, PIECE_TOKENS);
    plan->pieces = (s->tokens + plan->piece_tokens - 1) / plan->piece_tokens;
    plan->head.run = low_rank_run;
    plan->head.slice_bytes = (size_t)plan->piece_tokens * (plan->rank + plan->out) * sizeof(float);
    if (is_copied(plan))
        plan->head.shared_bytes = ((size_t)s->in * plan->rank + (size_t)s->rank * plan->out) * sizeof(float);
    return &plan->head;
}
