// SPDX-License-Identifier: GPL-3.0-or-later
/* picture: one picture as a file: PNG, JPEG or WebP in memory, with the receipt inside.
 *
 *   png    libspng, 8-bit RGB, every filter tried, zlib level 6; the receipt is an iTXt chunk "weir". Exact
 *   jpeg   libjpeg-turbo, baseline, quality 95, 4:4:4, integer DCT, the standard Huffman tables; over 32 rows a restart
 *          marker every 32, between which several threads compress. The receipt is a COM segment: JPEG's own place for
 *          text, which the library writes and reads; EXIF and XMP would want a structure around it that we had to parse
 *   webp   libwebp, lossless, method 4, effort 75: who wants loss has JPEG, and an exact one is smaller than the PNG.
 *          The receipt is the ImageDescription, the only field, of an EXIF chunk: WebP has no place for plain text, and
 *          this one is 26 fixed bytes and the text; XMP would have to be escaped into XML
 *
 * Encoders run with these settings and no others, and what threads do is joined in order, so that bytes depend on pixels,
 * receipt and libraries.
 * Reading is for what this program writes; anything else is refused or read as far as the libraries do, inside the
 * limits below. A picture that is read is decoded as a whole, so damage is seen.
 *
 * Memory   what a call gives out is the caller's: free(), weir_picture_deinit()
 * Threads  any
 */
#ifndef WEIR_VIDEO_ENCODER_PICTURE_H
#define WEIR_VIDEO_ENCODER_PICTURE_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_PICTURE_SIDE_MAX 8192
#define WEIR_PICTURE_FILE_BYTES_MAX ((size_t)256 << 20) /* the largest RGB there can be has 192 MiB */

struct weir_picture {
    uint32_t width, height;
    uint8_t *rgb;  /* 3 bytes a pixel, top row first; NULL when only the receipt was read */
    char *comment; /* the receipt, or NULL */
};
void weir_picture_deinit(struct weir_picture *picture);

/* Rows that are still on their way: puts the next `count` bytes at rgb. Called in the encoder's thread, top row first. */
struct weir_picture_source {
    enum weir_status (*read)(void *context, uint8_t *rgb, size_t count, struct weir_error *error);
    void *context;
};

struct weir_picture_kind {       /* one row a format */
    const char *name;            /* "png" */
    const char *pixels, *matrix; /* what is stored, as probe says it */
    const char *magic;
    size_t magic_bytes;
    size_t comment_bytes_max;
    bool is_exact; /* gives back the pixels that went in */
    void (*library)(char out[64]);
    /* Errors   NO_MEMORY, INTERRUPTED, EXPIRED, INTERNAL */
    enum weir_status (*encode)(const struct weir_picture *picture, uint8_t **out, size_t *bytes,
                               struct weir_error *error);
    /* While the rows come. NULL: it needs all of them to begin with. source NULL: they are there.
     * Errors   those of encode and of the source */
    enum weir_status (*encode_from)(const struct weir_picture *picture, const struct weir_picture_source *source,
                                    uint8_t **out, size_t *bytes, struct weir_error *error);
    /* Errors   BAD_FILE, TOO_LARGE, NO_MEMORY; the words do not name the file. `out` is blank before */
    enum weir_status (*decode)(const uint8_t *bytes, size_t count, bool with_pixels, struct weir_picture *out,
                               struct weir_error *error);
};
extern const struct weir_picture_kind weir_picture_png, weir_picture_jpeg, weir_picture_webp;

/* By name, by the first bytes of a file, by number from 0 on; NULL: none. */
const struct weir_picture_kind *weir_picture_kind_find(const char *name);
const struct weir_picture_kind *weir_picture_kind_of(const uint8_t *head, size_t count);
const struct weir_picture_kind *weir_picture_kind_at(size_t number);

/* Errors   TOO_LARGE: the receipt is over what the format holds; those of encode */
enum weir_status weir_picture_encode(const struct weir_picture_kind *kind, const struct weir_picture *picture,
                                     uint8_t **out, size_t *bytes, struct weir_error *error);
/* Of a picture whose rgb has room for what the source gives; it is whole when this returns OK.
 * Errors   likewise, and those of the source */
enum weir_status weir_picture_encode_from(const struct weir_picture_kind *kind, const struct weir_picture *picture,
                                          const struct weir_picture_source *source, uint8_t **out, size_t *bytes,
                                          struct weir_error *error);
/* Errors   those of decode */
enum weir_status weir_picture_decode(const uint8_t *bytes, size_t count, bool with_pixels,
                                     const struct weir_picture_kind **kind, struct weir_picture *out,
                                     struct weir_error *error);
/* The file behind a descriptor, from its start; `path` is for messages.
 * Errors   IO, and those of decode with the path in front */
enum weir_status weir_picture_read(int fd, const char *path, bool with_pixels, const struct weir_picture_kind **kind,
                                   struct weir_picture *out, size_t *file_bytes, struct weir_error *error);

/* Encodes a fixed picture: the digest of its bytes is what a receipt calls the encoder build, after the library's name. */
enum weir_status weir_picture_fingerprint(const struct weir_picture_kind *kind, uint8_t out[32],
                                          struct weir_error *error);

#endif
