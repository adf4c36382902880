/* weir-broker: options to loop. */
#include "broker/loop.h"
#include "proto/base/options.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096

struct settings {
    const char *dir, *store, *workers_endpoint, *clients_endpoint, *log_level;
    bool test_timers, embedded, insecure_dev, supervised, version, help;
};

static const struct weir_option rows[] = {
    { .name = "dir",
      .kind = WEIR_OPTION_TEXT,
      .offset = offsetof(struct settings, dir),
      .max = 3000,
      .value = "DIR",
      .help = "where the ledger is, and the store unless --store says otherwise; made when missing" },
    { .name = "store",
      .kind = WEIR_OPTION_TEXT,
      .offset = offsetof(struct settings, store),
      .max = 4000,
      .value = "URL",
      .help = "where results go (default: DIR/store)" },
    { .name = "workers-endpoint",
      .kind = WEIR_OPTION_TEXT,
      .offset = offsetof(struct settings, workers_endpoint),
      .max = 120,
      .value = "ENDPOINT",
      .help = "socket for workers (default: ipc://DIR/workers.sock)" },
    { .name = "clients-endpoint",
      .kind = WEIR_OPTION_TEXT,
      .offset = offsetof(struct settings, clients_endpoint),
      .max = 120,
      .value = "ENDPOINT",
      .help = "socket for clients (default: ipc://DIR/clients.sock)" },
    { .name = "embedded",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, embedded),
      .help = "budgets of a set-up with its own supervisor: 10 crashes a task, the first retry at once" },
    { .name = "supervised",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, supervised),
      .help = "die with the process that started it" },
    { .name = "insecure-dev",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, insecure_dev),
      .help = "allow unencrypted TCP on loopback" },
    { .name = "test-timers",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, test_timers),
      .help = "short timers, for tests: heartbeat 0.2 s, lease 2 s" },
    { .name = "log-level",
      .kind = WEIR_OPTION_CHOICE,
      .offset = offsetof(struct settings, log_level),
      .value = "error|warn|info|debug",
      .help = "what is logged to stderr (default: info)" },
    { .name = "version",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, version),
      .help = "print the version and leave" },
    { .name = "help",
      .letter = 'h',
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, help),
      .help = "print this and leave" },
};

/* "<prefix><dir>/<name>"; BAD_ARGUMENT when it does not fit. */
static enum weir_status join(char out[PATH_BYTES], const char *prefix, const char *dir, const char *name,
                             struct weir_error *error)
{
    const int count = snprintf(out, PATH_BYTES, "%s%s/%s", prefix, dir, name);
    if (count < 0 || count >= PATH_BYTES) return weir_fail(error, WEIR_BAD_ARGUMENT, "--dir is too long");
    return WEIR_OK;
}

/* SIGTERM and SIGINT become readable on the returned descriptor. Before any thread starts, so that all inherit the
 * mask. A write over a limit of size, or to a closed pipe, is an error like others and no reason to die. */
static int stop_descriptor(void)
{
    sigset_t signals;
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static enum weir_status run(const struct settings *settings, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char dir[PATH_BYTES], ledger[PATH_BYTES], store[PATH_BYTES], workers[PATH_BYTES], clients[PATH_BYTES];
    struct weir_log log = { "weir-broker", WEIR_LOG_INFO, STDERR_FILENO };

    if (settings->dir == NULL)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--dir DIR is missing: where the ledger is kept");
    if (settings->log_level != NULL) weir_log_level_parse(settings->log_level, &log.level);
    if (mkdir(settings->dir, 0700) != 0 && errno != EEXIST) {
        return weir_fail(error, WEIR_IO, "--dir %s: %s", settings->dir, strerror(errno));
    }
    if (realpath(settings->dir, dir) == NULL) {
        return weir_fail(error, WEIR_IO, "--dir %s: %s", settings->dir, strerror(errno));
    }
    WEIR_TRY(join(ledger, "", dir, "ledger.db", error));
    WEIR_TRY(join(store, "", dir, "store", error));
    WEIR_TRY(join(workers, "ipc://", dir, "workers.sock", error));
    WEIR_TRY(join(clients, "ipc://", dir, "clients.sock", error));
    const struct weir_loop_options options = {
        .ledger_path = ledger,
        .store_url = settings->store != NULL ? settings->store : store,
        .workers_endpoint = settings->workers_endpoint != NULL ? settings->workers_endpoint : workers,
        .clients_endpoint = settings->clients_endpoint != NULL ? settings->clients_endpoint : clients,
        .test_timers = settings->test_timers,
        .embedded = settings->embedded,
        .insecure_dev = settings->insecure_dev,
        .log = &log,
        .stop_fd = stop_descriptor(),
    };
    if (options.stop_fd < 0) return weir_fail(error, WEIR_IO, "signalfd: %s", strerror(errno));
    status = weir_loop_run(&options, error);
    close(options.stop_fd);
cleanup:
    return status;
}

int main(int argc, char **argv)
{
    struct settings settings = { 0 };
    struct weir_error error = { 0 };
    uint64_t given = 0;
    int first_word = argc;

    enum weir_status status =
        weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &settings, &given, &first_word, &error);
    if (status == WEIR_OK && first_word < argc) {
        status = weir_fail(&error, WEIR_BAD_ARGUMENT, "%s: no words are wanted, only options", argv[first_word]);
    }
    if (status == WEIR_OK && settings.help) {
        printf("usage: weir-broker --dir DIR [options]\n\n"
               "Keeps jobs and decides which worker runs what. Prints `ready ...` when it serves.\n\n");
        weir_options_help(rows, WEIR_COUNT(rows));
        return 0;
    }
    if (status == WEIR_OK && settings.version) {
        printf("weir-broker %s\n", WEIR_VERSION);
        return 0;
    }
    if (settings.supervised) {
        const pid_t parent = getppid();
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) return 0; /* it died before the line above */
    }
    if (status == WEIR_OK) status = run(&settings, &error);
    if (status != WEIR_OK) fprintf(stderr, "weir-broker: %s\n", error.words);
    return weir_status_exit_code(status);
}
