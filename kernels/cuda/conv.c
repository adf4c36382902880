/* conv2d and conv_temporal. */
#include "kernels/cuda/cuda.h"

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

enum weir_status weir_cuda_prepare_conv2d(struct weir_cuda *cuda, struct weir_cuda_plan *plan, struct weir_error *error)
{
    (void)cuda;
    (void)plan;
    (void)error;
    return WEIR_OK;
}

enum weir_status weir_cuda_prepare_conv_temporal(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                                 struct weir_error *error)
{
    (void)cuda;
    (void)plan;
    (void)error;
    return WEIR_OK;
}

enum weir_status weir_cuda_run_conv2d(const struct weir_cuda_run *run)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv2d(&run->plan->shape.conv2d);
    return weir_cuda_window_run(&window, run->stream->stream, run->operands[WEIR_CONV2D_X], run->plan->layer->weight,
                                run->plan->layer->bias, run->operands[WEIR_CONV2D_ROW_BIAS],
                                run->operands[WEIR_CONV2D_RESIDUAL], run->operands[WEIR_CONV2D_Y]);
}

enum weir_status weir_cuda_run_conv_temporal(const struct weir_cuda_run *run)
{
    const struct weir_cuda_window window = weir_cuda_window_of_conv_temporal(&run->plan->shape.conv_temporal);
    return weir_cuda_window_run(&window, run->stream->stream, run->operands[WEIR_CONV_TEMPORAL_X],
                                run->plan->layer->weight, run->plan->layer->bias, NULL,
                                run->operands[WEIR_CONV_TEMPORAL_RESIDUAL], run->operands[WEIR_CONV_TEMPORAL_Y]);
}
