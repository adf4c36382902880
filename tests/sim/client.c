/* A pretend client: submits one job under one key until it is accepted, watches it, asks for it until it has ended, and
 * perhaps cancels it. It repeats itself whenever an answer is slow. */
#include "tests/sim/world_internal.h"

#include <stdio.h>
#include <string.h>

static ProtobufCBinaryData binary(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

void sim_client_start(struct sim *sim, uint32_t number)
{
    struct sim_client *client = &sim->clients[number];
    *client = (struct sim_client){ .connection = ++sim->connections,
                                   .submit_ms = sim_below(sim, 3000),
                                   .frames = 1 + sim_below(sim, 40),
                                   .items = 1 + sim_below(sim, 3),
                                   .image = sim_below(sim, 4) == 0 };
    if (client->image) client->frames = 1;
    if (sim_below(sim, 3) == 0) {
        client->items = 1 + sim_below(sim, 2);
        client->prompt_count = 1 + sim_below(sim, SIM_PROMPTS_MAX);
        for (uint32_t k = 1; k < client->prompt_count; k++) client->texts[k] = client->texts[k - 1] + sim_below(sim, 2);
    }
    client->cancels = sim->faults[FAULT_CANCEL] && sim_below(sim, 100) < 30;
    client->cancel_ms = client->submit_ms + sim_below(sim, 3000);
    if (sim->faults[FAULT_DEADLINE] && sim_below(sim, 100) < 20) client->deadline_ms = 500 + sim_below(sim, 4000);
    sim_wake(sim, EVENT_CLIENT, number, &client->stamp, client->submit_ms);
}

static void submit(struct sim *sim, uint32_t number)
{
    const struct sim_client *client = &sim->clients[number];
    struct body {
        Weir__Pb__Submit submit;
        Weir__Pb__JobSpec spec;
        Weir__Pb__Prompt prompts[SIM_PROMPTS_MAX], *list[SIM_PROMPTS_MAX];
        char key[32], prompt[32], texts[SIM_PROMPTS_MAX][32];
    } *body = sim_memory(sim, sizeof *body);
    weir__pb__submit__init(&body->submit);
    weir__pb__job_spec__init(&body->spec);
    snprintf(body->key, sizeof body->key, "key-%u", number);
    snprintf(body->prompt, sizeof body->prompt, "prompt %u", number);
    body->spec.model = (char *)(uintptr_t) "tiny";
    if (client->prompt_count == 0) body->spec.prompt = body->prompt;
    for (uint32_t k = 0; k < client->prompt_count; k++) {
        weir__pb__prompt__init(&body->prompts[k]);
        snprintf(body->texts[k], sizeof body->texts[k], "text %u", client->texts[k]);
        body->prompts[k].text = body->texts[k];
        body->list[k] = &body->prompts[k];
    }
    body->spec.n_prompts = client->prompt_count;
    body->spec.prompts = body->list;
    body->spec.has_frames = body->spec.has_n = true;
    body->spec.frames = client->frames;
    body->spec.n = client->items;
    body->spec.has_image = body->spec.image = client->image;
    body->submit.has_number = true;
    body->submit.number = 1;
    body->submit.idempotency_key = body->key;
    body->submit.spec = &body->spec;
    body->submit.has_deadline_ms = client->deadline_ms > 0;
    body->submit.deadline_ms = client->deadline_ms;
    body->submit.has_priority = true;
    body->submit.priority = (int32_t)(number % 3) - 1;
    sim_say(sim, WEIR_SIDE_CLIENTS, number, WEIR_MESSAGE_SUBMIT, &body->submit.base);
}

static void ask(struct sim *sim, uint32_t number, enum weir_message_type type)
{
    const struct sim_client *client = &sim->clients[number];
    union {
        Weir__Pb__Show show;
        Weir__Pb__Watch watch;
        Weir__Pb__CancelJob cancel;
    } *body = sim_memory(sim, sizeof *body);
    if (type == WEIR_MESSAGE_SHOW) {
        weir__pb__show__init(&body->show);
        body->show.has_number = body->show.has_job = true;
        body->show.number = 2;
        body->show.job = binary(client->job.bytes, WEIR_ID_BYTES);
    } else if (type == WEIR_MESSAGE_WATCH) {
        weir__pb__watch__init(&body->watch);
        body->watch.has_number = body->watch.has_job = true;
        body->watch.number = 3;
        body->watch.job = binary(client->job.bytes, WEIR_ID_BYTES);
    } else {
        weir__pb__cancel_job__init(&body->cancel);
        body->cancel.has_number = body->cancel.has_job = true;
        body->cancel.number = 4;
        body->cancel.job = binary(client->job.bytes, WEIR_ID_BYTES);
    }
    sim_say(sim, WEIR_SIDE_CLIENTS, number, type, (const ProtobufCMessage *)body);
}

void sim_client_wake(struct sim *sim, uint32_t number)
{
    struct sim_client *client = &sim->clients[number];
    uint64_t next_ms = sim->now_ms + 400 + sim_below(sim, 800);
    if (client->done) return;
    if (!client->accepted) {
        client->submitted = true;
        submit(sim, number);
        if (sim_chance(sim, FAULT_REPEAT, 30)) submit(sim, number);
    } else {
        if (!client->watched) ask(sim, number, WEIR_MESSAGE_WATCH);
        ask(sim, number, WEIR_MESSAGE_SHOW);
        if (client->cancels && !client->cancel_answered) {
            if (sim->now_ms >= client->cancel_ms)
                ask(sim, number, WEIR_MESSAGE_CANCEL_JOB);
            else if (client->cancel_ms < next_ms)
                next_ms = client->cancel_ms;
        }
    }
    sim_wake(sim, EVENT_CLIENT, number, &client->stamp, next_ms);
}

void sim_client_hear(struct sim *sim, uint32_t number, const struct packet *packet)
{
    struct sim_client *client = &sim->clients[number];
    switch (packet->type) {
    case WEIR_MESSAGE_ACCEPTED:
        if (packet->number == 1) {
            if (client->accepted && !weir_job_id_equal(&client->job, &packet->task.job)) {
                check_fail(&sim->check, "one key was answered with two jobs");
            }
            client->accepted = true;
            client->job = packet->task.job;
            sim_wake(sim, EVENT_CLIENT, number, &client->stamp, sim->now_ms + 1);
        } else {
            client->cancel_answered = true;
        }
        break;
    case WEIR_MESSAGE_REFUSED:
        if (packet->number == 1 && weir_status_retry((enum weir_status)packet->status) == WEIR_RETRY_NEVER) {
            check_fail(&sim->check, "a good submit was refused: %s",
                       weir_status_words((enum weir_status)packet->status));
        }
        if (packet->number == 4 && packet->status == WEIR_CONFLICT) client->cancel_answered = true;
        if (packet->number != 1 && packet->status == WEIR_NOT_FOUND)
            check_fail(&sim->check, "an accepted job is not known");
        break;
    case WEIR_MESSAGE_EVENT:
        client->watched = true;
        break;
    case WEIR_MESSAGE_JOB_VIEW:
        if (weir_job_state_terminal(packet->status)) client->done = true;
        break;
    default:
        break;
    }
}
