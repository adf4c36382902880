#include "worker/tokenizers/clip_folder.h"

#include "worker/json_text.h"
#include "worker/model_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 256

struct text {
    char *bytes;
    size_t count;
};

static enum weir_status read_file(const struct weir_model_dir *model, const char *component, const char *name,
                                  bool required, struct text *out, struct weir_error *error)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", component, name);
    if (!required && !weir_model_dir_has(model, path)) return WEIR_OK;
    return weir_model_dir_read(model, path, WEIR_CLIP_BPE_FILE_BYTES_MAX, &out->bytes, &out->count, error);
}

/* "left right" a line, from either way that tokenizer.json writes a merge: a text, or a list of two. */
static enum weir_status write_merges(const json_t *merges, const char *label, struct text *out,
                                     struct weir_error *error)
{
    size_t room = sizeof "#version: 0.2\n", index;
    const json_t *merge;
    json_array_foreach((json_t *)merges, index, merge)
    {
        const char *left = json_string_value(json_is_array(merge) ? json_array_get(merge, 0) : merge);
        const char *right = json_is_array(merge) ? json_string_value(json_array_get(merge, 1)) : "";
        if (!left || !right || (json_is_array(merge) && json_array_size(merge) != 2))
            return weir_fail(error, WEIR_BAD_MODEL, "%s: merge %zu is neither \"left right\" nor two texts", label,
                             index);
        room += strlen(left) + strlen(right) + 2;
    }
    out->bytes = malloc(room);
    if (!out->bytes) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its merges", label);
    out->count = (size_t)snprintf(out->bytes, room, "#version: 0.2\n");
    json_array_foreach((json_t *)merges, index, merge)
    {
        const bool pair = json_is_array(merge);
        out->count += (size_t)snprintf(out->bytes + out->count, room - out->count, "%s%s%s\n",
                                       json_string_value(pair ? json_array_get(merge, 0) : merge), pair ? " " : "",
                                       pair ? json_string_value(json_array_get(merge, 1)) : "");
    }
    return WEIR_OK;
}

static enum weir_status split_tokenizer_json(const struct weir_model_dir *model, const char *component,
                                             struct text *vocab, struct text *merges, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_json_limits limits = { .bytes_max = WEIR_CLIP_BPE_FILE_BYTES_MAX,
                                             .depth_max = 16,
                                             .values_max = WEIR_CLIP_BPE_VOCAB_MAX + 3 * WEIR_CLIP_BPE_MERGES_MAX };
    struct text file = { 0 };
    json_t *root = NULL;
    char label[PATH_BYTES];
    snprintf(label, sizeof label, "%s/tokenizer.json", component);
    WEIR_TRY(read_file(model, component, "tokenizer.json", true, &file, error));
    WEIR_TRY(weir_json_parse(file.bytes, file.count, &limits, label, &root, error));
    const json_t *table = json_object_get(root, "model");
    const json_t *tokens = json_object_get(table, "vocab"), *pairs = json_object_get(table, "merges");
    if (!json_is_object(tokens) || !json_is_array(pairs)) {
        WEIR_TRY(weir_fail(error, WEIR_BAD_MODEL, "%s: model has no vocab and merges, as a BPE tokenizer has", label));
    }
    WEIR_TRY(write_merges(pairs, label, merges, error));
    vocab->bytes = json_dumps(tokens, JSON_COMPACT);
    if (!vocab->bytes) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its vocabulary", label));
    vocab->count = strlen(vocab->bytes);
cleanup:
    json_decref(root);
    free(file.bytes);
    return status;
}

enum weir_status weir_clip_folder_open(const struct weir_model_dir *model, const char *component,
                                       struct weir_clip_bpe **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct text vocab = { 0 }, merges = { 0 }, specials = { 0 }, config = { 0 };
    char vocab_path[PATH_BYTES], json_path[PATH_BYTES];
    snprintf(vocab_path, sizeof vocab_path, "%s/vocab.json", component);
    snprintf(json_path, sizeof json_path, "%s/tokenizer.json", component);

    if (!weir_model_dir_has(model, vocab_path) && weir_model_dir_has(model, json_path)) {
        WEIR_TRY(split_tokenizer_json(model, component, &vocab, &merges, error));
    } else {
        WEIR_TRY(read_file(model, component, "vocab.json", true, &vocab, error));
        WEIR_TRY(read_file(model, component, "merges.txt", true, &merges, error));
    }
    WEIR_TRY(read_file(model, component, "special_tokens_map.json", false, &specials, error));
    WEIR_TRY(read_file(model, component, "tokenizer_config.json", false, &config, error));
    const struct weir_clip_bpe_files files = { .vocab = { vocab.bytes, vocab.count },
                                               .merges = { merges.bytes, merges.count },
                                               .special_tokens_map = { specials.bytes, specials.count },
                                               .tokenizer_config = { config.bytes, config.count },
                                               .label = component };
    WEIR_TRY(weir_clip_bpe_open(&files, out, error));
cleanup:
    free(config.bytes);
    free(specials.bytes);
    free(merges.bytes);
    free(vocab.bytes);
    return status;
}
