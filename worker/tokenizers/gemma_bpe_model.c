/* tokenizer.json. Its two long tables are read where they lie, with json_scan; the rest, with the tables left out of
 * it, is parsed as any other JSON, so that whatever is wrong there is found and worded as everywhere. */
#include "worker/tokenizers/gemma_internal.h"

#include "worker/tokenizers/json_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "tokenizer.json"
#define MESSAGE_NAME_MAX 200
#define KEY_BYTES_MAX 64
#define WORDS_SHOWN 40

struct span {
    size_t start, end;
};

struct tables {
    struct span vocab, merges; /* with their brackets; empty where there is none */
};

enum weir_status weir_gemma_refuse(const struct weir_gemma_reading *reading, const char *key, const char *what)
{
    return weir_fail(reading->error, WEIR_UNSUPPORTED, "%s/" FILE_NAME ": %s %s", reading->files->label, key, what);
}

enum weir_status weir_gemma_bad(const struct weir_gemma_reading *reading, const char *key, const char *what)
{
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/" FILE_NAME ": %s %s", reading->files->label, key, what);
}

/* ---- the tables found ---- */

/* Walks over an object, into that of "model". False where it is malformed, which is left to the parser to say. */
static bool tables_find(struct weir_json_scan *scan, bool inside_model, struct tables *tables)
{
    if (!weir_json_scan_take(scan, '{')) return false;
    if (weir_json_scan_take(scan, '}')) return true;
    do {
        char key[KEY_BYTES_MAX];
        size_t bytes = 0;
        weir_json_scan_peek(scan);
        struct weir_json_scan name = *scan;
        const bool known = weir_json_scan_text(&name, key, sizeof key, &bytes);
        if (!weir_json_scan_skip(scan) || !weir_json_scan_take(scan, ':')) return false;
        const char opens = weir_json_scan_peek(scan);
        const size_t start = scan->at;
        const bool is_model = known && !inside_model && bytes == 5 && memcmp(key, "model", 5) == 0 && opens == '{';
        if (is_model ? !tables_find(scan, true, tables) : !weir_json_scan_skip(scan)) return false;
        if (!known || !inside_model) continue;
        if (bytes == 5 && memcmp(key, "vocab", 5) == 0 && opens == '{')
            tables->vocab = (struct span){ start, scan->at };
        if (bytes == 6 && memcmp(key, "merges", 6) == 0 && opens == '[')
            tables->merges = (struct span){ start, scan->at };
    } while (weir_json_scan_take(scan, ','));
    return weir_json_scan_take(scan, '}');
}

/* Copies text[from.. to span) to `out`, and of the span its brackets and its line ends, so that lines keep their
 * number. */
static void copy_without(const char *text, size_t *from, struct span span, char *out, size_t *used)
{
    memcpy(out + *used, text + *from, span.start - *from);
    *used += span.start - *from;
    out[(*used)++] = text[span.start];
    for (size_t i = span.start; i < span.end; i++) {
        if (text[i] == '\n') out[(*used)++] = '\n';
    }
    out[(*used)++] = text[span.end - 1];
    *from = span.end;
}

static enum weir_status parse_rest(struct weir_gemma_reading *reading, const struct tables *tables)
{
    enum weir_status status = WEIR_OK;
    const struct weir_json_limits limits = { .bytes_max = WEIR_GEMMA_BPE_FILE_BYTES_MAX,
                                             .depth_max = 16,
                                             .values_max = 16 * WEIR_GEMMA_BPE_ADDED_MAX };
    const struct weir_gemma_bpe_bytes *file = &reading->files->tokenizer_json;
    const bool vocab_first = tables->vocab.start < tables->merges.start;
    const struct span spans[2] = { vocab_first ? tables->vocab : tables->merges,
                                   vocab_first ? tables->merges : tables->vocab };
    char label[MESSAGE_NAME_MAX];
    size_t used = 0, from = 0;
    char *rest = malloc(file->count + 1);
    if (!rest) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for %zu bytes of JSON", file->count);
    for (size_t i = 0; i < WEIR_COUNT(spans); i++) {
        if (spans[i].end > 0) copy_without(file->bytes, &from, spans[i], rest, &used);
    }
    memcpy(rest + used, file->bytes + from, file->count - from);
    used += file->count - from;
    snprintf(label, sizeof label, "%s/" FILE_NAME, reading->files->label);
    WEIR_TRY(weir_json_parse(rest, used, &limits, label, &reading->whole, reading->error));
cleanup:
    free(rest);
    return status;
}

/* ---- the vocabulary ---- */

static struct weir_json_scan scan_of(const struct weir_gemma_reading *reading, struct span span)
{
    return (struct weir_json_scan){ reading->files->tokenizer_json.bytes, span.end, span.start, NULL };
}

static enum weir_status table_fault(const struct weir_gemma_reading *reading, const char *table,
                                    const struct weir_json_scan *scan, size_t entry)
{
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/" FILE_NAME ": model.%s, entry %zu, byte %zu: %s",
                     reading->files->label, table, entry, scan->at, scan->fault);
}

static enum weir_status vocab_entry_read(struct weir_gemma_reading *reading, struct weir_json_scan *scan, size_t entry)
{
    char text[WEIR_GEMMA_BPE_TOKEN_BYTES_MAX];
    size_t bytes;
    int32_t id;
    bool added;
    if (entry > WEIR_GEMMA_BPE_VOCAB_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/" FILE_NAME ": model.vocab has more than %u entries",
                         reading->files->label, WEIR_GEMMA_BPE_VOCAB_MAX);
    const bool sound = weir_json_scan_text(scan, text, sizeof text, &bytes) && weir_json_scan_expect(scan, ':') &&
                       weir_json_scan_number(scan, WEIR_GEMMA_BPE_VOCAB_MAX - 1, &id);
    if (!sound) return table_fault(reading, "vocab", scan, entry);
    const enum weir_status status =
        weir_token_table_add(&reading->tokenizer->vocab, text, bytes, id, &added, reading->error);
    if (status != WEIR_OK || added) return status;
    return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/" FILE_NAME ": model.vocab has \"%.*s\" twice",
                     reading->files->label, bytes > WORDS_SHOWN ? WORDS_SHOWN : (int)bytes, text);
}

static enum weir_status vocab_read(struct weir_gemma_reading *reading, struct span span)
{
    enum weir_status status = WEIR_OK;
    struct weir_json_scan scan = scan_of(reading, span);
    size_t entry = 0;
    if (span.end == 0) return weir_gemma_bad(reading, "model.vocab", "is missing or no object");
    weir_json_scan_take(&scan, '{');
    if (weir_json_scan_take(&scan, '}')) return weir_gemma_bad(reading, "model.vocab", "is empty");
    do WEIR_TRY(vocab_entry_read(reading, &scan, ++entry));
    while (weir_json_scan_take(&scan, ','));
    if (!weir_json_scan_expect(&scan, '}')) return table_fault(reading, "vocab", &scan, entry);
    WEIR_TRY(weir_token_table_seal(&reading->tokenizer->vocab, reading->error));
cleanup:
    return status;
}

/* ---- the merges ---- */

struct pair {
    char text[2 * WEIR_GEMMA_BPE_TOKEN_BYTES_MAX + 1]; /* both texts, behind one another */
    size_t left, whole;                                /* bytes */
};

/* "left right" or ["left", "right"]. */
static bool pair_read(struct weir_json_scan *scan, struct pair *pair)
{
    size_t right;
    if (weir_json_scan_take(scan, '[')) {
        const bool sound = weir_json_scan_text(scan, pair->text, WEIR_GEMMA_BPE_TOKEN_BYTES_MAX, &pair->left) &&
                           weir_json_scan_expect(scan, ',') &&
                           weir_json_scan_text(scan, pair->text + pair->left, WEIR_GEMMA_BPE_TOKEN_BYTES_MAX, &right) &&
                           weir_json_scan_expect(scan, ']');
        pair->whole = sound ? pair->left + right : 0;
        return sound;
    }
    if (!weir_json_scan_text(scan, pair->text, sizeof pair->text, &pair->whole)) return false;
    char *space = pair->whole > 0 ? memchr(pair->text, ' ', pair->whole) : NULL;
    pair->left = space ? (size_t)(space - pair->text) : 0;
    right = space ? pair->whole - pair->left - 1 : 0;
    if (!space || (right > 0 && memchr(space + 1, ' ', right))) {
        scan->fault = "not two tokens with one space between";
        return false;
    }
    memmove(space, space + 1, right);
    pair->whole--;
    return true;
}

static enum weir_status merge_read(struct weir_gemma_reading *reading, struct weir_json_scan *scan, size_t entry,
                                   struct weir_bpe_rule *rule)
{
    const struct weir_token_table *vocab = &reading->tokenizer->vocab;
    struct pair pair;
    if (!pair_read(scan, &pair)) return table_fault(reading, "merges", scan, entry);
    const size_t right = pair.whole - pair.left;
    *rule = (struct weir_bpe_rule){ .left = weir_token_table_id(vocab, pair.text, pair.left),
                                    .right = weir_token_table_id(vocab, pair.text + pair.left, right),
                                    .result = weir_token_table_id(vocab, pair.text, pair.whole),
                                    .rank = (uint32_t)entry };
    if (rule->left != WEIR_TOKEN_NONE && rule->right != WEIR_TOKEN_NONE && rule->result != WEIR_TOKEN_NONE)
        return WEIR_OK;
    return weir_fail(reading->error, WEIR_BAD_MODEL,
                     "%s/" FILE_NAME ": model.merges, entry %zu, \"%.*s %.*s\", is not of the vocabulary: no such %s",
                     reading->files->label, entry, pair.left > WORDS_SHOWN ? WORDS_SHOWN : (int)pair.left, pair.text,
                     right > WORDS_SHOWN ? WORDS_SHOWN : (int)right, pair.text + pair.left,
                     rule->left == WEIR_TOKEN_NONE    ? "left token"
                     : rule->right == WEIR_TOKEN_NONE ? "right token"
                                                      : "joined token");
}

/* Appends a rule; `*room` grows. */
static enum weir_status rules_grow(struct weir_gemma_reading *reading, struct weir_bpe_rule **rules, size_t *room,
                                   size_t count)
{
    if (count < *room) return WEIR_OK;
    if (count == WEIR_GEMMA_BPE_MERGES_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/" FILE_NAME ": model.merges has more than %u entries",
                         reading->files->label, WEIR_GEMMA_BPE_MERGES_MAX);
    *room = *room ? 2 * *room : 4096;
    struct weir_bpe_rule *grown = realloc(*rules, *room * sizeof *grown);
    if (!grown) return weir_fail(reading->error, WEIR_NO_MEMORY, "no memory for %zu merges", *room);
    *rules = grown;
    return WEIR_OK;
}

static enum weir_status merges_read(struct weir_gemma_reading *reading, struct span span)
{
    enum weir_status status = WEIR_OK;
    struct weir_json_scan scan = scan_of(reading, span);
    struct weir_bpe_rule *rules = NULL;
    size_t count = 0, room = 0;
    if (span.end == 0) return weir_gemma_bad(reading, "model.merges", "is missing or no list");
    weir_json_scan_take(&scan, '[');
    if (!weir_json_scan_take(&scan, ']')) {
        do {
            WEIR_TRY(rules_grow(reading, &rules, &room, count));
            WEIR_TRY(merge_read(reading, &scan, count + 1, &rules[count]));
            count++;
        } while (weir_json_scan_take(&scan, ','));
        if (!weir_json_scan_expect(&scan, ']')) WEIR_TRY(table_fault(reading, "merges", &scan, count));
    }
    WEIR_TRY(weir_bpe_table_init(&reading->tokenizer->merges, &rules, count, reading->tokenizer->vocab.id_bound,
                                 reading->error));
cleanup:
    free(rules);
    return status;
}

/* ---- the model's settings ---- */

static enum weir_status flag_read(const struct weir_gemma_reading *reading, const json_t *model, const char *key,
                                  bool *out)
{
    char name[KEY_BYTES_MAX];
    const json_t *value = json_object_get(model, key);
    *out = json_is_true(value);
    if (!value || json_is_boolean(value)) return WEIR_OK;
    snprintf(name, sizeof name, "model.%s", key);
    return weir_gemma_bad(reading, name, "is not true or false");
}

static enum weir_status settings_read(struct weir_gemma_reading *reading, const json_t *model)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    const json_t *type = json_object_get(model, "type"), *dropout = json_object_get(model, "dropout");
    const json_t *unknown = json_object_get(model, "unk_token");
    const json_t *prefix = json_object_get(model, "continuing_subword_prefix");
    const json_t *suffix = json_object_get(model, "end_of_word_suffix");
    bool byte_fallback, ignore_merges;
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return weir_gemma_refuse(reading, "model.type", "is not \"BPE\"");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return weir_gemma_refuse(reading, "model.dropout", "is not null");
    if (prefix && !json_is_null(prefix) && json_string_length(prefix) > 0)
        return weir_gemma_refuse(reading, "model.continuing_subword_prefix", "is not null");
    if (suffix && !json_is_null(suffix) && json_string_length(suffix) > 0)
        return weir_gemma_refuse(reading, "model.end_of_word_suffix", "is not null");
    WEIR_TRY(flag_read(reading, model, "ignore_merges", &ignore_merges));
    WEIR_TRY(flag_read(reading, model, "byte_fallback", &byte_fallback));
    WEIR_TRY(flag_read(reading, model, "fuse_unk", &tokenizer->fuse_unknown));
    if (ignore_merges) return weir_gemma_refuse(reading, "model.ignore_merges", "is true; offered is false");

    tokenizer->unknown_id = WEIR_TOKEN_NONE;
    if (unknown && !json_is_null(unknown)) {
        if (!json_is_string(unknown)) return weir_gemma_bad(reading, "model.unk_token", "is neither a text nor null");
        tokenizer->unknown_id =
            weir_token_table_id(&tokenizer->vocab, json_string_value(unknown), json_string_length(unknown));
        if (tokenizer->unknown_id == WEIR_TOKEN_NONE)
            return weir_gemma_bad(reading, "model.unk_token", "is not in model.vocab");
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        tokenizer->byte_ids[byte] =
            byte_fallback ? weir_token_table_id(&tokenizer->vocab, name, strlen(name)) : WEIR_TOKEN_NONE;
    }
cleanup:
    return status;
}

enum weir_status weir_gemma_model_read(struct weir_gemma_reading *reading)
{
    enum weir_status status = WEIR_OK;
    const struct weir_gemma_bpe_bytes *file = &reading->files->tokenizer_json;
    struct tables tables = { { 0, 0 }, { 0, 0 } };
    if (!file->bytes)
        return weir_fail(reading->error, WEIR_BAD_MODEL, "%s/" FILE_NAME ": is missing", reading->files->label);
    if (file->count > WEIR_GEMMA_BPE_FILE_BYTES_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/" FILE_NAME " has %zu bytes; at most %u are read",
                         reading->files->label, file->count, WEIR_GEMMA_BPE_FILE_BYTES_MAX);
    struct weir_json_scan scan = { file->bytes, file->count, 0, NULL };
    if (!tables_find(&scan, false, &tables)) tables = (struct tables){ { 0, 0 }, { 0, 0 } };
    WEIR_TRY(parse_rest(reading, &tables));
    const json_t *model = json_object_get(reading->whole, "model");
    if (!json_is_object(model)) return weir_gemma_bad(reading, "model", "is missing or no object");
    const json_t *type = json_object_get(model, "type");
    if (json_is_string(type) && strcmp(json_string_value(type), "BPE") != 0) return settings_read(reading, model);
    WEIR_TRY(vocab_read(reading, tables.vocab));
    WEIR_TRY(merges_read(reading, tables.merges));
    WEIR_TRY(settings_read(reading, model));
cleanup:
    return status;
}
