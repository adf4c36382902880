/* What tokenizer.json does around its model: normalizer and pre_tokenizer before it, post_processor after it. */
#include "worker/tokenizers/gemma_internal.h"

#include <stdio.h>
#include <string.h>

static bool type_is(const json_t *section, const char *type)
{
    const char *text = json_string_value(json_object_get(section, "type"));
    return text && strcmp(text, type) == 0;
}

static enum weir_status refuse_type(const struct weir_gemma_reading *reading, const char *key, const json_t *section,
                                    const char *offered)
{
    char shown[64], what[192];
    const json_t *type = json_object_get(section, "type");
    if (!json_is_object(section) || !json_is_string(type)) return weir_gemma_bad(reading, key, "has no type");
    weir_json_show(type, shown, sizeof shown);
    snprintf(what, sizeof what, "is of type %s; offered is %s", shown, offered);
    return weir_gemma_refuse(reading, key, what);
}

/* A text of a step; `least` bytes it must have. */
static enum weir_status step_text(const struct weir_gemma_reading *reading, const json_t *value, const char *key,
                                  size_t least, char out[WEIR_GEMMA_BPE_STEP_BYTES_MAX], size_t *bytes)
{
    if (!json_is_string(value)) return weir_gemma_bad(reading, key, "is missing or no text");
    *bytes = json_string_length(value);
    if (*bytes < least || *bytes > WEIR_GEMMA_BPE_STEP_BYTES_MAX)
        return weir_fail(reading->error, WEIR_UNSUPPORTED, "%s/tokenizer.json: %s has %zu bytes; offered are %zu to %d",
                         reading->files->label, key, *bytes, least, WEIR_GEMMA_BPE_STEP_BYTES_MAX);
    memcpy(out, json_string_value(value), *bytes);
    return WEIR_OK;
}

/* The text of {"String": ...}; another kind of pattern is refused. */
static enum weir_status pattern_read(const struct weir_gemma_reading *reading, const json_t *section, const char *key,
                                     const json_t **out)
{
    const json_t *pattern = json_object_get(section, "pattern");
    *out = json_object_get(pattern, "String");
    if (*out || !json_object_get(pattern, "Regex")) return WEIR_OK;
    return weir_gemma_refuse(reading, key, "is a Regex; offered is a String");
}

static enum weir_status normaliser_read(struct weir_gemma_reading *reading, const json_t *section)
{
    enum weir_status status = WEIR_OK;
    struct weir_gemma_bpe *tokenizer = reading->tokenizer;
    const json_t *inner = json_object_get(section, "normalizers"), *from;
    if (!section || json_is_null(section)) return WEIR_OK;
    if (type_is(section, "Sequence")) {
        if (!json_is_array(inner)) return weir_gemma_bad(reading, "normalizer.normalizers", "is missing or no list");
        for (size_t i = 0; i < json_array_size(inner); i++)
            WEIR_TRY(normaliser_read(reading, json_array_get(inner, i)));
        return WEIR_OK;
    }
    const bool prepends = type_is(section, "Prepend");
    if (!prepends && !type_is(section, "Replace"))
        return refuse_type(reading, "normalizer", section, "Replace, Prepend, Sequence");
    if (tokenizer->step_count == WEIR_GEMMA_BPE_STEPS_MAX)
        return weir_fail(reading->error, WEIR_TOO_LARGE, "%s/tokenizer.json: normalizer has more than %d steps",
                         reading->files->label, WEIR_GEMMA_BPE_STEPS_MAX);
    struct weir_gemma_step *step = &tokenizer->steps[tokenizer->step_count++];
    if (prepends)
        return step_text(reading, json_object_get(section, "prepend"), "normalizer.prepend", 0, step->to,
                         &step->to_bytes);
    WEIR_TRY(pattern_read(reading, section, "normalizer.pattern", &from));
    WEIR_TRY(step_text(reading, from, "normalizer.pattern.String", 1, step->from, &step->from_bytes));
    WEIR_TRY(
        step_text(reading, json_object_get(section, "content"), "normalizer.content", 0, step->to, &step->to_bytes));
cleanup:
    return status;
}

/* True when no text has a space once it is normalised. */
static bool leaves_no_space(const struct weir_gemma_bpe *tokenizer)
{
    bool none = false;
    for (size_t i = 0; i < tokenizer->step_count; i++) {
        const struct weir_gemma_step *step = &tokenizer->steps[i];
        if (memchr(step->to, ' ', step->to_bytes))
            none = false;
        else if (step->from_bytes == 1 && step->from[0] == ' ')
            none = true;
    }
    return none;
}

static enum weir_status pre_tokeniser_read(struct weir_gemma_reading *reading, const json_t *section)
{
    enum weir_status status = WEIR_OK;
    const json_t *inner = json_object_get(section, "pretokenizers"), *pattern;
    const char *behaviour = json_string_value(json_object_get(section, "behavior"));
    if (!section || json_is_null(section)) return WEIR_OK;
    if (type_is(section, "Sequence")) {
        if (!json_is_array(inner))
            return weir_gemma_bad(reading, "pre_tokenizer.pretokenizers", "is missing or no list");
        for (size_t i = 0; i < json_array_size(inner); i++)
            WEIR_TRY(pre_tokeniser_read(reading, json_array_get(inner, i)));
        return WEIR_OK;
    }
    if (!type_is(section, "Split")) return refuse_type(reading, "pre_tokenizer", section, "Split on \" \"");
    WEIR_TRY(pattern_read(reading, section, "pre_tokenizer.pattern", &pattern));
    if (!json_is_string(pattern)) return weir_gemma_bad(reading, "pre_tokenizer.pattern", "is missing or no pattern");
    if (strcmp(json_string_value(pattern), " ") != 0)
        return weir_gemma_refuse(reading, "pre_tokenizer.pattern", "is not the String \" \"");
    if (!behaviour) return weir_gemma_bad(reading, "pre_tokenizer.behavior", "is missing or no text");
    if (json_is_true(json_object_get(section, "invert")))
        return weir_gemma_refuse(reading, "pre_tokenizer.invert", "is true; offered is false");
    if (leaves_no_space(reading->tokenizer)) return WEIR_OK; /* nothing to split at */
    if (strcmp(behaviour, "MergedWithPrevious") != 0)
        return weir_gemma_refuse(reading, "pre_tokenizer.behavior",
                                 "is not MergedWithPrevious, and the normalizer leaves spaces");
    reading->tokenizer->cut_after_space = true;
cleanup:
    return status;
}

enum weir_status weir_gemma_steps_read(struct weir_gemma_reading *reading)
{
    const enum weir_status status = normaliser_read(reading, json_object_get(reading->whole, "normalizer"));
    if (status != WEIR_OK) return status;
    return pre_tokeniser_read(reading, json_object_get(reading->whole, "pre_tokenizer"));
}

/* The ids of one special token of a template. */
static enum weir_status around_add(const struct weir_gemma_reading *reading, const json_t *section, const json_t *name,
                                   struct weir_gemma_around *around)
{
    static const char key[] = "post_processor.special_tokens";
    const json_t *token = json_object_get(json_object_get(section, "special_tokens"),
                                          json_is_string(name) ? json_string_value(name) : "");
    const json_t *ids = json_object_get(token, "ids");
    if (!json_is_array(ids)) return weir_gemma_bad(reading, key, "lacks a token of the template, or its ids");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        const bool known = json_is_integer(id) && json_integer_value(id) >= 0 &&
                           json_integer_value(id) < reading->tokenizer->facts.id_bound;
        if (!known) return weir_gemma_bad(reading, key, "has an id that the vocabulary does not have");
        if (around->count == WEIR_GEMMA_BPE_AROUND_MAX)
            return weir_fail(reading->error, WEIR_TOO_LARGE,
                             "%s/tokenizer.json: post_processor puts more than %d ids on a side of a text",
                             reading->files->label, WEIR_GEMMA_BPE_AROUND_MAX);
        around->ids[around->count++] = (int32_t)json_integer_value(id);
    }
    return WEIR_OK;
}

enum weir_status weir_gemma_around_read(struct weir_gemma_reading *reading)
{
    enum weir_status status = WEIR_OK;
    const json_t *section = json_object_get(reading->whole, "post_processor");
    const json_t *single = json_object_get(section, "single");
    bool text_seen = false;
    if (!section || json_is_null(section)) return WEIR_OK;
    if (!type_is(section, "TemplateProcessing"))
        return refuse_type(reading, "post_processor", section, "TemplateProcessing");
    if (!json_is_array(single)) return weir_gemma_bad(reading, "post_processor.single", "is missing or no list");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i), *special = json_object_get(item, "SpecialToken");
        const char *sequence = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        if (special) {
            WEIR_TRY(around_add(reading, section, json_object_get(special, "id"),
                                text_seen ? &reading->tokenizer->after : &reading->tokenizer->before));
        } else {
            if (text_seen || !sequence || strcmp(sequence, "A") != 0)
                return weir_gemma_bad(reading, "post_processor.single", "is not one Sequence A among SpecialTokens");
            text_seen = true;
        }
    }
    if (!text_seen) return weir_gemma_bad(reading, "post_processor.single", "has no Sequence A");
cleanup:
    return status;
}
