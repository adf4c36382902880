#include "worker/file_hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define CHUNK_BYTES ((size_t)1 << 20)
#define CACHE_BYTES_MAX ((size_t)1 << 20)
#define LINE_BYTES_MAX 192
#define SETTLED_SECONDS 2

struct weir_file_hash_row {
    unsigned long long device, inode, size, seconds, nanoseconds;
    char hex[WEIR_SHA256_HEX_BYTES];
};

static struct weir_file_hash_row row_of(const struct stat *facts)
{
    return (struct weir_file_hash_row){ .device = (unsigned long long)facts->st_dev,
                                        .inode = (unsigned long long)facts->st_ino,
                                        .size = (unsigned long long)facts->st_size,
                                        .seconds = (unsigned long long)facts->st_mtim.tv_sec,
                                        .nanoseconds = (unsigned long long)facts->st_mtim.tv_nsec };
}

static bool same_file(const struct weir_file_hash_row *a, const struct weir_file_hash_row *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->seconds == b->seconds &&
           a->nanoseconds == b->nanoseconds;
}

/* "device inode size seconds nanoseconds hash", the numbers in decimal. */
static bool parse_line(const char *line, struct weir_file_hash_row *row)
{
    unsigned long long *const numbers[] = { &row->device, &row->inode, &row->size, &row->seconds, &row->nanoseconds };
    uint8_t digest[WEIR_SHA256_BYTES];
    for (size_t i = 0; i < WEIR_COUNT(numbers); i++) {
        char *end;
        if (*line < '0' || *line > '9') return false;
        *numbers[i] = strtoull(line, &end, 10);
        if (*end != ' ') return false;
        line = end + 1;
    }
    if (!weir_hex_read(line, digest, sizeof digest)) return false;
    weir_hex_write(digest, sizeof digest, row->hex);
    return true;
}

static void add_row(struct weir_file_hashes *hashes, const struct weir_file_hash_row *row)
{
    if (hashes->count == WEIR_FILE_HASHES_MAX) {
        memmove(hashes->rows, hashes->rows + 1, --hashes->count * sizeof *hashes->rows);
    }
    hashes->rows[hashes->count++] = *row;
}

static void load(struct weir_file_hashes *hashes)
{
    char *text = NULL, *rest = NULL;
    size_t bytes = 0;
    if (weir_file_read(hashes->path, CACHE_BYTES_MAX, &text, &bytes, NULL) != WEIR_OK) return;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct weir_file_hash_row row;
        if (parse_line(line, &row)) add_row(hashes, &row);
    }
    free(text);
}

static char *cache_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int made = -1;
    if (cache && *cache == '/') {
        made = asprintf(&path, "%s/weir/hashes-1", cache);
    } else if (home && *home == '/') {
        made = asprintf(&path, "%s/.cache/weir/hashes-1", home);
    }
    return made < 0 ? NULL : path;
}

enum weir_status weir_file_hashes_init(struct weir_file_hashes *hashes, struct weir_error *error)
{
    *hashes = (struct weir_file_hashes){ .rows = calloc(WEIR_FILE_HASHES_MAX, sizeof *hashes->rows) };
    if (!hashes->rows) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the cache of file hashes");
    pthread_mutex_init(&hashes->mutex, NULL);
    hashes->path = cache_path();
    if (hashes->path) load(hashes);
    return WEIR_OK;
}

/* Makes the folders that `path` lies in, as far as they are missing. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

static bool write_rows(const struct weir_file_hashes *hashes, int fd)
{
    for (size_t i = 0; i < hashes->count; i++) {
        const struct weir_file_hash_row *row = &hashes->rows[i];
        char line[LINE_BYTES_MAX];
        const int bytes = snprintf(line, sizeof line, "%llu %llu %llu %llu %llu %s\n", row->device, row->inode,
                                   row->size, row->seconds, row->nanoseconds, row->hex);
        if (weir_fd_write(fd, line, (size_t)bytes, hashes->path, NULL) != WEIR_OK) return false;
    }
    return fsync(fd) == 0;
}

static void save(struct weir_file_hashes *hashes)
{
    char *temporary = NULL;
    make_folders(hashes->path);
    if (asprintf(&temporary, "%s.XXXXXX", hashes->path) < 0) return;
    const int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd >= 0) {
        const bool written = write_rows(hashes, fd);
        close(fd);
        if (!written || rename(temporary, hashes->path) != 0) unlink(temporary);
    }
    free(temporary);
}

void weir_file_hashes_deinit(struct weir_file_hashes *hashes)
{
    if (!hashes->rows) return;
    if (hashes->changed && hashes->path) save(hashes);
    pthread_mutex_destroy(&hashes->mutex);
    free(hashes->rows);
    free(hashes->path);
    *hashes = (struct weir_file_hashes){ 0 };
}

static enum weir_status hash_bytes(int fd, const char *label, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint8_t digest[WEIR_SHA256_BYTES];
    struct weir_sha256 sha;
    off_t offset = 0;
    char *chunk = malloc(CHUNK_BYTES);
    if (!chunk) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
    weir_sha256_init(&sha);
    for (;;) {
        const ssize_t got = pread(fd, chunk, CHUNK_BYTES, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = weir_fail(error, WEIR_IO, "%s: %s", label, strerror(errno));
        if (got <= 0) break;
        weir_sha256_update(&sha, chunk, (size_t)got);
        offset += got;
    }
    weir_sha256_final(&sha, digest);
    weir_hex_write(digest, sizeof digest, out);
    free(chunk);
    return status;
}

/* Its place among the rows, or their count. `mutex` is held. */
static size_t place_of(const struct weir_file_hashes *hashes, const struct weir_file_hash_row *row)
{
    size_t index = 0;
    while (index < hashes->count && !same_file(&hashes->rows[index], row)) index++;
    return index;
}

static bool recall(struct weir_file_hashes *hashes, struct weir_file_hash_row *row)
{
    pthread_mutex_lock(&hashes->mutex);
    const size_t index = place_of(hashes, row);
    const bool found = index < hashes->count;
    if (found) *row = hashes->rows[index];
    pthread_mutex_unlock(&hashes->mutex);
    return found;
}

static void remember(struct weir_file_hashes *hashes, const struct weir_file_hash_row *row)
{
    pthread_mutex_lock(&hashes->mutex);
    const size_t index = place_of(hashes, row);
    const bool found = index < hashes->count;
    if (!found || strcmp(hashes->rows[index].hex, row->hex) != 0) {
        if (found)
            hashes->rows[index] = *row;
        else
            add_row(hashes, row);
        hashes->changed = true;
    }
    pthread_mutex_unlock(&hashes->mutex);
}

enum weir_status weir_file_hash(struct weir_file_hashes *hashes, int fd, const char *label, bool fresh,
                                char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    struct stat before, after;
    struct timespec now;
    if (fstat(fd, &before) != 0) return weir_fail(error, WEIR_IO, "%s: %s", label, strerror(errno));
    struct weir_file_hash_row row = row_of(&before);
    if (!fresh && recall(hashes, &row)) {
        memcpy(out, row.hex, WEIR_SHA256_HEX_BYTES);
        return WEIR_OK;
    }
    const enum weir_status status = hash_bytes(fd, label, row.hex, error);
    if (status != WEIR_OK) return status;
    const struct weir_file_hash_row then = fstat(fd, &after) == 0 ? row_of(&after) : (struct weir_file_hash_row){ 0 };
    if (!same_file(&row, &then)) return weir_fail(error, WEIR_BAD_FILE, "%s: it changed while it was read", label);
    memcpy(out, row.hex, WEIR_SHA256_HEX_BYTES);
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec - before.st_mtim.tv_sec >= SETTLED_SECONDS) remember(hashes, &row);
    return WEIR_OK;
}
