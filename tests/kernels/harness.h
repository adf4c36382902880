/* harness: what the kernel tests share: one op on one device in one call.
 *
 * run_op takes operands in the device's memory, which on ref and cpu is the host's: there they are plain arrays.
 */
#ifndef WEIR_TESTS_KERNELS_HARNESS_H
#define WEIR_TESTS_KERNELS_HARNESS_H

#include "kernels/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static inline struct weir_device *open_device(const char *name, int threads)
{
    struct weir_device *device = NULL;
    struct weir_error error = { 0 };
    if (weir_device_open(name, threads, &device, &error) != WEIR_OK) fail_msg("%s: %s", name, error.words);
    return device;
}

/* A layer, or NULL with a failed test. */
static inline struct weir_packed *pack_layer(struct weir_device *device, const struct weir_parameters *parameters)
{
    struct weir_packed *packed = NULL;
    struct weir_error error = { 0 };
    if (device->ops->pack(device, parameters, &packed, &error) != WEIR_OK) fail_msg("pack: %s", error.words);
    return packed;
}

/* What is read before it is written shows. */
static inline void fill_with_nan(struct weir_stream *stream, void *memory, size_t bytes)
{
    struct weir_error error = { 0 };
    void *nan = malloc(bytes ? bytes : 1);
    assert_non_null(nan);
    memset(nan, 0xff, bytes);
    assert_int_equal(stream->device->table->upload(stream, memory, nan, bytes), WEIR_OK);
    assert_int_equal(stream->device->table->stream_sync(stream, &error), WEIR_OK);
    free(nan);
}

/* Plans, runs and forgets one op. */
static inline void run_op(struct weir_device *device, enum weir_op op, const struct weir_packed *packed,
                          const void *shape, void *const operands[])
{
    struct weir_error error = { 0 };
    struct weir_plan *plan = NULL;
    struct weir_stream *stream = NULL;
    void *workspace = NULL;
    size_t workspace_bytes = 0;

    if (device->ops->plan[op](device, packed, shape, &plan, &workspace_bytes, &error) != WEIR_OK) {
        fail_msg("plan of %s: %s", weir_op_name(op), error.words);
    }
    assert_int_equal(device->table->stream_create(device, &stream, &error), WEIR_OK);
    assert_int_equal(device->table->memory_alloc(device, workspace_bytes, &workspace, &error), WEIR_OK);
    fill_with_nan(stream, workspace, workspace_bytes);
    assert_int_equal(device->ops->run(plan, stream, operands, workspace), WEIR_OK);
    assert_int_equal(device->table->stream_sync(stream, &error), WEIR_OK);
    device->table->memory_free(device, workspace);
    device->table->stream_destroy(stream);
    device->ops->plan_destroy(plan);
}

/* The same with a layer made of `parameters` for this call. */
static inline void run_layer(struct weir_device *device, const struct weir_parameters *parameters, const void *shape,
                             void *const operands[])
{
    struct weir_packed *packed = pack_layer(device, parameters);
    run_op(device, parameters->op, packed, shape, operands);
    device->ops->packed_destroy(packed);
}

/* A small generator (xorshift64*), so that a printed seed repeats a failure. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* Roughly normal: the sum of four uniform 16-bit numbers, scaled to variance 1. */
static inline float random_normal(uint64_t *state)
{
    const uint64_t bits = next_random(state);
    const uint64_t sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    return ((float)sum * 0x1p-16f - 2.0f) * 1.7320508f;
}

static inline float *random_floats(uint64_t *state, size_t count, float scale)
{
    float *values =
        aligned_alloc(WEIR_ALIGNMENT, (count * sizeof(float) + WEIR_ALIGNMENT) / WEIR_ALIGNMENT * WEIR_ALIGNMENT);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) values[i] = scale * random_normal(state);
    return values;
}

/* |a - b| / |b|, both as vectors. */
static inline double relative_error(const float *a, const float *b, size_t count)
{
    double away = 0, length = 0;
    for (size_t i = 0; i < count; i++) {
        away += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        length += (double)b[i] * (double)b[i];
    }
    return sqrt(away) / (length > 0 ? sqrt(length) : 1);
}

#endif
