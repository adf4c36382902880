/* linear_attention: what the kernels on tensor cores (linear_attention_bf16.cu) offer to those for any type. */
#ifndef WEIR_KERNELS_CUDA_LINEAR_ATTENTION_CUH
#define WEIR_KERNELS_CUDA_LINEAR_ATTENTION_CUH

#include "kernels/cuda/kernel.cuh"

/* bf16, heads of 32 channels that begin at multiples of 8, eps from 1e-30 on. They need no workspace. */
bool weir_linear_attention_bf16_takes(const struct weir_linear_attention *shape);
enum weir_status weir_linear_attention_bf16_run(const struct weir_cuda_run *run);

#endif
