/* The Sana families: diffusers' SanaPipeline, SanaControlNetPipeline and SanaSprintPipeline, which is its
 * SanaSprintImg2ImgPipeline where a request brings a picture to begin at. Gemma2Model, SanaTransformer2DModel,
 * SanaControlNetModel, AutoencoderDC.
 *
 * What is fixed here is what those classes fix: 20 steps (Sprint: 2), guidance 4.5, one frame, pixels rounded to 8
 * bits, and where the transformer's sample_size has a table of sizes, pictures made at those. Sana is guided by a
 * second row of the negative text; Sprint's network is told its guidance and takes no negative text. Both look at the
 * real tokens of a text alone. */
#include "worker/model_dir.h"
#include "worker/nets/autoencoder_dc.h"
#include "worker/nets/gemma2.h"
#include "worker/nets/sana_controlnet.h"
#include "worker/nets/sana_transformer.h"
#include "worker/pipelines/internal.h"
#include "worker/pipelines/scheduler.h"
#include "worker/tokenizers/gemma_folder.h"
#include "worker/tokenizers/gemma_prompt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_DEFAULT 20
#define SPRINT_STEPS_DEFAULT 2
#define GUIDANCE_DEFAULT 4.5
#define CONTROL_SCALE_DEFAULT 1.0
#define STRENGTH_DEFAULT 0.6
#define BINNED_SIZE_MIN 32
#define SPRINT_SAMPLE_SIZE 32 /* the only one that Sprint has sizes for */

struct state {
    struct weir_gemma_bpe *tokenizer;
    struct weir_gemma_prompt *prompt;
    struct weir_gemma2_config text;
    struct weir_sana_transformer_config transformer, controlnet;
    struct weir_autoencoder_dc_config vae;
    struct weir_scheduler scheduler;
    bool is_sprint, has_control;
};

/* What the denoise stage loads. */
struct denoise_net {
    struct weir_sana_transformer *transformer;
    struct weir_sana_controlnet *controlnet; /* or NULL */
};

static const char *const components[] = { "text_encoder", "tokenizer", "transformer", "vae", "scheduler", NULL };
static const char *const control_components[] = { "text_encoder", "tokenizer", "transformer", "controlnet",
                                                  "vae",          "scheduler", NULL };
static const char *const text_components[] = { "text_encoder", "tokenizer", NULL };
#define SAMPLERS (1u << WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER | 1u << WEIR_ITEM_SAMPLER_FLOW_EULER)
#define SPRINT_SAMPLERS (1u << WEIR_ITEM_SAMPLER_SCM)

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

static enum weir_status require_classes(const struct weir_model_dir *model, bool has_control, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char *const controlnets[] = { "SanaControlNetModel", NULL };
    static const struct {
        const char *component, *classes[2];
    } wanted[] = { { "text_encoder", { "Gemma2Model", NULL } },
                   { "transformer", { "SanaTransformer2DModel", NULL } },
                   { "vae", { "AutoencoderDC", NULL } } };
    for (size_t i = 0; i < WEIR_COUNT(wanted); i++)
        WEIR_TRY(weir_model_dir_require(model, wanted[i].component, wanted[i].classes, error));
    WEIR_TRY(weir_model_dir_require(model, "tokenizer", weir_gemma_folder_classes, error));
    if (has_control) WEIR_TRY(weir_model_dir_require(model, "controlnet", controlnets, error));
cleanup:
    return status;
}

/* What the text encoder reads: the instruction and the prompt behind it, or a negative text without it. */
static uint32_t window_of(const struct weir_gemma_prompt *prompt)
{
    const uint32_t instruction = weir_gemma_prompt_instruction_ids(prompt);
    return WEIR_GEMMA_PROMPT_KEPT_MAX + (instruction > 2 ? instruction - 2 : 0);
}

static enum weir_status read_configs(struct state *state, const struct weir_model_dir *model, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_config *text = NULL, *transformer = NULL, *controlnet = NULL, *vae = NULL;
    WEIR_TRY(weir_model_dir_config(model, "text_encoder", &text, error));
    WEIR_TRY(weir_gemma2_config_read(text, window_of(state->prompt), &state->text, error));
    WEIR_TRY(weir_model_dir_config(model, "transformer", &transformer, error));
    WEIR_TRY(weir_sana_transformer_config_read(transformer, &state->transformer, error));
    if (state->has_control) {
        WEIR_TRY(weir_model_dir_config(model, "controlnet", &controlnet, error));
        WEIR_TRY(weir_sana_controlnet_config_read(controlnet, state->transformer.layers, &state->controlnet, error));
    }
    WEIR_TRY(weir_model_dir_config(model, "vae", &vae, error));
    WEIR_TRY(weir_autoencoder_dc_config_read(vae, &state->vae, error));
    WEIR_TRY(weir_scheduler_open(model, &state->scheduler, error));
cleanup:
    weir_config_close(&vae);
    weir_config_close(&controlnet);
    weir_config_close(&transformer);
    weir_config_close(&text);
    return status;
}

/* Networks of one folder that do not fit each other, or not the class of the pipeline. */
static enum weir_status check_fit(const struct state *s, const struct weir_model_dir *model, struct weir_error *error)
{
    const char *path = weir_model_dir_path(model);
    const int32_t bound = weir_gemma_bpe_facts(s->tokenizer).id_bound;
    const struct weir_sana_transformer_config *control = s->has_control ? &s->controlnet : &s->transformer;
    const struct {
        const char *what, *and_what;
        uint32_t a, b;
    } equal[] = {
        { "transformer: caption_channels", "text_encoder: hidden_size", s->transformer.caption_channels,
          s->text.width },
        { "transformer: in_channels", "transformer: out_channels", s->transformer.in_channels,
          s->transformer.out_channels },
        { "transformer: in_channels", "vae: latent_channels", s->transformer.in_channels, s->vae.latent_channels },
        { "controlnet: in_channels", "transformer: in_channels", control->in_channels, s->transformer.in_channels },
        { "controlnet: caption_channels", "transformer: caption_channels", control->caption_channels,
          s->transformer.caption_channels },
        { "controlnet: cross_attention_dim", "transformer: cross_attention_dim", control->width, s->transformer.width },
    };
    for (size_t i = 0; i < WEIR_COUNT(equal); i++) {
        if (equal[i].a != equal[i].b)
            return weir_fail(error, WEIR_BAD_MODEL, "%s: %s is %u, but %s is %u", path, equal[i].what, equal[i].a,
                             equal[i].and_what, equal[i].b);
    }
    if ((uint32_t)bound > s->text.vocabulary)
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tokenizer: it has %d tokens, but text_encoder: vocab_size is %u",
                         path, (int)bound, s->text.vocabulary);
    if (s->transformer.guidance_embeds != s->is_sprint)
        return weir_fail(error, WEIR_BAD_MODEL, "%s: transformer: guidance_embeds is %s, which is not for %s", path,
                         s->transformer.guidance_embeds ? "true" : "false", weir_model_dir_class_name(model));
    if (s->has_control && s->vae.in_channels != 3)
        return weir_fail(error, WEIR_BAD_MODEL, "%s: vae: in_channels is %u; a control image has 3", path,
                         s->vae.in_channels);
    if (s->vae.in_channels < 3)
        return weir_fail(error, WEIR_BAD_MODEL, "%s: vae: in_channels is %u; a picture has 3", path,
                         s->vae.in_channels);
    return WEIR_OK;
}

static uint32_t chosen(int64_t of_folder, uint32_t otherwise)
{
    return of_folder > 0 && of_folder <= UINT32_MAX ? (uint32_t)of_folder : otherwise;
}

/* The sample_size whose sizes pictures are made at, or 0. */
static uint32_t bins_of(const struct state *s)
{
    const uint32_t size = s->transformer.sample_size;
    if (s->is_sprint) return size == SPRINT_SAMPLE_SIZE ? size : 0;
    struct weir_sana_size ignored;
    return weir_sana_bin(size, 1, 1, &ignored, NULL) == WEIR_OK ? size : 0;
}

static enum weir_status fill_facts(struct weir_pipeline *pipeline, const struct state *s, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_dir *model = pipeline->model;
    const struct weir_defaults *folder = weir_model_dir_defaults(model);
    const uint32_t factor = s->vae.factor, side = s->transformer.sample_size * factor, bins = bins_of(s);
    struct weir_model_facts facts = {
        .size_min = bins ? BINNED_SIZE_MIN : factor,
        .size_multiple = bins ? 1 : factor,
        .bins = bins,
        .latent_channels = s->vae.latent_channels,
        .latent_factor = factor,
        .loras = true,
        .text_tokens = WEIR_GEMMA_PROMPT_KEPT_MAX,
        .text_rows = WEIR_GEMMA_PROMPT_KEPT_MAX + 1,
        .text_channels = s->text.width,
        .width = chosen(folder->width, side),
        .height = chosen(folder->height, side),
        .frames = 1,
        .frames_max = 1,
        .steps = chosen(folder->steps, s->is_sprint ? SPRINT_STEPS_DEFAULT : STEPS_DEFAULT),
        .fps = 1,
        .samplers = s->is_sprint ? SPRINT_SAMPLERS : SAMPLERS,
        .guidance_inside = s->is_sprint,
        .guidance = isnan(folder->guidance) ? GUIDANCE_DEFAULT : folder->guidance,
        .control = s->has_control,
        .start = s->is_sprint && s->vae.in_channels == 3,
        .control_scale = CONTROL_SCALE_DEFAULT,
        .strength = STRENGTH_DEFAULT,
    };
    snprintf(facts.family, sizeof facts.family, "%s", pipeline->family->name);
    WEIR_TRY(weir_scheduler_fill_facts(&s->scheduler, &facts, error));
    pipeline->facts = facts;
    pipeline->text_window = window_of(s->prompt);
    if (s->is_sprint)
        pipeline->guidance_factor = (float)s->transformer.guidance_embeds_scale;
    else if (!s->has_control)
        pipeline->time_factor = (float)s->transformer.timestep_scale; /* which the other classes do not look at */
    pipeline->latent_factor = (float)s->vae.scaling_factor;
cleanup:
    return status;
}

static void close_state(void *opaque)
{
    struct state *state = opaque;
    weir_gemma_prompt_close(&state->prompt);
    weir_gemma_bpe_close(&state->tokenizer);
    weir_scheduler_close(&state->scheduler);
    free(state);
}

static enum weir_status open_state(struct weir_pipeline *pipeline, void **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_dir *model = pipeline->model;
    struct state *state = calloc(1, sizeof *state);
    if (!state) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a pipeline's configs");
    state->is_sprint = pipeline->family == &weir_pipeline_sana_sprint;
    state->has_control = pipeline->family == &weir_pipeline_sana_control;
    WEIR_TRY(require_classes(model, state->has_control, error));
    WEIR_TRY(weir_gemma_folder_open(model, "tokenizer", &state->tokenizer, error));
    WEIR_TRY(
        weir_gemma_prompt_open(state->tokenizer, weir_model_dir_defaults(model)->instruction, &state->prompt, error));
    WEIR_TRY(read_configs(state, model, error));
    WEIR_TRY(check_fit(state, model, error));
    WEIR_TRY(fill_facts(pipeline, state, error));
    *out = state;
    state = NULL;
cleanup:
    if (state) close_state(state);
    return status;
}

static enum weir_status tokens(const struct weir_pipeline *pipeline, const char *text, bool is_negative, int32_t *ids,
                               struct weir_text_tokens *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct state *s = state_of(pipeline);
    struct weir_gemma_prompt_ids prompt;
    WEIR_TRY(weir_gemma_prompt_encode(s->prompt, text, strlen(text), !is_negative, &prompt, error));
    assert(prompt.count <= pipeline->text_window);
    memcpy(ids, prompt.ids, prompt.count * sizeof *ids);
    for (uint32_t i = prompt.count; i < pipeline->text_window; i++) ids[i] = weir_gemma_bpe_facts(s->tokenizer).pad;
    *out = (struct weir_text_tokens){ prompt.count, prompt.first, prompt.kept, prompt.count, prompt.whole };
cleanup:
    return status;
}

/* ---- networks ---- */

static void denoise_close(struct denoise_net *net)
{
    if (!net) return;
    weir_sana_controlnet_close(&net->controlnet);
    weir_sana_transformer_close(&net->transformer);
    free(net);
}

static enum weir_status denoise_open(const struct weir_pipeline *pipeline, struct weir_device *device, bool shapes_only,
                                     struct denoise_net **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct state *s = state_of(pipeline);
    struct weir_weights *weights = NULL;
    struct denoise_net *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the networks of a denoise stage");
    if (!shapes_only) WEIR_TRY(weir_model_dir_weights(pipeline->model, "transformer", &weights, error));
    WEIR_TRY(weir_sana_transformer_open(device, &s->transformer, weights, device->values, &net->transformer, error));
    weir_weights_close(&weights);
    if (s->has_control) {
        if (!shapes_only) WEIR_TRY(weir_model_dir_weights(pipeline->model, "controlnet", &weights, error));
        WEIR_TRY(weir_sana_controlnet_open(device, &s->controlnet, weights, device->values, &net->controlnet, error));
    }
    *out = net;
    net = NULL;
cleanup:
    weir_weights_close(&weights);
    denoise_close(net);
    return status;
}

static enum weir_status text_open(const struct weir_pipeline *pipeline, struct weir_device *device, bool shapes_only,
                                  struct weir_gemma2 **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_weights *weights = NULL;
    if (!shapes_only) WEIR_TRY(weir_model_dir_weights(pipeline->model, "text_encoder", &weights, error));
    WEIR_TRY(weir_gemma2_open(device, &state_of(pipeline)->text, weights, device->values, out, error));
cleanup:
    weir_weights_close(&weights);
    return status;
}

static enum weir_status vae_open(const struct weir_pipeline *pipeline, struct weir_device *device,
                                 enum weir_autoencoder_dc_half half, bool shapes_only, struct weir_autoencoder_dc **out,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_weights *weights = NULL;
    if (!shapes_only) WEIR_TRY(weir_model_dir_weights(pipeline->model, "vae", &weights, error));
    WEIR_TRY(weir_autoencoder_dc_open(device, &state_of(pipeline)->vae, half, weights, device->values, out, error));
cleanup:
    weir_weights_close(&weights);
    return status;
}

static enum weir_status net_open(const struct weir_pipeline *pipeline, struct weir_device *device,
                                 enum weir_pipeline_stage stage, bool shapes_only, void **net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma2 *text = NULL;
    struct denoise_net *denoise = NULL;
    struct weir_autoencoder_dc *vae = NULL;
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        WEIR_TRY(text_open(pipeline, device, shapes_only, &text, error));
        *net = text;
        break;
    case WEIR_PIPELINE_DENOISE:
        WEIR_TRY(denoise_open(pipeline, device, shapes_only, &denoise, error));
        *net = denoise;
        break;
    default:
        WEIR_TRY(vae_open(pipeline, device,
                          stage == WEIR_PIPELINE_ENCODE ? WEIR_AUTOENCODER_DC_ENCODER : WEIR_AUTOENCODER_DC_DECODER,
                          shapes_only, &vae, error));
        *net = vae;
        break;
    }
cleanup:
    return status;
}

static void net_close(enum weir_pipeline_stage stage, void *net)
{
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        weir_gemma2_close(&(struct weir_gemma2 *){ net });
        break;
    case WEIR_PIPELINE_DENOISE:
        denoise_close(net);
        break;
    default:
        weir_autoencoder_dc_close(&(struct weir_autoencoder_dc *){ net });
        break;
    }
}

static uint64_t denoise_bytes(const struct denoise_net *net)
{
    return weir_sana_transformer_weight_bytes(net->transformer) +
           (net->controlnet ? weir_sana_controlnet_weight_bytes(net->controlnet) : 0);
}

static uint64_t net_bytes(enum weir_pipeline_stage stage, const void *net)
{
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        return weir_gemma2_weight_bytes(net);
    case WEIR_PIPELINE_DENOISE:
        return denoise_bytes(net);
    default:
        return weir_autoencoder_dc_weight_bytes(net);
    }
}

static void build_text(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p, uint32_t tokens)
{
    const struct weir_dims ids = { 1, 1, 1, tokens, 1 };
    (void)pipeline;
    const struct weir_value text = weir_gemma2_build(net, p, weir_program_input(p, "ids", WEIR_I32, &ids));
    weir_program_output(p, "embedding", weir_program_widen(p, text));
}

/* A picture's latents as the networks want them, alike in every row of the item. */
static struct weir_value control_input(const struct weir_pipeline *pipeline, struct weir_program *p, uint32_t rows,
                                       const struct weir_item *item)
{
    uint32_t dims[4];
    weir_item_latent_dims(&pipeline->facts, item, dims);
    const struct weir_dims latents = { 1, dims[0], 1, dims[2] * dims[3], 1 };
    const struct weir_dims packed = { rows, 1, dims[2], dims[3], dims[0] };
    const struct weir_value x = weir_program_input(p, "control_latents", WEIR_F32, &latents);
    return weir_program_latents_pack(p, x, rows, 1, &packed);
}

static void build_prepare(const struct weir_pipeline *pipeline, const void *opaque, struct weir_program *p,
                          const struct weir_item *item, const struct weir_adapters *adapters)
{
    const struct denoise_net *net = opaque;
    const uint32_t rows = weir_item_guided(&pipeline->facts, item) ? 2 : 1;
    const struct weir_value text =
        weir_sana_transformer_build_prepare(net->transformer, p, rows, pipeline->facts.text_tokens, adapters);
    if (!net->controlnet) return;
    weir_sana_controlnet_build_prepare(net->controlnet, p, text, control_input(pipeline, p, rows, item));
}

static void build_step(const struct weir_pipeline *pipeline, const void *opaque, struct weir_program *p,
                       const struct weir_item *item, uint32_t items, const struct weir_adapters *adapters)
{
    const struct denoise_net *net = opaque;
    const struct weir_model_facts *facts = &pipeline->facts;
    const uint32_t copies = weir_item_guided(facts, item) ? 2 : 1;
    uint32_t dims[4];
    weir_item_latent_dims(facts, item, dims);
    const struct weir_dims latents = { items, dims[0], 1, dims[2] * dims[3], 1 };
    const struct weir_dims packed = { items * copies, 1, dims[2], dims[3], dims[0] };
    const struct weir_dims row_dims = { items * copies, 1, 1, 1, 1 }, item_dims = { items, 1, 1, 1, 1 };
    const struct weir_dims k_dims = { items, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    struct weir_value scale = { 0 };

    const struct weir_value x = weir_program_extern(p, "latents", WEIR_F32, &latents);
    const struct weir_value previous = weir_program_extern(p, "previous", WEIR_F32, &latents);
    const struct weir_value k = weir_program_input(p, "k", WEIR_F32, &k_dims);
    struct weir_sana_transformer_step step = { .t = weir_program_input(p, "t", WEIR_F32, &row_dims),
                                               .lengths = weir_program_input(p, "lengths", WEIR_I32, &row_dims),
                                               .tokens = facts->text_tokens,
                                               .controlnet = net->controlnet,
                                               .adapters = adapters };
    if (copies == 2 || facts->guidance_inside) scale = weir_program_input(p, "guidance", WEIR_F32, &item_dims);
    if (facts->guidance_inside) {
        step.guidance = scale;
        step.x = weir_program_latents_pack_scaled(p, x, k, copies, 1, &packed);
    } else {
        step.x = weir_program_latents_pack(p, x, copies, 1, &packed);
    }
    const struct weir_value y = weir_sana_transformer_build_step(net->transformer, p, &step);
    weir_program_sampler_step(p, x, weir_program_guidance(p, y, copies == 2 ? scale : (struct weir_value){ 0 }, copies),
                              previous, k);
}

/* Input "z", as the decoder wants it. */
static struct weir_value decoder_input(const struct weir_pipeline *pipeline, struct weir_program *p,
                                       const struct weir_item *item, uint32_t frames)
{
    uint32_t dims[4];
    weir_item_latent_dims(&pipeline->facts, item, dims);
    const struct weir_dims latents = { frames, dims[0], 1, dims[2] * dims[3], 1 };
    const struct weir_dims packed = { frames, 1, dims[2], dims[3], dims[0] };
    const float factor = (float)(1 / state_of(pipeline)->vae.scaling_factor);
    return weir_program_latents_pack(p, weir_program_input(p, "z", WEIR_F32, &latents), 1, factor, &packed);
}

static void decoder_output(struct weir_program *p, struct weir_value picture)
{
    weir_program_output(p, "picture", weir_program_widen(p, picture));
    weir_program_output(p, "rgb", weir_program_to_rgb8(p, picture, true));
}

static void build_decode(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                         const struct weir_item *item, uint32_t frames)
{
    decoder_output(p, weir_autoencoder_dc_build_decode(net, p, decoder_input(pipeline, p, item, frames)));
}

static struct weir_autoencoder_dc_cut cut_of(const struct weir_pipeline *pipeline, const struct weir_item *item)
{
    uint32_t dims[4];
    weir_item_latent_dims(&pipeline->facts, item, dims);
    return weir_autoencoder_dc_cut_decode(&state_of(pipeline)->vae, dims[2], dims[3], pipeline->whole_max);
}

static struct weir_bands decode_bands(const struct weir_pipeline *pipeline, const struct weir_item *item)
{
    return cut_of(pipeline, item).bands;
}

static void build_decode_bands(const struct weir_pipeline *pipeline, const void *net, const struct weir_item *item,
                               struct weir_program *once, struct weir_program *band)
{
    const struct weir_autoencoder_dc_cut cut = cut_of(pipeline, item);
    const struct weir_dims window = { 1, 1, cut.bands.window, cut.width, cut.channels };
    const uint32_t last = state_of(pipeline)->vae.stages + 1;
    const struct weir_value z = decoder_input(pipeline, once, item, 1);
    weir_program_output(once, "cut", weir_autoencoder_dc_build_steps(net, once, z, 0, cut.step - 1));
    const struct weir_value x = weir_program_extern(band, "x", weir_program_dtype(once), &window);
    decoder_output(band, weir_autoencoder_dc_build_steps(net, band, x, cut.step, last));
}

static void build_encode(const struct weir_pipeline *pipeline, const void *net, struct weir_program *p,
                         const struct weir_item *item)
{
    const struct weir_sana_size made = weir_item_made(&pipeline->facts, item);
    const struct weir_dims picture = { 1, 1, made.height, made.width, 3 };
    const struct weir_value x = weir_program_input(p, "picture", WEIR_F32, &picture);
    const struct weir_value z = weir_autoencoder_dc_build_encode(net, p, weir_program_narrow(p, x));
    weir_program_output(p, "z", weir_program_widen(p, z));
}

static const struct weir_params *adapted_params(const void *opaque)
{
    const struct denoise_net *net = opaque;
    return weir_sana_transformer_params(net->transformer);
}

static uint32_t slot_count(const void *opaque)
{
    const struct denoise_net *net = opaque;
    return weir_sana_transformer_slot_count(net->transformer) +
           (net->controlnet ? weir_sana_controlnet_slot_count(net->controlnet) : 0);
}

static void slot_name(const void *opaque, uint32_t index, char *out, size_t room)
{
    const struct denoise_net *net = opaque;
    const uint32_t own = weir_sana_transformer_slot_count(net->transformer);
    assert(room >= WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES);
    (void)room;
    if (index < own)
        weir_sana_transformer_slot_name(index, out);
    else
        weir_sana_controlnet_slot_name(index - own, out);
}

static uint32_t picture_channels(const struct weir_pipeline *pipeline)
{
    return state_of(pipeline)->vae.in_channels;
}

#define SHARED                                                                                                         \
    .text_components = text_components, .open = open_state, .close = close_state, .sampler_config = sampler_config,    \
    .tokens = tokens, .net_open = net_open, .net_close = net_close, .net_bytes = net_bytes, .build_text = build_text,  \
    .build_prepare = build_prepare, .build_step = build_step, .build_decode = build_decode,                            \
    .decode_bands = decode_bands, .build_decode_bands = build_decode_bands, .build_encode = build_encode,              \
    .adapted_params = adapted_params, .slot_count = slot_count, .slot_name = slot_name,                                \
    .picture_channels = picture_channels

const struct weir_pipeline_family weir_pipeline_sana = {
    .name = "sana", .class_name = "SanaPipeline", .components = components, SHARED
};
const struct weir_pipeline_family weir_pipeline_sana_control = {
    .name = "sana-control", .class_name = "SanaControlNetPipeline", .components = control_components, SHARED
};
const struct weir_pipeline_family weir_pipeline_sana_sprint = {
    .name = "sana-sprint", .class_name = "SanaSprintPipeline", .components = components, SHARED
};
