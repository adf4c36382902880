// SPDX-License-Identifier: GPL-3.0-or-later
/* probe: what a film or picture holds: facts, frames, the receipt. For the files and folders that this program writes,
 * no others.
 *
 * Frames come out as RGB24, top row first, converted with the matrix and range the film is tagged with.
 */
#ifndef WEIR_VIDEO_ENCODER_PROBE_H
#define WEIR_VIDEO_ENCODER_PROBE_H

#include "proto/status.h"

#include <stdbool.h>
#include <stdint.h>

enum weir_probe_mode {
    WEIR_PROBE_FACTS,  /* one JSON object to standard output, from the index and the packets */
    WEIR_PROBE_FRAMES, /* and frame_sha256: one digest a decoded frame */
    WEIR_PROBE_RAW,    /* the decoded frames to standard output, nothing else */
    WEIR_PROBE_RECEIPT, /* the receipt to standard output, byte for byte; pixels of pictures are not read */
};

/* A single picture is decoded as a whole in every mode but the last.
 * Errors   NOT_FOUND, BAD_FILE (another kind, damaged, cut short, no receipt), TOO_LARGE (a picture of over 256 MiB), IO,
 *          NO_MEMORY */
enum weir_status weir_probe_run(const char *path, enum weir_probe_mode mode, struct weir_error *error);

/* Reads back what was just written: `fd` must hold exactly `frames` frames of this size.
 * Errors   INTERNAL when it does not; those above */
enum weir_status weir_probe_verify(int fd, bool is_folder, const char *path, int64_t width, int64_t height,
                                   int64_t frames, struct weir_error *error);

#endif
