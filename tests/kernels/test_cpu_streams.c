/* One cpu device used from several threads at once, as a worker's slots do: each with a stream and an arena of its own,
 * over the same layers; some threads plan while others run. All get the same bytes. */
#include "tests/kernels/harness.h"

#include "kernels/program.h"

#include <pthread.h>

#define STREAMS 3
#define ROUNDS 8
#define CHANNELS 20

struct layers {
    struct weir_packed *conv, *temporal, *norm, *linear, *gate;
};

static struct weir_packed *layer_of(struct weir_device *device, enum weir_op op, uint32_t out, uint32_t kernel,
                                    bool geglu)
{
    uint64_t seed = out + kernel;
    float *weight = random_floats(&seed, (size_t)out * CHANNELS * 9, 0.1f), *bias = random_floats(&seed, out, 1);
    struct weir_packed *packed = pack_layer(
        device,
        &(struct weir_parameters){
            .op = op, .weight = weight, .bias = bias, .out = out, .in = CHANNELS, .kernel = kernel, .geglu = geglu });
    free(weight);
    free(bias);
    return packed;
}

/* A block as networks have them; the size differs by `size`, so that layers are planned at several shapes. */
static struct weir_program *build(struct weir_device *device, const struct layers *l, uint32_t size)
{
    struct weir_program *p = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_program_create(device, WEIR_F32, &p), WEIR_OK);
    struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ 2, 4, size, size, CHANNELS });
    struct weir_value h = weir_program_group_norm(p, l->norm, x, 4, 1e-5f, true, true);
    h = weir_program_conv2d(p, l->conv, h, &(struct weir_conv2d_call){ .pad = 1, .pad_end = 1, .residual = x });
    h = weir_program_conv_temporal(p, l->temporal, h, h);
    h = weir_program_linear(p, l->gate, h, &(struct weir_linear_call){ .activation = WEIR_ACT_GEGLU });
    const struct weir_value q = weir_program_linear(p, l->linear, h, NULL);
    h = weir_program_attention(p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_SPATIAL,
                                                                 .q = q,
                                                                 .k = q,
                                                                 .v = q,
                                                                 .k_channel = CHANNELS,
                                                                 .v_channel = 2 * CHANNELS,
                                                                 .heads = 2,
                                                                 .head_dim = CHANNELS / 2,
                                                                 .scale = 0.3f });
    weir_program_output(p, "y", weir_program_concat(p, h, x));
    if (weir_program_finish(p, &error) != WEIR_OK) fail_msg("%s", error.words);
    return p;
}

/* The bytes of y, from the heap. */
static float *compute(struct weir_device *device, const struct weir_program *p, size_t *bytes)
{
    struct weir_stream *stream = NULL;
    void *arena = NULL;
    uint64_t seed = 42;
    const size_t count = weir_program_bytes(p, "x") / sizeof(float);
    *bytes = weir_program_bytes(p, "y");
    float *x = random_floats(&seed, count, 1), *y = malloc(*bytes);
    assert_int_equal(device->table->stream_create(device, &stream, NULL), WEIR_OK);
    assert_int_equal(device->table->memory_alloc(device, weir_program_arena_bytes(p), &arena, NULL), WEIR_OK);
    char *base = arena;
    device->table->upload(stream, base + weir_program_offset(p, "x"), x, count * sizeof(float));
    assert_int_equal(weir_program_run(p, stream, arena, NULL, 0), WEIR_OK);
    device->table->download(stream, y, base + weir_program_offset(p, "y"), *bytes);
    assert_int_equal(device->table->stream_sync(stream, NULL), WEIR_OK);
    device->table->memory_free(device, arena);
    device->table->stream_destroy(stream);
    free(x);
    return y;
}

struct user {
    pthread_t thread;
    struct weir_device *device;
    const struct layers *layers;
    const struct weir_program *shared; /* planned once, run by all */
    const float *wanted;
    uint32_t size; /* of a program of its own, planned while the others work */
    bool differed;
};

static void *use(void *argument)
{
    struct user *user = argument;
    for (int round = 0; round < ROUNDS; round++) {
        struct weir_program *own = build(user->device, user->layers, user->size + (uint32_t)round % 3);
        size_t bytes;
        float *y = compute(user->device, user->shared, &bytes);
        user->differed |= memcmp(y, user->wanted, bytes) != 0;
        free(y);
        free(compute(user->device, own, &bytes));
        weir_program_destroy(&own);
    }
    return NULL;
}

static void streams_share_plans_and_layers(void **state)
{
    (void)state;
    struct weir_device *device = open_device("cpu", 2);
    const struct layers layers = { .conv = layer_of(device, WEIR_OP_CONV2D, CHANNELS, 3, false),
                                   .temporal = layer_of(device, WEIR_OP_CONV_TEMPORAL, CHANNELS, 0, false),
                                   .norm = layer_of(device, WEIR_OP_GROUP_NORM, CHANNELS, 0, false),
                                   .linear = layer_of(device, WEIR_OP_LINEAR, 3 * CHANNELS, 0, false),
                                   .gate = layer_of(device, WEIR_OP_LINEAR, 2 * CHANNELS, 0, true) };
    struct weir_program *shared = build(device, &layers, 6);
    size_t bytes;
    float *wanted = compute(device, shared, &bytes);
    struct user users[STREAMS];
    for (uint32_t i = 0; i < STREAMS; i++) {
        users[i] =
            (struct user){ .device = device, .layers = &layers, .shared = shared, .wanted = wanted, .size = 2 + 2 * i };
        assert_int_equal(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
    }
    for (uint32_t i = 0; i < STREAMS; i++) {
        pthread_join(users[i].thread, NULL);
        assert_false(users[i].differed);
    }
    free(wanted);
    weir_program_destroy(&shared);
    device->ops->packed_destroy(layers.conv);
    device->ops->packed_destroy(layers.temporal);
    device->ops->packed_destroy(layers.norm);
    device->ops->packed_destroy(layers.linear);
    device->ops->packed_destroy(layers.gate);
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_share_plans_and_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
