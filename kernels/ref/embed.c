#include "kernels/ref/ref.h"

size_t weir_ref_scratch_embed(const struct weir_embed *s)
{
    (void)s;
    return 0;
}

void weir_ref_embed(const struct weir_embed *s, const struct weir_ref_packed *layer, void *const operands[],
                    double *scratch)
{
    const int32_t *ids = operands[WEIR_EMBED_IDS];
    float *y = operands[WEIR_EMBED_Y];
    (void)scratch;

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, y += s->channels) {
        const float *row = layer->weight + (size_t)ids[token] * s->channels;
        const float *position = layer->bias ? layer->bias + token % s->tokens * s->channels : NULL;
        for (uint32_t c = 0; c < s->channels; c++) y[c] = position ? row[c] + position[c] : row[c];
    }
}
