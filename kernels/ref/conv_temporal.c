#include "kernels/ref/ref.h"

size_t weir_ref_scratch_conv_temporal(const struct weir_conv_temporal *s)
{
    return s->out;
}

void weir_ref_conv_temporal(const struct weir_conv_temporal *s, const struct weir_ref_packed *layer,
                            void *const operands[], double *sum)
{
    const float *x = operands[WEIR_CONV_TEMPORAL_X], *residual = operands[WEIR_CONV_TEMPORAL_RESIDUAL];
    float *y = operands[WEIR_CONV_TEMPORAL_Y];

    size_t at = 0; /* token, counted over rows, frames and pixels */
    for (uint32_t r = 0; r < s->rows; r++) {
        for (uint32_t t = 0; t < s->frames; t++) {
            for (uint32_t p = 0; p < s->pixels; p++, at++) {
                for (uint32_t o = 0; o < s->out; o++) {
                    sum[o] = layer->bias ? (double)layer->bias[o] : 0;
                    if (s->residual) sum[o] += (double)residual[at * s->out + o];
                }
                for (uint32_t k = 0; k < 3; k++) {
                    if (t + k < 1 || t + k - 1 >= s->frames) continue;
                    const float *token = x + (at + (size_t)k * s->pixels - s->pixels) * s->in;
                    const float *weight = layer->weight + (size_t)k * s->in * s->out;
                    for (uint32_t i = 0; i < s->in; i++, weight += s->out) {
                        const double xi = weir_ref_read(layer, token[i]);
                        for (uint32_t o = 0; o < s->out; o++) sum[o] += xi * (double)weight[o];
                    }
                }
                for (uint32_t o = 0; o < s->out; o++) y[at * s->out + o] = (float)sum[o];
            }
        }
    }
}
