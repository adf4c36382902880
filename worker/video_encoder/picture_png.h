// SPDX-License-Identifier: GPL-3.0-or-later
/* picture_png: what a PNG of ours holds, whatever it is written to or read from: 8-bit RGB and an iTXt chunk "weir".
 *
 * Errors   libspng's codes; 0 is none
 */
#ifndef WEIR_VIDEO_ENCODER_PICTURE_PNG_H
#define WEIR_VIDEO_ENCODER_PICTURE_PNG_H

#include "worker/video_encoder/picture.h"

#include <spng.h>

/* Into a context that has its destination. */
int weir_png_put(spng_ctx *png, const struct weir_picture *picture);
/* Before a context gets its source: the sizes that we read. */
void weir_png_limit(spng_ctx *png);
int weir_png_get(spng_ctx *png, bool with_pixels, struct weir_picture *out);

#endif
