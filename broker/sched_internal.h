/* What the files of sched share: its tables, and the few moves that keep them together. */
#ifndef WEIR_BROKER_SCHED_INTERNAL_H
#define WEIR_BROKER_SCHED_INTERNAL_H

#include "broker/heap.h"
#include "broker/sabotage.h"
#include "broker/sched.h"

#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define LANES_MAX 2048
#define LANES_UNBOUND (WEIR_STAGE_COUNT * WEIR_ROSTER_MODELS_MAX) /* kept free for jobs without a class */

/* READY tasks that the same workers can run: one stage, one model, one class (or none yet). */
struct lane {
    enum weir_stage stage;
    uint32_t model, class_number;
    struct weir_heap ready;
};

enum whereabouts { NOWHERE, IN_LANE, IN_TIMERS };

/* There are hundreds of thousands of them: kept small. Of a worker's random id half is enough to know it by. */
struct weir_sched_task {
    struct weir_heap_node node; /* in its lane while READY; among the timers while DELAYED or LEASED */
    struct job *job;
    struct weir_worker *holder; /* who has the lease; NULL: nobody, or a worker that has not come back yet */
    struct weir_sched_task *held_next, *held_previous; /* among the holder's leases, or the unclaimed ones */
    uint8_t token[WEIR_TOKEN_BYTES];
    uint8_t worker[WEIR_ID_BYTES / 2]; /* of the latest lease: who has it, or who made the output */
    uint8_t avoid[WEIR_ID_BYTES / 2];  /* who failed at it last */
    uint32_t index, attempt, released, checkpoint_step;
    uint32_t step, steps;
    uint32_t inputs_seen; /* sum of its inputs' attempts when it was leased */
    uint16_t crash, fail, expired, regress;
    uint8_t stage, state, in;
    bool running; /* said so, or had a free slot when it was given */
    bool asked;   /* its worker is gone, and the store was asked for the newest checkpoint */
    bool avoids;
};

struct job {
    UT_hash_handle hh;
    struct weir_heap_node node; /* among the deadlines */
    bool timed;
    struct weir_job_id id;
    char tenant[WEIR_TENANT_BYTES];
    enum weir_job_state state;
    int32_t priority;
    uint64_t age, shape, cost_ms;
    struct weir_plan plan;
    uint32_t model, class_number;
    uint32_t lanes[WEIR_STAGE_COUNT];
    uint32_t done[WEIR_STAGE_COUNT];
    uint32_t leased, task_count;
    uint32_t open, dead; /* tasks that are not closed; that are DEAD */
    struct weir_sched_task tasks[];
};

struct weir_sched {
    struct weir_sched_options options;
    struct weir_roster *roster;
    struct job *jobs;
    uint32_t job_count, task_count, lease_count;
    struct lane lanes[LANES_MAX];
    uint32_t lane_count;
    struct weir_heap timers, deadlines;
    uint64_t ticked_ms;                /* the latest tick, or when the first job was loaded; 0: neither yet */
    struct weir_sched_task *unclaimed; /* leases of before the restart whose workers have not come back */
};

static inline bool token_equal(const struct weir_sched_task *task, const uint8_t token[WEIR_TOKEN_BYTES])
{
    return WEIR_SABOTAGE(NO_TOKEN_CHECK) || weir_bytes_equal(task->token, token, WEIR_TOKEN_BYTES);
}
/* Whether it is the worker that has the task's latest lease, or that failed at it last. */
static inline bool is_worker(const uint8_t mark[WEIR_ID_BYTES / 2], const uint8_t id[WEIR_ID_BYTES])
{
    return memcmp(mark, id, WEIR_ID_BYTES / 2) == 0;
}
static inline struct weir_task_id task_id(const struct weir_sched_task *task)
{
    return (struct weir_task_id){ task->job->id, (enum weir_stage)task->stage, task->index };
}
static inline struct weir_sched_task *job_task(struct job *job, enum weir_stage stage, uint32_t index)
{
    return &job->tasks[weir_plan_place(&job->plan, stage, index)];
}

/* sched.c */
struct job *weir_sched_find_job(const struct weir_sched *sched, const struct weir_job_id *id);
struct weir_sched_task *weir_sched_find_task(const struct weir_sched *sched, const struct weir_task_id *id);
void weir_sched_remove_job(struct weir_sched *sched, struct job *job);
struct weir_action *weir_sched_emit(struct weir_actions *actions, enum weir_action_type type);
struct weir_ledger_call *weir_sched_call(struct weir_actions *actions, enum weir_ledger_op op,
                                         const struct weir_sched_task *task);
void weir_sched_send(struct weir_actions *actions, uint32_t worker, enum weir_lease_message message,
                     const struct weir_task_id *task, const uint8_t token[WEIR_TOKEN_BYTES]);
void weir_sched_note_job(const struct job *job, struct weir_actions *actions);
void weir_sched_note_task(const struct weir_sched_task *task, bool progress, struct weir_actions *actions);
/* Puts the task into a state and where tasks of that state stand. due_ms: of DELAYED and LEASED. */
void weir_sched_place(struct weir_sched *sched, struct weir_sched_task *task, enum weir_task_state state,
                      uint64_t due_ms);
/* The lease is over: nobody holds the task; its state is the caller's to set. */
void weir_sched_drop_lease(struct weir_sched *sched, struct weir_sched_task *task);
void weir_sched_hold(struct weir_sched *sched, struct weir_sched_task *task, struct weir_worker *holder);
void weir_sched_unhold(struct weir_sched *sched, struct weir_sched_task *task);
void weir_sched_bind_class(struct weir_sched *sched, struct job *job, uint32_t class_number);
/* An open task is wanted no more: whoever has it is told. */
void weir_sched_cancel_task(struct weir_sched *sched, struct weir_sched_task *task, struct weir_actions *actions);
/* The job has ended: closes what is open, tells who works on it, and forgets it. */
void weir_sched_close_job(struct weir_sched *sched, struct job *job, enum weir_job_state state,
                          struct weir_actions *actions);
/* T9, when it is time for it. The job may be gone afterwards. */
void weir_sched_finish_cancel(struct weir_sched *sched, struct job *job, uint64_t now_wall_ms,
                              struct weir_actions *actions);

/* sched_lease.c: the ways in which a lease ends without a result */
void weir_sched_lease_lost(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms,
                           uint64_t now_wall_ms, struct weir_actions *actions);
void weir_sched_lease_expired(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms,
                              uint64_t now_wall_ms, struct weir_actions *actions);

/* sched_grant.c */
void weir_sched_grant(struct weir_sched *sched, uint64_t now_ms, struct weir_actions *actions);

#endif
