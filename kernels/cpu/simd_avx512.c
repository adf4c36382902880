/* The loops of simd_body.h for AVX-512; compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl. */
#define SIMD_NAME weir_cpu_simd_avx512
#define SIMD_WORDS "avx512"
#include "kernels/cpu/simd_body.h"
