/* What a denoise task reads of a request: control and start images from anywhere. A small one is resized as well: up one
 * way, down the other. */
#include "worker/rgb/rgb.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RESIZED_PIXELS_MAX = 1 << 12, SIDE = 37 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_rgb picture, resized;
    struct weir_error error = { 0 };
    uint8_t *bytes = malloc(size ? size : 1); /* exactly as long: what is read behind it is seen */
    memcpy(bytes, data, size);
    const enum weir_status status = weir_rgb_read(bytes, size, "a picture", &picture, &error);
    if (status != WEIR_OK && (picture.pixels || error.words[0] == '\0')) abort();
    if (status == WEIR_OK && picture.width * picture.height <= RESIZED_PIXELS_MAX) {
        if (weir_rgb_resize(&picture, SIDE, picture.height / 2 + 1, &resized, &error) != WEIR_OK) abort();
        weir_rgb_deinit(&resized);
    }
    if (status == WEIR_OK) weir_rgb_deinit(&picture);
    free(bytes);
    return 0;
}
