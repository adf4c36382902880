// SPDX-License-Identifier: GPL-3.0-or-later
/* frames: raw RGB24 frames from a descriptor, one after the other, or in parts as they are asked for.
 *
 * Threads  one
 */
#ifndef WEIR_VIDEO_ENCODER_FRAMES_H
#define WEIR_VIDEO_ENCODER_FRAMES_H

#include "proto/status.h"

struct weir_frames {
    int64_t width, height, count; /* of pixels, of frames: each at least 1 */
    int fd;
    uint64_t got; /* bytes; 0 to begin with */
};

/* rgb: [height, width, 3], the taker's until it returns. */
typedef enum weir_status weir_frame_taker(void *taker, int64_t index, uint8_t *rgb, struct weir_error *error);

/* All of them.
 * Errors   BAD_FILE (fewer or more bytes came than the frames have), BAD_ARGUMENT (a terminal), NO_MEMORY, IO, INTERRUPTED,
 *          EXPIRED, and the taker's */
enum weir_status weir_frames_read(struct weir_frames *frames, weir_frame_taker *take, void *taker,
                                  struct weir_error *error);

/* The same by hand: room for one frame whose pages are there, free(*out); the next so many bytes; that there are no more
 * than the frames have. */
enum weir_status weir_frames_room(const struct weir_frames *frames, uint8_t **out, struct weir_error *error);
enum weir_status weir_frames_take(struct weir_frames *frames, uint8_t *out, size_t count, struct weir_error *error);
enum weir_status weir_frames_end(struct weir_frames *frames, struct weir_error *error);

#endif
