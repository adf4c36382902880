#include "worker/tokenizers/gemma_folder.h"

#include "worker/model_dir.h"

#include <stdio.h>
#include <stdlib.h>

#define PATH_BYTES 256

const char *const weir_gemma_folder_classes[] = { "GemmaTokenizer", "GemmaTokenizerFast", NULL };

static enum weir_status read_file(const struct weir_model_dir *model, const char *component, const char *name,
                                  bool required, struct weir_gemma_bpe_bytes *out, struct weir_error *error)
{
    char path[PATH_BYTES], *bytes = NULL;
    snprintf(path, sizeof path, "%s/%s", component, name);
    const enum weir_status status =
        weir_model_dir_read(model, path, WEIR_GEMMA_BPE_FILE_BYTES_MAX, &bytes, &out->count, error);
    if (status == WEIR_NOT_FOUND && !required) return WEIR_OK;
    if (status == WEIR_OK) out->bytes = bytes;
    return status;
}

enum weir_status weir_gemma_folder_open(const struct weir_model_dir *model, const char *component,
                                        struct weir_gemma_bpe **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma_bpe_files files = { .label = component };
    WEIR_TRY(weir_model_dir_require(model, component, weir_gemma_folder_classes, error));
    WEIR_TRY(read_file(model, component, "tokenizer.json", true, &files.tokenizer_json, error));
    WEIR_TRY(read_file(model, component, "tokenizer_config.json", false, &files.tokenizer_config, error));
    WEIR_TRY(read_file(model, component, "special_tokens_map.json", false, &files.special_tokens_map, error));
    WEIR_TRY(weir_gemma_bpe_open(&files, out, error));
cleanup:
    free((char *)files.special_tokens_map.bytes);
    free((char *)files.tokenizer_config.bytes);
    free((char *)files.tokenizer_json.bytes);
    return status;
}
