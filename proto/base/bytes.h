/* bytes: digests, hex, random bytes and whole files: what every program does with bytes.
 *
 * Threads  any; a struct weir_sha256 belongs to one thread
 */
#ifndef WEIR_PROTO_BASE_BYTES_H
#define WEIR_PROTO_BASE_BYTES_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_SHA256_BYTES 32
#define WEIR_SHA256_HEX_BYTES (2 * WEIR_SHA256_BYTES + 1) /* with the final NUL */

/* A running SHA-256 (OpenSSL). init, update any number of times, then final, which also releases it. */
struct weir_sha256 {
    void *context;
};
void weir_sha256_init(struct weir_sha256 *sha);
void weir_sha256_update(struct weir_sha256 *sha, const void *bytes, size_t count);
void weir_sha256_final(struct weir_sha256 *sha, uint8_t out[WEIR_SHA256_BYTES]);
void weir_sha256_of(const void *bytes, size_t count, uint8_t out[WEIR_SHA256_BYTES]);

/* Lower-case hex; `out` holds 2 * count + 1 bytes. */
void weir_hex_write(const void *bytes, size_t count, char *out);
/* Exactly 2 * count hex digits of either case, then NUL; false when not. */
bool weir_hex_read(const char *hex, void *out, size_t count);

/* Strict UTF-8: no overlong forms, no surrogates, nothing over U+10FFFF, no NUL. */
bool weir_utf8_valid(const void *bytes, size_t count);

/* From getrandom(2). Blocks only before the system's pool was first filled. */
void weir_random_bytes(void *out, size_t count);
/* Takes as long for equal bytes as for others: tokens and tickets are compared so. */
bool weir_bytes_equal(const void *a, const void *b, size_t count);

/* Little-endian loads and stores of possibly unaligned bytes. */
uint16_t weir_load_u16(const void *bytes);
uint32_t weir_load_u32(const void *bytes);
uint64_t weir_load_u64(const void *bytes);
void weir_store_u32(void *bytes, uint32_t value);
void weir_store_u64(void *bytes, uint64_t value);

/* Reads a regular file whole. `*out` has a NUL after its `*out_bytes` bytes and is freed with free().
 * Errors   NOT_FOUND, IO (the words of errno), BAD_FILE (not a regular file), TOO_LARGE (over bytes_max), NO_MEMORY */
enum weir_status weir_file_read(const char *path, size_t bytes_max, char **out, size_t *out_bytes,
                                struct weir_error *error);

/* write(2) until all is written. IO with the words of errno. */
enum weir_status weir_fd_write(int fd, const void *bytes, size_t count, const char *path, struct weir_error *error);

#endif
