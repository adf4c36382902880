/* gemma_folder: Gemma's tokenizer as it lies in a model folder: tokenizer.json, beside which tokenizer_config.json and
 * special_tokens_map.json may be. A folder with tokenizer.model alone is refused.
 *
 * Errors   NOT_FOUND, BAD_MODEL, UNSUPPORTED, TOO_LARGE, NO_MEMORY; the words name the file
 */
#ifndef WEIR_WORKER_TOKENIZERS_GEMMA_FOLDER_H
#define WEIR_WORKER_TOKENIZERS_GEMMA_FOLDER_H

#include "worker/tokenizers/gemma_bpe.h"

struct weir_model_dir;

/* Classes that a component of this kind may have in model_index.json, for weir_model_dir_require; NULL-terminated. */
extern const char *const weir_gemma_folder_classes[];

/* `component` is the folder within the model: "tokenizer". */
enum weir_status weir_gemma_folder_open(const struct weir_model_dir *model, const char *component,
                                        struct weir_gemma_bpe **out, struct weir_error *error);

#endif
