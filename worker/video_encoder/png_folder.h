// SPDX-License-Identifier: GPL-3.0-or-later
/* png_folder: frames as 00000.png, 00001.png, ... in one folder, 8-bit RGB, through libspng.
 *
 * The receipt is an iTXt chunk with the keyword "weir" in every frame.
 * Threads  one a folder
 */
#ifndef WEIR_VIDEO_ENCODER_PNG_FOLDER_H
#define WEIR_VIDEO_ENCODER_PNG_FOLDER_H

#include "worker/video_encoder/picture.h"

/* Writes frame `index` of the folder, and fsyncs it unless it is_scratch. Its comment may be NULL.
 * Errors   IO, NO_MEMORY, INTERNAL */
enum weir_status weir_png_write(int folder_fd, const char *folder, int64_t index, const struct weir_picture *picture,
                                bool is_scratch, struct weir_error *error);
/* `out` is for weir_picture_deinit().
 * Errors   NOT_FOUND (no such frame), BAD_FILE, IO, NO_MEMORY */
enum weir_status weir_png_read(int folder_fd, const char *folder, int64_t index, bool with_pixels,
                               struct weir_picture *out, struct weir_error *error);

#endif
