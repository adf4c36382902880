/* Which special tokens a folder has, and how each is looked for, follows transformers 5 step by step, since a folder
 * may say it in four places that contradict one another:
 *
 *   1. tokenizer_config.json names tokens (bos_token, ...). Without an added_tokens_decoder in it, what
 *      special_tokens_map.json names comes in their place, and so do the added_tokens of a tokenizer.json.
 *   2. To be added: first the decoder's tokens by id, then the named ones that are not among them, then the extra ones.
 *      A token given as a bare text is special and looked for literally.
 *   3. Of several tokens with one text the last one counts. A text that the vocabulary lacks gets the next free id. */
#include "worker/tokenizers/internal.h"

#include <stdlib.h>
#include <string.h>

struct token {
    const char *text; /* borrowed from the JSON */
    bool bare;        /* given as a text, not as an object */
    bool single_word, lstrip, rstrip, normalised, special;
};

struct token_list {
    struct token tokens[WEIR_CLIP_BPE_SPECIALS_MAX];
    size_t count;
};

enum named { NAMED_BOS, NAMED_EOS, NAMED_UNK, NAMED_SEP, NAMED_PAD, NAMED_CLS, NAMED_MASK, NAMED_COUNT };
static const char *const named_keys[NAMED_COUNT] = { "bos_token", "eos_token", "unk_token", "sep_token",
                                                     "pad_token", "cls_token", "mask_token" };
static const char *const named_defaults[NAMED_COUNT] = {
    [NAMED_BOS] = "<|startoftext|>",
    [NAMED_EOS] = "<|endoftext|>",
    [NAMED_UNK] = "<|endoftext|>",
    [NAMED_PAD] = "<|endoftext|>",
};

static enum weir_status flag_read(struct weir_clip_reading *reading, const json_t *object, const char *key,
                                  bool flag_default, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = value ? json_is_true(value) : flag_default;
    if (!value || json_is_boolean(value)) return WEIR_OK;
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: \"%s\" of a special token is not true or false",
                     reading->files->label, key);
}

/* A token is a text, or an object with `content` and flags; `special`: the file says nothing but special tokens. */
static enum weir_status token_read(struct weir_clip_reading *reading, const char *key, const json_t *value,
                                   bool special, struct token *out)
{
    enum weir_status status = WEIR_OK;
    *out = (struct token){ .text = json_string_value(value), .bare = true, .special = true };
    if (json_is_object(value)) {
        out->bare = false;
        out->text = json_string_value(json_object_get(value, "content"));
        WEIR_TRY(flag_read(reading, value, "special", special, &out->special));
        if (special) out->special = true;
        WEIR_TRY(flag_read(reading, value, "single_word", false, &out->single_word));
        WEIR_TRY(flag_read(reading, value, "lstrip", false, &out->lstrip));
        WEIR_TRY(flag_read(reading, value, "rstrip", false, &out->rstrip));
        WEIR_TRY(flag_read(reading, value, "normalized", !out->special, &out->normalised));
    }
    if (!out->text)
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: %s is neither a text nor an object with a content",
                         reading->files->label, key);
    if (strlen(out->text) > WEIR_CLIP_BPE_TOKEN_BYTES_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s: %s has %zu bytes; at most %d are read",
                         reading->files->label, key, strlen(out->text), WEIR_CLIP_BPE_TOKEN_BYTES_MAX);
cleanup:
    return status;
}

static enum weir_status token_append(struct weir_clip_reading *reading, struct token_list *list,
                                     const struct token *token)
{
    if (list->count == WEIR_CLIP_BPE_SPECIALS_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s: more than %d special tokens", reading->files->label,
                         WEIR_CLIP_BPE_SPECIALS_MAX);
    list->tokens[list->count++] = *token;
    return WEIR_OK;
}

static bool token_equal(const struct token *a, const struct token *b)
{
    return a->bare == b->bare && a->single_word == b->single_word && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
           a->normalised == b->normalised && a->special == b->special && strcmp(a->text, b->text) == 0;
}

static const struct token *token_find(const struct token_list *list, size_t count, const char *text)
{
    for (size_t i = count; i > 0; i--) { /* of several, the last */
        if (strcmp(list->tokens[i - 1].text, text) == 0) return &list->tokens[i - 1];
    }
    return NULL;
}

/* added_tokens_decoder of tokenizer_config.json, {"id": token}, or added_tokens of tokenizer.json, [token with id];
 * into `out` by id. */
static enum weir_status decoder_read(struct weir_clip_reading *reading, const json_t *tokens, struct token_list *out)
{
    enum weir_status status = WEIR_OK;
    long long ids[WEIR_CLIP_BPE_SPECIALS_MAX];
    void *place = json_is_object(tokens) ? json_object_iter((json_t *)tokens) : NULL;
    const size_t count = json_is_object(tokens) ? json_object_size(tokens) : json_array_size(tokens);
    if (!json_is_object(tokens) && !json_is_array(tokens))
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: the added tokens are neither an object nor a list",
                         reading->files->label);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = place ? json_object_iter_value(place) : json_array_get(tokens, i);
        struct token token;
        if (!json_is_object(value))
            return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: an added token is not an object",
                             reading->files->label);
        WEIR_TRY(token_read(reading, "an added token", value, false, &token));
        WEIR_TRY(token_append(reading, out, &token));
        const long long id = place ? strtoll(json_object_iter_key(place), NULL, 10)
                                   : (long long)json_integer_value(json_object_get(value, "id"));
        size_t at = i; /* insertion by id; there are few */
        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
            out->tokens[at] = out->tokens[at - 1];
        }
        ids[at] = id;
        out->tokens[at] = token;
        if (place) place = json_object_iter_next((json_t *)tokens, place);
    }
cleanup:
    return status;
}

/* The token that the files give a name; `present` is false where there is none. */
static enum weir_status named_read(struct weir_clip_reading *reading, enum named name, bool with_map, struct token *out,
                                   bool *present)
{
    const char *key = named_keys[name];
    const json_t *value = json_object_get(reading->config, key);
    bool special = false;
    if (with_map && json_object_get(reading->map, key)) {
        value = json_object_get(reading->map, key);
        special = true;
    }
    *present = true;
    if (value && !json_is_null(value)) return token_read(reading, key, value, special, out);
    if (named_defaults[name] && value)
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: %s is null", reading->files->label, key);
    *out = (struct token){ .text = named_defaults[name], .bare = true, .special = true };
    *present = named_defaults[name] != NULL;
    return WEIR_OK;
}

/* Adds `token` unless its text is among the first `known` or it is there already. */
static enum weir_status add_once(struct weir_clip_reading *reading, struct token_list *list, size_t known,
                                 const struct token *token)
{
    if (token_find(list, known, token->text)) return WEIR_OK;
    for (size_t i = 0; i < list->count; i++) {
        if (token_equal(&list->tokens[i], token)) return WEIR_OK;
    }
    return token_append(reading, list, token);
}

static bool is_other_name(const char *key)
{
    const size_t bytes = strlen(key), tail = strlen("_token");
    if (bytes < tail || strcmp(key + bytes - tail, "_token") != 0) return false;
    for (size_t i = 0; i < NAMED_COUNT; i++) {
        if (strcmp(key, named_keys[i]) == 0) return false;
    }
    return true;
}

static enum weir_status extra_add(struct weir_clip_reading *reading, const char *key, const json_t *value, bool special,
                                  size_t known, struct token_list *list)
{
    struct token token;
    const enum weir_status status = token_read(reading, key, value, special, &token);
    return status == WEIR_OK ? add_once(reading, list, known, &token) : status;
}

/* Other keys of a file that end in _token. */
static enum weir_status other_names_add(struct weir_clip_reading *reading, const json_t *root, bool special,
                                        size_t known, struct token_list *list)
{
    enum weir_status status = WEIR_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        if (is_other_name(key) && (json_is_string(value) || json_is_object(value)))
            WEIR_TRY(extra_add(reading, key, value, special, known, list));
    }
cleanup:
    return status;
}

/* A list of extra tokens, or an object of them by name. */
static enum weir_status extras_add(struct weir_clip_reading *reading, const json_t *extras, bool special, size_t known,
                                   struct token_list *list)
{
    static const char name[] = "extra_special_tokens";
    enum weir_status status = WEIR_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)extras, key, value) WEIR_TRY(extra_add(reading, key, value, special, known, list));
    for (size_t i = 0; i < json_array_size(extras); i++)
        WEIR_TRY(extra_add(reading, name, json_array_get(extras, i), special, known, list));
cleanup:
    return status;
}

/* Tokens beyond the seven names. The older key, additional_special_tokens, counts where nothing says the newer one. */
static enum weir_status others_add(struct weir_clip_reading *reading, bool with_map, size_t known,
                                   struct token_list *list)
{
    static const char newer[] = "extra_special_tokens", older[] = "additional_special_tokens";
    enum weir_status status = WEIR_OK;
    const json_t *map = with_map ? reading->map : NULL;
    const json_t *first = json_object_get(reading->config, newer), *second = json_object_get(map, newer);
    if (json_array_size(first) == 0 && json_object_size(first) == 0 && json_object_get(reading->config, older))
        first = json_object_get(reading->config, older);
    const bool of_map = !first && !second;
    if (of_map) first = json_object_get(map, older);

    WEIR_TRY(other_names_add(reading, reading->config, false, known, list));
    WEIR_TRY(other_names_add(reading, map, true, known, list));
    WEIR_TRY(extras_add(reading, first, of_map, known, list));
    WEIR_TRY(extras_add(reading, second, true, known, list));
cleanup:
    return status;
}

/* Steps 1 and 2 of the comment at the top. */
static enum weir_status tokens_collect(struct weir_clip_reading *reading, struct token named[NAMED_COUNT],
                                       struct token_list *list)
{
    enum weir_status status = WEIR_OK;
    bool present[NAMED_COUNT];
    const json_t *decoder = json_object_get(reading->config, "added_tokens_decoder");
    const bool with_map = decoder == NULL;
    if (!decoder) decoder = json_object_get(reading->whole, "added_tokens");
    if (decoder) WEIR_TRY(decoder_read(reading, decoder, list));
    const size_t known = list->count;

    for (int name = 0; name < NAMED_COUNT; name++) {
        WEIR_TRY(named_read(reading, (enum named)name, with_map, &named[name], &present[name]));
        const struct token *same = present[name] ? token_find(list, known, named[name].text) : NULL;
        if (same) named[name] = *same;
    }
    for (int name = 0; name < NAMED_COUNT; name++) {
        if (present[name]) WEIR_TRY(add_once(reading, list, known, &named[name]));
    }
    WEIR_TRY(others_add(reading, with_map, known, list));
    for (size_t i = 0; i < list->count; i++) { /* what has a name is special */
        for (int name = 0; name < NAMED_COUNT; name++) {
            if (present[name] && strcmp(named[name].text, list->tokens[i].text) == 0) list->tokens[i].special = true;
        }
        list->tokens[i].bare = false;
    }
cleanup:
    return status;
}

/* Puts a token into the pass it is looked for in. */
static enum weir_status special_add(struct weir_clip_reading *reading, const struct token *token, int32_t id)
{
    struct weir_clip_bpe *tokenizer = reading->tokenizer;
    struct weir_special_set *set = token->normalised ? &tokenizer->normalised : &tokenizer->raw;
    struct weir_special *special;
    struct weir_special *grown = realloc(set->specials, (set->count + 1) * sizeof *grown);
    if (!grown) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for a special token");
    set->specials = grown;
    special = &grown[set->count];
    *special = (struct weir_special){
        .id = id, .single_word = token->single_word, .strips_left = token->lstrip, .strips_right = token->rstrip
    };
    if (token->normalised) {
        const enum weir_status status = weir_unicode_normalise(tokenizer->unicode, token->text, strlen(token->text),
                                                               &special->text, &special->bytes, reading->error);
        if (status != WEIR_OK) return status;
    } else {
        special->text = strdup(token->text);
        special->bytes = strlen(token->text);
        if (!special->text) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for a special token");
    }
    set->starts[(uint8_t)special->text[0]] = true;
    set->count++;
    return WEIR_OK;
}

/* Step 3: ids for all, then the passes; special tokens come before others that are merely added. */
static enum weir_status tokens_register(struct weir_clip_reading *reading, const struct token_list *list,
                                        int32_t ids[WEIR_CLIP_BPE_SPECIALS_MAX])
{
    enum weir_status status = WEIR_OK;
    int32_t next_id = (int32_t)reading->vocab_count, id_max = (int32_t)reading->id_max;
    for (size_t i = 0; i < list->count; i++) {
        const char *text = list->tokens[i].text;
        const struct token *earlier = token_find(list, i, text);
        ids[i] = earlier ? ids[earlier - list->tokens] : weir_clip_vocab_id(reading, text, strlen(text));
        if (ids[i] == WEIR_ID_NONE && text[0]) ids[i] = next_id;
        if (ids[i] >= next_id) next_id = ids[i] + 1;
        if (ids[i] > id_max) id_max = ids[i];
    }
    reading->tokenizer->id_bound = id_max + 1;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < list->count; i++) {
            const struct token *token = &list->tokens[i];
            if (!token->text[0] || token->special != (pass == 0)) continue;
            if (token_find(list, list->count, token->text) == token) WEIR_TRY(special_add(reading, token, ids[i]));
        }
    }
cleanup:
    return status;
}

enum weir_status weir_clip_specials_read(struct weir_clip_reading *reading, const char **unknown)
{
    enum weir_status status = WEIR_OK;
    struct weir_clip_bpe *tokenizer = reading->tokenizer;
    struct token named[NAMED_COUNT];
    int32_t ids[WEIR_CLIP_BPE_SPECIALS_MAX];
    const struct {
        enum named name;
        int32_t *id;
    } roles[] = { { NAMED_BOS, &tokenizer->start_id },
                  { NAMED_EOS, &tokenizer->end_id },
                  { NAMED_PAD, &tokenizer->pad_id } };
    struct token_list *list = calloc(1, sizeof *list);
    if (!list) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for special tokens");

    WEIR_TRY(tokens_collect(reading, named, list));
    WEIR_TRY(tokens_register(reading, list, ids));
    for (size_t i = 0; i < WEIR_COUNT(roles); i++) {
        const struct token *token = token_find(list, list->count, named[roles[i].name].text);
        if (!token || !token->text[0])
            WEIR_TRY(weir_fail(reading->error, WEIR_BAD_MODEL, "%s: %s is empty", reading->files->label,
                               named_keys[roles[i].name]));
        *roles[i].id = ids[token - list->tokens];
    }
    *unknown = named[NAMED_UNK].text;
cleanup:
    free(list);
    return status;
}
