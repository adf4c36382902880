#include "kernels/ref/ref.h"

#include <math.h>

size_t weir_ref_scratch_group_norm(const struct weir_group_norm *s)
{
    (void)s;
    return 0;
}

void weir_ref_group_norm(const struct weir_group_norm *s, const struct weir_ref_packed *layer, void *const operands[],
                         double *scratch)
{
    const float *gamma = layer->weight, *beta = layer->bias;
    const uint32_t per_group = s->channels / s->groups;
    const double count = (double)s->pixels * per_group;
    (void)scratch;

    for (uint64_t b = 0; b < (uint64_t)s->rows * s->batch; b++) {
        const float *x = (const float *)operands[WEIR_GROUP_NORM_X] + b * s->pixels * s->channels;
        float *y = (float *)operands[WEIR_GROUP_NORM_Y] + b * s->pixels * s->channels;
        for (uint32_t g = 0; g < s->groups; g++) {
            const uint32_t first = g * per_group;
            double mean = 0, variance = 0;
            for (size_t p = 0; p < s->pixels; p++) {
                for (uint32_t c = first; c < first + per_group; c++) mean += (double)x[p * s->channels + c];
            }
            mean /= count;
            for (size_t p = 0; p < s->pixels; p++) {
                for (uint32_t c = first; c < first + per_group; c++) {
                    const double away = (double)x[p * s->channels + c] - mean;
                    variance += away * away;
                }
            }
            variance /= count;
            const double scale = 1 / sqrt(variance + (double)s->eps);
            for (size_t p = 0; p < s->pixels; p++) {
                for (uint32_t c = first; c < first + per_group; c++) {
                    const double value =
                        ((double)x[p * s->channels + c] - mean) * scale * (double)gamma[c] + (double)beta[c];
                    y[p * s->channels + c] = (float)weir_ref_activation(s->silu ? WEIR_ACT_SILU : WEIR_ACT_NONE, value);
                }
            }
        }
    }
}
