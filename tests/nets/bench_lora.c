/* bench_lora: what adapters cost a step of a Sana transformer: a batch of items without any, all with one adapter, each
 * with its own.
 *
 *   bench_lora MODEL [DEVICE [THREADS [RANK [ITEMS [SIDE]]]]]      defaults: cpu, 1 thread, rank 16, 8 items, 32 x 32 cells
 *
 * The adapters are random and adapt every linear of attention and feed-forward. Medians of seven runs; with one thread
 * the clock is the thread's own processor time. Not a test: it fails nothing. */
#include "proto/base/bytes.h"
#include "worker/model_dir.h"
#include "worker/nets/lora.h"
#include "worker/nets/sana_transformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 7
#define TOKENS 300
#define ITEMS_MAX 8

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        struct weir_error error = { .words = "" };                                                                     \
        const enum weir_status status_ = (call);                                                                       \
        if (status_ != WEIR_OK) {                                                                                      \
            fprintf(stderr, "bench_lora: %s: %s\n", weir_status_name(status_), error.words);                           \
            exit(weir_status_exit_code(status_));                                                                      \
        }                                                                                                              \
    } while (0)

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(clock_used, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A file that adapts every linear of the blocks; its size in *count. */
static uint8_t *make_file(const struct weir_params *params, uint32_t rank, float value, size_t *count)
{
    const uint32_t parts = weir_params_part_count(params);
    const size_t room = 65536 + (size_t)parts * 512;
    char *header = malloc(room);
    size_t used = 8, data = 0;
    used += (size_t)snprintf(header + used, room - used, "{\"__metadata__\":{}");
    for (uint32_t i = 0; i < parts; i++) {
        const struct weir_params_part part = weir_params_part_at(params, i);
        const uint32_t shapes[2][2] = { { rank, part.in }, { part.out, rank } };
        if (strncmp(part.name, "transformer_blocks.", 19) != 0) continue;
        for (int half = 0; half < 2; half++) {
            const size_t bytes = sizeof(float) * shapes[half][0] * shapes[half][1];
            used += (size_t)snprintf(
                header + used, room - used,
                ",\"%s.lora_%c.weight\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[%zu,%zu]}", part.name,
                "AB"[half], shapes[half][0], shapes[half][1], data, data + bytes);
            data += bytes;
        }
    }
    header[used++] = '}';
    uint8_t *file = malloc(used + data);
    memcpy(file, header, used);
    weir_store_u64(file, used - 8);
    for (size_t at = 0; at < data; at += sizeof value) memcpy(file + used + at, &value, sizeof value);
    *count = used + data;
    free(header);
    return file;
}

/* Median milliseconds of a step with these sets; *plan_ms: of planning it. */
static double time_step(struct weir_device *device, const struct weir_sana_transformer *net, uint32_t rows,
                        uint32_t side, const struct weir_adapters *adapters, float *factors, double *plan_ms)
{
    const struct weir_sana_transformer_config *c = weir_sana_transformer_config_of(net);
    const struct weir_dims x = { rows, 1, side, side, c->in_channels }, one = { rows, 1, 1, 1, 1 };
    struct weir_program *p = NULL;
    struct weir_sana_transformer_step step = { .tokens = TOKENS, .adapters = adapters };
    struct weir_binding bindings[WEIR_PROGRAM_NAMES_MAX];
    char names[WEIR_PROGRAM_NAMES_MAX][WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES];
    struct weir_stream *stream = NULL;
    void *arena = NULL, *slot = NULL;
    const uint32_t slots = weir_sana_transformer_slot_count(net);
    double times[RUNS];

    const double begin = now_ms();
    OK(weir_program_create(device, WEIR_F32, &p));
    step.x = weir_program_input(p, "x", WEIR_F32, &x);
    step.t = weir_program_input(p, "t", WEIR_F32, &one);
    step.lengths = weir_program_input(p, "lengths", WEIR_I32, &one);
    if (c->guidance_embeds) step.guidance = weir_program_input(p, "guidance", WEIR_F32, &one);
    weir_program_output(p, "y", weir_sana_transformer_build_step(net, p, &step));
    OK(weir_program_finish(p, &error));
    *plan_ms = now_ms() - begin;

    OK(device->table->stream_create(device, &stream, &error));
    OK(device->table->memory_alloc(device, weir_program_arena_bytes(p), &arena, &error));
    memset(arena, 0, weir_program_arena_bytes(p));
    for (uint32_t r = 0; r < rows; r++) /* every device here computes in host memory */
        ((int32_t *)(void *)((char *)arena + weir_program_offset(p, "lengths")))[r] = TOKENS;
    const size_t slot_bytes = (size_t)rows * TOKENS * 2 * c->cross_heads * c->cross_head_dim * sizeof(float);
    OK(device->table->memory_alloc(device, slot_bytes, &slot, &error));
    memset(slot, 0, slot_bytes);
    for (uint32_t i = 0; i < slots; i++) {
        weir_sana_transformer_slot_name(i, names[i]);
        bindings[i] = (struct weir_binding){ names[i], slot };
    }
    bindings[slots] = (struct weir_binding){ WEIR_ADAPTERS_NAME, factors };
    for (int run = 0; run < RUNS; run++) {
        const double before = now_ms();
        OK(weir_program_run(p, stream, arena, bindings, slots + (factors ? 1 : 0)));
        OK(device->table->stream_sync(stream, &error));
        times[run] = now_ms() - before;
    }
    qsort(times, RUNS, sizeof *times, ascending);
    device->table->memory_free(device, slot);
    device->table->memory_free(device, arena);
    device->table->stream_destroy(stream);
    weir_program_destroy(&p);
    return times[RUNS / 2];
}

int main(int argc, char **argv)
{
    const char *name = argc > 2 ? argv[2] : "cpu";
    const int threads = argc > 3 ? atoi(argv[3]) : 1;
    const uint32_t rank = argc > 4 ? (uint32_t)atoi(argv[4]) : 16;
    const uint32_t wanted = argc > 5 ? (uint32_t)atoi(argv[5]) : ITEMS_MAX,
                   side = argc > 6 ? (uint32_t)atoi(argv[6]) : 32;
    const uint32_t items = wanted < 1 || wanted > ITEMS_MAX ? ITEMS_MAX : wanted;
    struct weir_device *device = NULL;
    struct weir_model_dir *model = NULL;
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_sana_transformer_config c;
    struct weir_sana_transformer *net = NULL;
    struct weir_lora *loras[ITEMS_MAX];
    struct weir_adapter_shape shape;
    struct weir_adapter_set sets[ITEMS_MAX];
    double parse_ms = 0, write_ms, plan_ms[3];

    if (argc < 2) return fprintf(stderr, "bench_lora MODEL [DEVICE [THREADS [RANK [ITEMS [SIDE]]]]]\n"), 64;
    if (threads == 1) clock_used = CLOCK_THREAD_CPUTIME_ID;
    OK(weir_device_open(name, threads, &device, &error));
    OK(weir_model_dir_open(argv[1], NULL, &model, &error));
    OK(weir_model_dir_config(model, "transformer", &config, &error));
    OK(weir_sana_transformer_config_read(config, &c, &error));
    OK(weir_model_dir_weights(model, "transformer", &weights, &error));
    OK(weir_sana_transformer_open(device, &c, weights, WEIR_F32, &net, &error));
    const struct weir_params *params = weir_sana_transformer_params(net);
    size_t file_bytes = 0;
    for (uint32_t i = 0; i < items; i++) {
        uint8_t *file = make_file(params, rank, 1e-4f * (float)(i + 1), &file_bytes);
        const double before = now_ms();
        OK(weir_lora_parse(file, file_bytes, "random", params, &loras[i], &error));
        parse_ms = now_ms() - before;
        free(file);
    }
    OK(weir_lora_shape(&(struct weir_lora_use){ loras[0], 1 }, 1, &shape, &error));
    const size_t floats = (size_t)weir_adapter_floats(params, &shape);
    float *factors = malloc(items * floats * sizeof *factors);
    const double before = now_ms();
    for (uint32_t i = 0; i < items; i++) {
        weir_lora_write(params, &(struct weir_lora_use){ loras[i], 1 }, 1, &shape, factors + i * floats);
        sets[i] = (struct weir_adapter_set){ i, 1, &shape };
    }
    write_ms = (now_ms() - before) / items;
    const struct weir_adapter_set all = { 0, items, &shape };
    const double none = time_step(device, net, items, side, NULL, NULL, &plan_ms[0]);
    const double one = time_step(device, net, items, side, &(struct weir_adapters){ &all, 1 }, factors, &plan_ms[1]);
    const double each =
        time_step(device, net, items, side, &(struct weir_adapters){ sets, items }, factors, &plan_ms[2]);
    printf("device=%s threads=%d model=%s cells=%ux%u rank=%u linears=%u file_mib=%.1f\n", device->numerics_class,
           threads, argv[1], side, side, rank, shape.count, (double)file_bytes / 1048576);
    printf("first use: parse_ms=%.1f write_ms=%.1f plan_ms=%.1f (without adapters %.1f)\n", parse_ms, write_ms,
           plan_ms[1], plan_ms[0]);
    printf("step of %u rows: none_ms=%.1f one_ms=%.1f (x%.3f) each_its_own_ms=%.1f (x%.3f, of one x%.3f)\n", items,
           none, one, one / none, each, each / none, each / one);
    for (uint32_t i = 0; i < items; i++) weir_lora_destroy(&loras[i]);
    weir_lora_shape_free(&shape);
    free(factors);
    weir_sana_transformer_close(&net);
    weir_weights_close(&weights);
    weir_config_close(&config);
    weir_model_dir_close(&model);
    weir_device_close(&device);
    return 0;
}
