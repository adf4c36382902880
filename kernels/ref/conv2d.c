#include "kernels/ref/ref.h"

size_t weir_ref_scratch_conv2d(const struct weir_conv2d *s)
{
    return s->out;
}

/* One pixel of one image: sum[o] += over the window at (top, left) of x resized. */
static void window_sum(const struct weir_conv2d *s, const struct weir_conv2d_size *size,
                       const struct weir_ref_packed *layer, const float *image, int64_t top, int64_t left, double *sum)
{
    for (uint32_t ky = 0; ky < s->kernel; ky++) {
        for (uint32_t kx = 0; kx < s->kernel; kx++) {
            const int64_t row = top + ky, column = left + kx;
            if (row < 0 || row >= size->source_height || column < 0 || column >= size->source_width) continue;
            const uint64_t from_row = (uint64_t)row * s->height / size->source_height;
            const uint64_t from_column = (uint64_t)column * s->width / size->source_width;
            const float *x = image + (from_row * s->width + from_column) * s->in;
            const float *weight = layer->weight + ((size_t)ky * s->kernel + kx) * s->in * s->out;
            for (uint32_t i = 0; i < s->in; i++, weight += s->out) {
                const double xi = weir_ref_read(layer, x[i]);
                for (uint32_t o = 0; o < s->out; o++) sum[o] += xi * (double)weight[o];
            }
        }
    }
}

void weir_ref_conv2d(const struct weir_conv2d *s, const struct weir_ref_packed *layer, void *const operands[],
                     double *sum)
{
    const float *x = operands[WEIR_CONV2D_X], *row_bias = operands[WEIR_CONV2D_ROW_BIAS];
    const float *residual = operands[WEIR_CONV2D_RESIDUAL];
    float *y = operands[WEIR_CONV2D_Y];
    const struct weir_conv2d_size size = weir_conv2d_size_of(s);
    const size_t image_count = (size_t)s->height * s->width * s->in;

    size_t at = 0; /* in y and residual */
    for (uint64_t image = 0; image < (uint64_t)s->rows * s->frames; image++) {
        const uint64_t row = image / s->frames;
        for (uint32_t v = 0; v < size.height; v++) {
            for (uint32_t u = 0; u < size.width; u++, at += s->out) {
                for (uint32_t o = 0; o < s->out; o++) {
                    sum[o] = layer->bias ? (double)layer->bias[o] : 0;
                    if (s->row_bias) sum[o] += (double)row_bias[row * s->out + o];
                    if (s->residual) sum[o] += (double)residual[at + o];
                }
                window_sum(s, &size, layer, x + image * image_count, (int64_t)v * s->stride - s->pad,
                           (int64_t)u * s->stride - s->pad, sum);
                for (uint32_t o = 0; o < s->out; o++) {
                    y[at + o] = (float)weir_ref_activation(s->silu ? WEIR_ACT_SILU : WEIR_ACT_NONE, sum[o]);
                }
            }
        }
    }
}
