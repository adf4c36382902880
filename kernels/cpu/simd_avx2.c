/* The loops of simd_body.h for AVX2 with FMA; compiled with -mavx2 -mfma. */
#define SIMD_NAME weir_cpu_simd_avx2
#define SIMD_WORDS "avx2"
#include "kernels/cpu/simd_body.h"
