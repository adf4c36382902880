#include "tests/sim/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void check_fail(struct check *check, const char *format, ...)
{
    if (check->violated) return; /* the first one counts */
    va_list list;
    va_start(list, format);
    vsnprintf(check->words, sizeof check->words, format, list);
    va_end(list);
    check->violated = true;
}

struct check_job *check_job(struct check *check, const struct weir_job_id *id)
{
    for (size_t k = 0; k < check->job_count; k++) {
        if (memcmp(check->jobs[k].id.bytes, id->bytes, WEIR_ID_BYTES) == 0) return &check->jobs[k];
    }
    return NULL;
}

struct check_task *check_task(struct check *check, const struct weir_task_id *id)
{
    struct check_job *job = check_job(check, &id->job);
    if (job == NULL || !weir_plan_has(&job->plan, id->stage, id->index)) return NULL;
    return &job->tasks[weir_plan_place(&job->plan, id->stage, id->index)];
}

static bool equal(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, WEIR_TOKEN_BYTES) == 0;
}

/* True when the token was there already. */
static bool add_token(struct check *check, const uint8_t *token)
{
    uint64_t value;
    memcpy(&value, token, sizeof value);
    value |= 1;
    size_t at = (size_t)(value >> 20) % CHECK_TOKENS_MAX;
    while (check->tokens[at] != 0 && check->tokens[at] != value) at = (at + 1) % CHECK_TOKENS_MAX;
    if (check->tokens[at] == value) return true;
    if (++check->token_count > CHECK_TOKENS_MAX / 2)
        check_fail(check, "over %d leases in one seed", CHECK_TOKENS_MAX / 2);
    check->tokens[at] = value;
    return false;
}

/* ---- the ledger's calls ---- */

/* Which item has which text, from the job's own spec; what the plan knows of lists is filled from that. */
static bool read_texts(struct check_job *job, const struct weir_blob *packed)
{
    Weir__Pb__JobSpec *spec = weir__pb__job_spec__unpack(NULL, packed->count, packed->bytes);
    if (spec == NULL) return false;
    uint32_t text = 0;
    for (size_t p = 0; p < spec->n_prompts; p++) {
        const bool new_text = p > 0 && strcmp(spec->prompts[p]->text, spec->prompts[p - 1]->text) != 0;
        text += new_text;
        if (p == 0 || new_text) job->plan.begins[0] |= UINT64_C(1) << p;
        for (uint32_t k = 0; k < spec->n; k++) job->text_of[p * spec->n + k] = text;
        job->plan.each = spec->n;
        job->plan.texts = text + 1;
    }
    weir__pb__job_spec__free_unpacked(spec, NULL);
    return true;
}

static void saw_submit(struct check *check, const struct weir_ledger_call *call)
{
    check->seen[1]++;
    for (size_t k = 0; k < check->job_count; k++) {
        if (call->u.submit.keyed && memcmp(check->jobs[k].key, call->u.submit.key, WEIR_SHA256_BYTES) == 0) {
            check_fail(check, "one idempotency key made two jobs");
        }
    }
    if (check->job_count == CHECK_JOBS_MAX) {
        check_fail(check, "over %d jobs in one seed", CHECK_JOBS_MAX);
        return;
    }
    struct check_job *job = &check->jobs[check->job_count++];
    *job = (struct check_job){ .id = call->task.job };
    memcpy(job->key, call->u.submit.key, sizeof job->key);
    job->plan.items = call->u.submit.counts[WEIR_STAGE_DENOISE];
    job->plan.segments = call->u.submit.counts[WEIR_STAGE_DECODE] / job->plan.items;
    job->plan.is_image = call->u.submit.counts[WEIR_STAGE_ASSEMBLE] == 0;
    if (!read_texts(job, &call->u.submit.job->spec)) check_fail(check, "a job's spec cannot be read");
    const uint32_t texts = call->u.submit.counts[WEIR_STAGE_TEXT];
    if (texts != weir_plan_count(&job->plan, WEIR_STAGE_TEXT)) {
        check_fail(check, "a job has %u texts and not %u", texts, weir_plan_count(&job->plan, WEIR_STAGE_TEXT));
    }
    for (uint32_t k = 0; k < texts; k++) job->tasks[k].state = WEIR_TASK_READY;
}

uint32_t check_items_made(const struct check_job *job)
{
    const enum weir_stage last = job->plan.is_image ? WEIR_STAGE_DECODE : WEIR_STAGE_ASSEMBLE;
    uint32_t made = 0;
    for (uint32_t item = 0; item < job->plan.items; item++) {
        made += job->tasks[weir_plan_place(&job->plan, last, item)].state == WEIR_TASK_DONE;
    }
    return made;
}

/* What a commit, fail or expire says of the job, against what is open. */
static void saw_end(struct check *check, struct check_job *job, const struct weir_ledger_call *call)
{
    uint32_t open = 0, dead = 0;
    const uint32_t lost = job->plan.items - check_items_made(job);
    for (uint32_t k = 0; k < weir_plan_tasks(&job->plan); k++) {
        open += !weir_task_state_closed(job->tasks[k].state);
        dead += job->tasks[k].state == WEIR_TASK_DEAD;
    }
    if (call->job_to != WEIR_JOB_SUCCEEDED && call->job_to != WEIR_JOB_FAILED) {
        if (open == 0) check_fail(check, "nothing of a job is open, and it goes on");
        return;
    }
    if (open > 0) check_fail(check, "a job ended with %u open tasks", open);
    if (call->job_to == WEIR_JOB_SUCCEEDED && lost > 0)
        check_fail(check, "a job succeeded with %u items missing", lost);
    if (call->job_to == WEIR_JOB_FAILED && (dead == 0 || lost == 0)) {
        check_fail(check, "a job failed with %u dead tasks and %u items missing", dead, lost);
    }
    job->state = call->job_to;
}

/* Whether a task works for an item. */
static bool works_for(const struct check_job *job, enum weir_stage stage, uint32_t index, uint32_t item)
{
    if (stage == WEIR_STAGE_TEXT) return job->text_of[item] == index;
    return (stage == WEIR_STAGE_DECODE ? index / job->plan.segments : index) == item;
}

/* The open tasks of the dead one's items are closed; a text with the last item that wants it. The call must say so. */
static void close_lost(struct check *check, struct check_job *job, const struct weir_ledger_call *call)
{
    bool wanted[CHECK_TASKS_MAX] = { false }, was_open[CHECK_TASKS_MAX] = { false };
    const uint32_t texts = weir_plan_count(&job->plan, WEIR_STAGE_TEXT), tasks = weir_plan_tasks(&job->plan);
    for (uint32_t place = 0; place < tasks; place++) was_open[place] = !weir_task_state_closed(job->tasks[place].state);
    for (uint32_t item = 0; item < job->plan.items; item++) {
        const bool lost = works_for(job, call->task.stage, call->task.index, item);
        for (uint32_t place = texts; place < tasks; place++) {
            enum weir_stage stage;
            uint32_t index;
            weir_plan_at(&job->plan, place, &stage, &index);
            if (!was_open[place] || !works_for(job, stage, index, item)) continue;
            if (lost)
                job->tasks[place].state = WEIR_TASK_CANCELLED;
            else
                wanted[job->text_of[item]] = true;
        }
    }
    for (uint32_t item = 0; item < job->plan.items; item++) {
        const uint32_t text = job->text_of[item];
        if (works_for(job, call->task.stage, call->task.index, item) && was_open[text] && !wanted[text]) {
            job->tasks[text].state = WEIR_TASK_CANCELLED;
        }
    }
    for (uint32_t place = 0; place < tasks; place++) {
        enum weir_stage stage;
        uint32_t index;
        bool said = false;
        weir_plan_at(&job->plan, place, &stage, &index);
        for (int k = 0; k < WEIR_STAGE_COUNT; k++) {
            const struct weir_plan_range *range = &call->lost[k];
            said |= range->stage == stage && index >= range->first && index - range->first < range->count;
        }
        if (was_open[place] && said != (job->tasks[place].state == WEIR_TASK_CANCELLED)) {
            check_fail(check, "%s/%u is dead, and %s/%u is %s", weir_stage_name(call->task.stage), call->task.index,
                       weir_stage_name(stage), index, said ? "closed with it" : "left open");
        }
    }
}

static void close_tasks(struct check_job *job, bool leased_too)
{
    for (uint32_t k = 0; k < weir_plan_tasks(&job->plan); k++) {
        const enum weir_task_state state = job->tasks[k].state;
        if (weir_task_state_closed(state) || (state == WEIR_TASK_LEASED && !leased_too)) continue;
        job->tasks[k].state = WEIR_TASK_CANCELLED;
    }
}

static void saw_lease(struct check *check, struct check_job *job, struct check_task *task,
                      const struct weir_ledger_call *call)
{
    check->seen[2]++;
    if (add_token(check, call->token)) check_fail(check, "a token was used for two leases");
    if (task->state != WEIR_TASK_READY && task->state != WEIR_TASK_DELAYED) {
        check_fail(check, "a %s task was leased", weir_task_state_name(task->state));
    }
    const struct weir_plan_range inputs = weir_plan_inputs(&job->plan, call->task.stage, call->task.index);
    for (uint32_t k = 0; k < inputs.count; k++) {
        if (job->tasks[weir_plan_place(&job->plan, inputs.stage, inputs.first + k)].state != WEIR_TASK_DONE) {
            check_fail(check, "%s/%u was leased before its inputs were done", weir_stage_name(call->task.stage),
                       call->task.index);
        }
    }
    if (job->state != WEIR_JOB_QUEUED && job->state != WEIR_JOB_RUNNING) {
        check_fail(check, "a task of a %s job was leased", weir_job_state_name(job->state));
    }
    task->state = WEIR_TASK_LEASED;
    memcpy(task->old_token, task->token, sizeof task->old_token);
    task->old_batch = check->batch;
    memcpy(task->token, call->token, sizeof task->token);
    job->state = WEIR_JOB_RUNNING;
}

static void saw_commit(struct check *check, struct check_job *job, struct check_task *task,
                       const struct weir_ledger_call *call)
{
    check->seen[4]++;
    if (job->cancel_answered) check_fail(check, "a result was taken after the cancel was answered");
    if (job->state != WEIR_JOB_RUNNING)
        check_fail(check, "a result of a %s job was taken", weir_job_state_name(job->state));
    if (task->state == WEIR_TASK_DONE) check_fail(check, "a second result of one task was taken");
    if (task->state != WEIR_TASK_LEASED)
        check_fail(check, "a result of a %s task was taken", weir_task_state_name(task->state));
    if (!equal(task->token, call->token)) check_fail(check, "a result was taken under a stale token");
    task->state = WEIR_TASK_DONE;
    memcpy(task->done_token, call->token, sizeof task->done_token);
    const struct weir_plan_range *ready = &call->u.commit.ready;
    for (uint32_t k = 0; k < ready->count; k++) {
        struct check_task *next = &job->tasks[weir_plan_place(&job->plan, ready->stage, ready->first + k)];
        if (next->state == WEIR_TASK_BLOCKED) next->state = WEIR_TASK_READY;
    }
    saw_end(check, job, call);
}

static void saw_leave(struct check *check, struct check_job *job, struct check_task *task,
                      const struct weir_ledger_call *call)
{
    if (task->state != WEIR_TASK_LEASED || !equal(task->token, call->token)) {
        check_fail(check, "a lease ended that was not there");
    }
    switch (call->op) {
    case WEIR_LEDGER_FAIL:
        task->state = call->u.fail.to;
        check->seen[task->state == WEIR_TASK_BLOCKED && call->u.fail.regress ? 11 : 5]++;
        break;
    case WEIR_LEDGER_RELEASE:
        task->state = call->u.release.to;
        check->seen[6]++;
        break;
    default:
        task->state = call->u.expire.to;
        check->seen[7]++;
        check->charged += call->u.expire.charged;
        if (call->u.expire.charged && ++task->crashes > 3) check_fail(check, "over 3 crashes were charged to a task");
    }
    if (call->op == WEIR_LEDGER_FAIL && task->state == WEIR_TASK_BLOCKED && call->u.fail.regress) {
        struct check_task *producer =
            &job->tasks[weir_plan_place(&job->plan, call->u.fail.producer_stage, call->u.fail.producer_index)];
        if (producer->state != WEIR_TASK_DONE)
            check_fail(check, "a %s task was made again", weir_task_state_name(producer->state));
        if (++producer->regress > 3) check_fail(check, "a task was made again over 3 times");
        producer->state = call->u.fail.producer_to;
        for (uint32_t k = 0; k < call->u.fail.block.count; k++) {
            struct check_task *other =
                &job->tasks[weir_plan_place(&job->plan, call->u.fail.block.stage, call->u.fail.block.first + k)];
            if (other->state == WEIR_TASK_READY || other->state == WEIR_TASK_DELAYED) other->state = WEIR_TASK_BLOCKED;
        }
    }
    if (task->state == WEIR_TASK_DEAD) {
        close_lost(check, job, call);
        saw_end(check, job, call);
    }
}

static void saw_cancel(struct check *check, struct check_job *job, const struct weir_ledger_call *call)
{
    const enum weir_job_state to = call->u.cancel.to;
    check->seen[to == WEIR_JOB_CANCELLING ? 8 : to == WEIR_JOB_CANCELLED ? 9 : 10]++;
    if (weir_job_state_terminal(job->state))
        check_fail(check, "a %s job became another", weir_job_state_name(job->state));
    if (to == WEIR_JOB_CANCELLED) {
        for (uint32_t k = 0; k < weir_plan_tasks(&job->plan); k++) {
            if (job->tasks[k].state == WEIR_TASK_LEASED) check_fail(check, "a job is cancelled while a lease is live");
        }
    }
    close_tasks(job, to != WEIR_JOB_CANCELLING);
    job->state = to;
}

static void saw_call(struct check *check, const struct weir_ledger_call *call)
{
    if (call->reply != WEIR_LEDGER_APPLIED) return;
    if (call->op == WEIR_LEDGER_SUBMIT) {
        saw_submit(check, call);
        return;
    }
    struct check_job *job = check_job(check, &call->task.job);
    if (job == NULL) {
        check_fail(check, "a call changed a job that was never submitted");
        return;
    }
    if (call->op == WEIR_LEDGER_PURGE) return;
    if (call->op == WEIR_LEDGER_CANCEL) {
        saw_cancel(check, job, call);
        return;
    }
    struct check_task *task = check_task(check, &call->task);
    if (task == NULL)
        check_fail(check, "a call changed a task that the plan does not have");
    else if (call->op == WEIR_LEDGER_LEASE)
        saw_lease(check, job, task, call);
    else if (call->op == WEIR_LEDGER_COMMIT)
        saw_commit(check, job, task, call);
    else
        saw_leave(check, job, task, call);
}

static enum weir_status check_apply(struct weir_ledger *base, struct weir_ledger_call *const calls[], size_t count,
                                    struct weir_error *error)
{
    struct check *check = (struct check *)base;
    if (check->dead || check->dies(check->context)) {
        check->dead = true;
        return weir_fail(error, WEIR_STORE, "killed before the transaction");
    }
    const enum weir_status status = weir_ledger_apply(check->inner, calls, count, error);
    check->batch++;
    for (size_t k = 0; status == WEIR_OK && k < count; k++) saw_call(check, calls[k]);
    if (status == WEIR_OK && (check->violated || check->dies(check->context))) {
        check->dead = true;
        return weir_fail(error, WEIR_STORE, "killed after the transaction");
    }
    return status;
}

static enum weir_status check_takeover(struct weir_ledger *base, uint64_t *epoch, struct weir_error *error)
{
    struct check *check = (struct check *)base;
    check->seen[12]++;
    return weir_ledger_takeover(check->inner, epoch, error);
}

static enum weir_status check_replay(struct weir_ledger *base, const struct weir_ledger_query *query,
                                     weir_ledger_each *each, void *context, struct weir_error *error)
{
    return weir_ledger_replay(((struct check *)base)->inner, query, each, context, error);
}

static enum weir_status check_page(struct weir_ledger *base, const struct weir_ledger_page *page,
                                   weir_ledger_each *each, void *context, struct weir_error *error)
{
    return weir_ledger_page_open(((struct check *)base)->inner, page, each, context, error);
}

static void check_close(struct weir_ledger *base)
{
    weir_ledger_close(&((struct check *)base)->inner);
}

void check_begin(struct check *check, struct weir_ledger *inner, bool (*dies)(void *context), void *context)
{
    static const struct weir_ledger_ops ops = { check_apply, check_takeover, check_replay, check_page, check_close };
    memset(check, 0, sizeof *check);
    check->base.ops = &ops;
    check->inner = inner;
    check->dies = dies;
    check->context = context;
}

/* ---- what is sent ---- */

static bool leased(struct check *check, const struct weir_task_id *id, const uint8_t *token)
{
    const struct check_task *task = check_task(check, id);
    return task != NULL && task->state == WEIR_TASK_LEASED && equal(task->token, token);
}

/* Whether this is the task's latest lease, or was when the turn began: what is sent about it was true then. */
static bool written(struct check *check, const struct weir_task_id *id, const uint8_t *token)
{
    const struct check_task *task = check_task(check, id);
    if (task == NULL) return false;
    return equal(task->token, token) || (task->old_batch == check->batch && equal(task->old_token, token));
}

void check_lease_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token)
{
    if (!written(check, task, token)) check_fail(check, "a LEASE was sent that is not written");
}

void check_renew_ack_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token)
{
    check->seen[3]++;
    if (!written(check, task, token)) check_fail(check, "a renewal under a stale token was acknowledged");
}

void check_done_ack_sent(struct check *check, const struct weir_task_id *id, const uint8_t *token)
{
    const struct check_task *task = check_task(check, id);
    if (task == NULL || !equal(task->done_token, token)) {
        check_fail(check, "DONE_ACK was sent for a result that is not written");
    }
}

void check_ended_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token)
{
    if (leased(check, task, token)) check_fail(check, "the end of a lease was acknowledged that is not written");
}

void check_accepted_sent(struct check *check, const struct weir_job_id *id)
{
    struct check_job *job = check_job(check, id);
    if (job == NULL)
        check_fail(check, "a job was accepted that is not written");
    else
        job->accepted = true;
}

void check_cancel_answered(struct check *check, const struct weir_job_id *id)
{
    struct check_job *job = check_job(check, id);
    if (job == NULL || (job->state != WEIR_JOB_CANCELLING && job->state != WEIR_JOB_CANCELLED)) {
        check_fail(check, "a cancel was answered that is not written");
    } else {
        job->cancel_answered = true;
    }
}

static int rank(enum weir_job_state state)
{
    return state == WEIR_JOB_QUEUED ? 0 : state == WEIR_JOB_RUNNING ? 1 : state == WEIR_JOB_CANCELLING ? 2 : 3;
}

void check_state_seen(struct check *check, const struct weir_job_id *id, enum weir_job_state state)
{
    struct check_job *job = check_job(check, id);
    if (job == NULL) {
        check_fail(check, "a client was told of a job that is not written");
        return;
    }
    if (rank(state) > rank(job->state) || (rank(state) == 3 && state != job->state)) {
        check_fail(check, "a client was told %s while %s is written", weir_job_state_name(state),
                   weir_job_state_name(job->state));
    }
    if (rank(job->seen) == 3 && state != job->seen) check_fail(check, "a terminal state changed");
    if (rank(state) > rank(job->seen)) job->seen = state;
    if (job->cancel_answered && state == WEIR_JOB_SUCCEEDED)
        check_fail(check, "a job succeeded after its cancel was answered");
}

void check_manifest_seen(struct check *check, const struct weir_job_id *id, uint64_t manifest, size_t count)
{
    struct check_job *job = check_job(check, id);
    if (job == NULL) return;
    const size_t made = check_items_made(job);
    if (count != made) check_fail(check, "a manifest names %zu objects where %zu items were made", count, made);
    if (job->manifest != 0 && job->manifest != manifest) {
        check->second_result = true;
        check_fail(check, "a second result became visible");
    }
    job->manifest = manifest;
}

/* ---- what lies in the ledger ---- */

static bool compare_row(void *context, const struct weir_ledger_job *row, const struct weir_ledger_task *tasks,
                        size_t task_count)
{
    struct check *check = context;
    struct check_job *job = check_job(check, &row->id);
    if (job == NULL || row->state != job->state || task_count != weir_plan_tasks(&job->plan)) {
        check_fail(check, "a job's row is not what the ledger's calls said");
        return false;
    }
    for (size_t k = 0; k < task_count; k++) {
        if (tasks[k].state == job->tasks[k].state) continue;
        if (tasks[k].state <= WEIR_TASK_DELAYED && job->tasks[k].state <= WEIR_TASK_DELAYED) continue;
        check_fail(check, "%s/%u is %s in the ledger and %s by its calls", weir_stage_name(tasks[k].stage),
                   tasks[k].index, weir_task_state_name(tasks[k].state), weir_task_state_name(job->tasks[k].state));
        return false;
    }
    return true;
}

void check_rows(struct check *check)
{
    const struct weir_ledger_page page = { .filter = WEIR_LEDGER_ALL, .limit = CHECK_JOBS_MAX };
    if (weir_ledger_page_open(check->inner, &page, compare_row, check, NULL) != WEIR_OK) {
        check_fail(check, "the ledger cannot be read");
    }
}

/* ---- what workers do ---- */

void check_checkpoint_written(struct check *check, const struct weir_task_id *id, uint32_t step)
{
    struct check_task *task = check_task(check, id);
    if (task != NULL && step > task->checkpoint) task->checkpoint = step;
}

void check_attempt_begins(struct check *check, const struct weir_task_id *id, const uint8_t *token, uint32_t step)
{
    struct check_task *task = check_task(check, id);
    const struct check_job *job = check_job(check, &id->job);
    if (task != NULL && ++task->begun > 1 && check->once) {
        check_fail(check, "%s/%u was executed twice although no worker failed", weir_stage_name(id->stage), id->index);
    }
    if (task == NULL || weir_job_state_terminal(job->state) || !leased(check, id, token)) return;
    if (step < task->checkpoint) {
        check_fail(check, "an attempt began at step %u although a checkpoint of step %u was written", step,
                   task->checkpoint);
    }
}
