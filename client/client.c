/* Requests carry a number that comes back in the answer. Every request may be sent again after silence: reads and
 * cancels are idempotent by nature, a submit by its key. */
#include "client/internal.h"

#include "proto/base/clock.h"
#include "proto/wire_limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

enum { RESEND_MS = 2000, SILENCE_MS = 60000, LOOK_MS = 1000, BACKOFF_MS = 100, IDLE_MS = 200, LIST_PAGE = 1000 };

/* ---- opening --------------------------------------------------------------------------------------------------- */

static enum weir_status endpoint_of(const char *where, char out[WEIR_ENDPOINT_BYTES], struct weir_error *error)
{
    if (strstr(where, "://")) {
        if (strlen(where) >= WEIR_ENDPOINT_BYTES) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: an endpoint has at most %d bytes", where,
                             WEIR_ENDPOINT_BYTES - 1);
        }
        snprintf(out, WEIR_ENDPOINT_BYTES, "%s", where);
        return WEIR_OK;
    }
    char *folder = realpath(where, NULL);
    if (!folder) return weir_fail(error, WEIR_NOT_FOUND, "%s: %s", where, strerror(errno));
    const int used = snprintf(out, WEIR_ENDPOINT_BYTES, "ipc://%s/run/clients.ipc", folder);
    const size_t path_bytes = strlen(folder) + strlen("/run/clients.ipc");
    free(folder);
    if (used >= WEIR_ENDPOINT_BYTES || path_bytes > 107) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: its socket path has %zu bytes, at most 107 are possible", where,
                         path_bytes);
    }
    struct stat facts;
    if (stat(out + strlen("ipc://"), &facts) != 0) {
        return weir_fail(error, WEIR_UNAVAILABLE, "%s: no broker has been there; `weir serve --dir %s` starts one",
                         where, where);
    }
    return WEIR_OK;
}

static enum weir_status open_client(const char *where, bool insecure, struct weir_client **out,
                                    struct weir_error *error)
{
    *out = NULL;
    char endpoint[WEIR_ENDPOINT_BYTES];
    enum weir_status status = endpoint_of(where, endpoint, error);
    if (status != WEIR_OK) return status;
    struct weir_client *client = calloc(1, sizeof *client);
    if (!client) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a client");
    snprintf(client->where, sizeof client->where, "%s", where);
    client->insecure = insecure;
    client->zmq = zmq_ctx_new();
    status = client->zmq
                 ? weir_wire_connect(client->zmq, endpoint, WEIR_SOCKET_CONTROL, insecure, &client->socket, error)
                 : weir_fail(error, WEIR_IO, "%s: %s", where, zmq_strerror(zmq_errno()));
    if (status != WEIR_OK) {
        weir_client_close(&client);
        return status;
    }
    weir_random_bytes(&client->number, sizeof client->number); /* answers to an earlier client's numbers never match */
    *out = client;
    return WEIR_OK;
}

enum weir_status weir_client_open(const char *where, struct weir_client **out, struct weir_error *error)
{
    return open_client(where, false, out, error);
}

enum weir_status weir_client_open_insecure(const char *where, struct weir_client **out, struct weir_error *error)
{
    return open_client(where, true, out, error);
}

void weir_client_close(struct weir_client **client_p)
{
    struct weir_client *client = *client_p;
    if (!client) return;
    if (client->socket) zmq_close(client->socket);
    if (client->zmq) zmq_ctx_term(client->zmq);
    weir_client_files_destroy(&client->files);
    free(client);
    *client_p = NULL;
}

void weir_client_on_idle(struct weir_client *client, weir_on_idle *on_idle, void *context)
{
    client->on_idle = on_idle;
    client->idle_context = context;
}

/* ---- one request, one answer -------------------------------------------------------------------------------------- */

static uint64_t number_of(const struct weir_message *message)
{
    switch (message->type) {
    case WEIR_MESSAGE_ACCEPTED:
        return message->body.accepted->number;
    case WEIR_MESSAGE_REFUSED:
        return message->body.refused->number;
    case WEIR_MESSAGE_JOB_VIEW:
        return message->body.job_view->number;
    case WEIR_MESSAGE_JOBS:
        return message->body.jobs->number;
    case WEIR_MESSAGE_STATUS_VIEW:
        return message->body.status_view->number;
    case WEIR_MESSAGE_EVENT:
        return message->body.event->number;
    default:
        return 0;
    }
}

enum weir_status weir_client_next_message(struct weir_client *client, uint64_t until_ms, struct weir_message *out,
                                          struct weir_error *error)
{
    for (;;) {
        uint32_t seen;
        const enum weir_status status = weir_wire_receive(client->socket, false, WEIR_DIRECTION_A, out, &seen, error);
        if (status != WEIR_TIMEOUT && status != WEIR_PROTOCOL && status != WEIR_UNSUPPORTED) return status;
        const uint64_t now_ms = weir_clock_now_ms();
        if (status == WEIR_TIMEOUT && now_ms >= until_ms) return status;
        if (client->on_idle && !client->on_idle(client->idle_context)) {
            return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
        }
        const uint64_t left_ms = now_ms < until_ms ? until_ms - now_ms : 0;
        zmq_pollitem_t item = { .socket = client->socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, left_ms < IDLE_MS ? (long)left_ms : IDLE_MS); /* a signal only ends the wait early */
    }
}

/* Events that come between are dropped: the watcher looks again anyway. */
enum weir_status weir_client_ask(struct weir_client *client, enum weir_message_type type, const ProtobufCMessage *body,
                                 enum weir_message_type wanted, uint64_t patience_ms, struct weir_message *out,
                                 struct weir_error *error)
{
    /* What the broker would drop as malformed is said here: it came from our caller. */
    if (weir_wire_limits_check(body, error) != WEIR_OK) {
        if (error) error->code = WEIR_BAD_ARGUMENT;
        return WEIR_BAD_ARGUMENT;
    }
    const uint64_t begin_ms = weir_clock_now_ms();
    uint64_t now_ms = begin_ms;
    while (now_ms - begin_ms < patience_ms) {
        enum weir_status status = weir_wire_send(client->socket, NULL, type, ++client->sequence, body, error);
        if (status != WEIR_OK && status != WEIR_UNAVAILABLE) return status;
        const uint64_t until_ms = now_ms + (status == WEIR_OK ? RESEND_MS : BACKOFF_MS);
        while ((status = weir_client_next_message(client, until_ms, out, error)) == WEIR_OK) {
            if (number_of(out) == client->number && out->type == wanted) return WEIR_OK;
            if (number_of(out) == client->number && out->type == WEIR_MESSAGE_REFUSED) {
                const Weir__Pb__Refused *refused = out->body.refused;
                status =
                    weir_fail(error, (enum weir_status)refused->status, "%s", refused->words ? refused->words : "");
                weir_message_release(out);
                return status;
            }
            weir_message_release(out);
        }
        if (status != WEIR_TIMEOUT) return status;
        now_ms = weir_clock_now_ms();
    }
    return weir_fail(error, WEIR_UNAVAILABLE, "%s: no broker answers", client->where);
}

/* ---- calls -------------------------------------------------------------------------------------------------------- */

/* More than one prompt: each as a message of its own. Both arrays are one block. */
static enum weir_status list_prompts(struct weir_client *client, const struct weir_request *request, const char *key,
                                     Weir__Pb__JobSpec *spec, void **block, struct weir_error *error)
{
    const size_t count = request->prompt_count, n = request->n ? request->n : 1;
    if (count > WEIR_JOB_PROMPTS_MAX || count * n > WEIR_JOB_PROMPTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE,
                         "%zu prompts of %zu items each: one job has at most %d; a batch takes them", count, n,
                         WEIR_JOB_PROMPTS_MAX);
    }
    struct weir_client_prompt *prompts = calloc(count, sizeof *prompts + sizeof(Weir__Pb__Prompt *));
    if (!prompts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu prompts", count);
    Weir__Pb__Prompt **pointers = (Weir__Pb__Prompt **)(prompts + count);
    *block = prompts;
    for (size_t i = 0; i < count; i++) {
        struct weir_error own;
        const enum weir_status status =
            weir_client_prompt_of(client, request, &request->prompts[i], key, (uint32_t)i + 1, &prompts[i], &own);
        if (status != WEIR_OK) return weir_fail(error, status, "prompt %zu: %s", i + 1, own.words);
        pointers[i] = &prompts[i].prompt;
    }
    spec->prompts = pointers;
    spec->n_prompts = count;
    return WEIR_OK;
}

enum weir_status weir_client_submit(struct weir_client *client, const struct weir_request *request, const char *key,
                                    char job[WEIR_JOB_BYTES], struct weir_error *error)
{
    if (!request->prompt && !request->prompt_count) return weir_fail(error, WEIR_BAD_ARGUMENT, "a prompt is missing");
    char random_key[WEIR_ID_HEX_BYTES];
    const struct weir_job_id unique = weir_job_id_new();
    weir_job_id_text(&unique, random_key);

    struct weir_client_spec made;
    void *block = NULL;
    struct weir_message answer;
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_client_spec_of(client, request, &made, error));
    if (request->prompt_count) {
        WEIR_TRY(list_prompts(client, request, key, &made.spec, &block, error));
    } else {
        made.spec.prompt = (char *)request->prompt;
        made.spec.has_seed = 1;
        if (!request->seed_given) made.spec.seed = weir_client_seed(key, 0);
    }
    Weir__Pb__Submit submit = WEIR__PB__SUBMIT__INIT;
    submit.has_number = 1;
    submit.number = ++client->number;
    submit.idempotency_key = (char *)(key ? key : random_key);
    submit.spec = &made.spec;
    submit.has_deadline_ms = request->deadline_ms != 0;
    submit.deadline_ms = request->deadline_ms;
    WEIR_TRY(weir_client_ask(client, WEIR_MESSAGE_SUBMIT, &submit.base, WEIR_MESSAGE_ACCEPTED,
                             WEIR_CLIENT_ANSWER_MS + 5000, &answer, error));
    weir_hex_write(answer.body.accepted->job.data, WEIR_ID_BYTES, job);
    weir_message_release(&answer);

cleanup:
    free(block);
    return status;
}

static enum weir_status parse_job(const char *text, struct weir_job_id *out, struct weir_error *error)
{
    if (weir_job_id_parse(text, out)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: a job id has 32 hex digits", text);
}

static enum weir_status show(struct weir_client *client, struct weir_job_id *id, uint64_t patience_ms,
                             struct weir_report **out, struct weir_error *error)
{
    *out = NULL;
    Weir__Pb__Show request = WEIR__PB__SHOW__INIT;
    request.has_number = request.has_job = 1;
    request.number = ++client->number;
    request.job = (ProtobufCBinaryData){ sizeof id->bytes, id->bytes };
    struct weir_message answer;
    const enum weir_status status =
        weir_client_ask(client, WEIR_MESSAGE_SHOW, &request.base, WEIR_MESSAGE_JOB_VIEW, patience_ms, &answer, error);
    return status == WEIR_OK ? weir_client_report_create(&answer, out, error) : status;
}

enum weir_status weir_client_show(struct weir_client *client, const char *job, struct weir_report **out,
                                  struct weir_error *error)
{
    struct weir_job_id id;
    *out = NULL;
    const enum weir_status status = parse_job(job, &id, error);
    return status == WEIR_OK ? show(client, &id, WEIR_CLIENT_ANSWER_MS, out, error) : status;
}

enum weir_status weir_client_cancel(struct weir_client *client, const char *job, struct weir_error *error)
{
    struct weir_job_id id;
    enum weir_status status = parse_job(job, &id, error);
    if (status != WEIR_OK) return status;
    Weir__Pb__CancelJob request = WEIR__PB__CANCEL_JOB__INIT;
    request.has_number = request.has_job = 1;
    request.number = ++client->number;
    request.job = (ProtobufCBinaryData){ sizeof id.bytes, id.bytes };
    struct weir_message answer;
    status = weir_client_ask(client, WEIR_MESSAGE_CANCEL_JOB, &request.base, WEIR_MESSAGE_ACCEPTED,
                             WEIR_CLIENT_ANSWER_MS, &answer, error);
    if (status == WEIR_OK) weir_message_release(&answer);
    return status;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

/* Subscribes anew; a lost one costs a second, since the job is also looked at every LOOK_MS of silence. */
static void watch(struct weir_client *client, struct weir_job_id *id, uint64_t number)
{
    Weir__Pb__Watch request = WEIR__PB__WATCH__INIT;
    request.has_number = request.has_job = 1;
    request.number = number;
    request.job = (ProtobufCBinaryData){ sizeof id->bytes, id->bytes };
    zmq_pollitem_t item = { .socket = client->socket, .events = ZMQ_POLLOUT };
    zmq_poll(&item, 1, LOOK_MS); /* a fresh connection takes nothing before it stands */
    weir_wire_send(client->socket, NULL, WEIR_MESSAGE_WATCH, ++client->sequence, &request.base, NULL);
}

static bool tell(const char *job, const Weir__Pb__Event *event, weir_on_progress *on_progress, void *context)
{
    if (!on_progress) return true;
    const struct weir_progress progress = { .job = job,
                                            .job_state = weir_job_state_name(event->job_state),
                                            .stage = event->has_stage ? weir_stage_name(event->stage) : NULL,
                                            .task_state =
                                                event->has_stage ? weir_task_state_name(event->task_state) : NULL,
                                            .index = event->index,
                                            .step = event->step,
                                            .steps = event->steps,
                                            .attempt = event->attempt,
                                            .tasks_done = event->tasks_done,
                                            .tasks = event->tasks };
    return on_progress(context, &progress);
}

/* Passes events on until one says that the job is terminal, or LOOK_MS went by without any. */
static enum weir_status follow_events(struct weir_client *client, const char *job, uint64_t number,
                                      weir_on_progress *on_progress, void *context, struct weir_error *error)
{
    struct weir_message message;
    enum weir_status status;
    while ((status = weir_client_next_message(client, weir_clock_now_ms() + LOOK_MS, &message, error)) == WEIR_OK) {
        bool goes_on = true, terminal = false;
        if (message.type == WEIR_MESSAGE_EVENT && message.body.event->number == number) {
            goes_on = tell(job, message.body.event, on_progress, context);
            terminal = weir_job_state_terminal(message.body.event->job_state);
        }
        weir_message_release(&message);
        if (!goes_on) return weir_fail(error, WEIR_INTERRUPTED, "interrupted; the job goes on");
        if (terminal) return WEIR_OK;
    }
    return status == WEIR_TIMEOUT ? WEIR_OK : status;
}

enum weir_status weir_client_wait(struct weir_client *client, const char *job, weir_on_progress *on_progress,
                                  void *context, struct weir_report **out, struct weir_error *error)
{
    struct weir_job_id id;
    *out = NULL;
    enum weir_status status = parse_job(job, &id, error);
    if (status != WEIR_OK) return status;
    const uint64_t number = ++client->number + (UINT64_C(1) << 62); /* apart from the requests' numbers */
    for (;;) {
        watch(client, &id, number);
        status = follow_events(client, job, number, on_progress, context, error);
        if (status != WEIR_OK) return status;
        struct weir_report *report = NULL;
        status = show(client, &id, SILENCE_MS, &report, error);
        if (status != WEIR_OK) return status;
        if (report->terminal) {
            *out = report;
            return WEIR_OK;
        }
        weir_report_destroy(&report);
    }
}

/* ---- the cluster ----------------------------------------------------------------------------------------------------- */

static enum weir_status ask_status(struct weir_client *client, struct weir_message *answer, struct weir_error *error)
{
    Weir__Pb__Status request = WEIR__PB__STATUS__INIT;
    request.has_number = 1;
    request.number = ++client->number;
    const enum weir_status status = weir_client_ask(client, WEIR_MESSAGE_STATUS, &request.base,
                                                    WEIR_MESSAGE_STATUS_VIEW, WEIR_CLIENT_ANSWER_MS, answer, error);
    if (status == WEIR_OK && answer->body.status_view->store) {
        snprintf(client->store, sizeof client->store, "%s", answer->body.status_view->store);
    }
    return status;
}

static void add_name(char names[1024], const char *name)
{
    const size_t used = strlen(names), length = strlen(name);
    const char *found = strstr(names, name); /* names are few: a whole-word look is enough */
    if (found && (found[length] == '\0' || found[length] == ',') && (found == names || found[-1] == ' ')) return;
    snprintf(names + used, 1024 - used, "%s%s", used ? ", " : "", name);
}

enum weir_status weir_client_status(struct weir_client *client, struct weir_cluster_report *out,
                                    struct weir_error *error)
{
    struct weir_message answer;
    const enum weir_status status = ask_status(client, &answer, error);
    if (status != WEIR_OK) return status;
    const Weir__Pb__StatusView *view = answer.body.status_view;
    *out = (struct weir_cluster_report){ .broker_pid = view->pid,
                                         .epoch = view->epoch,
                                         .workers = (uint32_t)view->n_workers,
                                         .jobs_open = view->jobs_open };
    for (size_t i = 0; i < view->n_workers; i++) {
        const Weir__Pb__WorkerView *worker = view->workers[i];
        for (size_t j = 0; j < worker->n_models; j++) add_name(out->models, worker->models[j]->name);
        if (worker->numerics_class) add_name(out->numerics_classes, worker->numerics_class);
    }
    weir_message_release(&answer);
    return WEIR_OK;
}

static struct weir_job_line *lines_of(const Weir__Pb__Jobs *jobs)
{
    size_t text_bytes = 0;
    for (size_t i = 0; i < jobs->n_jobs; i++)
        text_bytes += strlen(jobs->jobs[i]->prompt ? jobs->jobs[i]->prompt : "") + 1;
    struct weir_job_line *lines = malloc((jobs->n_jobs ? jobs->n_jobs : 1) * sizeof *lines + text_bytes);
    if (!lines) return NULL;
    char *text = (char *)(lines + jobs->n_jobs);
    for (size_t i = 0; i < jobs->n_jobs; i++) {
        const Weir__Pb__JobLine *line = jobs->jobs[i];
        lines[i] = (struct weir_job_line){ .state = weir_job_state_name(line->state),
                                           .prompt = text,
                                           .created_ms = line->created_ms,
                                           .tasks_done = line->tasks_done,
                                           .tasks = line->tasks,
                                           .part = line->part,
                                           .parts = line->parts };
        weir_hex_write(line->job.data, WEIR_ID_BYTES, lines[i].job);
        if (line->has_batch) weir_hex_write(line->batch.data, WEIR_ID_BYTES, lines[i].batch);
        text = stpcpy(text, line->prompt ? line->prompt : "") + 1;
    }
    return lines;
}

struct listing {
    uint32_t limit;
    const char *before, *batch;
    bool open_only;
};

static enum weir_status list(struct weir_client *client, const struct listing *wanted, struct weir_job_line **out,
                             size_t *count, struct weir_error *error)
{
    struct weir_job_id before, batch;
    Weir__Pb__List request = WEIR__PB__LIST__INIT;
    struct weir_message answer;
    enum weir_status status = WEIR_OK;
    *out = NULL;
    *count = 0;
    request.has_number = request.has_limit = request.has_open_only = 1;
    request.number = ++client->number;
    request.limit = wanted->limit;
    request.open_only = wanted->open_only;
    if (wanted->before) {
        WEIR_TRY(parse_job(wanted->before, &before, error));
        request.has_before = 1;
        request.before = (ProtobufCBinaryData){ sizeof before.bytes, before.bytes };
    }
    if (wanted->batch) {
        WEIR_TRY(parse_job(wanted->batch, &batch, error));
        request.has_batch = 1;
        request.batch = (ProtobufCBinaryData){ sizeof batch.bytes, batch.bytes };
    }
    WEIR_TRY(weir_client_ask(client, WEIR_MESSAGE_LIST, &request.base, WEIR_MESSAGE_JOBS, WEIR_CLIENT_ANSWER_MS,
                             &answer, error));
    *out = lines_of(answer.body.jobs);
    *count = answer.body.jobs->n_jobs;
    weir_message_release(&answer);
    if (!*out) status = weir_fail(error, WEIR_NO_MEMORY, "no memory for a list of jobs");

cleanup:
    return status;
}

enum weir_status weir_client_list(struct weir_client *client, uint32_t limit, const char *before, bool open_only,
                                  struct weir_job_line **out, size_t *count, struct weir_error *error)
{
    return list(client, &(struct listing){ .limit = limit, .before = before, .open_only = open_only }, out, count,
                error);
}

static int by_part(const void *a, const void *b)
{
    const struct weir_job_line *one = a, *other = b;
    return one->part < other->part ? -1 : one->part > other->part;
}

/* Copies a line and its prompt, which goes to *text. */
static void copy_line(const struct weir_job_line *from, struct weir_job_line *to, char **text)
{
    *to = *from;
    to->prompt = *text;
    *text = stpcpy(*text, from->prompt) + 1;
}

/* One block of what there is and of a page, whose lines of other batches are left out: a broker that knows no batches
 * lists every job. */
static enum weir_status add_page(struct weir_job_line **all, size_t *count, const struct weir_job_line *page,
                                 size_t page_count, const char *batch, struct weir_error *error)
{
    size_t text_bytes = 1, used = 0;
    for (size_t i = 0; i < *count; i++) text_bytes += strlen((*all)[i].prompt) + 1;
    for (size_t i = 0; i < page_count; i++) text_bytes += strlen(page[i].prompt) + 1;
    struct weir_job_line *both = malloc((*count + page_count) * sizeof *both + text_bytes);
    if (!both) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu jobs", *count + page_count);
    char *text = (char *)(both + *count + page_count);
    for (size_t i = 0; i < *count; i++) copy_line(&(*all)[i], &both[used++], &text);
    for (size_t i = 0; i < page_count; i++) {
        if (strcmp(page[i].batch, batch) == 0) copy_line(&page[i], &both[used++], &text);
    }
    free(*all);
    *all = both;
    *count = used;
    return WEIR_OK;
}

enum weir_status weir_client_list_batch(struct weir_client *client, const char *batch, struct weir_job_line **out,
                                        size_t *count, struct weir_error *error)
{
    struct weir_job_id id;
    char name[WEIR_JOB_BYTES], before[WEIR_JOB_BYTES];
    struct weir_job_line *page = NULL;
    size_t page_count = LIST_PAGE;
    enum weir_status status = WEIR_OK;
    *out = NULL;
    *count = 0;
    WEIR_TRY(parse_job(batch, &id, error));
    weir_job_id_text(&id, name);
    for (bool first = true; page_count == LIST_PAGE; first = false) {
        const struct listing wanted = { .limit = LIST_PAGE, .before = first ? NULL : before, .batch = name };
        WEIR_TRY(list(client, &wanted, &page, &page_count, error));
        WEIR_TRY(add_page(out, count, page, page_count, name, error));
        if (page_count) memcpy(before, page[page_count - 1].job, sizeof before);
        free(page);
        page = NULL;
    }
    if (*count == 0)
        status = weir_fail(error, WEIR_NOT_FOUND, "%s: no job and no batch has this id", batch);
    else
        qsort(*out, *count, sizeof **out, by_part);

cleanup:
    free(page);
    if (status != WEIR_OK) {
        free(*out);
        *out = NULL;
        *count = 0;
    }
    return status;
}
