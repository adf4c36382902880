/* The ref device's table: packing, planning, running. The arithmetic is in the files of the ops. */
#include "kernels/ref/ref.h"

#include "kernels/host.h"
#include "kernels/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ref_plan {
    struct weir_plan head;
    const struct weir_ref_packed *layer;
    union {
#define X(op, OP) struct weir_##op op;
        WEIR_OP_TABLE(X)
#undef X
    } shape;
};

static void packed_destroy(struct weir_packed *head)
{
    struct weir_ref_packed *packed = (struct weir_ref_packed *)head;
    if (!packed) return;
    free(packed->weight);
    free(packed->bias);
    free(packed);
}

static size_t packed_bytes(const struct weir_packed *head)
{
    return ((const struct weir_ref_packed *)head)->bytes;
}

float weir_ref_bf16(float x)
{
    uint32_t bits;
    if (isnan(x)) return x;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* [out, in, taps] -> [taps, in, out] */
static void transpose(const struct weir_parameters *q, uint64_t taps, float *to)
{
    for (uint64_t o = 0; o < q->out; o++) {
        for (uint64_t i = 0; i < q->in; i++) {
            for (uint64_t k = 0; k < taps; k++) {
                to[(k * q->in + i) * q->out + o] = q->weight[(o * q->in + i) * taps + k];
            }
        }
    }
}

/* The ops whose products a layer's dtype speaks of. */
static bool has_products(enum weir_op op)
{
    return op == WEIR_OP_LINEAR || op == WEIR_OP_CONV2D || op == WEIR_OP_CONV_TEMPORAL;
}

static enum weir_status pack(struct weir_device *device, const struct weir_parameters *q, struct weir_packed **out,
                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_ref_packed *packed = NULL; /* owned here until it is given out */

    WEIR_TRY(weir_check_parameters(q, error));
    const uint64_t weight_count = weir_weight_count(q), bias_count = weir_bias_count(q);
    packed = calloc(1, sizeof *packed);
    if (packed) {
        weir_packed_head(&packed->head, device, q);
        if (!has_products(q->op)) packed->head.dtype = WEIR_F32;
        packed->bytes = (size_t)(weight_count + bias_count) * sizeof(float);
        if (q->shape_only) {
            *out = &packed->head;
            return WEIR_OK;
        }
        packed->weight = malloc((size_t)weight_count * sizeof(float));
        if (bias_count) packed->bias = malloc((size_t)bias_count * sizeof(float));
    }
    if (!packed || !packed->weight || (bias_count && !packed->bias)) {
        status = weir_fail(error, WEIR_NO_MEMORY, "device ref: no memory for %llu bytes of weights",
                           (unsigned long long)(weight_count + bias_count) * sizeof(float));
        goto cleanup;
    }
    switch (q->op) {
    case WEIR_OP_LINEAR:
        transpose(q, 1, packed->weight);
        break;
    case WEIR_OP_CONV2D:
        transpose(q, (uint64_t)q->kernel * q->kernel, packed->weight);
        break;
    case WEIR_OP_CONV_TEMPORAL:
        transpose(q, 3, packed->weight);
        break;
    default:
        memcpy(packed->weight, q->weight, (size_t)weight_count * sizeof(float));
        break;
    }
    if (packed->head.dtype == WEIR_BF16) {
        for (uint64_t i = 0; i < weight_count; i++) packed->weight[i] = weir_ref_bf16(packed->weight[i]);
    }
    if (bias_count) memcpy(packed->bias, q->bias, (size_t)bias_count * sizeof(float));
    *out = &packed->head;
    packed = NULL;

cleanup:
    packed_destroy((struct weir_packed *)packed);
    return status;
}

static enum weir_status plan_create(enum weir_op op, struct weir_device *device, const struct weir_packed *packed,
                                    const void *shape, size_t shape_bytes, struct weir_plan **out,
                                    struct weir_error *error)
{
    struct ref_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return weir_fail(error, WEIR_NO_MEMORY, "device ref: no memory for a plan of %s", weir_op_name(op));
    plan->head = (struct weir_plan){ .device = device, .op = op };
    plan->layer = (const struct weir_ref_packed *)packed;
    memcpy(&plan->shape, shape, shape_bytes);
    *out = &plan->head;
    return WEIR_OK;
}

#define X(op, OP)                                                                                                      \
    static enum weir_status plan_##op(struct weir_device *device, const struct weir_packed *packed, const void *shape, \
                                      struct weir_plan **out, size_t *workspace_bytes, struct weir_error *error)       \
    {                                                                                                                  \
        const enum weir_status status = weir_check_##op(packed, shape, error);                                         \
        if (status != WEIR_OK) return status;                                                                          \
        if (((const struct weir_##op *)shape)->dtype != WEIR_F32) {                                                    \
            return weir_fail(error, WEIR_UNSUPPORTED, "device ref: " #op " works in f32 alone");                       \
        }                                                                                                              \
        *workspace_bytes = weir_ref_scratch_##op(shape) * sizeof(double);                                              \
        return plan_create(WEIR_OP_##OP, device, packed, shape, sizeof(struct weir_##op), out, error);                 \
    }
WEIR_OP_TABLE(X)
#undef X

static void plan_destroy(struct weir_plan *plan)
{
    free(plan);
}

static enum weir_status run(const struct weir_plan *head, struct weir_stream *stream, void *const operands[],
                            void *workspace)
{
    const struct ref_plan *plan = (const struct ref_plan *)head;
    (void)stream;
    switch (head->op) {
#define X(op, OP)                                                                                                      \
    case WEIR_OP_##OP:                                                                                                 \
        weir_ref_##op(&plan->shape.op, plan->layer, operands, workspace);                                              \
        break;
        WEIR_OP_TABLE(X)
#undef X
    default:
        return WEIR_DEVICE;
    }
    return WEIR_OK;
}

static enum weir_status ref_set_precision(struct weir_device *device, enum weir_dtype precision,
                                          struct weir_error *error)
{
    if (precision != WEIR_F32 && precision != WEIR_BF16) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device ref: layers are f32 or bf16, not dtype %d", (int)precision);
    }
    device->precision = precision;
    snprintf(device->numerics_class, sizeof device->numerics_class, "ref-f64sums-%s", weir_precision_name(precision));
    return WEIR_OK;
}

static void ref_close(struct weir_device *device)
{
    free(device);
}

static const struct weir_device_table ref_table = {
    .name = "ref",
    .close = ref_close,
    .memory_alloc = weir_host_memory_alloc,
    .memory_free = weir_host_memory_free,
    .set_precision = ref_set_precision,
    .upload = weir_host_copy_in,
    .download = weir_host_copy_out,
    .copy = weir_host_copy_in, /* one memory */
    .stream_create = weir_host_stream_create,
    .stream_destroy = weir_host_stream_destroy,
    .stream_sync = weir_host_stream_sync,
};

static const struct weir_ops ref_ops = {
    .pack = pack,
    .packed_destroy = packed_destroy,
    .packed_bytes = packed_bytes,
    .plan = {
#define X(op, OP) [WEIR_OP_##OP] = plan_##op,
        WEIR_OP_TABLE(X)
#undef X
    },
    .plan_destroy = plan_destroy,
    .run = run,
};

enum weir_status weir_ref_open(struct weir_device **out, struct weir_error *error)
{
    struct weir_device *device = calloc(1, sizeof *device);
    if (!device) return weir_fail(error, WEIR_NO_MEMORY, "device ref: no memory");
    device->table = &ref_table;
    device->ops = &ref_ops;
    device->memory_bytes = device->memory_all = weir_host_memory_bytes();
    (void)ref_set_precision(device, WEIR_F32, NULL);
    *out = device;
    return WEIR_OK;
}
