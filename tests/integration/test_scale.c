/* A batch of 100,352 prompts in 196 jobs on one real broker: how long it takes to admit, what memory it takes, what a
 * lease costs while all of it is open, whether LIST gives all of it, and how long a cancel takes. A pretend worker quotes
 * without a model, so what is measured is the broker alone (and this program, which packs and reads the messages).
 *
 * The promise is 10 s and 150 MiB on two free cores; on a shared machine only the memory is held to it. */
#include "proto/base/clock.h"
#include "proto/job.h"
#include "proto/wire.h"
#include "store/store.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#define JOBS 12
#else
#define SANITIZED 0
#define JOBS 196
#endif
#define PROMPTS 512
#define TASKS (3 * PROMPTS) /* of one job: every prompt has a text of its own */
#define WINDOW 8            /* submits that wait for their answers */
#define SLOTS 32
#define RUN_TASKS 400
#define WAIT_MS 120000
#define ADMIT_MS_MAX 60000
#define CANCEL_MS_MAX 60000
#define RSS_KIB_MAX (150 * 1024)

struct world {
    char dir[64];
    pid_t broker;
    char workers[WEIR_ENDPOINT_BYTES], clients[WEIR_ENDPOINT_BYTES];
    void *zmq, *worker, *client;
    uint64_t worker_sequence, client_sequence, pinged_ms;
    uint8_t batch[WEIR_ID_BYTES];
    struct weir_job_id jobs[JOBS];
    uint32_t submitted, accepted, cancelled;
    struct weir_store *store;
    uint32_t leases, acks;
    bool welcome; /* it is known to this broker */
    /* of the request, filled once a job */
    Weir__Pb__Prompt prompts[PROMPTS], *list[PROMPTS];
    char texts[PROMPTS][96];
};

static const uint8_t model_digest[WEIR_SHA256_BYTES] = { 7, 7, 7 };

static void start_broker(struct world *w)
{
    int fds[2];
    char line[512] = { 0 };
    size_t used = 0;
    assert_int_equal(pipe(fds), 0);
    w->broker = fork();
    assert_true(w->broker >= 0);
    if (w->broker == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        execl(WEIR_BIN_DIR "/weir-broker", "weir-broker", "--dir", w->dir, "--log-level", "error", "--supervised",
              (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    while (strchr(line, '\n') == NULL) {
        const ssize_t got = read(fds[0], line + used, sizeof line - 1 - used);
        assert_true(got > 0);
        used += (size_t)got;
    }
    close(fds[0]);
    assert_int_equal(sscanf(line, "ready workers=%127s clients=%127s", w->workers, w->clients), 2);
}

static int stop_broker(struct world *w)
{
    int state = 0;
    kill(w->broker, SIGTERM);
    assert_int_equal(waitpid(w->broker, &state, 0), w->broker);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

/* A line "VmHWM:    1234 kB" of the broker's status. */
static long status_kib(const struct world *w, const char *name)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)w->broker);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) kib = strtol(line + strlen(name), NULL, 10);
    }
    fclose(file);
    return kib;
}

static double cpu_seconds(const struct world *w)
{
    char path[64];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)w->broker);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel), 2);
    fclose(file);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- talking ---- */

static ProtobufCBinaryData bytes_of(const void *bytes, size_t count)
{
    return (ProtobufCBinaryData){ count, (uint8_t *)(uintptr_t)bytes };
}

static void say(void *socket, uint64_t *sequence, enum weir_message_type type, const void *body)
{
    const uint64_t until_ms = weir_clock_now_ms() + WAIT_MS;
    while (weir_wire_send(socket, NULL, type, ++*sequence, body, NULL) != WEIR_OK) {
        assert_true(weir_clock_now_ms() < until_ms);
        poll(NULL, 0, 1);
    }
}

static void hello(struct world *w)
{
    Weir__Pb__ModelFacts facts = WEIR__PB__MODEL_FACTS__INIT;
    Weir__Pb__ModelFacts *list[] = { &facts };
    Weir__Pb__Hello body = WEIR__PB__HELLO__INIT;
    static const uint8_t id[WEIR_ID_BYTES] = { 1, 2, 3 };
    facts.name = (char *)(uintptr_t) "tiny";
    facts.has_digest = true;
    facts.digest = bytes_of(model_digest, sizeof model_digest);
    facts.pipeline = (char *)(uintptr_t) "p";
    body.has_protocol_min = body.has_protocol_max = body.has_worker = body.has_stages = body.has_slots = true;
    body.protocol_min = body.protocol_max = 1;
    body.worker = bytes_of(id, sizeof id);
    body.numerics_class = (char *)(uintptr_t) "pretend/1";
    body.stages = WEIR_STAGES_ALL;
    body.slots = SLOTS;
    body.n_models = 1;
    body.models = list;
    say(w->worker, &w->worker_sequence, WEIR_MESSAGE_HELLO, &body.base);
}

static void credit(struct world *w, uint32_t leases)
{
    Weir__Pb__Credit body = WEIR__PB__CREDIT__INIT;
    body.has_leases = true;
    body.leases = leases;
    say(w->worker, &w->worker_sequence, WEIR_MESSAGE_CREDIT, &body.base);
}

static void submit(struct world *w, uint32_t part)
{
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    Weir__Pb__Submit body = WEIR__PB__SUBMIT__INIT;
    char key[32];
    for (uint32_t k = 0; k < PROMPTS; k++) {
        weir__pb__prompt__init(&w->prompts[k]);
        snprintf(w->texts[k], sizeof w->texts[k], "prompt %u of a batch: a small red circle above a large blue square",
                 part * PROMPTS + k);
        w->prompts[k].text = w->texts[k];
        w->list[k] = &w->prompts[k];
    }
    snprintf(key, sizeof key, "part-%u", part);
    spec.model = (char *)(uintptr_t) "tiny";
    spec.n_prompts = PROMPTS;
    spec.prompts = w->list;
    body.has_number = body.has_batch = body.has_part = body.has_parts = true;
    body.number = part;
    body.spec = &spec;
    body.idempotency_key = key;
    body.batch = bytes_of(w->batch, sizeof w->batch);
    body.part = part;
    body.parts = JOBS;
    say(w->client, &w->client_sequence, WEIR_MESSAGE_SUBMIT, &body.base);
}

static void quote(struct world *w, const Weir__Pb__Quote *asked)
{
    static Weir__Pb__Prompt prompts[PROMPTS], *list[PROMPTS];
    Weir__Pb__JobSpec spec = *asked->spec;
    Weir__Pb__Quoted body = WEIR__PB__QUOTED__INIT;
    assert_int_equal(spec.n_prompts, PROMPTS);
    for (size_t k = 0; k < PROMPTS; k++) {
        list[k] = &prompts[k];
        prompts[k] = *asked->spec->prompts[k];
        prompts[k].negative = (char *)(uintptr_t) "blurred, cropped, too dark";
        prompts[k].has_width = prompts[k].has_height = prompts[k].has_steps = prompts[k].has_guidance = true;
        prompts[k].has_seed = prompts[k].has_line = true;
        prompts[k].width = prompts[k].height = 1024;
        prompts[k].steps = 20;
        prompts[k].guidance = 4.5;
        prompts[k].seed = 1000 + k;
        prompts[k].line = (uint32_t)k + 1;
    }
    spec.prompts = list;
    spec.has_spec_version = spec.has_model_digest = spec.has_width = spec.has_height = spec.has_frames = true;
    spec.has_steps = spec.has_n = spec.has_image = spec.image = true;
    spec.spec_version = 1;
    spec.model_digest = bytes_of(model_digest, sizeof model_digest);
    spec.width = spec.height = 1024;
    spec.frames = spec.n = 1;
    spec.steps = 20;
    spec.format = (char *)(uintptr_t) "png";
    body.has_number = body.has_status = body.has_cost_ms = true;
    body.number = asked->number;
    body.cost_ms = 1000;
    body.spec = &spec;
    say(w->worker, &w->worker_sequence, WEIR_MESSAGE_QUOTED, &body.base);
}

static void done(struct world *w, const Weir__Pb__Lease *lease)
{
    Weir__Pb__Artefact artefact = WEIR__PB__ARTEFACT__INIT;
    Weir__Pb__Artefact *list[] = { &artefact };
    Weir__Pb__Done body = WEIR__PB__DONE__INIT;
    struct weir_task_id task;
    uint8_t digest[WEIR_SHA256_BYTES];
    char key[WEIR_KEY_BYTES];
    assert_true(weir_task_id_read(lease->task, &task));
    assert_non_null(lease->spec->prompt);
    weir_sha256_of("x", 1, digest);
    weir_key_artefact("default", &task, digest, key);
    assert_int_equal(weir_store_put(w->store, key, "x", 1, NULL), WEIR_OK);
    artefact.name = (char *)(uintptr_t) "thing";
    artefact.has_digest = artefact.has_bytes = true;
    artefact.digest = bytes_of(digest, sizeof digest);
    artefact.bytes = 1;
    artefact.media_type = (char *)(uintptr_t) "text/plain";
    artefact.key = key;
    body.task = lease->task;
    body.has_token = true;
    body.token = lease->token;
    body.n_artefacts = 1;
    body.artefacts = list;
    say(w->worker, &w->worker_sequence, WEIR_MESSAGE_DONE, &body.base);
}

static void on_worker(struct world *w, const struct weir_message *message)
{
    if (message->type == WEIR_MESSAGE_QUOTE) quote(w, message->body.quote);
    if (message->type == WEIR_MESSAGE_WHO) hello(w);
    if (message->type == WEIR_MESSAGE_WELCOME) w->welcome = true;
    if (message->type == WEIR_MESSAGE_DONE_ACK) w->acks++;
    if (message->type == WEIR_MESSAGE_LEASE) {
        w->leases++;
        done(w, message->body.lease);
        if (w->leases + SLOTS < RUN_TASKS) credit(w, SLOTS); /* it has that many, and is given the next */
    }
}

static void on_client(struct world *w, const struct weir_message *message)
{
    if (message->type == WEIR_MESSAGE_REFUSED) fail_msg("refused: %s", message->body.refused->words);
    if (message->type != WEIR_MESSAGE_ACCEPTED) return;
    const uint64_t number = message->body.accepted->number;
    if (number < JOBS) {
        memcpy(w->jobs[number].bytes, message->body.accepted->job.data, WEIR_ID_BYTES);
        w->accepted++;
        if (w->submitted < JOBS) submit(w, w->submitted++);
    } else {
        w->cancelled++;
    }
}

/* One message of each side, when there is one. */
static void turn(struct world *w)
{
    zmq_pollitem_t items[] = { { .socket = w->worker, .events = ZMQ_POLLIN },
                               { .socket = w->client, .events = ZMQ_POLLIN } };
    const uint64_t now_ms = weir_clock_now_ms();
    if (now_ms - w->pinged_ms > 300) {
        const Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
        w->pinged_ms = now_ms;
        weir_wire_send(w->worker, NULL, WEIR_MESSAGE_PING, ++w->worker_sequence, &ping.base, NULL);
    }
    zmq_poll(items, 2, 20);
    for (int side = 0; side < 2; side++) {
        struct weir_message message = { 0 };
        uint32_t seen = 0;
        struct weir_error error = { 0 };
        const enum weir_status status = weir_wire_receive(
            items[side].socket, false, side == 0 ? WEIR_DIRECTION_B : WEIR_DIRECTION_A, &message, &seen, &error);
        if (status == WEIR_TIMEOUT) continue;
        if (status != WEIR_OK) fail_msg("%s", error.words);
        if (side == 0)
            on_worker(w, &message);
        else
            on_client(w, &message);
        weir_message_release(&message);
    }
}

static void turn_until(struct world *w, const uint32_t *count, uint32_t wanted)
{
    const uint64_t until_ms = weir_clock_now_ms() + WAIT_MS;
    while (*count < wanted) {
        turn(w);
        if (weir_clock_now_ms() > until_ms) fail_msg("%u of %u after %d s", *count, wanted, WAIT_MS / 1000);
    }
}

/* What answers a question of the client; the worker is kept alive meanwhile. */
static struct weir_message answer(struct world *w, enum weir_message_type type)
{
    const uint64_t until_ms = weir_clock_now_ms() + WAIT_MS;
    for (;;) {
        struct weir_message message = { 0 };
        uint32_t seen = 0;
        const Weir__Pb__Ping ping = WEIR__PB__PING__INIT;
        weir_wire_send(w->worker, NULL, WEIR_MESSAGE_PING, ++w->worker_sequence, &ping.base, NULL);
        zmq_pollitem_t item = { .socket = w->client, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, 100);
        if (weir_wire_receive(w->client, false, WEIR_DIRECTION_A, &message, &seen, NULL) == WEIR_OK) {
            if (message.type == type) return message;
            weir_message_release(&message);
        }
        if (weir_clock_now_ms() > until_ms) fail_msg("no %s came", weir_message_name(type));
    }
}

/* Pages through LIST of the batch: every part once. */
static void see_all_listed(struct world *w)
{
    bool seen[JOBS] = { false };
    uint8_t before[WEIR_ID_BYTES];
    uint32_t found = 0;
    for (bool first = true, more = true; more; first = false) {
        Weir__Pb__List body = WEIR__PB__LIST__INIT;
        body.has_number = body.has_limit = body.has_batch = true;
        body.number = 1;
        body.limit = 50;
        body.batch = bytes_of(w->batch, sizeof w->batch);
        body.has_before = !first;
        body.before = bytes_of(before, first ? 0 : sizeof before);
        say(w->client, &w->client_sequence, WEIR_MESSAGE_LIST, &body.base);
        struct weir_message message = answer(w, WEIR_MESSAGE_JOBS);
        const Weir__Pb__Jobs *jobs = message.body.jobs;
        more = jobs->n_jobs == 50;
        for (size_t k = 0; k < jobs->n_jobs; k++) {
            const Weir__Pb__JobLine *line = jobs->jobs[k];
            assert_memory_equal(line->batch.data, w->batch, WEIR_ID_BYTES);
            assert_true(line->part < JOBS && line->parts == JOBS && !seen[line->part]);
            assert_memory_equal(line->job.data, w->jobs[line->part].bytes, WEIR_ID_BYTES);
            assert_int_equal(line->tasks, TASKS);
            assert_non_null(strstr(line->prompt, "of a batch"));
            seen[line->part] = true;
            found++;
            memcpy(before, line->job.data, sizeof before);
        }
        weir_message_release(&message);
    }
    assert_int_equal(found, JOBS);
}

static uint32_t jobs_open(struct world *w)
{
    Weir__Pb__Status body = WEIR__PB__STATUS__INIT;
    body.has_number = true;
    say(w->client, &w->client_sequence, WEIR_MESSAGE_STATUS, &body.base);
    struct weir_message message = answer(w, WEIR_MESSAGE_STATUS_VIEW);
    const uint32_t open = message.body.status_view->jobs_open;
    weir_message_release(&message);
    return open;
}

/* What a person who asks for one job of the batch gets: its 512 prompts and 1,536 tasks. */
static void see_shown(struct world *w)
{
    Weir__Pb__Show body = WEIR__PB__SHOW__INIT;
    body.has_number = body.has_job = true;
    body.job = bytes_of(w->jobs[JOBS - 1].bytes, WEIR_ID_BYTES);
    say(w->client, &w->client_sequence, WEIR_MESSAGE_SHOW, &body.base);
    struct weir_message message = answer(w, WEIR_MESSAGE_JOB_VIEW);
    const Weir__Pb__JobView *view = message.body.job_view;
    assert_int_equal(view->spec->n_prompts, PROMPTS);
    assert_int_equal(view->n_tasks, TASKS);
    assert_int_equal(view->part, JOBS - 1);
    assert_int_equal(view->parts, JOBS);
    assert_memory_equal(view->batch.data, w->batch, WEIR_ID_BYTES);
    weir_message_release(&message);
}

static void a_batch_of_a_hundred_thousand_prompts_is_admitted_listed_and_cancelled(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    char command[128], store[96];
    assert_non_null(w);
    strcpy(w->dir, "/tmp/weir-scale-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    weir_random_bytes(w->batch, sizeof w->batch);
    w->zmq = zmq_ctx_new();
    start_broker(w);
    snprintf(store, sizeof store, "%s/store", w->dir);
    assert_int_equal(weir_store_open(store, &w->store, NULL), WEIR_OK);
    assert_int_equal(weir_wire_connect(w->zmq, w->workers, WEIR_SOCKET_CONTROL, false, &w->worker, NULL), WEIR_OK);
    assert_int_equal(weir_wire_connect(w->zmq, w->clients, WEIR_SOCKET_CONTROL, false, &w->client, NULL), WEIR_OK);
    hello(w);
    printf("jobs=%d prompts=%d tasks=%d rss_before_kib=%ld\n", JOBS, JOBS * PROMPTS, JOBS * TASKS,
           status_kib(w, "VmRSS:"));

    const double cpu_start = cpu_seconds(w);
    uint64_t start_ms = weir_clock_now_ms();
    while (w->submitted < WINDOW) submit(w, w->submitted++);
    turn_until(w, &w->accepted, JOBS);
    const uint64_t admit_ms = weir_clock_now_ms() - start_ms;
    printf("admitted_s=%.2f broker_cpu_s=%.2f rss_kib=%ld peak_kib=%ld\n", (double)admit_ms / 1e3,
           cpu_seconds(w) - cpu_start, status_kib(w, "VmRSS:"), status_kib(w, "VmHWM:"));
    assert_int_equal(jobs_open(w), JOBS);

    start_ms = weir_clock_now_ms();
    see_all_listed(w);
    printf("listed_s=%.2f\n", (double)(weir_clock_now_ms() - start_ms) / 1e3);
    see_shown(w);

    const long peak_kib = status_kib(w, "VmHWM:"); /* of the broker that admitted it */
    w->welcome = false;
    assert_int_equal(stop_broker(w), 0);
    start_ms = weir_clock_now_ms();
    start_broker(w); /* it reads all of it again */
    printf("restarted_s=%.2f rss_kib=%ld peak_kib=%ld\n", (double)(weir_clock_now_ms() - start_ms) / 1e3,
           status_kib(w, "VmRSS:"), status_kib(w, "VmHWM:"));
    assert_int_equal(jobs_open(w), JOBS);

    const double cpu_run = cpu_seconds(w);
    start_ms = weir_clock_now_ms();
    while (!w->welcome) turn(w);
    credit(w, SLOTS);
    turn_until(w, &w->acks, RUN_TASKS);
    printf("tasks_run=%u run_s=%.2f broker_cpu_us_a_task=%.0f\n", w->acks,
           (double)(weir_clock_now_ms() - start_ms) / 1e3, (cpu_seconds(w) - cpu_run) * 1e6 / w->acks);

    const double cpu_cancel = cpu_seconds(w);
    start_ms = weir_clock_now_ms();
    for (uint32_t k = 0; k < JOBS; k++) {
        Weir__Pb__CancelJob body = WEIR__PB__CANCEL_JOB__INIT;
        body.has_number = body.has_job = true;
        body.number = JOBS + k;
        body.job = bytes_of(w->jobs[k].bytes, WEIR_ID_BYTES);
        say(w->client, &w->client_sequence, WEIR_MESSAGE_CANCEL_JOB, &body.base);
    }
    turn_until(w, &w->cancelled, JOBS);
    while (jobs_open(w) > 0) assert_true(weir_clock_now_ms() - start_ms < CANCEL_MS_MAX);
    const uint64_t cancel_ms = weir_clock_now_ms() - start_ms;
    printf("cancelled_s=%.2f broker_cpu_s=%.2f rss_kib=%ld peak_kib=%ld\n", (double)cancel_ms / 1e3,
           cpu_seconds(w) - cpu_cancel, status_kib(w, "VmRSS:"), status_kib(w, "VmHWM:"));
    see_all_listed(w);
    assert_true(admit_ms < ADMIT_MS_MAX);
    if (!SANITIZED) assert_true(peak_kib <= RSS_KIB_MAX && status_kib(w, "VmHWM:") <= RSS_KIB_MAX);

    zmq_close(w->worker);
    zmq_close(w->client);
    zmq_ctx_term(w->zmq);
    assert_int_equal(stop_broker(w), 0);
    weir_store_close(&w->store);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_of_a_hundred_thousand_prompts_is_admitted_listed_and_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
