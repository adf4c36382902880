/* weir-bench: whole networks of full size on one device, against what that device can do at best.
 *
 *   weir-bench [--device D] [--precision bf16|f32] [--row NAME]... [--samples N] [--json] [--profile] [--list]
 *
 * One line a row: median and p90 of the samples; TFLOP/s of the products and their share of one large product by the same
 * device in the same run; GB/s of what every op must read and write once, and its share of a plain copy; memory. Weights
 * are made (tests/bench/made.h), so that no files are needed. A sample is one run of a program that was replayed before;
 * on cuda it is timed by events. --profile adds, for each row, what the kinds of ops in it took.
 * Not a test: it fails nothing but what cannot be run. */
#include "tests/bench/made.h"
#include "tests/bench/marks.h"
#include "tests/bench/rows.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX 1000
#define WARM_RUNS 3 /* the first is an ordinary run, the second captures */
#define PROFILE_LINES 28

struct options {
    const char *device;
    enum weir_dtype dtype;
    const char *rows[64];
    size_t row_count, samples;
    bool json, profile;
};

struct bench {
    struct options options;
    struct weir_device *device;
    struct weir_stream *stream;
    double product_tflops, copy_gb_s;
};

static int fail_with(const char *what, const struct weir_error *error)
{
    fprintf(stderr, "weir-bench: %s: %s\n", what, error->words);
    return weir_status_exit_code(error->code);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct times {
    double median_ms, p90_ms;
};

/* Of what lies between each two of `count` + 1 marks. */
static struct times times_of(const struct weir_marks *marks, size_t count)
{
    static double ms[SAMPLES_MAX];
    for (size_t i = 0; i < count; i++) ms[i] = weir_marks_ms(marks, i, i + 1);
    qsort(ms, count, sizeof *ms, ascending);
    return (struct times){ ms[count / 2], ms[count * 9 / 10] };
}

/* --- the ceilings ------------------------------------------------------------------------------------------------- */

#define CEILING_SAMPLES 20

/* y = x W^T of one size in each direction. */
static enum weir_status measure_product(struct bench *bench, uint32_t size, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_device *device = bench->device;
    const enum weir_dtype dtype = device->values;
    const size_t bytes = (size_t)size * size * weir_dtype_bytes(dtype);
    const struct weir_linear shape = { .rows = 1, .tokens = size, .in = size, .out = size, .dtype = dtype };
    static const float some = 0;
    const struct weir_parameters parameters = {
        .op = WEIR_OP_LINEAR, .weight = &some, .out = size, .in = size, .dtype = device->precision, .shape_only = true
    };
    struct weir_packed *packed = NULL;
    struct weir_plan *plan = NULL;
    void *x = NULL, *y = NULL, *workspace = NULL;
    size_t workspace_bytes = 0;
    struct weir_marks *marks = weir_marks_create(CEILING_SAMPLES + 1);
    float *floats = malloc((size_t)size * size * sizeof *floats);
    if (!floats) status = weir_fail(error, WEIR_NO_MEMORY, "no memory for a product");
    if (!floats) goto cleanup;
    weir_made_values(floats, (size_t)size * size, 1, 0);
    for (size_t i = 0; dtype == WEIR_BF16 && i < (size_t)size * size; i++) { /* the upper halves, in place */
        uint32_t bits;
        memcpy(&bits, &floats[i], sizeof bits);
        ((uint16_t *)(void *)floats)[i] = (uint16_t)(bits >> 16);
    }
    WEIR_TRY(device->ops->pack(device, &parameters, &packed, error));
    WEIR_TRY(device->ops->plan[WEIR_OP_LINEAR](device, packed, &shape, &plan, &workspace_bytes, error));
    WEIR_TRY(device->table->memory_alloc(device, bytes, &x, error));
    WEIR_TRY(device->table->memory_alloc(device, bytes, &y, error));
    WEIR_TRY(device->table->memory_alloc(device, workspace_bytes, &workspace, error));
    WEIR_TRY(device->table->upload(bench->stream, x, floats, bytes));
    void *const operands[WEIR_OPERANDS_MAX] = { [WEIR_LINEAR_X] = x, [WEIR_LINEAR_Y] = y };
    for (size_t i = 0; i < CEILING_SAMPLES + WARM_RUNS; i++) {
        if (i >= WARM_RUNS) weir_marks_set(marks, i - WARM_RUNS, bench->stream);
        WEIR_TRY(device->ops->run(plan, bench->stream, operands, workspace));
    }
    weir_marks_set(marks, CEILING_SAMPLES, bench->stream);
    WEIR_TRY(device->table->stream_sync(bench->stream, error));
    bench->product_tflops = 2.0 * size * size * size / times_of(marks, CEILING_SAMPLES).median_ms / 1e9;

cleanup:
    free(floats);
    weir_marks_destroy(marks);
    if (x) device->table->memory_free(device, x);
    if (y) device->table->memory_free(device, y);
    if (workspace) device->table->memory_free(device, workspace);
    if (plan) device->ops->plan_destroy(plan);
    if (packed) device->ops->packed_destroy(packed);
    return status;
}

static enum weir_status measure_copy(struct bench *bench, size_t bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_device *device = bench->device;
    void *from = NULL, *to = NULL;
    struct weir_marks *marks = weir_marks_create(CEILING_SAMPLES + 1);
    WEIR_TRY(device->table->memory_alloc(device, bytes, &from, error));
    WEIR_TRY(device->table->memory_alloc(device, bytes, &to, error));
    for (size_t i = 0; i < CEILING_SAMPLES + WARM_RUNS; i++) {
        if (i >= WARM_RUNS) weir_marks_set(marks, i - WARM_RUNS, bench->stream);
        weir_marks_copy(bench->stream, to, from, bytes);
    }
    weir_marks_set(marks, CEILING_SAMPLES, bench->stream);
    WEIR_TRY(device->table->stream_sync(bench->stream, error));
    bench->copy_gb_s = 2.0 * (double)bytes / times_of(marks, CEILING_SAMPLES).median_ms / 1e6;

cleanup:
    weir_marks_destroy(marks);
    if (from) device->table->memory_free(device, from);
    if (to) device->table->memory_free(device, to);
    return status;
}

/* --- a row -------------------------------------------------------------------------------------------------------- */

struct kind {
    const struct weir_made_op *op;
    double ms, flops, bytes;
    size_t count;
};

static int slowest_first(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

/* What ops of one label took together. */
static void print_profile(const struct weir_bench_row *row)
{
    size_t op_count, kind_count = 0;
    double all_ms = 0;
    const struct weir_made_op *ops = weir_made_ops(&op_count);
    struct kind *kinds = calloc(op_count, sizeof *kinds);
    if (!kinds) return;
    for (size_t i = 0; i < op_count; i++) {
        size_t k = 0;
        while (k < kind_count && strcmp(kinds[k].op->label, ops[i].label) != 0) k++;
        if (k == kind_count) kinds[kind_count++].op = &ops[i];
        kinds[k].ms += ops[i].ms;
        kinds[k].flops += ops[i].flops;
        kinds[k].bytes += ops[i].bytes;
        kinds[k].count++;
        all_ms += ops[i].ms;
    }
    qsort(kinds, kind_count, sizeof *kinds, slowest_first);
    printf("  profile of %s: %zu ops, %.3f ms\n", row->name, op_count, all_ms);
    for (size_t k = 0; k < kind_count && k < PROFILE_LINES; k++) {
        printf("  %8.3f ms %5.1f %% %4zu x %-62s %7.1f TFLOP/s %6.0f GB/s\n", kinds[k].ms, 100 * kinds[k].ms / all_ms,
               kinds[k].count, kinds[k].op->label, kinds[k].flops / kinds[k].ms / 1e9,
               kinds[k].bytes / kinds[k].ms / 1e6);
    }
    free(kinds);
}

static void print_row(const struct bench *bench, const struct weir_bench_row *row, const struct weir_bench_work *work,
                      struct times times)
{
    const char *precision = bench->options.dtype == WEIR_BF16 ? "bf16" : "f32";
    size_t op_count;
    double flops = 0, bytes = 0;
    const struct weir_made_op *ops = weir_made_ops(&op_count);
    for (size_t i = 0; i < op_count; i++) {
        flops += ops[i].flops;
        bytes += ops[i].bytes;
    }
    const double tflops = flops / times.median_ms / 1e9, gb_s = bytes / times.median_ms / 1e6;
    if (bench->options.json) {
        printf("{\"row\": \"%s\", \"work\": \"%s\", \"device\": \"%s\", \"precision\": \"%s\", \"rows\": %u, "
               "\"median_ms\": %.4f, \"p90_ms\": %.4f, \"limit_ms\": %.1f, \"tflop\": %.4f, \"tflop_s\": %.1f, "
               "\"of_product\": %.4f, \"product_tflop_s\": %.1f, \"gb\": %.3f, \"gb_s\": %.1f, \"of_copy\": %.4f, "
               "\"copy_gb_s\": %.1f, \"memory_gib\": %.3f, \"parameters\": %llu, \"ops\": %zu}\n",
               row->name, row->work, bench->device->numerics_class, precision, row->rows, times.median_ms, times.p90_ms,
               row->limit_ms, flops / 1e12, tflops, tflops / bench->product_tflops, bench->product_tflops, bytes / 1e9,
               gb_s, gb_s / bench->copy_gb_s, bench->copy_gb_s, (double)work->bytes / 0x1p30,
               (unsigned long long)work->parameters, op_count);
    } else {
        printf("| %-17s | %-31s | %4s | %4u | %9.3f | %9.3f | %7.1f | %5.2f | %7.0f | %5.2f | %6.2f |\n", row->name,
               row->work, precision, row->rows, times.median_ms, times.p90_ms, tflops, tflops / bench->product_tflops,
               gb_s, gb_s / bench->copy_gb_s, (double)work->bytes / 0x1p30);
    }
}

static enum weir_status measure_row(const struct bench *bench, const struct weir_bench_row *row,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t samples = bench->options.samples;
    struct weir_bench_work work;
    struct weir_marks *marks = weir_marks_create(samples + 1);
    WEIR_TRY(weir_bench_work_open(row, bench->device, bench->stream, bench->device->values, &work, error));
    for (size_t i = 0; i < samples + WARM_RUNS; i++) {
        if (i >= WARM_RUNS) weir_marks_set(marks, i - WARM_RUNS, bench->stream);
        status = weir_program_run(work.program, bench->stream, work.arena, work.bindings, work.binding_count);
        if (status != WEIR_OK) {
            status = weir_fail(error, status, "%s: a run could not be queued", row->name);
            break;
        }
    }
    if (status == WEIR_OK) {
        weir_marks_set(marks, samples, bench->stream);
        status = bench->device->table->stream_sync(bench->stream, error);
    }
    if (status == WEIR_OK) print_row(bench, row, &work, times_of(marks, samples));
    if (status == WEIR_OK && bench->options.profile) {
        status = weir_made_profile(work.program, bench->stream, work.arena, work.bindings, work.binding_count, error);
        if (status == WEIR_OK) print_profile(row);
    }
    fflush(stdout);
    weir_bench_work_close(&work, bench->device);

cleanup:
    weir_marks_destroy(marks);
    return status;
}

static bool is_wanted(const struct options *options, const struct weir_bench_row *row)
{
    if (options->row_count == 0) return !row->asked;
    for (size_t i = 0; i < options->row_count; i++) {
        if (strcmp(options->rows[i], row->name) == 0) return true;
    }
    return false;
}

static void list(void)
{
    for (size_t i = 0; i < weir_bench_row_count; i++) {
        const struct weir_bench_row *row = &weir_bench_rows[i];
        printf("%-18s %s, %u row%s%s\n", row->name, row->work, row->rows, row->rows == 1 ? "" : "s",
               row->asked ? " (only when asked for)" : "");
    }
}

static bool is_row(const char *name)
{
    for (size_t i = 0; i < weir_bench_row_count; i++) {
        if (strcmp(weir_bench_rows[i].name, name) == 0) return true;
    }
    return false;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: weir-bench [--device D] [--precision bf16|f32] [--row NAME]... [--samples 1..%d] [--json] "
            "[--profile] [--list]\n",
            SAMPLES_MAX);
    return weir_status_exit_code(WEIR_BAD_ARGUMENT);
}

/* 0, or the exit code to end with; -1: done. */
static int read_options(int argc, char **argv, struct options *o)
{
    enum { DEVICE = 1, PRECISION, ROW, SAMPLES, JSON, PROFILE, LIST };
    static const struct option known[] = {
        { "device", required_argument, NULL, DEVICE }, { "precision", required_argument, NULL, PRECISION },
        { "row", required_argument, NULL, ROW },       { "samples", required_argument, NULL, SAMPLES },
        { "json", no_argument, NULL, JSON },           { "profile", no_argument, NULL, PROFILE },
        { "list", no_argument, NULL, LIST },           { NULL, 0, NULL, 0 },
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case DEVICE:
            o->device = optarg;
            break;
        case PRECISION:
            if (strcmp(optarg, "bf16") != 0 && strcmp(optarg, "f32") != 0) return usage();
            o->dtype = strcmp(optarg, "f32") == 0 ? WEIR_F32 : WEIR_BF16;
            break;
        case ROW:
            if (!is_row(optarg) || o->row_count == WEIR_COUNT(o->rows)) {
                fprintf(stderr, "weir-bench: there is no row %s; --list names them\n", optarg);
                return weir_status_exit_code(WEIR_BAD_ARGUMENT);
            }
            o->rows[o->row_count++] = optarg;
            break;
        case SAMPLES: {
            char *end;
            const long count = strtol(optarg, &end, 10);
            if (*end || count < 1 || count > SAMPLES_MAX) return usage();
            o->samples = (size_t)count;
            break;
        }
        case JSON:
            o->json = true;
            break;
        case PROFILE:
            o->profile = true;
            break;
        case LIST:
            list();
            return -1;
        default:
            return usage();
        }
    }
    return optind == argc ? 0 : usage();
}

static enum weir_status measure_ceilings(struct bench *bench, struct weir_error *error)
{
    const bool small = strcmp(bench->device->table->name, "cuda") != 0;
    const enum weir_status status = measure_product(bench,
                                                    small                               ? 1024
                                                    : bench->options.dtype == WEIR_BF16 ? 8192
                                                                                        : 4096,
                                                    error);
    return status == WEIR_OK ? measure_copy(bench, (size_t)1 << (small ? 26 : 31), error) : status;
}

int main(int argc, char **argv)
{
    struct weir_error error = { 0 };
    struct bench bench = { .options = { .device = "cuda", .dtype = WEIR_BF16, .samples = 20 } };
    const int asked = read_options(argc, argv, &bench.options);
    int failed = 0;
    if (asked != 0) return asked < 0 ? 0 : asked;

    if (weir_device_open(bench.options.device, 0, &bench.device, &error) != WEIR_OK)
        return fail_with(bench.options.device, &error);
    if (weir_device_set_precision(bench.device, bench.options.dtype, &error) != WEIR_OK)
        return fail_with("--precision", &error);
    if (weir_made_tap(bench.device, &error) != WEIR_OK ||
        bench.device->table->stream_create(bench.device, &bench.stream, &error) != WEIR_OK ||
        measure_ceilings(&bench, &error) != WEIR_OK) {
        return fail_with("the ceilings", &error);
    }
    if (!bench.options.json) {
        printf("device %s, product %.1f TFLOP/s, copy %.0f GB/s\n", bench.device->numerics_class, bench.product_tflops,
               bench.copy_gb_s);
        printf(
            "| row | work | precision | rows | median ms | p90 ms | TFLOP/s | of product | GB/s | of copy | GiB |\n");
        printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
    }
    for (size_t i = 0; i < weir_bench_row_count; i++) {
        if (!is_wanted(&bench.options, &weir_bench_rows[i])) continue;
        if (measure_row(&bench, &weir_bench_rows[i], &error) != WEIR_OK)
            failed = fail_with(weir_bench_rows[i].name, &error);
    }
    weir_bench_nets_close();
    bench.device->table->stream_destroy(bench.stream);
    weir_made_untap(bench.device);
    weir_device_close(&bench.device);
    return failed;
}
