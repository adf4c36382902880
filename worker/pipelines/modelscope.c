/* The modelscope family: diffusers' TextToVideoSDPipeline. CLIP's text model, UNet3DConditionModel, AutoencoderKL.
 *
 * What is fixed here is what that class fixes: 50 steps, guidance 9, 16 frames, sample_size times the decoder's factor,
 * pixels truncated to 8 bits; and 8 frames a second, as its model card plays them. */
#include "worker/model_dir.h"
#include "worker/nets/autoencoder_kl.h"
#include "worker/nets/clip_text.h"
#include "worker/nets/unet3d.h"
#include "worker/pipelines/internal.h"
#include "worker/pipelines/scheduler.h"
#include "worker/tokenizers/clip_folder.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_DEFAULT 50
#define GUIDANCE_DEFAULT 9.0
#define FRAMES_DEFAULT 16
#define FPS_DEFAULT 8
#define SAMPLE_SIZE_DEFAULT 32 /* where the config has none: what every known model of the class says */

struct state {
    struct weir_clip_bpe *tokenizer;
    struct weir_clip_text_config text;
    struct weir_unet3d_config unet;
    struct weir_autoencoder_kl_config vae;
    struct weir_scheduler scheduler;
};

static const char *const components[] = { "text_encoder", "tokenizer", "unet", "vae", "scheduler", NULL };
static const char *const text_components[] = { "text_encoder", "tokenizer", NULL };
/* A network that predicts noise or its velocity: nothing over a flow. */
#define SAMPLERS (1u << WEIR_ITEM_SAMPLER_DDIM | 1u << WEIR_ITEM_SAMPLER_DPM_SOLVER)

static const struct state *state_of(const struct weir_pipeline *pipeline)
{
    return pipeline->state;
}

static enum weir_status sampler_config(const struct weir_pipeline *pipeline, enum weir_item_sampler sampler,
                                       struct weir_sampler_config *out, struct weir_error *error)
{
    return weir_scheduler_config(&state_of(pipeline)->scheduler, sampler, out, error);
}

/* ---- opening ---- */

static enum weir_status require_classes(const struct weir_model_dir *model, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const struct {
        const char *component, *classes[3];
    } wanted[] = { { "text_encoder", { "CLIPTextModel", NULL } },
                   { "tokenizer", { "CLIPTokenizer", "CLIPTokenizerFast", NULL } },
                   { "unet", { "UNet3DConditionModel", NULL } },
                   { "vae", { "AutoencoderKL", NULL } } };
    for (size_t i = 0; i < WEIR_COUNT(wanted); i++)
        WEIR_TRY(weir_model_dir_require(model, wanted[i].component, wanted[i].classes, error));
cleanup:
    return status;
}

static enum weir_status read_configs(struct state *state, const struct weir_model_dir *model, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_config *text = NULL, *unet = NULL, *vae = NULL;
    WEIR_TRY(weir_model_dir_config(model, "text_encoder", &text, error));
    WEIR_TRY(weir_clip_text_config_read(text, &state->text, error));
    WEIR_TRY(weir_model_dir_config(model, "unet", &unet, error));
    WEIR_TRY(weir_unet3d_config_read(unet, &state->unet, error));
    WEIR_TRY(weir_model_dir_config(model, "vae", &vae, error));
    WEIR_TRY(weir_autoencoder_kl_config_read(vae, &state->vae, error));
    WEIR_TRY(weir_scheduler_open(model, &state->scheduler, error));
cleanup:
    weir_config_close(&vae);
    weir_config_close(&unet);
    weir_config_close(&text);
    return status;
}

/* Networks of one folder that do not fit each other. */
static enum weir_status check_fit(const struct state *s, const struct weir_model_dir *model, struct weir_error *error)
{
    const uint32_t window = weir_clip_bpe_window(s->tokenizer);
    const struct {
        const char *what, *and_what;
        uint32_t a, b;
    } equal[] = {
        { "unet: cross_attention_dim", "text_encoder: hidden_size", s->unet.cross_channels, s->text.width },
        { "unet: in_channels", "unet: out_channels", s->unet.in_channels, s->unet.out_channels },
        { "unet: in_channels", "vae: latent_channels", s->unet.in_channels, s->vae.latent_channels },
    };
    for (size_t i = 0; i < WEIR_COUNT(equal); i++) {
        if (equal[i].a != equal[i].b)
            return weir_fail(error, WEIR_BAD_MODEL, "%s: %s is %u, but %s is %u", weir_model_dir_path(model),
                             equal[i].what, equal[i].a, equal[i].and_what, equal[i].b);
    }
    if (window > s->text.positions)
        return weir_fail(error, WEIR_BAD_MODEL,
                         "%s: tokenizer: model_max_length is %u, but text_encoder: max_position_embeddings is %u",
                         weir_model_dir_path(model), window, s->text.positions);
    if ((uint32_t)weir_clip_bpe_id_bound(s->tokenizer) > s->text.vocabulary)
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tokenizer: it has %d tokens, but text_encoder: vocab_size is %u",
                         weir_model_dir_path(model), (int)weir_clip_bpe_id_bound(s->tokenizer), s->text.vocabulary);
    return WEIR_OK;
}

static uint32_t chosen(int64_t of_folder, uint32_t otherwise)
{
    return of_folder > 0 && of_folder <= UINT32_MAX ? (uint32_t)of_folder : otherwise;
}

static enum weir_status fill_facts(const struct weir_model_dir *model, const struct state *s,
                                   struct weir_model_facts *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_defaults *folder = weir_model_dir_defaults(model);
    const uint32_t side = (s->unet.sample_size ? s->unet.sample_size : SAMPLE_SIZE_DEFAULT) * s->vae.factor;
    const uint32_t window = weir_clip_bpe_window(s->tokenizer);
    struct weir_model_facts facts = { .size_min = s->vae.factor * weir_unet3d_size_min(&s->unet),
                                      .size_multiple = s->vae.factor,
                                      .latent_channels = s->vae.latent_channels,
                                      .latent_factor = s->vae.factor,
                                      .loras = true,
                                      .text_tokens = window ? window : s->text.positions,
                                      .text_rows = window ? window : s->text.positions,
                                      .text_channels = s->text.width,
                                      .width = chosen(folder->width, side),
                                      .height = chosen(folder->height, side),
                                      .frames = chosen(folder->frames, FRAMES_DEFAULT),
                                      .steps = chosen(folder->steps, STEPS_DEFAULT),
                                      .fps = chosen(folder->fps, FPS_DEFAULT),
                                      .frames_max = WEIR_ITEM_FRAMES_MAX,
                                      .samplers = SAMPLERS,
                                      .guidance = isnan(folder->guidance) ? GUIDANCE_DEFAULT : folder->guidance };
    snprintf(facts.family, sizeof facts.family, "%s", weir_pipeline_modelscope.name);
    WEIR_TRY(weir_scheduler_fill_facts(&s->scheduler, &facts, error));
    *out = facts;
cleanup:
    return status;
}

static void close_state(void *opaque)
{
    struct state *state = opaque;
    weir_clip_bpe_close(&state->tokenizer);
    weir_scheduler_close(&state->scheduler);
    free(state);
}

static enum weir_status open_state(struct weir_pipeline *pipeline, void **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_dir *model = pipeline->model;
    struct state *state = calloc(1, sizeof *state);
    if (!state) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a pipeline's configs");
    WEIR_TRY(require_classes(model, error));
    WEIR_TRY(read_configs(state, model, error));
    WEIR_TRY(weir_clip_folder_open(model, "tokenizer", &state->tokenizer, error));
    WEIR_TRY(check_fit(state, model, error));
    WEIR_TRY(fill_facts(model, state, &pipeline->facts, error));
    pipeline->text_window = pipeline->facts.text_tokens;
    *out = state;
    state = NULL;
cleanup:
    if (state) close_state(state);
    return status;
}

/* All of the window is read and kept, padding too: that is what the network was trained with. */
static enum weir_status tokens(const struct weir_pipeline *pipeline, const char *text, bool is_negative, int32_t *ids,
                               struct weir_text_tokens *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t window = pipeline->text_window;
    struct weir_clip_bpe_counts counts;
    (void)is_negative;
    WEIR_TRY(weir_clip_bpe_encode(state_of(pipeline)->tokenizer, text, strlen(text), window, ids, &counts, error));
    *out = (struct weir_text_tokens){ window, 1, window, counts.real, counts.whole };
cleanup:
    return status;
}

/* ---- networks ---- */

static enum weir_status net_open(const struct weir_pipeline *pipeline, struct weir_device *device,
                                 enum weir_pipeline_stage stage, bool shapes_only, void **net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char *const folders[WEIR_PIPELINE_STAGE_COUNT] = { "text_encoder", "unet", "vae" };
    const struct state *s = state_of(pipeline);
    struct weir_weights *weights = NULL;
    struct weir_clip_text *text = NULL;
    struct weir_unet3d *unet = NULL;
    struct weir_autoencoder_kl *vae = NULL;
    if (!shapes_only) WEIR_TRY(weir_model_dir_weights(pipeline->model, folders[stage], &weights, error));
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        WEIR_TRY(weir_clip_text_open(device, &s->text, weights, device->values, &text, error));
        *net = text;
        break;
    case WEIR_PIPELINE_DENOISE:
        WEIR_TRY(weir_unet3d_open(device, &s->unet, weights, device->values, &unet, error));
        *net = unet;
        break;
    default:
        WEIR_TRY(weir_autoencoder_kl_open(device, &s->vae, weights, device->values, &vae, error));
        *net = vae;
        break;
    }
cleanup:
    weir_weights_close(&weights);
    return status;
}

static void net_close(enum weir_pipeline_stage stage, void *net)
{
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        weir_clip_text_close(&(struct weir_clip_text *){ net });
        break;
    case WEIR_PIPELINE_DENOISE:
        weir_unet3d_close(&(struct weir_unet3d *){ net });
        break;
    default:
        weir_autoencoder_kl_close(&(struct weir_autoencoder_kl *){ net });
        break;
    }
}

static uint64_t net_bytes(enum weir_pipeline_stage stage, const void *net)
{
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        return weir_clip_text_weight_bytes(net);
    case WEIR_PIPELINE_DENOISE:
        return weir_unet3d_weight_bytes(net);
    default:
        return weir_autoencoder_kl_weight_bytes(net);
    }
}

static void build_text(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p, uint32_t tokens)
{
    const struct weir_dims ids = { 1, 1, 1, tokens, 1 };
    (void)pipeline;
    const struct weir_value text = weir_clip_text_build(net, p, weir_program_input(p, "ids", WEIR_I32, &ids));
    weir_program_output(p, "embedding", weir_program_widen(p, text));
}

static void build_prepare(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                          const struct weir_item *item, const struct weir_adapters *adapters)
{
    const uint32_t rows = weir_item_guided(&pipeline->facts, item) ? 2 : 1;
    weir_unet3d_build_prepare(net, p, rows, pipeline->facts.text_tokens, adapters);
}

static void build_step(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                       const struct weir_item *item, uint32_t items, const struct weir_adapters *adapters)
{
    const struct weir_model_facts *facts = &pipeline->facts;
    const uint32_t height = item->height / facts->latent_factor, width = item->width / facts->latent_factor;
    const uint32_t channels = facts->latent_channels, copies = weir_item_guided(facts, item) ? 2 : 1;
    const struct weir_dims latents = { items, channels, item->frames, height * width, 1 };
    const struct weir_dims packed = { items * copies, item->frames, height, width, channels };
    const struct weir_dims t_dims = { items * copies, 1, 1, 1, 1 }, item_dims = { items, 1, 1, 1, 1 };
    const struct weir_dims k_dims = { items, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    struct weir_value scale = { 0 };

    const struct weir_value x = weir_program_extern(p, "latents", WEIR_F32, &latents);
    const struct weir_value previous = weir_program_extern(p, "previous", WEIR_F32, &latents);
    const struct weir_value t = weir_program_input(p, "t", WEIR_F32, &t_dims);
    const struct weir_value k = weir_program_input(p, "k", WEIR_F32, &k_dims);
    if (copies == 2) scale = weir_program_input(p, "guidance", WEIR_F32, &item_dims);
    const struct weir_value in = weir_program_latents_pack(p, x, copies, 1, &packed);
    const struct weir_value noise = weir_unet3d_build_step(net, p, in, t, facts->text_tokens, adapters);
    weir_program_sampler_step(p, x, weir_program_guidance(p, noise, scale, copies), previous, k);
}

static void build_decode(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                         const struct weir_item *item, uint32_t frames)
{
    const struct weir_model_facts *facts = &pipeline->facts;
    const uint32_t height = item->height / facts->latent_factor, width = item->width / facts->latent_factor;
    const struct weir_dims latents = { frames, facts->latent_channels, 1, height * width, 1 };
    const struct weir_dims packed = { frames, 1, height, width, facts->latent_channels };
    const float factor = (float)(1 / state_of(pipeline)->vae.scaling_factor); /* a product, as in the class */
    const struct weir_value z = weir_program_input(p, "z", WEIR_F32, &latents);
    const struct weir_value picture =
        weir_autoencoder_kl_build_decode(net, p, weir_program_latents_pack(p, z, 1, factor, &packed));
    weir_program_output(p, "picture", weir_program_widen(p, picture));
    weir_program_output(p, "rgb", weir_program_to_rgb8(p, picture, false));
}

static const struct weir_params *adapted_params(const void *net)
{
    return weir_unet3d_params(net);
}

static uint32_t slot_count(const void *net)
{
    return weir_unet3d_slot_count(net);
}

static void slot_name(const void *net, uint32_t index, char *out, size_t room)
{
    (void)net;
    assert(room >= WEIR_UNET3D_SLOT_NAME_BYTES);
    (void)room;
    weir_unet3d_slot_name(index, out);
}

static uint32_t picture_channels(const struct weir_pipeline *pipeline)
{
    return state_of(pipeline)->vae.out_channels;
}

const struct weir_pipeline_family weir_pipeline_modelscope = {
    .name = "modelscope",
    .class_name = "TextToVideoSDPipeline",
    .components = components,
    .text_components = text_components,
    .open = open_state,
    .close = close_state,
    .sampler_config = sampler_config,
    .tokens = tokens,
    .net_open = net_open,
    .net_close = net_close,
    .net_bytes = net_bytes,
    .build_text = build_text,
    .build_prepare = build_prepare,
    .build_step = build_step,
    .build_decode = build_decode,
    .adapted_params = adapted_params,
    .slot_count = slot_count,
    .slot_name = slot_name,
    .picture_channels = picture_channels,
};
