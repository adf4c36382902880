/* bench: what tests of whole runs share: a pipeline with its stages loaded, and a run of it piece by piece. */
#ifndef WEIR_TESTS_NETS_BENCH_H
#define WEIR_TESTS_NETS_BENCH_H

#include "tests/nets/golden.h"

#include "worker/pipelines/pipeline.h"

/* A pipeline with all of its stages loaded. */
struct bench {
    struct weir_device *device;
    struct weir_model_dir *model;
    struct weir_pipeline *pipeline;
    const struct weir_model_facts *facts;
};

static inline struct bench bench_open_threads(const char *device_name, const char *folder, int threads)
{
    struct bench b = { .device = device_or_skip(device_name, threads) };
    b.model = tiny_open(folder);
    OK(weir_pipeline_open(b.model, &b.pipeline, &error));
    b.facts = weir_pipeline_facts(b.pipeline);
    for (int stage = 0; stage < WEIR_PIPELINE_STAGE_COUNT; stage++)
        OK(weir_pipeline_load(b.pipeline, b.device, (enum weir_pipeline_stage)stage, &error));
    return b;
}

static inline struct bench bench_open(const char *device_name, const char *folder)
{
    return bench_open_threads(device_name, folder, 2);
}

static inline void bench_close(struct bench *b)
{
    weir_pipeline_close(&b->pipeline);
    weir_model_dir_close(&b->model);
    weir_device_close(&b->device);
}

/* Negative, then positive, as a denoise run wants them; free() it. */
static inline float *bench_embed(const struct bench *b, const char *prompt, const char *negative,
                                 const struct weir_item *item)
{
    struct weir_text *text = NULL;
    const size_t one = (size_t)b->facts->text_rows * b->facts->text_channels;
    float *embedding = malloc(weir_item_embedding_count(b->facts, item) * sizeof *embedding), *to = embedding;
    OK(weir_text_create(b->pipeline, &text, &error));
    if (weir_item_guided(b->facts, item)) {
        OK(weir_text_run(text, negative, true, to, &error));
        to += one;
    }
    OK(weir_text_run(text, prompt, false, to, &error));
    weir_text_destroy(&text);
    return embedding;
}

/* Latents after `until` steps from `state`, alone in the handle; `previous` may be NULL. */
static inline void denoise_from(struct weir_denoiser *denoiser, const struct weir_item *item,
                                const struct weir_denoiser_input *input, const struct weir_denoiser_state *state,
                                uint32_t until, float *latents, float *previous)
{
    uint32_t seat;
    OK(weir_denoiser_begin(denoiser, item, input, state, &seat, &error));
    while (weir_denoiser_step_index(denoiser, seat) < until) OK(weir_denoiser_step(denoiser, &error));
    OK(weir_denoiser_read(denoiser, seat, latents, previous, &error));
    OK(weir_denoiser_leave(denoiser, seat, &error));
}

/* The same of an embedding alone. */
static inline void denoise(struct weir_denoiser *denoiser, const struct weir_item *item, const float *embedding,
                           const struct weir_denoiser_state *state, uint32_t until, float *latents, float *previous)
{
    denoise_from(denoiser, item, &(struct weir_denoiser_input){ .embedding = embedding }, state, until, latents,
                 previous);
}

static inline struct weir_factors *factors_of(const struct bench *b, const struct weir_lora_use *uses, size_t count)
{
    struct weir_factors *factors = NULL;
    OK(weir_factors_create(b->pipeline, uses, count, &factors, &error));
    return factors;
}

/* An adapter of tests/golden/loras, and its size. */
static inline struct weir_lora *golden_lora(const struct bench *b, const char *name, size_t *bytes)
{
    char path[512], *file = NULL;
    struct weir_lora *lora = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/loras/%s.safetensors", WEIR_SOURCE_DIR, name);
    OK(weir_file_read(path, (size_t)1 << 20, &file, bytes, &error));
    OK(weir_pipeline_lora(b->pipeline, file, *bytes, path, &lora, &error));
    free(file);
    return lora;
}

static inline uint32_t steps_of(const struct bench *b, const struct weir_item *item, bool *looks_back)
{
    uint32_t steps;
    OK(weir_pipeline_walk(b->pipeline, item, &steps, looks_back, &error));
    return steps;
}

static inline void see_pixels(const char *what, const uint8_t *a, const uint8_t *b, size_t count)
{
    size_t different = 0;
    int largest = 0;
    for (size_t i = 0; i < count; i++) {
        const int d = abs((int)a[i] - (int)b[i]);
        different += d != 0;
        if (d > largest) largest = d;
    }
    printf("pixels %s different=%zu of %zu, largest=%d\n", what, different, count, largest);
    if (largest > 1) fail_msg("%s: a pixel differs by %d of 255", what, largest);
}

#endif
