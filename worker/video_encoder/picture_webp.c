// SPDX-License-Identifier: GPL-3.0-or-later
/* WebP through libwebp, its chunks through libwebpmux. */
#include "worker/video_encoder/picture.h"

#include "proto/base/bytes.h"
#include "worker/video_encoder/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>
#include <webp/mux.h>

enum { METHOD = 4, EFFORT = 75, COMMENT_BYTES_MAX = 1 << 16 };

/* The EXIF block: a little-endian TIFF whose one directory has one field, ImageDescription, of type ASCII. The text with
 * its final NUL lies behind the directory; one of up to 4 bytes lies in the field itself. */
enum { EXIF_HEAD_BYTES = 26, EXIF_COUNT_AT = 14, EXIF_VALUE_AT = 18, EXIF_INLINE_BYTES = 4 };
static const uint8_t exif_head[EXIF_COUNT_AT] = { 'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x0e, 0x01, 2, 0 };

static void exif_write(const char *text, uint8_t *out, size_t *bytes)
{
    const size_t count = strlen(text) + 1;
    const bool is_inline = count <= EXIF_INLINE_BYTES;
    memset(out, 0, EXIF_HEAD_BYTES);
    memcpy(out, exif_head, sizeof exif_head);
    weir_store_u32(out + EXIF_COUNT_AT, (uint32_t)count);
    if (!is_inline) weir_store_u32(out + EXIF_VALUE_AT, EXIF_HEAD_BYTES);
    memcpy(out + (is_inline ? EXIF_VALUE_AT : EXIF_HEAD_BYTES), text, count);
    *bytes = EXIF_HEAD_BYTES + (is_inline ? 0 : count);
}

/* The text of a block that exif_write() could have made, else NULL; it points into `bytes`. */
static const char *exif_read(const uint8_t *bytes, size_t count)
{
    if (count < EXIF_HEAD_BYTES || memcmp(bytes, exif_head, sizeof exif_head) != 0) return NULL;
    const uint32_t text_bytes = weir_load_u32(bytes + EXIF_COUNT_AT);
    const bool is_inline = text_bytes <= EXIF_INLINE_BYTES;
    if (text_bytes < 1 || count - EXIF_HEAD_BYTES != (is_inline ? 0 : text_bytes)) return NULL;
    if (!is_inline && weir_load_u32(bytes + EXIF_VALUE_AT) != EXIF_HEAD_BYTES) return NULL;
    const uint8_t *text = bytes + (is_inline ? EXIF_VALUE_AT : EXIF_HEAD_BYTES);
    return text[text_bytes - 1] == '\0' ? (const char *)text : NULL;
}

static void library(char out[64])
{
    const int version = WebPGetEncoderVersion();
    snprintf(out, 64, "libwebp %d.%d.%d", version >> 16, version >> 8 & 255, version & 255);
}

/* Also what a signal is looked for in: a large picture takes a minute. */
static int goes_on(int percent, const WebPPicture *picture)
{
    (void)percent;
    return weir_guard_check(picture->user_data) == WEIR_OK;
}

static enum weir_status encode_pixels(const struct weir_picture *picture, WebPMemoryWriter *writer,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_error stopped = { 0 };
    WebPConfig config;
    WebPPicture webp;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&webp)) {
        return weir_fail(error, WEIR_INTERNAL, "WebP: the library is of another version than its headers");
    }
    config.lossless = 1;
    config.method = METHOD;
    config.quality = EFFORT;
    config.thread_level = 0;
    webp.use_argb = 1;
    webp.width = (int)picture->width;
    webp.height = (int)picture->height;
    webp.writer = WebPMemoryWrite;
    webp.custom_ptr = writer;
    webp.progress_hook = goes_on;
    webp.user_data = &stopped;
    if (!WebPPictureImportRGB(&webp, picture->rgb, (int)picture->width * 3)) {
        status = weir_fail(error, WEIR_NO_MEMORY, "WebP: out of memory");
    } else if (!WebPEncode(&config, &webp)) {
        const bool no_memory =
            webp.error_code == VP8_ENC_ERROR_OUT_OF_MEMORY || webp.error_code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY;
        if (stopped.code != WEIR_OK)
            status = weir_fail(error, stopped.code, "%s", stopped.words);
        else
            status = weir_fail(error, no_memory ? WEIR_NO_MEMORY : WEIR_INTERNAL, "WebP: error %d of its encoder",
                               (int)webp.error_code);
    }
    WebPPictureFree(&webp);
    return status;
}

/* The encoded pixels and the receipt in one file. */
static enum weir_status assemble(const WebPData *pixels, const char *comment, WebPData *out, struct weir_error *error)
{
    uint8_t *exif = malloc(EXIF_HEAD_BYTES + strlen(comment) + 1);
    WebPMux *mux = WebPMuxNew();
    WebPMuxError code = WEBP_MUX_MEMORY_ERROR;
    if (exif && mux) {
        WebPData chunk = { .bytes = exif };
        exif_write(comment, exif, &chunk.size);
        code = WebPMuxSetImage(mux, pixels, 0);
        if (code == WEBP_MUX_OK) code = WebPMuxSetChunk(mux, "EXIF", &chunk, 0);
        if (code == WEBP_MUX_OK) code = WebPMuxAssemble(mux, out);
    }
    WebPMuxDelete(mux);
    free(exif);
    if (code == WEBP_MUX_OK) return WEIR_OK;
    return weir_fail(error, code == WEBP_MUX_MEMORY_ERROR ? WEIR_NO_MEMORY : WEIR_INTERNAL,
                     "WebP: error %d of its muxer", (int)code);
}

static enum weir_status encode(const struct weir_picture *picture, uint8_t **out, size_t *bytes,
                               struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WebPMemoryWriter writer;
    WebPData whole;
    WebPMemoryWriterInit(&writer);
    WebPDataInit(&whole);
    WEIR_TRY(encode_pixels(picture, &writer, error));
    const WebPData pixels = { writer.mem, writer.size };
    if (picture->comment) WEIR_TRY(assemble(&pixels, picture->comment, &whole, error));
    const WebPData *made = picture->comment ? &whole : &pixels;
    *out = malloc(made->size);
    if (!*out) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "WebP: no memory for %zu bytes", made->size));
    memcpy(*out, made->bytes, made->size);
    *bytes = made->size;

cleanup:
    WebPMemoryWriterClear(&writer);
    WebPDataClear(&whole);
    return status;
}

static enum weir_status take_comment(const WebPMux *mux, struct weir_picture *out, struct weir_error *error)
{
    WebPData chunk;
    if (WebPMuxGetChunk(mux, "EXIF", &chunk) != WEBP_MUX_OK) return WEIR_OK;
    const char *text = exif_read(chunk.bytes, chunk.size);
    if (!text) return WEIR_OK; /* somebody else's */
    out->comment = strdup(text);
    return out->comment ? WEIR_OK : weir_fail(error, WEIR_NO_MEMORY, "WebP: out of memory");
}

static enum weir_status decode(const uint8_t *bytes, size_t count, bool with_pixels, struct weir_picture *out,
                               struct weir_error *error)
{
    WebPBitstreamFeatures features;
    const VP8StatusCode code = WebPGetFeatures(bytes, count, &features);
    if (code != VP8_STATUS_OK) return weir_fail(error, WEIR_BAD_FILE, "WebP: error %d of its decoder", (int)code);
    if (features.has_animation) return weir_fail(error, WEIR_BAD_FILE, "a WebP that moves");
    if (features.width > WEIR_PICTURE_SIDE_MAX || features.height > WEIR_PICTURE_SIDE_MAX) {
        return weir_fail(error, WEIR_BAD_FILE, "a WebP over 8192 pixels wide or high");
    }
    out->width = (uint32_t)features.width;
    out->height = (uint32_t)features.height;
    const WebPData whole = { bytes, count };
    WebPMux *mux = WebPMuxCreate(&whole, 0); /* sees that the file is as long as it says */
    if (!mux) return weir_fail(error, WEIR_BAD_FILE, "WebP: cut short or damaged");
    const enum weir_status status = take_comment(mux, out, error);
    WebPMuxDelete(mux);
    if (status != WEIR_OK || !with_pixels) return status;
    const size_t row_bytes = (size_t)out->width * 3;
    out->rgb = malloc(row_bytes * out->height);
    if (!out->rgb) return weir_fail(error, WEIR_NO_MEMORY, "WebP: no memory for its pixels");
    if (WebPDecodeRGBInto(bytes, count, out->rgb, row_bytes * out->height, (int)row_bytes)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_FILE, "WebP: its pixels are damaged");
}

const struct weir_picture_kind weir_picture_webp = {
    .name = "webp",
    .pixels = "rgb24",
    .matrix = "gbr",
    .magic = "RIFF",
    .magic_bytes = 4,
    .comment_bytes_max = COMMENT_BYTES_MAX,
    .is_exact = true,
    .library = library,
    .encode = encode,
    .decode = decode,
};
