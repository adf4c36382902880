#include "client/cli/cluster.h"

#include "proto/base/clock.h"
#include "proto/job.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHILDREN_MAX = WEIR_CLUSTER_WORKERS_MAX + 1, /* child 0 is the broker */
    BROKER = 0,
    ARGUMENTS_MAX = 32,
    LINE_BYTES = 512,
    READY_MS = 30000,
    STOP_MS = 5000,
    BACKOFF_MIN_MS = 200,
    BACKOFF_MAX_MS = 10000,
    STABLE_MS = 30000,
    DEVICE_EXIT = 71,
    DEVICE_ENDS_MAX = 5,
};

/* One child: what it is started with, and what became of it. */
struct child {
    char name[16]; /* "weir-worker" */
    const char *arguments[ARGUMENTS_MAX];
    pid_t pid;  /* 0: not running */
    int pidfd;  /* readable when it ended */
    int stderr_fd, stdout_fd;
    uint64_t started_ms, restart_ms, backoff_ms;
    int device_ends; /* with the exit code of a lost device, one after the other, each soon after its start */
    char line[LINE_BYTES]; /* the last whole line on its stderr */
    char part[LINE_BYTES]; /* what came after it */
    size_t part_bytes;
    bool ready; /* the broker's word on stdout */
};

struct weir_cluster {
    struct weir_cluster_options options;
    char folder[PATH_MAX];                                     /* of our programs */
    char dir[PATH_MAX], run[PATH_MAX], store[PATH_MAX];        /* absolute */
    char workers_endpoint[PATH_MAX], clients_endpoint[PATH_MAX], threads[16], memory_share[16];
    char stages[WEIR_CLUSTER_WORKERS_MAX][64];
    struct child children[CHILDREN_MAX];
    int child_count;
    int wake[2];
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool stopping, serving;
    struct weir_error failure; /* code OK while all is well */
};

/* ---- the --workers spec ---------------------------------------------------------------------------------------- */

static int stage_of(const char *text, size_t length)
{
    for (unsigned stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        if (strlen(weir_stage_name(stage)) == length && memcmp(weir_stage_name(stage), text, length) == 0) return (int)stage;
    }
    return -1;
}

static enum weir_status add_workers(struct weir_cluster *c, const char *stages, long count, struct weir_error *error)
{
    for (long i = 0; i < count; i++) {
        if (c->child_count - 1 == WEIR_CLUSTER_WORKERS_MAX) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--workers %s: at most %d workers", c->options.workers,
                             WEIR_CLUSTER_WORKERS_MAX);
        }
        snprintf(c->stages[c->child_count - 1], sizeof c->stages[0], "%s", stages);
        c->child_count++;
    }
    return WEIR_OK;
}

static enum weir_status parse_stage_counts(struct weir_cluster *c, const char *spec, struct weir_error *error)
{
    long counts[WEIR_STAGE_COUNT] = { 0 };
    bool given[WEIR_STAGE_COUNT] = { false };
    for (const char *at = spec; *at;) {
        const size_t length = strcspn(at, "=,");
        const int stage = stage_of(at, length);
        char *end = NULL;
        const long count = at[length] == '=' ? strtol(at + length + 1, &end, 10) : -1;
        if (stage < 0 || !end || end == at + length + 1 || (*end && *end != ',') || count < 0 ||
            count > WEIR_CLUSTER_WORKERS_MAX || given[stage]) {
            return weir_fail(error, WEIR_BAD_ARGUMENT,
                             "--workers %s: a number is wanted, or text=N,denoise=N,decode=N[,assemble=N] with N up to %d",
                             spec, WEIR_CLUSTER_WORKERS_MAX);
        }
        counts[stage] = count;
        given[stage] = true;
        at = *end ? end + 1 : end;
    }
    for (unsigned stage = 0; stage < WEIR_STAGE_ASSEMBLE; stage++) {
        if (counts[stage] == 0) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--workers %s: nobody would do the stage %s", spec,
                             weir_stage_name(stage));
        }
        const bool assembles = stage == WEIR_STAGE_DECODE && counts[WEIR_STAGE_ASSEMBLE] == 0;
        const enum weir_status status = add_workers(c, assembles ? "decode,assemble" : weir_stage_name(stage),
                                                    counts[stage], error);
        if (status != WEIR_OK) return status;
    }
    return add_workers(c, "assemble", counts[WEIR_STAGE_ASSEMBLE], error);
}

static enum weir_status parse_workers(struct weir_cluster *c, struct weir_error *error)
{
    const char *spec = c->options.workers ? c->options.workers : "1";
    char *end = NULL;
    const long count = strtol(spec, &end, 10);
    if (end == spec || *end) return parse_stage_counts(c, spec, error);
    if (count < 1 || count > WEIR_CLUSTER_WORKERS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--workers %s: 1 to %d workers", spec, WEIR_CLUSTER_WORKERS_MAX);
    }
    return add_workers(c, "all", count, error);
}

/* ---- starting children ------------------------------------------------------------------------------------------- */

static void fill_arguments(struct child *child, const char *const *arguments)
{
    int count = 0;
    for (; arguments[count]; count++) child->arguments[count] = arguments[count];
    child->arguments[count] = NULL;
}

static void describe_children(struct weir_cluster *c)
{
    struct child *broker = &c->children[BROKER];
    snprintf(broker->name, sizeof broker->name, "weir-broker");
    fill_arguments(broker, (const char *const[]){ broker->name, "--dir", c->dir, "--store", c->store,
                                                  "--workers-endpoint", c->workers_endpoint, "--clients-endpoint",
                                                  c->clients_endpoint, "--embedded", "--supervised",
                                                  c->options.test_timers ? "--test-timers" : NULL, NULL });
    for (int i = 1; i < c->child_count; i++) {
        struct child *worker = &c->children[i];
        snprintf(worker->name, sizeof worker->name, "weir-worker");
        fill_arguments(worker, (const char *const[]){ worker->name, "--broker", c->workers_endpoint, "--model",
                                                      c->options.model, "--stages", c->stages[i - 1], "--device",
                                                      c->options.device, "--precision",
                                                      c->options.precision ? c->options.precision : "f32", "--threads", c->threads, "--store", c->store,
                                                      "--run-dir", c->run, "--supervised", "--memory-share",
                                                      c->memory_share, NULL });
    }
}

static void become(const struct weir_cluster *c, const struct child *child, const int output[2], const int errors[2],
                   pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(70); /* it died before the line above */
    const int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, 0);
    dup2(output[1], 1);
    dup2(errors[1], 2);
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", c->folder, child->name);
    execv(path, (char *const *)child->arguments);
    dprintf(2, "%s: %s\n", path, strerror(errno));
    _exit(64);
}

static enum weir_status start_child(struct weir_cluster *c, struct child *child, struct weir_error *error)
{
    int output[2] = { -1, -1 }, errors[2] = { -1, -1 };
    if (pipe2(output, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0) {
        const int code = errno;
        close(output[0]);
        close(output[1]);
        return weir_fail(error, WEIR_IO, "starting %s: %s", child->name, strerror(code));
    }
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(c, child, output, errors, parent);
    const int code = errno;
    close(output[1]);
    close(errors[1]);
    child->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pid < 0 || child->pidfd < 0) {
        close(output[0]);
        close(errors[0]);
        return weir_fail(error, WEIR_IO, "starting %s: %s", child->name, strerror(code));
    }
    fcntl(output[0], F_SETFL, O_NONBLOCK);
    fcntl(errors[0], F_SETFL, O_NONBLOCK);
    child->pid = pid;
    child->stdout_fd = output[0];
    child->stderr_fd = errors[0];
    child->started_ms = weir_clock_now_ms();
    child->part_bytes = 0;
    child->line[0] = '\0';
    return WEIR_OK;
}

/* ---- watching ------------------------------------------------------------------------------------------------------- */

static void fail(struct weir_cluster *c, enum weir_status status, const char *words)
{
    pthread_mutex_lock(&c->mutex);
    if (c->failure.code == WEIR_OK) weir_fail(&c->failure, status, "%s", words);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

static bool stop_asked(struct weir_cluster *c)
{
    pthread_mutex_lock(&c->mutex);
    const bool asked = c->stopping;
    pthread_mutex_unlock(&c->mutex);
    return asked;
}

static void take_line(struct weir_cluster *c, struct child *child)
{
    memcpy(child->line, child->part, child->part_bytes);
    child->line[child->part_bytes] = '\0';
    if (c->options.forward_log) dprintf(2, "%s\n", child->line);
    child->part_bytes = 0;
}

static void read_errors(struct weir_cluster *c, struct child *child)
{
    char bytes[1024];
    for (ssize_t got; (got = read(child->stderr_fd, bytes, sizeof bytes)) > 0;) {
        for (ssize_t i = 0; i < got; i++) {
            if (bytes[i] == '\n') take_line(c, child);
            else if (child->part_bytes < LINE_BYTES - 1) child->part[child->part_bytes++] = bytes[i];
        }
    }
}

/* The broker says `ready ...` once; everything else on a child's stdout is read away. */
static void read_output(struct weir_cluster *c, struct child *child)
{
    char bytes[256];
    ssize_t got;
    while ((got = read(child->stdout_fd, bytes, sizeof bytes)) > 0) {
        if (child->ready || got < 5 || memcmp(bytes, "ready", 5) != 0) continue;
        child->ready = true;
        pthread_mutex_lock(&c->mutex);
        c->serving = true;
        pthread_cond_broadcast(&c->changed);
        pthread_mutex_unlock(&c->mutex);
    }
}

static enum weir_status status_of_exit(int code)
{
    switch (code) {
    case 64: return WEIR_BAD_ARGUMENT;
    case 71: return WEIR_DEVICE;
    case 74: return WEIR_BAD_MODEL;
    case 75: return WEIR_IO;
    default: return WEIR_INTERNAL;
    }
}

static void close_child(struct child *child)
{
    close(child->pidfd);
    close(child->stdout_fd);
    close(child->stderr_fd);
    child->pidfd = child->stdout_fd = child->stderr_fd = -1;
    child->pid = 0;
}

/* A lost device is another's in the next process; but not one that fails time after time, since its tasks are retried
 * without end: a fault of the device is not held against them. */
static bool gives_up(struct child *child, int code, uint64_t lived_ms)
{
    child->device_ends = code == DEVICE_EXIT && lived_ms < STABLE_MS ? child->device_ends + 1 : 0;
    return child->device_ends == DEVICE_ENDS_MAX;
}

static void bury(struct weir_cluster *c, struct child *child)
{
    int state = 0;
    if (waitpid(child->pid, &state, WNOHANG) != child->pid) return;
    read_errors(c, child);
    if (child->part_bytes) take_line(c, child);
    const uint64_t now_ms = weir_clock_now_ms(), lived_ms = now_ms - child->started_ms;
    const pid_t pid = child->pid;
    close_child(child);
    if (stop_asked(c)) return;

    char words[LINE_BYTES + 64];
    const int code = WIFEXITED(state) ? WEXITSTATUS(state) : -1;
    if (child->line[0]) snprintf(words, sizeof words, "%s", child->line);
    else if (code < 0) snprintf(words, sizeof words, "%s (pid %d) was ended by signal %d", child->name, pid, WTERMSIG(state));
    else snprintf(words, sizeof words, "%s (pid %d) ended with exit code %d", child->name, pid, code);

    if (child == &c->children[BROKER]) {
        if (code < 0) snprintf(words, sizeof words, "the broker (pid %d) was ended by signal %d", pid, WTERMSIG(state));
        fail(c, status_of_exit(code), words);
    } else if (code == 64 || code == 69 || code == 74 || gives_up(child, code, lived_ms)) {
        fail(c, status_of_exit(code), words);
    } else {
        if (lived_ms >= STABLE_MS || child->backoff_ms == 0) child->backoff_ms = BACKOFF_MIN_MS;
        child->restart_ms = now_ms + child->backoff_ms;
        if (c->options.forward_log) {
            dprintf(2, "weir: worker pid=%d ended (%s %d); starting another in %llu ms\n", pid, code < 0 ? "signal" : "exit code",
                    code < 0 ? WTERMSIG(state) : code, (unsigned long long)child->backoff_ms);
        }
        child->backoff_ms = child->backoff_ms * 2 < BACKOFF_MAX_MS ? child->backoff_ms * 2 : BACKOFF_MAX_MS;
    }
}

static void restart_due(struct weir_cluster *c, uint64_t now_ms)
{
    for (int i = 1; i < c->child_count; i++) {
        struct child *child = &c->children[i];
        struct weir_error error;
        if (child->pid || !child->restart_ms || child->restart_ms > now_ms) continue;
        child->restart_ms = 0;
        if (start_child(c, child, &error) != WEIR_OK) child->restart_ms = now_ms + BACKOFF_MAX_MS;
    }
}

static int wait_ms_of(const struct weir_cluster *c, uint64_t now_ms)
{
    uint64_t wait_ms = 1000;
    for (int i = 1; i < c->child_count; i++) {
        const uint64_t due_ms = c->children[i].restart_ms;
        if (c->children[i].pid || !due_ms) continue;
        const uint64_t left_ms = due_ms > now_ms ? due_ms - now_ms : 0;
        if (left_ms < wait_ms) wait_ms = left_ms;
    }
    return (int)wait_ms;
}

static void watch_once(struct weir_cluster *c, int wait_ms)
{
    struct pollfd polled[3 * CHILDREN_MAX + 1] = { { .fd = c->wake[0], .events = POLLIN } };
    for (int i = 0; i < c->child_count; i++) {
        const struct child *child = &c->children[i];
        polled[1 + 3 * i] = (struct pollfd){ .fd = child->pid ? child->pidfd : -1, .events = POLLIN };
        polled[2 + 3 * i] = (struct pollfd){ .fd = child->pid ? child->stderr_fd : -1, .events = POLLIN };
        polled[3 + 3 * i] = (struct pollfd){ .fd = child->pid ? child->stdout_fd : -1, .events = POLLIN };
    }
    if (poll(polled, (nfds_t)(3 * c->child_count + 1), wait_ms) <= 0) return;
    char drop[8];
    if (polled[0].revents && read(c->wake[0], drop, sizeof drop) < 0) return;
    for (int i = 0; i < c->child_count; i++) {
        struct child *child = &c->children[i];
        if (polled[2 + 3 * i].revents & POLLIN) read_errors(c, child);
        if (polled[3 + 3 * i].revents & POLLIN) read_output(c, child);
        if (polled[1 + 3 * i].revents) bury(c, child);
    }
}

static bool any_left(const struct weir_cluster *c, int from, int to)
{
    for (int i = from; i < to; i++) {
        if (c->children[i].pid) return true;
    }
    return false;
}

static void end_children(struct weir_cluster *c, int from, int to)
{
    for (int i = from; i < to; i++) {
        if (c->children[i].pid) kill(c->children[i].pid, SIGTERM);
    }
    const uint64_t until_ms = weir_clock_now_ms() + STOP_MS;
    bool killed = false;
    while (any_left(c, from, to)) {
        const uint64_t now_ms = weir_clock_now_ms();
        for (int i = from; i < to && !killed && now_ms >= until_ms; i++) {
            if (c->children[i].pid) kill(c->children[i].pid, SIGKILL);
        }
        killed = killed || now_ms >= until_ms;
        watch_once(c, 100);
    }
}

/* All children are started by this thread: PR_SET_PDEATHSIG watches the thread, not the process. */
static void *watch_children(void *context)
{
    struct weir_cluster *c = context;
    struct weir_error error;
    for (int i = 0; i < c->child_count; i++) {
        if (start_child(c, &c->children[i], &error) != WEIR_OK) {
            fail(c, error.code, error.words);
            break;
        }
    }
    while (!stop_asked(c)) {
        const uint64_t now_ms = weir_clock_now_ms();
        restart_due(c, now_ms);
        watch_once(c, wait_ms_of(c, now_ms));
    }
    end_children(c, 1, c->child_count);
    end_children(c, BROKER, 1);
    return NULL;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static enum weir_status make_folder(const char *path, mode_t mode, struct weir_error *error)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST) return WEIR_OK;
    return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
}

static enum weir_status make_folders(struct weir_cluster *c, struct weir_error *error)
{
    enum weir_status status = make_folder(c->options.dir, 0700, error);
    if (status != WEIR_OK) return status;
    if (!realpath(c->options.dir, c->dir)) return weir_fail(error, WEIR_IO, "%s: %s", c->options.dir, strerror(errno));
    const size_t socket_bytes = strlen(c->dir) + strlen("/run/tensor-4194304-01234567"); /* the longest in it */
    if (socket_bytes > 107) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: its socket path would have %zu bytes, at most 107 are possible",
                         c->dir, socket_bytes);
    }
    snprintf(c->run, sizeof c->run, "%.107s/run", c->dir);
    snprintf(c->store, sizeof c->store, "%.107s/store", c->dir);
    snprintf(c->workers_endpoint, sizeof c->workers_endpoint, "ipc://%.107s/run/workers.ipc", c->dir);
    snprintf(c->clients_endpoint, sizeof c->clients_endpoint, "ipc://%.107s/run/clients.ipc", c->dir);
    status = make_folder(c->run, 0700, error);
    if (status == WEIR_OK && chmod(c->run, 0700) != 0) status = weir_fail(error, WEIR_IO, "%s: %s", c->run, strerror(errno));
    return status;
}

static enum weir_status find_programs(struct weir_cluster *c, struct weir_error *error)
{
    char self[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) return weir_fail(error, WEIR_IO, "/proc/self/exe: %s", strerror(errno));
    self[length] = '\0';
    snprintf(c->folder, sizeof c->folder, "%s", dirname(self));
    return WEIR_OK;
}

static enum weir_status wait_until_serving(struct weir_cluster *c, struct weir_error *error)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += READY_MS / 1000;
    pthread_mutex_lock(&c->mutex);
    int waited = 0;
    while (!c->serving && c->failure.code == WEIR_OK && waited == 0) {
        waited = pthread_cond_timedwait(&c->changed, &c->mutex, &until);
    }
    enum weir_status status = c->failure.code;
    if (status != WEIR_OK && error) *error = c->failure;
    if (status == WEIR_OK && !c->serving) {
        status = weir_fail(error, WEIR_TIMEOUT, "the broker did not serve within %d s", READY_MS / 1000);
    }
    pthread_mutex_unlock(&c->mutex);
    return status;
}

enum weir_status weir_cluster_start(const struct weir_cluster_options *options, struct weir_cluster **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *out = NULL;
    struct weir_cluster *c = calloc(1, sizeof *c);
    if (!c) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a cluster");
    c->options = *options;
    c->child_count = 1;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->wake[0] = c->wake[1] = -1;
    WEIR_TRY(parse_workers(c, error));
    WEIR_TRY(make_folders(c, error));
    WEIR_TRY(find_programs(c, error));
    const long cores = sysconf(_SC_NPROCESSORS_ONLN), share = cores / (c->child_count - 1);
    snprintf(c->threads, sizeof c->threads, "%lld", (long long)(options->threads ? options->threads : share > 0 ? share : 1));
    /* Together the workers plan with no more than their device has, which they alone know. */
    snprintf(c->memory_share, sizeof c->memory_share, "%d", c->child_count - 1);
    describe_children(c);
    if (pipe2(c->wake, O_CLOEXEC | O_NONBLOCK) != 0 || pthread_create(&c->thread, NULL, watch_children, c) != 0) {
        status = weir_fail(error, WEIR_IO, "starting the cluster: %s", strerror(errno));
        goto cleanup;
    }
    c->thread_started = true;
    WEIR_TRY(wait_until_serving(c, error));
    *out = c;
    return WEIR_OK;

cleanup:
    weir_cluster_stop(&c);
    return status;
}

enum weir_status weir_cluster_failed(struct weir_cluster *c, struct weir_error *error)
{
    pthread_mutex_lock(&c->mutex);
    const enum weir_status status = c->failure.code;
    if (status != WEIR_OK && error) *error = c->failure;
    pthread_mutex_unlock(&c->mutex);
    return status;
}

int weir_cluster_worker_count(const struct weir_cluster *c)
{
    return c->child_count - 1;
}

void weir_cluster_stop(struct weir_cluster **cluster_p)
{
    struct weir_cluster *c = *cluster_p;
    if (!c) return;
    if (c->thread_started) {
        pthread_mutex_lock(&c->mutex);
        c->stopping = true;
        pthread_mutex_unlock(&c->mutex);
        const ssize_t ignored = write(c->wake[1], "x", 1); /* a full pipe wakes it as well */
        (void)ignored;
        pthread_join(c->thread, NULL);
    }
    close(c->wake[0]);
    close(c->wake[1]);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    *cluster_p = NULL;
}
