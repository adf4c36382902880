// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/frames.h"

#include "worker/video_encoder/guard.h"

#include <stdlib.h>
#include <unistd.h>

static enum weir_status take_frames(const struct weir_frames *frames, int in_fd, uint8_t *rgb, weir_frame_taker *take,
                                    void *taker, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t frame_bytes = (size_t)frames->width * (size_t)frames->height * 3;
    const unsigned long long all = (unsigned long long)frame_bytes * (unsigned long long)frames->count;
    uint8_t one_more;
    size_t got;
    for (int64_t i = 0; i < frames->count; i++) {
        WEIR_TRY(weir_guard_read(in_fd, rgb, frame_bytes, &got, error));
        if (got != frame_bytes) {
            return weir_fail(error, WEIR_BAD_FILE, "standard input: %llu bytes, but %lld frames of %lldx%lld have %llu",
                             (unsigned long long)frame_bytes * (unsigned long long)i + got, (long long)frames->count,
                             (long long)frames->width, (long long)frames->height, all);
        }
        WEIR_TRY(take(taker, i, rgb, error));
    }
    WEIR_TRY(weir_guard_read(in_fd, &one_more, 1, &got, error));
    if (got) {
        return weir_fail(error, WEIR_BAD_FILE,
                         "standard input: at least %llu bytes, but %lld frames of %lldx%lld have %llu", all + 1,
                         (long long)frames->count, (long long)frames->width, (long long)frames->height, all);
    }
cleanup:
    return status;
}

enum weir_status weir_frames_read(const struct weir_frames *frames, int in_fd, weir_frame_taker *take, void *taker,
                                  struct weir_error *error)
{
    const size_t frame_bytes = (size_t)frames->width * (size_t)frames->height * 3;
    if (isatty(in_fd)) return weir_fail(error, WEIR_BAD_ARGUMENT, "standard input: a terminal, raw frames are wanted");
    uint8_t *rgb = malloc(frame_bytes);
    if (!rgb) return weir_fail(error, WEIR_NO_MEMORY, "out of memory for a frame of %zu bytes", frame_bytes);
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < frame_bytes; at += page_bytes) rgb[at] = 0; /* while the first frame is still made */
    const enum weir_status status = take_frames(frames, in_fd, rgb, take, taker, error);
    free(rgb);
    return status;
}
