/* The cuda device's table: opening, memory, streams, planning, running. The arithmetic is in the files of the ops. */
#include "kernels/cuda/cuda.h"

#include "kernels/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GENERATION_MIN 8                   /* of compute capability, major: what has tensor cores for bf16 */
#define FREE_BYTES_MIN ((size_t)512 << 20) /* a context with the libraries' code and handles, and a little beside it */

/* How long an allocation waits for memory that was planned with and others hold, and after how long it asks again. */
#define CROWDED_MS_MAX 20000
#define CROWDED_STEP_MS 250

size_t weir_cuda_aligned(size_t bytes)
{
    return (bytes + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

uint32_t weir_cuda_alignment(size_t bytes)
{
    uint32_t alignment = WEIR_ALIGNMENT;
    while (bytes % alignment != 0) alignment /= 2;
    return alignment;
}

enum weir_status weir_cuda_check(cudaError_t fault, const char *what, struct weir_error *error)
{
    if (fault == cudaSuccess) return WEIR_OK;
    return weir_fail(error, fault == cudaErrorMemoryAllocation ? WEIR_NO_MEMORY : WEIR_DEVICE,
                     "device cuda: %s failed: %s", what, cudaGetErrorString(fault));
}

/* --- memory and streams ------------------------------------------------------------------------------------------- */

static enum weir_status current(const struct weir_device *device)
{
    return cudaSetDevice(((const struct weir_cuda *)device)->index) == cudaSuccess ? WEIR_OK : WEIR_DEVICE;
}

/* What others hold, behind the words of a status that memory ran out. */
static enum weir_status tell_others(const struct weir_cuda *cuda, enum weir_status status, struct weir_error *error)
{
    char others[200] = "";
    if (status != WEIR_NO_MEMORY || !error) return status;
    if (cuda->health) weir_cuda_health_others(cuda->health, others, sizeof others);
    const size_t length = strlen(error->words);
    snprintf(error->words + length, sizeof error->words - length, "%s", others);
    return status;
}

static cudaError_t take(const struct weir_cuda *cuda, size_t bytes, void **out)
{
    cudaError_t fault = cudaSetDevice(cuda->index);
    if (fault == cudaSuccess) fault = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (fault == cudaErrorMemoryAllocation) (void)cudaGetLastError(); /* it is reported by whoever asked, once */
    return fault;
}

static enum weir_status memory_alloc(struct weir_device *device, size_t bytes, void **out, struct weir_error *error)
{
    const struct weir_cuda *cuda = (const struct weir_cuda *)device;
    char what[64];
    *out = NULL;
    cudaError_t fault = take(cuda, bytes, out);
    for (int waited_ms = 0; fault == cudaErrorMemoryAllocation && waited_ms < CROWDED_MS_MAX && cuda->health &&
                            weir_cuda_health_is_crowded(cuda->health, device->memory_bytes);
         waited_ms += CROWDED_STEP_MS) {
        usleep(CROWDED_STEP_MS * 1000);
        fault = take(cuda, bytes, out);
    }
    snprintf(what, sizeof what, "an allocation of %zu bytes", bytes);
    return tell_others(cuda, weir_cuda_check(fault, what, error), error);
}

static void memory_free(struct weir_device *device, void *memory)
{
    if (current(device) == WEIR_OK) cudaFree(memory);
}

static enum weir_status host_alloc(struct weir_device *device, size_t bytes, void **out, struct weir_error *error)
{
    char what[64];
    *out = NULL;
    cudaError_t fault = cudaSetDevice(((struct weir_cuda *)device)->index);
    if (fault == cudaSuccess) fault = cudaHostAlloc(out, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (fault == cudaErrorMemoryAllocation) (void)cudaGetLastError(); /* it is reported here, and nowhere else */
    snprintf(what, sizeof what, "page-locking %zu bytes", bytes);
    return weir_cuda_check(fault, what, error);
}

static void host_free(struct weir_device *device, void *memory)
{
    if (current(device) == WEIR_OK) cudaFreeHost(memory);
}

static enum weir_status transfer(struct weir_stream *head, void *to, const void *from, size_t bytes,
                                 enum cudaMemcpyKind way)
{
    const struct weir_cuda_stream *stream = (const struct weir_cuda_stream *)head;
    enum weir_status status = current(head->device);
    if (status != WEIR_OK || bytes == 0) return status;
    return cudaMemcpyAsync(to, from, bytes, way, stream->stream) == cudaSuccess ? WEIR_OK : WEIR_DEVICE;
}

static enum weir_status upload(struct weir_stream *stream, void *to, const void *host, size_t bytes)
{
    return transfer(stream, to, host, bytes, cudaMemcpyHostToDevice);
}

static enum weir_status download(struct weir_stream *stream, void *host, const void *from, size_t bytes)
{
    return transfer(stream, host, from, bytes, cudaMemcpyDeviceToHost);
}

static enum weir_status copy(struct weir_stream *stream, void *to, const void *from, size_t bytes)
{
    return transfer(stream, to, from, bytes, cudaMemcpyDeviceToDevice);
}

static void stream_close(struct weir_cuda_stream *stream)
{
    if (current(stream->head.device) == WEIR_OK) {
        if (stream->dnn) cudnnDestroy(stream->dnn);
        if (stream->stream) cudaStreamDestroy(stream->stream);
    }
    free(stream);
}

/* Streams are asked for with every change of shape, and of what cuDNN 9.19 takes for a handle some 40 KiB of the host's
 * memory do not come back. So both are kept for whoever asks next. */
static void stream_destroy(struct weir_stream *head)
{
    struct weir_cuda_stream *stream = (struct weir_cuda_stream *)head;
    if (!stream) return;
    struct weir_cuda *cuda = (struct weir_cuda *)head->device;
    pthread_mutex_lock(&cuda->spares_lock);
    stream->next = cuda->spares;
    cuda->spares = stream;
    pthread_mutex_unlock(&cuda->spares_lock);
}

static struct weir_cuda_stream *take_spare(struct weir_cuda *cuda)
{
    pthread_mutex_lock(&cuda->spares_lock);
    struct weir_cuda_stream *stream = cuda->spares;
    if (stream) cuda->spares = stream->next;
    pthread_mutex_unlock(&cuda->spares_lock);
    return stream;
}

static enum weir_status stream_create(struct weir_device *device, struct weir_stream **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda *cuda = (struct weir_cuda *)device;
    struct weir_cuda_stream *stream = take_spare(cuda);
    if (stream) {
        *out = &stream->head;
        return WEIR_OK;
    }
    stream = calloc(1, sizeof *stream);
    if (!stream) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a stream");
    stream->head.device = device;
    WEIR_TRY(weir_cuda_check(cudaSetDevice(cuda->index), "choosing the GPU", error));
    WEIR_TRY(weir_cuda_check(cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking), "a stream", error));
    if (cudnnCreate(&stream->dnn) != CUDNN_STATUS_SUCCESS ||
        cudnnSetStream(stream->dnn, stream->stream) != CUDNN_STATUS_SUCCESS) {
        status = weir_fail(error, WEIR_DEVICE, "device cuda: cuDNN would not start on a stream");
        goto cleanup;
    }
    *out = &stream->head;
    stream = NULL;

cleanup:
    if (stream) stream_close(stream);
    return status;
}

static enum weir_status stream_sync(struct weir_stream *head, struct weir_error *error)
{
    const struct weir_cuda_stream *stream = (const struct weir_cuda_stream *)head;
    cudaError_t fault = cudaSetDevice(((const struct weir_cuda *)head->device)->index);
    if (fault == cudaSuccess) fault = cudaStreamSynchronize(stream->stream);
    return weir_cuda_check(fault, "the queued work", error);
}

/* --- plans -------------------------------------------------------------------------------------------------------- */

static void plan_destroy(struct weir_plan *head)
{
    struct weir_cuda_plan *plan = (struct weir_cuda_plan *)head;
    if (!plan) return;
    weir_cuda_product_destroy(plan->product);
    if (plan->convolution) {
        struct weir_cuda *cuda = (struct weir_cuda *)plan->head.device;
        pthread_mutex_lock(&cuda->planning);
        weir_cuda_convolution_release(cuda, plan->convolution);
        weir_cuda_convolution_release(cuda, plan->together);
        pthread_mutex_unlock(&cuda->planning);
    }
    free(plan);
}

typedef enum weir_status (*prepare_function)(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                             struct weir_error *error);
static const prepare_function prepare[WEIR_OP_COUNT] = {
#define X(op, OP) [WEIR_OP_##OP] = weir_cuda_prepare_##op,
    WEIR_CUDA_PREPARED_TABLE(X)
#undef X
};

static enum weir_status plan_create(enum weir_op op, struct weir_device *device, const struct weir_packed *packed,
                                    const void *shape, size_t shape_bytes, struct weir_plan **out,
                                    size_t *workspace_bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda *cuda = (struct weir_cuda *)device;
    struct weir_cuda_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a plan of %s", weir_op_name(op));
    plan->head = (struct weir_plan){ .device = device, .op = op };
    plan->layer = (const struct weir_cuda_packed *)packed;
    memcpy(&plan->shape, shape, shape_bytes);
    WEIR_TRY(weir_cuda_check(cudaSetDevice(cuda->index), "choosing the GPU", error));
    if (prepare[op]) {
        pthread_mutex_lock(&cuda->planning);
        status = prepare[op](cuda, plan, error);
        pthread_mutex_unlock(&cuda->planning);
        if (status != WEIR_OK) goto cleanup;
    }
    *workspace_bytes = plan->workspace_bytes;
    *out = &plan->head;
    plan = NULL;

cleanup:
    if (plan) plan_destroy(&plan->head);
    return status;
}

#define X(op, OP)                                                                                                      \
    static enum weir_status plan_##op(struct weir_device *device, const struct weir_packed *packed, const void *shape, \
                                      struct weir_plan **out, size_t *workspace_bytes, struct weir_error *error)       \
    {                                                                                                                  \
        const enum weir_status status = weir_check_##op(packed, shape, error);                                         \
        if (status != WEIR_OK) return status;                                                                          \
        if (packed && packed->dtype != ((const struct weir_##op *)shape)->dtype) {                                     \
            return weir_fail(error, WEIR_UNSUPPORTED, "device cuda: " #op " and its layer must have one dtype");       \
        }                                                                                                              \
        return plan_create(WEIR_OP_##OP, device, packed, shape, sizeof(struct weir_##op), out, workspace_bytes,        \
                           error);                                                                                     \
    }
WEIR_OP_TABLE(X)
#undef X

static enum weir_status run(const struct weir_plan *head, struct weir_stream *stream, void *const operands[],
                            void *workspace)
{
    const struct weir_cuda_run run = { .plan = (const struct weir_cuda_plan *)head,
                                       .stream = (const struct weir_cuda_stream *)stream,
                                       .operands = operands,
                                       .workspace = workspace };
    const enum weir_status status = current(head->device);
    if (status != WEIR_OK) return status;
    switch (head->op) {
#define X(op, OP)                                                                                                      \
    case WEIR_OP_##OP:                                                                                                 \
        return weir_cuda_run_##op(&run);
        WEIR_OP_TABLE(X)
#undef X
    default:
        return WEIR_DEVICE;
    }
}

static const struct weir_ops cuda_ops = {
    .pack = weir_cuda_pack,
    .packed_destroy = weir_cuda_packed_destroy,
    .load_begin = weir_cuda_load_begin,
    .load_pack = weir_cuda_load_pack,
    .load_end = weir_cuda_load_end,
    .packed_bytes = weir_cuda_packed_bytes,
    .plan = {
#define X(op, OP) [WEIR_OP_##OP] = plan_##op,
        WEIR_OP_TABLE(X)
#undef X
    },
    .plan_destroy = plan_destroy,
    .run = run,
};

/* --- opening ------------------------------------------------------------------------------------------------------ */

static void cuda_close(struct weir_device *device)
{
    struct weir_cuda *cuda = (struct weir_cuda *)device;
    for (struct weir_cuda_stream *spare; (spare = take_spare(cuda)) != NULL;) stream_close(spare);
    if (cudaSetDevice(cuda->index) == cudaSuccess) {
        if (cuda->dnn) cudnnDestroy(cuda->dnn);
        if (cuda->blas) cublasLtDestroy(cuda->blas);
        if (cuda->uploads) cudaStreamDestroy(cuda->uploads);
    }
    weir_cuda_health_close(&cuda->health);
    pthread_mutex_destroy(&cuda->planning);
    pthread_mutex_destroy(&cuda->spares_lock);
    free(cuda);
}

static enum weir_status set_precision(struct weir_device *device, enum weir_dtype precision, struct weir_error *error);
static void health(struct weir_device *device, struct weir_health *out);

static const struct weir_device_table cuda_table = {
    .name = "cuda",
    .overlaps = true,
    .close = cuda_close,
    .set_precision = set_precision,
    .memory_alloc = memory_alloc,
    .memory_free = memory_free,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .upload = upload,
    .download = download,
    .copy = copy,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_sync = stream_sync,
    .graph_begin = weir_cuda_graph_begin,
    .graph_end = weir_cuda_graph_end,
    .graph_launch = weir_cuda_graph_launch,
    .graph_destroy = weir_cuda_graph_destroy,
    .health = health,
};

/* Of our own kernels here, and of how the libraries are asked: one more with every change after which any bytes differ,
 * so that whoever verifies a picture or goes on from a checkpoint knows that it was made by others. */
#define KERNELS_GENERATION 4

/* "cuda-sm90x132-k2-rt13.0-cublaslt130100-cudnn91900-f32": the libraries choose algorithms by the generation and the
 * number of multiprocessors, and each of their releases chooses anew. */
static void name_class(struct weir_cuda *cuda)
{
    snprintf(cuda->head.numerics_class, sizeof cuda->head.numerics_class,
             "cuda-sm%dx%d-k%d-rt%d.%d-cublaslt%zu-cudnn%zu-%s", cuda->generation, cuda->multiprocessors,
             KERNELS_GENERATION, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cublasLtGetVersion(),
             cudnnGetVersion(), weir_precision_name(cuda->head.precision));
}

static enum weir_status set_precision(struct weir_device *device, enum weir_dtype precision, struct weir_error *error)
{
    if (precision != WEIR_F32 && precision != WEIR_BF16) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device cuda: layers are f32 or bf16, not dtype %d", (int)precision);
    }
    device->precision = device->values = precision;
    name_class((struct weir_cuda *)device);
    return WEIR_OK;
}

static void open_health(struct weir_cuda *cuda)
{
    char bus_id[32];
    if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, cuda->index) != cudaSuccess) {
        (void)weir_fail(&cuda->unasked, WEIR_UNSUPPORTED, "the GPU has no PCI bus id");
    } else {
        (void)weir_cuda_health_open(bus_id, &cuda->health, &cuda->unasked);
    }
}

static void health(struct weir_device *device, struct weir_health *out)
{
    const struct weir_cuda *cuda = (const struct weir_cuda *)device;
    *out = (struct weir_health){ .failure = "" };
    if (cuda->health)
        weir_cuda_health_look(cuda->health, device->memory_bytes, out);
    else
        snprintf(out->figures, sizeof out->figures, "unknown=\"%.200s\"", cuda->unasked.words);
}

/* Every card that is taken multiplies bf16 on its tensor cores, works as far as its driver knows, and has what the
 * libraries need beside the plan. */
static enum weir_status check_card(const struct weir_cuda *cuda, const struct cudaDeviceProp *facts,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    size_t free_bytes = 0, all_bytes = 0;
    const int index = cuda->index;
    if (facts->major < GENERATION_MIN) {
        return weir_fail(error, WEIR_UNSUPPORTED,
                         "device cuda: GPU %d (%s) has compute capability %d.%d; at least %d.0 is needed", index,
                         facts->name, facts->major, facts->minor, GENERATION_MIN);
    }
    if (cuda->health) {
        struct weir_health now;
        weir_cuda_health_look(cuda->health, 0, &now);
        if (now.failure[0]) {
            WEIR_TRY(weir_fail(error, WEIR_DEVICE, "device cuda: GPU %d (%s) is unfit: %s", index, facts->name,
                               now.failure));
        }
    }
    WEIR_TRY(weir_cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes), "asking for the GPU's memory", error));
    if (free_bytes < FREE_BYTES_MIN) {
        status = weir_fail(error, WEIR_NO_MEMORY,
                           "device cuda: of GPU %d (%s) %zu MiB of %zu are free; at least %zu are needed", index,
                           facts->name, free_bytes >> 20, all_bytes >> 20, FREE_BYTES_MIN >> 20);
    }

cleanup:
    return status;
}

enum weir_status weir_cuda_open(const char *which, struct weir_device **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct cudaDeviceProp facts;
    size_t free_bytes, all_bytes;
    int index;
    const enum weir_status found = weir_cuda_find(which, &index, error);
    if (found != WEIR_OK) return found;
    struct weir_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory");
    cuda->head.table = &cuda_table;
    cuda->head.ops = &cuda_ops;
    cuda->index = index;
    pthread_mutex_init(&cuda->planning, NULL);
    pthread_mutex_init(&cuda->spares_lock, NULL);
    open_health(cuda);
    WEIR_TRY(weir_cuda_check(cudaSetDevice(index), "choosing the GPU", error));
    WEIR_TRY(weir_cuda_check(cudaGetDeviceProperties(&facts, index), "asking for the GPU's properties", error));
    WEIR_TRY(check_card(cuda, &facts, error));
    cuda->generation = facts.major * 10 + facts.minor;
    cuda->multiprocessors = facts.multiProcessorCount;
    WEIR_TRY(weir_cuda_check(cudaStreamCreateWithFlags(&cuda->uploads, cudaStreamNonBlocking), "a stream", error));
    if (cublasLtCreate(&cuda->blas) != CUBLAS_STATUS_SUCCESS) {
        status = weir_fail(error, WEIR_DEVICE, "device cuda: cuBLASLt would not start");
        goto cleanup;
    }
    if (cudnnCreate(&cuda->dnn) != CUDNN_STATUS_SUCCESS) {
        status = weir_fail(error, WEIR_DEVICE, "device cuda: cuDNN would not start");
        goto cleanup;
    }
    WEIR_TRY(weir_cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes), "asking for the GPU's memory", error));
    cuda->head.memory_bytes = free_bytes - free_bytes / 32; /* the rest is for what the libraries take as they run */
    cuda->head.memory_all = all_bytes - all_bytes / 32;
    name_class(cuda);
    *out = &cuda->head;
    cuda = NULL;

cleanup:
    if (cuda) {
        (void)tell_others(cuda, status, error);
        cuda_close(&cuda->head);
    }
    return status;
}
