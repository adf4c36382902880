#include "worker/scratch.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES_MAX = 128, WALK_FDS = 8 };

enum weir_status weir_scratch_open(struct weir_scratch *scratch, const char *run_dir, struct weir_error *error)
{
    uint64_t random;
    char hex[2 * sizeof random + 1];
    weir_random_bytes(&random, sizeof random);
    weir_hex_write(&random, sizeof random, hex);
    scratch->path[0] = '\0';
    if (strlen(run_dir) + NAME_BYTES_MAX >= WEIR_SCRATCH_PATH_BYTES) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--run-dir has %zu bytes, at most %d are possible", strlen(run_dir),
                         WEIR_SCRATCH_PATH_BYTES - NAME_BYTES_MAX - 1);
    }
    snprintf(scratch->path, sizeof scratch->path, "%s/task-%ld-%s", run_dir, (long)getpid(), hex);
    if (mkdir(scratch->path, 0700) == 0) return WEIR_OK;
    const enum weir_status status = weir_fail(error, WEIR_IO, "%s: %s", scratch->path, strerror(errno));
    scratch->path[0] = '\0';
    return status;
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    (void)remove(path);
    return 0;
}

void weir_scratch_close(struct weir_scratch *scratch)
{
    if (scratch->path[0]) (void)nftw(scratch->path, remove_one, WALK_FDS, FTW_DEPTH | FTW_PHYS);
    scratch->path[0] = '\0';
}

/* PREFIX<pid>-...: whether that process is no more. */
static bool is_orphan(const char *name, const char *prefix)
{
    const size_t length = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, length) != 0) return false;
    const long pid = strtol(name + length, &end, 10);
    return pid > 1 && *end == '-' && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

void weir_scratch_sweep(const char *run_dir)
{
    DIR *folder = opendir(run_dir);
    if (!folder) return;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[WEIR_SCRATCH_PATH_BYTES];
        if (!is_orphan(entry->d_name, "task-") && !is_orphan(entry->d_name, "tensor-")) continue;
        const int length = snprintf(path, sizeof path, "%s/%s", run_dir, entry->d_name);
        if (length > 0 && (size_t)length < sizeof path) (void)nftw(path, remove_one, WALK_FDS, FTW_DEPTH | FTW_PHYS);
    }
    closedir(folder);
}

void weir_scratch_name(const struct weir_scratch *scratch, const char *name, char out[WEIR_SCRATCH_PATH_BYTES])
{
    const int length = snprintf(out, WEIR_SCRATCH_PATH_BYTES, "%s/%s", scratch->path, name);
    assert(length > 0 && length < WEIR_SCRATCH_PATH_BYTES);
    if (length >= WEIR_SCRATCH_PATH_BYTES) out[0] = '\0'; /* a name that opens nothing, where assertions are off */
}

enum weir_status weir_scratch_write(const char *path, const void *bytes, size_t count, struct weir_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    enum weir_status status = weir_fd_write(fd, bytes, count, path, error);
    if (close(fd) != 0 && status == WEIR_OK) status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    return status;
}
