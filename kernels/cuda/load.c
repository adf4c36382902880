/* Loading: the layers of a network, from the file's numbers to the GPU's memory, by several threads side by side.
 *
 * The thread that opens the network allocates a layer's memory, puts the layer behind those that wait, and goes on. The
 * load's threads take the layers a piece at a time: each writes its piece, widened, rounded and reordered, into one of
 * its own two pinned buffers, has that copied on a stream of its own, and meanwhile writes the next one into the other.
 * A number passes through a processor once, and is nowhere but in the file's pages and in a buffer.
 *
 * Memory   2 buffers of 2 MiB a thread, and as many threads as there are processors, 16 at most: 64 MiB, which are given
 *          back when the load ends, and which no plan counts
 * Same bytes: which thread writes a piece, and when, changes none of them */
#include "kernels/cuda/cuda.h"
#include "kernels/host.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define BUFFERS 2
#define BUFFER_BYTES ((size_t)2 << 20)

struct job { /* a layer on its way */
    struct weir_cuda_image image;
    struct weir_numbers weight, bias;
    char *memory;
    uint64_t rows_taken;
    struct job *next;
};

struct piece {
    const struct job *job;
    uint64_t first, rows;
    bool tail; /* too, or alone */
};

struct weir_load {
    struct weir_cuda *cuda;
    struct job *all, **end, *waiting; /* of `all`, from `waiting` on, something is still to be taken */
    uint64_t waiting_bytes;
    bool closing;
    struct weir_error failure; /* the first; from then on nothing is taken */
    pthread_mutex_t mutex;     /* of all above but cuda */
    pthread_cond_t changed;
    pthread_t threads[THREADS_MAX];
    int thread_count, threads_max;
};

/* What a thread works with. */
struct hand {
    cudaStream_t stream;
    cudaEvent_t sent[BUFFERS]; /* what was in the buffer has arrived */
    char *buffer[BUFFERS];
    float *scratch;
    size_t scratch_room;
    unsigned turn;
};

/* ---- pieces ---- */

static size_t tail_bytes(const struct weir_cuda_image *image)
{
    return image->end - image->tail;
}

static bool take(struct weir_load *load, struct piece *out)
{
    pthread_mutex_lock(&load->mutex);
    while (!load->waiting && !load->closing && load->failure.code == WEIR_OK)
        pthread_cond_wait(&load->changed, &load->mutex);
    struct job *job = load->failure.code == WEIR_OK ? load->waiting : NULL;
    if (job) {
        const struct weir_cuda_image *image = &job->image;
        const uint64_t most = BUFFER_BYTES / image->row_bytes, left = image->rows - job->rows_taken;
        *out = (struct piece){ job, job->rows_taken, left < most ? left : most, false };
        const size_t bytes = out->rows * image->row_bytes;
        job->rows_taken += out->rows;
        out->tail = job->rows_taken == image->rows && tail_bytes(image) <= BUFFER_BYTES - bytes;
        load->waiting_bytes -= bytes + (out->tail ? tail_bytes(image) : 0);
        if (out->tail) load->waiting = job->next;
    }
    pthread_mutex_unlock(&load->mutex);
    return job != NULL;
}

static enum weir_status make_scratch(struct hand *hand, size_t floats, struct weir_error *error)
{
    if (floats <= hand->scratch_room) return WEIR_OK;
    free(hand->scratch);
    hand->scratch = malloc(floats * sizeof *hand->scratch);
    hand->scratch_room = hand->scratch ? floats : 0;
    if (hand->scratch) return WEIR_OK;
    return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no host memory for a row of %zu weights", floats);
}

static enum weir_status send(struct hand *hand, const struct piece *piece, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct job *job = piece->job;
    const struct weir_cuda_image *image = &job->image;
    const unsigned b = hand->turn++ % BUFFERS;
    const size_t begin = piece->first * image->row_bytes, rows_bytes = piece->rows * image->row_bytes;
    const size_t bytes = rows_bytes + (piece->tail ? tail_bytes(image) : 0);
    char *to = hand->buffer[b] + begin % WEIR_ALIGNMENT;
    WEIR_TRY(make_scratch(hand, weir_cuda_image_scratch(image), error));
    WEIR_TRY(weir_cuda_check(cudaEventSynchronize(hand->sent[b]), "copying weights to the GPU", error));
    weir_cuda_image_rows(image, &job->weight, piece->first, piece->rows, hand->scratch, to);
    if (piece->tail) weir_cuda_image_tail(image, &job->bias, to + rows_bytes);
    cudaError_t fault = cudaMemcpyAsync(job->memory + begin, to, bytes, cudaMemcpyHostToDevice, hand->stream);
    if (fault == cudaSuccess) fault = cudaEventRecord(hand->sent[b], hand->stream);
    WEIR_TRY(weir_cuda_check(fault, "copying weights to the GPU", error));
cleanup:
    return status;
}

/* ---- threads ---- */

static enum weir_status hand_init(struct hand *hand, int gpu, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_cuda_check(cudaSetDevice(gpu), "choosing the GPU", error));
    WEIR_TRY(weir_cuda_check(cudaStreamCreateWithFlags(&hand->stream, cudaStreamNonBlocking), "a stream", error));
    for (int i = 0; i < BUFFERS; i++) {
        void *buffer;
        WEIR_TRY(weir_cuda_check(cudaEventCreateWithFlags(&hand->sent[i], cudaEventDisableTiming), "an event", error));
        WEIR_TRY(weir_cuda_check(cudaHostAlloc(&buffer, BUFFER_BYTES + WEIR_ALIGNMENT, cudaHostAllocDefault),
                                 "pinning host memory", error));
        hand->buffer[i] = buffer;
    }
cleanup:
    return status;
}

static void hand_deinit(struct hand *hand)
{
    for (int i = 0; i < BUFFERS; i++) {
        if (hand->buffer[i]) cudaFreeHost(hand->buffer[i]);
        if (hand->sent[i]) cudaEventDestroy(hand->sent[i]);
    }
    if (hand->stream) cudaStreamDestroy(hand->stream);
    free(hand->scratch);
}

static void *carry(void *context)
{
    struct weir_load *load = context;
    struct hand hand = { 0 };
    struct piece piece;
    struct weir_error error = { .code = WEIR_OK };
    enum weir_status status = hand_init(&hand, load->cuda->index, &error);
    while (status == WEIR_OK && take(load, &piece)) status = send(&hand, &piece, &error);
    if (hand.stream) { /* buffers are read until then, whatever failed */
        const cudaError_t fault = cudaStreamSynchronize(hand.stream);
        if (status == WEIR_OK) status = weir_cuda_check(fault, "copying weights to the GPU", &error);
    }
    hand_deinit(&hand);
    if (status != WEIR_OK) {
        pthread_mutex_lock(&load->mutex);
        if (load->failure.code == WEIR_OK) load->failure = error;
        pthread_cond_broadcast(&load->changed);
        pthread_mutex_unlock(&load->mutex);
    }
    return NULL;
}

/* As many threads as there will be buffers full of work, when so many bytes more wait; one at least. */
static enum weir_status hire(struct weir_load *load, uint64_t more_bytes, struct weir_error *error)
{
    pthread_mutex_lock(&load->mutex);
    const uint64_t bytes = load->waiting_bytes + more_bytes;
    pthread_mutex_unlock(&load->mutex);
    while (load->thread_count < load->threads_max &&
           (load->thread_count == 0 || (uint64_t)load->thread_count * BUFFER_BYTES < bytes)) {
        const int failed = pthread_create(&load->threads[load->thread_count], NULL, carry, load);
        if (failed && load->thread_count > 0) break;
        if (failed)
            return weir_fail(error, WEIR_INTERNAL, "device cuda: a thread could not be started: %s", strerror(failed));
        load->thread_count++;
    }
    return WEIR_OK;
}

/* ---- the load ---- */

enum weir_status weir_cuda_load_begin(struct weir_device *device, struct weir_load **out, struct weir_error *error)
{
    const int processors = weir_host_processors();
    struct weir_load *load = calloc(1, sizeof *load);
    if (!load) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a load");
    load->cuda = (struct weir_cuda *)device;
    load->end = &load->all;
    load->failure.code = WEIR_OK;
    load->threads_max = processors < THREADS_MAX ? processors : THREADS_MAX;
    pthread_mutex_init(&load->mutex, NULL);
    pthread_cond_init(&load->changed, NULL);
    *out = load;
    return WEIR_OK;
}

/* Behind those that wait. A load that has failed takes no more. */
static enum weir_status put(struct weir_load *load, struct job *job, struct weir_error *error)
{
    pthread_mutex_lock(&load->mutex);
    const enum weir_status status = load->failure.code;
    if (status == WEIR_OK) {
        *load->end = job;
        load->end = &job->next;
        if (!load->waiting) load->waiting = job;
        load->waiting_bytes += job->image.end;
        pthread_cond_broadcast(&load->changed);
    } else if (error) {
        *error = load->failure;
    }
    pthread_mutex_unlock(&load->mutex);
    return status;
}

/* The layer's numbers in f32 at once: what no buffer has a row of, or what is not made in pieces, is packed as any layer
 * is. */
static enum weir_status pack_whole(struct weir_load *load, const struct weir_parameters *parameters,
                                   const struct weir_numbers *weight, const struct weir_numbers *bias,
                                   struct weir_packed **out, struct weir_error *error)
{
    struct weir_parameters q = *parameters;
    const uint64_t weight_count = weir_weight_count(&q), bias_count = weir_bias_count(&q);
    enum weir_status status = WEIR_OK;
    float *values = malloc((weight_count + bias_count) * sizeof *values);
    if (!values) {
        return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no host memory for %llu bytes of weights",
                         (unsigned long long)(weight_count + bias_count) * sizeof *values);
    }
    weir_numbers_f32(weight, 0, weight_count, values);
    weir_numbers_f32(bias, 0, bias_count, values + weight_count);
    q.weight = values;
    q.bias = q.bias ? values + weight_count : NULL;
    status = weir_cuda_pack(&load->cuda->head, &q, out, error);
    free(values);
    return status;
}

enum weir_status weir_cuda_load_pack(struct weir_load *load, const struct weir_parameters *q,
                                     const struct weir_numbers *weight, const struct weir_numbers *bias,
                                     struct weir_packed **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_cuda_packed *packed = NULL;
    struct job *job = NULL;

    assert(!q->shape_only);
    WEIR_TRY(weir_check_parameters(q, error));
    const struct weir_cuda_image image = weir_cuda_image_of(q);
    if (image.row_bytes > BUFFER_BYTES || tail_bytes(&image) > BUFFER_BYTES || image.doubled < image.end)
        return pack_whole(load, q, weight, bias, out, error);
    WEIR_TRY(hire(load, image.end, error));
    WEIR_TRY(weir_cuda_packed_create(&load->cuda->head, q, &image, &packed, error));
    job = malloc(sizeof *job);
    if (!job) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a layer"));
    *job = (struct job){ .image = image, .weight = *weight, .bias = *bias, .memory = packed->memory };
    WEIR_TRY(put(load, job, error));
    job = NULL;
    *out = &packed->head;
    packed = NULL;

cleanup:
    free(job);
    if (packed) weir_cuda_packed_destroy(&packed->head);
    return status;
}

enum weir_status weir_cuda_load_end(struct weir_load **load_p, struct weir_error *error)
{
    struct weir_load *load = *load_p;
    if (!load) return WEIR_OK;
    pthread_mutex_lock(&load->mutex);
    load->closing = true;
    pthread_cond_broadcast(&load->changed);
    pthread_mutex_unlock(&load->mutex);
    for (int i = 0; i < load->thread_count; i++) pthread_join(load->threads[i], NULL);

    const enum weir_status status = load->failure.code;
    if (status != WEIR_OK && error) *error = load->failure;
    for (struct job *next; load->all; load->all = next) {
        next = load->all->next;
        free(load->all);
    }
    pthread_cond_destroy(&load->changed);
    pthread_mutex_destroy(&load->mutex);
    free(load);
    *load_p = NULL;
    return status;
}
