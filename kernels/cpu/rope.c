/* rope: tokens in pieces. Cosines and sines of all positions are made when the op is planned, by the judge's own rope:
 * turning (1, 0) by an angle gives its cosine and sine. */
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_FLOATS 32768

struct rope_plan {
    struct weir_cpu_plan head;
    struct weir_rope shape;
    uint32_t piece_tokens, pieces; /* of a row */
    float *angles;                 /* [tokens, head_dim]: cosines, then sines */
};

static void rope_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct rope_plan *plan = (const struct rope_plan *)run->plan;
    const struct weir_rope *s = &plan->shape;
    const uint32_t first = item % plan->pieces * plan->piece_tokens;
    const uint32_t end = s->tokens - first < plan->piece_tokens ? s->tokens : first + plan->piece_tokens;
    const size_t turned = (size_t)s->heads * s->head_dim, half = s->head_dim / 2;
    (void)slot;

    for (uint32_t l = first; l < end; l++) {
        const size_t offset = ((size_t)(item / plan->pieces) * s->tokens + l) * s->channels;
        const float *x = (const float *)run->operands[WEIR_ROPE_X] + offset;
        const float *cosines = plan->angles + (size_t)l * s->head_dim;
        float *y = (float *)run->operands[WEIR_ROPE_Y] + offset;
        for (uint32_t h = 0; h < s->heads; h++) {
            run->cpu->simd->rotate(x + (size_t)h * s->head_dim, cosines, cosines + half, y + (size_t)h * s->head_dim,
                                   half);
        }
        if (y != x) memcpy(y + turned, x + turned, (s->channels - turned) * sizeof(float));
    }
}

static void rope_run(struct weir_cpu_run *run)
{
    const struct rope_plan *plan = (const struct rope_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->pieces, rope_item);
}

static void rope_deinit(struct weir_cpu *cpu, struct weir_cpu_plan *head)
{
    (void)cpu;
    free(((struct rope_plan *)head)->angles);
}

/* [tokens, head_dim], or NULL. */
static float *angles_of(const struct weir_rope *s)
{
    const size_t half = s->head_dim / 2;
    float *angles = malloc((size_t)s->tokens * s->head_dim * sizeof(float));
    if (!angles) return NULL;
    for (size_t i = 0; i < (size_t)s->tokens * s->head_dim; i++) angles[i] = i % s->head_dim < half ? 1 : 0;
    const struct weir_rope one = {
        .rows = 1, .tokens = s->tokens, .channels = s->head_dim, .heads = 1, .head_dim = s->head_dim, .theta = s->theta
    };
    weir_ref_rope(&one, NULL, (void *[]){ angles, angles }, NULL);
    return angles;
}

struct weir_cpu_plan *weir_cpu_plan_rope(struct weir_cpu *cpu, struct weir_cpu_packed *layer, const struct weir_rope *s,
                                         struct weir_error *error)
{
    (void)cpu;
    (void)layer;
    struct rope_plan *plan = calloc(1, sizeof *plan);
    if (plan) plan->angles = angles_of(s);
    if (!plan || !plan->angles) {
        free(plan);
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->piece_tokens = weir_cpu_piece(s->tokens, PIECE_FLOATS / s->channels + 1);
    plan->pieces = (s->tokens + plan->piece_tokens - 1) / plan->piece_tokens;
    plan->head.run = rope_run;
    plan->head.deinit = rope_deinit;
    return &plan->head;
}
