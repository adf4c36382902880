/* What workers say about leases, and the ways in which a lease ends. Numbers T1 .. T13 are PROTOCOL.md's. */
#include "broker/sched_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- ends without a result ---- */

static bool leases_spent(const struct weir_sched *sched, const struct weir_sched_task *task)
{
    return task->attempt - task->released >= sched->options.lease_max;
}

/* Before the retry after `count` charged failures: doubling, with full jitter. */
static uint64_t back_off_ms(const struct weir_sched *sched, uint32_t count)
{
    const struct weir_sched_options *o = &sched->options;
    if (count <= 1 && o->retry_first_at_once) return 0;
    uint64_t limit = o->retry_ms;
    for (uint32_t k = 1; k < count && limit < o->retry_ms_max; k++) limit *= 2;
    if (limit > o->retry_ms_max) limit = o->retry_ms_max;
    uint64_t chance = 0;
    o->random(o->random_context, &chance, sizeof chance);
    return 1 + chance % limit;
}

static bool inputs_done(struct weir_sched_task *task)
{
    const struct weir_plan_range inputs = weir_plan_inputs(&task->job->plan, (enum weir_stage)task->stage, task->index);
    for (uint32_t k = 0; k < inputs.count; k++) {
        if (job_task(task->job, inputs.stage, inputs.first + k)->state != WEIR_TASK_DONE) return false;
    }
    return true;
}

/* Where a task goes that is to be tried again: an input that got lost meanwhile must be made again first. */
static enum weir_task_state again(struct weir_sched_task *task, uint64_t delay_ms)
{
    if (!inputs_done(task)) return WEIR_TASK_BLOCKED;
    return delay_ms > 0 ? WEIR_TASK_DELAYED : WEIR_TASK_READY;
}

static void avoid_worker(struct weir_sched_task *task)
{
    memcpy(task->avoid, task->worker, sizeof task->avoid);
    task->avoids = true;
}

/* Why a task is DEAD, in the call that says so; of a job of several items it names the item. */
static void blame(struct weir_ledger_call *call, const struct weir_sched_task *task, enum weir_status cause,
                  const char *words)
{
    char item[32] = "";
    const struct weir_plan *plan = &task->job->plan;
    if (plan->items > 1) {
        snprintf(item, sizeof item, "item %u: ", weir_plan_item(plan, (enum weir_stage)task->stage, task->index));
    }
    call->cause = cause;
    weir_ledger_words(item, words, call->words);
}

/* When the call closes the job's last open task, it ends the job, too. */
static bool ends_job(const struct job *job, struct weir_ledger_call *call)
{
    if (job->open > 0) return false;
    call->job_to = job->dead > 0 ? WEIR_JOB_FAILED : WEIR_JOB_SUCCEEDED;
    if (job->dead > 0 && job->plan.items > 1) {
        snprintf(call->lead, sizeof call->lead, "%u of %u items failed; the first, ",
                 job->plan.items - job->done[weir_plan_last(&job->plan)], job->plan.items);
    }
    return true;
}

static bool any_open(struct job *job, const struct weir_plan_range *range)
{
    for (uint32_t k = 0; k < range->count; k++) {
        if (!weir_task_state_closed(job_task(job, range->stage, range->first + k)->state)) return true;
    }
    return false;
}

/* The text of an item that is lost, when it is being made again and no other item is left that wants it. */
static struct weir_plan_range lost_text(struct job *job, uint32_t item)
{
    const struct weir_plan *plan = &job->plan;
    struct weir_plan_range text = weir_plan_inputs(plan, WEIR_STAGE_DENOISE, item);
    const uint32_t first = weir_plan_item(plan, text.stage, text.first);
    const uint32_t count = weir_plan_item_count(plan, text.stage, text.first);
    if (!any_open(job, &text)) text.count = 0;
    for (int stage = WEIR_STAGE_DENOISE; text.count > 0 && stage < WEIR_STAGE_COUNT; stage++) {
        const struct weir_plan_range tasks = weir_plan_of_items(plan, (enum weir_stage)stage, first, count);
        if (any_open(job, &tasks)) text.count = 0;
    }
    return text;
}

static void cancel_range(struct weir_sched *sched, struct job *job, const struct weir_plan_range *range,
                         struct weir_actions *actions)
{
    for (uint32_t k = 0; k < range->count; k++) {
        struct weir_sched_task *task = job_task(job, range->stage, range->first + k);
        if (!weir_task_state_closed(task->state)) weir_sched_cancel_task(sched, task, actions);
    }
}

/* A task is DEAD: its items are lost with it, and no others. The job may be gone afterwards. */
static void lose_items(struct weir_sched *sched, const struct weir_sched_task *dead, struct weir_ledger_call *call,
                       struct weir_actions *actions)
{
    struct job *job = dead->job;
    uint32_t first = weir_plan_item(&job->plan, (enum weir_stage)dead->stage, dead->index);
    uint32_t count = weir_plan_item_count(&job->plan, (enum weir_stage)dead->stage, dead->index);
    if (WEIR_SABOTAGE(DEAD_CLOSES_NEIGHBOURS)) first = 0, count = job->plan.items;
    for (int stage = WEIR_STAGE_DENOISE; stage < WEIR_STAGE_COUNT; stage++) {
        call->lost[stage] = weir_plan_of_items(&job->plan, (enum weir_stage)stage, first, count);
        cancel_range(sched, job, &call->lost[stage], actions);
    }
    call->lost[WEIR_STAGE_TEXT] = lost_text(job, first);
    cancel_range(sched, job, &call->lost[WEIR_STAGE_TEXT], actions);
    if (WEIR_SABOTAGE(LOST_NOT_ENDED)) return;
    if (ends_job(job, call)) weir_sched_close_job(sched, job, WEIR_JOB_FAILED, actions);
}

/* `call` was emitted; the same is done here, and what it means for others is added to it. */
static void leave(struct weir_sched *sched, struct weir_sched_task *task, struct weir_ledger_call *call,
                  enum weir_task_state to, uint64_t due_ms, struct weir_actions *actions)
{
    struct job *job = task->job;
    weir_sched_drop_lease(sched, task);
    task->step = 0;
    if (WEIR_SABOTAGE(FORGET_CHECKPOINT) && (to == WEIR_TASK_READY || to == WEIR_TASK_DELAYED)) {
        struct weir_action *forget = weir_sched_emit(actions, WEIR_ACTION_FORGET);
        forget->u.probe.task = task_id(task);
        memcpy(forget->u.probe.tenant, job->tenant, sizeof job->tenant);
    }
    weir_sched_place(sched, task, to, due_ms);
    weir_sched_note_task(task, false, actions);
    if (to == WEIR_TASK_DEAD) lose_items(sched, task, call, actions);
}

static void expire(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms, uint64_t now_wall_ms,
                   bool charged, uint32_t checkpoint_step, struct weir_actions *actions)
{
    struct job *job = task->job;
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_EXPIRE, task);
    enum weir_task_state to = again(task, 0);
    uint64_t delay_ms = 0;

    if (charged)
        task->crash++;
    else
        task->expired++;
    if (checkpoint_step > task->checkpoint_step) task->checkpoint_step = checkpoint_step;
    if (job->state == WEIR_JOB_CANCELLING) {
        to = WEIR_TASK_CANCELLED;
    } else if (task->crash >= sched->options.crash_max || leases_spent(sched, task)) {
        char words[WEIR_LEDGER_WORDS_BYTES];
        to = WEIR_TASK_DEAD;
        snprintf(words, sizeof words, "%s/%u: given up after %u crashes and %u lost leases",
                 weir_stage_name(task->stage), task->index, task->crash, task->expired);
        blame(call, task, task->crash >= sched->options.crash_max ? WEIR_CRASHED : WEIR_TIMEOUT, words);
    } else if (charged) {
        delay_ms = back_off_ms(sched, task->crash);
        to = again(task, delay_ms);
    }
    call->now_wall_ms = now_wall_ms;
    call->u.expire.to = to;
    call->u.expire.delay_ms = delay_ms;
    call->u.expire.charged = charged;
    call->u.expire.checkpoint_step = checkpoint_step;
    avoid_worker(task);
    leave(sched, task, call, to, now_ms + delay_ms, actions);
    if (to == WEIR_TASK_CANCELLED) weir_sched_finish_cancel(sched, job, now_wall_ms, actions);
}

static void probe(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms, struct weir_actions *actions)
{
    struct weir_action *action = weir_sched_emit(actions, WEIR_ACTION_PROBE);
    action->u.probe.task = task_id(task);
    memcpy(action->u.probe.token, task->token, WEIR_TOKEN_BYTES);
    memcpy(action->u.probe.tenant, task->job->tenant, sizeof task->job->tenant);
    task->asked = true;
    /* Without an answer it is asked again. */
    weir_sched_place(sched, task, WEIR_TASK_LEASED, now_ms + sched->options.heartbeat_ms * sched->options.liveness);
}

/* T7: the worker is gone for good. Whether a crash is charged depends on its checkpoints, so the store is asked
 * first. */
void weir_sched_lease_lost(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms,
                           uint64_t now_wall_ms, struct weir_actions *actions)
{
    if (task->running && task->job->state != WEIR_JOB_CANCELLING) {
        weir_sched_unhold(sched, task);
        weir_sched_hold(sched, task, NULL);
        probe(sched, task, now_ms, actions);
        return;
    }
    expire(sched, task, now_ms, now_wall_ms, false, 0, actions);
}

/* T7: nobody renewed it in time. */
void weir_sched_lease_expired(struct weir_sched *sched, struct weir_sched_task *task, uint64_t now_ms,
                              uint64_t now_wall_ms, struct weir_actions *actions)
{
    if (task->asked && task->job->state != WEIR_JOB_CANCELLING)
        probe(sched, task, now_ms, actions);
    else
        expire(sched, task, now_ms, now_wall_ms, false, 0, actions);
}

static void probed(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                   struct weir_actions *actions)
{
    struct weir_sched_task *task = weir_sched_find_task(sched, &event->task);
    if (task == NULL || task->state != WEIR_TASK_LEASED || !task->asked || !token_equal(task, event->token)) return;
    const bool charged = event->u.checkpoint_step <= task->checkpoint_step;
    expire(sched, task, now_ms, event->now_wall_ms, charged, event->u.checkpoint_step, actions);
}

/* ---- HELLO ---- */

static bool is_held(const struct weir_event *event, const struct weir_sched_task *task)
{
    for (size_t k = 0; k < event->u.hello.held_count; k++) {
        if (weir_bytes_equal(event->u.hello.held[k].token, task->token, WEIR_TOKEN_BYTES)) return true;
    }
    return false;
}

/* Leases that a worker which came back does not know of: their LEASE was lost with the old connection. */
static void expire_unknown(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                           struct weir_sched_task *first, struct weir_actions *actions)
{
    for (struct weir_sched_task *task = first, *next; task != NULL; task = next) {
        next = task->held_next;
        if (!is_worker(task->worker, event->u.hello.facts->id) || is_held(event, task)) continue;
        if (actions->count + 128 > WEIR_ACTIONS_MAX) return; /* the rest expires by time */
        const struct job *job = task->job;
        const bool last = job->state == WEIR_JOB_CANCELLING || leases_spent(sched, task);
        expire(sched, task, now_ms, event->now_wall_ms, false, 0, actions);
        if (last) return; /* other leases may be gone, and `next` with them */
    }
}

/* T13 */
static void reassert(struct weir_sched *sched, uint64_t now_ms, const struct weir_held_lease *held,
                     struct weir_worker *worker, struct weir_actions *actions)
{
    struct weir_sched_task *task = weir_sched_find_task(sched, &held->task);
    const bool mine = task != NULL && token_equal(task, held->token);
    if (mine && task->state == WEIR_TASK_DONE) {
        weir_sched_send(actions, worker->slot, WEIR_SEND_DONE_ACK, &held->task, held->token);
        return;
    }
    if (!mine || task->state != WEIR_TASK_LEASED) {
        weir_sched_send(actions, worker->slot, WEIR_SEND_STALE, &held->task, held->token);
        return;
    }
    weir_sched_unhold(sched, task);
    weir_sched_hold(sched, task, worker);
    task->asked = false;
    weir_sched_place(sched, task, WEIR_TASK_LEASED, now_ms + sched->options.lease_ms);
    weir_sched_send(actions, worker->slot, WEIR_SEND_LEASE_OK, &held->task, held->token);
    if (task->job->state == WEIR_JOB_CANCELLING) {
        weir_sched_send(actions, worker->slot, WEIR_SEND_CANCEL, &held->task, held->token);
    }
}

static uint32_t hello(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                      struct weir_actions *actions)
{
    struct weir_worker *worker = weir_roster_hello(sched->roster, event->u.hello.facts, now_ms);
    if (worker == NULL) return WEIR_ROSTER_NONE;
    weir_sched_emit(actions, WEIR_ACTION_WELCOME)->worker = worker->slot;
    for (size_t k = 0; k < event->u.hello.held_count; k++) {
        reassert(sched, now_ms, &event->u.hello.held[k], worker, actions);
    }
    if (event->u.hello.new_peer) {
        expire_unknown(sched, now_ms, event, worker->held, actions);
        expire_unknown(sched, now_ms, event, sched->unclaimed, actions);
    }
    return worker->slot;
}

/* ---- leases in a worker's hands ---- */

static void answer(const struct weir_event *event, enum weir_lease_message message, struct weir_actions *actions)
{
    weir_sched_send(actions, event->worker, message, &event->task, event->token);
}

/* The task when it is leased under the event's token; else NULL, and the worker was told STALE, or, when the same was
 * said and written before, `again`. */
static struct weir_sched_task *leased(struct weir_sched *sched, const struct weir_event *event,
                                      enum weir_lease_message again, struct weir_actions *actions)
{
    struct weir_sched_task *task = weir_sched_find_task(sched, &event->task);
    const bool mine = task != NULL && task->attempt > 0 && token_equal(task, event->token);
    if (mine && task->state == WEIR_TASK_LEASED) return task;
    const bool ended = mine && task->state != WEIR_TASK_DONE;
    answer(event, ended ? again : WEIR_SEND_STALE, actions);
    return NULL;
}

/* Whoever speaks of a lease has it: a lease of before a restart finds its worker again. */
static void claim(struct weir_sched *sched, struct weir_sched_task *task, uint32_t slot)
{
    struct weir_worker *worker = weir_roster_at(sched->roster, slot);
    if (task->holder == worker || worker == NULL) return;
    weir_sched_unhold(sched, task);
    weir_sched_hold(sched, task, worker);
    task->asked = false;
}

/* T3 */
static void renew(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                  struct weir_actions *actions)
{
    struct weir_sched_task *task = weir_sched_find_task(sched, &event->task);
    if (task == NULL || task->state != WEIR_TASK_LEASED ||
        !(token_equal(task, event->token) || WEIR_SABOTAGE(RENEW_STALE))) {
        answer(event, WEIR_SEND_STALE, actions);
        return;
    }
    claim(sched, task, event->worker);
    const bool moved = task->step != event->u.renew.step || task->steps != event->u.renew.steps;
    task->running = event->u.renew.running;
    task->step = event->u.renew.step;
    task->steps = event->u.renew.steps;
    weir_sched_place(sched, task, WEIR_TASK_LEASED, now_ms + sched->options.lease_ms);
    struct weir_action *ack = weir_sched_emit(actions, WEIR_ACTION_SEND);
    ack->worker = event->worker;
    ack->u.send.message = WEIR_SEND_RENEW_ACK;
    ack->u.send.task = event->task;
    memcpy(ack->u.send.token, event->token, WEIR_TOKEN_BYTES);
    ack->u.send.cancel = task->job->state == WEIR_JOB_CANCELLING;
    if (moved) weir_sched_note_task(task, true, actions);
}

/* Those of the task's consumers that its result makes READY: all BLOCKED ones in the range, in ledger and memory. */
static struct weir_plan_range successors(const struct weir_sched_task *task)
{
    struct job *job = task->job;
    struct weir_plan_range range = weir_plan_consumers(&job->plan, (enum weir_stage)task->stage, task->index);
    /* Only assemble waits for several tasks, and it is one task. */
    if (range.stage == WEIR_STAGE_ASSEMBLE && range.count == 1 &&
        !inputs_done(job_task(job, range.stage, range.first))) {
        range.count = 0;
    }
    if (WEIR_SABOTAGE(NO_SUCCESSOR) && range.stage == WEIR_STAGE_DECODE) range.count = 0;
    return range;
}

/* The lease of a job that is being cancelled ends; nothing of it becomes visible. */
static void end_cancelled(struct weir_sched *sched, struct weir_sched_task *task, const struct weir_event *event,
                          enum weir_lease_message message, struct weir_actions *actions)
{
    struct job *job = task->job;
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_RELEASE, task);
    call->u.release.to = WEIR_TASK_CANCELLED;
    task->released++;
    answer(event, message, actions);
    leave(sched, task, call, WEIR_TASK_CANCELLED, 0, actions);
    weir_sched_finish_cancel(sched, job, event->now_wall_ms, actions);
}

/* T4 */
static void done(struct weir_sched *sched, const struct weir_event *event, struct weir_actions *actions)
{
    struct weir_sched_task *task = weir_sched_find_task(sched, &event->task);
    const bool mine = task != NULL && task->attempt > 0 && token_equal(task, event->token);
    const bool twice = WEIR_SABOTAGE(DONE_TWICE) && mine && task->state == WEIR_TASK_DONE;

    if (task == NULL || (mine && task->state == WEIR_TASK_DONE && !twice)) {
        /* Said before, or of a job that is no longer open: the ledger knows, by token and digests. */
        struct weir_action *ask = weir_sched_emit(actions, WEIR_ACTION_ASK);
        ask->worker = event->worker;
        ask->u.call.op = WEIR_LEDGER_COMMIT;
        ask->u.call.task = event->task;
        memcpy(ask->u.call.token, event->token, WEIR_TOKEN_BYTES);
        ask->u.call.u.commit.artefacts = event->u.done.artefacts;
        ask->u.call.u.commit.facts = event->u.done.facts;
        return;
    }
    if (!mine || (task->state != WEIR_TASK_LEASED && !twice)) {
        answer(event, WEIR_SEND_STALE, actions);
        return;
    }
    struct job *job = task->job;
    if (job->state == WEIR_JOB_CANCELLING && !WEIR_SABOTAGE(COMMIT_AFTER_CANCEL)) {
        end_cancelled(sched, task, event, WEIR_SEND_STALE, actions);
        return;
    }
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_COMMIT, task);
    memcpy(call->token, event->token, WEIR_TOKEN_BYTES);
    call->now_wall_ms = event->now_wall_ms;
    call->u.commit.artefacts = event->u.done.artefacts;
    call->u.commit.facts = event->u.done.facts;
    if (!twice) weir_sched_drop_lease(sched, task);
    weir_sched_place(sched, task, WEIR_TASK_DONE, 0);
    task->step = task->steps;
    const struct weir_plan_range ready = successors(task);
    const bool last = ends_job(job, call);
    call->u.commit.ready = ready;
    if (event->u.done.milliseconds > 0) {
        weir_roster_measured(sched->roster, (enum weir_stage)task->stage, job->shape, event->u.done.milliseconds);
    }
    answer(event, WEIR_SEND_DONE_ACK, actions);
    weir_sched_note_task(task, false, actions);
    for (uint32_t k = 0; k < ready.count; k++) {
        struct weir_sched_task *next = job_task(job, ready.stage, ready.first + k);
        if (next->state == WEIR_TASK_BLOCKED) weir_sched_place(sched, next, WEIR_TASK_READY, 0);
    }
    if (last) weir_sched_close_job(sched, job, call->job_to, actions);
}

/* ---- FAIL ---- */

static uint32_t inputs_attempts(struct weir_sched_task *task)
{
    const struct weir_plan_range inputs = weir_plan_inputs(&task->job->plan, (enum weir_stage)task->stage, task->index);
    uint32_t sum = 0;
    for (uint32_t k = 0; k < inputs.count; k++) sum += job_task(task->job, inputs.stage, inputs.first + k)->attempt;
    return sum;
}

/* T11. False when the event names no input of the task: then it is a failure like others. */
static bool lost_input(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                       struct weir_sched_task *task, struct weir_actions *actions)
{
    struct job *job = task->job;
    const struct weir_plan_range inputs = weir_plan_inputs(&job->plan, (enum weir_stage)task->stage, task->index);
    if (event->u.fail.status != WEIR_INPUT_LOST || !event->u.fail.has_input ||
        event->u.fail.input_stage != inputs.stage || event->u.fail.input_index < inputs.first ||
        event->u.fail.input_index - inputs.first >= inputs.count) {
        return false;
    }
    struct weir_sched_task *producer = job_task(job, inputs.stage, event->u.fail.input_index);
    const bool outdated = task->inputs_seen != inputs_attempts(task);
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_FAIL, task);
    enum weir_task_state to = WEIR_TASK_BLOCKED;

    call->now_wall_ms = event->now_wall_ms;
    if (outdated && inputs_done(task)) {
        /* It was made again since this lease was given: try with the new one. */
        call->op = WEIR_LEDGER_RELEASE;
        call->u.release.to = to = WEIR_TASK_READY;
        task->released++;
    } else if (producer->state == WEIR_TASK_DONE && producer->regress >= sched->options.regress_max) {
        char words[WEIR_LEDGER_WORDS_BYTES];
        to = WEIR_TASK_DEAD;
        snprintf(words, sizeof words, "the output of %s/%u was lost %u times", weir_stage_name(producer->stage),
                 producer->index, producer->regress + 1);
        blame(call, task, WEIR_INPUT_LOST, words);
        call->u.fail.to = to;
    } else {
        call->u.fail.to = to;
        call->u.fail.regress = producer->state == WEIR_TASK_DONE;
        task->released++;
    }
    if (to == WEIR_TASK_BLOCKED && call->u.fail.regress) {
        const struct weir_plan_range block =
            weir_plan_consumers(&job->plan, (enum weir_stage)producer->stage, producer->index);
        call->u.fail.producer_stage = (enum weir_stage)producer->stage;
        call->u.fail.producer_index = producer->index;
        call->u.fail.block = block;
        call->u.fail.producer_to = again(producer, 0);
        producer->regress++;
        weir_sched_place(sched, producer, call->u.fail.producer_to, 0);
        for (uint32_t k = 0; k < block.count; k++) {
            struct weir_sched_task *other = job_task(job, block.stage, block.first + k);
            if (other->state == WEIR_TASK_READY || other->state == WEIR_TASK_DELAYED) {
                weir_sched_place(sched, other, WEIR_TASK_BLOCKED, 0);
            }
        }
        weir_sched_note_task(producer, false, actions);
    }
    answer(event, WEIR_SEND_FAIL_ACK, actions);
    leave(sched, task, call, to, now_ms, actions);
    return true;
}

/* T5 */
static void fail(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                 struct weir_actions *actions)
{
    const enum weir_lease_message message = event->u.fail.refused ? WEIR_SEND_STALE : WEIR_SEND_FAIL_ACK;
    struct weir_sched_task *task = leased(sched, event, message, actions);
    if (task == NULL) return;
    if (task->job->state == WEIR_JOB_CANCELLING) {
        end_cancelled(sched, task, event, message, actions);
        return;
    }
    if (lost_input(sched, now_ms, event, task, actions)) return;

    const enum weir_status cause = event->u.fail.status;
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_FAIL, task);
    const bool permanent = weir_status_retry(cause) == WEIR_RETRY_NEVER;
    const bool charged = !event->u.fail.suspect;
    enum weir_task_state to = WEIR_TASK_DEAD;
    uint64_t delay_ms = 0;

    if (charged) task->fail++;
    if (!permanent && task->fail < sched->options.fail_max && !leases_spent(sched, task)) {
        delay_ms = back_off_ms(sched, task->fail);
        to = again(task, delay_ms);
    }
    call->now_wall_ms = event->now_wall_ms;
    const char *told =
        event->u.fail.words != NULL && event->u.fail.words[0] != 0 ? event->u.fail.words : weir_status_words(cause);
    char name[32], words[WEIR_LEDGER_WORDS_BYTES];
    snprintf(name, sizeof name, "%s/%u: ", weir_stage_name(task->stage), task->index);
    weir_ledger_words(name, told, words);
    blame(call, task, cause, words);
    call->u.fail.to = to;
    call->u.fail.delay_ms = delay_ms;
    call->u.fail.charged = charged;
    avoid_worker(task);
    answer(event, message, actions);
    leave(sched, task, call, to, now_ms + delay_ms, actions);
}

/* T6 */
static void release(struct weir_sched *sched, const struct weir_event *event, struct weir_actions *actions)
{
    struct weir_sched_task *task = leased(sched, event, WEIR_SEND_RELEASE_ACK, actions);
    if (task == NULL) return;
    if (task->job->state == WEIR_JOB_CANCELLING) {
        end_cancelled(sched, task, event, WEIR_SEND_RELEASE_ACK, actions);
        return;
    }
    const enum weir_task_state to = again(task, 0);
    struct weir_ledger_call *call = weir_sched_call(actions, WEIR_LEDGER_RELEASE, task);
    call->u.release.to = to;
    task->released++;
    answer(event, WEIR_SEND_RELEASE_ACK, actions);
    leave(sched, task, call, to, 0, actions);
}

/* ---- cancel ---- */

/* T8 */
static void cancel(struct weir_sched *sched, const struct weir_event *event, struct weir_actions *actions)
{
    struct job *job = weir_sched_find_job(sched, &event->task.job);
    if (job == NULL || job->state == WEIR_JOB_CANCELLING) return;
    struct weir_ledger_call *call = &weir_sched_emit(actions, WEIR_ACTION_LEDGER)->u.call;
    call->op = WEIR_LEDGER_CANCEL;
    call->task.job = job->id;
    call->now_wall_ms = event->now_wall_ms;
    call->u.cancel.to = WEIR_JOB_CANCELLING;
    job->state = WEIR_JOB_CANCELLING;
    for (uint32_t place = 0; place < job->task_count; place++) {
        struct weir_sched_task *task = &job->tasks[place];
        if (weir_task_state_closed(task->state)) continue;
        if (task->state != WEIR_TASK_LEASED) {
            weir_sched_place(sched, task, WEIR_TASK_CANCELLED, 0);
        } else if (task->holder != NULL && actions->count + 128 < WEIR_ACTIONS_MAX) {
            const struct weir_task_id id = task_id(task);
            weir_sched_send(actions, task->holder->slot, WEIR_SEND_CANCEL, &id, task->token);
        }
    }
    weir_sched_note_job(job, actions);
    weir_sched_finish_cancel(sched, job, event->now_wall_ms, actions);
}

/* ---- one event ---- */

static void bye(struct weir_sched *sched, const struct weir_event *event)
{
    struct weir_worker *worker = weir_roster_at(sched->roster, event->worker);
    if (worker == NULL) return;
    /* What it did not release goes to others at once when the next tick sees it. */
    for (struct weir_sched_task *task = worker->held; task != NULL; task = task->held_next) task->running = false;
    worker->connected = false;
    worker->draining = true;
    worker->lost_ms = 0;
}

uint32_t weir_sched_handle(struct weir_sched *sched, uint64_t now_ms, const struct weir_event *event,
                           struct weir_actions *actions)
{
    assert(actions->count + WEIR_ACTIONS_PER_EVENT <= WEIR_ACTIONS_MAX);
    struct weir_worker *worker = weir_roster_at(sched->roster, event->worker);
    switch (event->type) {
    case WEIR_EVENT_HELLO:
        return hello(sched, now_ms, event, actions);
    case WEIR_EVENT_CREDIT:
        if (worker != NULL) worker->credit = event->u.credit;
        break;
    case WEIR_EVENT_RENEW:
        renew(sched, now_ms, event, actions);
        break;
    case WEIR_EVENT_DONE:
        done(sched, event, actions);
        break;
    case WEIR_EVENT_FAIL:
        fail(sched, now_ms, event, actions);
        break;
    case WEIR_EVENT_RELEASE:
        release(sched, event, actions);
        break;
    case WEIR_EVENT_BYE:
        bye(sched, event);
        break;
    case WEIR_EVENT_LOST:
        if (worker != NULL && worker->connected) {
            worker->connected = false;
            worker->lost_ms = now_ms;
        }
        break;
    case WEIR_EVENT_PROBED:
        probed(sched, now_ms, event, actions);
        break;
    case WEIR_EVENT_CANCEL:
        cancel(sched, event, actions);
        break;
    }
    return WEIR_ROSTER_NONE;
}
