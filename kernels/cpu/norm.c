/* The norms.
 *
 * group_norm: the pixels of a batch entry in pieces. One that fits in a core's cache is one piece and one item: sums,
 * squares about the mean and the result, one after the other. A larger one takes two rounds: first each piece finds its
 * own mean and squares about it, then each piece joins those of all pieces, in their order (Chan, Golub and LeVeque
 * 1983), and normalises its pixels. Sums over pixels are of the distance to the first pixel, f32 for 32 pixels and f64
 * beyond; the part of the mean that f32 cannot hold goes into beta.
 *
 * layer_norm, rms_norm and modulated_norm: each token by itself, in pieces of a row. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE_BYTES_MAX 262144 /* an entry of at most this size is one piece */
#define PIECE_BYTES 131072
#define PIECES_MAX 256 /* every piece joins the statistics of all */

struct statistics { /* of one group in one piece */
    double mean, squares;
};

struct group_norm_plan {
    struct weir_cpu_plan head;
    struct weir_group_norm shape;
    uint32_t piece_pixels, pieces;
};

/* A slice: C doubles, then 3 C floats. */
struct vectors {
    double *sums;
    float *mean, *scale, *beta;
};

static struct vectors vectors_of(const struct weir_cpu_run *run, uint32_t slot, uint32_t channels)
{
    double *sums = weir_cpu_slice(run, slot);
    float *mean = (float *)(void *)((char *)sums + weir_cpu_aligned(channels * sizeof(double)));
    return (struct vectors){ sums, mean, mean + channels, mean + 2 * (size_t)channels };
}

static size_t vectors_bytes(uint32_t channels)
{
    return weir_cpu_aligned(channels * sizeof(double)) + 3 * (size_t)channels * sizeof(float);
}

static double sum_of(const double *sums, uint32_t count)
{
    double sum = 0;
    for (uint32_t c = 0; c < count; c++) sum += sums[c];
    return sum;
}

static void piece_statistics(const struct weir_cpu_simd *simd, const struct weir_group_norm *s, const float *x,
                             uint32_t pixels, const struct vectors *v, struct statistics *out)
{
    const uint32_t per_group = s->channels / s->groups;
    const double count = (double)pixels * per_group;

    simd->channel_sums(x, pixels, s->channels, x, v->sums); /* about the first pixel */
    for (uint32_t g = 0; g < s->groups; g++) {
        out[g].mean = sum_of(v->sums + (size_t)g * per_group, per_group) / count;
        for (uint32_t c = g * per_group; c < (g + 1) * per_group; c++) out[g].mean += (double)x[c] / per_group;
        for (uint32_t c = g * per_group; c < (g + 1) * per_group; c++) v->mean[c] = (float)out[g].mean;
    }
    simd->channel_squares(x, pixels, s->channels, v->mean, v->sums);
    for (uint32_t g = 0; g < s->groups; g++) { /* about the rounded mean; moved to the mean itself */
        const double rounded = (double)(float)out[g].mean - out[g].mean;
        out[g].squares = sum_of(v->sums + (size_t)g * per_group, per_group) - count * rounded * rounded;
    }
}

static uint32_t piece_size(const struct group_norm_plan *plan, uint32_t piece)
{
    const uint32_t first = piece * plan->piece_pixels;
    return plan->shape.pixels - first < plan->piece_pixels ? plan->shape.pixels - first : plan->piece_pixels;
}

/* The statistics of all pieces of an entry as one. */
static struct statistics join(const struct group_norm_plan *plan, const struct statistics *pieces, uint32_t group)
{
    const uint32_t groups = plan->shape.groups;
    struct statistics all = { 0, 0 };
    for (uint32_t i = 0; i < plan->pieces; i++) all.mean += pieces[i * groups + group].mean * piece_size(plan, i);
    all.mean /= plan->shape.pixels;
    for (uint32_t i = 0; i < plan->pieces; i++) {
        const struct statistics *one = &pieces[i * groups + group];
        const double count = (double)piece_size(plan, i) * (plan->shape.channels / groups);
        all.squares += one->squares + count * (one->mean - all.mean) * (one->mean - all.mean);
    }
    return all;
}

/* The entry's vectors for normalise(), from the statistics of its pieces. */
static void prepare(const struct group_norm_plan *plan, const struct statistics *pieces, const struct vectors *v)
{
    const struct weir_group_norm *s = &plan->shape;
    const struct weir_cpu_packed *layer = plan->head.layer;
    const uint32_t per_group = s->channels / s->groups;
    for (uint32_t g = 0; g < s->groups; g++) {
        const struct statistics all = join(plan, pieces, g);
        const double variance = all.squares > 0 ? all.squares / ((double)s->pixels * per_group) : 0;
        const double inverse = 1 / sqrt(variance + (double)s->eps);
        for (uint32_t c = g * per_group; c < (g + 1) * per_group; c++) {
            const double scale = inverse * (double)layer->vector_weight[c];
            v->mean[c] = (float)all.mean;
            v->scale[c] = (float)scale;
            v->beta[c] = (float)((double)layer->bias[c] - (all.mean - (double)v->mean[c]) * scale);
        }
    }
}

/* Where piece `item` lies in x and y, counted in floats. */
static size_t piece_offset(const struct group_norm_plan *plan, uint32_t item)
{
    const size_t entry = item / plan->pieces, piece = item % plan->pieces;
    return (entry * plan->shape.pixels + piece * plan->piece_pixels) * plan->shape.channels;
}

static void statistics_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct group_norm_plan *plan = (const struct group_norm_plan *)run->plan;
    const struct vectors v = vectors_of(run, slot, plan->shape.channels);
    piece_statistics(run->cpu->simd, &plan->shape,
                     (const float *)run->operands[WEIR_GROUP_NORM_X] + piece_offset(plan, item),
                     piece_size(plan, item % plan->pieces), &v,
                     (struct statistics *)weir_cpu_shared(run) + (size_t)item * plan->shape.groups);
}

static void normalise_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct group_norm_plan *plan = (const struct group_norm_plan *)run->plan;
    const struct vectors v = vectors_of(run, slot, plan->shape.channels);
    const size_t offset = piece_offset(plan, item), first = (size_t)(item / plan->pieces) * plan->pieces;
    prepare(plan, (const struct statistics *)weir_cpu_shared(run) + first * plan->shape.groups, &v);
    run->cpu->simd->normalise((const float *)run->operands[WEIR_GROUP_NORM_X] + offset,
                              (float *)run->operands[WEIR_GROUP_NORM_Y] + offset, piece_size(plan, item % plan->pieces),
                              plan->shape.channels, v.mean, v.scale, v.beta, plan->shape.silu);
}

static void whole_item(void *context, uint32_t item, uint32_t slot)
{
    statistics_item(context, item, slot);
    normalise_item(context, item, slot);
}

static void group_norm_run(struct weir_cpu_run *run)
{
    const struct group_norm_plan *plan = (const struct group_norm_plan *)run->plan;
    const uint32_t items = plan->shape.rows * plan->shape.batch * plan->pieces;
    if (plan->pieces == 1) {
        weir_cpu_items(run, items, whole_item);
        return;
    }
    weir_cpu_items(run, items, statistics_item);
    weir_cpu_items(run, items, normalise_item);
}

struct weir_cpu_plan *weir_cpu_plan_group_norm(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                               const struct weir_group_norm *s, struct weir_error *error)
{
    (void)cpu;
    struct group_norm_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    const uint64_t pixel_bytes = (uint64_t)s->channels * sizeof(float);
    plan->shape = *s;
    plan->piece_pixels = s->pixels;
    if (pixel_bytes * s->pixels > WHOLE_BYTES_MAX) {
        uint64_t wanted = PIECE_BYTES / pixel_bytes + 1;
        if (s->pixels / wanted > PIECES_MAX) wanted = s->pixels / PIECES_MAX + 1;
        plan->piece_pixels = weir_cpu_piece(s->pixels, wanted);
    }
    plan->pieces = (s->pixels + plan->piece_pixels - 1) / plan->piece_pixels;
    plan->head.layer = layer;
    plan->head.run = group_norm_run;
    plan->head.slice_bytes = vectors_bytes(s->channels);
    plan->head.shared_bytes = (size_t)s->rows * s->batch * plan->pieces * s->groups * sizeof(struct statistics);
    return &plan->head;
}

/* --- of each token ------------------------------------------------------------------------------------------------ */

struct token_norm_plan {
    struct weir_cpu_plan head;
    uint32_t rows, tokens, width;  /* width: channels of a token */
    uint32_t piece_tokens, pieces; /* of a row */
    union {
        struct weir_layer_norm layer_norm;
        struct weir_rms_norm rms_norm;
        struct weir_modulated_norm modulated_norm;
    } shape;
};

struct span { /* the tokens of an item */
    uint32_t row, tokens;
    size_t offset; /* of the first, in floats */
};

static struct span span_of(const struct token_norm_plan *plan, uint32_t item)
{
    const uint32_t first = item % plan->pieces * plan->piece_tokens, row = item / plan->pieces;
    const uint32_t left = plan->tokens - first;
    return (struct span){ .row = row,
                          .tokens = left < plan->piece_tokens ? left : plan->piece_tokens,
                          .offset = ((size_t)row * plan->tokens + first) * plan->width };
}

static void layer_norm_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct token_norm_plan *plan = (const struct token_norm_plan *)run->plan;
    const struct span span = span_of(plan, item);
    (void)slot;
    run->cpu->simd->layer_norm((const float *)run->operands[WEIR_LAYER_NORM_X] + span.offset,
                               (float *)run->operands[WEIR_LAYER_NORM_Y] + span.offset, span.tokens, plan->width,
                               plan->head.layer->vector_weight, plan->head.layer->bias, plan->shape.layer_norm.eps);
}

static void rms_norm_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct token_norm_plan *plan = (const struct token_norm_plan *)run->plan;
    const struct weir_rms_norm *s = &plan->shape.rms_norm;
    const struct span span = span_of(plan, item);
    const float *gamma = plan->head.layer->vector_weight, *beta = plan->head.layer->bias;
    const float *x = (const float *)run->operands[WEIR_RMS_NORM_X] + span.offset;
    const float *residual = s->residual ? (const float *)run->operands[WEIR_RMS_NORM_RESIDUAL] + span.offset : NULL;
    float *y = (float *)run->operands[WEIR_RMS_NORM_Y] + span.offset;
    (void)slot;
    for (uint32_t p = 0; p < s->parts; p++) {
        const size_t c = (size_t)p * s->channels;
        run->cpu->simd->rms_norm(s->activation, x + c, residual, y + c, span.tokens, s->channels, plan->width,
                                 gamma + c, beta ? beta + c : NULL, s->eps);
    }
    const size_t rest = plan->width - s->rest;
    for (size_t l = 0; l < span.tokens && s->rest && x != y; l++)
        memcpy(y + l * plan->width + rest, x + l * plan->width + rest, s->rest * sizeof *y);
}

/* A layer_norm whose gamma is 1 + the row's scale. */
static void modulated_norm_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct token_norm_plan *plan = (const struct token_norm_plan *)run->plan;
    const struct weir_modulated_norm *s = &plan->shape.modulated_norm;
    const struct span span = span_of(plan, item);
    const float *m = (const float *)run->operands[WEIR_MODULATED_NORM_M] + (size_t)span.row * s->vectors * s->channels;
    const float *scale = m + (size_t)s->scale * s->channels, *shift = m + (size_t)s->shift * s->channels;
    float *gamma = weir_cpu_slice(run, slot);
    for (uint32_t c = 0; c < s->channels; c++) gamma[c] = 1 + scale[c];
    run->cpu->simd->layer_norm((const float *)run->operands[WEIR_MODULATED_NORM_X] + span.offset,
                               (float *)run->operands[WEIR_MODULATED_NORM_Y] + span.offset, span.tokens, s->channels,
                               gamma, shift, s->eps);
}

#define TOKEN_NORM(op, token_width)                                                                                    \
    static void op##_run(struct weir_cpu_run *run)                                                                     \
    {                                                                                                                  \
        const struct token_norm_plan *plan = (const struct token_norm_plan *)run->plan;                                \
        weir_cpu_items(run, plan->rows * plan->pieces, op##_item);                                                     \
    }                                                                                                                  \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *s, struct weir_error *error)                      \
    {                                                                                                                  \
        struct token_norm_plan *plan = token_norm_plan_create(s->rows, s->tokens, token_width, error);                 \
        (void)cpu;                                                                                                     \
        if (!plan) return NULL;                                                                                        \
        plan->shape.op = *s;                                                                                           \
        plan->head.layer = layer;                                                                                      \
        plan->head.run = op##_run;                                                                                     \
        return &plan->head;                                                                                            \
    }

static struct token_norm_plan *token_norm_plan_create(uint32_t rows, uint32_t tokens, uint32_t width,
                                                      struct weir_error *error)
{
    struct token_norm_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->rows = rows;
    plan->tokens = tokens;
    plan->width = width;
    plan->piece_tokens = weir_cpu_piece(tokens, PIECE_BYTES / (width * sizeof(float)) + 1);
    plan->pieces = (tokens + plan->piece_tokens - 1) / plan->piece_tokens;
    plan->head.slice_bytes = width * sizeof(float); /* modulated_norm's gamma */
    return plan;
}
TOKEN_NORM(layer_norm, s->channels)
TOKEN_NORM(rms_norm, weir_rms_norm_width(s))
TOKEN_NORM(modulated_norm, s->channels)
