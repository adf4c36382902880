#include "worker/nets/autoencoder_dc.h"

#include "worker/config.h"
#include "worker/nets/params.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NORM_EPS 1e-5f /* constants of the classes */
#define ATTENTION_EPS 1e-15f
#define EXPANSION 4
#define PREFIX_BYTES 64
#define KEY_BYTES 64
#define STAGES_MAX WEIR_AUTOENCODER_DC_STAGES_MAX
#define SCALES_MAX WEIR_AUTOENCODER_DC_SCALES_MAX

struct weir_autoencoder_dc {
    struct weir_autoencoder_dc_config config;
    enum weir_autoencoder_dc_half half;
    struct weir_params *params;
};

/* ---- the config ---- */

/* One half's stages, as its keys say; "encoder_block_types" and so on. */
struct half_keys {
    const char *half;
    int64_t layers_default[6];
    struct weir_autoencoder_dc_stage *stages;
    uint32_t count, first; /* first: the first stage that has channels */
};

static const char *key_of(char out[KEY_BYTES], const struct half_keys *keys, const char *name)
{
    snprintf(out, KEY_BYTES, "%s_%s", keys->half, name);
    return out;
}
#define KEY(name) key_of((char[KEY_BYTES]){ 0 }, keys, name)

static enum weir_status read_block_types(const struct weir_config *config, const struct half_keys *keys,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *types[STAGES_MAX];
    WEIR_TRY(weir_config_text_spread(config, KEY("block_types"), "ResBlock", keys->count, types, error));
    for (uint32_t i = 0; i < keys->count; i++) {
        keys->stages[i].attends = strcmp(types[i], "EfficientViTBlock") == 0;
        if (!keys->stages[i].attends && strcmp(types[i], "ResBlock") != 0)
            WEIR_TRY(weir_config_refuse(config, KEY("block_types"), "ResBlock or EfficientViTBlock", error));
    }
cleanup:
    return status;
}

/* A list of layers may be longer than that of channels: diffusers saves its default of six beside three stages. */
static enum weir_status read_layers(const struct weir_config *config, struct half_keys *keys, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int64_t layers[STAGES_MAX];
    size_t count;
    WEIR_TRY(weir_config_int_list(config, KEY("layers_per_block"), keys->layers_default,
                                  WEIR_COUNT(keys->layers_default), 0, 64, STAGES_MAX, layers, &count, error));
    if (count < keys->count) {
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: %s has %zu values, wanted at least %u, one a stage",
                           weir_config_label(config), KEY("layers_per_block"), count, keys->count);
        goto cleanup;
    }
    for (uint32_t i = 0; i < keys->count; i++) {
        const bool may_be_empty = keys->count > 1 && (i == 0 || i + 1 == keys->count);
        if (layers[i] == 0 && !may_be_empty)
            WEIR_TRY(weir_config_refuse(config, KEY("layers_per_block"), "0 for the first or last of many stages alone",
                                        error));
        keys->stages[i].layers = (uint32_t)layers[i];
    }
    keys->first = layers[0] > 0 ? 0 : 1;
cleanup:
    return status;
}

static enum weir_status read_scales(const struct weir_config *config, const struct half_keys *keys,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int64_t kernels[STAGES_MAX * SCALES_MAX] = { [3 * SCALES_MAX] = 5, [4 * SCALES_MAX] = 5, [5 * SCALES_MAX] = 5 };
    size_t counts[STAGES_MAX] = { 0, 0, 0, 1, 1, 1 };
    WEIR_TRY(
        weir_config_int_lists(config, KEY("qkv_multiscales"), 1, 63, keys->count, SCALES_MAX, kernels, counts, error));
    for (uint32_t i = 0; i < keys->count; i++) {
        if (!keys->stages[i].attends) continue; /* nobody reads it */
        keys->stages[i].scales = (uint32_t)counts[i];
        for (uint32_t k = 0; k < keys->stages[i].scales; k++) {
            const int64_t kernel = kernels[i * SCALES_MAX + k];
            if (kernel % 2 == 0) WEIR_TRY(weir_config_refuse(config, KEY("qkv_multiscales"), "odd numbers", error));
            keys->stages[i].kernel[k] = (uint32_t)kernel;
        }
    }
cleanup:
    return status;
}

static enum weir_status read_half(const struct weir_config *config, uint32_t head_dim, struct half_keys *keys,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const int64_t channels_default[] = { 128, 256, 512, 512, 1024, 1024 };
    int64_t channels[STAGES_MAX];
    size_t count;
    WEIR_TRY(weir_config_int_list(config, KEY("block_out_channels"), channels_default, WEIR_COUNT(channels_default), 1,
                                  16384, STAGES_MAX, channels, &count, error));
    keys->count = (uint32_t)count;
    WEIR_TRY(read_block_types(config, keys, error));
    WEIR_TRY(read_layers(config, keys, error));
    WEIR_TRY(read_scales(config, keys, error));
    for (uint32_t i = 0; i < keys->count; i++) {
        struct weir_autoencoder_dc_stage *stage = &keys->stages[i];
        stage->channels = (uint32_t)channels[i];
        stage->activation = WEIR_ACT_SILU;
        if (stage->attends && stage->layers > 0 && stage->channels < head_dim)
            WEIR_TRY(weir_config_refuse(config, KEY("block_out_channels"),
                                        "at least attention_head_dim where the block is an EfficientViTBlock", error));
    }
cleanup:
    return status;
}

static bool activation_of(const char *name, enum weir_activation *out)
{
    static const struct {
        const char *name;
        enum weir_activation activation;
    } known[] = {
        { "silu", WEIR_ACT_SILU }, { "swish", WEIR_ACT_SILU }, { "gelu", WEIR_ACT_GELU }, { "relu", WEIR_ACT_RELU }
    };
    for (size_t i = 0; i < WEIR_COUNT(known); i++) {
        if (strcasecmp(name, known[i].name) == 0) {
            *out = known[i].activation;
            return true;
        }
    }
    return false;
}
#define ACTIVATIONS "silu, swish, gelu or relu"

/* What the decoder alone may choose. Its other norms are none that diffusers could run or that a file is known to have:
 * layer_norm runs over the width of a picture there. */
static enum weir_status read_decoder(const struct weir_config *config, struct weir_autoencoder_dc_config *c,
                                     uint32_t stages, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *norms[STAGES_MAX], *activations[STAGES_MAX], *last;
    WEIR_TRY(weir_config_text_spread(config, "decoder_norm_types", "rms_norm", stages, norms, error));
    WEIR_TRY(weir_config_text_spread(config, "decoder_act_fns", "silu", stages, activations, error));
    WEIR_TRY(weir_config_text(config, "decoder_conv_act_fn", "relu", &last, error));
    for (uint32_t i = 0; i < stages; i++) {
        if (strcmp(norms[i], "rms_norm") != 0)
            WEIR_TRY(weir_config_refuse(config, "decoder_norm_types", "rms_norm", error));
        if (!activation_of(activations[i], &c->decoder[i].activation))
            WEIR_TRY(weir_config_refuse(config, "decoder_act_fns", ACTIVATIONS, error));
    }
    if (!activation_of(last, &c->conv_activation))
        WEIR_TRY(weir_config_refuse(config, "decoder_conv_act_fn", ACTIVATIONS, error));
cleanup:
    return status;
}

/* The shortcuts take means of channels, or repeat them: each width must be a multiple of the other's share. */
static enum weir_status check_widths(const struct weir_config *config, const struct weir_autoencoder_dc_config *c,
                                     const struct half_keys *encoder, const struct half_keys *decoder,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char divisors[] = "each a divisor of 4 times the one before it";
    for (uint32_t i = encoder->first; i + 1 < c->stages; i++) {
        if (4 * c->encoder[i].channels % c->encoder[i + 1].channels != 0)
            WEIR_TRY(weir_config_refuse(config, "encoder_block_out_channels", divisors, error));
    }
    for (uint32_t i = 1; c->pixel_unshuffle && i < c->stages; i++) {
        if (c->encoder[i].channels % 4 != 0)
            WEIR_TRY(weir_config_refuse(config, "encoder_block_out_channels",
                                        "multiples of 4 after the first, for downsample_block_type pixel_unshuffle",
                                        error));
    }
    for (uint32_t i = decoder->first; i + 1 < c->stages; i++) {
        if (4 * c->decoder[i].channels % c->decoder[i + 1].channels != 0)
            WEIR_TRY(weir_config_refuse(config, "decoder_block_out_channels", divisors, error));
    }
    if (c->encoder_out_shortcut && c->encoder[c->stages - 1].channels % c->latent_channels != 0)
        WEIR_TRY(weir_config_refuse(config, "encoder_block_out_channels",
                                    "the last a multiple of latent_channels, for encoder_out_shortcut", error));
    if (c->decoder_in_shortcut && c->decoder[c->stages - 1].channels % c->latent_channels != 0)
        WEIR_TRY(weir_config_refuse(config, "decoder_block_out_channels",
                                    "the last a multiple of latent_channels, for decoder_in_shortcut", error));
cleanup:
    return status;
}

enum weir_status weir_autoencoder_dc_config_read(const struct weir_config *config,
                                                 struct weir_autoencoder_dc_config *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char *const ways_up[] = { "pixel_shuffle", "interpolate", NULL };
    static const char *const ways_down[] = { "pixel_unshuffle", "Conv", "conv", NULL };
    struct weir_autoencoder_dc_config c = { 0 };
    struct half_keys encoder = { .half = "encoder", .layers_default = { 2, 2, 2, 3, 3, 3 }, .stages = c.encoder };
    struct half_keys decoder = { .half = "decoder", .layers_default = { 3, 3, 3, 3, 3, 3 }, .stages = c.decoder };
    int64_t in_channels, latent, head_dim;
    size_t up, down;

    WEIR_TRY(weir_config_int(config, "in_channels", 3, 3, 1024, &in_channels, error));
    WEIR_TRY(weir_config_int(config, "latent_channels", 32, 1, 1024, &latent, error));
    WEIR_TRY(weir_config_int(config, "attention_head_dim", 32, 1, 1024, &head_dim, error));
    WEIR_TRY(weir_config_choice(config, "upsample_block_type", "pixel_shuffle", ways_up, &up, error));
    WEIR_TRY(weir_config_choice(config, "downsample_block_type", "pixel_unshuffle", ways_down, &down, error));
    WEIR_TRY(weir_config_bool(config, "encoder_out_shortcut", true, &c.encoder_out_shortcut, error));
    WEIR_TRY(weir_config_bool(config, "decoder_in_shortcut", true, &c.decoder_in_shortcut, error));
    WEIR_TRY(weir_config_real(config, "scaling_factor", 1.0, 1e-6, 1e6, &c.scaling_factor, error));
    WEIR_TRY(read_half(config, (uint32_t)head_dim, &encoder, error));
    WEIR_TRY(read_half(config, (uint32_t)head_dim, &decoder, error));
    if (encoder.count != decoder.count)
        WEIR_TRY(
            weir_config_refuse(config, "decoder_block_out_channels", "as many as encoder_block_out_channels", error));
    WEIR_TRY(read_decoder(config, &c, decoder.count, error));
    c.in_channels = (uint32_t)in_channels;
    c.latent_channels = (uint32_t)latent;
    c.head_dim = (uint32_t)head_dim;
    c.stages = decoder.count;
    c.factor = 1u << (c.stages - 1);
    c.interpolate = up == 1;
    c.pixel_unshuffle = down == 0;
    WEIR_TRY(check_widths(config, &c, &encoder, &decoder, error));
    *out = c;
cleanup:
    return status;
}

/* ---- layers ---- */

static const struct weir_value none = { 0 };

/* 3 x 3, of the same size but for the call's stride. */
static struct weir_value conv(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                              struct weir_conv2d_params shape, struct weir_conv2d_call call, const char *prefix,
                              const char *name)
{
    shape.kernel = 3;
    call.pad = call.pad_end = 1;
    return weir_program_conv2d(p, weir_params_conv2d(net->params, &shape, "%s.%s", prefix, name), x, &call);
}

static struct weir_value norm(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                              uint32_t channels, struct weir_rms_norm_call call, const char *prefix, const char *name)
{
    const struct weir_rms_norm_params shape = { .channels = channels, .bias = true };
    call.eps = NORM_EPS;
    return weir_program_rms_norm(p, weir_params_rms_norm(net->params, &shape, "%s.%s", prefix, name), x, &call);
}

static struct weir_value res_block(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                                   const struct weir_autoencoder_dc_stage *stage, const char *prefix)
{
    const uint32_t c = stage->channels;
    const struct weir_conv2d_call plain = { 0 };
    const struct weir_conv2d_call first = { .silu = stage->activation == WEIR_ACT_SILU };
    struct weir_value h = conv(net, p, x, (struct weir_conv2d_params){ .in = c, .out = c }, first, prefix, "conv1");
    if (!first.silu) h = weir_program_activate(p, h, stage->activation);
    h = conv(net, p, h, (struct weir_conv2d_params){ .in = c, .out = c, .no_bias = true }, plain, prefix, "conv2");
    return norm(net, p, h, c, (struct weir_rms_norm_call){ .residual = x }, prefix, "norm");
}

/* Whoever named the projections to_q, to_k and to_v cut a network's one projection in three: its channels are groups of
 * three heads, whose first is the query, the second the key and the third the value. */
static struct weir_value attend(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value qkv,
                                uint32_t heads)
{
    const uint32_t d = net->config.head_dim;
    return weir_program_linear_attention(p, qkv,
                                         &(struct weir_linear_attention_call){ .heads = heads,
                                                                               .head_dim = d,
                                                                               .head_step = 3 * d,
                                                                               .k_channel = d,
                                                                               .v_channel = 2 * d,
                                                                               .eps = ATTENTION_EPS });
}

/* diffusers puts the projection and its blurred copies side by side and attends once. No group of three heads lies in
 * two of them, so each attends by itself here, and what is put side by side is a third as wide. */
static struct weir_value multiscale_attention(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                              struct weir_value x, const struct weir_autoencoder_dc_stage *stage,
                                              const char *prefix)
{
    const uint32_t c = stage->channels, heads = c / net->config.head_dim, inner = heads * net->config.head_dim;
    const struct weir_linear_params stack = {
        .in = c, .out = 3 * inner, .parts = 3, .part = { "to_q", "to_k", "to_v" }
    };
    const struct weir_linear_params out = { .in = inner * (1 + stage->scales), .out = c };
    const struct weir_value qkv =
        weir_program_linear(p, weir_params_linear(net->params, &stack, "%s.attn", prefix), x, NULL);
    struct weir_value h = attend(net, p, qkv, heads);
    for (uint32_t i = 0; i < stage->scales; i++) {
        struct weir_value s =
            weir_program_depthwise_conv(p,
                                        weir_params_depthwise_conv(net->params, 3 * inner, stage->kernel[i], false,
                                                                   "%s.attn.to_qkv_multiscale.%u.proj_in", prefix, i),
                                        qkv, &(struct weir_depthwise_conv_call){ .glu = false });
        s = weir_program_grouped_linear(p,
                                        weir_params_grouped_linear(net->params, 3 * inner, 3 * inner, 3 * heads,
                                                                   "%s.attn.to_qkv_multiscale.%u.proj_out", prefix, i),
                                        s);
        h = weir_program_concat(p, h, attend(net, p, s, heads));
    }
    h = weir_program_linear(p, weir_params_linear(net->params, &out, "%s.attn.to_out", prefix), h, NULL);
    return norm(net, p, h, c, (struct weir_rms_norm_call){ .residual = x }, prefix, "attn.norm_out");
}

/* GLUMBConv */
static struct weir_value gated_conv(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                                    uint32_t c, const char *prefix)
{
    const uint32_t hidden = EXPANSION * c;
    const struct weir_linear_params inverted = { .in = c, .out = 2 * hidden, .bias = true };
    const struct weir_linear_params point = { .in = hidden, .out = c };
    struct weir_value h = weir_program_linear(
        p, weir_params_linear(net->params, &inverted, "%s.conv_out.conv_inverted", prefix), x, NULL);
    h = weir_program_depthwise_conv(
        p, weir_params_depthwise_conv(net->params, 2 * hidden, 3, true, "%s.conv_out.conv_depth", prefix), h,
        &(struct weir_depthwise_conv_call){ .activation = WEIR_ACT_SILU, .glu = true });
    h = weir_program_linear(p, weir_params_linear(net->params, &point, "%s.conv_out.conv_point", prefix), h, NULL);
    return norm(net, p, h, c, (struct weir_rms_norm_call){ .residual = x }, prefix, "conv_out.norm");
}

static struct weir_value block(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                               const struct weir_autoencoder_dc_stage *stage, const char *prefix)
{
    if (!stage->attends) return res_block(net, p, x, stage, prefix);
    x = multiscale_attention(net, p, x, stage, prefix);
    return gated_conv(net, p, x, stage->channels, prefix);
}

/* Half the size. The shortcut comes first, so that the convolution can add to it in place. */
static struct weir_value way_down(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                                  uint32_t in, uint32_t out, bool shortcut, const char *prefix)
{
    const struct weir_value s = shortcut ? weir_program_pixel_unshuffle(p, x, out, none) : none;
    if (!net->config.pixel_unshuffle)
        return conv(net, p, x, (struct weir_conv2d_params){ .in = in, .out = out },
                    (struct weir_conv2d_call){ .stride = 2, .residual = s }, prefix, "conv");
    x = conv(net, p, x, (struct weir_conv2d_params){ .in = in, .out = out / 4 }, (struct weir_conv2d_call){ 0 }, prefix,
             "conv");
    return weir_program_pixel_unshuffle(p, x, out, s);
}

/* Twice the size. */
static struct weir_value way_up(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x,
                                uint32_t in, uint32_t out, bool shortcut, const char *prefix)
{
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_value s = shortcut ? weir_program_pixel_shuffle(p, x, out, none) : none;
    if (net->config.interpolate)
        return conv(
            net, p, x, (struct weir_conv2d_params){ .in = in, .out = out, .doubled = true },
            (struct weir_conv2d_call){ .resize_height = 2 * d.height, .resize_width = 2 * d.width, .residual = s },
            prefix, "conv");
    x = conv(net, p, x, (struct weir_conv2d_params){ .in = in, .out = 4 * out }, (struct weir_conv2d_call){ 0 }, prefix,
             "conv");
    return weir_program_pixel_shuffle(p, x, out, s);
}

/* ---- the decoder ---- */

static struct weir_value decoder_in(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value z)
{
    const struct weir_autoencoder_dc_config *c = &net->config;
    const uint32_t deepest = c->decoder[c->stages - 1].channels;
    const struct weir_value s = c->decoder_in_shortcut ? weir_program_regroup(p, z, deepest) : none;
    return conv(net, p, z, (struct weir_conv2d_params){ .in = c->latent_channels, .out = deepest },
                (struct weir_conv2d_call){ .residual = s }, "decoder", "conv_in");
}

static struct weir_value decoder_stage(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                       struct weir_value x, uint32_t index)
{
    const struct weir_autoencoder_dc_stage *stage = &net->config.decoder[index];
    char prefix[PREFIX_BYTES];
    uint32_t place = 0; /* in the list of the stage, where the way up is first */
    if (index + 1 < net->config.stages && stage->layers > 0) {
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%u.%u", index, place++);
        x = way_up(net, p, x, stage[1].channels, stage->channels, true, prefix);
    }
    for (uint32_t i = 0; i < stage->layers; i++) {
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%u.%u", index, place++);
        x = block(net, p, x, stage, prefix);
    }
    return x;
}

static struct weir_value decoder_out(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x)
{
    const struct weir_autoencoder_dc_config *c = &net->config;
    const bool whole = c->decoder[0].layers > 0;
    const uint32_t in = c->decoder[whole ? 0 : 1].channels;
    const bool apart = c->conv_activation == WEIR_ACT_GELU; /* the norm has no such activation */
    const struct weir_rms_norm_call call = { .activation = apart ? WEIR_ACT_NONE : c->conv_activation };
    x = norm(net, p, x, in, call, "decoder", "norm_out");
    if (apart) x = weir_program_activate(p, x, c->conv_activation);
    if (!whole) return way_up(net, p, x, in, c->in_channels, false, "decoder.conv_out");
    return conv(net, p, x, (struct weir_conv2d_params){ .in = in, .out = c->in_channels },
                (struct weir_conv2d_call){ 0 }, "decoder", "conv_out");
}

static struct weir_value decoder_step(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                      struct weir_value x, uint32_t step)
{
    const uint32_t stages = net->config.stages;
    if (step == 0) return decoder_in(net, p, x);
    return step <= stages ? decoder_stage(net, p, x, stages - step) : decoder_out(net, p, x);
}

/* ---- the encoder ---- */

static struct weir_value encoder_in(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x)
{
    const struct weir_autoencoder_dc_config *c = &net->config;
    if (c->encoder[0].layers == 0)
        return way_down(net, p, x, c->in_channels, c->encoder[1].channels, false, "encoder.conv_in");
    return conv(net, p, x, (struct weir_conv2d_params){ .in = c->in_channels, .out = c->encoder[0].channels },
                (struct weir_conv2d_call){ 0 }, "encoder", "conv_in");
}

static struct weir_value encoder_stage(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                       struct weir_value x, uint32_t index)
{
    const struct weir_autoencoder_dc_stage *stage = &net->config.encoder[index];
    char prefix[PREFIX_BYTES];
    for (uint32_t i = 0; i < stage->layers; i++) {
        snprintf(prefix, sizeof prefix, "encoder.down_blocks.%u.%u", index, i);
        x = block(net, p, x, stage, prefix);
    }
    if (index + 1 == net->config.stages || stage->layers == 0) return x;
    snprintf(prefix, sizeof prefix, "encoder.down_blocks.%u.%u", index, stage->layers);
    return way_down(net, p, x, stage->channels, stage[1].channels, true, prefix);
}

static struct weir_value encoder_out(const struct weir_autoencoder_dc *net, struct weir_program *p, struct weir_value x)
{
    const struct weir_autoencoder_dc_config *c = &net->config;
    const struct weir_value s = c->encoder_out_shortcut ? weir_program_regroup(p, x, c->latent_channels) : none;
    return conv(net, p, x,
                (struct weir_conv2d_params){ .in = c->encoder[c->stages - 1].channels, .out = c->latent_channels },
                (struct weir_conv2d_call){ .residual = s }, "encoder", "conv_out");
}

static struct weir_value encoder_step(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                      struct weir_value x, uint32_t step)
{
    const uint32_t stages = net->config.stages;
    if (step == 0) return encoder_in(net, p, x);
    return step <= stages ? encoder_stage(net, p, x, step - 1) : encoder_out(net, p, x);
}

/* ---- both ---- */

struct weir_value weir_autoencoder_dc_build_steps(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                  struct weir_value x, uint32_t first, uint32_t last)
{
    const bool decoder = net->half == WEIR_AUTOENCODER_DC_DECODER;
    assert(first <= last && last <= net->config.stages + 1);
    for (uint32_t step = first; step <= last; step++)
        x = decoder ? decoder_step(net, p, x, step) : encoder_step(net, p, x, step);
    return x;
}

struct weir_value weir_autoencoder_dc_build_decode(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                   struct weir_value z)
{
    assert(net->half == WEIR_AUTOENCODER_DC_DECODER);
    return weir_autoencoder_dc_build_steps(net, p, z, 0, net->config.stages + 1);
}

struct weir_value weir_autoencoder_dc_build_encode(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                   struct weir_value picture)
{
    assert(net->half == WEIR_AUTOENCODER_DC_ENCODER);
    return weir_autoencoder_dc_build_steps(net, p, picture, 0, net->config.stages + 1);
}

/* ---- a decode in bands ---- */

/* What a step does to rows: convolutions of 3 x 3, and a way up before them. */
struct step_rows {
    uint32_t convolutions; /* after the way up, one after another */
    bool up;
    uint32_t channels; /* that it gives */
};

static struct step_rows rows_of(const struct weir_autoencoder_dc_config *c, uint32_t step, uint32_t channels)
{
    const bool whole = c->decoder[0].layers > 0;
    if (step == 0) return (struct step_rows){ 1, false, c->decoder[c->stages - 1].channels };
    if (step > c->stages) return (struct step_rows){ whole ? 1 : 0, !whole, c->in_channels };
    const struct weir_autoencoder_dc_stage *stage = &c->decoder[c->stages - step];
    if (stage->layers == 0) return (struct step_rows){ 0, false, channels };
    return (struct step_rows){ 2 * stage->layers, step > 1, stage->channels };
}

/* Rows that must be known beside those a step is asked for, to know `beside` of what it gives. The way up convolves
 * what it repeated, or shuffles what it convolved. */
static uint32_t reach(const struct weir_autoencoder_dc_config *c, struct step_rows rows, uint32_t beside)
{
    beside += rows.convolutions;
    if (!rows.up) return beside;
    return c->interpolate ? (beside + 2) / 2 : (beside + 1) / 2 + 1;
}

static bool attends(const struct weir_autoencoder_dc_config *c, uint32_t step)
{
    if (step == 0 || step > c->stages) return false;
    const struct weir_autoencoder_dc_stage *stage = &c->decoder[c->stages - step];
    return stage->attends && stage->layers > 0;
}

/* A ResBlock's values that are alive at once: what it was given, and what goes in and out of a convolution; a gated
 * convolution's: what it was given, both halves, and their product. In widths of the stage. */
#define RES_BLOCK_VALUES 3
#define GATED_CONV_VALUES (1 + 3 * EXPANSION)

/* Groups that a picture's bands are shared out to. Each of them may cost the steps that run once again, an eighth of a
 * decode of f32c32, so there is one for 4 Mi pixels. Two are the least that help; with 4, a list of WEIR_JOB_PROMPTS_MAX prompts
 * still has no more tasks than one plan holds. */
#define GROUP_PIXELS_LOG2 22
#define GROUPS_MIN 2
#define GROUPS_MAX 4

static uint32_t groups_of(uint64_t pixels)
{
    const uint64_t wanted = pixels >> GROUP_PIXELS_LOG2;
    return wanted < GROUPS_MIN ? GROUPS_MIN : wanted > GROUPS_MAX ? GROUPS_MAX : (uint32_t)wanted;
}

struct weir_autoencoder_dc_cut weir_autoencoder_dc_cut_decode(const struct weir_autoencoder_dc_config *c,
                                                              uint32_t height, uint32_t width, uint64_t whole_max)
{
    struct weir_autoencoder_dc_cut cut = { .step = 1 };
    struct step_rows rows[STAGES_MAX + 2];
    uint64_t once = 0, row = 0; /* floats alive: in the steps that run once; in a row that `step` is given */
    uint32_t scale = 1, halo = 0;
    for (uint32_t step = 1; step <= c->stages; step++) {
        if (attends(c, step)) cut.step = step + 1;
    }
    for (uint32_t step = 0; step <= c->stages + 1; step++) {
        rows[step] = rows_of(c, step, step ? rows[step - 1].channels : c->latent_channels);
        if (step == cut.step) {
            cut.channels = rows[step - 1].channels;
            cut.width = width * scale;
            cut.bands.height = height * scale;
            scale = 1; /* from here on, of the picture to what is cut */
        }
        scale *= rows[step].up ? 2 : 1;
        const uint64_t values = attends(c, step) ? GATED_CONV_VALUES : RES_BLOCK_VALUES;
        const uint64_t floats = values * rows[step].channels * scale * scale;
        if (step < cut.step && floats * height * width > once) once = floats * height * width;
        if (step >= cut.step && floats * cut.width > row) row = floats * cut.width;
    }
    for (uint32_t step = c->stages + 1; step >= cut.step; step--) halo = reach(c, rows[step], halo);

    const uint64_t whole = row * cut.bands.height > once ? row * cut.bands.height : once;
    const uint64_t least = whole_max / 2 / sizeof(float), band = once > least ? once : least;
    const uint64_t window_max = whole * sizeof(float) > whole_max ? band / row : cut.bands.height;
    const uint64_t pixels = (uint64_t)cut.bands.height * scale * cut.width * scale;
    cut.bands = weir_bands_cut(cut.bands.height, scale, halo, window_max, groups_of(pixels));
    return cut;
}

/* ---- opening ---- */

/* Builds once, which loads every layer. */
static enum weir_status load(struct weir_autoencoder_dc *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_params_program(net->params, &p, error));
    weir_autoencoder_dc_build_steps(net, p, none, 0, net->config.stages + 1);
    WEIR_TRY(weir_params_seal(net->params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_autoencoder_dc_open(struct weir_device *device, const struct weir_autoencoder_dc_config *config,
                                          enum weir_autoencoder_dc_half half, const struct weir_weights *weights,
                                          enum weir_dtype dtype, struct weir_autoencoder_dc **out,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_autoencoder_dc *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "autoencoder_dc: no memory for its config");
    net->config = *config;
    net->half = half;
    WEIR_TRY(weir_params_create(device, weights, dtype, &net->params, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_autoencoder_dc_close(&net);
    return status;
}

void weir_autoencoder_dc_close(struct weir_autoencoder_dc **net_p)
{
    struct weir_autoencoder_dc *net = *net_p;
    if (!net) return;
    weir_params_destroy(&net->params);
    free(net);
    *net_p = NULL;
}

const struct weir_autoencoder_dc_config *weir_autoencoder_dc_config_of(const struct weir_autoencoder_dc *net)
{
    return &net->config;
}

uint64_t weir_autoencoder_dc_weight_bytes(const struct weir_autoencoder_dc *net)
{
    return weir_params_bytes(net->params);
}

uint64_t weir_autoencoder_dc_parameter_count(const struct weir_autoencoder_dc *net)
{
    return weir_params_count(net->params);
}
