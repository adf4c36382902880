/* ddim: the rows of DDIM with eta 0.
 *
 * Nothing is drawn and nothing is remembered: x0 of the step before is never read. As in diffusers, clipping acts on x0
 * alone: the direction back to the noise is that of the unclipped output.
 *
 * Source   Song et al., arXiv:2010.02502, formulas 12 and 16; judged by diffusers' DDIMScheduler
 */
#ifndef WEIR_WORKER_SAMPLERS_DDIM_H
#define WEIR_WORKER_SAMPLERS_DDIM_H

#include "worker/samplers/internal.h"

/* Fills step_count, timesteps and coefficients of `sampler`, whose config is set.
 * Errors   BAD_MODEL: a timestep outside the training steps */
enum weir_status weir_ddim_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule, uint32_t steps,
                                struct weir_error *error);

#endif
