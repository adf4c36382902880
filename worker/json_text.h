/* json_text: JSON from files nobody vouches for, read with limits.
 *
 * jansson does the parsing; what it would let through is refused or bounded before: size, depth, number of values (an
 * array of a million zeros is two megabytes of text and thirty of memory), duplicate keys. On request the bare words
 * -Infinity, Infinity and NaN, which diffusers writes and JSON does not have, are accepted outside of strings: each
 * becomes a string that no file can hold by accident (weir_json_is_special tells), never a number.
 *
 * Memory   `*out` is freed with json_decref(); the text is the caller's and unchanged
 * Errors   BAD_MODEL or TOO_LARGE; the words name the file, the line and the fault
 * Threads  any
 */
#ifndef WEIR_WORKER_JSON_TEXT_H
#define WEIR_WORKER_JSON_TEXT_H

#include "proto/status.h"

#include <jansson.h>
#include <stdbool.h>

struct weir_json_limits {
    size_t bytes_max;
    size_t depth_max;   /* nested objects and arrays; {} is 1 */
    size_t values_max;  /* every object, array, text, number and word counts */
    bool special_words; /* accept -Infinity, Infinity, NaN */
    bool all_reals;     /* every number becomes a real: for files with whole numbers of more than 63 bits */
};

/* Configs, model_index.json, weir.json, tokenizer_config.json and their like. */
#define WEIR_JSON_CONFIG_LIMITS                                                                                        \
    ((struct weir_json_limits){                                                                                        \
        .bytes_max = (size_t)1 << 20, .depth_max = 16, .values_max = 50000, .special_words = true })

/* The text must be one JSON object. `label` is the file as a person should read it. */
enum weir_status weir_json_parse(const char *text, size_t bytes, const struct weir_json_limits *limits,
                                 const char *label, json_t **out, struct weir_error *error);

/* True when `value` stands for one of the bare words; `*number` is then -INFINITY, INFINITY or NAN. */
bool weir_json_is_special(const json_t *value, double *number);

/* A short rendering of a value for a message, at most `count` bytes with the NUL: `"silu"`, `3`, `[1, 2, ...`. */
void weir_json_show(const json_t *value, char *out, size_t count);

/* The object of an open config, for those who walk over its keys; it belongs to the config. */
struct weir_config;
json_t *weir_config_root(const struct weir_config *config);

/* The key of the outermost object in whose value byte `position` of the text lies, as written, into `out`; "" if none.
 */
void weir_json_key_at(const char *text, size_t bytes, size_t position, char *out, size_t count);

#endif
