#include "worker/samplers/ddim.h"

#include <math.h>

static uint32_t timesteps_fill(const struct weir_sampler_config *config, uint32_t steps, double *out)
{
    const int64_t train = config->num_train_timesteps;
    switch (config->timestep_spacing) {
    case WEIR_SPACING_LINSPACE:
        weir_spaced_even((double)(train - 1), steps, out);
        for (uint32_t i = 0; i < steps / 2; i++) { /* from noise to picture */
            const double late = out[i];
            out[i] = out[steps - 1 - i];
            out[steps - 1 - i] = late;
        }
        return steps;
    case WEIR_SPACING_TRAILING:
        return weir_spaced_down((double)train, (double)train / steps, out, WEIR_SAMPLER_STEPS_MAX + 1);
    default: {
        const int64_t ratio = train / steps;
        for (uint32_t i = 0; i < steps; i++) out[i] = (double)(ratio * (steps - 1 - i) + config->steps_offset);
        return steps;
    }
    }
}

static struct weir_sampler_coefficients row(const struct weir_sampler_config *config, float signal, float signal_next)
{
    const float root_signal = sqrtf(signal), root_noise = sqrtf(1.0f - signal);
    struct weir_sampler_coefficients c = weir_sampler_coefficients_blank();
    switch (config->prediction_type) {
    case WEIR_PREDICT_SAMPLE:
        c.x0_m = 1.0f;
        c.e_x = 1.0f, c.e_m = -root_signal, c.e_divisor = root_noise;
        break;
    case WEIR_PREDICT_V:
        c.x0_x = root_signal, c.x0_m = -root_noise;
        c.e_x = root_noise, c.e_m = root_signal;
        break;
    default:
        c.x0_x = 1.0f, c.x0_m = -root_noise, c.x0_divisor = root_signal;
        c.e_m = 1.0f;
    }
    if (config->clip_sample) c.clip = (float)config->clip_sample_range;
    c.x_x0 = sqrtf(signal_next);
    c.x_e = sqrtf(1.0f - signal_next);
    return c;
}

enum weir_status weir_ddim_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule, uint32_t steps,
                                struct weir_error *error)
{
    const struct weir_sampler_config *config = &sampler->config;
    const int64_t count = (int64_t)schedule->count;
    const int64_t ratio = config->num_train_timesteps / steps; /* whatever the spacing */
    const float signal_last = config->set_alpha_to_one ? 1.0f : schedule->signal[0];

    sampler->keeps_x0 = false;
    sampler->step_count = timesteps_fill(config, steps, sampler->timesteps);
    for (uint32_t i = 0; i < sampler->step_count; i++) {
        const int64_t t = (int64_t)sampler->timesteps[i], next = t - ratio;
        if (t < 0 || t >= count)
            return weir_fail(
                error, WEIR_BAD_MODEL,
                "the scheduler config asks for timestep %lld at %u steps; it has 0 to %lld (steps_offset %lld)",
                (long long)t, steps, (long long)count - 1, (long long)config->steps_offset);
        sampler->coefficients[i] = row(config, schedule->signal[t], next >= 0 ? schedule->signal[next] : signal_last);
    }
    return WEIR_OK;
}
