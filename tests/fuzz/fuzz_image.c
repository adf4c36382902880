/* What `weir verify` and `weir-encode probe` read: pictures from anywhere. What was read from a small one and is exact
 * must be the same after it was written and read again. */
#include "worker/video_encoder/picture.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decoding 64 million pixels is slow and no other code than decoding a few thousand. */
enum { PIXELS_MAX = 1 << 20, AGAIN_PIXELS_MAX = 1 << 10 };

static void write_and_read_again(const struct weir_picture_kind *kind, const struct weir_picture *picture)
{
    const struct weir_picture_kind *found;
    struct weir_picture again;
    struct weir_error error;
    uint8_t *bytes;
    size_t count;
    const enum weir_status status = weir_picture_encode(kind, picture, &bytes, &count, &error);
    if (status == WEIR_TOO_LARGE) return; /* a receipt larger than ours are */
    if (status != WEIR_OK) abort();
    if (weir_picture_decode(bytes, count, true, &found, &again, &error) != WEIR_OK || found != kind) abort();
    if (again.width != picture->width || again.height != picture->height) abort();
    if (strcmp(again.comment ? again.comment : "", picture->comment ? picture->comment : "") != 0) abort();
    if (kind->is_exact && memcmp(again.rgb, picture->rgb, (size_t)again.width * again.height * 3) != 0) abort();
    weir_picture_deinit(&again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct weir_picture_kind *kind;
    struct weir_picture picture;
    struct weir_error error;
    uint8_t *bytes = malloc(size ? size : 1); /* exactly as long: what is read behind it is seen */
    memcpy(bytes, data, size);
    if (weir_picture_decode(bytes, size, false, &kind, &picture, &error) == WEIR_OK) {
        const uint64_t pixels = (uint64_t)picture.width * picture.height;
        weir_picture_deinit(&picture);
        if (pixels <= PIXELS_MAX && weir_picture_decode(bytes, size, true, &kind, &picture, &error) == WEIR_OK) {
            if (pixels <= AGAIN_PIXELS_MAX) write_and_read_again(kind, &picture);
            weir_picture_deinit(&picture);
        }
    }
    free(bytes);
    return 0;
}
