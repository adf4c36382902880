/* cpu: the fast device of ordinary processors: oneDNN's products and convolutions, our own loops for the rest.
 *
 * Every op cuts its work into items by shape alone, and never across two rows; the pool's threads take the items. Each
 * oneDNN call runs on the one thread that makes it, so bytes depend neither on the number of threads nor on the rows
 * beside. They do depend on the instruction set, the library's version and, through oneDNN's choice of block sizes, on
 * the sizes of the caches and how many share the last one: all are in the numerics class.
 *
 * A layer packed as bf16 (linear, conv2d, conv_temporal, where the processor multiplies bf16: AMX or AVX512-BF16) keeps
 * its weights rounded to bf16; an item rounds its part of x into the slot's slice and oneDNN multiplies the two, which
 * is exact in f32, and sums in f32. Bias, residual, activation and y are f32 as ever, and so is every other op.
 *
 * A plan holds the primitives of its shape with one set of memory objects a slot. A slot has one user at a time on a
 * device (pool.h), so plans may be shared by streams. Scratch is the caller's workspace: a slice for each slot, then
 * what all share. run allocates nothing of ours; oneDNN itself takes a few hundred bytes a call for its argument table.
 */
#ifndef WEIR_KERNELS_CPU_CPU_H
#define WEIR_KERNELS_CPU_CPU_H

#include "kernels/check.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/simd.h"

#include <dnnl.h>
#include <pthread.h>

struct weir_cpu {
    struct weir_device head;
    struct weir_pool *pool;
    const struct weir_cpu_simd *simd;
    dnnl_cpu_isa_t isa; /* what oneDNN uses */
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* one a slot */
    /* Held while oneDNN chooses an algorithm: some releases keep what they found for the last convolution in a static
     * variable, and the choice must depend on the shape alone. */
    pthread_mutex_t planning;
    dnnl_stream_t planning_stream;
};

/* --- layers ------------------------------------------------------------------------------------------------------- */

/* The layouts of one weight: the first is made when the layer is packed, for a usual shape. oneDNN likes other blocks
 * for some shapes; a plan that finds the first one slower adds its own, shared by later plans of that layer. */
#define WEIR_CPU_LAYOUTS_MAX 8
struct weir_cpu_layout {
    dnnl_memory_desc_t desc;
    dnnl_memory_t memory;
    void *data;
};

struct weir_cpu_packed {
    struct weir_packed head;
    float *vector_weight; /* what our own loops read: norms' gamma; tables; DEPTHWISE_CONV [kernel * kernel, C];
                             GROUPED_LINEAR [groups, in / groups, out / groups padded] */
    float *bias;          /* norms: beta; embed: positions (or NULL); others: bias, zeros when the layer has none */
    size_t vector_bytes;
    /* What follows grows while cpu->planning is held. */
    struct weir_cpu_layout layouts[WEIR_CPU_LAYOUTS_MAX];
    uint32_t layout_count;
};

enum weir_status weir_cpu_pack(struct weir_device *device, const struct weir_parameters *parameters,
                               struct weir_packed **out, struct weir_error *error);
void weir_cpu_packed_destroy(struct weir_packed *packed);
/* UNSUPPORTED, naming what is missing, when this processor has no products of that dtype. */
enum weir_status weir_cpu_offers(const struct weir_cpu *cpu, enum weir_dtype dtype, struct weir_error *error);
size_t weir_cpu_packed_bytes(const struct weir_packed *packed);

/* --- primitives: a oneDNN call made ready ------------------------------------------------------------------------- */

/* A product or a convolution of one shape with one layer's weights. */
struct weir_cpu_primitive {
    dnnl_primitive_t primitive;
    const struct weir_cpu_layout *weights;
    struct weir_cpu_arguments *slots; /* memory objects, one set a slot */
    size_t scratch_bytes;
};

struct weir_cpu_product {
    uint32_t tokens;
    bool add; /* to what is there */
};
struct weir_cpu_convolution {
    uint32_t in_height, in_width, height, width; /* of x and y */
    uint32_t kernel_height, kernel_width, stride;
    uint32_t dilation; /* rows from one row of the kernel to the next, at least 1 */
    uint32_t pad_top, pad_bottom, pad_left, pad_right;
    bool add;
};
enum weir_status weir_cpu_product_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                         const struct weir_cpu_product *shape, struct weir_cpu_primitive *out,
                                         struct weir_error *error);
enum weir_status weir_cpu_convolution_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                             const struct weir_cpu_convolution *shape, struct weir_cpu_primitive *out,
                                             struct weir_error *error);
void weir_cpu_primitive_destroy(struct weir_cpu *cpu, struct weir_cpu_primitive *primitive);
/* On the calling thread. x is in the layer's dtype. false when oneDNN reports a fault. */
bool weir_cpu_primitive_run(const struct weir_cpu *cpu, const struct weir_cpu_primitive *primitive, uint32_t slot,
                            const void *x, const float *bias, float *y, void *scratch);

/* oneDNN's OpenMP: the calling thread's calls use one thread between these two. */
int weir_cpu_alone_begin(void);
void weir_cpu_alone_end(int before);

/* --- plans -------------------------------------------------------------------------------------------------------- */

struct weir_cpu_plan;
struct weir_cpu_run { /* what an item gets to see */
    const struct weir_cpu *cpu;
    const struct weir_cpu_plan *plan;
    void *const *operands;
    char *workspace;
    bool fault; /* set by any item, read after all; only ever set to true, through weir_cpu_fault */
};
void weir_cpu_fault(struct weir_cpu_run *run);

struct weir_cpu_plan {
    struct weir_plan head;
    struct weir_cpu_packed *layer;
    void (*run)(struct weir_cpu_run *run);
    void (*deinit)(struct weir_cpu *cpu, struct weir_cpu_plan *plan); /* or NULL */
    size_t slice_bytes, shared_bytes; /* of the workspace: `slots` slices, then the shared part */
};

/* What belongs to `slot`; what all items share. */
void *weir_cpu_slice(const struct weir_cpu_run *run, uint32_t slot);
void *weir_cpu_shared(const struct weir_cpu_run *run);
size_t weir_cpu_aligned(size_t bytes);
/* The pool's items, each called with the run as its context. */
void weir_cpu_items(struct weir_cpu_run *run, uint32_t items, void (*work)(void *run, uint32_t item, uint32_t slot));

/* Each makes a plan whose first member is struct weir_cpu_plan, with `run`, `deinit` and the byte counts filled in; the
 * shape was checked. NULL and `error` when it cannot. */
#define X(op, OP)                                                                                                      \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *shape, struct weir_error *error);
WEIR_OP_TABLE(X)
#undef X

/* How many of `total` go into one item when an item should hold about `wanted`: pieces as equal as they can be, at
 * least one, all but the last of the same size. */
uint32_t weir_cpu_piece(uint64_t total, uint64_t wanted);

/* Whole vectors of the widest instruction set. */
#define WEIR_CPU_LANES_MAX 16
static inline uint32_t weir_cpu_padded(uint32_t count)
{
    return (count + WEIR_CPU_LANES_MAX - 1) / WEIR_CPU_LANES_MAX * WEIR_CPU_LANES_MAX;
}

#endif
