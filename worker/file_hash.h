/* file_hash: SHA-256 of files that seldom change, remembered between runs.
 *
 * The cache is one small text file, hashes-1 in ${XDG_CACHE_HOME:-~/.cache}/weir: a line a file, device, inode, size,
 * mtime and hash. It is read whole, written whole under a temporary name and renamed; what does not parse is dropped,
 * and not being able to write it is no error. A file whose mtime lies less than two seconds back is not remembered: it
 * could change again within the same tick of the file system's clock.
 *
 * Memory   init and deinit pair; deinit writes the cache when something was added
 * Errors   IO; BAD_FILE (the file changed while it was read)
 * Threads  files may be hashed from any at once; init and deinit belong to one. Of two processes that write, the later
 *          one wins
 */
#ifndef WEIR_WORKER_FILE_HASH_H
#define WEIR_WORKER_FILE_HASH_H

#include "proto/base/bytes.h"

#include <pthread.h>

#define WEIR_FILE_HASHES_MAX 4096 /* one more, and the oldest is forgotten */

struct weir_file_hash_row;

struct weir_file_hashes {
    pthread_mutex_t mutex; /* of rows, count and changed */
    char *path;            /* NULL: there is no place for a cache */
    struct weir_file_hash_row *rows;
    size_t count;
    bool changed;
};

enum weir_status weir_file_hashes_init(struct weir_file_hashes *hashes, struct weir_error *error);
void weir_file_hashes_deinit(struct weir_file_hashes *hashes);

/* The hash of the open regular file; `fresh` reads its bytes whatever is remembered. The file's offset may move. */
enum weir_status weir_file_hash(struct weir_file_hashes *hashes, int fd, const char *label, bool fresh,
                                char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error);

#endif
