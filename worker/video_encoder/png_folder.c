// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/png_folder.h"

#include "worker/video_encoder/picture_png.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct name {
    char text[16];
};

static struct name name_of(int64_t index)
{
    struct name name;
    snprintf(name.text, sizeof name.text, "%05d.png", (int)index);
    return name;
}

enum weir_status weir_png_write(int folder_fd, const char *folder, int64_t index, const struct weir_picture *picture,
                                bool is_scratch, struct weir_error *error)
{
    const struct name name = name_of(index);
    const int fd = openat(folder_fd, name.text, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s/%s: %s", folder, name.text, strerror(errno));
    FILE *file = fdopen(fd, "wb");
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    enum weir_status status = WEIR_NO_MEMORY;
    int code = 0;
    errno = 0;
    if (file && png && spng_set_png_file(png, file) == 0) {
        code = weir_png_put(png, picture);
        status = code ? WEIR_IO : WEIR_OK;
    }
    if (status == WEIR_OK && (fflush(file) != 0 || (!is_scratch && fsync(fd) != 0))) status = WEIR_IO;
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

enum weir_status weir_png_read(int folder_fd, const char *folder, int64_t index, bool with_pixels,
                               struct weir_picture *out, struct weir_error *error)
{
    *out = (struct weir_picture){ 0 };
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
        weir_png_limit(png);
        code = spng_set_png_file(png, file);
        if (!code) code = weir_png_get(png, with_pixels, out);
    }
    spng_ctx_free(png);
    if (file) fclose(file);
    else close(fd);
    if (!code) return WEIR_OK;
    weir_picture_deinit(out);
    return weir_fail(error, code == SPNG_EMEM ? WEIR_NO_MEMORY : WEIR_BAD_FILE, "%s/%s: %s", folder, name.text,
                     spng_strerror(code));
}
