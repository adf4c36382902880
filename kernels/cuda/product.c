/* Products by cuBLASLt. The algorithm is asked for once, for the shape of one row, and never splits a sum between
 * blocks; rows are more entries of a strided batch, or where the algorithm does not take that batch, calls of their
 * own.
 *
 * cuBLASLt counts columns first: what is [tokens, out] here is its matrix of `out` rows and `tokens` columns, and y
 * = x weight^T is its D = weight^T x with the weight transposed. */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

#define WORKSPACE_BYTES_MAX ((size_t)32 << 20)
#define BATCH_MAX 65535
#define WORKSPACE_ALIGNMENT ((size_t)256)
#define HOLE_TOKENS 32 /* how far a neighbour is */

struct weir_cuda_product {
    struct weir_cuda_product_shape shape;
    cublasLtHandle_t blas;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weight, x, y;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
    uint32_t calls; /* of the run: 1, or shape.rows */
};

void weir_cuda_product_destroy(struct weir_cuda_product *p)
{
    if (!p) return;
    if (p->product) cublasLtMatmulDescDestroy(p->product);
    if (p->weight) cublasLtMatrixLayoutDestroy(p->weight);
    if (p->x) cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) cublasLtMatrixLayoutDestroy(p->y);
    free(p);
}

static cudaDataType_t type_of(enum weir_dtype dtype)
{
    return dtype == WEIR_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool set_batch(cublasLtMatrixLayout_t layout, uint32_t count, size_t step)
{
    const int32_t entries = (int32_t)count;
    const int64_t elements = (int64_t)step;
    return cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &entries, sizeof entries) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &elements,
                                            sizeof elements) == CUBLAS_STATUS_SUCCESS;
}

static bool set_batches(struct weir_cuda_product *p, uint32_t count, size_t weight_step, size_t x_step, size_t y_step)
{
    return set_batch(p->weight, count, weight_step) && set_batch(p->x, count, x_step) && set_batch(p->y, count, y_step);
}

static bool set_groups(struct weir_cuda_product *p)
{
    const struct weir_cuda_product_shape *s = &p->shape;
    return set_batches(p, s->groups, s->weight_step, s->x_step, s->y_step);
}

/* All rows as one batch, where the algorithm takes it. */
static void set_rows(struct weir_cuda_product *p)
{
    const struct weir_cuda_product_shape *s = &p->shape;
    cublasLtMatmulHeuristicResult_t checked;
    if (s->groups != 1 || s->rows < 2 || s->rows > BATCH_MAX) return;
    if (set_batches(p, s->rows, 0, s->x_row, s->y_row) &&
        cublasLtMatmulAlgoCheck(p->blas, p->product, p->weight, p->x, p->y, p->y, &p->algorithm, &checked) ==
            CUBLAS_STATUS_SUCCESS &&
        checked.workspaceSize <= WORKSPACE_BYTES_MAX) {
        p->calls = 1;
        if (checked.workspaceSize > p->workspace_bytes) p->workspace_bytes = checked.workspaceSize;
    } else {
        set_groups(p);
    }
}

static bool describe(struct weir_cuda_product *p)
{
    const struct weir_cuda_product_shape *s = &p->shape;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = type_of(s->y_dtype);
    /* f32 is f32, whatever the environment says of TF32 and of emulation. */
    const cublasComputeType_t compute = s->dtype == WEIR_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    if (cublasLtMatmulDescCreate(&p->product, compute, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) !=
            CUBLAS_STATUS_SUCCESS) {
        return false;
    }
    if (s->bias && (cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                   sizeof epilogue) != CUBLAS_STATUS_SUCCESS ||
                    cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &s->bias,
                                                   sizeof s->bias) != CUBLAS_STATUS_SUCCESS ||
                    cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                                   sizeof bias_type) != CUBLAS_STATUS_SUCCESS)) {
        return false;
    }
    return cublasLtMatrixLayoutCreate(&p->weight, type_of(s->dtype), s->in, s->out, s->in) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&p->x, type_of(s->dtype), s->in, s->tokens, s->x_stride) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&p->y, type_of(s->y_dtype), s->out, s->tokens, s->y_stride) ==
               CUBLAS_STATUS_SUCCESS;
}

/* The first algorithm that cuBLASLt proposes for so many tokens. */
static bool propose(const struct weir_cuda_product *p, uint32_t tokens, cublasLtMatmulHeuristicResult_t *out)
{
    const struct weir_cuda_product_shape *s = &p->shape;
    const size_t element = weir_dtype_bytes(s->dtype), y_element = weir_dtype_bytes(s->y_dtype);
    const size_t most = WORKSPACE_BYTES_MAX;
    const uint64_t columns = tokens;
    const uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint32_t weight = weir_cuda_alignment(s->weight_step * element),
                   x = weir_cuda_alignment((s->x_step | s->x_row) * element);
    const uint32_t y = weir_cuda_alignment((s->y_step | s->y_row) * y_element);
    cublasLtMatmulPreference_t wish = NULL;
    int count = 0;
    if (cublasLtMatmulPreferenceCreate(&wish) != CUBLAS_STATUS_SUCCESS) return false;
#define WISH(name, value)                                                                                              \
    (cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_##name, &(value), sizeof(value)) ==               \
     CUBLAS_STATUS_SUCCESS)
#define COLUMNS(layout, value)                                                                                         \
    (cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &(value), sizeof(value)) ==                 \
     CUBLAS_STATUS_SUCCESS)
    const uint64_t own = s->tokens;
    const bool chosen =
        WISH(MAX_WORKSPACE_BYTES, most) && WISH(REDUCTION_SCHEME_MASK, whole) && WISH(MIN_ALIGNMENT_A_BYTES, weight) &&
        WISH(MIN_ALIGNMENT_B_BYTES, x) && WISH(MIN_ALIGNMENT_C_BYTES, y) && WISH(MIN_ALIGNMENT_D_BYTES, y) &&
        COLUMNS(p->x, columns) && COLUMNS(p->y, columns) &&
        cublasLtMatmulAlgoGetHeuristic(p->blas, p->product, p->weight, p->x, p->y, p->y, wish, 1, out, &count) ==
            CUBLAS_STATUS_SUCCESS &&
        count == 1 && out->state == CUBLAS_STATUS_SUCCESS;
    const bool is_back = COLUMNS(p->x, own) && COLUMNS(p->y, own);
#undef COLUMNS
#undef WISH
    cublasLtMatmulPreferenceDestroy(wish);
    return chosen && is_back;
}

static int32_t family_of(const cublasLtMatmulHeuristicResult_t *found)
{
    int32_t family = -1;
    size_t written;
    if (cublasLtMatmulAlgoConfigGetAttribute(&found->algo, CUBLASLT_ALGO_CONFIG_ID, &family, sizeof family, &written) !=
        CUBLAS_STATUS_SUCCESS)
        return -1;
    return family;
}

/* cuBLASLt 13.1 has holes: for 9216 to 2304 at 256 tokens on sm_90 it proposes a kernel of an older processor, which takes
 * eight times as long as the one it proposes for 224 and for 288. So where both neighbours have another family of
 * kernels than the proposal, it is taken from the upper one, if it can do this. */
static void fill_hole(struct weir_cuda_product *p, cublasLtMatmulHeuristicResult_t *found)
{
    const uint32_t tokens = p->shape.tokens;
    cublasLtMatmulHeuristicResult_t lower, upper, checked;
    if (p->shape.dtype != WEIR_BF16 || tokens <= HOLE_TOKENS) return;
    const int32_t own = family_of(found);
    if (!propose(p, tokens + HOLE_TOKENS, &upper) || family_of(&upper) == own) return;
    if (!propose(p, tokens - HOLE_TOKENS, &lower) || family_of(&lower) != family_of(&upper)) return;
    if (cublasLtMatmulAlgoCheck(p->blas, p->product, p->weight, p->x, p->y, p->y, &upper.algo, &checked) !=
            CUBLAS_STATUS_SUCCESS ||
        checked.workspaceSize > WORKSPACE_BYTES_MAX)
        return;
    found->algo = upper.algo;
    found->workspaceSize = checked.workspaceSize;
}

static bool choose(struct weir_cuda_product *p)
{
    cublasLtMatmulHeuristicResult_t found;
    if (!propose(p, p->shape.tokens, &found)) return false;
    fill_hole(p, &found);
    p->algorithm = found.algo;
    p->workspace_bytes = found.workspaceSize;
    return true;
}

enum weir_status weir_cuda_product_create(struct weir_cuda *cuda, const struct weir_cuda_product_shape *shape,
                                          struct weir_cuda_product **out, size_t *workspace_bytes,
                                          struct weir_error *error)
{
    struct weir_cuda_product *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a product");
    p->shape = *shape;
    p->blas = cuda->blas;
    p->calls = shape->rows;
    if (!describe(p) || !set_groups(p) || !choose(p)) {
        weir_cuda_product_destroy(p);
        return WEIR_OK;
    }
    set_rows(p);
    *workspace_bytes = p->workspace_bytes ? p->workspace_bytes + WORKSPACE_ALIGNMENT : 0;
    *out = p;
    return WEIR_OK;
}

enum weir_status weir_cuda_product_run(const struct weir_cuda_product *p, const struct weir_cuda_stream *stream,
                                       const void *x, const void *weight, const void *add, void *y, void *workspace)
{
    const struct weir_cuda_product_shape *s = &p->shape;
    const float one = 1, beta = s->add ? 1 : 0;
    const size_t x_step = s->x_row * weir_dtype_bytes(s->dtype), y_step = s->y_row * weir_dtype_bytes(s->y_dtype);
    char *scratch =
        (char *)(((uintptr_t)workspace + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT);
    /* What is added where it lies is rounded otherwise than what comes from elsewhere: so it always lies there. */
    if (s->add && add != y &&
        cudaMemcpyAsync(y, add, s->rows * y_step, cudaMemcpyDeviceToDevice, stream->stream) != cudaSuccess)
        return WEIR_DEVICE;
    for (uint32_t call = 0; call < p->calls; call++) {
        char *to = (char *)y + call * y_step;
        if (cublasLtMatmul(p->blas, p->product, &one, weight, p->weight, (const char *)x + call * x_step, p->x, &beta,
                           to, p->y, to, p->y, &p->algorithm, p->workspace_bytes ? scratch : NULL, p->workspace_bytes,
                           stream->stream) != CUBLAS_STATUS_SUCCESS) {
            return WEIR_DEVICE;
        }
    }
    return WEIR_OK;
}
