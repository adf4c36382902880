#include "worker/folder.h"

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

#define RACES_MAX 16         /* openat2 gives up when something was renamed while it looked at `..` */
#define LABEL_PATH_BYTES 160 /* of a folder's path in a message; the end tells more than the start */

void weir_folder_label(const struct weir_folder *folder, const char *path, char *out, size_t count)
{
    const size_t length = strlen(folder->path);
    const char *shown = length > LABEL_PATH_BYTES ? folder->path + length - LABEL_PATH_BYTES : folder->path;
    snprintf(out, count, "%s%s%s%s", shown == folder->path ? "" : "...", shown, *path ? "/" : "", path);
}

static enum weir_status fail_open(const struct weir_folder *folder, const char *path, int fault,
                                  struct weir_error *error)
{
    char label[WEIR_FOLDER_LABEL_BYTES];
    weir_folder_label(folder, path, label, sizeof label);
    switch (fault) {
    case ENOENT:
    case ENOTDIR:
        return weir_fail(error, WEIR_NOT_FOUND, "%s: no such file", label);
    case EXDEV:
        return weir_fail(error, WEIR_BAD_MODEL, "%s: it leads out of the model's folder", label);
    case ELOOP:
        return weir_fail(error, WEIR_BAD_MODEL, "%s: its symlinks go round in circles", label);
    case ENOMEM:
        return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to open it", label);
    case ENOSYS:
        return weir_fail(error, WEIR_UNSUPPORTED, "%s: needs openat2, that is Linux 5.6 or newer", label);
    default:
        return weir_fail(error, WEIR_IO, "%s: %s", label, strerror(fault));
    }
}

/* `path` is of the root. -1 with errno. */
static int open_beneath(int root_fd, const char *path, uint64_t flags)
{
    const struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long fd = -1;
    for (int turn = 0; turn < RACES_MAX; turn++) {
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
    }
    return (int)fd;
}

/* Opens `path` of the folder. -1 with errno. */
static int open_inside(const struct weir_folder *folder, const char *path, uint64_t flags)
{
    char *whole = NULL;
    const char *inside = *folder->inside ? folder->inside : ".";
    if (asprintf(&whole, "%s%s%s", inside, *path ? "/" : "", path) < 0) {
        errno = ENOMEM;
        return -1;
    }
    const int fd = open_beneath(folder->root_fd, whole, flags);
    const int fault = errno;
    free(whole);
    errno = fault;
    return fd;
}

enum weir_status weir_folder_init(struct weir_folder *folder, const char *root, const char *inside, bool hub,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *folder = (struct weir_folder){ .root_fd = -1, .hub = hub };
    folder->inside = strdup(inside);
    if (asprintf(&folder->path, "%s%s%s", root, *inside ? "/" : "", inside) < 0) folder->path = NULL;
    if (!folder->inside || !folder->path) {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory to open a folder");
        goto cleanup;
    }
    folder->root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder->root_fd < 0) {
        status = fail_open(folder, "", errno, error);
        goto cleanup;
    }
    const int fd = open_inside(folder, "", O_PATH | O_DIRECTORY);
    if (fd < 0) {
        status = fail_open(folder, "", errno, error);
        goto cleanup;
    }
    close(fd);

cleanup:
    if (status != WEIR_OK) weir_folder_deinit(folder);
    return status;
}

void weir_folder_deinit(struct weir_folder *folder)
{
    if (folder->path && folder->root_fd >= 0) close(folder->root_fd);
    free(folder->inside);
    free(folder->path);
    *folder = (struct weir_folder){ .root_fd = -1 };
}

enum weir_status weir_folder_open_file(const struct weir_folder *folder, const char *path, int *fd,
                                       struct weir_error *error)
{
    char label[WEIR_FOLDER_LABEL_BYTES];
    struct stat facts;
    const int opened = open_inside(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (opened < 0) return fail_open(folder, path, errno, error);
    if (fstat(opened, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        close(opened);
        weir_folder_label(folder, path, label, sizeof label);
        return weir_fail(error, WEIR_BAD_FILE, "%s: not a regular file", label);
    }
    *fd = opened;
    return WEIR_OK;
}

enum weir_status weir_folder_read_file(const struct weir_folder *folder, const char *path, size_t bytes_max, char **out,
                                       size_t *out_bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    struct stat facts;
    char *text = NULL;
    int fd = -1;

    weir_folder_label(folder, path, label, sizeof label);
    WEIR_TRY(weir_folder_open_file(folder, path, &fd, error));
    if (fstat(fd, &facts) != 0) {
        status = weir_fail(error, WEIR_IO, "%s: %s", label, strerror(errno));
        goto cleanup;
    }
    const size_t bytes = (size_t)facts.st_size;
    if (bytes > bytes_max) {
        status = weir_fail(error, WEIR_TOO_LARGE, "%s: %zu bytes, at most %zu are read", label, bytes, bytes_max);
        goto cleanup;
    }
    text = malloc(bytes + 1);
    if (!text) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its %zu bytes", label, bytes);
        goto cleanup;
    }
    for (size_t done = 0; done < bytes;) {
        const ssize_t got = read(fd, text + done, bytes - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            status = weir_fail(error, WEIR_IO, "%s: %s after %zu of %zu bytes", label,
                               got < 0 ? strerror(errno) : "the file ended", done, bytes);
            goto cleanup;
        }
        done += (size_t)got;
    }
    text[bytes] = '\0';
    *out = text;
    *out_bytes = bytes;
    text = NULL;

cleanup:
    free(text);
    if (fd >= 0) close(fd);
    return status;
}

enum weir_status weir_folder_find_file(const struct weir_folder *folder, const char *path, bool *found,
                                       struct weir_error *error)
{
    int fd = -1;
    const enum weir_status status = weir_folder_open_file(folder, path, &fd, error);
    if (status != WEIR_OK && status != WEIR_NOT_FOUND) return status;
    if (fd >= 0) close(fd);
    *found = status == WEIR_OK;
    return WEIR_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum weir_status read_names(DIR *stream, const char *label, char **names, size_t *count,
                                   struct weir_error *error)
{
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (*count == WEIR_FOLDER_ENTRIES_MAX) {
            return weir_fail(error, WEIR_TOO_LARGE, "%s: more than %d files in one folder", label,
                             WEIR_FOLDER_ENTRIES_MAX);
        }
        names[*count] = strdup(entry->d_name);
        if (!names[*count]) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to list it", label);
        ++*count;
        errno = 0;
    }
    return errno ? weir_fail(error, WEIR_IO, "%s: %s", label, strerror(errno)) : WEIR_OK;
}

enum weir_status weir_folder_names(const struct weir_folder *folder, const char *path, char ***names, size_t *count,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    char **list = NULL;
    size_t found = 0;
    DIR *stream = NULL;

    weir_folder_label(folder, path, label, sizeof label);
    const int fd = open_inside(folder, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return fail_open(folder, path, errno, error);
    stream = fdopendir(fd);
    list = calloc(WEIR_FOLDER_ENTRIES_MAX, sizeof *list);
    if (!stream || !list) {
        if (!stream) close(fd);
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to list it", label);
        goto cleanup;
    }
    WEIR_TRY(read_names(stream, label, list, &found, error));
    qsort(list, found, sizeof *list, by_bytes);
    *names = list;
    *count = found;
    list = NULL;

cleanup:
    weir_folder_names_free(&list, found);
    if (stream) closedir(stream);
    return status;
}

void weir_folder_names_free(char ***names_p, size_t count)
{
    if (!*names_p) return;
    for (size_t i = 0; i < count; i++) free((*names_p)[i]);
    free(*names_p);
    *names_p = NULL;
}
