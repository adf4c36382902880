/* The file backend: an object is a file under the root, its key the path.
 *
 * A new object has no name while it is written (O_TMPFILE), so that a killed process leaves nothing; where the file
 * system has no such files it is called `~<16 hex>` beside its place, which no key can be. It is fsynced, linked under
 * its name only if nothing is there, and then its folder is fsynced, and those above it down from the first that was
 * missing when the call began. (One that another process made a moment ago, and has not fsynced yet, is older in the
 * journal than our link.) After a failed fsync the pages count as clean and a second fsync would lie, so the file is
 * thrown away. What can be made again is written and linked likewise, and nothing is fsynced; one that is there under a
 * durable put's name may be such, so it is fsynced then.
 *
 * Reading resolves beneath the root without following symlinks (openat2); writing walks folder by folder with
 * O_NOFOLLOW. Objects have mode 0600, folders 0700. */
#include "proto/base/bytes.h"
#include "store/internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    DEPTH_MAX = (WEIR_STORE_KEY_BYTES_MAX + 1) / 2, /* segments of one key */
    COPY_BYTES = 1 << 20,
    PUT_TRIES_MAX = 64, /* how often a sweep may remove the folder under a put */
    TEMPORARY_BYTES = 18,
    LIST_KEYS_MAX = 4000000,
};
static const char temporary_mark = '~';

struct weir_store_file {
    struct weir_store store;
    int root_fd;
    char *root;
};

static const struct weir_store_file *file_of(const struct weir_store *store)
{
    return (const struct weir_store_file *)store;
}

/* errno in words, the key beside it. */
static enum weir_status fault(struct weir_error *error, const char *key, const char *doing, int number)
{
    if (number == ENOSPC || number == EDQUOT) {
        return weir_fail(error, WEIR_STORE, "the store's disk is full: %s %s: %s", doing, key, strerror(number));
    }
    return weir_fail(error, WEIR_STORE, "store: %s %s: %s", doing, key, strerror(number));
}

static int open_beneath(const struct weir_store *store, const char *path, int flags)
{
    const struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                                  .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
    return (int)syscall(SYS_openat2, file_of(store)->root_fd, path, &how, sizeof how);
}

/* ---- writing ---- */

/* The folders from the root to the one that holds the object. fds[0] is the root's own descriptor, not to be closed. */
struct chain {
    int fds[DEPTH_MAX + 1];
    int count;
    int stable; /* the first so many hold nothing new */
};

static void chain_close(struct chain *chain)
{
    for (int i = 1; i < chain->count; i++) close(chain->fds[i]);
    chain->count = 0;
}

/* Opens, and where needed makes, every folder of the key. 0 or errno; *name is the key's last segment. */
static int chain_open(const struct weir_store *store, const char *key, struct chain *chain, const char **name)
{
    chain->fds[0] = file_of(store)->root_fd;
    chain->count = 1;
    chain->stable = -1;
    const char *rest = key;
    for (const char *slash; (slash = strchr(rest, '/')) != NULL; rest = slash + 1) {
        char segment[WEIR_STORE_SEGMENT_BYTES_MAX + 1];
        const size_t length = (size_t)(slash - rest);
        assert(length < sizeof segment && chain->count <= DEPTH_MAX);
        memcpy(segment, rest, length);
        segment[length] = '\0';
        const int above = chain->fds[chain->count - 1];
        int fd = openat(above, segment, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) {
            if (chain->stable < 0) chain->stable = chain->count - 1;
            if (mkdirat(above, segment, 0700) != 0 && errno != EEXIST) return errno;
            fd = openat(above, segment, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (fd < 0) return errno;
        chain->fds[chain->count++] = fd;
    }
    if (chain->stable < 0) chain->stable = chain->count - 1;
    *name = rest;
    return 0;
}

static int chain_sync(const struct chain *chain)
{
    for (int i = chain->count - 1; i >= chain->stable; i--) {
        if (fsync(chain->fds[i]) != 0) return errno;
    }
    return 0;
}

/* A file being written: `temporary` is "" while it has no name at all. */
struct draft {
    int fd;
    char temporary[TEMPORARY_BYTES];
};

static int draft_open(int folder, struct draft *draft)
{
    draft->temporary[0] = '\0';
    draft->fd = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (draft->fd >= 0) return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return errno;
    uint64_t random;
    weir_random_bytes(&random, sizeof random);
    draft->temporary[0] = temporary_mark;
    weir_hex_write(&random, sizeof random, draft->temporary + 1);
    draft->fd = openat(folder, draft->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return draft->fd < 0 ? errno : 0;
}

/* Gives it the object's name unless that is taken, which is as good. */
static int draft_name(int folder, const struct draft *draft, const char *name)
{
    if (draft->temporary[0]) {
        if (renameat2(folder, draft->temporary, folder, name, RENAME_NOREPLACE) == 0) return 0;
        if (errno == EINVAL && linkat(folder, draft->temporary, folder, name, 0) == 0) {
            unlinkat(folder, draft->temporary, 0);
            return 0;
        }
    } else {
        char self[32];
        snprintf(self, sizeof self, "/proc/self/fd/%d", draft->fd);
        if (linkat(AT_FDCWD, self, folder, name, AT_SYMLINK_FOLLOW) == 0) return 0;
    }
    return errno == EEXIST ? 0 : errno;
}

static void draft_drop(int folder, struct draft *draft)
{
    if (draft->fd >= 0) close(draft->fd);
    draft->fd = -1;
    if (draft->temporary[0]) unlinkat(folder, draft->temporary, 0);
}

struct source { /* bytes in memory, or a file when fd >= 0 */
    const void *bytes;
    size_t count;
    int fd;
    const char *path;
    bool is_remakeable;
};

static enum weir_status pour(const struct source *source, int fd, const char *key, struct weir_error *error)
{
    if (source->fd < 0) {
        const uint8_t *from = source->bytes;
        for (size_t left = source->count; left;) {
            const ssize_t put = write(fd, from, left);
            if (put < 0 && errno == EINTR) continue;
            if (put <= 0) return fault(error, key, "writing", put < 0 ? errno : EIO);
            from += put;
            left -= (size_t)put;
        }
        return WEIR_OK;
    }
    enum weir_status status = WEIR_OK;
    char *buffer = malloc(COPY_BYTES);
    if (!buffer) return weir_fail(error, WEIR_NO_MEMORY, "no memory to copy %s", source->path);
    for (off_t at = 0;;) {
        const ssize_t got = pread(source->fd, buffer, COPY_BYTES, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = weir_fail(error, WEIR_IO, "%s: %s", source->path, strerror(errno));
            break;
        }
        if (got == 0) break;
        at += got;
        const struct source part = { .bytes = buffer, .count = (size_t)got, .fd = -1 };
        WEIR_TRY(pour(&part, fd, key, error));
    }
cleanup:
    free(buffer);
    return status;
}

/* The file of that name, which is there. 0 or errno. */
static int sync_named(int folder, const char *name)
{
    const int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return errno;
    const int failed = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return failed;
}

/* True when a sweep has removed the open folder: what is then said of new files in it differs between kernels. */
static bool gone(int folder)
{
    struct stat facts;
    return fstat(folder, &facts) == 0 && facts.st_nlink == 0;
}

/* One try; *again when a sweep took the folder away meanwhile. */
static enum weir_status put_once(struct weir_store *store, const char *key, const struct source *source, bool *again,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct chain chain = { .count = 0 };
    struct draft draft = { .fd = -1 };
    struct stat facts;
    const char *name = key;
    *again = false;

    int failed = chain_open(store, key, &chain, &name);
    const int folder = chain.fds[chain.count - 1];
    if (failed) {
        *again = failed == ENOENT || gone(folder);
        status = fault(error, key, "making the folders of", failed);
        goto cleanup;
    }
    if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISREG(facts.st_mode)) {
            status = weir_fail(error, WEIR_STORE, "store: %s is there and is no object", key);
            goto cleanup;
        }
        failed = source->is_remakeable ? 0 : sync_named(folder, name);
        if (failed) {
            *again = failed == ENOENT;
            status = fault(error, key, "fsync of", failed);
            goto cleanup;
        }
    } else {
        failed = draft_open(folder, &draft);
        if (failed) {
            *again = gone(folder);
            status = fault(error, key, "making a file for", failed);
            goto cleanup;
        }
        WEIR_TRY(pour(source, draft.fd, key, error));
        if (!source->is_remakeable && fsync(draft.fd) != 0) {
            status = fault(error, key, "fsync of", errno);
            goto cleanup;
        }
        failed = draft_name(folder, &draft, name);
        if (failed) {
            *again = gone(folder);
            status = fault(error, key, "naming", failed);
            goto cleanup;
        }
    }
    failed = source->is_remakeable ? 0 : chain_sync(&chain);
    if (failed) status = fault(error, key, "fsync of the folders of", failed);
cleanup:
    draft_drop(folder, &draft);
    chain_close(&chain);
    return status;
}

static enum weir_status put(struct weir_store *store, const char *key, const struct source *source,
                            struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    bool again = true;
    for (int i = 0; again && i < PUT_TRIES_MAX; i++) status = put_once(store, key, source, &again, error);
    return status;
}

static enum weir_status file_put(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                 bool is_remakeable, struct weir_error *error)
{
    const struct source source = { .bytes = bytes, .count = count, .fd = -1, .is_remakeable = is_remakeable };
    return put(store, key, &source, error);
}

static enum weir_status file_put_file(struct weir_store *store, const char *key, const char *path,
                                      struct weir_error *error)
{
    struct stat facts;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s: %s", path, strerror(errno));
    }
    enum weir_status status = WEIR_OK;
    if (fstat(fd, &facts) != 0) {
        status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(facts.st_mode)) {
        status = weir_fail(error, WEIR_IO, "%s: not a regular file", path);
    } else {
        status = put(store, key, &(struct source){ .fd = fd, .path = path }, error);
    }
    close(fd);
    return status;
}

/* ---- reading ---- */

static enum weir_status object_open(struct weir_store *store, const char *key, int *fd, struct stat *facts,
                                    struct weir_error *error)
{
    *fd = open_beneath(store, key, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR) {
            return weir_fail(error, WEIR_NOT_FOUND, "%s is not in the store %s", key, store->url);
        }
        return fault(error, key, "opening", errno);
    }
    if (fstat(*fd, facts) == 0 && S_ISREG(facts->st_mode)) return WEIR_OK;
    close(*fd);
    *fd = -1;
    return weir_fail(error, WEIR_NOT_FOUND, "%s is no object of the store %s", key, store->url);
}

static enum weir_status file_read(struct weir_store *store, const char *key, uint64_t offset, void *buffer,
                                  size_t count, size_t *got, struct weir_error *error)
{
    int fd;
    struct stat facts;
    enum weir_status status = object_open(store, key, &fd, &facts, error);
    if (status != WEIR_OK) return status;
    while (*got < count && offset + *got < (uint64_t)facts.st_size) {
        const ssize_t part = pread(fd, (char *)buffer + *got, count - *got, (off_t)(offset + *got));
        if (part < 0 && errno == EINTR) continue;
        if (part < 0) status = fault(error, key, "reading", errno);
        if (part <= 0) break;
        *got += (size_t)part;
    }
    close(fd);
    return status;
}

static enum weir_status file_stat(struct weir_store *store, const char *key, uint64_t *bytes, struct weir_error *error)
{
    int fd;
    struct stat facts;
    const enum weir_status status = object_open(store, key, &fd, &facts, error);
    if (status != WEIR_OK) return status;
    close(fd);
    *bytes = (uint64_t)facts.st_size;
    return WEIR_OK;
}

static bool file_path(const struct weir_store *store, const char *key, char *out, size_t out_bytes)
{
    const int length = snprintf(out, out_bytes, "%s/%s", file_of(store)->root, key);
    return length > 0 && (size_t)length < out_bytes;
}

/* ---- listing and removing ---- */

struct keys {
    char **items;
    size_t count, room;
};

static void keys_free(struct keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) free(keys->items[i]);
    free(keys->items);
}

static enum weir_status keys_add(struct keys *keys, const char *key, struct weir_error *error)
{
    if (keys->count == LIST_KEYS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "over %d keys under one prefix, from %s on", LIST_KEYS_MAX, key);
    }
    if (keys->count == keys->room) {
        const size_t room = keys->room ? 2 * keys->room : 64;
        char **items = realloc(keys->items, room * sizeof *items);
        if (!items) return weir_fail(error, WEIR_NO_MEMORY, "no memory to list %zu keys", room);
        keys->items = items;
        keys->room = room;
    }
    keys->items[keys->count] = strdup(key);
    if (!keys->items[keys->count]) return weir_fail(error, WEIR_NO_MEMORY, "no memory to list %s", key);
    keys->count++;
    return WEIR_OK;
}

/* The prefix without its last '/'; "." for everything. */
static void place_of(const char *prefix, char out[WEIR_STORE_KEY_BYTES_MAX + 1])
{
    const size_t length = strlen(prefix);
    memcpy(out, prefix, length + 1);
    if (length && out[length - 1] == '/') out[length - 1] = '\0';
    if (length == 0) strcpy(out, ".");
}

/* Walks what lies under `path` (of which the folder `fd`, taken here, is open). One that vanishes meanwhile was not
 * there. A path too long for a key cannot be one and is passed over. */
static enum weir_status walk(int fd, const char *path, struct keys *keys, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return fault(error, path, "listing", errno);
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            if (errno) status = fault(error, path, "listing", errno);
            break;
        }
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || name[0] == temporary_mark) continue;
        char key[WEIR_STORE_KEY_BYTES_MAX + 1];
        const int length = strcmp(path, ".") == 0 ? snprintf(key, sizeof key, "%s", name)
                                                  : snprintf(key, sizeof key, "%s/%s", path, name);
        if (length < 0 || (size_t)length >= sizeof key) continue;
        const int inside = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inside >= 0) {
            status = walk(inside, key, keys, error);
        } else if (errno == ENOTDIR) {
            status = keys_add(keys, key, error);
        } else if (errno != ENOENT && errno != ELOOP) {
            status = fault(error, key, "listing", errno);
        }
        if (status != WEIR_OK) break;
    }
    closedir(folder);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum weir_status file_list(struct weir_store *store, const char *prefix, weir_store_each *each, void *context,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct keys keys = { 0 };
    char place[WEIR_STORE_KEY_BYTES_MAX + 1];
    place_of(prefix, place);

    const int fd = open_beneath(store, place, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        WEIR_TRY(walk(fd, place, &keys, error));
    } else if (errno == ENOTDIR) {
        uint64_t bytes;
        if (file_stat(store, place, &bytes, NULL) == WEIR_OK) WEIR_TRY(keys_add(&keys, place, error));
    } else if (errno != ENOENT) {
        status = fault(error, prefix, "listing", errno);
        goto cleanup;
    }
    if (keys.count) qsort(keys.items, keys.count, sizeof *keys.items, by_bytes);
    for (size_t i = 0; i < keys.count; i++) {
        if (!each(context, keys.items[i])) break;
    }
cleanup:
    keys_free(&keys);
    return status;
}

/* Empties the open folder (taken here). What a put adds meanwhile may stay. 0 or errno. */
static int empty(int fd)
{
    int failed = 0;
    DIR *folder = fdopendir(fd);
    if (!folder) {
        failed = errno;
        close(fd);
        return failed;
    }
    const struct dirent *entry;
    while (!failed && (errno = 0, entry = readdir(folder)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        const int inside = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inside >= 0) {
            failed = empty(inside);
            if (!failed && unlinkat(fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT && errno != ENOTEMPTY) {
                failed = errno;
            }
        } else if (errno != ENOENT && unlinkat(fd, name, 0) != 0 && errno != ENOENT) {
            failed = errno;
        }
    }
    if (!failed && errno) failed = errno;
    if (!failed && fsync(fd) != 0) failed = errno;
    closedir(folder);
    return failed;
}

static enum weir_status file_remove(struct weir_store *store, const char *prefix, struct weir_error *error)
{
    char place[WEIR_STORE_KEY_BYTES_MAX + 1];
    place_of(prefix, place);
    char *slash = strrchr(place, '/');
    const char *name = slash ? slash + 1 : place;
    if (slash) *slash = '\0';

    const int above = open_beneath(store, slash ? place : ".", O_RDONLY | O_DIRECTORY);
    if (above < 0) {
        return errno == ENOENT || errno == ENOTDIR ? WEIR_OK : fault(error, prefix, "removing", errno);
    }
    int failed = 0;
    const int inside = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inside >= 0) {
        failed = empty(inside);
        if (!failed && unlinkat(above, name, AT_REMOVEDIR) != 0 && errno != ENOENT && errno != ENOTEMPTY) {
            failed = errno;
        }
    } else if (errno != ENOENT && unlinkat(above, name, 0) != 0 && errno != ENOENT) {
        failed = errno;
    }
    if (!failed && fsync(above) != 0) failed = errno;
    close(above);
    return failed ? fault(error, prefix, "removing", failed) : WEIR_OK;
}

/* ---- the store ---- */

static void file_close(struct weir_store *store)
{
    struct weir_store_file *file = (struct weir_store_file *)store;
    if (file->root_fd >= 0) close(file->root_fd);
    free(file->root);
    free(file);
}

static const struct weir_store_table table = {
    .scheme = "file",
    .close = file_close,
    .put = file_put,
    .put_file = file_put_file,
    .read = file_read,
    .stat = file_stat,
    .list = file_list,
    .remove = file_remove,
    .path = file_path,
};

/* mkdir -p; the folder above each new one is fsynced. */
static enum weir_status root_make(char *root, struct weir_error *error)
{
    for (char *at = root + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        const char kept = *at;
        *at = '\0';
        const bool made = mkdir(root, 0700) == 0;
        if (!made && errno != EEXIST) return weir_fail(error, WEIR_STORE, "store %s: %s", root, strerror(errno));
        if (made) {
            char *slash = strrchr(root, '/');
            *slash = '\0';
            const int above = open(slash == root ? "/" : root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            *slash = '/';
            if (above < 0 || fsync(above) != 0) {
                const int number = errno;
                if (above >= 0) close(above);
                return weir_fail(error, WEIR_STORE, "the folder that holds the store %s: %s", root, strerror(number));
            }
            close(above);
        }
        *at = kept;
        if (kept == '\0') return WEIR_OK;
    }
}

enum weir_status weir_store_file_open(const char *root, struct weir_store **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_store_file *file = calloc(1, sizeof *file);
    *out = NULL;
    if (!file) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a store");
    file->store.table = &table;
    file->root_fd = -1;
    file->root = strdup(root);
    if (!file->root) {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for a store");
        goto cleanup;
    }
    for (size_t length = strlen(file->root); length > 1 && file->root[length - 1] == '/'; length--) {
        file->root[length - 1] = '\0';
    }
    WEIR_TRY(root_make(file->root, error));
    file->root_fd = open(file->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->root_fd < 0) {
        status = weir_fail(error, WEIR_STORE, "store %s: %s", root, strerror(errno));
        goto cleanup;
    }
    const int probe = open_beneath(&file->store, ".", O_RDONLY | O_DIRECTORY);
    if (probe < 0) {
        status = weir_fail(error, WEIR_STORE, "store %s: openat2(2), which keeps it in its folder, is refused here: %s",
                           root, strerror(errno));
        goto cleanup;
    }
    close(probe);
    *out = &file->store;
    file = NULL;
cleanup:
    if (file) file_close(&file->store);
    return status;
}
