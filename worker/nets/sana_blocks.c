#include "worker/nets/sana_blocks.h"

#include "worker/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Constants of the classes, in no config. */
#define QK_NORM_EPS 1e-5f
#define CAPTION_NORM_EPS 1e-5f
#define LINEAR_ATTENTION_EPS 1e-15f
#define TIME_CHANNELS 256
#define CONV_KERNEL 3
#define PREFIX_BYTES 64

/* A block's six vectors, in the order of its table; one block's follow the other's. */
enum { SHIFT_ATTENTION, SCALE_ATTENTION, GATE_ATTENTION, SHIFT_FEED, SCALE_FEED, GATE_FEED, BLOCK_VECTORS };
#define VECTOR(index, name) ((index)*BLOCK_VECTORS + (name))

/* ---- what a network owns ---- */

enum weir_status weir_sana_parts_open(struct weir_sana_parts *parts, struct weir_device *device,
                                      const struct weir_sana_transformer_config *config,
                                      const struct weir_weights *weights, enum weir_dtype dtype,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_sine_positions_config positions = { .channels = config->width,
                                                          .base = config->sample_size,
                                                          .scale = config->interpolation_scale,
                                                          .dtype = dtype,
                                                          .shape_only = !weights };
    parts->config = *config;
    parts->dtype = dtype;
    if (config->interpolation_scale > 0)
        WEIR_TRY(weir_sine_positions_create(device, &positions, &parts->positions, error));
    WEIR_TRY(weir_params_create(device, weights, dtype, &parts->params, error));
cleanup:
    return status;
}

void weir_sana_parts_close(struct weir_sana_parts *parts)
{
    weir_params_destroy(&parts->params);
    weir_sine_positions_destroy(&parts->positions);
}

uint64_t weir_sana_parts_bytes(const struct weir_sana_parts *parts)
{
    return weir_params_bytes(parts->params) + (parts->positions ? weir_sine_positions_bytes(parts->positions) : 0);
}

struct weir_sana_build weir_sana_build_of(const struct weir_sana_parts *parts, struct weir_program *p,
                                          const char *slots, const struct weir_adapters *adapters)
{
    return (struct weir_sana_build){ .config = &parts->config,
                                     .params = parts->params,
                                     .positions = parts->positions,
                                     .p = p,
                                     .dtype = parts->dtype,
                                     .slots = slots,
                                     .adapted = weir_adapted_begin(p, parts->params, adapters) };
}

/* ---- the config ---- */

/* Settings with one value that this network knows; every other is refused by name. */
static enum weir_status refuse_others(const struct weir_config *config, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char *const required[] = { "num_cross_attention_heads", "cross_attention_head_dim",
                                            "cross_attention_dim" };
    const char *qk_norm;
    int64_t patch;
    bool affine;
    WEIR_TRY(weir_config_int(config, "patch_size", 1, 1, 1024, &patch, error));
    if (patch != 1) WEIR_TRY(weir_config_refuse(config, "patch_size", "1", error));
    WEIR_TRY(weir_config_bool(config, "norm_elementwise_affine", false, &affine, error));
    if (affine) WEIR_TRY(weir_config_refuse(config, "norm_elementwise_affine", "false", error));
    WEIR_TRY(weir_config_text(config, "qk_norm", "rms_norm_across_heads", &qk_norm, error));
    if (strcmp(qk_norm, "rms_norm_across_heads") != 0)
        WEIR_TRY(weir_config_refuse(config, "qk_norm", "null or rms_norm_across_heads", error));
    for (size_t i = 0; i < WEIR_COUNT(required); i++) {
        if (weir_config_is_null(config, required[i]))
            WEIR_TRY(weir_config_refuse(config, required[i], "a number (every block attends to the text)", error));
    }
cleanup:
    return status;
}

static enum weir_status read_widths(const struct weir_config *config, int64_t layers_default,
                                    struct weir_sana_transformer_config *c, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int64_t in, out, caption, layers, heads, head_dim, cross_heads, cross_head_dim, cross_width;
    double ratio;
    char wanted[96];
    WEIR_TRY(weir_config_int(config, "in_channels", 32, 1, 1024, &in, error));
    WEIR_TRY(weir_config_int(config, "out_channels", weir_config_is_null(config, "out_channels") ? in : 32, 1, 1024,
                             &out, error));
    WEIR_TRY(weir_config_int(config, "caption_channels", 2304, 1, WEIR_SANA_TRANSFORMER_WIDTH_MAX, &caption, error));
    WEIR_TRY(
        weir_config_int(config, "num_layers", layers_default, 1, WEIR_SANA_TRANSFORMER_LAYERS_MAX, &layers, error));
    WEIR_TRY(weir_config_int(config, "num_attention_heads", 70, 1, 1024, &heads, error));
    WEIR_TRY(weir_config_int(config, "attention_head_dim", 32, 1, 1024, &head_dim, error));
    WEIR_TRY(weir_config_int(config, "num_cross_attention_heads", 20, 1, 1024, &cross_heads, error));
    WEIR_TRY(weir_config_int(config, "cross_attention_head_dim", 112, 1, 1024, &cross_head_dim, error));
    WEIR_TRY(
        weir_config_int(config, "cross_attention_dim", 2240, 1, WEIR_SANA_TRANSFORMER_WIDTH_MAX, &cross_width, error));
    WEIR_TRY(weir_config_real(config, "mlp_ratio", 2.5, 1e-3, 64, &ratio, error));
    const int64_t width = heads * head_dim;
    const double hidden = ratio * (double)width;
    snprintf(wanted, sizeof wanted, "at most %d with the other heads' size or number", WEIR_SANA_TRANSFORMER_WIDTH_MAX);
    if (width > WEIR_SANA_TRANSFORMER_WIDTH_MAX)
        WEIR_TRY(weir_config_refuse(config, "num_attention_heads", wanted, error));
    if (cross_heads * cross_head_dim > WEIR_SANA_TRANSFORMER_WIDTH_MAX)
        WEIR_TRY(weir_config_refuse(config, "num_cross_attention_heads", wanted, error));
    snprintf(wanted, sizeof wanted, "num_attention_heads * attention_head_dim, %lld", (long long)width);
    if (cross_width != width) WEIR_TRY(weir_config_refuse(config, "cross_attention_dim", wanted, error));
    if (hidden < 1) WEIR_TRY(weir_config_refuse(config, "mlp_ratio", "at least one channel", error));
    c->in_channels = (uint32_t)in;
    c->out_channels = (uint32_t)out;
    c->caption_channels = (uint32_t)caption;
    c->layers = (uint32_t)layers;
    c->heads = (uint32_t)heads;
    c->head_dim = (uint32_t)head_dim;
    c->width = (uint32_t)width;
    c->cross_heads = (uint32_t)cross_heads;
    c->cross_head_dim = (uint32_t)cross_head_dim;
    c->hidden = (uint32_t)hidden;
cleanup:
    return status;
}

enum weir_status weir_sana_config_read(const struct weir_config *config, int64_t layers_default,
                                       struct weir_sana_transformer_config *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sana_transformer_config c = { 0 };
    int64_t size;
    double eps, interpolation = 0;
    WEIR_TRY(refuse_others(config, error));
    WEIR_TRY(read_widths(config, layers_default, &c, error));
    WEIR_TRY(weir_config_int(config, "sample_size", 32, 1, 4096, &size, error));
    WEIR_TRY(weir_config_bool(config, "attention_bias", false, &c.attention_bias, error));
    WEIR_TRY(weir_config_bool(config, "guidance_embeds", false, &c.guidance_embeds, error));
    WEIR_TRY(weir_config_real(config, "guidance_embeds_scale", 0.1, -1e6, 1e6, &c.guidance_embeds_scale, error));
    WEIR_TRY(weir_config_real(config, "timestep_scale", 1, -1e6, 1e6, &c.timestep_scale, error));
    WEIR_TRY(weir_config_real(config, "norm_eps", 1e-6, 1e-12, 1, &eps, error));
    if (weir_config_has(config, "interpolation_scale")) {
        WEIR_TRY(weir_config_real(config, "interpolation_scale", 1, 1e-3, 1e3, &interpolation, error));
        if (c.width % 4 != 0)
            WEIR_TRY(weir_config_refuse(config, "interpolation_scale", "null, or a width that 4 divides", error));
    }
    c.qk_norm = weir_config_has(config, "qk_norm");
    c.sample_size = (uint32_t)size;
    c.norm_eps = (float)eps;
    c.interpolation_scale = (float)interpolation;
    *out = c;
cleanup:
    return status;
}

/* ---- the blocks ---- */

static const struct weir_value none = { 0 };

static struct weir_value linear(struct weir_sana_build *b, struct weir_value x, uint32_t in, uint32_t out,
                                const struct weir_linear_call *call, const char *prefix, const char *name)
{
    const struct weir_linear_params shape = { .in = in, .out = out, .bias = true };
    return weir_adapted_linear(&b->adapted, &shape, x, call, "%s.%s", prefix, name);
}

/* Norms of whole projections, in a model that has them; the last `rest` channels have none. */
static struct weir_value qk_norm(struct weir_sana_build *b, const struct weir_rms_norm_params *shape,
                                 struct weir_value x, uint32_t rest, const char *prefix)
{
    if (!b->config->qk_norm) return x;
    return weir_program_rms_norm(
        b->p, weir_params_rms_norm(b->params, shape, "%s", prefix), x,
        &(struct weir_rms_norm_call){ .eps = QK_NORM_EPS, .parts = shape->parts, .rest = rest });
}

uint32_t weir_sana_cross_inner(const struct weir_sana_transformer_config *c)
{
    return c->cross_heads * c->cross_head_dim;
}

/* q | k | v of one input */
static struct weir_value project_self(struct weir_sana_build *b, struct weir_value x, const char *prefix)
{
    const struct weir_sana_transformer_config *c = b->config;
    const struct weir_linear_params stack = {
        .in = c->width, .out = 3 * c->width, .bias = c->attention_bias, .parts = 3, .part = { "to_q", "to_k", "to_v" }
    };
    const struct weir_rms_norm_params norms = { .channels = 2 * c->width, .parts = 2, .part = { "norm_q", "norm_k" } };
    x = weir_adapted_linear(&b->adapted, &stack, x, NULL, "%s", prefix);
    return qk_norm(b, &norms, x, c->width, prefix);
}

/* h + gate * to_out(linear attention(modulated norm of h)) */
static struct weir_value self_attention(struct weir_sana_build *b, struct weir_value h, uint32_t index)
{
    const struct weir_sana_transformer_config *c = b->config;
    const struct weir_linear_call gated = { .residual = h,
                                            .gate = b->vectors,
                                            .gate_vector = VECTOR(index, GATE_ATTENTION) };
    char prefix[PREFIX_BYTES];
    snprintf(prefix, sizeof prefix, "transformer_blocks.%u.attn1", index);
    struct weir_value y = weir_program_modulated_norm(b->p, h, b->vectors, VECTOR(index, SHIFT_ATTENTION),
                                                      VECTOR(index, SCALE_ATTENTION), c->norm_eps);
    y = project_self(b, y, prefix);
    y = weir_program_linear_attention(b->p, y,
                                      &(struct weir_linear_attention_call){ .heads = c->heads,
                                                                            .head_dim = c->head_dim,
                                                                            .head_step = c->head_dim,
                                                                            .k_channel = c->width,
                                                                            .v_channel = 2 * c->width,
                                                                            .eps = LINEAR_ATTENTION_EPS });
    return linear(b, y, c->width, c->width, &gated, prefix, "to_out.0");
}

/* h + to_out(attention(h, text)): neither norm nor gate. */
static struct weir_value text_attention(struct weir_sana_build *b, struct weir_value h, uint32_t index)
{
    const struct weir_sana_transformer_config *c = b->config;
    const uint32_t inner = weir_sana_cross_inner(c);
    char prefix[PREFIX_BYTES], slot[WEIR_SANA_SLOT_NAME_BYTES];
    const struct weir_rms_norm_params norm = { .channels = inner, .parts = 1, .part = { "norm_q" } };
    snprintf(prefix, sizeof prefix, "transformer_blocks.%u.attn2", index);
    weir_sana_slot_name(b->slots, b->next_slot++, slot);
    const struct weir_value kv = weir_program_extern(b->p, slot, b->dtype, &b->text);
    struct weir_value q = linear(b, h, c->width, inner, NULL, prefix, "to_q");
    q = qk_norm(b, &norm, q, 0, prefix);
    const struct weir_value y =
        weir_program_attention(b->p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_CROSS,
                                                                    .q = q,
                                                                    .k = kv,
                                                                    .v = kv,
                                                                    .v_channel = inner,
                                                                    .heads = c->cross_heads,
                                                                    .head_dim = c->cross_head_dim,
                                                                    .scale = 1.0f / sqrtf((float)c->cross_head_dim),
                                                                    .lengths = b->lengths });
    return linear(b, y, inner, c->width, &(struct weir_linear_call){ .residual = h }, prefix, "to_out.0");
}

/* h + gate * GLUMBConv(modulated norm of h) */
static struct weir_value feed_forward(struct weir_sana_build *b, struct weir_value h, uint32_t index)
{
    const struct weir_sana_transformer_config *c = b->config;
    const struct weir_linear_params point = { .in = c->hidden, .out = c->width };
    const struct weir_linear_call gated = { .residual = h,
                                            .gate = b->vectors,
                                            .gate_vector = VECTOR(index, GATE_FEED) };
    char prefix[PREFIX_BYTES];
    snprintf(prefix, sizeof prefix, "transformer_blocks.%u.ff", index);
    struct weir_value y = weir_program_modulated_norm(b->p, h, b->vectors, VECTOR(index, SHIFT_FEED),
                                                      VECTOR(index, SCALE_FEED), c->norm_eps);
    y = linear(b, y, c->width, 2 * c->hidden, NULL, prefix, "conv_inverted");
    y = weir_program_depthwise_conv(
        b->p, weir_params_depthwise_conv(b->params, 2 * c->hidden, CONV_KERNEL, true, "%s.conv_depth", prefix), y,
        &(struct weir_depthwise_conv_call){ .activation = WEIR_ACT_SILU, .glu = true });
    return weir_adapted_linear(&b->adapted, &point, y, &gated, "%s.conv_point", prefix);
}

struct weir_value weir_sana_block(struct weir_sana_build *b, struct weir_value h, uint32_t index)
{
    h = self_attention(b, h, index);
    h = text_attention(b, h, index);
    return feed_forward(b, h, index);
}

/* ---- before and after them ---- */

/* Of a number a row: linear_2(silu(linear_1(its sines))) + residual. */
static struct weir_value scalar_embedding(struct weir_sana_build *b, struct weir_value t, struct weir_value residual,
                                          const char *prefix)
{
    const uint32_t width = b->config->width;
    struct weir_value h = weir_program_timestep_embedding(b->p, t, TIME_CHANNELS, true, 0);
    h = linear(b, h, TIME_CHANNELS, width, &(struct weir_linear_call){ .activation = WEIR_ACT_SILU }, prefix,
               "linear_1");
    return linear(b, h, width, width, &(struct weir_linear_call){ .residual = residual }, prefix, "linear_2");
}

/* [R, 1, 1, 1, width], of time and guidance. The blocks' part goes into b->vectors, for all of them at once: a launch for
 * each would take longer than its few numbers. */
struct weir_value weir_sana_time_embedding(struct weir_sana_build *b, struct weir_value t, struct weir_value guidance)
{
    const uint32_t width = b->config->width;
    struct weir_value e;
    if (b->config->guidance_embeds) {
        e = scalar_embedding(b, t, none, "time_embed.timestep_embedder");
        e = scalar_embedding(b, guidance, e, "time_embed.guidance_embedder");
    } else {
        e = scalar_embedding(b, t, none, "time_embed.emb.timestep_embedder");
    }
    const struct weir_value one = linear(b, weir_program_activate(b->p, e, WEIR_ACT_SILU), width, BLOCK_VECTORS * width,
                                         NULL, "time_embed", "linear");
    const struct weir_packed *tables = weir_params_tables(b->params, b->config->layers, BLOCK_VECTORS, width,
                                                          "transformer_blocks", "scale_shift_table");
    b->vectors = weir_program_table_add(b->p, tables, one);
    return e;
}

/* A token of each pixel, with its position where the model adds one. */
struct weir_value weir_sana_patch_embedding(struct weir_sana_build *b, struct weir_value x, struct weir_value residual)
{
    const struct weir_dims d = weir_program_dims(b->p, x);
    x = linear(b, x, b->config->in_channels, b->config->width, &(struct weir_linear_call){ .residual = residual },
               "patch_embed", "proj");
    if (!b->positions || d.rows == 0) return x; /* no rows: built for its layers alone */
    return weir_program_table_add(b->p, weir_sine_positions_table(b->positions, d.height, d.width), x);
}

/* ---- the text's part ---- */

/* k | v of a block's attention to the text. */
static struct weir_value project_text(struct weir_sana_build *b, struct weir_value text, const char *prefix)
{
    const uint32_t width = b->config->width, inner = weir_sana_cross_inner(b->config);
    const struct weir_linear_params stack = {
        .in = width, .out = 2 * inner, .bias = true, .parts = 2, .part = { "to_k", "to_v" }
    };
    const struct weir_rms_norm_params norm = { .channels = inner, .parts = 1, .part = { "norm_k" } };
    const struct weir_value kv = weir_adapted_linear(&b->adapted, &stack, text, NULL, "%s", prefix);
    return qk_norm(b, &norm, kv, inner, prefix);
}

static struct weir_value caption(struct weir_sana_build *b, struct weir_value text)
{
    const struct weir_sana_transformer_config *c = b->config;
    const struct weir_rms_norm_params shape = { .channels = c->width };
    struct weir_value h =
        linear(b, text, c->caption_channels, c->width, &(struct weir_linear_call){ .activation = WEIR_ACT_GELU_TANH },
               "caption_projection", "linear_1");
    h = linear(b, h, c->width, c->width, NULL, "caption_projection", "linear_2");
    return weir_program_rms_norm(b->p, weir_params_rms_norm(b->params, &shape, "caption_norm"), h,
                                 &(struct weir_rms_norm_call){ .eps = CAPTION_NORM_EPS });
}

void weir_sana_text(struct weir_sana_build *b, struct weir_value text)
{
    const struct weir_value read = caption(b, text);
    for (uint32_t i = 0; i < b->config->layers; i++) {
        char prefix[PREFIX_BYTES], slot[WEIR_SANA_SLOT_NAME_BYTES];
        snprintf(prefix, sizeof prefix, "transformer_blocks.%u.attn2", i);
        weir_sana_slot_name(b->slots, i, slot);
        weir_program_output(b->p, slot, project_text(b, read, prefix));
    }
}

void weir_sana_slot_name(const char *slots, uint32_t index, char out[WEIR_SANA_SLOT_NAME_BYTES])
{
    snprintf(out, WEIR_SANA_SLOT_NAME_BYTES, "%s%u", slots, index);
}
