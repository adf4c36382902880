// SPDX-License-Identifier: GPL-3.0-or-later
/* sheet: many pictures small beside each other, as one PNG: a contact sheet.
 *
 * Every picture keeps its proportions, is made smaller (never larger) by averaging until it fits into a square of `side`
 * pixels, and stands in the middle of its cell on white, row by row in the order of `paths`. As many columns as rows.
 */
#ifndef WEIR_VIDEO_ENCODER_SHEET_H
#define WEIR_VIDEO_ENCODER_SHEET_H

#include "proto/status.h"

#define WEIR_SHEET_PICTURES_MAX 1000
#define WEIR_SHEET_SIDE_MAX 160 /* 32 columns of it are less than WEIR_PICTURE_SIDE_MAX */

struct weir_sheet {
    const char *path;   /* what is written */
    char *const *paths; /* 1 to WEIR_SHEET_PICTURES_MAX pictures: PNG, JPEG, WebP */
    int count;
    int64_t side; /* 16 to WEIR_SHEET_SIDE_MAX */
};

/* Errors   those of reading a picture, IO, NO_MEMORY, INTERRUPTED, EXPIRED; nothing is written then */
enum weir_status weir_sheet_run(const struct weir_sheet *sheet, struct weir_error *error);

#endif
