/* crew: the threads behind the control thread: a lane each (lanes.h) that computes tasks, some that finish what tasks
 * left (stage.h: rest), one that answers quotes, so that none waits for another nor the control thread for any.
 *
 * What is handed over belongs to the crew until it comes back out of `done` (tasks) or `quoted`; both boxes' fds wake
 * the control thread, `done`'s also when a task made progress or left its lane. A task that is handed over while
 * another runs in its lane joins it at its next step boundary, or begins when no batch runs there any more: it must be
 * one that can join (weir_task_joins).
 *
 * Threads  all calls from the control thread
 */
#ifndef WEIR_WORKER_CREW_H
#define WEIR_WORKER_CREW_H

#include "worker/quote.h"
#include "worker/stages.h"

struct weir_crew;

/* Both are borrowed. */
enum weir_status weir_crew_start(struct weir_stages *stages, const struct weir_lanes *lanes, struct weir_quoter *quoter,
                                 struct weir_crew **out, struct weir_error *error);
/* Waits until what is in hand is finished. Letters in the boxes are the caller's: take them first, or after. */
void weir_crew_stop(struct weir_crew **crew_p);

void weir_crew_compute(struct weir_crew *crew, struct weir_task *task);
void weir_crew_quote(struct weir_crew *crew, struct weir_quote *quote);
struct weir_task *weir_crew_take_task(struct weir_crew *crew); /* NULL: none is done */
struct weir_quote *weir_crew_take_quote(struct weir_crew *crew);
int weir_crew_task_fd(const struct weir_crew *crew);
int weir_crew_quote_fd(const struct weir_crew *crew);
/* How many step boundaries of batches were passed. */
unsigned weir_crew_boundaries(const struct weir_crew *crew);
/* For task->progressed: wakes the control thread. context is the crew. */
void weir_crew_progressed(void *context);

#endif
