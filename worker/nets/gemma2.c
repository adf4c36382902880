#include "worker/nets/gemma2.h"

#include "worker/config.h"
#include "worker/nets/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 64

struct weir_gemma2 {
    struct weir_gemma2_config config;
    struct weir_params *params;
    const char *root; /* of tensor names: what was saved as a language model begins them with "model." */
};

/* ---- the config ---- */

/* Settings with one value that this network knows; every other is refused by name. */
static enum weir_status refuse_others(const struct weir_config *config, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *activation;
    bool bias, bidirectional;
    WEIR_TRY(weir_config_text(config, "hidden_activation", "gelu_pytorch_tanh", &activation, error));
    if (strcmp(activation, "gelu_pytorch_tanh") != 0)
        WEIR_TRY(weir_config_refuse(config, "hidden_activation", "gelu_pytorch_tanh", error));
    WEIR_TRY(weir_config_bool(config, "attention_bias", false, &bias, error));
    if (bias) WEIR_TRY(weir_config_refuse(config, "attention_bias", "false", error));
    WEIR_TRY(weir_config_bool(config, "use_bidirectional_attention", false, &bidirectional, error));
    if (bidirectional) WEIR_TRY(weir_config_refuse(config, "use_bidirectional_attention", "false", error));
cleanup:
    return status;
}

/* Some layers see a window only, alternate ones where no list says which: it must be wide enough never to show. */
static enum weir_status check_window(const struct weir_config *config, int64_t layers, uint32_t tokens,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *types[WEIR_CONFIG_LIST_MAX];
    size_t count = 0;
    int64_t window;
    bool slides = true;
    char wanted[96];

    if (weir_config_has(config, "layer_types")) {
        WEIR_TRY(weir_config_text_list(config, "layer_types", NULL, 0, WEIR_CONFIG_LIST_MAX, types, &count, error));
        snprintf(wanted, sizeof wanted, "%lld times sliding_attention or full_attention", (long long)layers);
        if (count != (size_t)layers) WEIR_TRY(weir_config_refuse(config, "layer_types", wanted, error));
        slides = false;
        for (size_t i = 0; i < count; i++) {
            const bool slide = strcmp(types[i], "sliding_attention") == 0;
            if (!slide && strcmp(types[i], "full_attention") != 0)
                WEIR_TRY(weir_config_refuse(config, "layer_types", wanted, error));
            slides = slides || slide;
        }
    }
    if (!slides || weir_config_is_null(config, "sliding_window")) return WEIR_OK;
    WEIR_TRY(weir_config_int(config, "sliding_window", 4096, 1, INT64_MAX, &window, error));
    snprintf(wanted, sizeof wanted, "at least the longest text, %u tokens", tokens);
    if (window < tokens) WEIR_TRY(weir_config_refuse(config, "sliding_window", wanted, error));
cleanup:
    return status;
}

/* An object of rope settings, where there is one: transformers 5 writes rope_parameters, before it was rope_scaling. */
static enum weir_status read_rope_object(const struct weir_config *config, const char *key, double *theta,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const char *const types[] = { "rope_type",
                                         "type" }; /* the second is the older name, and counts without it */
    static const char *const kinds[] = { "full_attention", "sliding_attention" };
    struct weir_config *rope = NULL;
    WEIR_TRY(weir_config_within(config, key, &rope, error));
    if (!rope) return WEIR_OK;
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (weir_config_has(rope, kinds[i])) WEIR_TRY(weir_config_refuse(rope, kinds[i], "one set for all", error));
    }
    const char *const key_of_type = types[weir_config_has(rope, types[0]) ? 0 : 1], *type;
    WEIR_TRY(weir_config_text(rope, key_of_type, "default", &type, error));
    if (strcmp(type, "default") != 0) WEIR_TRY(weir_config_refuse(rope, key_of_type, "default", error));
    WEIR_TRY(weir_config_real(rope, "rope_theta", *theta, 1, 1e12, theta, error));
cleanup:
    weir_config_close(&rope);
    return status;
}

static enum weir_status read_rope(const struct weir_config *config, double *theta, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_config_real(config, "rope_theta", 10000, 1, 1e12, theta, error));
    WEIR_TRY(read_rope_object(config, "rope_parameters", theta, error));
    WEIR_TRY(read_rope_object(config, "rope_scaling", theta, error));
cleanup:
    return status;
}

enum weir_status weir_gemma2_config_read(const struct weir_config *config, uint32_t tokens,
                                         struct weir_gemma2_config *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int64_t vocabulary, width, feed_forward, layers, heads, kv_heads, head_dim;
    double eps, theta, scalar, softcap = 0;

    WEIR_TRY(refuse_others(config, error));
    WEIR_TRY(weir_config_int(config, "vocab_size", 256000, 1, 1 << 24, &vocabulary, error));
    WEIR_TRY(weir_config_int(config, "hidden_size", 2304, 1, 16384, &width, error));
    WEIR_TRY(weir_config_int(config, "intermediate_size", 9216, 1, 131072, &feed_forward, error));
    WEIR_TRY(weir_config_int(config, "num_hidden_layers", 26, 1, WEIR_GEMMA2_LAYERS_MAX, &layers, error));
    WEIR_TRY(weir_config_int(config, "num_attention_heads", 8, 1, 256, &heads, error));
    WEIR_TRY(weir_config_int(config, "num_key_value_heads", 4, 1, 256, &kv_heads, error));
    WEIR_TRY(weir_config_int(config, "head_dim", 256, 1, 1024, &head_dim, error));
    WEIR_TRY(weir_config_real(config, "rms_norm_eps", 1e-6, 1e-12, 1, &eps, error));
    WEIR_TRY(weir_config_real(config, "query_pre_attn_scalar", 256, 1e-6, 1e6, &scalar, error));
    if (!weir_config_is_null(config, "attn_logit_softcapping"))
        WEIR_TRY(weir_config_real(config, "attn_logit_softcapping", 50, 1e-3, 1e6, &softcap, error));
    WEIR_TRY(read_rope(config, &theta, error));
    WEIR_TRY(check_window(config, layers, tokens, error));
    if (heads % kv_heads != 0)
        WEIR_TRY(weir_config_refuse(config, "num_key_value_heads", "a divisor of num_attention_heads", error));
    if (head_dim % 2 != 0) WEIR_TRY(weir_config_refuse(config, "head_dim", "an even number", error));
    *out = (struct weir_gemma2_config){ .vocabulary = (uint32_t)vocabulary,
                                        .width = (uint32_t)width,
                                        .feed_forward = (uint32_t)feed_forward,
                                        .layers = (uint32_t)layers,
                                        .heads = (uint32_t)heads,
                                        .kv_heads = (uint32_t)kv_heads,
                                        .head_dim = (uint32_t)head_dim,
                                        .norm_eps = (float)eps,
                                        .rope_theta = (float)theta,
                                        .score_scale = (float)(1 / sqrt(scalar)),
                                        .softcap = (float)softcap };
cleanup:
    return status;
}

/* ---- the network ---- */

/* norm(x), or norm(x) + residual. */
static struct weir_value norm(const struct weir_gemma2 *net, struct weir_program *p, struct weir_value x,
                              struct weir_value residual, const char *prefix, const char *name)
{
    const struct weir_rms_norm_params shape = { .channels = net->config.width, .unit_offset = true };
    return weir_program_rms_norm(p, weir_params_rms_norm(net->params, &shape, "%s%s", prefix, name), x,
                                 &(struct weir_rms_norm_call){ .eps = net->config.norm_eps, .residual = residual });
}

static const struct weir_value none = { 0 };

static struct weir_value attention(const struct weir_gemma2 *net, struct weir_program *p, struct weir_value x,
                                   const char *prefix)
{
    const struct weir_gemma2_config *c = &net->config;
    const uint32_t inner = c->heads * c->head_dim, kv_inner = c->kv_heads * c->head_dim;
    const struct weir_linear_params query = { .in = c->width, .out = inner };
    const struct weir_linear_params stack = {
        .in = c->width, .out = 2 * kv_inner, .parts = 2, .part = { "k_proj", "v_proj" }
    };
    const struct weir_linear_params out = { .in = inner, .out = c->width };
    const struct weir_value h = norm(net, p, x, none, prefix, "input_layernorm");
    struct weir_value q =
        weir_program_linear(p, weir_params_linear(net->params, &query, "%sself_attn.q_proj", prefix), h, NULL);
    struct weir_value kv =
        weir_program_linear(p, weir_params_linear(net->params, &stack, "%sself_attn", prefix), h, NULL);
    q = weir_program_rope(p, q, c->heads, c->head_dim, c->rope_theta);
    kv = weir_program_rope(p, kv, c->kv_heads, c->head_dim, c->rope_theta); /* the keys alone */
    struct weir_value y = weir_program_attention(p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_CAUSAL,
                                                                                   .q = q,
                                                                                   .k = kv,
                                                                                   .v = kv,
                                                                                   .v_channel = kv_inner,
                                                                                   .heads = c->heads,
                                                                                   .kv_heads = c->kv_heads,
                                                                                   .head_dim = c->head_dim,
                                                                                   .scale = c->score_scale,
                                                                                   .softcap = c->softcap });
    y = weir_program_linear(p, weir_params_linear(net->params, &out, "%sself_attn.o_proj", prefix), y, NULL);
    return norm(net, p, y, x, prefix, "post_attention_layernorm");
}

static struct weir_value feed_forward(const struct weir_gemma2 *net, struct weir_program *p, struct weir_value x,
                                      const char *prefix)
{
    const uint32_t width = net->config.width, wide = net->config.feed_forward;
    const struct weir_linear_params gated = {
        .in = width, .out = 2 * wide, .geglu = true, .parts = 2, .part = { "up_proj", "gate_proj" }
    };
    const struct weir_linear_params down = { .in = wide, .out = width };
    struct weir_value h = norm(net, p, x, none, prefix, "pre_feedforward_layernorm");
    h = weir_program_linear(p, weir_params_linear(net->params, &gated, "%smlp", prefix), h,
                            &(struct weir_linear_call){ .activation = WEIR_ACT_GEGLU_TANH });
    h = weir_program_linear(p, weir_params_linear(net->params, &down, "%smlp.down_proj", prefix), h, NULL);
    return norm(net, p, h, x, prefix, "post_feedforward_layernorm");
}

struct weir_value weir_gemma2_build(const struct weir_gemma2 *net, struct weir_program *p, struct weir_value ids)
{
    const struct weir_gemma2_config *c = &net->config;
    const struct weir_embed_params shape = { .vocabulary = c->vocabulary,
                                             .channels = c->width,
                                             .scale = (float)sqrt(c->width) };
    char prefix[PREFIX_BYTES];
    snprintf(prefix, sizeof prefix, "%sembed_tokens.weight", net->root);
    struct weir_value x = weir_program_embed(p, weir_params_embed(net->params, &shape, prefix, NULL), ids);
    for (uint32_t i = 0; i < c->layers; i++) {
        snprintf(prefix, sizeof prefix, "%slayers.%u.", net->root, i);
        x = attention(net, p, x, prefix);
        x = feed_forward(net, p, x, prefix);
    }
    return norm(net, p, x, none, net->root, "norm");
}

/* ---- opening ---- */

/* Builds once, which loads every layer. */
static enum weir_status load(struct weir_gemma2 *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    net->root = weir_params_has(net->params, "model.norm.weight") ? "model." : "";
    WEIR_TRY(weir_params_program(net->params, &p, error));
    weir_gemma2_build(net, p, none);
    WEIR_TRY(weir_params_seal(net->params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_gemma2_open(struct weir_device *device, const struct weir_gemma2_config *config,
                                  const struct weir_weights *weights, enum weir_dtype dtype, struct weir_gemma2 **out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma2 *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "gemma2: no memory for its config");
    net->config = *config;
    WEIR_TRY(weir_params_create(device, weights, dtype, &net->params, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_gemma2_close(&net);
    return status;
}

void weir_gemma2_close(struct weir_gemma2 **net_p)
{
    struct weir_gemma2 *net = *net_p;
    if (!net) return;
    weir_params_destroy(&net->params);
    free(net);
    *net_p = NULL;
}

uint64_t weir_gemma2_weight_bytes(const struct weir_gemma2 *net)
{
    return weir_params_bytes(net->params);
}

uint64_t weir_gemma2_parameter_count(const struct weir_gemma2 *net)
{
    return weir_params_count(net->params);
}
