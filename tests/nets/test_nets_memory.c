/* When memory runs out, at whichever allocation, opening, loading, planning and running end in one refusal in words, and
 * nothing is left behind (AddressSanitizer counts). */
#include "tests/nets/golden.h"

#include "worker/pipelines/pipeline.h"

#include <errno.h>

/* The wrapped allocators fail once, at allocation number `failing`. */
static long allocation, failing = -1;

static int fails(void)
{
    if (failing < 0 || allocation++ != failing) return 0;
    errno = ENOMEM;
    return 1;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

struct attempt {
    struct weir_device *device;
    const struct weir_model_dir *model;
    struct weir_pipeline *pipeline;
    struct weir_item item;
    float *embedding, *latents;
    uint8_t *rgb;
    int64_t side; /* what is wished for */
    double guidance;
    const char *sampler;
    const char *lora_name; /* or NULL */
    char *lora;
    size_t lora_bytes;
};

static enum weir_status open_pipeline(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = wish.height = a->side;
    wish.frames = wish.steps = 1;
    wish.guidance = a->guidance;
    wish.sampler = a->sampler;
    WEIR_TRY(weir_pipeline_open(a->model, &a->pipeline, error));
    WEIR_TRY(weir_item_resolve(weir_pipeline_facts(a->pipeline), &wish, &a->item, error));
cleanup:
    return status;
}

static enum weir_status run_text(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_text *text = NULL;
    WEIR_TRY(weir_pipeline_load(a->pipeline, a->device, WEIR_PIPELINE_TEXT, error));
    WEIR_TRY(weir_text_create(a->pipeline, &text, error));
    WEIR_TRY(weir_text_run(text, "a red star", false, a->embedding, error));
cleanup:
    weir_text_destroy(&text);
    weir_pipeline_unload(a->pipeline, WEIR_PIPELINE_TEXT);
    return status;
}

static enum weir_status run_denoise(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_denoiser *denoiser = NULL;
    WEIR_TRY(weir_pipeline_load(a->pipeline, a->device, WEIR_PIPELINE_DENOISE, error));
    WEIR_TRY(weir_denoiser_create(a->pipeline, &a->item, &denoiser, error));
    WEIR_TRY(weir_denoiser_begin(denoiser, &a->item, &(struct weir_denoiser_input){ .embedding = a->embedding }, NULL,
                                 error));
    WEIR_TRY(weir_denoiser_step(denoiser, error));
    WEIR_TRY(weir_denoiser_read(denoiser, a->latents, NULL, error));
cleanup:
    weir_denoiser_destroy(&denoiser);
    weir_pipeline_unload(a->pipeline, WEIR_PIPELINE_DENOISE);
    return status;
}

/* The same with adapters, read, planned and laid out. */
static enum weir_status run_adapted(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_denoiser *denoiser = NULL;
    struct weir_lora *lora = NULL;
    struct weir_item item = a->item;
    item.lora_count = 2;
    WEIR_TRY(weir_pipeline_load(a->pipeline, a->device, WEIR_PIPELINE_DENOISE, error));
    WEIR_TRY(weir_denoiser_create(a->pipeline, &item, &denoiser, error));
    WEIR_TRY(weir_pipeline_lora(a->pipeline, a->lora, a->lora_bytes, "lora", &lora, error));
    const struct weir_lora_use uses[] = { { lora, 1 }, { lora, 0.5 } };
    WEIR_TRY(weir_denoiser_adapt(denoiser, uses, 2, error));
    WEIR_TRY(
        weir_denoiser_begin(denoiser, &item, &(struct weir_denoiser_input){ .embedding = a->embedding }, NULL, error));
    WEIR_TRY(weir_denoiser_step(denoiser, error));
cleanup:
    weir_lora_destroy(&lora);
    weir_denoiser_destroy(&denoiser);
    weir_pipeline_unload(a->pipeline, WEIR_PIPELINE_DENOISE);
    return status;
}

static enum weir_status run_decode(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_decoder *decoder = NULL;
    WEIR_TRY(weir_pipeline_load(a->pipeline, a->device, WEIR_PIPELINE_DECODE, error));
    WEIR_TRY(weir_decoder_create(a->pipeline, &a->item, 0, &decoder, error));
    WEIR_TRY(weir_decoder_run(decoder, &a->item, a->latents, 0, 1, a->rgb, error));
cleanup:
    weir_decoder_destroy(&decoder);
    weir_pipeline_unload(a->pipeline, WEIR_PIPELINE_DECODE);
    return status;
}

static enum weir_status plan_all(struct attempt *a, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_pipeline_memory memory;
    for (int stage = 0; stage < WEIR_PIPELINE_STAGE_COUNT; stage++)
        WEIR_TRY(weir_pipeline_plan_memory(a->pipeline, a->device, (enum weir_pipeline_stage)stage, &a->item, &memory,
                                           error));
cleanup:
    return status;
}

/* Fails allocation 0, 1, ..., later ones with growing strides, until none is reached and the call succeeds. */
static void fail_everywhere(const char *what, struct attempt *a,
                            enum weir_status (*call)(struct attempt *a, struct weir_error *error))
{
    long refused = 0;
    for (long number = 0;; number += 1 + number / 40) {
        struct weir_error fault = { 0 };
        allocation = 0;
        failing = number;
        const enum weir_status status = call(a, &fault);
        const long reached = allocation;
        failing = -1;
        if (status == WEIR_OK) {
            if (number < reached) continue; /* something could do without */
            break;
        }
        if (status != WEIR_NO_MEMORY || !fault.words[0])
            fail_msg("%s, allocation %ld: %s \"%s\"", what, number, weir_status_name(status), fault.words);
        refused++;
        if (call == open_pipeline) weir_pipeline_close(&a->pipeline);
    }
    printf("%s refused=%ld\n", what, refused);
    assert_true(refused > 5);
}

static void every_allocation_of(const char *folder, struct attempt a)
{
    struct weir_model_dir *model = tiny_open(folder);
    a.model = model;
    OK(weir_device_open("ref", 1, &a.device, &error));
    fail_everywhere("open", &a, open_pipeline);
    const struct weir_model_facts *facts = weir_pipeline_facts(a.pipeline);
    a.embedding = calloc(weir_item_embedding_count(facts, &a.item), sizeof *a.embedding);
    a.latents = calloc(weir_item_latent_count(facts, &a.item), sizeof *a.latents);
    a.rgb = malloc(weir_item_frame_bytes(&a.item));
    fail_everywhere("text", &a, run_text);
    fail_everywhere("denoise", &a, run_denoise);
    if (a.lora_name) {
        char path[512];
        snprintf(path, sizeof path, "%s/tests/golden/loras/%s.safetensors", WEIR_SOURCE_DIR, a.lora_name);
        OK(weir_file_read(path, (size_t)1 << 20, &a.lora, &a.lora_bytes, &error));
        fail_everywhere("adapted", &a, run_adapted);
        free(a.lora);
    }
    fail_everywhere("decode", &a, run_decode);
    fail_everywhere("plan", &a, plan_all);
    free(a.embedding), free(a.latents), free(a.rgb);
    weir_pipeline_close(&a.pipeline);
    weir_model_dir_close(&model);
    weir_device_close(&a.device);
}

static void running_out_of_memory_is_a_refusal_in_words(void **state)
{
    (void)state;
    every_allocation_of("tiny-c", (struct attempt){ .side = 16, .guidance = 5, .sampler = "dpm++" });
}

static void so_it_is_where_pictures_are_made(void **state)
{
    (void)state;
    every_allocation_of("tiny-sana-a",
                        (struct attempt){ .side = 32, .guidance = 1, .lora_name = "tiny-sana-a-one" }); /* resized */
    every_allocation_of("tiny-sana-b", (struct attempt){ .side = 8, .guidance = 4.5 });
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(running_out_of_memory_is_a_refusal_in_words),
                                        cmocka_unit_test(so_it_is_where_pictures_are_made) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
