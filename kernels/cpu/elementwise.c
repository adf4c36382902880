/* Ops without sums, or with those of neighbours alone. Some are so small beside the rest that the judge's own loops do:
 * embed, timestep_embedding, latents_pack, guidance and sampler_step once a step, concat and to_rgb8 in pieces. The
 * others go through memory once, in pieces of vectors, tokens or lines of pixels, with loops of simd's. */
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>

#define PIECE_FLOATS 32768

struct elementwise_plan {
    struct weir_cpu_plan head;
    struct weir_ref_packed layer; /* embed's and table_add's, as ref sees it */
    uint32_t piece, pieces;       /* of `total`: see each op's last line */
    uint64_t total;
    union {
#define X(op, OP) struct weir_##op op;
        WEIR_OP_TABLE(X)
#undef X
    } shape;
};

static struct elementwise_plan *plan_create(const struct weir_cpu_packed *layer, struct weir_error *error,
                                            void (*run)(struct weir_cpu_run *run))
{
    struct elementwise_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->head.run = run;
    if (layer) plan->layer = (struct weir_ref_packed){ .weight = layer->vector_weight, .bias = layer->bias };
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
        struct elementwise_plan *plan = plan_create(layer, error, op##_run);                                           \
        if (!plan) return NULL;                                                                                        \
        plan->shape.op = *s;                                                                                           \
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
    const struct weir_activate *s = &plan->shape.activate;
    const size_t first = (size_t)item * plan->piece, count = piece_count(plan, item); /* floats; with a GEGLU tokens */
    const float *x = run->operands[WEIR_ACTIVATE_X];
    float *y = run->operands[WEIR_ACTIVATE_Y];
    (void)slot;
    if (weir_activation_is_gated(s->activation))
        run->cpu->simd->finish(s->activation, x + first * 2 * s->channels, NULL, NULL, y + first * s->channels, count,
                               s->channels);
    else
        run->cpu->simd->activate(s->activation, x + first, NULL, y + first, count);
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

static void table_add_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    const struct weir_table_add *s = &plan->shape.table_add;
    const size_t first = (size_t)item * plan->piece, end = first + piece_count(plan, item);
    (void)slot;
    for (size_t n = first; n < end; n++) { /* vectors of all rows */
        const size_t from = n / s->vectors * s->given + n % s->vectors % s->given;
        run->cpu->simd->add((const float *)run->operands[WEIR_TABLE_ADD_X] + from * s->channels,
                            plan->layer.weight + n % s->vectors * s->channels,
                            (float *)run->operands[WEIR_TABLE_ADD_Y] + n * s->channels, s->channels);
    }
}

static void regroup_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    const struct weir_regroup *s = &plan->shape.regroup;
    const size_t first = (size_t)item * plan->piece, tokens = piece_count(plan, item);
    const float *x = (const float *)run->operands[WEIR_REGROUP_X] + first * s->in;
    float *y = (float *)run->operands[WEIR_REGROUP_Y] + first * s->out;
    (void)slot;
    if (s->out >= s->in) { /* tokens follow without gaps, so that they are one long line */
        run->cpu->simd->repeat(x, y, tokens * s->out, s->out / s->in);
    } else {
        run->cpu->simd->means(x, y, tokens * s->out, s->in / s->out);
    }
}

/* Lines of x, each of which becomes two of y. */
static void pixel_shuffle_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    const struct weir_pixel_shuffle *s = &plan->shape.pixel_shuffle;
    const size_t first = (size_t)item * plan->piece, end = first + piece_count(plan, item);
    (void)slot;
    for (size_t line = first * 2; line < end * 2; line++) { /* of y */
        const float *x = (const float *)run->operands[WEIR_PIXEL_SHUFFLE_X] + line / 2 * s->width * s->in;
        for (size_t w = 0; w < 2 * (size_t)s->width; w++) {
            const size_t to = (line * 2 * s->width + w) * s->out;
            run->cpu->simd->shuffle(x + w / 2 * s->in, line % 2 * 2 + w % 2, 4 * (size_t)s->out / s->in,
                                    s->residual ? (const float *)run->operands[WEIR_PIXEL_SHUFFLE_RESIDUAL] + to : NULL,
                                    (float *)run->operands[WEIR_PIXEL_SHUFFLE_Y] + to, s->out);
        }
    }
}

/* Lines of y, each made of two of x. */
static void pixel_unshuffle_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct elementwise_plan *plan = (const struct elementwise_plan *)run->plan;
    const struct weir_pixel_unshuffle *s = &plan->shape.pixel_unshuffle;
    const size_t first = (size_t)item * plan->piece, end = first + piece_count(plan, item), width = s->width / 2;
    const size_t below = (size_t)s->width * s->in;
    (void)slot;
    for (size_t line = first; line < end; line++) {
        for (size_t w = 0; w < width; w++) {
            const float *x = (const float *)run->operands[WEIR_PIXEL_UNSHUFFLE_X] + line * 2 * below + w * 2 * s->in;
            const size_t to = (line * width + w) * s->out;
            run->cpu->simd->unshuffle(
                (const float *[]){ x, x + s->in, x + below, x + below + s->in }, 4 * (size_t)s->in / s->out,
                s->residual ? (const float *)run->operands[WEIR_PIXEL_UNSHUFFLE_RESIDUAL] + to : NULL,
                (float *)run->operands[WEIR_PIXEL_UNSHUFFLE_Y] + to, s->out);
        }
    }
}

/* An op in pieces of `total`, of which each has floats_each floats. */
#define PIECES(op, total, floats_each)                                                                                 \
    static void op##_run(struct weir_cpu_run *run)                                                                     \
    {                                                                                                                  \
        weir_cpu_items(run, ((const struct elementwise_plan *)run->plan)->pieces, op##_item);                          \
    }                                                                                                                  \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *s, struct weir_error *error)                      \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        struct elementwise_plan *plan = plan_create(layer, error, op##_run);                                           \
        if (!plan) return NULL;                                                                                        \
        plan->shape.op = *s;                                                                                           \
        cut(plan, (uint64_t)s->rows *(total), PIECE_FLOATS / (floats_each) + 1);                                       \
        return &plan->head;                                                                                            \
    }
PIECES(activate, weir_activation_is_gated(s->activation) ? s->tokens : (uint64_t)s->tokens * s->channels,
       weir_activation_is_gated(s->activation) ? 3 * (uint64_t)s->channels : 1)
PIECES(concat, s->tokens, s->a_channels + s->b_channels)
PIECES(to_rgb8, s->tokens, s->channels)
PIECES(table_add, s->vectors, s->channels)
PIECES(regroup, s->tokens, (uint64_t)s->in + s->out)
PIECES(pixel_shuffle, (uint64_t)s->frames * s->height, ((uint64_t)s->in + 4 * (uint64_t)s->out) * s->width)
PIECES(pixel_unshuffle, (uint64_t)s->frames * s->height / 2, (2 * (uint64_t)s->in + s->out) * s->width)
