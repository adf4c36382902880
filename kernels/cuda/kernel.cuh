/* kernel: what all kernels share. Numbers are read and written in their own type and computed with in f32.
 *
 * The compiler contracts nothing (-fmad=false): a fused multiply-add is asked for by name, as on the other devices.
 */
#ifndef WEIR_KERNELS_CUDA_KERNEL_CUH
#define WEIR_KERNELS_CUDA_KERNEL_CUH

#include <assert.h>
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

/* For instructions that want an address within shared memory. */
static __device__ __forceinline__ uint32_t weir_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Two of bf16 in a word. */
static __device__ __forceinline__ float weir_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float weir_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}
static __device__ __forceinline__ uint32_t weir_pair(float low, float high)
{
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&both);
}

/* Eight numbers of bf16 at once, at a multiple of 16 bytes: all memory begins at a multiple of WEIR_ALIGNMENT, so
 * this is where every axis that is counted in eights begins. */
#define WEIR_EIGHT 8
static __device__ __forceinline__ void weir_read_8(const bf16 *p, float to[8])
{
    const uint4 bits = *reinterpret_cast<const uint4 *>(p);
    const uint32_t words[4] = { bits.x, bits.y, bits.z, bits.w };
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
static __device__ __forceinline__ void weir_read_8(const float *p, float to[8])
{
    const float4 low = *reinterpret_cast<const float4 *>(p), high = *reinterpret_cast<const float4 *>(p + 4);
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
static __device__ __forceinline__ void weir_write_8(bf16 *p, const float from[8])
{
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __nv_bfloat162 both = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
        words[i] = *reinterpret_cast<const uint32_t *>(&both);
    }
    *reinterpret_cast<uint4 *>(p) = make_uint4(words[0], words[1], words[2], words[3]);
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

/* The same for what is rounded to bf16 next: exponentials and quotients as the processor makes them, right to 2e-7
 * of 1, a few thousandths of the rounding. The activation is known when it is compiled: none of the others takes
 * room. */
static __device__ __forceinline__ float weir_tanh_fast(float x)
{
    return 1.0f - __fdividef(2.0f, __expf(2.0f * x) + 1.0f);
}
/* __fdividef(x, 1 + __expf(-x)) without what those do for numbers below 2^-126: beside 1 they are nothing. */
static __device__ __forceinline__ float weir_silu_fast(float x)
{
    float power, inverse;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.4426950408889634f * x));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
    return x * inverse;
}
template <enum weir_activation A> static __device__ __forceinline__ float weir_act_fast(float x)
{
    if (A == WEIR_ACT_SILU) return weir_silu_fast(x);
    if (A == WEIR_ACT_QUICK_GELU) return __fdividef(x, 1.0f + __expf(-1.702f * x));
    if (A == WEIR_ACT_GELU_TANH || A == WEIR_ACT_GEGLU_TANH)
        return 0.5f * x * (1.0f + weir_tanh_fast(0.79788456080286536f * fmaf(0.044715f * x * x, x, x)));
    return weir_act(A, x);
}
/* CALL with A as the activation. */
#define WEIR_BY_ACTIVATION(activation, A, CALL)                                                                        \
    do {                                                                                                               \
        switch (activation) {                                                                                          \
            WEIR_CASE_OF_ACTIVATION(SILU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(GELU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(GELU_TANH, A, CALL)                                                                \
            WEIR_CASE_OF_ACTIVATION(QUICK_GELU, A, CALL)                                                               \
            WEIR_CASE_OF_ACTIVATION(RELU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(GEGLU, A, CALL)                                                                    \
            WEIR_CASE_OF_ACTIVATION(GEGLU_TANH, A, CALL)                                                               \
            WEIR_CASE_OF_ACTIVATION(NONE, A, CALL)                                                                     \
        }                                                                                                              \
    } while (0)
/* The same of one that is not gated. */
#define WEIR_BY_PLAIN_ACTIVATION(activation, A, CALL)                                                                  \
    do {                                                                                                               \
        switch (activation) {                                                                                          \
            WEIR_CASE_OF_ACTIVATION(SILU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(GELU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(GELU_TANH, A, CALL)                                                                \
            WEIR_CASE_OF_ACTIVATION(QUICK_GELU, A, CALL)                                                               \
            WEIR_CASE_OF_ACTIVATION(RELU, A, CALL)                                                                     \
            WEIR_CASE_OF_ACTIVATION(NONE, A, CALL)                                                                     \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
    } while (0)
#define WEIR_CASE_OF_ACTIVATION(NAME, A, CALL)                                                                         \
    case WEIR_ACT_##NAME: {                                                                                            \
        constexpr enum weir_activation A = WEIR_ACT_##NAME;                                                            \
        CALL;                                                                                                          \
        break;                                                                                                         \
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
