#include "kernels/ref/ref.h"

size_t weir_ref_scratch_regroup(const struct weir_regroup *s)
{
    (void)s;
    return 0;
}

void weir_ref_regroup(const struct weir_regroup *s, const struct weir_ref_packed *layer, void *const operands[],
                      double *scratch)
{
    const float *x = operands[WEIR_REGROUP_X];
    float *y = operands[WEIR_REGROUP_Y];
    const uint32_t copies = s->out / s->in, together = s->in / s->out; /* one of them is 0 but when both are 1 */
    (void)layer;
    (void)scratch;

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, x += s->in, y += s->out) {
        for (uint32_t c = 0; c < s->out; c++) {
            if (copies) {
                y[c] = x[c / copies];
                continue;
            }
            double sum = 0;
            for (uint32_t k = 0; k < together; k++) sum += (double)x[(size_t)c * together + k];
            y[c] = (float)(sum / together);
        }
    }
}
