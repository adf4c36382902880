/* conv2d and conv_temporal. */
#include "kernels/cuda/cuda.h"

#include <string.h>

struct weir_cuda_window weir_cuda_window_of_conv2d(const struct weir_conv2d *s)
{
    const struct weir_conv2d_size size = weir_conv2d_size_of(s);
    return (struct weir_cuda_window){ .images = (uint64_t)s->rows * s->frames,
                                      .frames = s->frames,
                                      .x_height = s->height,
                                      .x_width = s->width,
                                      .source_height = size.source_height,
                                      .source_width = size.source_width,
                                      .height = size.height,
                                      .width = size.width,
                                      .kernel_y = s->kernel,
                                      .kernel_x = s->kernel,
                                      .stride = s->stride,
                                      .pad_y = s->pad,
                                      .pad_x = s->pad,
                                      .end_y = s->pad_end,
                                      .end_x = s->pad_end,
                                      .in = s->in,
                                      .out = s->out,
                                      .x_stride = s->in,
                                      .y_stride = s->out,
                                      .row_bias = s->row_bias,
                                      .residual = s->residual,
                                      .silu = s->silu,
                                      .dtype = s->dtype,
                                      .y_dtype = s->dtype };
}

/* Frames are the rows of one tall picture, pixels its columns. */
struct weir_cuda_window weir_cuda_window_of_conv_temporal(const struct weir_conv_temporal *s)
{
    return (struct weir_cuda_window){ .images = s->rows,
                                      .frames = 1,
                                      .x_height = s->frames,
                                      .x_width = s->pixels,
                                      .source_height = s->frames,
                                      .source_width = s->pixels,
                                      .height = s->frames,
                                      .width = s->pixels,
                                      .kernel_y = 3,
                                      .kernel_x = 1,
                                      .stride = 1,
                                      .pad_y = 1,
                                      .end_y = 1,
                                      .in = s->in,
                                      .out = s->out,
                                      .x_stride = s->in,
                                      .y_stride = s->out,
                                      .residual = s->residual,
                                      .dtype = s->dtype,
                                      .y_dtype = s->dtype };
}

/* cuDNN takes rows of bf16 that are worth it: below this our own kernel, which needs no pass for bias and residual,
 * is as fast. */
#define LIBRARY_TERMS_MIN ((uint64_t)1 << 25)
#define LIBRARY_CHANNELS 4 /* that both ends must be a multiple of */

static struct weir_cuda_window one_row(const struct weir_cuda_window *w)
{
    struct weir_cuda_window row = *w;
    row.images = w->frames;
    return row;
}

static uint32_t out_there(const struct weir_cuda_window *w)
{
    return weir_cuda_conv_rows(w->out, w->dtype);
}

/* As cuDNN sees it: x' is there, out is what the weights have rows for, and nothing follows. Cleared first: such
 * windows are compared as bytes. */
static struct weir_cuda_window bare(const struct weir_cuda_window *row)
{
    struct weir_cuda_window w;
    memset(&w, 0, sizeof w);
    w.images = row->images, w.frames = row->frames;
    w.x_height = w.source_height = row->source_height, w.x_width = w.source_width = row->source_width;
    w.height = row->height, w.width = row->width;
    w.kernel_y = row->kernel_y, w.kernel_x = row->kernel_x, w.stride = row->stride;
    w.pad_y = row->pad_y, w.pad_x = row->pad_x, w.end_y = row->end_y, w.end_x = row->end_x;
    w.in = row->in, w.out = out_there(row);
    w.x_stride = row->in, w.y_stride = w.out;
    w.dtype = w.y_dtype = row->dtype;
    return w;
}

static bool is_resized(const struct weir_cuda_window *w)
{
    return w->source_height != w->x_height || w->source_width != w->x_width;
}

/* Are the sums somewhere else first: where y may be the residual, or has fewer channels? */
static bool is_apart(const struct weir_cuda_window *w)
{
    return w->residual || out_there(w) != w->out;
}

/* Of one row, in the workspace: x' where it is not x; the sums where they are apart. */
struct parts {
    size_t resized, sums;
};
static struct parts parts_of(const struct weir_cuda_window *row)
{
    const size_t element = weir_dtype_bytes(row->dtype);
    const size_t resized = (size_t)row->images * row->source_height * row->source_width * row->in * element;
    const size_t sums = (size_t)row->images * row->height * row->width * out_there(row) * element;
    return (struct parts){ is_resized(row) ? weir_cuda_aligned(resized) : 0,
                           is_apart(row) ? weir_cuda_aligned(sums) : 0 };
}

/* Rows go together when one alone fills few processors, and what lies beside them takes little memory. */
#define TOGETHER_TERMS_MAX ((uint64_t)1 << 35) /* of a row */
#define TOGETHER_BYTES_MAX ((size_t)512 << 20)

static enum weir_status prepare_together(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                         const struct weir_cuda_window *w, uint64_t row_terms, struct weir_error *error)
{
    const uint32_t rows = (uint32_t)(w->images / w->frames);
    const struct parts parts = parts_of(w);
    if (rows < 2 || row_terms > TOGETHER_TERMS_MAX || parts.resized + parts.sums > TOGETHER_BYTES_MAX) return WEIR_OK;
    const enum weir_status status = weir_cuda_convolution_repeat(cuda, plan->convolution, rows, &plan->together, error);
    if (status == WEIR_OK && weir_cuda_convolution_exists(plan->together)) {
        const size_t bytes = parts.resized + parts.sums + weir_cuda_convolution_workspace(plan->together);
        if (bytes > plan->workspace_bytes) plan->workspace_bytes = bytes;
    }
    return status;
}

static enum weir_status prepare(struct weir_cuda *cuda, struct weir_cuda_plan *plan, const struct weir_cuda_window *w,
                                struct weir_error *error)
{
    plan->tiled = weir_cuda_tiles_take(cuda, w, plan->layer);
    if (plan->tiled) return WEIR_OK;
    const struct weir_cuda_window row = one_row(w), shape = bare(&row);
    const uint64_t terms = row.images * row.height * row.width * row.out * row.in * row.kernel_y * row.kernel_x;
    if (row.dtype == WEIR_F32 || terms < LIBRARY_TERMS_MIN || row.in % LIBRARY_CHANNELS ||
        out_there(&row) % LIBRARY_CHANNELS)
        return WEIR_OK;
    const enum weir_status status = weir_cuda_convolution_create(cuda, &shape, &plan->convolution, error);
    if (status == WEIR_OK && weir_cuda_convolution_exists(plan->convolution)) {
        const struct parts parts = parts_of(&row);
        plan->workspace_bytes = parts.resized + parts.sums + weir_cuda_convolution_workspace(plan->convolution);
        return prepare_together(cuda, plan, w, terms, error);
    }
    return status;
}

struct convolved {
    const char *x, *row_bias, *residual;
    char *y;
};

/* One row, or all of them where `convolution` is for all. */
static enum weir_status run_rows(const struct weir_cuda_run *run, const struct weir_cuda_convolution *convolution,
                                 const struct weir_cuda_window *row, const struct convolved *m)
{
    const struct weir_cuda_packed *layer = run->plan->layer;
    const struct parts parts = parts_of(row);
    cudaStream_t stream = run->stream->stream;
    enum weir_status status = WEIR_OK;
    char *resized = run->workspace, *sums = is_apart(row) ? resized + parts.resized : m->y;
    if (is_resized(row)) WEIR_TRY(weir_cuda_resize(row, stream, row->images, m->x, resized));
    WEIR_TRY(weir_cuda_convolution_run(convolution, run->stream, is_resized(row) ? resized : m->x, layer->weight, sums,
                                       resized + parts.resized + parts.sums));
    if (layer->bias || row->row_bias || row->silu || is_apart(row)) {
        status =
            weir_cuda_window_epilogue(row, stream, sums, out_there(row), layer->bias, m->row_bias, m->residual, m->y);
    }

cleanup:
    return status;
}

static enum weir_status run_window(const struct weir_cuda_run *run, const struct weir_cuda_window *w,
                                   const struct convolved *m)
{
    const struct weir_cuda_packed *layer = run->plan->layer;
    if (run->plan->tiled) {
        return weir_cuda_tiles_run((const struct weir_cuda *)run->plan->head.device, w, run->stream->stream, layer,
                                   m->x, m->row_bias, m->residual, m->y);
    }
    if (!weir_cuda_convolution_exists(run->plan->convolution)) {
        return weir_cuda_window_run(w, run->stream->stream, m->x, layer->weight, layer->bias, m->row_bias, m->residual,
                                    m->y);
    }
    if (weir_cuda_convolution_exists(run->plan->together)) return run_rows(run, run->plan->together, w, m);
    const struct weir_cuda_window row = one_row(w);
    const size_t element = weir_dtype_bytes(w->dtype);
    const size_t x_bytes = (size_t)w->frames * w->x_height * w->x_width * w->in * element;
    const size_t y_bytes = (size_t)w->frames * w->height * w->width * w->out * element;
    enum weir_status status = WEIR_OK;
    for (size_t r = 0; r < w->images / w->frames && status == WEIR_OK; r++) {
        const struct convolved one = { m->x + r * x_bytes, w->row_bias ? m->row_bias + r * w->out * element : NULL,
                                       w->residual ? m->residual + r * y_bytes : NULL, m->y + r * y_bytes };
        status = run_rows(run, run->plan->convolution, &row, &one);
    }
    return status;
}

enum weir_status weir_cuda_prepare_conv2d(struct weir_cuda *cuda, struct weir_cuda_plan *plan, struct weir_error *error)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv2d(&plan->shape.conv2d);
    return prepare(cuda, plan, &window, error);
}

enum weir_status weir_cuda_prepare_conv_temporal(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                                 struct weir_error *error)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv_temporal(&plan->shape.conv_temporal);
    return prepare(cuda, plan, &window, error);
}

enum weir_status weir_cuda_run_conv2d(const struct weir_cuda_run *run)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv2d(&run->plan->shape.conv2d);
    const struct convolved m = { run->operands[WEIR_CONV2D_X], run->operands[WEIR_CONV2D_ROW_BIAS],
                                 run->operands[WEIR_CONV2D_RESIDUAL], run->operands[WEIR_CONV2D_Y] };
    return run_window(run, &window, &m);
}

enum weir_status weir_cuda_run_conv_temporal(const struct weir_cuda_run *run)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv_temporal(&run->plan->shape.conv_temporal);
    const struct convolved m = { run->operands[WEIR_CONV_TEMPORAL_X], NULL, run->operands[WEIR_CONV_TEMPORAL_RESIDUAL],
                                 run->operands[WEIR_CONV_TEMPORAL_Y] };
    return run_window(run, &window, &m);
}
