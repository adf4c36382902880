/* A load puts into the GPU's memory what pack() puts there of the same numbers in f32, byte for byte: whatever the file
 * holds them in, however many pieces and threads it takes, with layers of any kind behind each other. Without a GPU the
 * tests are skipped, with a count. */
#include "tests/kernels/harness.h"

#include "kernels/cuda/cuda.h"
#include "proto/base/half.h"

static struct weir_device *cuda;

#define RUNS_MAX 3

/* A layer as a file has it, and as pack() wants it. */
struct layer {
    struct weir_parameters q;
    struct weir_numbers weight, bias;
    void *file[2][RUNS_MAX];
    float *values[2];
};

static const struct {
    struct weir_parameters q;
    bool bias;
    uint32_t runs;
    float scale, offset;
} kinds[] = {
    { { .op = WEIR_OP_LINEAR, .out = 6000, .in = 1100 }, true, 3, 0, 0 }, /* in several pieces, some over two runs */
    { { .op = WEIR_OP_LINEAR, .out = 7, .in = 33 }, false, 1, 0, 0 },
    { { .op = WEIR_OP_CONV2D, .out = 515, .in = 260, .kernel = 3 }, true, 1, 0, 0 }, /* with rows of zeros in bf16 */
    { { .op = WEIR_OP_CONV2D, .out = 3, .in = 128, .kernel = 3 }, true, 1, 0, 0 },
    { { .op = WEIR_OP_CONV2D, .out = 64, .in = 96, .kernel = 3, .doubled = true }, true, 1, 0, 0 },
    { { .op = WEIR_OP_CONV2D, .out = 2, .in = 120000, .kernel = 3 }, true, 1, 0, 0 }, /* a row that no buffer holds */
    { { .op = WEIR_OP_CONV_TEMPORAL, .out = 700, .in = 1024 }, true, 1, 0, 0 },
    { { .op = WEIR_OP_DEPTHWISE_CONV, .out = 9000, .kernel = 5 }, true, 1, 0, 0 },
    { { .op = WEIR_OP_GROUPED_LINEAR, .out = 96, .in = 48, .kernel = 4 }, false, 1, 0, 0 },
    { { .op = WEIR_OP_RMS_NORM, .out = 2304 }, false, 1, 0, 1 },
    { { .op = WEIR_OP_LAYER_NORM, .out = 77 }, true, 1, 0, 0 },
    { { .op = WEIR_OP_TABLE_ADD, .out = 6, .in = 2240 }, false, 1, 0, 0 },
    { { .op = WEIR_OP_EMBED, .out = 5001, .in = 768, .kernel = 77 }, true, 1, 27.7128f, 0 },
    { { .op = WEIR_OP_EMBED, .out = 10, .in = 900, .kernel = 1000 }, true, 1, 0, 0 }, /* a tail that no buffer holds */
};

/* Random bytes are numbers of every size; what would be a NaN is made zero, whose payload nobody promised to keep. */
static void *random_file(uint64_t *seed, uint64_t count, enum weir_dtype dtype, float *values)
{
    const size_t each = weir_dtype_bytes(dtype);
    const uint32_t exponent = dtype == WEIR_F32 ? 0x7f800000 : dtype == WEIR_BF16 ? 0x7f80 : 0x7c00;
    uint8_t *bytes = malloc(count * each + 1); /* which lie where they lie in a file: unaligned */
    assert_non_null(bytes);
    for (uint64_t i = 0; i < count; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t noise = (uint32_t)(*seed >> 24);
        if ((noise & exponent) == exponent) noise = 0;
        memcpy(bytes + 1 + i * each, &noise, each);
    }
    if (dtype == WEIR_F32)
        memcpy(values, bytes + 1, count * sizeof *values);
    else if (dtype == WEIR_F16)
        weir_f16_to_f32(bytes + 1, count, values);
    else
        weir_bf16_to_f32(bytes + 1, count, values);
    return bytes;
}

static void numbers_begin(struct layer *layer, int part, uint64_t *seed, uint64_t count, uint32_t runs,
                          enum weir_dtype dtype, float scale, float offset)
{
    struct weir_numbers *numbers = part ? &layer->bias : &layer->weight;
    *numbers = (struct weir_numbers){ .run_count = runs, .run_length = count / runs, .scale = scale, .offset = offset };
    layer->values[part] = malloc(count * sizeof(float));
    assert_non_null(layer->values[part]);
    for (uint32_t i = 0; i < runs; i++) {
        const enum weir_dtype of_run = i == 1 ? WEIR_F16 : dtype; /* a stack's tensors need not be alike */
        layer->file[part][i] = random_file(seed, count / runs, of_run, layer->values[part] + i * numbers->run_length);
        numbers->run[i].bytes = (const uint8_t *)layer->file[part][i] + 1;
        numbers->run[i].dtype = of_run;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (scale != 0) layer->values[part][i] *= scale;
        if (offset != 0) layer->values[part][i] += offset;
    }
}

static struct layer layer_begin(size_t kind, uint64_t *seed, enum weir_dtype file, enum weir_dtype precision)
{
    struct layer layer = { .q = kinds[kind].q };
    const float some = 0;
    layer.q.dtype = precision;
    layer.q.weight = &some;
    layer.q.bias = kinds[kind].bias ? &some : NULL;
    const uint64_t weight_count = weir_weight_count(&layer.q), bias_count = weir_bias_count(&layer.q);
    numbers_begin(&layer, 0, seed, weight_count, kinds[kind].runs, file, kinds[kind].scale, kinds[kind].offset);
    if (bias_count) numbers_begin(&layer, 1, seed, bias_count, 1, file, 0, 0);
    layer.q.weight = layer.values[0];
    layer.q.bias = layer.values[1];
    return layer;
}

static void layer_end(struct layer *layer)
{
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < RUNS_MAX; i++) free(layer->file[part][i]);
        free(layer->values[part]);
    }
}

static void *bytes_of(const struct weir_packed *head)
{
    const struct weir_cuda_packed *packed = (const struct weir_cuda_packed *)head;
    struct weir_stream *stream = NULL;
    struct weir_error error = { 0 };
    void *bytes = malloc(packed->bytes);
    assert_non_null(bytes);
    assert_int_equal(cuda->table->stream_create(cuda, &stream, &error), WEIR_OK);
    assert_int_equal(cuda->table->download(stream, bytes, packed->memory, packed->bytes), WEIR_OK);
    assert_int_equal(cuda->table->stream_sync(stream, &error), WEIR_OK);
    cuda->table->stream_destroy(stream);
    return bytes;
}

static void see_same_bytes(size_t kind, const struct weir_packed *loaded, const struct weir_packed *packed)
{
    const size_t count = cuda->ops->packed_bytes(packed);
    assert_int_equal(cuda->ops->packed_bytes(loaded), count);
    uint8_t *a = bytes_of(loaded), *b = bytes_of(packed);
    for (size_t i = 0; i < count; i++) {
        if (a[i] != b[i]) fail_msg("layer %zu (%s): byte %zu of %zu", kind, weir_op_name(packed->op), i, count);
    }
    free(a);
    free(b);
}

static void check(enum weir_dtype file, enum weir_dtype precision)
{
    uint64_t seed = 1 + (uint64_t)file * 2 + precision;
    struct layer layers[WEIR_COUNT(kinds)];
    struct weir_packed *loaded[WEIR_COUNT(kinds)] = { NULL };
    struct weir_load *load = NULL;
    struct weir_error error = { 0 };
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) layers[i] = layer_begin(i, &seed, file, precision);
    assert_int_equal(cuda->ops->load_begin(cuda, &load, &error), WEIR_OK);
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (cuda->ops->load_pack(load, &layers[i].q, &layers[i].weight, &layers[i].bias, &loaded[i], &error) != WEIR_OK)
            fail_msg("layer %zu: %s", i, error.words);
    }
    assert_int_equal(cuda->ops->load_end(&load, &error), WEIR_OK);
    assert_null(load);
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        struct weir_packed *packed = pack_layer(cuda, &layers[i].q);
        see_same_bytes(i, loaded[i], packed);
        cuda->ops->packed_destroy(packed);
        cuda->ops->packed_destroy(loaded[i]);
        layer_end(&layers[i]);
    }
}

static void a_load_s_bytes_are_those_of_pack(void **state)
{
    (void)state;
    static const enum weir_dtype files[] = { WEIR_F32, WEIR_F16, WEIR_BF16 };
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        check(files[i], WEIR_F32);
        check(files[i], WEIR_BF16);
    }
}

static void a_load_may_be_empty_or_end_behind_a_refusal(void **state)
{
    (void)state;
    uint64_t seed = 9;
    struct weir_load *load = NULL;
    struct weir_packed *packed[2] = { NULL };
    struct weir_error error = { 0 };
    assert_int_equal(cuda->ops->load_begin(cuda, &load, &error), WEIR_OK);
    assert_int_equal(cuda->ops->load_end(&load, &error), WEIR_OK);

    struct layer good = layer_begin(0, &seed, WEIR_BF16, WEIR_BF16), huge = good;
    huge.q.out = 1u << 24, huge.q.in = 1u << 16; /* 2 TiB, which are refused before a number is read */
    huge.q.bias = NULL;
    assert_int_equal(cuda->ops->load_begin(cuda, &load, &error), WEIR_OK);
    assert_int_equal(cuda->ops->load_pack(load, &good.q, &good.weight, &good.bias, &packed[0], &error), WEIR_OK);
    assert_int_equal(cuda->ops->load_pack(load, &huge.q, &huge.weight, &huge.bias, &packed[1], &error), WEIR_NO_MEMORY);
    assert_null(packed[1]);
    assert_int_equal(cuda->ops->load_end(&load, &error), WEIR_OK);
    struct weir_packed *alone = pack_layer(cuda, &good.q);
    see_same_bytes(0, packed[0], alone);
    cuda->ops->packed_destroy(alone);
    cuda->ops->packed_destroy(packed[0]);
    layer_end(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_s_bytes_are_those_of_pack),
        cmocka_unit_test(a_load_may_be_empty_or_end_behind_a_refusal),
    };
    struct weir_error error = { 0 };
    const enum weir_status status = weir_device_open("cuda", 0, &cuda, &error);
    if (status == WEIR_NOT_FOUND) {
        printf("skipped: %zu tests of the cuda device: %s\n", WEIR_COUNT(tests), error.words);
        return 77;
    }
    if (status != WEIR_OK) {
        fprintf(stderr, "%s\n", error.words);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    weir_device_close(&cuda);
    return failed;
}
