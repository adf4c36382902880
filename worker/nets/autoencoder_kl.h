/* autoencoder_kl: the decoder of diffusers' AutoencoderKL: latents to pictures, each frame by itself.
 *
 * Every frame is a row, so that a frame's bytes do not depend on how many are decoded at once.
 *
 * Shapes   z [R, 1, h, w, latent_channels], already divided by scaling_factor; picture [R, 1, h f, w f, out_channels],
 *          f = factor
 * Memory   weights on the device; the config is copied
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   diffusers models/autoencoders/autoencoder_kl.py, vae.py; judged by tests/golden/make_tiny_folders.py
 */
#ifndef WEIR_WORKER_NETS_AUTOENCODER_KL_H
#define WEIR_WORKER_NETS_AUTOENCODER_KL_H

#include "kernels/program.h"

#define WEIR_AUTOENCODER_KL_LEVELS_MAX 8

struct weir_config;
struct weir_weights;
struct weir_autoencoder_kl;

/* force_upcast, latents_mean, latents_std and shift_factor are not here: they speak to pipelines, and the one that uses
 * this decoder reads none of them in diffusers either. */
struct weir_autoencoder_kl_config {
    uint32_t out_channels, latent_channels;
    uint32_t levels, channels[WEIR_AUTOENCODER_KL_LEVELS_MAX];
    uint32_t layers_per_block, groups;
    uint32_t factor; /* pixels a latent cell: 2 to the number of levels less one */
    bool mid_attention, post_quant_conv;
    double scaling_factor;
};

enum weir_status weir_autoencoder_kl_config_read(const struct weir_config *config,
                                                 struct weir_autoencoder_kl_config *out, struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_autoencoder_kl_open(struct weir_device *device, const struct weir_autoencoder_kl_config *config,
                                          const struct weir_weights *weights, enum weir_dtype dtype,
                                          struct weir_autoencoder_kl **out, struct weir_error *error);
void weir_autoencoder_kl_close(struct weir_autoencoder_kl **net_p);

const struct weir_autoencoder_kl_config *weir_autoencoder_kl_config_of(const struct weir_autoencoder_kl *net);
uint64_t weir_autoencoder_kl_weight_bytes(const struct weir_autoencoder_kl *net);
uint64_t weir_autoencoder_kl_parameter_count(const struct weir_autoencoder_kl *net);

struct weir_value weir_autoencoder_kl_build_decode(const struct weir_autoencoder_kl *net, struct weir_program *p,
                                                   struct weir_value z);

#endif
