// SPDX-License-Identifier: GPL-3.0-or-later
/* verbs: the command line of weir-encode and of weir-encode-film, which is all of it: a verb, its options, its words.
 *
 * weir-encode does `image` itself, and becomes weir-encode-film for all else: FFmpeg's hundred libraries take longer to
 * load than a small picture to make.
 */
#ifndef WEIR_VIDEO_ENCODER_VERBS_H
#define WEIR_VIDEO_ENCODER_VERBS_H

#include "proto/base/options.h"
#include "worker/video_encoder/encode.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/image.h"
#include "worker/video_encoder/sheet.h"

#include <stddef.h>

#define WEIR_VERB_SIDE_MAX 8192

struct weir_verb_values {
    struct weir_encode encode;
    struct weir_image image;
    struct weir_sheet sheet;
    struct weir_guard_limits limits;
    const char *metadata;
    bool segment, frames, raw, receipt, scratch;
};

#define WEIR_VERB_AT(field) offsetof(struct weir_verb_values, field)
#define WEIR_VERB_SCRATCH_ROW                                                                                          \
    {                                                                                                                  \
        "scratch", 0, WEIR_OPTION_FLAG, WEIR_VERB_AT(scratch),                                                         \
            .help = "PATH need not outlive a power cut: nothing is fsynced"                                            \
    }
#define WEIR_VERB_LIMIT_ROWS                                                                                           \
    { "cpu-seconds",                                                                                                   \
      0,                                                                                                               \
      WEIR_OPTION_INT,                                                                                                 \
      WEIR_VERB_AT(limits.cpu_seconds),                                                                                \
      1,                                                                                                               \
      1000000,                                                                                                         \
      "N",                                                                                                             \
      "give up after so much CPU time" },                                                                              \
        { "memory-mib", 0, WEIR_OPTION_INT, WEIR_VERB_AT(limits.memory_mib), 1, 1 << 20, "N", "address space, MiB" },  \
    {                                                                                                                  \
        "file-mib", 0, WEIR_OPTION_INT, WEIR_VERB_AT(limits.file_mib), 1, 1 << 20, "N", "size of a written file, MiB"  \
    }

struct weir_verb {
    const char *name;
    const struct weir_option *rows;
    size_t row_count;
    enum weir_status (*run)(struct weir_verb_values *values, char **words, int count, struct weir_error *error);
    const char *required[7];
    int words_min, words_max;
    bool leaves_files; /* guard.h */
};
extern const struct weir_verb weir_verb_image;

/* Whether a word of the line is --help or -h. */
bool weir_verb_help_wanted(int argc, char **argv);

/* argv[0] is the verb's name. Limits and signals are set before it runs.
 * Errors   BAD_ARGUMENT, and the verb's */
enum weir_status weir_verb_run(const struct weir_verb *verb, int argc, char **argv, struct weir_error *error);

/* A file's JSON object of at most 64 KiB, byte for byte; free(*out). NULL for a path that is NULL.
 * Errors   BAD_FILE, and those of reading it */
enum weir_status weir_verb_receipt(const char *path, char **out, struct weir_error *error);

#endif
