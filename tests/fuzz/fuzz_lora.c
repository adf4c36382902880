/* Adapters: any bytes as a LoRA file for a small network. What is taken must keep its promises: it names linears that the
 * network has, in rising order, its matrices can be laid out, and what they are made of is finite.
 *
 * The mutator knows where a safetensors header ends: see fuzz_safetensors.c. */
#include "worker/nets/lora.h"

#include "proto/base/bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t count, size_t count_max);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t count, size_t count_max, unsigned seed);

static struct weir_device *device;
static struct weir_params *params;

/* The network of tests/golden/make_lora_seeds.py. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct weir_linear_params one = { .in = 6, .out = 4 };
    const struct weir_linear_params stack = { .in = 6, .out = 8, .parts = 2, .part = { "to_q", "to_k" } };
    (void)argc, (void)argv;
    if (weir_device_open("ref", 1, &device, NULL) != WEIR_OK) abort();
    if (weir_params_create(device, NULL, WEIR_F32, &params, NULL) != WEIR_OK) abort();
    weir_params_linear(params, &stack, "blocks.0.attn1");
    weir_params_linear(params, &one, "blocks.0.attn1.to_out.0");
    weir_params_linear(params, &one, "proj_out");
    weir_params_conv2d(params, &(struct weir_conv2d_params){ .in = 6, .out = 4, .kernel = 3 }, "conv_in");
    if (weir_params_status(params, NULL) != WEIR_OK) abort();
    return 0;
}

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

static void check_shape(const struct weir_lora *lora, const struct weir_adapter_shape *shape)
{
    if (shape->count == 0 || shape->count > weir_params_part_count(params)) abort();
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct weir_adapter_part *part = &shape->parts[i];
        if (part->part >= weir_params_part_count(params) || (i && part->part <= part[-1].part)) abort();
        if (part->rank == 0 || part->rank > WEIR_LORA_RANK_MAX) abort();
        if (!isfinite(weir_lora_scale(lora, part->part))) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct weir_lora *lora = NULL;
    struct weir_error error = { .code = WEIR_OK };
    const enum weir_status status = weir_lora_parse(bytes, count, "fuzz", params, &lora, &error);
    if (status != WEIR_OK) {
        if (lora || error.code != status || strncmp(error.words, "fuzz: ", 6) != 0) abort();
        if (status != WEIR_BAD_FILE && status != WEIR_UNSUPPORTED && status != WEIR_TOO_LARGE) abort();
        return 0;
    }
    const struct weir_lora_use use = { lora, 0.5 };
    struct weir_adapter_shape shape;
    if (weir_lora_shape(&use, 1, &shape, &error) != WEIR_OK) abort();
    check_shape(lora, &shape);
    float *factors = malloc((size_t)weir_adapter_floats(params, &shape) * sizeof *factors);
    if (!factors) abort();
    weir_lora_write(params, &use, 1, &shape, factors);
    const struct weir_adapter_place place =
        weir_adapter_place(weir_params_part_at(params, shape.parts[0].part), shape.parts[0].rank, 0);
    for (uint64_t i = 0; i < place.b; i++) {
        if (!isfinite(factors[i])) abort();
    }
    free(factors);
    weir_lora_shape_free(&shape);
    weir_lora_destroy(&lora);
    return 0;
}
