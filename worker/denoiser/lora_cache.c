#include "worker/denoiser/lora_cache.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_BYTES 128

static void drop(struct weir_lora_cache *cache, uint32_t index)
{
    weir_lora_destroy(&cache->entries[index].lora);
    free(cache->entries[index].tenant);
    cache->entries[index] = cache->entries[--cache->count];
}

void weir_lora_cache_deinit(struct weir_lora_cache *cache)
{
    while (cache->count) drop(cache, 0);
}

static uint64_t bytes_of(const struct weir_lora_cache *cache)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cache->count; i++) bytes += weir_lora_bytes(cache->entries[i].lora);
    return bytes;
}

/* Room for one more, of those not used since `since`: an item's own are newer and stay. */
static void make_room(struct weir_lora_cache *cache, uint64_t since)
{
    while (cache->count == WEIR_LORA_CACHE_ENTRIES_MAX || bytes_of(cache) > WEIR_LORA_CACHE_BYTES_MAX) {
        uint32_t oldest = 0;
        for (uint32_t i = 1; i < cache->count; i++) {
            if (cache->entries[i].used < cache->entries[oldest].used) oldest = i;
        }
        if (cache->entries[oldest].used > since) return;
        drop(cache, oldest);
    }
}

/* The file as words should call it. */
static void name_file(const Weir__Pb__FileRef *file, char out[LABEL_BYTES])
{
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_hex_write(file->digest.data, WEIR_SHA256_BYTES, hex);
    if (file->name && file->name[0])
        snprintf(out, LABEL_BYTES, "--lora %.100s", file->name);
    else
        snprintf(out, LABEL_BYTES, "--lora %.16s", hex);
}

static enum weir_status read_one(struct weir_lora_cache *cache, const struct weir_pipeline *pipeline,
                                 struct weir_link *link, const char *tenant, const Weir__Pb__FileRef *file,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_lora_cache_entry entry = { .lora = NULL };
    void *bytes = NULL;
    size_t count;
    char label[LABEL_BYTES];
    name_file(file, label);
    memcpy(entry.digest, file->digest.data, sizeof entry.digest);
    WEIR_TRY(weir_link_get_file(link, tenant, file, WEIR_LINK_INPUT_BYTES_MAX, &bytes, &count, error));
    if (count != file->bytes) { /* memory was planned for what the request says */
        WEIR_TRY(weir_fail(error, WEIR_BAD_FILE, "%s: it has %zu bytes, the request says %llu", label, count,
                           (unsigned long long)file->bytes));
    }
    WEIR_TRY(weir_pipeline_lora(pipeline, bytes, count, label, &entry.lora, error));
    entry.tenant = strdup(tenant);
    if (!entry.tenant) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its entry", label));
    assert(cache->count < WEIR_LORA_CACHE_ENTRIES_MAX);
    cache->entries[cache->count++] = entry;
    entry = (struct weir_lora_cache_entry){ .lora = NULL };
cleanup:
    weir_lora_destroy(&entry.lora);
    free(bytes);
    return status;
}

static struct weir_lora_cache_entry *find(struct weir_lora_cache *cache, const char *tenant,
                                          const Weir__Pb__FileRef *file)
{
    for (uint32_t i = 0; i < cache->count; i++) {
        struct weir_lora_cache_entry *entry = &cache->entries[i];
        if (memcmp(entry->digest, file->digest.data, sizeof entry->digest) == 0 && strcmp(entry->tenant, tenant) == 0)
            return entry;
    }
    return NULL;
}

enum weir_status weir_lora_cache_take(struct weir_lora_cache *cache, const struct weir_pipeline *pipeline,
                                      struct weir_link *link, const char *tenant, const Weir__Pb__JobSpec *spec,
                                      struct weir_lora_use uses[WEIR_ITEM_LORAS_MAX], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint64_t since = cache->uses;
    assert(spec->n_loras <= WEIR_ITEM_LORAS_MAX);
    for (size_t i = 0; i < spec->n_loras; i++) {
        const Weir__Pb__FileRef *file = spec->loras[i]->file;
        struct weir_lora_cache_entry *entry = find(cache, tenant, file);
        if (!entry) {
            make_room(cache, since);
            WEIR_TRY(read_one(cache, pipeline, link, tenant, file, error));
            entry = find(cache, tenant, file);
        }
        entry->used = ++cache->uses;
        uses[i] = (struct weir_lora_use){ entry->lora, spec->loras[i]->has_weight ? spec->loras[i]->weight : 1 };
    }
    make_room(cache, since);
cleanup:
    return status;
}
