/* The ops of the Sana family, the programs' builders of them and the layers they take, against blocks of diffusers and
 * transformers (tests/golden/make_ops.py). */
#include "tests/nets/golden.h"

#include "worker/nets/params.h"

#define DEVICE "ref" /* the other devices have no such ops yet */
#define INPUTS_MAX 3

struct block {
    const char *wanted, *inputs[INPUTS_MAX];
    struct weir_value (*build)(struct weir_program *p, struct weir_params *params, const struct weir_value *in);
};

static struct weir_value gated(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_linear_params shape = { .in = 5, .out = 9, .bias = true };
    return weir_program_linear(
        p, weir_params_linear(params, &shape, "gated"), in[0],
        &(struct weir_linear_call){ .activation = WEIR_ACT_SILU, .residual = in[1], .gate = in[2], .gate_vector = 2 });
}

static struct weir_value adaln(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    return weir_program_table_add(p, weir_params_table(params, 6, 11, "adaln.table"), in[0]);
}

static struct weir_value norm_out(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_value m = weir_program_table_add(p, weir_params_table(params, 2, 11, "norm_out.table"), in[1]);
    return weir_program_modulated_norm(p, in[0], m, 0, 1, 1e-6f);
}

static struct weir_value glumb(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_linear_params inverted = { .in = 6, .out = 30, .bias = true }, point = { .in = 15, .out = 6 };
    const struct weir_rms_norm_params norm = { .channels = 6, .bias = true };
    struct weir_value h =
        weir_program_linear(p, weir_params_linear(params, &inverted, "glumb.conv_inverted"), in[0], NULL);
    h = weir_program_depthwise_conv(p, weir_params_depthwise_conv(params, 30, 3, true, "glumb.conv_depth"), h,
                                    &(struct weir_depthwise_conv_call){ .activation = WEIR_ACT_SILU, .glu = true });
    h = weir_program_linear(p, weir_params_linear(params, &point, "glumb.conv_point"), h, NULL);
    return weir_program_rms_norm(p, weir_params_rms_norm(params, &norm, "glumb.norm"), h,
                                 &(struct weir_rms_norm_call){ .eps = 1e-5f, .residual = in[0] });
}

static struct weir_value sana(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_linear_params qkv = { .in = 15, .out = 45, .parts = 3, .part = { "to_q", "to_k", "to_v" } };
    const struct weir_linear_params out = { .in = 15, .out = 15, .bias = true };
    struct weir_value h = weir_program_linear(p, weir_params_linear(params, &qkv, "sana"), in[0], NULL);
    h = weir_program_linear_attention(
        p, h,
        &(struct weir_linear_attention_call){
            .heads = 3, .head_dim = 5, .head_step = 5, .k_channel = 15, .v_channel = 30, .eps = 1e-15f });
    return weir_program_linear(p, weir_params_linear(params, &out, "sana.to_out.0"), h, NULL);
}

static struct weir_value dcae(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_linear_params qkv = { .in = 14, .out = 24, .parts = 3, .part = { "to_q", "to_k", "to_v" } };
    const struct weir_linear_params out = { .in = 16, .out = 14 };
    const struct weir_rms_norm_params norm = { .channels = 14, .bias = true };
    const char *multiscale = "dcae.to_qkv_multiscale.0";
    const struct weir_value near = weir_program_linear(p, weir_params_linear(params, &qkv, "dcae"), in[0], NULL);
    struct weir_value h =
        weir_program_depthwise_conv(p, weir_params_depthwise_conv(params, 24, 5, false, "%s.proj_in", multiscale), near,
                                    &(struct weir_depthwise_conv_call){ .glu = false });
    h = weir_program_grouped_linear(p, weir_params_grouped_linear(params, 24, 24, 6, "%s.proj_out", multiscale), h);
    h = weir_program_linear_attention(
        p, weir_program_concat(p, near, h),
        &(struct weir_linear_attention_call){
            .heads = 4, .head_dim = 4, .head_step = 12, .k_channel = 4, .v_channel = 8, .eps = 1e-15f });
    h = weir_program_linear(p, weir_params_linear(params, &out, "dcae.to_out"), h, NULL);
    return weir_program_rms_norm(p, weir_params_rms_norm(params, &norm, "dcae.norm_out"), h,
                                 &(struct weir_rms_norm_call){ .eps = 1e-5f, .residual = in[0] });
}

static struct weir_value gemma_embed(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_embed_params shape = { .vocabulary = 30, .channels = 20, .scale = sqrtf(20) };
    return weir_program_embed(p, weir_params_embed(params, &shape, "gemma.embed", NULL), in[0]);
}

static struct weir_value gemma_norm(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_rms_norm_params norm = { .channels = 20, .unit_offset = true };
    return weir_program_rms_norm(p, weir_params_rms_norm(params, &norm, "gemma.norm"), in[0],
                                 &(struct weir_rms_norm_call){ .eps = 1e-6f });
}

static struct weir_value gemma_attention(struct weir_program *p, struct weir_params *params,
                                         const struct weir_value *in)
{
    const struct weir_linear_params q_shape = { .in = 20, .out = 24 }, out = { .in = 24, .out = 20 };
    const struct weir_linear_params kv_shape = { .in = 20, .out = 24, .parts = 2, .part = { "k_proj", "v_proj" } };
    struct weir_value q =
        weir_program_linear(p, weir_params_linear(params, &q_shape, "gemma.attention.q_proj"), in[0], NULL);
    struct weir_value kv =
        weir_program_linear(p, weir_params_linear(params, &kv_shape, "gemma.attention"), in[0], NULL);
    q = weir_program_rope(p, q, 4, 6, 10000);
    kv = weir_program_rope(p, kv, 2, 6, 10000); /* the keys alone */
    const struct weir_value h = weir_program_attention(p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_CAUSAL,
                                                                                         .q = q,
                                                                                         .k = kv,
                                                                                         .v = kv,
                                                                                         .v_channel = 12,
                                                                                         .heads = 4,
                                                                                         .head_dim = 6,
                                                                                         .kv_heads = 2,
                                                                                         .scale = 1 / sqrtf(10),
                                                                                         .softcap = 1.5f,
                                                                                         .lengths = in[1] });
    return weir_program_linear(p, weir_params_linear(params, &out, "gemma.attention.o_proj"), h, NULL);
}

static struct weir_value gemma_mlp(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_linear_params up = {
        .in = 20, .out = 44, .geglu = true, .parts = 2, .part = { "up_proj", "gate_proj" }
    };
    const struct weir_linear_params down = { .in = 22, .out = 20 };
    const struct weir_value h = weir_program_linear(p, weir_params_linear(params, &up, "gemma.mlp"), in[0],
                                                    &(struct weir_linear_call){ .activation = WEIR_ACT_GEGLU_TANH });
    return weir_program_linear(p, weir_params_linear(params, &down, "gemma.mlp.down_proj"), h, NULL);
}

static struct weir_value rope(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    (void)params;
    return weir_program_rope(p, in[0], 1, 16, 10000);
}

static struct weir_value plain(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_conv2d_params conv = { .in = 3, .out = 5, .kernel = 3, .no_bias = true };
    return weir_program_conv2d(p, weir_params_conv2d(params, &conv, "plain"), in[0],
                               &(struct weir_conv2d_call){ .pad = 1, .pad_end = 1 });
}

static struct weir_value down(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_conv2d_params conv = { .in = 6, .out = 2, .kernel = 3 };
    struct weir_value h = weir_program_conv2d(p, weir_params_conv2d(params, &conv, "down.conv"), in[0],
                                              &(struct weir_conv2d_call){ .pad = 1, .pad_end = 1 });
    h = weir_program_pixel_unshuffle(p, h, 8, (struct weir_value){ 0 });
    return weir_program_pixel_unshuffle(p, in[0], 8, h);
}

static struct weir_value up(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    const struct weir_conv2d_params conv = { .in = 8, .out = 24, .kernel = 3 };
    struct weir_value h = weir_program_conv2d(p, weir_params_conv2d(params, &conv, "up.conv"), in[0],
                                              &(struct weir_conv2d_call){ .pad = 1, .pad_end = 1 });
    h = weir_program_pixel_shuffle(p, h, 6, (struct weir_value){ 0 });
    return weir_program_pixel_shuffle(p, in[0], 6, h);
}

static struct weir_value more(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    (void)params;
    return weir_program_regroup(p, in[0], 30);
}

static struct weir_value fewer(struct weir_program *p, struct weir_params *params, const struct weir_value *in)
{
    (void)params;
    return weir_program_regroup(p, in[0], 2);
}

static const struct block blocks[] = {
    { "gated.y", { "gated.x", "gated.residual", "gated.gates" }, gated },
    { "adaln.m", { "adaln.embedding" }, adaln },
    { "norm_out.y", { "norm_out.x", "norm_out.embedding" }, norm_out },
    { "glumb.y", { "glumb.x" }, glumb },
    { "sana.y", { "sana.x" }, sana },
    { "dcae.large.y", { "dcae.large.x" }, dcae },
    { "dcae.small.y", { "dcae.small.x" }, dcae },
    { "gemma.embedded", { "gemma.ids" }, gemma_embed },
    { "gemma.normed", { "gemma.embedded" }, gemma_norm },
    { "gemma.attended", { "gemma.normed", "gemma.lengths" }, gemma_attention },
    { "gemma.mlp.y", { "gemma.attended" }, gemma_mlp },
    { "rope.y", { "rope.x" }, rope },
    { "plain.y", { "plain.x" }, plain },
    { "down.y", { "down.x" }, down },
    { "up.y", { "up.x" }, up },
    { "regroup.more", { "regroup.x" }, more },
    { "regroup.fewer", { "regroup.x" }, fewer },
};

static struct weir_dims dims_of(const struct weir_weight *w)
{
    assert_int_equal(w->rank, 5);
    return (struct weir_dims){ (uint32_t)w->shape[0], (uint32_t)w->shape[1], (uint32_t)w->shape[2],
                               (uint32_t)w->shape[3], (uint32_t)w->shape[4] };
}

static bool is_whole(const char *name)
{
    const char *end = strrchr(name, '.');
    return strcmp(end, ".ids") == 0 || strcmp(end, ".lengths") == 0;
}

/* The block's program, finished; its output is called y. */
static struct weir_program *build(const struct vectors *v, const struct block *block, struct weir_device *device,
                                  struct weir_params *params)
{
    struct weir_program *p = NULL;
    struct weir_value in[INPUTS_MAX] = { { 0 } };
    assert_int_equal(weir_program_create(device, WEIR_F32, &p), WEIR_OK);
    for (size_t i = 0; i < INPUTS_MAX && block->inputs[i]; i++) {
        const struct weir_weight w = vector_find(v, "%s", block->inputs[i]);
        const struct weir_dims dims = dims_of(&w);
        in[i] = weir_program_input(p, block->inputs[i], is_whole(block->inputs[i]) ? WEIR_I32 : WEIR_F32, &dims);
    }
    const struct weir_value y = block->build(p, params, in);
    OK(weir_params_status(params, &error));
    weir_program_output(p, "y", y);
    const struct weir_weight w = vector_find(v, "%s", block->wanted);
    const struct weir_dims has = weir_program_dims(p, y), wanted = dims_of(&w);
    OK(weir_program_finish(p, &error));
    assert_memory_equal(&has, &wanted, sizeof has);
    return p;
}

/* With params of its own, which are sealed before anything runs. */
static void check_block(const struct vectors *v, const struct block *block, struct weir_device *device)
{
    struct weir_params *params = NULL;
    OK(weir_params_create(device, v->table, WEIR_F32, &params, &error));
    struct weir_program *p = build(v, block, device, params);
    OK(weir_params_seal(params, &error));
    struct io inputs[INPUTS_MAX];
    size_t count = 0;
    for (; count < INPUTS_MAX && block->inputs[count]; count++) {
        const struct weir_weight w = vector_find(v, "%s", block->inputs[count]);
        float *values = vector_read(&w);
        for (size_t i = 0; i < w.elements && is_whole(block->inputs[count]); i++) {
            const int32_t whole = (int32_t)values[i];
            memcpy(&values[i], &whole, sizeof whole);
        }
        inputs[count] = (struct io){ block->inputs[count], values, w.elements * sizeof *values };
    }
    const struct weir_weight w = vector_find(v, "%s", block->wanted);
    float *wanted = vector_read(&w), *y = malloc(w.elements * sizeof *y);
    assert_non_null(y);
    const struct io output = { "y", y, w.elements * sizeof *y };
    run_program(device, p, inputs, count, &output, 1, NULL, 0);
    see_close(device, block->wanted, y, wanted, w.elements);
    for (size_t i = 0; i < count; i++) free(inputs[i].host);
    free(wanted);
    free(y);
    weir_program_destroy(&p);
    weir_params_destroy(&params);
}

static void blocks_give_what_diffusers_and_transformers_give(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct vectors v = vectors_open("ops");
    OK(weir_device_open(DEVICE, 2, &device, &error));
    for (size_t i = 0; i < WEIR_COUNT(blocks); i++) check_block(&v, &blocks[i], device);
    weir_device_close(&device);
    vectors_close(&v);
}

static void shapes_alone_say_the_memory_of_all_blocks(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_params *full = NULL, *shapes = NULL;
    struct vectors v = vectors_open("ops");
    OK(weir_device_open(DEVICE, 1, &device, &error));
    OK(weir_params_create(device, v.table, WEIR_F32, &full, &error));
    OK(weir_params_create(device, NULL, WEIR_F32, &shapes, &error));
    for (size_t i = 0; i < WEIR_COUNT(blocks); i++) {
        struct weir_program *a = build(&v, &blocks[i], device, full), *b = build(&v, &blocks[i], device, shapes);
        assert_int_equal(weir_program_arena_bytes(a), weir_program_arena_bytes(b));
        weir_program_destroy(&a);
        weir_program_destroy(&b);
    }
    assert_int_equal(weir_params_bytes(full), weir_params_bytes(shapes));
    assert_int_equal(weir_params_count(full), weir_params_count(shapes));
    weir_params_destroy(&full);
    weir_params_destroy(&shapes);
    weir_device_close(&device);
    vectors_close(&v);
}

/* --- layers that no block above has --- */

static void layers_of_other_shapes_are_refused_by_name(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct vectors v = vectors_open("ops");
    OK(weir_device_open(DEVICE, 1, &device, &error));
    for (int fault = 0; fault < 9; fault++) {
        struct weir_params *params = NULL;
        struct weir_error said = { 0 };
        const struct weir_packed *layer = NULL;
        const char *word = NULL;
        OK(weir_params_create(device, v.table, WEIR_F32, &params, &error));
        switch (fault) {
        case 0:
            layer = weir_params_table(params, 11, 6, "adaln.table");
            word = "adaln.table is [6, 11], but the config asks for [11, 6]";
            break;
        case 1:
            layer = weir_params_grouped_linear(params, 24, 24, 4, "dcae.to_qkv_multiscale.0.proj_out");
            word = "[24, 4, 1, 1], but the config asks for [24, 6]";
            break;
        case 2:
            layer = weir_params_depthwise_conv(params, 24, 5, true, "dcae.to_qkv_multiscale.0.proj_in");
            word = "proj_in.bias is missing";
            break;
        case 3:
            layer = weir_params_rms_norm(params, &(struct weir_rms_norm_params){ .channels = 20, .bias = true },
                                         "gemma.norm");
            word = "gemma.norm.bias is missing";
            break;
        case 4:
            layer = weir_params_embed(params, &(struct weir_embed_params){ .vocabulary = 31, .channels = 20 },
                                      "gemma.embed", NULL);
            word = "gemma.embed is [30, 20]";
            break;
        case 5:
            layer = weir_params_conv2d(params, &(struct weir_conv2d_params){ .in = 3, .out = 5, .kernel = 3 }, "plain");
            word = "plain.bias is missing";
            break;
        case 6:
            layer = weir_params_tables(params, 2, 6, 11, "adaln", "table");
            word = "adaln.0.table is missing";
            break;
        case 7:
            layer = weir_params_rms_norm(
                params, &(struct weir_rms_norm_params){ .channels = 40, .parts = 2, .part = { "norm", "norm_k" } },
                "gemma");
            word = "gemma.norm_k.weight is missing";
            break;
        default:
            layer = weir_params_table(params, 6, 11, "adaln.tables");
            word = "adaln.tables is missing";
            break;
        }
        assert_null(layer);
        assert_int_equal(weir_params_status(params, &said), WEIR_BAD_MODEL);
        if (!strstr(said.words, word)) fail_msg("fault %d: %s", fault, said.words);
        weir_params_destroy(&params);
    }
    weir_device_close(&device);
    vectors_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_give_what_diffusers_and_transformers_give),
        cmocka_unit_test(shapes_alone_say_the_memory_of_all_blocks),
        cmocka_unit_test(layers_of_other_shapes_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
