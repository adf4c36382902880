/* store: where results live. Immutable objects under keys; one implementation a backend, chosen by URL.
 *
 * Keys     `t/<tenant>/...`, built by proto/job.h from checked ids: segments of [A-Za-z0-9._-]{1,128} joined by '/', at
 *          most 255 bytes, no segment "." or ".."; anything else is BAD_ARGUMENT
 * Commit   put() returns OK only when the bytes would survive a crash of the machine: written under a temporary name,
 *          fsynced, renamed without replacing, directories fsynced. An object that is already there stays as it is and
 *          counts as success
 *          put_remakeable() promises less, for what can be made again
 * Errors   STORE in words (errno and the key; a full disk says so), NOT_FOUND, BAD_ARGUMENT, NO_MEMORY
 * Threads  a store may be shared by threads
 * Blocks   as long as the medium takes
 */
#ifndef WEIR_STORE_STORE_H
#define WEIR_STORE_STORE_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_store;

/* url  "file:///abs/dir" or a plain directory path; it is made with mode 0700 when missing. */
enum weir_status weir_store_open(const char *url, struct weir_store **out, struct weir_error *error);
void weir_store_close(struct weir_store **store);
const char *weir_store_url(const struct weir_store *store);

enum weir_status weir_store_put(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                struct weir_error *error);
/* As put, but OK means only that whoever looks sees it: a crash of the machine may leave nothing under the key, or other
 * bytes. For what can be made again, when its readers check a digest and remove what has another. */
enum weir_status weir_store_put_remakeable(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                           struct weir_error *error);
/* Takes the bytes of a file (copied or linked; the file stays the caller's). */
enum weir_status weir_store_put_file(struct weir_store *store, const char *key, const char *path,
                                     struct weir_error *error);
/* Reads an object whole; free() it. TOO_LARGE over bytes_max. */
enum weir_status weir_store_get(struct weir_store *store, const char *key, size_t bytes_max, void **out,
                                size_t *out_bytes, struct weir_error *error);
/* A part of an object; `*got` may be short only at its end. */
enum weir_status weir_store_read(struct weir_store *store, const char *key, uint64_t offset, void *buffer, size_t count,
                                 size_t *got, struct weir_error *error);
enum weir_status weir_store_stat(struct weir_store *store, const char *key, uint64_t *bytes, struct weir_error *error);

/* Calls `each` with every key under the prefix, sorted; stops when it returns false. None is no error. */
typedef bool weir_store_each(void *context, const char *key);
enum weir_status weir_store_list(struct weir_store *store, const char *prefix, weir_store_each *each, void *context,
                                 struct weir_error *error);
/* Removes every object under the prefix (a checkpoint sweep, a purged job). A missing one is no error. */
enum weir_status weir_store_remove(struct weir_store *store, const char *prefix, struct weir_error *error);

/* The path of an object's file where the backend has one, for readers on this machine and for link(2); else false. */
bool weir_store_path(const struct weir_store *store, const char *key, char *out, size_t out_bytes);

#endif
