#include "tests/kernels/kernels_seen.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define KERNELS_MAX 1024

static struct {
    const void *stub; /* the function on the host that stands for it */
    const char *name;
    atomic_bool launched;
} kernels[KERNELS_MAX];
static size_t kernel_count;

/* As in the toolkit's crt/host_runtime.h, which only what its compiler makes may include. */
void __real___cudaRegisterFunction(void **binary, const char *stub, char *device_stub, const char *name, int threads,
                                   uint3 *thread, uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp_size);
void __wrap___cudaRegisterFunction(void **binary, const char *stub, char *device_stub, const char *name, int threads,
                                   uint3 *thread, uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp_size);
cudaError_t __real___cudaGetKernel(cudaKernel_t *kernel, const void *stub);
cudaError_t __wrap___cudaGetKernel(cudaKernel_t *kernel, const void *stub);
cudaError_t __real_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *stub, void **operands);
cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *stub, void **operands);

void __wrap___cudaRegisterFunction(void **binary, const char *stub, char *device_stub, const char *name, int threads,
                                   uint3 *thread, uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp_size)
{
    assert(kernel_count < KERNELS_MAX);
    kernels[kernel_count].stub = stub;
    kernels[kernel_count++].name = name;
    __real___cudaRegisterFunction(binary, stub, device_stub, name, threads, thread, block, block_size, grid_size,
                                  warp_size);
}

static void see(const void *stub)
{
    for (size_t i = 0; i < kernel_count; i++) {
        if (kernels[i].stub == stub) atomic_store(&kernels[i].launched, true);
    }
}

cudaError_t __wrap___cudaGetKernel(cudaKernel_t *kernel, const void *stub)
{
    see(stub);
    return __real___cudaGetKernel(kernel, stub);
}

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *stub, void **operands)
{
    see(stub);
    return __real_cudaLaunchKernelExC(config, stub, operands);
}

void weir_kernels_seen_report(void)
{
    const char *path = getenv("WEIR_KERNELS_SEEN");
    FILE *file = path ? fopen(path, "ae") : NULL;
    size_t launched = 0;
    for (size_t i = 0; i < kernel_count; i++) {
        const bool was = atomic_load(&kernels[i].launched);
        launched += was;
        if (file) fprintf(file, "%s %s\n", was ? "launched" : "idle", kernels[i].name);
    }
    printf("kernels=%zu launched=%zu\n", kernel_count, launched);
    if (path && (!file || fclose(file) != 0)) fprintf(stderr, "%s: not written\n", path);
}
