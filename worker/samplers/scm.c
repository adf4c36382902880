#include "worker/samplers/scm.h"

#include <math.h>

#define ANGLE_FIRST 1.57080
#define ANGLE_BETWEEN 1.3 /* of two steps */

static void angles_fill(uint32_t steps, float *out)
{
    weir_linspace_f32(ANGLE_FIRST, 0, (size_t)steps + 1, out);
    if (steps == 2) out[1] = (float)ANGLE_BETWEEN;
}

void weir_scm_start(uint32_t steps, uint32_t first, struct weir_sampler_start *out)
{
    float angles[WEIR_SAMPLER_STEPS_MAX + 1];
    angles_fill(steps, angles);
    *out = (struct weir_sampler_start){ weir_cos_f32(angles[first]), weir_sin_f32(angles[first]) };
}

enum weir_status weir_scm_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule, uint32_t steps,
                               struct weir_error *error)
{
    float angles[WEIR_SAMPLER_STEPS_MAX + 1];
    (void)schedule;
    (void)error;
    angles_fill(steps, angles);
    sampler->step_count = steps;
    sampler->keeps_x0 = false;
    for (uint32_t i = 0; i < steps; i++) {
        const float cosine = weir_cos_f32(angles[i]), sine = weir_sin_f32(angles[i]);
        const float tau = sine / (cosine + sine), rest = 1.0f - tau;
        const float scale = sqrtf(tau * tau + rest * rest);
        struct weir_sampler_coefficients *c = &sampler->coefficients[i];
        *c = weir_sampler_coefficients_blank();
        sampler->timesteps[i] = tau;
        c->in_x = scale;
        c->e_x = 1.0f - 2.0f * tau;
        c->e_m = c->e_x + 2.0f * (tau * tau);
        c->e_divisor = scale;
        c->x0_x = cosine, c->x0_e = -sine;
        c->x_x0 = weir_cos_f32(angles[i + 1]);
        c->x_n = weir_sin_f32(angles[i + 1]);
    }
    return WEIR_OK;
}
