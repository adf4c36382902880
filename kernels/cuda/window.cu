/* Our own convolution, for every shape: an implicit product. A block makes a tile of pixels x channels; each thread
 * keeps a corner of it in registers and adds the terms of a value one after the other, in the order ky, kx, i. So the
 * size of the tile, which follows the number of pixels, changes no bit. */
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

/* Which of 16 * COUNT values number n of thread t is: fours lie together, so that they are read together, and the
 * fours of neighbouring threads side by side. */
template <int COUNT> static __device__ __forceinline__ uint32_t slot_of(uint32_t t, int n)
{
    return COUNT >= 4 ? (uint32_t)(n / 4) * 64 + t * 4 + (uint32_t)(n % 4) : t * COUNT + (uint32_t)n;
}

/* Its values out of a row of shared memory. */
template <int COUNT> static __device__ __forceinline__ void fetch(const float *row, uint32_t t, float values[COUNT])
{
    if (COUNT >= 4) {
#pragma unroll
        for (int g = 0; g < COUNT / 4; g++) {
            const float4 four = *reinterpret_cast<const float4 *>(row + slot_of<COUNT>(t, 4 * g));
            values[4 * g] = four.x;
            values[4 * g + 1] = four.y;
            values[4 * g + 2] = four.z;
            values[4 * g + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int n = 0; n < COUNT; n++) values[n] = row[slot_of<COUNT>(t, n)];
    }
}

/* 16 x 16 threads, each with PIXELS x OUTS values. The next terms are on their way from memory while those in shared
 * memory are multiplied. */
template <int PIXELS, int OUTS, bool RESIZED, typename T>
__global__ void __launch_bounds__(256) window(struct weir_cuda_window w, uint64_t pixels, const T *x, const T *weight,
                                              const float *bias, const T *row_bias, const T *residual, T *y)
{
    __shared__ __align__(16) float xs[DEPTH][16 * PIXELS + 4], ws[DEPTH][16 * OUTS + 4];
    const uint32_t terms = w.kernel_y * w.kernel_x * w.in;
    const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const uint32_t out_tiles = (w.out + 16 * OUTS - 1) / (16 * OUTS);
    const uint64_t first_pixel = (uint64_t)(blockIdx.x / out_tiles) * (16 * PIXELS);
    const uint32_t first_out = blockIdx.x % out_tiles * (16 * OUTS);
    struct corner at[PIXELS];
    float sums[PIXELS][OUTS], next_x[PIXELS], next_w[OUTS];

    /* As a loader, a thread brings term tx of pixels and outs ty, ty + 16, ... */
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const uint64_t pixel = first_pixel + ty + 16 * p;
        at[p] = corner_of(w, pixel < pixels ? pixel : 0);
#pragma unroll
        for (int o = 0; o < OUTS; o++) sums[p][o] = 0;
    }
    for (uint32_t k0 = 0;; k0 += DEPTH) { /* one round more than there are: the last only multiplies */
        const uint32_t k = k0 + tx, tap = k / w.in, i = k % w.in, ky = tap / w.kernel_x, kx = tap % w.kernel_x;
        if (k0 < terms) {
#pragma unroll
            for (int p = 0; p < PIXELS; p++) {
                next_x[p] = k < terms ? term_of<RESIZED>(w, x, at[p], ky, kx, i) : 0.0f;
            }
#pragma unroll
            for (int o = 0; o < OUTS; o++) {
                const uint32_t out = first_out + ty + 16 * o;
                next_w[o] = k < terms && out < w.out ? weir_read(weight + (uint64_t)out * terms + k) : 0.0f;
            }
        }
        if (k0 > 0) {
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                float a[PIXELS], b[OUTS];
                fetch<PIXELS>(xs[d], ty, a);
                fetch<OUTS>(ws[d], tx, b);
#pragma unroll
                for (int p = 0; p < PIXELS; p++) {
#pragma unroll
                    for (int o = 0; o < OUTS; o++) sums[p][o] = fmaf(a[p], b[o], sums[p][o]);
                }
            }
            __syncthreads();
        }
        if (k0 >= terms) break;
#pragma unroll
        for (int p = 0; p < PIXELS; p++) xs[tx][ty + 16 * p] = next_x[p];
#pragma unroll
        for (int o = 0; o < OUTS; o++) ws[tx][ty + 16 * o] = next_w[o];
        __syncthreads();
    }
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const uint64_t pixel = first_pixel + slot_of<PIXELS>(ty, p);
        if (pixel >= pixels) continue;
        const uint64_t row = pixel / w.width / w.height / w.frames;
#pragma unroll
        for (int o = 0; o < OUTS; o++) {
            const uint32_t out = first_out + slot_of<OUTS>(tx, o);
            if (out >= w.out) continue;
            float value = sums[p][o];
            if (bias) value += bias[out];
            if (w.row_bias) value += weir_read(row_bias + row * w.out + out);
            if (w.residual) value += weir_read(residual + pixel * w.y_stride + out);
            if (w.silu) value = weir_act(WEIR_ACT_SILU, value);
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

template <int PIXELS, int OUTS, bool RESIZED, typename T>
static enum weir_status launch(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    const uint64_t pixels = w.images * w.height * w.width;
    const uint64_t blocks = (pixels + 16 * PIXELS - 1) / (16 * PIXELS) * ((w.out + 16 * OUTS - 1) / (16 * OUTS));
    if (blocks > 0x7fffffffu) return WEIR_DEVICE;
    window<PIXELS, OUTS, RESIZED, T><<<(unsigned)blocks, 256, 0, stream>>>(
        w, pixels, (const T *)m.x, (const T *)m.weight, m.bias, (const T *)m.row_bias, (const T *)m.residual, (T *)m.y);
    return weir_launched();
}

static uint64_t tiles_of(const struct weir_cuda_window &w, uint32_t side)
{
    return (w.images * w.height * w.width + side - 1) / side * ((w.out + side - 1) / side);
}

#define FULL 132 /* blocks that keep a large processor busy */

/* The largest tiles that fill the processor. */
template <bool RESIZED, typename T>
static enum weir_status launch_tile(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    if (w.out <= 16) {
        return tiles_of(w, 64) >= FULL ? launch<4, 1, RESIZED, T>(w, stream, m)
                                       : launch<1, 1, RESIZED, T>(w, stream, m);
    }
    if (w.out > 64 && tiles_of(w, 128) >= FULL) return launch<8, 8, RESIZED, T>(w, stream, m);
    if (w.out > 32 && tiles_of(w, 64) >= FULL) return launch<4, 4, RESIZED, T>(w, stream, m);
    return launch<2, 2, RESIZED, T>(w, stream, m);
}

template <typename T>
static enum weir_status launch_resized(const struct weir_cuda_window &w, cudaStream_t stream, const struct memory &m)
{
    const bool resized = w.source_height != w.x_height || w.source_width != w.x_width;
    return resized ? launch_tile<true, T>(w, stream, m) : launch_tile<false, T>(w, stream, m);
}

enum weir_status weir_cuda_window_run(const struct weir_cuda_window *w, cudaStream_t stream, const void *x,
                                      const void *weight, const float *bias, const void *row_bias, const void *residual,
                                      void *y)
{
    const struct memory m = { x, weight, bias, row_bias, residual, y };
    assert(w->y_dtype == w->dtype);
    return w->dtype == WEIR_F32 ? launch_resized<float>(*w, stream, m) : launch_resized<bf16>(*w, stream, m);
}
