#include "worker/nets/sana_controlnet.h"

#include "worker/config.h"
#include "worker/nets/sana_blocks.h"

#include <stdio.h>
#include <stdlib.h>

#define LAYERS_DEFAULT 7
#define SLOTS "control_kv"
enum { SLOT_CONTROL, SLOT_SCALE, SLOTS_BEFORE_TEXT };

static const struct weir_value none = { 0 };

struct weir_sana_controlnet {
    struct weir_sana_parts parts;
};

enum weir_status weir_sana_controlnet_config_read(const struct weir_config *config, uint32_t transformer_layers,
                                                  struct weir_sana_transformer_config *out, struct weir_error *error)
{
    const enum weir_status status = weir_sana_config_read(config, LAYERS_DEFAULT, out, error);
    if (status != WEIR_OK) return status;
    out->qk_norm = out->guidance_embeds = false;
    if (out->layers >= transformer_layers) out->layers = transformer_layers - 1;
    return WEIR_OK;
}

/* ---- the network ---- */

static const struct weir_packed *square(const struct weir_sana_controlnet *net, const char *name)
{
    const struct weir_linear_params shape = { .in = net->parts.config.width,
                                              .out = net->parts.config.width,
                                              .bias = true };
    return weir_params_linear(net->parts.params, &shape, "%s", name);
}

static struct weir_dims scale_dims(const struct weir_sana_controlnet *net, uint32_t rows)
{
    return (struct weir_dims){ rows, 1, 1, 1, net->parts.config.width };
}

void weir_sana_controlnet_build_prepare(const struct weir_sana_controlnet *net, struct weir_program *p,
                                        struct weir_value text, struct weir_value control)
{
    struct weir_sana_build b = weir_sana_build_of(&net->parts, p, SLOTS, NULL);
    const struct weir_dims scale = scale_dims(net, weir_program_dims(p, control).rows);
    const struct weir_value tokens = weir_sana_patch_embedding(&b, control, none);
    weir_program_output(p, "control", weir_program_linear(p, square(net, "input_block"), tokens, NULL));
    weir_program_input(p, "control_scale", WEIR_F32, &scale);
    weir_sana_text(&b, text);
}

/* The part of a build that a walk keeps. */
static struct weir_sana_build build_at(const struct weir_sana_controlnet_walk *walk)
{
    struct weir_sana_build b = weir_sana_build_of(&walk->net->parts, walk->p, SLOTS, NULL);
    b.lengths = walk->step->lengths;
    b.text = (struct weir_dims){ weir_program_dims(walk->p, walk->step->x).rows, 1, 1, walk->step->tokens,
                                 2 * weir_sana_cross_inner(&walk->net->parts.config) };
    b.vectors = walk->vectors;
    b.next_slot = walk->done;
    return b;
}

void weir_sana_controlnet_begin(const struct weir_sana_controlnet *net, struct weir_program *p,
                                const struct weir_sana_transformer_step *step, struct weir_sana_controlnet_walk *out)
{
    struct weir_sana_controlnet_walk walk = { .net = net, .p = p, .step = step };
    struct weir_sana_build b = build_at(&walk);
    struct weir_dims tokens = weir_program_dims(p, step->x);
    const struct weir_dims scale = scale_dims(net, tokens.rows);
    tokens.channels = net->parts.config.width;
    const struct weir_value control = weir_program_extern(p, "control", net->parts.dtype, &tokens);
    walk.scale = weir_program_narrow(p, weir_program_extern(p, "control_scale", WEIR_F32, &scale));
    weir_sana_time_embedding(&b, step->t, none);
    walk.vectors = b.vectors;
    walk.h = weir_sana_patch_embedding(&b, step->x, control);
    *out = walk;
}

struct weir_value weir_sana_controlnet_add(struct weir_sana_controlnet_walk *walk, struct weir_value tokens)
{
    struct weir_sana_build b = build_at(walk);
    const struct weir_linear_call call = { .residual = tokens, .gate = walk->scale };
    char name[32];
    if (walk->done == walk->net->parts.config.layers) return tokens;
    walk->h = weir_sana_block(&b, walk->h, walk->done);
    snprintf(name, sizeof name, "controlnet_blocks.%u", walk->done++);
    return weir_program_linear(walk->p, square(walk->net, name), walk->h, &call);
}

uint32_t weir_sana_controlnet_slot_count(const struct weir_sana_controlnet *net)
{
    return SLOTS_BEFORE_TEXT + net->parts.config.layers;
}

void weir_sana_controlnet_slot_name(uint32_t index, char out[WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES])
{
    if (index >= SLOTS_BEFORE_TEXT)
        weir_sana_slot_name(SLOTS, index - SLOTS_BEFORE_TEXT, out);
    else
        snprintf(out, WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES, "%s", index == SLOT_SCALE ? "control_scale" : "control");
}

/* ---- opening ---- */

/* Builds both programs once, which loads every layer. */
static enum weir_status load(struct weir_sana_controlnet *net, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    const struct weir_sana_transformer_step step = { .tokens = 1 };
    struct weir_sana_controlnet_walk walk;
    WEIR_TRY(weir_params_program(net->parts.params, &p, error));
    weir_sana_controlnet_build_prepare(net, p, none, none);
    weir_sana_controlnet_begin(net, p, &step, &walk);
    for (uint32_t i = 0; i < net->parts.config.layers; i++) weir_sana_controlnet_add(&walk, none);
    WEIR_TRY(weir_params_seal(net->parts.params, error));
cleanup:
    weir_program_destroy(&p);
    return status;
}

enum weir_status weir_sana_controlnet_open(struct weir_device *device,
                                           const struct weir_sana_transformer_config *config,
                                           const struct weir_weights *weights, enum weir_dtype dtype,
                                           struct weir_sana_controlnet **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sana_controlnet *net = calloc(1, sizeof *net);
    if (!net) return weir_fail(error, WEIR_NO_MEMORY, "sana_controlnet: no memory for its config");
    WEIR_TRY(weir_sana_parts_open(&net->parts, device, config, weights, dtype, error));
    WEIR_TRY(load(net, error));
    *out = net;
    net = NULL;
cleanup:
    weir_sana_controlnet_close(&net);
    return status;
}

void weir_sana_controlnet_close(struct weir_sana_controlnet **net_p)
{
    struct weir_sana_controlnet *net = *net_p;
    if (!net) return;
    weir_sana_parts_close(&net->parts);
    free(net);
    *net_p = NULL;
}

const struct weir_sana_transformer_config *weir_sana_controlnet_config_of(const struct weir_sana_controlnet *net)
{
    return &net->parts.config;
}

uint64_t weir_sana_controlnet_weight_bytes(const struct weir_sana_controlnet *net)
{
    return weir_sana_parts_bytes(&net->parts);
}

uint64_t weir_sana_controlnet_parameter_count(const struct weir_sana_controlnet *net)
{
    return weir_params_count(net->parts.params);
}
