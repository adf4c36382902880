/* What people ask (SHOW, LIST, STATUS, CANCEL_JOB) and watch. Answers come from the ledger, so that nobody sees a state
 * that is not durable; sched adds what only it knows: steps, the place in the queue, the expected end. */
#include "broker/broker_internal.h"

#include <stdlib.h>
#include <string.h>

#define LIST_DEFAULT 100
#define PROMPT_SHOWN_BYTES 120
#define WATCH_RETRY_MS 200
#define WATCH_GIVE_UP_MS 30000

static ProtobufCBinaryData binary(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

/* ---- SHOW ---- */

struct show_work {
    struct weir_broker *broker;
    const struct weir_routing *client;
    uint64_t number;
};

static void fill_task(struct weir_broker *broker, const struct weir_job_id *job, const struct weir_ledger_task *row,
                      Weir__Pb__TaskView *view)
{
    struct weir_note note;
    const struct weir_task_id id = { *job, row->stage, row->index };
    weir__pb__task_view__init(view);
    view->has_stage = view->has_index = view->has_state = view->has_attempt = view->has_crash = true;
    view->stage = row->stage;
    view->index = row->index;
    view->state = row->state;
    view->attempt = row->attempt;
    view->crash = row->crash;
    view->has_worker_pid = row->worker_pid != 0;
    view->worker_pid = row->worker_pid;
    if (row->facts.count > 0) view->facts = weir__pb__task_facts__unpack(NULL, row->facts.count, row->facts.bytes);
    if (weir_sched_look(broker->sched, &id, &note) && note.steps > 0) {
        view->has_step = view->has_steps = true;
        view->step = note.step;
        view->steps = note.steps;
    }
}

/* A JobView has at most 1 MiB. What goes first when it is larger: the receipts and facts of tasks, the tasks, and the
 * places of artefacts that are in the store anyway. The spec and the manifest always fit (PROTOCOL.md section 7). */
static void fit_view(Weir__Pb__JobView *body)
{
    for (int step = 0; step < 4; step++) {
        if (protobuf_c_message_get_packed_size(&body->base) <= WEIR_WIRE_CONTROL_BYTES_MAX) return;
        for (size_t k = 0; step < 2 && k < body->n_tasks; k++) {
            Weir__Pb__TaskFacts *facts = body->tasks[k]->facts;
            if (facts == NULL) continue;
            free(facts->note);
            facts->note = NULL;
            if (step == 0) continue;
            weir__pb__task_facts__free_unpacked(facts, NULL);
            body->tasks[k]->facts = NULL;
        }
        if (step == 2) body->n_tasks = 0;
        for (size_t k = 0; step == 3 && k < body->n_manifest; k++) {
            Weir__Pb__Artefact *artefact = body->manifest[k];
            free(artefact->endpoint);
            free(artefact->ticket.data);
            artefact->endpoint = NULL;
            artefact->has_ticket = 0;
            artefact->ticket = binary(NULL, 0);
        }
    }
}

static bool show_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                     size_t task_count)
{
    const struct show_work *work = context;
    struct weir_broker *broker = work->broker;
    Weir__Pb__JobView body = WEIR__PB__JOB_VIEW__INIT;
    Weir__Pb__JobSpec *spec = weir__pb__job_spec__unpack(NULL, job->spec.count, job->spec.bytes);
    Weir__Pb__Done *manifest =
        job->manifest.count > 0 ? weir__pb__done__unpack(NULL, job->manifest.count, job->manifest.bytes) : NULL;
    Weir__Pb__TaskView *views = weir_broker_scratch(broker, (task_count + 1) * sizeof *views);
    Weir__Pb__TaskView **list = weir_broker_scratch(broker, (task_count + 1) * sizeof *list);
    struct weir_sched_standing standing;

    body.has_number = body.has_job = body.has_state = body.has_created_ms = true;
    body.number = work->number;
    body.job = binary(job->id.bytes, WEIR_ID_BYTES);
    body.tenant = (char *)(uintptr_t)job->tenant;
    body.state = job->state;
    body.spec = spec;
    body.created_ms = job->created_ms;
    body.has_finished_ms = job->finished_ms != 0;
    body.finished_ms = job->finished_ms;
    const bool ended = weir_job_state_terminal(job->state); /* else they are of the first item that was lost */
    body.has_cause = ended && job->cause != WEIR_OK;
    body.cause = body.has_cause ? job->cause : WEIR_OK;
    if (ended && job->words[0] != 0) body.words = (char *)(uintptr_t)job->words;
    if (manifest != NULL) {
        body.n_manifest = manifest->n_artefacts;
        body.manifest = manifest->artefacts;
    }
    if (weir_sched_standing(broker->sched, &job->id, &standing)) {
        body.has_queue_position = body.has_expected_ms = true;
        body.queue_position = standing.position;
        body.expected_ms = standing.expected_ms;
    }
    if (views != NULL && list != NULL) {
        for (size_t k = 0; k < task_count; k++) {
            fill_task(broker, &job->id, &tasks[k], &views[k]);
            list[k] = &views[k];
        }
        body.tasks = list;
        body.n_tasks = task_count;
    }
    body.has_batch = body.has_part = body.has_parts = job->batched;
    body.batch = binary(job->batch, WEIR_ID_BYTES);
    body.part = job->part;
    body.parts = job->parts;
    fit_view(&body);
    if (weir_broker_send(broker, WEIR_SIDE_CLIENTS, work->client, WEIR_MESSAGE_JOB_VIEW, &body.base) ==
        WEIR_TOO_LARGE) { /* a worker gave its artefacts names of unheard-of length */
        weir_broker_refuse(broker, work->client, work->number, WEIR_TOO_LARGE, 0, "the job's manifest is over 1 MiB");
    }
    for (size_t k = 0; views != NULL && list != NULL && k < task_count; k++) {
        if (views[k].facts != NULL) weir__pb__task_facts__free_unpacked(views[k].facts, NULL);
    }
    if (manifest != NULL) weir__pb__done__free_unpacked(manifest, NULL);
    if (spec != NULL) weir__pb__job_spec__free_unpacked(spec, NULL);
    return false;
}

/* Answers a failed read of the ledger. */
static void refuse_read(struct weir_broker *broker, const struct weir_routing *client, uint64_t number,
                        const struct weir_job_id *job, enum weir_status status, const struct weir_error *error)
{
    char id[WEIR_ID_HEX_BYTES];
    weir_job_id_text(job, id);
    if (status == WEIR_NOT_FOUND)
        weir_broker_refuse(broker, client, number, status, 0, "there is no job %s", id);
    else
        weir_broker_refuse(broker, client, number, status, 2000, "%s", error->words);
}

static void show(struct weir_broker *broker, const struct weir_message *message)
{
    const Weir__Pb__Show *ask = message->body.show;
    struct show_work work = { broker, &message->from, ask->number };
    struct weir_ledger_query query = { .no_tasks = false };
    struct weir_error error = { 0 };
    memcpy(query.job.bytes, ask->job.data, WEIR_ID_BYTES);
    const enum weir_status status = weir_ledger_replay(broker->ledger, &query, show_row, &work, &error);
    if (status != WEIR_OK) refuse_read(broker, &message->from, ask->number, &query.job, status, &error);
}

/* ---- LIST ---- */

struct list_work {
    struct weir_broker *broker;
    Weir__Pb__JobLine *lines;
    uint8_t (*ids)[2 * WEIR_ID_BYTES]; /* of the job, of its batch */
    size_t count;
};

/* The first prompt of the job, cut to whole characters; NULL: none, or no memory. */
static char *shown_prompt(struct weir_broker *broker, const struct weir_blob *packed)
{
    Weir__Pb__JobSpec *spec = weir__pb__job_spec__unpack(NULL, packed->count, packed->bytes);
    char *shown = weir_broker_scratch(broker, PROMPT_SHOWN_BYTES + 1);
    const char *prompt = spec == NULL ? NULL : spec->n_prompts > 0 ? spec->prompts[0]->text : spec->prompt;
    if (prompt != NULL && shown != NULL) {
        size_t bytes = strnlen(prompt, PROMPT_SHOWN_BYTES + 1);
        if (bytes > PROMPT_SHOWN_BYTES) {
            bytes = PROMPT_SHOWN_BYTES;
            while (bytes > 0 && ((unsigned char)prompt[bytes] & 0xc0) == 0x80) bytes--;
        }
        memcpy(shown, prompt, bytes);
    }
    if (spec != NULL) weir__pb__job_spec__free_unpacked(spec, NULL);
    return prompt != NULL ? shown : NULL;
}

static bool list_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                     size_t task_count)
{
    struct list_work *work = context;
    const struct weir_task_id id = { job->id, WEIR_STAGE_COUNT, 0 };
    struct weir_note note = { .tasks = job->task_count, .tasks_done = job->tasks_done };
    Weir__Pb__JobLine *line = &work->lines[work->count];
    uint8_t *ids = work->ids[work->count++];
    (void)tasks;
    (void)task_count;
    weir_sched_look(work->broker->sched, &id, &note); /* an open job's counts are not in its row */
    weir__pb__job_line__init(line);
    memcpy(ids, job->id.bytes, WEIR_ID_BYTES);
    memcpy(ids + WEIR_ID_BYTES, job->batch, WEIR_ID_BYTES);
    line->has_job = line->has_state = line->has_created_ms = line->has_tasks_done = line->has_tasks = true;
    line->job = binary(ids, WEIR_ID_BYTES);
    line->state = job->state;
    line->created_ms = job->created_ms;
    line->tasks = note.tasks;
    line->tasks_done = note.tasks_done;
    line->prompt = shown_prompt(work->broker, &job->spec);
    line->has_batch = line->has_part = line->has_parts = job->batched;
    line->batch = binary(ids + WEIR_ID_BYTES, WEIR_ID_BYTES);
    line->part = job->part;
    line->parts = job->parts;
    return true;
}

static void list(struct weir_broker *broker, const struct weir_message *message)
{
    const Weir__Pb__List *ask = message->body.list;
    struct weir_ledger_page page = { .filter = ask->open_only ? WEIR_LEDGER_OPEN : WEIR_LEDGER_ALL,
                                     .newest_first = true,
                                     .batched = ask->has_batch,
                                     .no_tasks = true,
                                     .limit = ask->has_limit ? ask->limit : LIST_DEFAULT };
    if (page.limit > WEIR_LIST_MAX) page.limit = WEIR_LIST_MAX;
    if (ask->has_before) {
        page.bounded = true;
        memcpy(page.from.bytes, ask->before.data, WEIR_ID_BYTES);
    }
    if (ask->has_batch) memcpy(page.batch, ask->batch.data, WEIR_ID_BYTES);
    struct list_work work = { .broker = broker,
                              .lines = weir_broker_scratch(broker, (page.limit + 1) * sizeof(Weir__Pb__JobLine)),
                              .ids = weir_broker_scratch(broker, (page.limit + 1) * sizeof *work.ids) };
    Weir__Pb__JobLine **lines = weir_broker_scratch(broker, (page.limit + 1) * sizeof *lines);
    struct weir_error error = { 0 };
    if (work.lines == NULL || work.ids == NULL || lines == NULL) return;
    const enum weir_status status = weir_ledger_page_open(broker->ledger, &page, list_row, &work, &error);
    if (status != WEIR_OK) {
        weir_broker_refuse(broker, &message->from, ask->number, status, 2000, "%s", error.words);
        return;
    }
    Weir__Pb__Jobs body = WEIR__PB__JOBS__INIT;
    for (size_t k = 0; k < work.count; k++) lines[k] = &work.lines[k];
    body.has_number = true;
    body.number = ask->number;
    body.jobs = lines;
    body.n_jobs = work.count;
    weir_broker_send(broker, WEIR_SIDE_CLIENTS, &message->from, WEIR_MESSAGE_JOBS, &body.base);
}

/* ---- STATUS ---- */

static void status_of(struct weir_broker *broker, const struct weir_message *message)
{
    struct weir_roster *roster = weir_sched_roster(broker->sched);
    const uint32_t end = weir_roster_end(roster);
    Weir__Pb__WorkerView *views = weir_broker_scratch(broker, (end + 1) * sizeof *views);
    Weir__Pb__WorkerView **list_of = weir_broker_scratch(broker, (end + 1) * sizeof *list_of);
    Weir__Pb__StatusView body = WEIR__PB__STATUS_VIEW__INIT;
    if (views == NULL || list_of == NULL) return;
    for (uint32_t slot = 0; slot < end; slot++) {
        const struct weir_worker *worker = weir_roster_at(roster, slot);
        const Weir__Pb__Hello *hello = broker->hellos[slot].body.hello;
        if (worker == NULL || !worker->connected || hello == NULL) continue;
        Weir__Pb__WorkerView *view = &views[body.n_workers];
        weir__pb__worker_view__init(view);
        view->has_worker = view->has_pid = view->has_stages = view->has_leases = true;
        view->worker = binary(worker->facts.id, WEIR_ID_BYTES);
        view->pid = worker->facts.pid;
        view->device = hello->device;
        view->stages = worker->facts.stages;
        view->leases = worker->held_count;
        view->numerics_class = hello->numerics_class;
        view->models = hello->models;
        view->n_models = hello->n_models;
        list_of[body.n_workers++] = view;
    }
    body.workers = list_of;
    body.has_number = body.has_pid = body.has_epoch = body.has_jobs_open = true;
    body.number = message->body.status->number;
    body.build = (char *)(uintptr_t)broker->options.build;
    body.pid = broker->options.pid;
    body.epoch = broker->epoch;
    body.store = (char *)(uintptr_t)broker->options.store;
    body.jobs_open = weir_sched_counts(broker->sched).jobs;
    weir_broker_send(broker, WEIR_SIDE_CLIENTS, &message->from, WEIR_MESSAGE_STATUS_VIEW, &body.base);
}

/* ---- CANCEL_JOB ---- */

static bool state_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                      size_t task_count)
{
    struct weir_note *note = context;
    (void)tasks;
    (void)task_count;
    note->job = job->id;
    note->job_state = job->state;
    note->tasks = job->task_count;
    note->tasks_done = job->tasks_done;
    return false;
}

static void cancel_job(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms,
                       const struct weir_message *message)
{
    const Weir__Pb__CancelJob *ask = message->body.cancel_job;
    struct weir_event event = { .type = WEIR_EVENT_CANCEL, .worker = WEIR_ROSTER_NONE, .now_wall_ms = wall_ms };
    struct weir_note note = { 0 };
    event.task.stage = WEIR_STAGE_COUNT;
    memcpy(event.task.job.bytes, ask->job.data, WEIR_ID_BYTES);
    if (weir_sched_look(broker->sched, &event.task, &note)) {
        weir_sched_handle(broker->sched, now_ms, &event, broker->actions);
        /* Answered when this turn is durable; a turn has no more cancels than messages. */
        broker->cancels[broker->cancel_count++] = (struct answer){ message->from, ask->number, event.task.job };
        return;
    }
    struct weir_ledger_query query = { .job = event.task.job, .no_tasks = true, .no_spec = true };
    struct weir_error error = { 0 };
    const enum weir_status status = weir_ledger_replay(broker->ledger, &query, state_row, &note, &error);
    if (status != WEIR_OK) {
        refuse_read(broker, &message->from, ask->number, &query.job, status, &error);
    } else if (!weir_job_state_terminal(note.job_state)) {
        /* Ended in this very turn, by a message before this one, and not durable yet. */
        weir_broker_refuse(broker, &message->from, ask->number, WEIR_BUSY, 100, "the job is just ending; ask again");
    } else {
        weir_broker_refuse(broker, &message->from, ask->number, WEIR_CONFLICT, 0, "the job is already %s",
                           weir_job_state_name(note.job_state));
    }
}

void weir_broker_answer_cancels(struct weir_broker *broker)
{
    for (size_t k = 0; k < broker->cancel_count; k++) {
        const struct answer *answer = &broker->cancels[k];
        Weir__Pb__Accepted body = WEIR__PB__ACCEPTED__INIT;
        body.has_number = body.has_job = body.has_existed = true;
        body.number = answer->number;
        body.job = binary(answer->job.bytes, WEIR_ID_BYTES);
        body.existed = true;
        weir_broker_send(broker, WEIR_SIDE_CLIENTS, &answer->client, WEIR_MESSAGE_ACCEPTED, &body.base);
    }
}

/* ---- WATCH and EVENT ---- */

static bool send_event(struct weir_broker *broker, uint64_t now_ms, struct watch *watch, const struct weir_note *note)
{
    Weir__Pb__Event body = WEIR__PB__EVENT__INIT;
    body.has_number = body.has_job = body.has_job_state = body.has_tasks_done = body.has_tasks = true;
    body.number = watch->number;
    body.job = binary(note->job.bytes, WEIR_ID_BYTES);
    body.job_state = note->job_state;
    body.tasks_done = note->tasks_done;
    body.tasks = note->tasks;
    if (note->about_task) {
        body.has_stage = body.has_index = body.has_task_state = body.has_attempt = true;
        body.stage = note->stage;
        body.index = note->index;
        body.task_state = note->task_state;
        body.attempt = note->attempt;
        body.has_step = body.has_steps = note->steps > 0;
        body.step = note->step;
        body.steps = note->steps;
    }
    const bool sent =
        weir_broker_send(broker, WEIR_SIDE_CLIENTS, &watch->client, WEIR_MESSAGE_EVENT, &body.base) == WEIR_OK;
    if (sent) {
        watch->failing_ms = watch->retry_ms = 0;
    } else {
        if (watch->failing_ms == 0) watch->failing_ms = now_ms;
        watch->retry_ms = now_ms + WATCH_RETRY_MS;
    }
    return sent;
}

static void drop_watch(struct weir_broker *broker, size_t at)
{
    broker->watches[at] = broker->watches[--broker->watch_count];
}

void weir_broker_note(struct weir_broker *broker, uint64_t now_ms, const struct weir_note *note)
{
    for (size_t k = 0; k < broker->watch_count;) {
        struct watch *watch = &broker->watches[k];
        const bool mine = weir_job_id_equal(&watch->job, &note->job);
        /* While sending fails the state itself is owed, not each event. */
        const bool held_back =
            watch->retry_ms != 0 || (note->progress && now_ms - watch->progress_ms < WEIR_PROGRESS_MS_MIN);
        if (!mine || held_back) {
            k++;
            continue;
        }
        if (note->progress) watch->progress_ms = now_ms;
        if (send_event(broker, now_ms, watch, note) && !note->about_task && weir_job_state_terminal(note->job_state)) {
            drop_watch(broker, k);
        } else {
            k++;
        }
    }
}

/* Where the job stands, as one note; from sched while it is open, else from the ledger. */
static enum weir_status look(struct weir_broker *broker, const struct weir_job_id *job, struct weir_note *out,
                             struct weir_error *error)
{
    const struct weir_task_id id = { *job, WEIR_STAGE_COUNT, 0 };
    if (weir_sched_look(broker->sched, &id, out)) return WEIR_OK;
    *out = (struct weir_note){ 0 };
    const struct weir_ledger_query query = { .job = *job, .no_tasks = true, .no_spec = true };
    return weir_ledger_replay(broker->ledger, &query, state_row, out, error);
}

static void watch_job(struct weir_broker *broker, uint64_t now_ms, const struct weir_message *message)
{
    const Weir__Pb__Watch *ask = message->body.watch;
    struct watch watch = { .client = message->from, .number = ask->number };
    struct weir_error error = { 0 };
    struct weir_note note;
    size_t mine = 0, same = SIZE_MAX;

    memcpy(watch.job.bytes, ask->job.data, WEIR_ID_BYTES);
    const enum weir_status status = look(broker, &watch.job, &note, &error);
    if (status != WEIR_OK) {
        refuse_read(broker, &message->from, ask->number, &watch.job, status, &error);
        return;
    }
    for (size_t k = 0; k < broker->watch_count; k++) {
        const struct watch *other = &broker->watches[k];
        if (other->client.length != watch.client.length ||
            memcmp(other->client.bytes, watch.client.bytes, watch.client.length) != 0) {
            continue;
        }
        mine++;
        if (weir_job_id_equal(&other->job, &watch.job)) same = k;
    }
    if (same != SIZE_MAX) {
        drop_watch(broker, same); /* asked again: the newer number counts */
    } else if (mine >= WEIR_WATCHES_PER_CLIENT_MAX || broker->watch_count == WEIR_WATCHES_MAX) {
        weir_broker_refuse(broker, &message->from, ask->number, WEIR_BUSY, 2000,
                           "%zu watches of this client, %zu in all; the limits are %d and %d", mine,
                           broker->watch_count, WEIR_WATCHES_PER_CLIENT_MAX, WEIR_WATCHES_MAX);
        return;
    }
    const bool sent = send_event(broker, now_ms, &watch, &note);
    if (!(sent && weir_job_state_terminal(note.job_state))) broker->watches[broker->watch_count++] = watch;
}

uint64_t weir_broker_watches_tick(struct weir_broker *broker, uint64_t now_ms)
{
    uint64_t wait_ms = UINT64_MAX;
    for (size_t k = 0; k < broker->watch_count;) {
        struct watch *watch = &broker->watches[k];
        struct weir_note note;
        if (watch->retry_ms == 0) {
            k++;
            continue;
        }
        if (watch->retry_ms > now_ms) {
            if (watch->retry_ms - now_ms < wait_ms) wait_ms = watch->retry_ms - now_ms;
            k++;
            continue;
        }
        if (now_ms - watch->failing_ms >= WATCH_GIVE_UP_MS || look(broker, &watch->job, &note, NULL) != WEIR_OK ||
            (send_event(broker, now_ms, watch, &note) && weir_job_state_terminal(note.job_state))) {
            drop_watch(broker, k);
        } else {
            k++;
        }
    }
    return wait_ms;
}

/* ---- all of them ---- */

void weir_broker_late_ask(struct weir_broker *broker, uint64_t now_ms, const struct weir_message *message)
{
    if (message->type == WEIR_MESSAGE_LIST)
        list(broker, message);
    else
        watch_job(broker, now_ms, message);
}

void weir_broker_client(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms,
                        const struct weir_message *message)
{
    switch (message->type) {
    case WEIR_MESSAGE_SHOW:
        show(broker, message);
        break;
    case WEIR_MESSAGE_CANCEL_JOB:
        cancel_job(broker, now_ms, wall_ms, message);
        break;
    case WEIR_MESSAGE_LIST:
    case WEIR_MESSAGE_WATCH:
        broker->late_asks[broker->late_ask_count++] = message;
        break; /* when the turn is durable */
    case WEIR_MESSAGE_STATUS:
        status_of(broker, message);
        break;
    case WEIR_MESSAGE_PING: {
        Weir__Pb__Pong body = WEIR__PB__PONG__INIT;
        body.has_number = message->body.ping->has_number;
        body.number = message->body.ping->number;
        weir_broker_send(broker, WEIR_SIDE_CLIENTS, &message->from, WEIR_MESSAGE_PONG, &body.base);
        break;
    }
    default:
        break;
    }
}
