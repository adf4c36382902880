/* pipeline_tool: a whole run, or one network, laid open: what tests/golden/live_compare.py sets beside diffusers.
 *
 *   pipeline_tool plan MODEL DEVICE [WISH...]            memory of every stage, before any is taken
 *   pipeline_tool film MODEL DEVICE OUT PROMPT NEGATIVE [WISH...]
 *                                                        OUT.embedding, OUT.latents (f32), OUT.rgb (uint8)
 *   pipeline_tool batch MODEL DEVICE PROMPT NEGATIVE [WISH...]
 *                                                        denoise of 1, 2, 4 and 8 items at once, the first of which must
 *                                                        come out the same
 *   pipeline_tool list MODEL DEVICE FILE OUT [WISH...]   a result a line of FILE, "SEED PROMPT"; all, one behind the
 *                                                        other, to OUT as uint8: what tests/checker scores
 *   WISH: width= height= frames= steps= guidance= sampler= noise= seed= threads= precision=f32|bf16
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

struct tool {
    struct weir_device *device;
    struct weir_model_dir *model;
    struct weir_pipeline *pipeline;
    struct weir_item item;
    struct weir_error error;
    double processor; /* seconds, when the stage began */
    long peak_kib;    /* of the stages that ended */
    int threads;
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
        if (strncmp(*wishes, "threads=", 8) == 0)
            tool->threads = atoi(*wishes + 8);
        else if (!read_wish(&wish, *wishes))
            return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "%s is no wish", *wishes), false;
    }
    return weir_device_open(device, tool->threads, &tool->device, &tool->error) == WEIR_OK &&
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
    uint32_t seat;
    bool good = load(tool, WEIR_PIPELINE_DENOISE) &&
                weir_denoiser_create(tool->pipeline, &tool->item, 1, &denoiser, &tool->error) == WEIR_OK &&
                weir_denoiser_begin(denoiser, &tool->item, &(struct weir_denoiser_input){ .embedding = embedding },
                                    NULL, &seat, &tool->error) == WEIR_OK;
    while (good && weir_denoiser_step_index(denoiser, seat) < weir_denoiser_step_count(denoiser, seat)) {
        const double begin = seconds();
        good = weir_denoiser_step(denoiser, &tool->error) == WEIR_OK;
        printf("step=%u seconds=%.3f\n", weir_denoiser_step_index(denoiser, seat), seconds() - begin);
        fflush(stdout);
    }
    good = good && weir_denoiser_read(denoiser, seat, latents, NULL, &tool->error) == WEIR_OK;
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

/* Seats `items` of seeds seed, seed + 1, ..., and runs all steps; the first one is left out of the time, for it plans.
 * The latents of the first item go to `latents`. */
static bool run_batch(struct tool *tool, uint32_t items, const float *embedding, float *latents, double *step_seconds,
                      double *step_processor)
{
    struct weir_denoiser *denoiser = NULL;
    uint32_t seats[WEIR_DENOISER_SEATS_MAX], steps = 0;
    long ignored;
    double begin = seconds(), processor = used(&ignored);
    bool good = weir_denoiser_create(tool->pipeline, &tool->item, items, &denoiser, &tool->error) == WEIR_OK;
    for (uint32_t i = 0; good && i < items; i++) {
        struct weir_item item = tool->item;
        item.seed += i;
        good = weir_denoiser_begin(denoiser, &item, &(struct weir_denoiser_input){ .embedding = embedding }, NULL,
                                   &seats[i], &tool->error) == WEIR_OK;
    }
    for (; good && weir_denoiser_step_index(denoiser, seats[0]) < weir_denoiser_step_count(denoiser, seats[0]);
         steps++) {
        if (steps == 1) begin = seconds(), processor = used(&ignored);
        good = weir_denoiser_step(denoiser, &tool->error) == WEIR_OK;
    }
    *step_seconds = (seconds() - begin) / (steps > 1 ? steps - 1 : 1);
    *step_processor = (used(&ignored) - processor) / (steps > 1 ? steps - 1 : 1);
    good = good && weir_denoiser_read(denoiser, seats[0], latents, NULL, &tool->error) == WEIR_OK;
    weir_denoiser_destroy(&denoiser);
    return good;
}

static bool batch(struct tool *tool, const char *prompt, const char *negative)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(tool->pipeline);
    const size_t latent_bytes = weir_item_latent_count(facts, &tool->item) * sizeof(float);
    float *embedding = malloc(weir_item_embedding_count(facts, &tool->item) * sizeof *embedding);
    float *alone = malloc(latent_bytes), *latents = malloc(latent_bytes);
    bool good = embedding && alone && latents;
    if (!good) weir_fail(&tool->error, WEIR_NO_MEMORY, "no memory for the results");
    good = good && plan(tool) && encode(tool, prompt, negative, embedding) && load(tool, WEIR_PIPELINE_DENOISE);
    for (uint32_t items = 1; good && items <= 8; items *= 2) {
        double step_seconds, step_processor;
        struct weir_pipeline_memory memory;
        good = run_batch(tool, items, embedding, items == 1 ? alone : latents, &step_seconds, &step_processor) &&
               weir_pipeline_plan_denoise(tool->pipeline, tool->device, &tool->item, items, &memory, &tool->error) ==
                   WEIR_OK;
        if (!good) break;
        printf("items=%u ms_per_step=%.2f ms_per_step_and_item=%.2f processor_ms=%.2f arena_bytes=%llu\n", items,
               step_seconds * 1e3, step_seconds * 1e3 / items, step_processor * 1e3 / items,
               (unsigned long long)memory.arena);
        fflush(stdout);
        if (items == 1 || memcmp(alone, latents, latent_bytes) == 0) continue;
        weir_fail(&tool->error, WEIR_INTERNAL, "with %u items the first has other latents than alone", items);
        good = false;
    }
    free(embedding);
    free(alone);
    free(latents);
    return good;
}

/* Handles and buffers that all lines of a list share. */
struct list {
    struct weir_text *text;
    struct weir_denoiser *denoiser;
    struct weir_decoder *decoder;
    float *embedding, *latents;
    uint8_t *rgb;
    size_t negative; /* numbers of the embedding before the prompt's */
};

static bool list_open(struct tool *tool, struct list *list)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(tool->pipeline);
    list->embedding = malloc(weir_item_embedding_count(facts, &tool->item) * sizeof *list->embedding);
    list->latents = malloc(weir_item_latent_count(facts, &tool->item) * sizeof *list->latents);
    list->rgb = malloc(weir_item_frame_bytes(&tool->item) * tool->item.frames);
    if (!list->embedding || !list->latents || !list->rgb)
        return weir_fail(&tool->error, WEIR_NO_MEMORY, "no memory for the results"), false;
    if (weir_item_guided(facts, &tool->item)) list->negative = (size_t)facts->text_rows * facts->text_channels;
    return load(tool, WEIR_PIPELINE_TEXT) && load(tool, WEIR_PIPELINE_DENOISE) && load(tool, WEIR_PIPELINE_DECODE) &&
           weir_text_create(tool->pipeline, &list->text, &tool->error) == WEIR_OK &&
           weir_denoiser_create(tool->pipeline, &tool->item, 1, &list->denoiser, &tool->error) == WEIR_OK &&
           weir_decoder_create(tool->pipeline, &tool->item, 0, &list->decoder, &tool->error) == WEIR_OK &&
           (!list->negative || weir_text_run(list->text, "", true, list->embedding, &tool->error) == WEIR_OK);
}

static bool list_line(struct tool *tool, struct list *list, const char *prompt, FILE *out)
{
    const size_t bytes = weir_item_frame_bytes(&tool->item) * tool->item.frames;
    const struct weir_denoiser_input input = { .embedding = list->embedding };
    uint32_t seat;
    bool good = weir_text_run(list->text, prompt, false, list->embedding + list->negative, &tool->error) == WEIR_OK &&
                weir_denoiser_begin(list->denoiser, &tool->item, &input, NULL, &seat, &tool->error) == WEIR_OK;
    while (good && weir_denoiser_step_index(list->denoiser, seat) < weir_denoiser_step_count(list->denoiser, seat))
        good = weir_denoiser_step(list->denoiser, &tool->error) == WEIR_OK;
    good = good && weir_denoiser_read(list->denoiser, seat, list->latents, NULL, &tool->error) == WEIR_OK &&
           weir_denoiser_leave(list->denoiser, seat, &tool->error) == WEIR_OK &&
           weir_decoder_run(list->decoder, &tool->item, list->latents, 0, tool->item.frames, list->rgb, &tool->error) ==
               WEIR_OK;
    if (good && fwrite(list->rgb, 1, bytes, out) != bytes)
        return weir_fail(&tool->error, WEIR_IO, "a result could not be written"), false;
    return good;
}

static bool list(struct tool *tool, const char *path, const char *out_path)
{
    struct list list = { 0 };
    FILE *lines = fopen(path, "r"), *out = fopen(out_path, "wb");
    bool good = lines && out;
    if (!good) weir_fail(&tool->error, WEIR_IO, "%s could not be opened", lines ? out_path : path);
    good = good && plan(tool) && list_open(tool, &list);
    unsigned count = 0;
    const double begin = seconds();
    for (char line[4096], *prompt; good && fgets(line, sizeof line, lines); count++) {
        line[strcspn(line, "\n")] = '\0';
        tool->item.seed = strtoull(line, &prompt, 10);
        if (*prompt++ == ' ')
            good = list_line(tool, &list, prompt, out);
        else
            good = weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "%s: line %u is not \"SEED PROMPT\"", path, count + 1) ==
                   WEIR_OK;
    }
    printf("list count=%u seconds=%.2f\n", count, seconds() - begin);
    if (lines) fclose(lines);
    if (out && fclose(out) != 0 && good)
        good = weir_fail(&tool->error, WEIR_IO, "%s could not be written", out_path) == WEIR_OK;
    weir_decoder_destroy(&list.decoder);
    weir_denoiser_destroy(&list.denoiser);
    weir_text_destroy(&list.text);
    free(list.embedding);
    free(list.latents);
    free(list.rgb);
    return good;
}

int main(int argc, char **argv)
{
    struct tool tool = { .threads = 2 };
    long peak_kib = 0;
    bool good = false;
    if (argc >= 4 && strcmp(argv[1], "plan") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 4) && plan(&tool);
    } else if (argc >= 7 && strcmp(argv[1], "film") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 7) && film(&tool, argv[4], argv[5], argv[6]);
    } else if (argc >= 6 && strcmp(argv[1], "batch") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 6) && batch(&tool, argv[4], argv[5]);
    } else if (argc >= 6 && strcmp(argv[1], "list") == 0) {
        good = open_all(&tool, argv[2], argv[3], argv + 6) && list(&tool, argv[4], argv[5]);
    } else {
        weir_fail(
            &tool.error, WEIR_BAD_ARGUMENT,
            "use: plan MODEL DEVICE [WISH...], film MODEL DEVICE OUT PROMPT NEGATIVE [WISH...], batch MODEL DEVICE "
            "PROMPT NEGATIVE [WISH...] or list MODEL DEVICE FILE OUT [WISH...]");
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
