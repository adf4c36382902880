#include "worker/nets/clip_text.h"

#include "worker/config.h"
#include "worker/nets/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PREFIX_BYTES 64

struct weir_clip_text {
    struct weir_clip_text_config config;
    struct weir_params *params;
    const char *root; /* of tensor names: older files begin them with "text_model.", newer ones do not */
};

enum weir_status weir_clip_text_config_read(const struct weir_config *config, struct weir_clip_text_config *out,
                                            struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const struct {
        const char *name;
        enum weir_activation activation;
    } activations[] = { { "quick_gelu", WEIR_ACT_QUICK_GELU },
                        { "gelu", WEIR_ACT_GELU },
                        { "gelu_new", WEIR_ACT_GELU_TANH },
                        { "gelu_pytorch_tanh", WEIR_ACT_GELU_TANH },
                        { "silu", WEIR_ACT_SILU } };
    const char *names[WEIR_COUNT(activations) + 1] = { NULL };
    int64_t vocabulary, positions, width, feed_forward, layers, heads;
    size_t activation;
    double eps;
    bool masks;
    for (size_t i = 0; i < WEIR_COUNT(activations); i++) names[i] = activations[i].name;

    WEIR_TRY(weir_config_int(config, "vocab_size", 49408, 1, 1 << 24, &vocabulary, error));
    WEIR_TRY(weir_config_int(config, "max_position_embeddings", 77, 2, 4096, &positions, error));
    WEIR_TRY(weir_config_int(config, "hidden_size", 512, 1, 16384, &width, error));
    WEIR_TRY(weir_config_int(config, "intermediate_size", 2048, 1, 65536, &feed_forward, error));
    WEIR_TRY(weir_config_int(config, "num_hidden_layers", 12, 1, WEIR_CLIP_TEXT_LAYERS_MAX, &layers, error));
    WEIR_TRY(weir_config_int(config, "num_attention_heads", 8, 1, 1024, &heads, error));
    WEIR_TRY(weir_config_choice(config, "hidden_act", "quick_gelu", names, &activation, error));
    WEIR_TRY(weir_config_real(config, "layer_norm_eps", 1e-5, 1e-12, 1, &eps, error));
    WEIR_TRY(weir_config_bool(config, "use_attention_mask", false, &masks, error));
    if (masks) WEIR_TRY(weir_config_refuse(config, "use_attention_mask", "false", error));
    if (width % heads != 0)
        WEIR_TRY(weir_config_refuse(config, "num_attention_heads", "a divisor of hidden_size", error));
    *out = (struct weir_clip_text_config){ .vocabulary = (uint32_t)vocabulary,
                                           .positions = (uint32_t)positions,
                                           .width = (uint32_t)width,
                                           .feed_forward = (uint32_t)feed_forward,
                                           .layers = (uint32_t)layers,
                                           .heads = (uint32_t)heads,
                                           .activation = activations[activation].activation,
                                           .norm_eps = (float)eps };
cleanup:
    return status;
}

static struct weir_value norm(const struct weir_clip_text *net, struct weir_program *p, struct weir_value x,
                              const char *prefix, const char *name)
{
    return weir_program_layer_norm(p, weir_params_layer_norm(net->params, net->config.width, "%s%s", prefix, name), x,
                                   net->config.norm_eps);
}

static struct weir_value attention(const struct weir_clip_text *net, struct weir_program *p, struct weir_value x,
                                   const char *prefix)
{
    const uint32_t width = net->config.width, head_dim = width / net->config.heads;
    const struct weir_linear_params stack = {
        .in = width, .out = 3 * width, .bias = true, .parts = 3, .part = { "q_proj", "k_proj", "v_proj" }
    };
    const struct weir_linear_params out = { .in = width, .out = width, .bias = true };
    const struct weir_value h = norm(net, p, x, prefix, "layer_norm1");
    const struct weir_value qkv =
        weir_program_linear(p, weir_params_linear(net->params, &stack, "%sself_attn", prefix), h, NULL);
    const struct weir_value mixed =
        weir_program_attention(p, &(struct weir_attention_call){ .kind = WEIR_ATTENTION_CAUSAL,
                                                                 .q = qkv,
                                                                 .k = qkv,
                                                                 .v = qkv,
                                                                 .k_channel = width,
                                                                 .v_channel = 2 * width,
                                                                 .heads = net->config.heads,
                                                                 .head_dim = head_dim,
                                                                 .scale = 1.0f / sqrtf((float)head_dim) });
    return weir_program_linear(p, weir_params_linear(net->params, &out, "%sself_attn.out_proj", prefix), mixed,
                               &(struct weir_linear_call){ .residual = x });
}

static struct weir_value feed_forward(const struct weir_clip_text *net, struct weir_program *p, struct weir_value x,
                                      const char *prefix)
{
    const uint32_t width = net->config.width, wide = net->config.feed_forward;
    const struct weir_linear_params first = { .in = width, .out = wide, .bias = true };
    const struct weir_linear_params second = { .in = wide, .out = width, .bias = true };
    struct weir_value h = norm(net, p, x, prefix, "layer_norm2");
    h = weir_program_linear(p, weir_params_linear(net->params, &first, "%smlp.fc1", prefix), h,
                            &(struct weir_linear_call){ .activation = net->config.activation });
    return weir_program_linear(p, weir_params_linear(net->params, &second, "%smlp.fc2", prefix), h,
                               &(struct weir_linear_call){ .residual = x });
}

struct weir_value weir_clip_text_build(const struct weir_clip_text *net, struct weir_program *p, struct weir_value ids)
{
    const struct weir_embed_params shape = { .vocabulary = net->config.vocabulary,
                                             .positions = net->config.positions,
                                             .channels = net->config.width };
    char prefix[PREFIX_BYTES], positions[PREFIX_BYTES];
    snprintf(prefix, sizeof prefix, "%sembeddings.token_embedding.weight", net->root);
    snprintf(positions, sizeof positions, "%sembeddings.position_embedding.weight", net->root);
    struct weir_value x = weir_program_embed(p, weir_params_embed(net->params, &shape, prefix, positions), ids);
    for (uint32_t i = 0; i < net->config.layers; i++) {
        snprintf(prefix, sizeof prefix, "%sencoder.layers.%u.", net->root, i);
        x = attention(net, p, x, prefix);
        x = feed_forward(net, p, x, prefix);
    }
    return norm(net, p, x, net->root, "final_layer_norm");
}

/* Builds once, which loads every layer. */
static enum weir_status load(struct weir_clip_text *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    net->root = weir_params_has(net->params, "text_model.final_layer_norm.weight") ? "text_model." : "";
    WEIR_TRY(weir_params_program(net->params, &p, error));
    weir_clip_text_build(net, p, (struct weir_value){ 0 });
    WEIR_TRY(weir_params_seal(net->params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_clip_text_open(struct weir_device *device, const struct weir_clip_text_config *config,
                                     const struct weir_weights *weights, enum weir_dtype dtype,
                                     struct weir_clip_text **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_clip_text *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "clip_text: no memory for its config");
    net->config = *config;
    WEIR_TRY(weir_params_create(device, weights, dtype, &net->params, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_clip_text_close(&net);
    return status;
}

void weir_clip_text_close(struct weir_clip_text **net_p)
{
    struct weir_clip_text *net = *net_p;
    if (!net) return;
    weir_params_destroy(&net->params);
    free(net);
    *net_p = NULL;
}

uint64_t weir_clip_text_weight_bytes(const struct weir_clip_text *net)
{
    return weir_params_bytes(net->params);
}

uint64_t weir_clip_text_parameter_count(const struct weir_clip_text *net)
{
    return weir_params_count(net->params);
}
