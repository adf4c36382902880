/* weir run: the embedded default. A private broker and workers in a temporary directory, the very same path as a
 * cluster, and nothing left running. */
#include "client/cli/cluster.h"
#include "client/cli/commands.h"
#include "client/cli/progress.h"
#include "client/cli/request.h"
#include "client/cli/result.h"
#include "proto/base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROMPTS_MAX = 1000, WORKERS_WAIT_MS = 300000 };

struct run_options {
    struct weir_cli_request request;
    const char *device, *workers;
    int64_t threads;
    bool json, quiet, help;
};

static void fill_rows(struct weir_option *rows, size_t *count)
{
#define AT(field) offsetof(struct run_options, field)
    const struct weir_option own[] = {
        { "output", 'o', WEIR_OPTION_TEXT, AT(request.output), 0, 4000, "PATH",
          "where the film goes; several get -PPP-III before the ending (default: a name made from the prompt)" },
        { "device", 0, WEIR_OPTION_CHOICE, AT(device), 0, 0, "auto|cpu|ref|cuda", "what computes (default: auto)" },
        { "threads", 0, WEIR_OPTION_INT, AT(threads), 1, 1024, "N", "threads of each worker (default: the cores shared out)" },
        { "workers", 0, WEIR_OPTION_TEXT, AT(workers), 0, 200, "SPEC",
          "2: two that do all; text=1,denoise=2,decode=1: some for each stage (default: 1)" },
        { "json", 0, WEIR_OPTION_FLAG, AT(json), 0, 0, NULL, "print one JSON object a film on stdout" },
        { "quiet", 'q', WEIR_OPTION_FLAG, AT(quiet), 0, 0, NULL, "no progress" },
        { "help", 'h', WEIR_OPTION_FLAG, AT(help), 0, 0, NULL, "this" },
    };
#undef AT
    weir_cli_request_rows(rows, offsetof(struct run_options, request));
    memcpy(rows + WEIR_CLI_REQUEST_ROWS, own, sizeof own);
    *count = WEIR_CLI_REQUEST_ROWS + WEIR_COUNT(own);
}

/* What a waiting call looks at every 200 ms. */
struct watcher {
    struct weir_cluster *cluster;
    const volatile sig_atomic_t *interrupted;
};

static bool goes_on(void *context)
{
    const struct watcher *watcher = context;
    return !*watcher->interrupted && weir_cluster_failed(watcher->cluster, NULL) == WEIR_OK;
}

/* INTERRUPTED says only that goes_on() said no: here is why. */
static enum weir_status explain(const struct watcher *watcher, enum weir_status status, struct weir_error *error)
{
    if (status != WEIR_INTERRUPTED || *watcher->interrupted) return status;
    return weir_cluster_failed(watcher->cluster, error);
}

/* Until a worker has said what it serves, a submit is UNAVAILABLE: it is sent again. */
static enum weir_status submit(struct weir_client *client, const struct watcher *watcher,
                               const struct weir_request *request, char job[WEIR_JOB_BYTES], struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    for (;;) {
        const enum weir_status status = weir_client_submit(client, request, NULL, job, error);
        if (status != WEIR_UNAVAILABLE || weir_clock_now_ms() - begin_ms > WORKERS_WAIT_MS) return status;
        if (!goes_on((void *)watcher)) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
        usleep(50000); /* the workers are loading: there is nothing to wait on but the broker's next answer */
    }
}

static enum weir_status take_films(struct weir_client *client, const struct run_options *options,
                                   const struct weir_report *report, size_t prompt_index, size_t prompt_count,
                                   struct weir_error *error)
{
    for (uint32_t item = 0; item < report->n; item++) {
        char path[PATH_MAX];
        enum weir_status status =
            weir_cli_output_path(options->request.output, report, prompt_index, prompt_count, item, path, error);
        if (status == WEIR_OK) status = weir_client_fetch(client, report, item, path, error);
        if (status != WEIR_OK) return status;
        if (options->json) weir_cli_result_json(report, item, path);
        else printf("%s\n", path);
    }
    fflush(stdout);
    return WEIR_OK;
}

static enum weir_status finish_job(struct weir_client *client, const struct run_options *options, const char *job,
                                   size_t prompt_index, size_t prompt_count, struct weir_error *error)
{
    char label[48] = "";
    if (prompt_count > 1) snprintf(label, sizeof label, "%zu/%zu ", prompt_index + 1, prompt_count);
    struct weir_cli_progress progress;
    struct weir_report *report = NULL;
    weir_cli_progress_init(&progress, label, options->quiet);
    enum weir_status status = weir_client_wait(client, job, weir_cli_progress_show, &progress, &report, error);
    weir_cli_progress_clear(&progress);
    if (status != WEIR_OK) return status;
    if (!report->succeeded) {
        const enum weir_status cause = report->cause ? report->cause : WEIR_CANCELLED;
        status = weir_fail(error, cause, "the job %s: %s", report->state, report->words);
        if (options->json) weir_cli_result_json(report, 0, NULL);
    } else {
        if (!options->quiet) {
            fprintf(stderr, "%sseed %llu, %.1f s\n", label, (unsigned long long)report->seed,
                    (double)(report->finished_ms - report->created_ms) / 1000);
        }
        status = take_films(client, options, report, prompt_index, prompt_count, error);
    }
    weir_report_destroy(&report);
    return status;
}

static enum weir_status make_films(struct weir_client *client, const struct watcher *watcher,
                                   const struct run_options *options, char **prompts, size_t prompt_count,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK, first_failure = WEIR_OK;
    char(*jobs)[WEIR_JOB_BYTES] = calloc(prompt_count, sizeof *jobs);
    if (!jobs) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu prompts", prompt_count);
    for (size_t i = 0; i < prompt_count; i++) {
        struct weir_request request;
        WEIR_TRY(weir_cli_request_read(&options->request, prompts[i], &request, error));
        WEIR_TRY(submit(client, watcher, &request, jobs[i], error));
    }
    for (size_t i = 0; i < prompt_count; i++) {
        status = finish_job(client, options, jobs[i], i, prompt_count, error);
        if (status == WEIR_OK) continue;
        if (status == WEIR_INTERRUPTED || status == WEIR_UNAVAILABLE || prompt_count == 1) goto cleanup;
        fprintf(stderr, "weir: prompt %zu: %s\n", i + 1, error->words); /* one failing film does not cost the others */
        first_failure = first_failure == WEIR_OK ? status : first_failure;
    }
    if (first_failure != WEIR_OK) {
        status = weir_fail(error, first_failure, "not every prompt became a film");
    }

cleanup:
    free(jobs);
    return explain(watcher, status, error);
}

static int remove_entry(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)facts;
    (void)kind;
    (void)place;
    return remove(path);
}

static enum weir_status make_temporary(char out[PATH_MAX], struct weir_error *error)
{
    const char *base = getenv("TMPDIR");
    snprintf(out, PATH_MAX, "%s/weir-XXXXXX", base && base[0] == '/' && strlen(base) < 64 ? base : "/tmp");
    if (mkdtemp(out)) return WEIR_OK;
    return weir_fail(error, WEIR_IO, "a temporary directory %s: %s", out, strerror(errno));
}

static enum weir_status run(const struct run_options *options, char **prompts, size_t prompt_count,
                            struct weir_error *error)
{
    const volatile sig_atomic_t *interrupted = weir_cli_catch_signals();
    char folder[PATH_MAX];
    enum weir_status status = make_temporary(folder, error);
    if (status != WEIR_OK) return status;
    const struct weir_cluster_options cluster_options = {
        .dir = folder,
        .model = options->request.model ? options->request.model : "shapes-modelscope",
        .device = options->device,
        .workers = options->workers,
        .threads = options->threads,
    };
    struct watcher watcher = { .interrupted = interrupted };
    struct weir_client *client = NULL;
    WEIR_TRY(weir_cluster_start(&cluster_options, &watcher.cluster, error));
    WEIR_TRY(weir_client_open(folder, &client, error));
    weir_client_on_idle(client, goes_on, &watcher);
    WEIR_TRY(make_films(client, &watcher, options, prompts, prompt_count, error));

cleanup:
    weir_client_close(&client);
    weir_cluster_stop(&watcher.cluster);
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return status;
}

int weir_cli_run(int argc, char **argv)
{
    struct run_options options = { .request = WEIR_CLI_REQUEST_INIT, .device = "auto" };
    struct weir_option rows[WEIR_OPTIONS_MAX];
    size_t count;
    uint64_t given;
    int first;
    struct weir_error error;
    struct weir_request checked;
    fill_rows(rows, &count);
    enum weir_status status = weir_options_parse(rows, count, argc, argv, &options, &given, &first, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    if (options.help) {
        weir_cli_help("weir run PROMPT... [options]",
                      "Makes a film of each prompt on this machine: starts a private broker and workers, shows progress, "
                      "prints the path, and leaves nothing running.",
                      rows, count);
        puts("\nExample\n  weir run \"a red circle moving right on a navy background\" --seed 7 -o circle.mp4");
        return 0;
    }
    const size_t prompt_count = (size_t)(argc - first);
    if (prompt_count < 1 || prompt_count > PROMPTS_MAX) {
        status = weir_fail(&error, WEIR_BAD_ARGUMENT, "run: %zu prompts, 1 to %d are wanted; weir run --help", prompt_count,
                           PROMPTS_MAX);
        return weir_cli_fail(status, &error);
    }
    for (size_t i = 0; i < prompt_count && status == WEIR_OK; i++) {
        status = weir_cli_request_read(&options.request, argv[first + (int)i], &checked, &error);
    }
    if (status == WEIR_OK) status = weir_cli_output_check(options.request.output, &error);
    if (status == WEIR_OK) status = run(&options, argv + first, prompt_count, &error);
    return status == WEIR_OK ? 0 : weir_cli_fail(status, &error);
}
