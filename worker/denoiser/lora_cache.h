/* lora_cache: the adapters that a denoiser has read lately, by tenant and digest, so that the next item that names one
 * need not read it again. A tenant sees what it put into the store itself.
 *
 * Memory   WEIR_LORA_CACHE_BYTES_MAX, or what one item needs when that is more; the longest unused go first
 * Errors   those of weir_link_get_file and weir_pipeline_lora, whose words name the file
 * Threads  one
 */
#ifndef WEIR_WORKER_DENOISER_LORA_CACHE_H
#define WEIR_WORKER_DENOISER_LORA_CACHE_H

#include "worker/link/link.h"
#include "worker/pipelines/pipeline.h"

#define WEIR_LORA_CACHE_BYTES_MAX ((uint64_t)256 << 20)
#define WEIR_LORA_CACHE_ENTRIES_MAX 64 /* more than one item has */

struct weir_lora_cache {
    struct weir_lora_cache_entry {
        struct weir_lora *lora;
        char *tenant;
        uint8_t digest[WEIR_SHA256_BYTES];
        uint64_t used; /* by the count of uses */
    } entries[WEIR_LORA_CACHE_ENTRIES_MAX];
    uint32_t count;
    uint64_t uses;
};

/* The adapters of a resolved item, of a model whose denoiser is loaded: `uses` is filled in the spec's order and good until
 * the next call. */
enum weir_status weir_lora_cache_take(struct weir_lora_cache *cache, const struct weir_pipeline *pipeline,
                                      struct weir_link *link, const char *tenant, const Weir__Pb__JobSpec *spec,
                                      struct weir_lora_use uses[WEIR_ITEM_LORAS_MAX], struct weir_error *error);
void weir_lora_cache_deinit(struct weir_lora_cache *cache);

#endif
