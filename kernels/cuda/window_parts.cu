/* Beside a library's convolution: the picture it reads, resized, and what is added to what it made. */
#include "kernels/cuda/kernel.cuh"

__global__ void resize(struct weir_cuda_window w, uint64_t count, const bf16 *x, bf16 *to)
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

/* Eight channels of a pixel of x' a thread: they are only moved. */
__global__ void resize_8(struct weir_cuda_window w, uint64_t count, const uint4 *x, uint4 *to)
{
    const uint32_t eights = w.in / 8;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, eights), line = weir_split_by(pixel.quotient, w.source_width);
        const struct weir_split whole = weir_split_by(line.quotient, w.source_height);
        const uint64_t row = weir_split_by((uint64_t)whole.rest * w.x_height, w.source_height).quotient;
        const uint64_t column = weir_split_by((uint64_t)line.rest * w.x_width, w.source_width).quotient;
        to[i] = x[((whole.quotient * w.x_height + row) * w.x_width + column) * eights + pixel.rest];
    }
}

enum weir_status weir_cuda_resize(const struct weir_cuda_window *w, cudaStream_t stream, uint64_t images, const void *x,
                                  void *to)
{
    const uint64_t count = images * w->source_height * w->source_width * w->in;
    assert(w->dtype == WEIR_BF16);
    if (w->in % WEIR_EIGHT == 0) {
        resize_8<<<weir_blocks(count / 8, THREADS), THREADS, 0, stream>>>(*w, count / 8, (const uint4 *)x, (uint4 *)to);
        return weir_launched();
    }
    resize<<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(*w, count, (const bf16 *)x, (bf16 *)to);
    return weir_launched();
}

__global__ void window_epilogue(struct weir_cuda_window w, uint64_t count, const bf16 *sums, uint32_t sums_stride,
                                const float *bias, const bf16 *row_bias, const bf16 *residual, bf16 *y)
{
    const uint64_t row = (uint64_t)w.frames * w.height * w.width * w.out;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, w.out);
        const uint32_t o = pixel.rest;
        float value = weir_read(sums + pixel.quotient * sums_stride + o);
        if (bias) value += bias[o];
        if (w.row_bias) value += weir_read(row_bias + i / row * w.out + o);
        if (w.residual) value += weir_read(residual + i);
        if (w.silu) value = weir_act(WEIR_ACT_SILU, value);
        weir_write(y + i, value);
    }
}

/* Eight channels a thread; bias, row_bias and residual in the same order as above. */
__global__ void window_epilogue_8(struct weir_cuda_window w, uint64_t count, const bf16 *sums, const float *bias,
                                  const bf16 *row_bias, const bf16 *residual, bf16 *y)
{
    const uint32_t eights = w.out / 8;
    const uint64_t row = (uint64_t)w.frames * w.height * w.width * eights;
    WEIR_EACH(i, count)
    {
        const uint32_t o = weir_split_by(i, eights).rest * 8;
        float values[8], others[8];
        weir_read_8(sums + i * 8, values);
        if (bias) {
            weir_read_8(bias + o, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] += others[n];
        }
        if (w.row_bias) {
            weir_read_8(row_bias + i / row * w.out + o, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] += others[n];
        }
        if (w.residual) {
            weir_read_8(residual + i * 8, others);
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] += others[n];
        }
        if (w.silu) {
#pragma unroll
            for (int n = 0; n < 8; n++) values[n] = weir_act_fast<WEIR_ACT_SILU>(values[n]);
        }
        weir_write_8(y + i * 8, values);
    }
}

enum weir_status weir_cuda_window_epilogue(const struct weir_cuda_window *w, cudaStream_t stream, const void *sums,
                                           uint32_t sums_stride, const float *bias, const void *row_bias,
                                           const void *residual, void *y)
{
    const uint64_t count = w->images * w->height * w->width * w->out;
    assert(w->dtype == WEIR_BF16);
    if (w->out % WEIR_EIGHT == 0 && sums_stride == w->out) {
        window_epilogue_8<<<weir_blocks(count / 8, THREADS), THREADS, 0, stream>>>(
            *w, count / 8, (const bf16 *)sums, bias, (const bf16 *)row_bias, (const bf16 *)residual, (bf16 *)y);
        return weir_launched();
    }
    window_epilogue<<<weir_blocks(count, THREADS), THREADS, 0, stream>>>(
        *w, count, (const bf16 *)sums, sums_stride, bias, (const bf16 *)row_bias, (const bf16 *)residual, (bf16 *)y);
    return weir_launched();
}
