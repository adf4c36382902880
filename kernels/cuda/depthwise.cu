/* depthwise_conv, and its gated form with the product of value and gate in the same kernel. A thread makes COLUMNS
 * neighbours of one channel, so that a window's columns are read once for all of them. */
#include "kernels/cuda/kernel.cuh"

#define COLUMNS 8

/* The sums of channel c at row v, columns u .. u + COLUMNS - 1; bias first, then taps in order. With KERNEL 0 the
 * size of the window is s.kernel, and nothing is kept. */
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

/* --- bf16, channels counted in fours ------------------------------------------------------------------------------ */

#define FOUR 4
#define ROWS 8      /* of a block, a warp each, so that they share what they read in the cache */
#define COLUMNS_4 8 /* of a thread */

static __device__ __forceinline__ void read_4(const bf16 *p, float to[4])
{
    const uint2 bits = *reinterpret_cast<const uint2 *>(p);
    to[0] = __uint_as_float(bits.x << 16);
    to[1] = __uint_as_float(bits.x & 0xffff0000u);
    to[2] = __uint_as_float(bits.y << 16);
    to[3] = __uint_as_float(bits.y & 0xffff0000u);
}

/* As sums_of, of channels c .. c + 3. WHOLE: the width is a multiple of COLUMNS_4, so that only what lies before or
 * behind the thread's own columns can be outside. */
template <int KERNEL, bool WHOLE>
static __device__ __forceinline__ void sums_of_4(const struct weir_depthwise_conv &s, const bf16 *image,
                                                 const float *weight, const float *bias, int32_t v, int32_t u,
                                                 uint32_t c, float sums[COLUMNS_4][4])
{
    constexpr int pad = KERNEL / 2;
    const float4 first = bias ? *reinterpret_cast<const float4 *>(bias + c) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int n = 0; n < COLUMNS_4; n++) {
        sums[n][0] = first.x, sums[n][1] = first.y, sums[n][2] = first.z, sums[n][3] = first.w;
    }
#pragma unroll
    for (int ky = 0; ky < KERNEL; ky++) {
        const int32_t row = v + ky - pad;
        if (row < 0 || row >= (int32_t)s.height) continue;
        const bf16 *line = image + (uint64_t)row * s.width * s.channels + c;
        float kept[COLUMNS_4 + KERNEL - 1][4];
#pragma unroll
        for (int n = 0; n < COLUMNS_4 + KERNEL - 1; n++) {
            /* Always a load, so that all are on their way at once. */
            const int32_t column = u + n - pad, last = (int32_t)s.width - 1;
            const bool may_be_before = n < pad, may_be_behind = !WHOLE || n >= COLUMNS_4 + pad;
            const bool before = may_be_before && column < 0, behind = may_be_behind && column > last;
            const int32_t there = before ? 0 : behind ? last : column;
            read_4(line + (uint32_t)there * s.channels, kept[n]);
            if (may_be_before || may_be_behind) {
#pragma unroll
                for (int i = 0; i < 4; i++) kept[n][i] = before || behind ? 0.0f : kept[n][i];
            }
        }
#pragma unroll
        for (int kx = 0; kx < KERNEL; kx++) {
            const float4 w = *reinterpret_cast<const float4 *>(weight + (uint64_t)(ky * KERNEL + kx) * s.channels + c);
#pragma unroll
            for (int n = 0; n < COLUMNS_4; n++) {
                sums[n][0] = fmaf(w.x, kept[n + kx][0], sums[n][0]);
                sums[n][1] = fmaf(w.y, kept[n + kx][1], sums[n][1]);
                sums[n][2] = fmaf(w.z, kept[n + kx][2], sums[n][2]);
                sums[n][3] = fmaf(w.w, kept[n + kx][3], sums[n][3]);
            }
        }
    }
}

/* A block: 32 fours of channels, ROWS rows, COLUMNS_4 columns of one image. */
template <int KERNEL, bool GLU, bool WHOLE>
__global__ void __launch_bounds__(32 * ROWS)
    depthwise_4(struct weir_depthwise_conv s, uint32_t groups, uint32_t across, uint32_t down, const bf16 *x,
                const float *weight, const float *bias, bf16 *y)
{
    const uint32_t width = GLU ? s.channels / 2 : s.channels; /* of y */
    uint64_t block = blockIdx.x;
    const uint32_t c = ((uint32_t)(block % groups) * 32 + threadIdx.x % 32) * FOUR;
    block /= groups;
    const uint32_t u = (uint32_t)(block % across) * COLUMNS_4;
    block /= across;
    const uint32_t v = (uint32_t)(block % down) * ROWS + threadIdx.x / 32;
    const uint64_t image = block / down, plane = (uint64_t)s.height * s.width;
    if (c >= width || v >= s.height) return;
    float values[COLUMNS_4][4];
    const bf16 *from = x + image * plane * s.channels;
    bf16 *to = y + (image * plane + (uint64_t)v * s.width + u) * width + c;
    sums_of_4<KERNEL, WHOLE>(s, from, weight, bias, (int32_t)v, (int32_t)u, c, values);
    if (GLU) {
        float gates[COLUMNS_4][4];
        sums_of_4<KERNEL, WHOLE>(s, from, weight, bias, (int32_t)v, (int32_t)u, width + c, gates);
#pragma unroll
        for (int n = 0; n < COLUMNS_4; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) values[n][i] *= weir_act_fast<WEIR_ACT_SILU>(gates[n][i]);
        }
    }
#pragma unroll
    for (int n = 0; n < COLUMNS_4; n++) {
        if (u + n >= s.width) break;
        const __nv_bfloat162 low = __floats2bfloat162_rn(values[n][0], values[n][1]);
        const __nv_bfloat162 high = __floats2bfloat162_rn(values[n][2], values[n][3]);
        *reinterpret_cast<uint2 *>(to + (uint64_t)n * width) =
            make_uint2(*reinterpret_cast<const uint32_t *>(&low), *reinterpret_cast<const uint32_t *>(&high));
    }
}

template <int KERNEL, bool GLU> static bool launch_4(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    const uint32_t width = GLU ? s->channels / 2 : s->channels, groups = (width / FOUR + 31) / 32;
    const uint32_t across = (s->width + COLUMNS_4 - 1) / COLUMNS_4, down = (s->height + ROWS - 1) / ROWS;
    const uint64_t blocks = (uint64_t)s->rows * s->frames * down * across * groups;
    if (s->dtype != WEIR_BF16 || width % FOUR != 0 || s->channels % FOUR != 0 || blocks > 0x7fffffffu ||
        (uint64_t)s->width * s->channels > 0xffffffffu)
        return false;
    auto kernel = s->width % COLUMNS_4 == 0 ? depthwise_4<KERNEL, GLU, true> : depthwise_4<KERNEL, GLU, false>;
    kernel<<<(unsigned)blocks, 32 * ROWS, 0, run->stream->stream>>>(
        *s, groups, across, down, (const bf16 *)run->operands[WEIR_DEPTHWISE_CONV_X],
        (const float *)run->plan->layer->weight, run->plan->layer->bias, (bf16 *)run->operands[WEIR_DEPTHWISE_CONV_Y]);
    return true;
}

/* false: not for this shape. */
static bool launch_fours(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    if (s->kernel == 3) return s->glu ? launch_4<3, true>(run) : launch_4<3, false>(run);
    if (s->kernel == 5) return s->glu ? launch_4<5, true>(run) : launch_4<5, false>(run);
    return false;
}

/* ------------------------------------------------------------------------------------------------------------------ */

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
    if (launch_fours(run)) return weir_launched();
    WEIR_BY_TYPE(run->plan->shape.depthwise_conv.dtype, T, (launch<T>(run)));
    return weir_launched();
}
