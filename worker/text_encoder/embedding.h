/* embedding: how the embeddings of texts lie in artefacts: without padding.
 *
 * In memory they are [copies, text_rows, channels] (pipelines/item.h). A family whose last row counts the tokens has rows
 * of zeros between those and it, nine of ten for a short text; in an artefact they are left out: [copies, rows, channels],
 * where the last of `rows` is that last row, and those before it hold the tokens of the longest copy. Other families keep
 * all rows.
 *
 * Threads  pure
 */
#ifndef WEIR_WORKER_TEXT_ENCODER_EMBEDDING_H
#define WEIR_WORKER_TEXT_ENCODER_EMBEDDING_H

#include "worker/link/artefact.h"
#include "worker/pipelines/item.h"

/* As few as hold them. */
uint32_t weir_embedding_rows(const struct weir_model_facts *facts, uint32_t copies, const float *values);
/* From memory to an artefact of so many rows. */
void weir_embedding_pack(const struct weir_model_facts *facts, uint32_t copies, uint32_t rows, const float *from,
                         float *to);
/* And back, from a tensor [copies, rows, channels], or [rows, channels] of one copy. BAD_FILE unless it is one of these, with
 * counts that fit its rows. */
enum weir_status weir_embedding_unpack(const struct weir_model_facts *facts, uint32_t copies,
                                       const struct weir_artefact_tensor *tensor, float *to, struct weir_error *error);

#endif
