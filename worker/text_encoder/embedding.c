#include "worker/text_encoder/embedding.h"

#include <math.h>
#include <string.h>

static bool counts_tokens(const struct weir_model_facts *facts)
{
    return facts->text_rows > facts->text_tokens;
}

uint32_t weir_embedding_rows(const struct weir_model_facts *facts, uint32_t copies, const float *values)
{
    uint32_t most = 1;
    if (!counts_tokens(facts)) return facts->text_rows;
    for (uint32_t copy = 0; copy < copies; copy++) {
        const size_t last = (size_t)copy * facts->text_rows + facts->text_rows - 1;
        const uint32_t tokens = (uint32_t)values[last * facts->text_channels];
        if (tokens > most) most = tokens;
    }
    return most + 1;
}

void weir_embedding_pack(const struct weir_model_facts *facts, uint32_t copies, uint32_t rows, const float *from,
                         float *to)
{
    const size_t channels = facts->text_channels;
    for (uint32_t copy = 0; copy < copies; copy++) {
        memcpy(to, from, (rows - 1) * channels * sizeof *to);
        memcpy(to + (rows - 1) * channels, from + (facts->text_rows - 1) * channels, channels * sizeof *to);
        to += rows * channels;
        from += facts->text_rows * channels;
    }
}

enum weir_status weir_embedding_unpack(const struct weir_model_facts *facts, uint32_t copies,
                                       const struct weir_artefact_tensor *tensor, float *to, struct weir_error *error)
{
    const size_t channels = facts->text_channels;
    const uint32_t rank = copies == 1 && tensor->rank == 2 ? 2 : 3, said = tensor->dims[rank - 2];
    const uint32_t rows = counts_tokens(facts) && said >= 2 && said < facts->text_rows ? said : facts->text_rows;
    const uint32_t dims[] = { copies, rows, facts->text_channels };
    const enum weir_status status = weir_artefact_expect(tensor, "the embedding", rank, dims + (rank == 2), error);
    if (status != WEIR_OK) return status;
    const float *from = tensor->values;
    for (uint32_t copy = 0; copy < copies; copy++) {
        const float *last = from + (rows - 1) * channels;
        if (counts_tokens(facts) && !(last[0] >= 1 && last[0] <= (float)(rows - 1) && floorf(last[0]) == last[0])) {
            return weir_fail(error, WEIR_BAD_FILE, "the embedding has %u rows of tokens, and counts %g of them",
                             rows - 1, (double)last[0]);
        }
        memcpy(to, from, (rows - 1) * channels * sizeof *to);
        memset(to + (rows - 1) * channels, 0, (facts->text_rows - rows) * channels * sizeof *to);
        memcpy(to + (facts->text_rows - 1) * channels, last, channels * sizeof *to);
        from += rows * channels;
        to += facts->text_rows * channels;
    }
    return WEIR_OK;
}
