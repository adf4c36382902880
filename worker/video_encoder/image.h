// SPDX-License-Identifier: GPL-3.0-or-later
/* image: one raw RGB24 frame from standard input to one picture (picture.h). Needs no FFmpeg.
 *
 * What was written is read back and compared with what was encoded, and that, decoded, with what came in: size, receipt
 * and, where the format is exact, every pixel.
 *
 * Threads  one at a time
 */
#ifndef WEIR_VIDEO_ENCODER_IMAGE_H
#define WEIR_VIDEO_ENCODER_IMAGE_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_image {
    int64_t width, height;
    const char *format;  /* png, jpeg, webp */
    const char *comment; /* the receipt; may be NULL */
    const char *path;
    bool is_scratch; /* it need not outlive a power cut: nothing is fsynced */
};

/* Errors   BAD_ARGUMENT, BAD_FILE (fewer or more bytes came than the frame has), TOO_LARGE (the receipt), IO, NO_MEMORY,
 *          INTERRUPTED, EXPIRED, INTERNAL; nothing is left behind */
enum weir_status weir_image_run(const struct weir_image *image, int in_fd, struct weir_error *error);

#endif
