/* flow_euler: the rows of Euler's method over a flow: x' = x + (sigma' - sigma) m.
 *
 * As in diffusers the shift acts twice: on the ends of the schedule when the class is made, and on the even steps
 * between them. A timestep is its noise level in training steps, with all its fraction.
 *
 * Source   Lipman et al., arXiv:2210.02747; shift: Esser et al., arXiv:2403.03206, section 5.3.2; judged by diffusers'
 *          FlowMatchEulerDiscreteScheduler
 */
#ifndef WEIR_WORKER_SAMPLERS_FLOW_EULER_H
#define WEIR_WORKER_SAMPLERS_FLOW_EULER_H

#include "worker/samplers/internal.h"

/* Fills step_count, timesteps and coefficients of `sampler`, whose config is set. Needs no `schedule`; never fails. */
enum weir_status weir_flow_euler_plan(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                      uint32_t steps, struct weir_error *error);

#endif
