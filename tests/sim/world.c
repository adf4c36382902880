#include "tests/sim/world_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES ((size_t)64 << 20)
#define CHAOS_TICK 0
#define CHAOS_BROKER 1
#define CHAOS_WORKER 2

const uint8_t sim_model_digest[WEIR_SHA256_BYTES] = { 3, 1, 4, 1, 5 };

/* ---- chance and memory ---- */

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15u + b;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t sim_random(struct sim *sim)
{
    return sim_mix(++sim->random, 0);
}

uint32_t sim_below(struct sim *sim, uint32_t limit)
{
    return (uint32_t)(sim_random(sim) % limit);
}

bool sim_chance(struct sim *sim, enum sim_fault fault, uint32_t percent)
{
    return sim->faults[fault] && sim->now_ms < SIM_FAULTS_MS && sim_below(sim, 100) < percent;
}

void sim_fill(struct sim *sim, void *out, size_t count)
{
    for (size_t k = 0; k < count; k += 8) {
        const uint64_t value = sim_random(sim);
        memcpy((char *)out + k, &value, count - k < 8 ? count - k : 8);
    }
}

void sim_digest(uint64_t made, uint8_t out[WEIR_SHA256_BYTES])
{
    for (size_t k = 0; k < WEIR_SHA256_BYTES; k += 8) memcpy(out + k, &made, 8);
}

void *sim_memory(struct sim *sim, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    if (sim->memory_used + bytes > sim->memory_bytes) {
        fprintf(stderr, "seed %llu: the simulator's memory is spent\n", (unsigned long long)sim->seed);
        abort();
    }
    void *piece = sim->memory + sim->memory_used;
    sim->memory_used += bytes;
    memset(piece, 0, bytes);
    return piece;
}

void sim_trace(struct sim *sim, const char *format, ...)
{
    if (!sim->verbose) return;
    va_list list;
    va_start(list, format);
    printf("%7llu ", (unsigned long long)sim->now_ms);
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

/* ---- events: a binary heap by (time, order) ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void push(struct sim *sim, struct sim_event event)
{
    if (sim->event_count == sim->event_capacity) {
        sim->event_capacity = 2 * sim->event_capacity + 1024;
        sim->events = realloc(sim->events, sim->event_capacity * sizeof *sim->events);
        if (sim->events == NULL) abort();
    }
    event.order = ++sim->order;
    size_t at = sim->event_count++;
    while (at > 0 && earlier(&event, &sim->events[(at - 1) / 2])) {
        sim->events[at] = sim->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->events[at] = event;
}

static struct sim_event pop(struct sim *sim)
{
    const struct sim_event top = sim->events[0], last = sim->events[--sim->event_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= sim->event_count) break;
        if (child + 1 < sim->event_count && earlier(&sim->events[child + 1], &sim->events[child])) child++;
        if (!earlier(&sim->events[child], &last)) break;
        sim->events[at] = sim->events[child];
        at = child;
    }
    sim->events[at] = last;
    return top;
}

void sim_wake(struct sim *sim, enum event_kind kind, uint32_t target, uint32_t *stamp, uint64_t at_ms)
{
    ++*stamp;
    push(sim, (struct sim_event){ .at_ms = at_ms, .kind = kind, .target = target, .stamp = *stamp });
}

/* ---- the network ---- */

static uint32_t connection_of(const struct sim *sim, enum weir_side side, uint32_t peer)
{
    return side == WEIR_SIDE_WORKERS ? (sim->workers[peer].alive ? sim->workers[peer].connection : 0)
                                     : sim->clients[peer].connection;
}

/* Sends a packet off: perhaps lost, perhaps twice; in order unless this seed lets messages overtake each other. */
static void travel(struct sim *sim, struct packet *packet, enum event_kind kind, uint32_t peer)
{
    uint64_t *last_ms = kind == EVENT_TO_BROKER ? &sim->last_arrival_ms[packet->side][peer]
                                                : &sim->last_delivery_ms[packet->side][peer];
    sim->totals->messages++;
    if (sim_chance(sim, FAULT_DROP, sim->drop_percent)) {
        sim->totals->dropped++;
        return;
    }
    const int copies = sim_chance(sim, FAULT_DOUBLE, 5) ? 2 : 1;
    sim->totals->duplicates += copies == 2;
    for (int k = 0; k < copies; k++) {
        uint64_t at_ms = sim->now_ms + sim_below(sim, sim->latency_ms + 1);
        if (!(sim->faults[FAULT_OVERTAKE] && sim->now_ms < SIM_FAULTS_MS) && at_ms < *last_ms) at_ms = *last_ms;
        if (at_ms > *last_ms) *last_ms = at_ms;
        push(sim, (struct sim_event){ .at_ms = at_ms, .kind = kind, .target = peer, .packet = packet });
    }
}

void sim_say(struct sim *sim, enum weir_side side, uint32_t peer, enum weir_message_type type,
             const ProtobufCMessage *body)
{
    sim_trace(sim, "%s%u says %s", side == WEIR_SIDE_WORKERS ? "w" : "c", peer, weir_message_name(type));
    if (sim->broker == NULL) return; /* not connected */
    struct packet *packet = sim_memory(sim, sizeof *packet);
    packet->type = type;
    packet->side = side;
    packet->connection = connection_of(sim, side, peer);
    packet->body = body;
    travel(sim, packet, EVENT_TO_BROKER, peer);
}

static struct weir_routing routing_of(uint32_t connection)
{
    struct weir_routing routing = { .length = 5 };
    memcpy(routing.bytes + 1, &connection, sizeof connection);
    return routing;
}

/* Whom a routing id means now; false when that connection is gone. */
static bool find_connection(const struct sim *sim, enum weir_side side, const struct weir_routing *to, uint32_t *peer)
{
    uint32_t connection;
    memcpy(&connection, to->bytes + 1, sizeof connection);
    const uint32_t count = side == WEIR_SIDE_WORKERS ? sim->worker_count : sim->client_count;
    for (*peer = 0; *peer < count; ++*peer) {
        if (connection_of(sim, side, *peer) == connection) return true;
    }
    return false;
}

/* Whether the planned end of the broker is now: it is asked before and after each transaction and at each send. */
static bool broker_dies(void *context)
{
    struct sim *sim = context;
    if (sim->dies_after == 0 || --sim->dies_after > 0) return false;
    sim->check.dead = true;
    return true;
}

static void read_task(struct packet *packet, const Weir__Pb__TaskId *task, const ProtobufCBinaryData *token)
{
    weir_task_id_read(task, &packet->task);
    memcpy(packet->token, token->data, WEIR_TOKEN_BYTES);
}

static void read_lease(struct sim *sim, struct packet *packet, const Weir__Pb__Lease *lease)
{
    read_task(packet, lease->task, &lease->token);
    packet->attempt = lease->attempt;
    for (size_t k = 0; k < lease->n_inputs && k < SIM_INPUTS_MAX; k++) {
        const char *key = lease->inputs[k]->artefact->key;
        char *own = sim_memory(sim, strlen(key) + 1);
        strcpy(own, key);
        packet->input_keys[packet->inputs++] = own;
        if (k == 0) packet->input_stage = (enum weir_stage)lease->inputs[k]->from->stage;
        if (k == 0) packet->input_first = lease->inputs[k]->from->index;
    }
    check_lease_sent(&sim->check, &packet->task, packet->token);
}

static void read_job_view(struct sim *sim, struct packet *packet, const Weir__Pb__JobView *view)
{
    memcpy(packet->task.job.bytes, view->job.data, WEIR_ID_BYTES);
    packet->status = view->state;
    check_state_seen(&sim->check, &packet->task.job, (enum weir_job_state)view->state);
    if (view->state != WEIR_JOB_SUCCEEDED && view->state != WEIR_JOB_FAILED) return;
    uint64_t manifest = view->n_manifest + 1;
    for (size_t k = 0; k < view->n_manifest; k++) {
        uint64_t digest;
        memcpy(&digest, view->manifest[k]->digest.data, sizeof digest);
        manifest = sim_mix(manifest, digest);
        if (sim_find(sim, view->manifest[k]->key) == NULL) {
            check_fail(&sim->check, "a manifest names an object that is not in the store");
        }
    }
    check_manifest_seen(&sim->check, &packet->task.job, manifest, view->n_manifest);
    if (view->state == WEIR_JOB_FAILED && (view->cause == WEIR_OK || view->words == NULL || view->words[0] == 0)) {
        check_fail(&sim->check, "a job failed without a cause");
    }
}

/* Reads a message into a packet, and has it checked: what it claims must be written by now. */
static void read_body(struct sim *sim, struct packet *packet, const ProtobufCMessage *base)
{
    struct check *check = &sim->check;
    union {
        const ProtobufCMessage *base;
        const Weir__Pb__LeaseOk *task; /* LEASE_OK, DONE_ACK, FAIL_ACK, RELEASE_ACK, CANCEL, STALE are alike */
        const Weir__Pb__RenewAck *renew_ack;
        const Weir__Pb__Lease *lease;
        const Weir__Pb__Quote *quote;
        const Weir__Pb__Accepted *accepted;
        const Weir__Pb__Refused *refused;
        const Weir__Pb__JobView *job_view;
        const Weir__Pb__Event *event;
    } body = { base };
    switch (packet->type) {
    case WEIR_MESSAGE_LEASE:
        read_lease(sim, packet, body.lease);
        break;
    case WEIR_MESSAGE_LEASE_OK:
        check->seen[13]++;
        read_task(packet, body.task->task, &body.task->token);
        break;
    case WEIR_MESSAGE_DONE_ACK:
        read_task(packet, body.task->task, &body.task->token);
        check_done_ack_sent(check, &packet->task, packet->token);
        break;
    case WEIR_MESSAGE_FAIL_ACK:
    case WEIR_MESSAGE_RELEASE_ACK:
        read_task(packet, body.task->task, &body.task->token);
        check_ended_sent(check, &packet->task, packet->token);
        break;
    case WEIR_MESSAGE_CANCEL:
    case WEIR_MESSAGE_STALE:
        read_task(packet, body.task->task, &body.task->token);
        break;
    case WEIR_MESSAGE_RENEW_ACK:
        read_task(packet, body.renew_ack->task, &body.renew_ack->token);
        packet->cancel = body.renew_ack->cancel;
        check_renew_ack_sent(check, &packet->task, packet->token);
        break;
    case WEIR_MESSAGE_QUOTE:
        packet->number = (uint32_t)body.quote->number;
        packet->frames = body.quote->spec->frames;
        packet->items = body.quote->spec->n;
        packet->image = body.quote->spec->image;
        for (size_t k = 0; k < body.quote->spec->n_prompts; k++) {
            const char *text = body.quote->spec->prompts[k]->text;
            packet->prompts[packet->prompt_count++] = strcpy(sim_memory(sim, strlen(text) + 1), text);
        }
        break;
    case WEIR_MESSAGE_ACCEPTED:
        packet->number = (uint32_t)body.accepted->number;
        memcpy(packet->task.job.bytes, body.accepted->job.data, WEIR_ID_BYTES);
        if (packet->number == 1)
            check_accepted_sent(check, &packet->task.job);
        else
            check_cancel_answered(check, &packet->task.job);
        break;
    case WEIR_MESSAGE_REFUSED:
        packet->number = (uint32_t)body.refused->number;
        packet->status = body.refused->status;
        break;
    case WEIR_MESSAGE_JOB_VIEW:
        read_job_view(sim, packet, body.job_view);
        break;
    case WEIR_MESSAGE_EVENT:
        memcpy(packet->task.job.bytes, body.event->job.data, WEIR_ID_BYTES);
        packet->status = body.event->job_state;
        check_state_seen(check, &packet->task.job, (enum weir_job_state)body.event->job_state);
        break;
    default:
        break;
    }
}

static enum weir_status port_send(void *context, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, uint64_t sequence, const ProtobufCMessage *body)
{
    struct sim *sim = context;
    uint32_t peer;
    (void)sequence;
    if (sim->check.dead || broker_dies(sim)) return WEIR_OK; /* it thinks so, and is no more */
    if (!find_connection(sim, side, to, &peer)) return WEIR_UNAVAILABLE;
    struct packet *packet = sim_memory(sim, sizeof *packet);
    packet->type = type;
    packet->side = side;
    packet->connection = connection_of(sim, side, peer);
    read_body(sim, packet, body);
    sim_trace(sim, "broker says %s to %s%u %s/%u", weir_message_name(type), side == WEIR_SIDE_WORKERS ? "w" : "c", peer,
              weir_stage_name(packet->task.stage), packet->task.index);
    travel(sim, packet, EVENT_TO_PEER, peer);
    return WEIR_OK;
}

static void port_random(void *context, void *out, size_t count)
{
    sim_fill(context, out, count);
}

static struct weir_job_id port_job_id(void *context)
{
    struct sim *sim = context;
    struct weir_job_id id;
    const uint64_t high = sim->now_ms << 16 | ++sim->job_number;
    sim_fill(sim, id.bytes, sizeof id.bytes);
    for (int k = 0; k < 8; k++) id.bytes[k] = (uint8_t)(high >> (56 - 8 * k));
    return id;
}

/* ---- the broker's process ---- */

static uint64_t wall_ms(const struct sim *sim)
{
    return 1700000000000u + sim->now_ms;
}

static void bury_broker(struct sim *sim)
{
    weir_broker_destroy(&sim->broker);
    sim->dies_after = 0;
    sim->broker_stamp++;
    sim->totals->broker_kills++;
    sim_trace(sim, "broker killed");
    push(sim, (struct sim_event){
                  .at_ms = sim->now_ms + 50 + sim_below(sim, 2500), .kind = EVENT_CHAOS, .target = CHAOS_BROKER });
}

static void start_broker(struct sim *sim)
{
    struct weir_broker_options options = {
        .sched = weir_sched_options_default(true, false),
        .port = { sim, port_send, sim_stat, sim_list, sim_remove, port_job_id },
        .store = "sim",
        .build = "sim",
        .pid = 1,
        .sweep_after_ms = 2000,
    };
    struct weir_error error = { 0 };
    options.sched.heartbeat_ms = 300;
    options.sched.grace_ms = 800;
    options.sched.reassert_ms = 1200;
    options.sched.retry_ms = 300;
    options.sched.retry_ms_max = 2000;
    options.sched.jobs_max = CHECK_JOBS_MAX;
    options.sched.tasks_max = 4096;
    options.sched.workers_max = 16;
    options.sched.random = port_random;
    options.sched.random_context = sim;
    sim->check.dead = false;
    if (weir_broker_create(&options, &sim->check.base, sim->now_ms, wall_ms(sim), &sim->broker, &error) != WEIR_OK) {
        check_fail(&sim->check, "the broker does not start: %s", error.words);
        return;
    }
    /* Everybody connects anew. */
    for (uint32_t k = 0; k < sim->worker_count; k++) {
        if (sim->workers[k].alive) sim->workers[k].connection = ++sim->connections;
    }
    for (uint32_t k = 0; k < sim->client_count; k++) {
        sim->clients[k].connection = ++sim->connections;
        sim->clients[k].watched = false;
    }
    sim_trace(sim, "broker started");
    sim_wake(sim, EVENT_BROKER, 0, &sim->broker_stamp, sim->now_ms);
}

static void after_broker(struct sim *sim, enum weir_status status, const struct weir_error *error)
{
    if (sim->check.violated) return;
    if (sim->check.dead)
        bury_broker(sim);
    else if (status != WEIR_OK)
        check_fail(&sim->check, "the broker stopped: %s", error->words);
}

static void flush(struct sim *sim)
{
    struct weir_error error = { 0 };
    uint64_t wait_ms = 0;
    const enum weir_status status = weir_broker_flush(sim->broker, sim->now_ms, wall_ms(sim), &wait_ms, &error);
    after_broker(sim, status, &error);
    if (sim->broker != NULL) {
        sim_wake(sim, EVENT_BROKER, 0, &sim->broker_stamp, sim->now_ms + (wait_ms > 0 ? wait_ms : 1));
    }
}

static void deliver_to_broker(struct sim *sim, uint32_t peer, const struct packet *packet)
{
    if (sim->broker == NULL || connection_of(sim, packet->side, peer) != packet->connection) return;
    struct weir_message message = { .type = packet->type, .from = routing_of(packet->connection) };
    struct weir_error error = { 0 };
    message.body.base = packet->body;
    const enum weir_status status =
        weir_broker_take(sim->broker, sim->now_ms, wall_ms(sim), packet->side, &message, &error);
    after_broker(sim, status, &error);
    /* What comes in the same millisecond belongs to the same turn. */
    if (sim->broker != NULL) sim_wake(sim, EVENT_BROKER, 0, &sim->broker_stamp, sim->now_ms);
}

/* A broker that is stopped finds everything in its queues later, in order. True when the event was put off. */
static bool put_off(struct sim *sim, const struct sim_event *event)
{
    if (sim->broker == NULL || sim->broker_paused_until_ms <= sim->now_ms) return false;
    struct sim_event later = *event;
    later.at_ms = sim->broker_paused_until_ms;
    push(sim, later);
    return true;
}

static void deliver_to_peer(struct sim *sim, const struct sim_event *event)
{
    const struct packet *packet = event->packet;
    if (connection_of(sim, packet->side, event->target) != packet->connection) return;
    if (packet->side == WEIR_SIDE_CLIENTS) {
        sim_client_hear(sim, event->target, packet);
        return;
    }
    struct sim_worker *worker = &sim->workers[event->target];
    if (worker->paused_until_ms > sim->now_ms) { /* it lies in its queue */
        push(sim, (struct sim_event){ .at_ms = worker->paused_until_ms,
                                      .kind = EVENT_TO_PEER,
                                      .target = event->target,
                                      .packet = event->packet });
        return;
    }
    sim_worker_hear(sim, event->target, packet);
}

/* ---- chaos ---- */

static void kill_worker(struct sim *sim, uint32_t number)
{
    struct sim_worker *worker = &sim->workers[number];
    if (!worker->alive) return;
    sim_trace(sim, "w%u killed", number);
    sim->totals->kills++;
    worker->alive = false;
    memset(worker->held, 0, sizeof worker->held);
    push(sim, (struct sim_event){ .at_ms = sim->now_ms + 100 + sim_below(sim, 3000),
                                  .kind = EVENT_CHAOS,
                                  .target = CHAOS_WORKER + number });
}

/* Whether a manifest may name it: what the last stage of its job made. */
static bool is_result(const struct sim *sim, const char *key)
{
    if (strstr(key, "/assemble-") != NULL) return true;
    const char *id = strstr(key, "/j/"), *decoded = strstr(key, "/decode-");
    for (uint32_t k = 0; decoded != NULL && id != NULL && k < sim->check.job_count; k++) {
        char text[WEIR_ID_HEX_BYTES];
        weir_job_id_text(&sim->check.jobs[k].id, text);
        if (strncmp(id + 3, text, WEIR_ID_HEX_BYTES - 1) == 0) return sim->check.jobs[k].plan.is_image;
    }
    return false;
}

static void lose_output(struct sim *sim)
{
    if (sim->object_count == 0) return;
    struct sim_object *object = &sim->objects[sim_below(sim, (uint32_t)sim->object_count)];
    /* Not a result: one that was shown is kept by who runs the store. */
    if (object->made == 0 || is_result(sim, object->key)) return;
    object->gone = true;
    sim->totals->regressed++;
}

static void chaos(struct sim *sim)
{
    if (sim->now_ms >= SIM_FAULTS_MS) return;
    const uint32_t number = sim_below(sim, sim->worker_count);
    struct sim_worker *worker = &sim->workers[number];
    if (sim_chance(sim, FAULT_KILL, 12)) kill_worker(sim, number);
    if (sim_chance(sim, FAULT_PAUSE, 12) && worker->alive) {
        worker->paused_until_ms = sim->now_ms + 200 + sim_below(sim, 5000);
        sim->totals->pauses++;
        sim_wake(sim, EVENT_WORKER, number, &worker->stamp, worker->paused_until_ms);
        sim_trace(sim, "w%u paused", number);
    }
    if (sim_chance(sim, FAULT_RESET, 12) && worker->alive) {
        worker->connection = ++sim->connections;
        sim->totals->resets++;
        sim_trace(sim, "w%u connects anew", number);
    }
    if (sim_chance(sim, FAULT_LOSE_OUTPUT, 15)) lose_output(sim);
    if (sim_chance(sim, FAULT_BROKER, 10) && sim->broker != NULL && sim->dies_after == 0) {
        sim->dies_after = 1 + sim_below(sim, 40);
    }
    if (sim_chance(sim, FAULT_BROKER_PAUSE, 5)) {
        sim->broker_paused_until_ms = sim->now_ms + 200 + sim_below(sim, 4000);
        sim_trace(sim, "broker paused");
    }
    push(sim, (struct sim_event){ .at_ms = sim->now_ms + 50 + sim_below(sim, 200), .kind = EVENT_CHAOS });
}

static void handle(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case EVENT_TO_BROKER:
        if (!put_off(sim, event)) deliver_to_broker(sim, event->target, event->packet);
        break;
    case EVENT_TO_PEER:
        deliver_to_peer(sim, event);
        break;
    case EVENT_BROKER:
        if (sim->broker != NULL && event->stamp == sim->broker_stamp && !put_off(sim, event)) flush(sim);
        break;
    case EVENT_WORKER:
        if (event->stamp == sim->workers[event->target].stamp) sim_worker_wake(sim, event->target);
        break;
    case EVENT_CLIENT:
        if (event->stamp == sim->clients[event->target].stamp) sim_client_wake(sim, event->target);
        break;
    case EVENT_CHAOS:
        if (event->target == CHAOS_TICK)
            chaos(sim);
        else if (event->target == CHAOS_BROKER)
            start_broker(sim);
        else
            sim_worker_start(sim, event->target - CHAOS_WORKER);
        break;
    }
}

/* ---- one seed ---- */

static void set_up(struct sim *sim)
{
    for (int k = 0; k < FAULT_COUNT; k++) sim->faults[k] = sim_below(sim, 2) == 0;
    if (sim_below(sim, 8) == 0) { /* only the broker suffers */
        for (int k = 0; k < FAULT_COUNT; k++) sim->faults[k] &= k >= FAULT_CANCEL;
        sim->faults[FAULT_BROKER] = sim->faults[FAULT_BROKER_PAUSE] = sim->check.once = true;
    }
    sim->latency_ms = sim_below(sim, 3) == 0 ? 60 : sim_below(sim, 8);
    sim->drop_percent = 1 + sim_below(sim, 6);
    sim->worker_count = 2 + sim_below(sim, 3);
    sim->client_count = 2 + sim_below(sim, 4);
    const bool split = sim_below(sim, 3) == 0; /* each stage on workers of its own */
    const bool classes = sim_below(sim, 4) == 0;
    if (split && sim->worker_count < 3) sim->worker_count = 3;
    start_broker(sim);
    for (uint32_t k = 0; k < sim->worker_count; k++) {
        struct sim_worker *worker = &sim->workers[k];
        worker->slots = 1 + sim_below(sim, 2);
        worker->stages = !split   ? WEIR_STAGES_ALL
                         : k == 0 ? 1u << WEIR_STAGE_TEXT | 1u << WEIR_STAGE_ASSEMBLE
                         : k == 1 ? 1u << WEIR_STAGE_DENOISE
                                  : 1u << WEIR_STAGE_DECODE;
        worker->class_number = classes && !split ? k % SIM_CLASSES : 0;
        push(sim, (struct sim_event){ .at_ms = sim_below(sim, 500), .kind = EVENT_CHAOS, .target = CHAOS_WORKER + k });
    }
    for (uint32_t k = 0; k < sim->client_count; k++) sim_client_start(sim, k);
    push(sim, (struct sim_event){ .at_ms = 200, .kind = EVENT_CHAOS, .target = CHAOS_TICK });
}

static bool finished(const struct sim *sim)
{
    for (uint32_t k = 0; k < sim->client_count; k++) {
        if (!sim->clients[k].done) return false;
    }
    return sim->now_ms >= SIM_FAULTS_MS || sim->broker != NULL;
}

static void check_end(struct sim *sim)
{
    struct check *check = &sim->check;
    for (uint32_t k = 0; k < sim->client_count; k++) {
        if (!sim->clients[k].done)
            check_fail(check, "client %u's job was not finished when %d s had passed", k, SIM_END_MS / 1000);
    }
    for (size_t k = 0; k < check->job_count; k++) {
        const struct check_job *job = &check->jobs[k];
        if (job->accepted && !weir_job_state_terminal(job->state)) {
            check_fail(check, "an accepted job is still %s", weir_job_state_name(job->state));
        }
    }
    const bool innocent = !sim->faults[FAULT_KILL] && !sim->faults[FAULT_PAUSE] && !sim->faults[FAULT_RESET] &&
                          !sim->faults[FAULT_DROP] && !sim->faults[FAULT_BROKER_PAUSE];
    check_rows(check);
    if (innocent && check->charged > 0) check_fail(check, "a crash was charged although no worker crashed");
}

static void add_up(const struct sim *sim, struct sim_totals *totals)
{
    const struct check *check = &sim->check;
    totals->seeds++;
    totals->second_results += check->second_result;
    totals->jobs += check->job_count;
    for (size_t k = 0; k < check->job_count; k++) {
        const enum weir_job_state state = check->jobs[k].state;
        totals->succeeded += state == WEIR_JOB_SUCCEEDED;
        totals->failed += state == WEIR_JOB_FAILED;
        totals->partly += state == WEIR_JOB_FAILED && check_items_made(&check->jobs[k]) > 0;
        totals->lists += check->jobs[k].plan.each > 0;
        totals->cancelled += state == WEIR_JOB_CANCELLED;
        totals->expired += state == WEIR_JOB_EXPIRED;
        totals->lost += !weir_job_state_terminal(state);
    }
    for (int k = 1; k <= 13; k++) totals->seen[k] += check->seen[k];
}

const char *sim_run(uint64_t seed, enum sim_ledger kind, bool verbose, struct sim_totals *totals, char words[400])
{
    static struct sim *sim; /* its memory is used again by every seed */
    static char *memory;
    struct weir_ledger *ledger = NULL;
    struct weir_error error = { 0 };

    if (sim == NULL) {
        sim = calloc(1, sizeof *sim);
        memory = malloc(MEMORY_BYTES);
        if (sim == NULL || memory == NULL) abort();
    }
    struct sim_event *events = sim->events;
    const size_t event_capacity = sim->event_capacity;
    memset(sim, 0, offsetof(struct sim, objects));
    sim->object_count = 0;
    sim->memory_used = sim->job_number = 0;
    sim->memory = memory;
    sim->memory_bytes = MEMORY_BYTES;
    sim->events = events;
    sim->event_capacity = event_capacity;
    sim->seed = seed;
    sim->random = sim_mix(seed, 12345);
    sim->verbose = verbose;
    sim->totals = totals;
    const enum weir_status opened = kind == SIM_MEMORY ? weir_ledger_memory_open(&ledger, &error)
                                                       : weir_ledger_sqlite_open(":memory:", &ledger, &error);
    if (opened != WEIR_OK) {
        snprintf(words, 400, "%s", error.words);
        return words;
    }
    check_begin(&sim->check, ledger, broker_dies, sim);
    set_up(sim);
    while (!sim->check.violated && sim->event_count > 0 && !finished(sim) && sim->now_ms < SIM_END_MS) {
        const struct sim_event event = pop(sim);
        sim->now_ms = event.at_ms;
        handle(sim, &event);
    }
    if (!sim->check.violated) check_end(sim);
    add_up(sim, totals);
    sim_trace(sim, "end");
    weir_broker_destroy(&sim->broker);
    weir_ledger_close(&ledger);
    if (!sim->check.violated) return NULL;
    memcpy(words, sim->check.words, sizeof sim->check.words);
    return words;
}
