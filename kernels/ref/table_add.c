#include "kernels/ref/ref.h"

size_t weir_ref_scratch_table_add(const struct weir_table_add *s)
{
    (void)s;
    return 0;
}

void weir_ref_table_add(const struct weir_table_add *s, const struct weir_ref_packed *layer, void *const operands[],
                        double *scratch)
{
    const float *x = operands[WEIR_TABLE_ADD_X];
    float *y = operands[WEIR_TABLE_ADD_Y];
    (void)scratch;

    for (uint32_t r = 0; r < s->rows; r++) {
        const float *table = layer->weight;
        for (uint32_t n = 0; n < s->vectors; n++, table += s->channels, y += s->channels) {
            const float *given = x + n % s->given * s->channels;
            for (uint32_t c = 0; c < s->channels; c++) y[c] = table[c] + given[c];
        }
        x += s->given * s->channels;
    }
}
