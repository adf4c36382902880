#include "kernels/ref/ref.h"

size_t weir_ref_scratch_low_rank(const struct weir_low_rank *s)
{
    return s->rank;
}

void weir_ref_low_rank(const struct weir_low_rank *s, const struct weir_ref_packed *layer, void *const operands[],
                       double *thin)
{
    const float *x = operands[WEIR_LOW_RANK_X], *a = operands[WEIR_LOW_RANK_A], *b = operands[WEIR_LOW_RANK_B];
    const float *gates = operands[WEIR_LOW_RANK_GATE];
    float *y = operands[WEIR_LOW_RANK_Y];
    (void)layer;

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, x += s->in, y += s->y_channels) {
        const float *gate = NULL;
        if (s->gate_vectors)
            gate = gates + (token / s->tokens * s->gate_vectors + s->gate_vector) * s->y_channels + s->channel;
        for (uint32_t k = 0; k < s->rank; k++) {
            thin[k] = 0;
            for (uint32_t i = 0; i < s->in; i++) thin[k] += (double)x[i] * (double)a[(size_t)i * s->rank + k];
        }
        for (uint32_t o = 0; o < s->out; o++) {
            double sum = 0;
            for (uint32_t k = 0; k < s->rank; k++) sum += thin[k] * (double)b[(size_t)k * s->out + o];
            if (gate) sum *= (double)gate[o];
            y[s->channel + o] = (float)((double)y[s->channel + o] + sum);
        }
    }
}
