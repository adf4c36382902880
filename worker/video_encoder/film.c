// SPDX-License-Identifier: GPL-3.0-or-later
/* weir-encode-film: all that weir-encode does (main.c says what), for films: the only program that links FFmpeg. */
#include "proto/base/bytes.h"
#include "worker/video_encoder/join.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/picture.h"
#include "worker/video_encoder/probe.h"
#include "worker/video_encoder/verbs.h"

#include <jansson.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE_MAX = WEIR_VERB_SIDE_MAX, FPS_MAX = 240 };

#define AT(field) WEIR_VERB_AT(field)
#define FILM_ROWS                                                                                                      \
    { "metadata",                                                                                                      \
      0,                                                                                                               \
      WEIR_OPTION_TEXT,                                                                                                \
      AT(metadata),                                                                                                    \
      .value = "FILE",                                                                                                 \
      .help = "the receipt: a JSON object of at most 65536 bytes. mp4, webm: the comment tag; gif: a comment "         \
              "extension; png: an iTXt chunk \"weir\" in every frame" },                                               \
    {                                                                                                                  \
        "output", 'o', WEIR_OPTION_TEXT, AT(encode.path),                                                              \
            .value = "PATH", .help = "the file to write; for png a folder that is not there or empty"                  \
    }

static const struct weir_option encode_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode encode OPTIONS < FRAMES     raw RGB24 frames to a film or a folder of pictures" },
    { "width", 0, WEIR_OPTION_INT, AT(encode.width), 1, SIDE_MAX, "W", "pixels, 1 to 8192; even for mp4 and webm" },
    { "height", 0, WEIR_OPTION_INT, AT(encode.height), 1, SIDE_MAX, "H", "pixels, 1 to 8192; even for mp4 and webm" },
    { "frames", 0, WEIR_OPTION_INT, AT(encode.frames), 1, WEIR_OUTPUT_FRAMES_MAX, "N", "how many come, 1 to 100000" },
    { "fps", 0, WEIR_OPTION_INT, AT(encode.fps), 1, FPS_MAX, "F", "frames a second, 1 to 240; gif at most 50" },
    { "format", 0, WEIR_OPTION_CHOICE, AT(encode.format), .value = "mp4|webm|gif|png",
      .help = "png: PATH is a folder of 00000.png, 00001.png, ..." },
    { "codec", 0, WEIR_OPTION_CHOICE, AT(encode.codec), .value = "h264|av1|vp9",
      .help = "default: the first installed of h264, av1, vp9 for mp4; of vp9, av1 for webm" },
    { "segment", 0, WEIR_OPTION_FLAG, AT(segment), .help = "to be joined later: mp4 or webm, and no receipt" },
    FILM_ROWS,
    WEIR_VERB_SCRATCH_ROW,
    WEIR_VERB_LIMIT_ROWS,
};
static const struct weir_option join_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode join OPTIONS SEGMENT...     segments to one film, copied, not encoded again" },
    { "format", 0, WEIR_OPTION_CHOICE, AT(encode.format), .value = "mp4|webm", .help = "also that of the segments" },
    FILM_ROWS,
    WEIR_VERB_SCRATCH_ROW,
    WEIR_VERB_LIMIT_ROWS,
};
static const struct weir_option sheet_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode sheet OPTIONS PICTURE...     up to 1000 pictures, small beside each other, as one PNG" },
    { "side", 0, WEIR_OPTION_INT, AT(sheet.side), 16, WEIR_SHEET_SIDE_MAX, "S",
      "pixels that the longer side of a picture gets at most, 16 to 160 (default: 160)" },
    { "output", 'o', WEIR_OPTION_TEXT, AT(sheet.path), .value = "PATH", .help = "the file to write" },
    WEIR_VERB_LIMIT_ROWS,
};
static const struct weir_option probe_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode probe [OPTIONS] PATH     what a film, folder or picture holds, as JSON" },
    { "frames", 0, WEIR_OPTION_FLAG, AT(frames), .help = "decode, and add the sha256 of every RGB24 frame" },
    { "raw", 0, WEIR_OPTION_FLAG, AT(raw), .help = "decode, and write the RGB24 frames to standard output" },
    { "receipt", 0, WEIR_OPTION_FLAG, AT(receipt),
      .help = "write the receipt alone, byte for byte; the pixels of pictures are not looked at" },
    WEIR_VERB_LIMIT_ROWS,
};
static const struct weir_option version_rows[] = {
    { .kind = WEIR_OPTION_TITLE, .help = "weir-encode version     libraries and encoder fingerprints, as JSON" },
};

static enum weir_status run_encode(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    (void)words, (void)count;
    struct weir_encode *encode = &values->encode;
    if (values->segment && strcmp(encode->format, "mp4") != 0 && strcmp(encode->format, "webm") != 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--segment: --format %s cannot be joined; mp4 and webm can",
                         encode->format);
    }
    if (values->segment && values->metadata) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--metadata: a --segment carries none; give it to join");
    }
    char *receipt;
    enum weir_status status = weir_verb_receipt(values->metadata, &receipt, error);
    encode->comment = receipt;
    encode->is_scratch = values->scratch;
    if (status == WEIR_OK) status = weir_encode_run(encode, STDIN_FILENO, error);
    free(receipt);
    return status;
}

static enum weir_status run_join(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    char *receipt;
    enum weir_status status = weir_verb_receipt(values->metadata, &receipt, error);
    const struct weir_join join = { .format = values->encode.format,
                                    .comment = receipt,
                                    .path = values->encode.path,
                                    .segments = words,
                                    .segment_count = count,
                                    .is_scratch = values->scratch };
    if (status == WEIR_OK) status = weir_join_run(&join, error);
    free(receipt);
    return status;
}

static enum weir_status run_sheet(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    values->sheet.paths = words;
    values->sheet.count = count;
    if (!values->sheet.side) values->sheet.side = WEIR_SHEET_SIDE_MAX;
    return weir_sheet_run(&values->sheet, error);
}

static enum weir_status run_probe(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    (void)count;
    if (values->raw + values->frames + values->receipt > 1) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--raw, --frames, --receipt: one of them at a time");
    }
    const enum weir_probe_mode mode = values->raw       ? WEIR_PROBE_RAW
                                      : values->frames  ? WEIR_PROBE_FRAMES
                                      : values->receipt ? WEIR_PROBE_RECEIPT
                                                        : WEIR_PROBE_FACTS;
    return weir_probe_run(words[0], mode, error);
}

/* {"png": {"encoder": "libspng 0.7.3, zlib 1.2.13", "fingerprint": "..."}, ...} */
static enum weir_status add_pictures(json_t *pictures, struct weir_error *error)
{
    const struct weir_picture_kind *kind;
    for (size_t i = 0; (kind = weir_picture_kind_at(i)); i++) {
        uint8_t digest[WEIR_SHA256_BYTES];
        char hex[WEIR_SHA256_HEX_BYTES], library[64];
        const enum weir_status status = weir_picture_fingerprint(kind, digest, error);
        if (status != WEIR_OK) return status;
        weir_hex_write(digest, sizeof digest, hex);
        kind->library(library);
        json_object_set_new(pictures, kind->name, json_pack("{s:s, s:s}", "encoder", library, "fingerprint", hex));
    }
    return WEIR_OK;
}

static enum weir_status run_version(struct weir_verb_values *values, char **words, int count, struct weir_error *error)
{
    (void)values, (void)words, (void)count;
    static const char *const codecs[] = { "h264", "av1", "vp9", "gif" };
    json_t *encoders = json_object();
    for (size_t i = 0; i < WEIR_COUNT(codecs); i++) {
        uint8_t digest[WEIR_SHA256_BYTES];
        char hex[WEIR_SHA256_HEX_BYTES];
        const char *encoder = NULL;
        const enum weir_status status = weir_encode_fingerprint(codecs[i], &encoder, digest, error);
        if (status == WEIR_UNSUPPORTED) continue;
        if (status != WEIR_OK) {
            json_decref(encoders);
            return status;
        }
        weir_hex_write(digest, sizeof digest, hex);
        json_object_set_new(encoders, codecs[i], json_pack("{s:s, s:s}", "encoder", encoder, "fingerprint", hex));
    }
    json_t *pictures = json_object();
    const enum weir_status status = add_pictures(pictures, error);
    if (status != WEIR_OK) {
        json_decref(encoders);
        json_decref(pictures);
        return status;
    }
    json_t *object = json_pack("{s:s, s:s, s:s, s:o, s:o}", "weir", WEIR_VERSION, "ffmpeg", av_version_info(),
                               "license", avformat_license(), "encoders", encoders, "pictures", pictures);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    puts(text);
    free(text);
    return WEIR_OK;
}

#define VERB(word, least, most, leaves, ...)                                                                           \
    {                                                                                                                  \
#word, word##_rows, WEIR_COUNT(word##_rows), run_##word, { __VA_ARGS__ }, least, most, leaves                  \
    }
static const struct weir_verb film_verbs[] = {
    VERB(encode, 0, 0, true, "width", "height", "frames", "fps", "format", "output"),
    VERB(join, 1, WEIR_OUTPUT_FRAMES_MAX, true, "format", "output"),
    VERB(sheet, 1, WEIR_SHEET_PICTURES_MAX, true, "output"),
    VERB(probe, 1, 1, false, NULL),
    VERB(version, 0, 0, false, NULL),
};

/* As --help lists them; NULL behind the last. */
static const struct weir_verb *verb_at(size_t number)
{
    if (number == 0) return &film_verbs[0];
    if (number == 1) return &weir_verb_image;
    return number <= WEIR_COUNT(film_verbs) ? &film_verbs[number - 1] : NULL;
}

static void print_help(void)
{
    const struct weir_verb *verb;
    for (size_t i = 0; (verb = verb_at(i)); i++) weir_options_help(verb->rows, verb->row_count);
    puts("\nA film appears under its name whole or not at all. mp4 and webm are yuv420p, BT.709, limited range.\n"
         "Exit codes: 0 done, 64 usage, 70 internal, 71 memory, 74 bad input, 75 input or output failed,\n"
         "130 interrupted.");
}

static enum weir_status run(int argc, char **argv, struct weir_error *error)
{
    const char *name = argc > 1 ? argv[1] : "";
    const struct weir_verb *verb;
    if (weir_verb_help_wanted(argc, argv)) {
        print_help();
        return WEIR_OK;
    }
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        if (strcmp(verb->name, name) == 0) return weir_verb_run(verb, argc - 1, argv + 1, error);
    }
    return weir_fail(error, WEIR_BAD_ARGUMENT,
                     "'%s': one of encode, image, join, sheet, probe, version is wanted; --help lists the options",
                     name);
}

int main(int argc, char **argv)
{
    struct weir_error error = { 0 };
    av_log_set_level(AV_LOG_QUIET); /* what fails is said once, in our own words */
    setenv("SVT_LOG", "0", 1);
    const enum weir_status status = run(argc, argv, &error);
    if (status != WEIR_OK) fprintf(stderr, "weir-encode: %s\n", error.words);
    return weir_status_exit_code(status);
}
