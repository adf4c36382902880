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
    struct weir_program *program;
    uint32_t frames; /* of one run */
    size_t z_count;  /* floats of one frame's latents */
    struct weir_run run;
    float *host;            /* frames * z_count; NULL before the first run */
    float *made;            /* one picture as it is made, and one as it is wanted behind it; where the sizes differ */
    struct weir_item shape; /* planned for */
};

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
    WEIR_TRY(weir_run_create_program(device, &d->program, error));
    pipeline->family->build_decode(pipeline, net, d->program, item, d->frames);
    WEIR_TRY(weir_program_finish(d->program, error));
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
    free(d->host);
    free(d->made);
    free(d);
    *decoder_p = NULL;
}

static size_t picture_floats(const struct weir_decoder *d, struct weir_sana_size size)
{
    return (size_t)size.width * size.height * d->pipeline->family->picture_channels(d->pipeline);
}

static struct weir_sana_size made_size(const struct weir_decoder *d)
{
    return weir_item_made(&d->pipeline->facts, &d->shape);
}

static struct weir_sana_size wanted_size(const struct weir_decoder *d)
{
    return (struct weir_sana_size){ d->shape.width, d->shape.height };
}

static bool resizes(const struct weir_decoder *d)
{
    const struct weir_sana_size made = made_size(d);
    return made.width != d->shape.width || made.height != d->shape.height;
}

static size_t z_bytes(const struct weir_decoder *d)
{
    return d->frames * d->z_count * sizeof(float);
}

static size_t made_bytes(const struct weir_decoder *d)
{
    return resizes(d) ? (picture_floats(d, made_size(d)) + picture_floats(d, wanted_size(d))) * sizeof(float) : 0;
}

uint64_t weir_decoder_host_bytes(const struct weir_decoder *decoder)
{
    return z_bytes(decoder) + made_bytes(decoder);
}

uint64_t weir_decoder_bytes(const struct weir_decoder *decoder)
{
    return weir_program_arena_bytes(decoder->program) + weir_decoder_host_bytes(decoder);
}

bool weir_decoder_fits(const struct weir_decoder *decoder, const struct weir_item *item)
{
    const uint32_t frames = decoder->frames;
    return decoder->shape.width == item->width && decoder->shape.height == item->height && frames <= item->frames;
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

/* `count` frames of the run just done, as they are wanted: rgb or, where that is NULL, f32. */
static enum weir_status read_frames(struct weir_decoder *d, uint32_t count, uint8_t *rgb, float *out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_program *p = d->program;
    const struct weir_sana_size made = made_size(d), wanted = wanted_size(d);
    const size_t floats = picture_floats(d, wanted), frame_bytes = weir_item_frame_bytes(&d->shape);
    const size_t made_floats = picture_floats(d, made), pixels = (size_t)wanted.width * wanted.height;
    if (!resizes(d)) {
        WEIR_TRY(weir_run_read(&d->run, weir_program_offset(p, rgb ? "rgb" : "picture"), rgb ? (void *)rgb : out,
                               count * (rgb ? frame_bytes : floats * sizeof *out), error));
        return WEIR_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        float *resized = rgb ? d->made + made_floats : out + i * floats;
        WEIR_TRY(weir_run_read(&d->run, weir_program_offset(p, "picture") + i * made_floats * sizeof *out, d->made,
                               made_floats * sizeof *out, error));
        weir_resize_and_crop(d->made, made, (uint32_t)(floats / pixels), wanted, resized);
        if (rgb) to_rgb8(resized, pixels, floats / pixels, rgb + i * frame_bytes);
    }
cleanup:
    return status;
}

static enum weir_status run(struct weir_decoder *d, const struct weir_item *item, const float *latents, uint32_t first,
                            uint32_t count, uint8_t *rgb, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = d->program;
    if (!weir_decoder_fits(d, item))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a decode run of %ux%u was planned for %ux%u", item->width,
                         item->height, d->shape.width, d->shape.height);
    if (count == 0 || first >= item->frames || count > item->frames - first)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "frames %u to %u of a clip of %u", first, first + count - 1,
                         item->frames);
    WEIR_TRY(weir_run_start(&d->run, d->device, weir_program_arena_bytes(p), error));
    if (!d->host) d->host = malloc(z_bytes(d));
    if (!d->made && resizes(d)) d->made = malloc(made_bytes(d));
    if (!d->host || (!d->made && resizes(d))) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %llu bytes of latents and pictures",
                           (unsigned long long)weir_decoder_host_bytes(d)));
    }
    const size_t floats = picture_floats(d, wanted_size(d)), frame_bytes = weir_item_frame_bytes(item);
    for (uint32_t done = 0; done < count; done += d->frames) {
        const uint32_t now = count - done < d->frames ? count - done : d->frames;
        gather(d, item, latents, first + done, now);
        WEIR_TRY(weir_run_write(&d->run, weir_program_offset(p, "z"), d->host, z_bytes(d), error));
        WEIR_TRY(weir_run_program(&d->run, p, 0, NULL, 0, error));
        WEIR_TRY(read_frames(d, now, rgb ? rgb + done * frame_bytes : NULL, out ? out + done * floats : NULL, error));
    }
cleanup:
    return status;
}

enum weir_status weir_decoder_run(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                  uint32_t first, uint32_t count, uint8_t *rgb, struct weir_error *error)
{
    return run(decoder, item, latents, first, count, rgb, NULL, error);
}

enum weir_status weir_decoder_run_f32(struct weir_decoder *decoder, const struct weir_item *item, const float *latents,
                                      uint32_t first, uint32_t count, float *out, struct weir_error *error)
{
    return run(decoder, item, latents, first, count, NULL, out, error);
}
