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
 * Two programs: this one makes images, and becomes weir-encode-film, which links FFmpeg, for all else.
 *
 * It is apart because Debian's FFmpeg is GPL and must not share a process with CUDA libraries, because an encoder's
 * fault must not take a worker down, and because limits (--cpu-seconds, --memory-mib, --file-mib) belong to a process.
 *
 * Input    exactly N frames of W*H*3 bytes, row-major, top row first; fewer or more is an error naming both counts
 * Output   PATH appears whole or not at all: unnamed or temporary first, then read back, fsync, rename, fsync of its
 *          folder (with --scratch, for a worker that puts it in the store, without fsync); whatever fails or interrupts,
 *          nothing is left. Success says nothing (probe and version print JSON)
 * Receipt  FILE is a JSON object of at most 64 KiB, carried byte for byte: MP4 and WebM `comment` tag, GIF comment
 *          extension, PNG iTXt chunk "weir" in every frame, JPEG COM segment (at most 65,533 bytes), WebP EXIF
 *          ImageDescription. Segments carry none: the film's is given to join
 * Errors   one line on standard error. Exit codes: 0; 64 usage; 70 internal; 71 memory; 74 input damaged, of another
 *          size or over --cpu-seconds; 75 reading or writing failed; 130 interrupted
 * Bytes    depend on frames, options, receipt and the encoder build, which `version` prints as a fingerprint
 */
#include "worker/video_encoder/verbs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* All else is done by the program of that name beside this one; returns only when it cannot be had. */
static enum weir_status become_film(char **argv, struct weir_error *error)
{
    static const char name[] = "weir-encode-film";
    char path[PATH_MAX + sizeof name];
    const ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length < 0) return weir_fail(error, WEIR_INTERNAL, "/proc/self/exe: %s", strerror(errno));
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, name);
    execv(path, argv);
    return weir_fail(error, WEIR_INTERNAL, "%s: %s; it belongs beside weir-encode", path, strerror(errno));
}

int main(int argc, char **argv)
{
    struct weir_error error = { 0 };
    const bool is_image = argc > 1 && strcmp(argv[1], weir_verb_image.name) == 0 && !weir_verb_help_wanted(argc, argv);
    const enum weir_status status =
        is_image ? weir_verb_run(&weir_verb_image, argc - 1, argv + 1, &error) : become_film(argv, &error);
    if (status != WEIR_OK) fprintf(stderr, "weir-encode: %s\n", error.words);
    return weir_status_exit_code(status);
}
