/* Power loss and failing disks under the SQLite ledger. Its files lie on a pretend disk in memory (a VFS of SQLite)
 * that knows what was synced. At a random operation the disk fails:
 *
 *   cut    nothing works any more; what was not synced is lost, kept, or torn by sectors of 512 bytes, as chance wills
 *   fault  that one write, sync or truncate fails, and all others work
 *
 * Then the ledger is opened again. Every batch that was acknowledged must be there, whole; the one that was under
 * way is there whole or not at all; after the first failure the old connection must acknowledge nothing more.
 *
 *   power --trials 5000           --lie makes every sync a lie, which must be found out: the test can fail
 */
#include "proto/base/options.h"
#include "tests/sim/trial.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FILES 6
#define NAME_BYTES 128
#define SECTOR 512
#define BATCHES 24

struct settings {
    int64_t trials, from;
    bool lie;
};

static const struct weir_option rows[] = {
    { .name = "trials",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, trials),
      .min = 1,
      .max = 1e9,
      .value = "N",
      .help = "how many power losses and faults (default: 2000)" },
    { .name = "from",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, from),
      .min = 0,
      .max = 1e15,
      .value = "S",
      .help = "the first trial (default: 1)" },
    { .name = "lie",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, lie),
      .help = "the disk says `synced` and is not: losses must be found" },
};

/* ---- the pretend disk ---- */

struct image {
    uint8_t *bytes;
    size_t size, capacity;
};

struct disk_file {
    bool used;
    char name[NAME_BYTES];
    struct image now, synced;
};

static struct {
    struct disk_file files[FILES];
    uint64_t operations, fails_at; /* 0: never */
    bool cut;                      /* the failure is the end of all */
    bool dead, lie, failed;
} disk;

struct open_file {
    sqlite3_file base;
    struct disk_file *file;
};

static void image_size(struct image *image, size_t size)
{
    if (size > image->capacity) {
        image->capacity = 2 * size;
        image->bytes = realloc(image->bytes, image->capacity);
        if (image->bytes == NULL) abort();
    }
    if (size > image->size) memset(image->bytes + image->size, 0, size - image->size);
    image->size = size;
}

static void image_copy(struct image *to, const struct image *from)
{
    image_size(to, from->size);
    if (from->size > 0) memcpy(to->bytes, from->bytes, from->size);
}

/* Counts an operation that changes the disk; true when it fails. */
static bool fails(void)
{
    if (disk.dead) return true;
    if (++disk.operations != disk.fails_at) return false;
    disk.failed = true;
    disk.dead = disk.cut;
    return true;
}

static struct disk_file *file_of(sqlite3_file *file)
{
    return ((struct open_file *)(void *)file)->file;
}

static int file_close(sqlite3_file *file)
{
    (void)file;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *out, int count, sqlite3_int64 offset)
{
    const struct image *image = &file_of(file)->now;
    if (disk.dead) return SQLITE_IOERR_READ;
    const size_t have = (size_t)offset < image->size ? image->size - (size_t)offset : 0;
    const size_t given = have < (size_t)count ? have : (size_t)count;
    if (given > 0) memcpy(out, image->bytes + offset, given);
    memset((char *)out + given, 0, (size_t)count - given);
    return given == (size_t)count ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset)
{
    struct image *image = &file_of(file)->now;
    if (fails()) return SQLITE_IOERR_WRITE;
    if ((size_t)offset + (size_t)count > image->size) image_size(image, (size_t)offset + (size_t)count);
    memcpy(image->bytes + offset, bytes, (size_t)count);
    return SQLITE_OK;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    if (fails()) return SQLITE_IOERR_TRUNCATE;
    image_size(&file_of(file)->now, (size_t)size);
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    if (fails()) return SQLITE_IOERR_FSYNC;
    if (!disk.lie) image_copy(&file_of(file)->synced, &file_of(file)->now);
    return SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    if (disk.dead) return SQLITE_IOERR_FSTAT;
    *size = (sqlite3_int64)file_of(file)->now.size;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *file, int *out)
{
    (void)file;
    *out = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int what, void *argument)
{
    (void)file;
    (void)what;
    (void)argument;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *file)
{
    (void)file;
    return SECTOR;
}

static int file_traits(sqlite3_file *file)
{
    (void)file;
    return 0; /* nothing is promised: no safe appends, no atomic writes */
}

/* Version 1 has no shared memory: with an exclusive lock WAL does without. */
static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

static struct disk_file *find_file(const char *name)
{
    for (size_t k = 0; k < FILES; k++) {
        if (disk.files[k].used && strcmp(disk.files[k].name, name) == 0) return &disk.files[k];
    }
    return NULL;
}

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *out, int flags, int *out_flags)
{
    struct open_file *opened = (struct open_file *)(void *)out;
    (void)vfs;
    opened->base.pMethods = NULL;
    if (disk.dead || name == NULL) return SQLITE_CANTOPEN;
    struct disk_file *file = find_file(name);
    for (size_t k = 0; file == NULL && k < FILES; k++) {
        if (disk.files[k].used) continue;
        file = &disk.files[k];
        file->used = true;
        snprintf(file->name, sizeof file->name, "%s", name);
        file->now.size = file->synced.size = 0;
    }
    if (file == NULL) return SQLITE_CANTOPEN;
    opened->file = file;
    opened->base.pMethods = &methods;
    if (out_flags != NULL) *out_flags = flags;
    return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct disk_file *file = find_file(name);
    (void)vfs;
    (void)sync;
    if (fails()) return SQLITE_IOERR_DELETE;
    if (file == NULL) return SQLITE_IOERR_DELETE_NOENT;
    file->used = false;
    return SQLITE_OK;
}

static int disk_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    const struct disk_file *file = find_file(name);
    (void)vfs;
    (void)flags;
    *out = file != NULL && file->now.size > 0;
    return SQLITE_OK;
}

static int disk_path(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    (void)vfs;
    snprintf(out, (size_t)bytes, "%s", name);
    return SQLITE_OK;
}

static void use_disk(void)
{
    static sqlite3_vfs vfs;
    const sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    vfs = (sqlite3_vfs){ .iVersion = 1,
                         .szOsFile = sizeof(struct open_file),
                         .mxPathname = NAME_BYTES - 1,
                         .zName = "pretend",
                         .xOpen = disk_open,
                         .xDelete = disk_delete,
                         .xAccess = disk_access,
                         .xFullPathname = disk_path,
                         .xRandomness = real->xRandomness,
                         .xSleep = real->xSleep,
                         .xCurrentTime = real->xCurrentTime };
    sqlite3_vfs_register(&vfs, 1);
}

/* The power comes back: each file is what was synced, what was written, or a mixture. */
static void restore(struct trial *t)
{
    for (size_t k = 0; k < FILES; k++) {
        struct disk_file *file = &disk.files[k];
        if (!file->used) continue;
        const uint32_t how = trial_below(t, 3);
        if (how == 0) {
            image_copy(&file->now, &file->synced);
        } else if (how == 1) {
            if (trial_below(t, 2))
                image_size(&file->now, file->synced.size > file->now.size ? file->synced.size : file->now.size);
            for (size_t at = 0; at < file->now.size; at += SECTOR) {
                if (trial_below(t, 2)) continue;
                const size_t end = at + SECTOR < file->now.size ? at + SECTOR : file->now.size;
                for (size_t b = at; b < end; b++)
                    file->now.bytes[b] = b < file->synced.size ? file->synced.bytes[b] : 0;
            }
        }
        image_copy(&file->synced, &file->now);
    }
    disk.dead = false;
    disk.fails_at = 0;
}

/* ---- one trial ---- */

struct found {
    uint64_t cuts, faults, opened_early, kept, dropped, lost;
};

static bool read_all(struct weir_ledger *ledger, struct told *told)
{
    const struct weir_ledger_page page = { .filter = WEIR_LEDGER_ALL, .limit = 1000 };
    told->count = 0;
    return weir_ledger_page_open(ledger, &page, told_job, told, NULL) == WEIR_OK;
}

static bool same(const struct told *a, const struct told *b)
{
    return a->count == b->count && (a->count == 0 || memcmp(a->text, b->text, a->count) == 0);
}

/* NULL while all is well; the disk may have failed. */
static struct weir_ledger *open_both(const char *path)
{
    struct weir_ledger *ledger = NULL;
    uint64_t epoch = 0;
    if (weir_ledger_sqlite_open(path, &ledger, NULL) != WEIR_OK) return NULL;
    if (weir_ledger_takeover(ledger, &epoch, NULL) != WEIR_OK) weir_ledger_close(&ledger);
    return ledger;
}

/* Runs batches until the disk fails or they are over. *maybe: with the batch that was under way. */
static const char *run_until_failure(struct trial *t, struct weir_ledger *ledger, struct weir_ledger *model,
                                     struct told *acked, struct told *maybe)
{
    static struct weir_ledger_call calls[2][TRIAL_BATCH_MAX];
    struct weir_ledger_call *lists[2][TRIAL_BATCH_MAX];
    read_all(model, acked);
    read_all(model, maybe);
    for (int batch = 0; batch < BATCHES; batch++) {
        const uint32_t count = 1 + trial_below(t, TRIAL_BATCH_MAX);
        for (uint32_t k = 0; k < count; k++) {
            trial_call(t, k, &calls[0][k]);
            calls[1][k] = calls[0][k];
            lists[0][k] = &calls[0][k];
            lists[1][k] = &calls[1][k];
        }
        const enum weir_status status = weir_ledger_apply(ledger, lists[1], count, NULL);
        if (weir_ledger_apply(model, lists[0], count, NULL) != WEIR_OK) abort();
        read_all(model, maybe);
        if (status != WEIR_OK) {
            if (!disk.failed) return "a batch failed on a sound disk";
            if (weir_ledger_apply(ledger, lists[1], count, NULL) == WEIR_OK)
                return "a ledger that had failed took more";
            return NULL;
        }
        read_all(model, acked);
        for (uint32_t k = 0; k < count; k++) trial_answered(t, &calls[0][k]);
    }
    return NULL;
}

static const char *run_trial(uint64_t number, bool lie, const char *path, struct found *found)
{
    static struct told acked, maybe, after;
    struct trial *t = calloc(1, sizeof *t);
    struct weir_ledger *ledger = NULL, *model = NULL;
    const char *wrong = NULL;

    if (t == NULL) abort();
    trial_begin(t, number);
    for (size_t k = 0; k < FILES; k++) disk.files[k].used = false;
    disk.operations = 0;
    disk.dead = disk.failed = false;
    disk.lie = lie;
    disk.cut = trial_below(t, 3) > 0;
    disk.fails_at = 1 + trial_below(t, 260);
    if (weir_ledger_memory_open(&model, NULL) != WEIR_OK) abort();
    acked.count = maybe.count = 0;
    ledger = open_both(path);
    if (ledger != NULL)
        wrong = run_until_failure(t, ledger, model, &acked, &maybe);
    else
        found->opened_early++;
    if (disk.cut) disk.dead = true; /* what was not reached by then is cut now */
    weir_ledger_close(&ledger);
    found->cuts += disk.cut;
    found->faults += !disk.cut;
    restore(t);
    if (wrong == NULL) {
        ledger = open_both(path);
        if (ledger == NULL) {
            wrong = "the ledger does not open again";
        } else {
            const bool readable = read_all(ledger, &after);
            const bool old = readable && same(&after, &acked), new = readable &&same(&after, &maybe);
            found->dropped += old && !new;
            found->kept += new && !old;
            if (!old && !new) wrong = "what was acknowledged is not what is there";
        }
    }
    weir_ledger_close(&ledger);
    weir_ledger_close(&model);
    free(t);
    return wrong;
}

int main(int argc, char **argv)
{
    struct settings settings = { .trials = 2000, .from = 1 };
    struct weir_error error = { 0 };
    struct found found = { 0 };
    uint64_t given = 0;
    int first_word = argc, code = 0;
    char dir[] = "/tmp/weir-power-XXXXXX", path[64], lock[80];
    if (weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &settings, &given, &first_word, &error) != WEIR_OK ||
        mkdtemp(dir) == NULL) {
        fprintf(stderr, "power: %s\n", error.words);
        return 64;
    }
    snprintf(path, sizeof path, "%s/l", dir);
    snprintf(lock, sizeof lock, "%s.lock", path);
    use_disk();
    const clock_t start = clock();
    int64_t k = 0;
    for (; k < settings.trials; k++) {
        const uint64_t number = (uint64_t)(settings.from + k);
        const char *wrong = run_trial(number, settings.lie, path, &found);
        if (wrong == NULL) continue;
        found.lost++;
        if (settings.lie) continue;
        printf("FAILED trial=%" PRIu64 ": %s\nagain with: --from %" PRIu64 " --trials 1\n", number, wrong, number);
        code = 1;
        break;
    }
    printf("trials=%" PRId64 " cuts=%" PRIu64 " faults=%" PRIu64 " while_opening=%" PRIu64 " under_way_kept=%" PRIu64
           " under_way_dropped=%" PRIu64 " wrong=%" PRIu64 " cpu_s=%.1f\n",
           k, found.cuts, found.faults, found.opened_early, found.kept, found.dropped, found.lost,
           (double)(clock() - start) / CLOCKS_PER_SEC);
    if (settings.lie && found.lost == 0) {
        printf("FAILED: no loss was found although every sync was a lie\n");
        code = 1;
    }
    unlink(lock);
    rmdir(dir);
    return code;
}
