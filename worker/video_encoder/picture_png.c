// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/picture_png.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { CHUNK_BYTES_MAX = 1 << 18, TEXTS_MAX = 16, COMMENT_BYTES_MAX = 1 << 16, COMPRESSION_LEVEL = 6 };

static const char keyword[] = "weir";
static const uint8_t end[12] = { 0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82 }; /* every PNG's last chunk */

int weir_png_put(spng_ctx *png, const struct weir_picture *picture)
{
    struct spng_ihdr header = {
        .width = picture->width, .height = picture->height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR
    };
    char no_words[1] = "";
    struct spng_text text = {
        .type = SPNG_ITXT, .text = picture->comment, .language_tag = no_words, .translated_keyword = no_words
    };
    memcpy(text.keyword, keyword, sizeof keyword);
    int code = spng_set_ihdr(png, &header);
    if (!code && picture->comment) {
        text.length = strlen(picture->comment);
        code = spng_set_text(png, &text, 1);
    }
    const size_t bytes = (size_t)picture->width * picture->height * 3;
    return code ? code : spng_encode_image(png, picture->rgb, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
}

void weir_png_limit(spng_ctx *png)
{
    spng_set_image_limits(png, WEIR_PICTURE_SIDE_MAX, WEIR_PICTURE_SIDE_MAX);
    spng_set_chunk_limits(png, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX);
}

static int take_comment(spng_ctx *png, struct weir_picture *out)
{
    struct spng_text texts[TEXTS_MAX];
    uint32_t count = 0;
    const int code = spng_get_text(png, NULL, &count);
    if (code == SPNG_ECHUNKAVAIL || (!code && count == 0)) return 0;
    if (code) return code;
    if (count > TEXTS_MAX || spng_get_text(png, texts, &count) != 0) return SPNG_ECHUNK_LIMITS;
    for (uint32_t i = 0; i < count && !out->comment; i++) {
        if (strcmp(texts[i].keyword, keyword) != 0) continue;
        out->comment = strndup(texts[i].text, texts[i].length);
        if (!out->comment) return SPNG_EMEM;
    }
    return 0;
}

int weir_png_get(spng_ctx *png, bool with_pixels, struct weir_picture *out)
{
    struct spng_ihdr header;
    size_t bytes = 0;
    int code = spng_get_ihdr(png, &header);
    if (!code) {
        out->width = header.width;
        out->height = header.height;
        code = take_comment(png, out);
    }
    if (code || !with_pixels) return code;
    code = spng_decoded_image_size(png, SPNG_FMT_RGB8, &bytes);
    if (code) return code;
    out->rgb = malloc(bytes);
    return out->rgb ? spng_decode_image(png, out->rgb, bytes, SPNG_FMT_RGB8, 0) : SPNG_EMEM;
}

static void library(char out[64])
{
    snprintf(out, 64, "libspng %s, zlib %s", spng_version_string(), zlibVersion());
}

static enum weir_status fail(int code, enum weir_status otherwise, struct weir_error *error)
{
    return weir_fail(error, code == SPNG_EMEM ? WEIR_NO_MEMORY : otherwise, "PNG: %s", spng_strerror(code));
}

static enum weir_status encode(const struct weir_picture *picture, uint8_t **out, size_t *bytes,
                               struct weir_error *error)
{
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    int code = png ? spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1) : SPNG_EMEM;
    if (!code) code = spng_set_option(png, SPNG_IMG_COMPRESSION_LEVEL, COMPRESSION_LEVEL);
    if (!code) code = spng_set_option(png, SPNG_FILTER_CHOICE, SPNG_FILTER_CHOICE_ALL);
    if (!code) code = weir_png_put(png, picture);
    if (!code) *out = spng_get_png_buffer(png, bytes, &code);
    spng_ctx_free(png);
    if (code) *out = NULL;
    return code ? fail(code, WEIR_INTERNAL, error) : WEIR_OK;
}

static enum weir_status decode(const uint8_t *bytes, size_t count, bool with_pixels, struct weir_picture *out,
                               struct weir_error *error)
{
    spng_ctx *png = spng_ctx_new(0);
    int code = png ? 0 : SPNG_EMEM;
    if (!code) {
        weir_png_limit(png);
        code = spng_set_png_buffer(png, bytes, count);
    }
    if (!code) code = weir_png_get(png, with_pixels, out);
    if (!code && with_pixels) code = spng_decode_chunks(png);
    spng_ctx_free(png);
    if (code) return fail(code, WEIR_BAD_FILE, error);
    /* libspng is content with an end that lacks its checksum */
    if (!with_pixels || (count >= sizeof end && memcmp(bytes + count - sizeof end, end, sizeof end) == 0))
        return WEIR_OK;
    return weir_fail(error, WEIR_BAD_FILE, "PNG: it does not end in its last chunk");
}

const struct weir_picture_kind weir_picture_png = {
    .name = "png",
    .pixels = "rgb24",
    .matrix = "gbr",
    .magic = "\x89PNG\r\n\x1a\n",
    .magic_bytes = 8,
    .comment_bytes_max = COMMENT_BYTES_MAX,
    .is_exact = true,
    .library = library,
    .encode = encode,
    .decode = decode,
};
