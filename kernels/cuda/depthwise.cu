/* depthwise_conv, and its gated form with the product of value and gate in the same kernel. A thread makes COLUMNS
 * neighbours of one channel, so that a window's columns are read once for all of them. */
#include "kernels/cuda/kernel.cuh"

#define COLUMNS 8

/* The sums of channel c at row v, columns u .. u + COLUMNS - 1; bias first, then taps in order. With KERNEL 0 the size
 * of the window is s.kernel, and nothing is kept. */
template <int KERNEL, typename T>
static __device__ __forceinline__ void sums_of(const struct weir_depthwise_conv &s, const T *image, const float *weight,
                                               const float *bias, uint32_t v, uint32_t u, uint32_t c,
                                               float sums[COLUMNS])
{
    const int32_t kernel = KERNEL ? KERNEL : (int32_t)s.kernel, pad = kernel / 2;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) sums[n] = bias ? bias[c] : 0.0f;
#pragma unroll
    for (int32_t ky = 0; ky < kernel; ky++) {
        const int32_t row = (int32_t)v + ky - pad;
        if (row < 0 || row >= (int32_t)s.height) continue;
        const T *line = image + (uint64_t)row * s.width * s.channels + c;
        float kept[KERNEL ? COLUMNS + KERNEL - 1 : 1];
        if (KERNEL) {
#pragma unroll
            for (int n = 0; n < COLUMNS + KERNEL - 1; n++) {
                const int32_t column = (int32_t)u + n - pad;
                const bool inside = column >= 0 && column < (int32_t)s.width;
                kept[n] = inside ? weir_read(line + (uint64_t)column * s.channels) : 0.0f;
            }
        }
#pragma unroll
        for (int32_t kx = 0; kx < kernel; kx++) {
            const float w = weight[(uint64_t)(ky * kernel + kx) * s.channels + c];
#pragma unroll
            for (int n = 0; n < COLUMNS; n++) {
                float value;
                if (KERNEL) {
                    value = kept[n + kx];
                } else {
                    const int32_t column = (int32_t)u + n + kx - pad;
                    const bool inside = column >= 0 && column < (int32_t)s.width;
                    value = inside ? weir_read(line + (uint64_t)column * s.channels) : 0.0f;
                }
                sums[n] = fmaf(w, value, sums[n]);
            }
        }
    }
}

template <int KERNEL, typename T>
__global__ void depthwise(struct weir_depthwise_conv s, uint64_t count, uint32_t steps, const T *x, const float *weight,
                          const float *bias, T *y)
{
    const uint32_t width = s.glu ? s.channels / 2 : s.channels; /* of y */
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, width), line = weir_split_by(pixel.quotient, steps);
        const struct weir_split whole = weir_split_by(line.quotient, s.height);
        const uint32_t c = pixel.rest, u = line.rest * COLUMNS, v = whole.rest;
        const uint64_t image = whole.quotient, plane = (uint64_t)s.height * s.width;
        float values[COLUMNS], gates[COLUMNS];
        sums_of<KERNEL>(s, x + image * plane * s.channels, weight, bias, v, u, c, values);
        if (s.glu) sums_of<KERNEL>(s, x + image * plane * s.channels, weight, bias, v, u, width + c, gates);
        T *to = y + (image * plane + (uint64_t)v * s.width + u) * width + c;
        for (uint32_t n = 0; n < COLUMNS && u + n < s.width; n++) {
            const float value = s.glu ? values[n] * weir_act(WEIR_ACT_SILU, gates[n]) : values[n];
            weir_write(to + (uint64_t)n * width, value);
        }
    }
}

template <typename T> static void launch(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    const float *weight = (const float *)run->plan->layer->weight, *bias = run->plan->layer->bias;
    const T *x = (const T *)run->operands[WEIR_DEPTHWISE_CONV_X];
    T *y = (T *)run->operands[WEIR_DEPTHWISE_CONV_Y];
    const uint32_t steps = (s->width + COLUMNS - 1) / COLUMNS, width = s->glu ? s->channels / 2 : s->channels;
    const uint64_t count = (uint64_t)s->rows * s->frames * s->height * steps * width;
    const unsigned blocks = weir_blocks(count, THREADS);
    cudaStream_t stream = run->stream->stream;
    if (s->kernel == 3) {
        depthwise<3, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    } else if (s->kernel == 5) {
        depthwise<5, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    } else {
        depthwise<0, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    }
}

enum weir_status weir_cuda_run_depthwise_conv(const struct weir_cuda_run *run)
{
    WEIR_BY_TYPE(run->plan->shape.depthwise_conv.dtype, T, (launch<T>(run)));
    return weir_launched();
}
