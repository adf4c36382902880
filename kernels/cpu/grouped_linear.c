/* grouped_linear: an item is a piece of tokens for some neighbouring groups. It copies its part of x together, which the
 * processor fetches better than products that jump from token to token, then makes a small product for each group. The
 * weights of a group lie as [inputs, outputs], outputs padded to whole vectors; a product that is no whole vectors wide
 * goes through the slot's scratch. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_TOKENS 48    /* the weights of an item's groups are read once for so many tokens */
#define PIECE_CHANNELS 256 /* of x, together: memory is read in long runs */

struct grouped_plan {
    struct weir_cpu_plan head;
    struct weir_grouped_linear shape;
    uint32_t in, out, out_padded;  /* of a group */
    uint32_t piece_tokens, pieces; /* of a row */
    uint32_t item_groups, blocks;
    size_t near_floats; /* of an item's part of x, first in the slice */
};

static void grouped_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct grouped_plan *plan = (const struct grouped_plan *)run->plan;
    const struct weir_grouped_linear *s = &plan->shape;
    const uint32_t first_group = item % plan->blocks * plan->item_groups;
    item /= plan->blocks;
    const uint32_t first = item % plan->pieces * plan->piece_tokens, row = item / plan->pieces;
    const uint32_t tokens = s->tokens - first < plan->piece_tokens ? s->tokens - first : plan->piece_tokens;
    const uint32_t left = s->groups - first_group, groups = left < plan->item_groups ? left : plan->item_groups;
    const size_t token = (size_t)row * s->tokens + first;
    const float *x = (const float *)run->operands[WEIR_GROUPED_LINEAR_X] + token * s->in;
    float *y = (float *)run->operands[WEIR_GROUPED_LINEAR_Y] + token * s->out;
    float *near = weir_cpu_slice(run, slot);
    float *aside = plan->out_padded != plan->out ? near + plan->near_floats : NULL;
    const size_t width = (size_t)groups * plan->in;

    run->cpu->simd->gather(x + first_group * plan->in, s->in, tokens, width, near, width, width, WEIR_ACT_NONE);
    for (size_t g = first_group; g < (size_t)first_group + groups; g++) {
        const float *weight = plan->head.layer->vector_weight + g * plan->in * plan->out_padded;
        float *to = y + g * plan->out;
        run->cpu->simd->product(tokens, plan->out_padded, plan->in, near + (g - first_group) * plan->in, width, weight,
                                plan->out_padded, aside ? aside : to, aside ? plan->out_padded : s->out);
        for (size_t l = 0; aside && l < tokens; l++) {
            memcpy(to + l * s->out, aside + l * plan->out_padded, plan->out * sizeof(float));
        }
    }
}

static void grouped_run(struct weir_cpu_run *run)
{
    const struct grouped_plan *plan = (const struct grouped_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->pieces * plan->blocks, grouped_item);
}

struct weir_cpu_plan *weir_cpu_plan_grouped_linear(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                                   const struct weir_grouped_linear *s, struct weir_error *error)
{
    (void)cpu;
    struct grouped_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->in = s->in / s->groups;
    plan->out = s->out / s->groups;
    plan->out_padded = weir_cpu_padded(plan->out);
    plan->piece_tokens = weir_cpu_piece(s->tokens, PIECE_TOKENS);
    plan->pieces = (s->tokens + plan->piece_tokens - 1) / plan->piece_tokens;
    plan->item_groups = weir_cpu_piece(s->groups, PIECE_CHANNELS / plan->in + 1);
    plan->blocks = (s->groups + plan->item_groups - 1) / plan->item_groups;
    plan->head.layer = layer;
    plan->head.run = grouped_run;
    plan->near_floats = (size_t)plan->piece_tokens * plan->item_groups * plan->in;
    plan->head.slice_bytes = plan->near_floats * sizeof(float);
    if (plan->out_padded != plan->out) {
        plan->head.slice_bytes += (size_t)plan->piece_tokens * plan->out_padded * sizeof(float);
    }
    return &plan->head;
}
