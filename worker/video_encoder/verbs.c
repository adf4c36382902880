// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/verbs.h"

#include "proto/base/bytes.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECEIPT_BYTES_MAX = 64 * 1024 };

enum weir_status weir_verb_receipt(const char *path, char **out, struct weir_error *error)
{
    size_t bytes = 0;
    json_error_t fault;
    *out = NULL;
    if (!path) return WEIR_OK;
    enum weir_status status = weir_file_read(path, RECEIPT_BYTES_MAX, out, &bytes, error);
    if (status != WEIR_OK) return status;
    json_t *object = json_loadb(*out, bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!json_is_object(object)) {
        status = weir_fail(error, WEIR_BAD_FILE, "--metadata %s: not a JSON object: line %d: %s", path,
                           object ? 1 : fault.line, object ? "something else" : fault.text);
    }
    json_decref(object);
    return status;
}

static enum weir_status check_line(const struct weir_verb *verb, uint64_t given, int words, struct weir_error *error)
{
    for (const char *const *name = verb->required; *name; name++) {
        for (size_t i = 0; i < verb->row_count; i++) {
            if (!verb->rows[i].name || strcmp(verb->rows[i].name, *name) != 0 || given >> i & 1) continue;
            return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: --%s is missing; --help lists the options", verb->name,
                             *name);
        }
    }
    if (words >= verb->words_min && words <= verb->words_max) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: %d file names, from %d to %d are wanted", verb->name, words,
                     verb->words_min, verb->words_max);
}

bool weir_verb_help_wanted(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

enum weir_status weir_verb_run(const struct weir_verb *verb, int argc, char **argv, struct weir_error *error)
{
    struct weir_verb_values values = { 0 };
    uint64_t given = 0;
    int first = 0;
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_options_parse(verb->rows, verb->row_count, argc, argv, &values, &given, &first, error));
    WEIR_TRY(check_line(verb, given, argc - first, error));
    WEIR_TRY(weir_guard_start(&values.limits, verb->leaves_files, error));
    WEIR_TRY(verb->run(&values, argv + first, argc - first, error));

cleanup:
    return status;
}

/* ---- image ---- */

static const struct weir_option image_rows[] = {
    { .kind = WEIR_OPTION_TITLE, .help = "weir-encode image OPTIONS < FRAME     one raw RGB24 frame to one picture" },
    { "width", 0, WEIR_OPTION_INT, WEIR_VERB_AT(image.width), 1, WEIR_VERB_SIDE_MAX, "W", "pixels, 1 to 8192" },
    { "height", 0, WEIR_OPTION_INT, WEIR_VERB_AT(image.height), 1, WEIR_VERB_SIDE_MAX, "H", "pixels, 1 to 8192" },
    { "format", 0, WEIR_OPTION_CHOICE, WEIR_VERB_AT(image.format), .value = "png|jpeg|webp",
      .help = "png and webp are exact; jpeg has quality 95 and full colour" },
    { "metadata", 0, WEIR_OPTION_TEXT, WEIR_VERB_AT(metadata), .value = "FILE",
      .help = "the receipt: a JSON object of at most 65536 bytes, 65533 for jpeg. png: an iTXt chunk \"weir\"; jpeg: a "
              "COM segment; webp: EXIF's ImageDescription" },
    { "output", 'o', WEIR_OPTION_TEXT, WEIR_VERB_AT(image.path), .value = "PATH", .help = "the file to write" },
    WEIR_VERB_SCRATCH_ROW,
    WEIR_VERB_LIMIT_ROWS,
};

static enum weir_status run_image(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    (void)words, (void)count;
    struct weir_image *image = &values->image;
    char *receipt;
    enum weir_status status = weir_verb_receipt(values->metadata, &receipt, error);
    image->comment = receipt;
    image->is_scratch = values->scratch;
    if (status == WEIR_OK) status = weir_image_run(image, STDIN_FILENO, error);
    free(receipt);
    return status;
}

const struct weir_verb weir_verb_image = {
    .name = "image",
    .rows = image_rows,
    .row_count = WEIR_COUNT(image_rows),
    .run = run_image,
    .required = { "width", "height", "format", "output" },
    .leaves_files = true,
};
