// SPDX-License-Identifier: GPL-3.0-or-later
/* weir-encode: frames to films and pictures, in a process of its own.
 *
 *   weir-encode encode --width W --height H --frames N --fps F --format mp4|webm|gif|png
 *                      [--codec h264|av1|vp9] [--segment] [--metadata FILE] [--scratch] -o PATH  < raw RGB24 frames
 *   weir-encode image --width W --height H --format png|jpeg|webp [--metadata FILE] [--scratch] -o PATH  < one raw frame
 *   weir-encode join --format mp4|webm [--metadata FILE] [--scratch] -o PATH SEGMENT...
 *   weir-encode sheet [--side S] -o PATH PICTURE...
 *   weir-encode probe [--frames | --raw | --receipt] PATH
 *   weir-encode version
 *
 * It is apart because Debian's FFmpeg is GPL and must not share a process with CUDA libraries, because an encoder's
 * fault must not take a worker down, and because limits (--cpu-seconds, --memory-mib, --file-mib) belong to a process.
 *
 * Input    exactly N frames of W*H*3 bytes, row-major, top row first; fewer or more is an error naming both counts
 * Output   PATH appears whole or not at all: unnamed or temporary first, then read back, fsync, rename, fsync of its
 *          folder (with --scratch, for a worker that puts it in the store, without fsync); whatever fails or interrupts, nothing is left. Success says nothing (probe and version print JSON)
 * Receipt  FILE is a JSON object of at most 64 KiB, carried byte for byte: MP4 and WebM `comment` tag, GIF comment
 *          extension, PNG iTXt chunk "weir" in every frame, JPEG COM segment (at most 65,533 bytes), WebP EXIF
 *          ImageDescription. Segments carry none: the film's is given to join
 * Errors   one line on standard error. Exit codes: 0; 64 usage; 70 internal; 71 memory; 74 input damaged, of another
 *          size or over --cpu-seconds; 75 reading or writing failed; 130 interrupted
 * Bytes    depend on frames, options, receipt and the encoder build, which `version` prints as a fingerprint
 */
#include "proto/base/bytes.h"
#include "proto/base/options.h"
#include "worker/video_encoder/encode.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/join.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/picture.h"
#include "worker/video_encoder/probe.h"
#include "worker/video_encoder/sheet.h"

#include <jansson.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECEIPT_BYTES_MAX = 64 * 1024, SIDE_MAX = 8192, FPS_MAX = 240 };

struct values {
    struct weir_encode encode;
    struct weir_sheet sheet;
    struct weir_guard_limits limits;
    const char *metadata;
    bool segment, frames, raw, receipt, scratch;
};

#define AT(field) offsetof(struct values, field)
#define FILM_ROWS                                                                                                      \
    { "metadata", 0, WEIR_OPTION_TEXT, AT(metadata), .value = "FILE",                                                  \
      .help = "the receipt: a JSON object of at most 65536 bytes. mp4, webm: the comment tag; gif: a comment "         \
              "extension; png: an iTXt chunk \"weir\" in every frame" },                                               \
    { "output", 'o', WEIR_OPTION_TEXT, AT(encode.path), .value = "PATH",                                               \
      .help = "the file to write; for png a folder that is not there or empty" }
#define SCRATCH_ROW                                                                                                    \
    { "scratch", 0, WEIR_OPTION_FLAG, AT(scratch),                                                                     \
      .help = "PATH need not outlive a power cut: nothing is fsynced" }
#define LIMIT_ROWS                                                                                                     \
    { "cpu-seconds", 0, WEIR_OPTION_INT, AT(limits.cpu_seconds), 1, 1000000, "N", "give up after so much CPU time" },  \
    { "memory-mib", 0, WEIR_OPTION_INT, AT(limits.memory_mib), 1, 1 << 20, "N", "address space, MiB" },                \
    { "file-mib", 0, WEIR_OPTION_INT, AT(limits.file_mib), 1, 1 << 20, "N", "size of a written file, MiB" }

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
    { "segment", 0, WEIR_OPTION_FLAG, AT(segment),
      .help = "to be joined later: mp4 or webm, and no receipt" },
    FILM_ROWS,
    SCRATCH_ROW,
    LIMIT_ROWS,
};
static const struct weir_option image_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode image OPTIONS < FRAME     one raw RGB24 frame to one picture" },
    { "width", 0, WEIR_OPTION_INT, AT(encode.width), 1, SIDE_MAX, "W", "pixels, 1 to 8192" },
    { "height", 0, WEIR_OPTION_INT, AT(encode.height), 1, SIDE_MAX, "H", "pixels, 1 to 8192" },
    { "format", 0, WEIR_OPTION_CHOICE, AT(encode.format), .value = "png|jpeg|webp",
      .help = "png and webp are exact; jpeg has quality 95 and full colour" },
    { "metadata", 0, WEIR_OPTION_TEXT, AT(metadata), .value = "FILE",
      .help = "the receipt: a JSON object of at most 65536 bytes, 65533 for jpeg. png: an iTXt chunk \"weir\"; jpeg: a "
              "COM segment; webp: EXIF's ImageDescription" },
    { "output", 'o', WEIR_OPTION_TEXT, AT(encode.path), .value = "PATH", .help = "the file to write" },
    SCRATCH_ROW,
    LIMIT_ROWS,
};
static const struct weir_option join_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode join OPTIONS SEGMENT...     segments to one film, copied, not encoded again" },
    { "format", 0, WEIR_OPTION_CHOICE, AT(encode.format), .value = "mp4|webm", .help = "also that of the segments" },
    FILM_ROWS,
    SCRATCH_ROW,
    LIMIT_ROWS,
};
static const struct weir_option sheet_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode sheet OPTIONS PICTURE...     up to 1000 pictures, small beside each other, as one PNG" },
    { "side", 0, WEIR_OPTION_INT, AT(sheet.side), 16, WEIR_SHEET_SIDE_MAX, "S",
      "pixels that the longer side of a picture gets at most, 16 to 160 (default: 160)" },
    { "output", 'o', WEIR_OPTION_TEXT, AT(sheet.path), .value = "PATH", .help = "the file to write" },
    LIMIT_ROWS,
};
static const struct weir_option probe_rows[] = {
    { .kind = WEIR_OPTION_TITLE,
      .help = "weir-encode probe [OPTIONS] PATH     what a film, folder or picture holds, as JSON" },
    { "frames", 0, WEIR_OPTION_FLAG, AT(frames), .help = "decode, and add the sha256 of every RGB24 frame" },
    { "raw", 0, WEIR_OPTION_FLAG, AT(raw), .help = "decode, and write the RGB24 frames to standard output" },
    { "receipt", 0, WEIR_OPTION_FLAG, AT(receipt),
      .help = "write the receipt alone, byte for byte; the pixels of pictures are not looked at" },
    LIMIT_ROWS,
};
static const struct weir_option version_rows[] = {
    { .kind = WEIR_OPTION_TITLE, .help = "weir-encode version     libraries and encoder fingerprints, as JSON" },
};

static enum weir_status run_encode(struct values *values, char **words, int count, struct weir_error *error);
static enum weir_status run_image(struct values *values, char **words, int count, struct weir_error *error);
static enum weir_status run_join(struct values *values, char **words, int count, struct weir_error *error);
static enum weir_status run_probe(struct values *values, char **words, int count, struct weir_error *error);
static enum weir_status run_sheet(struct values *values, char **words, int count, struct weir_error *error);
static enum weir_status run_version(struct values *values, char **words, int count, struct weir_error *error);

static const struct verb {
    const char *name;
    const struct weir_option *rows;
    size_t row_count;
    enum weir_status (*run)(struct values *values, char **words, int count, struct weir_error *error);
    const char *required[7];
    int words_min, words_max;
} verbs[] = {
    { "encode", encode_rows, WEIR_COUNT(encode_rows), run_encode,
      { "width", "height", "frames", "fps", "format", "output" }, 0, 0 },
    { "image", image_rows, WEIR_COUNT(image_rows), run_image, { "width", "height", "format", "output" }, 0, 0 },
    { "join", join_rows, WEIR_COUNT(join_rows), run_join, { "format", "output" }, 1, WEIR_OUTPUT_FRAMES_MAX },
    { "sheet", sheet_rows, WEIR_COUNT(sheet_rows), run_sheet, { "output" }, 1, WEIR_SHEET_PICTURES_MAX },
    { "probe", probe_rows, WEIR_COUNT(probe_rows), run_probe, { NULL }, 1, 1 },
    { "version", version_rows, WEIR_COUNT(version_rows), run_version, { NULL }, 0, 0 },
};

static void print_help(void)
{
    for (size_t i = 0; i < WEIR_COUNT(verbs); i++) weir_options_help(verbs[i].rows, verbs[i].row_count);
    puts("\nA film appears under its name whole or not at all. mp4 and webm are yuv420p, BT.709, limited range.\n"
         "Exit codes: 0 done, 64 usage, 70 internal, 71 memory, 74 bad input, 75 input or output failed,\n"
         "130 interrupted.");
}

static enum weir_status read_receipt(const char *path, char **out, struct weir_error *error)
{
    size_t bytes = 0;
    json_error_t fault;
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

static enum weir_status run_encode(struct values *values, char **words, int count, struct weir_error *error)
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
    char *receipt = NULL;
    enum weir_status status = values->metadata ? read_receipt(values->metadata, &receipt, error) : WEIR_OK;
    encode->comment = receipt;
    encode->is_scratch = values->scratch;
    if (status == WEIR_OK) status = weir_encode_run(encode, STDIN_FILENO, error);
    free(receipt);
    return status;
}

static enum weir_status run_image(struct values *values, char **words, int count, struct weir_error *error)
{
    values->encode.is_image = true;
    values->encode.frames = values->encode.fps = 1;
    return run_encode(values, words, count, error);
}

static enum weir_status run_join(struct values *values, char **words, int count, struct weir_error *error)
{
    char *receipt = NULL;
    enum weir_status status = values->metadata ? read_receipt(values->metadata, &receipt, error) : WEIR_OK;
    const struct weir_join join = { .format = values->encode.format, .comment = receipt, .path = values->encode.path,
                                    .segments = words, .segment_count = count, .is_scratch = values->scratch };
    if (status == WEIR_OK) status = weir_join_run(&join, error);
    free(receipt);
    return status;
}

static enum weir_status run_sheet(struct values *values, char **words, int count, struct weir_error *error)
{
    values->sheet.paths = words;
    values->sheet.count = count;
    if (!values->sheet.side) values->sheet.side = WEIR_SHEET_SIDE_MAX;
    return weir_sheet_run(&values->sheet, error);
}

static enum weir_status run_probe(struct values *values, char **words, int count, struct weir_error *error)
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

static enum weir_status run_version(struct values *values, char **words, int count, struct weir_error *error)
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

static enum weir_status check_line(const struct verb *verb, uint64_t given, int words, struct weir_error *error)
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

static enum weir_status run(int argc, char **argv, struct weir_error *error)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return WEIR_OK;
        }
    }
    const char *name = argc > 1 ? argv[1] : "";
    const struct verb *verb = NULL;
    for (size_t i = 0; i < WEIR_COUNT(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0) verb = &verbs[i];
    }
    if (!verb) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "'%s': one of encode, image, join, sheet, probe, version is wanted; --help "
                         "lists the options", name);
    }
    struct values values = { 0 };
    uint64_t given = 0;
    int first = 0;
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_options_parse(verb->rows, verb->row_count, argc - 1, argv + 1, &values, &given, &first, error));
    WEIR_TRY(check_line(verb, given, argc - 1 - first, error));
    const bool leaves_files = verb->run == run_encode || verb->run == run_image || verb->run == run_join || verb->run == run_sheet;
    WEIR_TRY(weir_guard_start(&values.limits, leaves_files, error));
    WEIR_TRY(verb->run(&values, argv + 1 + first, argc - 1 - first, error));

cleanup:
    return status;
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
