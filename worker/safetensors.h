/* safetensors: one file's header, checked down to the last byte.
 *
 * File     8 bytes little-endian length N, N bytes of JSON (starts with `{`, may end in spaces), then the data.
 *          JSON: name -> {"dtype", "shape", "data_offsets": [begin, end]}, offsets from the end of the header, and
 *          optionally "__metadata__" (text -> text).
 * Rules    N at most 16 MiB and inside the file; at most 65,536 tensors; names of 1 to 512 bytes without control
 *          characters; rank at most 8; plain non-negative integers up to 2^53; the tensors, sorted by begin, cover the
 *          data exactly: no hole, no overlap, no byte left over. A file that says one thing to one reader and another
 *          to the next is refused.
 * Memory   the bytes are the caller's and must outlive the table; tensors point into them, possibly unaligned
 * Errors   BAD_MODEL, TOO_LARGE, NO_MEMORY; the words name the file and the tensor
 * Threads  a parsed table is read-only
 */
#ifndef WEIR_WORKER_SAFETENSORS_H
#define WEIR_WORKER_SAFETENSORS_H

#include "proto/status.h"

#define WEIR_SAFETENSORS_HEADER_BYTES_MAX ((size_t)16 << 20)
#define WEIR_SAFETENSORS_TENSORS_MAX 65536
#define WEIR_SAFETENSORS_NAME_BYTES_MAX 512
#define WEIR_WEIGHT_RANK_MAX 8

/* X(name, bytes of one element) */
#define WEIR_WEIGHT_DTYPE_TABLE(X)                                                                                     \
    X(F32, 4)                                                                                                          \
    X(F16, 2)                                                                                                          \
    X(BF16, 2)                                                                                                         \
    X(F64, 8)                                                                                                          \
    X(F8_E4M3, 1)                                                                                                      \
    X(F8_E5M2, 1)                                                                                                      \
    X(I64, 8)                                                                                                          \
    X(I32, 4)                                                                                                          \
    X(I16, 2)                                                                                                          \
    X(I8, 1)                                                                                                           \
    X(U64, 8)                                                                                                          \
    X(U32, 4)                                                                                                          \
    X(U16, 2)                                                                                                          \
    X(U8, 1)                                                                                                           \
    X(BOOL, 1)

enum weir_weight_dtype {
#define X(name, bytes) WEIR_WEIGHT_##name,
    WEIR_WEIGHT_DTYPE_TABLE(X)
#undef X
        WEIR_WEIGHT_DTYPE_COUNT
};

const char *weir_weight_dtype_name(enum weir_weight_dtype dtype); /* "BF16" */
size_t weir_weight_dtype_bytes(enum weir_weight_dtype dtype);

/* One tensor of a file, row-major. A scalar has rank 0 and one element. */
struct weir_weight {
    const char *name; /* lives as long as its table */
    const char *file; /* the label it was parsed with */
    enum weir_weight_dtype dtype;
    size_t rank;
    uint64_t shape[WEIR_WEIGHT_RANK_MAX];
    const void *data; /* little-endian elements; not necessarily aligned */
    size_t elements, bytes;
};

struct weir_safetensors {
    struct weir_weight *tensors; /* in the order of their data */
    size_t count;
    size_t header_bytes; /* N */
    char *label;
    void *names; /* owns the names */
};

enum weir_status weir_safetensors_init(struct weir_safetensors *table, const void *bytes, size_t count,
                                       const char *label, struct weir_error *error);
/* The text of `key` in the __metadata__ of a file that init took; free(*out). NULL: it has none. */
enum weir_status weir_safetensors_metadata(const void *bytes, size_t count, const char *label, const char *key,
                                           char **out, struct weir_error *error);
void weir_safetensors_deinit(struct weir_safetensors *table);

#endif
