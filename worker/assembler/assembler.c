/* assemble: an item's segments joined by stream copy to one film that carries the receipt; a GIF or pictures are taken
 * over as they are; the bands of a picture are laid together, resized, rounded and encoded as an undivided decode does
 * it. What a job made is then all under its assemble tasks. */
#include "worker/encoder_child.h"
#include "worker/image_file.h"
#include "worker/link/artefact.h"
#include "worker/scratch.h"
#include "worker/spec.h"
#include "worker/stage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS_MAX = 4096, CPU_SECONDS = 300, MEMORY_MIB = 4096, FILE_MIB_BASE = 64, WORD_BYTES = 24 };

struct assembler {
    struct weir_open_stage stage;
    struct weir_item shared; /* the last picture in bands, for which memory was planned; bands 0 before */
};

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    (void)device, (void)seats;
    if (item->bands > 1) { /* the picture, what finishing it takes, and a band as it came */
        struct weir_pipeline_rows rows;
        uint64_t band_bytes = 0;
        *out = (struct weir_pipeline_memory){ .host = weir_pipeline_finish_bytes(pipeline, item) +
                                                      weir_item_frame_bytes(item) };
        for (uint32_t band = 0; band < item->bands; band++) {
            const enum weir_status status = weir_pipeline_band_rows(pipeline, item, band, &rows, error);
            if (status != WEIR_OK) return status;
            const uint64_t mine = sizeof(float) * (uint64_t)rows.count * rows.width * rows.channels;
            if (mine > band_bytes) band_bytes = mine;
        }
        out->host += band_bytes + WEIR_ARTEFACT_HEADER_BYTES;
        return WEIR_OK;
    }
    /* one segment, or a whole GIF, at a time; encoded it is smaller than its frames */
    *out = (struct weir_pipeline_memory){ .host = weir_item_frame_bytes(item) * item->frames };
    return WEIR_OK;
}

static void stage_close(struct weir_open_stage *stage)
{
    free(stage);
}

static enum weir_status stage_open(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                                   struct weir_error *error)
{
    struct assembler *assembler = calloc(1, sizeof *assembler);
    *out = NULL;
    if (!assembler) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the assembler");
    assembler->stage = (struct weir_open_stage){ &weir_stage_assembler, ground };
    *out = &assembler->stage;
    return WEIR_OK;
}

static bool fits(const struct weir_open_stage *stage, const struct weir_item *item)
{
    const struct weir_item *shared = &((const struct assembler *)stage)->shared;
    return item->bands <= 1 ||
           (item->bands == shared->bands && item->width == shared->width && item->height == shared->height);
}

/* Input after input under the task's own keys, with the names that the decoder gave. */
static enum weir_status take_over(const struct weir_stage_ground *ground, struct weir_task *task,
                                  const struct weir_film_format *format, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *bytes = NULL;
    for (size_t i = 0; i < task->lease->n_inputs; i++) {
        size_t count;
        struct weir_output *output;
        WEIR_TRY(weir_task_check(task, error));
        WEIR_TRY(weir_task_input(task, ground->link, i, &bytes, &count, error));
        WEIR_TRY(weir_task_output(task, &output, error));
        WEIR_TRY(weir_link_put(ground->link, task->lease->tenant, &task->id, task->lease->inputs[i]->artefact->name,
                               format->media_type, bytes, count, output, error));
        free(bytes);
        bytes = NULL;
    }
cleanup:
    free(bytes);
    return status;
}

struct join {
    struct weir_scratch scratch;
    char film[WEIR_SCRATCH_PATH_BYTES], receipt[WEIR_SCRATCH_PATH_BYTES];
    char (*segments)[WEIR_SCRATCH_PATH_BYTES];
    size_t count;
    uint64_t bytes;
};

static enum weir_status fetch_segments(const struct weir_stage_ground *ground, struct weir_task *task,
                                       struct join *join, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *bytes = NULL;
    join->segments = calloc(task->lease->n_inputs, sizeof *join->segments);
    if (!join->segments) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu names", task->lease->n_inputs));
    for (; join->count < task->lease->n_inputs; join->count++) {
        char name[WORD_BYTES];
        size_t count;
        WEIR_TRY(weir_task_check(task, error));
        WEIR_TRY(weir_task_input(task, ground->link, join->count, &bytes, &count, error));
        snprintf(name, sizeof name, "segment-%zu", join->count);
        weir_scratch_name(&join->scratch, name, join->segments[join->count]);
        WEIR_TRY(weir_scratch_write(join->segments[join->count], bytes, count, error));
        join->bytes += count;
        free(bytes);
        bytes = NULL;
    }
cleanup:
    free(bytes);
    return status;
}

static enum weir_status make_film(const struct weir_stage_ground *ground, struct weir_task *task, struct join *join,
                                  const struct weir_film_format *format, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_encoder_child *child = NULL;
    char cpu[WORD_BYTES], memory[WORD_BYTES], file[WORD_BYTES];
    const char **words = calloc(join->count + 16, sizeof *words);
    if (!words) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu names", join->count));
    snprintf(cpu, sizeof cpu, "%d", CPU_SECONDS);
    snprintf(memory, sizeof memory, "%d", MEMORY_MIB);
    snprintf(file, sizeof file, "%" PRIu64, FILE_MIB_BASE + (join->bytes >> 19));
    const char *const head[] = { "join", "--format",   format->name, "--metadata", join->receipt, "--cpu-seconds",
                                 cpu,    "--file-mib", file,         "--scratch",  "-o",          join->film };
    memcpy(words, head, sizeof head);
    size_t at = WEIR_COUNT(head);
    if (WEIR_ENCODER_LIMITS_MEMORY) {
        words[at++] = "--memory-mib";
        words[at++] = memory;
    }
    for (size_t i = 0; i < join->count; i++) words[at + i] = join->segments[i];
    WEIR_TRY(weir_encoder_child_start(weir_encoders_program(ground->encoders), words, &task->cancel, &child, error));
    WEIR_TRY(weir_encoder_child_finish(&child, NULL, error));
cleanup:
    weir_encoder_child_stop(&child);
    free(words);
    return status;
}

static enum weir_status make_receipt(const struct weir_stage_ground *ground, struct weir_task *task,
                                     struct weir_error *error)
{
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    char build[WEIR_ENCODER_BUILD_BYTES];
    const enum weir_status status =
        weir_encoders_build(ground->encoders, spec->format, spec->codec ? spec->codec : "", build, error);
    if (status != WEIR_OK) return status;
    task->note = weir_spec_receipt(spec, ground->device->numerics_class, build);
    return task->note ? WEIR_OK : weir_fail(error, WEIR_NO_MEMORY, "no memory for the receipt");
}

static enum weir_status join_segments(const struct weir_stage_ground *ground, struct weir_task *task,
                                      const struct weir_film_format *format, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct join join = { .count = 0 };
    char name[WORD_BYTES];
    struct weir_output *output;

    WEIR_TRY(weir_scratch_open(&join.scratch, ground->run_dir, error));
    weir_scratch_name(&join.scratch, "receipt.json", join.receipt);
    weir_scratch_name(&join.scratch, "film", join.film);
    WEIR_TRY(weir_scratch_write(join.receipt, task->note, strlen(task->note), error));
    WEIR_TRY(fetch_segments(ground, task, &join, error));
    WEIR_TRY(make_film(ground, task, &join, format, error));
    snprintf(name, sizeof name, "film.%s", format->name);
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put_file(ground->link, task->lease->tenant, &task->id, name, format->media_type, join.film,
                                output, error));
cleanup:
    weir_scratch_close(&join.scratch);
    free(join.segments);
    return status;
}

/* ---- a picture in bands ---- */

static size_t floats_of(const struct weir_pipeline_rows *rows)
{
    return (size_t)rows->count * rows->width * rows->channels;
}

/* Room for all bands; free(*out). */
static enum weir_status make_room(const struct weir_pipeline *pipeline, const struct weir_item *item, float **out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    size_t floats = 0;
    *out = NULL;
    for (uint32_t band = 0; band < item->bands; band++) {
        struct weir_pipeline_rows rows;
        WEIR_TRY(weir_pipeline_band_rows(pipeline, item, band, &rows, error));
        floats += floats_of(&rows);
    }
    *out = malloc(floats * sizeof **out);
    if (!*out) status = weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %zu numbers", floats);
cleanup:
    return status;
}

static enum weir_status fetch_bands(const struct weir_stage_ground *ground, struct weir_task *task, float *made,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *bytes = NULL;
    for (uint32_t band = 0; band < task->item.bands; band++) {
        struct weir_pipeline_rows rows;
        struct weir_artefact_tensor tensor;
        size_t count;
        WEIR_TRY(weir_task_check(task, error));
        WEIR_TRY(weir_pipeline_band_rows(ground->pipeline, &task->item, band, &rows, error));
        WEIR_TRY(weir_task_input(task, ground->link, band, &bytes, &count, error));
        WEIR_TRY(weir_artefact_parse(bytes, count, &tensor, error));
        const uint32_t dims[4] = { 1, rows.count, rows.width, rows.channels };
        WEIR_TRY(weir_artefact_expect(&tensor, "a band", 4, dims, error));
        memcpy(made + (size_t)rows.first * rows.width * rows.channels, tensor.values, tensor.count * sizeof *made);
        free(bytes);
        bytes = NULL;
    }
cleanup:
    free(bytes);
    return status;
}

static enum weir_status lay_together(const struct weir_stage_ground *ground, struct weir_task *task,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t rgb_bytes = weir_item_frame_bytes(&task->item);
    float *made = NULL;
    struct weir_image_file image = { 0 };
    uint8_t *rgb = malloc(rgb_bytes);
    if (!rgb) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %zu bytes", rgb_bytes));
    if (task->lease->n_inputs != task->item.bands) {
        WEIR_TRY(weir_fail(error, WEIR_PROTOCOL, "a lease of assemble with %zu inputs, of a picture in %u bands",
                           task->lease->n_inputs, task->item.bands));
    }
    WEIR_TRY(make_room(ground->pipeline, &task->item, &made, error));
    WEIR_TRY(fetch_bands(ground, task, made, error));
    WEIR_TRY(weir_pipeline_finish_picture(ground->pipeline, &task->item, made, rgb, error));
    WEIR_TRY(weir_image_file_begin(&image, ground, task, error));
    WEIR_TRY(weir_image_file_put(&image, ground, task, rgb, error));
cleanup:
    weir_image_file_close(&image);
    free(made);
    free(rgb);
    return status;
}

static enum weir_status run_film(const struct weir_stage_ground *ground, struct weir_task *task,
                                 struct weir_error *error)
{
    const struct weir_film_format *format = weir_film_format(task->lease->spec->format);
    if (!format) return weir_fail(error, WEIR_BAD_ARGUMENT, "no format \"%s\"", task->lease->spec->format);
    if (task->lease->n_inputs < 1 || task->lease->n_inputs > SEGMENTS_MAX) {
        return weir_fail(error, WEIR_PROTOCOL, "a lease of assemble with %zu inputs, 1 to %d are possible",
                         task->lease->n_inputs, SEGMENTS_MAX);
    }
    enum weir_status status = WEIR_OK;
    WEIR_TRY(make_receipt(ground, task, error));
    WEIR_TRY(format->is_joined ? join_segments(ground, task, format, error) : take_over(ground, task, format, error));
cleanup:
    return status;
}

static enum weir_status finish(struct weir_rest *rest, const struct weir_stage_ground *ground, struct weir_task *task,
                               struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    free(rest);
    WEIR_TRY(weir_spec_is_image(task->lease->spec) ? lay_together(ground, task, error) : run_film(ground, task, error));
    weir_task_progress(task, 1, 1);
cleanup:
    return status;
}

/* Nothing here is for the device: all of it is left. */
static enum weir_status run(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error)
{
    if (weir_spec_is_image(task->lease->spec) && task->item.bands <= 1)
        return weir_fail(error, WEIR_PROTOCOL, "a lease of assemble, of an image that is one decode task's");
    struct weir_rest *rest = calloc(1, sizeof *rest);
    if (!rest) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a task's rest");
    rest->finish = finish;
    ((struct assembler *)stage)->shared = task->item;
    weir_task_progress(task, 0, 1);
    task->rest = rest;
    return WEIR_OK;
}

const struct weir_stage_kind weir_stage_assembler = {
    .stage = WEIR_STAGE_ASSEMBLE,
    .in_turn = true,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .run = run,
    .close = stage_close,
};
