/* lora: a file of low-rank adapters for one network, and what several of them make together.
 *
 * File      safetensors as diffusers' save_lora_weights and PEFT write them. A linear MODULE of the network is named
 *             [base_model.model.][transformer.|unet.]MODULE.lora_A.weight [rank, in], MODULE.lora_B.weight [out, rank]
 *           or as older files do: MODULE.lora.down/up.weight, MODULE.lora_linear_layer.down/up.weight and, of attention,
 *           MODULE.processor.to_q_lora.down/up.weight. Convolutions 1x1 that are linears here have two axes more.
 * Scale     alpha / rank, or alpha / sqrt(rank) where the metadata has use_rslora. alpha: the tensor MODULE.alpha, else
 *           what the metadata's lora_adapter_metadata says of the module (alpha_pattern, by name or the end of one) or of
 *           all (lora_alpha); without any, the scale is 1
 * Rules     every tensor belongs to a linear that the network has and fits it; both halves are there; F32, F16 or BF16,
 *           finite; rank at most 4,096. Biases, DoRA, text encoders and all else are refused by name
 * Memory    what was parsed keeps no hold on the file's bytes
 * Errors    BAD_FILE, UNSUPPORTED, TOO_LARGE, NO_MEMORY; the words name file, tensor, what it is and what was wanted
 * Threads   a parsed adapter is read-only
 * Source    diffusers loaders/peft.py, utils/peft_utils.py; PEFT tuners/lora/config.py
 */
#ifndef WEIR_WORKER_NETS_LORA_H
#define WEIR_WORKER_NETS_LORA_H

#include "worker/nets/adapters.h"

#define WEIR_LORA_RANK_MAX 4096

struct weir_lora;

enum weir_status weir_lora_parse(const void *bytes, size_t count, const char *label, const struct weir_params *params,
                                 struct weir_lora **out, struct weir_error *error);
void weir_lora_destroy(struct weir_lora **lora_p);
uint64_t weir_lora_bytes(const struct weir_lora *lora); /* of memory that it takes */
/* alpha / rank of a module, 0 when it has none; for tests */
float weir_lora_scale(const struct weir_lora *lora, uint32_t part);

/* An adapter and how much of it: its products count `weight` times. */
struct weir_lora_use {
    const struct weir_lora *lora;
    double weight;
};

/* What several adapters of one network are together: where two adapt one linear, their ranks lie side by side. One of
 * weight 0 is left out. Give the shape back with weir_lora_shape_free. */
enum weir_status weir_lora_shape(const struct weir_lora_use *uses, size_t count, struct weir_adapter_shape *out,
                                 struct weir_error *error);
void weir_lora_shape_free(struct weir_adapter_shape *shape);
/* Their matrices as adapters.h lays them out; `out` holds weir_adapter_floats of that shape. */
void weir_lora_write(const struct weir_params *params, const struct weir_lora_use *uses, size_t count,
                     const struct weir_adapter_shape *shape, float *out);

#endif
