/* Beside a library's convolution: the picture it reads, resized, and what is added to what it made. */
#include "kernels/cuda/kernel.cuh"

template <typename T> __global__ void resize(struct weir_cuda_window w, uint64_t count, const T *x, T *to)
{
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, w.in), line = weir_split_by(pixel.quotient, w.source_width);
        const struct weir_split whole = weir_split_by(line.quotient, w.source_height);
        const uint32_t c = pixel.rest;
        const uint64_t image = whole.quotient;
        const uint64_t row = weir_split_by((uint64_t)whole.rest * w.x_height, w.source_height).quotient;
        const uint64_t column = weir_split_by((uint64_t)line.rest * w.x_width, w.source_width).quotient;
        to[i] = x[((image * w.x_height + row) * w.x_width + column) * w.in + c];
    }
}

enum weir_status weir_cuda_resize(const struct weir_cuda_window *w, cudaStream_t stream, uint64_t images, const void *x,
                                  void *to)
{
    const uint64_t count = images * w->source_height * w->source_width * w->in;
    WEIR_BY_TYPE(w->dtype, T,
                 (resize<T><<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(*w, count, (const T *)x, (T *)to)));
    return weir_launched();
}

template <typename T>
__global__ void window_epilogue(struct weir_cuda_window w, uint64_t count, const T *sums, const float *bias,
                                const T *row_bias, const T *residual, T *y)
{
    const uint64_t row = (uint64_t)w.frames * w.height * w.width * w.out;
    WEIR_EACH(i, count)
    {
        const uint32_t o = weir_split_by(i, w.out).rest;
        float value = weir_read(sums + i);
        if (bias) value += bias[o];
        if (w.row_bias) value += weir_read(row_bias + i / row * w.out + o);
        if (w.residual) value += weir_read(residual + i);
        weir_write(y + i, value);
    }
}

enum weir_status weir_cuda_window_epilogue(const struct weir_cuda_window *w, cudaStream_t stream, const void *sums,
                                           const float *bias, const void *row_bias, const void *residual, void *y)
{
    const uint64_t count = w->images * w->height * w->width * w->out;
    WEIR_BY_TYPE(w->dtype, T,
                 (window_epilogue<T><<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(
                     *w, count, (const T *)sums, bias, (const T *)row_bias, (const T *)residual, (T *)y)));
    return weir_launched();
}
