#include "kernels/ref/ref.h"

size_t weir_ref_scratch_grouped_linear(const struct weir_grouped_linear *s)
{
    (void)s;
    return 0;
}

void weir_ref_grouped_linear(const struct weir_grouped_linear *s, const struct weir_ref_packed *layer,
                             void *const operands[], double *scratch)
{
    const float *x = operands[WEIR_GROUPED_LINEAR_X];
    float *y = operands[WEIR_GROUPED_LINEAR_Y];
    const uint32_t in = s->in / s->groups, out = s->out / s->groups; /* of a group */
    (void)scratch;

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, x += s->in, y += s->out) {
        for (uint32_t o = 0; o < s->out; o++) {
            const float *weight = layer->weight + (size_t)o * in, *group = x + (size_t)(o / out) * in;
            double sum = 0;
            for (uint32_t i = 0; i < in; i++) sum += (double)weight[i] * (double)group[i];
            y[o] = (float)sum;
        }
    }
}
