/* stages: the stages a worker has open, each with the memory that was planned for it. Each lane (lanes.h) runs one task
 * at a time, or one batch of denoise tasks of one shape.
 *
 * A task whose stage is open and fits runs at once. Otherwise its memory is planned, stated in the log, and compared with
 * what the device has; stages that were not used for the longest time are closed to make room; only then is anything
 * allocated. A task that would not fit even alone is TOO_LARGE, with both numbers.
 *
 * One ledger of memory spans all lanes. A stage that runs is never closed. Who finds no room but by that waits until
 * one of them has ended, holding nothing that others could not close meanwhile; and as long as one waits so, nobody
 * begins, nobody joins a batch, so that it comes to its turn. (A batch that plans anew while nobody sits keeps its
 * stage and waits for those that run, which need nothing more to end.)
 *
 * A batch has as many seats as are wanted (rows.h) and as fit beside the other stages that are open, and beside the
 * largest other stage of the model, so that seats never cost a stage that is needed next; with several lanes beside all
 * other stages of the model together, where that leaves room for two. One seat it always gets.
 *
 * Threads  run: one thread a lane; finish: any
 */
#ifndef WEIR_WORKER_STAGES_H
#define WEIR_WORKER_STAGES_H

#include "worker/lanes.h"
#include "worker/models.h"
#include "worker/rows.h"
#include "worker/stage.h"

struct weir_stages;

struct weir_stages_options { /* all is borrowed */
    const struct weir_models *models;
    struct weir_stage_ground common; /* without pipeline and model_digest, which come from the task's model */
    struct weir_rows *rows;
    struct weir_lanes lanes;
    unsigned stage_mask; /* what this worker runs */
};
enum weir_status weir_stages_create(const struct weir_stages_options *options, struct weir_stages **out,
                                    struct weir_error *error);
void weir_stages_destroy(struct weir_stages **stages_p);

/* Where tasks come from, beside the first one, and where all go. */
struct weir_task_flow {
    void *context;
    struct weir_task *(*next)(void *context);             /* one that joins those that run; NULL: none waits */
    void (*ended)(void *context, struct weir_task *task); /* it belongs to whoever is told */
    void (*left)(void *context, struct weir_task *task);  /* the same, who hands it to weir_stages_finish */
    void (*stepped)(void *context);                       /* a step boundary of a batch */
};
/* Runs it, and whoever joins it, to the end of all. Each is told as it ends, with status, error and milliseconds. */
void weir_stages_run(struct weir_stages *stages, struct weir_task *task, const struct weir_task_flow *flow);
/* What a task left. Its status, error and milliseconds are filled then. */
void weir_stages_finish(struct weir_stages *stages, struct weir_task *task);

/* What a quote says: the sum of the plans of all stages of an item. TOO_LARGE with the numbers when one of them does not
 * fit the device; stages that do not fit together are opened one after another. */
enum weir_status weir_stages_plan(struct weir_pipeline *pipeline, struct weir_device *device,
                                  const struct weir_item *item, uint64_t *bytes, struct weir_error *error);

#endif
