#include "kernels/ref/ref.h"

#include <math.h>

size_t weir_ref_scratch_rms_norm(const struct weir_rms_norm *s)
{
    (void)s;
    return 0;
}

void weir_ref_rms_norm(const struct weir_rms_norm *s, const struct weir_ref_packed *layer, void *const operands[],
                       double *scratch)
{
    const float *x = operands[WEIR_RMS_NORM_X], *residual = operands[WEIR_RMS_NORM_RESIDUAL];
    float *y = operands[WEIR_RMS_NORM_Y];
    (void)scratch;

    for (uint64_t l = 0; l < (uint64_t)s->rows * s->tokens; l++) {
        for (uint32_t p = 0; p < s->parts; p++, x += s->channels, y += s->channels) {
            const float *gamma = layer->weight + p * s->channels;
            const float *beta = layer->bias ? layer->bias + p * s->channels : NULL;
            double square = 0;
            for (uint32_t c = 0; c < s->channels; c++) square += (double)x[c] * (double)x[c];
            const double scale = 1 / sqrt(square / s->channels + (double)s->eps);
            for (uint32_t c = 0; c < s->channels; c++) {
                double value = (double)x[c] * scale * (double)gamma[c];
                if (beta) value += (double)beta[c];
                value = weir_ref_activation(s->activation, value);
                if (s->residual) value += (double)residual[l * s->channels + c];
                y[c] = (float)value;
            }
        }
        for (uint32_t c = 0; c < s->rest; c++) *y++ = *x++;
    }
}
