/* decode: a range of an item's latents to frames, and the frames to a film's segment, a GIF, pictures, or an image; or
 * its latents to one band of a picture that several tasks share.
 *
 * Frames go to weir-encode as they come; it writes into a scratch folder, and what it wrote is put in the store. A
 * segment carries no receipt (the joined film does); a GIF, every PNG and an image carry theirs here. A band is a
 * tensor, which the assembler makes an image of. */
#include "worker/encoder_child.h"
#include "worker/image_file.h"
#include "worker/lanes.h"
#include "worker/link/artefact.h"
#include "worker/scratch.h"
#include "worker/spec.h"
#include "worker/stage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 32 << 20, CPU_SECONDS_BASE = 60, MEMORY_MIB_BASE = 2048, FILE_MIB_BASE = 64, WORD_BYTES = 24 };

struct decoder {
    struct weir_open_stage stage;
    struct weir_decoder *run; /* for the shape seen last; NULL before */
};

/* Frames that are decoded before they are handed over. */
static uint32_t chunk_frames(const struct weir_item *item, uint32_t count)
{
    const size_t fit = CHUNK_BYTES / weir_item_frame_bytes(item);
    return fit == 0 ? 1 : fit < count ? (uint32_t)fit : count;
}

/* The largest band's artefact; 0 of an item that is not shared. */
static enum weir_status plan_band(const struct weir_pipeline *pipeline, const struct weir_item *item, uint64_t *bytes,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *bytes = 0;
    for (uint32_t band = 0; item->bands > 1 && band < item->bands; band++) {
        struct weir_pipeline_rows rows;
        WEIR_TRY(weir_pipeline_band_rows(pipeline, item, band, &rows, error));
        const uint64_t mine =
            WEIR_ARTEFACT_HEADER_BYTES + sizeof(float) * (uint64_t)rows.count * rows.width * rows.channels;
        if (mine > *bytes) *bytes = mine;
    }
cleanup:
    return status;
}

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint64_t band_bytes;
    (void)seats;
    WEIR_TRY(weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_DECODE, item, out, error));
    WEIR_TRY(plan_band(pipeline, item, &band_bytes, error));
    /* latents, and frames: of the task that is decoded, and of those before it that are encoded */
    out->host += sizeof(float) * weir_item_latent_count(weir_pipeline_facts(pipeline), item) +
                 (band_bytes ? band_bytes
                             : (1 + weir_lanes_rests(device)) * chunk_frames(item, item->frames) *
                                   (uint64_t)weir_item_frame_bytes(item));
cleanup:
    return status;
}

static void stage_close(struct weir_open_stage *stage)
{
    struct decoder *decoder = (struct decoder *)stage;
    weir_decoder_destroy(&decoder->run);
    weir_pipeline_unload(stage->ground->pipeline, WEIR_PIPELINE_DECODE);
    free(decoder);
}

static enum weir_status stage_open(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                                   struct weir_error *error)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    *out = NULL;
    if (!decoder) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the decoder");
    decoder->stage = (struct weir_open_stage){ &weir_stage_decoder, ground };
    const enum weir_status status = weir_pipeline_load(ground->pipeline, ground->device, WEIR_PIPELINE_DECODE, error);
    if (status == WEIR_OK)
        *out = &decoder->stage;
    else
        stage_close(&decoder->stage);
    return status;
}

static bool fits(const struct weir_open_stage *stage, const struct weir_item *item)
{
    const struct decoder *decoder = (const struct decoder *)stage;
    return decoder->run && weir_decoder_fits(decoder->run, item);
}

/* ---- a film, or a folder of frames ---- */

/* One task: its frames, and the encoder that takes them. What was decoded last is the encoder's when the decoder has
 * begun with the next task. */
struct passage {
    struct weir_rest rest;
    struct weir_task *task;
    const struct weir_stage_ground *ground;
    const struct weir_film_format *format;
    uint32_t first, count;
    struct weir_scratch scratch;
    char path[WEIR_SCRATCH_PATH_BYTES]; /* of what weir-encode makes */
    struct weir_encoder_child *child;
    uint8_t *rgb; /* a chunk of frames, */
    size_t bytes; /* so many, that the encoder has not been given yet */
};

static void passage_free(struct passage *p)
{
    weir_encoder_child_stop(&p->child);
    weir_scratch_close(&p->scratch);
    free(p->rgb);
    free(p);
}

static enum weir_status write_receipt(struct passage *p, char path[WEIR_SCRATCH_PATH_BYTES], struct weir_error *error)
{
    const Weir__Pb__JobSpec *spec = p->task->lease->spec;
    char build[WEIR_ENCODER_BUILD_BYTES];
    const enum weir_status status =
        weir_encoders_build(p->ground->encoders, spec->format, spec->codec ? spec->codec : "", build, error);
    if (status != WEIR_OK) return status;
    p->task->note = weir_spec_receipt(spec, p->ground->device->numerics_class, build);
    if (!p->task->note) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the receipt");
    weir_scratch_name(&p->scratch, "receipt.json", path);
    return weir_scratch_write(path, p->task->note, strlen(p->task->note), error);
}

static enum weir_status start_encoder(struct passage *p, struct weir_error *error)
{
    const struct weir_item *item = &p->task->item;
    const Weir__Pb__JobSpec *spec = p->task->lease->spec;
    const uint64_t film_mib = (weir_item_frame_bytes(item) * (uint64_t)p->count >> 20) + 1;
    char width[WORD_BYTES], height[WORD_BYTES], frames[WORD_BYTES], fps[WORD_BYTES];
    char cpu[WORD_BYTES], memory[WORD_BYTES], file[WORD_BYTES], receipt[WEIR_SCRATCH_PATH_BYTES];
    snprintf(width, sizeof width, "%" PRIu32, item->width);
    snprintf(height, sizeof height, "%" PRIu32, item->height);
    snprintf(frames, sizeof frames, "%" PRIu32, p->count);
    snprintf(fps, sizeof fps, "%" PRIu32, item->fps);
    snprintf(cpu, sizeof cpu, "%" PRIu64, CPU_SECONDS_BASE + 4 * film_mib);
    snprintf(memory, sizeof memory, "%" PRIu64,
             MEMORY_MIB_BASE + 64 * (weir_item_frame_bytes(item) >> 20) + (p->format->is_joined ? 0 : film_mib));
    snprintf(file, sizeof file, "%" PRIu64, FILE_MIB_BASE + 2 * film_mib);
    const char *words[32] = { "encode",   "--width",    width,           "--height", height,
                              "--format", spec->format, "--cpu-seconds", cpu,        "--file-mib",
                              file,       "--frames",   frames,          "--fps",    fps };
    size_t at = 15;
    if (WEIR_ENCODER_LIMITS_MEMORY) {
        words[at++] = "--memory-mib";
        words[at++] = memory;
    }
    if (spec->codec && spec->codec[0]) {
        words[at++] = "--codec";
        words[at++] = spec->codec;
    }
    if (p->format->is_joined) {
        words[at++] = "--segment";
    } else {
        const enum weir_status status = write_receipt(p, receipt, error);
        if (status != WEIR_OK) return status;
        words[at++] = "--metadata";
        words[at++] = receipt;
    }
    words[at++] = "--scratch";
    words[at++] = "-o";
    words[at++] = p->path;
    return weir_encoder_child_start(weir_encoders_program(p->ground->encoders), words, &p->task->cancel, &p->child,
                                    error);
}

/* The encoder is given all frames but those of the last chunk, which stay in p->rgb. */
static enum weir_status feed(struct passage *p, struct weir_decoder *run, const float *latents,
                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_item *item = &p->task->item;
    const uint32_t chunk = chunk_frames(item, p->count);
    p->rgb = malloc(chunk * weir_item_frame_bytes(item));
    if (!p->rgb) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %u frames", chunk));
    for (uint32_t done = 0; done < p->count;) {
        const uint32_t now = p->count - done < chunk ? p->count - done : chunk;
        WEIR_TRY(weir_task_check(p->task, error));
        if (p->bytes > 0) WEIR_TRY(weir_encoder_child_write(p->child, p->rgb, p->bytes, error));
        WEIR_TRY(weir_decoder_run(run, item, latents, p->first + done, now, p->rgb, error));
        p->bytes = now * weir_item_frame_bytes(item);
        done += now;
        weir_task_progress(p->task, done, p->count);
    }
cleanup:
    return status;
}

static enum weir_status publish_one(struct passage *p, const char *name, const char *path, struct weir_error *error)
{
    struct weir_output *output;
    const enum weir_status status = weir_task_output(p->task, &output, error);
    if (status != WEIR_OK) return status;
    return weir_link_put_file(p->ground->link, p->task->lease->tenant, &p->task->id, name, p->format->media_type, path,
                              output, error);
}

static enum weir_status publish(struct passage *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (p->format->is_joined) return publish_one(p, "segment", p->path, error);
    if (strcmp(p->format->name, "png") != 0) return publish_one(p, "film.gif", p->path, error);
    for (uint32_t i = 0; i < p->count; i++) {
        char name[WORD_BYTES], path[WEIR_SCRATCH_PATH_BYTES + WORD_BYTES];
        snprintf(name, sizeof name, "%05" PRIu32 ".png", i);
        snprintf(path, sizeof path, "%s/%s", p->path, name);
        WEIR_TRY(weir_task_check(p->task, error));
        WEIR_TRY(publish_one(p, name, path, error));
    }
cleanup:
    return status;
}

/* The frames that the lease names, all of them where it names none. */
static enum weir_status range_of(struct passage *p, struct weir_error *error)
{
    const Weir__Pb__Lease *lease = p->task->lease;
    p->first = lease->has_frame_first ? lease->frame_first : 0;
    p->count = lease->has_frame_count && lease->frame_count ? lease->frame_count : p->task->item.frames;
    if (p->first < p->task->item.frames && p->count <= p->task->item.frames - p->first) return WEIR_OK;
    return weir_fail(error, WEIR_PROTOCOL, "a lease of frames %u to %llu of %u", p->first,
                     (unsigned long long)p->first + p->count - 1, p->task->item.frames);
}

static enum weir_status finish_film(struct weir_rest *rest, const struct weir_stage_ground *ground,
                                    struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct passage *p = (struct passage *)rest;
    (void)task;
    p->ground = ground;
    WEIR_TRY(weir_encoder_child_write(p->child, p->rgb, p->bytes, error));
    WEIR_TRY(weir_encoder_child_finish(&p->child, NULL, error));
    WEIR_TRY(publish(p, error));
cleanup:
    passage_free(p);
    return status;
}

static enum weir_status run_film(struct decoder *decoder, struct weir_task *task, const float *latents,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = decoder->stage.ground;
    const struct weir_film_format *format = weir_film_format(task->lease->spec->format);
    struct passage *p = calloc(1, sizeof *p);
    if (!p) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a film's way");
    *p = (struct passage){ .rest = { finish_film }, .task = task, .ground = ground, .format = format };
    if (!format) WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "no format \"%s\"", task->lease->spec->format));
    WEIR_TRY(range_of(p, error));
    WEIR_TRY(weir_scratch_open(&p->scratch, ground->run_dir, error));
    weir_scratch_name(&p->scratch, "out", p->path);
    WEIR_TRY(start_encoder(p, error));
    WEIR_TRY(feed(p, decoder->run, latents, error));
    task->rest = &p->rest;
    p = NULL;
cleanup:
    if (p) passage_free(p);
    return status;
}

/* ---- an image, or a band of one ---- */

struct picture {
    struct weir_rest rest;
    struct weir_image_file file;
    uint8_t *rgb;
    const struct weir_stage_ground *ground;
    struct weir_task *task;
    enum weir_status begun; /* of the file, and why not */
    struct weir_error why;
};

static void picture_free(struct picture *picture)
{
    weir_image_file_close(&picture->file);
    free(picture->rgb);
    free(picture);
}

static enum weir_status finish_image(struct weir_rest *rest, const struct weir_stage_ground *ground,
                                     struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct picture *picture = (struct picture *)rest;
    WEIR_TRY(weir_task_check(task, error));
    WEIR_TRY(weir_image_file_put(&picture->file, ground, task, picture->rgb, error));
    weir_task_progress(task, 1, 1);
cleanup:
    picture_free(picture);
    return status;
}

static void begin_file(void *context)
{
    struct picture *picture = context;
    picture->begun = weir_image_file_begin(&picture->file, picture->ground, picture->task, &picture->why);
}

static enum weir_status run_image(struct decoder *decoder, struct weir_task *task, const float *latents,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = weir_item_frame_bytes(&task->item);
    struct picture *picture = calloc(1, sizeof *picture);
    if (!picture) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture's way");
    *picture = (struct picture){ .rest = { finish_image }, .ground = decoder->stage.ground, .task = task };
    picture->rgb = malloc(bytes);
    if (!picture->rgb) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %zu bytes", bytes));
    weir_decoder_meanwhile(decoder->run, begin_file, picture);
    WEIR_TRY(weir_decoder_run(decoder->run, &task->item, latents, 0, 1, picture->rgb, error));
    if (picture->begun != WEIR_OK) WEIR_TRY(weir_fail(error, picture->begun, "%s", picture->why.words));
    task->rest = &picture->rest;
    picture = NULL;
cleanup:
    if (picture) picture_free(picture);
    return status;
}

static enum weir_status run_band(struct decoder *decoder, struct weir_task *task, const float *latents,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = decoder->stage.ground;
    const uint32_t band = task->lease->band;
    struct weir_pipeline_rows rows;
    struct weir_output *output;
    void *bytes = NULL;
    float *values;
    size_t byte_count, count;
    WEIR_TRY(weir_pipeline_band_rows(ground->pipeline, &task->item, band, &rows, error));
    const uint32_t dims[4] = { 1, rows.count, rows.width, rows.channels };
    WEIR_TRY(weir_artefact_create(4, dims, &bytes, &byte_count, &values, &count, error));
    WEIR_TRY(weir_decoder_run_band(decoder->run, &task->item, latents, band, values, error));
    WEIR_TRY(weir_task_check(task, error));
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put_remakeable(ground->link, task->lease->tenant, &task->id, "band", WEIR_ARTEFACT_MEDIA_TYPE,
                                      bytes, byte_count, output, error));
    weir_task_progress(task, 1, 1);
cleanup:
    free(bytes);
    return status;
}

/* That an image's lease is of its one frame, and of a band exactly where the picture has some. */
static enum weir_status check_image(const struct weir_task *task, struct weir_error *error)
{
    const Weir__Pb__Lease *lease = task->lease;
    const uint32_t bands = task->item.bands;
    if (task->item.frames != 1)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "an image of %u frames; it has one", task->item.frames);
    if (!weir_image_format(lease->spec->format))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "no format \"%s\" of images", lease->spec->format);
    if (lease->frame_first != 0 || lease->frame_count > 1)
        return weir_fail(error, WEIR_PROTOCOL, "a lease of frames %u to %llu of 1", lease->frame_first,
                         (unsigned long long)lease->frame_first + lease->frame_count - 1);
    if (lease->has_band != (bands > 1))
        return weir_fail(error, WEIR_PROTOCOL, "a lease of %s band, of a picture in %u", lease->has_band ? "a" : "no",
                         bands);
    return WEIR_OK;
}

static enum weir_status run(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct decoder *decoder = (struct decoder *)stage;
    const struct weir_stage_ground *ground = stage->ground;
    const struct weir_item *item = &task->item;
    const bool is_image = weir_spec_is_image(task->lease->spec);
    uint32_t dims[4];
    struct weir_artefact_tensor latents;
    void *bytes = NULL;
    size_t byte_count;

    if (is_image) WEIR_TRY(check_image(task, error));
    WEIR_TRY(weir_task_input(task, ground->link, 0, &bytes, &byte_count, error));
    WEIR_TRY(weir_artefact_parse(bytes, byte_count, &latents, error));
    weir_item_latent_dims(weir_pipeline_facts(ground->pipeline), item, dims);
    WEIR_TRY(weir_artefact_expect(&latents, "the latents", 4, dims, error));
    if (!fits(stage, item)) {
        weir_decoder_destroy(&decoder->run);
        WEIR_TRY(weir_decoder_create(ground->pipeline, item, 0, &decoder->run, error));
    }
    if (!is_image) {
        WEIR_TRY(run_film(decoder, task, latents.values, error));
    } else {
        weir_task_progress(task, 0, 1);
        WEIR_TRY(item->bands > 1 ? run_band(decoder, task, latents.values, error)
                                 : run_image(decoder, task, latents.values, error));
    }
cleanup:
    free(bytes);
    return status;
}

const struct weir_stage_kind weir_stage_decoder = {
    .stage = WEIR_STAGE_DECODE,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .run = run,
    .close = stage_close,
};
