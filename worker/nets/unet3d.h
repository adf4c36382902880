/* unet3d: diffusers' UNet3DConditionModel, the denoiser of text-to-video models.
 *
 * A U-net over frames. Each resnet works on every frame by itself and is followed by convolutions over time; each
 * transformer over pixels (attending to the text) by a transformer over time, which sees the frames of one pixel.
 *
 * prepare  what depends on the text alone: keys and values of every cross attention, once an item
 * step     the network itself; takes those keys and values from slots, so that it never sees the text
 *
 * Shapes   R rows, T frames, any H and W of at least one latent pixel at every level; L text tokens
 *          x [R, T, H, W, in], t f32 [R], text f32 [R, L, cross], key/value slot i [R, L, 2 inner_i],
 *          y [R, T, H, W, out]
 * Memory   weights on the device; the config is copied
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   diffusers models/unets/unet_3d_condition.py, unet_3d_blocks.py; judged by tests/golden/make_tiny_folders.py
 */
#ifndef WEIR_WORKER_NETS_UNET3D_H
#define WEIR_WORKER_NETS_UNET3D_H

#include "kernels/program.h"

#define WEIR_UNET3D_LEVELS_MAX 8
#define WEIR_UNET3D_LAYERS_MAX 8
#define WEIR_UNET3D_CHANNELS_MAX 16384

struct weir_adapters;
struct weir_config;
struct weir_params;
struct weir_weights;
struct weir_unet3d;

struct weir_unet3d_config {
    uint32_t in_channels, out_channels;
    uint32_t sample_size; /* 0: absent */
    uint32_t levels, channels[WEIR_UNET3D_LEVELS_MAX];
    bool down_attends[WEIR_UNET3D_LEVELS_MAX], up_attends[WEIR_UNET3D_LEVELS_MAX]; /* up: from the deepest on */
    uint32_t layers_per_block;
    uint32_t head_dim; /* attention_head_dim is the size of a head here: heads = channels / head_dim */
    uint32_t cross_channels, groups, downsample_padding;
    float norm_eps;
};

enum weir_status weir_unet3d_config_read(const struct weir_config *config, struct weir_unet3d_config *out,
                                         struct weir_error *error);
/* The least height and width: what is left of them at the deepest level is one pixel. */
uint32_t weir_unet3d_size_min(const struct weir_unet3d_config *config);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_unet3d_open(struct weir_device *device, const struct weir_unet3d_config *config,
                                  const struct weir_weights *weights, enum weir_dtype dtype, struct weir_unet3d **out,
                                  struct weir_error *error);
void weir_unet3d_close(struct weir_unet3d **net_p);

const struct weir_unet3d_config *weir_unet3d_config_of(const struct weir_unet3d *net);
/* The linears that adapters may name. */
const struct weir_params *weir_unet3d_params(const struct weir_unet3d *net);
uint64_t weir_unet3d_weight_bytes(const struct weir_unet3d *net);
uint64_t weir_unet3d_parameter_count(const struct weir_unet3d *net);

/* The slots: outputs of prepare, externs of step, of the same names and sizes. */
#define WEIR_UNET3D_SLOT_NAME_BYTES 16
uint32_t weir_unet3d_slot_count(const struct weir_unet3d *net);
void weir_unet3d_slot_name(uint32_t index, char out[WEIR_UNET3D_SLOT_NAME_BYTES]); /* "kv0" */

/* Adds the input "text" and the outputs "kv0", ... to a program; with adapters (NULL: none) their extern too. */
void weir_unet3d_build_prepare(const struct weir_unet3d *net, struct weir_program *p, uint32_t rows, uint32_t tokens,
                               const struct weir_adapters *adapters);
/* Adds the network to a program, with the externs "kv0", ...; gives y. */
struct weir_value weir_unet3d_build_step(const struct weir_unet3d *net, struct weir_program *p, struct weir_value x,
                                         struct weir_value t, uint32_t tokens, const struct weir_adapters *adapters);

#endif
