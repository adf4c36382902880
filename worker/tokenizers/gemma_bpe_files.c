/* Opening: the model and what is around it, then the added tokens, then what the two other files say. In those, only
 * what tokenizer.json says already is agreed to: transformers 4 and 5 differ in which file they believe. */
#include "worker/tokenizers/gemma_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_NAME "tokenizer_config.json"
#define MAP_NAME "special_tokens_map.json"
#define MESSAGE_NAME_MAX 200

/* ---- added tokens ---- */

static enum weir_status added_fail(const struct weir_gemma_reading *reading, enum weir_status status, const char *text,
                                   const char *what)
{
    return weir_fail(reading->error, status, "%s/tokenizer.json: added_tokens: \"%.40s\" %s", reading->files->label,
                     text, what);
}

/* Flags that would widen or narrow where a token is found. */
static const char *flag_refused(const json_t *token)
{
    static const char *const flags[] = { "single_word", "lstrip", "rstrip" };
    for (size_t i = 0; i < WEIR_COUNT(flags); i++) {
        const json_t *value = json_object_get(token, flags[i]);
        if (value && !json_is_false(value)) return flags[i];
    }
    return NULL;
}

/* Puts a token into the pass that it is looked for in. */
static enum weir_status added_put(struct weir_gemma_reading *reading, const char *text, bool normalised, int32_t id)
{
    struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    size_t bytes = strlen(text);
    char *own = NULL;
    if (!normalised) {
        own = strdup(text);
        if (!own) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for an added token");
        return weir_added_set_add(&tokenizer->raw, own, bytes, id, reading->error);
    }
    const enum weir_status status = weir_gemma_normalise(tokenizer, text, bytes, &own, &bytes, reading->error);
    if (status != WEIR_OK) return status;
    if (bytes > 0) return weir_added_set_add(&tokenizer->normalised, own, bytes, id, reading->error);
    free(own);
    return added_fail(reading, WEIR_UNSUPPORTED, text, "is nothing once normalised");
}

/* One token. Its id is that of the vocabulary; of a text that is not there, the one that the library gives: one above
 * those of the added tokens so far and of the vocabulary's count. */
static enum weir_status added_read(struct weir_gemma_reading *reading, const json_t *token,
                                   struct weir_token_table *all, int32_t *next_id)
{
    enum weir_status status = WEIR_OK;
    const struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    const char *text = json_string_value(json_object_get(token, "content")), *flag = flag_refused(token);
    const json_t *normalised = json_object_get(token, "normalized"), *special = json_object_get(token, "special");
    const json_t *said = json_object_get(token, "id");
    char what[96];
    bool added;
    if (!text) return weir_gemma_bad(reading, "added_tokens", "has an entry without a content");
    if (!text[0]) return WEIR_OK;
    if (strlen(text) > WEIR_GEMMA_BPE_TOKEN_BYTES_MAX)
        return added_fail(reading, WEIR_TOO_LARGE, text, "is longer than is read");
    if (flag) {
        snprintf(what, sizeof what, "has %s; offered is false", flag);
        return added_fail(reading, WEIR_UNSUPPORTED, text, what);
    }
    if ((normalised && !json_is_boolean(normalised)) || (special && !json_is_boolean(special)))
        return added_fail(reading, WEIR_BAD_MODEL, text, "has a flag that is not true or false");
    int32_t id = weir_token_table_id(&tokenizer->vocab, text, strlen(text));
    if (id == WEIR_TOKEN_NONE) {
        id = *next_id;
        reading->tokenizer->facts.entries++;
    }
    if (id >= *next_id) *next_id = id + 1;
    if (!json_is_integer(said) || json_integer_value(said) != id) {
        snprintf(what, sizeof what, "has not the id %d, which the vocabulary gives it", (int)id);
        return added_fail(reading, WEIR_BAD_MODEL, text, what);
    }
    if (id >= reading->tokenizer->facts.id_bound) reading->tokenizer->facts.id_bound = id + 1;
    WEIR_TRY(weir_token_table_add(all, text, strlen(text), id, &added, reading->error));
    if (!added) return added_fail(reading, WEIR_BAD_MODEL, text, "is there twice");
    WEIR_TRY(added_put(reading, text, normalised ? json_is_true(normalised) : !json_is_true(special), id));
cleanup:
    return status;
}

static enum weir_status added_tokens_read(struct weir_gemma_reading *reading, struct weir_token_table *all)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    const json_t *list = json_object_get(reading->whole, "added_tokens");
    int32_t next_id = (int32_t)tokenizer->vocab.count;
    tokenizer->facts.entries = (uint32_t)tokenizer->vocab.count;
    tokenizer->facts.id_bound = tokenizer->vocab.id_bound;
    if (list && !json_is_array(list)) return weir_gemma_bad(reading, "added_tokens", "is no list");
    if (json_array_size(list) > WEIR_GEMMA_BPE_ADDED_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/tokenizer.json: added_tokens has more than %d entries",
                         reading->files->label, WEIR_GEMMA_BPE_ADDED_MAX);
    for (size_t i = 0; i < json_array_size(list); i++)
        WEIR_TRY(added_read(reading, json_array_get(list, i), all, &next_id));
    weir_added_set_seal(&tokenizer->raw);
    weir_added_set_seal(&tokenizer->normalised);
cleanup:
    return status;
}

/* ---- tokenizer_config.json, special_tokens_map.json ---- */

static enum weir_status refuse(const struct weir_gemma_reading *reading, const char *file, const char *key,
                               const char *what)
{
    return weir_fail(reading->error, WEIR_UNSUPPORTED, "%s/%s: %.60s %s", reading->files->label, file, key, what);
}

/* The text of a token, which is given as a text or as an object with one; NULL when it is neither. */
static const char *token_text(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

/* A token that a file names must be among the added ones, or transformers would add it. */
static enum weir_status token_check(const struct weir_gemma_reading *reading, const struct weir_token_table *all,
                                    const char *file, const char *key, const json_t *value)
{
    const char *text = token_text(value);
    if (!text)
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: %.60s is neither a text nor an object with a content",
                         reading->files->label, file, key);
    if (flag_refused(value)) return refuse(reading, file, key, "has single_word, lstrip or rstrip");
    if (weir_token_table_id(all, text, strlen(text)) != WEIR_TOKEN_NONE) return WEIR_OK;
    return refuse(reading, file, key, "names a token that added_tokens of tokenizer.json does not have");
}

static bool ends_with(const char *text, const char *tail)
{
    const size_t bytes = strlen(text), tail_bytes = strlen(tail);
    return bytes >= tail_bytes && strcmp(text + bytes - tail_bytes, tail) == 0;
}

/* All that a file names: keys that end in _token, and lists of further ones. */
static enum weir_status names_check(const struct weir_gemma_reading *reading, const struct weir_token_table *all,
                                    const char *file, json_t *root)
{
    enum weir_status status = WEIR_OK;
    const char *key, *name;
    json_t *value, *inner;
    json_object_foreach(root, key, value)
    {
        const bool list = strcmp(key, "additional_special_tokens") == 0 || strcmp(key, "extra_special_tokens") == 0;
        if (ends_with(key, "_token") && (json_is_string(value) || json_is_object(value)))
            WEIR_TRY(token_check(reading, all, file, key, value));
        if (!list) continue;
        for (size_t i = 0; i < json_array_size(value); i++)
            WEIR_TRY(token_check(reading, all, file, key, json_array_get(value, i)));
        json_object_foreach(value, name, inner) WEIR_TRY(token_check(reading, all, file, key, inner));
    }
cleanup:
    return status;
}

static enum weir_status decoder_check(const struct weir_gemma_reading *reading, const struct weir_token_table *all)
{
    static const char key[] = "added_tokens_decoder";
    enum weir_status status = WEIR_OK;
    json_t *decoder = json_object_get(reading->config, key), *value;
    const char *id;
    json_object_foreach(decoder, id, value)
    {
        WEIR_TRY(token_check(reading, all, CONFIG_NAME, key, value));
        const char *text = token_text(value);
        if (weir_token_table_id(all, text, strlen(text)) != strtol(id, NULL, 10))
            return refuse(reading, CONFIG_NAME, key, "gives a token another id than tokenizer.json");
    }
cleanup:
    return status;
}

/* add_bos_token and add_eos_token must say what the post_processor does. */
static enum weir_status around_check(const struct weir_gemma_reading *reading, const char *key, int32_t id,
                                     const struct weir_gemma_around *around)
{
    const json_t *value = json_object_get(reading->config, key);
    const bool adds = around->count == 1 && around->ids[0] == id;
    if (json_is_true(value) && !adds)
        return refuse(reading, CONFIG_NAME, key,
                      "is true, but the post_processor of tokenizer.json does not add it alone");
    if (json_is_false(value) && around->count > 0)
        return refuse(reading, CONFIG_NAME, key, "is false, but the post_processor of tokenizer.json adds something");
    return WEIR_OK;
}

static enum weir_status roles_read(struct weir_gemma_reading *reading, const struct weir_token_table *all)
{
    struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    const struct {
        const char *key, *usual;
        int32_t *id;
    } roles[] = { { "bos_token", "<bos>", &tokenizer->facts.bos },
                  { "eos_token", "<eos>", &tokenizer->facts.eos },
                  { "pad_token", "<pad>", &tokenizer->facts.pad },
                  { "unk_token", "<unk>", &tokenizer->facts.unk } };
    const json_t *map = json_object_get(reading->config, "added_tokens_decoder") ? NULL : reading->map;
    for (size_t i = 0; i < WEIR_COUNT(roles); i++) {
        const json_t *value = json_object_get(map, roles[i].key);
        if (!value) value = json_object_get(reading->config, roles[i].key);
        const char *text = value ? token_text(value) : roles[i].usual;
        *roles[i].id = text ? weir_token_table_id(all, text, strlen(text)) : WEIR_TOKEN_NONE;
        if (text && *roles[i].id == WEIR_TOKEN_NONE)
            *roles[i].id = weir_token_table_id(&tokenizer->vocab, text, strlen(text));
    }
    if (tokenizer->facts.pad == WEIR_TOKEN_NONE)
        return weir_gemma_bad(reading, "added_tokens", "has no pad token, nor does another file name one");
    return WEIR_OK;
}

static enum weir_status config_check(const struct weir_gemma_reading *reading)
{
    const char *side = json_string_value(json_object_get(reading->config, "truncation_side"));
    if (side && strcmp(side, "right") != 0)
        return refuse(reading, CONFIG_NAME, "truncation_side", "is not \"right\""); /* padding_side is the caller's */
    if (json_is_true(json_object_get(reading->config, "split_special_tokens")))
        return refuse(reading, CONFIG_NAME, "split_special_tokens", "is true; offered is false");
    return WEIR_OK;
}

static enum weir_status parse(const struct weir_gemma_reading *reading, const struct weir_gemma_bpe_bytes *file,
                              const char *name, json_t **out)
{
    const struct weir_json_limits limits = { .bytes_max = (size_t)8 << 20,
                                             .depth_max = 16,
                                             .values_max = 16 * WEIR_GEMMA_BPE_ADDED_MAX,
                                             .special_words = true,
                                             .all_reals = true }; /* model_max_length is 10^30 */
    char label[MESSAGE_NAME_MAX];
    if (!file->bytes) return WEIR_OK;
    snprintf(label, sizeof label, "%s/%s", reading->files->label, name);
    return weir_json_parse(file->bytes, file->count, &limits, label, out, reading->error);
}

enum weir_status weir_gemma_bpe_open(const struct weir_gemma_bpe_files *files, struct weir_gemma_bpe **out,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_token_table all = { 0 }; /* the added tokens */
    struct weir_gemma_bpe *tokenizer = calloc(1, sizeof *tokenizer);
    struct weir_gemma_reading reading = { .files = files, .tokenizer = tokenizer, .error = error };
    if (!tokenizer) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a tokenizer");
    WEIR_TRY(weir_gemma_model_read(&reading));
    WEIR_TRY(weir_gemma_steps_read(&reading));
    WEIR_TRY(added_tokens_read(&reading, &all));
    WEIR_TRY(weir_gemma_around_read(&reading));
    WEIR_TRY(parse(&reading, &files->tokenizer_config, CONFIG_NAME, &reading.config));
    WEIR_TRY(parse(&reading, &files->special_tokens_map, MAP_NAME, &reading.map));
    WEIR_TRY(config_check(&reading));
    WEIR_TRY(names_check(&reading, &all, CONFIG_NAME, reading.config));
    if (!json_object_get(reading.config, "added_tokens_decoder"))
        WEIR_TRY(names_check(&reading, &all, MAP_NAME, reading.map));
    WEIR_TRY(decoder_check(&reading, &all));
    WEIR_TRY(roles_read(&reading, &all));
    WEIR_TRY(around_check(&reading, "add_bos_token", tokenizer->facts.bos, &tokenizer->before));
    WEIR_TRY(around_check(&reading, "add_eos_token", tokenizer->facts.eos, &tokenizer->after));
    tokenizer->facts.before = tokenizer->before.count;
    tokenizer->facts.after = tokenizer->after.count;
    *out = tokenizer;
    tokenizer = NULL;
cleanup:
    weir_token_table_deinit(&all);
    json_decref(reading.whole);
    json_decref(reading.config);
    json_decref(reading.map);
    weir_gemma_bpe_close(&tokenizer);
    return status;
}
