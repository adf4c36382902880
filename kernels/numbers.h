/* numbers: what a layer is made of, as it lies in a model's file, read without a copy of it all.
 *
 * Up to four runs of equal length (a stack of tensors), one behind the other: F32, F16 or BF16, little-endian, not
 * aligned. A number counts as scale * it + offset, in f32; scale 0 means as it is, and so does all of zero.
 *
 *   const struct weir_numbers gamma = { .run = { { bytes, WEIR_F16 } }, .run_count = 1, .run_length = 64, .offset = 1 };
 *   weir_numbers_f32(&gamma, 0, 64, out);
 *
 * Memory   the runs are borrowed
 * Threads  pure
 */
#ifndef WEIR_KERNELS_NUMBERS_H
#define WEIR_KERNELS_NUMBERS_H

#include "kernels/device.h"

#define WEIR_NUMBERS_RUNS_MAX 4

struct weir_numbers {
    struct {
        const void *bytes;
        enum weir_dtype dtype; /* F32, F16 or BF16 */
    } run[WEIR_NUMBERS_RUNS_MAX];
    uint32_t run_count; /* 0: none */
    uint64_t run_length;
    float scale, offset;
};

/* `count` of them from `first` on: exactly, but for scale and offset; or rounded to the nearest bf16, half to even. */
void weir_numbers_f32(const struct weir_numbers *numbers, uint64_t first, uint64_t count, float *out);
void weir_numbers_bf16(const struct weir_numbers *numbers, uint64_t first, uint64_t count, void *out);

#endif
