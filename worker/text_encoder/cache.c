#include "worker/text_encoder/cache.h"

#include "proto/base/bytes.h"
#include "store/store.h"
#include "worker/text_encoder/embedding.h"

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

static const struct weir_model_facts *facts_of(const struct weir_stage_ground *ground)
{
    return weir_pipeline_facts(ground->pipeline);
}

static size_t object_bytes_max(const struct weir_model_facts *facts)
{
    return WEIR_ARTEFACT_HEADER_BYTES + (size_t)facts->text_rows * facts->text_channels * sizeof(float) +
           WEIR_SHA256_BYTES;
}

static enum weir_status parse(const struct weir_model_facts *facts, const uint8_t *bytes, size_t count, float *out,
                              struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_artefact_tensor tensor;
    uint8_t digest[WEIR_SHA256_BYTES];
    if (count < sizeof digest) return weir_fail(error, WEIR_BAD_FILE, "it has %zu bytes", count);
    weir_sha256_of(bytes, count - WEIR_SHA256_BYTES, digest);
    if (memcmp(digest, bytes + count - WEIR_SHA256_BYTES, sizeof digest) != 0)
        return weir_fail(error, WEIR_BAD_FILE, "its digest does not match its bytes");
    WEIR_TRY(weir_artefact_parse(bytes, count - WEIR_SHA256_BYTES, &tensor, error));
    WEIR_TRY(weir_embedding_unpack(facts, 1, &tensor, out, error));
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
    void *bytes = NULL;
    size_t count;
    enum weir_status status = weir_store_get(store, key, object_bytes_max(facts_of(ground)), &bytes, &count, &why);
    if (status == WEIR_NOT_FOUND) return false;
    if (status == WEIR_OK) status = parse(facts_of(ground), bytes, count, out, &why);
    if (status != WEIR_OK) {
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
    const uint32_t rows = weir_embedding_rows(facts_of(ground), 1, values);
    const uint32_t dims[2] = { rows, facts_of(ground)->text_channels };
    enum weir_status status = weir_artefact_create(2, dims, &bytes, &byte_count, &to, &count, &why);
    if (status == WEIR_OK) {
        weir_embedding_pack(facts_of(ground), 1, rows, values, to);
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
