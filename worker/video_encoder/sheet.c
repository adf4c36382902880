// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/sheet.h"

#include "proto/base/bytes.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GAP = 4, WHITE = 255, CHANNELS = 3 };

struct drawing {
    const struct weir_sheet *sheet;
    struct weir_picture whole; /* the sheet's pixels */
    uint32_t columns, cell_width, cell_height;
};

static enum weir_status open_picture(const char *path, bool with_pixels, struct weir_picture *out,
                                     struct weir_error *error)
{
    const struct weir_picture_kind *kind;
    size_t bytes;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s: %s", path, strerror(errno));
    }
    const enum weir_status status = weir_picture_read(fd, path, with_pixels, &kind, out, &bytes, error);
    close(fd);
    return status;
}

/* Both sides at most `side`, the longer one exactly where the picture is larger than that. */
static void shrunk(const struct weir_picture *picture, uint32_t side, uint32_t *width, uint32_t *height)
{
    const uint32_t longer = picture->width > picture->height ? picture->width : picture->height;
    *width = longer > side ? (picture->width * side + longer / 2) / longer : picture->width;
    *height = longer > side ? (picture->height * side + longer / 2) / longer : picture->height;
    if (*width < 1) *width = 1;
    if (*height < 1) *height = 1;
}

/* The mean of the pixels that one pixel of the small picture stands for. */
static void mean_of(const struct weir_picture *from, uint32_t left, uint32_t right, uint32_t top, uint32_t bottom,
                    uint8_t *out)
{
    uint64_t sums[CHANNELS] = { 0 };
    for (uint32_t y = top; y < bottom; y++) {
        const uint8_t *row = from->rgb + ((size_t)y * from->width + left) * CHANNELS;
        for (uint32_t i = 0; i < (right - left) * CHANNELS; i++) sums[i % CHANNELS] += row[i];
    }
    const uint64_t count = (uint64_t)(right - left) * (bottom - top);
    for (int c = 0; c < CHANNELS; c++) out[c] = (uint8_t)((sums[c] + count / 2) / count);
}

static void draw(struct drawing *d, const struct weir_picture *picture, uint32_t number)
{
    uint32_t width, height;
    shrunk(picture, (uint32_t)d->sheet->side, &width, &height);
    const uint32_t x0 = GAP + number % d->columns * (d->cell_width + GAP) + (d->cell_width - width) / 2;
    const uint32_t y0 = GAP + number / d->columns * (d->cell_height + GAP) + (d->cell_height - height) / 2;
    for (uint32_t y = 0; y < height; y++) {
        const uint32_t top = y * picture->height / height, bottom = (y + 1) * picture->height / height;
        uint8_t *row = d->whole.rgb + ((size_t)(y0 + y) * d->whole.width + x0) * CHANNELS;
        for (uint32_t x = 0; x < width; x++) {
            mean_of(picture, x * picture->width / width, (x + 1) * picture->width / width, top, bottom,
                    row + (size_t)x * CHANNELS);
        }
    }
}

static enum weir_status measure(struct drawing *d, struct weir_error *error)
{
    const uint32_t count = (uint32_t)d->sheet->count;
    for (uint32_t i = 0; i < count; i++) {
        struct weir_picture picture;
        uint32_t width, height;
        const enum weir_status status = open_picture(d->sheet->paths[i], false, &picture, error);
        if (status != WEIR_OK) return status;
        shrunk(&picture, (uint32_t)d->sheet->side, &width, &height);
        weir_picture_deinit(&picture);
        if (width > d->cell_width) d->cell_width = width;
        if (height > d->cell_height) d->cell_height = height;
    }
    while (d->columns * d->columns < count) d->columns++;
    const uint32_t rows = (count + d->columns - 1) / d->columns;
    d->whole.width = GAP + d->columns * (d->cell_width + GAP);
    d->whole.height = GAP + rows * (d->cell_height + GAP);
    const size_t bytes = (size_t)d->whole.width * d->whole.height * CHANNELS;
    d->whole.rgb = malloc(bytes);
    if (!d->whole.rgb) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a sheet of %u pictures", count);
    memset(d->whole.rgb, WHITE, bytes);
    return WEIR_OK;
}

static enum weir_status draw_all(struct drawing *d, struct weir_error *error)
{
    for (int i = 0; i < d->sheet->count; i++) {
        struct weir_picture picture;
        enum weir_status status = weir_guard_check(error);
        if (status == WEIR_OK) status = open_picture(d->sheet->paths[i], true, &picture, error);
        if (status != WEIR_OK) return status;
        draw(d, &picture, (uint32_t)i);
        weir_picture_deinit(&picture);
    }
    return WEIR_OK;
}

enum weir_status weir_sheet_run(const struct weir_sheet *sheet, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct drawing d = { .sheet = sheet, .columns = 1 };
    struct weir_output output = { .folder_fd = -1, .fd = -1 };
    uint8_t *bytes = NULL;
    size_t count;
    WEIR_TRY(measure(&d, error));
    WEIR_TRY(weir_output_open(&output, sheet->path, false, error));
    WEIR_TRY(draw_all(&d, error));
    WEIR_TRY(weir_picture_encode(&weir_picture_png, &d.whole, &bytes, &count, error));
    WEIR_TRY(weir_fd_write(output.fd, bytes, count, sheet->path, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_output_commit(&output, false, error));

cleanup:
    weir_output_close(&output);
    weir_picture_deinit(&d.whole);
    free(bytes);
    return status;
}
