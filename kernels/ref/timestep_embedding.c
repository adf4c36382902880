#include "kernels/ref/ref.h"

#include <math.h>

size_t weir_ref_scratch_timestep_embedding(const struct weir_timestep_embedding *s)
{
    (void)s;
    return 0;
}

/* The exponent, the frequency and the angle are rounded to f32 as the original's are: at t = 999 an angle kept in
 * double differs by up to 6e-5, which is no error of either but would be one of ours to those who compare. */
void weir_ref_timestep_embedding(const struct weir_timestep_embedding *s, const struct weir_ref_packed *layer,
                                 void *const operands[], double *scratch)
{
    const float *t = operands[WEIR_TIMESTEP_EMBEDDING_T];
    float *y = operands[WEIR_TIMESTEP_EMBEDDING_Y];
    const uint32_t half = s->dim / 2;
    const float length = (float)half - s->downscale_freq_shift;
    (void)layer;
    (void)scratch;

    for (uint32_t r = 0; r < s->rows; r++, y += s->dim) {
        float *cosines = s->flip_sin_to_cos ? y : y + half;
        float *sines = s->flip_sin_to_cos ? y + half : y;
        for (uint32_t i = 0; i < half; i++) {
            const float exponent = (float)(-log(10000.0)) * (float)i / length;
            const float frequency = (float)exp((double)exponent);
            const float angle = t[r] * frequency;
            cosines[i] = (float)cos((double)angle);
            sines[i] = (float)sin((double)angle);
        }
    }
}
