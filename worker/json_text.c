/* One pass over the text before jansson sees it: it counts what has limits, and swaps the bare words. A word is swapped
 * for a text of the same length that starts with DEL, so that positions in messages stay true: `NaN` is 3 bytes, as is
 * a quoted DEL. Anything malformed around a swapped word (`-"..."`, `x"..."`) is still malformed, and jansson says so.
 */
#include "worker/json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEY_SHOWN_BYTES 96

struct special {
    const char *word, *text; /* the text without its quotes; strlen(text) + 2 == strlen(word) */
    double number;
};

static const struct special specials[] = {
    { "-Infinity", "\x7f------", -INFINITY },
    { "Infinity", "\x7f+++++", INFINITY },
    { "NaN", "\x7f", NAN },
};

static const struct special *special_at(const char *text, size_t bytes)
{
    for (size_t i = 0; i < WEIR_COUNT(specials); i++) {
        const size_t length = strlen(specials[i].word);
        if (length <= bytes && memcmp(text, specials[i].word, length) == 0) return &specials[i];
    }
    return NULL;
}

bool weir_json_is_special(const json_t *value, double *number)
{
    if (!json_is_string(value)) return false;
    for (size_t i = 0; i < WEIR_COUNT(specials); i++) {
        if (strcmp(json_string_value(value), specials[i].text) == 0) {
            *number = specials[i].number;
            return true;
        }
    }
    return false;
}

/* The position after the text whose opening quote is at `position`; `bytes` when it never ends. */
static size_t skip_quoted(const char *text, size_t bytes, size_t position)
{
    for (position++; position < bytes; position++) {
        if (text[position] == '\\') {
            position++;
        } else if (text[position] == '"') {
            return position + 1;
        }
    }
    return bytes;
}

/* Counts depth and values, and swaps words in `text`. */
static enum weir_status scan(char *text, size_t bytes, const struct weir_json_limits *limits, const char *label,
                             struct weir_error *error)
{
    size_t depth = 0, values = 1, position = 0;
    while (position < bytes) {
        const char c = text[position];
        if (c == '"') {
            position = skip_quoted(text, bytes, position);
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
            values++;
        } else if (c == '}' || c == ']') {
            if (depth) depth--;
        } else if (c == ',') {
            values++;
        }
        if (depth > limits->depth_max) {
            return weir_fail(error, WEIR_TOO_LARGE, "%s: JSON nested deeper than %zu levels at byte %zu", label,
                             limits->depth_max, position);
        }
        if (values > limits->values_max) {
            return weir_fail(error, WEIR_TOO_LARGE, "%s: more than %zu JSON values", label, limits->values_max);
        }
        const struct special *special = NULL;
        if (limits->special_words && (c == '-' || c == 'I' || c == 'N')) {
            special = special_at(text + position, bytes - position);
        }
        if (special) {
            const size_t length = strlen(special->word);
            text[position] = '"';
            memcpy(text + position + 1, special->text, length - 2);
            text[position + length - 1] = '"';
            position += length;
        } else {
            position++;
        }
    }
    return WEIR_OK;
}

void weir_json_key_at(const char *text, size_t bytes, size_t position, char *out, size_t count)
{
    const size_t end = position < bytes ? position : bytes;
    size_t depth = 0, at = 0, key_start = 0, key_bytes = 0, last_start = 0, last_bytes = 0;
    while (at < end) {
        const char c = text[at];
        if (c == '"') {
            const size_t after = skip_quoted(text, bytes, at);
            last_start = at + 1;
            last_bytes = after > at + 2 ? after - at - 2 : 0;
            at = after;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && depth) depth--;
        if (depth == 1 && c == ':') {
            key_start = last_start;
            key_bytes = last_bytes;
        }
        if (depth == 1 && c == ',') key_bytes = 0;
        at++;
    }
    if (key_bytes > count - 1) key_bytes = count - 1;
    memcpy(out, text + key_start, key_bytes);
    out[key_bytes] = '\0';
}

static const char *kind_of(const json_t *value)
{
    return json_is_array(value) ? "a list" : json_is_string(value) ? "a text" : "another value";
}

enum weir_status weir_json_parse(const char *text, size_t bytes, const struct weir_json_limits *limits,
                                 const char *label, json_t **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    json_t *root = NULL;
    char *copy = NULL;

    if (bytes > limits->bytes_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: %zu bytes of JSON, at most %zu are read", label, bytes,
                         limits->bytes_max);
    }
    copy = malloc(bytes + 1);
    if (!copy) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its %zu bytes", label, bytes);
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    WEIR_TRY(scan(copy, bytes, limits, label, error));

    json_error_t fault;
    root = json_loadb(copy, bytes, JSON_REJECT_DUPLICATES | (limits->all_reals ? JSON_DECODE_INT_AS_REAL : 0), &fault);
    if (!root && (fault.text[0] == '\0' || json_error_code(&fault) == json_error_out_of_memory)) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
        goto cleanup;
    }
    if (!root) {
        char key[KEY_SHOWN_BYTES];
        weir_json_key_at(copy, bytes, fault.position > 0 ? (size_t)fault.position : 0, key, sizeof key);
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: line %d%s%s: %s", label, fault.line, *key ? ", in " : "", key,
                           fault.text);
        goto cleanup;
    }
    if (!json_is_object(root)) {
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: it is %s, wanted one JSON object", label, kind_of(root));
        goto cleanup;
    }
    *out = root;
    root = NULL;

cleanup:
    json_decref(root);
    free(copy);
    return status;
}

struct shown {
    char *out;
    size_t used, room;
};

static int show_more(const char *text, size_t bytes, void *context)
{
    struct shown *shown = context;
    const size_t take = bytes < shown->room - shown->used ? bytes : shown->room - shown->used;
    memcpy(shown->out + shown->used, text, take);
    shown->used += take;
    return take == bytes ? 0 : -1;
}

void weir_json_show(const json_t *value, char *out, size_t count)
{
    for (size_t i = 0; i < WEIR_COUNT(specials); i++) {
        if (json_is_string(value) && strcmp(json_string_value(value), specials[i].text) == 0) {
            strncpy(out, specials[i].word, count - 1);
            out[count - 1] = '\0';
            return;
        }
    }
    struct shown shown = { .out = out, .room = count - 1 };
    if (json_dump_callback(value, show_more, &shown, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) != 0 && count > 4) {
        size_t cut = shown.used < count - 4 ? shown.used : count - 4;
        while (cut && ((unsigned char)out[cut] & 0xc0) == 0x80) cut--; /* not inside a character */
        memcpy(out + cut, "...", 3);
        shown.used = cut + 3;
    }
    out[shown.used] = '\0';
}
