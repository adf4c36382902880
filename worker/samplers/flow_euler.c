#include "worker/samplers/flow_euler.h"

/* The noise level of a training step, t of 1..train, as the class keeps it: f32, shifted once. */
static float level_of_training(const struct weir_sampler_config *config, double t)
{
    const float sigma = (float)t / (float)config->num_train_timesteps;
    return (float)config->flow_shift * sigma / (1.0f + (float)(config->flow_shift - 1.0) * sigma);
}

enum weir_status weir_flow_euler_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                      uint32_t steps, struct weir_error *error)
{
    const struct weir_sampler_config *config = &sampler->config;
    const double train = (double)config->num_train_timesteps;
    const double first = level_of_training(config, train) * train, last = level_of_training(config, 1) * train;
    float sigmas[WEIR_SAMPLER_STEPS_MAX + 1];
    (void)schedule;
    (void)error;

    for (uint32_t i = 0; i < steps; i++) {
        sigmas[i] = (float)weir_flow_shift(weir_linspace_f64(first, last, steps, i) / train, config->flow_shift);
        sampler->timesteps[i] = sigmas[i] * (float)train;
    }
    sigmas[steps] = 0.0f;
    sampler->step_count = steps;
    sampler->keeps_x0 = false;
    for (uint32_t i = 0; i < steps; i++) {
        struct weir_sampler_coefficients *c = &sampler->coefficients[i];
        *c = weir_sampler_coefficients_blank();
        c->x0_x = 1.0f, c->x0_m = -sigmas[i]; /* the picture it believes in; x' does not need it */
        c->e_m = 1.0f;
        c->x_x = 1.0f;
        c->x_e = sigmas[i + 1] - sigmas[i];
    }
    return WEIR_OK; /* no two levels are equal: shifts and steps have bounds */
}
