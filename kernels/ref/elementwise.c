/* Ops without sums: activate, concat, latents_pack, guidance, sampler_step, to_rgb8. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

#define NO_SCRATCH(op)                                                                                                 \
    size_t weir_ref_scratch_##op(const struct weir_##op *s)                                                            \
    {                                                                                                                  \
        (void)s;                                                                                                       \
        return 0;                                                                                                      \
    }
NO_SCRATCH(activate)
NO_SCRATCH(concat)
NO_SCRATCH(latents_pack)
NO_SCRATCH(guidance)
NO_SCRATCH(sampler_step)
NO_SCRATCH(to_rgb8)

void weir_ref_activate(const struct weir_activate *s, const struct weir_ref_packed *layer, void *const operands[],
                       double *scratch)
{
    const float *x = operands[WEIR_ACTIVATE_X];
    float *y = operands[WEIR_ACTIVATE_Y];
    (void)layer;
    (void)scratch;
    const uint64_t tokens = (uint64_t)s->rows * s->tokens, width = s->channels;
    if (!weir_activation_is_gated(s->activation)) {
        for (uint64_t i = 0; i < tokens * width; i++) y[i] = (float)weir_ref_activation(s->activation, (double)x[i]);
        return;
    }
    for (uint64_t token = 0; token < tokens; token++, x += 2 * width, y += width) {
        for (uint64_t c = 0; c < width; c++)
            y[c] = (float)((double)x[c] * weir_ref_activation(s->activation, (double)x[width + c]));
    }
}

void weir_ref_concat(const struct weir_concat *s, const struct weir_ref_packed *layer, void *const operands[],
                     double *scratch)
{
    const float *a = operands[WEIR_CONCAT_A], *b = operands[WEIR_CONCAT_B];
    float *y = operands[WEIR_CONCAT_Y];
    (void)layer;
    (void)scratch;
    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++) {
        memcpy(y, a + token * s->a_channels, s->a_channels * sizeof(float));
        memcpy(y + s->a_channels, b + token * s->b_channels, s->b_channels * sizeof(float));
        y += s->a_channels + s->b_channels;
    }
}

void weir_ref_latents_pack(const struct weir_latents_pack *s, const struct weir_ref_packed *layer,
                           void *const operands[], double *scratch)
{
    const float *x = operands[WEIR_LATENTS_PACK_X], *k = operands[WEIR_LATENTS_PACK_K];
    float *y = operands[WEIR_LATENTS_PACK_Y];
    const size_t plane = (size_t)s->frames * s->pixels;
    (void)layer;
    (void)scratch;
    for (uint32_t row = 0; row < s->items * s->copies; row++) {
        const size_t of = row / s->copies;
        const float *item = x + of * s->channels * plane;
        const float scale = s->scaled ? k[of * WEIR_SAMPLER_COEFFICIENTS + 12] : 1;
        for (size_t at = 0; at < plane; at++) {
            for (uint32_t c = 0; c < s->channels; c++) *y++ = item[c * plane + at] * s->factor * scale;
        }
    }
}

void weir_ref_guidance(const struct weir_guidance *s, const struct weir_ref_packed *layer, void *const operands[],
                       double *scratch)
{
    const float *x = operands[WEIR_GUIDANCE_X], *scale = operands[WEIR_GUIDANCE_SCALE];
    float *y = operands[WEIR_GUIDANCE_Y];
    const size_t plane = (size_t)s->frames * s->pixels;
    (void)layer;
    (void)scratch;
    for (uint32_t item = 0; item < s->items; item++) {
        const float *u = x + (size_t)item * s->copies * plane * s->channels;
        const float *v = u + plane * s->channels;
        for (uint32_t c = 0; c < s->channels; c++) {
            for (size_t at = 0; at < plane; at++) {
                const size_t from = at * s->channels + c;
                *y++ = s->copies == 1 ? u[from] : u[from] + scale[item] * (v[from] - u[from]);
            }
        }
    }
}

void weir_ref_sampler_step(const struct weir_sampler_step *s, const struct weir_ref_packed *layer,
                           void *const operands[], double *scratch)
{
    float *x = operands[WEIR_SAMPLER_STEP_X], *previous = operands[WEIR_SAMPLER_STEP_PREVIOUS];
    const float *m = operands[WEIR_SAMPLER_STEP_M], *k = operands[WEIR_SAMPLER_STEP_K];
    (void)layer;
    (void)scratch;
    for (uint32_t item = 0; item < s->items; item++, k += WEIR_SAMPLER_COEFFICIENTS) {
        for (size_t i = (size_t)item * s->n; i < (size_t)(item + 1) * s->n; i++) {
            const float e = (k[4] * (k[12] * x[i]) + k[5] * m[i]) / k[6];
            float x0 = k[0] * x[i] + k[1] * m[i];
            if (k[13] != 0) x0 += k[13] * e;
            x0 /= k[2];
            x0 = x0 < -k[3] ? -k[3] : x0 > k[3] ? k[3] : x0;
            float next = k[7] * x[i] + k[8] * x0;
            if (k[9] != 0) next += k[9] * e;
            if (k[10] != 0) next += k[10] * (k[11] * (x0 - previous[i]));
            if (k[14] != 0) next += k[14] * previous[i];
            x[i] = next;
            previous[i] = x0;
        }
    }
}

void weir_ref_to_rgb8(const struct weir_to_rgb8 *s, const struct weir_ref_packed *layer, void *const operands[],
                      double *scratch)
{
    const float *x = operands[WEIR_TO_RGB8_X];
    uint8_t *y = operands[WEIR_TO_RGB8_Y];
    (void)layer;
    (void)scratch;
    for (uint64_t token = 0; token < (uint64_t)s->rows * s->tokens; token++, x += s->channels) {
        for (uint32_t c = 0; c < 3; c++) {
            float value = 0.5f * x[c] + 0.5f;
            if (!(value > 0)) value = 0; /* NaN too */
            if (value > 1) value = 1;
            value *= 255;
            *y++ = (uint8_t)(s->round ? rintf(value) : value);
        }
    }
}
