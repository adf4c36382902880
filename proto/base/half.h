/* half: 16-bit floats to 32-bit ones, exactly, and back to bf16. Infinities stay, a NaN stays a NaN.
 *
 * Memory   `bytes` is little-endian and need not be aligned; the other side holds `count` numbers
 * Threads  any
 */
#ifndef WEIR_PROTO_BASE_HALF_H
#define WEIR_PROTO_BASE_HALF_H

#include <stddef.h>

void weir_f16_to_f32(const void *bytes, size_t count, float *out);
void weir_bf16_to_f32(const void *bytes, size_t count, float *out);
/* Rounded to nearest, half to even. */
void weir_f32_to_bf16(const float *values, size_t count, void *bytes);

#endif
