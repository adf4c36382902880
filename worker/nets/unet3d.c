#include "worker/nets/unet3d.h"

#include "worker/config.h"
#include "worker/nets/adapters.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Constants of the classes, in no config. */
#define TRANSFORMER_NORM_EPS 1e-6f
#define TEMPORAL_CONV_NORM_EPS 1e-5f
#define LAYER_NORM_EPS 1e-5f
#define TRANSFORMER_IN_HEADS 8
#define FEED_FORWARD_FACTOR 4
#define TIME_CHANNELS_FACTOR 4
#define PREFIX_BYTES 96
#define SKIPS_MAX (WEIR_UNET3D_LEVELS_MAX * (WEIR_UNET3D_LAYERS_MAX + 1) + 1)

struct weir_unet3d {
    struct weir_unet3d_config config;
    struct weir_params *params;
    enum weir_dtype dtype;
};

/* ---- the config ---- */

static enum weir_status read_blocks(const struct weir_config *config, const char *key, const char *attends,
                                    const char *plain, const char *const *defaults, uint32_t levels, bool *out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *names[WEIR_UNET3D_LEVELS_MAX];
    size_t count;
    char wanted[96];
    snprintf(wanted, sizeof wanted, "%u times %s or %s", levels, attends, plain);
    WEIR_TRY(weir_config_text_list(config, key, defaults, 4, WEIR_UNET3D_LEVELS_MAX, names, &count, error));
    if (count != levels) WEIR_TRY(weir_config_refuse(config, key, wanted, error));
    for (size_t i = 0; i < count; i++) {
        out[i] = strcmp(names[i], attends) == 0;
        if (!out[i] && strcmp(names[i], plain) != 0) WEIR_TRY(weir_config_refuse(config, key, wanted, error));
    }
cleanup:
    return status;
}

/* Settings with one value that this network knows; every other is refused by name. */
static enum weir_status refuse_others(const struct weir_config *config, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *activation;
    double scale;
    WEIR_TRY(weir_config_text(config, "act_fn", "silu", &activation, error));
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        WEIR_TRY(weir_config_refuse(config, "act_fn", "silu", error));
    WEIR_TRY(weir_config_real(config, "mid_block_scale_factor", 1, -1e6, 1e6, &scale, error));
    if (scale != 1) WEIR_TRY(weir_config_refuse(config, "mid_block_scale_factor", "1", error));
    if (weir_config_has(config, "time_cond_proj_dim"))
        WEIR_TRY(weir_config_refuse(config, "time_cond_proj_dim", "null", error));
    if (weir_config_has(config, "num_attention_heads"))
        WEIR_TRY(weir_config_refuse(config, "num_attention_heads", "null (attention_head_dim says it)", error));
cleanup:
    return status;
}

/* Every attention needs a whole head, every norm whole groups. */
static enum weir_status check_widths(const struct weir_config *config, const struct weir_unet3d_config *c,
                                     struct weir_error *error)
{
    char wanted[96];
    for (uint32_t i = 0; i < c->levels; i++) {
        const bool attends = c->down_attends[i] || c->up_attends[c->levels - 1 - i] || i == c->levels - 1;
        if (c->channels[i] % c->groups != 0) {
            snprintf(wanted, sizeof wanted, "multiples of norm_num_groups, %u", c->groups);
            return weir_config_refuse(config, "block_out_channels", wanted, error);
        }
        if (attends && c->channels[i] < c->head_dim) {
            snprintf(wanted, sizeof wanted, "at most the channels of every block that attends, %u", c->channels[i]);
            return weir_config_refuse(config, "attention_head_dim", wanted, error);
        }
    }
    if (c->channels[0] % 2 != 0) return weir_config_refuse(config, "block_out_channels", "an even first number", error);
    return WEIR_OK;
}

enum weir_status weir_unet3d_config_read(const struct weir_config *config, struct weir_unet3d_config *out,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const int64_t channels_default[] = { 320, 640, 1280, 1280 };
    static const char *const down_default[] = { "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D",
                                                "DownBlock3D" };
    static const char *const up_default[] = { "UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D",
                                              "CrossAttnUpBlock3D" };
    int64_t in, out_channels, size, layers, head_dim, cross, groups, padding, channels[WEIR_UNET3D_LEVELS_MAX];
    size_t levels;
    double eps;
    struct weir_unet3d_config c = { 0 };

    WEIR_TRY(refuse_others(config, error));
    WEIR_TRY(weir_config_int(config, "in_channels", 4, 1, 1024, &in, error));
    WEIR_TRY(weir_config_int(config, "out_channels", 4, 1, 1024, &out_channels, error));
    WEIR_TRY(weir_config_int(config, "sample_size", 0, 0, 4096, &size, error));
    WEIR_TRY(weir_config_int_list(config, "block_out_channels", channels_default, 4, 1, WEIR_UNET3D_CHANNELS_MAX,
                                  WEIR_UNET3D_LEVELS_MAX, channels, &levels, error));
    WEIR_TRY(weir_config_int(config, "layers_per_block", 2, 1, WEIR_UNET3D_LAYERS_MAX, &layers, error));
    WEIR_TRY(weir_config_int(config, "attention_head_dim", 64, 1, 1024, &head_dim, error));
    WEIR_TRY(weir_config_int(config, "cross_attention_dim", 1024, 1, WEIR_UNET3D_CHANNELS_MAX, &cross, error));
    WEIR_TRY(weir_config_int(config, "norm_num_groups", 32, 1, 1024, &groups, error));
    WEIR_TRY(weir_config_int(config, "downsample_padding", 1, 0, 1, &padding, error));
    WEIR_TRY(weir_config_real(config, "norm_eps", 1e-5, 1e-12, 1, &eps, error));
    c.levels = (uint32_t)levels;
    WEIR_TRY(read_blocks(config, "down_block_types", "CrossAttnDownBlock3D", "DownBlock3D", down_default, c.levels,
                         c.down_attends, error));
    WEIR_TRY(read_blocks(config, "up_block_types", "CrossAttnUpBlock3D", "UpBlock3D", up_default, c.levels,
                         c.up_attends, error));
    for (size_t i = 0; i < levels; i++) c.channels[i] = (uint32_t)channels[i];
    c.in_channels = (uint32_t)in;
    c.out_channels = (uint32_t)out_channels;
    c.sample_size = (uint32_t)size;
    c.layers_per_block = (uint32_t)layers;
    c.head_dim = (uint32_t)head_dim;
    c.cross_channels = (uint32_t)cross;
    c.groups = (uint32_t)groups;
    c.downsample_padding = (uint32_t)padding;
    c.norm_eps = (float)eps;
    WEIR_TRY(check_widths(config, &c, error));
    *out = c;
cleanup:
    return status;
}

uint32_t weir_unet3d_size_min(const struct weir_unet3d_config *config)
{
    return config->downsample_padding ? 1 : 1u << (config->levels - 1); /* unpadded, one pixel halves to none */
}

/* ---- the blocks ---- */

/* What is the same for every block of one build. */
struct build {
    const struct weir_unet3d_config *config;
    struct weir_params *params;
    struct weir_program *p;
    enum weir_dtype dtype;
    struct weir_value time; /* [R, 1, 1, 1, 4 C0], already through SiLU: every resnet would do that first */
    struct weir_dims text;  /* of a key/value slot, but for its channels */
    uint32_t next_slot;
    struct weir_value skips[SKIPS_MAX]; /* outputs of the way down, taken back on the way up */
    uint32_t skip_channels[SKIPS_MAX];
    uint32_t skip_count;
    struct weir_adapted adapted; /* what linears are asked for by */
};

static const struct weir_value none = { 0 };

static void join(char out[PREFIX_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void join(char out[PREFIX_BYTES], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(out, PREFIX_BYTES, format, arguments);
    va_end(arguments);
    assert(length > 0 && length < PREFIX_BYTES); /* levels and layers have one digit */
    (void)length;
}

static struct weir_value linear(struct build *b, struct weir_value x, uint32_t in, uint32_t out,
                                struct weir_value residual, const char *prefix, const char *name)
{
    const struct weir_linear_params shape = { .in = in, .out = out, .bias = true };
    return weir_adapted_linear(&b->adapted, &shape, x, &(struct weir_linear_call){ .residual = residual }, "%s.%s",
                               prefix, name);
}

static struct weir_value norm(struct build *b, struct weir_value x, uint32_t channels, float eps, bool silu,
                              bool over_frames, const char *prefix, const char *name)
{
    return weir_program_group_norm(b->p, weir_params_group_norm(b->params, channels, "%s.%s", prefix, name), x,
                                   b->config->groups, eps, silu, over_frames);
}

/* A 3x3 convolution that keeps the size. */
static struct weir_value conv3(struct build *b, struct weir_value x, uint32_t in, uint32_t out,
                               struct weir_conv2d_call call, const char *prefix, const char *name)
{
    const struct weir_conv2d_params shape = { .in = in, .out = out, .kernel = 3 };
    call.pad = call.pad_end = 1;
    return weir_program_conv2d(b->p, weir_params_conv2d(b->params, &shape, "%s%s%s", prefix, *prefix ? "." : "", name),
                               x, &call);
}

static struct weir_value resnet(struct build *b, struct weir_value x, uint32_t in, uint32_t out, const char *prefix)
{
    const struct weir_conv2d_params pointwise = { .in = in, .out = out, .kernel = 1 };
    const uint32_t time_channels = TIME_CHANNELS_FACTOR * b->config->channels[0];
    const float eps = b->config->norm_eps;
    struct weir_value skip = x;
    if (in != out) {
        skip = weir_program_conv2d(b->p, weir_params_conv2d(b->params, &pointwise, "%s.conv_shortcut", prefix), x,
                                   &(struct weir_conv2d_call){ 0 });
    }
    const struct weir_value bias = linear(b, b->time, time_channels, out, none, prefix, "time_emb_proj");
    struct weir_value h = norm(b, x, in, eps, true, false, prefix, "norm1");
    h = conv3(b, h, in, out, (struct weir_conv2d_call){ .row_bias = bias }, prefix, "conv1");
    h = norm(b, h, out, eps, true, false, prefix, "norm2");
    return conv3(b, h, out, out, (struct weir_conv2d_call){ .residual = skip }, prefix, "conv2");
}

static struct weir_value temporal_conv(struct build *b, struct weir_value x, uint32_t channels, const char *prefix)
{
    /* The first sequence has no dropout, so its convolution has another number. */
    static const char *const norms[] = { "conv1.0", "conv2.0", "conv3.0", "conv4.0" };
    static const char *const convs[] = { "conv1.2", "conv2.3", "conv3.3", "conv4.3" };
    struct weir_value h = x;
    for (size_t i = 0; i < WEIR_COUNT(convs); i++) {
        h = norm(b, h, channels, TEMPORAL_CONV_NORM_EPS, true, true, prefix, norms[i]);
        h = weir_program_conv_temporal(
            b->p, weir_params_conv_temporal(b->params, channels, channels, "%s.%s", prefix, convs[i]), h,
            i + 1 == WEIR_COUNT(convs) ? x : none);
    }
    return h;
}

static struct weir_value attention(struct build *b, enum weir_attention_kind kind, uint32_t inner, struct weir_value q,
                                   struct weir_value kv, uint32_t k_channel)
{
    const uint32_t head_dim = b->config->head_dim;
    return weir_program_attention(b->p, &(struct weir_attention_call){ .kind = kind,
                                                                       .q = q,
                                                                       .k = kv,
                                                                       .v = kv,
                                                                       .k_channel = k_channel,
                                                                       .v_channel = k_channel + inner,
                                                                       .heads = inner / head_dim,
                                                                       .head_dim = head_dim,
                                                                       .scale = 1.0f / sqrtf((float)head_dim) });
}

/* x + to_out(attention(norm(x))), all tokens of a sequence among themselves. */
static struct weir_value self_attention(struct build *b, struct weir_value x, enum weir_attention_kind kind,
                                        uint32_t inner, const char *prefix, int number)
{
    char name[PREFIX_BYTES];
    const struct weir_linear_params stack = {
        .in = inner, .out = 3 * inner, .parts = 3, .part = { "to_q", "to_k", "to_v" }
    };
    struct weir_value h = weir_program_layer_norm(
        b->p, weir_params_layer_norm(b->params, inner, "%s.norm%d", prefix, number), x, LAYER_NORM_EPS);
    h = weir_adapted_linear(&b->adapted, &stack, h, NULL, "%s.attn%d", prefix, number);
    h = attention(b, kind, inner, h, h, inner);
    join(name, "attn%d.to_out.0", number);
    return linear(b, h, inner, inner, x, prefix, name);
}

static struct weir_value text_attention(struct build *b, struct weir_value x, uint32_t inner, const char *prefix)
{
    char slot[WEIR_UNET3D_SLOT_NAME_BYTES];
    const struct weir_linear_params q = { .in = inner, .out = inner, .parts = 1, .part = { "to_q" } };
    struct weir_dims dims = b->text;
    dims.channels = 2 * inner;
    weir_unet3d_slot_name(b->next_slot++, slot);
    const struct weir_value kv = weir_program_extern(b->p, slot, b->dtype, &dims);
    struct weir_value h =
        weir_program_layer_norm(b->p, weir_params_layer_norm(b->params, inner, "%s.norm2", prefix), x, LAYER_NORM_EPS);
    h = weir_adapted_linear(&b->adapted, &q, h, NULL, "%s.attn2", prefix);
    h = attention(b, WEIR_ATTENTION_CROSS, inner, h, kv, 0);
    return linear(b, h, inner, inner, x, prefix, "attn2.to_out.0");
}

static struct weir_value feed_forward(struct build *b, struct weir_value x, uint32_t inner, const char *prefix)
{
    const uint32_t wide = FEED_FORWARD_FACTOR * inner;
    const struct weir_linear_params gated = { .in = inner, .out = 2 * wide, .bias = true, .geglu = true };
    struct weir_value h =
        weir_program_layer_norm(b->p, weir_params_layer_norm(b->params, inner, "%s.norm3", prefix), x, LAYER_NORM_EPS);
    h = weir_adapted_linear(&b->adapted, &gated, h, &(struct weir_linear_call){ .activation = WEIR_ACT_GEGLU },
                            "%s.ff.net.0.proj", prefix);
    return linear(b, h, wide, inner, x, prefix, "ff.net.2");
}

/* Channels of a transformer: whole heads, so it may be narrower than what it is fed. */
static uint32_t inner_of(const struct weir_unet3d_config *config, uint32_t channels)
{
    return channels / config->head_dim * config->head_dim;
}

/* Over the pixels of each frame, then the text. */
static struct weir_value spatial_transformer(struct build *b, struct weir_value x, uint32_t channels,
                                             const char *prefix)
{
    const uint32_t inner = inner_of(b->config, channels);
    char block[PREFIX_BYTES];
    join(block, "%s.transformer_blocks.0", prefix);
    struct weir_value h = norm(b, x, channels, TRANSFORMER_NORM_EPS, false, false, prefix, "norm");
    h = linear(b, h, channels, inner, none, prefix, "proj_in");
    h = self_attention(b, h, WEIR_ATTENTION_SPATIAL, inner, block, 1);
    h = text_attention(b, h, inner, block);
    h = feed_forward(b, h, inner, block);
    return linear(b, h, inner, channels, x, prefix, "proj_out");
}

/* Over the frames of each pixel, twice; the text plays no part. */
static struct weir_value temporal_transformer(struct build *b, struct weir_value x, uint32_t channels, uint32_t inner,
                                              const char *prefix)
{
    char block[PREFIX_BYTES];
    join(block, "%s.transformer_blocks.0", prefix);
    struct weir_value h = norm(b, x, channels, TRANSFORMER_NORM_EPS, false, true, prefix, "norm");
    h = linear(b, h, channels, inner, none, prefix, "proj_in");
    h = self_attention(b, h, WEIR_ATTENTION_TEMPORAL, inner, block, 1);
    h = self_attention(b, h, WEIR_ATTENTION_TEMPORAL, inner, block, 2);
    h = feed_forward(b, h, inner, block);
    return linear(b, h, inner, channels, x, prefix, "proj_out");
}

static struct weir_value resnet_and_time(struct build *b, struct weir_value x, uint32_t in, uint32_t out,
                                         const char *prefix, uint32_t layer)
{
    char name[PREFIX_BYTES];
    join(name, "%s.resnets.%u", prefix, layer);
    x = resnet(b, x, in, out, name);
    join(name, "%s.temp_convs.%u", prefix, layer);
    return temporal_conv(b, x, out, name);
}

static struct weir_value attentions(struct build *b, struct weir_value x, uint32_t channels, const char *prefix,
                                    uint32_t layer)
{
    char name[PREFIX_BYTES];
    join(name, "%s.attentions.%u", prefix, layer);
    x = spatial_transformer(b, x, channels, name);
    join(name, "%s.temp_attentions.%u", prefix, layer);
    return temporal_transformer(b, x, channels, inner_of(b->config, channels), name);
}

static void push(struct build *b, struct weir_value x, uint32_t channels)
{
    assert(b->skip_count < SKIPS_MAX);
    b->skips[b->skip_count] = x;
    b->skip_channels[b->skip_count++] = channels;
}

/* ---- the network ---- */

static struct weir_value time_embedding(struct build *b, struct weir_value t)
{
    const uint32_t dim = b->config->channels[0], wide = TIME_CHANNELS_FACTOR * dim;
    const struct weir_linear_params first = { .in = dim, .out = wide, .bias = true };
    const struct weir_linear_params second = { .in = wide, .out = wide, .bias = true };
    const struct weir_linear_call silu = { .activation = WEIR_ACT_SILU };
    struct weir_value h = weir_program_timestep_embedding(b->p, t, dim, true, 0);
    h = weir_adapted_linear(&b->adapted, &first, h, &silu, "time_embedding.linear_1");
    return weir_adapted_linear(&b->adapted, &second, h, &silu, "time_embedding.linear_2");
}

static struct weir_value way_down(struct build *b, struct weir_value x)
{
    const struct weir_unet3d_config *c = b->config;
    char prefix[PREFIX_BYTES];
    uint32_t in = c->channels[0];
    for (uint32_t level = 0; level < c->levels; level++) {
        const uint32_t channels = c->channels[level];
        join(prefix, "down_blocks.%u", level);
        for (uint32_t layer = 0; layer < c->layers_per_block; layer++, in = channels) {
            x = resnet_and_time(b, x, in, channels, prefix, layer);
            if (c->down_attends[level]) x = attentions(b, x, channels, prefix, layer);
            push(b, x, channels);
        }
        if (level + 1 == c->levels) break;
        const struct weir_conv2d_params shape = { .in = channels, .out = channels, .kernel = 3 };
        x = weir_program_conv2d(b->p, weir_params_conv2d(b->params, &shape, "%s.downsamplers.0.conv", prefix), x,
                                &(struct weir_conv2d_call){ .stride = 2, .pad = c->downsample_padding, .pad_end = 1 });
        push(b, x, channels);
    }
    return x;
}

static struct weir_value middle(struct build *b, struct weir_value x)
{
    const uint32_t channels = b->config->channels[b->config->levels - 1];
    x = resnet_and_time(b, x, channels, channels, "mid_block", 0);
    x = attentions(b, x, channels, "mid_block", 0);
    return resnet_and_time(b, x, channels, channels, "mid_block", 1);
}

/* Doubles the size, or nearly: it becomes that of the skip it will meet, which had an odd one before it was halved. */
static struct weir_value upsample(struct build *b, struct weir_value x, uint32_t channels, const char *prefix)
{
    const struct weir_dims target = weir_program_dims(b->p, b->skips[b->skip_count - 1]);
    const struct weir_conv2d_params shape = { .in = channels, .out = channels, .kernel = 3, .doubled = true };
    const struct weir_conv2d_call call = {
        .pad = 1, .pad_end = 1, .resize_height = target.height, .resize_width = target.width
    };
    return weir_program_conv2d(b->p, weir_params_conv2d(b->params, &shape, "%s.upsamplers.0.conv", prefix), x, &call);
}

static struct weir_value way_up(struct build *b, struct weir_value x)
{
    const struct weir_unet3d_config *c = b->config;
    char prefix[PREFIX_BYTES];
    uint32_t in = c->channels[c->levels - 1];
    for (uint32_t i = 0; i < c->levels; i++) {
        const uint32_t channels = c->channels[c->levels - 1 - i];
        join(prefix, "up_blocks.%u", i);
        for (uint32_t layer = 0; layer <= c->layers_per_block; layer++, in = channels) {
            assert(b->skip_count > 0);
            const uint32_t skip_channels = b->skip_channels[--b->skip_count];
            x = weir_program_concat(b->p, x, b->skips[b->skip_count]);
            x = resnet_and_time(b, x, in + skip_channels, channels, prefix, layer);
            if (c->up_attends[i]) x = attentions(b, x, channels, prefix, layer);
        }
        if (i + 1 < c->levels) x = upsample(b, x, channels, prefix);
    }
    assert(b->skip_count == 0);
    return x;
}

struct weir_value weir_unet3d_build_step(const struct weir_unet3d *net, struct weir_program *p, struct weir_value x,
                                         struct weir_value t, uint32_t tokens, const struct weir_adapters *adapters)
{
    const struct weir_unet3d_config *c = &net->config;
    const uint32_t first = c->channels[0];
    struct build b = { .config = c, .params = net->params, .p = p, .dtype = net->dtype };
    b.text = (struct weir_dims){ weir_program_dims(p, x).rows, 1, 1, tokens, 0 };
    b.adapted = weir_adapted_begin(p, net->params, adapters);
    b.time = time_embedding(&b, t);
    x = conv3(&b, x, c->in_channels, first, (struct weir_conv2d_call){ 0 }, "", "conv_in");
    x = temporal_transformer(&b, x, first, TRANSFORMER_IN_HEADS * c->head_dim, "transformer_in");
    push(&b, x, first);
    x = way_down(&b, x);
    x = middle(&b, x);
    x = way_up(&b, x);
    x = weir_program_group_norm(p, weir_params_group_norm(net->params, first, "conv_norm_out"), x, c->groups,
                                c->norm_eps, true, false);
    return conv3(&b, x, first, c->out_channels, (struct weir_conv2d_call){ 0 }, "", "conv_out");
}

/* ---- the text's part ---- */

/* Calls for every cross attention, in the order in which a step meets them. */
static void each_cross_attention(const struct weir_unet3d_config *c,
                                 void (*each)(void *context, uint32_t channels, const char *prefix), void *context)
{
    char prefix[PREFIX_BYTES];
    for (uint32_t level = 0; level < c->levels; level++) {
        for (uint32_t layer = 0; c->down_attends[level] && layer < c->layers_per_block; layer++) {
            join(prefix, "down_blocks.%u.attentions.%u", level, layer);
            each(context, c->channels[level], prefix);
        }
    }
    each(context, c->channels[c->levels - 1], "mid_block.attentions.0");
    for (uint32_t i = 0; i < c->levels; i++) {
        for (uint32_t layer = 0; c->up_attends[i] && layer <= c->layers_per_block; layer++) {
            join(prefix, "up_blocks.%u.attentions.%u", i, layer);
            each(context, c->channels[c->levels - 1 - i], prefix);
        }
    }
}

struct prepare {
    struct build b;
    struct weir_value text;
};

static void prepare_one(void *context, uint32_t channels, const char *prefix)
{
    struct prepare *prepare = context;
    struct build *b = &prepare->b;
    char slot[WEIR_UNET3D_SLOT_NAME_BYTES];
    const struct weir_linear_params stack = { .in = b->config->cross_channels,
                                              .out = 2 * inner_of(b->config, channels),
                                              .parts = 2,
                                              .part = { "to_k", "to_v" } };
    weir_unet3d_slot_name(b->next_slot++, slot);
    weir_program_output(
        b->p, slot,
        weir_adapted_linear(&b->adapted, &stack, prepare->text, NULL, "%s.transformer_blocks.0.attn2", prefix));
}

void weir_unet3d_build_prepare(const struct weir_unet3d *net, struct weir_program *p, uint32_t rows, uint32_t tokens,
                               const struct weir_adapters *adapters)
{
    struct prepare prepare = { .b = { .config = &net->config, .params = net->params, .p = p, .dtype = net->dtype } };
    const struct weir_dims dims = { rows, 1, 1, tokens, net->config.cross_channels };
    prepare.b.adapted = weir_adapted_begin(p, net->params, adapters);
    prepare.text = weir_program_narrow(p, weir_program_input(p, "text", WEIR_F32, &dims));
    each_cross_attention(&net->config, prepare_one, &prepare);
}

static void count_one(void *context, uint32_t channels, const char *prefix)
{
    (void)channels;
    (void)prefix;
    ++*(uint32_t *)context;
}

uint32_t weir_unet3d_slot_count(const struct weir_unet3d *net)
{
    uint32_t count = 0;
    each_cross_attention(&net->config, count_one, &count);
    return count;
}

void weir_unet3d_slot_name(uint32_t index, char out[WEIR_UNET3D_SLOT_NAME_BYTES])
{
    snprintf(out, WEIR_UNET3D_SLOT_NAME_BYTES, "kv%u", index);
}

/* ---- opening ---- */

/* Builds both programs once, which loads every layer. */
static enum weir_status load(struct weir_unet3d *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_params_program(net->params, &p, error));
    weir_unet3d_build_prepare(net, p, 1, 1, NULL);
    weir_unet3d_build_step(net, p, none, none, 1, NULL);
    WEIR_TRY(weir_params_seal(net->params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_unet3d_open(struct weir_device *device, const struct weir_unet3d_config *config,
                                  const struct weir_weights *weights, enum weir_dtype dtype, struct weir_unet3d **out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_unet3d *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "unet3d: no memory for its config");
    net->config = *config;
    net->dtype = dtype;
    WEIR_TRY(weir_params_create(device, weights, dtype, &net->params, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_unet3d_close(&net);
    return status;
}

void weir_unet3d_close(struct weir_unet3d **net_p)
{
    struct weir_unet3d *net = *net_p;
    if (!net) return;
    weir_params_destroy(&net->params);
    free(net);
    *net_p = NULL;
}

const struct weir_params *weir_unet3d_params(const struct weir_unet3d *net)
{
    return net->params;
}

uint64_t weir_unet3d_weight_bytes(const struct weir_unet3d *net)
{
    return weir_params_bytes(net->params);
}

uint64_t weir_unet3d_parameter_count(const struct weir_unet3d *net)
{
    return weir_params_count(net->params);
}
