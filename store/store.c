#include "store/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool segment_byte(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

/* One segment from *text on; moves *text behind it. */
static bool segment_take(const char **text)
{
    const char *start = *text;
    while (segment_byte(**text)) (*text)++;
    const size_t length = (size_t)(*text - start);
    if (length == 0 || length > WEIR_STORE_SEGMENT_BYTES_MAX) return false;
    return !(start[0] == '.' && (length == 1 || (length == 2 && start[1] == '.')));
}

/* A prefix may end in '/'; the empty one means everything. */
static enum weir_status check(const char *text, bool is_prefix, struct weir_error *error)
{
    const char *what = is_prefix ? "prefix" : "key";
    if (strnlen(text, WEIR_STORE_KEY_BYTES_MAX + 1) > WEIR_STORE_KEY_BYTES_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a store's %s \"%.64s...\" is over %d bytes", what, text,
                         WEIR_STORE_KEY_BYTES_MAX);
    }
    const char *rest = text;
    if (is_prefix && *rest == '\0') return WEIR_OK;
    while (segment_take(&rest)) {
        if (*rest == '\0') return WEIR_OK;
        if (*rest++ != '/') break;
        if (is_prefix && *rest == '\0') return WEIR_OK;
    }
    return weir_fail(error, WEIR_BAD_ARGUMENT,
                     "a store's %s \"%s\" is not made of segments of A-Z a-z 0-9 . _ - (1 to %d bytes, none \".\" or "
                     "\"..\")",
                     what, text, WEIR_STORE_SEGMENT_BYTES_MAX);
}

/* "file:///abs", "file:/abs" or a path -> an absolute path, freed by the caller. */
static enum weir_status root_of(const char *url, char **out, struct weir_error *error)
{
    const char *path = url;
    if (strncmp(url, "file:", 5) == 0) {
        path = url + 5;
        if (strncmp(path, "//", 2) == 0) path += 2;
        if (*path != '/') {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "store \"%s\": file: needs an absolute path, file:///dir", url);
        }
    } else if (strstr(url, "://")) {
        return weir_fail(error, WEIR_UNSUPPORTED, "store \"%s\": this build offers file:///dir and plain paths", url);
    }
    if (*path == '\0') return weir_fail(error, WEIR_BAD_ARGUMENT, "the store's place is empty");
    if (strlen(path) > WEIR_STORE_URL_BYTES_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the store's path has %zu bytes, at most %d are taken", strlen(path),
                         WEIR_STORE_URL_BYTES_MAX);
    }
    if (*path == '/') {
        *out = strdup(path);
    } else {
        char *here = getcwd(NULL, 0);
        if (!here) return weir_fail(error, WEIR_IO, "the current folder: %s", strerror(errno));
        *out = malloc(strlen(here) + strlen(path) + 2);
        if (*out) {
            strcpy(*out, here);
            strcat(*out, "/");
            strcat(*out, path);
        }
        free(here);
    }
    return *out ? WEIR_OK : weir_fail(error, WEIR_NO_MEMORY, "no memory for the store's path");
}

enum weir_status weir_store_open(const char *url, struct weir_store **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char *root = NULL;
    struct weir_store *store = NULL;

    *out = NULL;
    WEIR_TRY(root_of(url, &root, error));
    WEIR_TRY(weir_store_file_open(root, &store, error));
    store->url = strdup(url);
    if (!store->url) {
        weir_store_close(&store);
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for the store's name");
    }
    *out = store;
cleanup:
    free(root);
    return status;
}

void weir_store_close(struct weir_store **store_p)
{
    struct weir_store *store = *store_p;
    if (!store) return;
    free(store->url);
    store->table->close(store);
    *store_p = NULL;
}

const char *weir_store_url(const struct weir_store *store)
{
    return store->url;
}

enum weir_status weir_store_put(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                struct weir_error *error)
{
    const enum weir_status status = check(key, false, error);
    return status == WEIR_OK ? store->table->put(store, key, bytes, count, false, error) : status;
}

enum weir_status weir_store_put_remakeable(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                           struct weir_error *error)
{
    const enum weir_status status = check(key, false, error);
    return status == WEIR_OK ? store->table->put(store, key, bytes, count, true, error) : status;
}

enum weir_status weir_store_put_file(struct weir_store *store, const char *key, const char *path,
                                     struct weir_error *error)
{
    const enum weir_status status = check(key, false, error);
    return status == WEIR_OK ? store->table->put_file(store, key, path, error) : status;
}

enum weir_status weir_store_get(struct weir_store *store, const char *key, size_t bytes_max, void **out,
                                size_t *out_bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint64_t bytes = 0;
    size_t got = 0;
    void *memory = NULL;

    *out = NULL;
    *out_bytes = 0;
    WEIR_TRY(weir_store_stat(store, key, &bytes, error));
    if (bytes > bytes_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s in the store has %llu bytes, at most %zu are read", key,
                         (unsigned long long)bytes, bytes_max);
    }
    memory = malloc(bytes ? (size_t)bytes : 1);
    if (!memory) {
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the %llu bytes of %s", (unsigned long long)bytes, key);
    }
    WEIR_TRY(store->table->read(store, key, 0, memory, (size_t)bytes, &got, error));
    if (got != bytes) {
        status = weir_fail(error, WEIR_STORE, "%s in the store ended after %zu of %llu bytes", key, got,
                           (unsigned long long)bytes);
    }
cleanup:
    if (status == WEIR_OK) {
        *out = memory;
        *out_bytes = got;
    } else {
        free(memory);
    }
    return status;
}

enum weir_status weir_store_read(struct weir_store *store, const char *key, uint64_t offset, void *buffer, size_t count,
                                 size_t *got, struct weir_error *error)
{
    *got = 0;
    const enum weir_status status = check(key, false, error);
    return status == WEIR_OK ? store->table->read(store, key, offset, buffer, count, got, error) : status;
}

enum weir_status weir_store_stat(struct weir_store *store, const char *key, uint64_t *bytes, struct weir_error *error)
{
    *bytes = 0;
    const enum weir_status status = check(key, false, error);
    return status == WEIR_OK ? store->table->stat(store, key, bytes, error) : status;
}

enum weir_status weir_store_list(struct weir_store *store, const char *prefix, weir_store_each *each, void *context,
                                 struct weir_error *error)
{
    const enum weir_status status = check(prefix, true, error);
    return status == WEIR_OK ? store->table->list(store, prefix, each, context, error) : status;
}

enum weir_status weir_store_remove(struct weir_store *store, const char *prefix, struct weir_error *error)
{
    const enum weir_status status = check(prefix, true, error);
    if (status != WEIR_OK) return status;
    if (*prefix == '\0') return weir_fail(error, WEIR_BAD_ARGUMENT, "a store is not emptied whole: name a prefix");
    return store->table->remove(store, prefix, error);
}

bool weir_store_path(const struct weir_store *store, const char *key, char *out, size_t out_bytes)
{
    return check(key, false, NULL) == WEIR_OK && store->table->path && store->table->path(store, key, out, out_bytes);
}
