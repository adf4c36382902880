/* The cuda device computes what ref computes, and its bytes depend neither on the rows beside a row nor on where y
 * lies. Without a GPU the tests are skipped, with a count.
 *   test_cuda [NAME [PART PARTS]]      tests, with * and ?; and of the cases of the test of every op each PARTS-th */
#include "tests/kernels/run_cases.h"
#include "tests/kernels/kernels_seen.h"

#include "kernels/program.h"

static size_t part = 0, parts = 1;
static struct weir_device *cuda; /* one for all tests: opening takes seconds */

static void every_op_computes_what_ref_computes(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0);
    double worst[WEIR_OP_COUNT] = { 0 };
    int faults = 0;
    for (size_t i = part; i < WEIR_COUNT(kernel_cases); i += parts) {
        struct running_case wanted = case_begin(&kernel_cases[i], 0, 2), got = case_begin(&kernel_cases[i], 0, 2);
        case_run(&wanted, ref);
        case_run(&got, cuda);
        faults += !case_agrees(&wanted, &got, f32_tolerance(&wanted.c), &worst[wanted.c.op]);
        case_end(&wanted);
        case_end(&got);
    }
    for (int op = 0; op < WEIR_OP_COUNT; op++) {
        print_message("parity device=cuda op=%s norm=%.2e\n", weir_op_name((enum weir_op)op), worst[op]);
    }
    assert_int_equal(faults, 0);
    weir_device_close(&ref);
}

static void depthwise_conv_reads_what_activate_would_store(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        x_is_read_as_activate_would_store_it(cuda, &kernel_cases[i], case_run);
    }
}

static void bytes_of_a_row_do_not_depend_on_the_rows_beside_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) bytes_of_row_one_are_its_own(cuda, &kernel_cases[i]);
}

static void y_may_lie_where_the_contract_allows_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        y_over_what_it_may_be_has_the_bytes_of_y_apart(cuda, &kernel_cases[i]);
    }
}

static void a_layer_s_bytes_are_known_before_its_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        struct running_case r = case_begin(&kernel_cases[i], 0, 1);
        if (r.weight) {
            struct weir_packed *whole = pack_layer(cuda, &r.parameters);
            r.parameters.shape_only = true;
            struct weir_packed *shape = pack_layer(cuda, &r.parameters);
            assert_int_equal(cuda->ops->packed_bytes(shape), cuda->ops->packed_bytes(whole));
            assert_true(cuda->ops->packed_bytes(whole) >= weir_weight_count(&r.parameters) * sizeof(float));
            cuda->ops->packed_destroy(whole);
            cuda->ops->packed_destroy(shape);
        }
        case_end(&r);
    }
}

/* Where a row's keys end, anything may lie: NaN does no harm. */
static void keys_beyond_a_row_s_length_are_not_read(void **state)
{
    (void)state;
    size_t spoilt_keys = 0;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        const struct weir_attention *s = &kernel_cases[i].shape.attention;
        if (kernel_cases[i].op != WEIR_OP_ATTENTION || !s->lengths) continue;
        struct running_case whole = case_begin(&kernel_cases[i], 0, 2), spoilt = case_begin(&kernel_cases[i], 0, 2);
        const int32_t *lengths = (const int32_t *)(const void *)spoilt.operands[WEIR_ATTENTION_LENGTHS];
        for (uint32_t row = 0; row < 2; row++) {
            for (uint32_t sequence = 0; sequence < s->sequences; sequence++) {
                for (uint32_t j = (uint32_t)lengths[row]; j < s->key_length; j++, spoilt_keys++) {
                    const size_t token = (size_t)row * s->key.row_tokens + sequence * s->key.outer_step + j;
                    for (uint32_t c = 0; c < s->kv_heads * s->head_dim; c++) {
                        spoilt.operands[WEIR_ATTENTION_K][token * s->k_stride + s->k_channel + c] = NAN;
                        spoilt.operands[WEIR_ATTENTION_V][token * s->v_stride + s->v_channel + c] = NAN;
                    }
                }
            }
        }
        case_run(&whole, cuda);
        case_run(&spoilt, cuda);
        assert_memory_equal(whole.operands[WEIR_ATTENTION_Y], spoilt.operands[WEIR_ATTENTION_Y], y_bytes(&whole, 2));
        case_end(&whole);
        case_end(&spoilt);
    }
    assert_true(spoilt_keys > 0);
}

static void group_norm_far_from_zero_keeps_its_accuracy(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        const struct kernel_case c = { .label = "group_norm about 1000",
                                       .op = WEIR_OP_GROUP_NORM,
                                       .shape.group_norm = { .rows = 1,
                                                             .batch = 1,
                                                             .pixels = whole ? 256 : 9000,
                                                             .channels = 48,
                                                             .groups = 16,
                                                             .eps = 1e-5f } };
        struct weir_device *ref = open_device("ref", 0);
        struct running_case wanted = case_begin(&c, 0, 1), got = case_begin(&c, 0, 1);
        const size_t count = wanted.sizes.row[WEIR_GROUP_NORM_X];
        for (size_t i = 0; i < count; i++) {
            wanted.operands[WEIR_GROUP_NORM_X][i] += 1000;
            got.operands[WEIR_GROUP_NORM_X][i] = wanted.operands[WEIR_GROUP_NORM_X][i];
        }
        case_run(&wanted, ref);
        case_run(&got, cuda);
        const double error = relative_error(got.operands[WEIR_GROUP_NORM_Y], wanted.operands[WEIR_GROUP_NORM_Y], count);
        if (!(error <= TOLERANCE)) fail_msg("%u pixels: relative error %.2e", c.shape.group_norm.pixels, error);
        case_end(&wanted);
        case_end(&got);
        weir_device_close(&ref);
    }
}

/* --- graphs ------------------------------------------------------------------------------------------------------- */

#define N 64 /* tokens of the program below, and channels */

/* y = gelu(x W^T + b) + z, of an input and an extern; then normalised. */
static struct weir_program *program_of(const struct weir_packed *linear, const struct weir_packed *norm)
{
    const struct weir_dims dims = { 2, 1, 1, N, N };
    struct weir_program *p = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_program_create(cuda, WEIR_F32, &p), WEIR_OK);
    const struct weir_value x = weir_program_input(p, "x", WEIR_F32, &dims);
    const struct weir_value z = weir_program_extern(p, "z", WEIR_F32, &dims);
    const struct weir_linear_call call = { .activation = WEIR_ACT_GELU, .residual = z };
    const struct weir_value h = weir_program_linear(p, linear, x, &call);
    weir_program_output(p, "y", weir_program_group_norm(p, norm, h, 4, 1e-5f, true, true));
    if (weir_program_finish(p, &error) != WEIR_OK) fail_msg("%s", error.words);
    return p;
}

struct run {
    const struct weir_program *p;
    struct weir_stream *stream;
    char *arena;
    void *z;
};

static void run_with(const struct run *run, const float *x, float *y)
{
    struct weir_error error = { 0 };
    const size_t bytes = sizeof(float) * 2 * N * N;
    const struct weir_binding z = { "z", run->z };
    const struct weir_device_table *table = cuda->table;
    assert_int_equal(table->upload(run->stream, run->arena + weir_program_offset(run->p, "x"), x, bytes), WEIR_OK);
    assert_int_equal(weir_program_run(run->p, run->stream, run->arena, &z, 1), WEIR_OK);
    assert_int_equal(table->download(run->stream, y, run->arena + weir_program_offset(run->p, "y"), bytes), WEIR_OK);
    if (table->stream_sync(run->stream, &error) != WEIR_OK) fail_msg("%s", error.words);
}

static void a_replayed_program_gives_the_bytes_of_its_first_run(void **state)
{
    (void)state;
    uint64_t seed = 21;
    const size_t count = 2 * N * N, bytes = count * sizeof(float);
    float *weight = random_floats(&seed, N * N, 0.1f), *vector = random_floats(&seed, N, 1);
    float *x[2] = { random_floats(&seed, count, 1), random_floats(&seed, count, 1) };
    float *z[2] = { random_floats(&seed, count, 1), random_floats(&seed, count, 1) };
    float *first[2][2], *y = random_floats(&seed, count, 1);
    const struct weir_parameters linear = { .op = WEIR_OP_LINEAR, .weight = weight, .bias = vector, .out = N, .in = N };
    const struct weir_parameters norm = { .op = WEIR_OP_GROUP_NORM, .weight = vector, .bias = vector, .out = N };
    struct weir_packed *layer = pack_layer(cuda, &linear), *groups = pack_layer(cuda, &norm);
    struct weir_program *p = program_of(layer, groups);
    struct run run = { .p = p };
    struct weir_error error = { 0 };
    void *arenas[2], *there[2];
    assert_int_equal(cuda->table->stream_create(cuda, &run.stream, &error), WEIR_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cuda->table->memory_alloc(cuda, weir_program_arena_bytes(p), &arenas[i], &error), WEIR_OK);
        assert_int_equal(cuda->table->memory_alloc(cuda, bytes, &there[i], &error), WEIR_OK);
        assert_int_equal(cuda->table->upload(run.stream, there[i], z[i], bytes), WEIR_OK);
    }
    for (int i = 0; i < 4; i++) { /* each in an arena of its own, as far as the graphs know */
        first[i / 2][i % 2] = random_floats(&seed, count, 1);
        struct weir_program *fresh = program_of(layer, groups);
        run_with(&(struct run){ fresh, run.stream, arenas[0], there[i / 2] }, x[i % 2], first[i / 2][i % 2]);
        weir_program_destroy(&fresh);
    }
    assert_memory_not_equal(first[0][0], first[0][1], bytes);
    assert_memory_not_equal(first[0][0], first[1][0], bytes);
    for (int i = 0; i < 40; i++) { /* every arena with every z is run, captured and replayed */
        const int of_z = i / 2 % 2, of_x = i % 3 % 2;
        run.arena = arenas[i % 2];
        run.z = there[of_z];
        run_with(&run, x[of_x], y);
        assert_memory_equal(y, first[of_z][of_x], bytes);
    }
    for (int i = 0; i < 2; i++) {
        cuda->table->memory_free(cuda, arenas[i]);
        cuda->table->memory_free(cuda, there[i]);
        free(x[i]), free(z[i]), free(first[i][0]), free(first[i][1]);
    }
    free(weight), free(vector), free(y);
    weir_program_destroy(&p);
    cuda->ops->packed_destroy(layer);
    cuda->ops->packed_destroy(groups);
    cuda->table->stream_destroy(run.stream);
}

static void gpus_are_named_by_number_or_uuid(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_device_open("cuda:0", 0, &device, &error), WEIR_OK);
    assert_string_equal(device->numerics_class, cuda->numerics_class);
    weir_device_close(&device);
    assert_int_equal(weir_device_open("cuda:99", 0, &device, &error), WEIR_NOT_FOUND);
    assert_int_equal(weir_device_open("cuda:GPU-0", 0, &device, &error), WEIR_NOT_FOUND);
    assert_int_equal(weir_device_open("cuda:first", 0, &device, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_device_open("cuda:", 0, &device, &error), WEIR_UNSUPPORTED);
}

/* What this process holds where that is told, else what all hold, which others may change meanwhile. */
static unsigned long long held_mib(const struct weir_health *now)
{
    const char *own = strstr(now->figures, "own_mib="), *all = strstr(now->figures, "used_mib=");
    const char *figure = own ? own : all;
    return figure ? strtoull(strchr(figure, '=') + 1, NULL, 10) : 0;
}

static void the_driver_calls_it_sound_and_sees_its_memory(void **state)
{
    (void)state;
    struct weir_health before, after;
    struct weir_error error = { 0 };
    void *memory = NULL;
    cuda->table->health(cuda, &before);
    print_message("health %s\n", before.figures);
    if (strstr(before.figures, "unknown=")) skip();
    assert_int_equal(cuda->table->memory_alloc(cuda, (size_t)1 << 30, &memory, &error), WEIR_OK);
    cuda->table->health(cuda, &after);
    cuda->table->memory_free(cuda, memory);
    print_message("health %s\n", after.figures);
    assert_string_equal(before.failure, "");
    assert_string_equal(after.failure, "");
    assert_in_range(held_mib(&after) - held_mib(&before), 1024, 1040);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_computes_what_ref_computes),
        cmocka_unit_test(depthwise_conv_reads_what_activate_would_store),
        cmocka_unit_test(bytes_of_a_row_do_not_depend_on_the_rows_beside_it),
        cmocka_unit_test(y_may_lie_where_the_contract_allows_it),
        cmocka_unit_test(a_layer_s_bytes_are_known_before_its_weights),
        cmocka_unit_test(keys_beyond_a_row_s_length_are_not_read),
        cmocka_unit_test(group_norm_far_from_zero_keeps_its_accuracy),
        cmocka_unit_test(a_replayed_program_gives_the_bytes_of_its_first_run),
        cmocka_unit_test(gpus_are_named_by_number_or_uuid),
        cmocka_unit_test(the_driver_calls_it_sound_and_sees_its_memory),
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
    printf("numerics=%s memory_bytes=%llu\n", cuda->numerics_class, (unsigned long long)cuda->memory_bytes);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    if (argc > 3) part = strtoul(argv[2], NULL, 10), parts = strtoul(argv[3], NULL, 10);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    weir_device_close(&cuda);
    weir_kernels_seen_report();
    return failed;
}
