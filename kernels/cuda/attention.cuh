/* attention: what its kernels share. */
#ifndef WEIR_KERNELS_CUDA_ATTENTION_CUH
#define WEIR_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/kernel.cuh"

struct weir_attention_memory {
    const void *q, *k, *v;
    const int32_t *lengths;
    void *y;
};

/* Token 0 of a sequence of a row, counted from the tensor's first token. */
static __device__ __forceinline__ uint64_t weir_first_token(const struct weir_sequence_layout &l, uint32_t row,
                                                            uint32_t sequence)
{
    return (uint64_t)row * l.row_tokens + (uint64_t)(sequence / l.inner) * l.outer_step +
           (uint64_t)(sequence % l.inner) * l.inner_step;
}

static __device__ __forceinline__ float weir_power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* Over the four lanes that share a row of a product's fragment. */
static __device__ __forceinline__ float weir_most_of_row(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
static __device__ __forceinline__ float weir_sum_of_row(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* On the tensor cores (attention_bf16.cu): bf16 whose tokens and heads begin at multiples of 8 channels. */
bool weir_attention_bf16_takes(const struct weir_attention *shape);
enum weir_status weir_attention_bf16_run(const struct weir_attention *shape, cudaStream_t stream,
                                         const struct weir_attention_memory *memory);

/* Of these, by the products of warpgroups (attention_tiles.cu): on sm_90a, heads of 33 to 112 channels and more than 64
 * queries. The number of rows decides nothing. */
bool weir_attention_tiles_take(const struct weir_cuda *cuda, const struct weir_attention *shape);
enum weir_status weir_attention_tiles_run(const struct weir_cuda *cuda, const struct weir_attention *shape,
                                          cudaStream_t stream, const struct weir_attention_memory *memory);

#endif
