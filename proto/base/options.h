/* options: command lines as one table of rows. The parser, the checks and --help all read the same rows.
 *
 *   struct run { int64_t steps; const char *model; bool json; };
 *   static const struct weir_option rows[] = {
 *       { "steps", 0, WEIR_OPTION_INT, offsetof(struct run, steps), .min = 1, .max = 1000, .value = "N",
 *         .help = "denoising steps (default: the model's)" },
 *   };
 *
 * Syntax   --name VALUE, --name=VALUE, -x VALUE; flags take none; `--` ends them; other words may stand anywhere
 * Errors   BAD_ARGUMENT, in words: the flag, the value and the bounds
 * Memory   TEXT, TEXTS and CHOICE point into argv
 */
#ifndef WEIR_PROTO_BASE_OPTIONS_H
#define WEIR_PROTO_BASE_OPTIONS_H

#include "proto/status.h"

#include <stdbool.h>

enum weir_option_kind {
    WEIR_OPTION_FLAG,   /* bool */
    WEIR_OPTION_INT,    /* int64_t, min..max */
    WEIR_OPTION_REAL,   /* double, min..max, finite */
    WEIR_OPTION_TEXT,   /* const char *, at most `max` bytes when max > 0 */
    WEIR_OPTION_TEXTS,  /* struct weir_option_texts: like TEXT, and may be given again */
    WEIR_OPTION_CHOICE, /* const char *, one of `value` = "a|b|c" */
    WEIR_OPTION_TITLE,  /* no option: a heading in --help, its words in `help` */
};

struct weir_option {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum weir_option_kind kind;
    size_t offset; /* of the field in the caller's struct */
    double min, max;
    const char *value; /* what --help calls the value: "N", "WxH", "f32|f16" */
    const char *help;
};

#define WEIR_OPTIONS_MAX 63

#define WEIR_OPTION_TEXTS_MAX 8
struct weir_option_texts {
    size_t count;
    const char *texts[WEIR_OPTION_TEXTS_MAX];
};

/* Fills `values` by the rows; fields whose option is absent stay as they were. Bit i of `*given` is set when row i was
 * on the line. `words` is argv's array: it is reordered so that the words which are no options come last, from
 * `*first_word` to argc - 1. argv[0] is skipped. */
enum weir_status weir_options_parse(const struct weir_option *rows, size_t count, int argc, char **argv, void *values,
                                    uint64_t *given, int *first_word, struct weir_error *error);

/* Prints the rows, one or more lines each, to stdout, wrapped at 100 columns. */
void weir_options_help(const struct weir_option *rows, size_t count);

#endif
