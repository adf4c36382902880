#include "worker/tokenizers/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_NAME_MAX 200
#define VERSION_MARK "#version"

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

static enum weir_status bad(struct weir_clip_reading *reading, const char *file, const char *what)
{
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: %s", reading->files->label, file, what);
}

static enum weir_status parse(struct weir_clip_reading *reading, const struct weir_clip_bpe_bytes *file,
                              const char *name, const struct weir_json_limits *limits, json_t **out)
{
    char label[MESSAGE_NAME_MAX];
    if (!file->bytes) return WEIR_OK;
    snprintf(label, sizeof label, "%s/%s", reading->files->label, name);
    return weir_json_parse(file->bytes, file->count, limits, label, out, reading->error);
}

static enum weir_status vocab_check(struct weir_clip_reading *reading, const char *file)
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

int32_t weir_clip_vocab_id(const struct weir_clip_reading *reading, const char *text, size_t bytes)
{
    const json_t *value = json_object_getn(reading->vocab, text, bytes);
    return value ? (int32_t)json_integer_value(value) : WEIR_ID_NONE;
}

/* "left right" as a rule of this rank. */
static enum weir_status rule_read(struct weir_clip_reading *reading, const char *file, size_t line, const char *left,
                                  size_t left_bytes, const char *right, size_t right_bytes, struct weir_bpe_rule *out)
{
    char joined[2 * WEIR_CLIP_BPE_TOKEN_BYTES_MAX];
    if (left_bytes > WEIR_CLIP_BPE_TOKEN_BYTES_MAX || right_bytes > WEIR_CLIP_BPE_TOKEN_BYTES_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/%s: merge %zu is of tokens over %d bytes",
                         reading->files->label, file, line, WEIR_CLIP_BPE_TOKEN_BYTES_MAX);
    memcpy(joined, left, left_bytes);
    memcpy(joined + left_bytes, right, right_bytes);
    out->left = weir_clip_vocab_id(reading, left, left_bytes);
    out->right = weir_clip_vocab_id(reading, right, right_bytes);
    out->result = weir_clip_vocab_id(reading, joined, left_bytes + right_bytes);
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

static enum weir_status too_many_merges(struct weir_clip_reading *reading, const char *file)
{
    return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/%s: more than %u merges", reading->files->label, file,
                     WEIR_CLIP_BPE_MERGES_MAX);
}

static enum weir_status merge_text_read(struct weir_clip_reading *reading, const char *file, size_t line,
                                        const char *text, size_t bytes, struct weir_bpe_rule *out)
{
    const char *space = memchr(text, ' ', bytes);
    if (!space || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - text)))
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/%s: merge %zu is not two tokens with one space between",
                         reading->files->label, file, line);
    const size_t left = (size_t)(space - text);
    return rule_read(reading, file, line, text, left, space + 1, bytes - left - 1, out);
}

/* merges.txt. Lines that begin with #version are none, wherever they stand. */
static enum weir_status merges_read_text(struct weir_clip_reading *reading, struct weir_bpe_rule **rules, size_t *count)
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
static enum weir_status merges_read_json(struct weir_clip_reading *reading, const json_t *merges,
                                         struct weir_bpe_rule **rules, size_t *count)
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

static enum weir_status model_read(struct weir_clip_reading *reading)
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

static enum weir_status bytes_read(struct weir_clip_reading *reading, const char *unknown)
{
    struct weir_clip_bpe *tokenizer = reading->tokenizer;
    tokenizer->unknown_id = weir_clip_vocab_id(reading, unknown, strlen(unknown));
    for (int byte = 0; byte < 256; byte++) {
        char letter[4], last[4 + sizeof "</w>"];
        weir_clip_byte_letter((uint8_t)byte, letter);
        snprintf(last, sizeof last, "%s</w>", letter);
        tokenizer->byte_ids[byte] = weir_clip_vocab_id(reading, letter, strlen(letter));
        tokenizer->byte_end_ids[byte] = weir_clip_vocab_id(reading, last, strlen(last));
        const bool missing = tokenizer->byte_ids[byte] == WEIR_ID_NONE || tokenizer->byte_end_ids[byte] == WEIR_ID_NONE;
        if (missing && tokenizer->unknown_id == WEIR_ID_NONE)
            return weir_fail(reading->error, WEIR_BAD_MODEL,
                             "%s: the vocabulary has no \"%s\" or no \"%s\", nor the unknown token \"%.40s\"",
                             reading->files->label, letter, last, unknown);
    }
    return WEIR_OK;
}

/* Keys of tokenizer_config.json that would change what is done. */
static enum weir_status config_check(struct weir_clip_reading *reading)
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
    struct weir_clip_reading reading = { .files = files, .error = error };
    struct weir_clip_bpe *tokenizer = calloc(1, sizeof *tokenizer);
    const char *unknown;

    reading.tokenizer = tokenizer;
    if (!tokenizer) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a tokenizer");
    WEIR_TRY(weir_unicode_open(&tokenizer->unicode, error));
    WEIR_TRY(
        parse(&reading, &files->tokenizer_config, "tokenizer_config.json", &WEIR_JSON_CONFIG_LIMITS, &reading.config));
    WEIR_TRY(
        parse(&reading, &files->special_tokens_map, "special_tokens_map.json", &WEIR_JSON_CONFIG_LIMITS, &reading.map));
    WEIR_TRY(config_check(&reading));
    WEIR_TRY(model_read(&reading));
    WEIR_TRY(weir_clip_specials_read(&reading, &unknown));
    WEIR_TRY(bytes_read(&reading, unknown));
    *out = tokenizer;
    tokenizer = NULL;

cleanup:
    json_decref(reading.vocab_file);
    json_decref(reading.map);
    json_decref(reading.config);
    json_decref(reading.whole);
    weir_clip_bpe_close(&tokenizer);
    return status;
}
