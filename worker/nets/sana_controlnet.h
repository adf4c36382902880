/* sana_controlnet: diffusers' SanaControlNetModel: a copy of a Sana transformer's first blocks that also sees a picture,
 * and adds what it makes of it to the transformer's tokens.
 *
 * It runs side by side with the transformer, a block of its own before each of the transformer's from the second on, so
 * that one value of it is alive at a time. The transformer's block i > 0 is followed by
 *   h += scale * controlnet_blocks[i - 1](own block i - 1)
 * as long as there are such blocks.
 *
 * prepare  what does not change from step to step: keys and values of the text, and the picture's tokens
 * step     is part of the transformer's (struct weir_sana_transformer_step)
 *
 * Shapes   those of sana_transformer.h; control [R, 1, H, W, in]: the picture's latents times scaling_factor, of the size
 *          of x; scale [R, 1, 1, 1, width]: the conditioning scale, in every channel
 * Memory, Errors, Threads   as sana_transformer.h
 * Source   diffusers models/controlnets/controlnet_sana.py; Zhang et al., arXiv:2302.05543; judged by
 *          tests/golden/make_tiny_sana_control.py
 */
#ifndef WEIR_WORKER_NETS_SANA_CONTROLNET_H
#define WEIR_WORKER_NETS_SANA_CONTROLNET_H

#include "worker/nets/sana_transformer.h"

struct weir_sana_controlnet;

/* Its keys are a transformer's; qk_norm and guidance_embeds are none of them and not looked at. Blocks that a transformer
 * of so many layers never looks at are left out. */
enum weir_status weir_sana_controlnet_config_read(const struct weir_config *config, uint32_t transformer_layers,
                                                  struct weir_sana_transformer_config *out, struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_sana_controlnet_open(struct weir_device *device,
                                           const struct weir_sana_transformer_config *config,
                                           const struct weir_weights *weights, enum weir_dtype dtype,
                                           struct weir_sana_controlnet **out, struct weir_error *error);
void weir_sana_controlnet_close(struct weir_sana_controlnet **net_p);
const struct weir_sana_transformer_config *weir_sana_controlnet_config_of(const struct weir_sana_controlnet *net);
uint64_t weir_sana_controlnet_weight_bytes(const struct weir_sana_controlnet *net);
uint64_t weir_sana_controlnet_parameter_count(const struct weir_sana_controlnet *net);

/* The slots: outputs of prepare, externs of step. Of the same names and sizes; "control_scale" is an input of prepare. */
uint32_t weir_sana_controlnet_slot_count(const struct weir_sana_controlnet *net);
void weir_sana_controlnet_slot_name(uint32_t index, char out[WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES]);

/* Adds the input "control_scale" and the outputs "control", "control_kv0", ... to a program that has `text` and
 * `control` already. */
void weir_sana_controlnet_build_prepare(const struct weir_sana_controlnet *net, struct weir_program *p,
                                        struct weir_value text, struct weir_value control);

/* Its way through one step, for the transformer's builder. */
struct weir_sana_controlnet_walk {
    const struct weir_sana_controlnet *net;
    struct weir_program *p;
    const struct weir_sana_transformer_step *step;
    struct weir_value vectors, scale, h; /* h: what its last block gave */
    uint32_t done;                       /* blocks */
};
void weir_sana_controlnet_begin(const struct weir_sana_controlnet *net, struct weir_program *p,
                                const struct weir_sana_transformer_step *step, struct weir_sana_controlnet_walk *out);
/* The tokens behind the transformer's next block, the first time those behind its second. */
struct weir_value weir_sana_controlnet_add(struct weir_sana_controlnet_walk *walk, struct weir_value tokens);

#endif
