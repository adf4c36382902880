/* cache: a tenant's embeddings of single texts in the store, at t/<tenant>/emb/<text key>: a tensor artefact [rows,
 * channels] (embedding.h) and behind it the SHA-256 of all before it (PROTOCOL.md section 8). The key says all that the numbers depend
 * on, so what is found is what would be computed.
 *
 * It is a cache: what cannot be read or written is said in the log, and computed. What is damaged is removed, so that it
 * can be written again.
 *
 * Threads  one
 */
#ifndef WEIR_WORKER_TEXT_ENCODER_CACHE_H
#define WEIR_WORKER_TEXT_ENCODER_CACHE_H

#include "proto/job.h"
#include "worker/stage.h"

/* Where a text's embedding lies. BAD_ARGUMENT for a text that the tokenizer refuses. */
enum weir_status weir_embedding_key(const struct weir_stage_ground *ground, const char *tenant, const char *text,
                                    bool is_negative, char out[WEIR_KEY_BYTES], struct weir_error *error);
/* Whether there is one, sound or not: a look that reads nothing. */
bool weir_embedding_exists(const struct weir_stage_ground *ground, const char *key);
/* Fills text_rows * text_channels floats; false when there is none that is sound. */
bool weir_embedding_find(const struct weir_stage_ground *ground, const char *key, float *out);
void weir_embedding_keep(const struct weir_stage_ground *ground, const char *key, const float *values);

#endif
