/* Bytes by the manifest: from the store where this machine sees it, else from the socket of the worker that made them.
 * Nothing appears under the wanted name before its digest was checked and it was fsynced. */
#include "client/internal.h"

#include "proto/fetch.h"
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_WAIT_MS = 10000, COPY_BYTES = 1 << 20, FRAME_PATH_BYTES = PATH_MAX + 66 };

/* ---- from a tensor socket ---------------------------------------------------------------------------------------- */

/* An object on its way from a socket to a file. */
struct arriving {
    const struct weir_client *client;
    int fd;
    const char *path;
};

static enum weir_status append(void *context, uint64_t offset, const void *part, size_t count, struct weir_error *error)
{
    const struct arriving *arriving = context;
    (void)offset; /* parts come one behind the other */
    return weir_fd_write(arriving->fd, part, count, arriving->path, error);
}

static bool goes_on(void *context)
{
    const struct weir_client *client = ((const struct arriving *)context)->client;
    return !client->on_idle || client->on_idle(client->idle_context);
}

enum weir_status weir_client_fetch_socket(struct weir_client *client, const Weir__Pb__Artefact *artefact, int fd,
                                          const char *path, struct weir_error *error)
{
    if (!artefact->endpoint || !artefact->has_ticket) {
        return weir_fail(error, WEIR_INPUT_LOST, "%s: no worker serves it", artefact->name);
    }
    struct arriving arriving = { .client = client, .fd = fd, .path = path };
    const struct weir_fetch fetch = { .zmq = client->zmq,
                                      .artefact = artefact,
                                      .insecure_dev = client->insecure,
                                      .first_ms = CHUNK_WAIT_MS,
                                      .stall_ms = CHUNK_WAIT_MS,
                                      .take = append,
                                      .goes_on = goes_on,
                                      .context = &arriving };
    const enum weir_status status = weir_fetch_run(&fetch, error);
    if (status == WEIR_NOT_FOUND) {
        return weir_fail(error, WEIR_INPUT_LOST, "%s: the worker no longer has it", artefact->name);
    }
    if (status == WEIR_TIMEOUT) {
        return weir_fail(error, WEIR_UNAVAILABLE, "%s: no answer from %s", artefact->name, artefact->endpoint);
    }
    return status == WEIR_CANCELLED ? weir_fail(error, WEIR_INTERRUPTED, "interrupted") : status;
}

/* ---- from the store ------------------------------------------------------------------------------------------------ */

static enum weir_status copy_from_store(struct weir_store *store, const Weir__Pb__Artefact *artefact, int fd,
                                        const char *path, struct weir_error *error)
{
    uint8_t *buffer = malloc(COPY_BYTES), digest[WEIR_SHA256_BYTES];
    if (!buffer) return weir_fail(error, WEIR_NO_MEMORY, "no memory to copy %s", artefact->name);
    struct weir_sha256 sha;
    weir_sha256_init(&sha);
    enum weir_status status = WEIR_OK;
    size_t got = 1;
    for (uint64_t offset = 0; status == WEIR_OK && got > 0; offset += got) {
        status = weir_store_read(store, artefact->key, offset, buffer, COPY_BYTES, &got, error);
        if (status != WEIR_OK) break;
        weir_sha256_update(&sha, buffer, got);
        status = weir_fd_write(fd, buffer, got, path, error);
    }
    weir_sha256_final(&sha, digest);
    free(buffer);
    if (status != WEIR_OK || memcmp(digest, artefact->digest.data, sizeof digest) == 0) return status;
    return weir_fail(error, WEIR_BAD_FILE, "%s: its bytes are not those of the manifest's SHA-256", artefact->name);
}

/* ---- to a file, to a directory --------------------------------------------------------------------------------------- */

static enum weir_status sync_folder_of(const char *path, struct weir_error *error)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    const int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    const int failed = fsync(fd);
    const int code = errno;
    close(fd);
    return failed ? weir_fail(error, WEIR_IO, "%s: %s", path, strerror(code)) : WEIR_OK;
}

static enum weir_status write_object(struct weir_client *client, struct weir_store *store,
                                     const Weir__Pb__Artefact *artefact, const char *path, struct weir_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    enum weir_status status = store ? copy_from_store(store, artefact, fd, path, error) : WEIR_NOT_FOUND;
    if (status == WEIR_NOT_FOUND) status = weir_client_fetch_socket(client, artefact, fd, path, error);
    if (status == WEIR_OK && fsync(fd) != 0) status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    if (close(fd) != 0 && status == WEIR_OK) status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    if (status != WEIR_OK) unlink(path);
    return status;
}

static enum weir_status fetch_file(struct weir_client *client, struct weir_store *store,
                                   const Weir__Pb__Artefact *artefact, const char *path, struct weir_error *error)
{
    char temporary[PATH_MAX], copy[PATH_MAX], suffix[17];
    uint8_t random[8];
    weir_random_bytes(random, sizeof random);
    weir_hex_write(random, sizeof random, suffix);
    snprintf(copy, sizeof copy, "%s", path);
    if (snprintf(temporary, sizeof temporary, "%s/.weir-%s", dirname(copy), suffix) >= PATH_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: the path is too long", path);
    }
    enum weir_status status = write_object(client, store, artefact, temporary, error);
    if (status != WEIR_OK) return status;
    if (rename(temporary, path) != 0) {
        status = weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
        unlink(temporary);
        return status;
    }
    return sync_folder_of(path, error);
}

static void remove_frames(const char *folder, const Weir__Pb__JobView *view)
{
    char path[FRAME_PATH_BYTES];
    for (size_t i = 0; i < view->n_manifest; i++) {
        snprintf(path, sizeof path, "%s/%.64s", folder, view->manifest[i]->name);
        unlink(path);
    }
    rmdir(folder);
}

/* A name from outside becomes a file name only when it is a plain one. */
static bool plain_name(const char *name)
{
    return name[0] != '.' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == strlen(name);
}

static enum weir_status fetch_folder(struct weir_client *client, struct weir_store *store,
                                     const struct weir_report *report, uint32_t item, const char *path,
                                     struct weir_error *error)
{
    const Weir__Pb__JobView *view = weir_client_report_view(report);
    char temporary[PATH_MAX], file[FRAME_PATH_BYTES];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    if (snprintf(temporary, sizeof temporary, "%.*s.weir-XXXXXX", (int)length, path) >= PATH_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: the path is too long", path);
    }
    if (!mkdtemp(temporary)) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    chmod(temporary, 0755);
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < report->object_count && status == WEIR_OK; i++) {
        if (report->objects[i].item != item) continue;
        if (!plain_name(view->manifest[i]->name)) {
            status = weir_fail(error, WEIR_PROTOCOL, "%s: no name for a file", view->manifest[i]->name);
            break;
        }
        snprintf(file, sizeof file, "%s/%.64s", temporary, view->manifest[i]->name);
        status = write_object(client, store, view->manifest[i], file, error);
    }
    char wanted[PATH_MAX];
    snprintf(wanted, sizeof wanted, "%.*s", (int)length, path);
    if (status == WEIR_OK && rename(temporary, wanted) != 0) {
        status = weir_fail(error, WEIR_IO, "%s: %s", wanted, strerror(errno));
    }
    if (status == WEIR_OK) return sync_folder_of(wanted, error);
    remove_frames(temporary, view);
    return status;
}

enum weir_status weir_client_fetch(struct weir_client *client, const struct weir_report *report, uint32_t item,
                                   const char *path, struct weir_error *error)
{
    if (!report->succeeded && report->object_count == 0) {
        return weir_fail(error, WEIR_NOT_FOUND, "job %s is %s: there is nothing to fetch", report->job, report->state);
    }
    const Weir__Pb__JobView *view = weir_client_report_view(report);
    size_t first = report->object_count;
    for (size_t i = report->object_count; i-- > 0;) {
        if (report->objects[i].item == item) first = i;
    }
    if (first == report->object_count) {
        return weir_fail(error, WEIR_NOT_FOUND, "job %s has no item %u", report->job, item);
    }
    struct weir_store *store = weir_client_local_store(client, R_OK | X_OK);
    const enum weir_status status = strcmp(report->format, "png") == 0 && !report->image
                                        ? fetch_folder(client, store, report, item, path, error)
                                        : fetch_file(client, store, view->manifest[first], path, error);
    weir_store_close(&store);
    return status;
}
