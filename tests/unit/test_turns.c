/* Turns of the broker on the reference ledger, with a pretend outside world and a clock moved by hand: quotes, watches,
 * limits, sweeps. What is sent is kept as decoded copies. */
#include "broker/broker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SENT_MAX 4096

/* ---- memory that runs out: allocation number `fails_at` of our own code, counted while armed ---- */

static struct {
    bool armed;
    uint64_t count, fails_at;
} memory;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static bool runs_out(void)
{
    return memory.armed && ++memory.count == memory.fails_at;
}

void *__wrap_malloc(size_t bytes)
{
    return runs_out() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return runs_out() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return runs_out() ? NULL : __real_realloc(old, bytes);
}
#define KEYS_MAX 32

struct sent {
    enum weir_message_type type;
    uint8_t to;
    ProtobufCMessage *body; /* owned */
};

struct world {
    struct weir_ledger *ledger;
    struct weir_broker *broker;
    struct sent sent[SENT_MAX];
    size_t sent_count, read;
    uint64_t now_ms, chance;
    uint8_t deaf; /* a peer that cannot be reached; 0: none */
    uint8_t job_number;
    char keys[KEYS_MAX][WEIR_KEY_BYTES];
    uint64_t wait_ms;
};

static const uint8_t digest[WEIR_SHA256_BYTES] = { 9 };

/* ---- the outside world ---- */

static enum weir_status port_send(void *context, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, uint64_t sequence, const ProtobufCMessage *body)
{
    struct world *w = context;
    (void)side;
    assert_true(sequence > 0);
    if (w->deaf != 0 && to->bytes[0] == w->deaf) return WEIR_UNAVAILABLE;
    const size_t count = protobuf_c_message_get_packed_size(body);
    uint8_t *bytes = __real_malloc(count + 1);
    protobuf_c_message_pack(body, bytes);
    assert_true(w->sent_count < SENT_MAX);
    w->sent[w->sent_count++] =
        (struct sent){ type, to->bytes[0], protobuf_c_message_unpack(body->descriptor, NULL, count, bytes) };
    free(bytes);
    return WEIR_OK;
}

static enum weir_status port_stat(void *context, const char *key, uint64_t *bytes, struct weir_error *error)
{
    struct world *w = context;
    for (size_t k = 0; k < KEYS_MAX; k++) {
        if (strcmp(w->keys[k], key) != 0) continue;
        *bytes = 5;
        return WEIR_OK;
    }
    return weir_fail(error, WEIR_NOT_FOUND, "%s", key);
}

static enum weir_status port_list(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                                  void *each_context, struct weir_error *error)
{
    struct world *w = context;
    (void)error;
    for (size_t k = 0; k < KEYS_MAX; k++) {
        if (w->keys[k][0] != 0 && strncmp(w->keys[k], prefix, strlen(prefix)) == 0) each(each_context, w->keys[k]);
    }
    return WEIR_OK;
}

static enum weir_status port_remove(void *context, const char *prefix, struct weir_error *error)
{
    struct world *w = context;
    (void)error;
    for (size_t k = 0; k < KEYS_MAX; k++) {
        if (strncmp(w->keys[k], prefix, strlen(prefix)) == 0) w->keys[k][0] = 0;
    }
    return WEIR_OK;
}

static struct weir_job_id port_job_id(void *context)
{
    struct weir_job_id id = { { 0 } };
    id.bytes[7] = ++((struct world *)context)->job_number;
    return id;
}

static void chance(void *context, void *out, size_t count)
{
    struct world *w = context;
    for (size_t k = 0; k < count; k++) {
        w->chance = w->chance * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)out)[k] = (uint8_t)(w->chance >> 56);
    }
}

static enum weir_status try_start(struct world *w)
{
    struct weir_broker_options options = { .sched = weir_sched_options_default(false, false),
                                           .port = { w, port_send, port_stat, port_list, port_remove, port_job_id },
                                           .store = "s",
                                           .build = "b",
                                           .sweep_after_ms = WEIR_SWEEP_AFTER_MS };
    options.sched.random = chance;
    options.sched.random_context = w;
    options.sched.jobs_max = 100;
    return weir_broker_create(&options, w->ledger, w->now_ms, 5, &w->broker, NULL);
}

static void start(struct world *w)
{
    assert_int_equal(try_start(w), WEIR_OK);
}

static struct world *begin(void)
{
    struct world *w = calloc(1, sizeof *w);
    w->now_ms = 1000;
    assert_int_equal(weir_ledger_memory_open(&w->ledger, NULL), WEIR_OK);
    start(w);
    return w;
}

static void end(struct world *w)
{
    for (size_t k = 0; k < w->sent_count; k++) protobuf_c_message_free_unpacked(w->sent[k].body, NULL);
    weir_broker_destroy(&w->broker);
    weir_ledger_close(&w->ledger);
    free(w);
}

/* ---- talking ---- */

static void flush(struct world *w)
{
    assert_int_equal(weir_broker_flush(w->broker, w->now_ms, 5, &w->wait_ms, NULL), WEIR_OK);
}

/* A message's body is borrowed: it must live as long as the broker keeps it. */
static void take(struct world *w, enum weir_side side, uint8_t from, enum weir_message_type type, const void *body)
{
    struct weir_message message = { .type = type, .from = { 1, { from } } };
    message.body.base = body;
    assert_int_equal(weir_broker_take(w->broker, w->now_ms, 5, side, &message, NULL), WEIR_OK);
}

/* The next message to this peer of this type, or NULL. */
static const void *next(struct world *w, uint8_t to, enum weir_message_type type)
{
    for (; w->read < w->sent_count; w->read++) {
        const struct sent *sent = &w->sent[w->read];
        if (sent->to == to && sent->type == type) return w->sent[w->read++].body;
    }
    return NULL;
}

static size_t count(struct world *w, uint8_t to, enum weir_message_type type)
{
    size_t found = 0;
    while (next(w, to, type) != NULL) found++;
    return found;
}

static void forget(struct world *w)
{
    w->read = w->sent_count;
}

static void pass(struct world *w, uint64_t ms, uint8_t worker)
{
    static const Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
    for (; ms > 0; ms -= ms < 1000 ? ms : 1000) {
        w->now_ms += ms < 1000 ? ms : 1000;
        if (worker != 0) take(w, WEIR_SIDE_WORKERS, worker, WEIR_MESSAGE_PING, &ping);
        flush(w);
    }
}

static ProtobufCBinaryData bytes_of(const void *bytes, size_t bytes_count)
{
    return (ProtobufCBinaryData){ bytes_count, (uint8_t *)(uintptr_t)bytes };
}

struct worker {
    Weir__Pb__Hello hello;
    Weir__Pb__ModelFacts model;
    Weir__Pb__ModelFacts *models[1];
    uint8_t id[WEIR_ID_BYTES];
    uint8_t name;
};

static void fill_hello(struct worker *worker, uint8_t name)
{
    *worker = (struct worker){ .name = name };
    weir__pb__hello__init(&worker->hello);
    weir__pb__model_facts__init(&worker->model);
    worker->id[0] = name;
    worker->model.name = (char *)(uintptr_t) "tiny";
    worker->model.digest = bytes_of(digest, sizeof digest);
    worker->models[0] = &worker->model;
    worker->hello.protocol_min = worker->hello.protocol_max = 1;
    worker->hello.worker = bytes_of(worker->id, sizeof worker->id);
    worker->hello.numerics_class = (char *)(uintptr_t) "c";
    worker->hello.stages = WEIR_STAGES_ALL;
    worker->hello.slots = 1;
    worker->hello.n_models = 1;
    worker->hello.models = worker->models;
}

static void join(struct world *w, struct worker *worker, uint8_t name)
{
    static const Weir__Pb__Credit two = { .base = PROTOBUF_C_MESSAGE_INIT(&weir__pb__credit__descriptor),
                                          .has_leases = true,
                                          .leases = 2 };
    fill_hello(worker, name);
    take(w, WEIR_SIDE_WORKERS, name, WEIR_MESSAGE_HELLO, &worker->hello);
    take(w, WEIR_SIDE_WORKERS, name, WEIR_MESSAGE_CREDIT, &two);
    flush(w);
    assert_non_null(next(w, name, WEIR_MESSAGE_WELCOME));
}

struct request {
    Weir__Pb__Submit submit;
    Weir__Pb__JobSpec spec;
};

static void fill_submit(struct request *request, uint64_t number, const char *key)
{
    weir__pb__submit__init(&request->submit);
    weir__pb__job_spec__init(&request->spec);
    request->spec.model = (char *)(uintptr_t) "tiny";
    request->submit.number = number;
    request->submit.spec = &request->spec;
    request->submit.idempotency_key = (char *)(uintptr_t)key;
}

static void submit(struct world *w, uint8_t client, struct request *request, uint64_t number, const char *key)
{
    fill_submit(request, number, key);
    take(w, WEIR_SIDE_CLIENTS, client, WEIR_MESSAGE_SUBMIT, &request->submit);
    flush(w);
}

static void quoted(struct world *w, uint8_t worker, uint64_t number, enum weir_status status)
{
    Weir__Pb__Quoted body = WEIR__PB__QUOTED__INIT;
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    spec.has_spec_version = spec.has_model_digest = spec.has_width = spec.has_height = true;
    spec.has_frames = spec.has_steps = spec.has_n = true;
    spec.model = (char *)(uintptr_t) "tiny";
    spec.model_digest = bytes_of(digest, sizeof digest);
    spec.frames = 16;
    spec.n = 1;
    spec.format = (char *)(uintptr_t) "mp4";
    body.number = number;
    body.status = status;
    body.spec = &spec;
    take(w, WEIR_SIDE_WORKERS, worker, WEIR_MESSAGE_QUOTED, &body);
    flush(w);
}

/* A job that is accepted. */
static struct weir_job_id run(struct world *w, uint8_t worker, uint8_t client, struct request *request)
{
    struct weir_job_id id;
    submit(w, client, request, 1, NULL);
    const Weir__Pb__Quote *quote = next(w, worker, WEIR_MESSAGE_QUOTE);
    assert_non_null(quote);
    w->read = 0;
    quoted(w, worker, quote->number, WEIR_OK);
    const Weir__Pb__Accepted *accepted = NULL, *one;
    while ((one = next(w, client, WEIR_MESSAGE_ACCEPTED)) != NULL) accepted = one;
    assert_non_null(accepted);
    memcpy(id.bytes, accepted->job.data, sizeof id.bytes);
    return id;
}

static const Weir__Pb__Lease *latest_lease(struct world *w, uint8_t worker)
{
    const Weir__Pb__Lease *lease = NULL, *one;
    w->read = 0;
    while ((one = next(w, worker, WEIR_MESSAGE_LEASE)) != NULL) lease = one;
    assert_non_null(lease);
    return lease;
}

static void finish_task(struct world *w, uint8_t worker)
{
    static const Weir__Pb__Credit one = { .base = PROTOBUF_C_MESSAGE_INIT(&weir__pb__credit__descriptor),
                                          .has_leases = true,
                                          .leases = 1 };
    const Weir__Pb__Lease *lease = latest_lease(w, worker);
    Weir__Pb__Done body = WEIR__PB__DONE__INIT;
    Weir__Pb__Artefact artefact = WEIR__PB__ARTEFACT__INIT;
    Weir__Pb__Artefact *list[] = { &artefact };
    struct weir_task_id task;
    char key[WEIR_KEY_BYTES];
    assert_true(weir_task_id_read(lease->task, &task));
    weir_key_artefact("default", &task, digest, key);
    for (size_t k = 0; k < KEYS_MAX; k++) {
        if (w->keys[k][0] != 0) continue;
        strcpy(w->keys[k], key);
        break;
    }
    artefact.name = artefact.media_type = (char *)(uintptr_t) "x";
    artefact.has_digest = artefact.has_bytes = true;
    artefact.digest = bytes_of(digest, sizeof digest);
    artefact.bytes = 5;
    artefact.key = key;
    body.task = lease->task;
    body.has_token = true;
    body.token = lease->token;
    body.n_artefacts = 1;
    body.artefacts = list;
    forget(w);
    take(w, WEIR_SIDE_WORKERS, worker, WEIR_MESSAGE_DONE, &body);
    take(w, WEIR_SIDE_WORKERS, worker, WEIR_MESSAGE_CREDIT, &one);
    flush(w);
    assert_non_null(next(w, worker, WEIR_MESSAGE_DONE_ACK));
}

static const Weir__Pb__Refused *see_refused(struct world *w, uint8_t client, enum weir_status status)
{
    const Weir__Pb__Refused *refused = next(w, client, WEIR_MESSAGE_REFUSED);
    assert_non_null(refused);
    assert_int_equal(refused->status, status);
    return refused;
}

static void watch(struct world *w, uint8_t client, uint64_t number, const struct weir_job_id *job)
{
    Weir__Pb__Watch body = WEIR__PB__WATCH__INIT;
    body.number = number;
    body.job = bytes_of(job->bytes, WEIR_ID_BYTES);
    take(w, WEIR_SIDE_CLIENTS, client, WEIR_MESSAGE_WATCH, &body);
    flush(w);
}

/* ---- claims ---- */

enum { WORKER = 1, OTHER = 2, CLIENT = 100 };

static void a_quote_that_nobody_answers_is_asked_elsewhere_after_10_s_and_refused_after_30(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one, two;
    struct request request;
    join(w, &one, WORKER);
    submit(w, CLIENT, &request, 1, NULL);
    assert_non_null(next(w, WORKER, WEIR_MESSAGE_QUOTE));
    pass(w, 9000, WORKER);
    join(w, &two, OTHER);
    forget(w);
    pass(w, 999, WORKER);
    assert_null(next(w, OTHER, WEIR_MESSAGE_QUOTE));
    pass(w, 1, WORKER);
    w->read = 0;
    assert_non_null(next(w, OTHER, WEIR_MESSAGE_QUOTE));
    for (int k = 0; k < 20; k++) {
        static const Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
        take(w, WEIR_SIDE_WORKERS, OTHER, WEIR_MESSAGE_PING, &ping);
        assert_null(next(w, CLIENT, WEIR_MESSAGE_REFUSED));
        pass(w, 1000, WORKER);
    }
    see_refused(w, CLIENT, WEIR_TIMEOUT);
    quoted(w, OTHER, 2, WEIR_OK); /* too late: nothing comes of it */
    assert_null(next(w, CLIENT, WEIR_MESSAGE_ACCEPTED));
    end(w);
}

static void a_quote_that_says_no_for_good_is_the_answer_and_another_no_is_asked_on(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one, two;
    struct request request;
    join(w, &one, WORKER);
    submit(w, CLIENT, &request, 1, NULL);
    quoted(w, WORKER, 1, WEIR_TOO_LARGE);
    see_refused(w, CLIENT, WEIR_TOO_LARGE);
    join(w, &two, OTHER);
    submit(w, CLIENT, &request, 2, NULL);
    quoted(w, WORKER, 2, WEIR_NO_MEMORY);
    quoted(w, OTHER, 2, WEIR_NO_MEMORY); /* one of the two was asked; the other is now */
    w->read = 0;
    assert_int_equal(count(w, WORKER, WEIR_MESSAGE_QUOTE), 2);
    w->read = 0;
    assert_int_equal(count(w, OTHER, WEIR_MESSAGE_QUOTE), 1);
    end(w);
}

static void quotes_are_asked_of_all_workers_in_turn(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one, two;
    struct request requests[6];
    join(w, &one, WORKER);
    join(w, &two, OTHER);
    for (uint64_t k = 0; k < 6; k++) submit(w, CLIENT, &requests[k], k, NULL);
    w->read = 0;
    assert_int_equal(count(w, WORKER, WEIR_MESSAGE_QUOTE), 3);
    w->read = 0;
    assert_int_equal(count(w, OTHER, WEIR_MESSAGE_QUOTE), 3);
    end(w);
}

static void two_submits_under_one_key_that_wait_together_make_one_job(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request first, second;
    join(w, &one, WORKER);
    submit(w, CLIENT, &first, 1, "key");
    submit(w, CLIENT, &second, 2, "key");
    quoted(w, WORKER, 1, WEIR_OK);
    quoted(w, WORKER, 2, WEIR_OK);
    const Weir__Pb__Accepted *a = next(w, CLIENT, WEIR_MESSAGE_ACCEPTED), *b = next(w, CLIENT, WEIR_MESSAGE_ACCEPTED);
    assert_non_null(a);
    assert_non_null(b);
    assert_memory_equal(a->job.data, b->job.data, WEIR_ID_BYTES);
    assert_true(!a->existed && b->existed);
    assert_int_equal(weir_sched_counts(weir_broker_sched(w->broker)).jobs, 1);
    end(w);
}

static void submits_over_a_limit_are_refused_with_a_time_to_retry(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    static struct request requests[WEIR_ADMISSIONS_MAX + 1];
    join(w, &one, WORKER);
    for (uint64_t k = 0; k < WEIR_ADMISSIONS_MAX; k++) submit(w, CLIENT, &requests[k], k, NULL);
    assert_null(next(w, CLIENT, WEIR_MESSAGE_REFUSED));
    submit(w, CLIENT, &requests[WEIR_ADMISSIONS_MAX], 999, NULL);
    assert_true(see_refused(w, CLIENT, WEIR_BUSY)->retry_after_ms > 0);
    for (uint64_t k = 1; k <= WEIR_ADMISSIONS_MAX; k++) quoted(w, WORKER, k, WEIR_OK);
    w->read = 0;
    assert_int_equal(count(w, CLIENT, WEIR_MESSAGE_ACCEPTED), 100); /* jobs_max */
    w->read = 0;
    assert_int_equal(count(w, CLIENT, WEIR_MESSAGE_REFUSED), WEIR_ADMISSIONS_MAX - 100 + 1);
    end(w);
}

static void a_client_watches_64_jobs_and_no_more(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    static struct request requests[WEIR_WATCHES_PER_CLIENT_MAX + 1];
    struct weir_job_id jobs[WEIR_WATCHES_PER_CLIENT_MAX + 1];
    join(w, &one, WORKER);
    for (size_t k = 0; k < WEIR_COUNT(jobs); k++) {
        submit(w, CLIENT, &requests[k], k, NULL);
        quoted(w, WORKER, k + 1, WEIR_OK);
        const Weir__Pb__Accepted *accepted = next(w, CLIENT, WEIR_MESSAGE_ACCEPTED);
        assert_non_null(accepted);
        memcpy(jobs[k].bytes, accepted->job.data, WEIR_ID_BYTES);
    }
    for (size_t k = 0; k < WEIR_WATCHES_PER_CLIENT_MAX; k++) watch(w, CLIENT, k, &jobs[k]);
    assert_null(next(w, CLIENT, WEIR_MESSAGE_REFUSED));
    watch(w, CLIENT, 5, &jobs[5]); /* the same again takes no place */
    watch(w, CLIENT, 99, &jobs[WEIR_WATCHES_PER_CLIENT_MAX]);
    assert_int_equal(see_refused(w, CLIENT, WEIR_BUSY)->number, 99);
    watch(w, CLIENT + 1, 1, &jobs[WEIR_WATCHES_PER_CLIENT_MAX]); /* another client does */
    assert_null(next(w, CLIENT + 1, WEIR_MESSAGE_REFUSED));
    end(w);
}

static void progress_is_told_at_most_every_200_ms_and_changes_of_state_at_once(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request request;
    join(w, &one, WORKER);
    const struct weir_job_id job = run(w, WORKER, CLIENT, &request);
    watch(w, CLIENT, 7, &job);
    const Weir__Pb__Lease *lease = latest_lease(w, WORKER);
    forget(w);
    for (uint32_t step = 1; step <= 40; step++) {
        Weir__Pb__Renew body = WEIR__PB__RENEW__INIT;
        body.task = lease->task;
        body.token = lease->token;
        body.step = step;
        body.steps = 40;
        body.running = true;
        w->now_ms += 10;
        take(w, WEIR_SIDE_WORKERS, WORKER, WEIR_MESSAGE_RENEW, &body);
        flush(w);
    }
    assert_in_range(count(w, CLIENT, WEIR_MESSAGE_EVENT), 2, 3); /* in 400 ms */
    finish_task(w, WORKER);
    assert_non_null(next(w, CLIENT, WEIR_MESSAGE_EVENT));
    end(w);
}

static void a_client_that_could_not_be_reached_is_told_the_end_later(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request request;
    join(w, &one, WORKER);
    const struct weir_job_id job = run(w, WORKER, CLIENT, &request);
    watch(w, CLIENT, 7, &job);
    w->deaf = CLIENT;
    for (int k = 0; k < 4; k++) finish_task(w, WORKER);
    pass(w, 2000, WORKER);
    forget(w);
    w->deaf = 0;
    pass(w, 1000, WORKER);
    const Weir__Pb__Event *event = next(w, CLIENT, WEIR_MESSAGE_EVENT);
    assert_non_null(event);
    assert_int_equal(event->job_state, WEIR_JOB_SUCCEEDED);
    assert_null(next(w, CLIENT, WEIR_MESSAGE_EVENT));
    end(w);
}

static bool has_key(const struct world *w, const char *part)
{
    for (size_t k = 0; k < KEYS_MAX; k++) {
        if (strstr(w->keys[k], part) != NULL) return true;
    }
    return false;
}

static void checkpoints_go_with_the_job_and_the_rest_an_hour_later_but_never_the_result(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request request;
    join(w, &one, WORKER);
    const struct weir_job_id job = run(w, WORKER, CLIENT, &request);
    const struct weir_task_id denoise = { job, WEIR_STAGE_DENOISE, 0 };
    weir_key_checkpoint("default", &denoise, 5, w->keys[0]);
    for (int k = 0; k < 3; k++) finish_task(w, WORKER);
    assert_true(has_key(w, "/ckpt/"));
    finish_task(w, WORKER);
    assert_false(has_key(w, "/ckpt/"));
    assert_true(has_key(w, "/denoise-0/"));

    weir_broker_destroy(&w->broker); /* and over a restart */
    start(w);
    flush(w);
    pass(w, WEIR_SWEEP_AFTER_MS - 1, 0);
    assert_true(has_key(w, "/denoise-0/"));
    pass(w, 1, 0);
    assert_false(has_key(w, "/denoise-0/"));
    assert_false(has_key(w, "/text-0/"));
    assert_true(has_key(w, "/assemble-0/"));
    end(w);
}

/* ---- batches, and what is told of large jobs ---- */

static void a_part_of_a_batch_is_listed_and_shown_as_such(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request requests[4];
    uint8_t batch[WEIR_ID_BYTES] = { 5 };
    join(w, &one, WORKER);
    for (uint32_t k = 0; k < 4; k++) { /* the last is of no batch */
        fill_submit(&requests[k], k, NULL);
        requests[k].submit.has_batch = requests[k].submit.has_part = requests[k].submit.has_parts = k < 3;
        requests[k].submit.batch = bytes_of(batch, sizeof batch);
        requests[k].submit.part = k < 3 ? k : 0;
        requests[k].submit.parts = k < 3 ? 3 : 0;
        take(w, WEIR_SIDE_CLIENTS, CLIENT, WEIR_MESSAGE_SUBMIT, &requests[k].submit);
        flush(w);
        quoted(w, WORKER, k + 1, WEIR_OK);
    }
    w->read = 0;
    assert_int_equal(count(w, CLIENT, WEIR_MESSAGE_ACCEPTED), 4);
    uint8_t before[WEIR_ID_BYTES];
    for (uint32_t page = 0; page < 4; page++) { /* newest first, one a page; the fourth is empty */
        Weir__Pb__List ask = WEIR__PB__LIST__INIT;
        ask.has_limit = ask.has_batch = true;
        ask.limit = 1;
        ask.batch = bytes_of(batch, sizeof batch);
        ask.has_before = page > 0;
        ask.before = bytes_of(before, page > 0 ? sizeof before : 0);
        forget(w);
        take(w, WEIR_SIDE_CLIENTS, CLIENT, WEIR_MESSAGE_LIST, &ask);
        flush(w);
        const Weir__Pb__Jobs *jobs = next(w, CLIENT, WEIR_MESSAGE_JOBS);
        assert_non_null(jobs);
        assert_int_equal(jobs->n_jobs, page < 3 ? 1 : 0);
        if (page == 3) break;
        assert_int_equal(jobs->jobs[0]->part, 2 - page);
        assert_int_equal(jobs->jobs[0]->parts, 3);
        assert_memory_equal(jobs->jobs[0]->batch.data, batch, sizeof batch);
        assert_int_equal(jobs->jobs[0]->tasks, 4);
        memcpy(before, jobs->jobs[0]->job.data, sizeof before);
    }
    Weir__Pb__Show show = WEIR__PB__SHOW__INIT;
    show.job = bytes_of(before, sizeof before);
    forget(w);
    take(w, WEIR_SIDE_CLIENTS, CLIENT, WEIR_MESSAGE_SHOW, &show);
    flush(w);
    const Weir__Pb__JobView *view = next(w, CLIENT, WEIR_MESSAGE_JOB_VIEW);
    assert_non_null(view);
    assert_true(view->has_batch && view->part == 0 && view->parts == 3);
    end(w);
}

static void a_part_that_is_none_is_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request request;
    uint8_t batch[WEIR_ID_BYTES] = { 5 };
    join(w, &one, WORKER);
    for (int kind = 0; kind < 2; kind++) {
        fill_submit(&request, 1, NULL);
        request.submit.has_batch = kind == 0;
        request.submit.batch = bytes_of(batch, sizeof batch);
        request.submit.has_part = request.submit.has_parts = true;
        request.submit.part = request.submit.parts = 3;
        forget(w);
        take(w, WEIR_SIDE_CLIENTS, CLIENT, WEIR_MESSAGE_SUBMIT, &request.submit);
        flush(w);
        assert_non_null(strstr(see_refused(w, CLIENT, WEIR_BAD_ARGUMENT)->words, "part 3 of 3"));
    }
    end(w);
}

#define MANY 512

/* A finished job of 512 prompts, its rows written past the broker: `text_bytes` of each prompt, `note_bytes` of each
 * receipt. */
static struct weir_job_id write_large_job(struct world *w, size_t text_bytes, size_t note_bytes)
{
    static Weir__Pb__Prompt prompts[MANY], *list[MANY];
    static uint8_t packed[1 << 20], facts_packed[1 << 17];
    char *text = __real_calloc(1, text_bytes + 1), *note = __real_calloc(1, note_bytes + 1);
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    Weir__Pb__TaskFacts facts = WEIR__PB__TASK_FACTS__INIT;
    const struct weir_job_id id = { { 0, 1, 2 } };
    memset(text, 'p', text_bytes);
    memset(note, 'n', note_bytes);
    for (size_t k = 0; k < MANY; k++) {
        weir__pb__prompt__init(&prompts[k]);
        prompts[k].text = text;
        list[k] = &prompts[k];
    }
    spec.n_prompts = MANY;
    spec.prompts = list;
    facts.note = note;
    facts.numerics_class = (char *)(uintptr_t) "cuda/sm_90/some-library-1.2.3/f32";
    assert_true(weir__pb__job_spec__get_packed_size(&spec) <= WEIR_SPEC_BYTES_MAX);
    const struct weir_ledger_job row = {
        .id = id,
        .tenant = "default",
        .plan_version = 3,
        .numerics_class = "",
        .words = "",
        .spec = { packed, weir__pb__job_spec__pack(&spec, packed) },
    };
    struct weir_ledger_call call = { .op = WEIR_LEDGER_SUBMIT, .task.job = id };
    struct weir_ledger_call *const calls[] = { &call };
    call.u.submit.job = &row;
    call.u.submit.counts[WEIR_STAGE_TEXT] = 1;
    call.u.submit.counts[WEIR_STAGE_DENOISE] = call.u.submit.counts[WEIR_STAGE_DECODE] = MANY;
    call.u.submit.ready = (struct weir_plan_range){ WEIR_STAGE_DECODE, 0, MANY };
    assert_int_equal(weir_ledger_apply(w->ledger, calls, 1, NULL), WEIR_OK);
    for (uint32_t k = 0; k < MANY; k++) {
        Weir__Pb__Done made = WEIR__PB__DONE__INIT;
        Weir__Pb__Artefact artefact = WEIR__PB__ARTEFACT__INIT, *artefacts[] = { &artefact };
        const struct weir_task_id task = { id, WEIR_STAGE_DECODE, k };
        char key[WEIR_KEY_BYTES], done[1024];
        weir_key_artefact("default", &task, digest, key);
        artefact.name = (char *)(uintptr_t) "image.png";
        artefact.media_type = (char *)(uintptr_t) "image/png";
        artefact.key = key;
        artefact.has_digest = artefact.has_bytes = artefact.has_item = artefact.has_ticket = true;
        artefact.digest = bytes_of(digest, sizeof digest);
        artefact.ticket = bytes_of(digest, WEIR_TOKEN_BYTES);
        artefact.endpoint = (char *)(uintptr_t) "ipc:///run/weir/worker-1.sock";
        artefact.item = k;
        made.n_artefacts = 1;
        made.artefacts = artefacts;
        call = (struct weir_ledger_call){ .op = WEIR_LEDGER_LEASE, .task = task, .token = { 1 } };
        strcpy(call.u.lease.numerics_class, "c");
        assert_int_equal(weir_ledger_apply(w->ledger, calls, 1, NULL), WEIR_OK);
        call = (struct weir_ledger_call){ .op = WEIR_LEDGER_COMMIT, .task = task, .token = { 1 } };
        call.u.commit.artefacts = (struct weir_blob){ done, weir__pb__done__pack(&made, (uint8_t *)done) };
        call.u.commit.facts = (struct weir_blob){ facts_packed, weir__pb__task_facts__pack(&facts, facts_packed) };
        call.job_to = k + 1 == MANY ? WEIR_JOB_SUCCEEDED : WEIR_JOB_QUEUED;
        assert_int_equal(weir_ledger_apply(w->ledger, calls, 1, NULL), WEIR_OK);
        assert_int_equal(call.reply, WEIR_LEDGER_APPLIED);
    }
    free(text);
    free(note);
    return id;
}

static const Weir__Pb__JobView *show_large_job(struct world *w, size_t text_bytes, size_t note_bytes)
{
    const struct weir_job_id id = write_large_job(w, text_bytes, note_bytes);
    Weir__Pb__Show show = WEIR__PB__SHOW__INIT;
    show.job = bytes_of(id.bytes, sizeof id.bytes);
    take(w, WEIR_SIDE_CLIENTS, CLIENT, WEIR_MESSAGE_SHOW, &show);
    flush(w);
    const Weir__Pb__JobView *view = next(w, CLIENT, WEIR_MESSAGE_JOB_VIEW);
    assert_non_null(view);
    assert_true(protobuf_c_message_get_packed_size(&view->base) <= WEIR_WIRE_CONTROL_BYTES_MAX);
    assert_int_equal(view->spec->n_prompts, MANY); /* these two are never left out */
    assert_int_equal(view->n_manifest, MANY);
    assert_int_equal(view->manifest[MANY - 1]->item, MANY - 1);
    return view;
}

static void a_view_of_a_large_job_leaves_out_what_does_not_fit(void **state)
{
    (void)state;
    static const struct {
        size_t text_bytes, note_bytes;
        bool notes, facts, tasks;
    } rows[] = { { 100, 600, true, true, true },   /* all of it: 0.6 MiB */
                 { 600, 1500, false, true, true }, /* without the receipts */
                 { 1000, 60000, false, true, true } };
    for (size_t k = 0; k < WEIR_COUNT(rows); k++) {
        struct world *w = begin();
        const Weir__Pb__JobView *view = show_large_job(w, rows[k].text_bytes, rows[k].note_bytes);
        assert_int_equal(view->n_tasks, rows[k].tasks ? 1 + 2 * MANY : 0);
        const Weir__Pb__TaskFacts *facts = view->tasks[2 * MANY]->facts;
        assert_int_equal(facts != NULL, rows[k].facts);
        if (facts != NULL) assert_int_equal(facts->note != NULL, rows[k].notes);
        end(w);
    }
}

static void a_stopping_broker_takes_no_new_jobs(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one;
    struct request request;
    join(w, &one, WORKER);
    weir_broker_close_doors(w->broker);
    submit(w, CLIENT, &request, 1, NULL);
    see_refused(w, CLIENT, WEIR_BUSY);
    end(w);
}

static void a_worker_of_another_protocol_is_told_so(void **state)
{
    (void)state;
    struct world *w = begin();
    struct worker one = { .name = WORKER };
    weir__pb__hello__init(&one.hello);
    one.hello.protocol_min = one.hello.protocol_max = WEIR_WIRE_VERSION + 1;
    one.hello.worker = bytes_of(one.id, sizeof one.id);
    one.hello.numerics_class = (char *)(uintptr_t) "c";
    take(w, WEIR_SIDE_WORKERS, WORKER, WEIR_MESSAGE_HELLO, &one.hello);
    flush(w);
    const Weir__Pb__Unsupported *answer = next(w, WORKER, WEIR_MESSAGE_UNSUPPORTED);
    assert_non_null(answer);
    assert_int_equal(answer->type, WEIR_MESSAGE_HELLO);
    end(w);
}

/* A worker and a client that repeat themselves until a film is there: what they know, and what they say next. */
struct film {
    bool welcome, accepted, succeeded;
    struct weir_job_id job;
    struct worker worker;
    struct request request;
    struct weir_task_id task;
    Weir__Pb__Credit credit;
    Weir__Pb__Quoted quoted;
    Weir__Pb__JobSpec spec;
    Weir__Pb__Done done;
    Weir__Pb__Artefact artefact;
    Weir__Pb__Artefact *artefacts[1];
    Weir__Pb__Show show;
    char key[WEIR_KEY_BYTES];
    struct weir_message messages[8];
    size_t count, from_worker;
};

static void film_done(struct world *w, struct film *film, const Weir__Pb__Lease *lease)
{
    assert_true(weir_task_id_read(lease->task, &film->task));
    weir_key_artefact("default", &film->task, digest, film->key);
    strcpy(w->keys[film->task.stage], film->key); /* the bytes are in the store */
    weir__pb__artefact__init(&film->artefact);
    film->artefact.name = film->artefact.media_type = (char *)(uintptr_t) "x";
    film->artefact.has_digest = film->artefact.has_bytes = true;
    film->artefact.digest = bytes_of(digest, sizeof digest);
    film->artefact.bytes = 5;
    film->artefact.key = film->key;
    film->artefacts[0] = &film->artefact;
    film->done.task = lease->task;
    film->done.has_token = true;
    film->done.token = lease->token;
    film->done.n_artefacts = 1;
    film->done.artefacts = film->artefacts;
}

static void film_quoted(struct film *film, uint64_t number)
{
    film->spec.has_spec_version = film->spec.has_model_digest = film->spec.has_width = film->spec.has_height = true;
    film->spec.has_frames = film->spec.has_steps = film->spec.has_n = true;
    film->spec.model = (char *)(uintptr_t) "tiny";
    film->spec.model_digest = bytes_of(digest, sizeof digest);
    film->spec.frames = 16;
    film->spec.n = 1;
    film->spec.format = (char *)(uintptr_t) "mp4";
    film->quoted.number = number;
    film->quoted.spec = &film->spec;
}

static void film_listen(struct world *w, struct film *film)
{
    weir__pb__quoted__init(&film->quoted);
    weir__pb__job_spec__init(&film->spec);
    weir__pb__done__init(&film->done);
    for (size_t k = 0; k < w->sent_count; k++) { /* all of it, each time: the latest of a kind counts */
        const union {
            const ProtobufCMessage *base;
            const Weir__Pb__Accepted *accepted;
            const Weir__Pb__JobView *view;
            const Weir__Pb__Quote *quote;
            const Weir__Pb__Lease *lease;
        } body = { w->sent[k].body };
        switch (w->sent[k].type) {
        case WEIR_MESSAGE_WHO:
            film->welcome = false;
            break;
        case WEIR_MESSAGE_WELCOME:
            film->welcome = true;
            break;
        case WEIR_MESSAGE_QUOTE:
            film_quoted(film, body.quote->number);
            break;
        case WEIR_MESSAGE_LEASE:
            film_done(w, film, body.lease);
            break;
        case WEIR_MESSAGE_JOB_VIEW:
            film->succeeded |= body.view->state == WEIR_JOB_SUCCEEDED;
            break;
        case WEIR_MESSAGE_ACCEPTED:
            film->accepted = true;
            memcpy(film->job.bytes, body.accepted->job.data, sizeof film->job.bytes);
            break;
        default:
            break;
        }
    }
}

static void film_add(struct film *film, uint8_t from, enum weir_message_type type, const ProtobufCMessage *body)
{
    film->messages[film->count++] = (struct weir_message){ .type = type, .from = { 1, { from } }, .body.base = body };
}

static void film_say(struct film *film)
{
    film->count = 0;
    if (!film->welcome) {
        fill_hello(&film->worker, WORKER);
        film_add(film, WORKER, WEIR_MESSAGE_HELLO, &film->worker.hello.base);
    }
    weir__pb__credit__init(&film->credit);
    film->credit.leases = 1;
    film_add(film, WORKER, WEIR_MESSAGE_CREDIT, &film->credit.base);
    if (film->quoted.spec != NULL) film_add(film, WORKER, WEIR_MESSAGE_QUOTED, &film->quoted.base);
    if (film->done.task != NULL) film_add(film, WORKER, WEIR_MESSAGE_DONE, &film->done.base);
    film->from_worker = film->count;
    if (film->accepted) {
        weir__pb__show__init(&film->show);
        film->show.job = bytes_of(film->job.bytes, sizeof film->job.bytes);
        film_add(film, CLIENT, WEIR_MESSAGE_SHOW, &film->show.base);
    } else {
        fill_submit(&film->request, 1, "key");
        film_add(film, CLIENT, WEIR_MESSAGE_SUBMIT, &film->request.submit.base);
    }
}

/* A turn with memory that runs out; false when the broker gave up. */
static bool film_turn(struct world *w, const struct film *film)
{
    enum weir_status status = WEIR_OK;
    memory.armed = memory.count < memory.fails_at;
    if (w->broker == NULL) status = try_start(w);
    for (size_t k = 0; k < film->count && status == WEIR_OK; k++) {
        struct weir_message message = film->messages[k];
        status = weir_broker_take(w->broker, w->now_ms, 5,
                                  k < film->from_worker ? WEIR_SIDE_WORKERS : WEIR_SIDE_CLIENTS, &message, NULL);
    }
    if (status == WEIR_OK) status = weir_broker_flush(w->broker, w->now_ms, 5, &w->wait_ms, NULL);
    memory.armed = false;
    return status == WEIR_OK;
}

/* One film from beginning to end; when the broker gives up, it is started again. True when the failing allocation was
 * reached. */
static bool film_with_failing_allocation(uint64_t fails_at)
{
    struct world *w = calloc(1, sizeof *w);
    struct film film = { 0 };
    w->now_ms = 1000;
    assert_int_equal(weir_ledger_sqlite_open(":memory:", &w->ledger, NULL), WEIR_OK);
    memory.count = 0;
    memory.fails_at = fails_at;
    for (int turn = 0; turn < 200 && !film.succeeded; turn++) {
        film_listen(w, &film);
        film_say(&film);
        w->now_ms += 300;
        if (film_turn(w, &film)) continue;
        weir_broker_destroy(&w->broker);
        film.welcome = false;
    }
    if (!film.succeeded)
        fail_msg("with allocation %llu failing the film was never finished", (unsigned long long)fails_at);
    end(w);
    return memory.count >= fails_at;
}

static void a_failing_allocation_costs_time_and_never_a_job(void **state)
{
    (void)state;
    uint64_t n = 1;
    while (film_with_failing_allocation(n)) n++;
    assert_in_range(n, 50, 100000); /* it was tried at many places, and the last time nowhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quote_that_nobody_answers_is_asked_elsewhere_after_10_s_and_refused_after_30),
        cmocka_unit_test(a_quote_that_says_no_for_good_is_the_answer_and_another_no_is_asked_on),
        cmocka_unit_test(quotes_are_asked_of_all_workers_in_turn),
        cmocka_unit_test(two_submits_under_one_key_that_wait_together_make_one_job),
        cmocka_unit_test(submits_over_a_limit_are_refused_with_a_time_to_retry),
        cmocka_unit_test(a_client_watches_64_jobs_and_no_more),
        cmocka_unit_test(progress_is_told_at_most_every_200_ms_and_changes_of_state_at_once),
        cmocka_unit_test(a_client_that_could_not_be_reached_is_told_the_end_later),
        cmocka_unit_test(checkpoints_go_with_the_job_and_the_rest_an_hour_later_but_never_the_result),
        cmocka_unit_test(a_part_of_a_batch_is_listed_and_shown_as_such),
        cmocka_unit_test(a_part_that_is_none_is_refused),
        cmocka_unit_test(a_view_of_a_large_job_leaves_out_what_does_not_fit),
        cmocka_unit_test(a_stopping_broker_takes_no_new_jobs),
        cmocka_unit_test(a_worker_of_another_protocol_is_told_so),
        cmocka_unit_test(a_failing_allocation_costs_time_and_never_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
