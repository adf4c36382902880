/* weir-broker as a program: real processes, real sockets, a real ledger; pretend workers and clients that speak the
 * wire protocol through proto/wire.h. Test timers: heartbeat 0.2 s, lease 2 s, reconnect grace 1 s. */
#include "broker/plan.h"
#include "proto/base/clock.h"
#include "proto/job.h"
#include "proto/wire.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define WAIT_MS 10000
#define PEERS_MAX 8
#define HELD_MAX 8

/* A pretend worker or client. Workers say PING while anybody waits. */
struct peer {
    bool used, worker;
    void *socket;
    uint64_t sequence;
    uint8_t id[WEIR_ID_BYTES];
    char endpoint[WEIR_ENDPOINT_BYTES];
    Weir__Pb__HeldLease held[HELD_MAX];
    size_t held_count;
};

struct world {
    char dir[64];
    pid_t broker;
    int broker_out;
    char workers[WEIR_ENDPOINT_BYTES], clients[WEIR_ENDPOINT_BYTES];
    void *zmq;
    struct weir_store *store;
    struct peer peers[PEERS_MAX];
    uint64_t pinged_ms;
};

/* A lease as the pretend worker keeps it. */
struct grant {
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
    uint32_t attempt;
    size_t inputs;
    uint32_t frame_first, frame_count;
};

static const uint8_t model_digest[WEIR_SHA256_BYTES] = { 7, 7, 7 };

/* ---- the broker ---- */

static pid_t spawn_broker(struct world *w, int *out)
{
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipe_fds[1], STDOUT_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        execl(WEIR_BIN_DIR "/weir-broker", "weir-broker", "--dir", w->dir, "--test-timers", "--log-level", "error",
              "--supervised", (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    *out = pipe_fds[0];
    return pid;
}

static void start_broker(struct world *w)
{
    char line[512] = { 0 };
    size_t used = 0;
    w->broker = spawn_broker(w, &w->broker_out);
    while (strchr(line, '\n') == NULL) {
        const ssize_t got = read(w->broker_out, line + used, sizeof line - 1 - used);
        assert_true(got > 0); /* it ended without a word */
        used += (size_t)got;
    }
    assert_int_equal(sscanf(line, "ready workers=%127s clients=%127s", w->workers, w->clients), 2);
}

static int wait_exit(pid_t pid)
{
    int state = 0;
    assert_int_equal(waitpid(pid, &state, 0), pid);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

static int stop_broker(struct world *w, int signal_number)
{
    kill(w->broker, signal_number);
    const int code = wait_exit(w->broker);
    close(w->broker_out);
    w->broker = 0;
    return code;
}

static struct world *begin(void)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    strcpy(w->dir, "/tmp/weir-broker-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->zmq = zmq_ctx_new();
    start_broker(w);
    char store[96];
    snprintf(store, sizeof store, "%s/store", w->dir);
    assert_int_equal(weir_store_open(store, &w->store, NULL), WEIR_OK);
    return w;
}

static void leave(struct peer *peer)
{
    if (peer->used) zmq_close(peer->socket);
    peer->used = false;
}

static void end(struct world *w)
{
    char command[128];
    for (size_t k = 0; k < PEERS_MAX; k++) leave(&w->peers[k]);
    if (w->broker != 0) assert_int_equal(stop_broker(w, SIGTERM), 0);
    zmq_ctx_term(w->zmq);
    weir_store_close(&w->store);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(w);
}

/* ---- talking ---- */

static struct peer *join(struct world *w, bool worker)
{
    for (size_t k = 0; k < PEERS_MAX; k++) {
        struct peer *peer = &w->peers[k];
        if (peer->used) continue;
        *peer = (struct peer){ .used = true, .worker = worker };
        weir_random_bytes(peer->id, sizeof peer->id);
        strcpy(peer->endpoint, worker ? w->workers : w->clients);
        assert_int_equal(weir_wire_connect(w->zmq, peer->endpoint, WEIR_SOCKET_CONTROL, false, &peer->socket, NULL),
                         WEIR_OK);
        return peer;
    }
    fail_msg("too many peers");
    return NULL;
}

/* IMMEDIATE sockets refuse until they are connected: try until then. */
static void say(struct peer *peer, enum weir_message_type type, const void *body)
{
    const uint64_t until_ms = weir_clock_now_ms() + WAIT_MS;
    while (weir_wire_send(peer->socket, NULL, type, ++peer->sequence, body, NULL) != WEIR_OK) {
        assert_true(weir_clock_now_ms() < until_ms);
        poll(NULL, 0, 5);
    }
}

static void keep_alive(struct world *w)
{
    const uint64_t now_ms = weir_clock_now_ms();
    if (now_ms - w->pinged_ms < 100) return;
    w->pinged_ms = now_ms;
    for (size_t k = 0; k < PEERS_MAX; k++) {
        struct peer *peer = &w->peers[k];
        const Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
        if (peer->used && peer->worker) {
            weir_wire_send(peer->socket, NULL, WEIR_MESSAGE_PING, ++peer->sequence, &ping.base, NULL);
        }
    }
}

/* The next message of this type within ms; others are read away. False when none came. */
static bool hear_within(struct world *w, struct peer *peer, enum weir_message_type type, struct weir_message *out,
                        uint64_t ms)
{
    const uint64_t until_ms = weir_clock_now_ms() + ms;
    while (weir_clock_now_ms() < until_ms) {
        uint32_t seen = 0;
        struct weir_error error = { 0 };
        zmq_pollitem_t item = { .socket = peer->socket, .events = ZMQ_POLLIN };
        keep_alive(w);
        zmq_poll(&item, 1, 20);
        const enum weir_status status = weir_wire_receive(
            peer->socket, false, peer->worker ? WEIR_DIRECTION_B : WEIR_DIRECTION_A, out, &seen, &error);
        if (status == WEIR_TIMEOUT) continue;
        if (status != WEIR_OK) fail_msg("%s", error.words);
        if (out->type == type) return true;
        weir_message_release(out);
    }
    return false;
}

static struct weir_message hear(struct world *w, struct peer *peer, enum weir_message_type type)
{
    struct weir_message message;
    if (!hear_within(w, peer, type, &message, WAIT_MS)) fail_msg("no %s came", weir_message_name(type));
    return message;
}

static void see(struct world *w, struct peer *peer, enum weir_message_type type)
{
    struct weir_message message = hear(w, peer, type);
    weir_message_release(&message);
}

static ProtobufCBinaryData bytes_of(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

/* ---- pretend workers ---- */

static void hello(struct peer *peer, const char *model)
{
    Weir__Pb__ModelFacts facts = WEIR__PB__MODEL_FACTS__INIT;
    Weir__Pb__ModelFacts *list[] = { &facts };
    Weir__Pb__HeldLease *held[HELD_MAX];
    Weir__Pb__Hello body = WEIR__PB__HELLO__INIT;
    facts.name = (char *)(uintptr_t)model;
    facts.has_digest = true;
    facts.digest = bytes_of(model_digest, sizeof model_digest);
    facts.pipeline = (char *)(uintptr_t) "TextToVideoSDPipeline";
    body.has_protocol_min = body.has_protocol_max = body.has_worker = body.has_pid = body.has_stages = true;
    body.has_slots = true;
    body.protocol_min = body.protocol_max = 1;
    body.worker = bytes_of(peer->id, sizeof peer->id);
    body.pid = 4711;
    body.device = (char *)(uintptr_t) "pretend";
    body.numerics_class = (char *)(uintptr_t) "pretend/1";
    body.stages = WEIR_STAGES_ALL;
    body.slots = 1;
    body.n_models = 1;
    body.models = list;
    for (size_t k = 0; k < peer->held_count; k++) held[k] = &peer->held[k];
    body.n_held = peer->held_count;
    body.held = held;
    say(peer, WEIR_MESSAGE_HELLO, &body.base);
}

static void credit(struct peer *peer, uint32_t leases)
{
    Weir__Pb__Credit body = WEIR__PB__CREDIT__INIT;
    body.has_leases = true;
    body.leases = leases;
    say(peer, WEIR_MESSAGE_CREDIT, &body.base);
}

static struct peer *join_worker(struct world *w)
{
    struct peer *worker = join(w, true);
    hello(worker, "tiny");
    see(w, worker, WEIR_MESSAGE_WELCOME);
    credit(worker, 1);
    return worker;
}

static void quote(struct world *w, struct peer *worker, uint32_t frames, uint32_t n)
{
    struct weir_message message = hear(w, worker, WEIR_MESSAGE_QUOTE);
    const Weir__Pb__Quote *asked = message.body.quote;
    Weir__Pb__JobSpec spec = *asked->spec;
    Weir__Pb__Quoted body = WEIR__PB__QUOTED__INIT;
    spec.has_spec_version = spec.has_model_digest = spec.has_width = spec.has_height = spec.has_frames = true;
    spec.has_steps = spec.has_n = true;
    spec.spec_version = 1;
    spec.model_digest = bytes_of(model_digest, sizeof model_digest);
    spec.width = spec.height = 64;
    spec.frames = frames;
    spec.steps = 10;
    spec.n = n;
    spec.format = (char *)(uintptr_t) "mp4";
    body.has_number = body.has_status = body.has_cost_ms = true;
    body.number = asked->number;
    body.cost_ms = 1000;
    body.spec = &spec;
    say(worker, WEIR_MESSAGE_QUOTED, &body.base);
    weir_message_release(&message);
}

static struct grant read_grant(struct weir_message *message)
{
    const Weir__Pb__Lease *lease = message->body.lease;
    struct grant grant = { .attempt = lease->attempt,
                           .inputs = lease->n_inputs,
                           .frame_first = lease->frame_first,
                           .frame_count = lease->frame_count };
    assert_true(weir_task_id_read(lease->task, &grant.task));
    memcpy(grant.token, lease->token.data, sizeof grant.token);
    weir_message_release(message);
    return grant;
}

static struct grant see_lease(struct world *w, struct peer *worker)
{
    struct weir_message message = hear(w, worker, WEIR_MESSAGE_LEASE);
    return read_grant(&message);
}

static Weir__Pb__TaskId wire_id(const struct grant *grant)
{
    Weir__Pb__TaskId id = WEIR__PB__TASK_ID__INIT;
    id.has_job = id.has_stage = id.has_index = true;
    id.job = bytes_of(grant->task.job.bytes, WEIR_ID_BYTES);
    id.stage = grant->task.stage;
    id.index = grant->task.index;
    return id;
}

static void hold(struct peer *worker, const struct grant *grant, Weir__Pb__TaskId *id)
{
    *id = wire_id(grant);
    Weir__Pb__HeldLease *held = &worker->held[worker->held_count++];
    weir__pb__held_lease__init(held);
    held->task = id;
    held->has_token = true;
    held->token = bytes_of(grant->token, WEIR_TOKEN_BYTES);
}

/* DONE with one artefact of `text`; without `put` its bytes are not in the store. */
static void done(struct world *w, struct peer *worker, const struct grant *grant, const char *text, bool put)
{
    Weir__Pb__TaskId id = wire_id(grant);
    Weir__Pb__Artefact artefact = WEIR__PB__ARTEFACT__INIT;
    Weir__Pb__Artefact *list[] = { &artefact };
    Weir__Pb__TaskFacts facts = WEIR__PB__TASK_FACTS__INIT;
    Weir__Pb__Done body = WEIR__PB__DONE__INIT;
    uint8_t digest[WEIR_SHA256_BYTES];
    char key[WEIR_KEY_BYTES];
    weir_sha256_of(text, strlen(text), digest);
    weir_key_artefact("default", &grant->task, digest, key);
    if (put) assert_int_equal(weir_store_put(w->store, key, text, strlen(text), NULL), WEIR_OK);
    artefact.name = (char *)(uintptr_t) "thing";
    artefact.has_digest = artefact.has_bytes = true;
    artefact.digest = bytes_of(digest, sizeof digest);
    artefact.bytes = strlen(text);
    artefact.media_type = (char *)(uintptr_t) "text/plain";
    artefact.key = key;
    facts.has_milliseconds = facts.has_worker_pid = true;
    facts.milliseconds = 20;
    facts.worker_pid = 4711;
    body.task = &id;
    body.has_token = true;
    body.token = bytes_of(grant->token, WEIR_TOKEN_BYTES);
    body.n_artefacts = 1;
    body.artefacts = list;
    body.facts = &facts;
    say(worker, WEIR_MESSAGE_DONE, &body.base);
}

/* Takes the next lease, checks that it is this task, and does it. */
static void do_task(struct world *w, struct peer *worker, enum weir_stage stage, uint32_t index, size_t inputs,
                    const char *text)
{
    const struct grant grant = see_lease(w, worker);
    assert_int_equal(grant.task.stage, stage);
    assert_int_equal(grant.task.index, index);
    assert_int_equal(grant.inputs, inputs);
    done(w, worker, &grant, text, true);
    see(w, worker, WEIR_MESSAGE_DONE_ACK);
    credit(worker, 1);
}

/* ---- pretend clients ---- */

static void submit(struct peer *client, uint64_t number, const char *model, const char *prompt, const char *key)
{
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    Weir__Pb__Submit body = WEIR__PB__SUBMIT__INIT;
    spec.model = (char *)(uintptr_t)model;
    spec.prompt = (char *)(uintptr_t)prompt;
    body.has_number = true;
    body.number = number;
    body.spec = &spec;
    body.idempotency_key = (char *)(uintptr_t)key;
    say(client, WEIR_MESSAGE_SUBMIT, &body.base);
}

static struct weir_job_id see_accepted(struct world *w, struct peer *client, uint64_t number, bool existed)
{
    struct weir_message message = hear(w, client, WEIR_MESSAGE_ACCEPTED);
    struct weir_job_id id;
    assert_int_equal(message.body.accepted->number, number);
    assert_int_equal(message.body.accepted->existed, existed);
    memcpy(id.bytes, message.body.accepted->job.data, WEIR_ID_BYTES);
    weir_message_release(&message);
    return id;
}

static void see_refused(struct world *w, struct peer *client, uint64_t number, enum weir_status status,
                        const char *words)
{
    struct weir_message message = hear(w, client, WEIR_MESSAGE_REFUSED);
    assert_int_equal(message.body.refused->number, number);
    assert_int_equal(message.body.refused->status, status);
    if (strstr(message.body.refused->words, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", message.body.refused->words, words);
    }
    weir_message_release(&message);
}

static struct weir_message show(struct world *w, struct peer *client, const struct weir_job_id *job)
{
    Weir__Pb__Show body = WEIR__PB__SHOW__INIT;
    body.has_number = body.has_job = true;
    body.number = 77;
    body.job = bytes_of(job->bytes, WEIR_ID_BYTES);
    say(client, WEIR_MESSAGE_SHOW, &body.base);
    return hear(w, client, WEIR_MESSAGE_JOB_VIEW);
}

static void see_state(struct world *w, struct peer *client, const struct weir_job_id *job, enum weir_job_state state)
{
    const uint64_t until_ms = weir_clock_now_ms() + WAIT_MS;
    for (;;) {
        struct weir_message message = show(w, client, job);
        const uint32_t seen = message.body.job_view->state;
        weir_message_release(&message);
        if (seen == state) return;
        if (weir_clock_now_ms() > until_ms) {
            fail_msg("the job is %s, not %s", weir_job_state_name(seen), weir_job_state_name(state));
        }
        poll(NULL, 0, 20);
    }
}

static void cancel(struct peer *client, uint64_t number, const struct weir_job_id *job)
{
    Weir__Pb__CancelJob body = WEIR__PB__CANCEL_JOB__INIT;
    body.has_number = body.has_job = true;
    body.number = number;
    body.job = bytes_of(job->bytes, WEIR_ID_BYTES);
    say(client, WEIR_MESSAGE_CANCEL_JOB, &body.base);
}

static struct weir_job_id start_job(struct world *w, struct peer *client, struct peer *worker, uint32_t frames)
{
    submit(client, 1, "tiny", "a red circle", NULL);
    quote(w, worker, frames, 1);
    return see_accepted(w, client, 1, false);
}

/* ---- claims ---- */

static void a_job_goes_from_submit_to_manifest(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 20);

    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding");
    do_task(w, worker, WEIR_STAGE_DENOISE, 0, 1, "latents");
    do_task(w, worker, WEIR_STAGE_DECODE, 0, 1, "segment 0");
    do_task(w, worker, WEIR_STAGE_DECODE, 1, 1, "segment 1");
    do_task(w, worker, WEIR_STAGE_ASSEMBLE, 0, 2, "film");

    struct weir_message view = show(w, client, &job);
    const Weir__Pb__JobView *body = view.body.job_view;
    assert_int_equal(body->state, WEIR_JOB_SUCCEEDED);
    assert_int_equal(body->n_manifest, 1);
    assert_int_equal(body->manifest[0]->bytes, strlen("film"));
    assert_int_equal(body->n_tasks, 5);
    for (size_t k = 0; k < body->n_tasks; k++) {
        assert_int_equal(body->tasks[k]->state, WEIR_TASK_DONE);
        assert_int_equal(body->tasks[k]->attempt, 1);
        assert_int_equal(body->tasks[k]->facts->worker_pid, 4711);
    }
    weir_message_release(&view);
    end(w);
}

static void watchers_see_every_step_of_a_job(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 16);
    Weir__Pb__Watch body = WEIR__PB__WATCH__INIT;
    body.has_number = body.has_job = true;
    body.number = 5;
    body.job = bytes_of(job.bytes, WEIR_ID_BYTES);
    say(client, WEIR_MESSAGE_WATCH, &body.base);
    see(w, client, WEIR_MESSAGE_EVENT);

    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding");
    do_task(w, worker, WEIR_STAGE_DENOISE, 0, 1, "latents");
    do_task(w, worker, WEIR_STAGE_DECODE, 0, 1, "segment");
    do_task(w, worker, WEIR_STAGE_ASSEMBLE, 0, 1, "film");
    unsigned stages_done = 0;
    for (;;) {
        struct weir_message message = hear(w, client, WEIR_MESSAGE_EVENT);
        const Weir__Pb__Event *event = message.body.event;
        assert_int_equal(event->number, 5);
        if (event->has_stage && event->task_state == WEIR_TASK_DONE) stages_done |= 1u << event->stage;
        const bool last = event->job_state == WEIR_JOB_SUCCEEDED;
        weir_message_release(&message);
        if (last) break;
    }
    assert_int_equal(stages_done, WEIR_STAGES_ALL);
    end(w);
}

static void a_key_used_again_names_the_same_job(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    submit(client, 1, "tiny", "a star", "key-1");
    quote(w, worker, 16, 1);
    const struct weir_job_id job = see_accepted(w, client, 1, false);
    submit(client, 2, "tiny", "a star", "key-1");
    const struct weir_job_id again = see_accepted(w, client, 2, true);
    assert_true(weir_job_id_equal(&job, &again));
    submit(client, 3, "tiny", "another star", "key-1");
    see_refused(w, client, 3, WEIR_CONFLICT, "key-1");

    stop_broker(w, SIGKILL);
    start_broker(w);
    submit(client, 4, "tiny", "a star", "key-1");
    const struct weir_job_id later = see_accepted(w, client, 4, true);
    assert_true(weir_job_id_equal(&job, &later));
    end(w);
}

static void a_model_that_nobody_has_is_refused_with_those_that_are_served(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *client = join(w, false);
    submit(client, 1, "huge", "a star", NULL);
    see_refused(w, client, 1, WEIR_UNAVAILABLE, "served now: none");
    join_worker(w);
    submit(client, 2, "huge", "a star", NULL);
    see_refused(w, client, 2, WEIR_UNAVAILABLE, "served now: tiny");
    end(w);
}

static void a_worker_that_vanishes_before_its_quote_leaves_another_to_be_asked(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *first = join_worker(w), *client = join(w, false);
    submit(client, 1, "tiny", "a star", NULL);
    see(w, first, WEIR_MESSAGE_QUOTE);
    struct peer *second = join_worker(w);
    leave(first);
    quote(w, second, 16, 1);
    see_accepted(w, client, 1, false);
    end(w);
}

static void a_killed_broker_goes_on_with_the_job_and_asks_for_nothing_twice(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 16);
    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding");
    const struct grant running = see_lease(w, worker);
    assert_int_equal(running.task.stage, WEIR_STAGE_DENOISE);

    assert_int_equal(stop_broker(w, SIGKILL), 128 + SIGKILL);
    start_broker(w);
    see(w, worker, WEIR_MESSAGE_WHO);
    Weir__Pb__TaskId id;
    hold(worker, &running, &id);
    hello(worker, "tiny");
    see(w, worker, WEIR_MESSAGE_WELCOME);
    see(w, worker, WEIR_MESSAGE_LEASE_OK);
    credit(worker, 1);
    struct weir_message message;
    assert_false(hear_within(w, worker, WEIR_MESSAGE_LEASE, &message, 1500)); /* beyond the re-assert window */
    done(w, worker, &running, "latents", true);
    see(w, worker, WEIR_MESSAGE_DONE_ACK);
    credit(worker, 1);
    do_task(w, worker, WEIR_STAGE_DECODE, 0, 1, "segment");
    do_task(w, worker, WEIR_STAGE_ASSEMBLE, 0, 1, "film");
    message = show(w, client, &job);
    assert_int_equal(message.body.job_view->state, WEIR_JOB_SUCCEEDED);
    for (size_t k = 0; k < message.body.job_view->n_tasks; k++) {
        assert_int_equal(message.body.job_view->tasks[k]->attempt, 1);
    }
    weir_message_release(&message);
    end(w);
}

static void a_lease_that_nobody_reasserts_is_given_to_another(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    start_job(w, client, worker, 16);
    const struct grant lost = see_lease(w, worker);
    stop_broker(w, SIGKILL);
    leave(worker);
    start_broker(w);
    struct peer *other = join_worker(w);
    const struct grant again = see_lease(w, other);
    assert_true(weir_task_id_equal(&lost.task, &again.task));
    assert_int_equal(again.attempt, 2);
    assert_memory_not_equal(lost.token, again.token, WEIR_TOKEN_BYTES);
    end(w);
}

static void a_vanished_worker_loses_its_lease_and_its_late_result_is_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *first = join_worker(w), *client = join(w, false);
    start_job(w, client, first, 16);
    const struct grant lost = see_lease(w, first);
    struct peer *second = join_worker(w);
    leave(first);
    const struct grant again = see_lease(w, second);
    assert_true(weir_task_id_equal(&lost.task, &again.task));

    done(w, second, &lost, "from the old lease", true); /* whoever says it: the token is what counts */
    see(w, second, WEIR_MESSAGE_STALE);
    done(w, second, &again, "embedding", true);
    see(w, second, WEIR_MESSAGE_DONE_ACK);
    done(w, second, &again, "embedding", true);
    see(w, second, WEIR_MESSAGE_DONE_ACK);
    done(w, second, &again, "something else", true);
    see(w, second, WEIR_MESSAGE_STALE);
    end(w);
}

static void a_result_whose_bytes_are_not_in_the_store_is_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    start_job(w, client, worker, 16);
    const struct grant grant = see_lease(w, worker);
    done(w, worker, &grant, "only claimed", false);
    see(w, worker, WEIR_MESSAGE_STALE);
    credit(worker, 1);
    const struct grant again = see_lease(w, worker); /* after the back-off */
    assert_int_equal(again.task.stage, WEIR_STAGE_TEXT);
    assert_int_equal(again.attempt, 2);
    end(w);
}

static void after_a_cancel_no_result_becomes_visible(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 16);
    const struct grant grant = see_lease(w, worker);
    cancel(client, 9, &job);
    see_accepted(w, client, 9, true);
    see(w, worker, WEIR_MESSAGE_CANCEL);
    done(w, worker, &grant, "embedding", true);
    see(w, worker, WEIR_MESSAGE_STALE);
    see_state(w, client, &job, WEIR_JOB_CANCELLED);
    cancel(client, 10, &job);
    see_refused(w, client, 10, WEIR_CONFLICT, "cancelled");
    end(w);
}

static void a_permanent_failure_ends_the_job_with_its_cause(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 16);
    const struct grant grant = see_lease(w, worker);
    Weir__Pb__TaskId id = wire_id(&grant);
    Weir__Pb__Fail body = WEIR__PB__FAIL__INIT;
    body.task = &id;
    body.has_token = body.has_status = true;
    body.token = bytes_of(grant.token, WEIR_TOKEN_BYTES);
    body.status = WEIR_BAD_SHAPE;
    body.words = (char *)(uintptr_t) "a tensor of 3 dimensions";
    say(worker, WEIR_MESSAGE_FAIL, &body.base);
    see(w, worker, WEIR_MESSAGE_FAIL_ACK);
    struct weir_message view = show(w, client, &job);
    assert_int_equal(view.body.job_view->state, WEIR_JOB_FAILED);
    assert_int_equal(view.body.job_view->cause, WEIR_BAD_SHAPE);
    assert_non_null(strstr(view.body.job_view->words, "text/0: a tensor of 3 dimensions"));
    weir_message_release(&view);
    end(w);
}

/* Images of two prompts; the second cannot be made. */
static void a_list_keeps_what_was_made_when_one_item_is_lost(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    static char *const texts[] = { (char *)(uintptr_t) "a red circle", (char *)(uintptr_t) "a blue square" };
    Weir__Pb__Prompt prompts[2], *list[] = { &prompts[0], &prompts[1] };
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    Weir__Pb__Submit ask = WEIR__PB__SUBMIT__INIT;
    for (uint32_t k = 0; k < 2; k++) {
        weir__pb__prompt__init(&prompts[k]);
        prompts[k].text = texts[k];
        prompts[k].negative = (char *)(uintptr_t) "";
        prompts[k].has_width = prompts[k].has_height = prompts[k].has_steps = prompts[k].has_guidance = true;
        prompts[k].has_seed = true;
        prompts[k].width = prompts[k].height = 64;
        prompts[k].seed = 100 + k;
    }
    spec.model = (char *)(uintptr_t) "tiny";
    spec.n_prompts = 2;
    spec.prompts = list;
    spec.has_image = spec.image = true;
    ask.has_number = true;
    ask.number = 1;
    ask.spec = &spec;
    say(client, WEIR_MESSAGE_SUBMIT, &ask.base);
    quote(w, worker, 1, 1); /* what the wish has it keeps */
    const struct weir_job_id job = see_accepted(w, client, 1, false);

    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding 0");
    do_task(w, worker, WEIR_STAGE_DENOISE, 0, 1, "latents 0");
    do_task(w, worker, WEIR_STAGE_DECODE, 0, 1, "image 0");
    do_task(w, worker, WEIR_STAGE_TEXT, 1, 0, "embedding 1");
    struct weir_message message = hear(w, worker, WEIR_MESSAGE_LEASE);
    assert_int_equal(message.body.lease->item, 1);
    assert_int_equal(message.body.lease->spec->n_prompts, 0); /* its own prompt, and no list */
    assert_string_equal(message.body.lease->spec->prompt, texts[1]);
    assert_int_equal(message.body.lease->spec->seed, 101);
    const struct grant grant = read_grant(&message);
    Weir__Pb__TaskId id = wire_id(&grant);
    Weir__Pb__Fail fail = WEIR__PB__FAIL__INIT;
    fail.task = &id;
    fail.has_token = fail.has_status = true;
    fail.token = bytes_of(grant.token, WEIR_TOKEN_BYTES);
    fail.status = WEIR_BAD_SHAPE;
    fail.words = (char *)(uintptr_t) "it does not fit";
    say(worker, WEIR_MESSAGE_FAIL, &fail.base);
    see(w, worker, WEIR_MESSAGE_FAIL_ACK);
    see_state(w, client, &job, WEIR_JOB_FAILED);
    message = show(w, client, &job);
    const Weir__Pb__JobView *view = message.body.job_view;
    assert_string_equal(view->words, "1 of 2 items failed; the first, item 1: denoise/1: it does not fit");
    assert_int_equal(view->cause, WEIR_BAD_SHAPE);
    assert_int_equal(view->n_manifest, 1);
    assert_int_equal(view->manifest[0]->bytes, strlen("image 0"));
    assert_int_equal(view->spec->n_prompts, 2);
    weir_message_release(&message);
    done(w, worker, &grant, "latents 1", true);
    see(w, worker, WEIR_MESSAGE_STALE);
    end(w);
}

static void malformed_messages_hurt_nobody_else(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false), *vandal = join(w, true), *rude = join(w, false);
    uint8_t junk[64];
    hello(vandal, "tiny");
    see(w, vandal, WEIR_MESSAGE_WELCOME);
    for (int k = 0; k < 100; k++) {
        weir_random_bytes(junk, sizeof junk);
        zmq_send(vandal->socket, junk, 32, ZMQ_SNDMORE);
        zmq_send(vandal->socket, junk, sizeof junk, 0);
        zmq_send(rude->socket, "", 0, 0);
        zmq_send(rude->socket, "a", 1, ZMQ_SNDMORE);
        zmq_send(rude->socket, "b", 1, ZMQ_SNDMORE);
        zmq_send(rude->socket, "c", 1, 0);
    }
    submit(rude, 3, "tiny", "a star", NULL); /* ignored by now */
    const struct weir_job_id job = start_job(w, client, worker, 16);
    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding");
    see_state(w, client, &job, WEIR_JOB_RUNNING);
    struct weir_message message;
    assert_false(hear_within(w, rude, WEIR_MESSAGE_REFUSED, &message, 300));
    end(w);
}

static void status_and_list_tell_what_is_there(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    const struct weir_job_id job = start_job(w, client, worker, 16);
    Weir__Pb__Status ask = WEIR__PB__STATUS__INIT;
    ask.has_number = true;
    ask.number = 3;
    say(client, WEIR_MESSAGE_STATUS, &ask.base);
    struct weir_message message = hear(w, client, WEIR_MESSAGE_STATUS_VIEW);
    assert_int_equal(message.body.status_view->epoch, 1);
    assert_int_equal(message.body.status_view->jobs_open, 1);
    assert_int_equal(message.body.status_view->n_workers, 1);
    assert_string_equal(message.body.status_view->workers[0]->models[0]->name, "tiny");
    weir_message_release(&message);

    Weir__Pb__List list = WEIR__PB__LIST__INIT;
    list.has_number = true;
    list.number = 4;
    say(client, WEIR_MESSAGE_LIST, &list.base);
    message = hear(w, client, WEIR_MESSAGE_JOBS);
    assert_int_equal(message.body.jobs->n_jobs, 1);
    assert_memory_equal(message.body.jobs->jobs[0]->job.data, job.bytes, WEIR_ID_BYTES);
    assert_string_equal(message.body.jobs->jobs[0]->prompt, "a red circle");
    assert_int_equal(message.body.jobs->jobs[0]->tasks, 4);
    weir_message_release(&message);
    end(w);
}

/* Its disk is full: a limit on the size of files stands in. Nothing is answered that is not written. */
static void a_broker_that_cannot_write_stops_without_an_answer(void **state)
{
    (void)state;
    struct world *w = begin();
    struct peer *worker = join_worker(w), *client = join(w, false);
    submit(client, 1, "tiny", "a red circle", "key");
    const struct rlimit none = { 512, 512 };
    assert_int_equal(prlimit(w->broker, RLIMIT_FSIZE, &none, NULL), 0);
    quote(w, worker, 16, 1);
    assert_int_equal(wait_exit(w->broker), 75);
    close(w->broker_out);
    struct weir_message message;
    assert_false(hear_within(w, client, WEIR_MESSAGE_ACCEPTED, &message, 300));

    start_broker(w);
    see(w, worker, WEIR_MESSAGE_WHO);
    hello(worker, "tiny");
    see(w, worker, WEIR_MESSAGE_WELCOME);
    credit(worker, 1);
    submit(client, 2, "tiny", "a red circle", "key");
    quote(w, worker, 16, 1);
    see_accepted(w, client, 2, false);
    do_task(w, worker, WEIR_STAGE_TEXT, 0, 0, "embedding");
    end(w);
}

static void a_second_broker_on_the_same_directory_is_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    int out = -1;
    const pid_t second = spawn_broker(w, &out);
    assert_int_equal(wait_exit(second), 75);
    close(out);
    assert_int_equal(stop_broker(w, SIGTERM), 0);
    start_broker(w); /* the lock went with the first */
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_goes_from_submit_to_manifest),
        cmocka_unit_test(watchers_see_every_step_of_a_job),
        cmocka_unit_test(a_key_used_again_names_the_same_job),
        cmocka_unit_test(a_model_that_nobody_has_is_refused_with_those_that_are_served),
        cmocka_unit_test(a_worker_that_vanishes_before_its_quote_leaves_another_to_be_asked),
        cmocka_unit_test(a_killed_broker_goes_on_with_the_job_and_asks_for_nothing_twice),
        cmocka_unit_test(a_lease_that_nobody_reasserts_is_given_to_another),
        cmocka_unit_test(a_vanished_worker_loses_its_lease_and_its_late_result_is_refused),
        cmocka_unit_test(a_result_whose_bytes_are_not_in_the_store_is_refused),
        cmocka_unit_test(after_a_cancel_no_result_becomes_visible),
        cmocka_unit_test(a_permanent_failure_ends_the_job_with_its_cause),
        cmocka_unit_test(a_list_keeps_what_was_made_when_one_item_is_lost),
        cmocka_unit_test(malformed_messages_hurt_nobody_else),
        cmocka_unit_test(status_and_list_tell_what_is_there),
        cmocka_unit_test(a_broker_that_cannot_write_stops_without_an_answer),
        cmocka_unit_test(a_second_broker_on_the_same_directory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
