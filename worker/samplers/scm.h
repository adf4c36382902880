/* scm: the rows of the consistency sampler of Sana-Sprint, with what its pipeline does before and after the network.
 *
 * A place on the way is an angle s: x = cos(s) x0 + sin(s) z. The network was trained on another scale of time, so it
 * is asked at tau = sin / (cos + sin) with x times c = sqrt(tau^2 + (1 - tau)^2), and its output is turned into the
 * velocity of the angle:
 *   v  = ((1 - 2 tau) in + (1 - 2 tau + 2 tau^2) m) / c,  in = c x
 *   x0 = cos(s) x - sin(s) v
 *   x' = cos(s') x0 + sin(s') z, z drawn for the step
 * v is the formula's e. The angles are even from 1.5708 to 0; two steps have 1.3 between.
 *
 * Units    latents and noise in units of sigma_data: x here is x of diffusers divided by it
 * Source   Chen et al., "SANA-Sprint", arXiv:2503.09641, section 3; Lu and Song, arXiv:2410.11081; judged by diffusers'
 *          SCMScheduler and SanaSprintPipeline
 */
#ifndef WEIR_WORKER_SAMPLERS_SCM_H
#define WEIR_WORKER_SAMPLERS_SCM_H

#include "worker/samplers/internal.h"

/* Fills step_count, timesteps and coefficients of `sampler`, whose config is set. Needs no `schedule`; never fails. */
enum weir_status weir_scm_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule, uint32_t steps,
                               struct weir_error *error);

/* Where step `first` of `steps` begins: cos and sin of its angle. */
void weir_scm_start(uint32_t steps, uint32_t first, struct weir_sampler_start *out);

#endif
