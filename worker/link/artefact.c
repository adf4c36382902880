#include "worker/link/artefact.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are written as they lie in memory");

enum { VERSION = 1, DTYPE_F32 = 0, DIMS_AT = 20, BYTES_AT = 44, RESERVED_AT = 52 };
static const char magic[8] = { 'W', 'E', 'I', 'R', 'T', 'N', 'S', 'R' };

/* Bytes of the values; false when they do not fit a size_t or a dimension is 0. */
static bool value_bytes(uint32_t rank, const uint32_t *dims, uint64_t *out)
{
    uint64_t bytes = sizeof(float);
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] == 0 || __builtin_mul_overflow(bytes, (uint64_t)dims[i], &bytes)) return false;
    }
    *out = bytes;
    return bytes <= SIZE_MAX - WEIR_ARTEFACT_HEADER_BYTES;
}

enum weir_status weir_artefact_create(uint32_t rank, const uint32_t *dims, void **out, size_t *out_bytes,
                                      float **values, size_t *count, struct weir_error *error)
{
    assert(rank >= 1 && rank <= WEIR_ARTEFACT_RANK_MAX);
    uint64_t bytes;
    *out = NULL;
    if (!value_bytes(rank, dims, &bytes)) return weir_fail(error, WEIR_TOO_LARGE, "a tensor leaves the address space");
    uint8_t *memory = malloc(WEIR_ARTEFACT_HEADER_BYTES + (size_t)bytes);
    if (!memory) {
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a tensor of %llu bytes", (unsigned long long)bytes);
    }
    memset(memory, 0, WEIR_ARTEFACT_HEADER_BYTES);
    memcpy(memory, magic, sizeof magic);
    weir_store_u32(memory + 8, VERSION);
    weir_store_u32(memory + 12, DTYPE_F32);
    weir_store_u32(memory + 16, rank);
    for (uint32_t i = 0; i < rank; i++) weir_store_u32(memory + DIMS_AT + 4 * i, dims[i]);
    weir_store_u64(memory + BYTES_AT, bytes);
    *out = memory;
    *out_bytes = WEIR_ARTEFACT_HEADER_BYTES + (size_t)bytes;
    *values = (float *)(void *)(memory + WEIR_ARTEFACT_HEADER_BYTES);
    *count = (size_t)bytes / sizeof(float);
    return WEIR_OK;
}

enum weir_status weir_artefact_parse(const void *bytes, size_t count, struct weir_artefact_tensor *out,
                                     struct weir_error *error)
{
    const uint8_t *b = bytes;
    *out = (struct weir_artefact_tensor){ 0 };
    if (count < WEIR_ARTEFACT_HEADER_BYTES) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor of %zu bytes: its header alone has %d", count,
                         WEIR_ARTEFACT_HEADER_BYTES);
    }
    if (memcmp(b, magic, sizeof magic) != 0) return weir_fail(error, WEIR_BAD_FILE, "not a tensor: another magic");
    if (weir_load_u32(b + 8) != VERSION) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor of version %u, this build reads %d", weir_load_u32(b + 8),
                         VERSION);
    }
    if (weir_load_u32(b + 12) != DTYPE_F32) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor of dtype %u, f32 is 0", weir_load_u32(b + 12));
    }
    const uint32_t rank = weir_load_u32(b + 16);
    if (rank < 1 || rank > WEIR_ARTEFACT_RANK_MAX) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor of rank %u, 1 to %d is allowed", rank, WEIR_ARTEFACT_RANK_MAX);
    }
    uint64_t expected;
    for (uint32_t i = 0; i < WEIR_ARTEFACT_RANK_MAX; i++) out->dims[i] = weir_load_u32(b + DIMS_AT + 4 * i);
    for (uint32_t i = rank; i < WEIR_ARTEFACT_RANK_MAX; i++) {
        if (out->dims[i] != 0) return weir_fail(error, WEIR_BAD_FILE, "a tensor's dimension %u is beyond its rank", i);
    }
    if (!value_bytes(rank, out->dims, &expected)) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor's dimensions are 0 or leave the address space");
    }
    if (weir_load_u64(b + BYTES_AT) != expected || count - WEIR_ARTEFACT_HEADER_BYTES != expected) {
        return weir_fail(error, WEIR_BAD_FILE, "a tensor's shape needs %llu bytes, its header says %llu, %zu are there",
                         (unsigned long long)expected, (unsigned long long)weir_load_u64(b + BYTES_AT),
                         count - WEIR_ARTEFACT_HEADER_BYTES);
    }
    for (size_t i = RESERVED_AT; i < WEIR_ARTEFACT_HEADER_BYTES; i++) {
        if (b[i] != 0) return weir_fail(error, WEIR_BAD_FILE, "a tensor's reserved bytes are not 0");
    }
    out->rank = rank;
    out->values = (const float *)(const void *)(b + WEIR_ARTEFACT_HEADER_BYTES);
    out->count = (size_t)expected / sizeof(float);
    return WEIR_OK;
}

enum weir_status weir_artefact_expect(const struct weir_artefact_tensor *tensor, const char *what, uint32_t rank,
                                      const uint32_t *dims, struct weir_error *error)
{
    bool same = tensor->rank == rank;
    for (uint32_t i = 0; same && i < rank; i++) same = tensor->dims[i] == dims[i];
    if (same) return WEIR_OK;
    char have[80] = "", want[80] = "";
    for (uint32_t i = 0, at = 0; i < tensor->rank; i++) {
        at += (uint32_t)snprintf(have + at, sizeof have - at, i ? "x%u" : "%u", tensor->dims[i]);
    }
    for (uint32_t i = 0, at = 0; i < rank; i++) {
        at += (uint32_t)snprintf(want + at, sizeof want - at, i ? "x%u" : "%u", dims[i]);
    }
    return weir_fail(error, WEIR_BAD_FILE, "%s is %s, the job needs %s", what, have, want);
}
