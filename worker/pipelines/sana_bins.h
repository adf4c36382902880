/* sana_bins: the sizes a Sana network was trained at, and the way from one of them back to the size that was asked for.
 *
 * A wish of any size is made at the bin whose height / width is nearest, then resized until it covers the wish and cut
 * in the middle. So 1000x1000 is a picture of 1024x1024 made smaller, not a part of one.
 *
 *   WEIR_TRY(weir_sana_bin(sample_size, width, height, &bin, error));
 *   ... make a picture of bin.width x bin.height ...
 *   weir_resize_and_crop(picture, bin.width, bin.height, 3, width, height, out);
 *
 * Units    pixels
 * Errors   UNSUPPORTED: a sample_size without bins; the words name it
 * Threads  all functions are pure
 * Source   the tables of diffusers' SanaPipeline (PixArt-alpha's and -sigma's); resizing as
 *          torch.nn.functional.interpolate(mode="bilinear", align_corners=False, antialias=False); judged by both:
 *          tests/golden/make_sana_bins.py
 */
#ifndef WEIR_WORKER_PIPELINES_SANA_BINS_H
#define WEIR_WORKER_PIPELINES_SANA_BINS_H

#include "proto/status.h"

#include <stddef.h>

struct weir_sana_size {
    uint32_t width, height;
};

/* sample_size  of the transformer's config: 16, 32, 64, 128 for pictures of about 512, 1024, 2048 and 4096 pixels a
 *              side
 * width, height  at least 1. The nearest bin, the flattest of two that are as near */
enum weir_status weir_sana_bin(uint32_t sample_size, uint32_t width, uint32_t height, struct weir_sana_size *out,
                               struct weir_error *error);

/* How a picture is brought to a size: resized to width x height, of which the part from (left, top) is kept. */
struct weir_crop {
    uint32_t width, height, left, top;
};
/* `from` and `to` have sides of 1 to 2^20. A picture of the right size is left alone; otherwise the resized one covers
 * `to` and is as small as that allows, less a rounding.
 * diffusers rounds a side that should be exact one pixel short in 2 of 100 sizes, then slices off all but one row or
 * column of the picture; here that side has its length. */
struct weir_crop weir_crop_of(struct weir_sana_size from, struct weir_sana_size to);

/* picture f32 [from.height, from.width, channels] to out f32 [to.height, to.width, channels]; they are apart. Values
 * of -1 to 1 are within 1.8e-7 of torch's, whose sums have another order for other sizes. */
void weir_resize_and_crop(const float *picture, struct weir_sana_size from, uint32_t channels, struct weir_sana_size to,
                          float *out);

#endif
