#include "worker/nets/sana_blocks.h"

#include "worker/config.h"
#include "worker/nets/sana_controlnet.h"

#include <stdlib.h>

#define LAYERS_DEFAULT 20
#define OUT_NORM_EPS 1e-6f /* a constant of the class */
#define SLOTS "kv"

enum { SHIFT_OUT, SCALE_OUT, OUT_VECTORS };

struct weir_sana_transformer {
    struct weir_sana_parts parts;
};

static const struct weir_value none = { 0 };

enum weir_status weir_sana_transformer_config_read(const struct weir_config *config,
                                                   struct weir_sana_transformer_config *out, struct weir_error *error)
{
    return weir_sana_config_read(config, LAYERS_DEFAULT, out, error);
}

struct weir_value weir_sana_transformer_build_step(const struct weir_sana_transformer *net, struct weir_program *p,
                                                   const struct weir_sana_transformer_step *step)
{
    const struct weir_sana_transformer_config *c = &net->parts.config;
    struct weir_sana_build b = weir_sana_build_of(&net->parts, p, SLOTS, step->adapters);
    b.lengths = step->lengths;
    b.text = (struct weir_dims){ weir_program_dims(p, step->x).rows, 1, 1, step->tokens, 2 * weir_sana_cross_inner(c) };
    const struct weir_value e = weir_sana_time_embedding(&b, step->t, step->guidance);
    struct weir_value h = weir_sana_patch_embedding(&b, step->x, none);
    struct weir_sana_controlnet_walk walk;
    if (step->controlnet) weir_sana_controlnet_begin(step->controlnet, p, step, &walk);
    for (uint32_t i = 0; i < c->layers; i++) {
        h = weir_sana_block(&b, h, i);
        if (step->controlnet && i > 0) h = weir_sana_controlnet_add(&walk, h);
    }
    const struct weir_value m =
        weir_program_table_add(p, weir_params_table(net->parts.params, OUT_VECTORS, c->width, "scale_shift_table"), e);
    const struct weir_linear_params out = { .in = c->width, .out = c->out_channels, .bias = true };
    h = weir_program_modulated_norm(p, h, m, SHIFT_OUT, SCALE_OUT, OUT_NORM_EPS);
    return weir_adapted_linear(&b.adapted, &out, h, NULL, "proj_out");
}

struct weir_value weir_sana_transformer_build_prepare(const struct weir_sana_transformer *net, struct weir_program *p,
                                                      uint32_t rows, uint32_t tokens,
                                                      const struct weir_adapters *adapters)
{
    struct weir_sana_build b = weir_sana_build_of(&net->parts, p, SLOTS, adapters);
    const struct weir_dims dims = { rows, 1, 1, tokens, net->parts.config.caption_channels };
    const struct weir_value text = weir_program_narrow(p, weir_program_input(p, "text", WEIR_F32, &dims));
    weir_sana_text(&b, text);
    return text;
}

uint32_t weir_sana_transformer_slot_count(const struct weir_sana_transformer *net)
{
    return net->parts.config.layers;
}

void weir_sana_transformer_slot_name(uint32_t index, char out[WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES])
{
    weir_sana_slot_name(SLOTS, index, out);
}

/* ---- opening ---- */

/* Builds both programs once, which loads every layer. */
static enum weir_status load(struct weir_sana_transformer *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_params_program(net->parts.params, &p, error));
    weir_sana_transformer_build_prepare(net, p, 1, 1, NULL);
    weir_sana_transformer_build_step(net, p, &(struct weir_sana_transformer_step){ .tokens = 1 });
    WEIR_TRY(weir_params_seal(net->parts.params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_sana_transformer_open(struct weir_device *device,
                                            const struct weir_sana_transformer_config *config,
                                            const struct weir_weights *weights, enum weir_dtype dtype,
                                            struct weir_sana_transformer **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sana_transformer *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "sana_transformer: no memory for its config");
    WEIR_TRY(weir_sana_parts_open(&net->parts, device, config, weights, dtype, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_sana_transformer_close(&net);
    return status;
}

void weir_sana_transformer_close(struct weir_sana_transformer **net_p)
{
    struct weir_sana_transformer *net = *net_p;
    if (!net) return;
    weir_sana_parts_close(&net->parts);
    free(net);
    *net_p = NULL;
}

const struct weir_sana_transformer_config *weir_sana_transformer_config_of(const struct weir_sana_transformer *net)
{
    return &net->parts.config;
}

const struct weir_params *weir_sana_transformer_params(const struct weir_sana_transformer *net)
{
    return net->parts.params;
}

uint64_t weir_sana_transformer_weight_bytes(const struct weir_sana_transformer *net)
{
    return weir_sana_parts_bytes(&net->parts);
}

uint64_t weir_sana_transformer_parameter_count(const struct weir_sana_transformer *net)
{
    return weir_params_count(net->parts.params);
}
