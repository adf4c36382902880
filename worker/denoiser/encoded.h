/* encoded: a request's picture as latents: its file from the store, its pixels, what the model's encoder makes of them at
 * the size an item is made at.
 *
 * The encoder is loaded for one picture and unloaded behind it, since most tasks need none. The latents of the last one
 * are kept: items of one job bring the same.
 *
 * Memory   the latents belong to the struct: weir_encoded_deinit(). While one is made: the encoder's plan
 *          (weir_pipeline_plan_memory) and, uncounted, the file and its pixels
 * Errors   those of weir_link_get_file and weir_rgb_read, which name the file; those of load and run; CANCELLED
 * Threads  the one of its stage
 */
#ifndef WEIR_WORKER_DENOISER_ENCODED_H
#define WEIR_WORKER_DENOISER_ENCODED_H

#include "worker/stage.h"

/* The latents of one picture at one size; all 0: none. */
struct weir_encoded {
    uint8_t digest[WEIR_SHA256_BYTES]; /* of the file */
    struct weir_sana_size size;
    float *latents;
};

/* Whether that picture's latents for an item of that size are there. */
bool weir_encoded_has(const struct weir_encoded *encoded, const struct weir_model_facts *facts,
                      const struct weir_item *item, const uint8_t digest[WEIR_SHA256_BYTES]);
/* Makes them. */
enum weir_status weir_encoded_make(struct weir_encoded *encoded, const struct weir_stage_ground *ground,
                                   const struct weir_task *task, const Weir__Pb__FileRef *file,
                                   struct weir_error *error);
void weir_encoded_deinit(struct weir_encoded *encoded);

#endif
