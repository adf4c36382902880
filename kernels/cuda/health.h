/* health: what the driver's management library, NVML, says of one GPU.
 *
 * The library is part of the driver, so it is loaded when it is there and nothing is linked with it; of its functions
 * those that an older one lacks, or that a container forbids, are done without. No call needs a CUDA context, and none
 * waits for queued work, but the driver may take its time: the control thread of a worker is no place for it.
 *
 * Source   nvml.h of the toolkit; which XIDs want a reset: NVIDIA's catalogue of XIDs
 * Threads  look, open and close: one at a time; others and is_crowded: any, beside look too
 */
#ifndef WEIR_KERNELS_CUDA_HEALTH_H
#define WEIR_KERNELS_CUDA_HEALTH_H

#include "kernels/device.h"

struct weir_cuda_health;

/* The GPU at a PCI bus id as CUDA gives it: "0000:00:06.0". Errors that it counted before are no failure of this process.
 * Errors   UNSUPPORTED: no library, or it does not know the GPU */
enum weir_status weir_cuda_health_open(const char *bus_id, struct weir_cuda_health **out, struct weir_error *error);
void weir_cuda_health_close(struct weir_cuda_health **health);

/* planned_bytes: what of its memory this process plans to use, 0 for nothing. */
void weir_cuda_health_look(struct weir_cuda_health *health, uint64_t planned_bytes, struct weir_health *out);

/* What other processes hold, in words: "; others hold 140123 MiB (process 4711: 140000 MiB)", "" when they hold none or
 * it is not known. `text` has at least one byte. */
void weir_cuda_health_others(struct weir_cuda_health *health, char *text, size_t size);
/* Do others hold what this process planned with? False where it is not known. */
bool weir_cuda_health_is_crowded(struct weir_cuda_health *health, uint64_t planned_bytes);

#endif
