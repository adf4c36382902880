/* Packing of layers: to the layouts and precisions that the kernels read. */
#include "kernels/cuda/cuda.h"

#include "proto/base/half.h"

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

/* Numbers of the four kernels of 2 x 2, or none. */
static uint64_t doubled_count(const struct weir_parameters *q)
{
    return q->doubled && q->dtype == WEIR_BF16 ? 16 * (uint64_t)q->out * q->in : 0;
}

/* Numbers of a row: what keeps its order is a row a number. */
static uint64_t row_numbers(const struct weir_parameters *q)
{
    switch (q->op) {
    case WEIR_OP_CONV2D:
        return (uint64_t)q->in * q->kernel * q->kernel;
    case WEIR_OP_CONV_TEMPORAL:
        return (uint64_t)q->in * 3;
    case WEIR_OP_DEPTHWISE_CONV:
        return weir_weight_count(q);
    default:
        return 1;
    }
}

struct weir_cuda_image weir_cuda_image_of(const struct weir_parameters *q)
{
    struct weir_cuda_image image = { .q = *q, .row_numbers = row_numbers(q) };
    const bool has_bf16 = q->op == WEIR_OP_LINEAR && q->dtype == WEIR_BF16 && q->bias;
    image.q.name = NULL;
    image.dtype = weight_dtype(q);
    image.rows = weir_weight_count(q) / image.row_numbers;
    image.row_bytes = image.row_numbers * weir_dtype_bytes(image.dtype);
    image.tail = image.rows * image.row_bytes;
    image.bias = weir_cuda_aligned(weight_room(q) * weir_dtype_bytes(image.dtype));
    image.bias_bf16 = image.bias + weir_cuda_aligned(weir_bias_count(q) * sizeof(float));
    image.doubled = image.bias_bf16 + (has_bf16 ? weir_cuda_aligned(weir_bias_count(q) * sizeof(uint16_t)) : 0);
    image.end = image.doubled + weir_cuda_aligned(doubled_count(q) * sizeof(uint16_t));
    return image;
}

size_t weir_cuda_image_scratch(const struct weir_cuda_image *image)
{
    return image->row_numbers > 1 ? 2 * image->row_numbers : 0;
}

/* [in, taps] of one output -> [taps, in]; [C, taps] -> [taps, C]. */
static void reorder(const struct weir_parameters *q, uint64_t numbers, const float *from, float *to)
{
    const uint64_t channels = q->op == WEIR_OP_DEPTHWISE_CONV ? q->out : q->in, taps = numbers / channels;
    for (uint64_t k = 0; k < taps; k++) {
        for (uint64_t c = 0; c < channels; c++) *to++ = from[c * taps + k];
    }
}

void weir_cuda_image_rows(const struct weir_cuda_image *image, const struct weir_numbers *weight, uint64_t first,
                          uint64_t count, float *scratch, void *to)
{
    const uint64_t numbers = image->row_numbers;
    char *at = to;
    if (numbers == 1) {
        if (image->dtype == WEIR_BF16)
            weir_numbers_bf16(weight, first, count, to);
        else
            weir_numbers_f32(weight, first, count, to);
        return;
    }
    for (uint64_t row = first; row < first + count; row++, at += image->row_bytes) {
        float *ordered = image->dtype == WEIR_BF16 ? scratch + numbers : (float *)(void *)at;
        weir_numbers_f32(weight, row * numbers, numbers, scratch);
        reorder(&image->q, numbers, scratch, ordered);
        if (image->dtype == WEIR_BF16) weir_f32_to_bf16(ordered, numbers, at);
    }
}

void weir_cuda_image_tail(const struct weir_cuda_image *image, const struct weir_numbers *bias, void *to)
{
    const uint64_t count = weir_bias_count(&image->q);
    char *at = to;
    memset(at, 0, image->end - image->tail);
    if (count == 0) return;
    weir_numbers_f32(bias, 0, count, (float *)(void *)(at + (image->bias - image->tail)));
    if (image->bias_bf16 < image->doubled) weir_numbers_bf16(bias, 0, count, at + (image->bias_bf16 - image->tail));
}

/* The kernel of 3 x 3 behind a resize to twice the size, [out, in, 3, 3], as four of 2 x 2, [4, out, 2, 2, in], one for
 * each parity of y's rows and columns: taps that fall on the same pixel are summed, in the order of ky and kx. Even
 * rows see the pixel above and, twice, their own; odd ones twice their own and the one below. `sums`: `in` floats. */
static void write_doubled(const struct weir_parameters *q, float *sums, void *to)
{
    char *at = to;
    for (uint64_t i = 0; i < 4 * (uint64_t)q->out; i++) {
        const uint32_t odd_y = (uint32_t)(i / q->out / 2), odd_x = (uint32_t)(i / q->out % 2);
        const float *row = q->weight + i % q->out * 9 * q->in;
        for (uint32_t tap = 0; tap < 4; tap++, at += q->in * sizeof(uint16_t)) {
            memset(sums, 0, q->in * sizeof *sums);
            for (uint32_t k = 0; k < 9; k++) {
                if ((k / 3 > odd_y) != tap / 2 || (k % 3 > odd_x) != tap % 2) continue;
                for (uint32_t c = 0; c < q->in; c++) sums[c] += row[c * 9 + k];
            }
            weir_f32_to_bf16(sums, q->in, at);
        }
    }
}

/* A layer in host memory as it will lie on the device; NULL when there is no memory. */
static char *arrange(const struct weir_parameters *q, const struct weir_cuda_image *image)
{
    const uint64_t weight_count = weir_weight_count(q), bias_count = weir_bias_count(q);
    const struct weir_numbers weight = { .run = { { q->weight, WEIR_F32 } },
                                         .run_count = 1,
                                         .run_length = weight_count };
    const struct weir_numbers bias = { .run = { { q->bias, WEIR_F32 } }, .run_count = 1, .run_length = bias_count };
    float *scratch = malloc((weir_cuda_image_scratch(image) + q->in + 1) * sizeof *scratch);
    char *bytes = aligned_alloc(WEIR_ALIGNMENT, image->end);
    if (scratch && bytes) {
        weir_cuda_image_rows(image, &weight, 0, image->rows, scratch, bytes);
        weir_cuda_image_tail(image, &bias, bytes + image->tail);
        if (doubled_count(q)) write_doubled(q, scratch, bytes + image->doubled);
    } else {
        free(bytes);
        bytes = NULL;
    }
    free(scratch);
    return bytes;
}

enum weir_status weir_cuda_packed_create(struct weir_device *device, const struct weir_parameters *q,
                                         const struct weir_cuda_image *image, struct weir_cuda_packed **out,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda_packed *packed = calloc(1, sizeof *packed);
    if (!packed) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a layer");
    weir_packed_head(&packed->head, device, q);
    packed->bytes = image->end;
    packed->has_doubled = image->doubled < image->end;
    if (!q->shape_only) {
        WEIR_TRY(device->table->memory_alloc(device, image->end, &packed->memory, error));
        packed->weight = packed->memory;
        if (q->bias) packed->bias = (float *)(void *)((char *)packed->memory + image->bias);
        if (image->bias_bf16 < image->doubled) packed->bias_bf16 = (char *)packed->memory + image->bias_bf16;
        if (packed->has_doubled) packed->doubled = (char *)packed->memory + image->doubled;
    }
    *out = packed;
    packed = NULL;

cleanup:
    free(packed);
    return status;
}

enum weir_status weir_cuda_pack(struct weir_device *device, const struct weir_parameters *q, struct weir_packed **out,
                                struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda *cuda = (struct weir_cuda *)device;
    struct weir_cuda_packed *packed = NULL;
    char *bytes = NULL;

    WEIR_TRY(weir_check_parameters(q, error));
    const struct weir_cuda_image image = weir_cuda_image_of(q);
    WEIR_TRY(weir_cuda_packed_create(device, q, &image, &packed, error));
    if (!q->shape_only) {
        bytes = arrange(q, &image);
        if (!bytes) {
            status =
                weir_fail(error, WEIR_NO_MEMORY, "device cuda: no host memory for %zu bytes of weights", image.end);
            goto cleanup;
        }
        pthread_mutex_lock(&cuda->planning);
        cudaError_t fault = cudaMemcpyAsync(packed->memory, bytes, image.end, cudaMemcpyHostToDevice, cuda->uploads);
        if (fault == cudaSuccess) fault = cudaStreamSynchronize(cuda->uploads);
        pthread_mutex_unlock(&cuda->planning);
        WEIR_TRY(weir_cuda_check(fault, "copying weights to the GPU", error));
    }
    *out = &packed->head;
    packed = NULL;

cleanup:
    free(bytes);
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
