/* ref: the judge. Every op in plain C, one file an op, with loops that read like the formula of ops.h. It never gets
 * fast.
 *
 * Products and sums run in double and are rounded to f32 once, so that what other devices are compared with is closer
 * to the true value than any f32 implementation. Only sampler_step rounds at every step, as its contract says.
 */
#ifndef WEIR_KERNELS_REF_REF_H
#define WEIR_KERNELS_REF_REF_H

#include "kernels/check.h"

/* weight, bias: see weir_parameters, copied. Linear and convolution weights are kept with `out` innermost, so that the
 * inner loops run along memory: linear [in, out], conv2d [kernel, kernel, in, out], conv_temporal [3, in, out]. Those of
 * a bf16 layer are rounded, but kept as f32. */
struct weir_ref_packed {
    struct weir_packed head;
    float *weight, *bias; /* bias NULL when absent */
    size_t bytes;
};

/* All run functions look alike: the shape is the op's struct, `scratch` holds weir_ref_scratch_<op>() doubles. */
#define X(op, OP)                                                                                                      \
    void weir_ref_##op(const struct weir_##op *shape, const struct weir_ref_packed *layer, void *const operands[],     \
                       double *scratch);                                                                               \
    size_t weir_ref_scratch_##op(const struct weir_##op *shape);
WEIR_OP_TABLE(X)
#undef X

/* The nearest bf16, half to even, as an f32; a NaN stays one. */
float weir_ref_bf16(float x);
/* x as the layer's products read it. */
static inline double weir_ref_read(const struct weir_ref_packed *layer, float x)
{
    return (double)(layer->head.dtype == WEIR_BF16 ? weir_ref_bf16(x) : x);
}

double weir_ref_activation(enum weir_activation activation, double x);

#endif
