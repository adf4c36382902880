/* mma: products of a warp on the tensor cores, 16 x 16 by 16 x 8 in bf16 with sums in f32, and their fragments from
 * shared memory (PTX ISA: mma.m16n8k16, ldmatrix). Lane = 4 g + t has rows g and g + 8, columns 2 t and 2 t + 1 (and + 8). */
#ifndef WEIR_KERNELS_CUDA_MMA_CUH
#define WEIR_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/kernel.cuh"

/* Four matrices of 8 x 8: each lane gives the address of a row, 16 bytes that begin at a multiple of 16. */
static __device__ __forceinline__ void weir_load_4(uint32_t r[4], const bf16 *from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(weir_shared_address(from)));
}

static __device__ __forceinline__ void weir_load_4_turned(uint32_t r[4], const bf16 *from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(weir_shared_address(from)));
}

/* c += a b */
static __device__ __forceinline__ void weir_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
