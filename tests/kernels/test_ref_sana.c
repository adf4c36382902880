/* The judge's ops of the Sana family, judged by hand as in test_ref.c: small cases, identities, and what is refused. */
#include "tests/kernels/run_cases.h"

#define NEAR(value, wanted) assert_float_equal(value, wanted, 2e-6f)

static struct weir_device *ref;

static int begin(void **state)
{
    (void)state;
    ref = open_device("ref", 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    weir_device_close(&ref);
    return 0;
}

static void linear_multiplies_by_the_rows_gate_before_the_residual(void **state)
{
    (void)state;
    const float weight[] = { 1, 2 }, bias[] = { 1, -1 }; /* [2, 1] */
    float x[] = { 1, 2, 3, -4 }, residual[] = { 100, 200, 300, 400, 500, 600, 700, 800 }, y[8];
    float gate[] = { 9, 9, 2, 3, 9, 9, -1, 0.5f }; /* 2 rows of 2 vectors, of which the second counts */
    const struct weir_parameters q = { .op = WEIR_OP_LINEAR, .weight = weight, .bias = bias, .out = 2, .in = 1 };
    struct weir_linear shape = { .rows = 2,
                                 .tokens = 2,
                                 .in = 1,
                                 .out = 2,
                                 .activation = WEIR_ACT_RELU,
                                 .residual = true,
                                 .gate_vectors = 2,
                                 .gate_vector = 1 };
    run_layer(ref, &q, &shape, (void *[]){ x, residual, gate, y });
    const float wanted[] = { 104, 203, 306, 409, 496, 602.5f, 700, 800 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], wanted[i]);
}

static void geglu_tanh_gates_by_the_tanh_form_of_gelu(void **state)
{
    (void)state;
    const float weight[] = { 2, 1, -1, 1 };
    float x[] = { 1 }, y[2];
    run_layer(ref,
              &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 4, .in = 1, .geglu = true },
              &(struct weir_linear){ .rows = 1, .tokens = 1, .in = 1, .out = 4, .activation = WEIR_ACT_GEGLU_TANH },
              (void *[]){ x, NULL, NULL, y });
    NEAR(y[0], 2 * (0.841191991f - 1)); /* gelu(-1) = gelu(1) - 1 in both forms */
    NEAR(y[1], 0.841191991f);
}

static void grouped_linear_sees_its_own_groups_inputs_alone(void **state)
{
    (void)state;
    const float weight[] = { 1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60 }; /* [6, 2]: 2 groups of 2 -> 3 */
    float x[] = { 1, 2, 3, 4, 0, 1, 1, 0 }, y[12];
    run_layer(
        ref,
        &(struct weir_parameters){ .op = WEIR_OP_GROUPED_LINEAR, .weight = weight, .out = 6, .in = 4, .kernel = 2 },
        &(struct weir_grouped_linear){ .rows = 1, .tokens = 2, .in = 4, .out = 6, .groups = 2 }, (void *[]){ x, y });
    const float wanted[] = { 21, 42, 63, 4 * 43, 5 * 43, 6 * 43, 10, 20, 30, 4, 5, 6 };
    for (size_t i = 0; i < 12; i++) NEAR(y[i], wanted[i]);
}

/* One channel's kernel moves its picture right, the other's adds the pixels above and below; outside there is 0. */
static void depthwise_conv_has_a_kernel_a_channel(void **state)
{
    (void)state;
    const float weight[] = { 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0 }, bias[] = { 0.5f, 0 };
    float x[] = { 1, 10, 2, 20, 3, 30, 4, 40 }, y[8]; /* 2 x 2 pixels of 2 channels */
    const struct weir_parameters q = {
        .op = WEIR_OP_DEPTHWISE_CONV, .weight = weight, .bias = bias, .out = 2, .kernel = 3
    };
    struct weir_depthwise_conv shape = { .rows = 1, .frames = 1, .height = 2, .width = 2, .channels = 2, .kernel = 3 };
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    const float wanted[] = { 0.5f, 30, 1.5f, 40, 0.5f, 10, 3.5f, 20 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], wanted[i]);
    shape.glu = true; /* 0.5 silu(30), 1.5 silu(40), ..: silu(z) is z from 20 on, and 10 (1 - 4.54e-5) at 10 */
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    const float gated[] = { 15, 60, 5 * (1 - 4.539787e-5f), 70 };
    for (size_t i = 0; i < 4; i++) assert_float_equal(y[i], gated[i], 1e-5f);
    shape.glu = false;
    shape.activation = WEIR_ACT_SILU; /* silu(1) = 0.7310586, silu(3) = 2.8577224 move right; what pads stays 0 */
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    const float activated[] = { 0.5f, 30, 1.2310586f, 40, 0.5f, 10 * (1 - 4.539787e-5f), 3.3577224f, 20 };
    for (size_t i = 0; i < 8; i++) assert_float_equal(y[i], activated[i], 1e-5f);
}

static void rms_norm_divides_by_the_root_of_the_mean_square(void **state)
{
    (void)state;
    const float gamma[] = { 1, 2 }, beta[] = { 0, 1 };
    float x[] = { 1, -7, 0, 0 }, residual[] = { 10, 20, 30, 40 }, y[4]; /* mean squares 25 and 0 */
    struct weir_parameters q = { .op = WEIR_OP_RMS_NORM, .weight = gamma, .out = 2 };
    struct weir_rms_norm shape = { .rows = 1, .tokens = 2, .parts = 1, .channels = 2, .eps = 1e-12f };
    run_layer(ref, &q, &shape, (void *[]){ x, NULL, y });
    const float plain[] = { 0.2f, -2.8f, 0, 0 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], plain[i]);
    q.bias = beta;
    shape.activation = WEIR_ACT_RELU;
    shape.residual = true;
    run_layer(ref, &q, &shape, (void *[]){ x, residual, y });
    const float all[] = { 10.2f, 20, 30, 41 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], all[i]);
}

static void rms_norm_takes_each_part_by_itself_and_copies_the_rest(void **state)
{
    (void)state;
    const float gamma[] = { 1, 2, 10, 100 }, beta[] = { 0, 1, 2, 3 };
    float x[] = { 1, -7, 1, 7, 50, 0, 0, 1, 1, 60 }, y[10]; /* mean squares 25 and 25, then 0 and 1 */
    const struct weir_parameters q = { .op = WEIR_OP_RMS_NORM, .weight = gamma, .bias = beta, .out = 4 };
    const struct weir_rms_norm shape = {
        .rows = 1, .tokens = 2, .parts = 2, .channels = 2, .rest = 1, .eps = 1e-12f, .activation = WEIR_ACT_RELU
    };
    const float wanted[] = { 0.2f, 0, 4, 143, 50, 0, 1, 12, 103, 60 };
    run_layer(ref, &q, &shape, (void *[]){ x, NULL, y });
    for (size_t i = 0; i < 10; i++) NEAR(y[i], wanted[i]);
    run_layer(ref, &q, &shape, (void *[]){ x, NULL, x });
    assert_memory_equal(x, y, sizeof x);
}

static void modulated_norm_takes_scale_and_shift_of_its_row(void **state)
{
    (void)state;
    float x[] = { 3, 5, -1, 1, 0, 2, 9, 7 }; /* 2 rows of 2 tokens: all have mean +- 1 */
    float m[] = { 0, 0, 10, 20, 1, 2, 0, 0, 30, 40, -1, 0 }, y[8];
    const struct weir_modulated_norm shape = {
        .rows = 2, .tokens = 2, .channels = 2, .vectors = 3, .shift = 1, .scale = 2, .eps = 1e-12f
    };
    run_op(ref, WEIR_OP_MODULATED_NORM, NULL, &shape, (void *[]){ x, m, y });
    const float wanted[] = { 8, 23, 8, 23, 30, 41, 30, 39 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], wanted[i]);
}

static void table_add_adds_to_all_vectors_or_to_some_repeated(void **state)
{
    (void)state;
    const float table[] = { 1, 2, 3, 4, 5, 6 }; /* 3 vectors of 2, or 6 of 1 */
    float x[] = { 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120 }, y[12];
    struct weir_parameters q = { .op = WEIR_OP_TABLE_ADD, .weight = table, .out = 3, .in = 2 };
    struct weir_table_add shape = { .rows = 2, .vectors = 3, .given = 3, .channels = 2 };
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    for (size_t i = 0; i < 12; i++) NEAR(y[i], x[i] + table[i % 6]);
    shape.given = 1;
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    const float wanted[] = { 11, 22, 13, 24, 15, 26, 31, 42, 33, 44, 35, 46 };
    for (size_t i = 0; i < 12; i++) NEAR(y[i], wanted[i]);
    q.out = 6, q.in = 1;
    shape.vectors = 6, shape.given = 3, shape.channels = 1;
    run_layer(ref, &q, &shape, (void *[]){ x, y });
    const float in_turn[] = { 11, 22, 33, 14, 25, 36, 41, 52, 63, 44, 55, 66 };
    for (size_t i = 0; i < 12; i++) NEAR(y[i], in_turn[i]);
}

/* Queries of 0 weigh all keys alike, so each head's y is the mean of the values that it may see. */
static void attention_heads_share_keys_and_stop_at_the_rows_length(void **state)
{
    (void)state;
    float q[16] = { 0 }, k[8] = { 0 }, y[16];      /* 2 rows, 2 tokens, 4 heads of 1 on 2 */
    float v[] = { 1, 10, 3, 30, 100, 1000, 7, 7 }; /* the last token of row 1 is padding */
    int32_t lengths[] = { 2, 1 };
    struct weir_attention shape = { .rows = 2,
                                    .sequences = 1,
                                    .query_length = 2,
                                    .key_length = 2,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_dim = 1,
                                    .q_stride = 4,
                                    .k_stride = 2,
                                    .v_stride = 2,
                                    .y_stride = 4,
                                    .scale = 1,
                                    .lengths = true };
    shape.query = shape.key = (struct weir_sequence_layout){ .row_tokens = 2, .inner = 1, .token_step = 1 };
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, lengths, y });
    const float wanted[] = { 2, 2, 20, 20, 2, 2, 20, 20, 100, 100, 1000, 1000, 100, 100, 1000, 1000 };
    for (size_t i = 0; i < 16; i++) NEAR(y[i], wanted[i]);
    shape.causal = true;
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, lengths, y });
    const float causal[] = { 1, 1, 10, 10, 2, 2, 20, 20, 100, 100, 1000, 1000, 100, 100, 1000, 1000 };
    for (size_t i = 0; i < 16; i++) NEAR(y[i], causal[i]);
}

/* Scores 0 and 1000 are capped to 0 and ln 3: weights 1 : 3 again. */
static void attention_caps_the_scores_before_the_softmax(void **state)
{
    (void)state;
    float q[] = { 1000 }, k[] = { 0, 1 }, v[] = { 4, 8 }, y[1];
    struct weir_attention shape = { .rows = 1,
                                    .sequences = 1,
                                    .query_length = 1,
                                    .key_length = 2,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_dim = 1,
                                    .q_stride = 1,
                                    .k_stride = 1,
                                    .v_stride = 1,
                                    .y_stride = 1,
                                    .scale = 1,
                                    .softcap = 1.098612289f };
    shape.query = (struct weir_sequence_layout){ .row_tokens = 1, .inner = 1, .token_step = 1 };
    shape.key = (struct weir_sequence_layout){ .row_tokens = 2, .inner = 1, .token_step = 1 };
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, NULL, y });
    NEAR(y[0], 7);
}

/* Every pair of tokens, as the formula says it, against the order that sums the keys first. */
static void linear_attention_weighs_every_pair_by_its_relus(void **state)
{
    (void)state;
    enum { FRAMES = 3, PIXELS = 7, HEADS = 2, DIM = 5, STRIDE = 3 * HEADS * DIM + 1 };
    uint64_t seed = 77;
    float *x = random_floats(&seed, (size_t)2 * FRAMES * PIXELS * STRIDE, 1);
    float y[2 * FRAMES * PIXELS * HEADS * DIM];
    const struct weir_linear_attention shape = { .rows = 2,
                                                 .frames = FRAMES,
                                                 .pixels = PIXELS,
                                                 .stride = STRIDE,
                                                 .heads = HEADS,
                                                 .head_dim = DIM,
                                                 .head_step = 3 * DIM,
                                                 .q_channel = 1 + DIM,
                                                 .k_channel = 1,
                                                 .v_channel = 1 + 2 * DIM,
                                                 .eps = 1e-3f };
    run_op(ref, WEIR_OP_LINEAR_ATTENTION, NULL, &shape, (void *[]){ x, y });
    for (size_t at = 0; at < WEIR_COUNT(y); at++) {
        const size_t channel = at % DIM, h = at / DIM % HEADS, token = at / (DIM * HEADS),
                     first = token / PIXELS * PIXELS;
        const float *q = x + token * STRIDE + h * 3 * DIM + 1 + DIM;
        double sum = 0, total = 1e-3;
        for (size_t j = first; j < first + PIXELS; j++) {
            const float *k = x + j * STRIDE + h * 3 * DIM + 1;
            double weight = 0;
            for (size_t d = 0; d < DIM; d++) weight += fmax((double)q[d], 0) * fmax((double)k[d], 0);
            sum += weight * (double)k[2 * DIM + channel];
            total += weight;
        }
        NEAR(y[at], (float)(sum / total));
    }
    free(x);
}

/* Position 0 stays, position l turns by l radians in the first pair and by l / 100 in the second; the rest stays. */
static void rope_turns_pairs_half_a_head_apart_by_their_position(void **state)
{
    (void)state;
    float x[] = { 1, 2, 0, 0, 9, 1, 0, 0, 1, 8, 0, 0, 1, 2, 7 }, y[15]; /* 3 tokens: a head of 4 and one channel */
    const struct weir_rope shape = { .rows = 1, .tokens = 3, .channels = 5, .heads = 1, .head_dim = 4, .theta = 10000 };
    run_op(ref, WEIR_OP_ROPE, NULL, &shape, (void *[]){ x, y });
    const float wanted[] = { 1,
                             2,
                             0,
                             0,
                             9,
                             0.540302306f,
                             -0.009999833f,
                             0.841470985f,
                             0.999950000f,
                             8,
                             -0.909297427f,
                             2 * -0.019998667f,
                             -0.416146837f,
                             2 * 0.999800007f,
                             7 };
    for (size_t i = 0; i < 15; i++) NEAR(y[i], wanted[i]);
}

static void regroup_repeats_or_averages_neighbours(void **state)
{
    (void)state;
    float x[] = { 1, 2, 3, 4, 5, 9 }, y[12];
    run_op(ref, WEIR_OP_REGROUP, NULL, &(struct weir_regroup){ .rows = 1, .tokens = 2, .in = 3, .out = 6 },
           (void *[]){ x, y });
    const float more[] = { 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 9, 9 };
    for (size_t i = 0; i < 12; i++) NEAR(y[i], more[i]);
    run_op(ref, WEIR_OP_REGROUP, NULL, &(struct weir_regroup){ .rows = 1, .tokens = 2, .in = 3, .out = 1 },
           (void *[]){ x, y });
    NEAR(y[0], 2);
    NEAR(y[1], 6);
}

static void pixel_shuffle_lays_four_channels_out_and_unshuffle_gathers_them(void **state)
{
    (void)state;
    float x[] = { 1, 2, 3, 4, 5, 6, 7, 8 }, y[16], back[8]; /* 1 x 2 pixels of 4 channels */
    run_op(ref, WEIR_OP_PIXEL_SHUFFLE, NULL,
           &(struct weir_pixel_shuffle){ .rows = 1, .frames = 1, .height = 1, .width = 2, .in = 4, .out = 1 },
           (void *[]){ x, NULL, y });
    const float laid[] = { 1, 2, 5, 6, 3, 4, 7, 8 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], laid[i]);
    run_op(ref, WEIR_OP_PIXEL_UNSHUFFLE, NULL,
           &(struct weir_pixel_unshuffle){ .rows = 1, .frames = 1, .height = 2, .width = 4, .in = 1, .out = 4 },
           (void *[]){ y, NULL, back });
    for (size_t i = 0; i < 8; i++) NEAR(back[i], x[i]);

    /* Fewer channels than places: each of the 4 counts twice, row by row of 2 channels. */
    float ones[16];
    for (size_t i = 0; i < 16; i++) ones[i] = 100;
    run_op(ref, WEIR_OP_PIXEL_SHUFFLE, NULL,
           &(struct weir_pixel_shuffle){
               .rows = 1, .frames = 2, .height = 1, .width = 1, .in = 4, .out = 2, .residual = true },
           (void *[]){ x, ones, y });
    const float twice[] = { 101, 103, 101, 103, 102, 104, 102, 104, 105, 107, 105, 107, 106, 108, 106, 108 };
    for (size_t i = 0; i < 16; i++) NEAR(y[i], twice[i]);
    /* And the mean of two: channel 0 the upper row, channel 1 the lower one. */
    run_op(ref, WEIR_OP_PIXEL_UNSHUFFLE, NULL,
           &(struct weir_pixel_unshuffle){
               .rows = 1, .frames = 1, .height = 2, .width = 4, .in = 1, .out = 2, .residual = true },
           (void *[]){ x, ones, y });
    const float means[] = { 101.5f, 105.5f, 103.5f, 107.5f };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], means[i]);
}

static void rows_are_their_own_and_y_may_lie_where_it_may(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        bytes_of_row_one_are_its_own(ref, &kernel_cases[i]);
        y_over_what_it_may_be_has_the_bytes_of_y_apart(ref, &kernel_cases[i]);
    }
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

#define REFUSED(plan_op, layer, words, ...) refused(plan_op, layer, words, &(struct weir_error){ 0 }, &(__VA_ARGS__))

static void refused(enum weir_op op, const struct weir_parameters *q, const char *words, struct weir_error *error,
                    const void *shape)
{
    struct weir_packed *layer = q ? pack_layer(ref, q) : NULL;
    struct weir_plan *plan = NULL;
    size_t bytes;
    assert_int_equal(ref->ops->plan[op](ref, layer, shape, &plan, &bytes, error), WEIR_BAD_SHAPE);
    assert_null(plan);
    if (!strstr(error->words, words) || !strstr(error->words, weir_op_name(op))) fail_msg("%s", error->words);
    if (layer) ref->ops->packed_destroy(layer);
}

static void wrong_shapes_of_new_ops_are_refused_in_words(void **state)
{
    (void)state;
    const float weight[64] = { 0 };
    const struct weir_parameters linear = { .op = WEIR_OP_LINEAR, .weight = weight, .out = 4, .in = 2, .name = "fc" };
    const struct weir_parameters grouped = {
        .op = WEIR_OP_GROUPED_LINEAR, .weight = weight, .out = 4, .in = 2, .kernel = 2
    };
    const struct weir_parameters depth = { .op = WEIR_OP_DEPTHWISE_CONV, .weight = weight, .out = 3, .kernel = 3 };
    const struct weir_parameters rms = { .op = WEIR_OP_RMS_NORM, .weight = weight, .out = 3 };
    const struct weir_parameters table = { .op = WEIR_OP_TABLE_ADD, .weight = weight, .out = 3, .in = 2 };

    const struct weir_parameters conv = { .op = WEIR_OP_CONV2D, .weight = weight, .out = 2, .in = 2, .kernel = 1 };

    REFUSED(WEIR_OP_CONV2D, &conv, "SiLU and a residual exclude each other",
            (struct weir_conv2d){ .rows = 1,
                                  .frames = 1,
                                  .height = 1,
                                  .width = 1,
                                  .in = 2,
                                  .out = 2,
                                  .kernel = 1,
                                  .stride = 1,
                                  .residual = true,
                                  .silu = true });
    struct weir_linear l = { .rows = 1, .tokens = 1, .in = 2, .out = 4, .gate_vectors = 2, .gate_vector = 2 };
    REFUSED(WEIR_OP_LINEAR, &linear, "fc: the gate is vector 2 of 2", l);
    l.gate_vectors = 0;
    REFUSED(WEIR_OP_LINEAR, &linear, "the gate is vector 2 of 0", l);
    l.gate_vector = 0;
    l.activation = WEIR_ACT_GEGLU_TANH;
    REFUSED(WEIR_OP_LINEAR, &linear, "without GEGLU", l);
    REFUSED(WEIR_OP_GROUPED_LINEAR, &grouped, "the number of groups is 1, but the layer's is 2",
            (struct weir_grouped_linear){ .rows = 1, .tokens = 1, .in = 2, .out = 4, .groups = 1 });
    REFUSED(WEIR_OP_GROUPED_LINEAR, &linear, "the layer given is linear",
            (struct weir_grouped_linear){ .rows = 1, .tokens = 1, .in = 2, .out = 4, .groups = 1 });

    struct weir_depthwise_conv d = { .rows = 1, .frames = 1, .height = 1, .width = 1, .channels = 3, .kernel = 3 };
    d.glu = true;
    REFUSED(WEIR_OP_DEPTHWISE_CONV, &depth, "3 channels are no value and gate", d);
    d.activation = WEIR_ACT_RELU;
    REFUSED(WEIR_OP_DEPTHWISE_CONV, &depth, "activation 5; none and silu are possible", d);
    d.kernel = 5;
    REFUSED(WEIR_OP_DEPTHWISE_CONV, &depth, "the kernel's size is 5", d);

    struct weir_rms_norm n = { .rows = 1, .tokens = 1, .parts = 1, .channels = 3, .eps = 0 };
    REFUSED(WEIR_OP_RMS_NORM, &rms, "eps is 0", n);
    n.eps = 1e-6f;
    n.activation = WEIR_ACT_GELU;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "none, relu and silu", n);
    n.parts = 2;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "the layer has 3 channels, not 2 parts of 3 each", n);
    n.parts = 0;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "not 0 parts of 3 each", n);
    n.parts = 1;
    n.rest = UINT32_MAX;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "a rest of 4294967295 channels", n);
    n.rest = 1;
    n.residual = true;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "a residual goes with one part and no rest, not 1 and 1", n);
    n.rest = 0;
    n.parts = 3;
    n.channels = 1;
    REFUSED(WEIR_OP_RMS_NORM, &rms, "a residual goes with one part and no rest, not 3 and 0", n);
    struct weir_modulated_norm m = { .rows = 1, .tokens = 1, .channels = 3, .vectors = 2, .scale = 2, .eps = 1e-6f };
    REFUSED(WEIR_OP_MODULATED_NORM, NULL, "the scale is vector 2 of 2", m);
    m.scale = 0;
    m.shift = 3;
    REFUSED(WEIR_OP_MODULATED_NORM, NULL, "the shift is vector 3 of 2", m);
    REFUSED(WEIR_OP_TABLE_ADD, &table, "the number of vectors is 4",
            (struct weir_table_add){ .rows = 1, .vectors = 4, .given = 4, .channels = 2 });
    REFUSED(WEIR_OP_TABLE_ADD, &table, "2 vectors, again and again, do not make 3",
            (struct weir_table_add){ .rows = 1, .vectors = 3, .given = 2, .channels = 2 });
    REFUSED(WEIR_OP_TABLE_ADD, &table, "0 vectors, again and again, do not make 3",
            (struct weir_table_add){ .rows = 1, .vectors = 3, .channels = 2 });

    const struct weir_sequence_layout line = { .row_tokens = 2, .inner = 1, .token_step = 1 };
    struct weir_attention a = { .rows = 1,
                                .sequences = 1,
                                .query_length = 2,
                                .key_length = 2,
                                .heads = 4,
                                .head_dim = 2,
                                .query = line,
                                .key = line,
                                .q_stride = 8,
                                .k_stride = 4,
                                .v_stride = 4,
                                .y_stride = 8 };
    REFUSED(WEIR_OP_ATTENTION, NULL, "4 heads cannot share 0 heads", a);
    a.kv_heads = 3;
    REFUSED(WEIR_OP_ATTENTION, NULL, "4 heads cannot share 3 heads", a);
    a.kv_heads = 4;
    REFUSED(WEIR_OP_ATTENTION, NULL, "the heads do not fit", a);
    a.kv_heads = 2;
    a.softcap = -1;
    REFUSED(WEIR_OP_ATTENTION, NULL, "softcap", a);
    a.softcap = NAN;
    REFUSED(WEIR_OP_ATTENTION, NULL, "softcap", a);

    struct weir_linear_attention s = { .rows = 1,
                                       .frames = 1,
                                       .pixels = 1,
                                       .stride = 12,
                                       .heads = 2,
                                       .head_dim = 2,
                                       .head_step = 2,
                                       .k_channel = 4,
                                       .v_channel = 9 };
    REFUSED(WEIR_OP_LINEAR_ATTENTION, NULL, "from channel 9", s);
    s.v_channel = 8;
    REFUSED(WEIR_OP_LINEAR_ATTENTION, NULL, "eps is 0", s);
    struct weir_rope r = { .rows = 1, .tokens = 1, .channels = 6, .heads = 2, .head_dim = 4, .theta = 10000 };
    REFUSED(WEIR_OP_ROPE, NULL, "2 heads of 4 in 6 channels", r);
    r.head_dim = 3;
    REFUSED(WEIR_OP_ROPE, NULL, "even", r);
    r.head_dim = 2;
    r.theta = 0;
    REFUSED(WEIR_OP_ROPE, NULL, "theta is 0", r);
    REFUSED(WEIR_OP_REGROUP, NULL, "neither divides",
            (struct weir_regroup){ .rows = 1, .tokens = 1, .in = 4, .out = 6 });
    REFUSED(WEIR_OP_REGROUP, NULL, "[1, 1, 0]", (struct weir_regroup){ .rows = 1, .tokens = 1, .in = 4 });
    REFUSED(WEIR_OP_PIXEL_SHUFFLE, NULL, "3 channels do not divide 4 times 2",
            (struct weir_pixel_shuffle){ .rows = 1, .frames = 1, .height = 1, .width = 1, .in = 3, .out = 2 });
    REFUSED(WEIR_OP_PIXEL_UNSHUFFLE, NULL, "2x3; both must be even",
            (struct weir_pixel_unshuffle){ .rows = 1, .frames = 1, .height = 2, .width = 3, .in = 1, .out = 4 });
    REFUSED(WEIR_OP_PIXEL_UNSHUFFLE, NULL, "3 channels do not divide 4 times 1",
            (struct weir_pixel_unshuffle){ .rows = 1, .frames = 1, .height = 2, .width = 2, .in = 1, .out = 3 });
}

static void layers_of_new_ops_are_refused_in_words(void **state)
{
    (void)state;
    const float some = 0;
    const struct {
        struct weir_parameters q;
        const char *words;
    } cases[] = {
        { { .op = WEIR_OP_GROUPED_LINEAR, .out = 4, .in = 6, .kernel = 4 }, "the groups must divide" },
        { { .op = WEIR_OP_GROUPED_LINEAR, .out = 4, .in = 6 }, "the groups must divide" },
        { { .op = WEIR_OP_GROUPED_LINEAR, .out = 4, .in = 6, .kernel = 2, .bias = &some }, "no bias" },
        { { .op = WEIR_OP_DEPTHWISE_CONV, .out = 4, .kernel = 4 }, "odd" },
        { { .op = WEIR_OP_DEPTHWISE_CONV, .out = 4 }, "weight has the dimensions [4, 0, 0]" },
        { { .op = WEIR_OP_TABLE_ADD, .out = 4, .in = 2, .bias = &some }, "no bias" },
        { { .op = WEIR_OP_RMS_NORM }, "weight has the dimensions [0]" },
        { { .op = WEIR_OP_RMS_NORM, .out = 4, .geglu = true }, "linear's alone" },
        { { .op = WEIR_OP_CONV2D, .out = 4, .in = 2, .kernel = 5, .doubled = true }, "conv2d of kernel 3" },
        { { .op = WEIR_OP_LINEAR, .out = 4, .in = 2, .doubled = true }, "conv2d of kernel 3" },
        { { .op = WEIR_OP_ROPE, .out = 4 }, "this op has no parameters" },
    };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_parameters q = cases[i].q;
        struct weir_packed *layer = NULL;
        struct weir_error error = { 0 };
        q.weight = &some;
        assert_int_equal(ref->ops->pack(ref, &q, &layer, &error), WEIR_BAD_SHAPE);
        assert_null(layer);
        if (!strstr(error.words, cases[i].words)) fail_msg("case %zu: %s", i, error.words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_multiplies_by_the_rows_gate_before_the_residual),
        cmocka_unit_test(geglu_tanh_gates_by_the_tanh_form_of_gelu),
        cmocka_unit_test(grouped_linear_sees_its_own_groups_inputs_alone),
        cmocka_unit_test(depthwise_conv_has_a_kernel_a_channel),
        cmocka_unit_test(rms_norm_divides_by_the_root_of_the_mean_square),
        cmocka_unit_test(rms_norm_takes_each_part_by_itself_and_copies_the_rest),
        cmocka_unit_test(modulated_norm_takes_scale_and_shift_of_its_row),
        cmocka_unit_test(table_add_adds_to_all_vectors_or_to_some_repeated),
        cmocka_unit_test(attention_heads_share_keys_and_stop_at_the_rows_length),
        cmocka_unit_test(attention_caps_the_scores_before_the_softmax),
        cmocka_unit_test(linear_attention_weighs_every_pair_by_its_relus),
        cmocka_unit_test(rope_turns_pairs_half_a_head_apart_by_their_position),
        cmocka_unit_test(regroup_repeats_or_averages_neighbours),
        cmocka_unit_test(pixel_shuffle_lays_four_channels_out_and_unshuffle_gathers_them),
        cmocka_unit_test(rows_are_their_own_and_y_may_lie_where_it_may),
        cmocka_unit_test(wrong_shapes_of_new_ops_are_refused_in_words),
        cmocka_unit_test(layers_of_new_ops_are_refused_in_words),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
