#include "worker/model_index.h"

#include "worker/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT_NAME_BYTES_MAX 64
#define FILE_NAME_BYTES_MAX 255
#define INSTRUCTION_BYTES_MAX 16384
#define SAMPLER_BYTES_MAX 32

/* Words of outside files that become parts of paths or of messages: letters, digits, `_`, and `extra`. */
static bool is_word(const char *text, const char *extra, size_t bytes_max)
{
    const size_t length = strlen(text);
    if (length < 1 || length > bytes_max) return false;
    for (const char *c = text; *c; c++) {
        const bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        if (!plain && *c != '_' && !strchr(extra, *c)) return false;
    }
    return true;
}

static enum weir_status add_component(struct weir_model_index *index, const char *name, const json_t *pair,
                                      const char *label, struct weir_error *error)
{
    const char *library = json_string_value(json_array_get(pair, 0));
    const char *class_name = json_string_value(json_array_get(pair, 1));
    char shown[96];
    if (json_is_null(json_array_get(pair, 0)) && json_is_null(json_array_get(pair, 1))) return WEIR_OK;
    if (json_array_size(pair) != 2 || !library || !class_name || !is_word(library, ".-", COMPONENT_NAME_BYTES_MAX) ||
        !is_word(class_name, ".", COMPONENT_NAME_BYTES_MAX) || !is_word(name, "", COMPONENT_NAME_BYTES_MAX)) {
        weir_json_show(pair, shown, sizeof shown);
        return weir_fail(error, WEIR_BAD_MODEL, "%s: component %.64s is %s, wanted [\"library\", \"ClassName\"]", label,
                         name, shown);
    }
    if (index->component_count == WEIR_COMPONENTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: more than %d components", label, WEIR_COMPONENTS_MAX);
    }
    index->components[index->component_count++] =
        (struct weir_component){ .name = name, .library = library, .class_name = class_name };
    return WEIR_OK;
}

enum weir_status weir_model_index_init(struct weir_model_index *index, const char *text, size_t bytes,
                                       const char *label, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *key;
    json_t *value;

    *index = (struct weir_model_index){ 0 };
    WEIR_TRY(weir_config_parse(text, bytes, label, &index->config, error));
    WEIR_TRY(weir_config_text(index->config, "_class_name", NULL, &index->class_name, error));
    if (!is_word(index->class_name, "", COMPONENT_NAME_BYTES_MAX)) {
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: _class_name is \"%.64s\", wanted the name of a pipeline class",
                           label, index->class_name);
        goto cleanup;
    }
    json_object_foreach(weir_config_root(index->config), key, value)
    {
        if (key[0] == '_' || !json_is_array(value)) continue;
        WEIR_TRY(add_component(index, key, value, label, error));
    }

cleanup:
    if (status != WEIR_OK) weir_model_index_deinit(index);
    return status;
}

void weir_model_index_deinit(struct weir_model_index *index)
{
    weir_config_close(&index->config);
    *index = (struct weir_model_index){ 0 };
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts, and keeps one of each. */
static size_t unique(const char **texts, size_t count)
{
    size_t kept = 0;
    qsort(texts, count, sizeof *texts, by_bytes);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(texts[kept - 1], texts[i]) != 0) texts[kept++] = texts[i];
    }
    return kept;
}

static enum weir_status check_shard_name(const char *tensor, const json_t *value, const char *label,
                                         struct weir_error *error)
{
    static const char extension[] = ".safetensors";
    const char *file = json_string_value(value);
    const size_t length = file ? strlen(file) : 0;
    char shown[96];
    if (length > sizeof extension - 1 && file[0] != '.' && is_word(file, ".-", FILE_NAME_BYTES_MAX) &&
        strcmp(file + length - (sizeof extension - 1), extension) == 0) {
        return WEIR_OK;
    }
    weir_json_show(value, shown, sizeof shown);
    return weir_fail(error, WEIR_BAD_MODEL,
                     "%s: weight_map puts tensor %.128s in %s, wanted the bare name of a "
                     ".safetensors file",
                     label, tensor, shown);
}

enum weir_status weir_weights_index_init(struct weir_weights_index *index, const char *text, size_t bytes,
                                         const char *label, struct weir_error *error)
{
    static const struct weir_json_limits limits = { .bytes_max = WEIR_WEIGHTS_INDEX_BYTES_MAX,
                                                    .depth_max = 4,
                                                    .values_max = WEIR_SAFETENSORS_TENSORS_MAX + 1000 };
    enum weir_status status = WEIR_OK;
    const char *tensor;
    json_t *root = NULL, *value;

    *index = (struct weir_weights_index){ 0 };
    WEIR_TRY(weir_json_parse(text, bytes, &limits, label, &root, error));
    index->root = root;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        status = weir_fail(error, WEIR_BAD_MODEL,
                           "%s: weight_map is missing or empty, wanted tensor names with their "
                           "files",
                           label);
        goto cleanup;
    }
    index->files = calloc(json_object_size(map), sizeof *index->files);
    if (!index->files) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
        goto cleanup;
    }
    json_object_foreach(map, tensor, value)
    {
        WEIR_TRY(check_shard_name(tensor, value, label, error));
        index->files[index->file_count++] = json_string_value(value);
    }
    index->file_count = unique(index->files, index->file_count);
    if (index->file_count > WEIR_WEIGHTS_SHARDS_MAX) {
        status = weir_fail(error, WEIR_TOO_LARGE, "%s: %zu files, at most %d are read", label, index->file_count,
                           WEIR_WEIGHTS_SHARDS_MAX);
    }

cleanup:
    if (status != WEIR_OK) weir_weights_index_deinit(index);
    return status;
}

void weir_weights_index_deinit(struct weir_weights_index *index)
{
    json_decref(index->root);
    free(index->files);
    *index = (struct weir_weights_index){ 0 };
}

const char *weir_weights_index_file(const struct weir_weights_index *index, const char *tensor)
{
    return json_string_value(json_object_get(json_object_get(index->root, "weight_map"), tensor));
}

void weir_weights_index_each(const struct weir_weights_index *index,
                             bool (*each)(void *context, const char *tensor, const char *file), void *context)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(json_object_get(index->root, "weight_map"), tensor, value)
    {
        if (!each(context, tensor, json_string_value(value))) return;
    }
}

static enum weir_status refuse_unknown_keys(const struct weir_config *config, const char *label,
                                            struct weir_error *error)
{
    static const char *const known[] = { "steps", "guidance", "width",       "height",          "frames",
                                         "fps",   "sampler",  "instruction", "decode_whole_mib" };
    const char *key;
    json_t *value;
    json_object_foreach(weir_config_root(config), key, value)
    {
        bool found = false;
        for (size_t i = 0; i < WEIR_COUNT(known) && !found; i++) found = strcmp(key, known[i]) == 0;
        if (!found) {
            return weir_fail(error, WEIR_BAD_MODEL,
                             "%s: unknown key %.64s, wanted steps, guidance, width, height, "
                             "frames, fps, sampler, instruction or decode_whole_mib",
                             label, key);
        }
    }
    return WEIR_OK;
}

enum weir_status weir_defaults_init(struct weir_defaults *defaults, const char *text, size_t bytes, const char *label,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *word = "";

    *defaults = WEIR_DEFAULTS_ABSENT;
    WEIR_TRY(weir_config_parse(text, bytes, label, &defaults->config, error));
    const struct weir_config *config = defaults->config;
    WEIR_TRY(refuse_unknown_keys(config, label, error));
    WEIR_TRY(weir_config_int(config, "steps", 0, 1, 1000, &defaults->steps, error));
    WEIR_TRY(weir_config_int(config, "width", 0, 8, 16384, &defaults->width, error));
    WEIR_TRY(weir_config_int(config, "height", 0, 8, 16384, &defaults->height, error));
    WEIR_TRY(weir_config_int(config, "frames", 0, 1, 100000, &defaults->frames, error));
    WEIR_TRY(weir_config_int(config, "fps", 0, 1, 240, &defaults->fps, error));
    WEIR_TRY(weir_config_int(config, "decode_whole_mib", 0, 1, 1 << 20, &defaults->decode_whole_mib, error));
    if (weir_config_has(config, "guidance")) {
        WEIR_TRY(weir_config_real(config, "guidance", 0, 0, 100, &defaults->guidance, error));
    }
    WEIR_TRY(weir_config_text(config, "sampler", "", &word, error));
    if (*word && !is_word(word, "+-", SAMPLER_BYTES_MAX)) {
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: sampler is \"%.64s\", wanted the name of one", label, word);
        goto cleanup;
    }
    defaults->sampler = *word ? word : NULL;
    WEIR_TRY(weir_config_text(config, "instruction", "", &word, error));
    if (strlen(word) > INSTRUCTION_BYTES_MAX) {
        status = weir_fail(error, WEIR_TOO_LARGE, "%s: instruction has %zu bytes, at most %d are read", label,
                           strlen(word), INSTRUCTION_BYTES_MAX);
        goto cleanup;
    }
    defaults->instruction = *word ? word : NULL;

cleanup:
    if (status != WEIR_OK) weir_defaults_deinit(defaults);
    return status;
}

void weir_defaults_deinit(struct weir_defaults *defaults)
{
    weir_config_close(&defaults->config);
    *defaults = WEIR_DEFAULTS_ABSENT;
}
