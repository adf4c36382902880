/* crew: the threads behind the control thread: one computes tasks, one answers quotes, so that neither waits for the
 * other nor the control thread for either.
 *
 * What is handed over belongs to the crew until it comes back out of `done` (tasks) or `quoted`; both boxes' fds wake
 * the control thread, `done`'s also when a task made progress. A task that is handed over while another runs joins it at
 * its next step boundary: it must be one that can (weir_task_joins).
 *
 * Threads  all calls from the control thread
 */
#ifndef WEIR_WORKER_CREW_H
#define WEIR_WORKER_CREW_H

#include "worker/quote.h"
#include "worker/stages.h"

struct weir_crew;

/* Both are borrowed. */
enum weir_status weir_crew_start(struct weir_stages *stages, struct weir_quoter *quoter, struct weir_crew **out,
                                 struct weir_error *error);
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
