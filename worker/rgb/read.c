#include "worker/rgb/internal.h"

#include <spng.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/mux.h>

enum { PNG_CHUNK_BYTES_MAX = 1 << 22, TIFF_ENTRY_BYTES = 12, TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3 };

void weir_rgb_deinit(struct weir_rgb *picture)
{
    free(picture->pixels);
    *picture = (struct weir_rgb){ 0 };
}

enum weir_status weir_rgb_alloc(uint64_t width, uint64_t height, struct weir_rgb *out, struct weir_error *error)
{
    if (width < 1 || height < 1) return weir_fail(error, WEIR_BAD_ARGUMENT, "a picture without pixels");
    if (width > WEIR_RGB_SIDE_MAX || height > WEIR_RGB_SIDE_MAX || width * height > WEIR_RGB_PIXELS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%llux%llu pixels; at most %d a side and %u million in all are read",
                         (unsigned long long)width, (unsigned long long)height, WEIR_RGB_SIDE_MAX,
                         WEIR_RGB_PIXELS_MAX / 1000000);
    }
    *out = (struct weir_rgb){ (uint32_t)width, (uint32_t)height, malloc((size_t)(width * height) * 3) };
    if (out->pixels) return WEIR_OK;
    return weir_fail(error, WEIR_NO_MEMORY, "no memory for %ux%u pixels", out->width, out->height);
}

/* ---- the way up ---- */

static uint32_t number(const uint8_t *at, unsigned bytes, bool big)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes; i++) value |= (uint32_t)at[i] << 8 * (big ? bytes - 1 - i : i);
    return value;
}

unsigned weir_rgb_orientation(const uint8_t *tiff, size_t count)
{
    if (count < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0)) return 1;
    const bool big = tiff[0] == 'M';
    const uint32_t at = number(tiff + 4, 4, big);
    if (at > count || count - at < 2) return 1;
    const uint32_t entries = number(tiff + at, 2, big);
    for (uint32_t i = 0; i < entries && (count - at - 2) / TIFF_ENTRY_BYTES > i; i++) {
        const uint8_t *entry = tiff + at + 2 + (size_t)i * TIFF_ENTRY_BYTES;
        if (number(entry, 2, big) != TAG_ORIENTATION || number(entry + 2, 2, big) != TYPE_SHORT) continue;
        const uint32_t value = number(entry + 8, 2, big);
        return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

/* Where the pixel of the upright picture lies in the one that was stored: over 4 with rows for columns. */
static enum weir_status turn_up(struct weir_rgb *picture, unsigned orientation, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t w = picture->width, h = picture->height;
    const bool across = orientation > 4;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    struct weir_rgb turned;
    if (orientation == 1) return WEIR_OK;
    WEIR_TRY(weir_rgb_alloc(across ? h : w, across ? w : h, &turned, error));
    uint8_t *to = turned.pixels;
    for (uint32_t y = 0; y < turned.height; y++) {
        for (uint32_t x = 0; x < turned.width; x++, to += 3) {
            const uint32_t column = across ? y : x, row = across ? x : y;
            const size_t from = (size_t)(from_bottom ? h - 1 - row : row) * w + (from_right ? w - 1 - column : column);
            memcpy(to, picture->pixels + from * 3, 3);
        }
    }
    weir_rgb_deinit(picture);
    *picture = turned;
cleanup:
    return status;
}

/* ---- PNG ---- */

static enum weir_status png_fault(int code, struct weir_error *error)
{
    return weir_fail(error, code == SPNG_EMEM ? WEIR_NO_MEMORY : WEIR_BAD_ARGUMENT, "PNG: %s", spng_strerror(code));
}

static enum weir_status png_pixels(spng_ctx *png, struct weir_rgb *out, unsigned *orientation, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct spng_ihdr header;
    struct spng_exif exif;
    int code = spng_get_ihdr(png, &header);
    if (code) return png_fault(code, error);
    if (header.color_type == SPNG_COLOR_TYPE_GRAYSCALE && header.bit_depth == 16)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a PNG of gray in 16 bits; 8 bits are read");
    WEIR_TRY(weir_rgb_alloc(header.width, header.height, out, error));
    code = spng_decode_image(png, out->pixels, (size_t)out->width * out->height * 3, SPNG_FMT_RGB8, 0);
    if (!code) code = spng_decode_chunks(png); /* EXIF may lie behind the pixels */
    if (code) WEIR_TRY(png_fault(code, error));
    if (spng_get_exif(png, &exif) == 0) *orientation = weir_rgb_orientation((const uint8_t *)exif.data, exif.length);
cleanup:
    return status;
}

enum weir_status weir_rgb_read_png(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                   struct weir_error *error)
{
    spng_ctx *png = spng_ctx_new(0);
    if (!png) return weir_fail(error, WEIR_NO_MEMORY, "no memory to read a PNG");
    int code = spng_set_image_limits(png, WEIR_RGB_SIDE_MAX, WEIR_RGB_SIDE_MAX);
    if (!code) code = spng_set_chunk_limits(png, PNG_CHUNK_BYTES_MAX, 4 * PNG_CHUNK_BYTES_MAX);
    if (!code) code = spng_set_png_buffer(png, bytes, count);
    const enum weir_status status = code ? png_fault(code, error) : png_pixels(png, out, orientation, error);
    spng_ctx_free(png);
    return status;
}

/* ---- WebP ---- */

static void webp_orientation(const WebPMux *mux, unsigned *orientation)
{
    WebPData chunk;
    if (WebPMuxGetChunk(mux, "EXIF", &chunk) != WEBP_MUX_OK) return;
    const size_t head = chunk.size >= 6 && memcmp(chunk.bytes, "Exif\0", 6) == 0 ? 6 : 0; /* some write a JPEG's */
    *orientation = weir_rgb_orientation(chunk.bytes + head, chunk.size - head);
}

enum weir_status weir_rgb_read_webp(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                    struct weir_error *error)
{
    WebPBitstreamFeatures features;
    const WebPData whole = { bytes, count };
    const VP8StatusCode code = WebPGetFeatures(bytes, count, &features);
    if (code != VP8_STATUS_OK) return weir_fail(error, WEIR_BAD_ARGUMENT, "WebP: error %d of its decoder", (int)code);
    if (features.has_animation) return weir_fail(error, WEIR_BAD_ARGUMENT, "a WebP that moves; still ones are read");
    WebPMux *mux = WebPMuxCreate(&whole, 0); /* sees that the file is as long as it says */
    if (!mux) return weir_fail(error, WEIR_BAD_ARGUMENT, "WebP: cut short or damaged");
    webp_orientation(mux, orientation);
    WebPMuxDelete(mux);
    const enum weir_status status = weir_rgb_alloc((uint64_t)features.width, (uint64_t)features.height, out, error);
    if (status != WEIR_OK) return status;
    const size_t row_bytes = (size_t)out->width * 3;
    if (WebPDecodeRGBInto(bytes, count, out->pixels, row_bytes * out->height, (int)row_bytes)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "WebP: its pixels are damaged");
}

/* ---- by the first bytes ---- */

static enum weir_status read_any(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                 struct weir_error *error)
{
    static const uint8_t png[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' }, jpeg[] = { 0xff, 0xd8, 0xff };
    if (count >= sizeof png && memcmp(bytes, png, sizeof png) == 0)
        return weir_rgb_read_png(bytes, count, out, orientation, error);
    if (count >= sizeof jpeg && memcmp(bytes, jpeg, sizeof jpeg) == 0)
        return weir_rgb_read_jpeg(bytes, count, out, orientation, error);
    if (count >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        return weir_rgb_read_webp(bytes, count, out, orientation, error);
    return weir_fail(error, WEIR_BAD_ARGUMENT, "not a PNG, JPEG or WebP picture");
}

enum weir_status weir_rgb_read(const void *bytes, size_t count, const char *name, struct weir_rgb *out,
                               struct weir_error *error)
{
    struct weir_error why = { 0 };
    unsigned orientation = 1;
    *out = (struct weir_rgb){ 0 };
    if (count > WEIR_RGB_FILE_BYTES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%.200s: %zu bytes; at most %zu are read", name, count,
                         WEIR_RGB_FILE_BYTES_MAX);
    }
    enum weir_status status = read_any(bytes, count, out, &orientation, &why);
    if (status == WEIR_OK) status = turn_up(out, orientation, &why);
    if (status == WEIR_OK) return WEIR_OK;
    weir_rgb_deinit(out);
    return weir_fail(error, status, "%.200s: %s", name, why.words);
}
