/* folder: a tree of files that nothing read through it can leave.
 *
 * Every path is resolved beneath the root by the kernel (openat2, RESOLVE_BENEATH): `..` and symlinks work as long as
 * they stay inside; an absolute or escaping one is refused. The root may lie above the folder itself: in a hub cache
 * the files of a snapshot are symlinks into ../../blobs, so the root is models--ORG--NAME.
 *
 * Memory   the folder owns its descriptors and texts
 * Errors   NOT_FOUND, BAD_FILE (not a regular file), BAD_MODEL (leaves the root), IO, TOO_LARGE; words name the path
 * Threads  any, once open
 */
#ifndef WEIR_WORKER_FOLDER_H
#define WEIR_WORKER_FOLDER_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_FOLDER_ENTRIES_MAX 4096
#define WEIR_FOLDER_LABEL_BYTES 320 /* room for weir_folder_label: messages are short */

struct weir_folder {
    int root_fd;
    char *inside; /* of the root: "" or "snapshots/REVISION" */
    char *path;   /* as a person should read it */
    bool hub;     /* a hub cache: a file's real name in blobs/ may be its SHA-256 */
};

/* `root` is any folder; `inside` a relative path of a folder in it, or "". */
enum weir_status weir_folder_init(struct weir_folder *folder, const char *root, const char *inside, bool hub,
                                  struct weir_error *error);
void weir_folder_deinit(struct weir_folder *folder);

/* Opens a regular file for reading. The caller closes *fd. */
enum weir_status weir_folder_open_file(const struct weir_folder *folder, const char *path, int *fd,
                                       struct weir_error *error);
/* Whole into memory, with a NUL after the bytes; freed with free(). */
enum weir_status weir_folder_read_file(const struct weir_folder *folder, const char *path, size_t bytes_max, char **out,
                                       size_t *out_bytes, struct weir_error *error);
/* `*found` says whether `path` is there. Not to be there is no error; not to be a regular file, or to lead out, is. */
enum weir_status weir_folder_find_file(const struct weir_folder *folder, const char *path, bool *found,
                                       struct weir_error *error);
/* The names in a folder inside ("" is the folder itself), sorted by bytes; freed with weir_folder_names_free. TOO_LARGE
 * over 4,096 names. */
enum weir_status weir_folder_names(const struct weir_folder *folder, const char *path, char ***names, size_t *count,
                                   struct weir_error *error);
void weir_folder_names_free(char ***names_p, size_t count);
/* `path` as a person should read it: the folder's path (the end of it when it is long), slash, path; at most `count`
 * bytes with the NUL. */
void weir_folder_label(const struct weir_folder *folder, const char *path, char *out, size_t count);

#endif
