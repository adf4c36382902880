#include "tests/integration/pretend_cluster.h"

#include "proto/base/bytes.h"
#include "proto/base/clock.h"
#include "proto/wire.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

/* Not cmocka's: this runs in a thread of its own. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "pretend_cluster: %s:%d: %s\n", __FILE__, __LINE__, #condition);                           \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void say(struct pretend_cluster *c, const struct weir_routing *to, enum weir_message_type type,
                const ProtobufCMessage *body)
{
    MUST(weir_wire_send(c->socket, to, type, ++c->sequence, body, NULL) == WEIR_OK);
}

static void refuse(struct pretend_cluster *c, const struct weir_routing *to, uint64_t number, enum weir_status why,
                   const char *words, uint32_t retry_after_ms)
{
    Weir__Pb__Refused body = WEIR__PB__REFUSED__INIT;
    body.has_number = body.has_status = body.has_retry_after_ms = 1;
    body.number = number;
    body.status = why;
    body.words = (char *)words;
    body.retry_after_ms = retry_after_ms;
    say(c, to, WEIR_MESSAGE_REFUSED, &body.base);
}

static void accept_job(struct pretend_cluster *c, const struct weir_routing *to, uint64_t number,
                       const struct pretend_job *job, bool existed)
{
    Weir__Pb__Accepted body = WEIR__PB__ACCEPTED__INIT;
    body.has_number = body.has_job = body.has_existed = 1;
    body.number = number;
    body.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, (uint8_t *)job->id.bytes };
    body.existed = existed;
    say(c, to, WEIR_MESSAGE_ACCEPTED, &body.base);
}

static Weir__Pb__JobSpec *copy_of(const Weir__Pb__JobSpec *spec)
{
    const size_t bytes = weir__pb__job_spec__get_packed_size(spec);
    uint8_t *packed = malloc(bytes ? bytes : 1);
    MUST(packed);
    weir__pb__job_spec__pack(spec, packed);
    Weir__Pb__JobSpec *copy = weir__pb__job_spec__unpack(NULL, bytes, packed);
    MUST(copy);
    free(packed);
    return copy;
}

/* The line that is refused, or 0. */
static uint32_t refused_line(const struct pretend_cluster *c, const Weir__Pb__JobSpec *spec)
{
    for (size_t i = 0; i < spec->n_prompts; i++) {
        const uint32_t line = spec->prompts[i]->line;
        if (line == c->refuse_line || (c->refuse_step && line % c->refuse_step == 0)) return line;
    }
    return 0;
}

static void take_submit(struct pretend_cluster *c, const struct weir_message *message)
{
    const Weir__Pb__Submit *submit = message->body.submit;
    const Weir__Pb__JobSpec *spec = submit->spec;
    uint8_t fingerprint[WEIR_SHA256_BYTES];
    char words[80];
    c->submits++;
    if (c->deaf > 0) {
        c->deaf--;
        return;
    }
    if (c->busy > 0) {
        c->busy--;
        refuse(c, &message->from, submit->number, WEIR_BUSY, "enough", 20);
        return;
    }
    if (c->no_workers > 0) {
        c->no_workers--;
        refuse(c, &message->from, submit->number, WEIR_UNAVAILABLE, "nobody serves a model", 20);
        return;
    }
    weir_spec_fingerprint(spec, fingerprint);
    for (int i = 0; i < c->job_count; i++) {
        const struct pretend_job *job = &c->jobs[i];
        if (strcmp(job->key, submit->idempotency_key) != 0) continue;
        if (memcmp(job->fingerprint, fingerprint, sizeof fingerprint) == 0) {
            accept_job(c, &message->from, submit->number, job, true);
        } else {
            refuse(c, &message->from, submit->number, WEIR_CONFLICT, "the key was used for another request", 0);
        }
        return;
    }
    const uint32_t line = refused_line(c, spec);
    if (line) {
        snprintf(words, sizeof words, "line %u: --size 33x33: a multiple of 8 is wanted", line);
        refuse(c, &message->from, submit->number, WEIR_BAD_ARGUMENT, words, 0);
        return;
    }
    MUST(c->job_count < CLUSTER_JOBS_MAX);
    struct pretend_job *job = &c->jobs[c->job_count++];
    *job = (struct pretend_job){ .id = weir_job_id_new(), .spec = copy_of(spec), .in_batch = submit->has_batch };
    for (int i = 0; i < 2; i++) { /* in the order of their arrival, also within a millisecond */
        job->id.bytes[6 + i] = (uint8_t)(c->job_count >> (8 - 8 * i));
    }
    snprintf(job->key, sizeof job->key, "%s", submit->idempotency_key);
    memcpy(job->fingerprint, fingerprint, sizeof fingerprint);
    if (submit->has_batch) memcpy(job->batch, submit->batch.data, WEIR_ID_BYTES);
    job->part = submit->part;
    job->parts = submit->parts;
    job->state = c->stay_open ? WEIR_JOB_RUNNING : WEIR_JOB_SUCCEEDED;
    accept_job(c, &message->from, submit->number, job, false);
}

static struct pretend_job *find_job(struct pretend_cluster *c, const ProtobufCBinaryData *id)
{
    for (int i = 0; i < c->job_count; i++) {
        if (memcmp(c->jobs[i].id.bytes, id->data, WEIR_ID_BYTES) == 0) return &c->jobs[i];
    }
    return NULL;
}

/* An item of a job as an object of the store. `out` has the key's room behind it. */
struct made {
    Weir__Pb__Artefact artefact;
    char key[WEIR_KEY_BYTES];
};

static void make_item(struct pretend_cluster *c, const struct pretend_job *job, uint32_t item, struct made *out)
{
    const struct weir_task_id task = { job->id, WEIR_STAGE_DECODE, item };
    weir_key_artefact("default", &task, c->digest, out->key);
    MUST(weir_store_put(c->store, out->key, c->picture, c->picture_bytes, NULL) == WEIR_OK);
    weir__pb__artefact__init(&out->artefact);
    out->artefact.has_digest = out->artefact.has_bytes = out->artefact.has_item = 1;
    out->artefact.name = (char *)"image.png";
    out->artefact.media_type = (char *)"image/png";
    out->artefact.digest = (ProtobufCBinaryData){ sizeof c->digest, c->digest };
    out->artefact.bytes = c->picture_bytes;
    out->artefact.key = out->key;
    out->artefact.item = item;
}

static void resolve(const struct pretend_cluster *c, Weir__Pb__JobSpec *spec)
{
    spec->has_image = spec->image = 1;
    if (!spec->format) spec->format = strdup("png");
    if (!spec->has_n) spec->n = 1;
    spec->has_n = 1;
    for (size_t i = 0; c->reversed && i < spec->n_prompts / 2; i++) {
        Weir__Pb__Prompt *held = spec->prompts[i];
        spec->prompts[i] = spec->prompts[spec->n_prompts - 1 - i];
        spec->prompts[spec->n_prompts - 1 - i] = held;
    }
}

static void take_show(struct pretend_cluster *c, const struct weir_message *message)
{
    const Weir__Pb__Show *show = message->body.show;
    struct pretend_job *job = find_job(c, &show->job);
    if (!job) {
        refuse(c, &message->from, show->number, WEIR_NOT_FOUND, "no such job", 0);
        return;
    }
    Weir__Pb__JobSpec *spec = copy_of(job->spec);
    resolve(c, spec);
    const uint32_t n = spec->n, items = n * (uint32_t)(spec->n_prompts ? spec->n_prompts : 1);
    struct made *made = calloc(items, sizeof *made);
    Weir__Pb__Artefact **pointers = calloc(items, sizeof *pointers);
    Weir__Pb__JobView view = WEIR__PB__JOB_VIEW__INIT;
    MUST(made && pointers);
    for (uint32_t i = 0; i < items && weir_job_state_terminal(job->state) && job->state != WEIR_JOB_CANCELLED; i++) {
        if (spec->n_prompts && spec->prompts[i / n]->line == c->lose_line) {
            job->state = WEIR_JOB_FAILED;
            view.has_cause = 1;
            view.cause = WEIR_DEVICE;
            view.words = (char *)"the device is gone; items are lost";
            continue;
        }
        make_item(c, job, i, &made[i]);
        pointers[view.n_manifest++] = &made[i].artefact;
    }
    view.manifest = pointers;
    view.has_number = view.has_job = view.has_state = view.has_created_ms = view.has_finished_ms = 1;
    view.number = show->number;
    view.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, job->id.bytes };
    view.state = job->state;
    view.spec = spec;
    view.created_ms = view.finished_ms = weir_clock_wall_ms();
    if (job->in_batch) {
        view.has_batch = view.has_part = view.has_parts = 1;
        view.batch = (ProtobufCBinaryData){ WEIR_ID_BYTES, job->batch };
        view.part = job->part;
        view.parts = job->parts;
    }
    say(c, &message->from, WEIR_MESSAGE_JOB_VIEW, &view.base);
    weir__pb__job_spec__free_unpacked(spec, NULL);
    free(made);
    free(pointers);
}

static void take_list(struct pretend_cluster *c, const struct weir_message *message)
{
    const Weir__Pb__List *list = message->body.list;
    Weir__Pb__JobLine *lines = calloc((size_t)c->job_count + 1, sizeof *lines), **pointers;
    pointers = calloc((size_t)c->job_count + 1, sizeof *pointers);
    Weir__Pb__Jobs jobs = WEIR__PB__JOBS__INIT;
    MUST(lines && pointers);
    for (int i = c->job_count - 1; i >= 0 && jobs.n_jobs < list->limit; i--) {
        struct pretend_job *job = &c->jobs[i];
        if (list->has_before && memcmp(job->id.bytes, list->before.data, WEIR_ID_BYTES) >= 0) continue;
        if (list->has_batch && (!job->in_batch || memcmp(job->batch, list->batch.data, WEIR_ID_BYTES) != 0)) continue;
        Weir__Pb__JobLine *line = pointers[jobs.n_jobs] = &lines[jobs.n_jobs];
        jobs.n_jobs++;
        weir__pb__job_line__init(line);
        line->has_job = line->has_state = 1;
        line->job = (ProtobufCBinaryData){ WEIR_ID_BYTES, job->id.bytes };
        line->state = job->state;
        line->prompt = (char *)"a prompt";
        if (!job->in_batch) continue;
        line->has_batch = line->has_part = line->has_parts = 1;
        line->batch = (ProtobufCBinaryData){ WEIR_ID_BYTES, job->batch };
        line->part = job->part;
        line->parts = job->parts;
    }
    jobs.has_number = 1;
    jobs.number = list->number;
    jobs.jobs = pointers;
    say(c, &message->from, WEIR_MESSAGE_JOBS, &jobs.base);
    free(lines);
    free(pointers);
}

static void take_cancel(struct pretend_cluster *c, const struct weir_message *message)
{
    const Weir__Pb__CancelJob *cancel = message->body.cancel_job;
    struct pretend_job *job = find_job(c, &cancel->job);
    if (!job || weir_job_state_terminal(job->state)) {
        refuse(c, &message->from, cancel->number, job ? WEIR_CONFLICT : WEIR_NOT_FOUND, "it has ended", 0);
        return;
    }
    job->state = WEIR_JOB_CANCELLED;
    accept_job(c, &message->from, cancel->number, job, true);
}

static void take_status(struct pretend_cluster *c, const struct weir_message *message)
{
    uint8_t worker_id[WEIR_ID_BYTES] = { 1 };
    Weir__Pb__WorkerView worker = WEIR__PB__WORKER_VIEW__INIT, *workers[] = { &worker };
    Weir__Pb__StatusView view = WEIR__PB__STATUS_VIEW__INIT;
    worker.has_worker = 1;
    worker.worker = (ProtobufCBinaryData){ sizeof worker_id, worker_id };
    worker.numerics_class = (char *)"ref-pretend";
    view.has_number = 1;
    view.number = message->body.status->number;
    view.store = c->hide_store ? (char *)"/nowhere/store" : c->store_path;
    view.n_workers = c->no_workers > 0 ? 0 : 1;
    view.workers = workers;
    say(c, &message->from, WEIR_MESSAGE_STATUS_VIEW, &view.base);
}

static void take(struct pretend_cluster *c, const struct weir_message *message)
{
    switch (message->type) {
    case WEIR_MESSAGE_SUBMIT:
        take_submit(c, message);
        break;
    case WEIR_MESSAGE_SHOW:
        take_show(c, message);
        break;
    case WEIR_MESSAGE_LIST:
        take_list(c, message);
        break;
    case WEIR_MESSAGE_CANCEL_JOB:
        take_cancel(c, message);
        break;
    case WEIR_MESSAGE_STATUS:
        take_status(c, message);
        break;
    default:
        break;
    }
}

/* What has come by the time that one message was dealt with came at once. */
static void *serve(void *context)
{
    struct pretend_cluster *c = context;
    for (bool stop = false; !stop;) {
        struct weir_message messages[16];
        uint32_t seen;
        int count = 0;
        zmq_pollitem_t item = { .socket = c->socket, .events = ZMQ_POLLIN };
        if (zmq_poll(&item, 1, 20) > 0) usleep(2000);
        while (count < 16 &&
               weir_wire_receive(c->socket, true, WEIR_DIRECTION_C, &messages[count], &seen, NULL) == WEIR_OK) {
            count++;
        }
        pthread_mutex_lock(&c->mutex);
        if (count > c->most_at_once) c->most_at_once = count;
        for (int i = 0; i < count; i++) {
            take(c, &messages[i]);
            weir_message_release(&messages[i]);
        }
        stop = c->stop;
        pthread_mutex_unlock(&c->mutex);
    }
    return NULL;
}

void pretend_cluster_prepare(struct pretend_cluster *c)
{
    char path[128], command[512];
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->mutex, NULL);
    strcpy(c->dir, "/tmp/weir-cluster-XXXXXX");
    MUST(mkdtemp(c->dir));
    snprintf(path, sizeof path, "%s/run", c->dir);
    MUST(mkdir(path, 0700) == 0);
    snprintf(c->store_path, sizeof c->store_path, "%s/store", c->dir);
    MUST(weir_store_open(c->store_path, &c->store, NULL) == WEIR_OK);
    snprintf(path, sizeof path, "%s/picture.png", c->dir);
    snprintf(command, sizeof command,
             "head -c 192000 /dev/urandom | %s/weir-encode image --width 320 --height 200 --format png -o %s",
             WEIR_BIN_DIR, path);
    MUST(system(command) == 0);
    MUST(weir_file_read(path, 1 << 20, (char **)&c->picture, &c->picture_bytes, NULL) == WEIR_OK);
    weir_sha256_of(c->picture, c->picture_bytes, c->digest);
    c->zmq = zmq_ctx_new();
}

void pretend_cluster_start(struct pretend_cluster *c)
{
    char endpoint[WEIR_ENDPOINT_BYTES];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/run/clients.ipc", c->dir);
    MUST(weir_wire_bind(c->zmq, endpoint, WEIR_SOCKET_CONTROL, false, &c->socket, NULL, NULL) == WEIR_OK);
    MUST(pthread_create(&c->thread, NULL, serve, c) == 0);
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

void pretend_cluster_stop(struct pretend_cluster *c)
{
    if (c->socket) {
        pthread_mutex_lock(&c->mutex);
        c->stop = true;
        pthread_mutex_unlock(&c->mutex);
        pthread_join(c->thread, NULL);
        zmq_close(c->socket);
    }
    zmq_ctx_term(c->zmq);
    weir_store_close(&c->store);
    for (int i = 0; i < c->job_count; i++) weir__pb__job_spec__free_unpacked(c->jobs[i].spec, NULL);
    free(c->picture);
    pthread_mutex_destroy(&c->mutex);
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
