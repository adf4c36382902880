/* Rows lie in a hash table whose order is that of use: what is touched is taken out and put in again at the end. */
#include "worker/link/shelf.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct row {
    uint8_t digest[WEIR_SHA256_BYTES];
    uint8_t ticket[WEIR_TICKET_BYTES];
    bool offered;
    char key[WEIR_KEY_BYTES];
    uint64_t count;
    void *bytes; /* or NULL */
    UT_hash_handle hh;
};

struct weir_shelf {
    pthread_mutex_t lock;
    struct weir_shelf_limits limits;
    struct weir_store *store;
    struct row *rows; /* the longest unused first */
    size_t bytes;
};

enum weir_status weir_shelf_create(const struct weir_shelf_limits *limits, struct weir_store *store,
                                   struct weir_shelf **out, struct weir_error *error)
{
    assert(limits->rows_max >= 1);
    struct weir_shelf *shelf = calloc(1, sizeof *shelf);
    *out = shelf;
    if (!shelf) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of outputs");
    pthread_mutex_init(&shelf->lock, NULL);
    shelf->limits = *limits;
    shelf->store = store;
    return WEIR_OK;
}

static void drop_bytes(struct weir_shelf *shelf, struct row *row)
{
    if (!row->bytes) return;
    shelf->bytes -= (size_t)row->count;
    free(row->bytes);
    row->bytes = NULL;
}

static void drop_row(struct weir_shelf *shelf, struct row *row)
{
    drop_bytes(shelf, row);
    HASH_DEL(shelf->rows, row);
    free(row);
}

void weir_shelf_destroy(struct weir_shelf **shelf_p)
{
    struct weir_shelf *shelf = *shelf_p;
    if (!shelf) return;
    while (shelf->rows) drop_row(shelf, shelf->rows);
    pthread_mutex_destroy(&shelf->lock);
    free(shelf);
    *shelf_p = NULL;
}

static struct row *touch(struct weir_shelf *shelf, const uint8_t *digest)
{
    struct row *row = NULL;
    HASH_FIND(hh, shelf->rows, digest, WEIR_SHA256_BYTES, row);
    if (!row) return NULL;
    HASH_DEL(shelf->rows, row);
    HASH_ADD(hh, shelf->rows, digest, WEIR_SHA256_BYTES, row);
    return row;
}

static struct row *touch_or_add(struct weir_shelf *shelf, const uint8_t *digest, uint64_t count)
{
    struct row *row = touch(shelf, digest);
    if (row) return row;
    if (HASH_COUNT(shelf->rows) >= shelf->limits.rows_max) drop_row(shelf, shelf->rows);
    row = calloc(1, sizeof *row);
    if (!row) return NULL;
    memcpy(row->digest, digest, WEIR_SHA256_BYTES);
    row->count = count;
    HASH_ADD(hh, shelf->rows, digest, WEIR_SHA256_BYTES, row);
    return row;
}

/* The row is the newest, so that making room never empties it. */
static void fill(struct weir_shelf *shelf, struct row *row, const void *bytes)
{
    if (row->bytes || !bytes || row->count > shelf->limits.bytes_max) return;
    const size_t count = (size_t)row->count;
    for (struct row *old = shelf->rows, *next; old != row && shelf->bytes > shelf->limits.bytes_max - count;
         old = next) {
        next = old->hh.next;
        if (old->offered)
            drop_bytes(shelf, old);
        else
            drop_row(shelf, old);
    }
    row->bytes = malloc(count ? count : 1);
    if (!row->bytes) return;
    memcpy(row->bytes, bytes, count);
    shelf->bytes += count;
}

void weir_shelf_keep(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], const void *bytes, size_t count)
{
    if (count > shelf->limits.bytes_max) return;
    pthread_mutex_lock(&shelf->lock);
    struct row *row = touch_or_add(shelf, digest, count);
    if (row) fill(shelf, row, bytes);
    pthread_mutex_unlock(&shelf->lock);
}

bool weir_shelf_offer(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], const char *key,
                      const void *bytes, uint64_t count, uint8_t ticket[WEIR_TICKET_BYTES])
{
    pthread_mutex_lock(&shelf->lock);
    struct row *row = touch_or_add(shelf, digest, count);
    if (row) {
        assert(strlen(key) < sizeof row->key);
        strcpy(row->key, key);
        if (!row->offered) weir_random_bytes(row->ticket, sizeof row->ticket);
        row->offered = true;
        memcpy(ticket, row->ticket, WEIR_TICKET_BYTES);
        fill(shelf, row, bytes);
    }
    pthread_mutex_unlock(&shelf->lock);
    return row != NULL;
}

bool weir_shelf_get(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES], void **out, size_t *count)
{
    *out = NULL;
    pthread_mutex_lock(&shelf->lock);
    const struct row *row = touch(shelf, digest);
    if (row && row->bytes) {
        *count = (size_t)row->count;
        *out = malloc(*count ? *count : 1);
        if (*out) memcpy(*out, row->bytes, *count);
    }
    pthread_mutex_unlock(&shelf->lock);
    return *out != NULL;
}

enum weir_status weir_shelf_read(struct weir_shelf *shelf, const uint8_t digest[WEIR_SHA256_BYTES],
                                 const uint8_t ticket[WEIR_TICKET_BYTES], uint64_t offset, void *buffer, size_t count,
                                 size_t *got, uint64_t *total, struct weir_error *error)
{
    char key[WEIR_KEY_BYTES] = "";
    bool known = false, served = false;
    *got = 0;
    *total = 0;
    pthread_mutex_lock(&shelf->lock);
    const struct row *row = touch(shelf, digest);
    if (row && row->offered && weir_bytes_equal(row->ticket, ticket, WEIR_TICKET_BYTES)) {
        known = true;
        *total = row->count;
        if (row->bytes) {
            served = true;
            if (offset < row->count) *got = row->count - offset < count ? (size_t)(row->count - offset) : count;
            if (*got) memcpy(buffer, (const uint8_t *)row->bytes + offset, *got);
        } else {
            strcpy(key, row->key);
        }
    }
    pthread_mutex_unlock(&shelf->lock);
    if (served) return WEIR_OK;
    if (known && weir_store_read(shelf->store, key, offset, buffer, count, got, NULL) == WEIR_OK) return WEIR_OK;
    *total = 0;
    *got = 0;
    return weir_fail(error, WEIR_NOT_FOUND, "nothing is given away under that digest and ticket");
}
