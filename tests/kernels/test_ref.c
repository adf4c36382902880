/* The judge is judged by hand: small cases whose results can be written down, and identities of the formulas. */
#include "tests/kernels/harness.h"

#include "kernels/host.h"

#include <sys/stat.h>
#include <unistd.h>

#define NEAR(value, wanted) assert_float_equal(value, wanted, 1e-6f)

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

static void linear_is_a_matrix_product_with_bias_and_residual(void **state)
{
    (void)state;
    const float weight[] = { 1, 2, 3, 4, 5, 6 }, bias[] = { 10, 20 }; /* [2, 3] */
    float x[] = { 1, 0, -1, 2, 1, 0 }, residual[] = { 1, 2, 3, 4 }, y[4];
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .bias = bias, .out = 2, .in = 3 },
              &(struct weir_linear){ .rows = 2, .tokens = 1, .in = 3, .out = 2, .residual = true },
              (void *[]){ x, residual, NULL, y });
    const float wanted[] = { 9, 20, 17, 37 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

static void geglu_multiplies_the_first_half_by_gelu_of_the_second(void **state)
{
    (void)state;
    const float weight[] = { 2, 1, -1, 3 }; /* [4, 1]: values 2, 1; gates -1, 3 */
    float x[] = { 1 }, y[2];
    run_layer(ref,
              &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 4, .in = 1, .geglu = true },
              &(struct weir_linear){ .rows = 1, .tokens = 1, .in = 1, .out = 4, .activation = WEIR_ACT_GEGLU },
              (void *[]){ x, NULL, NULL, y });
    NEAR(y[0], 2 * -0.158655254f); /* gelu(-1) = -Phi(-1) */
    NEAR(y[1], 2.995950306f);      /* gelu(3) = 3 Phi(3) */
}

static void a_layer_for_geglu_gives_both_halves_to_activate(void **state)
{
    (void)state;
    const float weight[] = { 2, 1, -1, 3 };
    float x[] = { 1 }, halves[4], y[2];
    run_layer(ref,
              &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 4, .in = 1, .geglu = true },
              &(struct weir_linear){ .rows = 1, .tokens = 1, .in = 1, .out = 4 }, (void *[]){ x, NULL, NULL, halves });
    assert_memory_equal(halves, weight, sizeof halves);
    run_op(ref, WEIR_OP_ACTIVATE, NULL,
           &(struct weir_activate){ .rows = 1, .tokens = 1, .channels = 2, .activation = WEIR_ACT_GEGLU },
           (void *[]){ halves, y });
    NEAR(y[0], 2 * -0.158655254f);
    NEAR(y[1], 2.995950306f);
}

static void low_rank_adds_to_its_channels_alone(void **state)
{
    (void)state;
    float x[] = { 1, 2, 3, 4 };                /* [2, 1, 2] */
    float a[] = { 1, 10 }, b[] = { 1, -2 };    /* [2, 1], [1, 2] */
    float gate[] = { 9, 9, 9, 9, 9, 1, 2, 9 }; /* [2, 1, 4] */
    float y[] = { 1, 1, 1, 1, 2, 2, 2, 2 };
    struct weir_low_rank shape = {
        .rows = 2, .tokens = 1, .in = 2, .rank = 1, .out = 2, .y_channels = 4, .channel = 1
    };
    run_op(ref, WEIR_OP_LOW_RANK, NULL, &shape, (void *[]){ x, a, b, NULL, y });
    const float wanted[] = { 1, 22, -41, 1, 2, 45, -84, 2 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], wanted[i]);
    shape.gate_vectors = 1;
    run_op(ref, WEIR_OP_LOW_RANK, NULL, &shape, (void *[]){ x, a, b, gate, y });
    const float gated[] = { 1, 22 + 9 * 21, -41 - 9 * 42, 1, 2, 45 + 43, -84 - 2 * 86, 2 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], gated[i]);
}

static void activations_have_their_known_values_at_one(void **state)
{
    (void)state;
    const struct {
        enum weir_activation activation;
        float at_one;
    } cases[] = { { WEIR_ACT_NONE, 1 },
                  { WEIR_ACT_SILU, 0.731058579f },
                  { WEIR_ACT_GELU, 0.841344746f },
                  { WEIR_ACT_GELU_TANH, 0.841191991f },
                  { WEIR_ACT_QUICK_GELU, 0.845795766f },
                  { WEIR_ACT_RELU, 1 } };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        float x[] = { 1, 0 };
        run_op(ref, WEIR_OP_ACTIVATE, NULL,
               &(struct weir_activate){ .rows = 1, .tokens = 2, .channels = 1, .activation = cases[i].activation },
               (void *[]){ x, x });
        NEAR(x[0], cases[i].at_one);
        NEAR(x[1], 0);
    }
}

/* A kernel that is 1 at one place alone moves the picture. */
static void conv2d_with_a_single_one_shifts_the_picture(void **state)
{
    (void)state;
    float weight[9] = { 0 }, x[12], y[12];
    weight[0 * 3 + 2] = 1; /* the pixel above and to the right */
    for (int i = 0; i < 12; i++) x[i] = (float)(i + 1);
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_CONV2D, .weight = weight, .out = 1, .in = 1, .kernel = 3 },
              &(struct weir_conv2d){ .rows = 1,
                                     .frames = 1,
                                     .height = 3,
                                     .width = 4,
                                     .in = 1,
                                     .out = 1,
                                     .kernel = 3,
                                     .stride = 1,
                                     .pad = 1,
                                     .pad_end = 1 },
              (void *[]){ x, NULL, NULL, y });
    const float wanted[12] = { 0, 0, 0, 0, 2, 3, 4, 0, 6, 7, 8, 0 };
    for (size_t i = 0; i < 12; i++) NEAR(y[i], wanted[i]);
}

static void conv2d_adds_bias_row_bias_and_residual_and_keeps_in_before_out(void **state)
{
    (void)state;
    const float weight[] = { 1, 10, 100, 1000 }, bias[] = { 0.5f, 0.25f }; /* [2, 2, 1, 1] */
    float x[] = { 1, 2, 3, 4 };                                            /* 2 rows of one pixel */
    float row_bias[] = { 0, 0, 1000, 2000 }, residual[] = { 1, 2, 3, 4 }, y[4];
    run_layer(ref,
              &(struct weir_parameters){
                  .op = WEIR_OP_CONV2D, .weight = weight, .bias = bias, .out = 2, .in = 2, .kernel = 1 },
              &(struct weir_conv2d){ .rows = 2,
                                     .frames = 1,
                                     .height = 1,
                                     .width = 1,
                                     .in = 2,
                                     .out = 2,
                                     .kernel = 1,
                                     .stride = 1,
                                     .residual = true,
                                     .row_bias = true },
              (void *[]){ x, row_bias, residual, y });
    const float wanted[] = { 22.5f, 2102.25f, 1046.5f, 6304.25f };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

static void conv2d_stride_two_with_padding_at_the_end_alone(void **state)
{
    (void)state;
    const float weight[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    float x[16], y[4];
    for (int i = 0; i < 16; i++) x[i] = 1;
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_CONV2D, .weight = weight, .out = 1, .in = 1, .kernel = 3 },
              &(struct weir_conv2d){ .rows = 1,
                                     .frames = 1,
                                     .height = 4,
                                     .width = 4,
                                     .in = 1,
                                     .out = 1,
                                     .kernel = 3,
                                     .stride = 2,
                                     .pad = 0,
                                     .pad_end = 1 },
              (void *[]){ x, NULL, NULL, y });
    const float wanted[] = { 9, 6, 6, 4 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

static void conv2d_resizes_by_the_nearest_pixel_below(void **state)
{
    (void)state;
    const float weight[] = { 1 };
    float x[] = { 1, 2, 3 }, y[2 * 7];
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_CONV2D, .weight = weight, .out = 1, .in = 1, .kernel = 1 },
              &(struct weir_conv2d){ .rows = 1,
                                     .frames = 1,
                                     .height = 1,
                                     .width = 3,
                                     .in = 1,
                                     .out = 1,
                                     .kernel = 1,
                                     .stride = 1,
                                     .resize_height = 2,
                                     .resize_width = 7 },
              (void *[]){ x, NULL, NULL, y });
    const float wanted[] = { 1, 1, 1, 2, 2, 3, 3 }; /* floor(i * 3 / 7) */
    for (size_t i = 0; i < 14; i++) NEAR(y[i], wanted[i % 7]);
}

static void conv_temporal_sees_the_frames_before_and_after(void **state)
{
    (void)state;
    const float weight[] = { 1, 10, 100 }, bias[] = { 0.5f };
    float x[] = { 1, 2, 3, 4, 5, 6 }, y[6]; /* 3 frames of 2 pixels */
    run_layer(
        ref,
        &(struct weir_parameters){ .op = WEIR_OP_CONV_TEMPORAL, .weight = weight, .bias = bias, .out = 1, .in = 1 },
        &(struct weir_conv_temporal){ .rows = 1, .frames = 3, .pixels = 2, .in = 1, .out = 1 },
        (void *[]){ x, NULL, y });
    const float wanted[] = { 310.5f, 420.5f, 531.5f, 642.5f, 53.5f, 64.5f };
    for (size_t i = 0; i < 6; i++) NEAR(y[i], wanted[i]);
}

static void group_norm_has_mean_zero_and_variance_one_in_each_group(void **state)
{
    (void)state;
    const float gamma[] = { 1, 1, 1, 1 }, beta[] = { 0, 0, 0, 0 };
    uint64_t seed = 7;
    float *x = random_floats(&seed, 2 * 50 * 4, 3);
    for (size_t i = 0; i < 400; i++) x[i] += 1e4f; /* far from zero: E[x*x] - mean*mean would cancel */
    run_layer(
        ref, &(struct weir_parameters){ .op = WEIR_OP_GROUP_NORM, .weight = gamma, .bias = beta, .out = 4 },
        &(struct weir_group_norm){ .rows = 2, .batch = 1, .pixels = 50, .channels = 4, .groups = 2, .eps = 1e-6f },
        (void *[]){ x, x });
    for (size_t b = 0; b < 2; b++) {
        for (size_t g = 0; g < 2; g++) {
            double sum = 0, squares = 0;
            for (size_t p = 0; p < 50; p++) {
                for (size_t c = 2 * g; c < 2 * g + 2; c++) {
                    const double value = (double)x[(b * 50 + p) * 4 + c];
                    sum += value;
                    squares += value * value;
                }
            }
            assert_true(fabs(sum / 100) < 1e-5);
            assert_true(fabs(squares / 100 - 1) < 1e-5);
        }
    }
    free(x);
}

static void group_norm_applies_scale_shift_and_silu(void **state)
{
    (void)state;
    const float gamma[] = { 2 }, beta[] = { 1 };
    float x[] = { -1, 1 }, y[2]; /* normalised: -1, 1 */
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_GROUP_NORM, .weight = gamma, .bias = beta, .out = 1 },
              &(struct weir_group_norm){
                  .rows = 1, .batch = 1, .pixels = 2, .channels = 1, .groups = 1, .eps = 1e-12f, .silu = true },
              (void *[]){ x, y });
    NEAR(y[0], -0.268941421f); /* silu(-1) */
    NEAR(y[1], 2.857722380f);  /* silu(3) */
}

static void layer_norm_of_two_numbers(void **state)
{
    (void)state;
    const float gamma[] = { 2, 3 }, beta[] = { 1, -1 };
    float x[] = { 3, 7 }, y[2];
    run_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_LAYER_NORM, .weight = gamma, .bias = beta, .out = 2 },
              &(struct weir_layer_norm){ .rows = 1, .tokens = 1, .channels = 2, .eps = 1e-12f }, (void *[]){ x, y });
    NEAR(y[0], -1);
    NEAR(y[1], 2);
}

static void attention_over_equal_keys_is_the_mean_of_the_values(void **state)
{
    (void)state;
    float q[] = { 1, 2, 3, 4 }, k[] = { 1, 1, 1, 1 }, v[] = { 2, 4, 8, 16 }, y[4]; /* 4 tokens, 1 channel */
    struct weir_attention shape = { .rows = 1,
                                    .sequences = 1,
                                    .query_length = 4,
                                    .key_length = 4,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_dim = 1,
                                    .q_stride = 1,
                                    .k_stride = 1,
                                    .v_stride = 1,
                                    .y_stride = 1,
                                    .scale = 1 };
    shape.query = shape.key = (struct weir_sequence_layout){ .row_tokens = 4, .inner = 1, .token_step = 1 };
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, NULL, y });
    for (size_t i = 0; i < 4; i++) NEAR(y[i], 7.5f);
    shape.causal = true;
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, NULL, y });
    const float wanted[] = { 2, 3, 14.0f / 3, 7.5f };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

/* Temporal attention of [1, T = 2, P = 2, C = 1]: every pixel by itself over the frames. */
static void attention_follows_strided_sequences(void **state)
{
    (void)state;
    float q[] = { 0, 0, 0, 0 }, k[] = { 1, 1, 1, 1 }, v[] = { 1, 10, 3, 30 }, y[4];
    struct weir_attention shape = { .rows = 1,
                                    .sequences = 2,
                                    .query_length = 2,
                                    .key_length = 2,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_dim = 1,
                                    .q_stride = 1,
                                    .k_stride = 1,
                                    .v_stride = 1,
                                    .y_stride = 1,
                                    .scale = 1 };
    shape.query = shape.key =
        (struct weir_sequence_layout){ .row_tokens = 4, .inner = 2, .inner_step = 1, .token_step = 2 };
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, NULL, y });
    const float wanted[] = { 2, 20, 2, 20 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

/* Softmax weights 1 : 3 for scores 0 and ln 3. */
static void attention_scales_the_products_and_takes_their_softmax(void **state)
{
    (void)state;
    float q[] = { 2 }, k[] = { 0, 1 }, v[] = { 4, 8 }, y[1];
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
                                    .scale = 0.549306144f };
    shape.query = (struct weir_sequence_layout){ .row_tokens = 1, .inner = 1, .token_step = 1 };
    shape.key = (struct weir_sequence_layout){ .row_tokens = 2, .inner = 1, .token_step = 1 };
    run_op(ref, WEIR_OP_ATTENTION, NULL, &shape, (void *[]){ q, k, v, NULL, y });
    NEAR(y[0], 7);
}

static void embed_adds_positions_that_begin_anew_in_each_row(void **state)
{
    (void)state;
    const float table[] = { 0, 1, 10, 11, 20, 21 }, positions[] = { 100, 200, 300, 400, 500, 600 };
    int32_t ids[] = { 2, 0, 1, 1 };
    float y[8];
    run_layer(ref,
              &(struct weir_parameters){
                  .op = WEIR_OP_EMBED, .weight = table, .bias = positions, .out = 3, .in = 2, .kernel = 3 },
              &(struct weir_embed){ .rows = 2, .tokens = 2, .channels = 2, .vocabulary = 3, .positions = 3 },
              (void *[]){ ids, y });
    const float wanted[] = { 120, 221, 300, 401, 110, 211, 310, 411 };
    for (size_t i = 0; i < 8; i++) NEAR(y[i], wanted[i]);
}

static void timestep_embedding_puts_cosines_first_when_flipped(void **state)
{
    (void)state;
    float t[] = { 3 }, y[4];
    run_op(ref, WEIR_OP_TIMESTEP_EMBEDDING, NULL,
           &(struct weir_timestep_embedding){ .rows = 1, .dim = 4, .flip_sin_to_cos = true }, (void *[]){ t, y });
    const float flipped[] = { -0.989992497f, 0.999550034f, 0.141120008f, 0.029995500f }; /* frequencies 1, 0.01 */
    for (size_t i = 0; i < 4; i++) NEAR(y[i], flipped[i]);
    run_op(ref, WEIR_OP_TIMESTEP_EMBEDDING, NULL, &(struct weir_timestep_embedding){ .rows = 1, .dim = 4 },
           (void *[]){ t, y });
    for (size_t i = 0; i < 4; i++) NEAR(y[i], flipped[(i + 2) % 4]);
}

static void concat_puts_the_channels_of_a_before_those_of_b(void **state)
{
    (void)state;
    float a[] = { 1, 2 }, b[] = { 3, 4, 5, 6 }, y[6];
    run_op(ref, WEIR_OP_CONCAT, NULL, &(struct weir_concat){ .rows = 1, .tokens = 2, .a_channels = 1, .b_channels = 2 },
           (void *[]){ a, b, y });
    const float wanted[] = { 1, 3, 4, 2, 5, 6 };
    for (size_t i = 0; i < 6; i++) NEAR(y[i], wanted[i]);
}

static void guidance_undoes_latents_pack_when_both_rows_agree(void **state)
{
    (void)state;
    float x[12], packed[24], back[12], scale[] = { 5 };
    for (int i = 0; i < 12; i++) x[i] = (float)i; /* [1, C = 2, T = 2, P = 3] */
    run_op(ref, WEIR_OP_LATENTS_PACK, NULL,
           &(struct weir_latents_pack){ .items = 1, .copies = 2, .frames = 2, .pixels = 3, .channels = 2, .factor = 2 },
           (void *[]){ x, NULL, packed });
    NEAR(packed[0], 0);
    NEAR(packed[1], 12); /* channel 1 of the same pixel */
    NEAR(packed[12 + 3], 2 * x[6 + 1]);
    run_op(ref, WEIR_OP_GUIDANCE, NULL,
           &(struct weir_guidance){ .items = 1, .copies = 2, .frames = 2, .pixels = 3, .channels = 2 },
           (void *[]){ packed, scale, back });
    for (size_t i = 0; i < 12; i++) NEAR(back[i], 2 * x[i]);
}

static void latents_pack_scales_each_item_by_its_samplers_row(void **state)
{
    (void)state;
    float x[] = { 1, 2 }, k[2 * WEIR_SAMPLER_COEFFICIENTS] = { 0 }, y[4];
    k[12] = 3;
    k[WEIR_SAMPLER_COEFFICIENTS + 12] = 5;
    struct weir_latents_pack shape = { .items = 2, .copies = 2, .frames = 1, .pixels = 1, .channels = 1, .factor = 2 };
    shape.scaled = true;
    run_op(ref, WEIR_OP_LATENTS_PACK, NULL, &shape, (void *[]){ x, k, y });
    const float wanted[] = { 6, 6, 20, 20 };
    for (size_t i = 0; i < 4; i++) NEAR(y[i], wanted[i]);
}

static void guidance_goes_beyond_the_positive_row(void **state)
{
    (void)state;
    float x[] = { 1, 3, 10, 10 }, scale[] = { 2, 7 }, y[2]; /* two items of one number */
    run_op(ref, WEIR_OP_GUIDANCE, NULL,
           &(struct weir_guidance){ .items = 2, .copies = 2, .frames = 1, .pixels = 1, .channels = 1 },
           (void *[]){ x, scale, y });
    NEAR(y[0], 5);
    NEAR(y[1], 10);
}

static void sampler_step_follows_its_formula(void **state)
{
    (void)state;
    float x[] = { 2 }, m[] = { 3 }, previous[] = { 5 };
    float k[WEIR_SAMPLER_COEFFICIENTS] = { 1, 2, 4, INFINITY, 0, 0, 0, 3, 4 };
    const struct weir_sampler_step shape = { .items = 1, .n = 1 };
    run_op(ref, WEIR_OP_SAMPLER_STEP, NULL, &shape, (void *[]){ x, m, previous, k });
    NEAR(previous[0], 2); /* x0 = (1 * 2 + 2 * 3) / 4 */
    NEAR(x[0], 6 + 8);    /* 3 * 2 + 4 * x0 */
    x[0] = 2;
    previous[0] = NAN; /* not read where its factor is 0 */
    run_op(ref, WEIR_OP_SAMPLER_STEP, NULL, &shape, (void *[]){ x, m, previous, k });
    NEAR(x[0], 6 + 8);
    x[0] = 2;
    previous[0] = 5;
    k[3] = 1; /* clamp x0 to 1 */
    k[4] = 7, k[5] = 8, k[6] = 2, k[9] = 6;
    k[10] = 3, k[11] = 2, k[12] = 1;
    run_op(ref, WEIR_OP_SAMPLER_STEP, NULL, &shape, (void *[]){ x, m, previous, k });
    NEAR(previous[0], 1);
    NEAR(x[0], 6 + 4 + 6 * (14 + 24) / 2 + 3 * 2 * (1 - 5));
    x[0] = 2;
    previous[0] = 5; /* noise */
    k[3] = INFINITY, k[9] = 0, k[10] = 0;
    k[12] = 2, k[13] = 3, k[14] = 9;
    run_op(ref, WEIR_OP_SAMPLER_STEP, NULL, &shape, (void *[]){ x, m, previous, k });
    NEAR(previous[0], (2 + 6 + 3 * 26) / 4.0); /* e = (7 * (2 * 2) + 8 * 3) / 2 */
    NEAR(x[0], 6 + 4 * 21.5 + 9 * 5);
}

static void to_rgb8_clamps_and_truncates_or_rounds(void **state)
{
    (void)state;
    float x[] = { -2, 2, NAN, 9, 0, 0.5f / 255, 1.0f / 255, 9 }; /* 2 tokens of 4 channels: the fourth is not used */
    uint8_t y[6];
    struct weir_to_rgb8 shape = { .rows = 1, .tokens = 2, .channels = 4 };
    run_op(ref, WEIR_OP_TO_RGB8, NULL, &shape, (void *[]){ x, y });
    const uint8_t truncated[] = { 0, 255, 0, 127, 127, 128 }, rounded[] = { 0, 255, 0, 128, 128, 128 };
    assert_memory_equal(y, truncated, 6);
    shape.round = true;
    run_op(ref, WEIR_OP_TO_RGB8, NULL, &shape, (void *[]){ x, y });
    assert_memory_equal(y, rounded, 6);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void memory_to_plan_for_is_the_lowest_of_installed_and_cgroups_less_a_reserve(void **state)
{
    (void)state;
    char root[] = "/tmp/weir-cgroup-XXXXXX", path[64], membership[64];
    const uint64_t gib = (uint64_t)1 << 30;
    assert_non_null(mkdtemp(root));
    snprintf(membership, sizeof membership, "%s/membership", root);
    const char *folders[] = { "slice", "slice/worker", "memory", "memory/a" };
    for (size_t i = 0; i < WEIR_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }

    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 14 * gib); /* nothing says anything */
    write_file(root, "membership", "0::/slice/worker\n");
    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 14 * gib);
    write_file(root, "slice/worker/memory.max", "max\n");
    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 14 * gib);
    write_file(root, "slice/memory.max", "8589934592\n"); /* of the folder above */
    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 7 * gib);
    assert_int_equal(weir_host_memory_bytes_from(4 * gib, root, membership), 3 * gib + gib / 2);
    write_file(root, "memory/a/memory.limit_in_bytes", "4294967296\n");
    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 7 * gib);
    write_file(root, "membership", "7:cpu,cpuacct:/a\n5:memory:/a\n0::/\n");
    assert_int_equal(weir_host_memory_bytes_from(16 * gib, root, membership), 3 * gib + gib / 2);
    write_file(root, "membership", "nonsense\n\n:::\n");
    assert_int_equal(weir_host_memory_bytes_from(gib, root, membership), gib - WEIR_HOST_RESERVE_BYTES_MIN);
    assert_int_equal(weir_host_memory_bytes_from(WEIR_HOST_RESERVE_BYTES_MIN, root, membership), 0);

    const char *files[] = { "membership", "slice/worker/memory.max", "slice/memory.max",
                            "memory/a/memory.limit_in_bytes" };
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        assert_int_equal(unlink(path), 0);
    }
    for (size_t i = WEIR_COUNT(folders); i-- > 0;) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(rmdir(root), 0);
}

static void auto_opens_the_best_device_that_is_there(void **state)
{
    (void)state;
    struct weir_device *device = open_device("auto", 1);
    assert_true(device->memory_bytes > 0);
    assert_true(device->numerics_class[0]);
    weir_device_close(&device);
    assert_null(device);
    weir_device_close(&device); /* closing nothing is fine */
}

static void unknown_devices_and_thread_counts_are_refused_in_words(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_device_open("tpu", 0, &device, &error), WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "tpu"));
    assert_non_null(strstr(error.words, "ref"));
#ifndef WEIR_HAVE_CUDA
    assert_int_equal(weir_device_open("cuda", 0, &device, &error), WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "device cuda is not in this build"));
#endif
    assert_null(device);
    assert_int_equal(weir_device_open("ref", -1, &device, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_device_open("ref", WEIR_DEVICE_THREADS_MAX + 1, &device, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_device_open("ref", WEIR_DEVICE_THREADS_MAX, &device, &error), WEIR_OK);
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_a_matrix_product_with_bias_and_residual),
        cmocka_unit_test(geglu_multiplies_the_first_half_by_gelu_of_the_second),
        cmocka_unit_test(a_layer_for_geglu_gives_both_halves_to_activate),
        cmocka_unit_test(low_rank_adds_to_its_channels_alone),
        cmocka_unit_test(activations_have_their_known_values_at_one),
        cmocka_unit_test(conv2d_with_a_single_one_shifts_the_picture),
        cmocka_unit_test(conv2d_adds_bias_row_bias_and_residual_and_keeps_in_before_out),
        cmocka_unit_test(conv2d_stride_two_with_padding_at_the_end_alone),
        cmocka_unit_test(conv2d_resizes_by_the_nearest_pixel_below),
        cmocka_unit_test(conv_temporal_sees_the_frames_before_and_after),
        cmocka_unit_test(group_norm_has_mean_zero_and_variance_one_in_each_group),
        cmocka_unit_test(group_norm_applies_scale_shift_and_silu),
        cmocka_unit_test(layer_norm_of_two_numbers),
        cmocka_unit_test(attention_over_equal_keys_is_the_mean_of_the_values),
        cmocka_unit_test(attention_follows_strided_sequences),
        cmocka_unit_test(attention_scales_the_products_and_takes_their_softmax),
        cmocka_unit_test(embed_adds_positions_that_begin_anew_in_each_row),
        cmocka_unit_test(timestep_embedding_puts_cosines_first_when_flipped),
        cmocka_unit_test(concat_puts_the_channels_of_a_before_those_of_b),
        cmocka_unit_test(guidance_undoes_latents_pack_when_both_rows_agree),
        cmocka_unit_test(latents_pack_scales_each_item_by_its_samplers_row),
        cmocka_unit_test(guidance_goes_beyond_the_positive_row),
        cmocka_unit_test(sampler_step_follows_its_formula),
        cmocka_unit_test(to_rgb8_clamps_and_truncates_or_rounds),
        cmocka_unit_test(memory_to_plan_for_is_the_lowest_of_installed_and_cgroups_less_a_reserve),
        cmocka_unit_test(auto_opens_the_best_device_that_is_there),
        cmocka_unit_test(unknown_devices_and_thread_counts_are_refused_in_words),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
