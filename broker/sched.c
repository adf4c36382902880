/* The tables of sched, and what time brings. What workers say is in sched_lease.c, granting in sched_grant.c. */
#include "broker/sched_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weir_sched_options weir_sched_options_default(bool test_timers, bool embedded)
{
    return (struct weir_sched_options){
        .heartbeat_ms = test_timers ? 200 : 1000,
        .liveness = 3,
        .lease_ms = test_timers ? 2000 : 30000,
        .renew_ms = test_timers ? 400 : 5000,
        .grace_ms = test_timers ? 1000
                    : embedded  ? 2500
                                : 5000,
        .reassert_ms = test_timers ? 1000
                       : embedded  ? 5000
                                   : 15000,
        .crash_max = embedded ? 10 : 3,
        .fail_max = 3,
        .lease_max = 20,
        .regress_max = 3,
        .retry_ms = 1000,
        .retry_ms_max = 60000,
        .retry_first_at_once = embedded,
        .jobs_max = 10000,
        .tasks_max = 400000,
        .workers_max = 256,
    };
}

enum weir_status weir_sched_create(const struct weir_sched_options *options, struct weir_sched **out,
                                   struct weir_error *error)
{
    struct weir_sched *sched = calloc(1, sizeof *sched);
    if (sched == NULL) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the scheduler");
    sched->options = *options;
    if (weir_roster_create(options->workers_max, &sched->roster) != WEIR_OK) {
        free(sched);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a roster of %u workers", options->workers_max);
    }
    *out = sched;
    return WEIR_OK;
}

void weir_sched_destroy(struct weir_sched **sched)
{
    if (*sched == NULL) return;
    struct job *job, *next;
    HASH_ITER(hh, (*sched)->jobs, job, next)
    {
        HASH_DEL((*sched)->jobs, job);
        free(job);
    }
    weir_roster_destroy(&(*sched)->roster);
    free(*sched);
    *sched = NULL;
}

/* ---- finding ---- */

struct job *weir_sched_find_job(const struct weir_sched *sched, const struct weir_job_id *id)
{
    struct job *job = NULL;
    HASH_FIND(hh, sched->jobs, id->bytes, WEIR_ID_BYTES, job);
    return job;
}

struct weir_sched_task *weir_sched_find_task(const struct weir_sched *sched, const struct weir_task_id *id)
{
    struct job *job = weir_sched_find_job(sched, &id->job);
    if (job == NULL || !weir_plan_has(&job->plan, id->stage, id->index)) return NULL;
    return job_task(job, id->stage, id->index);
}

/* ---- actions ---- */

struct weir_action *weir_sched_emit(struct weir_actions *actions, enum weir_action_type type)
{
    assert(actions->count < WEIR_ACTIONS_MAX);
    struct weir_action *action = &actions->items[actions->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    return action;
}

struct weir_ledger_call *weir_sched_call(struct weir_actions *actions, enum weir_ledger_op op,
                                         const struct weir_sched_task *task)
{
    struct weir_ledger_call *call = &weir_sched_emit(actions, WEIR_ACTION_LEDGER)->u.call;
    call->op = op;
    call->task = task_id(task);
    memcpy(call->token, task->token, WEIR_TOKEN_BYTES);
    return call;
}

void weir_sched_send(struct weir_actions *actions, uint32_t worker, enum weir_lease_message message,
                     const struct weir_task_id *task, const uint8_t token[WEIR_TOKEN_BYTES])
{
    struct weir_action *action = weir_sched_emit(actions, WEIR_ACTION_SEND);
    action->worker = worker;
    action->u.send.message = message;
    action->u.send.task = *task;
    memcpy(action->u.send.token, token, WEIR_TOKEN_BYTES);
}

static struct weir_note note_of_job(const struct job *job)
{
    struct weir_note note = { .job = job->id, .job_state = job->state, .tasks = job->task_count };
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) note.tasks_done += job->done[stage];
    return note;
}

static struct weir_note note_of_task(const struct weir_sched_task *task)
{
    struct weir_note note = note_of_job(task->job);
    note.about_task = true;
    note.stage = (enum weir_stage)task->stage;
    note.index = task->index;
    note.task_state = (enum weir_task_state)task->state;
    note.step = task->step;
    note.steps = task->steps;
    note.attempt = task->attempt;
    return note;
}

void weir_sched_note_job(const struct job *job, struct weir_actions *actions)
{
    weir_sched_emit(actions, WEIR_ACTION_NOTE)->u.note = note_of_job(job);
}

void weir_sched_note_task(const struct weir_sched_task *task, bool progress, struct weir_actions *actions)
{
    struct weir_note note = note_of_task(task);
    note.progress = progress;
    weir_sched_emit(actions, WEIR_ACTION_NOTE)->u.note = note;
}

/* ---- where tasks stand ---- */

static uint32_t lane_for(struct weir_sched *sched, enum weir_stage stage, uint32_t model, uint32_t class_number)
{
    for (uint32_t k = 0; k < sched->lane_count; k++) {
        const struct lane *lane = &sched->lanes[k];
        if (lane->stage == stage && lane->model == model && lane->class_number == class_number) return k;
    }
    if (class_number != WEIR_ROSTER_NONE && sched->lane_count >= LANES_MAX - LANES_UNBOUND) {
        return lane_for(sched, stage, model, WEIR_ROSTER_NONE); /* lanes only save looking: granting checks the class */
    }
    assert(sched->lane_count < LANES_MAX);
    sched->lanes[sched->lane_count] = (struct lane){ .stage = stage, .model = model, .class_number = class_number };
    return sched->lane_count++;
}

static void take_out(struct weir_sched *sched, struct weir_sched_task *task)
{
    if (task->in == IN_LANE) weir_heap_remove(&sched->lanes[task->job->lanes[task->stage]].ready, &task->node);
    if (task->in == IN_TIMERS) weir_heap_remove(&sched->timers, &task->node);
    task->in = NOWHERE;
}

void weir_sched_place(struct weir_sched *sched, struct weir_sched_task *task, enum weir_task_state state,
                      uint64_t due_ms)
{
    struct job *job = task->job;
    take_out(sched, task);
    if (task->state == WEIR_TASK_DONE && state != WEIR_TASK_DONE) job->done[task->stage]--;
    if (task->state != WEIR_TASK_DONE && state == WEIR_TASK_DONE) job->done[task->stage]++;
    const int open = weir_task_state_closed(task->state) - weir_task_state_closed(state);
    job->open = (uint32_t)((int64_t)job->open + open);
    job->dead += task->state != WEIR_TASK_DEAD && state == WEIR_TASK_DEAD;
    task->state = (uint8_t)state;
    task->node.b = job->age;
    task->node.c = task->index;
    if (state == WEIR_TASK_READY) {
        task->node.a = (uint64_t)((int64_t)INT32_MAX - job->priority);
        task->in = IN_LANE;
        weir_heap_add(&sched->lanes[job->lanes[task->stage]].ready, &task->node);
    } else if (state == WEIR_TASK_DELAYED || state == WEIR_TASK_LEASED) {
        task->node.a = due_ms;
        task->in = IN_TIMERS;
        weir_heap_add(&sched->timers, &task->node);
    }
}

static struct weir_sched_task **held_by(struct weir_sched *sched, struct weir_worker *holder)
{
    return holder != NULL ? &holder->held : &sched->unclaimed;
}

void weir_sched_hold(struct weir_sched *sched, struct weir_sched_task *task, struct weir_worker *holder)
{
    struct weir_sched_task **list = held_by(sched, holder);
    task->holder = holder;
    task->held_previous = NULL;
    task->held_next = *list;
    if (*list != NULL) (*list)->held_previous = task;
    *list = task;
    if (holder != NULL) holder->held_count++;
}

void weir_sched_unhold(struct weir_sched *sched, struct weir_sched_task *task)
{
    struct weir_sched_task **list = held_by(sched, task->holder);
    if (task->held_previous != NULL)
        task->held_previous->held_next = task->held_next;
    else
        *list = task->held_next;
    if (task->held_next != NULL) task->held_next->held_previous = task->held_previous;
    task->held_next = task->held_previous = NULL;
    if (task->holder != NULL) task->holder->held_count--;
    task->holder = NULL;
}

void weir_sched_drop_lease(struct weir_sched *sched, struct weir_sched_task *task)
{
    assert(task->state == WEIR_TASK_LEASED);
    weir_sched_unhold(sched, task);
    task->asked = task->running = false;
    task->job->leased--;
    sched->lease_count--;
}

void weir_sched_bind_class(struct weir_sched *sched, struct job *job, uint32_t class_number)
{
    job->class_number = class_number;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        const uint32_t lane = lane_for(sched, (enum weir_stage)stage, job->model, class_number);
        if (lane == job->lanes[stage]) continue;
        for (uint32_t index = 0; index < weir_plan_count(&job->plan, (enum weir_stage)stage); index++) {
            struct weir_sched_task *task = job_task(job, (enum weir_stage)stage, index);
            if (task->in != IN_LANE) continue;
            weir_heap_remove(&sched->lanes[job->lanes[stage]].ready, &task->node);
            weir_heap_add(&sched->lanes[lane].ready, &task->node);
        }
        job->lanes[stage] = lane;
    }
}

/* ---- a job comes and goes ---- */

bool weir_sched_has_room(const struct weir_sched *sched, uint32_t jobs, uint32_t tasks)
{
    return (uint64_t)sched->job_count + jobs <= sched->options.jobs_max &&
           (uint64_t)sched->task_count + tasks <= sched->options.tasks_max;
}

static uint16_t few(uint32_t count)
{
    return count < UINT16_MAX ? (uint16_t)count : UINT16_MAX;
}

static void load_task(struct weir_sched *sched, uint64_t now_ms, struct weir_sched_task *task,
                      const struct weir_ledger_task *row)
{
    task->state = WEIR_TASK_BLOCKED;
    memcpy(task->token, row->token, sizeof task->token);
    memcpy(task->worker, row->worker, sizeof task->worker);
    task->attempt = row->attempt;
    task->crash = few(row->crash);
    task->fail = few(row->fail);
    task->expired = few(row->expired);
    task->released = row->released;
    task->regress = few(row->regress);
    task->checkpoint_step = row->checkpoint_step;
    if (row->state == WEIR_TASK_LEASED) {
        task->job->leased++;
        sched->lease_count++;
        weir_sched_hold(sched, task, NULL);
        weir_sched_place(sched, task, WEIR_TASK_LEASED,
                         WEIR_SABOTAGE(NO_REARM) ? UINT64_MAX : now_ms + sched->options.reassert_ms);
    } else {
        weir_sched_place(sched, task, row->state, now_ms + row->delay_ms);
    }
}

/* A ledger is a file: what it says is checked before it is believed. */
static bool rows_fit(const struct weir_plan *plan, enum weir_job_state state, const struct weir_ledger_task *tasks)
{
    bool open = state == WEIR_JOB_CANCELLING; /* else the last task to be closed would have ended the job */
    for (uint32_t place = 0; place < weir_plan_tasks(plan); place++) {
        enum weir_stage stage;
        uint32_t index;
        weir_plan_at(plan, place, &stage, &index);
        if (tasks[place].stage != stage || tasks[place].index != index) return false;
        if ((unsigned)tasks[place].state >= WEIR_TASK_STATE_COUNT) return false;
        if (!weir_task_state_closed(tasks[place].state)) open = true;
    }
    return open;
}

enum weir_status weir_sched_load(struct weir_sched *sched, uint64_t now_ms, const struct weir_ledger_job *row,
                                 const struct weir_plan *plan, const uint8_t model[WEIR_SHA256_BYTES], uint64_t shape,
                                 const struct weir_ledger_task *tasks, size_t task_count, struct weir_error *error)
{
    const uint32_t planned = weir_plan_tasks(plan);
    if (task_count != planned) {
        return weir_fail(error, WEIR_CONFLICT, "a job has %zu tasks in the ledger and %u by its plan", task_count,
                         planned);
    }
    if ((unsigned)row->state >= WEIR_JOB_STATE_COUNT || weir_job_state_terminal(row->state) ||
        !rows_fit(plan, row->state, tasks)) {
        return weir_fail(error, WEIR_CONFLICT, "a job's rows in the ledger are not those of its plan");
    }
    if (!weir_sched_has_room(sched, 1, planned)) {
        return weir_fail(error, WEIR_BUSY, "%u jobs with %u tasks are open; the limits are %u and %u", sched->job_count,
                         sched->task_count, sched->options.jobs_max, sched->options.tasks_max);
    }
    const uint32_t model_number = weir_roster_model(sched->roster, model);
    if (model_number == WEIR_ROSTER_NONE) return weir_fail(error, WEIR_BUSY, "too many different models are in use");
    const uint32_t class_number =
        row->numerics_class[0] == 0 ? WEIR_ROSTER_NONE : weir_roster_class(sched->roster, row->numerics_class);

    struct job *job = calloc(1, sizeof *job + planned * sizeof job->tasks[0]);
    if (job == NULL) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a job of %u tasks", planned);
    *job = (struct job){ .id = row->id,
                         .state = row->state,
                         .priority = row->priority,
                         .shape = shape,
                         .cost_ms = row->cost_ms,
                         .plan = *plan,
                         .model = model_number,
                         .class_number = class_number,
                         .task_count = planned,
                         .open = planned };
    snprintf(job->tenant, sizeof job->tenant, "%s", row->tenant);
    for (int k = 0; k < 8; k++) job->age = job->age << 8 | row->id.bytes[k];
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        job->lanes[stage] = lane_for(sched, (enum weir_stage)stage, model_number, class_number);
    }
    job->hh.tbl = NULL;
    HASH_ADD(hh, sched->jobs, id.bytes, WEIR_ID_BYTES, job);
    if (job->hh.tbl == NULL) {
        free(job);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of jobs");
    }
    sched->job_count++;
    sched->task_count += planned;
    if (sched->ticked_ms == 0) sched->ticked_ms = now_ms; /* from here on an absence counts */
    for (uint32_t place = 0; place < planned; place++) {
        enum weir_stage stage;
        struct weir_sched_task *task = &job->tasks[place];
        weir_plan_at(plan, place, &stage, &task->index);
        task->stage = (uint8_t)stage;
        task->job = job;
        load_task(sched, now_ms, task, &tasks[place]);
    }
    /* A deadline, or at once what remains of a cancel that was interrupted. */
    const bool cancelled = job->state == WEIR_JOB_CANCELLING;
    if (row->deadline_ms > 0 || cancelled) {
        job->node.a = cancelled ? now_ms : now_ms + row->deadline_ms;
        job->node.b = job->age;
        job->timed = true;
        weir_heap_add(&sched->deadlines, &job->node);
    }
    return WEIR_OK;
}

void weir_sched_remove_job(struct weir_sched *sched, struct job *job)
{
    for (uint32_t place = 0; place < job->task_count; place++) take_out(sched, &job->tasks[place]);
    if (job->timed) weir_heap_remove(&sched->deadlines, &job->node);
    HASH_DEL(sched->jobs, job);
    sched->job_count--;
    sched->task_count -= job->task_count;
    free(job);
}

void weir_sched_cancel_task(struct weir_sched *sched, struct weir_sched_task *task, struct weir_actions *actions)
{
    if (task->state == WEIR_TASK_LEASED) {
        /* Without room it learns from its next RENEW. */
        if (task->holder != NULL && actions->count + 64 < WEIR_ACTIONS_MAX) {
            const struct weir_task_id id = task_id(task);
            weir_sched_send(actions, task->holder->slot, WEIR_SEND_CANCEL, &id, task->token);
        }
        weir_sched_drop_lease(sched, task);
    }
    weir_sched_place(sched, task, WEIR_TASK_CANCELLED, 0);
}

void weir_sched_close_job(struct weir_sched *sched, struct job *job, enum weir_job_state state,
                          struct weir_actions *actions)
{
    job->state = state;
    for (uint32_t place = 0; place < job->task_count; place++) {
        struct weir_sched_task *task = &job->tasks[place];
        if (!weir_task_state_closed(task->state)) weir_sched_cancel_task(sched, task, actions);
    }
    weir_sched_note_job(job, actions);
    struct weir_action *sweep = weir_sched_emit(actions, WEIR_ACTION_SWEEP);
    sweep->u.sweep.job = job->id;
    memcpy(sweep->u.sweep.tenant, job->tenant, sizeof job->tenant);
    weir_sched_remove_job(sched, job);
}

void weir_sched_finish_cancel(struct weir_sched *sched, struct job *job, uint64_t now_wall_ms,
                              struct weir_actions *actions)
{
    if (job->state != WEIR_JOB_CANCELLING || job->leased > 0) return;
    struct weir_ledger_call *call = &weir_sched_emit(actions, WEIR_ACTION_LEDGER)->u.call;
    call->op = WEIR_LEDGER_CANCEL;
    call->task.job = job->id;
    call->now_wall_ms = now_wall_ms;
    call->cause = WEIR_CANCELLED;
    snprintf(call->words, sizeof call->words, "cancelled");
    call->u.cancel.to = WEIR_JOB_CANCELLED;
    weir_sched_close_job(sched, job, WEIR_JOB_CANCELLED, actions);
}

/* ---- time ---- */

static bool has_room(const struct weir_actions *actions)
{
    return actions->count + 64 < WEIR_ACTIONS_MAX;
}

/* False when the list of actions is full and there is more to do. */
static bool tick_workers(struct weir_sched *sched, uint64_t now_ms, uint64_t now_wall_ms, struct weir_actions *actions)
{
    const struct weir_sched_options *o = &sched->options;
    for (uint32_t slot = 0; slot < weir_roster_end(sched->roster); slot++) {
        struct weir_worker *worker = weir_roster_at(sched->roster, slot);
        if (worker == NULL) continue;
        if (!has_room(actions)) return false;
        if (worker->connected && now_ms - worker->heard_ms > o->heartbeat_ms * o->liveness) {
            worker->connected = false;
            worker->lost_ms = now_ms;
        }
        if (worker->connected && now_ms - worker->said_ms >= o->heartbeat_ms) {
            weir_sched_emit(actions, WEIR_ACTION_PING)->worker = slot;
            worker->said_ms = now_ms;
        }
        if (worker->connected || now_ms - worker->lost_ms < o->grace_ms) continue;
        while (worker->held != NULL) {
            if (!has_room(actions)) return false;
            weir_sched_lease_lost(sched, worker->held, now_ms, now_wall_ms, actions);
        }
        weir_roster_remove(sched->roster, worker);
    }
    return true;
}

static bool tick_deadlines(struct weir_sched *sched, uint64_t now_ms, uint64_t now_wall_ms,
                           struct weir_actions *actions)
{
    while (sched->deadlines.root != NULL && sched->deadlines.root->a <= now_ms) {
        if (actions->count + WEIR_ACTIONS_PER_EVENT > WEIR_ACTIONS_MAX) return false;
        struct job *job = (struct job *)(void *)((char *)sched->deadlines.root - offsetof(struct job, node));
        weir_heap_remove(&sched->deadlines, &job->node);
        job->timed = false;
        if (job->state == WEIR_JOB_CANCELLING) {
            weir_sched_finish_cancel(sched, job, now_wall_ms, actions);
            continue;
        }
        struct weir_ledger_call *call = &weir_sched_emit(actions, WEIR_ACTION_LEDGER)->u.call;
        call->op = WEIR_LEDGER_CANCEL;
        call->task.job = job->id;
        call->now_wall_ms = now_wall_ms;
        call->cause = WEIR_EXPIRED;
        snprintf(call->words, sizeof call->words, "the job's deadline passed");
        call->u.cancel.to = WEIR_JOB_EXPIRED;
        weir_sched_close_job(sched, job, WEIR_JOB_EXPIRED, actions);
    }
    return true;
}

static bool tick_timers(struct weir_sched *sched, uint64_t now_ms, uint64_t now_wall_ms, struct weir_actions *actions)
{
    while (sched->timers.root != NULL && sched->timers.root->a <= now_ms) {
        if (actions->count + WEIR_ACTIONS_PER_EVENT > WEIR_ACTIONS_MAX) return false;
        struct weir_sched_task *task =
            (struct weir_sched_task *)(void *)sched->timers.root; /* node is its first member */
        if (task->state == WEIR_TASK_DELAYED) {
            /* READY by time alone: a restart would start the delay again, which costs time only, so nothing is written
             * until the lease is. The ledger takes a lease of a DELAYED task, too. */
            weir_sched_place(sched, task, WEIR_TASK_READY, 0);
            weir_sched_note_task(task, false, actions);
        } else {
            weir_sched_lease_expired(sched, task, now_ms, now_wall_ms, actions);
        }
    }
    return true;
}

static void fresh_periods(struct weir_sched *sched, struct weir_sched_task *first, uint64_t due_ms)
{
    for (struct weir_sched_task *task = first; task != NULL; task = task->held_next) {
        if (!task->asked) weir_sched_place(sched, task, WEIR_TASK_LEASED, due_ms);
    }
}

/* The broker itself was away (stopped, or the machine slept) for so long that leases may have ended which were being
 * renewed all the while, or the re-assert window with nobody to hear what was said in it. As after a restart,
 * everybody gets a fresh full period to be heard. */
static void forgive_absence(struct weir_sched *sched, uint64_t now_ms)
{
    for (uint32_t slot = 0; slot < weir_roster_end(sched->roster); slot++) {
        struct weir_worker *worker = weir_roster_at(sched->roster, slot);
        if (worker == NULL || worker->draining) continue;
        if (worker->connected)
            worker->heard_ms = now_ms;
        else
            worker->lost_ms = now_ms;
        fresh_periods(sched, worker->held, now_ms + sched->options.lease_ms);
    }
    fresh_periods(sched, sched->unclaimed, now_ms + sched->options.reassert_ms);
}

uint64_t weir_sched_tick(struct weir_sched *sched, uint64_t now_ms, uint64_t now_wall_ms, struct weir_actions *actions)
{
    const struct weir_sched_options *o = &sched->options;
    const uint64_t absence_ms = (o->lease_ms < o->reassert_ms ? o->lease_ms : o->reassert_ms) / 2;
    if (sched->ticked_ms != 0 && now_ms - sched->ticked_ms > absence_ms) forgive_absence(sched, now_ms);
    sched->ticked_ms = now_ms;
    if (!tick_workers(sched, now_ms, now_wall_ms, actions) || !tick_deadlines(sched, now_ms, now_wall_ms, actions) ||
        !tick_timers(sched, now_ms, now_wall_ms, actions)) {
        return 0;
    }
    weir_sched_grant(sched, now_ms, actions);
    if (!has_room(actions)) return 0;
    uint64_t wait_ms = o->heartbeat_ms;
    const struct weir_heap_node *next[] = { sched->timers.root, sched->deadlines.root };
    for (size_t k = 0; k < WEIR_COUNT(next); k++) {
        if (next[k] != NULL && next[k]->a - now_ms < wait_ms) wait_ms = next[k]->a - now_ms;
    }
    return wait_ms;
}

void weir_sched_heard(struct weir_sched *sched, uint32_t slot, uint64_t now_ms)
{
    struct weir_worker *worker = weir_roster_at(sched->roster, slot);
    if (worker != NULL && worker->connected) worker->heard_ms = now_ms;
}

void weir_sched_said(struct weir_sched *sched, uint32_t slot, uint64_t now_ms)
{
    struct weir_worker *worker = weir_roster_at(sched->roster, slot);
    if (worker != NULL) worker->said_ms = now_ms;
}

/* ---- what people ask ---- */

struct weir_roster *weir_sched_roster(struct weir_sched *sched)
{
    return sched->roster;
}

const char *weir_sched_holds(const struct weir_sched *sched, const struct weir_task_id *id,
                             const uint8_t token[WEIR_TOKEN_BYTES])
{
    const struct weir_sched_task *task = weir_sched_find_task(sched, id);
    return task != NULL && task->state == WEIR_TASK_LEASED && token_equal(task, token) ? task->job->tenant : NULL;
}

bool weir_sched_look(const struct weir_sched *sched, const struct weir_task_id *id, struct weir_note *out)
{
    const struct job *job = weir_sched_find_job(sched, &id->job);
    if (job == NULL) return false;
    if (id->stage == WEIR_STAGE_COUNT) {
        *out = note_of_job(job);
        return true;
    }
    const struct weir_sched_task *task = weir_sched_find_task(sched, id);
    if (task == NULL) return false;
    *out = note_of_task(task);
    return true;
}

/* What is left to do of a job, by measured seconds where there are some, else by its quote. 0: unknown. */
static uint64_t remaining_ms(const struct weir_sched *sched, const struct job *job)
{
    uint64_t measured = 0;
    uint32_t done = 0;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        const uint32_t open = weir_plan_count(&job->plan, (enum weir_stage)stage) - job->done[stage];
        const uint64_t one = weir_roster_expected_ms(sched->roster, (enum weir_stage)stage, job->shape);
        done += job->done[stage];
        if (one == 0 && open > 0) return job->cost_ms * (job->task_count - done) / job->task_count;
        measured += open * one;
    }
    return measured;
}

bool weir_sched_standing(const struct weir_sched *sched, const struct weir_job_id *id, struct weir_sched_standing *out)
{
    const struct job *mine = weir_sched_find_job(sched, id);
    if (mine == NULL) return false;
    uint64_t ahead_ms = remaining_ms(sched, mine);
    const bool known = ahead_ms > 0;
    *out = (struct weir_sched_standing){ 0 };
    for (const struct job *job = sched->jobs; job != NULL; job = job->hh.next) {
        if (job == mine || job->priority < mine->priority) continue;
        if (job->priority == mine->priority && memcmp(job->id.bytes, id->bytes, WEIR_ID_BYTES) > 0) continue;
        out->position++;
        if (job->model == mine->model) ahead_ms += remaining_ms(sched, job);
    }
    uint32_t slots = 0;
    for (uint32_t slot = 0; slot < weir_roster_end(sched->roster); slot++) {
        const struct weir_worker *worker = weir_roster_at(sched->roster, slot);
        if (worker == NULL || !weir_worker_fits(worker, WEIR_STAGE_DENOISE, mine->model, mine->class_number)) continue;
        slots += worker->facts.slots;
    }
    if (known && slots > 0) out->expected_ms = ahead_ms / slots;
    return true;
}

struct weir_sched_counts weir_sched_counts(const struct weir_sched *sched)
{
    return (struct weir_sched_counts){ sched->job_count, sched->task_count, sched->lease_count };
}
