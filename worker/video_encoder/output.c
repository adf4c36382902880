// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/output.h"

#include "proto/base/bytes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum weir_status io_error(const struct weir_output *output, const char *what, struct weir_error *error)
{
    return weir_fail(error, WEIR_IO, "%s: %s: %s", output->path, what, strerror(errno));
}

static bool is_empty_folder(int folder_fd, const char *name)
{
    const int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        if (fd >= 0) close(fd);
        return false;
    }
    int entries = 0;
    while (entries < 3 && readdir(folder)) entries++; /* `.` and `..` are two */
    closedir(folder);
    return entries < 3;
}

static enum weir_status check_target(const struct weir_output *output, struct weir_error *error)
{
    struct stat found;
    if (fstatat(output->folder_fd, output->base, &found, 0) != 0) return WEIR_OK;
    if (!output->is_folder && S_ISDIR(found.st_mode)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: is a folder, a file is to be written", output->path);
    }
    if (output->is_folder && !S_ISDIR(found.st_mode)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: is a file, a folder is to be written", output->path);
    }
    if (output->is_folder && !is_empty_folder(output->folder_fd, output->base)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: is a folder that is not empty", output->path);
    }
    return WEIR_OK;
}

static enum weir_status open_holder(struct weir_output *output, struct weir_error *error)
{
    char holder[PATH_MAX] = ".";
    const char *slash = strrchr(output->path, '/');
    if (slash && (size_t)(slash - output->path) >= sizeof holder - 1) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path over %d bytes", PATH_MAX);
    }
    const int holder_bytes = !slash ? 0 : slash == output->path ? 1 : (int)(slash - output->path);
    if (slash) snprintf(holder, sizeof holder, "%.*s", holder_bytes, output->path);
    output->base = slash ? slash + 1 : output->path;
    if (!*output->base || strcmp(output->base, ".") == 0 || strcmp(output->base, "..") == 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: has no name at its end", output->path);
    }
    output->folder_fd = open(holder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (output->folder_fd < 0) return io_error(output, "its folder", error);
    return check_target(output, error);
}

static void name_temporary(struct weir_output *output)
{
    unsigned char random[8];
    char hex[2 * sizeof random + 1];
    weir_random_bytes(random, sizeof random);
    weir_hex_write(random, sizeof random, hex);
    snprintf(output->temporary, sizeof output->temporary, ".weir-encode-%s", hex);
}

static enum weir_status open_temporary(struct weir_output *output, struct weir_error *error)
{
    name_temporary(output);
    if (output->is_folder) {
        if (mkdirat(output->folder_fd, output->temporary, 0777) != 0) return io_error(output, "making it", error);
        output->is_named = true;
        output->fd = openat(output->folder_fd, output->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } else {
        output->fd = openat(output->folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
        if (output->fd < 0) {
            output->fd = openat(output->folder_fd, output->temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
            output->is_named = output->fd >= 0;
        }
    }
    return output->fd < 0 ? io_error(output, "making it", error) : WEIR_OK;
}

enum weir_status weir_output_open(struct weir_output *output, const char *path, bool is_folder,
                                  struct weir_error *error)
{
    *output = (struct weir_output){ .path = path, .folder_fd = -1, .fd = -1, .is_folder = is_folder };
    enum weir_status status = open_holder(output, error);
    if (status == WEIR_OK) status = open_temporary(output, error);
    if (status != WEIR_OK) weir_output_close(output);
    return status;
}

enum weir_status weir_output_commit(struct weir_output *output, bool is_scratch, struct weir_error *error)
{
    if (!is_scratch && fsync(output->fd) != 0) return io_error(output, "fsync", error);
    if (!output->is_named) {
        char self[40];
        snprintf(self, sizeof self, "/proc/self/fd/%d", output->fd);
        if (linkat(AT_FDCWD, self, output->folder_fd, output->temporary, AT_SYMLINK_FOLLOW) != 0) {
            return io_error(output, "giving it a name", error);
        }
        output->is_named = true;
    }
    if (renameat(output->folder_fd, output->temporary, output->folder_fd, output->base) != 0) {
        return io_error(output, "renaming to it", error);
    }
    output->is_named = false;
    return is_scratch || fsync(output->folder_fd) == 0 ? WEIR_OK : io_error(output, "may not outlive a power cut: fsync", error);
}

static void empty_folder(int fd)
{
    const int again = dup(fd);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    if (!folder) {
        if (again >= 0) close(again);
        return;
    }
    rewinddir(folder);
    for (const struct dirent *entry; (entry = readdir(folder));) unlinkat(fd, entry->d_name, 0); /* fails on . and .. */
    closedir(folder);
}

void weir_output_close(struct weir_output *output)
{
    if (!output->path) return;
    if (output->is_named) {
        if (output->is_folder && output->fd >= 0) empty_folder(output->fd);
        unlinkat(output->folder_fd, output->temporary, output->is_folder ? AT_REMOVEDIR : 0);
    }
    if (output->fd >= 0) close(output->fd);
    if (output->folder_fd >= 0) close(output->folder_fd);
    *output = (struct weir_output){ .folder_fd = -1, .fd = -1 };
}
