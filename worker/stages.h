/* stages: the stages a worker has open, each with the memory that was planned for it. One task at a time.
 *
 * A task whose stage is open and fits runs at once. Otherwise its memory is planned, stated in the log, and compared with
 * what the device has; stages that were not used for the longest time are closed to make room; only then is anything
 * allocated. A task that would not fit even alone is TOO_LARGE, with both numbers.
 *
 * Threads  one
 */
#ifndef WEIR_WORKER_STAGES_H
#define WEIR_WORKER_STAGES_H

#include "worker/models.h"
#include "worker/stage.h"

struct weir_stages;

/* `common` without pipeline and model_digest, which come from the task's model; all is borrowed. */
enum weir_status weir_stages_create(const struct weir_models *models, const struct weir_stage_ground *common,
                                    struct weir_stages **out, struct weir_error *error);
void weir_stages_destroy(struct weir_stages **stages_p);

/* Fills task->status, error and milliseconds. */
void weir_stages_run(struct weir_stages *stages, struct weir_task *task);

/* What a quote says: the sum of the plans of all stages of an item. TOO_LARGE with the numbers when one of them does not
 * fit the device; stages that do not fit together are opened one after another. */
enum weir_status weir_stages_plan(struct weir_pipeline *pipeline, struct weir_device *device,
                                  const struct weir_item *item, uint64_t *bytes, struct weir_error *error);

#endif
