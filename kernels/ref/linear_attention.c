#include "kernels/ref/ref.h"

/* S of a head, [head_dim + 1, head_dim]: a row for each channel of v, and the last for the 1 beside it. */
size_t weir_ref_scratch_linear_attention(const struct weir_linear_attention *s)
{
    return ((size_t)s->head_dim + 1) * s->head_dim;
}

/* One head of one frame: `x` and `y` are its first token. */
static void attend(const struct weir_linear_attention *s, const float *x, float *y, uint32_t h, double *sums)
{
    const float *q = x + (size_t)h * s->head_step + s->q_channel, *k = x + (size_t)h * s->head_step + s->k_channel;
    const float *v = x + (size_t)h * s->head_step + s->v_channel;
    const uint32_t dim = s->head_dim;
    y += (size_t)h * dim;

    for (size_t i = 0; i < ((size_t)dim + 1) * dim; i++) sums[i] = 0;
    for (size_t j = 0; j < s->pixels; j++) {
        for (uint32_t d = 0; d <= dim; d++) {
            const double value = d < dim ? (double)v[j * s->stride + d] : 1;
            for (uint32_t e = 0; e < dim; e++) {
                sums[(size_t)d * dim + e] += value * weir_ref_activation(WEIR_ACT_RELU, (double)k[j * s->stride + e]);
            }
        }
    }
    for (size_t i = 0; i < s->pixels; i++) {
        double total = 0;
        for (uint32_t d = dim + 1; d-- > 0;) { /* the last row first: it is what the others are divided by */
            double sum = 0;
            for (uint32_t e = 0; e < dim; e++) {
                sum += sums[(size_t)d * dim + e] * weir_ref_activation(WEIR_ACT_RELU, (double)q[i * s->stride + e]);
            }
            if (d == dim) {
                total = sum + (double)s->eps;
            } else {
                y[i * s->heads * dim + d] = (float)(sum / total);
            }
        }
    }
}

void weir_ref_linear_attention(const struct weir_linear_attention *s, const struct weir_ref_packed *layer,
                               void *const operands[], double *sums)
{
    const float *x = operands[WEIR_LINEAR_ATTENTION_X];
    float *y = operands[WEIR_LINEAR_ATTENTION_Y];
    (void)layer;

    for (uint64_t frame = 0; frame < (uint64_t)s->rows * s->frames; frame++) {
        for (uint32_t h = 0; h < s->heads; h++) attend(s, x, y, h, sums);
        x += (size_t)s->pixels * s->stride;
        y += (size_t)s->pixels * s->heads * s->head_dim;
    }
}
