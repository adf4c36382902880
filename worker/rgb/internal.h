/* What the readers of pictures share. A reader fills `out`, whose pixels are NULL before, and the way up: the number of
 * EXIF, 1 where nobody says. On an error the pixels, if any, are freed by who called it; the words do not name the
 * file. */
#ifndef WEIR_WORKER_RGB_INTERNAL_H
#define WEIR_WORKER_RGB_INTERNAL_H

#include "worker/rgb/rgb.h"

/* Checks the sizes against the limits and takes the memory. */
enum weir_status weir_rgb_alloc(uint64_t width, uint64_t height, struct weir_rgb *out, struct weir_error *error);

/* The way up that a TIFF structure says, 1 to 8; 1 where it is damaged or says nothing. */
unsigned weir_rgb_orientation(const uint8_t *tiff, size_t count);

enum weir_status weir_rgb_read_jpeg(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                    struct weir_error *error);
enum weir_status weir_rgb_read_png(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                   struct weir_error *error);
enum weir_status weir_rgb_read_webp(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                    struct weir_error *error);

#endif
