#include "worker/pipelines/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Frames decoded at once when the caller does not say: enough pixels to keep a device's cores busy, few enough that the
 * arena stays small beside the weights. */
#define PIXELS_PER_RUN 65536

struct weir_decoder {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    struct weir_program *program; /* of `frames` frames; of one band's window where `once` is not NULL */
    struct weir_program *once;    /* what runs before the bands of a frame */
    struct weir_bands bands;      /* count 1 without them */
    size_t band_offset;           /* of the program's arena in the run's */
    uint32_t frames;              /* of one run */
    size_t z_count;               /* floats of one frame's latents */
    struct weir_run run;
    float *host;            /* frames * z_count; NULL before the first run */
    bool has_cut;           /* what `once` gave of the latents in `host` lies in the arena */
    float *made;            /* one picture as it is made, and one as it is wanted behind it; where the sizes differ */
    uint8_t *page;          /* a frame of 8 bits on its way from the device; NULL where it needs none, and before */
    struct weir_item shape; /* planned for */
    void (*meanwhile)(void *context); /* NULL: nothing */
    void *meanwhile_context;
};

/* A band's values lie where those of `once` were, before or behind what it gave. */
static size_t place_bands(const struct weir_decoder *d)
{
    const size_t cut = weir_program_offset(d->once, "cut"), end = cut + weir_program_bytes(d->once, "cut");
    return weir_program_arena_bytes(d->program) <= cut ? 0
                                                       : (end + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

static enum weir_status plan_programs(struct weir_decoder *d, const void *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = d->pipeline->family;
    WEIR_TRY(weir_run_create_program(d->device, &d->program, error));
    if (d->bands.count == 1) {
        family->build_decode(d->pipeline, net, d->program, &d->shape, d->frames);
        return weir_program_finish(d->program, error);
    }
    WEIR_TRY(weir_run_create_program(d->device, &d->once, error));
    family->build_decode_bands(d->pipeline, net, &d->shape, d->once, d->program);
    WEIR_TRY(weir_program_finish(d->once, error));
    WEIR_TRY(weir_program_finish(d->program, error));
    d->band_offset = place_bands(d);
cleanup:
    return status;
}

static size_t arena_bytes(const struct weir_decoder *d)
{
    const size_t band = d->band_offset + weir_program_arena_bytes(d->program);
    const size_t once = d->once ? weir_program_arena_bytes(d->once) : 0;
    return band > once ? band : once;
}

enum weir_status weir_decoder_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                   const struct weir_item *item, uint32_t frames_per_run, struct weir_decoder **out,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint32_t pixels;
    struct weir_decoder *d = calloc(1, sizeof *d);
    if (!d) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a decode run");
    d->pipeline = pipeline;
    d->device = device;
    d->shape = *item;
    WEIR_TRY(weir_item_check(&pipeline->facts, item, error));
    const struct weir_sana_size made = weir_item_made(&pipeline->facts, item);
    pixels = made.width * made.height;
    d->frames = frames_per_run ? frames_per_run : pixels < PIXELS_PER_RUN ? PIXELS_PER_RUN / pixels : 1;
    if (d->frames > item->frames) d->frames = item->frames;
    d->z_count = weir_item_latent_count(&pipeline->facts, item) / item->frames;
    d->bands.count = 1;
    if (pipeline->family->decode_bands) d->bands = pipeline->family->decode_bands(pipeline, item);
    if (d->bands.count > 1) d->frames = 1;
    WEIR_TRY(plan_programs(d, net, error));
    *out = d;
    d = NULL;
cleanup:
    weir_decoder_destroy(&d);
    return status;
}

enum weir_status weir_decoder_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                     uint32_t frames_per_run, struct weir_decoder **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_DECODE, &net, error));
    WEIR_TRY(weir_decoder_plan(pipeline, pipeline->device, net, item, frames_per_run, out, error));
cleanup:
    return status;
}

void weir_decoder_destroy(struct weir_decoder **decoder_p)
{
    struct weir_decoder *d = *decoder_p;
    if (!d) return;
    weir_run_stop(&d->run);
    weir_program_destroy(&d->program);
    weir_program_destroy(&d->once);
    free(d->host);
    free(d->made);
    if (d->page) d->device->table->host_free(d->device, d->page);
    free(d);
    *decoder_p = NULL;
}

static size_t floats_of(const struct weir_pipeline *pipeline, struct weir_sana_size size)
{
    return (size_t)size.width * size.height * pipeline->family->picture_channels(pipeline);
}

static size_t picture_floats(const struct weir_decoder *d, struct weir_sana_size size)
{
    return floats_of(d->pipeline, size);
}

static struct weir_sana_size made_size(const struct weir_decoder *d)
{
    return weir_item_made(&d->pipeline->facts, &d->shape);
}

static struct weir_sana_size wanted_size(const struct weir_decoder *d)
{
    return (struct weir_sana_size){ d->shape.width, d->shape.height };
}

static bool is_resized(const struct weir_pipeline *pipeline, const struct weir_item *item)
{
    const struct weir_sana_size made = weir_item_made(&pipeline->facts, item);
    return made.width != item->width || made.height != item->height;
}

static bool resizes(const struct weir_decoder *d)
{
    return is_resized(d->pipeline, &d->shape);
}

static bool is_shared(const struct weir_item *item)
{
    return item->bands > 1;
}

static size_t z_bytes(const struct weir_decoder *d)
{
    return d->frames * d->z_count * sizeof(float);
}

static size_t made_bytes(const struct weir_decoder *d)
{
    return resizes(d) ? (picture_floats(d, made_size(d)) + picture_floats(d, wanted_size(d))) * sizeof(float) : 0;
}

/* Frames that are resized are read as f32, and bands go to who joins them. */
static size_t page_bytes(const struct weir_decoder *d)
{
    const bool is_used = d->device->table->host_alloc && !resizes(d) && !is_shared(&d->shape);
    return is_used ? weir_item_frame_bytes(&d->shape) : 0;
}

uint64_t weir_decoder_host_bytes(const struct weir_decoder *decoder)
{
    const uint64_t made = is_shared(&decoder->shape) ? 0 : made_bytes(decoder); /* who joins bands resizes */
    return z_bytes(decoder) + made + page_bytes(decoder);
}

uint64_t weir_decoder_bytes(const struct weir_decoder *decoder)
{
    return arena_bytes(decoder) + weir_decoder_host_bytes(decoder);
}

bool weir_decoder_fits(const struct weir_decoder *decoder, const struct weir_item *item)
{
    const uint32_t frames = decoder->frames;
    return decoder->shape.width == item->width && decoder->shape.height == item->height && frames <= item->frames &&
           is_shared(&decoder->shape) == is_shared(item);
}

/* Latents hold a channel's frames together, a run wants a frame's channels together. */
static void gather(const struct weir_decoder *d, const struct weir_item *item, const float *latents, uint32_t first,
                   uint32_t count)
{
    const uint32_t channels = d->pipeline->facts.latent_channels;
    const size_t plane = d->z_count / channels;
    for (uint32_t f = 0; f < d->frames; f++) {
        const uint32_t frame = first + (f < count ? f : count - 1); /* a short last run repeats its last frame */
        for (uint32_t c = 0; c < channels; c++) {
            memcpy(d->host + (f * channels + c) * plane, latents + ((size_t)c * item->frames + frame) * plane,
                   plane * sizeof(float));
        }
    }
}

/* to_rgb8 (kernels/ops.h) of a picture that was resized here, rounded. */
static void to_rgb8(const float *picture, size_t pixels, size_t channels, uint8_t *rgb)
{
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            const float v = 0.5f * picture[i * channels + c] + 0.5f;
            *rgb++ = (uint8_t)rintf((v > 1 ? 1.0f : v > 0 ? v : 0.0f) * 255.0f);
        }
    }
}

/* One frame, f32, as it was made, to how it is wanted: rgb or, where that is NULL, f32. */
static void resize_frame(const struct weir_decoder *d, uint8_t *rgb, float *out)
{
    const struct weir_sana_size made = made_size(d), wanted = wanted_size(d);
    const size_t pixels = (size_t)wanted.width * wanted.height, channels = picture_floats(d, wanted) / pixels;
    float *resized = rgb ? d->made + picture_floats(d, made) : out;
    weir_resize_and_crop(d->made, made, (uint32_t)channels, wanted, resized);
    if (rgb) to_rgb8(resized, pixels, channels, rgb);
}

/* What a frame is read into as it was made, and the bytes of one row there. */
struct frame_rows {
    const char *output;
    uint8_t *to;
    size_t row_bytes;
};

static struct frame_rows rows_of(const struct weir_decoder *d, uint8_t *rgb, float *out)
{
    const struct weir_sana_size made = made_size(d);
    const size_t floats_bytes = picture_floats(d, made) / made.height * sizeof(float);
    if (resizes(d)) return (struct frame_rows){ "picture", (uint8_t *)d->made, floats_bytes };
    if (!rgb) return (struct frame_rows){ "picture", (uint8_t *)out, floats_bytes };
    return (struct frame_rows){ "rgb", rgb, (size_t)made.width * 3 };
}

/* At most a frame of it. */
static enum weir_status read_rows(struct weir_decoder *d, size_t offset, uint8_t *to, size_t bytes,
                                  struct weir_error *error)
{
    if (!d->page || bytes > page_bytes(d)) return weir_run_read(&d->run, offset, to, bytes, error);
    const enum weir_status status = weir_run_read(&d->run, offset, d->page, bytes, error);
    if (status == WEIR_OK) memcpy(to, d->page, bytes);
    return status;
}

static void call_meanwhile(struct weir_decoder *d)
{
    void (*const call)(void *context) = d->meanwhile;
    d->meanwhile = NULL;
    if (call) call(d->meanwhile_context);
}

/* The `count` frames whose latents were written, as they are wanted. */
static enum weir_status run_whole(struct weir_decoder *d, uint32_t count, uint8_t *rgb, float *out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_program *p = d->program;
    const size_t floats = picture_floats(d, wanted_size(d)), rgb_bytes = weir_item_frame_bytes(&d->shape);
    WEIR_TRY(weir_run_program(&d->run, p, 0, NULL, 0, error));
    call_meanwhile(d);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *frame_rgb = rgb ? rgb + i * rgb_bytes : NULL;
        float *frame = out ? out + i * floats : NULL;
        const struct frame_rows rows = rows_of(d, frame_rgb, frame);
        const size_t bytes = made_size(d).height * rows.row_bytes;
        WEIR_TRY(read_rows(d, weir_program_offset(p, rows.output) + i * bytes, rows.to, bytes, error));
        if (resizes(d)) resize_frame(d, frame_rgb, frame);
    }
cleanup:
    return status;
}

/* `count` bands from `begin` on of what `once` gave; rows->to gets the picture's from row `first` (of those that were
 * cut) on. */
static enum weir_status run_windows(struct weir_decoder *d, const struct frame_rows *rows, uint32_t begin,
                                    uint32_t count, uint32_t first, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t made = d->band_offset + weir_program_offset(d->program, rows->output);
    const size_t band_row = d->bands.scale * rows->row_bytes; /* of what becomes of one row */
    uint8_t *cut = d->run.arena + weir_program_offset(d->once, "cut");
    const size_t cut_row = weir_program_bytes(d->once, "cut") / d->bands.height;
    for (uint32_t i = begin; i < begin + count; i++) {
        const struct weir_band band = weir_bands_at(&d->bands, i);
        const struct weir_binding x = { "x", cut + band.from * cut_row };
        WEIR_TRY(weir_run_program(&d->run, d->program, d->band_offset, &x, 1, error));
        WEIR_TRY(read_rows(d, made + (band.first - band.from) * band_row, rows->to + (band.first - first) * band_row,
                           band.count * band_row, error));
    }
cleanup:
    return status;
}

/* The same of one frame, band by band. */
static enum weir_status run_bands(struct weir_decoder *d, uint8_t *rgb, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct frame_rows rows = rows_of(d, rgb, out);
    WEIR_TRY(weir_run_program(&d->run, d->once, 0, NULL, 0, error));
    call_meanwhile(d);
    WEIR_TRY(run_windows(d, &rows, 0, d->bands.count, 0, error));
    if (resizes(d)) resize_frame(d, rgb, out);
cleanup:
    return status;
}

static enum weir_status run(struct weir_decoder *d, const struct weir_item *item, const float *latents, uint32_t first,
                            uint32_t count, uint8_t *rgb, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_program *first_program = d->once ? d->once : d->program;
    if (!weir_decoder_fits(d, item))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a decode run of %ux%u was planned for %ux%u", item->width,
                         item->height, d->shape.width, d->shape.height);
    if (count == 0 || first >= item->frames || count > item->frames - first)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "frames %u to %u of a clip of %u", first, first + count - 1,
                         item->frames);
    d->has_cut = false;
    WEIR_TRY(weir_run_start(&d->run, d->device, arena_bytes(d), error));
    if (!d->host) d->host = malloc(z_bytes(d));
    if (!d->made && resizes(d)) d->made = malloc(made_bytes(d));
    if (!d->page && page_bytes(d) > 0) {
        void *page;
        WEIR_TRY(d->device->table->host_alloc(d->device, page_bytes(d), &page, error));
        d->page = page;
    }
    if (!d->host || (!d->made && resizes(d))) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %llu bytes of latents and pictures",
                           (unsigned long long)weir_decoder_host_bytes(d)));
    }
    if (!d->device->table->overlaps) call_meanwhile(d);
    const size_t floats = picture_floats(d, wanted_size(d)), frame_bytes = weir_item_frame_bytes(item);
    for (uint32_t done = 0; done < count; done += d->frames) {
        const uint32_t now = count - done < d->frames ? count - done : d->frames;
        gather(d, item, latents, first + done, now);
        uint8_t *now_rgb = rgb ? rgb + done * frame_bytes : NULL;
        float *now_out = out ? out + done * floats : NULL;
        WEIR_TRY(weir_run_write(&d->run, weir_program_offset(first_program, "z"), d->host, z_bytes(d), error));
        if (d->once)
            WEIR_TRY(run_bands(d, now_rgb, now_out, error));
        else
            WEIR_TRY(run_whole(d, now, now_rgb, now_out, error));
    }
cleanup:
    return status;
}

void weir_decoder_meanwhile(struct weir_decoder *decoder, void (*call)(void *context), void *context)
{
    decoder->meanwhile = call;
    decoder->meanwhile_context = context;
}

enum weir_status weir_decoder_run(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                  uint32_t first, uint32_t count, uint8_t *rgb, struct weir_error *error)
{
    const enum weir_status status = run(decoder, item, latents, first, count, rgb, NULL, error);
    decoder->meanwhile = NULL;
    return status;
}

enum weir_status weir_decoder_run_f32(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                      uint32_t first, uint32_t count, float *out, struct weir_error *error)
{
    return run(decoder, item, latents, first, count, NULL, out, error);
}

/* ---- a picture that several tasks share ---- */

uint32_t weir_pipeline_bands(const struct weir_pipeline *pipeline, const struct weir_item *item)
{
    return pipeline->family->decode_bands ? pipeline->family->decode_bands(pipeline, item).groups : 1;
}

static enum weir_status group_of(const struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t band,
                                 struct weir_band_group *out, struct weir_error *error)
{
    struct weir_bands bands = { .count = 1 };
    if (pipeline->family->decode_bands) bands = pipeline->family->decode_bands(pipeline, item);
    if (!is_shared(item) || item->bands > bands.count) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a picture of %ux%u in %u bands; it is decoded in %u", item->width,
                         item->height, item->bands, bands.count);
    }
    if (band >= item->bands) return weir_fail(error, WEIR_BAD_ARGUMENT, "band %u of %u", band, item->bands);
    *out = weir_bands_group(&bands, item->bands, band);
    return WEIR_OK;
}

enum weir_status weir_pipeline_band_rows(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                         uint32_t band, struct weir_pipeline_rows *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_band_group group;
    WEIR_TRY(group_of(pipeline, item, band, &group, error));
    const uint32_t scale = pipeline->family->decode_bands(pipeline, item).scale;
    *out = (struct weir_pipeline_rows){ group.first * scale, group.count * scale,
                                        weir_item_made(&pipeline->facts, item).width,
                                        pipeline->family->picture_channels(pipeline) };
cleanup:
    return status;
}

/* What comes before all bands, unless it lies there of these latents. */
static enum weir_status run_once(struct weir_decoder *d, const struct weir_item *item, const float *latents,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (d->has_cut && memcmp(d->host, latents, z_bytes(d)) == 0) return WEIR_OK; /* one frame's lie as they are read */
    d->has_cut = false;
    gather(d, item, latents, 0, 1);
    WEIR_TRY(weir_run_write(&d->run, weir_program_offset(d->once, "z"), d->host, z_bytes(d), error));
    WEIR_TRY(weir_run_program(&d->run, d->once, 0, NULL, 0, error));
    d->has_cut = true;
cleanup:
    return status;
}

enum weir_status weir_decoder_run_band(struct weir_decoder *d, const struct weir_item *item, const float *latents,
                                       uint32_t band, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_band_group group;
    if (!weir_decoder_fits(d, item) || item->frames != 1)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a decode run of a band of %ux%u was planned for %ux%u", item->width,
                         item->height, d->shape.width, d->shape.height);
    WEIR_TRY(group_of(d->pipeline, item, band, &group, error));
    WEIR_TRY(weir_run_start(&d->run, d->device, arena_bytes(d), error));
    if (!d->host) d->host = malloc(z_bytes(d));
    if (!d->host) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of latents", z_bytes(d)));
    WEIR_TRY(run_once(d, item, latents, error));
    const struct frame_rows rows = { "picture", (uint8_t *)out,
                                     picture_floats(d, made_size(d)) / made_size(d).height * sizeof(float) };
    WEIR_TRY(run_windows(d, &rows, group.begin, group.bands, group.first, error));
cleanup:
    if (status != WEIR_OK) d->has_cut = false;
    return status;
}

uint64_t weir_pipeline_finish_bytes(const struct weir_pipeline *pipeline, const struct weir_item *item)
{
    const struct weir_sana_size made = weir_item_made(&pipeline->facts, item), wanted = { item->width, item->height };
    const size_t floats = floats_of(pipeline, made) + (is_resized(pipeline, item) ? floats_of(pipeline, wanted) : 0);
    return floats * sizeof(float);
}

enum weir_status weir_pipeline_finish_picture(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                              const float *made, uint8_t *rgb, struct weir_error *error)
{
    const struct weir_sana_size size = weir_item_made(&pipeline->facts, item), wanted = { item->width, item->height };
    const size_t pixels = (size_t)wanted.width * wanted.height, channels = pipeline->family->picture_channels(pipeline);
    float *resized = NULL;
    if (is_resized(pipeline, item)) {
        resized = malloc(pixels * channels * sizeof *resized);
        if (!resized) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %zu pixels", pixels);
        weir_resize_and_crop(made, size, (uint32_t)channels, wanted, resized);
    }
    to_rgb8(resized ? resized : made, pixels, channels, rgb);
    free(resized);
    return WEIR_OK;
}
