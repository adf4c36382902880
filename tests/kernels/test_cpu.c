/* The cpu device computes what ref computes; its bytes depend neither on threads nor on the rows beside; and its oneDNN
 * calls start no threads of their own. */
#include "tests/kernels/run_cases.h"

#include "kernels/cpu/simd.h"

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

static void every_op_computes_what_ref_computes(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0), *cpu = open_device("cpu", 2);
    double worst = 0;
    int faults = 0;
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        struct running_case wanted = case_begin(&kernel_cases[i], 0, 2), got = case_begin(&kernel_cases[i], 0, 2);
        case_run(&wanted, ref);
        case_run(&got, cpu);
        faults += !case_agrees(&wanted, &got, f32_tolerance(&wanted.c), &worst);
        case_end(&wanted);
        case_end(&got);
    }
    assert_int_equal(faults, 0);
    weir_device_close(&ref);
    weir_device_close(&cpu);
}

static void depthwise_conv_reads_what_activate_would_store(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 2);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        x_is_read_as_activate_would_store_it(cpu, &kernel_cases[i], case_run);
    }
    weir_device_close(&cpu);
}

static void bytes_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    struct weir_device *one = open_device("cpu", 1);
    assert_int_equal(strncmp(one->numerics_class, "cpu-", 4), 0);
    for (int threads = 2; threads <= 3; threads++) {
        struct weir_device *many = open_device("cpu", threads);
        assert_string_equal(one->numerics_class, many->numerics_class);
        for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
            struct running_case a = case_begin(&kernel_cases[i], 0, 2), b = case_begin(&kernel_cases[i], 0, 2);
            case_run(&a, one);
            case_run(&b, many);
            if (memcmp(a.operands[a.sizes.y], b.operands[b.sizes.y], y_bytes(&a, 2)) != 0) {
                fail_msg("%s: other bytes with %d threads", a.c.label, threads);
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
    struct weir_device *cpu = open_device("cpu", 2);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        bytes_of_row_one_are_its_own(cpu, &kernel_cases[i]);
    }
    weir_device_close(&cpu);
}

/* y = residual in the same memory gives the bytes of y apart from it; so do the norms in place. */
static void y_may_lie_where_the_contract_allows_it(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 2);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        y_over_what_it_may_be_has_the_bytes_of_y_apart(cpu, &kernel_cases[i]);
    }
    weir_device_close(&cpu);
}

/* FNV-1a of every case's y, computed by a process of its own: first case to last, or last to first. */
static void child_hashes(bool backwards, uint64_t hashes[WEIR_COUNT(kernel_cases)])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct weir_device *cpu = open_device("cpu", 1);
        for (size_t n = 0; n < WEIR_COUNT(kernel_cases); n++) {
            const size_t i = backwards ? WEIR_COUNT(kernel_cases) - 1 - n : n;
            struct running_case r = case_begin(&kernel_cases[i], 0, 1);
            case_run(&r, cpu);
            const unsigned char *y = (const unsigned char *)r.operands[r.sizes.y];
            hashes[i] = 0xcbf29ce484222325u;
            for (size_t k = 0; k < y_bytes(&r, 1); k++) hashes[i] = (hashes[i] ^ y[k]) * 0x100000001b3u;
            case_end(&r);
        }
        const size_t bytes = WEIR_COUNT(kernel_cases) * sizeof *hashes;
        _exit(write(ends[1], hashes, bytes) == (ssize_t)bytes ? 0 : 1); /* fits a pipe's buffer */
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    const size_t bytes = WEIR_COUNT(kernel_cases) * sizeof *hashes;
    assert_int_equal(read(ends[0], hashes, bytes), bytes);
    close(ends[0]);
    close(ends[1]);
}

static void bytes_do_not_depend_on_what_was_planned_before(void **state)
{
    (void)state;
    uint64_t forwards[WEIR_COUNT(kernel_cases)], backwards[WEIR_COUNT(kernel_cases)];
    child_hashes(false, forwards);
    child_hashes(true, backwards);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        if (forwards[i] != backwards[i]) fail_msg("%s: other bytes after other plans", kernel_cases[i].label);
    }
}

/* The class as a process with `name`=`value` in its environment sees it. */
static void class_with(const char *name, const char *value, char class[WEIR_NUMERICS_CLASS_MAX])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv(name, value, 1);
        struct weir_device *cpu = open_device("cpu", 1);
        const ssize_t bytes = sizeof cpu->numerics_class;
        _exit(write(ends[1], cpu->numerics_class, sizeof cpu->numerics_class) == bytes ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(read(ends[0], class, WEIR_NUMERICS_CLASS_MAX), WEIR_NUMERICS_CLASS_MAX);
    close(ends[0]);
    close(ends[1]);
}

/* Before any device is opened here: oneDNN reads its environment once. */
static void what_the_environment_changes_is_in_the_class(void **state)
{
    (void)state;
    char plain[WEIR_NUMERICS_CLASS_MAX], capped[WEIR_NUMERICS_CLASS_MAX], same[WEIR_NUMERICS_CLASS_MAX];
    class_with("WEIR_NOTHING", "1", plain);
    class_with("ONEDNN_MAX_CPU_ISA", "SSE41", capped);
    class_with("ONEDNN_DEFAULT_FPMATH_MODE", "ANY", same); /* products ask for strict f32 themselves */
    assert_non_null(strstr(plain, "-onednn"));
    assert_non_null(strstr(capped, "cpu-base-sse41-onednn"));
    if (!strstr(plain, "-sse41-")) assert_string_not_equal(plain, capped);
    assert_string_equal(plain, same);
}

static int thread_count(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *entry = readdir(tasks); entry; entry = readdir(tasks)) count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static void no_thread_is_started_beyond_those_asked_for(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        const int before = thread_count();
        struct weir_device *cpu = open_device("cpu", threads);
        for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i += 3) {
            struct running_case r = case_begin(&kernel_cases[i], 0, 2);
            case_run(&r, cpu);
            case_end(&r);
        }
        assert_int_equal(thread_count(), before + threads - 1);
        weir_device_close(&cpu);
    }
}

/* One layer used at many shapes: what oneDNN likes best differs, the results agree. */
static void a_layer_may_be_shared_by_many_shapes(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 2), *ref = open_device("ref", 0);
    uint64_t seed = 11;
    float *weight = random_floats(&seed, 48 * 48 * 9, 0.05f), *bias = random_floats(&seed, 48, 1);
    const struct weir_parameters q = {
        .op = WEIR_OP_CONV2D, .weight = weight, .bias = bias, .out = 48, .in = 48, .kernel = 3
    };
    struct weir_packed *layer = pack_layer(cpu, &q), *judge = pack_layer(ref, &q);
    const size_t bytes_before = cpu->ops->packed_bytes(layer);
    assert_true(bytes_before >= (48 * 48 * 9 + 48) * sizeof(float));
    const uint32_t sides[] = { 1, 2, 3, 4, 7, 8, 16, 31, 33 };
    for (size_t i = 0; i < WEIR_COUNT(sides); i++) {
        for (uint32_t stride = 1; stride <= 2; stride++) {
            const struct weir_conv2d shape = { .rows = 1,
                                               .frames = 1,
                                               .height = sides[i],
                                               .width = sides[i],
                                               .in = 48,
                                               .out = 48,
                                               .kernel = 3,
                                               .stride = stride,
                                               .pad = 1,
                                               .pad_end = 1 };
            const struct weir_conv2d_size size = weir_conv2d_size_of(&shape);
            const size_t count = (size_t)size.height * size.width * 48;
            float *x = random_floats(&seed, (size_t)sides[i] * sides[i] * 48, 1);
            float *y = random_floats(&seed, count, 1), *wanted = random_floats(&seed, count, 1);
            run_op(cpu, WEIR_OP_CONV2D, layer, &shape, (void *[]){ x, NULL, NULL, y });
            run_op(ref, WEIR_OP_CONV2D, judge, &shape, (void *[]){ x, NULL, NULL, wanted });
            assert_true(relative_error(y, wanted, count) <= TOLERANCE);
            free(x);
            free(y);
            free(wanted);
        }
    }
    assert_true(cpu->ops->packed_bytes(layer) >= bytes_before);
    cpu->ops->packed_destroy(layer);
    ref->ops->packed_destroy(judge);
    weir_device_close(&cpu);
    weir_device_close(&ref);
    free(weight);
    free(bias);
}

/* --- our own loops, each instruction set that this processor has -------------------------------------------------- */

static size_t simds(const struct weir_cpu_simd *out[3])
{
    size_t count = 0;
    out[count++] = &weir_cpu_simd_base;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out[count++] = &weir_cpu_simd_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) out[count++] = &weir_cpu_simd_avx512;
    return count;
}

/* exp(x) as softmax computes it: of { x, 0 } with x <= 0. */
static void exp_is_within_two_units_in_the_last_place(void **state)
{
    (void)state;
    const struct weir_cpu_simd *all[3];
    for (size_t k = 0, count = simds(all); k < count; k++) {
        double worst = 0;
        for (float x = -87; x < 0; x += 0.00037f) {
            float pair[] = { x, 0 };
            all[k]->softmax(pair, 2);
            const double wanted = exp((double)x);
            const double unit = (double)(nextafterf((float)wanted, INFINITY) - (float)wanted);
            worst = fmax(worst, fabs((double)pair[0] - wanted) / unit);
            assert_true(pair[1] == 1.0f);
        }
        if (worst > 2) fail_msg("%s: exp is off by %.2f units", all[k]->name, worst);
        float far[] = { -200, 0, -INFINITY };
        assert_true(all[k]->softmax(far, 3) == 1.0f);
        assert_true(far[0] == 0.0f && far[2] == 0.0f);
        float nan[] = { NAN, 0 };
        assert_true(isnan(all[k]->softmax(nan, 2)) || isnan(nan[0]));
    }
}

/* tanh(x) as softcap computes it with a cap of 1. */
static void tanh_is_within_three_units_in_the_last_place(void **state)
{
    (void)state;
    const struct weir_cpu_simd *all[3];
    for (size_t k = 0, count = simds(all); k < count; k++) {
        double worst = 0;
        for (float x = 1e-6f; x < 20; x *= 1.00037f) {
            float pair[] = { x, -x };
            all[k]->softcap(pair, 1, 2);
            const double wanted = tanh((double)x);
            const double unit = (double)((float)wanted - nextafterf((float)wanted, 0));
            worst = fmax(worst, fabs((double)pair[0] - wanted) / unit);
            assert_true(pair[0] == -pair[1]);
        }
        if (worst > 3) fail_msg("%s: tanh is off by %.2f units", all[k]->name, worst);
        float far[] = { 0, 1e30f, -1e30f, INFINITY, -INFINITY, NAN };
        all[k]->softcap(far, 50, 6);
        assert_true(far[0] == 0.0f && far[1] == 50.0f && far[2] == -50.0f && far[3] == 50.0f && far[4] == -50.0f);
        assert_true(isnan(far[5]));
    }
}

static void activations_follow_their_formulas_far_out_and_keep_nan(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0);
    const struct weir_cpu_simd *all[3];
    float x[401], wanted[401], got[401];
    for (int i = 0; i <= 400; i++) x[i] = (float)(i - 200) * 0.1f;
    for (size_t k = 0, count = simds(all); k < count; k++) {
        for (int act = WEIR_ACT_NONE; act < WEIR_ACT_GEGLU; act++) {
            run_op(ref, WEIR_OP_ACTIVATE, NULL,
                   &(struct weir_activate){
                       .rows = 1, .tokens = 401, .channels = 1, .activation = (enum weir_activation)act },
                   (void *[]){ x, wanted });
            all[k]->activate((enum weir_activation)act, x, NULL, got, 401);
            for (int i = 0; i <= 400; i++) {
                if (!(fabsf(got[i] - wanted[i]) <= 4e-7f * fmaxf(1, fabsf(x[i])))) {
                    fail_msg("%s: activation %d of %g is %.9g, not %.9g", all[k]->name, act, (double)x[i],
                             (double)got[i], (double)wanted[i]);
                }
            }
            float extreme[] = { NAN, 1e30f, -1e30f };
            all[k]->activate((enum weir_activation)act, extreme, NULL, got, 3);
            assert_true(isnan(got[0]));
            assert_true(got[1] == 1e30f);
            assert_true(act == WEIR_ACT_NONE || fabsf(got[2]) < 1e-6f);
        }
    }
    weir_device_close(&ref);
}

static void products_of_all_sizes_sum_in_order(void **state)
{
    (void)state;
    const struct weir_cpu_simd *all[3];
    uint64_t seed = 5;
    for (size_t k = 0, count = simds(all); k < count; k++) {
        const size_t lanes = all[k]->lanes;
        for (size_t rows = 1; rows <= 27; rows += 2) {
            for (size_t vectors = 1; vectors <= 9; vectors++) {
                const size_t columns = vectors * lanes, inner = 1 + rows % 5 * 7;
                float *a = random_floats(&seed, rows * (inner + 3), 1);
                float *b = random_floats(&seed, inner * (columns + 5), 1);
                float *c = random_floats(&seed, rows * columns, 1);
                all[k]->product(rows, columns, inner, a, inner + 3, b, columns + 5, c, columns);
                for (size_t i = 0; i < rows; i++) {
                    for (size_t j = 0; j < columns; j++) {
                        float sum = 0; /* the very same operations, one by one */
                        for (size_t n = 0; n < inner; n++) {
                            const float x = a[i * (inner + 3) + n], y = b[n * (columns + 5) + j];
                            sum = lanes == 4 ? x * y + sum : fmaf(x, y, sum);
                        }
                        assert_memory_equal(&sum, &c[i * columns + j], sizeof sum);
                    }
                }
                free(a);
                free(b);
                free(c);
            }
        }
    }
}

/* Where a row's keys end, anything may lie: NaN does no harm. */
static void keys_beyond_a_row_s_length_are_not_read(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 2);
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
        case_run(&whole, cpu);
        case_run(&spoilt, cpu);
        assert_memory_equal(whole.operands[WEIR_ATTENTION_Y], spoilt.operands[WEIR_ATTENTION_Y], y_bytes(&whole, 2));
        case_end(&whole);
        case_end(&spoilt);
    }
    assert_true(spoilt_keys > 0);
    weir_device_close(&cpu);
}

static void a_layer_s_bytes_are_known_before_its_weights(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 1);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        struct running_case r = case_begin(&kernel_cases[i], 0, 1);
        if (r.weight) {
            struct weir_packed *whole = pack_layer(cpu, &r.parameters);
            r.parameters.shape_only = true;
            struct weir_packed *shape = pack_layer(cpu, &r.parameters);
            assert_int_equal(cpu->ops->packed_bytes(shape), cpu->ops->packed_bytes(whole));
            assert_true(cpu->ops->packed_bytes(whole) >= weir_weight_count(&r.parameters) * sizeof(float));
            cpu->ops->packed_destroy(whole);
            cpu->ops->packed_destroy(shape);
        }
        case_end(&r);
    }
    weir_device_close(&cpu);
}

static void group_norm_far_from_zero_keeps_its_accuracy(void **state)
{
    (void)state;
    struct weir_device *ref = open_device("ref", 0), *cpu = open_device("cpu", 2);
    uint64_t seed = 3;
    float *gamma = random_floats(&seed, 48, 1), *beta = random_floats(&seed, 48, 1);
    const struct weir_parameters q = { .op = WEIR_OP_GROUP_NORM, .weight = gamma, .bias = beta, .out = 48 };
    for (int whole = 0; whole < 2; whole++) {
        const uint32_t pixels = whole ? 256 : 5000;
        const struct weir_group_norm shape = {
            .rows = 1, .batch = 1, .pixels = pixels, .channels = 48, .groups = 16, .eps = 1e-5f
        };
        float *x = random_floats(&seed, pixels * 48, 1), *y = random_floats(&seed, pixels * 48, 1);
        float *wanted = random_floats(&seed, pixels * 48, 1);
        for (size_t i = 0; i < pixels * 48; i++) x[i] += 1000;
        run_layer(ref, &q, &shape, (void *[]){ x, wanted });
        run_layer(cpu, &q, &shape, (void *[]){ x, y });
        assert_true(relative_error(y, wanted, pixels * 48) <= TOLERANCE);
        free(x);
        free(y);
        free(wanted);
    }
    free(gamma);
    free(beta);
    weir_device_close(&ref);
    weir_device_close(&cpu);
}

static void other_types_of_activations_are_refused(void **state)
{
    (void)state;
    struct weir_device *cpu = open_device("cpu", 1);
    struct weir_error error = { 0 };
    struct weir_plan *plan = NULL;
    struct weir_packed *packed = NULL;
    size_t bytes;
    const struct weir_activate shape = { .rows = 1, .tokens = 1, .channels = 1, .dtype = WEIR_BF16 };
    assert_int_equal(cpu->ops->plan[WEIR_OP_ACTIVATE](cpu, NULL, &shape, &plan, &bytes, &error), WEIR_UNSUPPORTED);
    assert_int_equal(cpu->ops->plan[WEIR_OP_ACTIVATE](cpu, NULL, &shape, &plan, &bytes, NULL), WEIR_UNSUPPORTED);
    const struct weir_parameters q = {
        .op = WEIR_OP_LINEAR, .weight = (const float[]){ 1 }, .out = 1, .in = 1, .dtype = WEIR_F16
    };
    assert_int_equal(cpu->ops->pack(cpu, &q, &packed, &error), WEIR_UNSUPPORTED);
    weir_device_close(&cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_environment_changes_is_in_the_class),
        cmocka_unit_test(bytes_do_not_depend_on_what_was_planned_before),
        cmocka_unit_test(exp_is_within_two_units_in_the_last_place),
        cmocka_unit_test(tanh_is_within_three_units_in_the_last_place),
        cmocka_unit_test(activations_follow_their_formulas_far_out_and_keep_nan),
        cmocka_unit_test(products_of_all_sizes_sum_in_order),
        cmocka_unit_test(every_op_computes_what_ref_computes),
        cmocka_unit_test(keys_beyond_a_row_s_length_are_not_read),
        cmocka_unit_test(a_layer_s_bytes_are_known_before_its_weights),
        cmocka_unit_test(group_norm_far_from_zero_keeps_its_accuracy),
        cmocka_unit_test(depthwise_conv_reads_what_activate_would_store),
        cmocka_unit_test(bytes_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(bytes_of_a_row_do_not_depend_on_the_rows_beside_it),
        cmocka_unit_test(y_may_lie_where_the_contract_allows_it),
        cmocka_unit_test(no_thread_is_started_beyond_those_asked_for),
        cmocka_unit_test(a_layer_may_be_shared_by_many_shapes),
        cmocka_unit_test(other_types_of_activations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
