/* sampler: from noise to latents, one step at a time.
 *
 * A sampler is a table, made once from a scheduler config and a step count: for each step the timestep the network is
 * asked at and the scalars of one elementwise formula. Every class, every prediction type, clipping and either order
 * come down to the same formula, so that a device needs one kernel for all of them, and with one rounding an operation
 * (no contraction) the result is the same bits on every device and as diffusers on a CPU:
 *
 *   in = in_x * x
 *   e  = (e_x * in + e_m * m) / e_divisor
 *   x0 = clamp(((x0_x * x + x0_m * m) + x0_e * e) / x0_divisor, -clip, clip)
 *   x' = (((x_x * x + x_x0 * x0) + x_e * e) + x_d * (d_scale * (x0 - last))) + x_n * last
 *
 * `in` is what the network is given, m its output after guidance, x the latents, x0 the picture the step believes in.
 * `last` is one array with two uses that never meet: where x_d is not 0, x0 of the step before; where x_n is not 0,
 * noise drawn for this step. A term whose factor (x0_e, x_e, x_d, x_n) is 0 is left out, so `last` is not read where
 * there is none.
 * The run starts from noise of variance 1 as it is drawn, the seed's draw number 0. Only scm draws again: step i, but
 * for the last, takes the seed's draw number i + 1 (weir_noise_draw).
 *
 * scm is SCMScheduler with what the Sprint pipeline does around it: its latents are those of diffusers divided by
 * sigma_data (exactly so when that is a power of two), so they start as they are drawn and end as what is decoded.
 *
 * A run is resumed at any step from x, x0 of the step before where the kind looks back, and the seed: that is all the
 * state there is.
 *
 * Shapes   latents of one item as one contiguous run of n floats, in any order, the same for m, x and x0
 * Types    f32; the scalars are computed in f32 as torch computes them
 * Threads  a sampler is read-only after create: any number of threads
 * Source   the headers of the kinds; judged by diffusers: tests/golden/make_samplers.py, live_samplers.py
 */
#ifndef WEIR_WORKER_SAMPLERS_SAMPLER_H
#define WEIR_WORKER_SAMPLERS_SAMPLER_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_config;
struct weir_sampler;

#define WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX 100000
#define WEIR_SAMPLER_STEPS_MAX 1000

/* A kind is what --sampler names, and one class of diffusers; only DPMSolverMultistepScheduler is two: with
 * use_flow_sigmas its noise levels are others, and so is the network that it fits. */
enum weir_sampler_kind {
    WEIR_SAMPLER_DDIM,
    WEIR_SAMPLER_DPM_SOLVER,
    WEIR_SAMPLER_FLOW_DPM_SOLVER,
    WEIR_SAMPLER_FLOW_EULER,
    WEIR_SAMPLER_SCM,
    WEIR_SAMPLER_KIND_COUNT
};
enum weir_beta_schedule { WEIR_BETA_LINEAR, WEIR_BETA_SCALED_LINEAR, WEIR_BETA_SQUARED_COS, WEIR_BETA_SCHEDULE_COUNT };
enum weir_prediction {
    WEIR_PREDICT_EPSILON,
    WEIR_PREDICT_V,
    WEIR_PREDICT_SAMPLE,
    WEIR_PREDICT_FLOW,
    WEIR_PREDICT_TRIGFLOW,
    WEIR_PREDICTION_COUNT
};
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
    /* DPM-Solver++, over flow or not */
    int64_t solver_order;   /* 1 or 2 */
    bool solver_heun;       /* solver_type: heun, else midpoint */
    bool lower_order_final; /* counts below 15 steps */
    bool euler_at_final;
    bool final_sigma_min; /* final_sigmas_type: sigma_min, else zero */
    bool use_karras_sigmas;
    double lambda_min_clipped; /* may be -infinity */
    /* over flow */
    double flow_shift; /* flow-dpm++: flow_shift; flow-euler: shift */
};

/* The defaults of the kind's diffusers class: what a key that is not in the file means. That of flow-dpm++ has
 * use_flow_sigmas and flow_prediction. */
void weir_sampler_config_default(enum weir_sampler_kind kind, struct weir_sampler_config *out);

/* What --sampler takes: "ddim", "dpm++", "flow-dpm++", "flow-euler", "scm". false when `name` is none of them. */
bool weir_sampler_kind_parse(const char *name, enum weir_sampler_kind *out);
const char *weir_sampler_kind_name(enum weir_sampler_kind kind);
/* Whether a sampler of that kind can be made for a network of that prediction. */
bool weir_sampler_predicts(enum weir_sampler_kind kind, enum weir_prediction prediction);

/* The kind that a scheduler_config.json is of. `class_name` as below. UNSUPPORTED: none that is offered. */
enum weir_status weir_sampler_kind_find(const struct weir_config *config, const char *class_name,
                                        enum weir_sampler_kind *out, struct weir_error *error);

/* Reads scheduler_config.json as diffusers does: keys in the file, else the class default.
 * class_name  the scheduler's class from model_index.json ("DDIMScheduler"); NULL: the file's own `_class_name`
 * override    NULL, or the kind --sampler asks for: as Class.from_config(scheduler.config) in diffusers, so keys of the
 *             file that the asked class knows count, and its own defaults fill the rest, whatever class the file is of.
 *             One exception: the shift is the network's, not the solver's, and has two names; where the asked kind's
 *             own is missing, the other's counts (`shift`, `flow_shift`). from_config() alone would leave it at 1
 * Errors   BAD_MODEL: a key of a wrong type or out of bounds; UNSUPPORTED: a class, or a value of a key, that is not
 *          offered (thresholding, solver_order 3, dynamic shifting, ...). The words name the key. */
enum weir_status weir_sampler_config_read(const struct weir_config *config, const char *class_name,
                                          const enum weir_sampler_kind *override, struct weir_sampler_config *out,
                                          struct weir_error *error);

/* The scalars of one step; plain numbers, to be copied to a device array: kernels/ops.h reads them by place. */
struct weir_sampler_coefficients {
    float x0_x, x0_m, x0_divisor;
    float clip; /* +infinity: not clipped */
    float e_x, e_m, e_divisor;
    float x_x, x_x0, x_e;
    float x_d, d_scale;
    float in_x, x0_e, x_n;
};

/* Errors   BAD_ARGUMENT: steps not in 1..min(num_train_timesteps, WEIR_SAMPLER_STEPS_MAX); BAD_MODEL: bounds of the
 *          config, or numbers that leave the finite (epsilon where the signal is zero); NO_MEMORY */
enum weir_status weir_sampler_create(const struct weir_sampler_config *config, int64_t steps, struct weir_sampler **out,
                                     struct weir_error *error);
void weir_sampler_destroy(struct weir_sampler **sampler_p);

/* A run that begins at a picture: x is signal * picture + noise * the seed's draw number 0, each product rounded. The
 * first `first` steps are left out; what is left is counted, and draws, from 0 on.
 * Errors   UNSUPPORTED: a kind other than scm; BAD_ARGUMENT: no step is left */
struct weir_sampler_start {
    float signal, noise;
};
enum weir_status weir_sampler_start_at(struct weir_sampler *sampler, uint32_t first, struct weir_sampler_start *out,
                                       struct weir_error *error);

/* The number of calls of the network; equal to `steps` but for the rare spacings that diffusers rounds otherwise. */
uint32_t weir_sampler_step_count(const struct weir_sampler *sampler);
/* What the network is given at step i < step_count, an f32: a whole number of training steps for ddim, dpm++ and
 * flow-dpm++, a share of them for flow-euler, sin / (cos + sin) of the angle for scm. */
double weir_sampler_timestep(const struct weir_sampler *sampler, uint32_t step);
const struct weir_sampler_coefficients *weir_sampler_coefficients(const struct weir_sampler *sampler, uint32_t step);

/* True when step i wants noise: n numbers of weir_noise_draw(seed, i + 1) in `last`. */
bool weir_sampler_draws(const struct weir_sampler *sampler, uint32_t step);

/* What a checkpoint keeps beside x: x0 of the last step done, n floats; 0 where the kind never looks back. Noise is
 * not kept but drawn again. */
size_t weir_sampler_state_bytes(const struct weir_sampler *sampler, size_t n);

/* One step in plain C, in place. `last` holds what the formula says on entry (anything at a step that reads none) and
 * x0 on return; it may be NULL when weir_sampler_state_bytes is 0 and the step draws nothing. */
void weir_sampler_step(const struct weir_sampler *sampler, uint32_t step, const float *model_output, float *x,
                       float *last, size_t n);

#endif
