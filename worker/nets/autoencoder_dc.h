/* autoencoder_dc: diffusers' AutoencoderDC (DC-AE): pictures to latents and back, each frame by itself.
 *
 * Both halves are stages of residual convolutions (ResBlock) or of linear attention and gated convolutions
 * (EfficientViTBlock), with a change of size by two between stages. A half is opened by itself: who only decodes does
 * not load the encoder. A half may also be built in steps; the decoder's last ones look at near rows alone and run over
 * a large picture in bands (weir_autoencoder_dc_cut_decode):
 *
 *   decoder   step 0 is conv_in, steps 1..stages are the stages from the deepest up, each with the way up before it,
 *             step stages + 1 is the way out
 *   encoder   step 0 is conv_in, steps 1..stages are the stages down, each with the way down behind it,
 *             step stages + 1 is the way out
 *
 * Shapes   z [R, 1, h, w, latent_channels], any h and w of at least 1, for decode already divided by scaling_factor,
 *          from encode not yet multiplied by it; picture [R, 1, h f, w f, in_channels], f = factor, in -1..1 (nothing
 *          clamps)
 * Memory   weights on the device; the config is copied
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   diffusers models/autoencoders/autoencoder_dc.py, models/attention_processor.py
 *          (SanaMultiscaleLinearAttention), Chen et al., arXiv:2410.10733; judged by tests/golden/make_tiny_dc.py
 */
#ifndef WEIR_WORKER_NETS_AUTOENCODER_DC_H
#define WEIR_WORKER_NETS_AUTOENCODER_DC_H

#include "kernels/program.h"
#include "worker/nets/bands.h"

#define WEIR_AUTOENCODER_DC_STAGES_MAX 10
#define WEIR_AUTOENCODER_DC_SCALES_MAX 4

struct weir_config;
struct weir_weights;
struct weir_autoencoder_dc;

enum weir_autoencoder_dc_half { WEIR_AUTOENCODER_DC_DECODER, WEIR_AUTOENCODER_DC_ENCODER };

struct weir_autoencoder_dc_stage {
    uint32_t channels, layers; /* layers 0: the first stage, which is then the change of size alone; or the last */
    bool attends;              /* its blocks are EfficientViTBlocks, else ResBlocks */
    enum weir_activation activation;                         /* of its ResBlocks */
    uint32_t scales, kernel[WEIR_AUTOENCODER_DC_SCALES_MAX]; /* of its EfficientViTBlocks: further projections */
};

struct weir_autoencoder_dc_config {
    uint32_t in_channels, latent_channels, head_dim;
    uint32_t stages;
    uint32_t factor; /* pixels a latent cell: 2 to the number of stages less one */
    struct weir_autoencoder_dc_stage encoder[WEIR_AUTOENCODER_DC_STAGES_MAX]; /* from the picture down, both */
    struct weir_autoencoder_dc_stage decoder[WEIR_AUTOENCODER_DC_STAGES_MAX];
    bool pixel_unshuffle, interpolate; /* the ways down and up: else a convolution of stride 2, and pixel_shuffle */
    bool encoder_out_shortcut, decoder_in_shortcut;
    enum weir_activation conv_activation; /* before the decoder's last convolution */
    double scaling_factor;
};

enum weir_status weir_autoencoder_dc_config_read(const struct weir_config *config,
                                                 struct weir_autoencoder_dc_config *out, struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_autoencoder_dc_open(struct weir_device *device, const struct weir_autoencoder_dc_config *config,
                                          enum weir_autoencoder_dc_half half, const struct weir_weights *weights,
                                          enum weir_dtype dtype, struct weir_autoencoder_dc **out,
                                          struct weir_error *error);
void weir_autoencoder_dc_close(struct weir_autoencoder_dc **net_p);

const struct weir_autoencoder_dc_config *weir_autoencoder_dc_config_of(const struct weir_autoencoder_dc *net);
uint64_t weir_autoencoder_dc_weight_bytes(const struct weir_autoencoder_dc *net); /* of the half that was opened */
uint64_t weir_autoencoder_dc_parameter_count(const struct weir_autoencoder_dc *net);

/* Of the half that was opened; the other's is our own fault. */
struct weir_value weir_autoencoder_dc_build_decode(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                   struct weir_value z);
struct weir_value weir_autoencoder_dc_build_encode(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                   struct weir_value picture);
/* Steps `first` to `last` of either half; x is what the step before `first` gives. */
struct weir_value weir_autoencoder_dc_build_steps(const struct weir_autoencoder_dc *net, struct weir_program *p,
                                                  struct weir_value x, uint32_t first, uint32_t last);

/* How a decode runs in bounded memory: steps 0 to step - 1 once, the others in bands, which have the width of a row and
 * are cut along the height of what `step` is given, [1, 1, bands.height, width, channels].
 * Undivided (bands.count 1) where its values take no more than `whole_max` bytes. Otherwise a band's values take as
 * much as the steps that run once take anyway, or half of `whole_max` where that is more: then the peak is theirs.
 * Where it is cut, bands.groups are as many tasks as are worth their running those steps again: one for 4 Mi pixels, 2 to
 * 4. All by the config and the shape, so that every machine cuts alike. */
struct weir_autoencoder_dc_cut {
    uint32_t step;     /* at least 1: the first after the last that attends */
    uint32_t channels; /* of what it is given, */
    uint32_t width;    /* and its columns */
    struct weir_bands bands;
};
/* height, width: of the latents. */
struct weir_autoencoder_dc_cut weir_autoencoder_dc_cut_decode(const struct weir_autoencoder_dc_config *config,
                                                              uint32_t height, uint32_t width, uint64_t whole_max);

#endif
