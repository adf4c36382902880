#include "kernels/ref/ref.h"

size_t weir_ref_scratch_depthwise_conv(const struct weir_depthwise_conv *s)
{
    (void)s;
    return 0;
}

/* Channel c of the pixel at (v, u) of one image. */
static double window_sum(const struct weir_depthwise_conv *s, const struct weir_ref_packed *layer, const float *image,
                         uint32_t v, uint32_t u, uint32_t c)
{
    const int64_t pad = s->kernel / 2;
    double sum = layer->bias ? (double)layer->bias[c] : 0;
    for (uint32_t ky = 0; ky < s->kernel; ky++) {
        for (uint32_t kx = 0; kx < s->kernel; kx++) {
            const int64_t row = (int64_t)v + ky - pad, column = (int64_t)u + kx - pad;
            if (row < 0 || row >= s->height || column < 0 || column >= s->width) continue;
            const size_t pixel = (size_t)row * s->width + (size_t)column;
            sum += (double)layer->weight[((size_t)c * s->kernel + ky) * s->kernel + kx] *
                   weir_ref_activation(s->activation, (double)image[pixel * s->channels + c]);
        }
    }
    return sum;
}

void weir_ref_depthwise_conv(const struct weir_depthwise_conv *s, const struct weir_ref_packed *layer,
                             void *const operands[], double *scratch)
{
    const float *image = operands[WEIR_DEPTHWISE_CONV_X];
    float *y = operands[WEIR_DEPTHWISE_CONV_Y];
    const uint32_t width = s->glu ? s->channels / 2 : s->channels; /* of y */
    (void)scratch;

    for (uint64_t i = 0; i < (uint64_t)s->rows * s->frames; i++) {
        for (uint32_t v = 0; v < s->height; v++) {
            for (uint32_t u = 0; u < s->width; u++, y += width) {
                for (uint32_t c = 0; c < width; c++) {
                    double value = window_sum(s, layer, image, v, u, c);
                    if (s->glu) {
                        value *= weir_ref_activation(WEIR_ACT_SILU, window_sum(s, layer, image, v, u, width + c));
                    }
                    y[c] = (float)value;
                }
            }
        }
        image += (size_t)s->height * s->width * s->channels;
    }
}
