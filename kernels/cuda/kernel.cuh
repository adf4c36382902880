/* kernel: what all kernels share. Numbers are read and written in their own type and computed with in f32.
 *
 * The compiler contracts nothing (-fmad=false): a fused multiply-add is asked for by name, as on the other devices.
 */
#ifndef WEIR_KERNELS_CUDA_KERNEL_CUH
#define WEIR_KERNELS_CUDA_KERNEL_CUH

#include <cuda_bf16.h>

#include "kernels/cuda/cuda.h"

typedef __nv_bfloat16 bf16;

#define THREADS 256

/* n / d and n % d: most numbers fit in 32 bits, where a division takes a tenth of the time. */
struct weir_split {
    uint64_t quotient;
    uint32_t rest;
};
static __device__ __forceinline__ struct weir_split weir_split_by(uint64_t n, uint32_t d)
{
    struct weir_split split;
    if (n >> 32 == 0) {
        const uint32_t small = (uint32_t)n, quotient = small / d;
        split.quotient = quotient;
        split.rest = small - quotient * d;
    } else {
        split.quotient = n / d;
        split.rest = (uint32_t)(n - split.quotient * d);
    }
    return split;
}

static __device__ __forceinline__ float weir_read(const float *p)
{
    return *p;
}
static __device__ __forceinline__ float weir_read(const bf16 *p)
{
    return __bfloat162float(*p);
}
static __device__ __forceinline__ void weir_write(float *p, float value)
{
    *p = value;
}
static __device__ __forceinline__ void weir_write(bf16 *p, float value)
{
    *p = __float2bfloat16_rn(value);
}

/* CALL with T as the type of `dtype`. */
#define WEIR_BY_TYPE(dtype, T, CALL)                                                                                   \
    do {                                                                                                               \
        if ((dtype) == WEIR_F32) {                                                                                     \
            typedef float T;                                                                                           \
            CALL;                                                                                                      \
        } else {                                                                                                       \
            typedef bf16 T;                                                                                            \
            CALL;                                                                                                      \
        }                                                                                                              \
    } while (0)

static __device__ __forceinline__ float weir_act(enum weir_activation activation, float x)
{
    switch (activation) {
    case WEIR_ACT_SILU:
        return x / (1.0f + expf(-x));
    case WEIR_ACT_GEGLU: /* of the gate */
    case WEIR_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case WEIR_ACT_GEGLU_TANH: /* of the gate */
    case WEIR_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case WEIR_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    case WEIR_ACT_RELU:
        return x < 0.0f ? 0.0f : x; /* a NaN stays one */
    default:
        return x;
    }
}

/* The sum over a warp, alike in all lanes. */
static __device__ __forceinline__ float weir_warp_sum(float value)
{
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
static __device__ __forceinline__ double weir_warp_sum(double value)
{
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

/* The sum over a block of up to 1024 threads, alike in all. `parts` holds 32; ends with the threads in step. */
template <typename Number> static __device__ __forceinline__ Number weir_block_sum(Number value, Number *parts)
{
    const unsigned warps = (blockDim.x + 31) / 32;
    value = weir_warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    Number sum = 0;
    for (unsigned i = 0; i < warps; i++) sum += parts[i];
    return sum;
}

/* Blocks for `count` elements where each thread strides over the grid. */
static inline unsigned weir_blocks(uint64_t count, unsigned threads)
{
    const uint64_t blocks = (count + threads - 1) / threads, most = 1u << 20;
    return (unsigned)(blocks < most ? blocks : most);
}
#define WEIR_EACH(i, count)                                                                                            \
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                                    \
         i += (uint64_t)gridDim.x * blockDim.x)

static inline enum weir_status weir_launched(void)
{
    return cudaPeekAtLastError() == cudaSuccess ? WEIR_OK : WEIR_DEVICE;
}

#endif
