#include "worker/text_encoder/cache.h"

#include "proto/base/bytes.h"
#include "store/store.h"
#include "worker/link/artefact.h"

#include <stdlib.h>
#include <string.h>

enum weir_status weir_embedding_key(const struct weir_stage_ground *ground, const char *tenant, const char *text,
                                    bool is_negative, char out[WEIR_KEY_BYTES], struct weir_error *error)
{
    char text_key[WEIR_SHA256_HEX_BYTES];
    const enum weir_status status =
        weir_pipeline_text_key(ground->pipeline, ground->device->numerics_class, text, is_negative, text_key, error);
    if (status == WEIR_OK) weir_key_embedding(tenant, text_key, out);
    return status;
}

static void dims_of(const struct weir_stage_ground *ground, uint32_t dims[2])
{
    const struct weir_model_facts *facts = weir_pipeline_facts(ground->pipeline);
    dims[0] = facts->text_rows;
    dims[1] = facts->text_channels;
}

static size_t object_bytes(const uint32_t dims[2])
{
    return WEIR_ARTEFACT_HEADER_BYTES + (size_t)dims[0] * dims[1] * sizeof(float) + WEIR_SHA256_BYTES;
}

static enum weir_status parse(const uint8_t *bytes, size_t count, const uint32_t dims[2],
                              struct weir_artefact_tensor *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint8_t digest[WEIR_SHA256_BYTES];
    if (count != object_bytes(dims))
        return weir_fail(error, WEIR_BAD_FILE, "it has %zu bytes instead of %zu", count, object_bytes(dims));
    weir_sha256_of(bytes, count - WEIR_SHA256_BYTES, digest);
    if (memcmp(digest, bytes + count - WEIR_SHA256_BYTES, sizeof digest) != 0)
        return weir_fail(error, WEIR_BAD_FILE, "its digest does not match its bytes");
    WEIR_TRY(weir_artefact_parse(bytes, count - WEIR_SHA256_BYTES, out, error));
    WEIR_TRY(weir_artefact_expect(out, "the embedding", 2, dims, error));
cleanup:
    return status;
}

bool weir_embedding_exists(const struct weir_stage_ground *ground, const char *key)
{
    uint64_t bytes;
    return weir_store_stat(ground->link->store, key, &bytes, NULL) == WEIR_OK;
}

bool weir_embedding_find(const struct weir_stage_ground *ground, const char *key, float *out)
{
    struct weir_store *store = ground->link->store;
    struct weir_error why = { .words = "" };
    struct weir_artefact_tensor tensor;
    uint32_t dims[2];
    void *bytes = NULL;
    size_t count;
    dims_of(ground, dims);
    enum weir_status status = weir_store_get(store, key, 2 * object_bytes(dims), &bytes, &count, &why);
    if (status == WEIR_NOT_FOUND) return false;
    if (status == WEIR_OK) status = parse(bytes, count, dims, &tensor, &why);
    if (status == WEIR_OK) {
        memcpy(out, tensor.values, tensor.count * sizeof *out);
    } else {
        weir_log(ground->log, WEIR_LOG_WARN, "embedding passed over key=%s words=\"%s\"", key, why.words);
        if (status == WEIR_BAD_FILE || status == WEIR_TOO_LARGE) (void)weir_store_remove(store, key, NULL);
    }
    free(bytes);
    return status == WEIR_OK;
}

void weir_embedding_keep(const struct weir_stage_ground *ground, const char *key, const float *values)
{
    struct weir_error why = { .words = "" };
    void *bytes = NULL;
    size_t byte_count, count;
    float *to;
    uint32_t dims[2];
    dims_of(ground, dims);
    enum weir_status status = weir_artefact_create(2, dims, &bytes, &byte_count, &to, &count, &why);
    if (status == WEIR_OK) {
        memcpy(to, values, count * sizeof *to);
        uint8_t *grown = realloc(bytes, byte_count + WEIR_SHA256_BYTES);
        if (grown) {
            bytes = grown;
            weir_sha256_of(grown, byte_count, grown + byte_count);
            status = weir_store_put_remakeable(ground->link->store, key, grown, byte_count + WEIR_SHA256_BYTES, &why);
        } else {
            status = weir_fail(&why, WEIR_NO_MEMORY, "no memory for its digest");
        }
    }
    if (status != WEIR_OK) {
        weir_log(ground->log, WEIR_LOG_WARN, "embedding not kept key=%s words=\"%s\"", key, why.words);
    }
    free(bytes);
}
