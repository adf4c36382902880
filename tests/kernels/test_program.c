/* A program is a list of planned ops over one arena: values that live at the same time never share bytes, the first
 * error sticks, and nothing is lost when memory runs out. */
#include "tests/kernels/harness.h"

#include "kernels/program.h"

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

/* --- random programs against values that each have their own memory ----------------------------------------------- */

#define VALUES_MAX 64
#define OPS 60

struct model { /* what a value must hold */
    struct weir_value value;
    float *content;
    struct weir_dims dims;
    bool external; /* lies with the caller: the extern or a view of it */
};

static size_t element_count(const struct weir_dims *d)
{
    return (size_t)d->rows * d->frames * d->height * d->width * d->channels;
}

static bool same_dims(const struct weir_dims *a, const struct weir_dims *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* A convolution over frames, which reads a frame after the one before it was written, plus a residual, which may be x
 * itself. The layer is given to the caller, who keeps it while the program lives. */
static struct model random_convolution(struct weir_program *p, const struct model *x, const struct model *residual,
                                       struct weir_packed **layer, uint64_t *seed)
{
    const uint32_t channels = x->dims.channels;
    struct model y = { .dims = x->dims, .content = random_floats(seed, element_count(&x->dims), 1) };
    float *weight = random_floats(seed, (size_t)channels * channels * 3, 0.1f);
    *layer = pack_layer(ref, &(struct weir_parameters){
                                 .op = WEIR_OP_CONV_TEMPORAL, .weight = weight, .out = channels, .in = channels });
    y.value = weir_program_conv_temporal(p, *layer, x->value, residual->value);
    run_op(ref, WEIR_OP_CONV_TEMPORAL, *layer,
           &(struct weir_conv_temporal){ .rows = x->dims.rows,
                                         .frames = x->dims.frames,
                                         .pixels = x->dims.height * x->dims.width,
                                         .in = channels,
                                         .out = channels,
                                         .residual = true },
           (void *[]){ x->content, residual->content, y.content });
    free(weight);
    return y;
}

/* A norm that may be done in place, plus a residual, which may be x itself. */
static struct model random_norm(struct weir_program *p, const struct model *x, const struct model *residual,
                                struct weir_packed **layer, uint64_t *seed)
{
    struct model y = { .dims = x->dims, .content = random_floats(seed, element_count(&x->dims), 1) };
    float *gamma = random_floats(seed, x->dims.channels, 1);
    *layer =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_RMS_NORM, .weight = gamma, .out = x->dims.channels });
    y.value = weir_program_rms_norm(p, *layer, x->value,
                                    &(struct weir_rms_norm_call){ .eps = 1e-5f, .residual = residual->value });
    run_op(ref, WEIR_OP_RMS_NORM, *layer,
           &(struct weir_rms_norm){ .rows = x->dims.rows,
                                    .tokens = x->dims.frames * x->dims.height * x->dims.width,
                                    .parts = 1,
                                    .channels = x->dims.channels,
                                    .eps = 1e-5f,
                                    .residual = true },
           (void *[]){ x->content, residual->content, y.content });
    free(gamma);
    return y;
}

/* One random op over random earlier values; the model's content is computed by the same device in memory of its own. */
static struct model random_op(struct weir_program *p, const struct model *values, size_t count,
                              struct weir_packed **layer, uint64_t *seed)
{
    const struct model *a = &values[next_random(seed) % count], *b = &values[next_random(seed) % count];
    struct model y = { .dims = a->dims };
    const uint32_t tokens = a->dims.frames * a->dims.height * a->dims.width;
    *layer = NULL;
    switch (next_random(seed) % 5) {
    case 0: /* may be done in place */
        y.value = weir_program_activate(p, a->value, WEIR_ACT_SILU);
        y.content = random_floats(seed, element_count(&y.dims), 1);
        run_op(ref, WEIR_OP_ACTIVATE, NULL,
               &(struct weir_activate){
                   .rows = a->dims.rows, .tokens = tokens, .channels = a->dims.channels, .activation = WEIR_ACT_SILU },
               (void *[]){ a->content, y.content });
        break;
    case 2: /* y may lie over the residual, unless that is x too */
        if (a->dims.channels > 64) a = &values[0];
        return random_convolution(p, a, same_dims(&a->dims, &b->dims) ? b : a, layer, seed);
    case 3:
        return random_norm(p, a, same_dims(&a->dims, &b->dims) ? b : a, layer, seed);
    case 1: /* a view: the same bytes under another shape */
        y.external = a->external;
        y.dims = (struct weir_dims){ a->dims.rows, 1, 1, 1, tokens * a->dims.channels };
        y.value = weir_program_view(p, a->value, &y.dims);
        y.content = random_floats(seed, element_count(&y.dims), 1);
        memcpy(y.content, a->content, element_count(&y.dims) * sizeof(float));
        break;
    default:
        if (a->dims.frames * a->dims.height * a->dims.width != b->dims.frames * b->dims.height * b->dims.width ||
            a->dims.channels + b->dims.channels > 200) {
            b = a;
        }
        y.dims.channels = a->dims.channels + b->dims.channels;
        y.value = weir_program_concat(p, a->value, b->value);
        y.content = random_floats(seed, element_count(&y.dims), 1);
        run_op(ref, WEIR_OP_CONCAT, NULL,
               &(struct weir_concat){ .rows = a->dims.rows,
                                      .tokens = tokens,
                                      .a_channels = a->dims.channels,
                                      .b_channels = b->dims.channels },
               (void *[]){ a->content, b->content, y.content });
        break;
    }
    return y;
}

static void random_program_keeps_every_value(uint64_t seed)
{
    const uint64_t first_seed = seed;
    struct weir_program *p = NULL;
    struct weir_error error = { 0 };
    struct weir_stream *stream = NULL;
    struct model values[VALUES_MAX];
    size_t count = 0, output_count = 0;
    struct weir_dims dims = { 2, 2, 1, 3, 5 };
    float *external = NULL;
    struct weir_packed *layers[OPS];

    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    values[count] = (struct model){ weir_program_input(p, "in", WEIR_F32, &dims),
                                    random_floats(&seed, element_count(&dims), 1), dims, false };
    count++;
    dims.channels = 3;
    external = random_floats(&seed, element_count(&dims), 1);
    values[count] = (struct model){ weir_program_extern(p, "ext", WEIR_F32, &dims),
                                    random_floats(&seed, element_count(&dims), 1), dims, true };
    memcpy(values[count++].content, external, element_count(&dims) * sizeof(float));

    size_t outputs[VALUES_MAX];
    char name[32];
    for (size_t i = 0; i < OPS; i++) {
        values[count] = random_op(p, values, count, &layers[i], &seed);
        if (element_count(&values[count].dims) > 4000) { /* views of concatenations grow: begin small again */
            free(values[count].content);
            continue;
        }
        if (!values[count].external && next_random(&seed) % 6 == 0) {
            outputs[output_count] = count;
            snprintf(name, sizeof name, "out%zu", output_count++);
            weir_program_output(p, name, values[count].value);
        }
        count++;
    }
    assert_int_equal(weir_program_finish(p, &error), WEIR_OK);

    const size_t arena_bytes = weir_program_arena_bytes(p);
    void *arena = NULL;
    assert_int_equal(ref->table->memory_alloc(ref, arena_bytes, &arena, &error), WEIR_OK);
    memset(arena, 0xff, arena_bytes);
    memcpy((char *)arena + weir_program_offset(p, "in"), values[0].content, weir_program_bytes(p, "in"));
    assert_int_equal(ref->table->stream_create(ref, &stream, &error), WEIR_OK);
    const struct weir_binding binding = { "ext", external };
    for (int run = 0; run < 2; run++) { /* inputs survive a run: the second gives the same */
        assert_int_equal(weir_program_run(p, stream, arena, &binding, 1), WEIR_OK);
    }
    for (size_t i = 0; i < output_count; i++) {
        const struct model *wanted = &values[outputs[i]];
        snprintf(name, sizeof name, "out%zu", i);
        const float *got = (const float *)(const void *)((char *)arena + weir_program_offset(p, name));
        if (memcmp(got, wanted->content, element_count(&wanted->dims) * sizeof(float)) != 0) {
            fail_msg("seed %llu: %s lost its content", (unsigned long long)first_seed, name);
        }
    }
    ref->table->stream_destroy(stream);
    ref->table->memory_free(ref, arena);
    for (size_t i = 0; i < count; i++) free(values[i].content);
    free(external);
    weir_program_destroy(&p);
    assert_null(p);
    for (size_t i = 0; i < OPS; i++) {
        if (layers[i]) ref->ops->packed_destroy(layers[i]);
    }
}

static void values_that_live_at_once_never_share_bytes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) random_program_keeps_every_value(seed * 0x9e3779b97f4a7c15ull);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void a_chain_of_any_length_needs_two_values_and_in_place_ops_only_one(void **state)
{
    (void)state;
    const struct weir_dims dims = { 1, 1, 1, 16, 16 }; /* 1 KiB */
    struct weir_program *p = NULL;
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    struct weir_value x = weir_program_input(p, "x", WEIR_F32, &dims);
    for (int i = 0; i < 20; i++) x = weir_program_activate(p, x, WEIR_ACT_SILU);
    assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
    assert_int_equal(weir_program_arena_bytes(p), 2 * 1024); /* the input, kept, and one that is written over */
    assert_int_equal(weir_program_op_count(p), 20);
    weir_program_destroy(&p);

    const struct weir_dims half = { 1, 1, 1, 16, 8 };
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    x = weir_program_input(p, "x", WEIR_F32, &half);
    for (int i = 0; i < 6; i++) { /* 0.5 K -> 1 K -> a view of it with half the tokens */
        x = weir_program_concat(p, x, x);
        const struct weir_dims d = weir_program_dims(p, x);
        x = weir_program_view(p, x, &(struct weir_dims){ 1, 1, 1, d.width * 2, d.channels / 2 });
    }
    assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
    /* The last two values live together: 512 * 2^6 and 512 * 2^5; all earlier ones fit in them or beside the input. */
    assert_true(weir_program_arena_bytes(p) <= 512 * (64 + 32 + 16));
    weir_program_destroy(&p);
}

/* 4 x 4 pixels of 8 channels, 512 bytes: one value beside the inputs, which are kept, however many ops lie over it. */
static void new_ops_lie_over_operands_that_die(void **state)
{
    (void)state;
    const float weight[128] = { 0 };
    struct weir_packed *norm =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_RMS_NORM, .weight = weight, .out = 8 });
    struct weir_packed *linear =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 8, .in = 8 });
    struct weir_packed *table =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_TABLE_ADD, .weight = weight, .out = 16, .in = 8 });
    struct weir_program *p = NULL;
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 1, 1, 4, 4, 8 });
    const struct weir_value m = weir_program_input(p, "m", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 2, 8 });
    struct weir_value y = weir_program_activate(p, x, WEIR_ACT_RELU);
    y = weir_program_rms_norm(p, norm, y, &(struct weir_rms_norm_call){ .eps = 1, .residual = x });
    y = weir_program_modulated_norm(p, y, m, 0, 1, 1);
    y = weir_program_linear(p, linear, x, &(struct weir_linear_call){ .residual = y, .gate = m, .gate_vector = 1 });
    y = weir_program_rope(p, y, 1, 8, 100);
    y = weir_program_table_add(p, table, y);
    y = weir_program_pixel_shuffle(p, weir_program_view(p, x, &(struct weir_dims){ 1, 1, 2, 2, 32 }), 8, y);
    y = weir_program_pixel_unshuffle(p, weir_program_view(p, x, &(struct weir_dims){ 1, 1, 8, 8, 2 }), 8, y);
    assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
    assert_int_equal(weir_program_op_count(p), 8);
    assert_int_equal(weir_program_arena_bytes(p), 512 + 64 + 512 + 64); /* linear's workspace: 8 doubles */
    weir_program_destroy(&p);
    ref->ops->packed_destroy(norm);
    ref->ops->packed_destroy(linear);
    ref->ops->packed_destroy(table);
}

static void a_table_is_added_to_its_vectors_or_to_some_repeated_or_to_a_token_of_them(void **state)
{
    (void)state;
    const float weight[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    struct weir_packed *table =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_TABLE_ADD, .weight = weight, .out = 4, .in = 2 });
    const struct weir_dims ways[] = {
        { 2, 4, 1, 1, 2 }, { 2, 1, 1, 1, 2 }, { 2, 1, 1, 1, 8 }, { 2, 1, 1, 1, 4 }, { 2, 1, 2, 1, 2 }
    };
    for (size_t way = 0; way < WEIR_COUNT(ways); way++) {
        struct weir_program *p = NULL;
        struct weir_stream *stream = NULL;
        _Alignas(WEIR_ALIGNMENT) float arena[64] = { 0 };
        assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
        const struct weir_value y = weir_program_table_add(p, table, weir_program_input(p, "x", WEIR_F32, &ways[way]));
        const struct weir_dims dims = weir_program_dims(p, y), apart = { 2, 1, 1, 4, 2 };
        assert_true(same_dims(&dims, way == 0 ? &ways[0] : &apart));
        weir_program_output(p, "y", y);
        assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
        assert_true(weir_program_arena_bytes(p) <= sizeof arena);
        float *x = arena + weir_program_offset(p, "x") / sizeof(float);
        const float *sum = arena + weir_program_offset(p, "y") / sizeof(float);
        for (size_t i = 0; i < element_count(&ways[way]); i++) x[i] = 10 * (float)i;
        assert_int_equal(ref->table->stream_create(ref, &stream, NULL), WEIR_OK);
        assert_int_equal(weir_program_run(p, stream, arena, NULL, 0), WEIR_OK);
        const size_t row = element_count(&ways[way]) / 2;
        for (size_t i = 0; i < 16; i++) assert_true(sum[i] == weight[i % 8] + x[i / 8 * row + i % 8 % row]);
        ref->table->stream_destroy(stream);
        weir_program_destroy(&p);
    }
    ref->ops->packed_destroy(table);
}

/* Outputs whose memory the caller gives: the arena has no room for them, and an op may still read them. */
static void an_output_that_lies_elsewhere_is_written_there(void **state)
{
    (void)state;
    const struct weir_dims dims = { 1, 1, 1, 16, 16 }; /* 1 KiB */
    struct weir_program *p = NULL;
    float elsewhere[256], x[256];
    struct weir_stream *stream = NULL;
    void *arena = NULL;
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    const struct weir_value y = weir_program_activate(p, weir_program_input(p, "x", WEIR_F32, &dims), WEIR_ACT_RELU);
    weir_program_output(p, "y", y);
    weir_program_output(p, "z", weir_program_activate(p, y, WEIR_ACT_RELU));
    weir_program_put_elsewhere(p, "y");
    assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
    assert_int_equal(weir_program_arena_bytes(p), 2 * 1024);
    assert_int_equal(weir_program_bytes(p, "y"), 1024);
    assert_int_equal(ref->table->memory_alloc(ref, weir_program_arena_bytes(p), &arena, NULL), WEIR_OK);
    assert_int_equal(ref->table->stream_create(ref, &stream, NULL), WEIR_OK);
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 2 ? i : -i);
    ref->table->upload(stream, (char *)arena + weir_program_offset(p, "x"), x, sizeof x);
    const struct weir_binding binding = { "y", elsewhere };
    assert_int_equal(weir_program_run(p, stream, arena, &binding, 1), WEIR_OK);
    const float *z = (const float *)(const void *)((const char *)arena + weir_program_offset(p, "z"));
    for (int i = 0; i < 256; i++) {
        const float wanted = i % 2 ? (float)i : 0;
        if (elsewhere[i] != wanted || z[i] != wanted) fail_msg("%d: %g and %g", i, (double)elsewhere[i], (double)z[i]);
    }
    ref->table->stream_destroy(stream);
    ref->table->memory_free(ref, arena);
    weir_program_destroy(&p);
}

static void a_profile_computes_what_run_computes_and_names_the_ops(void **state)
{
    (void)state;
    const float weight[] = { 1, 2, 3, 4 };
    struct weir_packed *layer = pack_layer(
        ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 2, .in = 2, .name = "fc" });
    struct weir_program *p = NULL;
    struct weir_stream *stream = NULL;
    struct weir_program_time times[2] = { { .ns = 0 } };
    _Alignas(WEIR_ALIGNMENT) float arena[256] = { 0 };
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 1, 2 });
    weir_program_output(p, "y", weir_program_activate(p, weir_program_linear(p, layer, x, NULL), WEIR_ACT_NONE));
    assert_int_equal(weir_program_finish(p, NULL), WEIR_OK);
    assert_true(weir_program_arena_bytes(p) <= sizeof arena);
    assert_int_equal(ref->table->stream_create(ref, &stream, NULL), WEIR_OK);
    float *in = arena + weir_program_offset(p, "x") / sizeof(float);
    const float *out = arena + weir_program_offset(p, "y") / sizeof(float);
    in[0] = 10, in[1] = 1;
    assert_int_equal(weir_program_profile(p, stream, arena, NULL, 0, times, NULL), WEIR_OK);
    assert_true(out[0] == 12 && out[1] == 34);
    assert_int_equal(times[0].op, WEIR_OP_LINEAR);
    assert_string_equal(times[0].layer, "fc");
    assert_int_equal(times[1].op, WEIR_OP_ACTIVATE);
    assert_string_equal(times[1].layer, "");
    assert_true(times[0].ns > 0);
    ref->table->stream_destroy(stream);
    weir_program_destroy(&p);
    ref->ops->packed_destroy(layer);
}

/* --- errors ------------------------------------------------------------------------------------------------------- */

static void the_first_error_sticks_and_names_op_and_layer(void **state)
{
    (void)state;
    const float weight[6] = { 0 };
    struct weir_packed *layer = pack_layer(
        ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 2, .in = 3, .name = "mid.fc1" });
    struct weir_program *p = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 1, 4 });
    struct weir_value y = weir_program_linear(p, layer, x, NULL); /* 4 channels into 3 */
    assert_int_equal(y.index, 0);
    y = weir_program_layer_norm(p, layer, y, 1e-5f); /* would be an error of its own */
    y = weir_program_concat(p, y, y);
    weir_program_output(p, "y", y);
    assert_int_equal(y.index, 0);
    assert_int_equal(weir_program_finish(p, &error), WEIR_BAD_SHAPE);
    assert_non_null(strstr(error.words, "linear mid.fc1"));
    assert_non_null(strstr(error.words, "4"));
    assert_non_null(strstr(error.words, "3"));
    weir_program_destroy(&p);
    ref->ops->packed_destroy(layer);
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    struct weir_error error = { 0 };
    const struct weir_dims good = { 1, 2, 3, 4, 5 };
    for (int fault = 0; fault < 6; fault++) {
        struct weir_program *p = NULL;
        assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
        const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &good);
        switch (fault) {
        case 0:
            weir_program_input(p, "zero", WEIR_F32, &(struct weir_dims){ 1, 0, 3, 4, 5 });
            break;
        case 1:
            weir_program_input(p, "huge", WEIR_F32, &(struct weir_dims){ 1u << 30, 1u << 30, 1, 1, 1 });
            break;
        case 2:
            weir_program_view(p, x, &(struct weir_dims){ 1, 2, 3, 4, 6 });
            break;
        case 3:
            weir_program_view(p, x, &(struct weir_dims){ 2, 1, 3, 4, 5 });
            break;
        case 4:
            weir_program_guidance(p, x, (struct weir_value){ 0 }, 2);
            break;
        default:
            weir_program_activate(p, x, WEIR_ACT_GEGLU);
            break;
        }
        assert_int_equal(weir_program_finish(p, &error), WEIR_BAD_SHAPE);
        assert_true(error.words[0]);
        weir_program_destroy(&p);
    }
}

/* One wrong call each: what the builder or the plan says about it. */
static void wrong_operands_of_new_ops_are_refused_in_words(void **state)
{
    (void)state;
    const float weight[64] = { 0 };
    struct weir_packed *linear = pack_layer(
        ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 8, .in = 8, .name = "fc" });
    struct weir_packed *table =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_TABLE_ADD, .weight = weight, .out = 3, .in = 8 });
    struct weir_packed *odd = pack_layer(
        ref, &(struct weir_parameters){ .op = WEIR_OP_DEPTHWISE_CONV, .weight = weight, .out = 1, .kernel = 1 });
    const char *const words[] = { "linear fc: gate is [2, 3, 4], but must be [2, 3, 8]",
                                  "linear fc: the gate is vector 3 of 3",
                                  "linear fc: gate is [1, 3, 8]",
                                  "modulated_norm: m is [2, 3, 4], but must be [2, 3, 8]",
                                  "the shift is vector 3 of 3",
                                  "x has 2 tokens of 8 channels, the table 3 vectors of 8",
                                  "attention: lengths has dtype",
                                  "8 heads cannot share 3 heads",
                                  "pixel_unshuffle: a picture of 1x2",
                                  "pixel_shuffle: residual is [2, 2, 8], but must be [2, 8, 2]",
                                  "regroup: of 8 and 3 channels",
                                  "linear_attention: 3 heads of 4",
                                  "1 channels are no value and gate",
                                  "low_rank: 8 outputs from channel 1 on do not fit y's 8",
                                  "low_rank: a is [1, 8, 8], but must be [1, 4, 8]",
                                  "a part of 16 elements from 17 on leaves a value of 32",
                                  "linear fc: y is [2, 3, 8], but must be [2, 2, 8]",
                                  "grouped_linear fc: the layer given is linear" };
    const struct weir_value none = { 0 };
    for (size_t fault = 0; fault < WEIR_COUNT(words); fault++) {
        struct weir_program *p = NULL;
        struct weir_error error = { 0 };
        assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
        const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 2, 1, 1, 2, 8 });
        const struct weir_value m = weir_program_input(p, "m", WEIR_F32, &(struct weir_dims){ 2, 1, 1, 3, 8 });
        const struct weir_value narrow = weir_program_input(p, "n", WEIR_F32, &(struct weir_dims){ 2, 1, 1, 3, 4 });
        const struct weir_value row = weir_program_input(p, "r", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 3, 8 });
        const struct weir_value one = weir_program_input(p, "o", WEIR_F32, &(struct weir_dims){ 2, 1, 1, 1, 1 });
        const struct weir_value square = weir_program_input(p, "s", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 8, 8 });
        struct weir_attention_call attention = {
            .kind = WEIR_ATTENTION_CAUSAL, .q = x, .k = x, .v = x, .heads = 8, .head_dim = 1, .scale = 1
        };
        switch (fault) {
        case 0:
            weir_program_linear(p, linear, x, &(struct weir_linear_call){ .gate = narrow });
            break;
        case 1:
            weir_program_linear(p, linear, x, &(struct weir_linear_call){ .gate = m, .gate_vector = 3 });
            break;
        case 2:
            weir_program_linear(p, linear, x, &(struct weir_linear_call){ .gate = row });
            break;
        case 3:
            weir_program_modulated_norm(p, x, narrow, 0, 1, 1);
            break;
        case 4:
            weir_program_modulated_norm(p, x, m, 3, 1, 1);
            break;
        case 5:
            weir_program_table_add(p, table, x);
            break;
        case 6:
            attention.lengths = one;
            weir_program_attention(p, &attention);
            break;
        case 7:
            attention.kv_heads = 3;
            weir_program_attention(p, &attention);
            break;
        case 8:
            weir_program_pixel_unshuffle(p, x, 8, none);
            break;
        case 9:
            weir_program_pixel_shuffle(p, x, 2, x);
            break;
        case 10:
            weir_program_regroup(p, x, 3);
            break;
        case 11:
            weir_program_linear_attention(
                p, x, &(struct weir_linear_attention_call){ .heads = 3, .head_dim = 4, .head_step = 4, .eps = 1 });
            break;
        case 12:
            weir_program_depthwise_conv(p, odd, one, &(struct weir_depthwise_conv_call){ .glu = true });
            break;
        case 13:
            weir_program_low_rank(p, x, &(struct weir_low_rank_call){ .a = square, .b = square, .channel = 1 }, x);
            break;
        case 14:
            weir_program_low_rank(p, narrow, &(struct weir_low_rank_call){ .a = square, .b = square }, m);
            break;
        case 15:
            weir_program_part(p, x, 17, &(struct weir_dims){ 1, 1, 1, 2, 8 });
            break;
        case 16:
            weir_program_linear_into(p, linear, x, NULL, m);
            break;
        default:
            weir_program_grouped_linear(p, linear, x);
            break;
        }
        assert_int_equal(weir_program_finish(p, &error), WEIR_BAD_SHAPE);
        if (!strstr(error.words, words[fault])) fail_msg("fault %zu: %s", fault, error.words);
        weir_program_destroy(&p);
    }
    ref->ops->packed_destroy(linear);
    ref->ops->packed_destroy(table);
    ref->ops->packed_destroy(odd);
}

/* Rows of one value written by two ops, each given its own part: the second never loses what the first wrote, though
 * the residual dies there. Factors lie in one extern, as parts of it. */
static void parts_are_read_and_written_where_they_lie(void **state)
{
    (void)state;
    const float weight[] = { 2 }, factors[] = { 100, 3, 5 }; /* something else, a, b */
    struct weir_packed *twice =
        pack_layer(ref, &(struct weir_parameters){ .op = WEIR_OP_LINEAR, .weight = weight, .out = 1, .in = 1 });
    struct weir_program *p = NULL;
    struct weir_error error = { 0 };
    const struct weir_dims whole = { 2, 1, 1, 2, 1 }, row = { 1, 1, 1, 2, 1 }, one = { 1, 1, 1, 1, 1 };
    assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
    const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &whole);
    const struct weir_value all = weir_program_extern(p, "factors", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 1, 3 });
    const struct weir_value h = weir_program_linear(p, twice, x, NULL);
    const struct weir_value y = weir_program_room(p, &whole);
    const struct weir_value second = weir_program_part(p, y, 2, &row);
    for (uint64_t r = 0; r < 2; r++) {
        const struct weir_linear_call call = { .residual = weir_program_part(p, h, 2 * r, &row) };
        weir_program_linear_into(p, twice, weir_program_part(p, x, 2 * r, &row), &call,
                                 weir_program_part(p, y, 2 * r, &row));
    }
    weir_program_low_rank(p, weir_program_part(p, x, 2, &row),
                          &(struct weir_low_rank_call){ .a = weir_program_part(p, all, 1, &one),
                                                        .b = weir_program_part(p, all, 2, &one) },
                          second);
    weir_program_output(p, "y", weir_program_activate(p, y, WEIR_ACT_RELU));
    assert_int_equal(weir_program_finish(p, &error), WEIR_OK);
    float *arena = aligned_alloc(WEIR_ALIGNMENT, weir_program_arena_bytes(p));
    struct weir_stream *stream = NULL;
    assert_non_null(arena);
    memset(arena, 0xff, weir_program_arena_bytes(p));
    const float in[] = { 1, 2, 3, 4 };
    memcpy((char *)arena + weir_program_offset(p, "x"), in, sizeof in);
    assert_int_equal(ref->table->stream_create(ref, &stream, &error), WEIR_OK);
    const struct weir_binding binding = { "factors", (void *)(uintptr_t)factors };
    assert_int_equal(weir_program_run(p, stream, arena, &binding, 1), WEIR_OK);
    const float *out = (const float *)(const void *)((char *)arena + weir_program_offset(p, "y"));
    const float wanted[] = { 4, 8, 12 + 45, 16 + 60 };
    for (size_t i = 0; i < 4; i++) assert_true(out[i] == wanted[i]);
    ref->table->stream_destroy(stream);
    free(arena);
    weir_program_destroy(&p);
    ref->ops->packed_destroy(twice);
}

static void names_have_a_limit_and_both_sides_of_it_answer(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct weir_program *p = NULL;
        struct weir_error error = { 0 };
        char name[16];
        assert_int_equal(weir_program_create(ref, WEIR_F32, &p), WEIR_OK);
        for (int i = 0; i < WEIR_PROGRAM_NAMES_MAX + over; i++) {
            snprintf(name, sizeof name, "x%d", i);
            weir_program_input(p, name, WEIR_F32, &(struct weir_dims){ 1, 1, 1, 1, 1 });
        }
        assert_int_equal(weir_program_finish(p, &error), over ? WEIR_TOO_LARGE : WEIR_OK);
        weir_program_destroy(&p);
    }
}

/* --- the n-th allocation fails ------------------------------------------------------------------------------------ */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

static long allocations_left = -1; /* -1: all succeed */

static bool allocation_fails(void)
{
    if (allocations_left < 0) return false;
    return allocations_left-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return allocation_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return allocation_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return allocation_fails() ? NULL : __real_realloc(memory, bytes);
}

/* Builds a program of some size; all that it took is given back, whatever failed. */
static enum weir_status build_and_destroy(void)
{
    struct weir_program *p = NULL;
    enum weir_status status = weir_program_create(ref, WEIR_F32, &p);
    if (status != WEIR_OK) return status;
    struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 1, 1, 1, 2, 3 });
    for (int i = 0; i < 100; i++) x = weir_program_activate(p, x, WEIR_ACT_GELU);
    weir_program_output(p, "y", x);
    status = weir_program_finish(p, NULL);
    weir_program_destroy(&p);
    return status;
}

static void each_failed_allocation_is_no_memory_and_leaks_nothing(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        assert_true(n < 1000);
        allocations_left = n;
        const enum weir_status status = build_and_destroy();
        const bool used = allocations_left < 0;
        allocations_left = -1;
        if (!used) {
            assert_int_equal(status, WEIR_OK);
            assert_true(n > 100); /* a plan an op, at least */
            break;
        }
        assert_int_equal(status, WEIR_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_live_at_once_never_share_bytes),
        cmocka_unit_test(a_chain_of_any_length_needs_two_values_and_in_place_ops_only_one),
        cmocka_unit_test(new_ops_lie_over_operands_that_die),
        cmocka_unit_test(a_table_is_added_to_its_vectors_or_to_some_repeated_or_to_a_token_of_them),
        cmocka_unit_test(an_output_that_lies_elsewhere_is_written_there),
        cmocka_unit_test(a_profile_computes_what_run_computes_and_names_the_ops),
        cmocka_unit_test(the_first_error_sticks_and_names_op_and_layer),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(wrong_operands_of_new_ops_are_refused_in_words),
        cmocka_unit_test(parts_are_read_and_written_where_they_lie),
        cmocka_unit_test(names_have_a_limit_and_both_sides_of_it_answer),
        cmocka_unit_test(each_failed_allocation_is_no_memory_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
