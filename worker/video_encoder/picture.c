// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/picture.h"

#include "proto/base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FINGERPRINT_SIDE = 64, HEAD_BYTES = 16 };

static const struct weir_picture_kind *const kinds[] = { &weir_picture_png, &weir_picture_jpeg, &weir_picture_webp };

void weir_picture_deinit(struct weir_picture *picture)
{
    free(picture->rgb);
    free(picture->comment);
    *picture = (struct weir_picture){ 0 };
}

const struct weir_picture_kind *weir_picture_kind_at(size_t number)
{
    return number < WEIR_COUNT(kinds) ? kinds[number] : NULL;
}

const struct weir_picture_kind *weir_picture_kind_find(const char *name)
{
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    }
    return NULL;
}

const struct weir_picture_kind *weir_picture_kind_of(const uint8_t *head, size_t count)
{
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (count >= HEAD_BYTES && memcmp(head, kinds[i]->magic, kinds[i]->magic_bytes) == 0) return kinds[i];
    }
    return NULL;
}

static enum weir_status check_comment(const struct weir_picture_kind *kind, const struct weir_picture *picture,
                                      struct weir_error *error)
{
    const size_t comment_bytes = picture->comment ? strlen(picture->comment) : 0;
    if (comment_bytes <= kind->comment_bytes_max) return WEIR_OK;
    return weir_fail(error, WEIR_TOO_LARGE, "the receipt has %zu bytes; a %s holds at most %zu", comment_bytes,
                     kind->name, kind->comment_bytes_max);
}

enum weir_status weir_picture_encode(const struct weir_picture_kind *kind, const struct weir_picture *picture,
                                     uint8_t **out, size_t *bytes, struct weir_error *error)
{
    *out = NULL;
    *bytes = 0;
    const enum weir_status status = check_comment(kind, picture, error);
    return status == WEIR_OK ? kind->encode(picture, out, bytes, error) : status;
}

enum weir_status weir_picture_encode_from(const struct weir_picture_kind *kind, const struct weir_picture *picture,
                                          const struct weir_picture_source *source, uint8_t **out, size_t *bytes,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *out = NULL;
    *bytes = 0;
    WEIR_TRY(check_comment(kind, picture, error));
    if (kind->encode_from) return kind->encode_from(picture, source, out, bytes, error);
    WEIR_TRY(source->read(source->context, picture->rgb, (size_t)picture->width * picture->height * 3, error));
    WEIR_TRY(kind->encode(picture, out, bytes, error));
cleanup:
    return status;
}

enum weir_status weir_picture_decode(const uint8_t *bytes, size_t count, bool with_pixels,
                                     const struct weir_picture_kind **kind, struct weir_picture *out,
                                     struct weir_error *error)
{
    *out = (struct weir_picture){ 0 };
    *kind = weir_picture_kind_of(bytes, count);
    if (!*kind) return weir_fail(error, WEIR_BAD_FILE, "neither PNG, JPEG nor WebP");
    const enum weir_status status = (*kind)->decode(bytes, count, with_pixels, out, error);
    if (status != WEIR_OK) weir_picture_deinit(out);
    return status;
}

static enum weir_status read_whole(int fd, uint8_t *bytes, size_t count, struct weir_error *error)
{
    for (size_t at = 0; at < count;) {
        const ssize_t got = pread(fd, bytes + at, count - at, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return weir_fail(error, WEIR_IO, "%s", strerror(errno));
        if (got == 0) return weir_fail(error, WEIR_IO, "it became shorter while it was read");
        at += (size_t)got;
    }
    return WEIR_OK;
}

enum weir_status weir_picture_read(int fd, const char *path, bool with_pixels, const struct weir_picture_kind **kind,
                                   struct weir_picture *out, size_t *file_bytes, struct weir_error *error)
{
    struct weir_error own = { 0 };
    struct stat facts;
    *out = (struct weir_picture){ 0 };
    if (fstat(fd, &facts) != 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    if (facts.st_size < 0 || (uint64_t)facts.st_size > WEIR_PICTURE_FILE_BYTES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: a picture of %lld bytes, at most %zu are read", path,
                         (long long)facts.st_size, WEIR_PICTURE_FILE_BYTES_MAX);
    }
    const size_t count = (size_t)facts.st_size;
    uint8_t *bytes = malloc(count + 1);
    if (!bytes) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for %zu bytes", path, count);
    enum weir_status status = read_whole(fd, bytes, count, &own);
    if (status == WEIR_OK) status = weir_picture_decode(bytes, count, with_pixels, kind, out, &own);
    free(bytes);
    *file_bytes = count;
    return status == WEIR_OK ? WEIR_OK : weir_fail(error, status, "%s: %s", path, own.words);
}

enum weir_status weir_picture_fingerprint(const struct weir_picture_kind *kind, uint8_t out[32],
                                          struct weir_error *error)
{
    uint8_t rgb[FINGERPRINT_SIDE * FINGERPRINT_SIDE * 3], *bytes;
    char comment[] = "{}";
    const struct weir_picture picture = { FINGERPRINT_SIDE, FINGERPRINT_SIDE, rgb, comment };
    size_t count;
    uint32_t noise = 1;
    for (size_t i = 0; i < sizeof rgb; i++) { /* a slope, half of it with noise: something for every tool */
        noise = noise * 1664525 + 1013904223;
        rgb[i] = (uint8_t)(i / 3 % FINGERPRINT_SIDE * 3 + i % 3 * 16 + (i > sizeof rgb / 2 ? noise >> 28 : 0));
    }
    const enum weir_status status = weir_picture_encode(kind, &picture, &bytes, &count, error);
    if (status != WEIR_OK) return status;
    weir_sha256_of(bytes, count, out);
    free(bytes);
    return WEIR_OK;
}
