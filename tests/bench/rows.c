#include "tests/bench/rows.h"

#include "tests/bench/made.h"
#include "worker/nets/autoencoder_dc.h"
#include "worker/nets/autoencoder_kl.h"
#include "worker/nets/gemma2.h"
#include "worker/nets/sana_transformer.h"
#include "worker/nets/unet3d.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { SANA, DC, GEMMA, UNET, KL };

struct weir_bench_net {
    enum kind kind;
    union {
        struct weir_sana_transformer_config sana;
        struct weir_autoencoder_dc_config dc;
        struct weir_gemma2_config gemma;
        struct weir_unet3d_config unet;
        struct weir_autoencoder_kl_config kl;
    } config;
};

/* --- the configurations, as their folders have them --------------------------------------------------------------- */

#define SANA_1600M                                                                                                     \
    .in_channels = 32, .out_channels = 32, .caption_channels = 2304, .layers = 20, .heads = 70, .head_dim = 32,        \
    .width = 2240, .cross_heads = 20, .cross_head_dim = 112, .hidden = 5600, .sample_size = 32, .norm_eps = 1e-6f,     \
    .guidance_embeds_scale = 0.1, .timestep_scale = 1

static const struct weir_bench_net sana = { .kind = SANA, .config.sana = { SANA_1600M } };

static const struct weir_bench_net sana_4k = { .kind = SANA,
                                               .config.sana = { .in_channels = 32,
                                                                .out_channels = 32,
                                                                .caption_channels = 2304,
                                                                .layers = 20,
                                                                .heads = 70,
                                                                .head_dim = 32,
                                                                .width = 2240,
                                                                .cross_heads = 20,
                                                                .cross_head_dim = 112,
                                                                .hidden = 5600,
                                                                .sample_size = 128,
                                                                .norm_eps = 1e-6f,
                                                                .interpolation_scale = 2,
                                                                .timestep_scale = 1 } };

static const struct weir_bench_net sana_4800m = { .kind = SANA,
                                                  .config.sana = { .in_channels = 32,
                                                                   .out_channels = 32,
                                                                   .caption_channels = 2304,
                                                                   .layers = 60,
                                                                   .heads = 70,
                                                                   .head_dim = 32,
                                                                   .width = 2240,
                                                                   .cross_heads = 20,
                                                                   .cross_head_dim = 112,
                                                                   .hidden = 5600,
                                                                   .sample_size = 32,
                                                                   .norm_eps = 1e-6f,
                                                                   .qk_norm = true,
                                                                   .timestep_scale = 1 } };

static const struct weir_bench_net sprint = { .kind = SANA,
                                              .config.sana = { SANA_1600M, .qk_norm = true, .guidance_embeds = true } };

#define RES(C)                                                                                                         \
    {                                                                                                                  \
        .channels = (C), .layers = 3, .activation = WEIR_ACT_SILU                                                      \
    }
#define VIT(C)                                                                                                         \
    {                                                                                                                  \
        .channels = (C), .layers = 3, .activation = WEIR_ACT_SILU, .attends = true, .scales = 1, .kernel = { 5 }       \
    }
#define STAGES                                                                                                         \
    {                                                                                                                  \
        RES(128), RES(256), RES(512), VIT(512), VIT(1024), VIT(1024)                                                   \
    }
static const struct weir_bench_net dc = { .kind = DC,
                                          .config.dc = { .in_channels = 3,
                                                         .latent_channels = 32,
                                                         .head_dim = 32,
                                                         .stages = 6,
                                                         .factor = 32,
                                                         .encoder = STAGES,
                                                         .decoder = STAGES,
                                                         .interpolate = true,
                                                         .encoder_out_shortcut = true,
                                                         .decoder_in_shortcut = true,
                                                         .conv_activation = WEIR_ACT_RELU,
                                                         .scaling_factor = 0.41407 } };

static const struct weir_bench_net gemma = { .kind = GEMMA,
                                             .config.gemma = { .vocabulary = 256000,
                                                               .width = 2304,
                                                               .feed_forward = 9216,
                                                               .layers = 26,
                                                               .heads = 8,
                                                               .kv_heads = 4,
                                                               .head_dim = 256,
                                                               .norm_eps = 1e-6f,
                                                               .rope_theta = 10000,
                                                               .score_scale = 1.0f / 16,
                                                               .softcap = 50 } };

static const struct weir_bench_net unet = { .kind = UNET,
                                            .config.unet = { .in_channels = 4,
                                                             .out_channels = 4,
                                                             .sample_size = 32,
                                                             .levels = 4,
                                                             .channels = { 320, 640, 1280, 1280 },
                                                             .down_attends = { true, true, true, false },
                                                             .up_attends = { false, true, true, true },
                                                             .layers_per_block = 2,
                                                             .head_dim = 64,
                                                             .cross_channels = 1024,
                                                             .groups = 32,
                                                             .downsample_padding = 1,
                                                             .norm_eps = 1e-5f } };

static const struct weir_bench_net kl = { .kind = KL,
                                          .config.kl = { .out_channels = 3,
                                                         .latent_channels = 4,
                                                         .levels = 4,
                                                         .channels = { 128, 256, 512, 512 },
                                                         .layers_per_block = 2,
                                                         .groups = 32,
                                                         .factor = 8,
                                                         .mid_attention = true,
                                                         .post_quant_conv = true,
                                                         .scaling_factor = 0.18215 } };

#define TEXT_SANA 300 /* tokens */
#define TEXT_CLIP 77

const struct weir_bench_row weir_bench_rows[] = {
    { "sana-1024-2", "Sana-1.6B step, 1024 x 1024", 2, 10.5, false, &sana, 1, 32, 32, TEXT_SANA },
    { "sana-1024-8", "Sana-1.6B step, 1024 x 1024", 8, 38, false, &sana, 1, 32, 32, TEXT_SANA },
    { "sana-1024-32", "Sana-1.6B step, 1024 x 1024", 32, 145, false, &sana, 1, 32, 32, TEXT_SANA },
    { "sana-4096-2", "Sana-1.6B step, 4096 x 4096", 2, 150, false, &sana_4k, 1, 128, 128, TEXT_SANA },
    { "sprint-1024-1", "Sprint-1.6B step, 1024 x 1024", 1, 6.5, false, &sprint, 1, 32, 32, TEXT_SANA },
    { "sana4.8-1024-2", "SANA-1.5 4.8B step, 1024 x 1024", 2, 0, true, &sana_4800m, 1, 32, 32, TEXT_SANA },
    { "dcae-1024-1", "DC-AE decode, 1024 x 1024", 1, 17, false, &dc, 1, 32, 32, 0 },
    { "dcae-1024-4", "DC-AE decode, 1024 x 1024", 4, 58, false, &dc, 1, 32, 32, 0 },
    { "gemma-500", "Gemma-2-2B encode, 500 tokens", 1, 6, false, &gemma, 1, 1, 1, 500 },
    { "unet-16x256-2", "UNet3D step, 16 x 256 x 256", 2, 24, false, &unet, 16, 32, 32, TEXT_CLIP },
    { "unet-24x320x576-2", "UNet3D step, 24 x 320 x 576", 2, 90, false, &unet, 24, 40, 72, TEXT_CLIP },
    { "kl-16x256", "KL decode, 16 x 256 x 256", 16, 18, false, &kl, 1, 32, 32, 0 },
};
const size_t weir_bench_row_count = WEIR_COUNT(weir_bench_rows);

/* --- networks ----------------------------------------------------------------------------------------------------- */

/* The one that is open. */
static struct {
    const struct weir_bench_net *net;
    enum weir_dtype dtype;
    struct weir_sana_transformer *sana;
    struct weir_autoencoder_dc *dc;
    struct weir_gemma2 *gemma;
    struct weir_unet3d *unet;
    struct weir_autoencoder_kl *kl;
} open;

void weir_bench_nets_close(void)
{
    weir_sana_transformer_close(&open.sana);
    weir_autoencoder_dc_close(&open.dc);
    weir_gemma2_close(&open.gemma);
    weir_unet3d_close(&open.unet);
    weir_autoencoder_kl_close(&open.kl);
    open.net = NULL;
}

static enum weir_status net_open(const struct weir_bench_net *net, struct weir_device *device, enum weir_dtype dtype,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_INTERNAL;
    if (open.net == net && open.dtype == dtype) return WEIR_OK;
    weir_bench_nets_close();
    switch (net->kind) {
    case SANA:
        status = weir_sana_transformer_open(device, &net->config.sana, NULL, dtype, &open.sana, error);
        break;
    case DC:
        status = weir_autoencoder_dc_open(device, &net->config.dc, WEIR_AUTOENCODER_DC_DECODER, NULL, dtype, &open.dc,
                                          error);
        break;
    case GEMMA:
        status = weir_gemma2_open(device, &net->config.gemma, NULL, dtype, &open.gemma, error);
        break;
    case UNET:
        status = weir_unet3d_open(device, &net->config.unet, NULL, dtype, &open.unet, error);
        break;
    case KL:
        status = weir_autoencoder_kl_open(device, &net->config.kl, NULL, dtype, &open.kl, error);
        break;
    }
    open.net = status == WEIR_OK ? net : NULL;
    open.dtype = dtype;
    return status;
}

static void weigh(struct weir_bench_work *work)
{
    if (open.sana) {
        work->parameters = weir_sana_transformer_parameter_count(open.sana);
        work->bytes += weir_sana_transformer_weight_bytes(open.sana);
    } else if (open.dc) {
        work->parameters = weir_autoencoder_dc_parameter_count(open.dc);
        work->bytes += weir_autoencoder_dc_weight_bytes(open.dc);
    } else if (open.gemma) {
        work->parameters = weir_gemma2_parameter_count(open.gemma);
        work->bytes += weir_gemma2_weight_bytes(open.gemma);
    } else if (open.unet) {
        work->parameters = weir_unet3d_parameter_count(open.unet);
        work->bytes += weir_unet3d_weight_bytes(open.unet);
    } else {
        work->parameters = weir_autoencoder_kl_parameter_count(open.kl);
        work->bytes += weir_autoencoder_kl_weight_bytes(open.kl);
    }
}

/* --- programs ----------------------------------------------------------------------------------------------------- */

/* The text's part, for networks that have one. */
static void build_text(const struct weir_bench_row *row, struct weir_program *p)
{
    if (open.sana) {
        weir_sana_transformer_build_prepare(open.sana, p, row->rows, row->tokens, NULL);
    } else {
        weir_unet3d_build_prepare(open.unet, p, row->rows, row->tokens, NULL);
    }
}

static uint32_t slot_count(void)
{
    if (open.sana) return weir_sana_transformer_slot_count(open.sana);
    return open.unet ? weir_unet3d_slot_count(open.unet) : 0;
}

static void build(const struct weir_bench_row *row, struct weir_program *p, enum weir_dtype dtype)
{
    const struct weir_dims one = { row->rows, 1, 1, 1, 1 };
    struct weir_dims x = { row->rows, row->frames, row->height, row->width, 0 };
    struct weir_value y = { 0 };
    switch (row->net->kind) {
    case SANA: {
        x.channels = row->net->config.sana.in_channels;
        struct weir_sana_transformer_step step = { .x = weir_program_input(p, "x", dtype, &x),
                                                   .t = weir_program_input(p, "t", WEIR_F32, &one),
                                                   .lengths = weir_program_input(p, "lengths", WEIR_I32, &one),
                                                   .tokens = row->tokens };
        if (row->net->config.sana.guidance_embeds) step.guidance = weir_program_input(p, "guidance", WEIR_F32, &one);
        y = weir_sana_transformer_build_step(open.sana, p, &step);
        break;
    }
    case DC:
        x.channels = row->net->config.dc.latent_channels;
        y = weir_autoencoder_dc_build_decode(open.dc, p, weir_program_input(p, "x", dtype, &x));
        break;
    case GEMMA: {
        const struct weir_dims ids = { row->rows, 1, 1, row->tokens, 1 };
        y = weir_gemma2_build(open.gemma, p, weir_program_input(p, "ids", WEIR_I32, &ids));
        break;
    }
    case UNET: {
        x.channels = row->net->config.unet.in_channels;
        const struct weir_value latents = weir_program_input(p, "x", dtype, &x);
        const struct weir_value t = weir_program_input(p, "t", WEIR_F32, &one);
        y = weir_unet3d_build_step(open.unet, p, latents, t, row->tokens, NULL);
        break;
    }
    case KL:
        x.channels = row->net->config.kl.latent_channels;
        y = weir_autoencoder_kl_build_decode(open.kl, p, weir_program_input(p, "x", dtype, &x));
        break;
    }
    weir_program_output(p, "y", y);
}

/* Made values for an input; `dtype` as it was declared. */
static enum weir_status fill(const struct weir_program *p, struct weir_stream *stream, void *arena, const char *name,
                             enum weir_dtype dtype, float offset, struct weir_error *error)
{
    const size_t bytes = weir_program_bytes(p, name), count = bytes / weir_dtype_bytes(dtype);
    float *values = malloc(count * sizeof *values);
    void *to = (char *)arena + weir_program_offset(p, name);
    enum weir_status status;
    if (!values) return weir_fail(error, WEIR_NO_MEMORY, "no memory for input %s", name);
    weir_made_values(values, count, offset != 0 ? 0 : 1, offset);
    if (dtype == WEIR_BF16) { /* to the upper halves, in place */
        uint16_t *halves = (uint16_t *)(void *)values;
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], sizeof bits);
            halves[i] = (uint16_t)(bits >> 16);
        }
    } else if (dtype == WEIR_I32) {
        int32_t *numbers = (int32_t *)(void *)values;
        for (size_t i = 0; i < count; i++)
            numbers[i] = (int32_t)offset + (offset == 3 ? (int32_t)(i * 7919 % 250000) : 0);
    }
    status = stream->device->table->upload(stream, to, values, bytes);
    if (status == WEIR_OK) status = stream->device->table->stream_sync(stream, error);
    free(values);
    return status;
}

static enum weir_status fill_inputs(const struct weir_bench_row *row, const struct weir_bench_work *work,
                                    struct weir_stream *stream, enum weir_dtype dtype, struct weir_error *error)
{
    const struct weir_program *p = work->program;
    enum weir_status status = WEIR_OK;
    if (row->net->kind == GEMMA) return fill(p, stream, work->arena, "ids", WEIR_I32, 3, error);
    WEIR_TRY(fill(p, stream, work->arena, "x", dtype, 0, error));
    if (slot_count() > 0) WEIR_TRY(fill(p, stream, work->arena, "t", WEIR_F32, 500, error));
    if (open.sana) WEIR_TRY(fill(p, stream, work->arena, "lengths", WEIR_I32, (float)row->tokens, error));
    if (open.sana && row->net->config.sana.guidance_embeds)
        WEIR_TRY(fill(p, stream, work->arena, "guidance", WEIR_F32, 0.45f, error));
cleanup:
    return status;
}

/* Runs the text's part; what it made are the slots of the step. */
static enum weir_status text_open(const struct weir_bench_row *row, struct weir_bench_work *work,
                                  struct weir_stream *stream, enum weir_dtype dtype, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_device *device = stream->device;
    WEIR_TRY(weir_program_create(device, dtype, &work->text));
    build_text(row, work->text);
    WEIR_TRY(weir_program_finish(work->text, error));
    const size_t bytes = weir_program_arena_bytes(work->text);
    WEIR_TRY(device->table->memory_alloc(device, bytes, &work->text_arena, error));
    WEIR_TRY(fill(work->text, stream, work->text_arena, "text", WEIR_F32, 0, error));
    WEIR_TRY(weir_program_run(work->text, stream, work->text_arena, NULL, 0));
    WEIR_TRY(device->table->stream_sync(stream, error));
    for (uint32_t i = 0; i < slot_count(); i++) {
        assert(i < WEIR_BENCH_SLOTS_MAX);
        if (open.sana) {
            weir_sana_transformer_slot_name(i, work->slots[i]);
        } else {
            weir_unet3d_slot_name(i, work->slots[i]);
        }
        char *slot = (char *)work->text_arena + weir_program_offset(work->text, work->slots[i]);
        work->bindings[work->binding_count++] = (struct weir_binding){ work->slots[i], slot };
        work->bytes += weir_program_bytes(work->text, work->slots[i]);
    }
cleanup:
    return status;
}

enum weir_status weir_bench_work_open(const struct weir_bench_row *row, struct weir_device *device,
                                      struct weir_stream *stream, enum weir_dtype dtype, struct weir_bench_work *out,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *out = (struct weir_bench_work){ 0 };
    WEIR_TRY(net_open(row->net, device, dtype, error));
    if (slot_count() > 0) WEIR_TRY(text_open(row, out, stream, dtype, error));
    WEIR_TRY(weir_program_create(device, dtype, &out->program));
    weir_made_count();
    build(row, out->program, dtype);
    WEIR_TRY(weir_program_finish(out->program, error));
    out->bytes += weir_program_arena_bytes(out->program);
    WEIR_TRY(device->table->memory_alloc(device, weir_program_arena_bytes(out->program), &out->arena, error));
    WEIR_TRY(fill_inputs(row, out, stream, dtype, error));
    weigh(out);
cleanup:
    if (status != WEIR_OK) weir_bench_work_close(out, device);
    return status;
}

void weir_bench_work_close(struct weir_bench_work *work, struct weir_device *device)
{
    weir_program_destroy(&work->program);
    weir_program_destroy(&work->text);
    if (work->arena) device->table->memory_free(device, work->arena);
    if (work->text_arena) device->table->memory_free(device, work->text_arena);
    *work = (struct weir_bench_work){ 0 };
}
