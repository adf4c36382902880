/* clip_text: transformers' CLIPTextModel: token ids in, one vector a token out.
 *
 * A causal transformer with norms before, and one after, its last layer's output being the result: nothing is pooled.
 * Padding is not masked: the tokens after the end see all before them, and later networks attend to them too.
 *
 * Shapes   ids i32 [R, L], embedding f32 [R, L, width]; L at most `positions`
 * Memory   weights on the device; the config is copied
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   transformers models/clip/modeling_clip.py; judged by tests/golden/make_tiny_folders.py
 */
#ifndef WEIR_WORKER_NETS_CLIP_TEXT_H
#define WEIR_WORKER_NETS_CLIP_TEXT_H

#include "kernels/program.h"

#define WEIR_CLIP_TEXT_LAYERS_MAX 128

struct weir_config;
struct weir_weights;
struct weir_clip_text;

struct weir_clip_text_config {
    uint32_t vocabulary, positions, width, feed_forward, layers, heads;
    enum weir_activation activation;
    float norm_eps;
};

enum weir_status weir_clip_text_config_read(const struct weir_config *config, struct weir_clip_text_config *out,
                                            struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_clip_text_open(struct weir_device *device, const struct weir_clip_text_config *config,
                                     const struct weir_weights *weights, enum weir_dtype dtype,
                                     struct weir_clip_text **out, struct weir_error *error);
void weir_clip_text_close(struct weir_clip_text **net_p);

uint64_t weir_clip_text_weight_bytes(const struct weir_clip_text *net);
uint64_t weir_clip_text_parameter_count(const struct weir_clip_text *net);

/* ids has the dims [R, 1, 1, L, 1]; every id is below `vocabulary` (the caller checked). */
struct weir_value weir_clip_text_build(const struct weir_clip_text *net, struct weir_program *p, struct weir_value ids);

#endif
