#include "worker/samplers/dpm_solver.h"

#include <math.h>
#include <stdlib.h>

#define KARRAS_RHO 7.0
#define FEW_STEPS 15 /* lower_order_final acts below */

/* A noise level as the solver sees it. */
struct level {
    float signal, noise, lambda; /* lambda = ln(signal / noise) */
};

static struct level level_of(bool flow, float sigma)
{
    struct level level;
    level.signal = flow ? 1.0f - sigma : 1.0f / sqrtf(sigma * sigma + 1.0f);
    level.noise = flow ? sigma : sigma * level.signal;
    level.lambda = weir_log_f32(level.signal) - weir_log_f32(level.noise);
    return level;
}

static float sigma_of(float signal)
{
    return sqrtf((1.0f - signal) / signal);
}

/* The number of training steps that are left when those with lambda below lambda_min_clipped are cut off. */
static int64_t steps_clipped(const struct weir_sampler_config *config, const struct weir_schedule *schedule)
{
    const float least = (float)config->lambda_min_clipped;
    size_t below = 0;
    for (size_t i = schedule->count; i > 0; i--) {
        const float signal = schedule->signal[i - 1];
        const float lambda = weir_log_f32(sqrtf(signal)) - weir_log_f32(sqrtf(1.0f - signal));
        if (!(lambda < least)) break;
        below++;
    }
    return (int64_t)(schedule->count - below);
}

static uint32_t timesteps_fill(const struct weir_sampler_config *config, int64_t last, uint32_t steps, double *out)
{
    switch (config->timestep_spacing) {
    case WEIR_SPACING_LEADING: {
        const int64_t ratio = last / (steps + 1);
        for (uint32_t i = 0; i < steps; i++) out[i] = (double)(ratio * (steps - i) + config->steps_offset);
        return steps;
    }
    case WEIR_SPACING_TRAILING:
        return weir_spaced_down((double)last, (double)config->num_train_timesteps / steps, out,
                                WEIR_SAMPLER_STEPS_MAX + 1);
    default: { /* one more than asked for, without the one at 0 */
        double ascending[WEIR_SAMPLER_STEPS_MAX + 1];
        weir_spaced_even((double)(last - 1), steps + 1, ascending);
        for (uint32_t i = 0; i < steps; i++) out[i] = ascending[steps - i];
        return steps;
    }
    }
}

/* The place of a noise level among those of training, between two of them; logs[] ascends. */
static double timestep_of(double sigma, const float *logs, size_t count)
{
    const double wanted = log(sigma > 1e-10 ? sigma : 1e-10);
    size_t low = 0;
    for (size_t i = 0; i < count; i++) {
        if (wanted - logs[i] >= 0) low = i;
    }
    if (count < 2) return 0;
    if (low > count - 2) low = count - 2;
    double weight = (logs[low] - wanted) / (double)(logs[low] - logs[low + 1]);
    weight = weight < 0 ? 0 : weight > 1 ? 1 : weight;
    return (1 - weight) * (double)low + weight * (double)(low + 1);
}

/* Replaces even spacing in time by even spacing in the seventh root of the noise level. */
static enum weir_status levels_karras(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                      uint32_t steps, float *sigmas, struct weir_error *error)
{
    float *logs = malloc(schedule->count * sizeof *logs);
    if (!logs) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a noise schedule");
    for (size_t i = 0; i < schedule->count; i++) logs[i] = weir_log_f32(sigma_of(schedule->signal[i]));

    const double first = pow(sigma_of(schedule->signal[schedule->count - 1]), 1 / KARRAS_RHO);
    const double last = pow(sigma_of(schedule->signal[0]), 1 / KARRAS_RHO);
    for (uint32_t i = 0; i < steps; i++) {
        const double ramp = steps == 1 ? 0 : i == steps - 1 ? 1 : (double)i * (1.0 / (steps - 1));
        const double sigma = pow(first + ramp * (last - first), KARRAS_RHO);
        double t = timestep_of(sigma, logs, schedule->count);
        if (sampler->config.beta_schedule != WEIR_BETA_SQUARED_COS) t = rint(t);
        sampler->timesteps[i] = trunc(t);
        sigmas[i] = (float)sigma;
    }
    sampler->step_count = steps;
    free(logs);
    return WEIR_OK;
}

static enum weir_status levels_by_time(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                       uint32_t steps, float *sigmas, struct weir_error *error)
{
    const int64_t last = steps_clipped(&sampler->config, schedule);
    if (last < 1)
        return weir_fail(error, WEIR_BAD_MODEL, "the scheduler config leaves no timestep: lambda_min_clipped is %g",
                         sampler->config.lambda_min_clipped);
    sampler->step_count = timesteps_fill(&sampler->config, last, steps, sampler->timesteps);
    for (uint32_t i = 0; i < sampler->step_count; i++) {
        const double t = sampler->timesteps[i], most = (double)schedule->count - 1;
        sigmas[i] = sigma_of(schedule->signal[(size_t)(t > most ? most : t)]); /* steps_offset may lead past the end */
    }
    return WEIR_OK;
}

/* The spacing of timesteps plays no part: even steps from noise to the first training step, less that one. */
static void levels_by_flow(struct weir_sampler *sampler, uint32_t steps, float *sigmas)
{
    const double train = (double)sampler->config.num_train_timesteps;
    for (uint32_t i = 0; i < steps; i++) {
        const double signal = weir_linspace_f64(1.0, 1.0 / train, (size_t)steps + 1, steps - i);
        const double sigma = weir_flow_shift(1.0 - signal, sampler->config.flow_shift);
        sampler->timesteps[i] = trunc(sigma * train);
        sigmas[i] = (float)sigma;
    }
    sampler->step_count = steps;
}

static struct weir_sampler_coefficients row(const struct weir_sampler_config *config, const float *sigmas, uint32_t i,
                                            bool first_order)
{
    const bool flow = config->kind == WEIR_SAMPLER_FLOW_DPM_SOLVER;
    const struct level next = level_of(flow, sigmas[i + 1]), now = level_of(flow, sigmas[i]);
    struct weir_sampler_coefficients c = weir_sampler_coefficients_blank();
    switch (config->prediction_type) {
    case WEIR_PREDICT_SAMPLE:
        c.x0_m = 1.0f;
        break;
    case WEIR_PREDICT_V:
        c.x0_x = now.signal, c.x0_m = -now.noise;
        break;
    case WEIR_PREDICT_FLOW:
        c.x0_x = 1.0f, c.x0_m = -now.noise;
        break;
    default:
        c.x0_x = 1.0f, c.x0_m = -now.noise, c.x0_divisor = now.signal;
    }
    const float h = next.lambda - now.lambda;
    const float decay = weir_exp_f32(-h) - 1.0f;
    c.x_x = next.noise / now.noise;
    c.x_x0 = -(next.signal * decay);
    if (first_order) return c;

    const float ratio = (now.lambda - level_of(flow, sigmas[i - 1]).lambda) / h;
    c.d_scale = 1.0f / ratio;
    c.x_d = config->solver_heun ? next.signal * (decay / h + 1.0f) : -(0.5f * (next.signal * decay));
    return c;
}

enum weir_status weir_dpm_solver_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                      uint32_t steps, struct weir_error *error)
{
    const struct weir_sampler_config *config = &sampler->config;
    float sigmas[WEIR_SAMPLER_STEPS_MAX + 2];

    enum weir_status status = WEIR_OK;

    if (config->kind == WEIR_SAMPLER_FLOW_DPM_SOLVER)
        levels_by_flow(sampler, steps, sigmas);
    else if (config->use_karras_sigmas)
        WEIR_TRY(levels_karras(sampler, schedule, steps, sigmas, error));
    else
        WEIR_TRY(levels_by_time(sampler, schedule, steps, sigmas, error));
    WEIR_TRY(weir_sampler_check_first(sampler, error));
    const uint32_t count = sampler->step_count;
    sigmas[count] = config->final_sigma_min ? sigma_of(schedule->signal[0]) : 0.0f;

    sampler->keeps_x0 = config->solver_order > 1;
    const bool last_first_order =
        config->euler_at_final || (config->lower_order_final && count < FEW_STEPS) || !config->final_sigma_min;
    for (uint32_t i = 0; i < count; i++) {
        const bool first_order = config->solver_order == 1 || i == 0 || (i == count - 1 && last_first_order);
        sampler->coefficients[i] = row(config, sigmas, i, first_order);
    }
cleanup:
    return status;
}
