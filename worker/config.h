/* config: typed reading of a component's config.json.
 *
 * A key that is absent, or null, takes the default that the caller gives: the constructor default of the class that
 * wrote the file. A key that is there must have the right type and lie within the bounds; nothing is converted, but an
 * integer may stand where a real is wanted. Keys nobody asks for are ignored: configs of other versions have many.
 *
 *   int64_t heads;
 *   WEIR_TRY(weir_config_int(config, "num_heads", 8, 1, 128, &heads, error));
 *
 * Required WEIR_CONFIG_REQUIRED_INT, _REAL (a NaN), NULL (text) or a count of 0 (lists) as the default: the key must be
 *          there. Use weir_config_bool_required for flags.
 * Units    bounds are inclusive
 * Memory   texts live as long as the config
 * Errors   BAD_MODEL: the words name the file, the key, the value found and what is wanted; *out is then unchanged
 * Threads  reading is safe from any
 */
#ifndef WEIR_WORKER_CONFIG_H
#define WEIR_WORKER_CONFIG_H

#include "proto/status.h"

#include <math.h>
#include <stdbool.h>

struct weir_config;

#define WEIR_CONFIG_REQUIRED_INT INT64_MIN
#define WEIR_CONFIG_REQUIRED_REAL ((double)NAN)
#define WEIR_CONFIG_LIST_MAX 64
#define WEIR_CONFIG_BYTES_MAX ((size_t)1 << 20)

/* Reads a JSON file of at most 1 MiB, 16 levels and 50,000 values. Duplicate keys are refused; the bare words
 * -Infinity, Infinity and NaN are accepted, and read by weir_config_real as what they say (NaN is within no bounds). */
enum weir_status weir_config_open(const char *path, struct weir_config **out, struct weir_error *error);
/* The same from memory; `label` names it in messages. */
enum weir_status weir_config_parse(const char *text, size_t bytes, const char *label, struct weir_config **out,
                                   struct weir_error *error);
void weir_config_close(struct weir_config **config_p);

const char *weir_config_label(const struct weir_config *config);
/* True when the key is there and not null. */
bool weir_config_has(const struct weir_config *config, const char *key);
/* True when the key is there and null, for the few whose null means something else than their absence. */
bool weir_config_is_null(const struct weir_config *config, const char *key);
/* The object at the key as a config of its own, NULL when it is absent or null. The caller closes it; it may outlive
 * `config`. Its words name both the file and the key: "config.json: rope_parameters: rope_type is ...". */
enum weir_status weir_config_within(const struct weir_config *config, const char *key, struct weir_config **out,
                                    struct weir_error *error);

enum weir_status weir_config_int(const struct weir_config *config, const char *key, int64_t value_default, int64_t min,
                                 int64_t max, int64_t *out, struct weir_error *error);
enum weir_status weir_config_real(const struct weir_config *config, const char *key, double value_default, double min,
                                  double max, double *out, struct weir_error *error);
enum weir_status weir_config_bool(const struct weir_config *config, const char *key, bool value_default, bool *out,
                                  struct weir_error *error);
enum weir_status weir_config_bool_required(const struct weir_config *config, const char *key, bool *out,
                                           struct weir_error *error);
enum weir_status weir_config_text(const struct weir_config *config, const char *key, const char *value_default,
                                  const char **out, struct weir_error *error);
/* One of `choices` (NULL-terminated); the index is given. The error lists them all. `value_default` NULL: required. */
enum weir_status weir_config_choice(const struct weir_config *config, const char *key, const char *value_default,
                                    const char *const *choices, size_t *out, struct weir_error *error);

/* Lists of 1..count_max values. `defaults` has `default_count` values; 0 makes the key required. */
enum weir_status weir_config_int_list(const struct weir_config *config, const char *key, const int64_t *defaults,
                                      size_t default_count, int64_t min, int64_t max, size_t count_max, int64_t *out,
                                      size_t *count, struct weir_error *error);
/* Exactly `count` values; one bare number stands for `count` times itself (layers_per_block, attention_head_dim). */
enum weir_status weir_config_int_spread(const struct weir_config *config, const char *key, int64_t value_default,
                                        int64_t min, int64_t max, size_t count, int64_t *out, struct weir_error *error);
enum weir_status weir_config_real_list(const struct weir_config *config, const char *key, const double *defaults,
                                       size_t default_count, double min, double max, size_t count_max, double *out,
                                       size_t *count, struct weir_error *error);
enum weir_status weir_config_text_list(const struct weir_config *config, const char *key, const char *const *defaults,
                                       size_t default_count, size_t count_max, const char **out, size_t *count,
                                       struct weir_error *error);
/* Exactly `count` values; one bare text stands for `count` times itself (encoder_block_types). */
enum weir_status weir_config_text_spread(const struct weir_config *config, const char *key, const char *value_default,
                                         size_t count, const char **out, struct weir_error *error);
/* Lists of integers in a list ([[], [5]]), each of 0..each_max: list i goes to out[i * each_max], its length to
 * counts[i]. The first `count` of them; there may be more, as in lists that are as long as the class's default. When
 * the key is absent nothing is written: the default is what the caller had there. */
enum weir_status weir_config_int_lists(const struct weir_config *config, const char *key, int64_t min, int64_t max,
                                       size_t count, size_t each_max, int64_t *out, size_t *counts,
                                       struct weir_error *error);

/* Names a key whose value this build cannot honour: UNSUPPORTED, with file, key and value in the words. */
enum weir_status weir_config_refuse(const struct weir_config *config, const char *key, const char *wanted,
                                    struct weir_error *error);

#endif
