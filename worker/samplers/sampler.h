/* sampler: from noise to latents, one step at a time.
 *
 * A sampler is a table, made once from a scheduler config and a step count: for each step the timestep the network is
 * asked at and the scalars of one elementwise formula. Both classes, every prediction type, clipping and either order
 * come down to the same formula, so that a device needs one kernel for all of them, and with one rounding an operation
 * (no contraction) the result is the same bits on every device and as diffusers on a CPU:
 *
 *   x0 = clamp((x0_x * x + x0_m * m) / x0_divisor, -clip, clip)
 *   e  = (e_x * x + e_m * m) / e_divisor
 *   x' = ((x_x * x + x_x0 * x0) + x_e * e) + x_d * (d_scale * (x0 - x0_previous))
 *
 * m is the guided network output, x the latents, x0 the picture the step believes in, x0_previous that of the step
 * before. A term whose factor (x_e, x_d) is 0 is left out, so x0_previous is not read where there is none.
 * The run starts from noise of variance 1 as it is drawn (init_noise_sigma 1). Nothing is drawn after that: DDIM has
 * eta 0, the solver is the deterministic one.
 *
 * A run is resumed at any step from (x, x0 of the step before): that is all the state there is.
 *
 * Shapes   latents of one item as one contiguous run of n floats, in any order, the same for m, x and x0
 * Types    f32; the scalars are computed in f32 as torch computes them
 * Threads  a sampler is read-only after create: any number of threads
 * Source   Song et al., "Denoising Diffusion Implicit Models", arXiv:2010.02502; Lu et al., "DPM-Solver++",
 *          arXiv:2211.01095; judged by diffusers: tests/golden/make_samplers.py, live_samplers.py
 */
#ifndef WEIR_WORKER_SAMPLERS_SAMPLER_H
#define WEIR_WORKER_SAMPLERS_SAMPLER_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_config;
struct weir_sampler;

#define WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX 100000
#define WEIR_SAMPLER_STEPS_MAX 1000

enum weir_sampler_kind { WEIR_SAMPLER_DDIM, WEIR_SAMPLER_DPM_SOLVER, WEIR_SAMPLER_KIND_COUNT };
enum weir_beta_schedule { WEIR_BETA_LINEAR, WEIR_BETA_SCALED_LINEAR, WEIR_BETA_SQUARED_COS, WEIR_BETA_SCHEDULE_COUNT };
enum weir_prediction { WEIR_PREDICT_EPSILON, WEIR_PREDICT_V, WEIR_PREDICT_SAMPLE, WEIR_PREDICTION_COUNT };
enum weir_spacing { WEIR_SPACING_LEADING, WEIR_SPACING_LINSPACE, WEIR_SPACING_TRAILING, WEIR_SPACING_COUNT };

/* A scheduler config with every default resolved; names are those of scheduler_config.json. */
struct weir_sampler_config {
    enum weir_sampler_kind kind;
    int64_t num_train_timesteps;
    double beta_start, beta_end;
    enum weir_beta_schedule beta_schedule;
    enum weir_prediction prediction_type;
    enum weir_spacing timestep_spacing;
    int64_t steps_offset;
    bool rescale_betas_zero_snr;
    /* DDIM */
    bool clip_sample;
    double clip_sample_range;
    bool set_alpha_to_one;
    /* DPM-Solver++ */
    int64_t solver_order;   /* 1 or 2 */
    bool solver_heun;       /* solver_type: heun, else midpoint */
    bool lower_order_final; /* counts below 15 steps */
    bool euler_at_final;
    bool final_sigma_min; /* final_sigmas_type: sigma_min, else zero */
    bool use_karras_sigmas;
    double lambda_min_clipped; /* may be -infinity */
};

/* The defaults of the kind's diffusers class: what a key that is not in the file means. */
void weir_sampler_config_default(enum weir_sampler_kind kind, struct weir_sampler_config *out);

/* "ddim" or "dpm++": what --sampler takes. false when `name` is neither. */
bool weir_sampler_kind_parse(const char *name, enum weir_sampler_kind *out);
const char *weir_sampler_kind_name(enum weir_sampler_kind kind);

/* Reads scheduler_config.json as diffusers does: keys in the file, else the class default.
 * class_name  the scheduler's class from model_index.json ("DDIMScheduler"); NULL: the file's own `_class_name`
 * override    NULL, or the kind --sampler asks for: as Class.from_config(scheduler.config) in diffusers, so keys of the
 *             file that the asked class knows count, and its own defaults fill the rest, whatever class the file is of
 * Errors   BAD_MODEL: a key of a wrong type or out of bounds; UNSUPPORTED: a class, or a value of a key, that is not
 *          offered (thresholding, solver_order 3, flow sigmas, ...). The words name the key. */
enum weir_status weir_sampler_config_read(const struct weir_config *config, const char *class_name,
                                          const enum weir_sampler_kind *override, struct weir_sampler_config *out,
                                          struct weir_error *error);

/* The scalars of one step; plain numbers, to be copied to a device array. */
struct weir_sampler_coefficients {
    float x0_x, x0_m, x0_divisor;
    float clip; /* +infinity: not clipped */
    float e_x, e_m, e_divisor;
    float x_x, x_x0, x_e;
    float x_d, d_scale;
};

/* Errors   BAD_ARGUMENT: steps not in 1..min(num_train_timesteps, WEIR_SAMPLER_STEPS_MAX); BAD_MODEL: bounds of the
 *          config, or numbers that leave the finite (epsilon where the signal is zero); NO_MEMORY */
enum weir_status weir_sampler_create(const struct weir_sampler_config *config, int64_t steps, struct weir_sampler **out,
                                     struct weir_error *error);
void weir_sampler_destroy(struct weir_sampler **sampler_p);

/* The number of calls of the network; equal to `steps` but for the rare spacings that diffusers rounds otherwise. */
uint32_t weir_sampler_step_count(const struct weir_sampler *sampler);
/* What the network is given at step i < step_count. A whole number for both kinds here; a double since others are not.
 */
double weir_sampler_timestep(const struct weir_sampler *sampler, uint32_t step);
const struct weir_sampler_coefficients *weir_sampler_coefficients(const struct weir_sampler *sampler, uint32_t step);

/* What a checkpoint keeps beside x: x0 of the last step done, n floats; 0 where the kind never looks back. */
size_t weir_sampler_state_bytes(const struct weir_sampler *sampler, size_t n);

/* One step in plain C, in place. `x0` holds x0_previous on entry (anything at step 0) and x0 on return; it may be NULL
 * when weir_sampler_state_bytes is 0. */
void weir_sampler_step(const struct weir_sampler *sampler, uint32_t step, const float *model_output, float *x,
                       float *x0, size_t n);

#endif
