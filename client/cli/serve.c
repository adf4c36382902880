/* weir serve: a small cluster that stays. State in a directory; started again there, it goes on where it was. */
#include "client/cli/cluster.h"
#include "client/cli/commands.h"

#include <stdio.h>
#include <unistd.h>

struct serve_options {
    const char *dir, *model, *device, *precision, *workers;
    int64_t threads;
    bool test_timers, help;
};

static const struct weir_option rows[] = {
    { "dir", 'd', WEIR_OPTION_TEXT, offsetof(struct serve_options, dir), 0, 4000, "DIR",
      "where ledger, store and sockets live; made when missing" },
    { "model", 'm', WEIR_OPTION_TEXT, offsetof(struct serve_options, model), 0, 4096, "DIR|NAME",
      "what the workers serve (default: shapes-modelscope)" },
    { "device", 0, WEIR_OPTION_TEXT, offsetof(struct serve_options, device), 0, 0, "auto|cpu|ref|cuda[:GPU]",
      "what computes (default: auto)" },
    { "precision", 0, WEIR_OPTION_CHOICE, offsetof(struct serve_options, precision), 0, 0, "f32|bf16",
      "what the networks compute in; bf16 is faster on cuda and on processors with AMX or AVX512-BF16 (default: f32)" },
    { "workers", 0, WEIR_OPTION_TEXT, offsetof(struct serve_options, workers), 0, 200, "SPEC",
      "2: two that do all; text=1,denoise=2,decode=1: some for each stage (default: 1)" },
    { "threads", 0, WEIR_OPTION_INT, offsetof(struct serve_options, threads), 1, 1024, "N",
      "threads of each worker (default: the cores shared out)" },
    { "test-timers", 0, WEIR_OPTION_FLAG, offsetof(struct serve_options, test_timers), 0, 0, NULL,
      "leases of 2 s instead of 30 s, for tests of failures" },
    { "help", 'h', WEIR_OPTION_FLAG, offsetof(struct serve_options, help), 0, 0, NULL, "this" },
};

int weir_cli_serve(int argc, char **argv)
{
    struct serve_options options = { .device = "auto", .model = "shapes-modelscope" };
    uint64_t given;
    int first;
    struct weir_error error;
    enum weir_status status = weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &options, &given, &first, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    if (options.help) {
        weir_cli_help("weir serve --dir DIR [options]",
                      "Runs a broker and workers until Ctrl-C. Jobs that were open when it ended go on when it is "
                      "started again on the same directory.",
                      rows, WEIR_COUNT(rows));
        puts("\nExample\n  weir serve --dir ~/weir --workers 2 &\n  weir submit --dir ~/weir \"a blue star spinning on a black "
             "background\"");
        return 0;
    }
    if (first < argc) {
        status = weir_fail(&error, WEIR_BAD_ARGUMENT, "serve: %s: no words are wanted; weir serve --help", argv[first]);
        return weir_cli_fail(status, &error);
    }
    if (!options.dir) {
        status = weir_fail(&error, WEIR_BAD_ARGUMENT, "serve: --dir DIR is missing");
        return weir_cli_fail(status, &error);
    }

    const volatile sig_atomic_t *interrupted = weir_cli_catch_signals();
    struct weir_cluster *cluster;
    status = weir_cluster_start(&(struct weir_cluster_options){ .dir = options.dir,
                                                                .model = options.model,
                                                                .device = options.device,
                                                                .precision = options.precision,
                                                                .workers = options.workers,
                                                                .threads = options.threads,
                                                                .forward_log = true,
                                                                .test_timers = options.test_timers },
                                &cluster, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    printf("serving %s with %d worker%s; weir submit --dir %s \"PROMPT\"\n", options.dir, weir_cluster_worker_count(cluster),
           weir_cluster_worker_count(cluster) == 1 ? "" : "s", options.dir);
    fflush(stdout);
    while (!*interrupted && (status = weir_cluster_failed(cluster, &error)) == WEIR_OK) usleep(100000);
    weir_cluster_stop(&cluster);
    return status == WEIR_OK ? 0 : weir_cli_fail(status, &error);
}
