#include "tests/bench/marks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef WEIR_HAVE_CUDA
#include "kernels/cuda/cuda.h"
#endif

struct weir_marks {
    size_t count;
    double *ms;
#ifdef WEIR_HAVE_CUDA
    cudaEvent_t *events;
#endif
};

#ifdef WEIR_HAVE_CUDA
static bool is_cuda(const struct weir_stream *stream)
{
    return strcmp(stream->device->table->name, "cuda") == 0;
}

static void check(cudaError_t fault)
{
    if (fault == cudaSuccess) return;
    fprintf(stderr, "weir-bench: %s\n", cudaGetErrorString(fault));
    exit(1);
}
#endif

struct weir_marks *weir_marks_create(size_t count)
{
    struct weir_marks *marks = calloc(1, sizeof *marks);
    if (marks) marks->ms = calloc(count, sizeof *marks->ms);
#ifdef WEIR_HAVE_CUDA
    if (marks) marks->events = calloc(count, sizeof *marks->events);
    if (!marks || !marks->events) abort();
#endif
    if (!marks || !marks->ms) abort();
    marks->count = count;
    return marks;
}

void weir_marks_destroy(struct weir_marks *marks)
{
#ifdef WEIR_HAVE_CUDA
    for (size_t i = 0; i < marks->count; i++) {
        if (marks->events[i]) check(cudaEventDestroy(marks->events[i]));
    }
    free(marks->events);
#endif
    free(marks->ms);
    free(marks);
}

void weir_marks_set(struct weir_marks *marks, size_t index, struct weir_stream *stream)
{
#ifdef WEIR_HAVE_CUDA
    if (is_cuda(stream)) {
        if (!marks->events[index]) check(cudaEventCreate(&marks->events[index]));
        check(cudaEventRecord(marks->events[index], ((struct weir_cuda_stream *)stream)->stream));
        return;
    }
#endif
    struct timespec now;
    (void)stream;
    clock_gettime(CLOCK_MONOTONIC, &now);
    marks->ms[index] = (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

double weir_marks_ms(const struct weir_marks *marks, size_t from, size_t to)
{
#ifdef WEIR_HAVE_CUDA
    if (marks->events[from]) {
        float ms = 0;
        check(cudaEventElapsedTime(&ms, marks->events[from], marks->events[to]));
        return (double)ms;
    }
#endif
    return marks->ms[to] - marks->ms[from];
}

void weir_marks_copy(struct weir_stream *stream, void *to, const void *from, size_t bytes)
{
#ifdef WEIR_HAVE_CUDA
    if (is_cuda(stream)) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, ((struct weir_cuda_stream *)stream)->stream));
        return;
    }
#endif
    (void)stream;
    memcpy(to, from, bytes);
}
