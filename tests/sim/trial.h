/* trial: random calls of the ledger, and what a read says as one text: shared by model.c and power.c. */
#ifndef WEIR_SIM_TRIAL_H
#define WEIR_SIM_TRIAL_H

#include "broker/ledger.h"

#define TRIAL_BATCH_MAX 6
#define TRIAL_JOBS 3

struct trial {
    uint64_t random, number;
    struct weir_job_id jobs[TRIAL_JOBS];
    struct weir_plan plans[TRIAL_JOBS];
    struct weir_ledger_call leased[4]; /* the latest leases: what follows is often about one of them */
    uint32_t lease_count;
    struct weir_ledger_job rows[TRIAL_BATCH_MAX]; /* what submits of a batch borrow */
};

/* New jobs, and chance that follows from the number alone. */
void trial_begin(struct trial *t, uint64_t number);
uint64_t trial_next(struct trial *t);
uint32_t trial_below(struct trial *t, uint32_t limit);
struct weir_plan_range trial_range(struct trial *t);
/* A call for place `at` of a batch. */
void trial_call(struct trial *t, uint32_t at, struct weir_ledger_call *call);
/* The model has answered it: leases that were applied are remembered. */
void trial_answered(struct trial *t, const struct weir_ledger_call *call);

/* What reads said, as one text that can be compared. A weir_ledger_each with a struct told as its context. */
struct told {
    char *text;
    size_t count, capacity;
};
bool told_job(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
              size_t task_count);

#endif
