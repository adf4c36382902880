/* The cuda device in bf16: what ref computes from the same rounded numbers, but for the rounding of what is stored; the
 * bytes of a row are its own, and those of a convolution the same by every tile shape. Without a GPU the tests are
 * skipped, with a count.
 *   test_cuda_bf16 [NAME [PART PARTS]]      tests, with * and ?; and of the cases of every_* each PARTS-th */
#include "tests/kernels/run_cases.h"
#include "tests/kernels/kernels_seen.h"

#include "kernels/cuda/cuda.h"

/* Half a unit of 8 bits is 2e-3 at most and 1.1e-3 on average; convolutions round twice. */
#define BF16_TOLERANCE 4e-3

static size_t part = 0, parts = 1;
static struct weir_device *cuda;

static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float f32_of(uint16_t value)
{
    const uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static bool is_bf16(const struct kernel_case *c, size_t operand)
{
    switch (c->op) {
    case WEIR_OP_EMBED:
        return operand != WEIR_EMBED_IDS;
    case WEIR_OP_ATTENTION:
        return operand != WEIR_ATTENTION_LENGTHS;
    case WEIR_OP_LOW_RANK:
        return operand != WEIR_LOW_RANK_A && operand != WEIR_LOW_RANK_B;
    case WEIR_OP_TIMESTEP_EMBEDDING:
        return operand != WEIR_TIMESTEP_EMBEDDING_T;
    case WEIR_OP_LATENTS_PACK:
        return operand == WEIR_LATENTS_PACK_Y;
    case WEIR_OP_GUIDANCE:
        return operand == WEIR_GUIDANCE_X;
    case WEIR_OP_TO_RGB8:
        return operand == WEIR_TO_RGB8_X;
    default:
        return true;
    }
}

static void round_all(float *values, size_t count)
{
    for (size_t i = 0; values && i < count; i++) values[i] = f32_of(bf16_of(values[i]));
}

/* Every number that will be bf16 is one already. */
static struct running_case rounded_case(const struct kernel_case *c, uint32_t first_row, uint32_t rows)
{
    struct running_case r = case_begin(c, first_row, rows);
    const bool weights = c->op == WEIR_OP_LINEAR || c->op == WEIR_OP_GROUPED_LINEAR || c->op == WEIR_OP_CONV2D ||
                         c->op == WEIR_OP_CONV_TEMPORAL || c->op == WEIR_OP_EMBED;
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (is_bf16(c, i)) round_all(r.operands[i], r.sizes.row[i] * rows);
    }
    if (weights) round_all(r.weight, weir_weight_count(&r.parameters));
    if (c->op == WEIR_OP_LINEAR && r.bias) round_all(r.bias, weir_bias_count(&r.parameters));
    return r;
}

static void set_bf16(struct running_case *r)
{
    r->parameters.dtype = WEIR_BF16;
    switch (r->c.op) {
#define X(op, OP)                                                                                                      \
    case WEIR_OP_##OP:                                                                                                 \
        r->c.shape.op.dtype = WEIR_BF16;                                                                               \
        break;
        WEIR_OP_TABLE(X)
#undef X
    default:
        break;
    }
}

/* y in f32 where it is bf16. An operand whose numbers are y's has its memory there, too. */
static void run_in_bf16(struct running_case *r)
{
    const struct weir_device_table *table = cuda->table;
    struct weir_error error = { 0 };
    struct weir_stream *stream = NULL;
    void *there[WEIR_OPERANDS_MAX] = { NULL };
    uint16_t *half[WEIR_OPERANDS_MAX] = { NULL };
    const size_t y = r->sizes.y;
    set_bf16(r);
    assert_int_equal(table->stream_create(cuda, &stream, &error), WEIR_OK);
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        const size_t bytes = operand_bytes(r, i), count = bytes / sizeof(float);
        if (!r->operands[i] || (i != y && r->operands[i] == r->operands[y])) continue;
        half[i] = malloc(bytes);
        assert_non_null(half[i]);
        for (size_t k = 0; k < count; k++) half[i][k] = bf16_of(r->operands[i][k]);
        assert_int_equal(table->memory_alloc(cuda, bytes, &there[i], &error), WEIR_OK);
        const void *from = is_bf16(&r->c, i) ? (const void *)half[i] : r->operands[i];
        assert_int_equal(table->upload(stream, there[i], from, is_bf16(&r->c, i) ? bytes / 2 : bytes), WEIR_OK);
    }
    assert_int_equal(table->stream_sync(stream, &error), WEIR_OK);
    void *const y_there = there[y];
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (r->operands[i] == r->operands[y]) there[i] = y_there;
    }
    if (r->weight) {
        run_layer(cuda, &r->parameters, &r->c.shape, there);
    } else {
        run_op(cuda, r->c.op, NULL, &r->c.shape, there);
    }
    const size_t bytes = operand_bytes(r, y), count = bytes / sizeof(float);
    void *to = is_bf16(&r->c, y) ? (void *)half[y] : r->operands[y];
    assert_int_equal(table->download(stream, to, there[y], is_bf16(&r->c, y) ? bytes / 2 : bytes), WEIR_OK);
    if (table->stream_sync(stream, &error) != WEIR_OK) fail_msg("%s: %s", r->c.label, error.words);
    for (size_t k = 0; is_bf16(&r->c, y) && k < count; k++) r->operands[y][k] = f32_of(half[y][k]);
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (i == y || there[i] != y_there) table->memory_free(cuda, there[i]);
        free(half[i]);
    }
    table->stream_destroy(stream);
}

static bool has_bf16(const struct kernel_case *c)
{
    return c->op != WEIR_OP_SAMPLER_STEP;
}

static void every_op_computes_what_ref_computes_from_the_same_numbers(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0);
    double worst[WEIR_OP_COUNT] = { 0 };
    int faults = 0;
    for (size_t i = part; i < WEIR_COUNT(kernel_cases); i += parts) {
        if (!has_bf16(&kernel_cases[i])) continue;
        struct running_case wanted = rounded_case(&kernel_cases[i], 0, 2), got = rounded_case(&kernel_cases[i], 0, 2);
        case_run(&wanted, ref);
        run_in_bf16(&got);
        faults += !case_agrees(&wanted, &got, BF16_TOLERANCE, &worst[wanted.c.op]);
        case_end(&wanted);
        case_end(&got);
    }
    for (int op = 0; op < WEIR_OP_COUNT; op++) {
        print_message("parity device=cuda dtype=bf16 op=%s norm=%.2e\n", weir_op_name((enum weir_op)op), worst[op]);
    }
    assert_int_equal(faults, 0);
    weir_device_close(&ref);
}

static void run_on_cuda(struct running_case *r, struct weir_device *device)
{
    (void)device;
    run_in_bf16(r);
}

static void depthwise_conv_reads_what_activate_would_store(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        x_is_read_as_activate_would_store_it(cuda, &kernel_cases[i], run_on_cuda);
    }
}

static void bytes_of_a_row_do_not_depend_on_the_rows_beside_it(void **state)
{
    (void)state;
    int faults = 0;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        if (!has_bf16(&kernel_cases[i])) continue;
        struct running_case alone = rounded_case(&kernel_cases[i], 1, 1), three = rounded_case(&kernel_cases[i], 0, 3);
        run_in_bf16(&alone);
        run_in_bf16(&three);
        const size_t y = alone.sizes.y, row = y_bytes(&alone, 1);
        if (memcmp(alone.operands[y], (char *)three.operands[y] + row, row) != 0) {
            print_error("%s: a row's bytes depend on the rows beside it\n", alone.c.label);
            faults++;
        }
        case_end(&alone);
        case_end(&three);
    }
    assert_int_equal(faults, 0);
}

/* --- tiles of convolutions ---------------------------------------------------------------------------------------- */

/* What conv_tiles.cu makes tile shapes for, small: on a GPU of so few multiprocessors it takes all that it takes for
 * large pictures on a large one. */
#define FEW_MULTIPROCESSORS 4
static const struct kernel_case tiled_cases[] = {
    CONV2D(1, 8, 64, 8, 136, 1, 1, 0, 0, .residual = true),
    CONV2D(1, 8, 16, 8, 136, 3, 1, 1, 1, .row_bias = true, .resize_height = 16, .resize_width = 32),
    CONV2D(1, 16, 32, 8, 136, 3, 1, 1, 1, .row_bias = true, .residual = true),
    CONV_TEMPORAL(16, 32, 8, 136, .residual = true),
    CONV2D(1, 32, 64, 8, 136, 3, 2, 1, 1, .silu = true),
    CONV2D(1, 16, 32, 8, 40, 5, 1, 2, 2, .residual = true),
    CONV2D(1, 16, 32, 1096, 136, 3, 1, 1, 1, .residual = true),
};

static void every_tile_shape_makes_the_same_bytes(void **state)
{
    (void)state;
    struct weir_cuda *gpu = (struct weir_cuda *)cuda;
    const int multiprocessors = gpu->multiprocessors;
    int faults = 0;
    for (size_t i = part; i < WEIR_COUNT(tiled_cases); i += parts) {
        struct running_case wanted = rounded_case(&tiled_cases[i], 0, 2), got = rounded_case(&tiled_cases[i], 0, 2);
        run_in_bf16(&wanted);
        gpu->multiprocessors = FEW_MULTIPROCESSORS;
        run_in_bf16(&got);
        gpu->multiprocessors = multiprocessors;
        const size_t y = wanted.sizes.y;
        if (memcmp(wanted.operands[y], got.operands[y], y_bytes(&wanted, 2)) != 0) {
            print_error("%s: other bytes with %d multiprocessors\n", wanted.c.label, FEW_MULTIPROCESSORS);
            faults++;
        }
        case_end(&wanted);
        case_end(&got);
    }
    assert_int_equal(faults, 0);
}

static void y_may_lie_where_the_contract_allows_it(void **state)
{
    (void)state;
    int faults = 0;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        const struct operands_under_y under = operands_under_y(&kernel_cases[i]);
        for (size_t k = 0; under.in[k] < WEIR_OPERANDS_MAX; k++) {
            struct running_case apart = rounded_case(&kernel_cases[i], 0, 2),
                                over = rounded_case(&kernel_cases[i], 0, 2);
            const size_t y = apart.sizes.y;
            float *own = over.operands[y];
            if (over.operands[under.in[k]]) {
                over.operands[y] = over.operands[under.in[k]];
                run_in_bf16(&apart);
                run_in_bf16(&over);
                if (memcmp(apart.operands[y], over.operands[y], y_bytes(&apart, 2)) != 0) {
                    print_error("%s: other bytes with y over operand %zu\n", apart.c.label, under.in[k]);
                    faults++;
                }
                over.operands[y] = own;
            }
            case_end(&apart);
            case_end(&over);
        }
    }
    assert_int_equal(faults, 0);
}

/* Numbers of bf16 about 1000 are 4 apart. */
static void group_norm_far_from_zero_keeps_its_accuracy(void **state)
{
    static const struct kernel_case cases[] = {
        GROUP_NORM(2, 16, 64, 16),
        GROUP_NORM(1, 700, 320, 32),
        GROUP_NORM(1, 12000, 72, 9),
        GROUP_NORM(1, 7000, 320, 32),
    };
    struct weir_device *ref = open_device("ref", 0);
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct running_case wanted = case_begin(&cases[i], 0, 2), got = case_begin(&cases[i], 0, 2);
        const size_t count = wanted.sizes.row[WEIR_GROUP_NORM_X] * 2;
        float *x = wanted.operands[WEIR_GROUP_NORM_X];
        for (size_t k = 0; k < count; k++) x[k] = 1000 + 4 * x[k];
        round_all(x, count);
        memcpy(got.operands[WEIR_GROUP_NORM_X], x, count * sizeof *x);
        case_run(&wanted, ref);
        run_in_bf16(&got);
        const double error = relative_error(got.operands[WEIR_GROUP_NORM_Y], wanted.operands[WEIR_GROUP_NORM_Y], count);
        if (!(error <= BF16_TOLERANCE)) fail_msg("%s: relative error %.2e", cases[i].label, error);
        case_end(&wanted);
        case_end(&got);
    }
    weir_device_close(&ref);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_computes_what_ref_computes_from_the_same_numbers),
        cmocka_unit_test(depthwise_conv_reads_what_activate_would_store),
        cmocka_unit_test(bytes_of_a_row_do_not_depend_on_the_rows_beside_it),
        cmocka_unit_test(every_tile_shape_makes_the_same_bytes),
        cmocka_unit_test(y_may_lie_where_the_contract_allows_it),
        cmocka_unit_test(group_norm_far_from_zero_keeps_its_accuracy),
    };
    struct weir_error error = { 0 };
    const enum weir_status status = weir_device_open("cuda", 0, &cuda, &error);
    if (status == WEIR_NOT_FOUND) {
        printf("skipped: %zu tests of the cuda device in bf16: %s\n", WEIR_COUNT(tests), error.words);
        return 77;
    }
    if (status != WEIR_OK) {
        fprintf(stderr, "%s\n", error.words);
        return 1;
    }
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    if (argc > 3) part = strtoul(argv[2], NULL, 10), parts = strtoul(argv[3], NULL, 10);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    weir_device_close(&cuda);
    weir_kernels_seen_report();
    return failed;
}
