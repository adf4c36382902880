#include "worker/denoiser/checkpoint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 1,
    STEP_AT = 12,
    SPEC_AT = 16,
    MODEL_AT = 48,
    CLASS_AT = 80,
    SAMPLER_AT = 208,
    LATENTS_AT = 240,
    HISTORY_AT = 248,
    GENERATOR_AT = 256,
    HEADER_BYTES = 264,
    TRIES_MAX = 8, /* how many are looked at, from the newest on */
    KEPT = 2,
    STEP_DIGITS = 6,
    SLACK_BYTES = 4096, /* read beyond the right size, so that what is a little too long is seen to be damaged */
};
static const char magic[8] = { 'W', 'E', 'I', 'R', 'C', 'K', 'P', 'T' };

/* NUL-padded to the field's end. */
static void write_name(uint8_t *field, size_t bytes, const char *name)
{
    assert(strlen(name) < bytes);
    memset(field, 0, bytes);
    memcpy(field, name, strlen(name));
}

static bool name_is(const uint8_t *field, size_t bytes, const char *name)
{
    uint8_t wanted[WEIR_CHECKPOINT_CLASS_BYTES];
    assert(bytes <= sizeof wanted);
    write_name(wanted, bytes, name);
    return memcmp(field, wanted, bytes) == 0;
}

enum weir_status weir_checkpoint_write(const struct weir_checkpoint_owner *owner,
                                       const struct weir_checkpoint_state *state, void **out, size_t *out_bytes,
                                       struct weir_error *error)
{
    const size_t latent_bytes = owner->latent_count * sizeof(float),
                 history_bytes = owner->history_count * sizeof(float);
    const size_t bytes = HEADER_BYTES + latent_bytes + history_bytes + WEIR_SHA256_BYTES;
    uint8_t *b = calloc(1, bytes);
    *out = b;
    *out_bytes = bytes;
    if (!b) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a checkpoint of %zu bytes", bytes);
    assert(state->step >= 1 && state->step < owner->step_count);
    assert((state->history != NULL) == (owner->history_count > 0));
    memcpy(b, magic, sizeof magic);
    weir_store_u32(b + 8, VERSION);
    weir_store_u32(b + STEP_AT, state->step);
    memcpy(b + SPEC_AT, owner->spec_digest, WEIR_SHA256_BYTES);
    memcpy(b + MODEL_AT, owner->model_digest, WEIR_SHA256_BYTES);
    write_name(b + CLASS_AT, WEIR_CHECKPOINT_CLASS_BYTES, owner->numerics_class);
    write_name(b + SAMPLER_AT, WEIR_CHECKPOINT_SAMPLER_BYTES, owner->sampler);
    weir_store_u64(b + LATENTS_AT, latent_bytes);
    weir_store_u64(b + HISTORY_AT, history_bytes);
    memcpy(b + HEADER_BYTES, state->latents, latent_bytes);
    if (history_bytes) memcpy(b + HEADER_BYTES + latent_bytes, state->history, history_bytes);
    weir_sha256_of(b, bytes - WEIR_SHA256_BYTES, b + bytes - WEIR_SHA256_BYTES);
    return WEIR_OK;
}

static enum weir_status check_whole(const uint8_t *b, size_t count, struct weir_error *error)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    if (count < HEADER_BYTES + WEIR_SHA256_BYTES) {
        return weir_fail(error, WEIR_BAD_FILE, "a checkpoint of %zu bytes: header and digest alone have %d", count,
                         HEADER_BYTES + WEIR_SHA256_BYTES);
    }
    if (memcmp(b, magic, sizeof magic) != 0) return weir_fail(error, WEIR_BAD_FILE, "not a checkpoint: another magic");
    if (weir_load_u32(b + 8) != VERSION) {
        return weir_fail(error, WEIR_BAD_FILE, "a checkpoint of version %u, this build reads %d", weir_load_u32(b + 8),
                         VERSION);
    }
    weir_sha256_of(b, count - WEIR_SHA256_BYTES, digest);
    if (memcmp(digest, b + count - WEIR_SHA256_BYTES, sizeof digest) != 0) {
        return weir_fail(error, WEIR_BAD_FILE, "a checkpoint's digest does not match its bytes");
    }
    return WEIR_OK;
}

static const char *foreign_part(const uint8_t *b, size_t count, const struct weir_checkpoint_owner *owner)
{
    const uint64_t latents = (uint64_t)owner->latent_count * sizeof(float);
    const uint64_t history = (uint64_t)owner->history_count * sizeof(float);
    const uint32_t step = weir_load_u32(b + STEP_AT);
    if (memcmp(b + SPEC_AT, owner->spec_digest, WEIR_SHA256_BYTES) != 0) return "spec";
    if (memcmp(b + MODEL_AT, owner->model_digest, WEIR_SHA256_BYTES) != 0) return "model";
    if (!name_is(b + CLASS_AT, WEIR_CHECKPOINT_CLASS_BYTES, owner->numerics_class)) return "numerics class";
    if (!name_is(b + SAMPLER_AT, WEIR_CHECKPOINT_SAMPLER_BYTES, owner->sampler)) return "sampler";
    if (step < 1 || step >= owner->step_count) return "step";
    if (weir_load_u64(b + LATENTS_AT) != latents) return "size of latents";
    if (weir_load_u64(b + HISTORY_AT) != history) return "size of history";
    if (weir_load_u64(b + GENERATOR_AT) != 0) return "size of generator state";
    if (count - HEADER_BYTES - WEIR_SHA256_BYTES != latents + history) return "length";
    return NULL;
}

enum weir_status weir_checkpoint_parse(const void *bytes, size_t count, const struct weir_checkpoint_owner *owner,
                                       struct weir_checkpoint_state *out, struct weir_error *error)
{
    const uint8_t *b = bytes;
    *out = (struct weir_checkpoint_state){ 0 };
    const enum weir_status status = check_whole(b, count, error);
    if (status != WEIR_OK) return status;
    const char *foreign = foreign_part(b, count, owner);
    if (foreign) return weir_fail(error, WEIR_CONFLICT, "a checkpoint of another %s", foreign);
    out->step = weir_load_u32(b + STEP_AT);
    out->latents = (const float *)(const void *)(b + HEADER_BYTES);
    out->history = owner->history_count ? out->latents + owner->latent_count : NULL;
    return WEIR_OK;
}

/* ---- in the store ---- */

/* The newest ones seen so far: the list comes in rising order. */
struct newest {
    uint32_t steps[TRIES_MAX];
    size_t count;
    const char *prefix;
};

static bool note_step(void *context, const char *key)
{
    struct newest *newest = context;
    const char *digits = key + strlen(newest->prefix);
    if (strspn(digits, "0123456789") != STEP_DIGITS || digits[STEP_DIGITS] != '\0') return true;
    if (newest->count == TRIES_MAX) {
        memmove(newest->steps, newest->steps + 1, (TRIES_MAX - 1) * sizeof newest->steps[0]);
        newest->count--;
    }
    newest->steps[newest->count++] = (uint32_t)strtoul(digits, NULL, 10);
    return true;
}

enum weir_status weir_checkpoint_save(const struct weir_checkpoint_place *place,
                                      const struct weir_checkpoint_owner *owner,
                                      const struct weir_checkpoint_state *state, bool durable, struct weir_error *error)
{
    void *bytes = NULL;
    size_t count;
    char key[WEIR_KEY_BYTES];
    enum weir_status status = weir_checkpoint_write(owner, state, &bytes, &count, error);
    if (status == WEIR_OK) {
        weir_key_checkpoint(place->tenant, place->task, state->step, key);
        status = (durable ? weir_store_put : weir_store_put_remakeable)(place->store, key, bytes, count, error);
    }
    free(bytes);
    if (status == WEIR_OK && state->step > KEPT * WEIR_CHECKPOINT_STEPS) {
        weir_key_checkpoint(place->tenant, place->task, state->step - KEPT * WEIR_CHECKPOINT_STEPS, key);
        (void)weir_store_remove(place->store, key, NULL); /* one too many does no harm */
    }
    return status;
}

bool weir_checkpoint_load(const struct weir_checkpoint_place *place, const struct weir_checkpoint_owner *owner,
                          struct weir_checkpoint_state *out, void **memory)
{
    const size_t bytes_max =
        SLACK_BYTES + HEADER_BYTES + (owner->latent_count + owner->history_count) * sizeof(float) + WEIR_SHA256_BYTES;
    char prefix[WEIR_KEY_BYTES], key[WEIR_KEY_BYTES];
    weir_key_checkpoints(place->tenant, place->task, prefix);
    struct newest newest = { .count = 0, .prefix = prefix };
    struct weir_error why = { .words = "" };

    *memory = NULL;
    if (weir_store_list(place->store, prefix, note_step, &newest, &why) != WEIR_OK) {
        weir_log(place->log, WEIR_LOG_WARN, "checkpoints not listed prefix=%s words=\"%s\"", prefix, why.words);
        return false;
    }
    while (newest.count > 0) {
        const uint32_t step = newest.steps[--newest.count];
        size_t count;
        weir_key_checkpoint(place->tenant, place->task, step, key);
        enum weir_status status = weir_store_get(place->store, key, bytes_max, memory, &count, &why);
        if (status == WEIR_OK) status = weir_checkpoint_parse(*memory, count, owner, out, &why);
        if (status == WEIR_OK && out->step != step)
            status = weir_fail(&why, WEIR_BAD_FILE, "it is of step %u", out->step);
        if (status == WEIR_OK) return true;
        free(*memory);
        *memory = NULL;
        weir_log(place->log, WEIR_LOG_WARN, "checkpoint passed over key=%s words=\"%s\"", key, why.words);
        if (status == WEIR_BAD_FILE) (void)weir_store_remove(place->store, key, NULL);
    }
    *out = (struct weir_checkpoint_state){ 0 };
    return false;
}
