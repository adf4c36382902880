/* The store behind ended jobs: checkpoints go as soon as the job is terminal, what the manifest does not list an hour
 * later. Which jobs are still to be swept is in the ledger, so that a restart forgets none. */
#include "broker/broker_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEPS_PER_TURN 4 /* each may list a job's objects */
#define LOOK_EVERY_MS 60000

/* ---- checkpoints ---- */

struct newest {
    uint32_t step;
};

static bool newest_each(void *context, const char *key)
{
    struct newest *newest = context;
    const char *name = strrchr(key, '/');
    char *end = NULL;
    if (name == NULL) return true;
    const unsigned long step = strtoul(name + 1, &end, 10);
    if (end != name + 1 && *end == 0 && step <= UINT32_MAX && step > newest->step) newest->step = (uint32_t)step;
    return true;
}

uint32_t weir_broker_newest_checkpoint(struct weir_broker *broker, const char *tenant, const struct weir_task_id *task,
                                       bool *known)
{
    const struct weir_broker_port *port = &broker->options.port;
    struct newest newest = { 0 };
    struct weir_error error = { 0 };
    char prefix[WEIR_KEY_BYTES];
    weir_key_checkpoints(tenant, task, prefix);
    const enum weir_status status = port->list(port->context, prefix, newest_each, &newest, &error);
    *known = status == WEIR_OK || status == WEIR_NOT_FOUND;
    if (!*known) weir_log(broker->options.log, WEIR_LOG_WARN, "store failed reason=\"%s\"", error.words);
    return newest.step;
}

/* ---- sweeping one job ---- */

struct sweep_work {
    struct weir_broker *broker;
    Weir__Pb__Done *manifest; /* or NULL: keep nothing */
    bool everything;          /* not the checkpoints alone */
    char (*keys)[WEIR_KEY_BYTES];
    size_t count, capacity;
};

static bool in_manifest(const struct sweep_work *work, const char *key)
{
    for (size_t k = 0; work->manifest != NULL && k < work->manifest->n_artefacts; k++) {
        if (strcmp(work->manifest->artefacts[k]->key, key) == 0) return true;
    }
    return false;
}

/* Only collects: a store need not like removals while it lists. */
static bool sweep_each(void *context, const char *key)
{
    struct sweep_work *work = context;
    const bool checkpoint = strstr(key, "/ckpt/") != NULL;
    if (!checkpoint && (!work->everything || in_manifest(work, key))) return true;
    if (strlen(key) >= WEIR_KEY_BYTES) return true;
    if (work->count == work->capacity) {
        const size_t capacity = 2 * work->capacity + 64;
        char(*grown)[WEIR_KEY_BYTES] = realloc(work->keys, capacity * sizeof *grown);
        if (grown == NULL) return false;
        work->keys = grown;
        work->capacity = capacity;
    }
    strcpy(work->keys[work->count++], key);
    return true;
}

static enum weir_status sweep_objects(struct weir_broker *broker, const char *tenant, const struct weir_job_id *job,
                                      Weir__Pb__Done *manifest, bool everything)
{
    const struct weir_broker_port *port = &broker->options.port;
    struct sweep_work work = { .broker = broker, .manifest = manifest, .everything = everything };
    struct weir_error error = { 0 };
    char prefix[WEIR_KEY_BYTES];
    weir_key_job(tenant, job, prefix);
    enum weir_status status = port->list(port->context, prefix, sweep_each, &work, &error);
    if (status == WEIR_NOT_FOUND) status = WEIR_OK;
    for (size_t k = 0; status == WEIR_OK && k < work.count; k++) {
        status = port->remove(port->context, work.keys[k], &error);
        if (status == WEIR_NOT_FOUND) status = WEIR_OK;
    }
    if (status != WEIR_OK) weir_log(broker->options.log, WEIR_LOG_WARN, "sweep failed reason=\"%s\"", error.words);
    free(work.keys);
    return status;
}

struct sweep_row_work {
    struct weir_broker *broker;
    enum weir_status status;
};

static bool sweep_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                      size_t task_count)
{
    struct sweep_row_work *work = context;
    (void)tasks;
    (void)task_count;
    Weir__Pb__Done *manifest =
        job->manifest.count > 0 ? weir__pb__done__unpack(NULL, job->manifest.count, job->manifest.bytes) : NULL;
    if (manifest == NULL && (job->state == WEIR_JOB_SUCCEEDED || job->manifest.count > 0)) {
        work->status = WEIR_IO; /* never sweep what cannot be told from a result */
    } else {
        work->status = sweep_objects(work->broker, job->tenant, &job->id, manifest, true);
    }
    if (manifest != NULL) weir__pb__done__free_unpacked(manifest, NULL);
    return false;
}

static enum weir_status mark_swept(struct weir_broker *broker, const struct weir_job_id *job, struct weir_error *error)
{
    struct weir_ledger_call call = { .op = WEIR_LEDGER_PURGE, .task.job = *job };
    struct weir_ledger_call *const calls[] = { &call };
    return weir_ledger_apply(broker->ledger, calls, 1, error);
}

/* ---- which, and when ---- */

static void add_sweep(struct weir_broker *broker, uint64_t due_ms, const struct weir_job_id *job, const char *tenant)
{
    for (size_t k = 0; k < broker->sweep_count; k++) {
        if (weir_job_id_equal(&broker->sweeps[k].job, job)) return;
    }
    if (broker->sweep_count == SWEEPS_MAX) {
        broker->sweeps_missed = true;
        return;
    }
    struct sweep *sweep = &broker->sweeps[broker->sweep_count++];
    sweep->job = *job;
    sweep->due_ms = due_ms;
    snprintf(sweep->tenant, sizeof sweep->tenant, "%s", tenant);
}

void weir_broker_sweep_later(struct weir_broker *broker, uint64_t now_ms, const struct weir_job_id *job,
                             const char *tenant)
{
    sweep_objects(broker, tenant, job, NULL, false);
    add_sweep(broker, now_ms + broker->options.sweep_after_ms, job, tenant);
}

struct look_work {
    struct weir_broker *broker;
    uint64_t due_ms;
};

static bool look_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                     size_t task_count)
{
    struct look_work *work = context;
    (void)tasks;
    (void)task_count;
    add_sweep(work->broker, work->due_ms, &job->id, job->tenant);
    return true;
}

enum weir_status weir_broker_sweeps_tick(struct weir_broker *broker, uint64_t now_ms, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (broker->sweeps_missed && now_ms >= broker->sweep_look_ms && broker->sweep_count < SWEEPS_MAX / 2) {
        const struct weir_ledger_page page = { .filter = WEIR_LEDGER_UNSWEPT, .no_tasks = true, .limit = SWEEPS_MAX };
        struct look_work work = { broker, now_ms + broker->options.sweep_after_ms };
        broker->sweeps_missed = false; /* set again when they do not fit */
        broker->sweep_look_ms = now_ms + LOOK_EVERY_MS;
        WEIR_TRY(weir_ledger_page_open(broker->ledger, &page, look_row, &work, error));
    }
    int swept = 0;
    for (size_t k = 0; k < broker->sweep_count && swept < SWEEPS_PER_TURN;) {
        struct sweep *sweep = &broker->sweeps[k];
        if (sweep->due_ms > now_ms) {
            k++;
            continue;
        }
        const struct weir_ledger_query query = { .job = sweep->job, .no_tasks = true, .no_spec = true };
        struct sweep_row_work work = { broker, WEIR_OK };
        const enum weir_status found = weir_ledger_replay(broker->ledger, &query, sweep_row, &work, error);
        if (found != WEIR_OK && found != WEIR_NOT_FOUND) return found;
        if (found == WEIR_OK && work.status != WEIR_OK) {
            sweep->due_ms = now_ms + LOOK_EVERY_MS; /* the store has trouble: later */
            k++;
            continue;
        }
        if (found == WEIR_OK) WEIR_TRY(mark_swept(broker, &sweep->job, error));
        *sweep = broker->sweeps[--broker->sweep_count];
        swept++;
    }
cleanup:
    return status;
}
