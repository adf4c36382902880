// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/image.h"

#include "proto/base/bytes.h"
#include "worker/video_encoder/frames.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/picture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BACK_BYTES = 64 << 10 };

struct writing {
    const struct weir_image *image;
    const struct weir_picture_kind *kind;
    struct weir_output output;
};

/* The file holds these bytes by now. */
static enum weir_status verify_bytes(const struct writing *writing, const uint8_t *bytes, size_t count,
                                     struct weir_error *error)
{
    uint8_t part[READ_BACK_BYTES];
    struct stat facts;
    bool same = fstat(writing->output.fd, &facts) == 0 && (uint64_t)facts.st_size == count;
    for (size_t at = 0; same && at < count;) {
        const ssize_t got = pread(writing->output.fd, part, sizeof part, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        same = got > 0 && (size_t)got <= count - at && memcmp(part, bytes + at, (size_t)got) == 0;
        if (same) at += (size_t)got;
    }
    return same ? WEIR_OK : weir_fail(error, WEIR_IO, "%s: read back as other bytes", writing->image->path);
}

/* What they hold is what went in: its size, its receipt and, where the format is exact, every pixel. */
static enum weir_status verify_image(const struct writing *writing, const struct weir_picture *wanted,
                                     const uint8_t *bytes, size_t count, struct weir_error *error)
{
    const struct weir_picture_kind *kind;
    struct weir_picture found;
    enum weir_status status = weir_picture_decode(bytes, count, writing->kind->is_exact, &kind, &found, error);
    if (status != WEIR_OK) return status;
    const bool same_size = found.width == wanted->width && found.height == wanted->height;
    const size_t pixel_bytes = (size_t)found.width * found.height * 3;
    const char *comment = found.comment ? found.comment : "";
    if (kind != writing->kind || !same_size || strcmp(comment, wanted->comment ? wanted->comment : "") != 0 ||
        (kind->is_exact && memcmp(found.rgb, wanted->rgb, pixel_bytes) != 0)) {
        status = weir_fail(error, WEIR_INTERNAL, "%s: encoded to something else", writing->image->path);
    }
    weir_picture_deinit(&found);
    return status;
}

static enum weir_status read_rows(void *context, uint8_t *rgb, size_t count, struct weir_error *error)
{
    return weir_frames_take(context, rgb, count, error);
}

/* Encodes the frame as it comes, writes it and looks at what was written. */
static enum weir_status write_image(struct writing *writing, struct weir_frames *frame, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_image *image = writing->image;
    const struct weir_picture_source source = { read_rows, frame };
    struct weir_picture picture = { .width = (uint32_t)image->width,
                                    .height = (uint32_t)image->height,
                                    .comment = (char *)(uintptr_t)image->comment };
    uint8_t *bytes = NULL;
    size_t count;
    WEIR_TRY(weir_frames_room(frame, &picture.rgb, error));
    WEIR_TRY(weir_picture_encode_from(writing->kind, &picture, &source, &bytes, &count, error));
    WEIR_TRY(weir_frames_end(frame, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_fd_write(writing->output.fd, bytes, count, image->path, error));
    WEIR_TRY(verify_bytes(writing, bytes, count, error));
    WEIR_TRY(verify_image(writing, &picture, bytes, count, error));

cleanup:
    free(bytes);
    free(picture.rgb);
    return status;
}

enum weir_status weir_image_run(const struct weir_image *image, int in_fd, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct writing writing = { .image = image, .kind = weir_picture_kind_find(image->format) };
    struct weir_frames frame = { .width = image->width, .height = image->height, .count = 1, .fd = in_fd };
    if (!writing.kind) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s: png, jpeg and webp are images", image->format);
    }
    WEIR_TRY(weir_output_open(&writing.output, image->path, false, error));
    WEIR_TRY(write_image(&writing, &frame, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_output_commit(&writing.output, image->is_scratch, error));

cleanup:
    weir_output_close(&writing.output);
    return status;
}
