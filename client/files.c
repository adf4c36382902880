/* Files that a request names: hashed, and put into the store before the request is sent (PROTOCOL.md section 8). */
#include "client/internal.h"

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

enum { FILES_MAX = 4096, READ_BYTES = 1 << 20, NAME_BYTES = 256 };

/* One file, for as long as it stays what it was. */
struct weir_client_files {
    char *name; /* a path, or a digest */
    uint64_t bytes;
    struct timespec changed;
    uint8_t digest[WEIR_SHA256_BYTES];
    char words[NAME_BYTES]; /* the last part of the path */
    Weir__Pb__FileRef message;
    UT_hash_handle hh;
};

void weir_client_files_destroy(struct weir_client_files **files)
{
    struct weir_client_files *file, *next;
    HASH_ITER(hh, *files, file, next)
    {
        HASH_DEL(*files, file);
        free(file->name);
        free(file);
    }
}

struct weir_store *weir_client_local_store(struct weir_client *client, int mode)
{
    if (!client->store[0]) {
        struct weir_cluster_report cluster;
        if (weir_client_status(client, &cluster, NULL) != WEIR_OK) return NULL;
    }
    const char *path = strncmp(client->store, "file://", 7) == 0 ? client->store + 7 : client->store;
    struct weir_store *store = NULL;
    if (path[0] != '/' || access(path, mode) != 0) return NULL;
    return weir_store_open(client->store, &store, NULL) == WEIR_OK ? store : NULL;
}

static enum weir_status open_for_writing(struct weir_client *client, struct weir_store **out, struct weir_error *error)
{
    *out = weir_client_local_store(client, R_OK | W_OK | X_OK);
    if (*out) return WEIR_OK;
    return weir_fail(error, WEIR_UNAVAILABLE,
                     "files can be handed over only where the store can be written, and %s "
                     "cannot be from here",
                     client->store[0] ? client->store : "this cluster's");
}

static enum weir_status hash_file(int fd, const char *path, uint64_t bytes_max, uint64_t *bytes,
                                  uint8_t digest[WEIR_SHA256_BYTES], struct weir_error *error)
{
    char *buffer = malloc(READ_BYTES);
    if (!buffer) return weir_fail(error, WEIR_NO_MEMORY, "no memory to read %s", path);
    struct weir_sha256 sha;
    enum weir_status status = WEIR_OK;
    ssize_t got = 1;
    weir_sha256_init(&sha);
    for (*bytes = 0; got > 0 && *bytes <= bytes_max; *bytes += (uint64_t)got) {
        got = read(fd, buffer, READ_BYTES);
        if (got < 0) status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
        if (got <= 0) break;
        weir_sha256_update(&sha, buffer, (size_t)got);
    }
    weir_sha256_final(&sha, digest);
    free(buffer);
    return status;
}

static enum weir_status look(const char *what, uint64_t bytes_max, const char *path, int *fd, struct stat *facts,
                             struct weir_error *error)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, facts) != 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s %s: %s", what, path, strerror(errno));
    }
    if (!S_ISREG(facts->st_mode)) return weir_fail(error, WEIR_BAD_FILE, "%s %s: not a regular file", what, path);
    if (facts->st_size == 0) return weir_fail(error, WEIR_BAD_FILE, "%s %s: the file is empty", what, path);
    if ((uint64_t)facts->st_size <= bytes_max) return WEIR_OK;
    return weir_fail(error, WEIR_TOO_LARGE, "%s %s: %llu bytes, at most %llu are allowed", what, path,
                     (unsigned long long)facts->st_size, (unsigned long long)bytes_max);
}

static bool still_the_same(const struct weir_client_files *file, const struct stat *facts)
{
    return file->bytes == (uint64_t)facts->st_size && file->changed.tv_sec == facts->st_mtim.tv_sec &&
           file->changed.tv_nsec == facts->st_mtim.tv_nsec;
}

/* Hash, put, and look whether it was the same file all the while: an object never changes again. */
static enum weir_status put(struct weir_client *client, struct weir_client_files *file, int fd, uint64_t bytes_max,
                            struct weir_error *error)
{
    struct weir_store *store = NULL;
    char key[WEIR_KEY_BYTES];
    uint64_t bytes = 0, stored;
    struct stat facts;
    enum weir_status status = open_for_writing(client, &store, error);
    if (status != WEIR_OK) return status;
    WEIR_TRY(hash_file(fd, file->name, bytes_max, &bytes, file->digest, error));
    weir_key_file(WEIR_CLIENT_TENANT, file->digest, key);
    if (weir_store_stat(store, key, &stored, NULL) == WEIR_OK && stored == bytes) goto cleanup;
    WEIR_TRY(weir_store_put_file(store, key, file->name, error));
    if (stat(file->name, &facts) != 0 || !still_the_same(file, &facts) || bytes != file->bytes) {
        weir_store_remove(store, key, NULL);
        status = weir_fail(error, WEIR_BAD_FILE, "%s: it changed while it was read", file->name);
    }

cleanup:
    weir_store_close(&store);
    return status;
}

static enum weir_status find_stored(struct weir_client *client, const char *what, struct weir_client_files *file,
                                    struct weir_error *error)
{
    struct weir_store *store = NULL;
    char key[WEIR_KEY_BYTES];
    if (!weir_hex_read(file->name, file->digest, sizeof file->digest)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: a digest has 64 hex digits, not \"%.80s\"", what, file->name);
    }
    enum weir_status status = open_for_writing(client, &store, error);
    if (status != WEIR_OK) return status;
    weir_key_file(WEIR_CLIENT_TENANT, file->digest, key);
    status = weir_store_stat(store, key, &file->bytes, NULL);
    if (status != WEIR_OK) status = weir_fail(error, status, "%s: the store has none of digest %s", what, file->name);
    weir_store_close(&store);
    return status;
}

static enum weir_status add(struct weir_client *client, const char *name, struct weir_client_files **out,
                            struct weir_error *error)
{
    struct weir_client_files *file = *out;
    if (file) return WEIR_OK;
    if (HASH_COUNT(client->files) >= FILES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: more than %d files in one request", name, FILES_MAX);
    }
    file = calloc(1, sizeof *file);
    if (file) file->name = strdup(name);
    if (!file || !file->name) {
        free(file);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for %s", name);
    }
    HASH_ADD_KEYPTR(hh, client->files, file->name, strlen(file->name), file);
    *out = file;
    return WEIR_OK;
}

static void describe(struct weir_client_files *file)
{
    const char *slash = strrchr(file->name, '/');
    snprintf(file->words, sizeof file->words, "%s", slash ? slash + 1 : file->name);
    if (!weir_utf8_valid(file->words, strlen(file->words))) file->words[0] = '\0';
    weir__pb__file_ref__init(&file->message);
    file->message.has_digest = file->message.has_bytes = 1;
    file->message.digest = (ProtobufCBinaryData){ sizeof file->digest, file->digest };
    file->message.bytes = file->bytes;
    file->message.name = file->words;
}

enum weir_status weir_client_file(struct weir_client *client, const char *what, uint64_t bytes_max, const char *path,
                                  const char *digest, Weir__Pb__FileRef **out, struct weir_error *error)
{
    const char *name = path ? path : digest ? digest : "";
    enum weir_status status = WEIR_OK;
    struct weir_client_files *file;
    struct stat facts;
    int fd = -1;
    HASH_FIND_STR(client->files, name, file);
    if (path) {
        WEIR_TRY(look(what, bytes_max, path, &fd, &facts, error));
        if (!file || !file->message.has_digest || !still_the_same(file, &facts)) {
            WEIR_TRY(add(client, name, &file, error));
            file->message.has_digest = 0;
            file->bytes = (uint64_t)facts.st_size;
            file->changed = facts.st_mtim;
            WEIR_TRY(put(client, file, fd, bytes_max, error));
            describe(file);
        }
    } else if (!file) {
        WEIR_TRY(add(client, name, &file, error));
        status = find_stored(client, what, file, error);
        if (status == WEIR_OK) {
            describe(file);
        } else {
            HASH_DEL(client->files, file);
            free(file->name);
            free(file);
            goto cleanup;
        }
    }
    *out = &file->message;

cleanup:
    if (fd >= 0) close(fd);
    return status;
}
