/* bench_ops: each op of a device at the shapes of real networks, against what that device can do at best.
 *
 *   bench_ops [DEVICE [THREADS [FILTER [PRECISION]]]]      defaults: cpu, 1 thread, all, f32
 *
 * One line a case: median and p90 of the samples; for products GFLOP/s and `of_product`, their share of a product of
 * 1024 x 1024 x 1024 by the same device in the same run; for ops that only move memory GB/s and `of_copy`, against a
 * plain copy that reads and writes as many bytes together. With one thread the clock is the thread's own processor
 * time, so that other work on the machine disturbs little; with more it is the wall's. On cuda the clock is the wall's,
 * and a sample waits once for QUEUED runs, as a network does; what only moves memory is not set beside a copy there.
 * Not a test: it fails nothing. */
#include "tests/kernels/run_cases.h"

#include <time.h>

#define SAMPLES 15
#define QUEUED 20          /* runs between two waits, on a device that queues */
#define SAMPLE_NS 4000000u /* a sample repeats the op until it lasts so long */

static const struct kernel_case bench_cases[] = {
    /* The demo network, 2 rows of 16 frames of 16 x 16. */
    LINEAR(4096, 48, 144),
    LINEAR(4096, 48, 48, .residual = true),
    LINEAR(4096, 48, 384, .activation = WEIR_ACT_GEGLU),
    LINEAR(4096, 192, 48, .residual = true),
    LINEAR(4096, 128, 1024, .activation = WEIR_ACT_GEGLU),
    LINEAR(1024, 96, 768, .activation = WEIR_ACT_GEGLU),
    LINEAR(1024, 384, 96, .residual = true),
    LINEAR(256, 144, 1152, .activation = WEIR_ACT_GEGLU),
    LINEAR(1, 192, 96),
    CONV2D(16, 16, 16, 48, 48, 3, 1, 1, 1, .row_bias = true),
    CONV2D(16, 16, 16, 144, 48, 3, 1, 1, 1, .row_bias = true),
    CONV2D(16, 8, 8, 96, 96, 3, 1, 1, 1, .residual = true),
    CONV2D(16, 4, 4, 144, 144, 3, 1, 1, 1, .residual = true),
    CONV2D(16, 8, 8, 96, 96, 3, 1, 1, 1, .resize_height = 16, .resize_width = 16),
    CONV2D(16, 16, 16, 48, 48, 3, 2, 1, 1),
    CONV2D(16, 16, 16, 4, 48, 3, 1, 1, 1),
    CONV2D(16, 16, 16, 48, 4, 3, 1, 1, 1),
    CONV_TEMPORAL(16, 256, 48, 48, .residual = true),
    CONV_TEMPORAL(16, 64, 96, 96),
    CONV_TEMPORAL(16, 16, 144, 144),
    GROUP_NORM(16, 256, 48, 16, .silu = true),
    GROUP_NORM(1, 4096, 48, 16, .silu = true),
    LAYER_NORM(4096, 48),
    SPATIAL(16, 256, 256, 3, 16),
    SPATIAL(16, 64, 64, 6, 16),
    TEMPORAL(16, 256, 3, 16),
    CROSS(1, 4096, 32, 3, 16),
    /* Its decoder, 16 x 16 latents to 128 x 128, a frame a row. */
    CONV2D(1, 16, 16, 128, 128, 3, 1, 1, 1, .residual = true),
    CONV2D(1, 32, 32, 128, 128, 3, 1, 1, 1, .resize_height = 64, .resize_width = 64),
    CONV2D(1, 64, 64, 96, 96, 3, 1, 1, 1, .residual = true),
    CONV2D(1, 64, 64, 64, 64, 3, 1, 1, 1, .resize_height = 128, .resize_width = 128),
    CONV2D(1, 128, 128, 32, 32, 3, 1, 1, 1, .residual = true),
    CONV2D(1, 128, 128, 32, 3, 3, 1, 1, 1),
    GROUP_NORM(1, 16384, 64, 16, .silu = true),
    SPATIAL(1, 256, 256, 1, 128),
    /* ms-1.7b at 256 x 256: its widest levels. */
    LINEAR(16384, 320, 2560, .activation = WEIR_ACT_GEGLU),
    LINEAR(16384, 1280, 320, .residual = true),
    CONV2D(16, 32, 32, 320, 320, 3, 1, 1, 1, .residual = true),
    CONV2D(16, 16, 16, 640, 640, 3, 1, 1, 1),
    CONV2D(16, 4, 4, 1280, 1280, 3, 1, 1, 1),
    CONV_TEMPORAL(16, 1024, 320, 320),
    CONV_TEMPORAL(16, 64, 1280, 1280),
    SPATIAL(16, 1024, 1024, 5, 64),
    CROSS(1, 16384, 77, 5, 64),
    TEMPORAL(16, 1024, 5, 64),
    /* Sana 1.6B at 1024 x 1024: its denoiser over 32 x 32 tokens, and its text encoder. */
    LINEAR(1024, 2240, 2240, .gate_vectors = 6, .gate_vector = 2, .residual = true),
    LOW_RANK(1024, 2240, 16, 2240, 6720, 0),
    LOW_RANK(1024, 2240, 64, 2240, 6720, 0),
    LOW_RANK(1024, 5600, 16, 2240, 2240, 0, .gate_vectors = 6, .gate_vector = 5),
    DEPTHWISE_CONV(1, 32, 32, 11200, 3, .activation = WEIR_ACT_SILU, .glu = true),
    LINEAR_ATTENTION(1, 1024, 70, 32, 6720, 32, 0, 2240, 4480),
    MODULATED_NORM(1024, 2240, 6, 0, 1),
    RMS_NORM_PARTS(1024, 2, 2240, 2240),
    RMS_NORM(1024, 2240),
    RMS_NORM(300, 2304, .residual = true),
    CROSS(1, 1024, 300, 20, 112),
    SHARED(300, 8, 4, 256, .softcap = 50),
    ROPE(300, 4096, 12, 256),
    LINEAR(300, 2304, 18432, .activation = WEIR_ACT_GEGLU_TANH),
    /* Its decoder. */
    DEPTHWISE_CONV(1, 64, 64, 3072, 5),
    GROUPED_LINEAR(4096, 3072, 3072, 96),
    LINEAR_ATTENTION(1, 4096, 64, 32, 6144, 96, 0, 32, 64),
    DEPTHWISE_CONV(1, 64, 64, 8192, 3, .activation = WEIR_ACT_SILU, .glu = true),
    RMS_NORM(4096, 1024, .residual = true),
    RMS_NORM(16384, 256, .activation = WEIR_ACT_SILU),
    PIXEL_SHUFFLE(1, 64, 64, 1024, 512, .residual = true),
    PIXEL_SHUFFLE(1, 128, 128, 512, 512, .residual = true),
    PIXEL_UNSHUFFLE(1, 256, 256, 256, 512, .residual = true),
    REGROUP(1024, 32, 1024),
};

struct bench {
    struct weir_device *device;
    struct weir_stream *stream;
    clockid_t clock;
    unsigned queued; /* runs between two waits */
    double product_gflops;
};

static uint64_t now_ns(const struct bench *bench)
{
    struct timespec now;
    clock_gettime(bench->clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct times {
    double median_us, p90_us;
};

/* Samples of `once`, each long enough for the clock. */
static struct times measure(const struct bench *bench, void (*once)(const struct bench *bench, void *context),
                            void *context)
{
    double us[SAMPLES];
    once(bench, context);
    for (size_t i = 0; i < SAMPLES; i++) {
        const uint64_t begin = now_ns(bench);
        uint64_t end;
        unsigned count = 0;
        do {
            once(bench, context);
            count++;
            end = now_ns(bench);
        } while (end - begin < SAMPLE_NS);
        us[i] = (double)(end - begin) / 1e3 / count / bench->queued;
    }
    qsort(us, SAMPLES, sizeof us[0], ascending);
    return (struct times){ us[SAMPLES / 2], us[SAMPLES * 9 / 10] };
}

struct op_run {
    const struct weir_plan *plan;
    void *const *operands;
    void *workspace;
};

static void run_once(const struct bench *bench, void *context)
{
    const struct op_run *run = context;
    for (unsigned i = 0; i < bench->queued; i++) {
        bench->device->ops->run(run->plan, bench->stream, run->operands, run->workspace);
    }
    bench->device->table->stream_sync(bench->stream, NULL);
}

struct copy {
    void *to, *from;
    size_t bytes;
};

static void copy_once(const struct bench *bench, void *context)
{
    const struct copy *copy = context;
    (void)bench;
    memcpy(copy->to, copy->from, copy->bytes);
    __asm__ volatile("" : : "r"(copy->to) : "memory");
}

/* A copy that moves as many bytes as all operands have. */
static struct times time_copy(const struct bench *bench, size_t operand_bytes)
{
    uint64_t seed = 1;
    struct copy copy = { .bytes = operand_bytes / 2 };
    copy.from = random_floats(&seed, copy.bytes / sizeof(float) + 1, 1);
    copy.to = random_floats(&seed, copy.bytes / sizeof(float) + 1, 1);
    const struct times times = measure(bench, copy_once, &copy);
    free(copy.from);
    free(copy.to);
    return times;
}

/* What the numbers are then, nobody looks at. */
static void set_values_bf16(struct running_case *r)
{
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

static struct times time_case(const struct bench *bench, struct running_case *r)
{
    const struct weir_ops *ops = bench->device->ops;
    struct weir_error error = { 0 };
    struct weir_packed *packed = NULL;
    struct weir_plan *plan = NULL;
    void *workspace = NULL, *operands[WEIR_OPERANDS_MAX];
    size_t workspace_bytes = 0;

    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) operands[i] = r->operands[i];
    r->parameters.dtype = bench->device->precision;
    if (bench->device->values == WEIR_BF16) set_values_bf16(r);
    const bool there = !memory_is_the_hosts(bench->device);
    if (there) operands_to(bench->device, bench->stream, r, operands);
    if ((r->weight && ops->pack(bench->device, &r->parameters, &packed, &error) != WEIR_OK) ||
        ops->plan[r->c.op](bench->device, packed, &r->c.shape, &plan, &workspace_bytes, &error) != WEIR_OK ||
        bench->device->table->memory_alloc(bench->device, workspace_bytes, &workspace, &error) != WEIR_OK) {
        fprintf(stderr, "bench_ops: %s: %s\n", r->c.label, error.words);
        exit(weir_status_exit_code(error.code));
    }
    struct op_run run = { plan, operands, workspace };
    const struct times times = measure(bench, run_once, &run);
    if (there) operands_from(bench->device, bench->stream, r, operands);
    bench->device->table->memory_free(bench->device, workspace);
    ops->plan_destroy(plan);
    if (packed) ops->packed_destroy(packed);
    return times;
}

static void bench_case(const struct bench *bench, const struct kernel_case *c)
{
    const uint32_t rows = c->shape.linear.rows;
    struct running_case r = case_begin(c, 0, rows);
    const struct times times = time_case(bench, &r);
    const double flops = flops_of(c);
    printf("%-72s median_us=%.1f p90_us=%.1f", c->label, times.median_us, times.p90_us);
    if (flops > 0) {
        const double gflops = flops / times.median_us / 1e3;
        printf(" gflop_s=%.1f of_product=%.2f\n", gflops, gflops / bench->product_gflops);
    } else {
        size_t bytes = 0;
        for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) bytes += r.sizes.row[i] * rows * sizeof(float);
        if (bench->device->values == WEIR_BF16) bytes /= 2;
        printf(" gb_s=%.1f", (double)bytes / times.median_us / 1e3);
        if (memory_is_the_hosts(bench->device)) {
            printf(" of_copy=%.2f", time_copy(bench, bytes).median_us / times.median_us);
        }
        printf("\n");
    }
    fflush(stdout);
    case_end(&r);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu", *filter = argc > 3 ? argv[3] : "";
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    struct weir_error error = { 0 };
    struct bench bench = { .clock = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, .queued = 1 };
    enum weir_dtype precision = WEIR_F32;

    if (argc > 4 && !weir_precision_parse(argv[4], &precision)) {
        fprintf(stderr, "bench_ops: %s is neither f32 nor bf16\n", argv[4]);
        return weir_status_exit_code(WEIR_BAD_ARGUMENT);
    }
    if (weir_device_open(name, threads, &bench.device, &error) != WEIR_OK ||
        weir_device_set_precision(bench.device, precision, &error) != WEIR_OK ||
        bench.device->table->stream_create(bench.device, &bench.stream, &error) != WEIR_OK) {
        fprintf(stderr, "bench_ops: %s\n", error.words);
        return weir_status_exit_code(error.code);
    }
    if (!memory_is_the_hosts(bench.device)) {
        bench.clock = CLOCK_MONOTONIC;
        bench.queued = QUEUED;
    }
    const struct kernel_case product = { .label = "product 1024 x 1024 x 1024",
                                         .op = WEIR_OP_LINEAR,
                                         .shape.linear = { .rows = 1, .tokens = 1024, .in = 1024, .out = 1024 } };
    struct running_case r = case_begin(&product, 0, 1);
    bench.product_gflops = flops_of(&product) / time_case(&bench, &r).median_us / 1e3;
    case_end(&r);
    printf("device=%s threads=%d product_gflop_s=%.1f\n", bench.device->numerics_class, threads, bench.product_gflops);
    for (size_t i = 0; i < WEIR_COUNT(bench_cases); i++) {
        if (strstr(bench_cases[i].label, filter)) bench_case(&bench, &bench_cases[i]);
    }
    bench.device->table->stream_destroy(bench.stream);
    weir_device_close(&bench.device);
    return 0;
}
