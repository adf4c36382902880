/* pipeline_tool: a whole run, or one network, laid open: what tests/golden/live_compare.py sets beside diffusers.
 *
 *   pipeline_tool plan MODEL DEVICE [WISH...]            memory of every stage, before any is taken
 *   pipeline_tool film MODEL DEVICE OUT PROMPT NEGATIVE [WISH...]
 *                                                        OUT.embedding, OUT.latents (f32), OUT.rgb (uint8)
 *   WISH: width= height= frames= steps= guidance= sampler= noise= seed= precision=f32|bf16
 *
 * What was run, with seconds and bytes, goes to stdout as one `name=value` line a fact; so do the processor time and the
 * peak of resident memory of every stage, loading included. */
#include "proto/base/clock.h"
#include "worker/model_dir.h"
#include "worker/pipelines/pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define THREADS 2

struct tool {
    struct weir_device *device;
    struct weir_model_dir *model;
    struct weir_pipeline *pipeline;
    struct weir_item item;
    struct weir_error error;
    double processor; /* seconds, when the stage began */
    long peak_kib;    /* of the stages that ended */
};

static double seconds(void)
{
    return (double)weir_clock_now_ms() / 1e3;
}

/* Processor time of the process, and its peak of memory since forget_peak(). */
static double used(long *peak_kib)
{
    struct rusage usage = { 0 };
    getrusage(RUSAGE_SELF, &usage);
    *peak_kib = usage.ru_maxrss;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Where Linux cannot be asked, a stage's peak is that of all before it, too. */
static void forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

static void begin_stage(struct tool *tool)
{
    long ignored;
    forget_peak();
    tool->processor = used(&ignored);
}

static void end_stage(struct tool *tool, enum weir_pipeline_stage stage)
{
    long peak_kib;
    const double processor = used(&peak_kib) - tool->processor;
    if (peak_kib > tool->peak_kib) tool->peak_kib = peak_kib;
    printf("used stage=%s processor_seconds=%.2f peak_gib=%.2f\n", weir_pipeline_stage_name(stage), processor,
           (double)peak_kib / (1 << 20));
    fflush(stdout);
}

static int failed(const struct tool *tool)
{
    fprintf(stderr, "pipeline_tool: %s (%s)\n", tool->error.words, weir_status_name(tool->error.code));
    return weir_status_exit_code(tool->error.code);
}

static bool read_wish(struct weir_item_wish *wish, const char *word)
{
    const struct {
        const char *name;
        int64_t *to;
    } numbers[] = { { "width=", &wish->width },
                    { "height=", &wish->height },
                    { "frames=", &wish->frames },
                    { "steps=", &wish->steps } };
    for (size_t i = 0; i < WEIR_COUNT(numbers); i++) {
        if (strncmp(word, numbers[i].name, strlen(numbers[i].name)) != 0) continue;
        *numbers[i].to = atoll(word + strlen(numbers[i].name));
        return true;
    }
    if (strncmp(word, "guidance=", 9) == 0) return wish->guidance = atof(word + 9), true;
    if (strncmp(word, "sampler=", 8) == 0) return wish->sampler = word + 8, true;
    if (strncmp(word, "noise=", 6) == 0) return wish->noise = word + 6, true;
    if (strncmp(word, "seed=", 5) == 0) return wish->seed = strtoull(word + 5, NULL, 10), true;
    return false;
}

static bool open_all(struct tool *tool, const char *model, const char *device, char **wishes)
{
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    enum weir_dtype precision = WEIR_F32;
    for (; *wishes; wishes++) {
        if (strncmp(*wishes, "precision=", 10) == 0 && weir_precision_parse(*wishes + 10, &precision)) continue;
        if (!read_wish(&wish, *wishes))
            return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "%s is no wish", *wishes), false;
    }
    return weir_device_open(device, THREADS, &tool->device, &tool->error) == WEIR_OK &&
           weir_device_set_precision(tool->device, precision, &tool->error) == WEIR_OK &&
           weir_model_dir_open(model, NULL, &tool->model, &tool->error) == WEIR_OK &&
           weir_pipeline_open(tool->model, &tool->pipeline, &tool->error) == WEIR_OK &&
           weir_item_resolve(weir_pipeline_facts(tool->pipeline), &wish, &tool->item, &tool->error) == WEIR_OK;
}

static bool plan(struct tool *tool)
{
    uint64_t all = 0;
    printf("size=%ux%u frames=%u steps=%u guidance=%g sampler=%s noise=%s\n", tool->item.width, tool->item.height,
           tool->item.frames, tool->item.steps, tool->item.guidance, weir_item_sampler_name(tool->item.sampler),
           weir_item_noise_name(tool->item.noise));
    for (int i = 0; i < WEIR_PIPELINE_STAGE_COUNT; i++) {
        const enum weir_pipeline_stage stage = (enum weir_pipeline_stage)i;
        struct weir_pipeline_memory memory;
        const double begin = seconds();
        if (weir_pipeline_plan_memory(tool->pipeline, tool->device, stage, &tool->item, &memory, &tool->error))
            return false;
        all += memory.weights + memory.arena + memory.host;
        printf("plan stage=%s weights=%llu arena=%llu host=%llu seconds=%.2f\n", weir_pipeline_stage_name(stage),
               (unsigned long long)memory.weights, (unsigned long long)memory.arena, (unsigned long long)memory.host,
               seconds() - begin);
    }
    printf("plan all=%llu gib=%.2f\n", (unsigned long long)all, (double)all / (1 << 30));
    fflush(stdout);
    return true;
}

static bool load(struct tool *tool, enum weir_pipeline_stage stage)
{
    const double begin = seconds();
    begin_stage(tool);
    if (weir_pipeline_load(tool->pipeline, tool->device, stage, &tool->error) != WEIR_OK) return false;
    printf("load stage=%s weights=%llu seconds=%.2f\n", weir_pipeline_stage_name(stage),
           (unsigned long long)weir_pipeline_weight_bytes(tool->pipeline, stage), seconds() - begin);
    fflush(stdout);
    return true;
}

static bool write_file(struct tool *tool, const char *out, const char *suffix, const void *bytes, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.%s", out, suffix);
    FILE *file = fopen(path, "wb");
    const bool good = file && fwrite(bytes, 1, count, file) == count;
    if (!file || fclose(file) != 0 || !good)
        return weir_fail(&tool->error, WEIR_IO, "%s could not be written", path), false;
    return true;
}

static bool encode(struct tool *tool, const char *prompt, const char *negative, float *embedding)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(tool->pipeline);
    const size_t one = (size_t)facts->text_rows * facts->text_channels;
    const bool guided = weir_item_guided(facts, &tool->item);
    struct weir_text *text = NULL;
    const bool good = load(tool, WEIR_PIPELINE_TEXT) &&
                      weir_text_create(tool->pipeline, &text, &tool->error) == WEIR_OK &&
                      (!guided || weir_text_run(text, negative, true, embedding, &tool->error) == WEIR_OK) &&
                      weir_text_run(text, prompt, false, embedding + (guided ? one : 0), &tool->error) == WEIR_OK;
    end_stage(tool, WEIR_PIPELINE_TEXT);
    weir_text_destroy(&text);
    weir_pipeline_unload(tool->pipeline, WEIR_PIPELINE_TEXT);
    return good;
}

static bool denoise(struct tool *tool, const float *embedding, float *latents)
{
    struct weir_denoiser *denoiser = NULL;
    bool good = load(tool, WEIR_PIPELINE_DENOISE) &&
                weir_denoiser_create(tool->pipeline, &tool->item, &denoiser, &tool->error) == WEIR_OK &&
                weir_denoiser_begin(denoiser, &tool->item, &(struct weir_denoiser_input){ .embedding = embedding },
                                    NULL, &tool->error) == WEIR_OK;
    while (good && weir_denoiser_step_index(denoiser) < weir_denoiser_step_count(denoiser)) {
        const double begin = seconds();
        good = weir_denoiser_step(denoiser, &tool->error) == WEIR_OK;
        printf("step=%u seconds=%.3f\n", weir_denoiser_step_index(denoiser), seconds() - begin);
        fflush(stdout);
    }
    good = good && weir_denoiser_read(denoiser, latents, NULL, &tool->error) == WEIR_OK;
    end_stage(tool, WEIR_PIPELINE_DENOISE);
    weir_denoiser_destroy(&denoiser);
    weir_pipeline_unload(tool->pipeline, WEIR_PIPELINE_DENOISE);
    return good;
}

static bool decode(struct tool *tool, const float *latents, uint8_t *rgb)
{
    struct weir_decoder *decoder = NULL;
    double begin = 0;
    const bool good = load(tool, WEIR_PIPELINE_DECODE) &&
                      weir_decoder_create(tool->pipeline, &tool->item, 0, &decoder, &tool->error) == WEIR_OK &&
                      (begin = seconds(), weir_decoder_run(decoder, &tool->item, latents, 0, tool->item.frames, rgb,
                                                           &tool->error) == WEIR_OK);
    printf("decode frames=%u seconds=%.3f\n", tool->item.frames, seconds() - begin);
    end_stage(tool, WEIR_PIPELINE_DECODE);
    weir_decoder_destroy(&decoder);
    return good;
}

static bool film(struct tool *tool, const char *out, const char *prompt, const char *negative)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(tool->pipeline);
    const size_t embedding_bytes = weir_item_embedding_count(facts, &tool->item) * sizeof(float);
    const size_t latent_bytes = weir_item_latent_count(facts, &tool->item) * sizeof(float);
    const size_t rgb_bytes = weir_item_frame_bytes(&tool->item) * tool->item.frames;
    float *embedding = malloc(embedding_bytes), *latents = malloc(latent_bytes);
    uint8_t *rgb = malloc(rgb_bytes);
    bool good = embedding && latents && rgb;
    if (!good) weir_fail(&tool->error, WEIR_NO_MEMORY, "no memory for the results");
    good = good && plan(tool) && encode(tool, prompt, negative, embedding) && denoise(tool, embedding, latents) &&
           decode(tool, latents, rgb) && write_file(tool, out, "embedding", embedding, embedding_bytes) &&
           write_file(tool, out, "latents", latents, latent_bytes) && write_file(tool, out, "rgb", rgb, rgb_bytes);
    free(embedding);
    free(latents);
    free(rgb);
    return good;
}

int main(int argc, char **argv)
{
    struct tool tool = { 0 };
    long peak_kib = 0;
    bool good = false;
    if (argc >= 4 && strcmp(argv[1], "plan") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 4) && plan(&tool);
    } else if (argc >= 7 && strcmp(argv[1], "film") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 7) && film(&tool, argv[4], argv[5], argv[6]);
    } else {
        weir_fail(&tool.error, WEIR_BAD_ARGUMENT,
                  "use: plan MODEL DEVICE [WISH...] or film MODEL DEVICE OUT PROMPT "
                  "NEGATIVE [WISH...]");
    }
    const double processor = used(&peak_kib);
    if (peak_kib < tool.peak_kib) peak_kib = tool.peak_kib;
    if (good)
        printf("class=%s processor_seconds=%.2f peak_gib=%.2f\n", tool.device->numerics_class, processor,
               (double)peak_kib / (1 << 20));
    const int code = good ? 0 : failed(&tool);
    weir_pipeline_close(&tool.pipeline);
    weir_model_dir_close(&tool.model);
    weir_device_close(&tool.device);
    return code;
}
