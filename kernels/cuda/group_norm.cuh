/* group_norm: what the kernels of bf16 (group_norm_bf16.cu) offer to those for any type. */
#ifndef WEIR_KERNELS_CUDA_GROUP_NORM_CUH
#define WEIR_KERNELS_CUDA_GROUP_NORM_CUH

#include "kernels/cuda/kernel.cuh"

bool weir_group_norm_bf16_takes(const struct weir_group_norm *shape);
size_t weir_group_norm_bf16_workspace(const struct weir_cuda *cuda, const struct weir_group_norm *shape);
enum weir_status weir_group_norm_bf16_run(const struct weir_cuda_run *run);

/* The same in one launch and without a workspace, of what bf16_takes (group_norm_cluster.cu). */
bool weir_group_norm_clusters_take(const struct weir_cuda *cuda, const struct weir_group_norm *shape);
enum weir_status weir_group_norm_clusters_run(const struct weir_cuda *cuda, const struct weir_group_norm *shape,
                                              cudaStream_t stream, const float *gamma, const float *beta, const bf16 *x,
                                              bf16 *y);

#endif
