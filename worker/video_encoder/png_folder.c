// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/png_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE_MAX = 8192, CHUNK_BYTES_MAX = 1 << 18, TEXTS_MAX = 16 };

static const char keyword[] = "weir";

struct name {
    char text[16];
};

static struct name name_of(int64_t index)
{
    struct name name;
    snprintf(name.text, sizeof name.text, "%05d.png", (int)index);
    return name;
}

static enum weir_status encode(spng_ctx *png, const struct weir_png *picture, int *code)
{
    struct spng_ihdr header = { .width = picture->width, .height = picture->height, .bit_depth = 8,
                                .color_type = SPNG_COLOR_TYPE_TRUECOLOR };
    char no_words[1] = "";
    struct spng_text text = { .type = SPNG_ITXT, .text = picture->comment, .language_tag = no_words,
                              .translated_keyword = no_words };
    memcpy(text.keyword, keyword, sizeof keyword);
    *code = spng_set_ihdr(png, &header);
    if (!*code && picture->comment) {
        text.length = strlen(picture->comment);
        *code = spng_set_text(png, &text, 1);
    }
    const size_t bytes = (size_t)picture->width * picture->height * 3;
    if (!*code) *code = spng_encode_image(png, picture->rgb, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    return *code ? WEIR_IO : WEIR_OK;
}

enum weir_status weir_png_write(int folder_fd, const char *folder, int64_t index, const struct weir_png *picture,
                                struct weir_error *error)
{
    const struct name name = name_of(index);
    const int fd = openat(folder_fd, name.text, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s/%s: %s", folder, name.text, strerror(errno));
    FILE *file = fdopen(fd, "wb");
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    enum weir_status status = WEIR_NO_MEMORY;
    int code = 0;
    errno = 0;
    if (file && png && spng_set_png_file(png, file) == 0) status = encode(png, picture, &code);
    if (status == WEIR_OK && (fflush(file) != 0 || fsync(fd) != 0)) status = WEIR_IO;
    if (status != WEIR_OK) {
        const char *why = errno ? strerror(errno) : code ? spng_strerror(code) : "out of memory";
        weir_fail(error, status, "%s/%s: %s", folder, name.text, why);
    }
    spng_ctx_free(png);
    if (!file) close(fd);
    if (file && fclose(file) != 0 && status == WEIR_OK) {
        status = weir_fail(error, WEIR_IO, "%s/%s: %s", folder, name.text, strerror(errno));
    }
    return status;
}

static int take_comment(spng_ctx *png, struct weir_png *out)
{
    struct spng_text texts[TEXTS_MAX];
    uint32_t count = 0;
    if (spng_get_text(png, NULL, &count) != 0 || count == 0) return 0;
    if (count > TEXTS_MAX || spng_get_text(png, texts, &count) != 0) return SPNG_ECHUNK_LIMITS;
    for (uint32_t i = 0; i < count && !out->comment; i++) {
        if (strcmp(texts[i].keyword, keyword) != 0) continue;
        out->comment = strndup(texts[i].text, texts[i].length);
        if (!out->comment) return SPNG_EMEM;
    }
    return 0;
}

static int decode(spng_ctx *png, int with_pixels, struct weir_png *out)
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

enum weir_status weir_png_read(int folder_fd, const char *folder, int64_t index, int with_pixels, struct weir_png *out,
                               struct weir_error *error)
{
    *out = (struct weir_png){ 0 };
    const struct name name = name_of(index);
    const int fd = openat(folder_fd, name.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        const enum weir_status status = errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO;
        return weir_fail(error, status, "%s/%s: %s", folder, name.text, strerror(errno));
    }
    FILE *file = fdopen(fd, "rb");
    spng_ctx *png = spng_ctx_new(0);
    int code = SPNG_EMEM;
    if (file && png) {
        spng_set_image_limits(png, SIDE_MAX, SIDE_MAX);
        spng_set_chunk_limits(png, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX);
        code = spng_set_png_file(png, file);
        if (!code) code = decode(png, with_pixels, out);
    }
    spng_ctx_free(png);
    if (file) fclose(file);
    else close(fd);
    if (!code) return WEIR_OK;
    weir_png_deinit(out);
    return weir_fail(error, code == SPNG_EMEM ? WEIR_NO_MEMORY : WEIR_BAD_FILE, "%s/%s: %s", folder, name.text,
                     spng_strerror(code));
}

void weir_png_deinit(struct weir_png *png)
{
    free(png->comment);
    free(png->rgb);
    *png = (struct weir_png){ 0 };
}
