/* half: 16-bit floats to 32-bit ones, exactly. Infinities stay, a NaN stays a NaN.
 *
 * Memory   `bytes` is little-endian and need not be aligned; `out` holds `count` floats
 * Threads  any
 */
#ifndef WEIR_WORKER_HALF_H
#define WEIR_WORKER_HALF_H

#include <stddef.h>

void weir_f16_to_f32(const void *bytes, size_t count, float *out);
void weir_bf16_to_f32(const void *bytes, size_t count, float *out);

#endif
