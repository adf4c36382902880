/* checkpoint: where a denoise run stands, in the store, so that another worker can go on (PROTOCOL.md section 8).
 *
 * It is a cache. Whatever is truncated, corrupt, or of another job, model, numerics class or sampler is passed over, and
 * an older one is taken, or none. The newest two are left in the store: a worker that dies while it writes one must find
 * the one before.
 *
 * Memory   a parsed or loaded state points into `memory`, which the caller frees
 * Errors   parse: BAD_FILE (damaged), CONFLICT (of another owner).  save: STORE.  load: never; no usable checkpoint is an answer
 * Threads  pure, but for the store
 */
#ifndef WEIR_WORKER_DENOISER_CHECKPOINT_H
#define WEIR_WORKER_DENOISER_CHECKPOINT_H

#include "proto/base/log.h"
#include "proto/job.h"
#include "store/store.h"

#define WEIR_CHECKPOINT_STEPS 5 /* between two */
#define WEIR_CHECKPOINT_CLASS_BYTES 128
#define WEIR_CHECKPOINT_SAMPLER_BYTES 32

/* Whose state it is: all must match before it is used. */
struct weir_checkpoint_owner {
    uint8_t spec_digest[WEIR_SHA256_BYTES]; /* weir_spec_fingerprint of the item's resolved spec */
    uint8_t model_digest[WEIR_SHA256_BYTES];
    const char *numerics_class; /* at most 127 bytes */
    const char *sampler;        /* at most 31 bytes */
    size_t latent_count;        /* floats */
    size_t history_count;       /* floats: as many as the latents, or 0 */
    uint32_t step_count;        /* of the whole run: a checkpoint has 1..step_count - 1 */
};

struct weir_checkpoint_state {
    uint32_t step;
    const float *latents;
    const float *history; /* NULL when there is none */
};

enum weir_status weir_checkpoint_write(const struct weir_checkpoint_owner *owner,
                                       const struct weir_checkpoint_state *state, void **out, size_t *out_bytes,
                                       struct weir_error *error);
/* `bytes` is aligned as malloc's memory is. */
enum weir_status weir_checkpoint_parse(const void *bytes, size_t count, const struct weir_checkpoint_owner *owner,
                                       struct weir_checkpoint_state *out, struct weir_error *error);

/* Where they lie. */
struct weir_checkpoint_place {
    struct weir_store *store;
    const struct weir_log *log;
    const char *tenant;
    const struct weir_task_id *task;
};
/* `durable`: a power cut takes it no more (fsync); otherwise it may be gone after one, or passed over. */
enum weir_status weir_checkpoint_save(const struct weir_checkpoint_place *place,
                                      const struct weir_checkpoint_owner *owner,
                                      const struct weir_checkpoint_state *state, bool durable,
                                      struct weir_error *error);
/* The newest usable one; false when there is none. A damaged one is removed, so that its step can be written again. */
bool weir_checkpoint_load(const struct weir_checkpoint_place *place, const struct weir_checkpoint_owner *owner,
                          struct weir_checkpoint_state *out, void **memory);

#endif
