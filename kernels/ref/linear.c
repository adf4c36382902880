#include "kernels/ref/ref.h"

#include <math.h>

double weir_ref_activation(enum weir_activation activation, double x)
{
    switch (activation) {
    case WEIR_ACT_NONE:
        return x;
    case WEIR_ACT_SILU:
        return x / (1 + exp(-x));
    case WEIR_ACT_GEGLU: /* of the gate */
    case WEIR_ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case WEIR_ACT_GEGLU_TANH: /* of the gate */
    case WEIR_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case WEIR_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case WEIR_ACT_RELU:
        return x < 0 ? 0 : x; /* a NaN stays one */
    }
    return x;
}

size_t weir_ref_scratch_linear(const struct weir_linear *s)
{
    return s->out;
}

void weir_ref_linear(const struct weir_linear *s, const struct weir_ref_packed *layer, void *const operands[],
                     double *sum)
{
    const float *x = operands[WEIR_LINEAR_X], *residual = operands[WEIR_LINEAR_RESIDUAL];
    const float *gate = operands[WEIR_LINEAR_GATE];
    float *y = operands[WEIR_LINEAR_Y];
    const bool geglu = weir_activation_is_gated(s->activation);
    const uint32_t width = weir_linear_width(s);

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, x += s->in, y += width) {
        for (uint32_t o = 0; o < s->out; o++) sum[o] = layer->bias ? (double)layer->bias[o] : 0;
        for (uint32_t i = 0; i < s->in; i++) {
            const double xi = weir_ref_read(layer, x[i]);
            const float *weight = layer->weight + (size_t)i * s->out;
            for (uint32_t o = 0; o < s->out; o++) sum[o] += xi * (double)weight[o];
        }
        const uint64_t row = token / s->tokens;
        for (uint32_t o = 0; o < width; o++) {
            double value = geglu ? sum[o] * weir_ref_activation(s->activation, sum[width + o])
                                 : weir_ref_activation(s->activation, sum[o]);
            if (s->gate_vectors) value *= (double)gate[(row * s->gate_vectors + s->gate_vector) * width + o];
            if (s->residual) value += (double)residual[token * width + o];
            y[o] = (float)value;
        }
    }
}
