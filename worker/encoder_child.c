#include "worker/encoder_child.h"

#include "proto/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_MS = 100, WORDS_MAX = 8192, PIPE_BYTES = 1 << 20, TO_CHILD = 0, FROM_CHILD = 1, SAID = 2, PIPES = 3 };
extern char **environ;

struct heard {
    char text[WEIR_ENCODER_TEXT_BYTES];
    size_t count;
    int fd;
};

struct weir_encoder_child {
    pid_t pid; /* 0 once it was reaped */
    int result;
    int input; /* -1 once closed */
    struct heard out, err;
    const atomic_bool *cancel;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ours[i] is our end, theirs[i] the child's. 0 or errno. */
static int make_pipes(int ours[PIPES], int theirs[PIPES])
{
    for (int i = 0; i < PIPES; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) return errno;
        ours[i] = ends[i == TO_CHILD];
        theirs[i] = ends[i != TO_CHILD];
        if (fcntl(ours[i], F_SETFL, O_NONBLOCK) != 0) return errno;
    }
    (void)fcntl(ours[TO_CHILD], F_SETPIPE_SZ, PIPE_BYTES); /* a frame in a few turns instead of fifty, where it may */
    return 0;
}

/* Signals as a program expects them, whatever this one blocks or ignores. 0 or errno. */
static int spawn(const char *program, const char *const *words, const int theirs[PIPES], pid_t *pid)
{
    char **argv = calloc(WORDS_MAX + 2, sizeof *argv);
    if (!argv) return ENOMEM;
    argv[0] = (char *)(uintptr_t) "weir-encode";
    for (size_t i = 0; words[i]; i++) {
        assert(i < WORDS_MAX);
        argv[i + 1] = (char *)(uintptr_t)words[i];
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    sigaddset(&standard, SIGPIPE);
    sigaddset(&standard, SIGXFSZ);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    int failed = 0;
    for (int i = 0; i < PIPES && !failed; i++) failed = posix_spawn_file_actions_adddup2(&files, theirs[i], i);
    if (!failed) failed = posix_spawn(pid, program, &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    free(argv);
    return failed;
}

enum weir_status weir_encoder_child_start(const char *program, const char *const *words, const atomic_bool *cancel,
                                          struct weir_encoder_child **out, struct weir_error *error)
{
    int ours[PIPES] = { -1, -1, -1 }, theirs[PIPES] = { -1, -1, -1 };
    struct weir_encoder_child *child = calloc(1, sizeof *child);
    *out = NULL;
    if (!child) return weir_fail(error, WEIR_NO_MEMORY, "no memory to start %s", program);
    enum weir_status status = WEIR_OK;
    int failed = make_pipes(ours, theirs);
    if (!failed) failed = spawn(program, words, theirs, &child->pid);
    if (failed) {
        status = weir_fail(error, failed == ENOENT || failed == EACCES ? WEIR_UNSUPPORTED : WEIR_INTERNAL, "%s: %s",
                           program, strerror(failed));
    }
    for (int i = 0; i < PIPES; i++) {
        close_fd(&theirs[i]);
        if (failed) close_fd(&ours[i]);
    }
    if (failed) {
        free(child);
        return status;
    }
    child->input = ours[TO_CHILD];
    child->out.fd = ours[FROM_CHILD];
    child->err.fd = ours[SAID];
    child->cancel = cancel;
    *out = child;
    return WEIR_OK;
}

/* Reads what is there; what does not fit is read away. */
static void listen_to(struct heard *heard)
{
    char spare[4096];
    for (;;) {
        const size_t room = sizeof heard->text - 1 - heard->count;
        const ssize_t got =
            room ? read(heard->fd, heard->text + heard->count, room) : read(heard->fd, spare, sizeof spare);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) break;
        if (room) heard->count += (size_t)got;
        heard->text[heard->count] = '\0';
    }
    close_fd(&heard->fd);
}

static enum weir_status wait_for(struct weir_encoder_child *child, bool to_write, bool *ready, uint64_t deadline_ms,
                                 struct weir_error *error)
{
    struct pollfd items[3] = { { .fd = child->out.fd, .events = POLLIN },
                               { .fd = child->err.fd, .events = POLLIN },
                               { .fd = to_write ? child->input : -1, .events = POLLOUT } };
    if (child->cancel && atomic_load(child->cancel)) return weir_fail(error, WEIR_CANCELLED, "cancelled");
    if (weir_clock_now_ms() >= deadline_ms) {
        return weir_fail(error, WEIR_TIMEOUT, "weir-encode did nothing for %d s", WEIR_ENCODER_WAIT_MS / 1000);
    }
    if (poll(items, 3, POLL_MS) < 0 && errno != EINTR) {
        return weir_fail(error, WEIR_INTERNAL, "poll: %s", strerror(errno));
    }
    if (items[0].revents) listen_to(&child->out);
    if (items[1].revents) listen_to(&child->err);
    *ready = items[2].revents != 0;
    return WEIR_OK;
}

/* Its exit code as a status, its last line as words. */
static enum weir_status judge(const struct weir_encoder_child *child, struct weir_error *error)
{
    if (WIFEXITED(child->result) && WEXITSTATUS(child->result) == 0) return WEIR_OK;
    char said[300] = "";
    const char *text = child->err.text;
    size_t end = child->err.count;
    while (end > 0 && text[end - 1] == '\n') end--;
    size_t start = end;
    while (start > 0 && text[start - 1] != '\n') start--;
    const size_t length = end - start < sizeof said - 1 ? end - start : sizeof said - 1;
    memcpy(said, text + start, length);
    said[length] = '\0';
    if (!WIFEXITED(child->result)) {
        return weir_fail(error, WEIR_INTERNAL, "weir-encode was ended by signal %d%s%s", WTERMSIG(child->result),
                         said[0] ? ": " : "", said);
    }
    enum weir_status status = WEIR_INTERNAL;
    switch (WEXITSTATUS(child->result)) {
    case 71:
        status = WEIR_NO_MEMORY;
        break;
    case 74:
        status = WEIR_BAD_FILE;
        break;
    case 75:
        status = WEIR_IO;
        break;
    default:
        break;
    }
    if (said[0] == '\0') return weir_fail(error, status, "weir-encode ended with code %d", WEXITSTATUS(child->result));
    return weir_fail(error, status, "%s", said);
}

/* Listens until both pipes are closed, then reaps. */
static enum weir_status reap(struct weir_encoder_child *child, struct weir_error *error)
{
    const uint64_t deadline_ms = weir_clock_now_ms() + WEIR_ENCODER_WAIT_MS;
    while (child->out.fd >= 0 || child->err.fd >= 0) {
        bool ready;
        const enum weir_status status = wait_for(child, false, &ready, deadline_ms, error);
        if (status != WEIR_OK) return status;
    }
    while (waitpid(child->pid, &child->result, 0) < 0) { /* it has closed everything: its end is near */
        if (errno != EINTR) return weir_fail(error, WEIR_INTERNAL, "waitpid: %s", strerror(errno));
    }
    child->pid = 0;
    return judge(child, error);
}

enum weir_status weir_encoder_child_write(struct weir_encoder_child *child, const void *bytes, size_t count,
                                          struct weir_error *error)
{
    const uint8_t *from = bytes;
    uint64_t deadline_ms = weir_clock_now_ms() + WEIR_ENCODER_WAIT_MS;
    while (count) {
        const ssize_t put = write(child->input, from, count);
        if (put > 0) {
            from += put;
            count -= (size_t)put;
            deadline_ms = weir_clock_now_ms() + WEIR_ENCODER_WAIT_MS;
            continue;
        }
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EPIPE) { /* it left before the end: why, it said itself */
            close_fd(&child->input);
            const enum weir_status status = reap(child, error);
            return status != WEIR_OK ? status : weir_fail(error, WEIR_INTERNAL, "weir-encode stopped reading early");
        }
        if (put < 0 && errno != EAGAIN) return weir_fail(error, WEIR_IO, "to weir-encode: %s", strerror(errno));
        bool ready;
        const enum weir_status status = wait_for(child, true, &ready, deadline_ms, error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

enum weir_status weir_encoder_child_finish(struct weir_encoder_child **child_p, char *text, struct weir_error *error)
{
    struct weir_encoder_child *child = *child_p;
    close_fd(&child->input);
    const enum weir_status status = reap(child, error);
    if (text) memcpy(text, child->out.text, child->out.count + 1);
    weir_encoder_child_stop(child_p);
    return status;
}

void weir_encoder_child_stop(struct weir_encoder_child **child_p)
{
    struct weir_encoder_child *child = *child_p;
    if (!child) return;
    close_fd(&child->input);
    close_fd(&child->out.fd);
    close_fd(&child->err.fd);
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, &child->result, 0) < 0 && errno == EINTR) continue;
    }
    free(child);
    *child_p = NULL;
}
