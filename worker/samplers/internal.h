/* What the kinds of sampler share. */
#ifndef WEIR_WORKER_SAMPLERS_INTERNAL_H
#define WEIR_WORKER_SAMPLERS_INTERNAL_H

#include "worker/samplers/sampler.h"

/* One row a step; `count` rows of capacity WEIR_SAMPLER_STEPS_MAX + 1, since a rounding may add a step. */
struct weir_sampler {
    struct weir_sampler_config config;
    bool keeps_x0;
    uint32_t step_count;
    double *timesteps;
    struct weir_sampler_coefficients *coefficients;
};

/* The share of signal left after t training steps: product of 1 - beta, f32 as torch rounds it. */
struct weir_schedule {
    float *signal; /* [count] */
    size_t count;
};

/* The arithmetic of torch on f32 scalars: one rounding an operation; the functions are rounded from double, which is
 * what torch's own vector library comes to in all but a few of a thousand values. */
float weir_log_f32(float x);
float weir_exp_f32(float x);
float weir_sin_f32(float x);
float weir_cos_f32(float x);

/* torch.linspace: from both ends towards the middle, each value one fused multiply-add. */
void weir_linspace_f32(double from, double to, size_t count, float *out);
/* numpy.linspace, of which the last of `count` values is `to` itself. */
double weir_linspace_f64(double from, double to, size_t count, size_t i);

/* Fills `out` (room for `capacity`) with 0..last in `count` even steps, rounded half to even, as numpy's linspace. */
void weir_spaced_even(double last, uint32_t count, double *out);
/* Fills `out` with start, start - ratio, ... down to above 0, rounded half to even and less one, as numpy's arange;
 * returns how many, at most `capacity`. */
uint32_t weir_spaced_down(double start, double ratio, double *out, uint32_t capacity);

/* Noise levels of a flow: s * shift / (1 + (shift - 1) * s), which keeps 0 and 1 where they are. */
double weir_flow_shift(double sigma, double shift);

/* BAD_MODEL when the first timestep is there twice: diffusers then looks for its place in the table and starts at the
 * second, so there is nothing to be equal to. */
enum weir_status weir_sampler_check_first(const struct weir_sampler *sampler, struct weir_error *error);

/* A row that changes nothing: every kind starts from it. */
struct weir_sampler_coefficients weir_sampler_coefficients_blank(void);

#endif
