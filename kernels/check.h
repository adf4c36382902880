/* check: which shapes an op takes. All devices ask here, so that all refuse the same ones with the same words.
 *
 * Errors   BAD_SHAPE, in words: the op, the layer's name when there is one, the dimension and its bounds. UNSUPPORTED:
 *          a dtype that no device takes. A device may refuse more (a dtype it has no kernels for)
 * Threads  pure
 */
#ifndef WEIR_KERNELS_CHECK_H
#define WEIR_KERNELS_CHECK_H

#include "kernels/ops.h"

#define WEIR_TENSOR_ELEMENTS_MAX ((uint64_t)1 << 40) /* of any operand: offsets in bytes never overflow 64 bits */
#define WEIR_DIMENSION_MAX ((uint32_t)1 << 30)       /* of any single dimension: sums of two never overflow 32 bits */

/* The shape's products, already known to be small enough. */
struct weir_conv2d_size {
    uint32_t source_height, source_width; /* after the resize */
    uint32_t height, width;               /* of y */
};
struct weir_conv2d_size weir_conv2d_size_of(const struct weir_conv2d *shape);

bool weir_activation_is_gated(enum weir_activation activation);  /* GEGLU, GEGLU_TANH */
uint32_t weir_linear_width(const struct weir_linear *shape);     /* channels of y, residual and gate */
uint32_t weir_rms_norm_width(const struct weir_rms_norm *shape); /* channels of x and y */

enum weir_status weir_check_parameters(const struct weir_parameters *parameters, struct weir_error *error);

#define X(op, OP)                                                                                                      \
    enum weir_status weir_check_##op(const struct weir_packed *packed, const struct weir_##op *shape,                  \
                                     struct weir_error *error);
WEIR_OP_TABLE(X)
#undef X

/* a * b * ... without overflow; false when over WEIR_TENSOR_ELEMENTS_MAX or when a factor is 0. */
bool weir_elements(const uint32_t *factors, size_t count, uint64_t *out);

/* Bytes of `weight` (or gamma, or table) and `bias` (or beta, or positions) in floats. After weir_check_parameters. */
uint64_t weir_weight_count(const struct weir_parameters *parameters);
uint64_t weir_bias_count(const struct weir_parameters *parameters);

/* Fills the head that all devices share. */
void weir_packed_head(struct weir_packed *head, struct weir_device *device, const struct weir_parameters *parameters);

#endif
