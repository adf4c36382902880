// SPDX-License-Identifier: GPL-3.0-or-later
/* png_folder: frames as 00000.png, 00001.png, ... in one folder, 8-bit RGB, through libspng.
 *
 * The receipt is an iTXt chunk with the keyword "weir" in every frame.
 * Threads  one a folder
 */
#ifndef WEIR_VIDEO_ENCODER_PNG_FOLDER_H
#define WEIR_VIDEO_ENCODER_PNG_FOLDER_H

#include "proto/status.h"

#include <stdint.h>

struct weir_png {
    uint32_t width, height;
    char *comment; /* or NULL; freed with weir_png_deinit */
    uint8_t *rgb;  /* or NULL when only the header was read; same */
};

/* Writes frame `index` of the folder and fsyncs it. `comment` may be NULL.
 * Errors   IO, NO_MEMORY, INTERNAL */
enum weir_status weir_png_write(int folder_fd, const char *folder, int64_t index, const struct weir_png *png,
                                struct weir_error *error);
/* Errors   NOT_FOUND (no such frame), BAD_FILE, IO, NO_MEMORY */
enum weir_status weir_png_read(int folder_fd, const char *folder, int64_t index, int with_pixels, struct weir_png *png,
                               struct weir_error *error);
void weir_png_deinit(struct weir_png *png);

#endif
