#include "worker/config.h"

#include "proto/base/bytes.h"
#include "worker/json_text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_SHOWN_BYTES 64
#define WANTED_BYTES 160

struct weir_config {
    json_t *root;
    char *label;
};

enum weir_status weir_config_parse(const char *text, size_t bytes, const char *label, struct weir_config **out,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_config *config = calloc(1, sizeof *config);
    if (config) config->label = strdup(label);
    if (!config || !config->label) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
        goto cleanup;
    }
    WEIR_TRY(weir_json_parse(text, bytes, &WEIR_JSON_CONFIG_LIMITS, label, &config->root, error));
    *out = config;
    config = NULL;

cleanup:
    weir_config_close(&config);
    return status;
}

enum weir_status weir_config_open(const char *path, struct weir_config **out, struct weir_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    enum weir_status status = weir_file_read(path, WEIR_CONFIG_BYTES_MAX, &text, &bytes, error);
    if (status == WEIR_OK) status = weir_config_parse(text, bytes, path, out, error);
    free(text);
    return status;
}

void weir_config_close(struct weir_config **config_p)
{
    struct weir_config *config = *config_p;
    if (!config) return;
    json_decref(config->root);
    free(config->label);
    free(config);
    *config_p = NULL;
}

const char *weir_config_label(const struct weir_config *config)
{
    return config->label;
}

json_t *weir_config_root(const struct weir_config *config)
{
    return config->root;
}

/* NULL when absent or null: both mean the default. */
static const json_t *value_of(const struct weir_config *config, const char *key)
{
    const json_t *value = json_object_get(config->root, key);
    return json_is_null(value) ? NULL : value;
}

bool weir_config_has(const struct weir_config *config, const char *key)
{
    return value_of(config, key) != NULL;
}

bool weir_config_is_null(const struct weir_config *config, const char *key)
{
    return json_is_null(json_object_get(config->root, key));
}

static enum weir_status fail_missing(const struct weir_config *config, const char *key, const char *wanted,
                                     struct weir_error *error)
{
    return weir_fail(error, WEIR_BAD_MODEL, "%s: %s is missing, wanted %s", config->label, key, wanted);
}

/* `index` is of the value in its list, or -1. */
static enum weir_status fail_value(const struct weir_config *config, const char *key, long index, const json_t *value,
                                   const char *wanted, struct weir_error *error)
{
    char shown[VALUE_SHOWN_BYTES], place[32] = "";
    weir_json_show(value, shown, sizeof shown);
    if (index >= 0) snprintf(place, sizeof place, "[%ld]", index);
    return weir_fail(error, WEIR_BAD_MODEL, "%s: %s%s is %s, wanted %s", config->label, key, place, shown, wanted);
}

enum weir_status weir_config_within(const struct weir_config *config, const char *key, struct weir_config **out,
                                    struct weir_error *error)
{
    json_t *value = json_object_get(config->root, key);
    *out = NULL;
    if (!value || json_is_null(value)) return WEIR_OK;
    if (!json_is_object(value)) return fail_value(config, key, -1, value, "an object", error);

    const size_t bytes = strlen(config->label) + strlen(key) + 3;
    struct weir_config *within = calloc(1, sizeof *within);
    if (within) within->label = malloc(bytes);
    if (!within || !within->label) {
        weir_config_close(&within);
        return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read %s", config->label, key);
    }
    snprintf(within->label, bytes, "%s: %s", config->label, key);
    within->root = json_incref(value);
    *out = within;
    return WEIR_OK;
}

static void wanted_int(int64_t min, int64_t max, char out[WANTED_BYTES])
{
    if (min == max) {
        snprintf(out, WANTED_BYTES, "%lld", (long long)min);
    } else if (max == INT64_MAX) {
        snprintf(out, WANTED_BYTES, "an integer of at least %lld", (long long)min);
    } else {
        snprintf(out, WANTED_BYTES, "an integer from %lld to %lld", (long long)min, (long long)max);
    }
}

static bool read_int(const json_t *value, int64_t min, int64_t max, int64_t *out)
{
    if (!json_is_integer(value)) return false;
    const int64_t number = json_integer_value(value);
    if (number < min || number > max) return false;
    *out = number;
    return true;
}

static bool read_real(const json_t *value, double min, double max, double *out)
{
    double number;
    if (json_is_number(value)) {
        number = json_number_value(value);
    } else if (!weir_json_is_special(value, &number)) {
        return false;
    }
    if (!(number >= min && number <= max)) return false;
    *out = number;
    return true;
}

static bool read_text(const json_t *value, const char **out)
{
    double number;
    if (!json_is_string(value) || weir_json_is_special(value, &number)) return false;
    *out = json_string_value(value);
    return true;
}

enum weir_status weir_config_int(const struct weir_config *config, const char *key, int64_t value_default, int64_t min,
                                 int64_t max, int64_t *out, struct weir_error *error)
{
    char wanted[WANTED_BYTES];
    const json_t *value = value_of(config, key);
    wanted_int(min, max, wanted);
    if (!value) {
        if (value_default == WEIR_CONFIG_REQUIRED_INT) return fail_missing(config, key, wanted, error);
        *out = value_default;
        return WEIR_OK;
    }
    return read_int(value, min, max, out) ? WEIR_OK : fail_value(config, key, -1, value, wanted, error);
}

enum weir_status weir_config_real(const struct weir_config *config, const char *key, double value_default, double min,
                                  double max, double *out, struct weir_error *error)
{
    char wanted[WANTED_BYTES];
    const json_t *value = value_of(config, key);
    snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
    if (!value) {
        if (isnan(value_default)) return fail_missing(config, key, wanted, error);
        *out = value_default;
        return WEIR_OK;
    }
    return read_real(value, min, max, out) ? WEIR_OK : fail_value(config, key, -1, value, wanted, error);
}

enum weir_status weir_config_bool(const struct weir_config *config, const char *key, bool value_default, bool *out,
                                  struct weir_error *error)
{
    const json_t *value = value_of(config, key);
    if (value && !json_is_boolean(value)) return fail_value(config, key, -1, value, "true or false", error);
    *out = value ? json_is_true(value) : value_default;
    return WEIR_OK;
}

enum weir_status weir_config_bool_required(const struct weir_config *config, const char *key, bool *out,
                                           struct weir_error *error)
{
    if (!value_of(config, key)) return fail_missing(config, key, "true or false", error);
    return weir_config_bool(config, key, false, out, error);
}

enum weir_status weir_config_text(const struct weir_config *config, const char *key, const char *value_default,
                                  const char **out, struct weir_error *error)
{
    const json_t *value = value_of(config, key);
    if (!value) {
        if (!value_default) return fail_missing(config, key, "a text", error);
        *out = value_default;
        return WEIR_OK;
    }
    return read_text(value, out) ? WEIR_OK : fail_value(config, key, -1, value, "a text", error);
}

enum weir_status weir_config_choice(const struct weir_config *config, const char *key, const char *value_default,
                                    const char *const *choices, size_t *out, struct weir_error *error)
{
    char wanted[WANTED_BYTES] = "one of";
    for (size_t i = 0; choices[i]; i++) {
        const size_t used = strlen(wanted);
        snprintf(wanted + used, sizeof wanted - used, "%s%s", i ? ", " : " ", choices[i]);
    }
    const json_t *value = value_of(config, key);
    const char *text = value_default;
    if (!value && !value_default) return fail_missing(config, key, wanted, error);
    if (value && !read_text(value, &text)) return fail_value(config, key, -1, value, wanted, error);
    for (size_t i = 0; choices[i]; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *out = i;
            return WEIR_OK;
        }
    }
    assert(value); /* a default that is no choice is our own fault */
    return fail_value(config, key, -1, value, wanted, error);
}

/* The list under `key`: `*list` is NULL when it is absent and there is a default. */
static enum weir_status list_of(const struct weir_config *config, const char *key, size_t default_count,
                                size_t count_max, const char *of_what, const json_t **list, struct weir_error *error)
{
    char wanted[WANTED_BYTES];
    snprintf(wanted, sizeof wanted, "a list of 1 to %zu %s", count_max, of_what);
    assert(count_max <= WEIR_CONFIG_LIST_MAX && default_count <= count_max);
    *list = value_of(config, key);
    if (!*list) return default_count ? WEIR_OK : fail_missing(config, key, wanted, error);
    if (!json_is_array(*list) || json_array_size(*list) == 0 || json_array_size(*list) > count_max) {
        return fail_value(config, key, -1, *list, wanted, error);
    }
    return WEIR_OK;
}

enum weir_status weir_config_int_list(const struct weir_config *config, const char *key, const int64_t *defaults,
                                      size_t default_count, int64_t min, int64_t max, size_t count_max, int64_t *out,
                                      size_t *count, struct weir_error *error)
{
    int64_t numbers[WEIR_CONFIG_LIST_MAX];
    const json_t *list;
    const enum weir_status status = list_of(config, key, default_count, count_max, "integers", &list, error);
    if (status != WEIR_OK) return status;
    const size_t found = list ? json_array_size(list) : default_count;
    for (size_t i = 0; i < found; i++) {
        if (!list) {
            numbers[i] = defaults[i];
        } else if (!read_int(json_array_get(list, i), min, max, &numbers[i])) {
            char wanted[WANTED_BYTES];
            wanted_int(min, max, wanted);
            return fail_value(config, key, (long)i, json_array_get(list, i), wanted, error);
        }
    }
    memcpy(out, numbers, found * sizeof *out);
    *count = found;
    return WEIR_OK;
}

enum weir_status weir_config_int_spread(const struct weir_config *config, const char *key, int64_t value_default,
                                        int64_t min, int64_t max, size_t count, int64_t *out, struct weir_error *error)
{
    assert(count <= WEIR_CONFIG_LIST_MAX);
    const json_t *value = value_of(config, key);
    int64_t numbers[WEIR_CONFIG_LIST_MAX];
    if (json_is_array(value)) {
        size_t found = 0;
        const enum weir_status status =
            weir_config_int_list(config, key, NULL, 0, min, max, WEIR_CONFIG_LIST_MAX, numbers, &found, error);
        if (status != WEIR_OK) return status;
        if (found != count) {
            return weir_fail(error, WEIR_BAD_MODEL, "%s: %s has %zu values, wanted %zu, or one for all", config->label,
                             key, found, count);
        }
        memcpy(out, numbers, count * sizeof *out);
        return WEIR_OK;
    }
    int64_t number;
    const enum weir_status status = weir_config_int(config, key, value_default, min, max, &number, error);
    for (size_t i = 0; i < count && status == WEIR_OK; i++) out[i] = number;
    return status;
}

enum weir_status weir_config_real_list(const struct weir_config *config, const char *key, const double *defaults,
                                       size_t default_count, double min, double max, size_t count_max, double *out,
                                       size_t *count, struct weir_error *error)
{
    double numbers[WEIR_CONFIG_LIST_MAX];
    const json_t *list;
    const enum weir_status status = list_of(config, key, default_count, count_max, "numbers", &list, error);
    if (status != WEIR_OK) return status;
    const size_t found = list ? json_array_size(list) : default_count;
    for (size_t i = 0; i < found; i++) {
        if (!list) {
            numbers[i] = defaults[i];
        } else if (!read_real(json_array_get(list, i), min, max, &numbers[i])) {
            char wanted[WANTED_BYTES];
            snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
            return fail_value(config, key, (long)i, json_array_get(list, i), wanted, error);
        }
    }
    memcpy(out, numbers, found * sizeof *out);
    *count = found;
    return WEIR_OK;
}

enum weir_status weir_config_text_list(const struct weir_config *config, const char *key, const char *const *defaults,
                                       size_t default_count, size_t count_max, const char **out, size_t *count,
                                       struct weir_error *error)
{
    const char *texts[WEIR_CONFIG_LIST_MAX];
    const json_t *list;
    const enum weir_status status = list_of(config, key, default_count, count_max, "texts", &list, error);
    if (status != WEIR_OK) return status;
    const size_t found = list ? json_array_size(list) : default_count;
    for (size_t i = 0; i < found; i++) {
        if (!list) {
            texts[i] = defaults[i];
        } else if (!read_text(json_array_get(list, i), &texts[i])) {
            return fail_value(config, key, (long)i, json_array_get(list, i), "a text", error);
        }
    }
    memcpy(out, texts, found * sizeof *out);
    *count = found;
    return WEIR_OK;
}

enum weir_status weir_config_text_spread(const struct weir_config *config, const char *key, const char *value_default,
                                         size_t count, const char **out, struct weir_error *error)
{
    assert(count <= WEIR_CONFIG_LIST_MAX);
    const json_t *value = value_of(config, key);
    if (json_is_array(value)) {
        const char *texts[WEIR_CONFIG_LIST_MAX];
        size_t found = 0;
        const enum weir_status status =
            weir_config_text_list(config, key, NULL, 0, WEIR_CONFIG_LIST_MAX, texts, &found, error);
        if (status != WEIR_OK) return status;
        if (found != count) {
            return weir_fail(error, WEIR_BAD_MODEL, "%s: %s has %zu values, wanted %zu, or one for all", config->label,
                             key, found, count);
        }
        memcpy(out, texts, count * sizeof *out);
        return WEIR_OK;
    }
    const char *text;
    const enum weir_status status = weir_config_text(config, key, value_default, &text, error);
    for (size_t i = 0; i < count && status == WEIR_OK; i++) out[i] = text;
    return status;
}

enum weir_status weir_config_int_lists(const struct weir_config *config, const char *key, int64_t min, int64_t max,
                                       size_t count, size_t each_max, int64_t *out, size_t *counts,
                                       struct weir_error *error)
{
    char wanted[WANTED_BYTES];
    const json_t *list = value_of(config, key);
    assert(count <= WEIR_CONFIG_LIST_MAX && each_max <= WEIR_CONFIG_LIST_MAX);
    if (!list) return WEIR_OK;
    snprintf(wanted, sizeof wanted, "a list of at least %zu lists", count);
    if (!json_is_array(list) || json_array_size(list) < count) return fail_value(config, key, -1, list, wanted, error);
    for (int write = 0; write <= 1; write++) { /* all are looked at before any is written */
        for (size_t i = 0; i < count; i++) {
            const json_t *each = json_array_get(list, i);
            snprintf(wanted, sizeof wanted, "a list of 0 to %zu integers from %lld to %lld", each_max, (long long)min,
                     (long long)max);
            if (!json_is_array(each) || json_array_size(each) > each_max)
                return fail_value(config, key, (long)i, each, wanted, error);
            for (size_t k = 0; k < json_array_size(each); k++) {
                int64_t number;
                if (!read_int(json_array_get(each, k), min, max, &number))
                    return fail_value(config, key, (long)i, each, wanted, error);
                if (write) out[i * each_max + k] = number;
            }
            if (write) counts[i] = json_array_size(each);
        }
    }
    return WEIR_OK;
}

enum weir_status weir_config_refuse(const struct weir_config *config, const char *key, const char *wanted,
                                    struct weir_error *error)
{
    char shown[VALUE_SHOWN_BYTES] = "absent";
    const json_t *value = value_of(config, key);
    if (value) weir_json_show(value, shown, sizeof shown);
    if (weir_config_is_null(config, key)) snprintf(shown, sizeof shown, "null");
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: %s is %s, which is not supported, wanted %s", config->label, key,
                     shown, wanted);
}
