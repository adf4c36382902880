#include "proto/base/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_LONG = 256, HELP_COLUMN = 28, HELP_WIDTH = 100 };

static bool is_choice(const char *choices, const char *text)
{
    const size_t length = strlen(text);
    for (const char *at = choices; length; at++) {
        const size_t here = strcspn(at, "|");
        if (here == length && memcmp(at, text, length) == 0) return true;
        at += here;
        if (!*at) break;
    }
    return false;
}

static enum weir_status parse_int(const struct weir_option *row, const char *text, int64_t *out,
                                  struct weir_error *error)
{
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)value < row->min || (double)value > row->max) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %s: a whole number from %.0f to %.0f is wanted", row->name,
                         text, row->min, row->max);
    }
    *out = value;
    return WEIR_OK;
}

static enum weir_status parse_real(const struct weir_option *row, const char *text, double *out,
                                   struct weir_error *error)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < row->min || value > row->max) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %s: a number from %g to %g is wanted", row->name, text,
                         row->min, row->max);
    }
    *out = value;
    return WEIR_OK;
}

static enum weir_status check_text(const struct weir_option *row, const char *text, struct weir_error *error)
{
    if (row->max <= 0 || (double)strlen(text) <= row->max) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s: %zu bytes, at most %.0f are allowed", row->name, strlen(text),
                     row->max);
}

static enum weir_status add_text(const struct weir_option *row, const char *text, struct weir_option_texts *out,
                                 struct weir_error *error)
{
    if (out->count == WEIR_OPTION_TEXTS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %s: it is given more than %d times", row->name, text,
                         WEIR_OPTION_TEXTS_MAX);
    }
    out->texts[out->count++] = text;
    return check_text(row, text, error);
}

static enum weir_status take(const struct weir_option *row, const char *text, void *values, struct weir_error *error)
{
    void *field = (char *)values + row->offset;
    switch (row->kind) {
    case WEIR_OPTION_FLAG: *(bool *)field = true; return WEIR_OK;
    case WEIR_OPTION_INT: return parse_int(row, text, field, error);
    case WEIR_OPTION_REAL: return parse_real(row, text, field, error);
    case WEIR_OPTION_TEXT:
        *(const char **)field = text;
        return check_text(row, text, error);
    case WEIR_OPTION_TEXTS: return add_text(row, text, field, error);
    case WEIR_OPTION_CHOICE:
        if (!is_choice(row->value, text)) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %s: one of %s is wanted", row->name, text, row->value);
        }
        *(const char **)field = text;
        return WEIR_OK;
    case WEIR_OPTION_TITLE: break;
    }
    assert(false && "a title is never parsed");
    return WEIR_INTERNAL;
}

enum weir_status weir_options_parse(const struct weir_option *rows, size_t count, int argc, char **argv, void *values,
                                    uint64_t *given, int *first_word, struct weir_error *error)
{
    struct option longs[WEIR_OPTIONS_MAX + 1] = { 0 };
    char shorts[2 * WEIR_OPTIONS_MAX + 2] = ":";
    size_t long_count = 0, short_used = 1;
    assert(count <= WEIR_OPTIONS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].kind == WEIR_OPTION_TITLE) continue;
        const int wants = rows[i].kind == WEIR_OPTION_FLAG ? no_argument : required_argument;
        longs[long_count++] = (struct option){ rows[i].name, wants, NULL, FIRST_LONG + (int)i };
        if (rows[i].letter) {
            shorts[short_used++] = rows[i].letter;
            if (wants == required_argument) shorts[short_used++] = ':';
        }
    }

    *given = 0;
    optind = 0; /* glibc: start anew */
    opterr = 0;
    for (;;) {
        const int found = getopt_long(argc, argv, shorts, longs, NULL);
        if (found == -1) break;
        const char *seen = optind > 0 && optind <= argc ? argv[optind - 1] : "";
        if (found == '?') {
            if (optopt > 0 && optopt < FIRST_LONG) {
                return weir_fail(error, WEIR_BAD_ARGUMENT, "-%c: no such option; --help lists them", optopt);
            }
            return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: no such option, or one that takes no value; --help lists "
                             "them", seen);
        }
        if (found == ':') return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: a value is missing after it", seen);
        size_t index = 0;
        if (found >= FIRST_LONG) {
            index = (size_t)(found - FIRST_LONG);
        } else {
            while (rows[index].letter != found) index++;
        }
        const enum weir_status status = take(&rows[index], optarg, values, error);
        if (status != WEIR_OK) return status;
        *given |= UINT64_C(1) << index;
    }
    *first_word = optind;
    return WEIR_OK;
}

static void print_wrapped(const char *text, int column)
{
    while (*text) {
        const size_t word = strcspn(text, " ");
        if (column + 1 + (int)word > HELP_WIDTH) {
            printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        printf(" %.*s", (int)word, text);
        column += 1 + (int)word;
        text += word;
        while (*text == ' ') text++;
    }
    putchar('\n');
}

void weir_options_help(const struct weir_option *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].kind == WEIR_OPTION_TITLE) {
            printf("\n%s\n", rows[i].help);
            continue;
        }
        char left[128];
        const char *value = rows[i].kind == WEIR_OPTION_FLAG ? "" : rows[i].value ? rows[i].value : "VALUE";
        const int wide = rows[i].letter ? snprintf(left, sizeof left, "  -%c, --%s %s", rows[i].letter, rows[i].name, value)
                                        : snprintf(left, sizeof left, "  --%s %s", rows[i].name, value);
        printf("%-*s", HELP_COLUMN, left);
        if (wide >= HELP_COLUMN) printf("\n%*s", HELP_COLUMN, "");
        print_wrapped(rows[i].help, HELP_COLUMN);
    }
}
