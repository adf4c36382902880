/* Ops without sums. Only activate has loops of its own; the others are memory copies, or so small beside the rest that
 * the judge's own loops do: embed, timestep_embedding, latents_pack, guidance and sampler_step once a step, concat and
 * to_rgb8 in pieces of tokens. */
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>

#define PIECE_FLOATS 32768

struct elementwise_plan {
    struct weir_cpu_plan head;
    struct weir_ref_packed layer; /* embed's, as ref sees it */
    uint32_t piece, pieces;       /* tokens, or floats for activate */
    uint64_t total;
    union {
#define X(op, OP) struct weir_##op op;
        WEIR_OP_TABLE(X)
#undef X
    } shape;
};

static struct elementwise_plan *plan_create(struct weir_error *error, void (*run)(struct weir_cpu_run *run))
{
    struct elementwise_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->head.run = run;
    return plan;
}

static void cut(struct elementwise_plan *plan, uint64_t total, uint64_t wanted)
{
    plan->total = total;
    plan->piece = weir_cpu_piece(total, wanted);
    plan->pieces = (uint32_t)((total + plan->piece - 1) / plan->piece);
}

static uint32_t piece_count(const struct elementwise_plan *plan, uint32_t item)
{
    const uint64_t left = plan->total - (uint64_t)item * plan->piece;
    return left < plan->piece ? (uint32_t)left : plan->piece;
}

/* --- whole, in one item ------------------------------------------------------------------------------------------- */

#define WHOLE(op)                                                                                                      \
    static void op##_item(void *context, uint32_t item, uint32_t slot)                                                 \
    {                                                                                                                  \
        struct weir_cpu_run *run = context;                                                                            \
        const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;                              \
        (void)item;                                                                                                    \
        (void)slot;                                                                                                    \
        weir_ref_##op(&plan->shape.op, &plan->layer, run->operands, NULL);                                             \
    }                                                                                                                  \
    static void op##_run(struct weir_cpu_run *run)                                                                     \
    {                                                                                                                  \
        weir_cpu_items(run, 1, op##_item);                                                                             \
    }                                                                                                                  \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *s, struct weir_error *error)                      \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        struct elementwise_plan *plan = plan_create(error, op##_run);                                                  \
        if (!plan) return NULL;                                                                                        \
        plan->shape.op = *s;                                                                                           \
        if (layer) plan->layer = (struct weir_ref_packed){ .weight = layer->vector_weight, .bias = layer->bias };      \
        return &plan->head;                                                                                            \
    }
WHOLE(embed)
WHOLE(timestep_embedding)
WHOLE(latents_pack)
WHOLE(guidance)
WHOLE(sampler_step)

/* --- in pieces ---------------------------------------------------------------------------------------------------- */

static void activate_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    const size_t first = (size_t)item * plan->piece;
    (void)slot;
    run->cpu->simd->activate(plan->shape.activate.activation, (const float *)run->operands[WEIR_ACTIVATE_X] + first,
                             NULL, (float *)run->operands[WEIR_ACTIVATE_Y] + first, piece_count(plan, item));
}

static void concat_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    struct weir_concat s = plan->shape.concat;
    const size_t first = (size_t)item * plan->piece;
    (void)slot;
    s.rows = 1;
    s.tokens = piece_count(plan, item);
    weir_ref_concat(&s, NULL,
                    (void *[]){ (float *)run->operands[WEIR_CONCAT_A] + first * s.a_channels,
                                (float *)run->operands[WEIR_CONCAT_B] + first * s.b_channels,
                                (float *)run->operands[WEIR_CONCAT_Y] + first * (s.a_channels + s.b_channels) },
                    NULL);
}

static void to_rgb8_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    struct weir_to_rgb8 s = plan->shape.to_rgb8;
    const size_t first = (size_t)item * plan->piece;
    (void)slot;
    s.rows = 1;
    s.tokens = piece_count(plan, item);
    weir_ref_to_rgb8(&s, NULL,
                     (void *[]){ (float *)run->operands[WEIR_TO_RGB8_X] + first * s.channels,
                                 (uint8_t *)run->operands[WEIR_TO_RGB8_Y] + first * 3 },
                     NULL);
}

#define PIECES(op, total, floats_each)                                                                                 \
    static void op##_run(struct weir_cpu_run *run)                                                                     \
    {                                                                                                                  \
        weir_cpu_items(run, ((const struct elementwise_plan *)run->plan)->pieces, op##_item);                          \
    }                                                                                                                  \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *s, struct weir_error *error)                      \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        (void)layer;                                                                                                   \
        struct elementwise_plan *plan = plan_create(error, op##_run);                                                  \
        if (!plan) return NULL;                                                                                        \
        plan->shape.op = *s;                                                                                           \
        cut(plan, (uint64_t)s->rows * s->tokens * (total), PIECE_FLOATS / (floats_each) + 1);                          \
        return &plan->head;                                                                                            \
    }
PIECES(activate, s->channels, 1)
PIECES(concat, 1, s->a_channels + s->b_channels)
PIECES(to_rgb8, 1, s->channels)
