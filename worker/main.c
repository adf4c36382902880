/* weir-worker: one process per device. Leases stage tasks from a broker, runs them, reports.
 *
 *   weir-worker --broker ENDPOINT --model DIR|NAME... --store URL --run-dir DIR
 *
 * Exit codes: 0 drained; 64 usage; 69 no broker, or one of another protocol; 70 internal; 71 device or memory; 74
 * model; 75 store or files. What ends it is one line on standard error. */
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/options.h"
#include "worker/catalogue.h"
#include "worker/loop.h"
#include "worker/scratch.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum {
    EXIT_PROTOCOL = 69,
    SHELF_ROWS = 1024,
    SHELF_MIB = 256,
    PEER_FIRST_MS = 1000,
    PEER_STALL_MS = 5000,
    LOST_SECONDS = 600,
    PATH_BYTES = 4096,
};

struct values {
    const char *broker, *model, *stages, *device, *precision, *store, *run_dir, *log_level;
    int64_t threads, memory_mib, memory_share, batch, lanes, lost_seconds;
    bool supervised, insecure_dev, list_models, verify, help, version;
};

#define AT(field) offsetof(struct values, field)
static const struct weir_option rows[] = {
    { .kind = WEIR_OPTION_TITLE, .help = "weir-worker --broker ENDPOINT --model DIR|NAME --store URL --run-dir DIR" },
    { "broker", 0, WEIR_OPTION_TEXT, AT(broker), .value = "ENDPOINT",
      .help = "the broker's socket for workers: ipc:///PATH" },
    { "model", 0, WEIR_OPTION_TEXT, AT(model), .value = "DIR|NAME",
      .help = "a model to serve; may be given several times" },
    { "stages", 0, WEIR_OPTION_TEXT, AT(stages), .value = "LIST",
      .help = "what it runs, of text,denoise,decode,assemble (default: all)" },
    { "device", 0, WEIR_OPTION_TEXT, AT(device), .value = "auto|cpu|ref|cuda[:GPU]",
      .help = "what it computes on (default: auto)" },
    { "precision", 0, WEIR_OPTION_CHOICE, AT(precision), .value = "f32|bf16",
      .help = "f32, or bf16: on cuda for all values of the networks, on cpu for what their products read, where the "
              "processor has AMX or AVX512-BF16 (default: f32)" },
    { "threads", 0, WEIR_OPTION_INT, AT(threads), 0, WEIR_DEVICE_THREADS_MAX, "N",
      "threads of the device's own pool (default: 0, one a core)" },
    { "memory-mib", 0, WEIR_OPTION_INT, AT(memory_mib), 1, 1 << 26, "N",
      "plan with at most so much memory (default: what the device has)" },
    { "memory-share", 0, WEIR_OPTION_INT, AT(memory_share), 1, 1024, "N",
      "plan with at most one Nth of what the device has: as many workers share it (default: 1)" },
    { "batch", 0, WEIR_OPTION_INT, AT(batch), 0, WEIR_ROWS_MAX, "N",
      "denoise up to N items at once (default: 0, as many as steps measured to pay)" },
    { "lanes", 0, WEIR_OPTION_INT, AT(lanes), 0, WEIR_LANES_MAX, "N",
      "1: stages take turns; 2: denoise runs beside the others; 3: text, too (default: WEIR_LANES, "
      "else 3 on a GPU, else 1)" },
    { "store", 0, WEIR_OPTION_TEXT, AT(store), .value = "URL", .help = "where results live: file:///DIR or a path" },
    { "run-dir", 0, WEIR_OPTION_TEXT, AT(run_dir), .value = "DIR",
      .help = "for its socket and scratch files; made with mode 0700 when missing" },
    { "lost-seconds", 0, WEIR_OPTION_INT, AT(lost_seconds), 1, 1000000, "N",
      "end after so long without a broker (default: 600)" },
    { "supervised", 0, WEIR_OPTION_FLAG, AT(supervised), .help = "end with the parent; leave Ctrl-C to it" },
    { "insecure-dev", 0, WEIR_OPTION_FLAG, AT(insecure_dev), .help = "allow plain TCP on loopback" },
    { "log-level", 0, WEIR_OPTION_CHOICE, AT(log_level), .value = "error|warn|info|debug", .help = "(default: info)" },
    { "list-models", 0, WEIR_OPTION_FLAG, AT(list_models),
      .help = "print every model that a name would find, and end" },
    { "verify", 0, WEIR_OPTION_FLAG, AT(verify), .help = "with --list-models: hash every file again" },
    { "help", 'h', WEIR_OPTION_FLAG, AT(help), .help = "print this" },
    { "version", 0, WEIR_OPTION_FLAG, AT(version), .help = "print the version" },
};

/* Everything the program holds, taken in this order and given back in reverse. */
struct program {
    struct values values;
    const char *models_asked[WEIR_MODELS_MAX];
    size_t model_count;
    unsigned stage_mask;
    struct weir_lanes lanes;
    struct weir_log log;
    char run_dir[PATH_MAX], encoder[PATH_BYTES], endpoint[WEIR_ENDPOINT_BYTES];
    struct weir_device *device;
    struct weir_models models;
    struct weir_store *store;
    struct weir_shelf *shelf;
    struct weir_encoders *encoders;
    void *zmq;
    struct weir_server server;
    struct weir_link link;
    struct weir_rows *rows;
    struct weir_stages *stages;
    struct weir_quoter quoter;
};

static enum weir_status read_stages(const char *text, unsigned *mask, struct weir_error *error)
{
    *mask = 0;
    if (strcmp(text, "all") == 0) {
        *mask = WEIR_STAGES_ALL;
        return WEIR_OK;
    }
    for (const char *word = text;; word++) {
        const size_t length = strcspn(word, ",");
        unsigned stage = 0;
        while (stage < WEIR_STAGE_COUNT &&
               (strlen(weir_stage_name(stage)) != length || strncmp(word, weir_stage_name(stage), length) != 0)) {
            stage++;
        }
        if (stage == WEIR_STAGE_COUNT) {
            return weir_fail(error, WEIR_BAD_ARGUMENT,
                             "--stages %s: \"%.*s\" is none of text, denoise, decode, assemble; or all", text,
                             (int)length, word);
        }
        *mask |= 1u << stage;
        word += length;
        if (*word == '\0') return WEIR_OK;
    }
}

/* The parser keeps the last --model; all of them are wanted. */
static enum weir_status collect_models(struct program *p, int argc, char **argv, struct weir_error *error)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *value = NULL;
        if (strncmp(argv[i], "--model=", 8) == 0) value = argv[i] + 8;
        if (strcmp(argv[i], "--model") == 0 && i + 1 < argc) value = argv[++i];
        if (!value) continue;
        if (p->model_count == WEIR_MODELS_MAX) {
            return weir_fail(error, WEIR_TOO_LARGE, "--model %s: a worker serves at most %d", value, WEIR_MODELS_MAX);
        }
        p->models_asked[p->model_count++] = value;
    }
    return WEIR_OK;
}

static enum weir_status read_options(struct program *p, int argc, char **argv, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint64_t given;
    int first_word;
    struct values *v = &p->values;
    *v = (struct values){ .stages = "all",
                          .device = "auto",
                          .precision = "f32",
                          .log_level = "info",
                          .memory_share = 1,
                          .lost_seconds = LOST_SECONDS };
    WEIR_TRY(collect_models(p, argc, argv, error));
    WEIR_TRY(weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, v, &given, &first_word, error));
    p->log = (struct weir_log){ "weir-worker", WEIR_LOG_INFO, STDERR_FILENO };
    (void)weir_log_level_parse(v->log_level, &p->log.level);
    if (v->help || v->version || v->list_models) return WEIR_OK;
    if (first_word < argc) WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "\"%s\" is no option", argv[first_word]));
    const struct {
        const char *name, *value;
    } needed[] = { { "broker", v->broker }, { "model", v->model }, { "store", v->store }, { "run-dir", v->run_dir } };
    for (size_t i = 0; i < WEIR_COUNT(needed); i++) {
        if (!needed[i].value) WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "--%s is missing", needed[i].name));
    }
    WEIR_TRY(read_stages(v->stages, &p->stage_mask, error));
cleanup:
    return status;
}

/* Before any thread is made, so that all inherit it. */
static void set_signals(const struct values *values)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGHUP);
    if (values->supervised)
        signal(SIGINT, SIG_IGN);
    else
        sigaddset(&held, SIGINT);
    pthread_sigmask(SIG_BLOCK, &held, NULL);
    signal(SIGPIPE, SIG_IGN); /* EPIPE and EFBIG are reported where they happen */
    signal(SIGXFSZ, SIG_IGN);
    if (values->supervised) prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static enum weir_status open_run_dir(struct program *p, struct weir_error *error)
{
    const char *path = p->values.run_dir;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return weir_fail(error, WEIR_IO, "--run-dir %s: %s", path, strerror(errno));
    if (!realpath(path, p->run_dir)) return weir_fail(error, WEIR_IO, "--run-dir %s: %s", path, strerror(errno));
    weir_scratch_sweep(p->run_dir);
    return WEIR_OK;
}

/* weir-encode lies beside this program. */
static enum weir_status find_encoder(struct program *p, struct weir_error *error)
{
    const ssize_t length = readlink("/proc/self/exe", p->encoder, sizeof p->encoder - 16);
    if (length <= 0) return weir_fail(error, WEIR_INTERNAL, "/proc/self/exe: %s", strerror(errno));
    p->encoder[length] = '\0';
    char *slash = strrchr(p->encoder, '/');
    strcpy(slash ? slash + 1 : p->encoder, "weir-encode");
    if (access(p->encoder, X_OK) != 0) {
        return weir_fail(error, WEIR_UNSUPPORTED, "%s: %s; it belongs beside weir-worker", p->encoder, strerror(errno));
    }
    return weir_encoders_create(p->encoder, &p->encoders, error);
}

static unsigned long long since(uint64_t begin_ms)
{
    return (unsigned long long)(weir_clock_now_ms() - begin_ms);
}

/* Of a model whose files were never seen before nearly all the time is their hashing. */
static enum weir_status open_models(struct program *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < p->model_count; i++) {
        const uint64_t begin_ms = weir_clock_now_ms();
        WEIR_TRY(weir_models_add(&p->models, p->models_asked[i], error));
        char hex[WEIR_SHA256_HEX_BYTES];
        weir_hex_write(p->models.items[i].digest, WEIR_SHA256_BYTES, hex);
        weir_log(&p->log, WEIR_LOG_INFO, "model name=%s path=%s digest=%s ms=%llu", p->models.items[i].name,
                 weir_model_dir_path(p->models.items[i].dir), hex, since(begin_ms));
    }
cleanup:
    return status;
}

static enum weir_status open_device(struct program *p, struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    enum weir_dtype precision = WEIR_F32;
    (void)weir_precision_parse(p->values.precision, &precision); /* one of the two: the options' parser saw to it */
    enum weir_status status = weir_device_open(p->values.device, (int)p->values.threads, &p->device, error);
    if (status == WEIR_OK) status = weir_device_set_precision(p->device, precision, error);
    if (status != WEIR_OK) return status;
    const uint64_t most = (uint64_t)p->values.memory_mib << 20;
    const uint64_t share = p->device->memory_all / (uint64_t)p->values.memory_share;
    if (share < p->device->memory_bytes) p->device->memory_bytes = share;
    if (most && most < p->device->memory_bytes) p->device->memory_bytes = most;
    weir_log(&p->log, WEIR_LOG_INFO, "device name=%s numerics=%s memory_bytes=%llu ms=%llu", p->device->table->name,
             p->device->numerics_class, (unsigned long long)p->device->memory_bytes, since(begin_ms));
    return WEIR_OK;
}

/* --lanes, else WEIR_LANES: so that all workers of a cluster that is tried out can be told at once. */
static enum weir_status choose_lanes(struct program *p, struct weir_error *error)
{
    const char *text = getenv("WEIR_LANES");
    uint32_t wish = (uint32_t)p->values.lanes;
    if (!wish && text && text[0]) {
        if (text[0] < '0' || text[0] > '0' + WEIR_LANES_MAX || text[1])
            return weir_fail(error, WEIR_BAD_ARGUMENT, "WEIR_LANES=%.20s: a number from 0 to %d is needed", text,
                             WEIR_LANES_MAX);
        wish = (uint32_t)(text[0] - '0');
    }
    p->lanes = weir_lanes_choose(wish, p->device);
    weir_log(&p->log, WEIR_LOG_INFO, "lanes count=%u", p->lanes.count);
    return WEIR_OK;
}

static enum weir_status open_sockets(struct program *p, struct weir_error *error)
{
    char wanted[PATH_MAX + 64];
    uint32_t random;
    p->zmq = zmq_ctx_new();
    if (!p->zmq) return weir_fail(error, WEIR_INTERNAL, "zmq_ctx_new: %s", zmq_strerror(zmq_errno()));
    weir_random_bytes(&random, sizeof random);
    snprintf(wanted, sizeof wanted, "ipc://%s/tensor-%ld-%08x", p->run_dir, (long)getpid(), random);
    p->server.shelf = p->shelf;
    p->server.chunk = malloc(WEIR_WIRE_CHUNK_BYTES_MAX);
    if (!p->server.chunk) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the tensor socket");
    return weir_wire_bind(p->zmq, wanted, WEIR_SOCKET_TENSOR, p->values.insecure_dev, &p->server.socket, p->endpoint,
                          error);
}

static enum weir_status open_all(struct program *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_shelf_limits limits = { SHELF_ROWS, (size_t)SHELF_MIB << 20 };
    WEIR_TRY(open_run_dir(p, error));
    WEIR_TRY(find_encoder(p, error));
    WEIR_TRY(weir_store_open(p->values.store, &p->store, error));
    WEIR_TRY(weir_shelf_create(&limits, p->store, &p->shelf, error));
    WEIR_TRY(open_device(p, error));
    WEIR_TRY(choose_lanes(p, error));
    WEIR_TRY(open_models(p, error));
    WEIR_TRY(open_sockets(p, error));
    p->link = (struct weir_link){ .zmq = p->zmq,
                                  .store = p->store,
                                  .shelf = p->shelf,
                                  .log = &p->log,
                                  .endpoint = p->endpoint,
                                  .insecure_dev = p->values.insecure_dev,
                                  .first_ms = PEER_FIRST_MS,
                                  .stall_ms = PEER_STALL_MS };
    WEIR_TRY(weir_rows_create((uint32_t)p->values.batch, &p->log, &p->rows, error));
    const struct weir_stages_options options = {
        .models = &p->models,
        .common = { .device = p->device,
                    .link = &p->link,
                    .encoders = p->encoders,
                    .run_dir = p->run_dir,
                    .log = &p->log },
        .rows = p->rows,
        .lanes = p->lanes,
        .stage_mask = p->stage_mask,
    };
    WEIR_TRY(weir_stages_create(&options, &p->stages, error));
    p->quoter.models = &p->models;
    p->quoter.device = p->device;
    p->quoter.encoders = p->encoders;
cleanup:
    return status;
}

static void close_all(struct program *p)
{
    weir_stages_destroy(&p->stages);
    weir_rows_destroy(&p->rows);
    if (p->server.socket) zmq_close(p->server.socket);
    free(p->server.chunk);
    if (p->zmq) zmq_ctx_term(p->zmq);
    if (strncmp(p->endpoint, "ipc://", 6) == 0) unlink(p->endpoint + 6);
    weir_models_close(&p->models);
    weir_device_close(&p->device);
    weir_shelf_destroy(&p->shelf);
    weir_store_close(&p->store);
    weir_encoders_destroy(&p->encoders);
}

static enum weir_status work(struct program *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(open_all(p, error));
    const struct weir_loop_options options = {
        .zmq = p->zmq,
        .broker = p->values.broker,
        .insecure_dev = p->values.insecure_dev,
        .log = &p->log,
        .models = &p->models,
        .device = p->device,
        .stages = p->stages,
        .lanes = p->lanes,
        .rows = p->rows,
        .quoter = &p->quoter,
        .server = &p->server,
        .tensor_endpoint = p->endpoint,
        .stage_mask = p->stage_mask,
        .lost_ms_max = (uint64_t)p->values.lost_seconds * 1000,
    };
    WEIR_TRY(weir_loop_run(&options, error));
cleanup:
    close_all(p);
    return status;
}

static int exit_code(enum weir_status status)
{
    if (status == WEIR_UNAVAILABLE || status == WEIR_PROTOCOL) return EXIT_PROTOCOL;
    return weir_status_exit_code(status);
}

int main(int argc, char **argv)
{
    struct weir_error error = { .words = "" };
    struct program *p = calloc(1, sizeof *p);
    if (!p) return weir_status_exit_code(WEIR_NO_MEMORY);
    enum weir_status status = read_options(p, argc, argv, &error);
    if (status == WEIR_OK && p->values.help) {
        weir_options_help(rows, WEIR_COUNT(rows));
    } else if (status == WEIR_OK && p->values.version) {
        puts("weir-worker " WEIR_VERSION);
    } else if (status == WEIR_OK && p->values.list_models) {
        status = weir_catalogue_print(p->values.verify, &error);
    } else if (status == WEIR_OK) {
        set_signals(&p->values);
        weir_weights_guard_install("weir-worker");
        status = work(p, &error);
    }
    if (status != WEIR_OK) fprintf(stderr, "weir-worker: %s\n", error.words);
    free(p);
    return exit_code(status);
}
