/* linear_attention: an item is some neighbouring heads of one frame of one row, with all its tokens. For each head it
 * passes over the tokens twice, in blocks of BLOCK_TOKENS: first S = sum of v relu(k)^T and z = sum of relu(k), then
 * y = S relu(q) / (z . relu(q) + eps).
 *
 * The order of sums follows from the shape alone: a block's tokens one after the other, then the blocks; S in f32, z
 * as channel_sums does it. Copies in the slice are padded with zeros to whole vectors, so odd sizes of heads take the
 * same way. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_TOKENS 128  /* keys and values of a block stay in the first cache; few terms a partial sum */
#define ITEM_CHANNELS 128 /* heads of an item, together: they share the pages of memory that a token lies in */

struct linear_attention_plan {
    struct weir_cpu_plan head;
    struct weir_linear_attention shape;
    uint32_t item_heads, blocks; /* blocks of heads */
    uint32_t padded;             /* a head's channels in the slice */
};

struct scratch {
    double *part;      /* [padded]: z of a block */
    float *zeros, *z;  /* [padded] */
    float *s, *s_part; /* [padded, padded]: by key channel, then value channel */
    float *a, *b;      /* [BLOCK_TOKENS, padded] */
};

static size_t scratch_floats(size_t padded)
{
    return 4 * padded + 2 * padded * padded + 2 * BLOCK_TOKENS * padded;
}

static struct scratch scratch_of(const struct weir_cpu_run *run, uint32_t slot, size_t padded)
{
    double *part = weir_cpu_slice(run, slot);
    float *after = (float *)(void *)(part + padded);
    return (struct scratch){ .part = part,
                             .zeros = after,
                             .z = after + padded,
                             .s = after + 2 * padded,
                             .s_part = after + (2 + padded) * padded,
                             .a = after + (2 + 2 * padded) * padded,
                             .b = after + (2 + 2 * padded + BLOCK_TOKENS) * padded };
}

/* S and z of one head, whose keys and values begin at k and v. */
static void gather_keys(const struct weir_cpu_simd *simd, const struct weir_linear_attention *shape, size_t padded,
                        const float *k, const float *v, const struct scratch *t)
{
    memset(t->s, 0, padded * padded * sizeof(float));
    memset(t->z, 0, padded * sizeof(float));
    for (uint32_t first = 0; first < shape->pixels; first += BLOCK_TOKENS) {
        const size_t tokens = shape->pixels - first < BLOCK_TOKENS ? shape->pixels - first : BLOCK_TOKENS;
        const size_t offset = (size_t)first * shape->stride;
        simd->gather(k + offset, shape->stride, tokens, shape->head_dim, t->a, padded, padded, WEIR_ACT_RELU);
        simd->gather(v + offset, shape->stride, tokens, shape->head_dim, t->b, padded, padded, WEIR_ACT_NONE);
        simd->product_turned(shape->head_dim, padded, tokens, t->a, padded, t->b, padded, t->s_part, padded);
        simd->add(t->s, t->s_part, t->s, (size_t)shape->head_dim * padded);
        simd->channel_sums(t->a, tokens, padded, t->zeros, t->part);
        for (size_t d = 0; d < padded; d++) t->z[d] += (float)t->part[d];
    }
}

static void linear_attention_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct linear_attention_plan *plan = (const struct linear_attention_plan *)run->plan;
    const struct weir_linear_attention *s = &plan->shape;
    const struct weir_cpu_simd *simd = run->cpu->simd;
    const size_t padded = plan->padded, y_stride = (size_t)s->heads * s->head_dim;
    const struct scratch t = scratch_of(run, slot, padded);
    const uint32_t first_head = item % plan->blocks * plan->item_heads;
    const uint32_t end = s->heads - first_head < plan->item_heads ? s->heads : first_head + plan->item_heads;
    const size_t frame_token = (size_t)(item / plan->blocks) * s->pixels;

    memset(t.zeros, 0, padded * sizeof(float));
    for (uint32_t h = first_head; h < end; h++) {
        const float *x =
            (const float *)run->operands[WEIR_LINEAR_ATTENTION_X] + frame_token * s->stride + (size_t)h * s->head_step;
        float *y = (float *)run->operands[WEIR_LINEAR_ATTENTION_Y] + frame_token * y_stride + (size_t)h * s->head_dim;
        gather_keys(simd, s, padded, x + s->k_channel, x + s->v_channel, &t);
        for (uint32_t first = 0; first < s->pixels; first += BLOCK_TOKENS) {
            const size_t tokens = s->pixels - first < BLOCK_TOKENS ? s->pixels - first : BLOCK_TOKENS;
            simd->gather(x + s->q_channel + (size_t)first * s->stride, s->stride, tokens, s->head_dim, t.a, padded,
                         padded, WEIR_ACT_RELU);
            simd->product(tokens, padded, s->head_dim, t.a, padded, t.s, padded, t.b, padded);
            simd->divide(t.b, t.a, t.z, padded, y + first * y_stride, y_stride, tokens, s->head_dim, s->eps);
        }
    }
}

static void linear_attention_run(struct weir_cpu_run *run)
{
    const struct linear_attention_plan *plan = (const struct linear_attention_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->shape.frames * plan->blocks, linear_attention_item);
}

struct weir_cpu_plan *weir_cpu_plan_linear_attention(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                                     const struct weir_linear_attention *s, struct weir_error *error)
{
    (void)cpu;
    (void)layer;
    struct linear_attention_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->padded = weir_cpu_padded(s->head_dim);
    plan->item_heads = weir_cpu_piece(s->heads, ITEM_CHANNELS / s->head_dim);
    plan->blocks = (s->heads + plan->item_heads - 1) / plan->item_heads;
    plan->head.run = linear_attention_run;
    plan->head.slice_bytes = scratch_floats(plan->padded) * sizeof(float);
    return &plan->head;
}
