#include "broker/broker_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASSES_MAX 64 /* of one flush: each pass performs what the one before caused */

/* ---- memory of a turn ---- */

void *weir_broker_scratch(struct weir_broker *broker, size_t bytes)
{
    struct scratch *piece = calloc(1, sizeof *piece + bytes);
    if (piece == NULL) return NULL;
    piece->next = broker->scratch;
    broker->scratch = piece;
    return piece + 1;
}

struct weir_blob weir_broker_pack(struct weir_broker *broker, const ProtobufCMessage *message)
{
    struct weir_blob blob = { NULL, protobuf_c_message_get_packed_size(message) };
    uint8_t *bytes = weir_broker_scratch(broker, blob.count + 1);
    if (bytes == NULL) return (struct weir_blob){ NULL, 0 };
    protobuf_c_message_pack(message, bytes);
    blob.bytes = bytes;
    return blob;
}

static void end_turn(struct weir_broker *broker)
{
    for (size_t k = 0; k < broker->message_count; k++) weir_message_release(&broker->messages[k]);
    broker->message_count = 0;
    broker->late_ask_count = 0;
    while (broker->scratch != NULL) {
        struct scratch *piece = broker->scratch;
        broker->scratch = piece->next;
        free(piece);
    }
}

/* ---- peers and sending ---- */

static struct peer *find_peer(struct weir_broker *broker, enum weir_side side, const struct weir_routing *routing)
{
    struct peer *peer = NULL;
    HASH_FIND(hh, broker->peers[side], routing->bytes, routing->length, peer);
    return peer;
}

static void forget_peer(struct weir_broker *broker, enum weir_side side, struct peer *peer)
{
    if (peer->slot != WEIR_ROSTER_NONE) broker->worker_peers[peer->slot] = NULL;
    HASH_DEL(broker->peers[side], peer);
    free(peer);
}

/* The peer, known from now on. The oldest that is no worker makes room. NULL: no memory. */
static struct peer *know_peer(struct weir_broker *broker, enum weir_side side, const struct weir_routing *routing)
{
    struct peer *peer = find_peer(broker, side, routing);
    if (peer != NULL) return peer;
    if (HASH_COUNT(broker->peers[side]) >= WEIR_PEERS_MAX) {
        struct peer *old = broker->peers[side];
        while (old != NULL && old->slot != WEIR_ROSTER_NONE) old = old->hh.next;
        if (old == NULL) return NULL;
        forget_peer(broker, side, old);
    }
    peer = calloc(1, sizeof *peer);
    if (peer == NULL) return NULL;
    peer->routing = *routing;
    peer->slot = WEIR_ROSTER_NONE;
    HASH_ADD_KEYPTR(hh, broker->peers[side], peer->routing.bytes, peer->routing.length, peer);
    if (peer->hh.tbl == NULL) {
        free(peer);
        return NULL;
    }
    return peer;
}

enum weir_status weir_broker_send(struct weir_broker *broker, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, const ProtobufCMessage *body)
{
    struct peer *peer = know_peer(broker, side, to);
    if (peer == NULL) return WEIR_NO_MEMORY;
    const struct weir_broker_port *port = &broker->options.port;
    const enum weir_status status = port->send(port->context, side, to, type, ++peer->sequence, body);
    if (status == WEIR_TOO_LARGE) {
        weir_log(broker->options.log, WEIR_LOG_ERROR, "message too large type=%s", weir_message_name(type));
    }
    return status;
}

static uint32_t handle(struct weir_broker *broker, uint64_t now_ms, const struct weir_event *event)
{
    return weir_sched_handle(broker->sched, now_ms, event, broker->actions);
}

enum weir_status weir_broker_send_worker(struct weir_broker *broker, uint64_t now_ms, uint32_t slot,
                                         enum weir_message_type type, const ProtobufCMessage *body)
{
    struct peer *peer = broker->worker_peers[slot];
    if (peer == NULL) return WEIR_UNAVAILABLE;
    const enum weir_status status = weir_broker_send(broker, WEIR_SIDE_WORKERS, &peer->routing, type, body);
    if (status == WEIR_OK) {
        weir_sched_said(broker->sched, slot, now_ms);
    } else if (status == WEIR_UNAVAILABLE) {
        weir_log(broker->options.log, WEIR_LOG_INFO, "worker lost slot=%u while=%s", slot, weir_message_name(type));
        const struct weir_event event = { .type = WEIR_EVENT_LOST, .worker = slot };
        handle(broker, now_ms, &event);
    }
    return status;
}

/* ---- performing: the ledger ---- */

static enum weir_status write_ledger(struct weir_broker *broker, struct weir_error *error)
{
    struct weir_ledger_call *calls[WEIR_ACTIONS_MAX + WEIR_TURN_MESSAGES_MAX];
    size_t count = 0;
    struct weir_actions *actions = broker->performing;

    for (size_t k = 0; k < actions->count; k++) {
        const enum weir_action_type type = actions->items[k].type;
        if (type == WEIR_ACTION_LEDGER || type == WEIR_ACTION_ASK) calls[count++] = &actions->items[k].u.call;
    }
    for (size_t k = 0; k < broker->submission_count; k++) calls[count++] = &broker->submissions[k]->call;
    const enum weir_status status = weir_ledger_apply(broker->ledger, calls, count, error);
    if (status != WEIR_OK) return status;
    for (size_t k = 0; k < actions->count; k++) {
        const struct weir_action *action = &actions->items[k];
        const bool wrong = (action->type == WEIR_ACTION_LEDGER && action->u.call.reply != WEIR_LEDGER_APPLIED) ||
                           (action->type == WEIR_ACTION_ASK && action->u.call.reply == WEIR_LEDGER_APPLIED);
        if (!wrong) continue;
        char job[WEIR_ID_HEX_BYTES];
        weir_job_id_text(&action->u.call.task.job, job);
        return weir_fail(error, WEIR_INTERNAL, "scheduler and ledger disagree: call %d on %s %s/%u was answered %d",
                         (int)action->u.call.op, job, weir_stage_name(action->u.call.task.stage),
                         action->u.call.task.index, (int)action->u.call.reply);
    }
    return WEIR_OK;
}

/* ---- performing: messages ---- */

static Weir__Pb__TaskId wire_task(const struct weir_task_id *task)
{
    Weir__Pb__TaskId id = WEIR__PB__TASK_ID__INIT;
    id.has_job = id.has_stage = id.has_index = true;
    id.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, (uint8_t *)(uintptr_t)task->job.bytes };
    id.stage = task->stage;
    id.index = task->index;
    return id;
}

struct lease_work {
    struct weir_broker *broker;
    const struct weir_action *action;
    uint64_t now_ms;
    const struct kept_spec *kept;
};

static void send_lease_with(const struct lease_work *work, const struct weir_ledger_job *job,
                            const struct weir_ledger_task *inputs, size_t input_count)
{
    struct weir_broker *broker = work->broker;
    const struct weir_plan *plan = &work->kept->plan;
    const struct weir_task_id *task = &work->action->u.send.task;
    Weir__Pb__Lease body = WEIR__PB__LEASE__INIT;
    Weir__Pb__TaskId id = wire_task(task);
    Weir__Pb__JobSpec own;
    size_t total = 0;

    Weir__Pb__Done **made = weir_broker_scratch(broker, (input_count + 1) * sizeof *made);
    Weir__Pb__TaskId *ids = weir_broker_scratch(broker, (input_count + 1) * sizeof *ids);
    struct weir_task_id *froms = weir_broker_scratch(broker, (input_count + 1) * sizeof *froms);
    if (made == NULL || ids == NULL || froms == NULL) return;
    for (size_t k = 0; k < input_count; k++) {
        made[k] = weir__pb__done__unpack(NULL, inputs[k].artefacts.count, inputs[k].artefacts.bytes);
        froms[k] = (struct weir_task_id){ task->job, inputs[k].stage, inputs[k].index };
        ids[k] = wire_task(&froms[k]);
        total += made[k] != NULL ? made[k]->n_artefacts : 0;
    }
    Weir__Pb__Input *items = weir_broker_scratch(broker, (total + 1) * sizeof *items);
    Weir__Pb__Input **list = weir_broker_scratch(broker, (total + 1) * sizeof *list);
    if (items != NULL && list != NULL) {
        for (size_t k = 0; k < input_count; k++) {
            for (size_t a = 0; made[k] != NULL && a < made[k]->n_artefacts; a++) {
                Weir__Pb__Input *input = &items[body.n_inputs];
                weir__pb__input__init(input);
                input->from = &ids[k];
                input->artefact = made[k]->artefacts[a];
                list[body.n_inputs++] = input;
            }
        }
        body.inputs = list;
        body.task = &id;
        body.has_token = body.has_attempt = body.has_crashes = body.has_lease_ms = body.has_item = true;
        body.token = (ProtobufCBinaryData){ WEIR_TOKEN_BYTES, (uint8_t *)(uintptr_t)work->action->u.send.token };
        body.attempt = work->action->u.send.attempt;
        body.crashes = work->action->u.send.crashes;
        body.lease_ms = (uint32_t)broker->options.sched.lease_ms;
        body.tenant = (char *)(uintptr_t)job->tenant;
        body.item = weir_plan_item(plan, task->stage, task->index);
        weir_spec_of_item(work->kept->spec, body.item, &own);
        body.spec = &own;
        if (task->stage == WEIR_STAGE_DECODE) {
            body.has_frame_first = body.has_frame_count = true;
            weir_plan_frames(plan, task->stage, task->index, &body.frame_first, &body.frame_count);
            body.has_band = weir_plan_in_bands(plan);
            if (body.has_band) body.band = task->index % plan->segments;
        }
        weir_broker_send_worker(broker, work->now_ms, work->action->worker, WEIR_MESSAGE_LEASE, &body.base);
    }
    for (size_t k = 0; k < input_count; k++) {
        if (made[k] != NULL) weir__pb__done__free_unpacked(made[k], NULL);
    }
}

/* Keeps the spec of the row at hand for the job's next leases. NULL: it cannot be read. */
static const struct kept_spec *keep_spec(struct weir_broker *broker, const struct weir_ledger_job *job)
{
    struct kept_spec *kept = &broker->specs[broker->spec_next];
    struct weir_plan plan;
    Weir__Pb__JobSpec *spec = weir__pb__job_spec__unpack(NULL, job->spec.count, job->spec.bytes);
    if (spec == NULL) return NULL;
    if (weir_plan_make(spec, &plan, NULL) != WEIR_OK) { /* it was planned at admission by the same rules */
        weir__pb__job_spec__free_unpacked(spec, NULL);
        return NULL;
    }
    if (kept->spec != NULL) weir__pb__job_spec__free_unpacked(kept->spec, NULL);
    *kept = (struct kept_spec){ job->id, spec, plan };
    broker->spec_next = (broker->spec_next + 1) % SPECS_KEPT_MAX;
    return kept;
}

static const struct kept_spec *find_spec(const struct weir_broker *broker, const struct weir_job_id *job)
{
    for (size_t k = 0; k < SPECS_KEPT_MAX; k++) {
        const struct kept_spec *kept = &broker->specs[k];
        if (kept->spec != NULL && weir_job_id_equal(&kept->job, job)) return kept;
    }
    return NULL;
}

static bool send_lease_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *inputs,
                           size_t input_count)
{
    struct lease_work *work = context;
    if (work->kept == NULL) work->kept = keep_spec(work->broker, job);
    if (work->kept != NULL) send_lease_with(work, job, inputs, input_count);
    return false;
}

/* Inputs are read from the ledger, where they are once; a row of the PRIMARY KEY costs some microseconds. A spec of 512
 * prompts costs hundreds, so the latest ones stay at hand. */
static enum weir_status send_lease(struct weir_broker *broker, uint64_t now_ms, const struct weir_action *action,
                                   struct weir_error *error)
{
    const struct weir_task_id *task = &action->u.send.task;
    struct lease_work work = { broker, action, now_ms, find_spec(broker, &task->job) };
    struct weir_ledger_query query = { .job = task->job, .ranged = true, .range = action->u.send.inputs };
    query.no_tasks = query.range.count == 0;
    query.no_spec = work.kept != NULL;
    return weir_ledger_replay(broker->ledger, &query, send_lease_row, &work, error);
}

static enum weir_status send_about_lease(struct weir_broker *broker, uint64_t now_ms, const struct weir_action *action,
                                         enum weir_lease_message message, struct weir_error *error)
{
    if (message == WEIR_SEND_LEASE) return send_lease(broker, now_ms, action, error);
    static const enum weir_message_type types[] = {
        [WEIR_SEND_LEASE] = WEIR_MESSAGE_LEASE,         [WEIR_SEND_LEASE_OK] = WEIR_MESSAGE_LEASE_OK,
        [WEIR_SEND_RENEW_ACK] = WEIR_MESSAGE_RENEW_ACK, [WEIR_SEND_DONE_ACK] = WEIR_MESSAGE_DONE_ACK,
        [WEIR_SEND_FAIL_ACK] = WEIR_MESSAGE_FAIL_ACK,   [WEIR_SEND_RELEASE_ACK] = WEIR_MESSAGE_RELEASE_ACK,
        [WEIR_SEND_CANCEL] = WEIR_MESSAGE_CANCEL,       [WEIR_SEND_STALE] = WEIR_MESSAGE_STALE,
    };
    const bool asked = action->type == WEIR_ACTION_ASK;
    const uint8_t *bytes = asked ? action->u.call.token : action->u.send.token;
    Weir__Pb__TaskId id = wire_task(asked ? &action->u.call.task : &action->u.send.task);
    const ProtobufCBinaryData token = { WEIR_TOKEN_BYTES, (uint8_t *)(uintptr_t)bytes };
    if (message == WEIR_SEND_RENEW_ACK) {
        Weir__Pb__RenewAck ack = WEIR__PB__RENEW_ACK__INIT;
        ack.task = &id;
        ack.has_token = ack.has_cancel = true;
        ack.token = token;
        ack.cancel = action->u.send.cancel;
        weir_broker_send_worker(broker, now_ms, action->worker, WEIR_MESSAGE_RENEW_ACK, &ack.base);
        return WEIR_OK;
    }
    /* All others have the same two fields. */
    union {
        ProtobufCMessage base;
        Weir__Pb__LeaseOk lease_ok;
        Weir__Pb__DoneAck done_ack;
        Weir__Pb__FailAck fail_ack;
        Weir__Pb__ReleaseAck release_ack;
        Weir__Pb__Cancel cancel;
        Weir__Pb__Stale stale;
    } body;
    switch (message) {
    case WEIR_SEND_LEASE_OK:
        weir__pb__lease_ok__init(&body.lease_ok);
        body.lease_ok.task = &id, body.lease_ok.has_token = true, body.lease_ok.token = token;
        break;
    case WEIR_SEND_DONE_ACK:
        weir__pb__done_ack__init(&body.done_ack);
        body.done_ack.task = &id, body.done_ack.has_token = true, body.done_ack.token = token;
        break;
    case WEIR_SEND_FAIL_ACK:
        weir__pb__fail_ack__init(&body.fail_ack);
        body.fail_ack.task = &id, body.fail_ack.has_token = true, body.fail_ack.token = token;
        break;
    case WEIR_SEND_RELEASE_ACK:
        weir__pb__release_ack__init(&body.release_ack);
        body.release_ack.task = &id, body.release_ack.has_token = true, body.release_ack.token = token;
        break;
    case WEIR_SEND_CANCEL:
        weir__pb__cancel__init(&body.cancel);
        body.cancel.task = &id, body.cancel.has_token = true, body.cancel.token = token;
        break;
    default:
        weir__pb__stale__init(&body.stale);
        body.stale.task = &id, body.stale.has_token = true, body.stale.token = token;
        break;
    }
    weir_broker_send_worker(broker, now_ms, action->worker, types[message], &body.base);
    return WEIR_OK;
}

static void welcome(struct weir_broker *broker, uint64_t now_ms, uint32_t slot)
{
    Weir__Pb__Welcome body = WEIR__PB__WELCOME__INIT;
    body.has_protocol = body.has_epoch = body.has_heartbeat_ms = body.has_lease_ms = body.has_renew_ms = true;
    body.protocol = WEIR_WIRE_VERSION;
    body.epoch = broker->epoch;
    body.heartbeat_ms = (uint32_t)broker->options.sched.heartbeat_ms;
    body.lease_ms = (uint32_t)broker->options.sched.lease_ms;
    body.renew_ms = (uint32_t)broker->options.sched.renew_ms;
    weir_broker_send_worker(broker, now_ms, slot, WEIR_MESSAGE_WELCOME, &body.base);
}

static void log_note(const struct weir_broker *broker, const struct weir_note *note)
{
    if (note->progress) return;
    char job[WEIR_ID_HEX_BYTES];
    weir_job_id_text(&note->job, job);
    if (note->about_task) {
        weir_log(broker->options.log, WEIR_LOG_DEBUG, "task job=%s task=%s/%u state=%s attempt=%u", job,
                 weir_stage_name(note->stage), note->index, weir_task_state_name(note->task_state), note->attempt);
    } else {
        weir_log(broker->options.log, WEIR_LOG_INFO, "job job=%s state=%s done=%u/%u", job,
                 weir_job_state_name(note->job_state), note->tasks_done, note->tasks);
    }
}

static enum weir_status perform_one(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms,
                                    const struct weir_action *action, struct weir_error *error)
{
    switch (action->type) {
    case WEIR_ACTION_LEDGER:
        break;
    case WEIR_ACTION_ASK: {
        const bool repeated = action->u.call.reply == WEIR_LEDGER_REPEATED;
        return send_about_lease(broker, now_ms, action, repeated ? WEIR_SEND_DONE_ACK : WEIR_SEND_STALE, error);
    }
    case WEIR_ACTION_SEND:
        return send_about_lease(broker, now_ms, action, action->u.send.message, error);
    case WEIR_ACTION_WELCOME:
        welcome(broker, now_ms, action->worker);
        break;
    case WEIR_ACTION_PING: {
        Weir__Pb__Ping body = WEIR__PB__PING__INIT;
        weir_broker_send_worker(broker, now_ms, action->worker, WEIR_MESSAGE_PING, &body.base);
        break;
    }
    case WEIR_ACTION_PROBE: {
        bool known = false;
        struct weir_event event = { .type = WEIR_EVENT_PROBED, .now_wall_ms = wall_ms, .task = action->u.probe.task };
        memcpy(event.token, action->u.probe.token, sizeof event.token);
        event.u.checkpoint_step =
            weir_broker_newest_checkpoint(broker, action->u.probe.tenant, &action->u.probe.task, &known);
        if (known) handle(broker, now_ms, &event); /* else sched asks again */
        break;
    }
    case WEIR_ACTION_NOTE:
        log_note(broker, &action->u.note);
        weir_broker_note(broker, now_ms, &action->u.note);
        break;
    case WEIR_ACTION_SWEEP:
        weir_broker_sweep_later(broker, now_ms, &action->u.sweep.job, action->u.sweep.tenant);
        break;
    case WEIR_ACTION_FORGET: {
        char prefix[WEIR_KEY_BYTES];
        weir_key_checkpoints(action->u.probe.tenant, &action->u.probe.task, prefix);
        broker->options.port.remove(broker->options.port.context, prefix, NULL);
        break;
    }
    }
    return WEIR_OK;
}

/* Whether sending it claims that the ledger has something. */
static bool sabotaged_early(const struct weir_action *action)
{
    if (action->type != WEIR_ACTION_SEND) return false;
    return (WEIR_SABOTAGE(LEASE_BEFORE_PERSIST) && action->u.send.message == WEIR_SEND_LEASE) ||
           (WEIR_SABOTAGE(ACK_BEFORE_COMMIT) && action->u.send.message == WEIR_SEND_DONE_ACK);
}

static enum weir_status perform(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, struct weir_error *error)
{
    struct weir_actions *actions = broker->actions;
    enum weir_status status = WEIR_OK;

    broker->actions = broker->performing; /* what performing causes is collected there, for the next pass */
    broker->performing = actions;
    for (size_t k = 0; k < actions->count; k++) {
        if (sabotaged_early(&actions->items[k])) perform_one(broker, now_ms, wall_ms, &actions->items[k], NULL);
    }
    WEIR_TRY(write_ledger(broker, error));
    for (size_t k = 0; k < actions->count; k++) {
        if (broker->actions->count + WEIR_ACTIONS_PER_EVENT > WEIR_ACTIONS_MAX) {
            /* Notices of lost workers and probes fill the other list. What is left is said again: sched asks again
             * for a probe, and a worker repeats what was not answered. */
            weir_log(broker->options.log, WEIR_LOG_WARN, "actions dropped count=%zu", actions->count - k);
            break;
        }
        if (sabotaged_early(&actions->items[k])) continue;
        WEIR_TRY(perform_one(broker, now_ms, wall_ms, &actions->items[k], error));
    }
    WEIR_TRY(weir_broker_submitted(broker, now_ms, error));
    weir_broker_answer_cancels(broker);
cleanup:
    actions->count = 0;
    broker->submission_count = 0;
    broker->submission_tasks = 0;
    broker->cancel_count = 0;
    return status;
}

enum weir_status weir_broker_flush(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, uint64_t *wait_ms,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint64_t wait = 0;

    for (int pass = 0; pass < PASSES_MAX; pass++) {
        if (broker->actions->count + WEIR_ACTIONS_PER_EVENT <= WEIR_ACTIONS_MAX) {
            wait = weir_sched_tick(broker->sched, now_ms, wall_ms, broker->actions);
        }
        if (broker->actions->count == 0 && broker->submission_count == 0 && broker->cancel_count == 0) break;
        wait = 0;
        WEIR_TRY(perform(broker, now_ms, wall_ms, error));
    }
    for (size_t k = 0; k < broker->late_ask_count; k++) weir_broker_late_ask(broker, now_ms, broker->late_asks[k]);
    const uint64_t admissions_ms = weir_broker_admissions_tick(broker, now_ms);
    const uint64_t watches_ms = weir_broker_watches_tick(broker, now_ms);
    WEIR_TRY(weir_broker_sweeps_tick(broker, now_ms, error));
    if (broker->actions->count > 0) wait = 0;
    if (admissions_ms < wait) wait = admissions_ms;
    if (watches_ms < wait) wait = watches_ms;
    if (wait_ms != NULL) *wait_ms = wait;
cleanup:
    end_turn(broker);
    return status;
}

/* ---- what workers say ---- */

static struct weir_worker_facts facts_of(const Weir__Pb__Hello *hello)
{
    struct weir_worker_facts facts = {
        .pid = hello->pid, .stages = hello->stages, .slots = hello->slots, .memory_bytes = hello->memory_bytes
    };
    memcpy(facts.id, hello->worker.data, WEIR_ID_BYTES);
    snprintf(facts.numerics_class, sizeof facts.numerics_class, "%s", hello->numerics_class);
    for (size_t k = 0; k < hello->n_models && k < WEIR_WORKER_MODELS_MAX; k++) {
        memcpy(facts.models[facts.model_count++], hello->models[k]->digest.data, WEIR_SHA256_BYTES);
    }
    return facts;
}

static struct weir_worker_credit credit_of(const Weir__Pb__Credit *said)
{
    struct weir_worker_credit credit = { .leases = said->leases };
    for (size_t k = 0; k < said->n_lanes && k < WEIR_COUNT(credit.lanes); k++) {
        credit.lanes[k].stages = said->lanes[k]->stages;
        credit.lanes[k].leases = said->lanes[k]->leases;
        credit.lane_count++;
    }
    return credit;
}

/* Takes the message's body: it is kept as what is known of the worker. */
static void take_hello(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, struct peer *peer,
                       struct weir_message *message)
{
    const Weir__Pb__Hello *hello = message->body.hello;
    struct weir_held_lease held[128];
    size_t held_count = 0;

    if (hello->protocol_min > WEIR_WIRE_VERSION || hello->protocol_max < WEIR_WIRE_VERSION) {
        Weir__Pb__Unsupported body = WEIR__PB__UNSUPPORTED__INIT;
        body.has_type = true;
        body.type = WEIR_MESSAGE_HELLO;
        weir_broker_send(broker, WEIR_SIDE_WORKERS, &peer->routing, WEIR_MESSAGE_UNSUPPORTED, &body.base);
        return;
    }
    for (size_t k = 0; k < hello->n_held && k < WEIR_COUNT(held); k++) {
        if (!weir_task_id_read(hello->held[k]->task, &held[held_count].task)) continue;
        memcpy(held[held_count++].token, hello->held[k]->token.data, WEIR_TOKEN_BYTES);
    }
    const struct weir_worker_facts facts = facts_of(hello);
    const struct weir_worker *known = weir_roster_find(weir_sched_roster(broker->sched), facts.id);
    const struct weir_event event = {
        .type = WEIR_EVENT_HELLO,
        .now_wall_ms = wall_ms,
        .u.hello = { &facts, known == NULL || peer->slot != known->slot, held, held_count },
    };
    const uint32_t slot = handle(broker, now_ms, &event);
    if (slot == WEIR_ROSTER_NONE) {
        weir_log(broker->options.log, WEIR_LOG_WARN, "worker refused pid=%llu reason=roster-full",
                 (unsigned long long)facts.pid);
        return;
    }
    if (broker->worker_peers[slot] != NULL) broker->worker_peers[slot]->slot = WEIR_ROSTER_NONE;
    if (peer->slot != WEIR_ROSTER_NONE) broker->worker_peers[peer->slot] = NULL;
    peer->slot = slot;
    broker->worker_peers[slot] = peer;
    weir_log(broker->options.log, WEIR_LOG_INFO, "worker known slot=%u pid=%llu device=%s stages=%u slots=%u held=%zu",
             slot, (unsigned long long)facts.pid, hello->device != NULL ? hello->device : "?", facts.stages,
             facts.slots, held_count);
    weir_message_release(&broker->hellos[slot]);
    broker->hellos[slot] = *message;
    message->arena = NULL;
    message->body.base = NULL;
}

static bool read_lease(const Weir__Pb__TaskId *task, const ProtobufCBinaryData *token, struct weir_event *event)
{
    memcpy(event->token, token->data, WEIR_TOKEN_BYTES);
    return weir_task_id_read(task, &event->task);
}

/* The bytes that a DONE names must lie where its task's bytes lie. OK, NOT_FOUND in words, or the store's own
 * trouble. */
static enum weir_status check_artefacts(struct weir_broker *broker, const char *tenant, const struct weir_task_id *task,
                                        const Weir__Pb__Done *done, struct weir_error *error)
{
    const struct weir_broker_port *port = &broker->options.port;
    if (done->n_artefacts == 0) return weir_fail(error, WEIR_NOT_FOUND, "the result names no artefact");
    for (size_t k = 0; k < done->n_artefacts; k++) {
        const Weir__Pb__Artefact *artefact = done->artefacts[k];
        char key[WEIR_KEY_BYTES];
        uint64_t bytes = 0;
        weir_key_artefact(tenant, task, artefact->digest.data, key);
        if (strcmp(key, artefact->key) != 0) {
            return weir_fail(error, WEIR_NOT_FOUND, "artefact %s has the key %s, not %s", artefact->name, artefact->key,
                             key);
        }
        const enum weir_status status = port->stat(port->context, key, &bytes, error);
        if (status == WEIR_NOT_FOUND)
            return weir_fail(error, status, "artefact %s is not in the store: %s", artefact->name, key);
        if (status != WEIR_OK) return status;
        if (bytes != artefact->bytes) {
            return weir_fail(error, WEIR_NOT_FOUND, "artefact %s has %llu bytes in the store, not %llu: %s",
                             artefact->name, (unsigned long long)bytes, (unsigned long long)artefact->bytes, key);
        }
    }
    return WEIR_OK;
}

static void take_done(struct weir_broker *broker, uint64_t now_ms, struct weir_event *event, const Weir__Pb__Done *done)
{
    struct weir_error error = { 0 };
    event->type = WEIR_EVENT_DONE;
    const char *tenant = weir_sched_holds(broker->sched, &event->task, event->token);
    if (tenant != NULL) {
        const enum weir_status status = check_artefacts(broker, tenant, &event->task, done, &error);
        if (status == WEIR_NOT_FOUND) {
            weir_log(broker->options.log, WEIR_LOG_WARN, "result refused reason=\"%s\"", error.words);
            char *words = weir_broker_scratch(broker, sizeof error.words);
            if (words == NULL) return;
            memcpy(words, error.words, sizeof error.words);
            event->type = WEIR_EVENT_FAIL;
            event->u.fail.status = WEIR_STORE;
            event->u.fail.words = words;
            event->u.fail.refused = true;
            handle(broker, now_ms, event);
            return;
        }
        if (status != WEIR_OK) { /* the worker says it again */
            weir_log(broker->options.log, WEIR_LOG_WARN, "store failed reason=\"%s\"", error.words);
            return;
        }
    }
    Weir__Pb__Done made = WEIR__PB__DONE__INIT; /* artefacts alone: such messages join by joining their bytes */
    made.n_artefacts = done->n_artefacts;
    made.artefacts = done->artefacts;
    event->u.done.artefacts = weir_broker_pack(broker, &made.base);
    if (event->u.done.artefacts.bytes == NULL) return;
    if (done->facts != NULL) {
        event->u.done.facts = weir_broker_pack(broker, &done->facts->base);
        event->u.done.milliseconds = done->facts->milliseconds;
    }
    handle(broker, now_ms, event);
}

static void take_fail(struct weir_broker *broker, uint64_t now_ms, struct weir_event *event, const Weir__Pb__Fail *fail)
{
    struct weir_task_id input;
    event->type = WEIR_EVENT_FAIL;
    event->u.fail.status = (enum weir_status)fail->status;
    event->u.fail.words = fail->words;
    event->u.fail.suspect = fail->device_suspect;
    if (fail->lost_input != NULL && weir_task_id_read(fail->lost_input, &input)) {
        event->u.fail.has_input = weir_job_id_equal(&input.job, &event->task.job);
        event->u.fail.input_stage = input.stage;
        event->u.fail.input_index = input.index;
    }
    handle(broker, now_ms, event);
}

static void take_from_worker(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, struct peer *peer,
                             struct weir_message *message)
{
    struct weir_event event = { .worker = peer->slot, .now_wall_ms = wall_ms };

    if (message->type == WEIR_MESSAGE_HELLO) {
        take_hello(broker, now_ms, wall_ms, peer, message);
        return;
    }
    const struct weir_worker *worker =
        peer->slot == WEIR_ROSTER_NONE ? NULL : weir_roster_at(weir_sched_roster(broker->sched), peer->slot);
    if (worker == NULL || !worker->connected) {
        if (message->type == WEIR_MESSAGE_BYE) return;
        Weir__Pb__Who body = WEIR__PB__WHO__INIT;
        weir_broker_send(broker, WEIR_SIDE_WORKERS, &peer->routing, WEIR_MESSAGE_WHO, &body.base);
        return;
    }
    weir_sched_heard(broker->sched, peer->slot, now_ms);
    switch (message->type) {
    case WEIR_MESSAGE_PING: {
        Weir__Pb__Pong body = WEIR__PB__PONG__INIT;
        body.has_number = message->body.ping->has_number;
        body.number = message->body.ping->number;
        weir_broker_send_worker(broker, now_ms, peer->slot, WEIR_MESSAGE_PONG, &body.base);
        break;
    }
    case WEIR_MESSAGE_CREDIT:
        event.type = WEIR_EVENT_CREDIT;
        event.u.credit = credit_of(message->body.credit);
        handle(broker, now_ms, &event);
        break;
    case WEIR_MESSAGE_RENEW:
        if (!read_lease(message->body.renew->task, &message->body.renew->token, &event)) break;
        event.type = WEIR_EVENT_RENEW;
        event.u.renew.step = message->body.renew->step;
        event.u.renew.steps = message->body.renew->steps;
        event.u.renew.running = message->body.renew->running;
        handle(broker, now_ms, &event);
        break;
    case WEIR_MESSAGE_DONE:
        if (read_lease(message->body.done->task, &message->body.done->token, &event)) {
            take_done(broker, now_ms, &event, message->body.done);
        }
        break;
    case WEIR_MESSAGE_FAIL:
        if (read_lease(message->body.fail->task, &message->body.fail->token, &event)) {
            take_fail(broker, now_ms, &event, message->body.fail);
        }
        break;
    case WEIR_MESSAGE_RELEASE:
        if (!read_lease(message->body.release->task, &message->body.release->token, &event)) break;
        event.type = WEIR_EVENT_RELEASE;
        handle(broker, now_ms, &event);
        break;
    case WEIR_MESSAGE_QUOTED:
        weir_broker_quoted(broker, now_ms, wall_ms, peer->slot, message->body.quoted);
        break;
    case WEIR_MESSAGE_BYE:
        event.type = WEIR_EVENT_BYE;
        handle(broker, now_ms, &event);
        break;
    default:
        break; /* PONG, UNSUPPORTED: to be heard was their purpose */
    }
}

/* ---- taking messages ---- */

enum weir_status weir_broker_take(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, enum weir_side side,
                                  struct weir_message *message, struct weir_error *error)
{
    if (broker->message_count == WEIR_TURN_MESSAGES_MAX || broker->submission_tasks >= WEIR_TURN_TASKS_MAX ||
        broker->actions->count + WEIR_ACTIONS_PER_EVENT > WEIR_ACTIONS_MAX) {
        const enum weir_status status = weir_broker_flush(broker, now_ms, wall_ms, NULL, error);
        if (status != WEIR_OK) {
            weir_message_release(message);
            return status;
        }
    }
    struct peer *peer = know_peer(broker, side, &message->from);
    if (peer == NULL || peer->malformed >= WEIR_MALFORMED_MAX ||
        broker->actions->count + WEIR_ACTIONS_PER_EVENT > WEIR_ACTIONS_MAX) {
        weir_message_release(message);
        return WEIR_OK;
    }
    struct weir_message *kept = &broker->messages[broker->message_count++];
    *kept = *message;
    message->arena = NULL;
    message->body.base = NULL;
    if (side == WEIR_SIDE_WORKERS)
        take_from_worker(broker, now_ms, wall_ms, peer, kept);
    else if (kept->type == WEIR_MESSAGE_SUBMIT)
        weir_broker_submit(broker, now_ms, kept);
    else
        weir_broker_client(broker, now_ms, wall_ms, kept);
    return WEIR_OK;
}

void weir_broker_take_malformed(struct weir_broker *broker, uint64_t now_ms, enum weir_side side,
                                const struct weir_routing *from, enum weir_status status, uint32_t type_seen,
                                const char *words)
{
    struct peer *peer = know_peer(broker, side, from);
    if (peer == NULL || peer->malformed >= WEIR_MALFORMED_MAX) return;
    if (status == WEIR_UNSUPPORTED) {
        Weir__Pb__Unsupported body = WEIR__PB__UNSUPPORTED__INIT;
        body.has_type = true;
        body.type = type_seen;
        weir_broker_send(broker, side, from, WEIR_MESSAGE_UNSUPPORTED, &body.base);
        if (peer->slot != WEIR_ROSTER_NONE) weir_sched_heard(broker->sched, peer->slot, now_ms);
        return;
    }
    peer->malformed++;
    weir_log(broker->options.log, WEIR_LOG_WARN, "malformed message side=%s count=%u reason=\"%s\"%s",
             side == WEIR_SIDE_WORKERS ? "workers" : "clients", peer->malformed, words,
             peer->malformed == WEIR_MALFORMED_MAX ? " now=ignored" : "");
}

/* ---- life ---- */

struct load_work {
    struct weir_broker *broker;
    uint64_t now_ms;
    struct weir_job_id last;
    size_t count;
    enum weir_status status;
    struct weir_error *error;
};

static bool load_row(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                     size_t task_count)
{
    struct load_work *work = context;
    struct weir_plan plan;
    work->last = job->id;
    work->count++;
    Weir__Pb__JobSpec *spec = weir__pb__job_spec__unpack(NULL, job->spec.count, job->spec.bytes);
    if (spec == NULL || spec->model_digest.len != WEIR_SHA256_BYTES) {
        work->status = weir_fail(work->error, WEIR_CONFLICT, "the ledger has a job whose spec cannot be read");
    } else {
        work->status = weir_plan_make(spec, &plan, work->error);
        if (work->status == WEIR_OK && job->plan_version != weir_plan_version(&plan)) {
            work->status = weir_fail(work->error, WEIR_CONFLICT,
                                     "the ledger has an open job of plan version %u; by its spec it has version %u",
                                     job->plan_version, weir_plan_version(&plan));
        }
        if (work->status == WEIR_OK) {
            work->status = weir_sched_load(work->broker->sched, work->now_ms, job, &plan, spec->model_digest.data,
                                           weir_broker_shape(spec), tasks, task_count, work->error);
        }
    }
    if (spec != NULL) weir__pb__job_spec__free_unpacked(spec, NULL);
    return work->status == WEIR_OK;
}

static enum weir_status load_open_jobs(struct weir_broker *broker, uint64_t now_ms, struct weir_error *error)
{
    struct load_work work = { .broker = broker, .now_ms = now_ms, .error = error };
    struct weir_ledger_page page = { .filter = WEIR_LEDGER_OPEN, .limit = 256 };
    enum weir_status status = WEIR_OK;
    size_t total = 0;

    do {
        work.count = 0;
        WEIR_TRY(weir_ledger_page_open(broker->ledger, &page, load_row, &work, error));
        WEIR_TRY(work.status);
        page.bounded = true;
        page.from = work.last;
        total += work.count;
    } while (work.count == page.limit);
    const struct weir_sched_counts counts = weir_sched_counts(broker->sched);
    weir_log(broker->options.log, WEIR_LOG_INFO, "ledger taken over epoch=%llu jobs=%zu tasks=%u leases=%u",
             (unsigned long long)broker->epoch, total, counts.tasks, counts.leases);
cleanup:
    return status;
}

enum weir_status weir_broker_create(const struct weir_broker_options *options, struct weir_ledger *ledger,
                                    uint64_t now_ms, uint64_t wall_ms, struct weir_broker **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_broker *broker = calloc(1, sizeof *broker);
    const uint32_t workers_max = options->sched.workers_max;

    (void)wall_ms;
    if (broker == NULL) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the broker");
    broker->options = *options;
    broker->ledger = ledger;
    broker->sweeps_missed = true; /* what ended before this start */
    broker->sweep_look_ms = now_ms;
    broker->actions = calloc(1, sizeof *broker->actions);
    broker->performing = calloc(1, sizeof *broker->performing);
    broker->messages = calloc(WEIR_TURN_MESSAGES_MAX, sizeof *broker->messages);
    broker->worker_peers = calloc(workers_max, sizeof(struct peer *));
    broker->hellos = calloc(workers_max, sizeof *broker->hellos);
    if (broker->actions == NULL || broker->performing == NULL || broker->messages == NULL ||
        broker->worker_peers == NULL || broker->hellos == NULL) {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for the broker");
        goto cleanup;
    }
    WEIR_TRY(weir_sched_create(&options->sched, &broker->sched, error));
    WEIR_TRY(weir_ledger_takeover(ledger, &broker->epoch, error));
    WEIR_TRY(load_open_jobs(broker, now_ms, error));
    *out = broker;
    broker = NULL;
cleanup:
    weir_broker_destroy(&broker);
    return status;
}

void weir_broker_destroy(struct weir_broker **out)
{
    struct weir_broker *broker = *out;
    if (broker == NULL) return;
    end_turn(broker);
    for (size_t k = 0; k < SPECS_KEPT_MAX; k++) {
        if (broker->specs[k].spec != NULL) weir__pb__job_spec__free_unpacked(broker->specs[k].spec, NULL);
    }
    for (size_t k = 0; k < WEIR_ADMISSIONS_MAX; k++) weir_message_release(&broker->admissions[k].submit);
    for (uint32_t k = 0; broker->hellos != NULL && k < broker->options.sched.workers_max; k++) {
        weir_message_release(&broker->hellos[k]);
    }
    for (int side = 0; side < 2; side++) {
        struct peer *peer, *next;
        HASH_ITER(hh, broker->peers[side], peer, next)
        {
            HASH_DEL(broker->peers[side], peer);
            free(peer);
        }
    }
    weir_sched_destroy(&broker->sched);
    free(broker->hellos);
    free(broker->worker_peers);
    free(broker->messages);
    free(broker->performing);
    free(broker->actions);
    free(broker);
    *out = NULL;
}

void weir_broker_close_doors(struct weir_broker *broker)
{
    broker->closed = true;
}

struct weir_sched *weir_broker_sched(struct weir_broker *broker)
{
    return broker->sched;
}
