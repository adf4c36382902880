#include "kernels/ref/ref.h"

#include <math.h>

#include <string.h>

size_t weir_ref_scratch_rope(const struct weir_rope *s)
{
    (void)s;
    return 0;
}

/* The frequency and the angle are rounded to f32 as the original's are: at position 300 an angle kept in double differs
 * by up to 2e-5, see timestep_embedding. */
static float angle_of(const struct weir_rope *s, uint64_t position, uint32_t j)
{
    const float exponent = (float)(2 * j) / (float)s->head_dim;
    const float frequency = 1 / (float)pow((double)s->theta, (double)exponent);
    return (float)position * frequency;
}

void weir_ref_rope(const struct weir_rope *s, const struct weir_ref_packed *layer, void *const operands[],
                   double *scratch)
{
    const float *x = operands[WEIR_ROPE_X];
    float *y = operands[WEIR_ROPE_Y];
    const uint32_t half = s->head_dim / 2, rest = s->channels - s->heads * s->head_dim;
    (void)layer;
    (void)scratch;

    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++) {
        for (uint32_t h = 0; h < s->heads; h++, x += s->head_dim, y += s->head_dim) {
            for (uint32_t j = 0; j < half; j++) {
                const double angle = (double)angle_of(s, token % s->tokens, j);
                const double first = (double)x[j], second = (double)x[j + half]; /* y may be x */
                y[j] = (float)(first * cos(angle) - second * sin(angle));
                y[j + half] = (float)(second * cos(angle) + first * sin(angle));
            }
        }
        memmove(y, x, rest * sizeof *y);
        x += rest;
        y += rest;
    }
}
