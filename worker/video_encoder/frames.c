// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/frames.h"

#include "worker/video_encoder/guard.h"

#include <stdlib.h>
#include <unistd.h>

static size_t frame_bytes(const struct weir_frames *frames)
{
    return (size_t)frames->width * (size_t)frames->height * 3;
}

static enum weir_status wrong_count(const struct weir_frames *frames, const char *at_least, uint64_t bytes,
                                    struct weir_error *error)
{
    return weir_fail(error, WEIR_BAD_FILE, "standard input: %s%llu bytes, but %lld frames of %lldx%lld have %llu",
                     at_least, (unsigned long long)bytes, (long long)frames->count, (long long)frames->width,
                     (long long)frames->height,
                     (unsigned long long)frame_bytes(frames) * (unsigned long long)frames->count);
}

enum weir_status weir_frames_room(const struct weir_frames *frames, uint8_t **out, struct weir_error *error)
{
    const size_t bytes = frame_bytes(frames), page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    *out = NULL;
    if (isatty(frames->fd))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "standard input: a terminal, raw frames are wanted");
    uint8_t *rgb = malloc(bytes);
    if (!rgb) return weir_fail(error, WEIR_NO_MEMORY, "out of memory for a frame of %zu bytes", bytes);
    for (size_t at = 0; at < bytes; at += page_bytes) rgb[at] = 0; /* while the first frame is still made */
    *out = rgb;
    return WEIR_OK;
}

enum weir_status weir_frames_take(struct weir_frames *frames, uint8_t *out, size_t count, struct weir_error *error)
{
    size_t got = 0;
    const enum weir_status status = weir_guard_read(frames->fd, out, count, &got, error);
    frames->got += got;
    if (status != WEIR_OK || got == count) return status;
    return wrong_count(frames, "", frames->got, error);
}

enum weir_status weir_frames_end(struct weir_frames *frames, struct weir_error *error)
{
    uint8_t one_more;
    size_t got = 0;
    const enum weir_status status = weir_guard_read(frames->fd, &one_more, 1, &got, error);
    if (status != WEIR_OK || got == 0) return status;
    return wrong_count(frames, "at least ", frames->got + 1, error);
}

enum weir_status weir_frames_read(struct weir_frames *frames, weir_frame_taker *take, void *taker,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint8_t *rgb;
    WEIR_TRY(weir_frames_room(frames, &rgb, error));
    for (int64_t i = 0; i < frames->count; i++) {
        WEIR_TRY(weir_frames_take(frames, rgb, frame_bytes(frames), error));
        WEIR_TRY(take(taker, i, rgb, error));
    }
    WEIR_TRY(weir_frames_end(frames, error));
cleanup:
    free(rgb);
    return status;
}
