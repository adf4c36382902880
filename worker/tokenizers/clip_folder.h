/* clip_folder: CLIP's tokenizer as it lies in a model folder.
 *
 * Older folders hold vocab.json and merges.txt, newer ones (transformers 5) the same two tables inside tokenizer.json
 * alone. Where both are there, tokenizer.json is read, as transformers does.
 *
 * Errors   NOT_FOUND, BAD_MODEL, TOO_LARGE, NO_MEMORY; the words name the file
 */
#ifndef WEIR_WORKER_TOKENIZERS_CLIP_FOLDER_H
#define WEIR_WORKER_TOKENIZERS_CLIP_FOLDER_H

#include "worker/tokenizers/clip_bpe.h"

struct weir_model_dir;

/* `component` is the folder within the model: "tokenizer". */
enum weir_status weir_clip_folder_open(const struct weir_model_dir *model, const char *component,
                                       struct weir_clip_bpe **out, struct weir_error *error);

#endif
