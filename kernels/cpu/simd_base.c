/* The loops of simd_body.h for any processor. */
#define SIMD_NAME weir_cpu_simd_base
#define SIMD_WORDS "base"
#include "kernels/cpu/simd_body.h"
