/* A pretend worker: does what PROTOCOL.md section 4 says, slowly and with faults. Its outputs are numbers that
 * follow from the task alone, so that an attempt that runs twice makes the same bytes. */
#include "tests/sim/world_internal.h"

#include <string.h>

#define RENEW_MS 500
#define HEARTBEAT_MS 300
#define HELLO_EVERY_MS 300

static ProtobufCBinaryData binary(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

static Weir__Pb__TaskId *wire_task(struct sim *sim, const struct weir_task_id *task)
{
    struct body {
        Weir__Pb__TaskId id;
        struct weir_job_id job;
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__task_id__init(&body->id);
    body->job = task->job;
    body->id.has_job = body->id.has_stage = body->id.has_index = true;
    body->id.job = binary(body->job.bytes, WEIR_ID_BYTES);
    body->id.stage = task->stage;
    body->id.index = task->index;
    return &body->id;
}

static ProtobufCBinaryData wire_token(struct sim *sim, const uint8_t *token)
{
    uint8_t *own = sim_memory(sim, WEIR_TOKEN_BYTES);
    memcpy(own, token, WEIR_TOKEN_BYTES);
    return binary(own, WEIR_TOKEN_BYTES);
}

static void say(struct sim *sim, uint32_t number, enum weir_message_type type, const ProtobufCMessage *body)
{
    sim->workers[number].said_ms = sim->now_ms;
    sim_say(sim, WEIR_SIDE_WORKERS, number, type, body);
}

static void plan_wake(struct sim *sim, uint32_t number)
{
    struct sim_worker *worker = &sim->workers[number];
    uint64_t at_ms = worker->said_ms + HEARTBEAT_MS;
    if (!worker->welcome && worker->hello_ms + HELLO_EVERY_MS < at_ms) at_ms = worker->hello_ms + HELLO_EVERY_MS;
    for (size_t k = 0; k < SIM_HELD_MAX; k++) {
        const struct held_lease *held = &worker->held[k];
        if (!held->used) continue;
        if (held->phase == HELD_RUNNING && held->next_ms < at_ms) at_ms = held->next_ms;
        if (held->phase >= HELD_FINISHED && held->resend_ms < at_ms) at_ms = held->resend_ms;
        if (held->renew_ms < at_ms) at_ms = held->renew_ms;
    }
    if (at_ms < worker->paused_until_ms) at_ms = worker->paused_until_ms;
    if (at_ms <= sim->now_ms) at_ms = sim->now_ms + 1;
    sim_wake(sim, EVENT_WORKER, number, &worker->stamp, at_ms);
}

/* ---- what it says ---- */

static void hello(struct sim *sim, uint32_t number)
{
    struct sim_worker *worker = &sim->workers[number];
    static const char *const classes[SIM_CLASSES] = { "sim/a", "sim/b" };
    struct body {
        Weir__Pb__Hello hello;
        Weir__Pb__ModelFacts model;
        Weir__Pb__ModelFacts *models[1];
        Weir__Pb__HeldLease held[SIM_HELD_MAX];
        Weir__Pb__HeldLease *held_list[SIM_HELD_MAX];
        uint8_t id[WEIR_ID_BYTES];
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__hello__init(&body->hello);
    weir__pb__model_facts__init(&body->model);
    memcpy(body->id, worker->id, WEIR_ID_BYTES);
    body->model.name = (char *)(uintptr_t) "tiny";
    body->model.has_digest = true;
    body->model.digest = binary(sim_model_digest, WEIR_SHA256_BYTES);
    body->model.pipeline = (char *)(uintptr_t) "p";
    body->models[0] = &body->model;
    body->hello.has_protocol_min = body->hello.has_protocol_max = body->hello.has_worker = true;
    body->hello.has_pid = body->hello.has_stages = body->hello.has_slots = true;
    body->hello.protocol_min = body->hello.protocol_max = WEIR_WIRE_VERSION;
    body->hello.worker = binary(body->id, WEIR_ID_BYTES);
    body->hello.pid = worker->pid;
    body->hello.numerics_class = (char *)(uintptr_t)classes[worker->class_number];
    body->hello.stages = worker->stages;
    body->hello.slots = worker->slots;
    body->hello.n_models = 1;
    body->hello.models = body->models;
    body->hello.held = body->held_list;
    for (size_t k = 0; k < SIM_HELD_MAX; k++) {
        const struct held_lease *held = &worker->held[k];
        if (!held->used) continue;
        Weir__Pb__HeldLease *said = &body->held[body->hello.n_held];
        weir__pb__held_lease__init(said);
        said->task = wire_task(sim, &held->task);
        said->has_token = true;
        said->token = wire_token(sim, held->token);
        body->held_list[body->hello.n_held++] = said;
    }
    worker->hello_ms = sim->now_ms;
    worker->welcome = false;
    say(sim, number, WEIR_MESSAGE_HELLO, &body->hello.base);
}

static uint32_t held_count(const struct sim_worker *worker)
{
    uint32_t count = 0;
    for (size_t k = 0; k < SIM_HELD_MAX; k++) count += worker->held[k].used;
    return count;
}

/* Every second worker says which stages its leases are for: denoise, and all others. */
static void credit(struct sim *sim, uint32_t number)
{
    const struct sim_worker *worker = &sim->workers[number];
    struct body {
        Weir__Pb__Credit credit;
        Weir__Pb__LaneCredit lanes[2];
        Weir__Pb__LaneCredit *list[2];
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__credit__init(&body->credit);
    body->credit.has_leases = true;
    const uint32_t held = held_count(worker);
    body->credit.leases = held < worker->slots + 1 ? worker->slots + 1 - held : 0;
    for (uint32_t k = 0; k < 2; k++) {
        weir__pb__lane_credit__init(&body->lanes[k]);
        body->lanes[k].has_stages = body->lanes[k].has_leases = true;
        body->lanes[k].stages = k == 0 ? 1u << WEIR_STAGE_DENOISE : WEIR_STAGES_ALL & ~(1u << WEIR_STAGE_DENOISE);
        body->lanes[k].leases = k == 0 ? body->credit.leases / 2 : body->credit.leases - body->credit.leases / 2;
        body->list[k] = &body->lanes[k];
    }
    body->credit.n_lanes = number % 2 == 1 ? 2 : 0;
    body->credit.lanes = body->list;
    say(sim, number, WEIR_MESSAGE_CREDIT, &body->credit.base);
}

static void renew(struct sim *sim, uint32_t number, struct held_lease *held)
{
    Weir__Pb__Renew *body = sim_memory(sim, sizeof *body);
    weir__pb__renew__init(body);
    body->task = wire_task(sim, &held->task);
    body->has_token = body->has_running = body->has_step = body->has_steps = true;
    body->token = wire_token(sim, held->token);
    body->running = held->phase != HELD_WAITING;
    body->step = held->step;
    body->steps = SIM_STEPS;
    held->renew_ms = sim->now_ms + RENEW_MS;
    say(sim, number, WEIR_MESSAGE_RENEW, &body->base);
}

static void done(struct sim *sim, uint32_t number, const struct held_lease *held, uint64_t made)
{
    struct body {
        Weir__Pb__Done done;
        Weir__Pb__Artefact artefact;
        Weir__Pb__Artefact *artefacts[1];
        Weir__Pb__TaskFacts facts;
        uint8_t digest[WEIR_SHA256_BYTES];
        char key[WEIR_KEY_BYTES];
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__done__init(&body->done);
    weir__pb__artefact__init(&body->artefact);
    weir__pb__task_facts__init(&body->facts);
    sim_digest(made, body->digest);
    weir_key_artefact("default", &held->task, body->digest, body->key);
    sim_put(sim, body->key, 1000 + made % 1000, made);
    body->artefact.name = (char *)(uintptr_t) "thing";
    body->artefact.has_digest = body->artefact.has_bytes = true;
    body->artefact.digest = binary(body->digest, WEIR_SHA256_BYTES);
    body->artefact.bytes = 1000 + made % 1000;
    body->artefact.media_type = (char *)(uintptr_t) "x";
    body->artefact.key = body->key;
    body->artefacts[0] = &body->artefact;
    body->facts.has_milliseconds = true;
    body->facts.milliseconds = 1 + made % 500;
    body->done.task = wire_task(sim, &held->task);
    body->done.has_token = true;
    body->done.token = wire_token(sim, held->token);
    body->done.n_artefacts = 1;
    body->done.artefacts = body->artefacts;
    body->done.facts = &body->facts;
    say(sim, number, WEIR_MESSAGE_DONE, &body->done.base);
}

static void fail_or_release(struct sim *sim, uint32_t number, const struct held_lease *held)
{
    if (held->phase == HELD_RELEASED) {
        Weir__Pb__Release *body = sim_memory(sim, sizeof *body);
        weir__pb__release__init(body);
        body->task = wire_task(sim, &held->task);
        body->has_token = true;
        body->token = wire_token(sim, held->token);
        say(sim, number, WEIR_MESSAGE_RELEASE, &body->base);
        return;
    }
    Weir__Pb__Fail *body = sim_memory(sim, sizeof *body);
    weir__pb__fail__init(body);
    body->task = wire_task(sim, &held->task);
    body->has_token = body->has_status = true;
    body->token = wire_token(sim, held->token);
    body->status = held->status;
    body->words = (char *)(uintptr_t) "pretended";
    if (held->lost_input) body->lost_input = wire_task(sim, &held->input);
    say(sim, number, WEIR_MESSAGE_FAIL, &body->base);
}

/* DONE, FAIL or RELEASE, until it is acknowledged. */
static void report(struct sim *sim, uint32_t number, struct held_lease *held)
{
    if (held->phase == HELD_FINISHED)
        done(sim, number, held, held->made);
    else
        fail_or_release(sim, number, held);
    held->resend_ms = sim->now_ms + held->resend_every_ms;
    if (held->resend_every_ms < 2400) held->resend_every_ms *= 2;
}

/* ---- what it does ---- */

static uint64_t output_of(const struct weir_task_id *task)
{
    uint64_t number;
    memcpy(&number, task->job.bytes + 8, sizeof number);
    return sim_mix(number, sim_mix((uint64_t)task->stage + 1, (uint64_t)task->index + 1)) | 1;
}

static void finish(struct sim *sim, uint32_t number, struct held_lease *held, enum held_phase phase)
{
    held->phase = phase;
    held->resend_every_ms = 300;
    held->made = output_of(&held->task);
    if (phase == HELD_FINISHED && sim_chance(sim, FAULT_OTHER_BYTES, 10)) {
        /* Says two different things under one token, in one order or the other: only the first may count. */
        const bool first = sim_below(sim, 2) == 0;
        if (first) report(sim, number, held);
        done(sim, number, held, sim_mix(held->made, 99) | 1);
        if (first) return;
    }
    report(sim, number, held);
}

static void begin(struct sim *sim, uint32_t number, struct held_lease *held)
{
    (void)number;
    held->phase = HELD_RUNNING;
    sim->totals->executions++;
    if (held->task.stage == WEIR_STAGE_DENOISE) {
        held->step = sim_newest_checkpoint(sim, &held->task);
        if (held->step > 0) sim->totals->resumed++;
    }
    check_attempt_begins(&sim->check, &held->task, held->token, held->step);
    held->next_ms = sim->now_ms + 10 + sim_below(sim, 90);
}

static bool inputs_there(struct sim *sim, struct held_lease *held)
{
    for (uint32_t k = 0; k < held->inputs && k < SIM_INPUTS_MAX; k++) {
        if (sim_find(sim, held->input_keys[k]) != NULL) continue;
        held->lost_input = true;
        held->input = (struct weir_task_id){ held->task.job, held->input_stage, held->input_first + k };
        return false;
    }
    return true;
}

/* A part of the work is done. */
static void advance(struct sim *sim, uint32_t number, struct held_lease *held)
{
    if (!inputs_there(sim, held)) {
        held->status = WEIR_INPUT_LOST;
        finish(sim, number, held, HELD_FAILED);
        return;
    }
    if (sim_chance(sim, FAULT_FAIL, 4)) {
        held->status = sim_below(sim, 6) == 0 ? WEIR_BAD_SHAPE : sim_below(sim, 2) == 0 ? WEIR_NO_MEMORY : WEIR_STORE;
        finish(sim, number, held, HELD_FAILED);
        return;
    }
    if (sim_chance(sim, FAULT_RELEASE, 4)) {
        finish(sim, number, held, HELD_RELEASED);
        return;
    }
    if (held->task.stage != WEIR_STAGE_DENOISE || held->step + SIM_CHECKPOINT_STEPS >= SIM_STEPS) {
        held->step = SIM_STEPS;
        finish(sim, number, held, HELD_FINISHED);
        return;
    }
    char key[WEIR_KEY_BYTES];
    held->step += SIM_CHECKPOINT_STEPS;
    weir_key_checkpoint("default", &held->task, held->step, key);
    sim_put(sim, key, 100, 0);
    check_checkpoint_written(&sim->check, &held->task, held->step);
    held->next_ms = sim->now_ms + 50 + sim_below(sim, 400);
}

void sim_worker_start(struct sim *sim, uint32_t number)
{
    struct sim_worker *worker = &sim->workers[number];
    const uint32_t stamp = worker->stamp, class_number = worker->class_number;
    const uint32_t slots = worker->slots, stages = worker->stages;
    *worker = (struct sim_worker){ .alive = true,
                                   .connection = ++sim->connections,
                                   .stamp = stamp,
                                   .slots = slots,
                                   .stages = stages,
                                   .class_number = class_number,
                                   .pid = 1000 + sim->connections };
    sim_fill(sim, worker->id, sizeof worker->id);
    hello(sim, number);
    plan_wake(sim, number);
}

void sim_worker_wake(struct sim *sim, uint32_t number)
{
    struct sim_worker *worker = &sim->workers[number];
    if (!worker->alive) return;
    if (!worker->welcome && sim->now_ms >= worker->hello_ms + HELLO_EVERY_MS) hello(sim, number);
    uint32_t running = 0;
    for (size_t k = 0; k < SIM_HELD_MAX; k++) {
        struct held_lease *held = &worker->held[k];
        if (!held->used) continue;
        if (held->phase == HELD_RUNNING && sim->now_ms >= held->next_ms) advance(sim, number, held);
        if (held->phase >= HELD_FINISHED && sim->now_ms >= held->resend_ms) report(sim, number, held);
        if (sim->now_ms >= held->renew_ms) renew(sim, number, held);
        running += held->phase == HELD_RUNNING;
    }
    for (size_t k = 0; k < SIM_HELD_MAX && running < worker->slots; k++) {
        struct held_lease *held = &worker->held[k];
        if (!held->used || held->phase != HELD_WAITING) continue;
        begin(sim, number, held);
        renew(sim, number, held);
        running++;
    }
    if (sim->now_ms >= worker->said_ms + HEARTBEAT_MS) {
        if (worker->welcome)
            credit(sim, number); /* as good a sign of life as a PING, and heals a lost one */
        else
            hello(sim, number);
    }
    plan_wake(sim, number);
}

/* ---- what it hears ---- */

static struct held_lease *find_held(struct sim_worker *worker, const uint8_t *token)
{
    for (size_t k = 0; k < SIM_HELD_MAX; k++) {
        struct held_lease *held = &worker->held[k];
        if (held->used && memcmp(held->token, token, WEIR_TOKEN_BYTES) == 0) return held;
    }
    return NULL;
}

static void hear_lease(struct sim *sim, uint32_t number, const struct packet *packet)
{
    struct sim_worker *worker = &sim->workers[number];
    if (find_held(worker, packet->token) != NULL) return; /* the network said it twice */
    for (size_t k = 0; k < SIM_HELD_MAX; k++) {
        struct held_lease *held = &worker->held[k];
        if (held->used) continue;
        *held = (struct held_lease){ .used = true,
                                     .task = packet->task,
                                     .attempt = packet->attempt,
                                     .renew_ms = sim->now_ms + RENEW_MS,
                                     .inputs = packet->inputs,
                                     .input_stage = packet->input_stage,
                                     .input_first = packet->input_first };
        memcpy(held->token, packet->token, WEIR_TOKEN_BYTES);
        memcpy(held->input_keys, packet->input_keys, sizeof held->input_keys);
        return;
    }
}

static void quoted(struct sim *sim, uint32_t number, const struct packet *packet)
{
    struct body {
        Weir__Pb__Quoted quoted;
        Weir__Pb__JobSpec spec;
        Weir__Pb__Prompt prompts[SIM_PROMPTS_MAX], *list[SIM_PROMPTS_MAX];
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__quoted__init(&body->quoted);
    weir__pb__job_spec__init(&body->spec);
    body->quoted.has_number = body->quoted.has_status = body->quoted.has_cost_ms = true;
    body->quoted.number = packet->number;
    body->quoted.cost_ms = 1000;
    body->quoted.spec = &body->spec;
    body->spec.has_spec_version = body->spec.has_model_digest = body->spec.has_width = body->spec.has_height = true;
    body->spec.has_frames = body->spec.has_steps = body->spec.has_n = true;
    body->spec.spec_version = 1;
    body->spec.model = (char *)(uintptr_t) "tiny";
    body->spec.model_digest = binary(sim_model_digest, WEIR_SHA256_BYTES);
    body->spec.width = packet->width;
    body->spec.height = 64;
    body->spec.bands = packet->image ? packet->width / 64 : 1; /* by the size alone, as a real one */
    body->spec.has_bands = body->spec.bands > 1;
    body->spec.steps = SIM_STEPS;
    body->spec.frames = packet->frames;
    body->spec.n = packet->items;
    body->spec.format = (char *)(uintptr_t)(packet->image ? "png" : "mp4");
    body->spec.has_image = body->spec.image = packet->image;
    for (uint32_t k = 0; k < packet->prompt_count; k++) {
        Weir__Pb__Prompt *prompt = body->list[k] = &body->prompts[k];
        weir__pb__prompt__init(prompt);
        prompt->text = (char *)(uintptr_t)packet->prompts[k];
        prompt->negative = (char *)(uintptr_t) "";
        prompt->has_width = prompt->has_height = prompt->has_steps = prompt->has_guidance = prompt->has_seed = true;
        prompt->width = packet->width;
        prompt->height = 64;
        prompt->steps = SIM_STEPS;
        prompt->guidance = 7;
    }
    body->spec.n_prompts = packet->prompt_count;
    body->spec.prompts = body->list;
    say(sim, number, WEIR_MESSAGE_QUOTED, &body->quoted.base);
}

void sim_worker_hear(struct sim *sim, uint32_t number, const struct packet *packet)
{
    struct sim_worker *worker = &sim->workers[number];
    struct held_lease *held = find_held(worker, packet->token);
    const uint32_t before = held_count(worker);
    switch (packet->type) {
    case WEIR_MESSAGE_WHO:
        if (sim->now_ms - worker->hello_ms >= 50 || worker->welcome) hello(sim, number);
        break;
    case WEIR_MESSAGE_WELCOME:
        worker->welcome = true;
        credit(sim, number);
        break;
    case WEIR_MESSAGE_LEASE:
        hear_lease(sim, number, packet);
        break;
    case WEIR_MESSAGE_CANCEL:
        if (held != NULL && held->phase <= HELD_RUNNING) finish(sim, number, held, HELD_RELEASED);
        break;
    case WEIR_MESSAGE_RENEW_ACK:
        if (held != NULL && packet->cancel && held->phase <= HELD_RUNNING) finish(sim, number, held, HELD_RELEASED);
        break;
    case WEIR_MESSAGE_STALE:
        sim->totals->stale++;
        if (held != NULL) held->used = false;
        break;
    case WEIR_MESSAGE_DONE_ACK:
    case WEIR_MESSAGE_FAIL_ACK:
    case WEIR_MESSAGE_RELEASE_ACK:
        if (held != NULL) held->used = false;
        break;
    case WEIR_MESSAGE_QUOTE:
        quoted(sim, number, packet);
        break;
    default:
        break;
    }
    if (held_count(worker) != before) {
        if (worker->welcome) credit(sim, number);
        sim_worker_wake(sim, number);
    } else {
        plan_wake(sim, number);
    }
}
