/* The reference model of the ledger: plain structures, each call written out as the rule that it is. Not durable. The
 * simulator runs on it, and the SQLite ledger is compared with it, call by call. */
#include "broker/ledger.h"
#include "broker/sabotage.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct entry {
    UT_hash_handle hh;
    struct weir_ledger_job job; /* its texts and blobs are owned */
    char tenant[WEIR_TENANT_BYTES];
    char numerics_class[WEIR_LEDGER_CLASS_BYTES];
    char words[WEIR_LEDGER_WORDS_BYTES];
    bool keyed;
    uint8_t key[WEIR_SHA256_BYTES];
    size_t task_count;
    struct weir_ledger_task tasks[];
};

struct memory_ledger {
    struct weir_ledger base;
    uint64_t epoch;
    struct entry *entries; /* in the order of submits */
};

static struct weir_blob keep(const struct weir_blob *blob)
{
    struct weir_blob own = { NULL, blob->count };
    void *bytes = malloc(blob->count + 1);
    if (bytes == NULL) abort(); /* of the model: a test machine without memory has no say */
    if (blob->count > 0) memcpy(bytes, blob->bytes, blob->count);
    own.bytes = bytes;
    return own;
}

static void drop(struct weir_blob *blob)
{
    free((void *)(uintptr_t)blob->bytes);
    *blob = (struct weir_blob){ NULL, 0 };
}

static void entry_free(struct entry *entry)
{
    for (size_t k = 0; k < entry->task_count; k++) {
        drop(&entry->tasks[k].artefacts);
        drop(&entry->tasks[k].facts);
    }
    drop(&entry->job.spec);
    drop(&entry->job.manifest);
    free(entry);
}

static struct entry *find(const struct memory_ledger *ledger, const struct weir_job_id *id)
{
    struct entry *entry = NULL;
    HASH_FIND(hh, ledger->entries, id->bytes, WEIR_ID_BYTES, entry);
    return entry;
}

static struct entry *find_key(const struct memory_ledger *ledger, const char *tenant,
                              const uint8_t key[WEIR_SHA256_BYTES])
{
    for (struct entry *entry = ledger->entries; entry != NULL; entry = entry->hh.next) {
        if (entry->keyed && strcmp(entry->tenant, tenant) == 0 && memcmp(entry->key, key, WEIR_SHA256_BYTES) == 0) {
            return entry;
        }
    }
    return NULL;
}

static struct weir_ledger_task *find_task(struct entry *entry, enum weir_stage stage, uint32_t index)
{
    for (size_t k = 0; k < entry->task_count; k++) {
        if (entry->tasks[k].stage == stage && entry->tasks[k].index == index) return &entry->tasks[k];
    }
    return NULL;
}

static bool in_range(const struct weir_plan_range *range, const struct weir_ledger_task *task)
{
    return task->stage == range->stage && task->index >= range->first && task->index - range->first < range->count;
}

static bool job_open(const struct entry *entry)
{
    return entry->job.state == WEIR_JOB_QUEUED || entry->job.state == WEIR_JOB_RUNNING;
}

static bool same_token(const struct weir_ledger_task *task, const struct weir_ledger_call *call)
{
    return WEIR_SABOTAGE(NO_TOKEN_CHECK) || memcmp(task->token, call->token, WEIR_TOKEN_BYTES) == 0;
}

static void end_job(struct entry *entry, const struct weir_ledger_call *call, enum weir_job_state state,
                    enum weir_status cause, const char *lead, const char *words)
{
    char whole[WEIR_LEDGER_WORDS_BYTES];
    weir_ledger_words(lead, words, whole);
    memcpy(entry->words, whole, sizeof entry->words);
    entry->job.state = state;
    entry->job.finished_ms = call->now_wall_ms;
    entry->job.cause = cause;
    entry->job.task_count = (uint32_t)entry->task_count;
    entry->job.tasks_done = 0;
    for (size_t k = 0; k < entry->task_count; k++) entry->job.tasks_done += entry->tasks[k].state == WEIR_TASK_DONE;
}

static void cancel_task(struct weir_ledger_task *task)
{
    if (weir_task_state_closed(task->state)) return;
    task->state = WEIR_TASK_CANCELLED;
    task->delay_ms = 0;
}

static void cancel_tasks(struct entry *entry, bool leased_too)
{
    for (size_t k = 0; k < entry->task_count; k++) {
        if (leased_too || entry->tasks[k].state != WEIR_TASK_LEASED) cancel_task(&entry->tasks[k]);
    }
}

/* ---- the calls ---- */

static enum weir_ledger_reply submit(struct memory_ledger *ledger, struct weir_ledger_call *call)
{
    const struct weir_ledger_job *job = call->u.submit.job;
    call->existing = job->id;
    if (call->u.submit.keyed) {
        const struct entry *old = find_key(ledger, job->tenant, call->u.submit.key);
        if (old != NULL) {
            call->existing = old->job.id;
            return memcmp(old->job.fingerprint, job->fingerprint, WEIR_SHA256_BYTES) == 0 ? WEIR_LEDGER_EXISTS
                                                                                          : WEIR_LEDGER_CONFLICT;
        }
    }
    struct entry *entry = find(ledger, &job->id);
    if (entry != NULL) {
        call->job_state = entry->job.state;
        return WEIR_LEDGER_REPEATED;
    }
    size_t count = 0;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) count += call->u.submit.counts[stage];
    entry = calloc(1, sizeof *entry + count * sizeof entry->tasks[0]);
    if (entry == NULL) abort();
    entry->job = *job;
    entry->job.state = WEIR_JOB_QUEUED;
    entry->job.spec = keep(&job->spec);
    entry->job.manifest = (struct weir_blob){ NULL, 0 };
    entry->job.finished_ms = 0;
    entry->job.cause = WEIR_OK;
    entry->job.swept = false;
    entry->job.task_count = entry->job.tasks_done = 0;
    snprintf(entry->tenant, sizeof entry->tenant, "%s", job->tenant);
    entry->job.tenant = entry->tenant;
    entry->job.numerics_class = entry->numerics_class;
    entry->job.words = entry->words;
    entry->keyed = call->u.submit.keyed;
    memcpy(entry->key, call->u.submit.key, sizeof entry->key);
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        for (uint32_t index = 0; index < call->u.submit.counts[stage]; index++) {
            struct weir_ledger_task *task = &entry->tasks[entry->task_count++];
            task->stage = (enum weir_stage)stage;
            task->index = index;
            task->state = in_range(&call->u.submit.ready, task) ? WEIR_TASK_READY : WEIR_TASK_BLOCKED;
        }
    }
    HASH_ADD(hh, ledger->entries, job.id.bytes, WEIR_ID_BYTES, entry);
    call->job_state = WEIR_JOB_QUEUED;
    return WEIR_LEDGER_APPLIED;
}

static enum weir_ledger_reply lease(struct entry *entry, struct weir_ledger_task *task,
                                    const struct weir_ledger_call *call)
{
    if (task->state == WEIR_TASK_LEASED && same_token(task, call)) return WEIR_LEDGER_REPEATED;
    if (task->state != WEIR_TASK_READY && task->state != WEIR_TASK_DELAYED) return WEIR_LEDGER_STALE;
    const bool bound = entry->numerics_class[0] != 0;
    if (!job_open(entry) || (bound && strcmp(entry->numerics_class, call->u.lease.numerics_class) != 0)) {
        return WEIR_LEDGER_STALE;
    }
    strcpy(entry->numerics_class, call->u.lease.numerics_class);
    entry->job.state = WEIR_JOB_RUNNING;
    task->state = WEIR_TASK_LEASED;
    task->delay_ms = 0;
    task->attempt++;
    task->worker_pid = call->u.lease.worker_pid;
    memcpy(task->token, call->token, sizeof task->token);
    memcpy(task->worker, call->u.lease.worker, sizeof task->worker);
    return WEIR_LEDGER_APPLIED;
}

static void write_manifest(struct entry *entry)
{
    const enum weir_stage last = entry->tasks[entry->task_count - 1].stage; /* they stand stage after stage */
    size_t total = 0;
    for (size_t k = 0; k < entry->task_count; k++) {
        if (entry->tasks[k].stage == last && entry->tasks[k].state == WEIR_TASK_DONE)
            total += entry->tasks[k].artefacts.count;
    }
    char *bytes = malloc(total + 1);
    if (bytes == NULL) abort();
    size_t used = 0;
    for (size_t k = 0; k < entry->task_count; k++) {
        const struct weir_blob *made = &entry->tasks[k].artefacts;
        if (entry->tasks[k].stage != last || entry->tasks[k].state != WEIR_TASK_DONE || made->count == 0) continue;
        memcpy(bytes + used, made->bytes, made->count);
        used += made->count;
    }
    drop(&entry->job.manifest);
    entry->job.manifest = (struct weir_blob){ bytes, total };
}

/* A commit, fail or expire was the last of its job, if it says so. */
static void close_job(struct entry *entry, const struct weir_ledger_call *call)
{
    if (call->job_to != WEIR_JOB_SUCCEEDED && call->job_to != WEIR_JOB_FAILED) return;
    const bool failed = call->job_to == WEIR_JOB_FAILED;
    char first[WEIR_LEDGER_WORDS_BYTES];
    memcpy(first, entry->words, sizeof first);
    write_manifest(entry);
    end_job(entry, call, call->job_to, failed ? entry->job.cause : WEIR_OK, failed ? call->lead : "",
            failed ? first : "");
}

static enum weir_ledger_reply commit(struct entry *entry, struct weir_ledger_task *task,
                                     const struct weir_ledger_call *call)
{
    const struct weir_blob *made = &call->u.commit.artefacts;
    const bool open =
        job_open(entry) || (WEIR_SABOTAGE(COMMIT_AFTER_CANCEL) && entry->job.state == WEIR_JOB_CANCELLING);
    const bool twice = WEIR_SABOTAGE(DONE_TWICE) && task->state == WEIR_TASK_DONE;
    if (!same_token(task, call) || (task->state != WEIR_TASK_LEASED && !twice) || !open) {
        const bool equal = task->state == WEIR_TASK_DONE && same_token(task, call) &&
                           task->artefacts.count == made->count &&
                           (made->count == 0 || memcmp(task->artefacts.bytes, made->bytes, made->count) == 0);
        return equal ? WEIR_LEDGER_REPEATED : WEIR_LEDGER_STALE;
    }
    drop(&task->artefacts);
    drop(&task->facts);
    task->artefacts = keep(made);
    task->facts = keep(&call->u.commit.facts);
    task->state = WEIR_TASK_DONE;
    for (size_t k = 0; k < entry->task_count; k++) {
        struct weir_ledger_task *next = &entry->tasks[k];
        if (in_range(&call->u.commit.ready, next) && next->state == WEIR_TASK_BLOCKED) next->state = WEIR_TASK_READY;
    }
    close_job(entry, call);
    return WEIR_LEDGER_APPLIED;
}

static bool regress(struct entry *entry, const struct weir_ledger_call *call)
{
    struct weir_ledger_task *producer = find_task(entry, call->u.fail.producer_stage, call->u.fail.producer_index);
    if (producer == NULL || producer->state != WEIR_TASK_DONE) return false;
    producer->state = call->u.fail.producer_to;
    producer->regress++;
    for (size_t k = 0; k < entry->task_count; k++) {
        struct weir_ledger_task *other = &entry->tasks[k];
        if (!in_range(&call->u.fail.block, other)) continue;
        if (other->state != WEIR_TASK_READY && other->state != WEIR_TASK_DELAYED) continue;
        other->state = WEIR_TASK_BLOCKED;
        other->delay_ms = 0;
    }
    return true;
}

/* What a task that is DEAD takes with it; the first one's cause is kept. */
static void lose(struct entry *entry, const struct weir_ledger_call *call)
{
    for (size_t k = 0; !WEIR_SABOTAGE(LOST_LEFT_OPEN) && k < entry->task_count; k++) {
        for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
            if (in_range(&call->lost[stage], &entry->tasks[k])) cancel_task(&entry->tasks[k]);
        }
    }
    if (entry->job.cause != WEIR_OK) return;
    entry->job.cause = call->cause;
    weir_ledger_words("", call->words, entry->words);
}

static enum weir_ledger_reply leave(struct entry *entry, struct weir_ledger_task *task,
                                    const struct weir_ledger_call *call)
{
    if (!same_token(task, call)) return WEIR_LEDGER_STALE;
    if (task->state == WEIR_TASK_DONE) return WEIR_LEDGER_STALE;
    if (task->state != WEIR_TASK_LEASED) return WEIR_LEDGER_REPEATED;
    const enum weir_task_state to = call->op == WEIR_LEDGER_FAIL      ? call->u.fail.to
                                    : call->op == WEIR_LEDGER_RELEASE ? call->u.release.to
                                                                      : call->u.expire.to;
    if (entry->job.state == WEIR_JOB_CANCELLING && to != WEIR_TASK_CANCELLED) return WEIR_LEDGER_STALE;
    if (call->op == WEIR_LEDGER_FAIL && to == WEIR_TASK_BLOCKED && call->u.fail.regress && !regress(entry, call)) {
        return WEIR_LEDGER_STALE;
    }
    task->state = to;
    task->delay_ms = 0;
    if (call->op == WEIR_LEDGER_FAIL) {
        task->delay_ms = call->u.fail.delay_ms;
        if (call->u.fail.charged)
            task->fail++;
        else if (to == WEIR_TASK_BLOCKED)
            task->released++;
    } else if (call->op == WEIR_LEDGER_RELEASE) {
        task->released++;
    } else {
        task->delay_ms = call->u.expire.delay_ms;
        if (call->u.expire.charged)
            task->crash++;
        else
            task->expired++;
        if (call->u.expire.checkpoint_step > task->checkpoint_step) {
            task->checkpoint_step = call->u.expire.checkpoint_step;
        }
    }
    if (to == WEIR_TASK_DEAD) {
        lose(entry, call);
        close_job(entry, call);
    }
    return WEIR_LEDGER_APPLIED;
}

static enum weir_ledger_reply cancel(struct entry *entry, const struct weir_ledger_call *call)
{
    const enum weir_job_state from = entry->job.state, to = call->u.cancel.to;
    if (from == to || (to == WEIR_JOB_CANCELLING && from == WEIR_JOB_CANCELLED)) return WEIR_LEDGER_REPEATED;
    if (!weir_job_move_legal(from, to)) return WEIR_LEDGER_STALE;
    if (to == WEIR_JOB_CANCELLED) {
        for (size_t k = 0; k < entry->task_count; k++) {
            if (entry->tasks[k].state == WEIR_TASK_LEASED) return WEIR_LEDGER_STALE;
        }
    }
    cancel_tasks(entry, to != WEIR_JOB_CANCELLING);
    if (to == WEIR_JOB_CANCELLING)
        entry->job.state = to;
    else
        end_job(entry, call, to, call->cause, "", call->words);
    return WEIR_LEDGER_APPLIED;
}

static enum weir_ledger_reply purge(struct memory_ledger *ledger, struct entry *entry,
                                    const struct weir_ledger_call *call)
{
    if (!weir_job_state_terminal(entry->job.state)) return WEIR_LEDGER_STALE;
    if (call->u.purge.rows) {
        HASH_DEL(ledger->entries, entry);
        entry_free(entry);
    } else {
        entry->job.swept = true;
    }
    return WEIR_LEDGER_APPLIED;
}

static void apply_one(struct memory_ledger *ledger, struct weir_ledger_call *call)
{
    call->reply = WEIR_LEDGER_NOT_FOUND;
    call->job_state = WEIR_JOB_QUEUED;
    call->task_state = WEIR_TASK_BLOCKED;
    call->existing = call->task.job;
    if (call->op == WEIR_LEDGER_SUBMIT) {
        call->reply = submit(ledger, call);
        return;
    }
    struct entry *entry = find(ledger, &call->task.job);
    if (entry == NULL) return;
    call->job_state = entry->job.state;
    if (call->op == WEIR_LEDGER_PURGE) {
        call->reply = purge(ledger, entry, call);
        return;
    }
    if (call->op == WEIR_LEDGER_CANCEL) {
        call->reply = cancel(entry, call);
        call->job_state = entry->job.state;
        return;
    }
    struct weir_ledger_task *task = find_task(entry, call->task.stage, call->task.index);
    if (task == NULL) return;
    call->reply = call->op == WEIR_LEDGER_LEASE    ? lease(entry, task, call)
                  : call->op == WEIR_LEDGER_COMMIT ? commit(entry, task, call)
                                                   : leave(entry, task, call);
    call->job_state = entry->job.state;
    call->task_state = task->state;
}

static enum weir_status memory_apply(struct weir_ledger *base, struct weir_ledger_call *const calls[], size_t count,
                                     struct weir_error *error)
{
    (void)error;
    for (size_t k = 0; k < count; k++) apply_one((struct memory_ledger *)base, calls[k]);
    return WEIR_OK;
}

static enum weir_status memory_takeover(struct weir_ledger *base, uint64_t *epoch, struct weir_error *error)
{
    (void)error;
    *epoch = ++((struct memory_ledger *)base)->epoch;
    return WEIR_OK;
}

/* ---- reading ---- */

static enum weir_status memory_replay(struct weir_ledger *base, const struct weir_ledger_query *query,
                                      weir_ledger_each *each, void *context, struct weir_error *error)
{
    struct memory_ledger *ledger = (struct memory_ledger *)base;
    struct entry *entry = query->by_key ? find_key(ledger, query->tenant, query->key) : find(ledger, &query->job);
    (void)error;
    if (entry == NULL) return WEIR_NOT_FOUND;
    size_t first = 0, count = entry->task_count;
    struct weir_ledger_job job = entry->job;
    if (query->no_spec) job.spec = (struct weir_blob){ NULL, 0 };
    if (query->no_tasks) {
        count = 0;
    } else if (query->ranged) { /* its rows are neighbours */
        while (first < entry->task_count && !in_range(&query->range, &entry->tasks[first])) first++;
        count = 0;
        while (first + count < entry->task_count && in_range(&query->range, &entry->tasks[first + count])) count++;
    }
    each(context, &job, entry->tasks + first, count);
    return WEIR_OK;
}

static enum weir_status memory_page_open(struct weir_ledger *base, const struct weir_ledger_page *page,
                                         weir_ledger_each *each, void *context, struct weir_error *error)
{
    struct memory_ledger *ledger = (struct memory_ledger *)base;
    struct weir_job_id at = page->from;
    bool bounded = page->bounded;
    (void)error;
    for (uint32_t given = 0; given < page->limit; given++) {
        /* The next one in order, by looking at all: a model is plain. */
        struct entry *best = NULL;
        for (struct entry *entry = ledger->entries; entry != NULL; entry = entry->hh.next) {
            const bool terminal = weir_job_state_terminal(entry->job.state);
            if (page->filter == WEIR_LEDGER_OPEN && terminal) continue;
            if (page->filter == WEIR_LEDGER_UNSWEPT && (!terminal || entry->job.swept)) continue;
            if (page->batched && !(entry->job.batched && memcmp(entry->job.batch, page->batch, WEIR_ID_BYTES) == 0)) {
                continue;
            }
            const int from_here = memcmp(entry->job.id.bytes, at.bytes, WEIR_ID_BYTES);
            if (bounded && (page->newest_first ? from_here >= 0 : from_here <= 0)) continue;
            const int order = best == NULL ? -1 : memcmp(entry->job.id.bytes, best->job.id.bytes, WEIR_ID_BYTES);
            if (best == NULL || (page->newest_first ? order > 0 : order < 0)) best = entry;
        }
        if (best == NULL) break;
        at = best->job.id;
        bounded = true;
        if (!each(context, &best->job, best->tasks, page->no_tasks ? 0 : best->task_count)) break;
    }
    return WEIR_OK;
}

static void memory_close(struct weir_ledger *base)
{
    struct memory_ledger *ledger = (struct memory_ledger *)base;
    struct entry *entry, *next;
    HASH_ITER(hh, ledger->entries, entry, next)
    {
        HASH_DEL(ledger->entries, entry);
        entry_free(entry);
    }
    free(ledger);
}

enum weir_status weir_ledger_memory_open(struct weir_ledger **out, struct weir_error *error)
{
    static const struct weir_ledger_ops ops = { memory_apply, memory_takeover, memory_replay, memory_page_open,
                                                memory_close };
    struct memory_ledger *ledger = calloc(1, sizeof *ledger);
    if (ledger == NULL) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a ledger");
    ledger->base.ops = &ops;
    *out = &ledger->base;
    return WEIR_OK;
}
