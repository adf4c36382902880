#include "worker/scratch.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
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
    snprintf(scratch->path, sizeof scratch->path, "%s/task-%s", run_dir, hex);
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

void weir_scratch_name(const struct weir_scratch *scratch, const char *name, char out[WEIR_SCRATCH_PATH_BYTES])
{
    const int length = snprintf(out, WEIR_SCRATCH_PATH_BYTES, "%s/%s", scratch->path, name);
    assert(length > 0 && length < WEIR_SCRATCH_PATH_BYTES);
    (void)length;
}

enum weir_status weir_scratch_write(const char *path, const void *bytes, size_t count, struct weir_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    enum weir_status status = weir_fd_write(fd, bytes, count, path, error);
    if (close(fd) != 0 && status == WEIR_OK) status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    return status;
}
