#include "worker/nets/autoencoder_kl.h"

#include "worker/config.h"
#include "worker/nets/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORM_EPS 1e-6f /* a constant of the class */
#define PREFIX_BYTES 64

struct weir_autoencoder_kl {
    struct weir_autoencoder_kl_config config;
    struct weir_params *params;
    bool old_names; /* query, key, value, proj_attn instead of to_q, to_k, to_v, to_out.0 */
};

enum weir_status weir_autoencoder_kl_config_read(const struct weir_config *config,
                                                 struct weir_autoencoder_kl_config *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const int64_t channels_default[] = { 64 };
    static const char *const blocks_default[] = { "UpDecoderBlock2D" };
    int64_t out_channels, latent, layers, groups, channels[WEIR_AUTOENCODER_KL_LEVELS_MAX];
    const char *blocks[WEIR_AUTOENCODER_KL_LEVELS_MAX], *activation;
    size_t levels, block_count;
    struct weir_autoencoder_kl_config c = { 0 };
    char wanted[80];

    WEIR_TRY(weir_config_text(config, "act_fn", "silu", &activation, error));
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        WEIR_TRY(weir_config_refuse(config, "act_fn", "silu", error));
    WEIR_TRY(weir_config_int(config, "out_channels", 3, 3, 1024, &out_channels, error));
    WEIR_TRY(weir_config_int(config, "latent_channels", 4, 1, 1024, &latent, error));
    WEIR_TRY(weir_config_int(config, "layers_per_block", 1, 1, 16, &layers, error));
    WEIR_TRY(weir_config_int(config, "norm_num_groups", 32, 1, 1024, &groups, error));
    WEIR_TRY(weir_config_int_list(config, "block_out_channels", channels_default, 1, 1, 16384,
                                  WEIR_AUTOENCODER_KL_LEVELS_MAX, channels, &levels, error));
    WEIR_TRY(weir_config_text_list(config, "up_block_types", blocks_default, 1, WEIR_AUTOENCODER_KL_LEVELS_MAX, blocks,
                                   &block_count, error));
    WEIR_TRY(weir_config_real(config, "scaling_factor", 0.18215, 1e-6, 1e6, &c.scaling_factor, error));
    WEIR_TRY(weir_config_bool(config, "mid_block_add_attention", true, &c.mid_attention, error));
    WEIR_TRY(weir_config_bool(config, "use_post_quant_conv", true, &c.post_quant_conv, error));
    snprintf(wanted, sizeof wanted, "%zu times UpDecoderBlock2D", levels);
    if (block_count != levels) WEIR_TRY(weir_config_refuse(config, "up_block_types", wanted, error));
    snprintf(wanted, sizeof wanted, "multiples of norm_num_groups, %lld", (long long)groups);
    for (size_t i = 0; i < levels; i++) {
        if (strcmp(blocks[i], "UpDecoderBlock2D") != 0)
            WEIR_TRY(weir_config_refuse(config, "up_block_types", "UpDecoderBlock2D", error));
        if (channels[i] % groups != 0) WEIR_TRY(weir_config_refuse(config, "block_out_channels", wanted, error));
        c.channels[i] = (uint32_t)channels[i];
    }
    c.out_channels = (uint32_t)out_channels;
    c.latent_channels = (uint32_t)latent;
    c.layers_per_block = (uint32_t)layers;
    c.groups = (uint32_t)groups;
    c.levels = (uint32_t)levels;
    c.factor = 1u << (levels - 1);
    *out = c;
cleanup:
    return status;
}

/* ---- the decoder ---- */

static struct weir_value norm(const struct weir_autoencoder_kl *net, struct weir_program *p, struct weir_value x,
                              uint32_t channels, bool silu, const char *prefix, const char *name)
{
    return weir_program_group_norm(p, weir_params_group_norm(net->params, channels, "%s.%s", prefix, name), x,
                                   net->config.groups, NORM_EPS, silu, false);
}

static struct weir_value conv(const struct weir_autoencoder_kl *net, struct weir_program *p, struct weir_value x,
                              const struct weir_conv2d_params *shape, struct weir_conv2d_call call, const char *prefix,
                              const char *name)
{
    call.pad = call.pad_end = shape->kernel / 2;
    return weir_program_conv2d(p, weir_params_conv2d(net->params, shape, "%s%s", prefix, name), x, &call);
}

static struct weir_value resnet(const struct weir_autoencoder_kl *net, struct weir_program *p, struct weir_value x,
                                uint32_t in, uint32_t out, const char *prefix)
{
    const struct weir_conv2d_params first = { .in = in, .out = out, .kernel = 3 };
    const struct weir_conv2d_params second = { .in = out, .out = out, .kernel = 3 };
    const struct weir_conv2d_params pointwise = { .in = in, .out = out, .kernel = 1 };
    struct weir_value skip = x;
    if (in != out) skip = conv(net, p, x, &pointwise, (struct weir_conv2d_call){ 0 }, prefix, ".conv_shortcut");
    struct weir_value h = norm(net, p, x, in, true, prefix, "norm1");
    h = conv(net, p, h, &first, (struct weir_conv2d_call){ 0 }, prefix, ".conv1");
    h = norm(net, p, h, out, true, prefix, "norm2");
    return conv(net, p, h, &second, (struct weir_conv2d_call){ .residual = skip }, prefix, ".conv2");
}

/* One head as wide as the level, over the pixels of a frame. */
static struct weir_value mid_attention(const struct weir_autoencoder_kl *net, struct weir_program *p,
                                       struct weir_value x)
{
    static const char prefix[] = "decoder.mid_block.attentions.0";
    const bool old = net->old_names;
    const uint32_t width = net->config.channels[net->config.levels - 1];
    const struct weir_linear_params stack = {
        .in = width,
        .out = 3 * width,
        .bias = true,
        .parts = 3,
        .part = { old ? "query" : "to_q", old ? "key" : "to_k", old ? "value" : "to_v" },
    };
    const struct weir_linear_params out = { .in = width, .out = width, .bias = true };
    struct weir_value h = norm(net, p, x, width, false, prefix, "group_norm");
    h = weir_program_linear(p, weir_params_linear(net->params, &stack, "%s", prefix), h, NULL);
    h = weir_program_attention(p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_SPATIAL,
                                                                 .q = h,
                                                                 .k = h,
                                                                 .v = h,
                                                                 .k_channel = width,
                                                                 .v_channel = 2 * width,
                                                                 .heads = 1,
                                                                 .head_dim = width,
                                                                 .scale = 1.0f / sqrtf((float)width) });
    return weir_program_linear(p,
                               weir_params_linear(net->params, &out, "%s.%s", prefix, old ? "proj_attn" : "to_out.0"),
                               h, &(struct weir_linear_call){ .residual = x });
}

static struct weir_value up_block(const struct weir_autoencoder_kl *net, struct weir_program *p, struct weir_value x,
                                  uint32_t index, uint32_t in, uint32_t out)
{
    const struct weir_conv2d_params shape = { .in = out, .out = out, .kernel = 3, .doubled = true };
    char prefix[PREFIX_BYTES];
    for (uint32_t layer = 0; layer <= net->config.layers_per_block; layer++, in = out) {
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%u.resnets.%u", index, layer);
        x = resnet(net, p, x, in, out, prefix);
    }
    if (index + 1 == net->config.levels) return x;
    const struct weir_dims d = weir_program_dims(p, x);
    snprintf(prefix, sizeof prefix, "decoder.up_blocks.%u.upsamplers.0", index);
    return conv(net, p, x, &shape,
                (struct weir_conv2d_call){ .resize_height = 2 * d.height, .resize_width = 2 * d.width }, prefix,
                ".conv");
}

struct weir_value weir_autoencoder_kl_build_decode(const struct weir_autoencoder_kl *net, struct weir_program *p,
                                                   struct weir_value z)
{
    const struct weir_autoencoder_kl_config *c = &net->config;
    const uint32_t deepest = c->channels[c->levels - 1], latent = c->latent_channels;
    const struct weir_conv2d_params quant = { .in = latent, .out = latent, .kernel = 1 };
    const struct weir_conv2d_params first = { .in = latent, .out = deepest, .kernel = 3 };
    const struct weir_conv2d_params last = { .in = c->channels[0], .out = c->out_channels, .kernel = 3 };
    const struct weir_conv2d_call plain = { 0 };
    if (c->post_quant_conv) z = conv(net, p, z, &quant, plain, "", "post_quant_conv");
    struct weir_value x = conv(net, p, z, &first, plain, "decoder", ".conv_in");
    x = resnet(net, p, x, deepest, deepest, "decoder.mid_block.resnets.0");
    if (c->mid_attention) x = mid_attention(net, p, x);
    x = resnet(net, p, x, deepest, deepest, "decoder.mid_block.resnets.1");
    uint32_t in = deepest;
    for (uint32_t i = 0; i < c->levels; i++) {
        const uint32_t out = c->channels[c->levels - 1 - i];
        x = up_block(net, p, x, i, in, out);
        in = out;
    }
    x = norm(net, p, x, c->channels[0], true, "decoder", "conv_norm_out");
    return conv(net, p, x, &last, plain, "decoder", ".conv_out");
}

/* ---- opening ---- */

/* Builds once, which loads every layer. */
static enum weir_status load(struct weir_autoencoder_kl *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    net->old_names = weir_params_has(net->params, "decoder.mid_block.attentions.0.query.weight");
    WEIR_TRY(weir_params_program(net->params, &p, error));
    weir_autoencoder_kl_build_decode(net, p, (struct weir_value){ 0 });
    WEIR_TRY(weir_params_seal(net->params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_autoencoder_kl_open(struct weir_device *device, const struct weir_autoencoder_kl_config *config,
                                          const struct weir_weights *weights, enum weir_dtype dtype,
                                          struct weir_autoencoder_kl **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_autoencoder_kl *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "autoencoder_kl: no memory for its config");
    net->config = *config;
    WEIR_TRY(weir_params_create(device, weights, dtype, &net->params, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_autoencoder_kl_close(&net);
    return status;
}

void weir_autoencoder_kl_close(struct weir_autoencoder_kl **net_p)
{
    struct weir_autoencoder_kl *net = *net_p;
    if (!net) return;
    weir_params_destroy(&net->params);
    free(net);
    *net_p = NULL;
}

const struct weir_autoencoder_kl_config *weir_autoencoder_kl_config_of(const struct weir_autoencoder_kl *net)
{
    return &net->config;
}

uint64_t weir_autoencoder_kl_weight_bytes(const struct weir_autoencoder_kl *net)
{
    return weir_params_bytes(net->params);
}

uint64_t weir_autoencoder_kl_parameter_count(const struct weir_autoencoder_kl *net)
{
    return weir_params_count(net->params);
}
