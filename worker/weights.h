/* weights: all tensors of one component (a network's folder), from one safetensors file or several shards.
 *
 * Files are mapped read-only: nothing is read before a tensor is, and the page cache is shared by all workers.
 *
 *   struct weir_weight w;
 *   WEIR_TRY(weir_weights_require(weights, "conv_in.weight", 4, (uint64_t[]){ 64, 4, 3, 3 }, &w, error));
 *   WEIR_TRY(weir_weight_read_f32(&w, out, error));
 *
 * Choice   plain file, or the variant asked for ("fp16"): STEM[.VARIANT].safetensors, else the index of a sharded set,
 *          STEM.safetensors.index[.VARIANT].json. Asked for a variant that is not there: the plain set; asked for none
 *          where only one variant exists: that one. Variants are never merged. STEM is diffusion_pytorch_model, or
 *          model for what transformers wrote.
 * Memory   views point into the mappings and live as long as the weights
 * Errors   BAD_MODEL (a file breaks the rules, a tensor is missing or of another shape), NOT_FOUND, IO, NO_MEMORY; the
 *          words name the file and the tensor
 * Threads  find, require and read are safe from any thread at once
 */
#ifndef WEIR_WORKER_WEIGHTS_H
#define WEIR_WORKER_WEIGHTS_H

#include "worker/safetensors.h"

#include <stdbool.h>

#define WEIR_WEIGHTS_VARIANT_BYTES_MAX 32

struct weir_weights;
struct weir_folder;

/* `component` is a folder of `folder` ("unet"), or "" for the folder itself; `variant` may be NULL.
 * Most callers use weir_model_dir_weights. */
enum weir_status weir_weights_open(const struct weir_folder *folder, const char *component, const char *variant,
                                   struct weir_weights **out, struct weir_error *error);
/* Whether the component has a set of exactly this name ("": the plain one). Not to have a folder is no error. */
enum weir_status weir_weights_find_variant(const struct weir_folder *folder, const char *component, const char *variant,
                                           bool *found, struct weir_error *error);
/* One file that is already in memory; the bytes are borrowed. */
enum weir_status weir_weights_parse(const void *bytes, size_t count, const char *label, struct weir_weights **out,
                                    struct weir_error *error);
void weir_weights_close(struct weir_weights **weights_p);

/* False when there is no such tensor. What was found counts as used. */
bool weir_weights_find(const struct weir_weights *weights, const char *name, struct weir_weight *out);
/* BAD_MODEL when the tensor is missing, has another shape, or is not F32, F16 or BF16. */
enum weir_status weir_weights_require(const struct weir_weights *weights, const char *name, size_t rank,
                                      const uint64_t *shape, struct weir_weight *out, struct weir_error *error);

/* BAD_MODEL unless it is F32, F16 or BF16. */
enum weir_status weir_weight_check_float(const struct weir_weight *weight, struct weir_error *error);
/* Converts to f32, exactly: F32, F16 and BF16. `out` holds weight->elements floats. BAD_MODEL for other dtypes. */
enum weir_status weir_weight_read_f32(const struct weir_weight *weight, float *out, struct weir_error *error);

/* The names that were never found or required, in the order of the files. A tensor that the index gives to another
 * file is among them. */
void weir_weights_unused(const struct weir_weights *weights,
                         void (*each)(void *context, const struct weir_weight *weight), void *context);

const char *weir_weights_label(const struct weir_weights *weights); /* the file, or the index, that names them */
size_t weir_weights_count(const struct weir_weights *weights);
uint64_t weir_weights_bytes(const struct weir_weights *weights); /* the data of all tensors */
/* Files that hold them, relative to the folder given to open: shards, then the index if there is one. None when they
 * were parsed from memory. */
size_t weir_weights_file_count(const struct weir_weights *weights);
const char *weir_weights_file(const struct weir_weights *weights, size_t index);

/* For main(): from now on a mapped file that is cut short, or whose disk fails, ends the process with one line on
 * stderr that names the file, and exit code 74, instead of a bare SIGBUS. Other SIGBUS faults stay what they are.
 * `program` must live as long as the process. */
void weir_weights_guard_install(const char *program);

#endif
