/* gemma2: transformers' Gemma2Model: token ids in, the last hidden state out, one vector a token.
 *
 * A causal transformer. Padding on the right needs nothing: no real token looks at it, so what comes out for real
 * tokens is the same whatever stands behind them, and what comes out for padding means nothing. There is no sliding
 * window: a config whose window is shorter than the texts that can occur is refused. Attention scores are capped as
 * transformers' eager attention caps them.
 *
 * Shapes   ids i32 [R, L], last hidden state [R, L, width]; L at most the `tokens` that the config was read for
 * Memory   weights on the device; the config is copied
 * Errors   config_read: BAD_MODEL, UNSUPPORTED with file, key and value. open: BAD_MODEL with file and tensor,
 *          NO_MEMORY
 * Threads  open on one; building and everything else from any number
 * Source   transformers models/gemma2/modeling_gemma2.py; judged by tests/golden/make_tiny_sana.py
 */
#ifndef WEIR_WORKER_NETS_GEMMA2_H
#define WEIR_WORKER_NETS_GEMMA2_H

#include "kernels/program.h"

#define WEIR_GEMMA2_LAYERS_MAX 64

struct weir_config;
struct weir_weights;
struct weir_gemma2;

struct weir_gemma2_config {
    uint32_t vocabulary, width, feed_forward, layers;
    uint32_t heads, kv_heads, head_dim; /* head_dim is even, kv_heads divides heads */
    float norm_eps, rope_theta;
    float score_scale, softcap; /* softcap 0: none */
};

/* `tokens`: the longest text that will occur. */
enum weir_status weir_gemma2_config_read(const struct weir_config *config, uint32_t tokens,
                                         struct weir_gemma2_config *out, struct weir_error *error);

/* `weights` NULL: shapes alone, for planning. */
enum weir_status weir_gemma2_open(struct weir_device *device, const struct weir_gemma2_config *config,
                                  const struct weir_weights *weights, enum weir_dtype dtype, struct weir_gemma2 **out,
                                  struct weir_error *error);
void weir_gemma2_close(struct weir_gemma2 **net_p);

uint64_t weir_gemma2_weight_bytes(const struct weir_gemma2 *net);
uint64_t weir_gemma2_parameter_count(const struct weir_gemma2 *net);

/* ids has the dims [R, 1, 1, L, 1]; every id is below `vocabulary` (the caller checked). */
struct weir_value weir_gemma2_build(const struct weir_gemma2 *net, struct weir_program *p, struct weir_value ids);

#endif
