/* The ledgers agree: random sequences of calls run on the SQLite ledger and on the reference model, and every answer, every
 * row and every page must be equal. Tokens, classes and blobs come from small pools, so that repeats, stale tokens and
 * conflicts are common.
 *
 *   model --sequences 100000      of 50 calls each; a difference prints its sequence, which --from repeats
 */
#include "broker/ledger.h"
#include "proto/base/options.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALLS 50
#define BATCH_MAX 6
#define JOBS 3
#define TOKENS 4
#define ITEMS_MAX 3
#define SEGMENTS_MAX 2

struct settings {
    int64_t sequences, from;
};

static const struct weir_option rows[] = {
    { .name = "sequences", .kind = WEIR_OPTION_INT, .offset = offsetof(struct settings, sequences), .min = 1, .max = 1e9,
      .value = "N", .help = "how many sequences of 50 calls (default: 3000)" },
    { .name = "from", .kind = WEIR_OPTION_INT, .offset = offsetof(struct settings, from), .min = 0, .max = 1e15,
      .value = "S", .help = "the first one (default: 1)" },
};

struct trial {
    uint64_t random, number;
    struct weir_ledger *ledgers[2]; /* model, SQLite */
    struct weir_job_id jobs[JOBS];
    struct weir_plan plans[JOBS];
    struct weir_ledger_call leased[4]; /* the latest leases: what follows is often about one of them */
    uint32_t lease_count;
    uint64_t calls, applied;
};

static uint64_t next(struct trial *t)
{
    uint64_t x = t->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint32_t below(struct trial *t, uint32_t limit)
{
    return (uint32_t)(next(t) % limit);
}

__attribute__((noreturn)) static void differ(const struct trial *t, const char *what)
{
    printf("FAILED sequence=%" PRIu64 ": %s differs\nagain with: --from %" PRIu64 " --sequences 1\n", t->number, what,
           t->number);
    exit(1);
}

/* ---- a random call ---- */

static struct weir_blob pool_blob(struct trial *t)
{
    static const struct weir_blob blobs[] = { { "", 0 }, { "one", 3 }, { "two\0two", 7 }, { "three", 5 }, { "4", 1 } };
    return blobs[below(t, WEIR_COUNT(blobs))];
}

static struct weir_plan_range random_range(struct trial *t)
{
    return (struct weir_plan_range){ (enum weir_stage)below(t, WEIR_STAGE_COUNT), below(t, 3), below(t, 4) };
}

static enum weir_task_state pick(struct trial *t, const enum weir_task_state *states, uint32_t count)
{
    return states[below(t, count)];
}

static void submit_call(struct trial *t, uint32_t job, struct weir_ledger_job *row, struct weir_ledger_call *call)
{
    static const char *const tenants[] = { "default", "other" };
    *row = (struct weir_ledger_job){ .id = t->jobs[job],
                                     .tenant = tenants[below(t, 2)],
                                     .priority = (int32_t)below(t, 5) - 2,
                                     .plan_version = 1,
                                     .cost_ms = below(t, 1000),
                                     .deadline_ms = below(t, 2) * 1000,
                                     .created_ms = 5,
                                     .numerics_class = "",
                                     .words = "",
                                     .spec = pool_blob(t) };
    row->fingerprint[0] = (uint8_t)below(t, 2);
    call->op = WEIR_LEDGER_SUBMIT;
    call->u.submit.job = row;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        call->u.submit.counts[stage] = weir_plan_count(&t->plans[job], (enum weir_stage)stage);
    }
    call->u.submit.ready = below(t, 3) > 0 ? (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 1 }
                                           : (struct weir_plan_range){ WEIR_STAGE_ASSEMBLE, 0, ITEMS_MAX };
    call->u.submit.keyed = below(t, 3) > 0;
    memcpy(call->u.submit.key, &t->number, sizeof t->number); /* keys of this sequence alone */
    call->u.submit.key[20] = (uint8_t)below(t, 2);
}

static void random_call(struct trial *t, struct weir_ledger_job *row, struct weir_ledger_call *call)
{
    static const enum weir_task_state failed[] = { WEIR_TASK_READY,   WEIR_TASK_DELAYED, WEIR_TASK_DELAYED,
                                                   WEIR_TASK_READY,   WEIR_TASK_BLOCKED, WEIR_TASK_BLOCKED,
                                                   WEIR_TASK_READY,   WEIR_TASK_DEAD,    WEIR_TASK_CANCELLED };
    static const enum weir_task_state released[] = { WEIR_TASK_READY, WEIR_TASK_READY, WEIR_TASK_BLOCKED,
                                                     WEIR_TASK_CANCELLED };
    static const enum weir_job_state ends[] = { WEIR_JOB_CANCELLING, WEIR_JOB_CANCELLING, WEIR_JOB_CANCELLED,
                                               WEIR_JOB_EXPIRED };
    static const char *const classes[] = { "cpu/a", "cpu/a", "cpu/a", "cpu/b" };
    const uint32_t job = below(t, JOBS), kind = below(t, 100);

    memset(call, 0, sizeof *call);
    call->task.job = t->jobs[job];
    call->task.stage = (enum weir_stage)below(t, WEIR_STAGE_COUNT);
    call->task.index = below(t, 3);
    memset(call->token, 1 + (int)below(t, TOKENS), sizeof call->token);
    call->now_wall_ms = 100 + below(t, 100);
    call->cause = (enum weir_status)below(t, WEIR_STATUS_COUNT);
    snprintf(call->words, sizeof call->words, "words %u", below(t, 3));
    if (kind >= 45 && kind < 92 && t->lease_count > 0 && below(t, 10) < 7) {
        const struct weir_ledger_call *lease = &t->leased[below(t, t->lease_count < 4 ? t->lease_count : 4)];
        call->task = lease->task;
        if (below(t, 10) < 8) memcpy(call->token, lease->token, sizeof call->token);
    } else if (kind >= 12 && kind < 45 && below(t, 2) == 0) {
        /* What is READY first. */
        call->task.stage = below(t, 2) ? WEIR_STAGE_TEXT : WEIR_STAGE_ASSEMBLE;
        call->task.index = call->task.stage == WEIR_STAGE_TEXT ? 0 : below(t, ITEMS_MAX);
    }
    if (kind < 12) {
        submit_call(t, job, row, call);
    } else if (kind < 45) {
        call->op = WEIR_LEDGER_LEASE;
        memset(call->u.lease.worker, 7, sizeof call->u.lease.worker);
        call->u.lease.worker_pid = below(t, 3);
        strcpy(call->u.lease.numerics_class, classes[below(t, WEIR_COUNT(classes))]);
    } else if (kind < 70) {
        call->op = WEIR_LEDGER_COMMIT;
        call->u.commit.artefacts = pool_blob(t);
        call->u.commit.facts = pool_blob(t);
        call->u.commit.ready = random_range(t);
        call->u.commit.job_done = below(t, call->task.stage == WEIR_STAGE_ASSEMBLE ? 4 : 20) == 0;
    } else if (kind < 78) {
        call->op = WEIR_LEDGER_FAIL;
        call->u.fail.to = pick(t, failed, WEIR_COUNT(failed));
        call->u.fail.delay_ms = below(t, 3) * 10;
        call->u.fail.charged = below(t, 2);
        call->u.fail.regress = below(t, 2);
        call->u.fail.producer_stage = (enum weir_stage)below(t, WEIR_STAGE_COUNT);
        call->u.fail.producer_index = below(t, 2);
        call->u.fail.producer_to = below(t, 2) ? WEIR_TASK_READY : WEIR_TASK_BLOCKED;
        call->u.fail.block = random_range(t);
    } else if (kind < 84) {
        call->op = WEIR_LEDGER_RELEASE;
        call->u.release.to = pick(t, released, WEIR_COUNT(released));
    } else if (kind < 92) {
        call->op = WEIR_LEDGER_EXPIRE;
        call->u.expire.to = pick(t, failed, WEIR_COUNT(failed));
        call->u.expire.delay_ms = below(t, 3) * 10;
        call->u.expire.charged = below(t, 2);
        call->u.expire.checkpoint_step = below(t, 4) * 5;
    } else if (kind < 97) {
        call->op = WEIR_LEDGER_CANCEL;
        call->u.cancel.to = ends[below(t, WEIR_COUNT(ends))];
    } else {
        call->op = WEIR_LEDGER_PURGE;
        call->u.purge.rows = below(t, 3) == 0;
    }
}

/* ---- comparing ---- */

/* What a read said, as one text. */
struct told {
    char *text;
    size_t count, capacity;
};

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

static bool tell_job(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                     size_t task_count)
{
    struct told *told = context;
    tell(told, job->id.bytes, WEIR_ID_BYTES);
    tell_text(told, job->tenant);
    tell_text(told, job->numerics_class);
    tell_text(told, job->words);
    tell(told, job->fingerprint, sizeof job->fingerprint);
    const uint64_t numbers[] = { job->state,        (uint64_t)(int64_t)job->priority, job->plan_version, job->cost_ms,
                                 job->deadline_ms,  job->created_ms,                  job->finished_ms,  job->cause,
                                 (uint64_t)job->swept, task_count };
    tell(told, numbers, sizeof numbers);
    tell_blob(told, &job->spec);
    tell_blob(told, &job->manifest);
    for (size_t k = 0; k < task_count; k++) {
        const struct weir_ledger_task *task = &tasks[k];
        const uint64_t fields[] = { task->stage,   task->index,    task->state,   task->worker_pid,      task->attempt,
                                    task->crash,   task->fail,     task->expired, task->released,        task->regress,
                                    task->checkpoint_step, task->delay_ms };
        tell(told, fields, sizeof fields);
        tell(told, task->token, sizeof task->token);
        tell(told, task->worker, sizeof task->worker);
        tell_blob(told, &task->artefacts);
        tell_blob(told, &task->facts);
    }
    return true;
}

static void compare_told(const struct trial *t, struct told told[2], const enum weir_status status[2], const char *what)
{
    if (status[0] != status[1] || told[0].count != told[1].count ||
        (told[0].count > 0 && memcmp(told[0].text, told[1].text, told[0].count) != 0)) {
        differ(t, what);
    }
    told[0].count = told[1].count = 0;
}

static void compare_reads(struct trial *t, struct told told[2])
{
    enum weir_status status[2];
    for (uint32_t k = 0; k < JOBS; k++) {
        struct weir_ledger_query query = { .job = t->jobs[k] };
        for (int ledger = 0; ledger < 2; ledger++) {
            status[ledger] = weir_ledger_replay(t->ledgers[ledger], &query, tell_job, &told[ledger], NULL);
        }
        compare_told(t, told, status, "replay");
        query.ranged = true;
        query.range = random_range(t);
        for (int ledger = 0; ledger < 2; ledger++) {
            status[ledger] = weir_ledger_replay(t->ledgers[ledger], &query, tell_job, &told[ledger], NULL);
        }
        compare_told(t, told, status, "replay of a range");
    }
    struct weir_ledger_query by_key = { .by_key = true, .tenant = below(t, 2) ? "default" : "other", .no_tasks = true };
    memcpy(by_key.key, &t->number, sizeof t->number);
    by_key.key[20] = (uint8_t)below(t, 2);
    const struct weir_ledger_page page = { .filter = (enum weir_ledger_filter)below(t, 3),
                                           .newest_first = below(t, 2),
                                           .bounded = below(t, 2),
                                           .from = t->jobs[below(t, JOBS)],
                                           .limit = 1 + below(t, 4) };
    for (int ledger = 0; ledger < 2; ledger++) {
        status[ledger] = weir_ledger_replay(t->ledgers[ledger], &by_key, tell_job, &told[ledger], NULL);
    }
    compare_told(t, told, status, "replay by key");
    for (int ledger = 0; ledger < 2; ledger++) {
        status[ledger] = weir_ledger_page_open(t->ledgers[ledger], &page, tell_job, &told[ledger], NULL);
    }
    compare_told(t, told, status, "page_open");
}

static void run_batch(struct trial *t, uint32_t count)
{
    static struct weir_ledger_call calls[2][BATCH_MAX];
    static struct weir_ledger_job job_rows[BATCH_MAX];
    struct weir_ledger_call *lists[2][BATCH_MAX];
    struct weir_error error = { 0 };
    for (uint32_t k = 0; k < count; k++) {
        random_call(t, &job_rows[k], &calls[0][k]);
        calls[1][k] = calls[0][k];
        lists[0][k] = &calls[0][k];
        lists[1][k] = &calls[1][k];
    }
    for (int ledger = 0; ledger < 2; ledger++) {
        if (weir_ledger_apply(t->ledgers[ledger], lists[ledger], count, &error) != WEIR_OK) {
            printf("sequence=%" PRIu64 ": %s\n", t->number, error.words);
            exit(1);
        }
    }
    for (uint32_t k = 0; k < count; k++) {
        const struct weir_ledger_call *a = &calls[0][k], *b = &calls[1][k];
        t->calls++;
        t->applied += a->reply == WEIR_LEDGER_APPLIED;
        if (a->op == WEIR_LEDGER_LEASE && a->reply == WEIR_LEDGER_APPLIED) t->leased[t->lease_count++ % 4] = *a;
        if (a->reply != b->reply || a->job_state != b->job_state || a->task_state != b->task_state ||
            memcmp(a->existing.bytes, b->existing.bytes, WEIR_ID_BYTES) != 0) {
            printf("call %d on %s/%u: model reply %d job %d task %d, sqlite reply %d job %d task %d\n", (int)a->op,
                   weir_stage_name(a->task.stage), a->task.index, (int)a->reply, (int)a->job_state, (int)a->task_state,
                   (int)b->reply, (int)b->job_state, (int)b->task_state);
            differ(t, "an answer");
        }
    }
}

/* Leaves nothing behind: ends and purges the jobs, in both. */
static void clean(struct trial *t)
{
    for (int ledger = 0; ledger < 2; ledger++) {
        for (uint32_t k = 0; k < JOBS; k++) {
            struct weir_ledger_call end = { .op = WEIR_LEDGER_CANCEL, .task.job = t->jobs[k] };
            struct weir_ledger_call purge = { .op = WEIR_LEDGER_PURGE, .task.job = t->jobs[k] };
            struct weir_ledger_call *list[] = { &end, &purge };
            end.u.cancel.to = WEIR_JOB_EXPIRED;
            purge.u.purge.rows = true;
            if (weir_ledger_apply(t->ledgers[ledger], list, 2, NULL) != WEIR_OK) differ(t, "the end");
        }
    }
}

static void run_sequence(struct trial *t, struct told told[2])
{
    t->random = t->number * 0x2545f4914f6cdd1du;
    t->lease_count = 0;
    for (uint32_t k = 0; k < JOBS; k++) {
        t->plans[k] = (struct weir_plan){ 1 + below(t, ITEMS_MAX), 16, 1 + below(t, SEGMENTS_MAX) };
        for (size_t at = 0; at < WEIR_ID_BYTES; at += 8) {
            const uint64_t value = next(t);
            memcpy(t->jobs[k].bytes + at, &value, 8);
        }
    }
    for (uint32_t done = 0; done < CALLS;) {
        const uint32_t count = 1 + below(t, BATCH_MAX);
        run_batch(t, count);
        done += count;
        if (below(t, 4) == 0) compare_reads(t, told);
    }
    compare_reads(t, told);
    clean(t);
}

int main(int argc, char **argv)
{
    struct settings settings = { .sequences = 3000, .from = 1 };
    struct weir_error error = { 0 };
    struct trial trial = { 0 };
    struct told told[2] = { { 0 } };
    uint64_t given = 0, epoch = 0;
    int first_word = argc;
    if (weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &settings, &given, &first_word, &error) != WEIR_OK ||
        weir_ledger_memory_open(&trial.ledgers[0], &error) != WEIR_OK ||
        weir_ledger_sqlite_open(":memory:", &trial.ledgers[1], &error) != WEIR_OK ||
        weir_ledger_takeover(trial.ledgers[0], &epoch, &error) != WEIR_OK ||
        weir_ledger_takeover(trial.ledgers[1], &epoch, &error) != WEIR_OK) {
        fprintf(stderr, "model: %s\n", error.words);
        return 64;
    }
    const clock_t start = clock();
    for (int64_t k = 0; k < settings.sequences; k++) {
        trial.number = (uint64_t)(settings.from + k);
        run_sequence(&trial, told);
    }
    printf("sequences=%" PRId64 " calls=%" PRIu64 " applied=%" PRIu64 " differences=0 cpu_s=%.1f\n", settings.sequences,
           trial.calls, trial.applied, (double)(clock() - start) / CLOCKS_PER_SEC);
    weir_ledger_close(&trial.ledgers[0]);
    weir_ledger_close(&trial.ledgers[1]);
    free(told[0].text);
    free(told[1].text);
    return 0;
}
