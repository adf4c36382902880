// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/guard.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CPU_SECONDS_TO_CLEAN_UP = 5, READ_BYTES_MAX = 1 << 20 };

static const int stops[] = { SIGINT, SIGTERM, SIGHUP, SIGXCPU };

static void wake(int signal)
{
    (void)signal; /* its delivery ends ppoll with EINTR, which is all that is wanted */
}

static enum weir_status limit(__rlimit_resource_t resource, const char *flag, int64_t value, rlim_t unit, rlim_t grace,
                              struct weir_error *error)
{
    if (value == 0) return WEIR_OK;
    struct rlimit now;
    if (getrlimit(resource, &now) != 0) return weir_fail(error, WEIR_INTERNAL, "getrlimit: %s", strerror(errno));
    const rlim_t soft = (rlim_t)value * unit;
    if (now.rlim_max != RLIM_INFINITY && soft > now.rlim_max) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %lld: over this process's own limit of %llu", flag,
                         (long long)value, (unsigned long long)(now.rlim_max / unit));
    }
    const rlim_t hard = now.rlim_max - soft < grace ? now.rlim_max : soft + grace;
    if (setrlimit(resource, &(struct rlimit){ soft, hard }) != 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %lld: %s", flag, (long long)value, strerror(errno));
    }
    return WEIR_OK;
}

static void hold_signals(void)
{
    const struct sigaction waker = { .sa_handler = wake }, ignore = { .sa_handler = SIG_IGN };
    sigset_t held;
    sigemptyset(&held);
    for (size_t i = 0; i < WEIR_COUNT(stops); i++) {
        struct sigaction before;
        sigaction(stops[i], NULL, &before);
        if (before.sa_handler == SIG_IGN) continue; /* the parent wants it so, as nohup does */
        sigaction(stops[i], &waker, NULL);
        sigaddset(&held, stops[i]);
    }
    sigprocmask(SIG_BLOCK, &held, NULL);
    sigaction(SIGPIPE, &ignore, NULL); /* EPIPE and EFBIG are reported where they happen */
    sigaction(SIGXFSZ, &ignore, NULL);
}

void weir_guard_release(void)
{
    sigset_t none; /* not what was inherited: a parent that reads signals from a descriptor hands its mask down */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* what waited is delivered here, to wake() */
    for (size_t i = 0; i < WEIR_COUNT(stops); i++) {
        struct sigaction now;
        sigaction(stops[i], NULL, &now);
        if (now.sa_handler == wake) sigaction(stops[i], &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
    }
}

enum weir_status weir_guard_start(const struct weir_guard_limits *limits, bool leaves_files, struct weir_error *error)
{
    if (leaves_files) hold_signals();
    else weir_guard_release();
    const struct rlimit none = { 0, 0 };
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
        return weir_fail(error, WEIR_INTERNAL, "a process setting is refused: %s", strerror(errno));
    }
    enum weir_status status = limit(RLIMIT_CPU, "cpu-seconds", limits->cpu_seconds, 1, CPU_SECONDS_TO_CLEAN_UP, error);
    if (status == WEIR_OK) status = limit(RLIMIT_AS, "memory-mib", limits->memory_mib, 1 << 20, 0, error);
    if (status == WEIR_OK) status = limit(RLIMIT_FSIZE, "file-mib", limits->file_mib, 1 << 20, 0, error);
    return status;
}

enum weir_status weir_guard_check(struct weir_error *error)
{
    sigset_t waiting;
    sigpending(&waiting);
    if (sigismember(&waiting, SIGXCPU)) return weir_fail(error, WEIR_EXPIRED, "the limit of --cpu-seconds was met");
    for (size_t i = 0; i < WEIR_COUNT(stops); i++) {
        if (sigismember(&waiting, stops[i])) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
    }
    return WEIR_OK;
}

enum weir_status weir_guard_read(int fd, void *bytes, size_t count, size_t *got, struct weir_error *error)
{
    sigset_t asleep;
    sigemptyset(&asleep);
    sigaddset(&asleep, SIGXCPU);
    *got = 0;
    while (*got < count) {
        const enum weir_status status = weir_guard_check(error);
        if (status != WEIR_OK) return status;
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        ssize_t done = ppoll(&ready, 1, NULL, &asleep);
        if (done < 0 && errno == EINTR) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
        if (done >= 0) {
            const size_t want = count - *got < READ_BYTES_MAX ? count - *got : READ_BYTES_MAX;
            done = read(fd, (char *)bytes + *got, want);
        }
        if (done < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (done < 0) return weir_fail(error, WEIR_IO, "standard input: %s", strerror(errno));
        if (done == 0) break;
        *got += (size_t)done;
    }
    return WEIR_OK;
}
