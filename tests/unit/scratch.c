#include "scratch.h"

#include "proto/base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scratch scratch_begin(void)
{
    struct scratch scratch = { .path = "/tmp/weir-test-XXXXXX" };
    assert_non_null(mkdtemp(scratch.path));
    return scratch;
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)facts, (void)kind, (void)place;
    return remove(path);
}

void scratch_end(struct scratch *scratch)
{
    assert_int_equal(nftw(scratch->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *scratch_path(struct scratch *scratch, const char *path)
{
    char *out = scratch->paths[scratch->turn++ % SCRATCH_PATHS];
    const size_t folder_bytes = strlen(scratch->path), path_bytes = strlen(path);
    assert_true(folder_bytes + 1 + path_bytes < sizeof scratch->paths[0]);
    memcpy(out, scratch->path, folder_bytes);
    out[folder_bytes] = '/';
    memcpy(out + folder_bytes + 1, path, path_bytes + 1);
    return out;
}

static const char *with_parents(struct scratch *scratch, const char *path)
{
    char *whole = (char *)(uintptr_t)scratch_path(scratch, path);
    for (char *slash = strchr(whole + strlen(scratch->path) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    return whole;
}

void scratch_folder(struct scratch *scratch, const char *path)
{
    assert_int_equal(mkdir(with_parents(scratch, path), 0700), 0);
}

void scratch_write(struct scratch *scratch, const char *path, const void *bytes, size_t count)
{
    const char *whole = with_parents(scratch, path);
    const int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(weir_fd_write(fd, bytes, count, whole, NULL), WEIR_OK);
    close(fd);
}

void scratch_text(struct scratch *scratch, const char *path, const char *text)
{
    scratch_write(scratch, path, text, strlen(text));
}

void scratch_link(struct scratch *scratch, const char *path, const char *target)
{
    assert_int_equal(symlink(target, with_parents(scratch, path)), 0);
}

uint8_t *safetensors_make(const char *header, size_t data_bytes, size_t *count)
{
    const size_t header_bytes = strlen(header);
    uint8_t *bytes = malloc(8 + header_bytes + data_bytes);
    assert_non_null(bytes);
    weir_store_u64(bytes, header_bytes);
    memcpy(bytes + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + header_bytes + i] = (uint8_t)i;
    *count = 8 + header_bytes + data_bytes;
    return bytes;
}

void scratch_safetensors(struct scratch *scratch, const char *path, const char *header, size_t data_bytes)
{
    size_t count = 0;
    uint8_t *bytes = safetensors_make(header, data_bytes, &count);
    scratch_write(scratch, path, bytes, count);
    free(bytes);
}
