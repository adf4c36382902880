/* sana_blocks: what SanaTransformer2DModel and SanaControlNetModel are both made of: the config, the embeddings of time,
 * pixels and text, and the block. For the builders of those two alone; shapes are those of sana_transformer.h.
 *
 * Source   diffusers models/transformers/sana_transformer.py, models/controlnets/controlnet_sana.py
 */
#ifndef WEIR_WORKER_NETS_SANA_BLOCKS_H
#define WEIR_WORKER_NETS_SANA_BLOCKS_H

#include "worker/nets/adapters.h"
#include "worker/nets/sana_transformer.h"
#include "worker/nets/sine_positions.h"

#define WEIR_SANA_SLOT_NAME_BYTES WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES

/* What either network owns: its config, its layers, its table of positions. */
struct weir_sana_parts {
    struct weir_sana_transformer_config config;
    struct weir_params *params;
    struct weir_sine_positions *positions; /* or NULL */
    enum weir_dtype dtype;
};
/* Neither layers nor the program that loads them yet. weights NULL: shapes alone, for planning. On an error what was made
 * is there for close, which takes parts that are all zero, too. */
enum weir_status weir_sana_parts_open(struct weir_sana_parts *parts, struct weir_device *device,
                                      const struct weir_sana_transformer_config *config,
                                      const struct weir_weights *weights, enum weir_dtype dtype,
                                      struct weir_error *error);
void weir_sana_parts_close(struct weir_sana_parts *parts);
/* Packed layers and positions. */
uint64_t weir_sana_parts_bytes(const struct weir_sana_parts *parts);

/* What is the same for every block of one build. */
struct weir_sana_build {
    const struct weir_sana_transformer_config *config;
    struct weir_params *params;
    struct weir_sine_positions *positions; /* or NULL */
    struct weir_program *p;
    enum weir_dtype dtype;
    const char *slots;           /* how the names of the text's slots begin */
    struct weir_adapted adapted; /* what linears are asked for by; a ControlNet has no adapters */
    struct weir_value vectors;   /* [R, 1, 1, 6 layers, width]: shifts, scales and gates of all blocks, of the time */
    struct weir_value lengths;   /* i32 [R]: real tokens of the text */
    struct weir_dims text;       /* of a key/value slot */
    uint32_t next_slot;
};

/* slots: as above; adapters: NULL for none. */
struct weir_sana_build weir_sana_build_of(const struct weir_sana_parts *parts, struct weir_program *p,
                                          const char *slots, const struct weir_adapters *adapters);

/* layers_default: of the class, where the file does not say. */
enum weir_status weir_sana_config_read(const struct weir_config *config, int64_t layers_default,
                                       struct weir_sana_transformer_config *out, struct weir_error *error);

/* Channels of all heads of the attention to the text. */
uint32_t weir_sana_cross_inner(const struct weir_sana_transformer_config *config);
/* [R, 1, 1, 1, width], of time and guidance (none without guidance_embeds); the blocks' part goes into b->vectors. */
struct weir_value weir_sana_time_embedding(struct weir_sana_build *b, struct weir_value t, struct weir_value guidance);
/* A token of each pixel, with its position where the model adds one, and `residual` or none. */
struct weir_value weir_sana_patch_embedding(struct weir_sana_build *b, struct weir_value x, struct weir_value residual);
struct weir_value weir_sana_block(struct weir_sana_build *b, struct weir_value h, uint32_t index);

/* Outputs: the slot of each block. */
void weir_sana_text(struct weir_sana_build *b, struct weir_value text);
void weir_sana_slot_name(const char *slots, uint32_t index, char out[WEIR_SANA_SLOT_NAME_BYTES]);

#endif
