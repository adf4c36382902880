#include "worker/link/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void note(const struct weir_link *link, const char *road, const char *key, const struct weir_error *error)
{
    weir_log(link->log, WEIR_LOG_DEBUG, "input not there road=%s key=%s words=\"%s\"", road, key, error->words);
}

static bool is_whole(const Weir__Pb__Artefact *artefact, const void *bytes, size_t count)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    if (count != artefact->bytes) return false;
    weir_sha256_of(bytes, count, digest);
    return memcmp(digest, artefact->digest.data, sizeof digest) == 0;
}

static enum weir_status from_peer(struct weir_link *link, const Weir__Pb__Artefact *artefact, void **out,
                                  struct weir_error *error)
{
    if (!artefact->endpoint || !artefact->has_ticket ||
        (link->endpoint && !strcmp(artefact->endpoint, link->endpoint))) {
        return weir_fail(error, WEIR_UNAVAILABLE, "no peer offers it");
    }
    const size_t count = (size_t)artefact->bytes;
    void *bytes = malloc(count ? count : 1);
    if (!bytes) return weir_fail(error, WEIR_NO_MEMORY, "no memory for an input of %zu bytes", count);
    const struct weir_fetch fetch = { .endpoint = artefact->endpoint,
                                      .digest = artefact->digest.data,
                                      .ticket = artefact->ticket.data,
                                      .bytes = artefact->bytes };
    enum weir_status status = weir_link_fetch(link, &fetch, bytes, error);
    if (status == WEIR_OK && !is_whole(artefact, bytes, count)) {
        status = weir_fail(error, WEIR_BAD_FILE, "the bytes from %s have another digest", artefact->endpoint);
    }
    if (status == WEIR_OK)
        *out = bytes;
    else
        free(bytes);
    return status;
}

static enum weir_status from_store(struct weir_link *link, const char *key, const Weir__Pb__Artefact *artefact,
                                   void **out, struct weir_error *error)
{
    size_t count = 0;
    const enum weir_status status = weir_store_get(link->store, key, (size_t)artefact->bytes, out, &count, error);
    if (status != WEIR_OK) return status;
    if (is_whole(artefact, *out, count)) return WEIR_OK;
    free(*out);
    *out = NULL;
    (void)weir_store_remove(link->store, key, NULL); /* so that it can be put there when it is made again */
    return weir_fail(error, WEIR_BAD_FILE, "%s in the store has other bytes than its name says", key);
}

enum weir_status weir_link_get(struct weir_link *link, const char *tenant, const Weir__Pb__Input *input, void **out,
                               size_t *out_bytes, struct weir_error *error)
{
    const Weir__Pb__Artefact *artefact = input->artefact;
    char key[WEIR_KEY_BYTES];
    struct weir_error why = { .words = "" };
    struct weir_task_id from;
    *out = NULL;
    *out_bytes = 0;
    if (!weir_task_id_read(input->from, &from)) return weir_fail(error, WEIR_PROTOCOL, "an input is of no known stage");
    if (artefact->bytes > WEIR_LINK_INPUT_BYTES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "the input \"%s\" has %llu bytes, at most %llu are read",
                         artefact->name, (unsigned long long)artefact->bytes,
                         (unsigned long long)WEIR_LINK_INPUT_BYTES_MAX);
    }
    if (weir_shelf_get(link->shelf, artefact->digest.data, out, out_bytes)) {
        if (*out_bytes == artefact->bytes) return WEIR_OK;
        free(*out);
        *out = NULL;
    }
    weir_key_artefact(tenant, &from, artefact->digest.data, key);
    enum weir_status status = from_peer(link, artefact, out, &why);
    if (status == WEIR_NO_MEMORY || status == WEIR_CANCELLED) return weir_fail(error, status, "%s", why.words);
    if (status != WEIR_OK) {
        note(link, "peer", key, &why);
        status = from_store(link, key, artefact, out, &why);
    }
    if (status == WEIR_NO_MEMORY || status == WEIR_STORE) return weir_fail(error, status, "%s", why.words);
    if (status != WEIR_OK) {
        note(link, "store", key, &why);
        return weir_fail(error, WEIR_INPUT_LOST, "the input \"%s\" of %s-%u is gone: %s", artefact->name,
                         weir_stage_name(from.stage), from.index, why.words);
    }
    *out_bytes = (size_t)artefact->bytes;
    weir_shelf_keep(link->shelf, artefact->digest.data, *out, *out_bytes);
    return WEIR_OK;
}

enum weir_status weir_link_get_file(struct weir_link *link, const char *tenant, const Weir__Pb__FileRef *file,
                                    size_t bytes_max, void **out, size_t *out_bytes, struct weir_error *error)
{
    const char *name = file->name && file->name[0] ? file->name : "a file of the request";
    char key[WEIR_KEY_BYTES];
    uint8_t digest[WEIR_SHA256_BYTES];
    *out = NULL;
    *out_bytes = 0;
    if (file->bytes > bytes_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: %llu bytes, at most %zu are read", name,
                         (unsigned long long)file->bytes, bytes_max);
    }
    if (weir_shelf_get(link->shelf, file->digest.data, out, out_bytes)) return WEIR_OK;
    weir_key_file(tenant, file->digest.data, key);
    const enum weir_status status = weir_store_get(link->store, key, bytes_max, out, out_bytes, error);
    if (status == WEIR_NOT_FOUND) return weir_fail(error, status, "%s: it is not in the store: %s", name, key);
    if (status != WEIR_OK) return status;
    weir_sha256_of(*out, *out_bytes, digest);
    if (memcmp(digest, file->digest.data, sizeof digest) != 0) {
        free(*out);
        *out = NULL;
        return weir_fail(error, WEIR_BAD_FILE, "%s: the store has other bytes under its digest: %s", name, key);
    }
    weir_shelf_keep(link->shelf, file->digest.data, *out, *out_bytes);
    return WEIR_OK;
}

static void describe(struct weir_output *out, const char *tenant, const struct weir_task_id *task, const char *name,
                     const char *media_type, uint64_t bytes)
{
    assert(strlen(name) < sizeof out->name);
    strcpy(out->name, name);
    out->media_type = media_type;
    out->bytes = bytes;
    weir_key_artefact(tenant, task, out->digest, out->key);
}

typedef enum weir_status put_how(struct weir_store *store, const char *key, const void *bytes, size_t count,
                                 struct weir_error *error);

static enum weir_status put(struct weir_link *link, put_how *how, const char *tenant, const struct weir_task_id *task,
                            const char *name, const char *media_type, const void *bytes, size_t count,
                            struct weir_output *out, struct weir_error *error)
{
    *out = (struct weir_output){ 0 };
    weir_sha256_of(bytes, count, out->digest);
    describe(out, tenant, task, name, media_type, count);
    const enum weir_status status = how(link->store, out->key, bytes, count, error);
    if (status == WEIR_OK) {
        out->is_offered = weir_shelf_offer(link->shelf, out->digest, out->key, bytes, count, out->ticket);
    }
    return status;
}

enum weir_status weir_link_put(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                               const char *name, const char *media_type, const void *bytes, size_t count,
                               struct weir_output *out, struct weir_error *error)
{
    return put(link, weir_store_put, tenant, task, name, media_type, bytes, count, out, error);
}

enum weir_status weir_link_put_remakeable(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                                          const char *name, const char *media_type, const void *bytes, size_t count,
                                          struct weir_output *out, struct weir_error *error)
{
    return put(link, weir_store_put_remakeable, tenant, task, name, media_type, bytes, count, out, error);
}

enum weir_status weir_link_put_file(struct weir_link *link, const char *tenant, const struct weir_task_id *task,
                                    const char *name, const char *media_type, const char *path, struct weir_output *out,
                                    struct weir_error *error)
{
    char *bytes = NULL;
    size_t count = 0;
    enum weir_status status = weir_file_read(path, WEIR_LINK_INPUT_BYTES_MAX, &bytes, &count, error);
    if (status == WEIR_OK) status = weir_link_put(link, tenant, task, name, media_type, bytes, count, out, error);
    free(bytes);
    return status;
}
