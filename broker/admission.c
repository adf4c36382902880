/* How a job comes in: SUBMIT, a QUOTE from a worker that announced the model, then one transaction, then ACCEPTED. The
 * broker knows nothing of models: what a spec resolves to, costs and needs is the worker's word. */
#include "broker/broker_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ASKS_MAX 3 /* workers asked about one submit */
#define RETRY_BUSY_MS 2000
#define RETRY_UNAVAILABLE_MS 500

void weir_broker_refuse(struct weir_broker *broker, const struct weir_routing *client, uint64_t number,
                        enum weir_status status, uint32_t retry_after_ms, const char *format, ...)
{
    char words[400];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    Weir__Pb__Refused body = WEIR__PB__REFUSED__INIT;
    body.has_number = body.has_status = true;
    body.number = number;
    body.status = status;
    body.words = words;
    body.has_retry_after_ms = retry_after_ms > 0;
    body.retry_after_ms = retry_after_ms;
    weir_broker_send(broker, WEIR_SIDE_CLIENTS, client, WEIR_MESSAGE_REFUSED, &body.base);
}

static void accept(struct weir_broker *broker, const struct weir_routing *client, uint64_t number,
                   const struct weir_job_id *job, bool existed)
{
    Weir__Pb__Accepted body = WEIR__PB__ACCEPTED__INIT;
    body.has_number = body.has_job = body.has_existed = true;
    body.number = number;
    body.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, (uint8_t *)(uintptr_t)job->bytes };
    body.existed = existed;
    weir_broker_send(broker, WEIR_SIDE_CLIENTS, client, WEIR_MESSAGE_ACCEPTED, &body.base);
}

#define SHAPE_NUMBERS 5
static void shape_of_item(const Weir__Pb__JobSpec *spec, uint32_t item, uint64_t out[SHAPE_NUMBERS])
{
    Weir__Pb__JobSpec own;
    weir_spec_of_item(spec, item, &own);
    const uint64_t numbers[] = { own.width, own.height, own.frames, own.steps, own.guidance > 1 };
    memcpy(out, numbers, sizeof numbers);
}

/* Of a list: of all its prompts, neighbours that are alike counted once; so the same as that of one prompt, where all
 * are alike. */
uint64_t weir_broker_shape(const Weir__Pb__JobSpec *spec)
{
    uint64_t hash = 0xcbf29ce484222325u, before[SHAPE_NUMBERS] = { 0 };
    for (size_t k = 0; k < spec->model_digest.len; k++) hash = (hash ^ spec->model_digest.data[k]) * 0x100000001b3u;
    for (uint32_t p = 0; p == 0 || p < spec->n_prompts; p++) {
        uint64_t numbers[SHAPE_NUMBERS];
        shape_of_item(spec, p * spec->n, numbers);
        if (p > 0 && memcmp(before, numbers, sizeof numbers) == 0) continue;
        for (size_t k = 0; k < SHAPE_NUMBERS; k++) hash = (hash ^ numbers[k]) * 0x100000001b3u;
        memcpy(before, numbers, sizeof before);
    }
    return hash;
}

/* ---- who is asked ---- */

static bool announces(const Weir__Pb__Hello *hello, const char *model)
{
    for (size_t k = 0; hello != NULL && k < hello->n_models; k++) {
        if (model == NULL || strcmp(hello->models[k]->name, model) == 0) return true;
    }
    return false;
}

/* How many submits wait for this worker's quotes. */
static uint32_t asked_of(const struct weir_broker *broker, uint32_t slot)
{
    uint32_t count = 0;
    for (size_t k = 0; k < WEIR_ADMISSIONS_MAX; k++) {
        count += broker->admissions[k].used && broker->admissions[k].worker == slot;
    }
    return count;
}

/* A connected worker with the model, one that denoises if possible, since that is what costs; not the one asked last if
 * there is another; of such the one that was asked least. NONE: nobody. */
static uint32_t pick_worker(struct weir_broker *broker, const char *model, uint32_t last)
{
    uint32_t best = WEIR_ROSTER_NONE;
    uint32_t best_score = 0, best_asked = 0;
    struct weir_roster *roster = weir_sched_roster(broker->sched);
    for (uint32_t slot = 0; slot < weir_roster_end(roster); slot++) {
        const struct weir_worker *worker = weir_roster_at(roster, slot);
        if (worker == NULL || !worker->connected || worker->draining || broker->worker_peers[slot] == NULL) continue;
        if (!announces(broker->hellos[slot].body.hello, model)) continue;
        const uint32_t score = (slot != last ? 4u : 1u) + (worker->facts.stages >> WEIR_STAGE_DENOISE & 1u) * 2u;
        if (score < best_score) continue;
        const uint32_t asked = asked_of(broker, slot);
        if (score > best_score || asked < best_asked) {
            best = slot;
            best_score = score;
            best_asked = asked;
        }
    }
    return best;
}

static void names_served(struct weir_broker *broker, char *out, size_t out_bytes)
{
    size_t used = 0;
    struct weir_roster *roster = weir_sched_roster(broker->sched);
    out[0] = 0;
    for (uint32_t slot = 0; slot < weir_roster_end(roster); slot++) {
        const Weir__Pb__Hello *hello = broker->hellos[slot].body.hello;
        if (weir_roster_at(roster, slot) == NULL || hello == NULL) continue;
        for (size_t k = 0; k < hello->n_models; k++) {
            const char *name = hello->models[k]->name;
            if (strstr(out, name) != NULL) continue; /* for people: a name inside another may be left out */
            const int more = snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? ", " : "", name);
            if (more < 0 || (size_t)more >= out_bytes - used) return;
            used += (size_t)more;
        }
    }
}

static void finish(struct admission *admission)
{
    weir_message_release(&admission->submit);
    *admission = (struct admission){ 0 };
}

static void refuse(struct weir_broker *broker, struct admission *admission, enum weir_status status,
                   uint32_t retry_after_ms, const char *words)
{
    weir_broker_refuse(broker, &admission->submit.from, admission->submit.body.submit->number, status, retry_after_ms,
                       "%s", words);
    finish(admission);
}

/* Asks a worker for a quote; with nobody to ask, refuses. */
static void ask(struct weir_broker *broker, uint64_t now_ms, struct admission *admission)
{
    const Weir__Pb__Submit *submit = admission->submit.body.submit;
    while (admission->asked < ASKS_MAX) {
        const uint32_t slot = pick_worker(broker, submit->spec->model, admission->worker);
        if (slot == WEIR_ROSTER_NONE) break;
        admission->asked++;
        admission->worker = slot;
        admission->number = ++broker->quote_number;
        admission->ask_until_ms = now_ms + WEIR_QUOTE_ASK_MS_MAX;
        Weir__Pb__Quote body = WEIR__PB__QUOTE__INIT;
        body.has_number = true;
        body.number = admission->number;
        body.spec = submit->spec;
        if (weir_broker_send_worker(broker, now_ms, slot, WEIR_MESSAGE_QUOTE, &body.base) == WEIR_OK) return;
    }
    if (admission->refusal != WEIR_OK) {
        refuse(broker, admission, admission->refusal, RETRY_BUSY_MS, admission->words);
        return;
    }
    char served[200], words[400];
    names_served(broker, served, sizeof served);
    snprintf(words, sizeof words, "no worker serves the model %.120s; served now: %s",
             submit->spec->model != NULL ? submit->spec->model : "(none named)", served[0] != 0 ? served : "none");
    refuse(broker, admission, WEIR_UNAVAILABLE, RETRY_UNAVAILABLE_MS, words);
}

/* ---- SUBMIT ---- */

struct found {
    bool found;
    struct weir_job_id id;
    uint8_t fingerprint[WEIR_SHA256_BYTES];
};

static bool found_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                      size_t task_count)
{
    struct found *found = context;
    (void)tasks;
    (void)task_count;
    found->found = true;
    found->id = job->id;
    memcpy(found->fingerprint, job->fingerprint, sizeof found->fingerprint);
    return false;
}

/* True when the key was used before: then the client has its answer. */
static bool answered_by_key(struct weir_broker *broker, const struct admission *admission, const char *key,
                            const struct weir_message *message)
{
    const uint64_t number = message->body.submit->number;
    struct found found = { 0 };
    struct weir_ledger_query query = { .by_key = true, .tenant = admission->tenant, .no_tasks = true };
    struct weir_error error = { 0 };
    memcpy(query.key, admission->key, sizeof query.key);
    const enum weir_status status = weir_ledger_replay(broker->ledger, &query, found_row, &found, &error);
    if (status != WEIR_OK && status != WEIR_NOT_FOUND) {
        weir_broker_refuse(broker, &message->from, number, WEIR_STORE, RETRY_BUSY_MS, "%s", error.words);
        return true;
    }
    if (!found.found) return false;
    if (memcmp(found.fingerprint, admission->fingerprint, sizeof found.fingerprint) == 0) {
        accept(broker, &message->from, number, &found.id, true);
    } else {
        weir_broker_refuse(broker, &message->from, number, WEIR_CONFLICT, 0,
                           "the idempotency key %.64s was used before with another request", key);
    }
    return true;
}

void weir_broker_submit(struct weir_broker *broker, uint64_t now_ms, struct weir_message *message)
{
    const Weir__Pb__Submit *submit = message->body.submit;
    const char *tenant = submit->tenant != NULL ? submit->tenant : "default";
    struct admission fresh = { .used = true, .worker = WEIR_ROSTER_NONE };

    if (broker->closed) {
        weir_broker_refuse(broker, &message->from, submit->number, WEIR_BUSY, RETRY_BUSY_MS, "the broker is stopping");
        return;
    }
    if (!weir_tenant_valid(tenant)) {
        weir_broker_refuse(broker, &message->from, submit->number, WEIR_BAD_ARGUMENT, 0,
                           "tenant %.40s: 1 to 32 of a-z, 0-9 and - are wanted", tenant);
        return;
    }
    if (submit->has_batch ? submit->part >= submit->parts : submit->has_part || submit->has_parts) {
        weir_broker_refuse(broker, &message->from, submit->number, WEIR_BAD_ARGUMENT, 0,
                           submit->has_batch ? "part %u of %u: parts are numbered from 0"
                                             : "part %u of %u: without a batch there are none",
                           submit->part, submit->parts);
        return;
    }
    snprintf(fresh.tenant, sizeof fresh.tenant, "%s", tenant);
    weir_spec_fingerprint(submit->spec, fresh.fingerprint);
    if (submit->idempotency_key != NULL) {
        fresh.keyed = true;
        weir_sha256_of(submit->idempotency_key, strlen(submit->idempotency_key), fresh.key);
        if (answered_by_key(broker, &fresh, submit->idempotency_key, message)) return;
    }
    if (!weir_sched_has_room(broker->sched, 1, 1)) {
        weir_broker_refuse(broker, &message->from, submit->number, WEIR_BUSY, RETRY_BUSY_MS,
                           "%u jobs are open; the limits are %u jobs and %u tasks",
                           weir_sched_counts(broker->sched).jobs, broker->options.sched.jobs_max,
                           broker->options.sched.tasks_max);
        return;
    }
    struct admission *admission = NULL;
    for (size_t k = 0; admission == NULL && k < WEIR_ADMISSIONS_MAX; k++) {
        if (!broker->admissions[k].used) admission = &broker->admissions[k];
    }
    if (admission == NULL) {
        weir_broker_refuse(broker, &message->from, submit->number, WEIR_BUSY, RETRY_BUSY_MS,
                           "%d submits wait for their quotes, that is the limit", WEIR_ADMISSIONS_MAX);
        return;
    }
    *admission = fresh;
    admission->submit = *message; /* kept beyond the turn */
    message->arena = NULL;
    message->body.base = NULL;
    admission->until_ms = now_ms + WEIR_QUOTE_MS_MAX;
    ask(broker, now_ms, admission);
}

/* ---- QUOTED ---- */

static struct admission *find_admission(struct weir_broker *broker, uint64_t number, uint32_t slot)
{
    for (size_t k = 0; k < WEIR_ADMISSIONS_MAX; k++) {
        struct admission *admission = &broker->admissions[k];
        if (admission->used && admission->number == number && admission->worker == slot) return admission;
    }
    return NULL;
}

static bool resolved(const Weir__Pb__JobSpec *spec)
{
    return spec != NULL && spec->has_model_digest && spec->model != NULL && spec->has_width && spec->has_height &&
           spec->has_steps && spec->has_spec_version;
}

/* Puts the job into the turn's transaction. */
static void plan_job(struct weir_broker *broker, uint64_t wall_ms, struct admission *admission,
                     const Weir__Pb__Quoted *quoted)
{
    const Weir__Pb__Submit *submit = admission->submit.body.submit;
    struct weir_error error = { 0 };
    struct weir_plan plan;

    if (!resolved(quoted->spec)) {
        refuse(broker, admission, WEIR_INTERNAL, 0, "the worker's quote lacks fields of the spec");
        return;
    }
    const enum weir_status status = weir_plan_make(quoted->spec, &plan, &error);
    if (status != WEIR_OK) {
        refuse(broker, admission, status, 0, error.words);
        return;
    }
    const size_t spec_bytes = protobuf_c_message_get_packed_size(&quoted->spec->base);
    if (spec_bytes > WEIR_SPEC_BYTES_MAX) {
        weir_fail(&error, WEIR_TOO_LARGE, "the resolved spec has %zu bytes; one job may have %d", spec_bytes,
                  WEIR_SPEC_BYTES_MAX);
        refuse(broker, admission, WEIR_TOO_LARGE, 0, error.words);
        return;
    }
    const uint32_t tasks = weir_plan_tasks(&plan);
    if (broker->submission_count == WEIR_TURN_MESSAGES_MAX ||
        !weir_sched_has_room(broker->sched, (uint32_t)broker->submission_count + 1, broker->submission_tasks + tasks) ||
        weir_roster_model(weir_sched_roster(broker->sched), quoted->spec->model_digest.data) == WEIR_ROSTER_NONE) {
        refuse(broker, admission, WEIR_BUSY, RETRY_BUSY_MS, "too many jobs, tasks or models are open");
        return;
    }
    struct submission *submission = weir_broker_scratch(broker, sizeof *submission);
    char *tenant = weir_broker_scratch(broker, WEIR_TENANT_BYTES);
    const struct weir_blob spec = weir_broker_pack(broker, &quoted->spec->base);
    if (submission == NULL || tenant == NULL || spec.bytes == NULL) {
        refuse(broker, admission, WEIR_NO_MEMORY, RETRY_BUSY_MS, "no memory for one more job");
        return;
    }
    memcpy(tenant, admission->tenant, WEIR_TENANT_BYTES);
    submission->client = admission->submit.from;
    submission->number = submit->number;
    submission->plan = plan;
    submission->shape = weir_broker_shape(quoted->spec);
    memcpy(submission->model, quoted->spec->model_digest.data, sizeof submission->model);
    submission->row = (struct weir_ledger_job){
        .id = broker->options.port.job_id(broker->options.port.context),
        .tenant = tenant,
        .state = WEIR_JOB_QUEUED,
        .priority = submit->priority,
        .plan_version = weir_plan_version(&plan),
        .cost_ms = quoted->cost_ms,
        .deadline_ms = submit->deadline_ms,
        .created_ms = wall_ms,
        .numerics_class = "",
        .words = "",
        .spec = spec,
        .batched = submit->has_batch,
        .part = submit->part,
        .parts = submit->parts,
    };
    if (submit->has_batch) memcpy(submission->row.batch, submit->batch.data, WEIR_ID_BYTES);
    memcpy(submission->row.fingerprint, admission->fingerprint, WEIR_SHA256_BYTES);
    struct weir_ledger_call *call = &submission->call;
    call->op = WEIR_LEDGER_SUBMIT;
    call->task.job = submission->row.id;
    call->u.submit.job = &submission->row;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        call->u.submit.counts[stage] = weir_plan_count(&plan, (enum weir_stage)stage);
    }
    call->u.submit.ready = (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, weir_plan_count(&plan, WEIR_STAGE_TEXT) };
    call->u.submit.keyed = admission->keyed;
    memcpy(call->u.submit.key, admission->key, WEIR_SHA256_BYTES);
    broker->submissions[broker->submission_count++] = submission;
    broker->submission_tasks += tasks;
    finish(admission);
}

void weir_broker_quoted(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, uint32_t slot,
                        const Weir__Pb__Quoted *quoted)
{
    struct admission *admission = find_admission(broker, quoted->number, slot);
    if (admission == NULL) return; /* too late, or nobody asked */
    const enum weir_status status = (enum weir_status)quoted->status;
    if (status == WEIR_OK) {
        plan_job(broker, wall_ms, admission, quoted);
        return;
    }
    const char *words = quoted->words != NULL ? quoted->words : weir_status_words(status);
    if (weir_status_retry(status) == WEIR_RETRY_NEVER) {
        refuse(broker, admission, status, 0, words);
        return;
    }
    admission->refusal = status;
    snprintf(admission->words, sizeof admission->words, "%s", words);
    ask(broker, now_ms, admission);
}

uint64_t weir_broker_admissions_tick(struct weir_broker *broker, uint64_t now_ms)
{
    uint64_t wait_ms = UINT64_MAX;
    struct weir_roster *roster = weir_sched_roster(broker->sched);
    for (size_t k = 0; k < WEIR_ADMISSIONS_MAX; k++) {
        struct admission *admission = &broker->admissions[k];
        if (!admission->used) continue;
        const struct weir_worker *worker =
            admission->worker == WEIR_ROSTER_NONE ? NULL : weir_roster_at(roster, admission->worker);
        if (now_ms >= admission->until_ms) {
            refuse(broker, admission, WEIR_TIMEOUT, RETRY_BUSY_MS,
                   "no worker answered the question for a quote in 30 s");
            continue;
        }
        if (worker == NULL || !worker->connected || now_ms >= admission->ask_until_ms) ask(broker, now_ms, admission);
        if (!admission->used) continue;
        if (admission->until_ms - now_ms < wait_ms) wait_ms = admission->until_ms - now_ms;
        if (admission->ask_until_ms - now_ms < wait_ms) wait_ms = admission->ask_until_ms - now_ms;
    }
    return wait_ms;
}

/* ---- durable ---- */

static enum weir_status load_submitted(struct weir_broker *broker, uint64_t now_ms, const struct submission *submission,
                                       struct weir_error *error)
{
    const uint32_t count = weir_plan_tasks(&submission->plan);
    struct weir_ledger_task *rows = weir_broker_scratch(broker, count * sizeof *rows);
    if (rows == NULL) return weir_fail(error, WEIR_INTERNAL, "no memory to take in a job that was just written");
    for (uint32_t place = 0; place < count; place++) {
        weir_plan_at(&submission->plan, place, &rows[place].stage, &rows[place].index);
        rows[place].state = rows[place].stage == WEIR_STAGE_TEXT ? WEIR_TASK_READY : WEIR_TASK_BLOCKED;
    }
    return weir_sched_load(broker->sched, now_ms, &submission->row, &submission->plan, submission->model,
                           submission->shape, rows, count, error);
}

enum weir_status weir_broker_submitted(struct weir_broker *broker, uint64_t now_ms, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (size_t k = 0; k < broker->submission_count; k++) {
        const struct submission *submission = broker->submissions[k];
        const struct weir_ledger_call *call = &submission->call;
        switch (call->reply) {
        case WEIR_LEDGER_APPLIED:
            WEIR_TRY(load_submitted(broker, now_ms, submission, error));
            accept(broker, &submission->client, submission->number, &call->existing, false);
            break;
        case WEIR_LEDGER_EXISTS:
        case WEIR_LEDGER_REPEATED:
            accept(broker, &submission->client, submission->number, &call->existing, true);
            break;
        default:
            weir_broker_refuse(broker, &submission->client, submission->number, WEIR_CONFLICT, 0,
                               "the idempotency key was used before with another request");
        }
    }
cleanup:
    return status;
}
