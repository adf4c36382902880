/* Reading a CLIP tokenizer's files. Which special tokens there are, and how each is looked for, follows transformers 5
 * step by step, since a folder may say it in four places that contradict one another:
 *
 *   1. tokenizer_config.json names tokens (bos_token, ...). Without an added_tokens_decoder in it, what
 *      special_tokens_map.json names comes in their place, and so do the added_tokens of a tokenizer.json.
 *   2. To be added: first the decoder's tokens by id, then the named ones that are not among them, then the extra ones.
 *      A token given as a bare text is special and looked for literally.
 *   3. Of several tokens with one text the last one counts. A text that the vocabulary lacks gets the next free id. */
#include "worker/json_text.h"
#include "worker/tokenizers/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_NAME_MAX 200
#define VERSION_MARK "#version"

struct token {
    const char *text; /* borrowed from the JSON */
    bool bare;        /* given as a text, not as an object */
    bool single_word, lstrip, rstrip, normalised, special;
};

struct token_list {
    struct token tokens[WEIR_CLIP_BPE_SPECIALS_MAX];
    size_t count;
};

/* What is known of the files while they are read. */
struct reading {
    const struct weir_clip_bpe_files *files;
    struct weir_clip_bpe *tokenizer;
    json_t *vocab_file, *map, *config, *whole; /* roots; whole is tokenizer.json */
    json_t *vocab;                             /* borrowed from one of them */
    json_int_t id_max;
    size_t vocab_count;
    struct weir_error *error;
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

void weir_clip_byte_letter(uint8_t byte, char out[4])
{
    /* Bytes that print stand for themselves; the others take the letters from U+0100 on, in order. */
    unsigned code = 0x100;
    const bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    if (prints) {
        code = byte;
    } else {
        for (unsigned b = 0; b < byte; b++) code += !((b >= 33 && b <= 126) || (b >= 161 && b != 173));
    }
    memset(out, 0, 4);
    if (code < 0x80) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xc0 | (code >> 6));
        out[1] = (char)(0x80 | (code & 0x3f));
    }
}

static enum weir_status bad(struct reading *reading, const char *file, const char *what)
{
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: %s", reading->files->label, file, what);
}

/* ---- the vocabulary and the merges ---- */

static enum weir_status parse(struct reading *reading, const struct weir_clip_bpe_bytes *file, const char *name,
                              const struct weir_json_limits *limits, json_t **out)
{
    char label[MESSAGE_NAME_MAX];
    if (!file->bytes) return WEIR_OK;
    snprintf(label, sizeof label, "%s/%s", reading->files->label, name);
    return weir_json_parse(file->bytes, file->count, limits, label, out, reading->error);
}

static enum weir_status vocab_check(struct reading *reading, const char *file)
{
    const char *key;
    json_t *value;
    reading->vocab_count = json_object_size(reading->vocab);
    reading->id_max = -1;
    if (reading->vocab_count == 0) return bad(reading, file, "the vocabulary is empty");
    if (reading->vocab_count > WEIR_CLIP_BPE_VOCAB_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/%s: a vocabulary of %zu tokens; at most %u are read",
                         reading->files->label, file, reading->vocab_count, WEIR_CLIP_BPE_VOCAB_MAX);
    json_object_foreach(reading->vocab, key, value)
    {
        char shown[64];
        if (strlen(key) > WEIR_CLIP_BPE_TOKEN_BYTES_MAX)
            return weir_fail(reading->error, WEIR_TOO_LARGE,
                             "%s/%s: token \"%.40s...\" has %zu bytes; at most %d are read", reading->files->label,
                             file, key, strlen(key), WEIR_CLIP_BPE_TOKEN_BYTES_MAX);
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)WEIR_CLIP_BPE_VOCAB_MAX) {
            weir_json_show(value, shown, sizeof shown);
            return weir_fail(reading->error, WEIR_BAD_MODEL,
                             "%s/%s: token \"%.40s\" has id %s; wanted is a whole number of 0 to %u",
                             reading->files->label, file, key, shown, WEIR_CLIP_BPE_VOCAB_MAX - 1);
        }
        if (id > reading->id_max) reading->id_max = id;
    }
    return WEIR_OK;
}

static int32_t id_of(const struct reading *reading, const char *text, size_t bytes)
{
    const json_t *value = json_object_getn(reading->vocab, text, bytes);
    return value ? (int32_t)json_integer_value(value) : WEIR_ID_NONE;
}

/* "left right" as a rule of this rank. */
static enum weir_status rule_read(struct reading *reading, const char *file, size_t line, const char *left,
                                  size_t left_bytes, const char *right, size_t right_bytes, struct weir_bpe_rule *out)
{
    char joined[2 * WEIR_CLIP_BPE_TOKEN_BYTES_MAX];
    if (left_bytes > WEIR_CLIP_BPE_TOKEN_BYTES_MAX || right_bytes > WEIR_CLIP_BPE_TOKEN_BYTES_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/%s: merge %zu is of tokens over %d bytes",
                         reading->files->label, file, line, WEIR_CLIP_BPE_TOKEN_BYTES_MAX);
    memcpy(joined, left, left_bytes);
    memcpy(joined + left_bytes, right, right_bytes);
    out->left = id_of(reading, left, left_bytes);
    out->right = id_of(reading, right, right_bytes);
    out->result = id_of(reading, joined, left_bytes + right_bytes);
    if (out->left == WEIR_ID_NONE || out->right == WEIR_ID_NONE || out->result == WEIR_ID_NONE)
        return weir_fail(reading->error, WEIR_BAD_MODEL,
                         "%s/%s: merge %zu, \"%.*s %.*s\", is not of the vocabulary: no such %s", reading->files->label,
                         file, line, left_bytes > 40 ? 40 : (int)left_bytes, left,
                         right_bytes > 40 ? 40 : (int)right_bytes, right,
                         out->left == WEIR_ID_NONE    ? "left token"
                         : out->right == WEIR_ID_NONE ? "right token"
                                                      : "joined token");
    return WEIR_OK;
}

static enum weir_status too_many_merges(struct reading *reading, const char *file)
{
    return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/%s: more than %u merges", reading->files->label, file,
                     WEIR_CLIP_BPE_MERGES_MAX);
}

static enum weir_status merge_text_read(struct reading *reading, const char *file, size_t line, const char *text,
                                        size_t bytes, struct weir_bpe_rule *out)
{
    const char *space = memchr(text, ' ', bytes);
    if (!space || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - text)))
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: merge %zu is not two tokens with one space between",
                         reading->files->label, file, line);
    const size_t left = (size_t)(space - text);
    return rule_read(reading, file, line, text, left, space + 1, bytes - left - 1, out);
}

/* merges.txt. Lines that begin with #version are none, wherever they stand. */
static enum weir_status merges_read_text(struct reading *reading, struct weir_bpe_rule **rules, size_t *count)
{
    static const char file[] = "merges.txt";
    enum weir_status status = WEIR_OK;
    const char *at = reading->files->merges.bytes, *end = at + reading->files->merges.count;
    size_t lines = 0, line = 0;
    for (const char *c = at; c < end; c++) lines += *c == '\n';
    if (lines > WEIR_CLIP_BPE_MERGES_MAX) return too_many_merges(reading, file);
    *rules = malloc((lines + 1) * sizeof **rules);
    if (!*rules) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for %zu merges", lines);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        size_t bytes = (size_t)(stop - at);
        if (bytes > 0 && stop < end && at[bytes - 1] == '\r') bytes--;
        line++;
        if (bytes < strlen(VERSION_MARK) || memcmp(at, VERSION_MARK, strlen(VERSION_MARK)) != 0) {
            struct weir_bpe_rule *rule = &(*rules)[*count];
            WEIR_TRY(merge_text_read(reading, file, line, at, bytes, rule));
            rule->rank = (uint32_t)(*count)++;
        }
        at = stop < end ? stop + 1 : end;
    }
cleanup:
    return status;
}

/* model.merges of tokenizer.json: texts as in merges.txt, or pairs. */
static enum weir_status merges_read_json(struct reading *reading, const json_t *merges, struct weir_bpe_rule **rules,
                                         size_t *count)
{
    static const char file[] = "tokenizer.json";
    enum weir_status status = WEIR_OK;
    if (!json_is_array(merges)) return bad(reading, file, "model.merges is not a list");
    if (json_array_size(merges) > WEIR_CLIP_BPE_MERGES_MAX) return too_many_merges(reading, file);
    *rules = malloc((json_array_size(merges) + 1) * sizeof **rules);
    if (!*rules) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for %zu merges", json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        struct weir_bpe_rule *rule = &(*rules)[i];
        if (json_is_string(merge)) {
            WEIR_TRY(merge_text_read(reading, file, i + 1, json_string_value(merge), json_string_length(merge), rule));
        } else {
            const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
            if (json_array_size(merge) != 2 || !json_is_string(left) || !json_is_string(right))
                WEIR_TRY(weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: merge %zu is not a pair of texts",
                                   reading->files->label, file, i + 1));
            WEIR_TRY(rule_read(reading, file, i + 1, json_string_value(left), json_string_length(left),
                               json_string_value(right), json_string_length(right), rule));
        }
        rule->rank = (uint32_t)i;
        *count = i + 1;
    }
cleanup:
    return status;
}

static enum weir_status model_read(struct reading *reading)
{
    enum weir_status status = WEIR_OK;
    const struct weir_clip_bpe_files *files = reading->files;
    const struct weir_json_limits vocab_limits = { .bytes_max = WEIR_CLIP_BPE_FILE_BYTES_MAX,
                                                   .depth_max = 1,
                                                   .values_max = WEIR_CLIP_BPE_VOCAB_MAX + 1 };
    const struct weir_json_limits whole_limits = {
        .bytes_max = WEIR_CLIP_BPE_FILE_BYTES_MAX,
        .depth_max = 16,
        .values_max = WEIR_CLIP_BPE_VOCAB_MAX + 3 * WEIR_CLIP_BPE_MERGES_MAX + 16 * WEIR_CLIP_BPE_SPECIALS_MAX
    };
    struct weir_bpe_rule *rules = NULL;
    size_t count = 0;

    WEIR_TRY(parse(reading, &files->tokenizer_json, "tokenizer.json", &whole_limits, &reading->whole));
    if (reading->whole) {
        const json_t *model = json_object_get(reading->whole, "model");
        const char *type = json_string_value(json_object_get(model, "type"));
        reading->vocab = json_object_get(model, "vocab");
        if (type && strcmp(type, "BPE") != 0) WEIR_TRY(bad(reading, "tokenizer.json", "model.type is not \"BPE\""));
        if (!json_is_object(reading->vocab))
            WEIR_TRY(bad(reading, "tokenizer.json", "model.vocab is missing or no object"));
        WEIR_TRY(vocab_check(reading, "tokenizer.json"));
        WEIR_TRY(merges_read_json(reading, json_object_get(model, "merges"), &rules, &count));
    } else {
        if (!files->vocab.bytes) WEIR_TRY(bad(reading, "vocab.json", "is missing, and so is tokenizer.json"));
        if (!files->merges.bytes) WEIR_TRY(bad(reading, "merges.txt", "is missing"));
        if (files->merges.count > WEIR_CLIP_BPE_FILE_BYTES_MAX)
            WEIR_TRY(weir_fail(reading->error, WEIR_TOO_LARGE, "%s/merges.txt has %zu bytes; at most %u are read",
                               files->label, files->merges.count, WEIR_CLIP_BPE_FILE_BYTES_MAX));
        WEIR_TRY(parse(reading, &files->vocab, "vocab.json", &vocab_limits, &reading->vocab_file));
        reading->vocab = reading->vocab_file;
        WEIR_TRY(vocab_check(reading, "vocab.json"));
        WEIR_TRY(merges_read_text(reading, &rules, &count));
    }
    WEIR_TRY(
        weir_bpe_table_init(&reading->tokenizer->merges, &rules, count, (int32_t)reading->id_max + 1, reading->error));
cleanup:
    free(rules);
    return status;
}

/* ---- the special tokens ---- */

static enum weir_status flag_read(struct reading *reading, const json_t *object, const char *key, bool flag_default,
                                  bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = value ? json_is_true(value) : flag_default;
    if (!value || json_is_boolean(value)) return WEIR_OK;
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s: \"%s\" of a special token is not true or false",
                     reading->files->label, key);
}

/* A token is a text, or an object with `content` and flags; `special`: the file says nothing but special tokens. */
static enum weir_status token_read(struct reading *reading, const char *key, const json_t *value, bool special,
                                   struct token *out)
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

static enum weir_status token_append(struct reading *reading, struct token_list *list, const struct token *token)
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
static enum weir_status decoder_read(struct reading *reading, const json_t *tokens, struct token_list *out)
{
    enum weir_status status = WEIR_OK;
    long long ids[WEIR_CLIP_BPE_SPECIALS_MAX];
    void *place = json_is_object(tokens) ? json_object_iter((json_t *)tokens) : NULL;
    const size_t count = json_is_object(tokens) ? json_object_size(tokens) : json_array_size(tokens);
    if (!json_is_object(tokens) && !json_is_array(tokens))
        return bad(reading, "tokenizer_config.json", "the added tokens are neither an object nor a list");
    for (size_t i = 0; i < count; i++) {
        const json_t *value = place ? json_object_iter_value(place) : json_array_get(tokens, i);
        struct token token;
        if (!json_is_object(value)) return bad(reading, "tokenizer_config.json", "an added token is not an object");
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
static enum weir_status named_read(struct reading *reading, enum named name, bool with_map, struct token *out,
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
static enum weir_status add_once(struct reading *reading, struct token_list *list, size_t known,
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

static enum weir_status extra_add(struct reading *reading, const char *key, const json_t *value, bool special,
                                  size_t known, struct token_list *list)
{
    struct token token;
    const enum weir_status status = token_read(reading, key, value, special, &token);
    return status == WEIR_OK ? add_once(reading, list, known, &token) : status;
}

/* Other keys of a file that end in _token. */
static enum weir_status other_names_add(struct reading *reading, const json_t *root, bool special, size_t known,
                                        struct token_list *list)
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
static enum weir_status extras_add(struct reading *reading, const json_t *extras, bool special, size_t known,
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
static enum weir_status others_add(struct reading *reading, bool with_map, size_t known, struct token_list *list)
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
static enum weir_status tokens_collect(struct reading *reading, struct token named[NAMED_COUNT],
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
static enum weir_status special_add(struct reading *reading, const struct token *token, int32_t id)
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
static enum weir_status tokens_register(struct reading *reading, const struct token_list *list,
                                        int32_t ids[WEIR_CLIP_BPE_SPECIALS_MAX])
{
    enum weir_status status = WEIR_OK;
    int32_t next_id = (int32_t)reading->vocab_count, id_max = (int32_t)reading->id_max;
    for (size_t i = 0; i < list->count; i++) {
        const char *text = list->tokens[i].text;
        const struct token *earlier = token_find(list, i, text);
        ids[i] = earlier ? ids[earlier - list->tokens] : id_of(reading, text, strlen(text));
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

static enum weir_status bytes_read(struct reading *reading, const char *unknown)
{
    struct weir_clip_bpe *tokenizer = reading->tokenizer;
    tokenizer->unknown_id = id_of(reading, unknown, strlen(unknown));
    for (int byte = 0; byte < 256; byte++) {
        char letter[4], last[4 + sizeof "</w>"];
        weir_clip_byte_letter((uint8_t)byte, letter);
        snprintf(last, sizeof last, "%s</w>", letter);
        tokenizer->byte_ids[byte] = id_of(reading, letter, strlen(letter));
        tokenizer->byte_end_ids[byte] = id_of(reading, last, strlen(last));
        const bool missing = tokenizer->byte_ids[byte] == WEIR_ID_NONE || tokenizer->byte_end_ids[byte] == WEIR_ID_NONE;
        if (missing && tokenizer->unknown_id == WEIR_ID_NONE)
            return weir_fail(reading->error, WEIR_BAD_MODEL,
                             "%s: the vocabulary has no \"%s\" or no \"%s\", nor the unknown token \"%.40s\"",
                             reading->files->label, letter, last, unknown);
    }
    return WEIR_OK;
}

/* Keys of tokenizer_config.json that would change what is done. */
static enum weir_status config_check(struct reading *reading)
{
    static const char *const sides[] = { "padding_side", "truncation_side" };
    const json_t *config = reading->config;
    for (size_t i = 0; i < WEIR_COUNT(sides); i++) {
        const char *side = json_string_value(json_object_get(config, sides[i]));
        if (side && strcmp(side, "right") != 0)
            return weir_fail(reading->error, WEIR_UNSUPPORTED,
                             "%s/tokenizer_config.json: %s is \"%.40s\"; offered is \"right\"", reading->files->label,
                             sides[i], side);
    }
    if (json_is_true(json_object_get(config, "split_special_tokens")))
        return weir_fail(reading->error, WEIR_UNSUPPORTED,
                         "%s/tokenizer_config.json: split_special_tokens is true; offered is false",
                         reading->files->label);
    const json_int_t window = json_integer_value(json_object_get(config, "model_max_length"));
    reading->tokenizer->window = window >= 2 && window <= WEIR_CLIP_BPE_WINDOW_MAX ? (uint32_t)window : 0;
    return WEIR_OK;
}

enum weir_status weir_clip_bpe_open(const struct weir_clip_bpe_files *files, struct weir_clip_bpe **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct reading reading = { .files = files, .error = error };
    struct token named[NAMED_COUNT];
    struct token_list *list = calloc(1, sizeof *list);
    struct weir_clip_bpe *tokenizer = calloc(1, sizeof *tokenizer);
    int32_t ids[WEIR_CLIP_BPE_SPECIALS_MAX];

    reading.tokenizer = tokenizer;
    if (!list || !tokenizer) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a tokenizer"));
    WEIR_TRY(weir_unicode_open(&tokenizer->unicode, error));
    WEIR_TRY(
        parse(&reading, &files->tokenizer_config, "tokenizer_config.json", &WEIR_JSON_CONFIG_LIMITS, &reading.config));
    WEIR_TRY(
        parse(&reading, &files->special_tokens_map, "special_tokens_map.json", &WEIR_JSON_CONFIG_LIMITS, &reading.map));
    WEIR_TRY(config_check(&reading));
    WEIR_TRY(model_read(&reading));
    WEIR_TRY(tokens_collect(&reading, named, list));
    WEIR_TRY(tokens_register(&reading, list, ids));
    WEIR_TRY(bytes_read(&reading, named[NAMED_UNK].text));

    const struct {
        enum named name;
        int32_t *id;
    } roles[] = { { NAMED_BOS, &tokenizer->start_id },
                  { NAMED_EOS, &tokenizer->end_id },
                  { NAMED_PAD, &tokenizer->pad_id } };
    for (size_t i = 0; i < WEIR_COUNT(roles); i++) {
        const struct token *token = token_find(list, list->count, named[roles[i].name].text);
        if (!token || !token->text[0])
            WEIR_TRY(weir_fail(error, WEIR_BAD_MODEL, "%s: %s is empty", files->label, named_keys[roles[i].name]));
        *roles[i].id = ids[token - list->tokens];
    }
    *out = tokenizer;
    tokenizer = NULL;

cleanup:
    json_decref(reading.vocab_file);
    json_decref(reading.map);
    json_decref(reading.config);
    json_decref(reading.whole);
    free(list);
    weir_clip_bpe_close(&tokenizer);
    return status;
}
