/* Graphs: what a stream would do, captured once. */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

struct weir_graph {
    int index; /* of the GPU */
    cudaGraphExec_t work;
};

static bool current(int index)
{
    return cudaSetDevice(index) == cudaSuccess;
}

static int index_of(const struct weir_stream *stream)
{
    return ((const struct weir_cuda *)stream->device)->index;
}

enum weir_status weir_cuda_graph_begin(struct weir_stream *head)
{
    const struct weir_cuda_stream *stream = (const struct weir_cuda_stream *)head;
    /* Other threads may allocate meanwhile; this one does not. */
    return current(index_of(head)) &&
                   cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess
               ? WEIR_OK
               : WEIR_DEVICE;
}

enum weir_status weir_cuda_graph_end(struct weir_stream *head, struct weir_graph **out)
{
    const struct weir_cuda_stream *stream = (const struct weir_cuda_stream *)head;
    struct weir_graph *graph = calloc(1, sizeof *graph);
    cudaGraph_t captured = NULL;
    *out = NULL;
    const bool good = current(index_of(head)) && cudaStreamEndCapture(stream->stream, &captured) == cudaSuccess &&
                      graph && cudaGraphInstantiate(&graph->work, captured, 0) == cudaSuccess;
    if (captured) cudaGraphDestroy(captured);
    if (!good) {
        (void)cudaGetLastError(); /* the stream itself is sound again */
        free(graph);
        return WEIR_DEVICE;
    }
    graph->index = index_of(head);
    *out = graph;
    return WEIR_OK;
}

enum weir_status weir_cuda_graph_launch(struct weir_stream *head, const struct weir_graph *graph)
{
    const struct weir_cuda_stream *stream = (const struct weir_cuda_stream *)head;
    return current(graph->index) && cudaGraphLaunch(graph->work, stream->stream) == cudaSuccess ? WEIR_OK : WEIR_DEVICE;
}

void weir_cuda_graph_destroy(struct weir_graph *graph)
{
    if (!graph) return;
    if (current(graph->index)) cudaGraphExecDestroy(graph->work);
    free(graph);
}
