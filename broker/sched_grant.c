/* Granting: which READY task goes to which worker. T2. */
#include "broker/sched_internal.h"

#include <assert.h>
#include <string.h>

#define ASIDE_MAX 16 /* tasks looked past in one round because their only free worker failed at them before */

/* Order between the heads of lanes: priority, then later stages, then age. */
static bool comes_before(const struct weir_sched_task *x, const struct weir_sched_task *y)
{
    if (x->node.a != y->node.a) return x->node.a < y->node.a;
    if (x->stage != y->stage) return x->stage > y->stage;
    return weir_heap_before(&x->node, &y->node);
}

static bool lane_has_taker(const struct weir_sched *sched, const struct lane *lane)
{
    for (uint32_t slot = 0; slot < weir_roster_end(sched->roster); slot++) {
        const struct weir_worker *worker = weir_roster_at(sched->roster, slot);
        if (worker != NULL && weir_worker_has_room(worker, lane->stage) &&
            weir_worker_fits(worker, lane->stage, lane->model, lane->class_number)) {
            return true;
        }
    }
    return false;
}

/* Who made the task's first input; NULL when it has none. */
static const uint8_t *maker_of_input(const struct weir_sched_task *task)
{
    const struct weir_plan_range inputs = weir_plan_inputs(&task->job->plan, (enum weir_stage)task->stage, task->index);
    return inputs.count == 0 ? NULL : job_task(task->job, inputs.stage, inputs.first)->worker;
}

/* The one with the smaller share of its slots in use: so a free slot goes before a waiting place, and many tasks spread
 * over all workers. Of equals the one that made the input, and then the one with less to do. */
static bool is_better(const struct weir_worker *worker, const struct weir_worker *than, const uint8_t *maker)
{
    const uint64_t mine = (uint64_t)worker->held_count * than->facts.slots;
    const uint64_t other = (uint64_t)than->held_count * worker->facts.slots;
    if (mine != other) return mine < other;
    const bool is_maker = maker != NULL && is_worker(maker, worker->facts.id);
    const bool is_other = maker != NULL && is_worker(maker, than->facts.id);
    if (is_maker != is_other) return is_maker;
    return worker->held_count < than->held_count;
}

/* The best worker with room, or NULL. A worker that failed at the task is passed over while another could run it, even
 * if that one is busy now. */
static struct weir_worker *choose(const struct weir_sched *sched, const struct weir_sched_task *task)
{
    const struct job *job = task->job;
    const uint8_t *maker = maker_of_input(task);
    struct weir_worker *best = NULL, *avoided = NULL;
    bool other = false;

    for (uint32_t slot = 0; slot < weir_roster_end(sched->roster); slot++) {
        struct weir_worker *worker = weir_roster_at(sched->roster, slot);
        if (worker == NULL || !weir_worker_fits(worker, (enum weir_stage)task->stage, job->model, job->class_number)) {
            continue;
        }
        const bool avoid = task->avoids && is_worker(task->avoid, worker->facts.id);
        if (!avoid) other = true;
        if (!weir_worker_has_room(worker, (enum weir_stage)task->stage)) continue;
        if (avoid) {
            avoided = worker;
            continue;
        }
        if (best == NULL || is_better(worker, best, maker)) best = worker;
    }
    if (best == NULL && !other) best = avoided;
    return best;
}

static void lease(struct weir_sched *sched, uint64_t now_ms, struct weir_sched_task *task, struct weir_worker *worker,
                  struct weir_actions *actions)
{
    struct job *job = task->job;
    uint8_t fresh[WEIR_TOKEN_BYTES];
    sched->options.random(sched->options.random_context, fresh, sizeof fresh);
    if (!(WEIR_SABOTAGE(TOKEN_REUSED) && task->attempt > 0)) memcpy(task->token, fresh, sizeof fresh);

    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_LEASE, task);
    memcpy(call->u.lease.worker, worker->facts.id, WEIR_ID_BYTES);
    call->u.lease.worker_pid = worker->facts.pid;
    strcpy(call->u.lease.numerics_class, weir_roster_class_text(sched->roster, worker->class_number));

    task->attempt++;
    task->step = task->steps = 0;
    memcpy(task->worker, worker->facts.id, sizeof task->worker);
    task->running = worker->held_count == 0; /* of others it is known when they say so */
    task->asked = false;
    task->inputs_seen = 0;
    const struct weir_plan_range inputs = weir_plan_inputs(&job->plan, (enum weir_stage)task->stage, task->index);
    for (uint32_t k = 0; k < inputs.count; k++) {
        task->inputs_seen += job_task(job, inputs.stage, inputs.first + k)->attempt;
    }
    const bool first = job->state == WEIR_JOB_QUEUED;
    job->state = WEIR_JOB_RUNNING;
    job->leased++;
    sched->lease_count++;
    weir_worker_take_credit(worker, (enum weir_stage)task->stage);
    weir_sched_place(sched, task, WEIR_TASK_LEASED, now_ms + sched->options.lease_ms);
    weir_sched_hold(sched, task, worker);
    if (job->class_number == WEIR_ROSTER_NONE) weir_sched_bind_class(sched, job, worker->class_number);

    struct weir_action *send = weir_sched_emit(actions, WEIR_ACTION_SEND);
    send->worker = worker->slot;
    send->u.send.message = WEIR_SEND_LEASE;
    send->u.send.task = task_id(task);
    send->u.send.attempt = task->attempt;
    send->u.send.crashes = task->crash;
    send->u.send.inputs = inputs;
    memcpy(send->u.send.token, task->token, WEIR_TOKEN_BYTES);
    if (first) weir_sched_note_job(job, actions);
    weir_sched_note_task(task, false, actions);
}

void weir_sched_grant(struct weir_sched *sched, uint64_t now_ms, struct weir_actions *actions)
{
    struct weir_sched_task *aside[ASIDE_MAX];
    size_t aside_count = 0;

    while (actions->count + 64 < WEIR_ACTIONS_MAX && aside_count < ASIDE_MAX) {
        struct weir_sched_task *best = NULL;
        for (uint32_t k = 0; k < sched->lane_count; k++) {
            struct weir_sched_task *head = (struct weir_sched_task *)(void *)sched->lanes[k].ready.root;
            if (head == NULL || (best != NULL && !comes_before(head, best))) continue;
            if (lane_has_taker(sched, &sched->lanes[k])) best = head;
        }
        if (best == NULL) break;
        struct weir_worker *worker = choose(sched, best);
        if (worker != NULL) {
            lease(sched, now_ms, best, worker, actions);
        } else {
            weir_heap_remove(&sched->lanes[best->job->lanes[best->stage]].ready, &best->node);
            best->in = NOWHERE;
            aside[aside_count++] = best;
        }
    }
    while (aside_count > 0) {
        struct weir_sched_task *task = aside[--aside_count];
        weir_sched_place(sched, task, WEIR_TASK_READY, 0);
    }
}
