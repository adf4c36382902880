// SPDX-License-Identifier: GPL-3.0-or-later
/* frames: raw RGB24 frames from a descriptor, one after the other, to whoever takes them.
 *
 * Threads  one
 */
#ifndef WEIR_VIDEO_ENCODER_FRAMES_H
#define WEIR_VIDEO_ENCODER_FRAMES_H

#include "proto/status.h"

struct weir_frames {
    int64_t width, height, count; /* of pixels, of frames: each at least 1 */
};

/* rgb: [height, width, 3], the taker's until it returns. */
typedef enum weir_status weir_frame_taker(void *taker, int64_t index, uint8_t *rgb, struct weir_error *error);

/* Errors   BAD_FILE (fewer or more bytes came than the frames have), BAD_ARGUMENT (a terminal), NO_MEMORY, IO, INTERRUPTED,
 *          EXPIRED, and the taker's */
enum weir_status weir_frames_read(const struct weir_frames *frames, int in_fd, weir_frame_taker *take, void *taker,
                                  struct weir_error *error);

#endif
