/* Safetensors: any bytes as a file. What is taken must keep its promises: every tensor lies inside of the file, they
 * cover the data exactly, and every byte of them can be read and converted.
 *
 * The first eight bytes say how long the header is, so that almost every insertion would break the file at once; the
 * mutator therefore changes the header alone, and its length with it, two times of four, and once the data alone. */
#include "worker/weights.h"

#include "proto/base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define READ_BYTES_MAX 65536 /* inputs are smaller */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t count, size_t count_max);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t count, size_t count_max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t count, size_t count_max, unsigned seed)
{
    const uint64_t said = count < 8 ? 0 : weir_load_u64(bytes);
    if (seed % 4 == 0 || count < 8 || said > count - 8 || count_max <= count) {
        return LLVMFuzzerMutate(bytes, count, count_max);
    }
    const size_t header = (size_t)said, data = count - 8 - header;
    if (seed % 4 == 1 && data) return 8 + header + LLVMFuzzerMutate(bytes + 8 + header, data, count_max - 8 - header);
    uint8_t *copy = malloc(count_max);
    if (!copy) return count;
    memcpy(copy, bytes + 8, header);
    const size_t changed = LLVMFuzzerMutate(copy, header, count_max - 8 - data);
    memmove(bytes + 8 + changed, bytes + 8 + header, data);
    memcpy(bytes + 8, copy, changed);
    weir_store_u64(bytes, changed);
    free(copy);
    return 8 + changed + data;
}

static void check_tensor(void *context, const struct weir_weight *weight)
{
    struct weir_error error;
    size_t *covered = context;
    size_t elements = 1;
    for (size_t i = 0; i < weight->rank; i++) elements *= (size_t)weight->shape[i];
    if (elements != weight->elements || elements * weir_weight_dtype_bytes(weight->dtype) != weight->bytes) abort();
    *covered += weight->bytes;

    /* from the front, so that what lies beyond the input is met at its very first byte */
    volatile uint8_t last = 0;
    const uint8_t *data = weight->data;
    for (size_t i = 0; i < weight->bytes && i < READ_BYTES_MAX; i++) last = data[i];
    (void)last;
    if (weight->bytes > READ_BYTES_MAX) return;
    float *values = malloc((weight->elements + 1) * sizeof *values);
    const enum weir_status status = weir_weight_read_f32(weight, values, &error);
    if (status != WEIR_OK && status != WEIR_BAD_MODEL) abort();
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct weir_weights *weights = NULL;
    struct weir_weight weight;
    struct weir_error error = { .code = WEIR_OK };
    const enum weir_status status = weir_weights_parse(bytes, count, "fuzz", &weights, &error);
    if (status != WEIR_OK) {
        if (weights || error.code != status || strncmp(error.words, "fuzz: ", 6) != 0) abort();
        return 0;
    }
    size_t covered = 0;
    weir_weights_unused(weights, check_tensor, &covered);
    if (covered != count - 8 - (size_t)weir_load_u64(bytes) || covered != weir_weights_bytes(weights)) abort();
    (void)weir_weights_require(weights, "a", 1, (uint64_t[]){ 2 }, &weight, &error);
    weir_weights_close(&weights);
    return 0;
}
