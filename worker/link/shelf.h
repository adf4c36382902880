/* shelf: what a worker has at hand: bytes it made or fetched, and which of them it gives away for a ticket.
 *
 * A row is known by its digest. Bytes are kept in memory up to a sum, the longest unused go first; a row that was
 * offered stays when its bytes go, and is then read from the store under its key. Rows are bounded too: an offer that was
 * pushed out looks to a peer like one that never was, and the peer reads the store.
 *
 * Memory   bytes are copied in and out
 * Threads  any: lanes and finishers put, the control thread serves
 * Blocks   for a memory copy; read() on a row without bytes as long as the store takes
 */
#ifndef WEIR_WORKER_LINK_SHELF_H
#define WEIR_WORKER_LINK_SHELF_H

#include "proto/base/bytes.h"
#include "proto/job.h"
#include "store/store.h"

#define WEIR_TICKET_BYTES 16

struct weir_shelf;

struct weir_shelf_limits {
    size_t rows_max;  /* at least 1 */
    size_t bytes_max; /* of all that is kept in memory; larger things are never kept */
};

enum weir_status weir_shelf_create(const struct weir_shelf_limits *limits, struct weir_store *store,
                                   struct weir_shelf **out, struct weir_error *error);
void weir_shelf_destroy(struct weir_shelf **shelf_p);

/* Keeps bytes for this worker's own use. Does nothing where they do not fit. */
void weir_shelf_keep(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], const void *bytes,
                     size_t count);
/* Gives away what lies in the store under `key`, from memory as well when `bytes` is not NULL. The ticket is random; the
 * same digest offered again has the same one, and the newer key. False when there is no memory for the row. */
bool weir_shelf_offer(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], const char *key,
                      const void *bytes, uint64_t count, uint8_t ticket[WEIR_TICKET_BYTES]);

/* A copy of what is kept in memory, whoever it was made for; false when it is not. free(*out). */
bool weir_shelf_get(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], void **out, size_t *count);
/* A part of what was offered. NOT_FOUND for an unknown digest and for a wrong ticket, in the same words. */
enum weir_status weir_shelf_read(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES],
                                 const uint8_t ticket[WEIR_TICKET_BYTES], uint64_t offset, void *buffer, size_t count,
                                 size_t *got, uint64_t *total, struct weir_error *error);

#endif
