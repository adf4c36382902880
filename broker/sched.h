/* sched: who runs what and when. Pure rules: (state, event, now) -> actions.
 *
 * No socket, no clock, no log. Time comes in as a number, chance through `random`, and decisions go out as values in a
 * list: calls of the ledger and messages, in the order in which they must become true. Whoever performs them writes all
 * ledger calls of a list first, and sends only when they are durable. A ledger that refuses a call of sched means that
 * the two disagree, or that another broker has taken over: the broker stops and starts again from the ledger.
 *
 * sched knows open jobs only. It learns a job by weir_sched_load(), which is given the ledger's rows: right after the
 * submit call was durable, and at a start for every open job. Blobs (specs, artefacts) stay in the ledger; they pass
 * through events and calls as borrowed pointers.
 *
 * Order of granting: priority, then later stages before earlier ones (so that films finish before new ones begin), then
 * age. A task goes to the worker with the smallest share of its slots in use, so to a free slot before a waiting place,
 * and of equals to the one that made its input. What a grant costs depends on workers and lanes, never on tasks.
 *
 * Units    now_ms on one monotonic clock, never going back
 * Limits   weir_sched_options; weir_sched_load() answers BUSY beyond them
 * Threads  a sched belongs to one thread
 */
#ifndef WEIR_BROKER_SCHED_H
#define WEIR_BROKER_SCHED_H

#include "broker/roster.h"

struct weir_sched_options {
    uint64_t heartbeat_ms;
    uint32_t liveness; /* heartbeats missed before a worker counts as lost */
    uint64_t lease_ms;
    uint64_t renew_ms;
    uint64_t grace_ms;    /* a lost worker may come back that long before its leases end */
    uint64_t reassert_ms; /* after a start, leases wait that long for their workers */
    uint32_t crash_max;   /* charged crashes of a task */
    uint32_t fail_max;    /* retryable failures of a task */
    uint32_t lease_max;   /* leases of a task that were not released */
    uint32_t regress_max; /* times that a task's output may get lost */
    uint64_t retry_ms;    /* back-off before the second retry, doubling */
    uint64_t retry_ms_max;
    bool retry_first_at_once;
    uint32_t jobs_max, tasks_max, workers_max;
    void (*random)(void *context, void *out, size_t count);
    void *random_context;
};
/* The defaults of PROTOCOL.md sections 4 and 6; with --test-timers; random stays unset. */
struct weir_sched_options weir_sched_options_default(bool test_timers, bool embedded);

/* ---- actions ---- */

#define WEIR_ACTIONS_MAX 2048
#define WEIR_ACTIONS_PER_EVENT 512 /* room that handle(), tick() and load() want before they are called */

enum weir_action_type {
    WEIR_ACTION_LEDGER, /* must answer APPLIED */
    WEIR_ACTION_ASK,    /* a DONE that sched cannot judge: the ledger's answer decides between DONE_ACK and STALE */
    WEIR_ACTION_SEND,   /* a message about a lease */
    WEIR_ACTION_WELCOME,
    WEIR_ACTION_PING,
    WEIR_ACTION_PROBE,  /* look for the newest checkpoint of the task; answer with WEIR_EVENT_PROBED */
    WEIR_ACTION_NOTE,   /* a state or progress changed: tell whoever watches */
    WEIR_ACTION_SWEEP,  /* the job is terminal and nothing of it runs: clean the store behind it */
    WEIR_ACTION_FORGET, /* sabotage only: remove the task's checkpoints */
};

enum weir_lease_message { /* what SEND sends */
                          WEIR_SEND_LEASE,
                          WEIR_SEND_LEASE_OK,
                          WEIR_SEND_RENEW_ACK,
                          WEIR_SEND_DONE_ACK,
                          WEIR_SEND_FAIL_ACK,
                          WEIR_SEND_RELEASE_ACK,
                          WEIR_SEND_CANCEL,
                          WEIR_SEND_STALE,
};

struct weir_note {
    struct weir_job_id job;
    enum weir_job_state job_state;
    bool about_task;
    bool progress; /* nothing but a step: may be dropped */
    enum weir_stage stage;
    uint32_t index;
    enum weir_task_state task_state;
    uint32_t step, steps, attempt;
    uint32_t tasks_done, tasks;
};

struct weir_action {
    enum weir_action_type type;
    uint32_t worker; /* SEND, WELCOME, PING, ASK: slot in the roster */
    union {
        struct weir_ledger_call call; /* LEDGER, ASK */
        struct {
            enum weir_lease_message message;
            struct weir_task_id task;
            uint8_t token[WEIR_TOKEN_BYTES];
            uint32_t attempt, crashes;
            bool cancel;                   /* RENEW_ACK */
            struct weir_plan_range inputs; /* LEASE */
        } send;
        struct {
            struct weir_task_id task;
            uint8_t token[WEIR_TOKEN_BYTES];
            char tenant[WEIR_TENANT_BYTES];
        } probe; /* and FORGET */
        struct weir_note note;
        struct {
            struct weir_job_id job;
            char tenant[WEIR_TENANT_BYTES];
        } sweep;
    } u;
};

struct weir_actions {
    size_t count;
    struct weir_action items[WEIR_ACTIONS_MAX];
};

/* ---- events ---- */

struct weir_held_lease {
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
};

enum weir_event_type {
    WEIR_EVENT_HELLO, /* new_peer: by another routing id than before */
    WEIR_EVENT_CREDIT,
    WEIR_EVENT_RENEW,
    WEIR_EVENT_DONE, /* its bytes were seen in the store */
    WEIR_EVENT_FAIL,
    WEIR_EVENT_RELEASE,
    WEIR_EVENT_BYE,
    WEIR_EVENT_LOST,   /* it cannot be reached */
    WEIR_EVENT_PROBED, /* the newest checkpoint's step; 0: none */
    WEIR_EVENT_CANCEL, /* a client cancels the job */
};

struct weir_event {
    enum weir_event_type type;
    uint32_t worker;          /* slot; of all but HELLO, PROBED, CANCEL */
    uint64_t now_wall_ms;     /* for rows that people read */
    struct weir_task_id task; /* RENEW .. RELEASE, PROBED; CANCEL: its job alone */
    uint8_t token[WEIR_TOKEN_BYTES];
    union {
        struct {
            const struct weir_worker_facts *facts;
            bool new_peer;
            const struct weir_held_lease *held;
            size_t held_count;
        } hello;
        struct weir_worker_credit credit;
        struct {
            uint32_t step, steps;
            bool running;
        } renew;
        struct {
            struct weir_blob artefacts, facts; /* borrowed until the actions were performed */
            uint64_t milliseconds;             /* 0: not measured */
        } done;
        struct {
            enum weir_status status;
            const char *words;
            bool suspect; /* the device is to blame: not charged to the task */
            bool has_input;
            enum weir_stage input_stage;
            uint32_t input_index;
            bool refused; /* the broker itself refuses a DONE: answered STALE instead of FAIL_ACK */
        } fail;
        uint32_t checkpoint_step;
    } u;
};

/* ---- the rules ---- */

struct weir_sched;
enum weir_status weir_sched_create(const struct weir_sched_options *options, struct weir_sched **out,
                                   struct weir_error *error);
void weir_sched_destroy(struct weir_sched **sched);

/* Takes in an open job from its rows; the tasks must be those of the plan, in its order. After a broker's start leases
 * begin a fresh re-assert window; delays and the deadline start in full.
 * Errors   BUSY: over jobs_max or tasks_max; CONFLICT: the rows are not those of the plan; NO_MEMORY */
enum weir_status weir_sched_load(struct weir_sched *sched, uint64_t now_ms, const struct weir_ledger_job *job,
                                 const struct weir_plan *plan, const uint8_t model[WEIR_SHA256_BYTES], uint64_t shape,
                                 const struct weir_ledger_task *tasks, size_t task_count, struct weir_error *error);
/* Whether a job of so many tasks may be submitted; `also` jobs and tasks are on their way already. */
bool weir_sched_has_room(const struct weir_sched *sched, uint32_t jobs, uint32_t tasks);

/* HELLO returns the worker's slot, or WEIR_ROSTER_NONE when the roster is full; all others return NONE. CANCEL of a job
 * that is not open does nothing. */
uint32_t weir_sched_handle(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                           struct weir_actions *actions);
/* What time brings, and granting. Returns how long it may take until the next call, at most a heartbeat. When far more
 * than that has passed (half a lease or half a re-assert window), the broker was away: then no lease ends for it, as
 * after a restart. */
uint64_t weir_sched_tick(struct weir_sched *sched, uint64_t now_ms, uint64_t now_wall_ms, struct weir_actions *actions);

/* Anything came from the worker; anything was sent to it. */
void weir_sched_heard(struct weir_sched *sched, uint32_t worker, uint64_t now_ms);
void weir_sched_said(struct weir_sched *sched, uint32_t worker, uint64_t now_ms);

/* ---- what people ask ---- */

struct weir_roster *weir_sched_roster(struct weir_sched *sched);
/* Whether the task is leased under this token; the tenant of its job (until the next call into sched), else NULL. */
const char *weir_sched_holds(const struct weir_sched *sched, const struct weir_task_id *task,
                             const uint8_t token[WEIR_TOKEN_BYTES]);
/* Fills a note with where the job (stage COUNT) or task stands; false when the job is not open. */
bool weir_sched_look(const struct weir_sched *sched, const struct weir_task_id *task, struct weir_note *out);
struct weir_sched_standing {
    uint32_t position;    /* open jobs before this one; 0: it is the first */
    uint64_t expected_ms; /* until it is finished; 0: unknown */
};
bool weir_sched_standing(const struct weir_sched *sched, const struct weir_job_id *job,
                         struct weir_sched_standing *out);
struct weir_sched_counts {
    uint32_t jobs, tasks, leases;
};
struct weir_sched_counts weir_sched_counts(const struct weir_sched *sched);

#endif
