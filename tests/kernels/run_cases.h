/* run_cases: the cases of cases.h on any device. case_begin fills all operands with seeded numbers. Rows come last to
 * first from one generator a row, so that a row holds the same numbers whatever stands beside it.
 */
#ifndef WEIR_TESTS_KERNELS_RUN_CASES_H
#define WEIR_TESTS_KERNELS_RUN_CASES_H

#include "tests/kernels/cases.h"
#include "tests/kernels/harness.h"

#include "kernels/check.h"

/* Which operand y may be the same memory as, one of them: in[0], in[1], ... up to WEIR_OPERANDS_MAX, which ends it. */
struct operands_under_y {
    size_t in[3];
};

static inline struct operands_under_y operands_under_y(const struct kernel_case *c)
{
#define UNDER(...) ((struct operands_under_y){ { __VA_ARGS__, WEIR_OPERANDS_MAX } })
    switch (c->op) {
    case WEIR_OP_LINEAR:
        return UNDER(WEIR_LINEAR_RESIDUAL);
    case WEIR_OP_CONV2D:
        return UNDER(WEIR_CONV2D_RESIDUAL);
    case WEIR_OP_CONV_TEMPORAL:
        return UNDER(WEIR_CONV_TEMPORAL_RESIDUAL);
    case WEIR_OP_GROUP_NORM:
        return UNDER(WEIR_GROUP_NORM_X);
    case WEIR_OP_LAYER_NORM:
        return UNDER(WEIR_LAYER_NORM_X);
    case WEIR_OP_RMS_NORM:
        return UNDER(WEIR_RMS_NORM_X, WEIR_RMS_NORM_RESIDUAL);
    case WEIR_OP_MODULATED_NORM:
        return UNDER(WEIR_MODULATED_NORM_X);
    case WEIR_OP_TABLE_ADD:
        return c->shape.table_add.given < c->shape.table_add.vectors ? UNDER(WEIR_OPERANDS_MAX)
                                                                     : UNDER(WEIR_TABLE_ADD_X);
    case WEIR_OP_ROPE:
        return UNDER(WEIR_ROPE_X);
    case WEIR_OP_ACTIVATE:
        return weir_activation_is_gated(c->shape.activate.activation) ? UNDER(WEIR_OPERANDS_MAX)
                                                                      : UNDER(WEIR_ACTIVATE_X);
    case WEIR_OP_PIXEL_SHUFFLE:
        return UNDER(WEIR_PIXEL_SHUFFLE_RESIDUAL);
    case WEIR_OP_PIXEL_UNSHUFFLE:
        return UNDER(WEIR_PIXEL_UNSHUFFLE_RESIDUAL);
    default:
        return UNDER(WEIR_OPERANDS_MAX);
    }
#undef UNDER
}

/* Multiplications and additions of products, of all rows; 0 for ops without. */
static inline double flops_of(const struct kernel_case *c)
{
    const double rows = c->shape.linear.rows;
    switch (c->op) {
    case WEIR_OP_LINEAR:
        return 2.0 * rows * c->shape.linear.tokens * c->shape.linear.in * c->shape.linear.out;
    case WEIR_OP_LOW_RANK: {
        const struct weir_low_rank *s = &c->shape.low_rank;
        return 2.0 * rows * s->tokens * s->rank * ((double)s->in + s->out);
    }
    case WEIR_OP_CONV2D: {
        const struct weir_conv2d *s = &c->shape.conv2d;
        const struct weir_conv2d_size size = weir_conv2d_size_of(s);
        return 2.0 * rows * s->frames * size.height * size.width * s->in * s->out * s->kernel * s->kernel;
    }
    case WEIR_OP_CONV_TEMPORAL: {
        const struct weir_conv_temporal *s = &c->shape.conv_temporal;
        return 6.0 * rows * s->frames * s->pixels * s->in * s->out;
    }
    case WEIR_OP_GROUPED_LINEAR: {
        const struct weir_grouped_linear *s = &c->shape.grouped_linear;
        return 2.0 * rows * s->tokens * s->in * (s->out / s->groups);
    }
    case WEIR_OP_LINEAR_ATTENTION: {
        const struct weir_linear_attention *s = &c->shape.linear_attention;
        return 4.0 * rows * s->frames * s->pixels * s->heads * s->head_dim * s->head_dim;
    }
    case WEIR_OP_ATTENTION: {
        const struct weir_attention *s = &c->shape.attention;
        return 4.0 * rows * s->sequences * s->query_length * s->key_length * s->heads * s->head_dim;
    }
    default:
        return 0;
    }
}

/* The type of a shape's activations. */
static inline enum weir_dtype dtype_of(const struct kernel_case *c)
{
    switch (c->op) {
#define X(op, OP)                                                                                                      \
    case WEIR_OP_##OP:                                                                                                 \
        return c->shape.op.dtype;
        WEIR_OP_TABLE(X)
#undef X
    case WEIR_OP_COUNT:
        break;
    }
    return WEIR_F32;
}

/* Numbers of each operand a row, 0 when the case has none of that kind; and which one is y. */
struct operand_sizes {
    size_t row[WEIR_OPERANDS_MAX];
    size_t all[WEIR_OPERANDS_MAX]; /* of operands that all rows share */
    size_t y;
    bool y_bytes; /* y is uint8 */
};

static inline struct operand_sizes sizes_of(const struct kernel_case *c)
{
    struct operand_sizes n = { .row = { 0 } };
    switch (c->op) {
    case WEIR_OP_LINEAR: {
        const struct weir_linear *s = &c->shape.linear;
        n.y = WEIR_LINEAR_Y;
        n.row[WEIR_LINEAR_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * weir_linear_width(s);
        if (s->residual) n.row[WEIR_LINEAR_RESIDUAL] = n.row[n.y];
        n.row[WEIR_LINEAR_GATE] = (size_t)s->gate_vectors * weir_linear_width(s);
        break;
    }
    case WEIR_OP_LOW_RANK: {
        const struct weir_low_rank *s = &c->shape.low_rank;
        n.y = WEIR_LOW_RANK_Y;
        n.row[WEIR_LOW_RANK_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * s->y_channels;
        n.row[WEIR_LOW_RANK_GATE] = (size_t)s->gate_vectors * s->y_channels;
        n.all[WEIR_LOW_RANK_A] = (size_t)s->in * s->rank;
        n.all[WEIR_LOW_RANK_B] = (size_t)s->rank * s->out;
        break;
    }
    case WEIR_OP_GROUPED_LINEAR: {
        const struct weir_grouped_linear *s = &c->shape.grouped_linear;
        n.y = WEIR_GROUPED_LINEAR_Y;
        n.row[WEIR_GROUPED_LINEAR_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * s->out;
        break;
    }
    case WEIR_OP_CONV2D: {
        const struct weir_conv2d *s = &c->shape.conv2d;
        const struct weir_conv2d_size size = weir_conv2d_size_of(s);
        n.y = WEIR_CONV2D_Y;
        n.row[WEIR_CONV2D_X] = (size_t)s->frames * s->height * s->width * s->in;
        n.row[n.y] = (size_t)s->frames * size.height * size.width * s->out;
        if (s->residual) n.row[WEIR_CONV2D_RESIDUAL] = n.row[n.y];
        if (s->row_bias) n.row[WEIR_CONV2D_ROW_BIAS] = s->out;
        break;
    }
    case WEIR_OP_CONV_TEMPORAL: {
        const struct weir_conv_temporal *s = &c->shape.conv_temporal;
        n.y = WEIR_CONV_TEMPORAL_Y;
        n.row[WEIR_CONV_TEMPORAL_X] = (size_t)s->frames * s->pixels * s->in;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->out;
        if (s->residual) n.row[WEIR_CONV_TEMPORAL_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_DEPTHWISE_CONV: {
        const struct weir_depthwise_conv *s = &c->shape.depthwise_conv;
        n.y = WEIR_DEPTHWISE_CONV_Y;
        n.row[WEIR_DEPTHWISE_CONV_X] = (size_t)s->frames * s->height * s->width * s->channels;
        n.row[n.y] = n.row[WEIR_DEPTHWISE_CONV_X] / (s->glu ? 2 : 1);
        break;
    }
    case WEIR_OP_GROUP_NORM: {
        const struct weir_group_norm *s = &c->shape.group_norm;
        n.y = WEIR_GROUP_NORM_Y;
        n.row[WEIR_GROUP_NORM_X] = n.row[n.y] = (size_t)s->batch * s->pixels * s->channels;
        break;
    }
    case WEIR_OP_LAYER_NORM: {
        const struct weir_layer_norm *s = &c->shape.layer_norm;
        n.y = WEIR_LAYER_NORM_Y;
        n.row[WEIR_LAYER_NORM_X] = n.row[n.y] = (size_t)s->tokens * s->channels;
        break;
    }
    case WEIR_OP_RMS_NORM: {
        const struct weir_rms_norm *s = &c->shape.rms_norm;
        n.y = WEIR_RMS_NORM_Y;
        n.row[WEIR_RMS_NORM_X] = n.row[n.y] = (size_t)s->tokens * weir_rms_norm_width(s);
        if (s->residual) n.row[WEIR_RMS_NORM_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_MODULATED_NORM: {
        const struct weir_modulated_norm *s = &c->shape.modulated_norm;
        n.y = WEIR_MODULATED_NORM_Y;
        n.row[WEIR_MODULATED_NORM_X] = n.row[n.y] = (size_t)s->tokens * s->channels;
        n.row[WEIR_MODULATED_NORM_M] = (size_t)s->vectors * s->channels;
        break;
    }
    case WEIR_OP_TABLE_ADD: {
        const struct weir_table_add *s = &c->shape.table_add;
        n.y = WEIR_TABLE_ADD_Y;
        n.row[n.y] = (size_t)s->vectors * s->channels;
        n.row[WEIR_TABLE_ADD_X] = (size_t)s->given * s->channels;
        break;
    }
    case WEIR_OP_ATTENTION: {
        const struct weir_attention *s = &c->shape.attention;
        n.y = WEIR_ATTENTION_Y;
        n.row[WEIR_ATTENTION_Q] = (size_t)s->query.row_tokens * s->q_stride;
        n.row[WEIR_ATTENTION_K] = (size_t)s->key.row_tokens * s->k_stride;
        n.row[WEIR_ATTENTION_V] = (size_t)s->key.row_tokens * s->v_stride;
        n.row[n.y] = (size_t)s->query.row_tokens * s->y_stride;
        if (s->lengths) n.row[WEIR_ATTENTION_LENGTHS] = 1;
        break;
    }
    case WEIR_OP_LINEAR_ATTENTION: {
        const struct weir_linear_attention *s = &c->shape.linear_attention;
        n.y = WEIR_LINEAR_ATTENTION_Y;
        n.row[WEIR_LINEAR_ATTENTION_X] = (size_t)s->frames * s->pixels * s->stride;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->heads * s->head_dim;
        break;
    }
    case WEIR_OP_ROPE:
        n.y = WEIR_ROPE_Y;
        n.row[WEIR_ROPE_X] = n.row[n.y] = (size_t)c->shape.rope.tokens * c->shape.rope.channels;
        break;
    case WEIR_OP_EMBED:
        n.y = WEIR_EMBED_Y;
        n.row[WEIR_EMBED_IDS] = c->shape.embed.tokens;
        n.row[n.y] = (size_t)c->shape.embed.tokens * c->shape.embed.channels;
        break;
    case WEIR_OP_TIMESTEP_EMBEDDING:
        n.y = WEIR_TIMESTEP_EMBEDDING_Y;
        n.row[WEIR_TIMESTEP_EMBEDDING_T] = 1;
        n.row[n.y] = c->shape.timestep_embedding.dim;
        break;
    case WEIR_OP_ACTIVATE:
        n.y = WEIR_ACTIVATE_Y;
        n.row[WEIR_ACTIVATE_X] = n.row[n.y] = (size_t)c->shape.activate.tokens * c->shape.activate.channels;
        if (weir_activation_is_gated(c->shape.activate.activation)) n.row[WEIR_ACTIVATE_X] *= 2;
        break;
    case WEIR_OP_CONCAT: {
        const struct weir_concat *s = &c->shape.concat;
        n.y = WEIR_CONCAT_Y;
        n.row[WEIR_CONCAT_A] = (size_t)s->tokens * s->a_channels;
        n.row[WEIR_CONCAT_B] = (size_t)s->tokens * s->b_channels;
        n.row[n.y] = n.row[WEIR_CONCAT_A] + n.row[WEIR_CONCAT_B];
        break;
    }
    case WEIR_OP_REGROUP:
        n.y = WEIR_REGROUP_Y;
        n.row[WEIR_REGROUP_X] = (size_t)c->shape.regroup.tokens * c->shape.regroup.in;
        n.row[n.y] = (size_t)c->shape.regroup.tokens * c->shape.regroup.out;
        break;
    case WEIR_OP_PIXEL_SHUFFLE: {
        const struct weir_pixel_shuffle *s = &c->shape.pixel_shuffle;
        const size_t pixels = (size_t)s->frames * s->height * s->width;
        n.y = WEIR_PIXEL_SHUFFLE_Y;
        n.row[WEIR_PIXEL_SHUFFLE_X] = pixels * s->in;
        n.row[n.y] = 4 * pixels * s->out;
        if (s->residual) n.row[WEIR_PIXEL_SHUFFLE_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_PIXEL_UNSHUFFLE: {
        const struct weir_pixel_unshuffle *s = &c->shape.pixel_unshuffle;
        const size_t pixels = (size_t)s->frames * s->height * s->width;
        n.y = WEIR_PIXEL_UNSHUFFLE_Y;
        n.row[WEIR_PIXEL_UNSHUFFLE_X] = pixels * s->in;
        n.row[n.y] = pixels / 4 * s->out;
        if (s->residual) n.row[WEIR_PIXEL_UNSHUFFLE_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_LATENTS_PACK: {
        const struct weir_latents_pack *s = &c->shape.latents_pack;
        n.y = WEIR_LATENTS_PACK_Y;
        n.row[WEIR_LATENTS_PACK_X] = (size_t)s->frames * s->pixels * s->channels;
        n.row[n.y] = n.row[WEIR_LATENTS_PACK_X] * s->copies;
        if (s->scaled) n.row[WEIR_LATENTS_PACK_K] = WEIR_SAMPLER_COEFFICIENTS;
        break;
    }
    case WEIR_OP_GUIDANCE: {
        const struct weir_guidance *s = &c->shape.guidance;
        n.y = WEIR_GUIDANCE_Y;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->channels;
        n.row[WEIR_GUIDANCE_X] = n.row[n.y] * s->copies;
        if (s->copies > 1) n.row[WEIR_GUIDANCE_SCALE] = 1;
        break;
    }
    case WEIR_OP_SAMPLER_STEP:
        n.y = WEIR_SAMPLER_STEP_X;
        n.row[WEIR_SAMPLER_STEP_X] = n.row[WEIR_SAMPLER_STEP_M] = c->shape.sampler_step.n;
        n.row[WEIR_SAMPLER_STEP_PREVIOUS] = c->shape.sampler_step.n;
        n.row[WEIR_SAMPLER_STEP_K] = WEIR_SAMPLER_COEFFICIENTS;
        break;
    case WEIR_OP_TO_RGB8:
        n.y = WEIR_TO_RGB8_Y;
        n.row[WEIR_TO_RGB8_X] = (size_t)c->shape.to_rgb8.tokens * c->shape.to_rgb8.channels;
        n.row[n.y] = (size_t)c->shape.to_rgb8.tokens * 3;
        n.y_bytes = true;
        break;
    case WEIR_OP_COUNT:
        break;
    }
    return n;
}

/* The shape's first member is its number of rows, or items. */
static inline uint32_t *rows_of(struct kernel_case *c)
{
    return &c->shape.linear.rows;
}

/* A case with its numbers. */
struct running_case {
    struct kernel_case c;
    struct operand_sizes sizes;
    struct weir_parameters parameters;
    float *weight, *bias;
    float *operands[WEIR_OPERANDS_MAX];
};

static inline struct weir_parameters parameters_of(const struct kernel_case *c)
{
    struct weir_parameters q = { .op = c->op };
    switch (c->op) {
    case WEIR_OP_LINEAR:
        q.out = c->shape.linear.out, q.in = c->shape.linear.in;
        q.geglu = c->geglu || weir_activation_is_gated(c->shape.linear.activation);
        break;
    case WEIR_OP_GROUPED_LINEAR:
        q.out = c->shape.grouped_linear.out, q.in = c->shape.grouped_linear.in;
        q.kernel = c->shape.grouped_linear.groups;
        break;
    case WEIR_OP_DEPTHWISE_CONV:
        q.out = c->shape.depthwise_conv.channels, q.kernel = c->shape.depthwise_conv.kernel;
        break;
    case WEIR_OP_RMS_NORM:
        q.out = c->shape.rms_norm.parts * c->shape.rms_norm.channels;
        break;
    case WEIR_OP_TABLE_ADD:
        q.out = c->shape.table_add.vectors, q.in = c->shape.table_add.channels;
        break;
    case WEIR_OP_CONV2D:
        q.out = c->shape.conv2d.out, q.in = c->shape.conv2d.in, q.kernel = c->shape.conv2d.kernel;
        q.doubled = q.kernel == 3 && c->shape.conv2d.resize_height > 0;
        break;
    case WEIR_OP_CONV_TEMPORAL:
        q.out = c->shape.conv_temporal.out, q.in = c->shape.conv_temporal.in;
        break;
    case WEIR_OP_GROUP_NORM:
        q.out = c->shape.group_norm.channels;
        break;
    case WEIR_OP_LAYER_NORM:
        q.out = c->shape.layer_norm.channels;
        break;
    case WEIR_OP_EMBED:
        q.out = c->shape.embed.vocabulary, q.in = c->shape.embed.channels, q.kernel = c->shape.embed.positions;
        break;
    default:
        break;
    }
    return q;
}

/* The numbers of rows first_row.. of a case with `rows` rows. Weights come from the case alone. */
static inline struct running_case case_begin(const struct kernel_case *c, uint32_t first_row, uint32_t rows)
{
    struct running_case r = { .c = *c, .sizes = sizes_of(c), .parameters = parameters_of(c) };
    uint64_t seed = 0x1234567;
    *rows_of(&r.c) = rows;
    if (r.parameters.out) {
        r.parameters.weight = (const float[]){ 0 }; /* to be counted */
        r.parameters.bias = c->no_bias ? NULL : r.parameters.weight;
        const bool grouped = c->op == WEIR_OP_GROUPED_LINEAR; /* whose kernel is a number of groups */
        const uint64_t taps = r.parameters.kernel && !grouped ? r.parameters.kernel * r.parameters.kernel : 1;
        const uint64_t fan_in = (r.parameters.in && c->op != WEIR_OP_TABLE_ADD ? r.parameters.in : 1) * taps;
        r.weight = random_floats(&seed, weir_weight_count(&r.parameters), 1 / sqrtf((float)fan_in));
        if (!c->no_bias) r.bias = random_floats(&seed, weir_bias_count(&r.parameters), 1);
        r.parameters.weight = r.weight;
        r.parameters.bias = r.bias;
        r.parameters.dtype = c->reads;
    }
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        uint64_t all_seed = 0x7654321 + i;
        if (r.sizes.all[i]) r.operands[i] = random_floats(&all_seed, r.sizes.all[i], 0.2f);
        if (r.sizes.row[i] == 0) continue;
        r.operands[i] = random_floats(&seed, r.sizes.row[i] * rows, 0);
        for (uint32_t row = 0; row < rows; row++) {
            uint64_t row_seed = 0x9e3779b97f4a7c15ull * (first_row + row + 1) + i;
            for (size_t k = 0; k < r.sizes.row[i]; k++) {
                const float value = random_normal(&row_seed);
                float *at = &r.operands[i][row * r.sizes.row[i] + k];
                if (c->op == WEIR_OP_EMBED && i == WEIR_EMBED_IDS) {
                    const int32_t id = (int32_t)(next_random(&row_seed) % c->shape.embed.vocabulary);
                    memcpy(at, &id, sizeof id);
                } else if (c->op == WEIR_OP_ATTENTION && i == WEIR_ATTENTION_LENGTHS) {
                    const int32_t length = 1 + (int32_t)(next_random(&row_seed) % c->shape.attention.key_length);
                    memcpy(at, &length, sizeof length);
                } else {
                    *at = c->op == WEIR_OP_TIMESTEP_EMBEDDING ? 500 + 200 * value : value;
                }
            }
        }
    }
    return r;
}

static inline void case_end(struct running_case *r)
{
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) free(r->operands[i]);
    free(r->weight);
    free(r->bias);
}

static inline size_t operand_bytes(const struct running_case *r, size_t i)
{
    return (r->sizes.row[i] * r->c.shape.linear.rows + r->sizes.all[i]) * sizeof(float);
}

static inline bool memory_is_the_hosts(const struct weir_device *device)
{
    return strcmp(device->table->name, "cuda") != 0;
}

/* The operands in the device's own memory: those that are the same memory here are so there. */
static inline void operands_to(struct weir_device *device, struct weir_stream *stream, const struct running_case *r,
                               void *there[WEIR_OPERANDS_MAX])
{
    struct weir_error error = { 0 };
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        there[i] = NULL;
        for (size_t k = 0; k < i && r->operands[i]; k++) {
            if (r->operands[k] == r->operands[i]) there[i] = there[k];
        }
        if (there[i] || !r->operands[i]) continue;
        assert_int_equal(device->table->memory_alloc(device, operand_bytes(r, i), &there[i], &error), WEIR_OK);
        assert_int_equal(device->table->upload(stream, there[i], r->operands[i], operand_bytes(r, i)), WEIR_OK);
    }
}

/* And back, all of them: an op that writes over what it may only read shows too. */
static inline void operands_from(struct weir_device *device, struct weir_stream *stream, struct running_case *r,
                                 void *there[WEIR_OPERANDS_MAX])
{
    struct weir_error error = { 0 };
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (!there[i]) continue;
        assert_int_equal(device->table->download(stream, r->operands[i], there[i], operand_bytes(r, i)), WEIR_OK);
    }
    if (device->table->stream_sync(stream, &error) != WEIR_OK) fail_msg("%s: %s", r->c.label, error.words);
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        bool freed = !there[i];
        for (size_t k = 0; k < i; k++) freed = freed || there[k] == there[i];
        if (!freed) device->table->memory_free(device, there[i]);
    }
}

static inline void case_run(struct running_case *r, struct weir_device *device)
{
    struct weir_error error = { 0 };
    struct weir_stream *stream = NULL;
    void *operands[WEIR_OPERANDS_MAX];
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) operands[i] = r->operands[i];
    if (!memory_is_the_hosts(device)) {
        assert_int_equal(device->table->stream_create(device, &stream, &error), WEIR_OK);
        operands_to(device, stream, r, operands);
        assert_int_equal(device->table->stream_sync(stream, &error), WEIR_OK);
    }
    if (r->weight) {
        run_layer(device, &r->parameters, &r->c.shape, operands);
    } else {
        run_op(device, r->c.op, NULL, &r->c.shape, operands);
    }
    if (stream) {
        operands_from(device, stream, r, operands);
        device->table->stream_destroy(stream);
    }
}

/* f32 against f64 sums: a product over K terms rounds each of its sums to 2^-24 of its size so far, which is sqrt(K) of
 * a term on average; over K <= 3,000 that stays near 1e-6 of the result, and grows with the root of K beyond. */
#define TOLERANCE 2e-6
#define TOLERANCE_TERMS 3000

static inline double f32_tolerance(const struct kernel_case *c)
{
    double terms = 0;
    if (c->op == WEIR_OP_LINEAR) terms = c->shape.linear.in;
    if (c->op == WEIR_OP_CONV2D) terms = (double)c->shape.conv2d.in * c->shape.conv2d.kernel * c->shape.conv2d.kernel;
    if (c->op == WEIR_OP_CONV_TEMPORAL) terms = 3.0 * c->shape.conv_temporal.in;
    return TOLERANCE * sqrt(terms > TOLERANCE_TERMS ? terms / TOLERANCE_TERMS : 1);
}

/* Whether `got` is near enough to what the judge gives, or, where y is of bytes, the same; else it is said. Raises *worst
 * to the distance. */
static inline bool case_agrees(const struct running_case *wanted, const struct running_case *got, double tolerance,
                               double *worst)
{
    const size_t y = wanted->sizes.y, count = wanted->sizes.row[y] * wanted->c.shape.linear.rows;
    if (wanted->sizes.y_bytes) {
        if (memcmp(got->operands[y], wanted->operands[y], count) == 0) return true;
        print_error("%s: other bytes\n", wanted->c.label);
        return false;
    }
    const double error = relative_error(got->operands[y], wanted->operands[y], count);
    *worst = fmax(*worst, error);
    if (error <= tolerance) return true;
    print_error("%s: relative error %.2e\n", wanted->c.label, error);
    return false;
}

static inline size_t y_bytes(const struct running_case *r, uint32_t rows)
{
    return r->sizes.row[r->sizes.y] * rows * (r->sizes.y_bytes ? 1 : sizeof(float));
}

/* y in the memory of each operand that it may lie over has the bytes of y apart from them all. */
static inline void y_over_what_it_may_be_has_the_bytes_of_y_apart(struct weir_device *device,
                                                                  const struct kernel_case *c)
{
    const struct operands_under_y under = operands_under_y(c);
    for (size_t k = 0; under.in[k] < WEIR_OPERANDS_MAX; k++) {
        struct running_case apart = case_begin(c, 0, 2), over = case_begin(c, 0, 2);
        const size_t y = apart.sizes.y;
        float *own = over.operands[y];
        if (over.operands[under.in[k]]) {
            over.operands[y] = over.operands[under.in[k]];
            case_run(&apart, device);
            case_run(&over, device);
            if (memcmp(apart.operands[y], over.operands[y], y_bytes(&apart, 2)) != 0) {
                fail_msg("%s: other bytes with y over operand %zu", c->label, under.in[k]);
            }
            over.operands[y] = own;
        }
        case_end(&apart);
        case_end(&over);
    }
}

/* depthwise_conv of x that it activates has the bytes of activate, and depthwise_conv of that. `run` is as case_run. */
static inline void x_is_read_as_activate_would_store_it(struct weir_device *device, const struct kernel_case *c,
                                                        void (*run)(struct running_case *r, struct weir_device *device))
{
    const struct weir_depthwise_conv *s = &c->shape.depthwise_conv;
    if (c->op != WEIR_OP_DEPTHWISE_CONV || s->activation == WEIR_ACT_NONE) return;
    const struct kernel_case activate = { .label = c->label,
                                          .op = WEIR_OP_ACTIVATE,
                                          .shape.activate = { .rows = s->rows,
                                                              .tokens = s->frames * s->height * s->width,
                                                              .channels = s->channels,
                                                              .activation = s->activation } };
    struct kernel_case plain = *c;
    plain.shape.depthwise_conv.activation = WEIR_ACT_NONE;
    struct running_case both = case_begin(c, 0, 2), first = case_begin(&activate, 0, 2),
                        second = case_begin(&plain, 0, 2);
    memcpy(first.operands[WEIR_ACTIVATE_X], both.operands[WEIR_DEPTHWISE_CONV_X],
           operand_bytes(&both, WEIR_DEPTHWISE_CONV_X));
    run(&both, device);
    run(&first, device);
    memcpy(second.operands[WEIR_DEPTHWISE_CONV_X], first.operands[WEIR_ACTIVATE_Y],
           operand_bytes(&both, WEIR_DEPTHWISE_CONV_X));
    run(&second, device);
    if (memcmp(both.operands[WEIR_DEPTHWISE_CONV_Y], second.operands[WEIR_DEPTHWISE_CONV_Y], y_bytes(&both, 2)) != 0) {
        fail_msg("%s: other bytes than with activate before it", c->label);
    }
    case_end(&both);
    case_end(&first);
    case_end(&second);
}

/* Row 1 alone, as the second of two, and as the first of three: always the same bytes. */
static inline void bytes_of_row_one_are_its_own(struct weir_device *device, const struct kernel_case *c)
{
    struct running_case alone = case_begin(c, 1, 1), pair = case_begin(c, 0, 2), three = case_begin(c, 1, 3);
    case_run(&alone, device);
    case_run(&pair, device);
    case_run(&three, device);
    const size_t y = alone.sizes.y, row = y_bytes(&alone, 1);
    if (memcmp(alone.operands[y], (char *)pair.operands[y] + row, row) != 0 ||
        memcmp(alone.operands[y], three.operands[y], row) != 0) {
        fail_msg("%s: a row's bytes depend on the rows beside it", alone.c.label);
    }
    case_end(&alone);
    case_end(&pair);
    case_end(&three);
}

#endif
