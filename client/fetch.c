/* Bytes by the manifest: from the store where this machine sees it, else from the socket of the worker that made them.
 * Nothing appears under the wanted name before its digest was checked and it was fsynced. */
#include "client/internal.h"

#include "proto/base/clock.h"
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
#include <zmq.h>

enum { WINDOW = 4, CHUNK_WAIT_MS = 10000, COPY_BYTES = 1 << 20, FRAME_PATH_BYTES = PATH_MAX + 66 };

/* ---- from a tensor socket ---------------------------------------------------------------------------------------- */

/* One object being read in chunks. */
struct reading {
    void *socket;
    const Weir__Pb__Artefact *artefact;
    struct weir_sha256 sha;
    uint64_t asked, written; /* bytes; chunks come back in the order of their requests on one connection */
    uint64_t sequence;
    int fd;
    const char *path;
};

static enum weir_status ask_chunks(struct reading *r, struct weir_error *error)
{
    while (r->asked < r->artefact->bytes && r->asked - r->written < (uint64_t)WINDOW * WEIR_WIRE_CHUNK_BYTES_MAX) {
        const uint64_t left = r->artefact->bytes - r->asked;
        Weir__Pb__Fetch fetch = WEIR__PB__FETCH__INIT;
        fetch.has_number = fetch.has_digest = fetch.has_ticket = fetch.has_offset = fetch.has_bytes = 1;
        fetch.number = r->sequence + 1;
        fetch.digest = r->artefact->digest;
        fetch.ticket = r->artefact->ticket;
        fetch.offset = r->asked;
        fetch.bytes = left < WEIR_WIRE_CHUNK_BYTES_MAX ? (uint32_t)left : WEIR_WIRE_CHUNK_BYTES_MAX;
        const enum weir_status status =
            weir_wire_send(r->socket, NULL, WEIR_MESSAGE_FETCH, ++r->sequence, &fetch.base, error);
        if (status != WEIR_OK) return status;
        r->asked += fetch.bytes;
    }
    return WEIR_OK;
}

static enum weir_status take_chunk(struct reading *r, const struct weir_message *message, struct weir_error *error)
{
    if (message->type == WEIR_MESSAGE_REFUSED) {
        return weir_fail(error, WEIR_INPUT_LOST, "%s: the worker no longer has it", r->artefact->name);
    }
    const Weir__Pb__Chunk *chunk = message->body.chunk;
    if (chunk->offset != r->written || chunk->total != r->artefact->bytes || chunk->data.len == 0 ||
        chunk->data.len > r->asked - r->written) {
        return weir_fail(error, WEIR_PROTOCOL, "%s: the worker sent another part than was asked for",
                         r->artefact->name);
    }
    weir_sha256_update(&r->sha, chunk->data.data, chunk->data.len);
    r->written += chunk->data.len;
    return weir_fd_write(r->fd, chunk->data.data, chunk->data.len, r->path, error);
}

static enum weir_status read_chunks(struct reading *r, struct weir_error *error)
{
    zmq_pollitem_t item = { .socket = r->socket, .events = ZMQ_POLLOUT };
    if (zmq_poll(&item, 1, CHUNK_WAIT_MS) <= 0) {
        return weir_fail(error, WEIR_UNAVAILABLE, "%s: no answer from %s", r->artefact->name, r->artefact->endpoint);
    }
    while (r->written < r->artefact->bytes) {
        enum weir_status status = ask_chunks(r, error);
        if (status != WEIR_OK) return status;
        item.events = ZMQ_POLLIN;
        if (zmq_poll(&item, 1, CHUNK_WAIT_MS) <= 0) {
            return weir_fail(error, WEIR_UNAVAILABLE, "%s: no answer from %s", r->artefact->name,
                             r->artefact->endpoint);
        }
        struct weir_message message;
        uint32_t seen;
        status = weir_wire_receive(r->socket, false, WEIR_DIRECTION_T, &message, &seen, error);
        if (status == WEIR_TIMEOUT) continue;
        if (status != WEIR_OK) return status;
        status = take_chunk(r, &message, error);
        weir_message_release(&message);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

static enum weir_status check_digest(const Weir__Pb__Artefact *artefact, const uint8_t digest[WEIR_SHA256_BYTES],
                                     struct weir_error *error)
{
    if (memcmp(digest, artefact->digest.data, WEIR_SHA256_BYTES) == 0) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_FILE, "%s: its bytes are not those of the manifest's SHA-256", artefact->name);
}

enum weir_status weir_client_fetch_socket(struct weir_client *client, const Weir__Pb__Artefact *artefact, int fd,
                                          const char *path, struct weir_error *error)
{
    if (!artefact->endpoint || !artefact->has_ticket) {
        return weir_fail(error, WEIR_INPUT_LOST, "%s: no worker serves it", artefact->name);
    }
    struct reading r = { .artefact = artefact, .fd = fd, .path = path };
    enum weir_status status =
        weir_wire_connect(client->zmq, artefact->endpoint, WEIR_SOCKET_TENSOR, client->insecure, &r.socket, error);
    if (status != WEIR_OK) return status;
    weir_sha256_init(&r.sha);
    status = read_chunks(&r, error);
    uint8_t digest[WEIR_SHA256_BYTES];
    weir_sha256_final(&r.sha, digest);
    if (status == WEIR_OK) status = check_digest(artefact, digest, error);
    zmq_close(r.socket);
    return status;
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
    return status == WEIR_OK ? check_digest(artefact, digest, error) : status;
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
