#include "worker/loop.h"

#include "proto/base/clock.h"
#include "worker/held.h"
#include "worker/spec.h"
#include "worker/watch.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LIVENESS = 3,
    HELLO_MS = 200,
    HELLO_MS_MAX = 2000,
    HEARTBEAT_MS = 1000,
    RETRY_MS = 50, /* after a send that found no room */
    MESSAGES_PER_TURN_MAX = 64,
    QUOTES_MAX = 64,
    DRAIN_ACK_MS = 10000, /* how long acknowledgements are waited for once nothing runs */
    WAIT_MS_MAX = 10000,
};

struct loop {
    const struct weir_loop_options *o;
    struct weir_crew *crew;
    struct weir_watch *watch;
    struct weir_held_table held;
    void *socket;
    int signal_fd;
    uint8_t worker[WEIR_ID_BYTES];
    uint64_t now_ms, sequence, pings;
    bool is_welcome; /* HELLO was answered, and the broker was heard since */
    bool is_draining, is_hurried;
    bool is_lost;      /* the device: the loop drains and ends */
    bool send_refused; /* in this turn */
    uint32_t heartbeat_ms;
    uint64_t heard_ms, said_ms, hello_at_ms, lost_ms, idle_ms; /* lost, idle: since when; 0: not */
    uint32_t hello_ms;
    struct weir_held_credit credit_told[WEIR_LANES_MAX];
    uint32_t credits_told;       /* lanes of it; 0: nothing yet */
    uint32_t leases_told;        /* their sum */
    unsigned boundaries;         /* of the crew, seen */
    uint64_t quotes[QUOTES_MAX]; /* the numbers of those that the clerk has */
    uint32_t quote_count;
    uint64_t epoch;
    enum weir_status fault; /* ends the loop */
    struct weir_error *error;
};

#define LOG(loop, level, ...) weir_log((loop)->o->log, level, __VA_ARGS__)

static bool say(struct loop *loop, enum weir_message_type type, const ProtobufCMessage *body)
{
    struct weir_error error;
    const enum weir_status status = weir_wire_send(loop->socket, NULL, type, loop->sequence + 1, body, &error);
    if (status == WEIR_OK) {
        loop->sequence++;
        loop->said_ms = loop->now_ms;
        return true;
    }
    loop->send_refused = true;
    if (status != WEIR_UNAVAILABLE) {
        LOG(loop, WEIR_LOG_WARN, "not sent type=%s words=\"%s\"", weir_message_name(type), error.words);
    }
    return false;
}

static ProtobufCBinaryData bytes_of(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text; /* protobuf-c has no const; nothing writes */
}

/* For people: "denoise-3 of 0192...". */
static void log_task(const struct loop *loop, const char *event, const Weir__Pb__TaskId *id, const char *words)
{
    char job[WEIR_ID_HEX_BYTES] = "?";
    if (id->job.len == WEIR_ID_BYTES) weir_hex_write(id->job.data, WEIR_ID_BYTES, job);
    LOG(loop, WEIR_LOG_INFO, "%s job=%s stage=%s index=%u%s%s", event, job, weir_stage_name(id->stage), id->index,
        words[0] ? " " : "", words);
}

/* ---- what is said ---- */

static void say_hello(struct loop *loop)
{
    const struct weir_loop_options *o = loop->o;
    Weir__Pb__Hello body = WEIR__PB__HELLO__INIT;
    Weir__Pb__ModelFacts models[WEIR_MODELS_MAX], *model_list[WEIR_MODELS_MAX];
    Weir__Pb__HeldLease leases[WEIR_HELD_MAX], *lease_list[WEIR_HELD_MAX];
    for (size_t i = 0; i < o->models->count; i++) {
        const struct weir_model *model = &o->models->items[i];
        weir__pb__model_facts__init(&models[i]);
        models[i].name = model->name;
        models[i].has_digest = 1;
        models[i].digest = bytes_of(model->digest, WEIR_SHA256_BYTES);
        models[i].pipeline = text_of(weir_model_dir_class_name(model->dir));
        models[i].path = text_of(weir_model_dir_path(model->dir));
        model_list[i] = &models[i];
    }
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        const struct weir_held *held = &loop->held.rows[i];
        if (held->state == WEIR_HELD_FREE || held->is_abandoned) continue;
        weir__pb__held_lease__init(&leases[body.n_held]);
        leases[body.n_held].task = held->lease->task;
        leases[body.n_held].has_token = 1;
        leases[body.n_held].token = held->lease->token;
        lease_list[body.n_held] = &leases[body.n_held];
        body.n_held++;
    }
    body.has_protocol_min = body.has_protocol_max = body.has_worker = body.has_pid = body.has_stages = body.has_slots =
        body.has_memory_bytes = 1;
    body.protocol_min = body.protocol_max = WEIR_WIRE_VERSION;
    body.build = text_of(WEIR_VERSION);
    body.worker = bytes_of(loop->worker, WEIR_ID_BYTES);
    body.pid = (uint64_t)getpid();
    body.device = text_of(o->device->table->name);
    body.numerics_class = o->device->numerics_class;
    body.stages = o->stage_mask;
    body.slots = weir_held_slots_most(&loop->held, weir_rows_most(o->rows));
    body.memory_bytes = o->device->memory_bytes;
    body.tensor_endpoint = text_of(o->tensor_endpoint);
    body.n_models = o->models->count;
    body.models = model_list;
    body.held = lease_list;
    if (!say(loop, WEIR_MESSAGE_HELLO, &body.base)) return; /* not connected yet: it stays due */
    loop->hello_at_ms = loop->now_ms + loop->hello_ms;
    loop->hello_ms = loop->hello_ms * 2 < HELLO_MS_MAX ? loop->hello_ms * 2 : HELLO_MS_MAX;
}

/* With one lane its stages are all that the worker has, and go without saying. */
static void say_credit(struct loop *loop)
{
    struct weir_held_credit credits[WEIR_LANES_MAX];
    Weir__Pb__LaneCredit lanes[WEIR_LANES_MAX], *list[WEIR_LANES_MAX];
    Weir__Pb__Credit body = WEIR__PB__CREDIT__INIT;
    const uint32_t count = weir_held_credits(&loop->held, credits);
    body.leases = loop->is_draining ? 0 : weir_held_credit(&loop->held);
    for (uint32_t i = 0; i < count; i++) {
        if (loop->is_draining) credits[i].leases = 0;
        weir__pb__lane_credit__init(&lanes[i]);
        lanes[i].has_stages = lanes[i].has_leases = 1;
        lanes[i].stages = credits[i].stages;
        lanes[i].leases = credits[i].leases;
        list[i] = &lanes[i];
    }
    if (loop->credits_told == count && loop->leases_told == body.leases &&
        memcmp(credits, loop->credit_told, count * sizeof credits[0]) == 0)
        return;
    body.has_leases = 1;
    body.n_lanes = count > 1 ? count : 0;
    body.lanes = list;
    if (!say(loop, WEIR_MESSAGE_CREDIT, &body.base)) return;
    memcpy(loop->credit_told, credits, count * sizeof credits[0]);
    loop->credits_told = count;
    loop->leases_told = body.leases;
}

/* The broker counts so, too. */
static void count_lease(struct loop *loop, enum weir_stage stage)
{
    if (loop->leases_told > 0) loop->leases_told--;
    for (uint32_t i = 0; i < loop->credits_told; i++) {
        struct weir_held_credit *told = &loop->credit_told[i];
        if (told->stages >> stage & 1 && told->leases > 0) told->leases--;
    }
}

static void say_renew(struct loop *loop, struct weir_held *held)
{
    Weir__Pb__Renew body = WEIR__PB__RENEW__INIT;
    const struct weir_task *task = held->task;
    body.task = held->lease->task;
    body.has_token = body.has_step = body.has_steps = body.has_running = 1;
    body.token = held->lease->token;
    body.running = held->state == WEIR_HELD_RUNNING;
    body.steps = atomic_load(&task->steps);
    body.step = atomic_load(&task->step);
    if (!say(loop, WEIR_MESSAGE_RENEW, &body.base)) return;
    held->told_step = body.step;
    weir_held_renew_sent(held, loop->now_ms);
}

static bool say_done(struct loop *loop, const struct weir_held *held)
{
    const struct weir_task *task = held->task;
    bool sent = false;
    Weir__Pb__Done body = WEIR__PB__DONE__INIT;
    Weir__Pb__TaskFacts facts = WEIR__PB__TASK_FACTS__INIT;
    Weir__Pb__Artefact *artefacts = calloc(task->output_count + 1, sizeof *artefacts);
    Weir__Pb__Artefact **list = calloc(task->output_count + 1, sizeof *list);
    const bool is_last = task->id.stage == weir_spec_last_stage(held->lease->spec); /* the manifest will name them */
    if (artefacts && list) {
        for (size_t i = 0; i < task->output_count; i++) {
            const struct weir_output *output = &task->outputs[i];
            weir__pb__artefact__init(&artefacts[i]);
            list[i] = &artefacts[i];
            artefacts[i].name = text_of(output->name);
            artefacts[i].has_digest = artefacts[i].has_bytes = 1;
            artefacts[i].digest = bytes_of(output->digest, WEIR_SHA256_BYTES);
            artefacts[i].bytes = output->bytes;
            artefacts[i].media_type = text_of(output->media_type);
            artefacts[i].key = text_of(output->key);
            artefacts[i].has_item = is_last;
            artefacts[i].item = held->lease->item;
            if (!output->is_offered) continue;
            artefacts[i].endpoint = text_of(loop->o->tensor_endpoint);
            artefacts[i].has_ticket = 1;
            artefacts[i].ticket = bytes_of(output->ticket, WEIR_TICKET_BYTES);
        }
        facts.has_worker_pid = facts.has_steps_run = facts.has_resumed_step = facts.has_milliseconds = 1;
        facts.worker_pid = (uint64_t)getpid();
        facts.numerics_class = loop->o->device->numerics_class;
        facts.steps_run = task->steps_run;
        facts.resumed_step = task->resumed_step;
        facts.milliseconds = task->milliseconds;
        facts.note = task->note;
        body.task = held->lease->task;
        body.has_token = 1;
        body.token = held->lease->token;
        body.n_artefacts = task->output_count;
        body.artefacts = list;
        body.facts = &facts;
        sent = say(loop, WEIR_MESSAGE_DONE, &body.base);
    }
    free(artefacts);
    free(list);
    return sent;
}

static bool say_fail(struct loop *loop, const struct weir_held *held)
{
    Weir__Pb__Fail body = WEIR__PB__FAIL__INIT;
    Weir__Pb__TaskId lost = WEIR__PB__TASK_ID__INIT;
    const struct weir_task *task = held->task;
    body.task = held->lease->task;
    body.has_token = body.has_status = 1;
    body.token = held->lease->token;
    body.status = (uint32_t)held->status;
    body.words = text_of(held->words);
    body.has_device_suspect = 1;
    body.device_suspect = held->status == WEIR_DEVICE;
    if (task && task->has_lost_input) {
        lost.has_job = lost.has_stage = lost.has_index = 1;
        lost.job = bytes_of(task->lost_input.job.bytes, WEIR_ID_BYTES);
        lost.stage = task->lost_input.stage;
        lost.index = task->lost_input.index;
        body.lost_input = &lost;
    }
    return say(loop, WEIR_MESSAGE_FAIL, &body.base);
}

static void say_answer(struct loop *loop, struct weir_held *held)
{
    bool sent = false;
    if (held->answer == WEIR_MESSAGE_DONE) {
        sent = say_done(loop, held);
    } else if (held->answer == WEIR_MESSAGE_FAIL) {
        sent = say_fail(loop, held);
    } else {
        Weir__Pb__Release body = WEIR__PB__RELEASE__INIT;
        body.task = held->lease->task;
        body.has_token = 1;
        body.token = held->lease->token;
        sent = say(loop, WEIR_MESSAGE_RELEASE, &body.base);
    }
    if (sent) weir_held_answer_sent(held, loop->now_ms);
}

static void answer(struct loop *loop, struct weir_held *held, enum weir_message_type type)
{
    weir_held_answer(held, type, loop->now_ms);
    if (loop->is_welcome) say_answer(loop, held);
}

static void answer_fail(struct loop *loop, struct weir_held *held, const struct weir_error *why)
{
    held->status = why->code;
    memcpy(held->words, why->words, sizeof held->words);
    answer(loop, held, WEIR_MESSAGE_FAIL);
}

/* ---- what is heard ---- */

static void on_welcome(struct loop *loop, const Weir__Pb__Welcome *body)
{
    if (body->protocol != WEIR_WIRE_VERSION) {
        loop->fault = weir_fail(loop->error, WEIR_PROTOCOL, "the broker speaks protocol %u, this build %d",
                                body->protocol, WEIR_WIRE_VERSION);
        return;
    }
    if (!loop->is_welcome || loop->epoch != body->epoch) {
        LOG(loop, WEIR_LOG_INFO, "welcome epoch=%llu heartbeat_ms=%u lease_ms=%u", (unsigned long long)body->epoch,
            body->heartbeat_ms, body->lease_ms);
    }
    loop->is_welcome = true;
    loop->epoch = body->epoch;
    loop->heartbeat_ms = body->heartbeat_ms;
    loop->held.lease_ms = body->lease_ms;
    loop->held.renew_ms = body->renew_ms;
    loop->credits_told = 0;
    loop->hello_ms = HELLO_MS;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &loop->held.rows[i];
        if (held->state == WEIR_HELD_ANSWERED) weir_held_answer(held, held->answer, loop->now_ms);
    }
}

/* The lease's model, stage and precision, checked; fills the task. */
static enum weir_status accept(struct loop *loop, struct weir_held *held, struct weir_error *error)
{
    const Weir__Pb__Lease *lease = held->lease;
    const enum weir_status status = weir_task_create(lease, &held->task, error);
    if (status != WEIR_OK) return status;
    struct weir_task *task = held->task;
    const struct weir_model *model = weir_models_find(loop->o->models, lease->spec->model);
    if (!model || memcmp(model->digest, lease->spec->model_digest.data, WEIR_SHA256_BYTES) != 0) {
        return weir_fail(error, WEIR_INTERNAL,
                         "a lease of the model \"%.100s\", which this worker does not have as such",
                         lease->spec->model);
    }
    if (!(loop->o->stage_mask >> task->id.stage & 1)) {
        return weir_fail(error, WEIR_INTERNAL, "a lease of stage %s, which this worker does not run",
                         weir_stage_name(task->id.stage));
    }
    const char *precision = weir_precision_name(loop->o->device->precision);
    if (!lease->spec->precision || strcmp(lease->spec->precision, precision) != 0) {
        return weir_fail(error, WEIR_UNSUPPORTED, "a lease in precision %.8s, but this worker computes in %s",
                         lease->spec->precision ? lease->spec->precision : "", precision);
    }
    weir_task_set_model(task, (size_t)(model - loop->o->models->items), weir_pipeline_facts(model->quotes));
    task->progressed = weir_crew_progressed;
    task->progress_context = loop->crew;
    return WEIR_OK;
}

static void on_lease(struct loop *loop, struct weir_message *message)
{
    struct weir_error error;
    const Weir__Pb__Lease *lease = message->body.lease;
    if (weir_held_find(&loop->held, lease->task, &lease->token)) return; /* said twice */
    const bool wanted = !loop->is_draining && weir_held_credit(&loop->held) > 0;
    struct weir_held *held = weir_held_add(&loop->held, message, loop->now_ms);
    if (!held) return; /* no row: it was never granted, and will expire */
    count_lease(loop, (enum weir_stage)lease->task->stage);
    if (accept(loop, held, &error) != WEIR_OK) {
        answer_fail(loop, held, &error);
    } else if (!wanted) {
        answer(loop, held, WEIR_MESSAGE_RELEASE);
    } else {
        log_task(loop, "lease", held->lease->task, "");
    }
}

/* The lease is gone: what waits or was answered is forgotten, what runs is stopped. */
static void on_stale(struct loop *loop, struct weir_held *held)
{
    log_task(loop, "stale", held->lease->task, "");
    if (held->state == WEIR_HELD_RUNNING) {
        held->is_abandoned = true;
        atomic_store(&held->task->cancel, true);
    } else {
        weir_held_drop(&loop->held, held);
    }
}

static void on_cancel(struct loop *loop, struct weir_held *held)
{
    if (held->state == WEIR_HELD_RUNNING) {
        if (!atomic_exchange(&held->task->cancel, true)) log_task(loop, "cancel", held->lease->task, "");
    } else if (held->state == WEIR_HELD_WAITING) {
        answer(loop, held, WEIR_MESSAGE_RELEASE);
    }
}

static void on_ack(struct loop *loop, struct weir_held *held, enum weir_message_type answered)
{
    if (held->state == WEIR_HELD_ANSWERED && held->answer == answered) weir_held_drop(&loop->held, held);
}

static void say_quoted(struct loop *loop, struct weir_quote *quote)
{
    Weir__Pb__Quoted body = WEIR__PB__QUOTED__INIT;
    body.has_number = body.has_status = 1;
    body.number = quote->message.body.quote->number;
    body.status = (uint32_t)quote->status;
    if (quote->status == WEIR_OK) {
        body.spec = &quote->spec;
        body.has_memory_bytes = body.has_cost_ms = 1;
        body.memory_bytes = quote->memory_bytes;
        body.cost_ms = quote->cost_ms;
    } else {
        body.words = quote->error.words;
    }
    (void)say(loop, WEIR_MESSAGE_QUOTED, &body.base); /* one that is lost, the broker asks for again */
}

static void on_quote(struct loop *loop, struct weir_message *message)
{
    for (uint32_t i = 0; i < loop->quote_count; i++) {
        if (loop->quotes[i] == message->body.quote->number) return; /* asked again: it is being worked out */
    }
    struct weir_quote *quote = calloc(1, sizeof *quote);
    if (!quote) return;
    quote->message = *message;
    quote->asked_ms = loop->now_ms;
    message->body.base = NULL;
    message->arena = NULL;
    if (loop->quote_count == QUOTES_MAX) {
        quote->status = weir_fail(&quote->error, WEIR_BUSY, "%d quotes are being worked out", QUOTES_MAX);
        say_quoted(loop, quote);
        weir_quote_destroy(&quote);
        return;
    }
    loop->quotes[loop->quote_count++] = quote->message.body.quote->number;
    weir_crew_quote(loop->crew, quote);
}

static void drain(struct loop *loop)
{
    if (loop->is_draining) return;
    loop->is_draining = true;
    LOG(loop, WEIR_LOG_INFO, "draining");
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &loop->held.rows[i];
        if (held->state == WEIR_HELD_WAITING) answer(loop, held, WEIR_MESSAGE_RELEASE);
        if (held->state == WEIR_HELD_RUNNING) atomic_store(&held->task->yield, true);
    }
}

/* The messages that name a held lease. */
#define ABOUT(field) (held = weir_held_find(&loop->held, message->body.field->task, &message->body.field->token))

static void hear(struct loop *loop, struct weir_message *message)
{
    struct weir_held *held = NULL;
    switch (message->type) {
    case WEIR_MESSAGE_WHO:
        loop->is_welcome = false;
        loop->hello_ms = HELLO_MS;
        say_hello(loop);
        break;
    case WEIR_MESSAGE_WELCOME:
        on_welcome(loop, message->body.welcome);
        break;
    case WEIR_MESSAGE_LEASE:
        on_lease(loop, message);
        break;
    case WEIR_MESSAGE_LEASE_OK:
        if (ABOUT(lease_ok)) weir_held_confirm(held, loop->now_ms);
        break;
    case WEIR_MESSAGE_RENEW_ACK:
        if (ABOUT(renew_ack)) {
            weir_held_renewed(held);
            if (message->body.renew_ack->cancel) on_cancel(loop, held);
        }
        break;
    case WEIR_MESSAGE_DONE_ACK:
        if (ABOUT(done_ack)) on_ack(loop, held, WEIR_MESSAGE_DONE);
        break;
    case WEIR_MESSAGE_FAIL_ACK:
        if (ABOUT(fail_ack)) on_ack(loop, held, WEIR_MESSAGE_FAIL);
        break;
    case WEIR_MESSAGE_RELEASE_ACK:
        if (ABOUT(release_ack)) on_ack(loop, held, WEIR_MESSAGE_RELEASE);
        break;
    case WEIR_MESSAGE_CANCEL:
        if (ABOUT(cancel)) on_cancel(loop, held);
        break;
    case WEIR_MESSAGE_STALE:
        if (ABOUT(stale)) on_stale(loop, held);
        break;
    case WEIR_MESSAGE_DRAIN:
        drain(loop);
        break;
    case WEIR_MESSAGE_QUOTE:
        on_quote(loop, message);
        break;
    case WEIR_MESSAGE_PING: {
        Weir__Pb__Pong body = WEIR__PB__PONG__INIT;
        body.has_number = 1;
        body.number = message->body.ping->number;
        (void)say(loop, WEIR_MESSAGE_PONG, &body.base);
        break;
    }
    default:
        break; /* PONG and UNSUPPORTED say only that somebody is there */
    }
}

static void hear_all(struct loop *loop)
{
    for (int i = 0; i < MESSAGES_PER_TURN_MAX && loop->fault == WEIR_OK; i++) {
        struct weir_message message;
        struct weir_error error;
        uint32_t type_seen;
        const enum weir_status status =
            weir_wire_receive(loop->socket, false, WEIR_DIRECTION_B, &message, &type_seen, &error);
        if (status == WEIR_TIMEOUT) return;
        if (status == WEIR_UNSUPPORTED) {
            Weir__Pb__Unsupported body = WEIR__PB__UNSUPPORTED__INIT;
            body.has_type = 1;
            body.type = type_seen;
            (void)say(loop, WEIR_MESSAGE_UNSUPPORTED, &body.base);
        }
        if (status != WEIR_OK) {
            LOG(loop, WEIR_LOG_WARN, "message dropped words=\"%s\"", error.words);
            continue;
        }
        loop->heard_ms = loop->now_ms;
        loop->lost_ms = 0;
        hear(loop, &message);
        weir_message_release(&message);
    }
}

/* ---- the crew ---- */

/* Once a step boundary: how many tasks may be beside each other until the next. */
static void pace(struct loop *loop)
{
    const unsigned boundaries = weir_crew_boundaries(loop->crew);
    const struct weir_held *batch = weir_held_batch(&loop->held);
    if (batch && boundaries == loop->boundaries) return;
    loop->boundaries = boundaries;
    weir_held_pace(&loop->held, batch ? weir_rows_wanted(loop->o->rows, &batch->task->shape) : 1, loop->now_ms);
}

static void begin(struct loop *loop)
{
    for (struct weir_held *held; !loop->is_draining && (held = weir_held_next(&loop->held, loop->now_ms)) != NULL;) {
        held->state = WEIR_HELD_RUNNING;
        held->begun_ms = loop->now_ms;
        weir_crew_compute(loop->crew, held->task);
    }
}

/* A device that reported a fault may never work again in this process: a GPU's error stays and fails every later call.
 * So what is held goes back, and the process ends, for its supervisor to start another. */
static void lose_device(struct loop *loop, const struct weir_error *why)
{
    if (loop->is_lost) return;
    loop->is_lost = true;
    LOG(loop, WEIR_LOG_ERROR, "device lost name=%s words=\"%s\"", loop->o->device->table->name, why->words);
    drain(loop);
}

static void finish(struct loop *loop, struct weir_task *task)
{
    char words[96];
    struct weir_held *held = weir_held_of(&loop->held, task);
    assert(held && held->state == WEIR_HELD_RUNNING);
    snprintf(words, sizeof words, "status=%s ms=%llu wall_ms=%llu", weir_status_name(task->status),
             (unsigned long long)task->milliseconds, (unsigned long long)(loop->now_ms - held->begun_ms));
    log_task(loop, "task ended", held->lease->task, words);
    if (task->status == WEIR_OK) weir_quoter_learn(loop->o->quoter, task);
    if (task->status == WEIR_DEVICE) lose_device(loop, &task->error);
    if (held->is_abandoned) {
        weir_held_drop(&loop->held, held);
    } else if (task->status == WEIR_OK) {
        answer(loop, held, WEIR_MESSAGE_DONE);
    } else if (task->status == WEIR_CANCELLED || task->status == WEIR_INTERRUPTED) {
        answer(loop, held, WEIR_MESSAGE_RELEASE);
    } else {
        LOG(loop, WEIR_LOG_WARN, "task failed words=\"%s\"", task->error.words);
        task->error.code = task->status;
        answer_fail(loop, held, &task->error);
    }
}

static void take_from_crew(struct loop *loop)
{
    for (struct weir_task *task; (task = weir_crew_take_task(loop->crew)) != NULL;) finish(loop, task);
    for (struct weir_quote *quote; (quote = weir_crew_take_quote(loop->crew)) != NULL;) {
        uint32_t place = 0;
        while (loop->quotes[place] != quote->message.body.quote->number) place++;
        loop->quotes[place] = loop->quotes[--loop->quote_count];
        say_quoted(loop, quote);
        if (quote->status == WEIR_DEVICE) lose_device(loop, &quote->error);
        weir_quote_destroy(&quote);
    }
}

/* ---- time ---- */

static void tick_lost(struct loop *loop)
{
    if (loop->is_welcome && loop->now_ms - loop->heard_ms > (uint64_t)LIVENESS * loop->heartbeat_ms) {
        LOG(loop, WEIR_LOG_WARN, "broker silent ms=%llu", (unsigned long long)(loop->now_ms - loop->heard_ms));
        loop->is_welcome = false;
        loop->hello_ms = HELLO_MS;
        loop->hello_at_ms = loop->now_ms;
    }
    if (loop->is_welcome) return;
    if (!loop->lost_ms) loop->lost_ms = loop->now_ms;
    if (loop->now_ms - loop->lost_ms >= loop->o->lost_ms_max) {
        loop->fault = weir_fail(loop->error, WEIR_UNAVAILABLE, "no broker at %s for %llu s", loop->o->broker,
                                (unsigned long long)(loop->o->lost_ms_max / 1000));
        return;
    }
    if (loop->now_ms >= loop->hello_at_ms) say_hello(loop);
}

static void tick(struct loop *loop)
{
    tick_lost(loop);
    if (!loop->is_welcome) return;
    say_credit(loop);
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &loop->held.rows[i];
        if (weir_held_renew_due(&loop->held, held, loop->now_ms)) say_renew(loop, held);
        if (held->state == WEIR_HELD_ANSWERED && loop->now_ms >= held->resend_at_ms) say_answer(loop, held);
    }
    if (loop->now_ms - loop->said_ms >= loop->heartbeat_ms) {
        Weir__Pb__Ping body = WEIR__PB__PING__INIT;
        body.has_number = 1;
        body.number = ++loop->pings;
        (void)say(loop, WEIR_MESSAGE_PING, &body.base);
    }
}

static uint64_t wait_ms(const struct loop *loop)
{
    if (loop->send_refused) return RETRY_MS;
    if (!loop->is_welcome) return loop->hello_at_ms > loop->now_ms ? loop->hello_at_ms - loop->now_ms : 0;
    uint64_t wait = weir_held_wait_ms(&loop->held, loop->now_ms, WAIT_MS_MAX);
    const uint64_t ping_ms = loop->said_ms + loop->heartbeat_ms;
    const uint64_t silent_ms = loop->heard_ms + (uint64_t)LIVENESS * loop->heartbeat_ms + 1;
    if (ping_ms <= loop->now_ms || silent_ms <= loop->now_ms) return 0;
    if (ping_ms - loop->now_ms < wait) wait = ping_ms - loop->now_ms;
    if (silent_ms - loop->now_ms < wait) wait = silent_ms - loop->now_ms;
    return wait;
}

/* True once nothing is in hand, and the answers were heard or waited for long enough. */
static bool is_drained(struct loop *loop)
{
    if (!loop->is_draining || weir_held_count(&loop->held, WEIR_HELD_RUNNING)) return false;
    if (!weir_held_count(&loop->held, WEIR_HELD_ANSWERED) || loop->is_hurried) return true;
    if (!loop->idle_ms) loop->idle_ms = loop->now_ms;
    return loop->now_ms - loop->idle_ms >= DRAIN_ACK_MS;
}

static void take_signals(struct loop *loop)
{
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof info) == sizeof info) {
        loop->is_hurried = loop->is_draining; /* asked twice: answers are not waited for */
        drain(loop);
    }
}

static void turn(struct loop *loop)
{
    zmq_pollitem_t items[] = {
        { .socket = loop->socket, .events = ZMQ_POLLIN },
        { .socket = loop->o->server->socket, .events = ZMQ_POLLIN },
        { .fd = weir_crew_task_fd(loop->crew), .events = ZMQ_POLLIN },
        { .fd = weir_crew_quote_fd(loop->crew), .events = ZMQ_POLLIN },
        { .fd = loop->signal_fd, .events = ZMQ_POLLIN },
        { .fd = weir_watch_fd(loop->watch), .events = ZMQ_POLLIN },
    };
    if (loop->send_refused) items[0].events |= ZMQ_POLLOUT;
    struct weir_error unwell;
    zmq_poll(items, (int)WEIR_COUNT(items), (long)wait_ms(loop));
    loop->now_ms = weir_clock_now_ms();
    loop->send_refused = false;
    hear_all(loop);
    take_from_crew(loop);
    if (weir_watch_failed(loop->watch, &unwell)) lose_device(loop, &unwell);
    (void)weir_server_turn(loop->o->server, MESSAGES_PER_TURN_MAX);
    take_signals(loop);
    pace(loop);
    begin(loop);
    if (loop->fault == WEIR_OK) tick(loop);
}

/* Stops what runs and takes it back, so that nobody writes into what is freed. */
static void end_crew(struct loop *loop)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        if (loop->held.rows[i].state == WEIR_HELD_RUNNING) atomic_store(&loop->held.rows[i].task->cancel, true);
    }
    weir_crew_stop(&loop->crew);
}

static enum weir_status open_signals(struct loop *loop, struct weir_error *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return loop->signal_fd >= 0 ? WEIR_OK : weir_fail(error, WEIR_INTERNAL, "signalfd: %s", strerror(errno));
}

enum weir_status weir_loop_run(const struct weir_loop_options *options, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct loop loop = { .o = options,
                         .signal_fd = -1,
                         .heartbeat_ms = HEARTBEAT_MS,
                         .hello_ms = HELLO_MS,
                         .error = error,
                         .now_ms = weir_clock_now_ms() };
    weir_held_init(&loop.held);
    weir_held_set_lanes(&loop.held, &options->lanes, options->stage_mask);
    weir_random_bytes(loop.worker, sizeof loop.worker);
    loop.heard_ms = loop.now_ms;

    WEIR_TRY(open_signals(&loop, error));
    WEIR_TRY(weir_wire_connect(options->zmq, options->broker, WEIR_SOCKET_CONTROL, options->insecure_dev, &loop.socket,
                               error));
    WEIR_TRY(weir_watch_start(options->device, options->log, &loop.watch, error));
    WEIR_TRY(weir_crew_start(options->stages, &options->lanes, options->quoter, &loop.crew, error));
    while (loop.fault == WEIR_OK && !is_drained(&loop)) turn(&loop);
    status = loop.fault;
    if (status == WEIR_OK) {
        Weir__Pb__Bye body = WEIR__PB__BYE__INIT;
        (void)say(&loop, WEIR_MESSAGE_BYE, &body.base);
        LOG(&loop, WEIR_LOG_INFO, "bye");
        if (loop.is_lost) {
            status =
                weir_fail(error, WEIR_DEVICE, "ended, since device %s reported a fault", options->device->table->name);
        }
    }
cleanup:
    if (loop.crew) end_crew(&loop);
    weir_watch_stop(&loop.watch);
    weir_held_deinit(&loop.held);
    if (loop.socket) zmq_close(loop.socket);
    if (loop.signal_fd >= 0) close(loop.signal_fd);
    return status;
}
