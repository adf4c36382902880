/* Packing of layers: to the layouts and precisions that the kernels read. */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static bool is_product(enum weir_op op)
{
    return op == WEIR_OP_LINEAR || op == WEIR_OP_GROUPED_LINEAR || op == WEIR_OP_CONV2D || op == WEIR_OP_CONV_TEMPORAL;
}

/* What the weight is kept as. */
static enum weir_dtype weight_dtype(const struct weir_parameters *q)
{
    return is_product(q->op) || q->op == WEIR_OP_EMBED ? q->dtype : WEIR_F32;
}

uint32_t weir_cuda_conv_rows(uint32_t out, enum weir_dtype dtype)
{
    return dtype == WEIR_BF16 && out % 4 != 0 ? (out + 7) / 8 * 8 : out;
}

static uint64_t weight_room(const struct weir_parameters *q)
{
    const uint64_t count = weir_weight_count(q);
    return q->op == WEIR_OP_CONV2D ? count / q->out * weir_cuda_conv_rows(q->out, q->dtype) : count;
}

/* f32 to the upper half of its bits, rounded to nearest even; a NaN stays one. */
static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t nan = bits >> 16 | 0x40, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

static void to_bf16(const float *from, uint64_t count, char *to)
{
    uint16_t *values = (uint16_t *)(void *)to;
    for (uint64_t i = 0; i < count; i++) values[i] = bf16_of(from[i]);
}

/* Where the parts of a layer lie in its memory. */
struct places {
    size_t bias, bias_bf16, end;
    bool has_bf16;
};

static struct places places_of(const struct weir_parameters *q)
{
    struct places at = { .has_bf16 = q->op == WEIR_OP_LINEAR && q->dtype == WEIR_BF16 && q->bias };
    at.bias = weir_cuda_aligned(weight_room(q) * weir_dtype_bytes(weight_dtype(q)));
    at.bias_bf16 = at.bias + weir_cuda_aligned(weir_bias_count(q) * sizeof(float));
    at.end = at.bias_bf16 + (at.has_bf16 ? weir_cuda_aligned(weir_bias_count(q) * sizeof(uint16_t)) : 0);
    return at;
}

/* The weight in the order that kernels read: [out, in, taps] -> [out, taps, in], or [C, taps] -> [taps, C]. */
static void reorder(const struct weir_parameters *q, float *to)
{
    if (q->op == WEIR_OP_DEPTHWISE_CONV) {
        const uint64_t taps = (uint64_t)q->kernel * q->kernel;
        for (uint64_t c = 0; c < q->out; c++) {
            for (uint64_t k = 0; k < taps; k++) to[k * q->out + c] = q->weight[c * taps + k];
        }
        return;
    }
    const uint64_t taps = q->op == WEIR_OP_CONV2D ? (uint64_t)q->kernel * q->kernel : 3;
    for (uint64_t o = 0; o < q->out; o++) {
        const float *from = q->weight + o * q->in * taps;
        for (uint64_t k = 0; k < taps; k++) {
            for (uint64_t i = 0; i < q->in; i++) *to++ = from[i * taps + k];
        }
    }
}

/* A layer in host memory as it will lie on the device; NULL when there is no memory. */
static char *arrange(const struct weir_parameters *q, const struct places *at)
{
    const uint64_t weight_count = weir_weight_count(q);
    const bool reordered = q->op == WEIR_OP_DEPTHWISE_CONV || q->op == WEIR_OP_CONV2D || q->op == WEIR_OP_CONV_TEMPORAL;
    float *ordered = reordered ? malloc(weight_count * sizeof *ordered) : NULL;
    char *image = malloc(at->end);
    if (!image || (reordered && !ordered)) {
        free(ordered);
        free(image);
        return NULL;
    }
    if (reordered) reorder(q, ordered);
    const float *weight = reordered ? ordered : q->weight;
    if (weight_dtype(q) == WEIR_BF16) {
        to_bf16(weight, weight_count, image);
        memset(image + weight_count * sizeof(uint16_t), 0, (weight_room(q) - weight_count) * sizeof(uint16_t));
    } else {
        memcpy(image, weight, weight_count * sizeof *weight);
    }
    if (q->bias) memcpy(image + at->bias, q->bias, weir_bias_count(q) * sizeof(float));
    if (at->has_bf16) to_bf16(q->bias, weir_bias_count(q), image + at->bias_bf16);
    free(ordered);
    return image;
}

enum weir_status weir_cuda_pack(struct weir_device *device, const struct weir_parameters *q, struct weir_packed **out,
                                struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda *cuda = (struct weir_cuda *)device;
    struct weir_cuda_packed *packed = NULL;
    char *image = NULL;

    WEIR_TRY(weir_check_parameters(q, error));
    const struct places at = places_of(q);
    packed = calloc(1, sizeof *packed);
    if (!packed) {
        status = weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a layer");
        goto cleanup;
    }
    weir_packed_head(&packed->head, device, q);
    packed->bytes = at.end;
    if (!q->shape_only) {
        image = arrange(q, &at);
        if (!image) {
            status = weir_fail(error, WEIR_NO_MEMORY, "device cuda: no host memory for %zu bytes of weights", at.end);
            goto cleanup;
        }
        WEIR_TRY(device->table->memory_alloc(device, at.end, &packed->memory, error));
        packed->weight = packed->memory;
        if (q->bias) packed->bias = (float *)(void *)((char *)packed->memory + at.bias);
        if (at.has_bf16) packed->bias_bf16 = (char *)packed->memory + at.bias_bf16;
        pthread_mutex_lock(&cuda->planning);
        cudaError_t fault = cudaMemcpyAsync(packed->memory, image, at.end, cudaMemcpyHostToDevice, cuda->uploads);
        if (fault == cudaSuccess) fault = cudaStreamSynchronize(cuda->uploads);
        pthread_mutex_unlock(&cuda->planning);
        WEIR_TRY(weir_cuda_check(fault, "copying weights to the GPU", error));
    }
    *out = &packed->head;
    packed = NULL;

cleanup:
    free(image);
    if (packed) weir_cuda_packed_destroy(&packed->head);
    return status;
}

void weir_cuda_packed_destroy(struct weir_packed *head)
{
    struct weir_cuda_packed *packed = (struct weir_cuda_packed *)head;
    if (!packed) return;
    if (packed->memory) head->device->table->memory_free(head->device, packed->memory);
    free(packed);
}

size_t weir_cuda_packed_bytes(const struct weir_packed *head)
{
    return ((const struct weir_cuda_packed *)head)->bytes;
}
