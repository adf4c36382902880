#include "kernels/ref/ref.h"

size_t weir_ref_scratch_pixel_unshuffle(const struct weir_pixel_unshuffle *s)
{
    (void)s;
    return 0;
}

/* Number k of the 4 * in channels of the picture of half size, at its pixel (v, u). */
static double unshuffled(const struct weir_pixel_unshuffle *s, const float *image, uint64_t v, uint64_t u, uint64_t k)
{
    const uint64_t row = 2 * v + k % 4 / 2, column = 2 * u + k % 2;
    return (double)image[(row * s->width + column) * s->in + k / 4];
}

void weir_ref_pixel_unshuffle(const struct weir_pixel_unshuffle *s, const struct weir_ref_packed *layer,
                              void *const operands[], double *scratch)
{
    const float *image = operands[WEIR_PIXEL_UNSHUFFLE_X], *residual = operands[WEIR_PIXEL_UNSHUFFLE_RESIDUAL];
    float *y = operands[WEIR_PIXEL_UNSHUFFLE_Y];
    const uint64_t together = 4 * (uint64_t)s->in / s->out;
    (void)layer;
    (void)scratch;

    size_t at = 0; /* in y and residual */
    for (uint64_t i = 0; i < (uint64_t)s->rows * s->frames; i++) {
        for (uint64_t v = 0; v < s->height / 2; v++) {
            for (uint64_t u = 0; u < s->width / 2; u++) {
                for (uint32_t o = 0; o < s->out; o++, at++) {
                    double sum = 0;
                    for (uint64_t k = 0; k < together; k++) sum += unshuffled(s, image, v, u, o * together + k);
                    sum /= (double)together;
                    if (s->residual) sum += (double)residual[at];
                    y[at] = (float)sum;
                }
            }
        }
        image += (size_t)s->height * s->width * s->in;
    }
}
