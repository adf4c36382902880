/* linear and grouped_linear: a product, and what follows it. */
#include "kernels/cuda/cuda.h"

/* A product as a convolution of 1 x 1 pixels: what our own kernel takes where cuBLASLt has nothing. */
#define WINDOW_OF_TOKENS(ROWS, tokens, IN, OUT, from, to, add, type, y_type)                                           \
    {                                                                                                                  \
        .images = (ROWS), .frames = 1, .x_height = 1, .x_width = (tokens), .source_height = 1,                         \
        .source_width = (tokens), .height = 1, .width = (tokens), .kernel_y = 1, .kernel_x = 1, .stride = 1,           \
        .in = (IN), .out = (OUT), .x_stride = (from), .y_stride = (to), .residual = (add), .dtype = (type),            \
        .y_dtype = (y_type)                                                                                            \
    }

static size_t row_values(const struct weir_linear *s)
{
    return (size_t)s->tokens * s->out;
}

/* Does anything but a bias and a residual follow the product? */
static bool has_epilogue(const struct weir_linear *s)
{
    return s->activation != WEIR_ACT_NONE || s->gate_vectors > 0;
}

/* The product goes to the workspace first when y is narrower, or when what y may lie over is read after it. In bf16 the
 * sums are rounded there, or in y, as PyTorch rounds them: half the bytes of f32, and a bias comes with them. */
static bool is_apart(const struct weir_linear *s)
{
    return has_epilogue(s) && (weir_activation_is_gated(s->activation) || s->residual);
}

static size_t apart_bytes(const struct weir_linear *s)
{
    return is_apart(s) ? weir_cuda_aligned(s->rows * row_values(s) * weir_dtype_bytes(s->dtype)) : 0;
}

/* As what the product makes. A layer of which only the shape is known has it somewhere, too: plans must be alike. */
static const void *bias_of(const struct weir_cuda_packed *layer, const struct weir_linear *s)
{
    const void *bias = s->dtype == WEIR_F32 ? layer->bias : layer->bias_bf16;
    const uintptr_t somewhere = 4096;
    return layer->head.bias && !bias ? (const void *)somewhere : bias;
}

enum weir_status weir_cuda_prepare_linear(struct weir_cuda *cuda, struct weir_cuda_plan *plan, struct weir_error *error)
{
    const struct weir_linear *s = &plan->shape.linear;
    const struct weir_cuda_packed *layer = plan->layer;
    const struct weir_cuda_product_shape shape = { .tokens = s->tokens,
                                                   .in = s->in,
                                                   .out = s->out,
                                                   .x_stride = s->in,
                                                   .y_stride = s->out,
                                                   .groups = 1,
                                                   .rows = s->rows,
                                                   .x_row = (size_t)s->tokens * s->in,
                                                   .y_row = row_values(s),
                                                   .bias = bias_of(layer, s),
                                                   .add = s->residual && !has_epilogue(s),
                                                   .dtype = s->dtype,
                                                   .y_dtype = s->dtype };
    size_t product_bytes = 0;
    const enum weir_status status = weir_cuda_product_create(cuda, &shape, &plan->product, &product_bytes, error);
    plan->workspace_bytes = apart_bytes(s) + product_bytes;
    return status;
}

enum weir_status weir_cuda_run_linear(const struct weir_cuda_run *run)
{
    const struct weir_cuda_plan *plan = run->plan;
    const struct weir_linear *s = &plan->shape.linear;
    const struct weir_cuda_packed *layer = plan->layer;
    const void *x = run->operands[WEIR_LINEAR_X], *residual = run->operands[WEIR_LINEAR_RESIDUAL];
    void *y = run->operands[WEIR_LINEAR_Y], *sums = is_apart(s) ? run->workspace : y;
    const bool add = s->residual && !has_epilogue(s);
    enum weir_status status;
    if (plan->product) {
        status = weir_cuda_product_run(plan->product, run->stream, x, layer->weight, residual, sums,
                                       (char *)run->workspace + apart_bytes(s));
    } else {
        const struct weir_cuda_window window =
            WINDOW_OF_TOKENS(s->rows, s->tokens, s->in, s->out, s->in, s->out, add, s->dtype, s->dtype);
        status =
            weir_cuda_window_run(&window, run->stream->stream, x, layer->weight, layer->bias, NULL, residual, sums);
    }
    if (status != WEIR_OK || !has_epilogue(s)) return status;
    return weir_cuda_epilogue(s, run->stream->stream, sums, residual, run->operands[WEIR_LINEAR_GATE], y);
}

/* The groups of one row are a batch: each has its part of the weight, and its channels of every token. */
enum weir_status weir_cuda_prepare_grouped_linear(struct weir_cuda *cuda, struct weir_cuda_plan *plan,
                                                  struct weir_error *error)
{
    const struct weir_grouped_linear *s = &plan->shape.grouped_linear;
    const uint32_t in = s->in / s->groups, out = s->out / s->groups;
    const struct weir_cuda_product_shape shape = { .tokens = s->tokens,
                                                   .in = in,
                                                   .out = out,
                                                   .x_stride = s->in,
                                                   .y_stride = s->out,
                                                   .groups = s->groups,
                                                   .x_step = in,
                                                   .weight_step = (size_t)in * out,
                                                   .y_step = out,
                                                   .rows = s->rows,
                                                   .x_row = (size_t)s->tokens * s->in,
                                                   .y_row = (size_t)s->tokens * s->out,
                                                   .dtype = s->dtype,
                                                   .y_dtype = s->dtype };
    return weir_cuda_product_create(cuda, &shape, &plan->product, &plan->workspace_bytes, error);
}

enum weir_status weir_cuda_run_grouped_linear(const struct weir_cuda_run *run)
{
    const struct weir_cuda_plan *plan = run->plan;
    const struct weir_grouped_linear *s = &plan->shape.grouped_linear;
    const uint32_t in = s->in / s->groups, out = s->out / s->groups;
    const size_t element = weir_dtype_bytes(s->dtype);
    const char *x = run->operands[WEIR_GROUPED_LINEAR_X], *weight = plan->layer->weight;
    char *y = run->operands[WEIR_GROUPED_LINEAR_Y];
    enum weir_status status = WEIR_OK;
    if (plan->product) return weir_cuda_product_run(plan->product, run->stream, x, weight, NULL, y, run->workspace);
    const struct weir_cuda_window window =
        WINDOW_OF_TOKENS(s->rows, s->tokens, in, out, s->in, s->out, false, s->dtype, s->dtype);
    for (size_t g = 0; g < s->groups && status == WEIR_OK; g++) {
        status = weir_cuda_window_run(&window, run->stream->stream, x + g * in * element,
                                      weight + g * in * out * element, NULL, NULL, NULL, y + g * out * element);
    }
    return status;
}
