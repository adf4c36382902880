/* internal: how device.c opens each device. */
#ifndef WEIR_KERNELS_INTERNAL_H
#define WEIR_KERNELS_INTERNAL_H

#include "kernels/device.h"

enum weir_status weir_ref_open(struct weir_device **out, struct weir_error *error);
enum weir_status weir_cpu_open(int threads, struct weir_device **out, struct weir_error *error);
/* which: "", a number or a UUID, as in device.h */
enum weir_status weir_cuda_open(const char *which, struct weir_device **out, struct weir_error *error);

#endif
