/* dpm_solver: the rows of DPM-Solver++ of order 1 or 2, multistep, deterministic; and the same over a flow.
 *
 * The first step, and the last where the config says so, is of order 1; the others look back to x0 of the step before.
 * Below noise of zero, where the logarithm of the signal-to-noise ratio is infinite, e^-h is 0 and x' is x0.
 * Over a flow (kind flow-dpm++) signal and noise add up to 1, the noise levels are even steps that flow_shift bends
 * towards noise, and a timestep is its noise level in training steps, cut off.
 *
 * Source   Lu et al., arXiv:2211.01095, algorithm 2; noise levels of Karras et al., arXiv:2206.00364, equation 5;
 *          flow: Lipman et al., arXiv:2210.02747; shift: Esser et al., arXiv:2403.03206, section 5.3.2;
 *          judged by diffusers' DPMSolverMultistepScheduler
 */
#ifndef WEIR_WORKER_SAMPLERS_DPM_SOLVER_H
#define WEIR_WORKER_SAMPLERS_DPM_SOLVER_H

#include "worker/samplers/internal.h"

/* Fills step_count, timesteps and coefficients of `sampler`, whose config is set.
 * Errors   BAD_MODEL: lambda_min_clipped leaves no timestep, or the first one is there twice; NO_MEMORY */
enum weir_status weir_dpm_solver_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                      uint32_t steps, struct weir_error *error);

#endif
