#include "tests/sim/trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 4
#define ITEMS_MAX 3
#define SEGMENTS_MAX 2

uint64_t trial_next(struct trial *t)
{
    uint64_t x = t->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint32_t trial_below(struct trial *t, uint32_t limit)
{
    return (uint32_t)(trial_next(t) % limit);
}

/* ---- a random call ---- */

static struct weir_blob pool_blob(struct trial *t)
{
    static const struct weir_blob blobs[] = { { "", 0 }, { "one", 3 }, { "two\0two", 7 }, { "three", 5 }, { "4", 1 } };
    return blobs[trial_below(t, WEIR_COUNT(blobs))];
}

struct weir_plan_range trial_range(struct trial *t)
{
    return (struct weir_plan_range){ (enum weir_stage)trial_below(t, WEIR_STAGE_COUNT), trial_below(t, 3),
                                     trial_below(t, 4) };
}

static enum weir_task_state pick(struct trial *t, const enum weir_task_state *states, uint32_t count)
{
    return states[trial_below(t, count)];
}

static void submit_call(struct trial *t, uint32_t job, struct weir_ledger_job *row, struct weir_ledger_call *call)
{
    static const char *const tenants[] = { "default", "other" };
    *row = (struct weir_ledger_job){ .id = t->jobs[job],
                                     .tenant = tenants[trial_below(t, 2)],
                                     .priority = (int32_t)trial_below(t, 5) - 2,
                                     .plan_version = weir_plan_version(&t->plans[job]),
                                     .cost_ms = trial_below(t, 1000),
                                     .deadline_ms = trial_below(t, 2) * 1000,
                                     .created_ms = 5,
                                     .numerics_class = "",
                                     .words = "",
                                     .spec = pool_blob(t) };
    row->fingerprint[0] = (uint8_t)trial_below(t, 2);
    row->batched = trial_below(t, 2);
    if (row->batched) memset(row->batch, 1 + (int)trial_below(t, 2), sizeof row->batch);
    row->part = trial_below(t, 3);
    row->parts = trial_below(t, 3);
    call->op = WEIR_LEDGER_SUBMIT;
    call->u.submit.job = row;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        call->u.submit.counts[stage] = weir_plan_count(&t->plans[job], (enum weir_stage)stage);
    }
    call->u.submit.ready = trial_below(t, 3) > 0 ? (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 1 }
                                                 : (struct weir_plan_range){ WEIR_STAGE_ASSEMBLE, 0, ITEMS_MAX };
    call->u.submit.keyed = trial_below(t, 3) > 0;
    memcpy(call->u.submit.key, &t->number, sizeof t->number); /* keys of this sequence alone */
    call->u.submit.key[20] = (uint8_t)trial_below(t, 2);
}

/* One of `odds` ends the job, this way or that. */
static void end_call(struct trial *t, uint32_t odds, struct weir_ledger_call *call)
{
    if (trial_below(t, odds) > 0) return;
    call->job_to = trial_below(t, 2) ? WEIR_JOB_SUCCEEDED : WEIR_JOB_FAILED;
    snprintf(call->lead, sizeof call->lead, "lead %u: ", trial_below(t, 3));
}

static void lose_call(struct trial *t, struct weir_ledger_call *call)
{
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) call->lost[stage] = trial_range(t);
    end_call(t, 3, call);
}

void trial_call(struct trial *t, uint32_t at, struct weir_ledger_call *call)
{
    static const enum weir_task_state failed[] = { WEIR_TASK_READY, WEIR_TASK_DELAYED, WEIR_TASK_DELAYED,
                                                   WEIR_TASK_READY, WEIR_TASK_BLOCKED, WEIR_TASK_BLOCKED,
                                                   WEIR_TASK_READY, WEIR_TASK_DEAD,    WEIR_TASK_CANCELLED };
    static const enum weir_task_state released[] = { WEIR_TASK_READY, WEIR_TASK_READY, WEIR_TASK_BLOCKED,
                                                     WEIR_TASK_CANCELLED };
    static const enum weir_job_state ends[] = { WEIR_JOB_CANCELLING, WEIR_JOB_CANCELLING, WEIR_JOB_CANCELLED,
                                                WEIR_JOB_EXPIRED };
    static const char *const classes[] = { "cpu/a", "cpu/a", "cpu/a", "cpu/b" };
    const uint32_t job = trial_below(t, TRIAL_JOBS), kind = trial_below(t, 100);

    memset(call, 0, sizeof *call);
    call->task.job = t->jobs[job];
    call->task.stage = (enum weir_stage)trial_below(t, WEIR_STAGE_COUNT);
    call->task.index = trial_below(t, 3);
    memset(call->token, 1 + (int)trial_below(t, TOKENS), sizeof call->token);
    call->now_wall_ms = 100 + trial_below(t, 100);
    call->cause = (enum weir_status)trial_below(t, WEIR_STATUS_COUNT);
    snprintf(call->words, sizeof call->words, "words %u", trial_below(t, 3));
    if (kind >= 45 && kind < 92 && t->lease_count > 0 && trial_below(t, 10) < 7) {
        const struct weir_ledger_call *lease = &t->leased[trial_below(t, t->lease_count < 4 ? t->lease_count : 4)];
        call->task = lease->task;
        if (trial_below(t, 10) < 8) memcpy(call->token, lease->token, sizeof call->token);
    } else if (kind >= 12 && kind < 45 && trial_below(t, 2) == 0) {
        /* What is READY first. */
        call->task.stage = trial_below(t, 2) ? WEIR_STAGE_TEXT : WEIR_STAGE_ASSEMBLE;
        call->task.index = call->task.stage == WEIR_STAGE_TEXT ? 0 : trial_below(t, ITEMS_MAX);
    }
    if (kind < 12) {
        submit_call(t, job, &t->rows[at], call);
    } else if (kind < 45) {
        call->op = WEIR_LEDGER_LEASE;
        memset(call->u.lease.worker, 7, sizeof call->u.lease.worker);
        call->u.lease.worker_pid = trial_below(t, 3);
        strcpy(call->u.lease.numerics_class, classes[trial_below(t, WEIR_COUNT(classes))]);
    } else if (kind < 70) {
        call->op = WEIR_LEDGER_COMMIT;
        call->u.commit.artefacts = pool_blob(t);
        call->u.commit.facts = pool_blob(t);
        call->u.commit.ready = trial_range(t);
        end_call(t, call->task.stage == WEIR_STAGE_ASSEMBLE ? 4 : 20, call);
    } else if (kind < 78) {
        call->op = WEIR_LEDGER_FAIL;
        call->u.fail.to = pick(t, failed, WEIR_COUNT(failed));
        call->u.fail.delay_ms = trial_below(t, 3) * 10;
        call->u.fail.charged = trial_below(t, 2);
        call->u.fail.regress = trial_below(t, 2);
        call->u.fail.producer_stage = (enum weir_stage)trial_below(t, WEIR_STAGE_COUNT);
        call->u.fail.producer_index = trial_below(t, 2);
        call->u.fail.producer_to = trial_below(t, 2) ? WEIR_TASK_READY : WEIR_TASK_BLOCKED;
        call->u.fail.block = trial_range(t);
        lose_call(t, call);
    } else if (kind < 84) {
        call->op = WEIR_LEDGER_RELEASE;
        call->u.release.to = pick(t, released, WEIR_COUNT(released));
    } else if (kind < 92) {
        call->op = WEIR_LEDGER_EXPIRE;
        call->u.expire.to = pick(t, failed, WEIR_COUNT(failed));
        call->u.expire.delay_ms = trial_below(t, 3) * 10;
        call->u.expire.charged = trial_below(t, 2);
        call->u.expire.checkpoint_step = trial_below(t, 4) * 5;
        lose_call(t, call);
    } else if (kind < 97) {
        call->op = WEIR_LEDGER_CANCEL;
        call->u.cancel.to = ends[trial_below(t, WEIR_COUNT(ends))];
    } else {
        call->op = WEIR_LEDGER_PURGE;
        call->u.purge.rows = trial_below(t, 3) == 0;
    }
}

/* ---- what a read said ---- */

static void tell(struct told *told, const void *bytes, size_t count)
{
    if (told->count + count > told->capacity) {
        told->capacity = 2 * (told->count + count) + 4096;
        told->text = realloc(told->text, told->capacity);
        if (told->text == NULL) abort();
    }
    if (count > 0) memcpy(told->text + told->count, bytes, count);
    told->count += count;
}

static void tell_number(struct told *told, uint64_t number)
{
    tell(told, &number, sizeof number);
}

static void tell_text(struct told *told, const char *text)
{
    tell(told, text, strlen(text) + 1);
}

static void tell_blob(struct told *told, const struct weir_blob *blob)
{
    tell_number(told, blob->count);
    tell(told, blob->bytes, blob->count);
}

bool told_job(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks, size_t task_count)
{
    struct told *told = context;
    tell(told, job->id.bytes, WEIR_ID_BYTES);
    tell_text(told, job->tenant);
    tell_text(told, job->numerics_class);
    tell_text(told, job->words);
    tell(told, job->fingerprint, sizeof job->fingerprint);
    const uint64_t numbers[] = { job->state,           (uint64_t)(int64_t)job->priority,
                                 job->plan_version,    job->cost_ms,
                                 job->deadline_ms,     job->created_ms,
                                 job->finished_ms,     job->cause,
                                 (uint64_t)job->swept, task_count,
                                 job->batched,         job->part,
                                 job->parts,           job->task_count,
                                 job->tasks_done };
    tell(told, numbers, sizeof numbers);
    tell(told, job->batch, sizeof job->batch);
    tell_blob(told, &job->spec);
    tell_blob(told, &job->manifest);
    for (size_t k = 0; k < task_count; k++) {
        const struct weir_ledger_task *task = &tasks[k];
        const uint64_t fields[] = { task->stage,      task->index,           task->state,
                                    task->worker_pid, task->attempt,         task->crash,
                                    task->fail,       task->expired,         task->released,
                                    task->regress,    task->checkpoint_step, task->delay_ms };
        tell(told, fields, sizeof fields);
        tell(told, task->token, sizeof task->token);
        tell(told, task->worker, sizeof task->worker);
        tell_blob(told, &task->artefacts);
        tell_blob(told, &task->facts);
    }
    return true;
}

/* ---- one trial ---- */

void trial_answered(struct trial *t, const struct weir_ledger_call *call)
{
    if (call->op == WEIR_LEDGER_LEASE && call->reply == WEIR_LEDGER_APPLIED) t->leased[t->lease_count++ % 4] = *call;
}

void trial_begin(struct trial *t, uint64_t number)
{
    *t = (struct trial){ .number = number, .random = number * 0x2545f4914f6cdd1du };
    for (uint32_t k = 0; k < TRIAL_JOBS; k++) {
        const bool image = trial_below(t, 4) == 0;
        t->plans[k] = (struct weir_plan){ .items = 1 + trial_below(t, ITEMS_MAX),
                                          .frames = image ? 1 : 16,
                                          .segments = image ? 1 : 1 + trial_below(t, SEGMENTS_MAX),
                                          .is_image = image };
        for (size_t at = 0; at < WEIR_ID_BYTES; at += 8) {
            const uint64_t value = trial_next(t);
            memcpy(t->jobs[k].bytes + at, &value, 8);
        }
    }
}
