/* Our own convolution, for every shape: an implicit product. A block makes a tile of pixels x channels; each thread
 * keeps a corner of it in registers and adds the terms of a value one after the other, in the order ky, kx, i. So the
 * size of the tile, which may follow the number of pixels, changes no bit. */
#include "kernels/cuda/kernel.cuh"

#define DEPTH 16 /* terms in shared memory at a time */

/* Where the window of a pixel of y begins in x'. */
struct corner {
    uint64_t image;
    int32_t top, left;
};

static __device__ __forceinline__ struct corner corner_of(const struct weir_cuda_window &w, uint64_t pixel)
{
    const uint32_t u = (uint32_t)(pixel % w.width);
    pixel /= w.width;
    const uint32_t v = (uint32_t)(pixel % w.height);
    struct corner at;
    at.image = pixel / w.height;
    at.top = (int32_t)(v * w.stride) - (int32_t)w.pad_y;
    at.left = (int32_t)(u * w.stride) - (int32_t)w.pad_x;
    return at;
}

/* Term i of tap (ky, kx) of x', 0 outside. */
template <bool RESIZED, typename T>
static __device__ __forceinline__ float term_of(const struct weir_cuda_window &w, const T *x, const struct corner &at,
                                                uint32_t ky, uint32_t kx, uint32_t i)
{
    int32_t row = at.top + (int32_t)ky, column = at.left + (int32_t)kx;
    if (row < 0 || row >= (int32_t)w.source_height || column < 0 || column >= (int32_t)w.source_width) return 0;
    if (RESIZED) {
        row = (int32_t)((uint64_t)row * w.x_height / w.source_height);
        column = (int32_t)((uint64_t)column * w.x_width / w.source_width);
    }
    return weir_read(x + ((at.image * w.x_height + (uint32_t)row) * w.x_width + (uint32_t)column) * w.x_stride + i);
}

/* 16 x 16 threads, each PIXELS x OUTS values: pixels ty, ty + 16, ...; outs tx, tx + 16, ... of the block's tile. */
template <int PIXELS, int OUTS, bool RESIZED, typename T, typename Y>
__global__ void __launch_bounds__(256)
    window(struct weir_cuda_window w, uint64_t pixels, const T *x, const T *weight, const float *bias, const T *row_bias,
           const T *residual, Y *y)
{
    __shared__ float xs[DEPTH][16 * PIXELS + 1], ws[DEPTH][16 * OUTS + 1];
    const uint32_t terms = w.kernel_y * w.kernel_x * w.in;
    const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const uint32_t out_tiles = (w.out + 16 * OUTS - 1) / (16 * OUTS);
    const uint64_t first_pixel = (uint64_t)(blockIdx.x / out_tiles) * (16 * PIXELS);
    const uint32_t first_out = blockIdx.x % out_tiles * (16 * OUTS);
    struct corner at[PIXELS];
    float sums[PIXELS][OUTS];

    /* As a loader, a thread brings term tx of pixels and outs ty, ty + 16, ... */
    for (int p = 0; p < PIXELS; p++) {
        const uint64_t pixel = first_pixel + ty + 16 * p;
        at[p] = corner_of(w, pixel < pixels ? pixel : 0);
        for (int o = 0; o < OUTS; o++) sums[p][o] = 0;
    }
    for (uint32_t k0 = 0; k0 < terms; k0 += DEPTH) {
        const uint32_t k = k0 + tx, tap = k / w.in, i = k % w.in, ky = tap / w.kernel_x, kx = tap % w.kernel_x;
        for (int p = 0; p < PIXELS; p++) {
            xs[tx][ty + 16 * p] = k < terms ? term_of<RESIZED>(w, x, at[p], ky, kx, i) : 0.0f;
        }
        for (int o = 0; o < OUTS; o++) {
            const uint32_t out = first_out + ty + 16 * o;
            ws[tx][ty + 16 * o] = k < terms && out < w.out ? weir_read(weight + (uint64_t)out * terms + k) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            float a[PIXELS], b[OUTS];
            for (int p = 0; p < PIXELS; p++) a[p] = xs[d][ty + 16 * p];
            for (int o = 0; o < OUTS; o++) b[o] = ws[d][tx + 16 * o];
            for (int p = 0; p < PIXELS; p++) {
                for (int o = 0; o < OUTS; o++) sums[p][o] = fmaf(a[p], b[o], sums[p][o]);
            }
        }
        __syncthreads();
    }
    for (int p = 0; p < PIXELS; p++) {
        const uint64_t pixel = first_pixel + ty + 16 * p;
        if (pixel >= pixels) continue;
        for (int o = 0; o < OUTS; o++) {
            const uint32_t out = first_out + tx + 16 * o;
            if (out >= w.out) continue;
            float value = sums[p][o];
            if (bias) value += bias[out];
            if (w.row_bias) value += weir_read(row_bias + at[p].image / w.frames * w.out + out);
            if (w.residual) value += weir_read(residual + pixel * w.y_stride + out);
            weir_write(y + pixel * w.y_stride + out, value);
        }
    }
}

struct memory {
    const void *x, *weight;
    const float *bias;
    const void *row_bias, *residual;
    void *y;
};

template <int PIXELS, int OUTS, bool RESIZED, typename T, typename Y>
static enum weir_status launch(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    const uint64_t pixels = w.images * w.height * w.width;
    const uint64_t blocks =
        (pixels + 16 * PIXELS - 1) / (16 * PIXELS) * ((w.out + 16 * OUTS - 1) / (16 * OUTS));
    if (blocks > 0x7fffffffu) return WEIR_DEVICE;
    window<PIXELS, OUTS, RESIZED, T, Y><<<(unsigned)blocks, 256, 0, stream>>>(
        w, pixels, (const T *)m.x, (const T *)m.weight, m.bias, (const T *)m.row_bias, (const T *)m.residual, (Y *)m.y);
    return weir_launched();
}

/* Large tiles where they fill the processor. */
template <bool RESIZED, typename T, typename Y>
static enum weir_status launch_tile(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    const uint64_t pixels = w.images * w.height * w.width;
    if (w.out <= 16) return launch<8, 1, RESIZED, T, Y>(w, stream, m);
    if (w.out > 64 && pixels * w.out >= (uint64_t)128 * 128 * 128) return launch<8, 8, RESIZED, T, Y>(w, stream, m);
    return launch<4, 4, RESIZED, T, Y>(w, stream, m);
}

template <typename T, typename Y>
static enum weir_status launch_resized(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    const bool resized = w.source_height != w.x_height || w.source_width != w.x_width;
    return resized ? launch_tile<true, T, Y>(w, stream, m) : launch_tile<false, T, Y>(w, stream, m);
}

enum weir_status weir_cuda_window_run(const struct weir_cuda_window *w, cudaStream_t stream, const void *x,
                                      const void *weight, const float *bias, const void *row_bias, const void *residual,
                                      void *y)
{
    const struct memory m = { x, weight, bias, row_bias, residual, y };
    if (w->dtype == WEIR_F32) return launch_resized<float, float>(*w, stream, m);
    if (w->y_dtype == WEIR_F32) return launch_resized<bf16, float>(*w, stream, m);
    return launch_resized<bf16, bf16>(*w, stream, m);
}
