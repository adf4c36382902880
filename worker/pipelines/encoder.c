#include "worker/pipelines/internal.h"
#include "worker/rgb/rgb.h"

#include <stdlib.h>

struct weir_encoder {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    struct weir_program *program;
    struct weir_run run;
    struct weir_item shape; /* planned for */
    float *host;            /* the picture, then what was made of it; NULL before the first run */
};

static size_t pixel_count(const struct weir_encoder *e)
{
    const struct weir_sana_size made = weir_item_made(&e->pipeline->facts, &e->shape);
    return (size_t)made.width * made.height;
}

static size_t latent_count(const struct weir_encoder *e)
{
    return weir_item_latent_count(&e->pipeline->facts, &e->shape);
}

enum weir_status weir_encoder_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                   const struct weir_item *item, struct weir_encoder **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_encoder *e = calloc(1, sizeof *e);
    if (!e) return weir_fail(error, WEIR_NO_MEMORY, "no memory for an encode run");
    e->pipeline = pipeline;
    e->device = device;
    e->shape = *item;
    WEIR_TRY(weir_item_check(&pipeline->facts, item, error));
    WEIR_TRY(weir_run_create_program(device, &e->program, error));
    pipeline->family->build_encode(pipeline, net, e->program, item);
    WEIR_TRY(weir_program_finish(e->program, error));
    *out = e;
    e = NULL;
cleanup:
    weir_encoder_destroy(&e);
    return status;
}

enum weir_status weir_encoder_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                     struct weir_encoder **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_ENCODE, &net, error));
    WEIR_TRY(weir_encoder_plan(pipeline, pipeline->device, net, item, out, error));
cleanup:
    return status;
}

void weir_encoder_destroy(struct weir_encoder **encoder_p)
{
    struct weir_encoder *e = *encoder_p;
    if (!e) return;
    weir_run_stop(&e->run);
    weir_program_destroy(&e->program);
    free(e->host);
    free(e);
    *encoder_p = NULL;
}

/* The picture as bytes, as floats, and what is made of it. */
uint64_t weir_encoder_host_bytes(const struct weir_encoder *encoder)
{
    return pixel_count(encoder) * 3 * (1 + sizeof(float)) + latent_count(encoder) * sizeof(float);
}

uint64_t weir_encoder_bytes(const struct weir_encoder *encoder)
{
    return weir_program_arena_bytes(encoder->program) + weir_encoder_host_bytes(encoder);
}

/* -1..1, each operation rounded as in diffusers. */
static void to_floats(const struct weir_rgb *picture, float *out)
{
    const size_t count = (size_t)picture->width * picture->height * 3;
    for (size_t i = 0; i < count; i++) out[i] = 2.0f * ((float)picture->pixels[i] / 255.0f) - 1.0f;
}

/* A cell's channels together, to a channel's cells together. */
static void to_latents(const struct weir_encoder *e, const float *z, float *latents)
{
    const size_t channels = e->pipeline->facts.latent_channels, cells = latent_count(e) / channels;
    for (size_t c = 0; c < channels; c++) {
        for (size_t i = 0; i < cells; i++) *latents++ = z[i * channels + c] * e->pipeline->latent_factor;
    }
}

enum weir_status weir_encoder_run(struct weir_encoder *e, const struct weir_rgb *picture, float *latents,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_sana_size made = weir_item_made(&e->pipeline->facts, &e->shape);
    const size_t floats = pixel_count(e) * 3, count = latent_count(e);
    struct weir_rgb resized = { 0 };
    WEIR_TRY(weir_run_start(&e->run, e->device, weir_program_arena_bytes(e->program), error));
    if (!e->host) e->host = malloc((floats + count) * sizeof *e->host);
    if (!e->host) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of a picture", floats * 4));
    WEIR_TRY(weir_rgb_resize(picture, made.width, made.height, &resized, error));
    to_floats(&resized, e->host);
    WEIR_TRY(
        weir_run_write(&e->run, weir_program_offset(e->program, "picture"), e->host, floats * sizeof *e->host, error));
    WEIR_TRY(weir_run_program(&e->run, e->program, 0, NULL, 0, error));
    WEIR_TRY(
        weir_run_read(&e->run, weir_program_offset(e->program, "z"), e->host + floats, count * sizeof *e->host, error));
    to_latents(e, e->host + floats, latents);
cleanup:
    weir_rgb_deinit(&resized);
    return status;
}
