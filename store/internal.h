/* What a backend of the store fills, and what store.c checks for all of them. Keys and prefixes that arrive here are
 * valid. */
#ifndef WEIR_STORE_INTERNAL_H
#define WEIR_STORE_INTERNAL_H

#include "store/store.h"

#define WEIR_STORE_KEY_BYTES_MAX 255
#define WEIR_STORE_SEGMENT_BYTES_MAX 128
#define WEIR_STORE_URL_BYTES_MAX 4096

struct weir_store_table {
    const char *scheme; /* "file" */
    void (*close)(struct weir_store *store);
    enum weir_status (*put)(struct weir_store *store, const char *key, const void *bytes, size_t count,
                            bool is_remakeable, struct weir_error *error);
    enum weir_status (*put_file)(struct weir_store *store, const char *key, const char *path, struct weir_error *error);
    enum weir_status (*read)(struct weir_store *store, const char *key, uint64_t offset, void *buffer, size_t count,
                             size_t *got, struct weir_error *error);
    enum weir_status (*stat)(struct weir_store *store, const char *key, uint64_t *bytes, struct weir_error *error);
    enum weir_status (*list)(struct weir_store *store, const char *prefix, weir_store_each *each, void *context,
                             struct weir_error *error);
    enum weir_status (*remove)(struct weir_store *store, const char *prefix, struct weir_error *error);
    bool (*path)(const struct weir_store *store, const char *key, char *out, size_t out_bytes);
};

/* The head of every backend's own struct. */
struct weir_store {
    const struct weir_store_table *table;
    char *url;
};

/* `root` is an absolute path; `store->url` is filled by the caller. */
enum weir_status weir_store_file_open(const char *root, struct weir_store **out, struct weir_error *error);

#endif
