#include "tests/integration/pretend_broker.h"

#include "proto/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { HEARTBEAT_MS = 400, LEASE_MS = 4000, RENEW_MS = 400 };

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

void broker_bind(struct broker *b)
{
    struct weir_error error;
    assert_int_equal(weir_wire_bind(b->zmq, b->endpoint, WEIR_SOCKET_CONTROL, false, &b->socket, NULL, &error),
                     WEIR_OK);
    b->epoch++;
}

void broker_unbind(struct broker *b)
{
    zmq_close(b->socket);
    b->socket = NULL;
}

int broker_setup(void **state)
{
    struct broker *b = calloc(1, sizeof *b);
    if (!b) return -1;
    strcpy(b->dir, "/tmp/weir-worker-XXXXXX");
    if (!mkdtemp(b->dir)) return -1;
    snprintf(b->endpoint, sizeof b->endpoint, "ipc://%s/broker", b->dir);
    snprintf(b->store_dir, sizeof b->store_dir, "%s/store", b->dir);
    snprintf(b->run_dir, sizeof b->run_dir, "%s/run", b->dir);
    snprintf(b->log, sizeof b->log, "%s/log", b->dir);
    snprintf(b->model, sizeof b->model, "%s/tests/golden/tiny-a", WEIR_SOURCE_DIR);
    if (weir_store_open(b->store_dir, &b->store, NULL) != WEIR_OK) return -1;
    weir_random_bytes(b->job, sizeof b->job);
    b->credit = -1;
    b->zmq = zmq_ctx_new();
    broker_bind(b);
    *state = b;
    return 0;
}

int broker_teardown(void **state)
{
    struct broker *b = *state;
    if (b->pid > 0) worker_kill(b);
    if (b->socket) zmq_close(b->socket);
    zmq_ctx_term(b->zmq);
    weir_store_close(&b->store);
    if (b->spec) weir__pb__job_spec__free_unpacked(b->spec, NULL);
    const int failed = nftw(b->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(b);
    return failed;
}

void worker_start(struct broker *b, const char *const *flags)
{
    char program[512];
    snprintf(program, sizeof program, WEIR_BIN_DIR "/%s", b->program ? b->program : "weir-worker");
    const char *argv[40] = { program,    "--broker",  b->endpoint, "--store",  b->store_dir, "--run-dir",
                             b->run_dir, "--threads", "1",         "--device", "cpu" };
    size_t at = 11;
    bool has_model = false;
    for (size_t i = 0; flags && flags[i]; i++) {
        has_model |= strcmp(flags[i], "--model") == 0;
        argv[at++] = flags[i];
    }
    if (!has_model) {
        argv[at++] = "--model";
        argv[at++] = b->model;
    }
    if (!getenv("WEIR_TEST_LOG") && !b->logs) {
        argv[at++] = "--log-level";
        argv[at++] = "error";
    }
    b->pid = fork();
    if (b->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (b->logs && !freopen(b->log, "a", stderr)) _exit(127);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(b->pid > 0);
    b->worker.length = 0;
    b->credit = -1;
    b->greets = false;
}

uint32_t log_count(const struct broker *b, const char *words)
{
    char line[4096];
    uint32_t count = 0;
    FILE *file = fopen(b->log, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) count += strstr(line, words) != NULL;
    fclose(file);
    return count;
}

int worker_end(struct broker *b)
{
    int result = 0;
    while (waitpid(b->pid, &result, 0) < 0) assert_int_equal(errno, EINTR);
    b->pid = 0;
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}

void worker_kill(struct broker *b)
{
    kill(b->pid, SIGKILL);
    (void)worker_end(b);
}

void say(struct broker *b, enum weir_message_type type, const ProtobufCMessage *body)
{
    struct weir_error error = { .words = "" };
    if (weir_wire_send(b->socket, &b->worker, type, ++b->sequence, body, &error) != WEIR_OK)
        fail_msg("%s", error.words);
}

static void welcome(struct broker *b)
{
    Weir__Pb__Welcome body = WEIR__PB__WELCOME__INIT;
    body.has_protocol = body.has_epoch = body.has_heartbeat_ms = body.has_lease_ms = body.has_renew_ms = 1;
    body.protocol = WEIR_WIRE_VERSION;
    body.epoch = b->epoch;
    body.heartbeat_ms = HEARTBEAT_MS;
    body.lease_ms = LEASE_MS;
    body.renew_ms = RENEW_MS;
    say(b, WEIR_MESSAGE_WELCOME, &body.base);
}

static void greet_again(struct broker *b, const Weir__Pb__Hello *hello)
{
    b->hellos++;
    b->forgot = false;
    b->held = hello->n_held;
    welcome(b);
    for (size_t i = 0; i < hello->n_held; i++) {
        Weir__Pb__LeaseOk ok = WEIR__PB__LEASE_OK__INIT;
        ok.task = hello->held[i]->task;
        ok.has_token = 1;
        ok.token = hello->held[i]->token;
        memcpy(b->held_token, ok.token.data, WEIR_TOKEN_BYTES);
        say(b, WEIR_MESSAGE_LEASE_OK, &ok.base);
    }
}

static void note_runner(struct broker *b, const Weir__Pb__Renew *renew)
{
    if (!renew->running) return;
    for (uint32_t i = 0; i < b->runner_count; i++) {
        if (memcmp(b->runners[i], renew->token.data, WEIR_TOKEN_BYTES) == 0) return;
    }
    if (b->runner_count < WEIR_COUNT(b->runners))
        memcpy(b->runners[b->runner_count++], renew->token.data, WEIR_TOKEN_BYTES);
}

/* True when the message needs no test. */
static bool handled(struct broker *b, const struct weir_message *m)
{
    if (m->type == WEIR_MESSAGE_HELLO && b->greets) {
        greet_again(b, m->body.hello);
        return true;
    }
    if (b->forgot) {
        Weir__Pb__Who who = WEIR__PB__WHO__INIT;
        say(b, WEIR_MESSAGE_WHO, &who.base);
        return true;
    }
    switch (m->type) {
    case WEIR_MESSAGE_PING: {
        Weir__Pb__Pong body = WEIR__PB__PONG__INIT;
        if (!b->mute) say(b, WEIR_MESSAGE_PONG, &body.base);
        return true;
    }
    case WEIR_MESSAGE_PONG:
        return true;
    case WEIR_MESSAGE_RENEW: {
        Weir__Pb__RenewAck body = WEIR__PB__RENEW_ACK__INIT;
        b->renewals++;
        note_runner(b, m->body.renew);
        b->step = m->body.renew->step;
        b->steps = m->body.renew->steps;
        b->running = m->body.renew->running;
        body.task = m->body.renew->task;
        body.has_token = body.has_cancel = 1;
        body.token = m->body.renew->token;
        body.cancel = b->cancel;
        if (!b->mute) say(b, WEIR_MESSAGE_RENEW_ACK, &body.base);
        return true;
    }
    case WEIR_MESSAGE_CREDIT:
        b->credit = m->body.credit->leases;
        return true;
    default:
        return false;
    }
}

/* The next message that is not handled by itself, within `ms`; false when there is none. */
static bool next(struct broker *b, struct weir_message *out, uint32_t ms)
{
    const uint64_t end_ms = weir_clock_now_ms() + ms;
    for (;;) {
        struct weir_error error;
        uint32_t type_seen;
        const enum weir_status status = weir_wire_receive(b->socket, true, WEIR_DIRECTION_W, out, &type_seen, &error);
        if (status == WEIR_OK) {
            b->worker = out->from;
            if (!handled(b, out)) return true;
            weir_message_release(out);
            return false; /* something was noted: the caller looks */
        }
        if (status != WEIR_TIMEOUT) fail_msg("the worker sent what is malformed: %s", error.words);
        const uint64_t now_ms = weir_clock_now_ms();
        if (now_ms >= end_ms) return false;
        zmq_pollitem_t item = { .socket = b->socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, (long)(end_ms - now_ms));
    }
}

struct weir_message see(struct broker *b, enum weir_message_type type)
{
    const uint64_t end_ms = weir_clock_now_ms() + SEE_MS;
    struct weir_message m;
    while (weir_clock_now_ms() < end_ms) {
        if (!next(b, &m, 1000)) continue;
        if (m.type == type) return m;
        if (m.type == WEIR_MESSAGE_FAIL) fail_msg("FAIL: %s", m.body.fail->words);
        if (m.type == WEIR_MESSAGE_QUOTED) fail_msg("QUOTED: %s", m.body.quoted->words);
        fail_msg("%s came where %s is wanted", weir_message_name(m.type), weir_message_name(type));
    }
    fail_msg("no %s within %d ms", weir_message_name(type), SEE_MS);
    return m;
}

void see_nothing(struct broker *b, uint32_t ms)
{
    const uint64_t end_ms = weir_clock_now_ms() + ms;
    struct weir_message m;
    for (uint64_t now_ms; (now_ms = weir_clock_now_ms()) < end_ms;) {
        if (next(b, &m, (uint32_t)(end_ms - now_ms))) fail_msg("%s came where nothing may", weir_message_name(m.type));
    }
}

void see_until(struct broker *b, const uint32_t *what, uint32_t least)
{
    const uint64_t end_ms = weir_clock_now_ms() + SEE_MS;
    struct weir_message m;
    while (*what < least) {
        if (weir_clock_now_ms() >= end_ms) fail_msg("still %u, %u is wanted", *what, least);
        if (next(b, &m, 1000)) fail_msg("%s came too early", weir_message_name(m.type));
    }
}

void see_credit(struct broker *b, int64_t credit)
{
    const uint64_t end_ms = weir_clock_now_ms() + SEE_MS;
    struct weir_message m;
    while (b->credit != credit) {
        if (weir_clock_now_ms() >= end_ms) fail_msg("credit is %lld", (long long)b->credit);
        if (next(b, &m, 1000)) fail_msg("%s came too early", weir_message_name(m.type));
    }
}

void worker_greet(struct broker *b)
{
    struct weir_message hello = see(b, WEIR_MESSAGE_HELLO);
    welcome(b);
    b->greets = true;
    b->credit = -1;
    weir_message_release(&hello);
}

Weir__Pb__JobSpec *copy_spec(const Weir__Pb__JobSpec *spec)
{
    const size_t count = weir__pb__job_spec__get_packed_size(spec);
    uint8_t *bytes = malloc(count ? count : 1);
    weir__pb__job_spec__pack(spec, bytes);
    Weir__Pb__JobSpec *copy = weir__pb__job_spec__unpack(NULL, count, bytes);
    free(bytes);
    assert_non_null(copy);
    return copy;
}

static struct weir_message quoted(struct broker *b, const Weir__Pb__JobSpec *wish)
{
    Weir__Pb__Quote body = WEIR__PB__QUOTE__INIT;
    body.has_number = 1;
    body.number = ++b->sequence;
    body.spec = (Weir__Pb__JobSpec *)(uintptr_t)wish;
    say(b, WEIR_MESSAGE_QUOTE, &body.base);
    const uint64_t number = body.number;
    struct weir_message m = see(b, WEIR_MESSAGE_QUOTED);
    assert_int_equal(m.body.quoted->number, number);
    return m;
}

uint64_t quote(struct broker *b, const Weir__Pb__JobSpec *wish)
{
    struct weir_message m = quoted(b, wish);
    if (m.body.quoted->status != WEIR_OK) fail_msg("QUOTED: %s", m.body.quoted->words);
    const uint64_t memory_bytes = m.body.quoted->memory_bytes;
    assert_true(memory_bytes > 0);
    assert_true(m.body.quoted->cost_ms > 0);
    if (b->spec) weir__pb__job_spec__free_unpacked(b->spec, NULL);
    b->spec = copy_spec(m.body.quoted->spec);
    weir_message_release(&m);
    return memory_bytes;
}

void quote_refused(struct broker *b, const Weir__Pb__JobSpec *wish, enum weir_status status, const char *words)
{
    struct weir_message m = quoted(b, wish);
    if (m.body.quoted->status != status || !strstr(m.body.quoted->words, words)) {
        fail_msg("QUOTED %s: %s", weir_status_name((enum weir_status)m.body.quoted->status), m.body.quoted->words);
    }
    weir_message_release(&m);
}

static void name_task(struct broker *b, Weir__Pb__TaskId *id, enum weir_stage stage, uint32_t index)
{
    weir__pb__task_id__init(id);
    id->has_job = id->has_stage = id->has_index = 1;
    id->job = (ProtobufCBinaryData){ WEIR_ID_BYTES, b->job };
    id->stage = stage;
    id->index = index;
}

void lease(struct broker *b, struct ticketed *t, const struct lease_options *o)
{
    Weir__Pb__Lease body = WEIR__PB__LEASE__INIT;
    Weir__Pb__Input inputs[64], *list[64];
    Weir__Pb__JobSpec own;
    weir_random_bytes(t->token, sizeof t->token);
    b->step = 0; /* of this lease from now on: on a slow machine the one before was renewed, too */
    name_task(b, &t->id, o->stage, o->index);
    body.task = &t->id;
    body.has_token = body.has_attempt = body.has_lease_ms = body.has_item = body.has_frame_first =
        body.has_frame_count = 1;
    body.token = (ProtobufCBinaryData){ WEIR_TOKEN_BYTES, t->token };
    body.attempt = 1;
    body.lease_ms = LEASE_MS;
    body.tenant = (char *)(uintptr_t)(o->tenant ? o->tenant : "local");
    weir_spec_of_item(o->spec ? o->spec : b->spec, o->item, &own);
    body.spec = &own;
    body.item = o->item;
    body.frame_first = o->frame_first;
    body.frame_count = o->frame_count;
    body.has_band = o->band > 0;
    body.band = body.has_band ? o->band - 1 : 0;
    for (size_t i = 0; o->inputs[i]; i++) {
        for (size_t j = 0; j < o->inputs[i]->n_artefacts; j++) {
            assert_true(body.n_inputs < 64);
            weir__pb__input__init(&inputs[body.n_inputs]);
            inputs[body.n_inputs].from = o->inputs[i]->task;
            inputs[body.n_inputs].artefact = o->inputs[i]->artefacts[j];
            list[body.n_inputs] = &inputs[body.n_inputs];
            body.n_inputs++;
        }
    }
    body.inputs = list;
    say(b, WEIR_MESSAGE_LEASE, &body.base);
}

static void check_token(const Weir__Pb__TaskId *id, const ProtobufCBinaryData *token, const struct ticketed *t)
{
    assert_int_equal(id->stage, t->id.stage);
    assert_int_equal(id->index, t->id.index);
    assert_memory_equal(token->data, t->token, WEIR_TOKEN_BYTES);
}

Weir__Pb__Done *see_done(struct broker *b, const struct ticketed *t)
{
    struct weir_message m = see(b, WEIR_MESSAGE_DONE);
    const Weir__Pb__Done *done = m.body.done;
    check_token(done->task, &done->token, t);
    Weir__Pb__DoneAck ack = WEIR__PB__DONE_ACK__INIT;
    ack.task = done->task;
    ack.has_token = 1;
    ack.token = done->token;
    say(b, WEIR_MESSAGE_DONE_ACK, &ack.base);
    const size_t count = weir__pb__done__get_packed_size(done);
    uint8_t *bytes = malloc(count);
    weir__pb__done__pack(done, bytes);
    Weir__Pb__Done *copy = weir__pb__done__unpack(NULL, count, bytes);
    free(bytes);
    weir_message_release(&m);
    assert_non_null(copy);
    for (size_t i = 0; i < copy->n_artefacts; i++) { /* what DONE names is in the store, whole */
        void *object;
        size_t object_bytes;
        uint8_t digest[WEIR_SHA256_BYTES];
        assert_int_equal(weir_store_get(b->store, copy->artefacts[i]->key, 1 << 26, &object, &object_bytes, NULL),
                         WEIR_OK);
        weir_sha256_of(object, object_bytes, digest);
        assert_int_equal(object_bytes, copy->artefacts[i]->bytes);
        assert_memory_equal(digest, copy->artefacts[i]->digest.data, WEIR_SHA256_BYTES);
        free(object);
    }
    return copy;
}

Weir__Pb__Done *run_task(struct broker *b, const struct lease_options *options)
{
    struct ticketed t;
    lease(b, &t, options);
    return see_done(b, &t);
}

void see_fail(struct broker *b, const struct ticketed *t, enum weir_status status, const char *words)
{
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    check_token(m.body.fail->task, &m.body.fail->token, t);
    if (m.body.fail->status != status || !strstr(m.body.fail->words, words)) {
        fail_msg("FAIL %s: %s", weir_status_name((enum weir_status)m.body.fail->status), m.body.fail->words);
    }
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
}

void cancel(struct broker *b, struct ticketed *t)
{
    Weir__Pb__Cancel body = WEIR__PB__CANCEL__INIT;
    body.task = &t->id;
    body.has_token = 1;
    body.token = (ProtobufCBinaryData){ WEIR_TOKEN_BYTES, t->token };
    say(b, WEIR_MESSAGE_CANCEL, &body.base);
    see_release(b, t);
}

void see_release(struct broker *b, const struct ticketed *t)
{
    struct weir_message m = see(b, WEIR_MESSAGE_RELEASE);
    check_token(m.body.release->task, &m.body.release->token, t);
    Weir__Pb__ReleaseAck ack = WEIR__PB__RELEASE_ACK__INIT;
    ack.task = m.body.release->task;
    ack.has_token = 1;
    ack.token = m.body.release->token;
    say(b, WEIR_MESSAGE_RELEASE_ACK, &ack.base);
    weir_message_release(&m);
}

void done_free(Weir__Pb__Done *done)
{
    weir__pb__done__free_unpacked(done, NULL);
}

void digest_of(const Weir__Pb__Done *done, uint8_t out[WEIR_SHA256_BYTES])
{
    memcpy(out, done->artefacts[0]->digest.data, WEIR_SHA256_BYTES);
}

void wish_init(Weir__Pb__JobSpec *wish, uint32_t steps)
{
    weir__pb__job_spec__init(wish);
    wish->model = (char *)(uintptr_t) "tiny-a";
    wish->prompt = (char *)(uintptr_t) "a red circle moving right";
    wish->negative = (char *)(uintptr_t) "blue square";
    wish->has_width = wish->has_height = wish->has_frames = wish->has_steps = wish->has_seed = wish->has_fps = 1;
    wish->width = 64;
    wish->height = 48;
    wish->frames = 20;
    wish->steps = steps;
    wish->seed = 7;
    wish->fps = 8;
}

Weir__Pb__Done *ready(struct broker *b, uint32_t steps, const char *const *flags)
{
    Weir__Pb__JobSpec wish;
    wish_init(&wish, steps);
    worker_start(b, flags);
    worker_greet(b);
    see_credit(b, 2);
    quote(b, &wish);
    return run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_TEXT });
}
