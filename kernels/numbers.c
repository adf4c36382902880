#include "kernels/numbers.h"

#include "proto/base/half.h"

#include <assert.h>
#include <string.h>

#define BLOCK 2048 /* numbers widened at once on their way to bf16: what stays in a processor's nearest cache */

static void widen(const void *bytes, enum weir_dtype dtype, size_t count, float *out)
{
    switch (dtype) {
    case WEIR_F16:
        weir_f16_to_f32(bytes, count, out);
        break;
    case WEIR_BF16:
        weir_bf16_to_f32(bytes, count, out);
        break;
    default:
        assert(dtype == WEIR_F32);
        memcpy(out, bytes, count * sizeof *out);
        break;
    }
}

static void adjust(const struct weir_numbers *numbers, size_t count, float *values)
{
    if (numbers->scale != 0) {
        for (size_t i = 0; i < count; i++) values[i] *= numbers->scale;
    }
    if (numbers->offset != 0) {
        for (size_t i = 0; i < count; i++) values[i] += numbers->offset;
    }
}

/* Of the `count` numbers from `first` on as many as lie in one run; where they lie, and in what. */
static size_t in_one_run(const struct weir_numbers *numbers, uint64_t first, uint64_t count, const uint8_t **bytes,
                         enum weir_dtype *dtype)
{
    const uint64_t run = first / numbers->run_length, at = first % numbers->run_length;
    const uint64_t left = numbers->run_length - at;
    assert(run < numbers->run_count);
    *dtype = numbers->run[run].dtype;
    *bytes = (const uint8_t *)numbers->run[run].bytes + at * weir_dtype_bytes(*dtype);
    return (size_t)(count < left ? count : left);
}

void weir_numbers_f32(const struct weir_numbers *numbers, uint64_t first, uint64_t count, float *out)
{
    const uint8_t *bytes;
    enum weir_dtype dtype;
    for (size_t now; count > 0; first += now, count -= now, out += now) {
        now = in_one_run(numbers, first, count, &bytes, &dtype);
        widen(bytes, dtype, now, out);
        adjust(numbers, now, out);
    }
}

void weir_numbers_bf16(const struct weir_numbers *numbers, uint64_t first, uint64_t count, void *out)
{
    const bool as_it_is = numbers->scale == 0 && numbers->offset == 0;
    uint8_t *to = out;
    const uint8_t *bytes;
    enum weir_dtype dtype;
    float block[BLOCK];
    for (size_t now; count > 0; first += now, count -= now, to += 2 * now) {
        now = in_one_run(numbers, first, count, &bytes, &dtype);
        if (dtype == WEIR_BF16 && as_it_is) {
            memcpy(to, bytes, 2 * now);
            continue;
        }
        if (now > BLOCK) now = BLOCK;
        widen(bytes, dtype, now, block);
        adjust(numbers, now, block);
        weir_f32_to_bf16(block, now, to);
    }
}
