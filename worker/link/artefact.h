/* artefact: a tensor as the bytes that lie in the store and travel between workers (PROTOCOL.md section 8).
 *
 * 64 bytes of header, then little-endian f32 values, row-major. A parsed tensor points into the bytes it was read from.
 *
 * Shapes   rank 1..6, every dimension 1..2^32-1
 * Errors   BAD_FILE in words that name the field; NO_MEMORY
 * Threads  pure. Fuzzed: weir_artefact_parse takes any bytes
 */
#ifndef WEIR_WORKER_LINK_ARTEFACT_H
#define WEIR_WORKER_LINK_ARTEFACT_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_ARTEFACT_HEADER_BYTES 64
#define WEIR_ARTEFACT_RANK_MAX 6
#define WEIR_ARTEFACT_MEDIA_TYPE "application/x-weir-tensor"

struct weir_artefact_tensor {
    uint32_t rank;
    uint32_t dims[WEIR_ARTEFACT_RANK_MAX]; /* unused ones are 0 */
    const float *values;
    size_t count;
};

/* Header and room for the values; the caller writes `count` floats behind the header. free(*out). */
enum weir_status weir_artefact_create(uint32_t rank, const uint32_t *dims, void **out, size_t *out_bytes,
                                      float **values, size_t *count, struct weir_error *error);

/* `bytes` is aligned for floats, as malloc's memory is. */
enum weir_status weir_artefact_parse(const void *bytes, size_t count, struct weir_artefact_tensor *out,
                                     struct weir_error *error);
/* BAD_FILE unless the tensor has exactly this shape. */
enum weir_status weir_artefact_expect(const struct weir_artefact_tensor *tensor, const char *what, uint32_t rank,
                                      const uint32_t *dims, struct weir_error *error);

#endif
