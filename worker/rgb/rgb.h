/* rgb: a picture that a request brings: read from a PNG, JPEG or WebP file in memory, and brought to a size.
 *
 * Both are done as diffusers' load_image and its VaeImageProcessor do it, with Pillow: alpha is dropped, not laid over
 * anything; what EXIF says of the way up is done; sides are resized each by itself, by Lanczos with three lobes.
 *
 *   png    any bit depth, palettes, interlaced or not; of 16 bits a channel the upper 8. Refused: 16 bits of gray alone,
 *          which Pillow cuts off at 255, so that nearly all of it turns white
 *   jpeg   of 8 bits: gray, colour, CMYK as Adobe writes it; also progressive, of at most 100 scans
 *   webp   lossy or lossless. Refused: animations
 *
 * Anybody may have written the file. A damaged one is an error, never a part of a picture.
 *
 * Units    bytes; pixels of 3 bytes, row after row from the top
 * Memory   a picture's pixels are the caller's: weir_rgb_deinit()
 * Errors   BAD_ARGUMENT with `name` in front: no picture, damaged, or of a kind that is not read; TOO_LARGE over the
 *          limits below; NO_MEMORY
 * Threads  any
 * Source   Pillow 13.0 (judges: tests/golden/make_rgb.py); Exif 2.32, tag Orientation; TIFF 6.0
 */
#ifndef WEIR_WORKER_RGB_RGB_H
#define WEIR_WORKER_RGB_RGB_H

#include "proto/status.h"

#include <stddef.h>
#include <stdint.h>

#define WEIR_RGB_FILE_BYTES_MAX ((size_t)64 << 20)
#define WEIR_RGB_SIDE_MAX 16384
#ifndef WEIR_RGB_PIXELS_MAX /* a fuzz target wants no time spent on many pixels */
#define WEIR_RGB_PIXELS_MAX 100000000u
#endif

struct weir_rgb {
    uint32_t width, height;
    uint8_t *pixels;
};

enum weir_status weir_rgb_read(const void *bytes, size_t count, const char *name, struct weir_rgb *out,
                               struct weir_error *error);
/* width, height: 1 to WEIR_RGB_SIDE_MAX. The bytes of Pillow's resize(); a copy where the size is right already. */
enum weir_status weir_rgb_resize(const struct weir_rgb *from, uint32_t width, uint32_t height, struct weir_rgb *out,
                                 struct weir_error *error);
void weir_rgb_deinit(struct weir_rgb *picture);

#endif
