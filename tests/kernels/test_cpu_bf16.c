/* Layers whose products read bf16: what rounding means, by ref; that cpu computes the same, and its bytes depend neither
 * on threads nor on the rows beside; that it is refused by name where the processor has no such products. There the
 * tests of cpu's own products are skipped. */
#include "tests/kernels/run_cases.h"

#include "kernels/cpu/simd.h"

#include <sys/wait.h>
#include <unistd.h>

static struct weir_device *open_bf16(const char *name, int threads)
{
    struct weir_device *device = open_device(name, threads);
    struct weir_error error = { 0 };
    const enum weir_status status = weir_device_set_precision(device, WEIR_BF16, &error);
    if (status == WEIR_OK) return device;
    assert_int_equal(status, WEIR_UNSUPPORTED);
    weir_device_close(&device);
    return NULL;
}

/* cpu with such products, or the test is skipped. */
#define OPEN_CPU(device, threads)                                                                                      \
    struct weir_device *device = open_bf16("cpu", threads);                                                            \
    if (!device) skip()

/* The cases of the ops that have products, their layers read as bf16. */
static size_t product_cases(struct kernel_case out[WEIR_COUNT(kernel_cases)])
{
    size_t count = 0;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        const enum weir_op op = kernel_cases[i].op;
        if (op != WEIR_OP_LINEAR && op != WEIR_OP_CONV2D && op != WEIR_OP_CONV_TEMPORAL) continue;
        out[count] = kernel_cases[i];
        out[count++].reads = WEIR_BF16;
    }
    assert_true(count > 40);
    return count;
}
#define FOR_EACH_CASE(c)                                                                                               \
    struct kernel_case cases[WEIR_COUNT(kernel_cases)];                                                                \
    const size_t case_count = product_cases(cases);                                                                    \
    for (const struct kernel_case *c = cases; c < cases + case_count; c++)

/* The nearest of the numbers with 8 significant bits, by arithmetic and not by bits. */
static float nearest_bf16(float x)
{
    int exponent;
    if (x == 0 || !isfinite(x)) return x;
    (void)frexpf(x, &exponent);
    if (exponent < -125) exponent = -125; /* below it, steps stay as they are */
    const float rounded = ldexpf(nearbyintf(ldexpf(x, 8 - exponent)), exponent - 8);
    return rounded;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void rounding_is_to_the_nearest_and_half_to_even(void **state)
{
    (void)state;
    const struct weir_cpu_simd *all[3] = { &weir_cpu_simd_base };
    size_t tables = 1;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all[tables++] = &weir_cpu_simd_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) all[tables++] = &weir_cpu_simd_avx512;
    static const uint32_t lower[] = { 0, 1, 0x7fff, 0x8000, 0x8001, 0xffff };
    float x[64];
    uint16_t y[64];
    for (size_t k = 0; k < tables; k++) {
        size_t count = 0;
        for (uint32_t n = 0; n < 0x10000 * WEIR_COUNT(lower); n++) {
            x[count++] = from_bits(n / WEIR_COUNT(lower) << 16 | lower[n % WEIR_COUNT(lower)]);
            if (count < 37 && n + 1 < 0x10000 * WEIR_COUNT(lower)) continue; /* whole vectors, and a rest */
            all[k]->round_bf16(x, y, count);
            for (size_t i = 0; i < count; i++) {
                const float got = from_bits((uint32_t)y[i] << 16), wanted = nearest_bf16(x[i]);
                if (isnan(x[i]) ? !isnan(got) : memcmp(&got, &wanted, sizeof got) != 0) {
                    fail_msg("%s: %a gives %a, not %a", all[k]->name, (double)x[i], (double)got, (double)wanted);
                }
            }
            count = 0;
        }
    }
}

/* ref with a bf16 layer has the bytes of ref with an f32 layer whose weights and x were rounded beforehand. */
static void the_judge_rounds_weights_and_x_and_nothing_else(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0);
    FOR_EACH_CASE(c)
    {
        struct running_case got = case_begin(c, 0, 1), wanted = case_begin(c, 0, 1);
        wanted.parameters.dtype = WEIR_F32;
        for (uint64_t i = 0; i < weir_weight_count(&wanted.parameters); i++) {
            wanted.weight[i] = nearest_bf16(wanted.weight[i]);
        }
        for (size_t i = 0; i < wanted.sizes.row[0]; i++) wanted.operands[0][i] = nearest_bf16(wanted.operands[0][i]);
        case_run(&got, ref);
        case_run(&wanted, ref);
        const size_t y = got.sizes.y;
        if (memcmp(got.operands[y], wanted.operands[y], y_bytes(&got, 1)) != 0) fail_msg("%s: other bytes", c->label);
        case_end(&got);
        case_end(&wanted);
    }
    weir_device_close(&ref);
}

/* Products of two bf16 are exact in f32, so sums are all that is rounded: the tolerance is that of f32 layers. */
static void products_are_those_of_the_judge(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 2);
    struct weir_device *ref = open_device("ref", 0);
    double worst = 0;
    int faults = 0;
    FOR_EACH_CASE(c)
    {
        struct running_case wanted = case_begin(c, 0, 2), got = case_begin(c, 0, 2);
        case_run(&wanted, ref);
        case_run(&got, cpu);
        faults += !case_agrees(&wanted, &got, f32_tolerance(c), &worst);
        case_end(&wanted);
        case_end(&got);
    }
    assert_int_equal(faults, 0);
    weir_device_close(&ref);
    weir_device_close(&cpu);
}

static void bytes_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    OPEN_CPU(one, 1);
    for (int threads = 2; threads <= 3; threads++) {
        struct weir_device *many = open_bf16("cpu", threads);
        assert_string_equal(one->numerics_class, many->numerics_class);
        FOR_EACH_CASE(c)
        {
            struct running_case a = case_begin(c, 0, 2), b = case_begin(c, 0, 2);
            case_run(&a, one);
            case_run(&b, many);
            if (memcmp(a.operands[a.sizes.y], b.operands[b.sizes.y], y_bytes(&a, 2)) != 0) {
                fail_msg("%s: other bytes with %d threads", c->label, threads);
            }
            case_end(&a);
            case_end(&b);
        }
        weir_device_close(&many);
    }
    weir_device_close(&one);
}

static void bytes_of_a_row_do_not_depend_on_the_rows_beside_it(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 2);
    FOR_EACH_CASE(c) bytes_of_row_one_are_its_own(cpu, c);
    weir_device_close(&cpu);
}

static void y_may_lie_where_the_contract_allows_it(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 2);
    FOR_EACH_CASE(c) y_over_what_it_may_be_has_the_bytes_of_y_apart(cpu, c);
    weir_device_close(&cpu);
}

static void a_layer_s_bytes_are_known_before_its_weights(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 1);
    FOR_EACH_CASE(c)
    {
        struct running_case r = case_begin(c, 0, 1);
        struct weir_packed *whole = pack_layer(cpu, &r.parameters);
        r.parameters.shape_only = true;
        struct weir_packed *shape = pack_layer(cpu, &r.parameters);
        assert_int_equal(cpu->ops->packed_bytes(shape), cpu->ops->packed_bytes(whole));
        assert_int_equal(whole->dtype, WEIR_BF16);
        cpu->ops->packed_destroy(whole);
        cpu->ops->packed_destroy(shape);
        case_end(&r);
    }
    const uint32_t in = 320, out = 1280; /* whole blocks: no padding */
    struct weir_parameters q = { .op = WEIR_OP_LINEAR,
                                 .weight = (const float[]){ 0 },
                                 .out = out,
                                 .in = in,
                                 .dtype = WEIR_BF16,
                                 .shape_only = true };
    struct weir_packed *layer = pack_layer(cpu, &q);
    assert_int_equal(cpu->ops->packed_bytes(layer), in * out * sizeof(uint16_t) + out * sizeof(float));
    cpu->ops->packed_destroy(layer);
    weir_device_close(&cpu);
}

/* One layer at many shapes: layouts that are added later are made of the rounded weights. */
static void a_layer_may_be_shared_by_many_shapes(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 2);
    struct weir_device *ref = open_device("ref", 0);
    uint64_t seed = 11;
    float *weight = random_floats(&seed, 48 * 48 * 9, 0.05f), *bias = random_floats(&seed, 48, 1);
    const struct weir_parameters q = {
        .op = WEIR_OP_CONV2D, .weight = weight, .bias = bias, .out = 48, .in = 48, .kernel = 3, .dtype = WEIR_BF16
    };
    struct weir_packed *layer = pack_layer(cpu, &q), *judge = pack_layer(ref, &q);
    for (uint32_t side = 1; side <= 33; side += side < 4 ? 1 : 7) {
        for (uint32_t stride = 1; stride <= 2; stride++) {
            const struct weir_conv2d shape = { .rows = 1,
                                               .frames = 1,
                                               .height = side,
                                               .width = side,
                                               .in = 48,
                                               .out = 48,
                                               .kernel = 3,
                                               .stride = stride,
                                               .pad = 1,
                                               .pad_end = 1 };
            const struct weir_conv2d_size size = weir_conv2d_size_of(&shape);
            const size_t count = (size_t)size.height * size.width * 48;
            float *x = random_floats(&seed, (size_t)side * side * 48, 1);
            float *y = random_floats(&seed, count, 1), *wanted = random_floats(&seed, count, 1);
            run_op(cpu, WEIR_OP_CONV2D, layer, &shape, (void *[]){ x, NULL, NULL, y });
            run_op(ref, WEIR_OP_CONV2D, judge, &shape, (void *[]){ x, NULL, NULL, wanted });
            assert_true(relative_error(y, wanted, count) <= TOLERANCE);
            free(x);
            free(y);
            free(wanted);
        }
    }
    cpu->ops->packed_destroy(layer);
    ref->ops->packed_destroy(judge);
    weir_device_close(&cpu);
    weir_device_close(&ref);
    free(weight);
    free(bias);
}

/* Precision is a layer's own: one device holds both, and what was asked of it for networks changes neither. */
static void layers_of_both_precisions_live_on_one_device(void **state)
{
    (void)state;
    OPEN_CPU(cpu, 1);
    struct weir_device *plain = open_device("cpu", 1);
    const struct kernel_case c = LINEAR(77, 128, 512, .activation = WEIR_ACT_GELU);
    struct running_case a = case_begin(&c, 0, 2), b = case_begin(&c, 0, 2), rounded = case_begin(&c, 0, 2);
    rounded.parameters.dtype = WEIR_BF16;
    case_run(&a, cpu);
    case_run(&b, plain);
    case_run(&rounded, plain);
    const size_t y = a.sizes.y;
    assert_memory_equal(a.operands[y], b.operands[y], y_bytes(&a, 2));
    const double error = relative_error(rounded.operands[y], b.operands[y], a.sizes.row[y] * 2);
    assert_true(error > 1e-4 && error < 1e-2); /* 8 bits each of two factors */
    case_end(&a);
    case_end(&b);
    case_end(&rounded);
    weir_device_close(&cpu);
    weir_device_close(&plain);
}

static void the_class_says_the_precision(void **state)
{
    (void)state;
    const char *const names[] = { "ref", "cpu" };
    for (size_t i = 0; i < WEIR_COUNT(names); i++) {
        struct weir_device *device = open_device(names[i], 1);
        char before[WEIR_NUMERICS_CLASS_MAX];
        memcpy(before, device->numerics_class, sizeof before);
        assert_int_equal(device->precision, WEIR_F32);
        assert_non_null(strstr(before, "-f32"));
        if (weir_device_set_precision(device, WEIR_BF16, NULL) == WEIR_OK) {
            assert_int_equal(device->precision, WEIR_BF16);
            assert_non_null(strstr(device->numerics_class, "-bf16"));
            assert_null(strstr(device->numerics_class, "-f32"));
            assert_int_equal(weir_device_set_precision(device, WEIR_F32, NULL), WEIR_OK);
        }
        assert_string_equal(device->numerics_class, before);
        assert_int_equal(weir_device_set_precision(device, WEIR_F16, NULL), WEIR_UNSUPPORTED);
        assert_string_equal(device->numerics_class, before);
        weir_device_close(&device);
    }
}

/* Before any device is opened here: oneDNN reads its environment once. */
static void it_is_refused_by_name_where_the_processor_has_none(void **state)
{
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", 1);
        static const char words[] = "--precision bf16: this processor has neither AMX nor AVX512-BF16; f32 is offered";
        struct weir_device *cpu = open_device("cpu", 1);
        struct weir_error error = { 0 }, of_pack = { 0 };
        struct weir_packed *packed = NULL;
        const struct weir_parameters q = {
            .op = WEIR_OP_LINEAR, .weight = (const float[]){ 1 }, .out = 1, .in = 1, .dtype = WEIR_BF16
        };
        const bool good = weir_device_set_precision(cpu, WEIR_BF16, &error) == WEIR_UNSUPPORTED &&
                          strcmp(error.words, words) == 0 && cpu->precision == WEIR_F32 &&
                          strstr(cpu->numerics_class, "-f32-") != NULL &&
                          cpu->ops->pack(cpu, &q, &packed, &of_pack) == WEIR_UNSUPPORTED && packed == NULL &&
                          strcmp(of_pack.words, words) == 0;
        weir_device_close(&cpu);
        _exit(good ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_refused_by_name_where_the_processor_has_none),
        cmocka_unit_test(the_class_says_the_precision),
        cmocka_unit_test(rounding_is_to_the_nearest_and_half_to_even),
        cmocka_unit_test(the_judge_rounds_weights_and_x_and_nothing_else),
        cmocka_unit_test(products_are_those_of_the_judge),
        cmocka_unit_test(a_layer_s_bytes_are_known_before_its_weights),
        cmocka_unit_test(layers_of_both_precisions_live_on_one_device),
        cmocka_unit_test(a_layer_may_be_shared_by_many_shapes),
        cmocka_unit_test(bytes_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(bytes_of_a_row_do_not_depend_on_the_rows_beside_it),
        cmocka_unit_test(y_may_lie_where_the_contract_allows_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
