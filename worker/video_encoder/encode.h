// SPDX-License-Identifier: GPL-3.0-or-later
/* encode: raw RGB24 frames from standard input to one film, or a folder of pictures.
 *
 * Every MP4 or WebM film is made so that it can be joined: one encoder thread, no B-frames, closed groups of pictures,
 * a key frame every 64 frames whatever the film's length, headers in the container. So the bytes depend on the frames,
 * size, rate and encoder build only, and joining one H.264 segment gives what encoding it with the receipt gives.
 *
 * Colour   yuv420p, BT.709 matrix, limited range. sRGB has BT.709's primaries, so one tag for primaries, transfer and
 *          matrix is true, and browsers go by the tags. swscale is given the same coefficients; left alone it takes
 *          BT.601's, whatever the tags say, and saturated colours come back shifted.
 */
#ifndef WEIR_VIDEO_ENCODER_ENCODE_H
#define WEIR_VIDEO_ENCODER_ENCODE_H

#include "proto/status.h"

#include <stdbool.h>
#include <stdint.h>

struct weir_encode {
    int64_t width, height, frames, fps;
    const char *format;  /* mp4, webm, gif, png (a folder) */
    const char *codec;   /* h264, av1, vp9; NULL: the format's first that is installed */
    const char *comment; /* the receipt; may be NULL */
    const char *path;
    bool is_scratch; /* it need not outlive a power cut: nothing is fsynced */
};

/* Errors   BAD_ARGUMENT (sizes a format cannot have), UNSUPPORTED (no such encoder installed), BAD_FILE (fewer or more
 *          bytes came than the frames have), TOO_LARGE (the receipt), IO, NO_MEMORY, INTERRUPTED,
 *          EXPIRED, INTERNAL; nothing is left behind */
enum weir_status weir_encode_run(const struct weir_encode *encode, int in_fd, struct weir_error *error);

/* Encodes eight fixed frames in memory with the codec's encoder. `out` gets the digest of the packets: what a receipt
 * calls the encoder build, since it changes whenever the encoder's bytes do.
 * Errors   UNSUPPORTED, NO_MEMORY, INTERNAL */
enum weir_status weir_encode_fingerprint(const char *codec, const char **encoder, uint8_t out[32],
                                         struct weir_error *error);

#endif
