/* The broker fed with messages: the input is a script of them. Some are raw bytes behind a correct header, some are
 * well formed and speak of leases and jobs that the broker really gave (by their number), so that the rules behind
 * the wire are reached. Time passes, connections break, the broker starts again on the same ledger.
 *
 * What must hold besides no crash: every turn ends well (scheduler and ledger agree), and when all jobs were
 * cancelled and time has passed, none is open. */
#include "broker/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRANTS_MAX 64
#define JOBS_MAX 16
#define PEERS 4
#define STRANGER 200 /* who cleans up at the end */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct grant {
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
};

struct world {
    const uint8_t *data;
    size_t size;
    struct weir_ledger *ledger;
    struct weir_broker *broker;
    uint64_t now_ms, chance, quote;
    struct grant grants[GRANTS_MAX];
    size_t grant_count;
    struct weir_job_id jobs[JOBS_MAX];
    size_t job_count;
    uint8_t deaf, deals;
};

static const uint8_t model[WEIR_SHA256_BYTES] = { 1 };

static uint8_t take_byte(struct world *w)
{
    if (w->size == 0) return 0;
    w->size--;
    return *w->data++;
}

/* ---- the outside world ---- */

static enum weir_status port_send(void *context, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, uint64_t sequence, const ProtobufCMessage *body)
{
    struct world *w = context;
    union {
        const ProtobufCMessage *base;
        const Weir__Pb__Lease *lease;
        const Weir__Pb__Quote *quote;
        const Weir__Pb__Accepted *accepted;
    } sent = { body };
    (void)side;
    (void)sequence;
    if (w->deaf != 0 && to->bytes[0] % PEERS == w->deaf % PEERS) return WEIR_UNAVAILABLE;
    if (protobuf_c_message_get_packed_size(body) > WEIR_WIRE_CONTROL_BYTES_MAX) return WEIR_TOO_LARGE;
    if (type == WEIR_MESSAGE_QUOTE) w->quote = sent.quote->number;
    if (type == WEIR_MESSAGE_LEASE) {
        struct grant *grant = &w->grants[w->grant_count++ % GRANTS_MAX];
        if (!weir_task_id_read(sent.lease->task, &grant->task)) abort();
        memcpy(grant->token, sent.lease->token.data, sizeof grant->token);
    }
    if (type == WEIR_MESSAGE_ACCEPTED && to->bytes[0] != STRANGER)
        memcpy(w->jobs[w->job_count++ % JOBS_MAX].bytes, sent.accepted->job.data, WEIR_ID_BYTES);
    return WEIR_OK;
}

static enum weir_status port_stat(void *context, const char *key, uint64_t *bytes, struct weir_error *error)
{
    (void)context;
    *bytes = 5;
    return key[strlen(key) - 1] == '9' ? weir_fail(error, WEIR_NOT_FOUND, "%s", key) : WEIR_OK;
}

static enum weir_status port_list(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                                  void *each_context, struct weir_error *error)
{
    struct world *w = context;
    char key[WEIR_KEY_BYTES + 16];
    if (w->deals % 8 == 7) return weir_fail(error, WEIR_STORE, "pretended");
    snprintf(key, sizeof key, "%s%06u", prefix, w->deals % 4u * 5u);
    if (strlen(key) < WEIR_KEY_BYTES) each(each_context, key);
    return WEIR_OK;
}

static enum weir_status port_remove(void *context, const char *prefix, struct weir_error *error)
{
    (void)context;
    (void)prefix;
    (void)error;
    return WEIR_OK;
}

static void chance(void *context, void *out, size_t count)
{
    struct world *w = context;
    for (size_t k = 0; k < count; k++) {
        w->chance = w->chance * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)out)[k] = (uint8_t)(w->chance >> 56);
    }
}

static struct weir_job_id port_job_id(void *context)
{
    struct weir_job_id id;
    chance(context, id.bytes, sizeof id.bytes);
    return id;
}

static void start(struct world *w)
{
    struct weir_broker_options options = { .sched = weir_sched_options_default(true, w->deals & 1),
                                           .port = { w, port_send, port_stat, port_list, port_remove, port_job_id },
                                           .store = "s",
                                           .build = "b",
                                           .sweep_after_ms = 5000 };
    options.sched.random = chance;
    options.sched.random_context = w;
    options.sched.jobs_max = 8;
    options.sched.tasks_max = 200;
    options.sched.workers_max = 3;
    if (weir_broker_create(&options, w->ledger, w->now_ms, 1, &w->broker, NULL) != WEIR_OK) abort();
}

static void flush(struct world *w)
{
    struct weir_error error = { 0 };
    if (weir_broker_flush(w->broker, w->now_ms, 1, NULL, &error) == WEIR_OK) return;
    fprintf(stderr, "%s\n", error.words);
    abort();
}

/* ---- messages ---- */

/* As from the wire: decoded, its limits checked. */
static void deliver(struct world *w, enum weir_side side, uint8_t peer, enum weir_message_type type, const void *bytes,
                    size_t count)
{
    uint8_t header[WEIR_WIRE_HEADER_BYTES];
    struct weir_message message = { .from = { 1, { peer == STRANGER ? STRANGER : (uint8_t)(1 + peer % PEERS) } } };
    struct weir_error error = { 0 };
    uint32_t seen = 0;
    weir_wire_header(type, 1, bytes, count, header);
    const enum weir_status status =
        weir_wire_decode(header, sizeof header, bytes, count,
                         side == WEIR_SIDE_WORKERS ? WEIR_DIRECTION_W : WEIR_DIRECTION_C, &message, &seen, &error);
    if (status == WEIR_OK) {
        if (weir_broker_take(w->broker, w->now_ms, 1, side, &message, &error) != WEIR_OK) abort();
    } else if (type < 90) { /* else every raw input would soon be ignored */
        if (status == WEIR_UNSUPPORTED)
            weir_broker_take_malformed(w->broker, w->now_ms, side, &message.from, status, seen, error.words);
    }
}

static void say(struct world *w, enum weir_side side, uint8_t peer, enum weir_message_type type,
                const ProtobufCMessage *body)
{
    const size_t count = protobuf_c_message_get_packed_size(body);
    uint8_t *bytes = malloc(count + 1);
    protobuf_c_message_pack(body, bytes);
    deliver(w, side, peer, type, bytes, count);
    free(bytes);
}

static ProtobufCBinaryData binary(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

static struct grant pick_grant(struct world *w)
{
    struct grant none = { .task = { .stage = WEIR_STAGE_TEXT } };
    const uint8_t which = take_byte(w);
    const size_t have = w->grant_count < GRANTS_MAX ? w->grant_count : GRANTS_MAX;
    return have == 0 ? none : w->grants[(w->grant_count - 1 - which % have) % GRANTS_MAX];
}

static Weir__Pb__TaskId wire_task(const struct weir_task_id *task)
{
    Weir__Pb__TaskId id = WEIR__PB__TASK_ID__INIT;
    id.has_job = id.has_stage = id.has_index = true;
    id.job = binary(task->job.bytes, WEIR_ID_BYTES);
    id.stage = task->stage;
    id.index = task->index;
    return id;
}

static void say_hello(struct world *w, uint8_t peer)
{
    Weir__Pb__Hello hello = WEIR__PB__HELLO__INIT;
    Weir__Pb__ModelFacts facts = WEIR__PB__MODEL_FACTS__INIT;
    Weir__Pb__ModelFacts *models[] = { &facts };
    Weir__Pb__HeldLease held[4];
    Weir__Pb__HeldLease *list[4];
    Weir__Pb__TaskId ids[4];
    struct grant grants[4];
    const uint8_t shape = take_byte(w);
    uint8_t id[WEIR_ID_BYTES] = { (uint8_t)(shape >> 6) };
    facts.name = (char *)(uintptr_t) "tiny";
    facts.pipeline = facts.name;
    facts.has_digest = true;
    facts.digest = binary(model, sizeof model);
    hello.has_protocol_min = hello.has_protocol_max = hello.has_worker = hello.has_stages = hello.has_slots = true;
    hello.protocol_min = hello.protocol_max = 1;
    hello.worker = binary(id, sizeof id);
    hello.numerics_class = (char *)(uintptr_t)((shape & 32) != 0 ? "b" : "a");
    hello.stages = (shape & 16) != 0 ? 1 + (shape & 14u) : WEIR_STAGES_ALL;
    hello.slots = 1 + (shape & 1u);
    hello.n_models = 1;
    hello.models = models;
    hello.n_held = take_byte(w) % 4;
    for (size_t k = 0; k < hello.n_held; k++) {
        grants[k] = pick_grant(w);
        ids[k] = wire_task(&grants[k].task);
        weir__pb__held_lease__init(&held[k]);
        held[k].task = &ids[k];
        held[k].has_token = true;
        held[k].token = binary(grants[k].token, WEIR_TOKEN_BYTES);
        list[k] = &held[k];
    }
    hello.held = list;
    say(w, WEIR_SIDE_WORKERS, peer, WEIR_MESSAGE_HELLO, &hello.base);
}

static void say_done(struct world *w, uint8_t peer)
{
    const struct grant grant = pick_grant(w);
    Weir__Pb__TaskId id = wire_task(&grant.task);
    Weir__Pb__Done done = WEIR__PB__DONE__INIT;
    Weir__Pb__Artefact artefact = WEIR__PB__ARTEFACT__INIT;
    Weir__Pb__Artefact *list[] = { &artefact };
    Weir__Pb__TaskFacts facts = WEIR__PB__TASK_FACTS__INIT;
    uint8_t digest[WEIR_SHA256_BYTES] = { 0 };
    char key[WEIR_KEY_BYTES];
    const uint8_t kind = take_byte(w);
    digest[31] = kind; /* keys that end in 9 are not in the store */
    weir_key_artefact("default", &grant.task, digest, key);
    artefact.name = artefact.media_type = (char *)(uintptr_t) "x";
    artefact.has_digest = artefact.has_bytes = facts.has_milliseconds = true;
    artefact.digest = binary(digest, sizeof digest);
    artefact.bytes = kind == 77 ? 6 : 5;
    artefact.key = kind == 78 ? (char *)(uintptr_t) "t/else" : key;
    facts.milliseconds = kind;
    done.task = &id;
    done.has_token = true;
    done.token = binary(grant.token, WEIR_TOKEN_BYTES);
    done.n_artefacts = kind == 79 ? 0 : 1;
    done.artefacts = list;
    done.facts = (kind & 1) != 0 ? &facts : NULL;
    say(w, WEIR_SIDE_WORKERS, peer, WEIR_MESSAGE_DONE, &done.base);
}

static void say_about_lease(struct world *w, uint8_t peer, enum weir_message_type type)
{
    const struct grant grant = pick_grant(w);
    Weir__Pb__TaskId id = wire_task(&grant.task), input = id;
    const ProtobufCBinaryData token = binary(grant.token, WEIR_TOKEN_BYTES);
    const uint8_t kind = take_byte(w);
    if (type == WEIR_MESSAGE_RENEW) {
        Weir__Pb__Renew renew = WEIR__PB__RENEW__INIT;
        renew.task = &id;
        renew.has_token = renew.has_step = renew.has_running = true;
        renew.token = token;
        renew.step = kind;
        renew.running = kind & 1;
        say(w, WEIR_SIDE_WORKERS, peer, type, &renew.base);
    } else if (type == WEIR_MESSAGE_RELEASE) {
        Weir__Pb__Release release = WEIR__PB__RELEASE__INIT;
        release.task = &id;
        release.has_token = true;
        release.token = token;
        say(w, WEIR_SIDE_WORKERS, peer, type, &release.base);
    } else {
        Weir__Pb__Fail fail = WEIR__PB__FAIL__INIT;
        fail.task = &id;
        fail.has_token = fail.has_status = true;
        fail.token = token;
        fail.status = kind % WEIR_STATUS_COUNT;
        fail.has_device_suspect = true;
        fail.device_suspect = kind >= 200;
        input.stage = grant.task.stage > 0 ? grant.task.stage - 1u : 0;
        input.index = take_byte(w) % 4;
        if (fail.status == WEIR_INPUT_LOST) fail.lost_input = &input;
        say(w, WEIR_SIDE_WORKERS, peer, type, &fail.base);
    }
}

static void say_quoted(struct world *w, uint8_t peer)
{
    Weir__Pb__Quoted quoted = WEIR__PB__QUOTED__INIT;
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    Weir__Pb__Prompt prompts[4], *list[4];
    const uint8_t size = take_byte(w), kind = take_byte(w);
    spec.has_spec_version = spec.has_model_digest = spec.has_width = spec.has_height = true;
    spec.has_frames = spec.has_steps = spec.has_n = true;
    spec.model = (char *)(uintptr_t) "tiny";
    spec.model_digest = binary(model, sizeof model);
    spec.frames = 1 + size % 64u;
    spec.n = 1 + size / 64u;
    spec.format = (char *)(uintptr_t)((size & 1) != 0 ? "mp4" : "gif");
    if (kind == 1) spec.n = 4000;
    if (kind >= 3 && kind < 64) {
        spec.has_image = spec.image = true;
        if (kind < 60) spec.frames = 1;
    }
    if (kind >= 64 && kind < 128) { /* a list, in which bits of `kind` say who has which text */
        spec.n_prompts = 1 + kind / 16u % 4;
        spec.prompts = list;
        for (size_t k = 0; k < spec.n_prompts; k++) {
            list[k] = &prompts[k];
            weir__pb__prompt__init(&prompts[k]);
            prompts[k].text = (char *)(uintptr_t)((kind >> k & 1) != 0 ? "p" : "q");
            prompts[k].negative = (char *)(uintptr_t) "";
            prompts[k].has_width = prompts[k].has_height = prompts[k].has_steps = prompts[k].has_guidance = true;
            prompts[k].has_seed = kind != 65;
        }
        spec.has_image = spec.image = spec.frames == 1;
    }
    quoted.has_number = quoted.has_status = true;
    quoted.number = w->quote;
    quoted.status = kind >= 128 ? kind % WEIR_STATUS_COUNT : 0;
    quoted.spec = kind == 2 ? NULL : &spec;
    say(w, WEIR_SIDE_WORKERS, peer, WEIR_MESSAGE_QUOTED, &quoted.base);
}

static void say_submit(struct world *w, uint8_t peer)
{
    static const char *const tenants[] = { NULL, "default", "Bad Tenant", "other" };
    Weir__Pb__Submit submit = WEIR__PB__SUBMIT__INIT;
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    char key[2] = { 0 };
    const uint8_t kind = take_byte(w);
    key[0] = (char)('a' + kind % 8);
    spec.model = (char *)(uintptr_t)((kind & 64) != 0 ? "huge" : "tiny");
    spec.prompt = (char *)(uintptr_t)((kind & 8) != 0 ? "p" : "q");
    submit.has_number = true;
    submit.spec = &spec;
    submit.tenant = (char *)(uintptr_t)((kind & 48) == 48 ? tenants[2 + (kind & 1)] : tenants[kind & 1]);
    submit.idempotency_key = (kind & 128) != 0 ? key : NULL;
    submit.has_priority = submit.has_deadline_ms = true;
    submit.priority = (int32_t)(kind % 3) - 1;
    submit.deadline_ms = (kind & 16) != 0 ? 3000 : 0;
    say(w, WEIR_SIDE_CLIENTS, peer, WEIR_MESSAGE_SUBMIT, &submit.base);
}

static void say_about_job(struct world *w, uint8_t peer, enum weir_message_type type, size_t which)
{
    union {
        ProtobufCMessage base;
        Weir__Pb__Show show;
        Weir__Pb__Watch watch;
        Weir__Pb__CancelJob cancel;
    } body;
    const size_t have = w->job_count < JOBS_MAX ? w->job_count : JOBS_MAX;
    const struct weir_job_id none = { { 0 } }, id = have == 0 ? none : w->jobs[which % have];
    const ProtobufCBinaryData job = binary(id.bytes, WEIR_ID_BYTES);
    if (type == WEIR_MESSAGE_SHOW) {
        weir__pb__show__init(&body.show);
        body.show.has_number = body.show.has_job = true, body.show.job = job;
    } else if (type == WEIR_MESSAGE_WATCH) {
        weir__pb__watch__init(&body.watch);
        body.watch.has_number = body.watch.has_job = true, body.watch.job = job;
    } else {
        weir__pb__cancel_job__init(&body.cancel);
        body.cancel.has_number = body.cancel.has_job = true, body.cancel.job = job;
    }
    say(w, WEIR_SIDE_CLIENTS, peer, type, &body.base);
}

static void say_raw(struct world *w, uint8_t peer)
{
    const uint8_t type = take_byte(w), want = take_byte(w);
    const size_t count = want < w->size ? want : w->size;
    deliver(w, type >= 40 ? WEIR_SIDE_CLIENTS : WEIR_SIDE_WORKERS, peer, (enum weir_message_type)(type % 96), w->data,
            count);
    w->data += count;
    w->size -= count;
}

static void step(struct world *w)
{
    const uint8_t what = take_byte(w), peer = (uint8_t)(what >> 5);
    switch (what % 32) {
    case 0:
    case 1:
        say_hello(w, peer);
        break;
    case 2:
    case 3: {
        Weir__Pb__Credit credit = WEIR__PB__CREDIT__INIT;
        credit.has_leases = true;
        credit.leases = take_byte(w) % 4;
        say(w, WEIR_SIDE_WORKERS, peer, WEIR_MESSAGE_CREDIT, &credit.base);
        break;
    }
    case 4:
    case 5:
    case 6:
        say_done(w, peer);
        break;
    case 7:
    case 8:
        say_about_lease(w, peer, WEIR_MESSAGE_FAIL);
        break;
    case 9:
        say_about_lease(w, peer, WEIR_MESSAGE_RELEASE);
        break;
    case 10:
        say_about_lease(w, peer, WEIR_MESSAGE_RENEW);
        break;
    case 11:
    case 12:
        say_submit(w, peer);
        break;
    case 13:
    case 14:
        say_quoted(w, peer);
        break;
    case 15:
        say_about_job(w, peer, WEIR_MESSAGE_SHOW, take_byte(w));
        break;
    case 16:
        say_about_job(w, peer, WEIR_MESSAGE_WATCH, take_byte(w));
        break;
    case 17:
        say_about_job(w, peer, WEIR_MESSAGE_CANCEL_JOB, take_byte(w));
        break;
    case 18: {
        Weir__Pb__Bye bye = WEIR__PB__BYE__INIT;
        say(w, WEIR_SIDE_WORKERS, peer, WEIR_MESSAGE_BYE, &bye.base);
        break;
    }
    case 19: {
        Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
        say(w, (what & 64) != 0 ? WEIR_SIDE_WORKERS : WEIR_SIDE_CLIENTS, peer, WEIR_MESSAGE_PING, &ping.base);
        break;
    }
    case 20: {
        Weir__Pb__Status status = WEIR__PB__STATUS__INIT;
        status.has_number = true;
        say(w, WEIR_SIDE_CLIENTS, peer, WEIR_MESSAGE_STATUS, &status.base);
        break;
    }
    case 21: {
        Weir__Pb__List list = WEIR__PB__LIST__INIT;
        list.has_number = list.has_limit = list.has_open_only = true;
        list.limit = 1 + peer;
        list.open_only = take_byte(w) & 1;
        say(w, WEIR_SIDE_CLIENTS, peer, WEIR_MESSAGE_LIST, &list.base);
        break;
    }
    case 22:
        w->deaf = take_byte(w);
        break;
    case 23:
        w->deals = take_byte(w);
        break;
    case 24: {
        struct weir_routing from = { 1, { (uint8_t)(1 + peer % PEERS) } };
        weir_broker_take_malformed(w->broker, w->now_ms, peer & 1 ? WEIR_SIDE_CLIENTS : WEIR_SIDE_WORKERS, &from,
                                   WEIR_PROTOCOL, 0, "pretended");
        break;
    }
    case 25:
        flush(w);
        weir_broker_destroy(&w->broker);
        start(w);
        break;
    case 26:
        say_raw(w, peer);
        break;
    case 27:
    case 28:
        w->now_ms += take_byte(w) * 50u;
        flush(w);
        break;
    default:
        flush(w);
        break;
    }
}

static bool each_open(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                      size_t task_count)
{
    struct world *w = context;
    (void)tasks;
    (void)task_count;
    if (w->job_count < JOBS_MAX) w->jobs[w->job_count] = job->id;
    w->job_count++;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = { .data = data, .size = size, .now_ms = 1000, .chance = 7 };
    if (weir_ledger_memory_open(&w.ledger, NULL) != WEIR_OK) abort();
    start(&w);
    while (w.size > 0) step(&w);
    flush(&w);

    /* Everything is cancelled; then no lease lasts, and nothing may stay open. */
    const struct weir_ledger_page open = { .filter = WEIR_LEDGER_OPEN, .limit = 100 };
    w.deaf = w.deals = 0;
    w.job_count = 0;
    if (weir_ledger_page_open(w.ledger, &open, each_open, &w, NULL) != WEIR_OK || w.job_count > JOBS_MAX) abort();
    const size_t count = w.job_count;
    for (size_t k = 0; k < count; k++) say_about_job(&w, STRANGER, WEIR_MESSAGE_CANCEL_JOB, k);
    for (int k = 0; k < 40; k++) {
        flush(&w);
        w.now_ms += 250;
    }
    if (weir_sched_counts(weir_broker_sched(w.broker)).jobs > 0) abort();
    weir_broker_destroy(&w.broker);
    weir_ledger_close(&w.ledger);
    return 0;
}
