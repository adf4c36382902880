#include "worker/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct weir_watch {
    struct weir_device *device;
    const struct weir_log *log;
    pthread_t thread;
    bool has_thread;
    int fd; /* an eventfd */
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool is_stopping;
    char failure[WEIR_HEALTH_WORDS]; /* under the lock */
};

void weir_watch_step(struct weir_watch_notes *notes, const char *device, const struct weir_health *health,
                     const struct weir_log *log)
{
    static const char *const names[WEIR_HEALTH_NOTICES] = { "slowed", "memory", "worn", "faults" };
    weir_log(log, notes->is_told ? WEIR_LOG_DEBUG : WEIR_LOG_INFO, "device health name=%s %s", device, health->figures);
    notes->is_told = true;
    for (int i = 0; i < WEIR_HEALTH_NOTICES; i++) {
        const bool is_on = health->notices[i][0] != '\0';
        notes->quiet_looks[i] = is_on ? 0 : notes->quiet_looks[i] + 1;
        if (is_on && !notes->is_on[i]) {
            notes->is_on[i] = true;
            weir_log(log, WEIR_LOG_WARN, "device %s begins name=%s words=\"%s\"", names[i], device, health->notices[i]);
        } else if (notes->is_on[i] && notes->quiet_looks[i] == WEIR_WATCH_QUIET_LOOKS) {
            notes->is_on[i] = false;
            weir_log(log, WEIR_LOG_WARN, "device %s ended name=%s", names[i], device);
        }
    }
}

/* False once it is to stop. */
static bool pause_between_looks(struct weir_watch *watch)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WEIR_WATCH_MS / 1000;
    pthread_mutex_lock(&watch->lock);
    int waited = 0;
    while (!watch->is_stopping && waited == 0) {
        waited = pthread_cond_timedwait(&watch->stopped, &watch->lock, &until);
    }
    const bool goes_on = !watch->is_stopping;
    pthread_mutex_unlock(&watch->lock);
    return goes_on;
}

static void *look_on(void *context)
{
    struct weir_watch *watch = context;
    struct weir_watch_notes notes = { .is_told = false };
    const uint64_t one = 1;
    do {
        struct weir_health health;
        watch->device->table->health(watch->device, &health);
        weir_watch_step(&notes, watch->device->table->name, &health, watch->log);
        if (!health.failure[0]) continue;
        pthread_mutex_lock(&watch->lock);
        memcpy(watch->failure, health.failure, sizeof watch->failure);
        pthread_mutex_unlock(&watch->lock);
        const ssize_t put = write(watch->fd, &one, sizeof one); /* fails only when it is readable anyway */
        (void)put;
        return NULL;
    } while (pause_between_looks(watch));
    return NULL;
}

enum weir_status weir_watch_start(struct weir_device *device, const struct weir_log *log, struct weir_watch **out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    pthread_condattr_t monotonic;
    struct weir_watch *watch = calloc(1, sizeof *watch);
    *out = NULL;
    if (!watch) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the watch over the device");
    watch->device = device;
    watch->log = log;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->fd < 0) WEIR_TRY(weir_fail(error, WEIR_INTERNAL, "eventfd: %s", strerror(errno)));
    if (device->table->health) {
        const int failed = pthread_create(&watch->thread, NULL, look_on, watch);
        if (failed) WEIR_TRY(weir_fail(error, WEIR_INTERNAL, "a thread could not be started: %s", strerror(failed)));
        watch->has_thread = true;
    }
    *out = watch;
    watch = NULL;
cleanup:
    weir_watch_stop(&watch);
    return status;
}

void weir_watch_stop(struct weir_watch **watch_p)
{
    struct weir_watch *watch = *watch_p;
    if (!watch) return;
    pthread_mutex_lock(&watch->lock);
    watch->is_stopping = true;
    pthread_cond_signal(&watch->stopped);
    pthread_mutex_unlock(&watch->lock);
    if (watch->has_thread) pthread_join(watch->thread, NULL);
    if (watch->fd >= 0) close(watch->fd);
    pthread_cond_destroy(&watch->stopped);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
    *watch_p = NULL;
}

int weir_watch_fd(const struct weir_watch *watch)
{
    return watch->fd;
}

bool weir_watch_failed(struct weir_watch *watch, struct weir_error *why)
{
    uint64_t count;
    if (read(watch->fd, &count, sizeof count) != sizeof count) return false;
    pthread_mutex_lock(&watch->lock);
    (void)weir_fail(why, WEIR_DEVICE, "%s", watch->failure);
    pthread_mutex_unlock(&watch->lock);
    return true;
}
