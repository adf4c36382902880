#include "kernels/ref/ref.h"

size_t weir_ref_scratch_pixel_shuffle(const struct weir_pixel_shuffle *s)
{
    (void)s;
    return 0;
}

void weir_ref_pixel_shuffle(const struct weir_pixel_shuffle *s, const struct weir_ref_packed *layer,
                            void *const operands[], double *scratch)
{
    const float *x = operands[WEIR_PIXEL_SHUFFLE_X], *residual = operands[WEIR_PIXEL_SHUFFLE_RESIDUAL];
    float *y = operands[WEIR_PIXEL_SHUFFLE_Y];
    const uint64_t copies = 4 * (uint64_t)s->out / s->in;
    (void)layer;
    (void)scratch;

    size_t at = 0; /* in y and residual */
    for (uint64_t image = 0; image < (uint64_t)s->rows * s->frames; image++) {
        for (uint64_t v = 0; v < 2 * (uint64_t)s->height; v++) {
            for (uint64_t u = 0; u < 2 * (uint64_t)s->width; u++) {
                const float *pixel = x + ((image * s->height + v / 2) * s->width + u / 2) * s->in;
                for (uint32_t c = 0; c < s->out; c++, at++) {
                    const float value = pixel[(4 * (uint64_t)c + 2 * (v % 2) + u % 2) / copies];
                    y[at] = s->residual ? value + residual[at] : value;
                }
            }
        }
    }
}
