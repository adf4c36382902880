/* cuda: the device of NVIDIA's processors: cuBLASLt's products, own kernels for the rest; in bf16 cuDNN's convolutions
 * where our own on tensor cores (conv_tiles.cuh) do not reach.
 * Host code is C (.c), kernels and what launches them are CUDA C++ (.cu), one idea a file.
 *
 * Same bytes: every algorithm is chosen when a plan is made, from the shape of one row, and a run repeats it for each
 * row (as a strided batch or one after the other). Our own kernels sum the terms of one value in an order that the
 * shape of a row decides; nothing is added atomically, no sum is split between blocks but in the order of its parts.
 *
 * A run only enqueues kernels: no allocation, no copy from the host, no synchronisation, so that it may be captured in
 * a graph. Every entry makes the device's GPU the calling thread's current one.
 */
#ifndef WEIR_KERNELS_CUDA_CUDA_H
#define WEIR_KERNELS_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/check.h"
#include "kernels/cuda/health.h"

struct weir_cuda {
    struct weir_device head;
    int index;                       /* as the runtime counts the GPUs that this process sees */
    int generation, multiprocessors; /* 90, 132 */
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;                          /* plans alone, while `planning` is held; streams have their own */
    pthread_mutex_t planning;                   /* held while libraries choose algorithms, and while weights travel */
    cudaStream_t uploads;                       /* of pack, while `planning` is held */
    struct weir_cuda_convolution *convolutions; /* that plans use, while `planning` is held */
    pthread_mutex_t spares_lock;
    struct weir_cuda_stream *spares; /* streams that nobody has now, under spares_lock */
    struct weir_cuda_health *health; /* NULL: there is nobody to ask, as unasked.words say */
    struct weir_error unasked;
};

struct weir_cuda_stream {
    struct weir_stream head;
    cudaStream_t stream;
    cudnnHandle_t dnn;
    struct weir_cuda_stream *next; /* among the spares */
};

/* DEVICE or NO_MEMORY in words: "device cuda: WHAT failed: out of memory". OK when nothing failed. */
enum weir_status weir_cuda_check(cudaError_t fault, const char *what, struct weir_error *error);
size_t weir_cuda_aligned(size_t bytes);
/* What every row begins at a multiple of when rows are `bytes` long: a power of two, WEIR_ALIGNMENT at most. */
uint32_t weir_cuda_alignment(size_t bytes);

/* The GPU meant by "", "1" or "GPU-0a1b..." as the runtime counts it. NOT_FOUND when there is none. */
enum weir_status weir_cuda_find(const char *which, int *index, struct weir_error *error);

enum weir_status weir_cuda_graph_begin(struct weir_stream *stream);
enum weir_status weir_cuda_graph_end(struct weir_stream *stream, struct weir_graph **out);
enum weir_status weir_cuda_graph_launch(struct weir_stream *stream, const struct weir_graph *graph);
void weir_cuda_graph_destroy(struct weir_graph *graph);

/* --- layers ------------------------------------------------------------------------------------------------------- */

/* Products and convolutions: weight [out, taps, in] in the layer's dtype, taps row-major in y and x, or in time. CONV2D
 * in bf16: rows of zeros behind them, so that there are weir_cuda_conv_rows() of them, as many as cuDNN can take.
 * DEPTHWISE_CONV: f32 [taps, C]. EMBED: the table in the layer's dtype. All others: f32, as they were given. */
struct weir_cuda_packed {
    struct weir_packed head;
    void *weight;
    float *bias;     /* or beta, positions; NULL when absent */
    void *bias_bf16; /* LINEAR in bf16, beside the other: what cuBLASLt adds must be of y's type */
    void *doubled;   /* CONV2D in bf16, where has_doubled: [4, out, 2, 2, in] of conv_tiles.cu */
    bool has_doubled;
    void *memory;
    size_t bytes;
};
uint32_t weir_cuda_conv_rows(uint32_t out, enum weir_dtype dtype);

/* That memory as it is to be: rows of the weight, in the order of the file (within a row the order changes), and behind
 * them a tail: rows of zeros, bias, bias in bf16, each aligned. So any piece of it can be made by itself. But what a
 * `doubled` layer has at its end, four kernels of 2 x 2, comes from all of the weight. */
struct weir_cuda_image {
    struct weir_parameters q; /* the shape alone */
    enum weir_dtype dtype;    /* of the weight */
    uint64_t rows, row_numbers;
    size_t row_bytes;
    size_t tail, bias, bias_bf16, doubled, end; /* where they begin: what is not there, where the next one does */
};
struct weir_cuda_image weir_cuda_image_of(const struct weir_parameters *parameters);
/* Rows from `first` on, and the tail: to host memory aligned as their place in the image is. `scratch` has room for so
 * many floats. */
size_t weir_cuda_image_scratch(const struct weir_cuda_image *image);
void weir_cuda_image_rows(const struct weir_cuda_image *image, const struct weir_numbers *weight, uint64_t first,
                          uint64_t count, float *scratch, void *to);
void weir_cuda_image_tail(const struct weir_cuda_image *image, const struct weir_numbers *bias, void *to);

/* With memory, unless parameters->shape_only; nothing is in it yet. */
enum weir_status weir_cuda_packed_create(struct weir_device *device, const struct weir_parameters *parameters,
                                         const struct weir_cuda_image *image, struct weir_cuda_packed **out,
                                         struct weir_error *error);
enum weir_status weir_cuda_pack(struct weir_device *device, const struct weir_parameters *parameters,
                                struct weir_packed **out, struct weir_error *error);
void weir_cuda_packed_destroy(struct weir_packed *packed);
size_t weir_cuda_packed_bytes(const struct weir_packed *packed);

enum weir_status weir_cuda_load_begin(struct weir_device *device, struct weir_load **out, struct weir_error *error);
enum weir_status weir_cuda_load_pack(struct weir_load *load, const struct weir_parameters *parameters,
                                     const struct weir_numbers *weight, const struct weir_numbers *bias,
                                     struct weir_packed **out, struct weir_error *error);
enum weir_status weir_cuda_load_end(struct weir_load **load, struct weir_error *error);

/* --- plans -------------------------------------------------------------------------------------------------------- */

struct weir_cuda_product;
struct weir_cuda_convolution;

struct weir_cuda_plan {
    struct weir_plan head;
    const struct weir_cuda_packed *layer; /* NULL for ops without weights */
    union {
#define X(op, OP) struct weir_##op op;
        WEIR_OP_TABLE(X)
#undef X
    } shape;
    size_t workspace_bytes;
    struct weir_cuda_product *product;         /* LINEAR, GROUPED_LINEAR: cuBLASLt's choice, or NULL: our own kernel */
    bool tiled;                                /* CONV2D, CONV_TEMPORAL in bf16: by conv_tiles.cu */
    struct weir_cuda_convolution *convolution; /* or where it is not: cuDNN's plan for a row */
    struct weir_cuda_convolution *together;    /* the same for all rows at once, or NULL */
};

struct weir_cuda_run {
    const struct weir_cuda_plan *plan;
    const struct weir_cuda_stream *stream;
    void *const *operands;
    void *workspace;
};

/* Enqueues. DEVICE when that failed. */
#define X(op, OP) enum weir_status weir_cuda_run_##op(const struct weir_cuda_run *run);
WEIR_OP_TABLE(X)
#undef X

/* Ops that prepare more than their shape. Fills product, convolution and workspace_bytes. `planning` is held. */
#define WEIR_CUDA_PREPARED_TABLE(X)                                                                                    \
    X(linear, LINEAR)                                                                                                  \
    X(low_rank, LOW_RANK)                                                                                              \
    X(grouped_linear, GROUPED_LINEAR)                                                                                  \
    X(conv2d, CONV2D)                                                                                                  \
    X(conv_temporal, CONV_TEMPORAL)                                                                                    \
    X(group_norm, GROUP_NORM)                                                                                          \
    X(attention, ATTENTION)                                                                                            \
    X(linear_attention, LINEAR_ATTENTION)
#define X(op, OP)                                                                                                      \
    enum weir_status weir_cuda_prepare_##op(struct weir_cuda *cuda, struct weir_cuda_plan *plan,                       \
                                            struct weir_error *error);
WEIR_CUDA_PREPARED_TABLE(X)
#undef X

/* --- products ----------------------------------------------------------------------------------------------------- */

/* y[tokens, out] = x[tokens, in] weight[out, in]^T + bias + add, for each group of each row. Everything counts
 * elements: strides from one token to the next, steps from one group to the next, rows from one row to the next. */
struct weir_cuda_product_shape {
    uint32_t tokens, in, out, x_stride, y_stride;
    uint32_t groups;
    size_t x_step, weight_step, y_step; /* 0 with one group */
    uint32_t rows;                      /* nothing is chosen by it */
    size_t x_row, y_row;
    const void *bias; /* on the device, of y's dtype, or NULL */
    bool add;         /* what lies at `add` */
    enum weir_dtype dtype, y_dtype;
};
/* NULL in `out` (and OK) when cuBLASLt has nothing for it. */
enum weir_status weir_cuda_product_create(struct weir_cuda *cuda, const struct weir_cuda_product_shape *shape,
                                          struct weir_cuda_product **out, size_t *workspace_bytes,
                                          struct weir_error *error);
void weir_cuda_product_destroy(struct weir_cuda_product *product);
enum weir_status weir_cuda_product_run(const struct weir_cuda_product *product, const struct weir_cuda_stream *stream,
                                       const void *x, const void *weight, const void *add, void *y, void *workspace);

/* What follows a product: y = gate * act(sums) + residual, all of one type. `sums` may be y. */
enum weir_status weir_cuda_epilogue(const struct weir_linear *shape, cudaStream_t stream, const void *sums,
                                    const void *residual, const void *gate, void *y);

/* --- convolutions ------------------------------------------------------------------------------------------------- */

/* Any convolution of images, a product being one of 1 x 1 pixels: y[n,v,u,o] = bias[o] + row_bias[n / frames, o] +
 * residual[n,v,u,o] + sum weight[o, ky, kx, i] x'[n, v * stride + ky - pad_y, u * stride + kx - pad_x, i], or with silu
 * the SiLU of that. */
struct weir_cuda_window {
    uint64_t images;
    uint32_t frames;                                         /* images a row */
    uint32_t x_height, x_width, source_height, source_width; /* of x; of x' */
    uint32_t height, width;                                  /* of y */
    uint32_t kernel_y, kernel_x, stride, pad_y, pad_x, end_y, end_x;
    uint32_t in, out;
    uint32_t x_stride, y_stride; /* channels from one pixel to the next */
    bool row_bias, residual, silu;
    enum weir_dtype dtype, y_dtype;
};
struct weir_cuda_window weir_cuda_window_of_conv2d(const struct weir_conv2d *shape);
struct weir_cuda_window weir_cuda_window_of_conv_temporal(const struct weir_conv_temporal *shape);

/* cuDNN's plan for one row: window->images are those of the row and its frames, x' is given, and y is without bias and
 * residual. Plans of equal windows (compared as bytes) are one. `planning` is held by create and release. */
enum weir_status weir_cuda_convolution_create(struct weir_cuda *cuda, const struct weir_cuda_window *window,
                                              struct weir_cuda_convolution **out, struct weir_error *error);
/* The same engine with the same settings for `rows` rows at once, so that the terms of a value are added in the same
 * order; it may not exist. */
enum weir_status weir_cuda_convolution_repeat(struct weir_cuda *cuda, const struct weir_cuda_convolution *one,
                                              uint32_t rows, struct weir_cuda_convolution **out,
                                              struct weir_error *error);
void weir_cuda_convolution_release(struct weir_cuda *cuda, struct weir_cuda_convolution *convolution);
bool weir_cuda_convolution_exists(const struct weir_cuda_convolution *convolution); /* has cuDNN anything for it? */
size_t weir_cuda_convolution_workspace(const struct weir_cuda_convolution *convolution);
enum weir_status weir_cuda_convolution_run(const struct weir_cuda_convolution *convolution,
                                           const struct weir_cuda_stream *stream, const void *x, const void *weight,
                                           void *y, void *workspace);

/* x' of `images` images, and what follows a convolution: y = sums + bias + row_bias + residual. `sums`, of sums_stride
 * channels a pixel, may be y when that is the window's out. */
enum weir_status weir_cuda_resize(const struct weir_cuda_window *window, cudaStream_t stream, uint64_t images,
                                  const void *x, void *to);
enum weir_status weir_cuda_window_epilogue(const struct weir_cuda_window *window, cudaStream_t stream, const void *sums,
                                           uint32_t sums_stride, const float *bias, const void *row_bias,
                                           const void *residual, void *y);

/* Our own on the tensor cores of sm_90a, with all that comes before and after; whether it takes a window does not
 * depend on the number of images, nor do the values of one on the others. */
bool weir_cuda_tiles_take(const struct weir_cuda *cuda, const struct weir_cuda_window *window,
                          const struct weir_cuda_packed *layer);
enum weir_status weir_cuda_tiles_run(const struct weir_cuda *cuda, const struct weir_cuda_window *window,
                                     cudaStream_t stream, const struct weir_cuda_packed *layer, const void *x,
                                     const void *row_bias, const void *residual, void *y);

/* Our own, for every shape. Terms are added in the order ky, kx, i by one thread. */
enum weir_status weir_cuda_window_run(const struct weir_cuda_window *window, cudaStream_t stream, const void *x,
                                      const void *weight, const float *bias, const void *row_bias, const void *residual,
                                      void *y);

#ifdef __cplusplus
}
#endif
#endif
