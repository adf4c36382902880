#include "kernels/ref/ref.h"

#include <math.h>

size_t weir_ref_scratch_modulated_norm(const struct weir_modulated_norm *s)
{
    (void)s;
    return 0;
}

void weir_ref_modulated_norm(const struct weir_modulated_norm *s, const struct weir_ref_packed *layer,
                             void *const operands[], double *scratch)
{
    const float *x = operands[WEIR_MODULATED_NORM_X];
    float *y = operands[WEIR_MODULATED_NORM_Y];
    (void)layer;
    (void)scratch;

    for (uint64_t l = 0; l < (uint64_t)s->rows * s->tokens; l++, x += s->channels, y += s->channels) {
        const float *m = (const float *)operands[WEIR_MODULATED_NORM_M] + l / s->tokens * s->vectors * s->channels;
        const float *by = m + (size_t)s->scale * s->channels, *shift = m + (size_t)s->shift * s->channels;
        double mean = 0, variance = 0;
        for (uint32_t c = 0; c < s->channels; c++) mean += (double)x[c];
        mean /= s->channels;
        for (uint32_t c = 0; c < s->channels; c++) variance += ((double)x[c] - mean) * ((double)x[c] - mean);
        variance /= s->channels;
        const double scale = 1 / sqrt(variance + (double)s->eps);
        for (uint32_t c = 0; c < s->channels; c++) {
            y[c] = (float)(((double)x[c] - mean) * scale * (1 + (double)by[c]) + (double)shift[c]);
        }
    }
}
