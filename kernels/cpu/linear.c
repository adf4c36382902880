/* linear: tokens of a row in pieces; each piece is one oneDNN product, followed by what it cannot fuse while the result
 * is still in the cache.
 *
 * The sum with the residual is oneDNN's when nothing else follows the product; the residual is copied to y first when it
 * is not there already. Where more follows, the product goes to the slot's scratch: y may be the residual, and that of
 * a GEGLU is twice as wide as y. Of a bf16 layer, the piece of x is rounded into the slot's slice first. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_FLOPS 4000000  /* about 30 us: long against the pool's 0.1 us an item, short enough to share well */
#define PIECE_BYTES 786432   /* of x and the product: they stay in a core's second cache */
#define PIECE_TOKENS_MIN 128 /* below it the weights' way from memory is felt */
#define PIECE_TOKENS_STEP 32

struct linear_plan {
    struct weir_cpu_plan head;
    struct weir_linear shape;
    struct weir_cpu_primitive whole, rest; /* of piece_tokens, of the last piece when it is shorter */
    uint32_t piece_tokens, pieces;         /* of a row */
    size_t rounded_offset, product_offset; /* in the slice, after oneDNN's scratch */
};

/* The product alone, or with the residual: oneDNN does it all. */
static bool is_plain(const struct weir_linear *s)
{
    return s->activation == WEIR_ACT_NONE && s->gate_vectors == 0;
}

static bool goes_aside(const struct weir_linear *s)
{
    return weir_activation_is_gated(s->activation) || (s->residual && !is_plain(s));
}

static uint32_t piece_tokens(const struct weir_linear *s)
{
    const uint64_t by_flops = PIECE_FLOPS / (2 * (uint64_t)s->in * s->out) + 1;
    const uint64_t by_bytes = PIECE_BYTES / (sizeof(float) * ((uint64_t)s->in + s->out)) + 1;
    uint64_t wanted = by_flops < by_bytes ? by_flops : by_bytes;
    if (wanted < PIECE_TOKENS_MIN) wanted = PIECE_TOKENS_MIN;
    const uint32_t tokens = weir_cpu_piece(s->tokens, wanted);
    const uint32_t rounded = (tokens + PIECE_TOKENS_STEP - 1) / PIECE_TOKENS_STEP * PIECE_TOKENS_STEP;
    return rounded < s->tokens ? rounded : s->tokens;
}

static void linear_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct linear_plan *plan = (const struct linear_plan *)run->plan;
    const struct weir_linear *s = &plan->shape;
    const struct weir_cpu_simd *simd = run->cpu->simd;
    const size_t width = weir_linear_width(s);
    const uint32_t first = item % plan->pieces * plan->piece_tokens, row = item / plan->pieces;
    const uint32_t tokens = s->tokens - first < plan->piece_tokens ? s->tokens - first : plan->piece_tokens;
    const size_t token = (size_t)row * s->tokens + first;
    const float *x = (const float *)run->operands[WEIR_LINEAR_X] + token * s->in;
    const float *residual = s->residual ? (const float *)run->operands[WEIR_LINEAR_RESIDUAL] + token * width : NULL;
    float *y = (float *)run->operands[WEIR_LINEAR_Y] + token * width;
    char *slice = weir_cpu_slice(run, slot);
    float *product = goes_aside(s) ? (float *)(void *)(slice + plan->product_offset) : y;

    const void *read = x;
    if (plan->head.layer->head.dtype == WEIR_BF16) {
        uint16_t *rounded = (uint16_t *)(void *)(slice + plan->rounded_offset);
        simd->round_bf16(x, rounded, (size_t)tokens * s->in);
        read = rounded;
    }
    if (is_plain(s) && residual && residual != y) memcpy(y, residual, tokens * width * sizeof(float));
    if (!weir_cpu_primitive_run(run->cpu, tokens == plan->piece_tokens ? &plan->whole : &plan->rest, slot, read,
                                plan->head.layer->bias, product, slice)) {
        weir_cpu_fault(run);
        return;
    }
    if (s->gate_vectors) {
        const float *gates = run->operands[WEIR_LINEAR_GATE];
        simd->finish(s->activation, product, gates + ((size_t)row * s->gate_vectors + s->gate_vector) * width, residual,
                     y, tokens, width);
    } else if (weir_activation_is_gated(s->activation)) {
        simd->finish(s->activation, product, NULL, residual, y, tokens, width);
    } else if (!is_plain(s)) {
        simd->activate(s->activation, product, residual, y, tokens * width);
    }
}

static void linear_run(struct weir_cpu_run *run)
{
    const struct linear_plan *plan = (const struct linear_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->pieces, linear_item);
}

static void linear_deinit(struct weir_cpu *cpu, struct weir_cpu_plan *head)
{
    struct linear_plan *plan = (struct linear_plan *)head;
    weir_cpu_primitive_destroy(cpu, &plan->whole);
    weir_cpu_primitive_destroy(cpu, &plan->rest);
}

struct weir_cpu_plan *weir_cpu_plan_linear(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                           const struct weir_linear *s, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct linear_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->head.layer = layer;
    plan->head.run = linear_run;
    plan->head.deinit = linear_deinit;
    plan->shape = *s;
    plan->piece_tokens = piece_tokens(s);
    plan->pieces = (s->tokens + plan->piece_tokens - 1) / plan->piece_tokens;
    const bool add = s->residual && is_plain(s);
    const uint32_t rest = s->tokens - (plan->pieces - 1) * plan->piece_tokens;
    WEIR_TRY(weir_cpu_product_create(cpu, layer, &(struct weir_cpu_product){ plan->piece_tokens, add }, &plan->whole,
                                     error));
    if (rest != plan->piece_tokens) {
        WEIR_TRY(weir_cpu_product_create(cpu, layer, &(struct weir_cpu_product){ rest, add }, &plan->rest, error));
    }
    plan->rounded_offset =
        plan->whole.scratch_bytes > plan->rest.scratch_bytes ? plan->whole.scratch_bytes : plan->rest.scratch_bytes;
    plan->product_offset = plan->rounded_offset;
    if (layer->head.dtype == WEIR_BF16) {
        plan->product_offset += weir_cpu_aligned((size_t)plan->piece_tokens * s->in * sizeof(uint16_t));
    }
    plan->head.slice_bytes = plan->product_offset;
    if (goes_aside(s)) plan->head.slice_bytes += (size_t)plan->piece_tokens * s->out * sizeof(float);

cleanup:
    if (status != WEIR_OK) {
        linear_deinit(cpu, &plan->head);
        free(plan);
        return NULL;
    }
    return &plan->head;
}
