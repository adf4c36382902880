/* weir run: the embedded default. A private broker and workers in a temporary directory, the very same path as a
 * cluster, and nothing left running. */
#include "client/cli/await.h"
#include "client/cli/batch.h"
#include "client/cli/collect.h"
#include "client/cli/commands.h"
#include "client/cli/private.h"
#include "client/cli/progress.h"
#include "client/cli/request.h"
#include "client/cli/result.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS_MAX = 1000 };

struct run_options {
    struct weir_cli_request request;
    const char *device, *workers;
    int64_t threads;
    bool json, quiet, verbose, help;
    uint64_t begin_ms;
};

/* Where the time to the first picture goes, beside what the worker says of it; ms since the command began. */
static void say(const struct run_options *options, const char *what)
{
    static const struct weir_log log = { "weir", WEIR_LOG_INFO, 2 };
    if (!options->verbose) return;
    weir_log(&log, WEIR_LOG_INFO, "%s ms=%llu", what, (unsigned long long)(weir_clock_now_ms() - options->begin_ms));
}

static void fill_rows(struct weir_option *rows, size_t *count)
{
#define AT(field) offsetof(struct run_options, field)
    const struct weir_option own[] = {
        { "output", 'o', WEIR_OPTION_TEXT, AT(request.output), 0, 4000, "PATH",
          "where the film or image goes; several get -PPP-III before the ending; with a final / a folder, of a film's "
          "frames or of the images (default: a name made from the prompt)" },
        { "device", 0, WEIR_OPTION_TEXT, AT(device), 0, 0, "auto|cpu|ref|cuda[:GPU]", "what computes (default: auto)" },
        { "threads", 0, WEIR_OPTION_INT, AT(threads), 1, 1024, "N",
          "threads of each worker (default: the cores shared out)" },
        { "workers", 0, WEIR_OPTION_TEXT, AT(workers), 0, 200, "SPEC",
          "2: two that do all; text=1,denoise=2,decode=1: some for each stage (default: 1)" },
        { "json", 0, WEIR_OPTION_FLAG, AT(json), 0, 0, NULL, "print one JSON object a film or image on stdout" },
        { "quiet", 'q', WEIR_OPTION_FLAG, AT(quiet), 0, 0, NULL, "no progress" },
        { "verbose", 'v', WEIR_OPTION_FLAG, AT(verbose), 0, 0, NULL,
          "print what the broker and the workers log: what they do, when, and how long each phase took" },
        { "help", 'h', WEIR_OPTION_FLAG, AT(help), 0, 0, NULL, "this" },
    };
#undef AT
    weir_cli_request_rows(rows, offsetof(struct run_options, request));
    memcpy(rows + WEIR_CLI_REQUEST_ROWS, own, sizeof own);
    *count = WEIR_CLI_REQUEST_ROWS + WEIR_COUNT(own);
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
        if (options->json)
            weir_cli_result_json(report, item, path);
        else
            printf("%s\n", path);
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
        say(options, "job ended");
        status = take_films(client, options, report, prompt_index, prompt_count, error);
        say(options, "on disk");
    }
    weir_report_destroy(&report);
    return status;
}

static enum weir_status make_films(const struct weir_cli_private *own, const struct run_options *options,
                                   char **prompts, size_t prompt_count, struct weir_error *error)
{
    enum weir_status status = WEIR_OK, first_failure = WEIR_OK;
    char(*jobs)[WEIR_JOB_BYTES] = calloc(prompt_count, sizeof *jobs);
    if (!jobs) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu prompts", prompt_count);
    for (size_t i = 0; i < prompt_count; i++) {
        struct weir_request request;
        WEIR_TRY(weir_cli_request_read(&options->request, prompts[i], &request, error));
        WEIR_TRY(weir_cli_private_submit(own, &request, jobs[i], error));
        say(options, "job submitted");
    }
    for (size_t i = 0; i < prompt_count; i++) {
        status = finish_job(own->client, options, jobs[i], i, prompt_count, error);
        if (status == WEIR_OK) continue;
        if (status == WEIR_INTERRUPTED || status == WEIR_UNAVAILABLE || prompt_count == 1) goto cleanup;
        fprintf(stderr, "weir: prompt %zu: %s\n", i + 1, error->words); /* one failing film does not cost the others */
        first_failure = first_failure == WEIR_OK ? status : first_failure;
    }
    if (first_failure != WEIR_OK) {
        status = weir_fail(error, first_failure, "not every prompt could be made");
    }

cleanup:
    free(jobs);
    return weir_cli_private_explain(own, status, error);
}

/* ---- a file of prompts ------------------------------------------------------------------------------------------- */

static bool workers_may_come(void *context, uint64_t waited_ms)
{
    return waited_ms <= WEIR_CLI_WORKERS_WAIT_MS && weir_cli_private_goes_on(context);
}

static bool goes_on(void *context)
{
    return weir_cli_private_goes_on(context);
}

/* Also after Ctrl-C, of the jobs that have ended. */
static enum weir_status take_all(const struct weir_cli_private *own, const struct run_options *options,
                                 const struct weir_cli_jobs *jobs, int *exit_code, struct weir_error *error)
{
    struct weir_cli_collected collected;
    char folder[PATH_MAX];
    size_t length = strlen(options->request.output);
    while (length > 1 && options->request.output[length - 1] == '/') length--;
    snprintf(folder, sizeof folder, "%.*s", (int)length, options->request.output);
    const enum weir_status status = weir_cli_collect(own->client, jobs, folder, options->json, &collected, error);
    if (status != WEIR_OK) return status;
    if (!options->quiet) {
        fprintf(stderr, "%llu in %s/, described by manifest.json\n", (unsigned long long)collected.made, folder);
    }
    if (collected.lost + collected.open == 0) return WEIR_OK;
    if (collected.made == 0)
        return weir_fail(error, collected.cause ? collected.cause : WEIR_CANCELLED, "%s", collected.words);
    *exit_code = WEIR_CLI_EXIT_PARTLY;
    return WEIR_OK;
}

static enum weir_status make_batch(const struct weir_cli_private *own, const struct run_options *options,
                                   struct weir_cli_batch *batch, int *exit_code, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_request request;
    struct weir_cli_awaited awaited = { .made = 0 };
    struct weir_cli_jobs jobs = { .count = 0 };
    struct weir_cli_request described = options->request;
    described.output = NULL; /* a folder of files, not of frames */
    WEIR_TRY(weir_cli_request_read(&described, NULL, &request, error));
    WEIR_TRY(weir_cli_batch_read(own->client, &request, NULL, options->request.prompts, batch, error));
    WEIR_TRY(weir_cli_batch_submit(own->client, batch, options->quiet, workers_may_come, (void *)own, error));
    WEIR_TRY(weir_cli_jobs_find(own->client, weir_cli_batch_name(batch), &jobs, error));
    status = weir_cli_await(own->client, &jobs, options->quiet, goes_on, (void *)own, &awaited, error);
    if (status == WEIR_INTERRUPTED && *own->interrupted && awaited.ready > 0) {
        weir_client_on_idle(own->client, NULL, NULL); /* a second Ctrl-C ends the program */
        (void)take_all(own, options, &jobs, exit_code, NULL);
    }
    if (status == WEIR_INTERRUPTED && *own->interrupted) {
        weir_fail(error, status, "interrupted; %llu of %llu are in %s, the others would have gone on under weir serve",
                  (unsigned long long)awaited.ready, (unsigned long long)awaited.items, options->request.output);
    }
    if (status == WEIR_OK) status = take_all(own, options, &jobs, exit_code, error);

cleanup:
    weir_cli_jobs_destroy(&jobs);
    return weir_cli_private_explain(own, status, error);
}

static enum weir_status run_file(const struct weir_cli_private *own, const struct run_options *options, int *exit_code,
                                 struct weir_error *error)
{
    struct weir_cli_batch *batch = calloc(1, sizeof *batch);
    if (!batch) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a batch");
    const enum weir_status status = make_batch(own, options, batch, exit_code, error);
    if (weir_cli_batch_tell(batch)) *exit_code = WEIR_CLI_EXIT_PARTLY;
    weir_cli_batch_close(batch);
    free(batch);
    return status;
}

static enum weir_status check_words(const struct run_options *options, size_t prompt_count, struct weir_error *error)
{
    const char *output = options->request.output;
    if (!options->request.prompts && (prompt_count < 1 || prompt_count > PROMPTS_MAX)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "run: %zu prompts, 1 to %d are wanted; weir run --help",
                         prompt_count, PROMPTS_MAX);
    }
    if (options->request.prompts && prompt_count > 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "run: either PROMPTs or --prompts FILE are wanted");
    }
    if (options->request.prompts && (!output || !output[0] || output[strlen(output) - 1] != '/')) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: with --prompts a folder is wanted, with a final /",
                         output ? output : "is missing");
    }
    return WEIR_OK;
}

static enum weir_status run(const struct run_options *options, char **prompts, size_t prompt_count, int *exit_code,
                            struct weir_error *error)
{
    const struct weir_cluster_options cluster_options = {
        .model = options->request.model ? options->request.model : "shapes-modelscope",
        .device = options->device,
        .precision = options->request.precision,
        .workers = options->workers,
        .threads = options->threads,
        .forward_log = options->verbose,
    };
    struct weir_cli_private own;
    enum weir_status status = weir_cli_private_start(&cluster_options, &own, error);
    say(options, "cluster started");
    if (status == WEIR_OK) {
        status = options->request.prompts ? run_file(&own, options, exit_code, error)
                                          : make_films(&own, options, prompts, prompt_count, error);
    }
    weir_cli_private_stop(&own);
    say(options, "cluster stopped");
    return status;
}

int weir_cli_run(int argc, char **argv)
{
    struct run_options options = { .request = WEIR_CLI_REQUEST_INIT, .device = "auto", .begin_ms = weir_clock_now_ms() };
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
        weir_cli_help(
            "weir run PROMPT... | --prompts FILE [options]",
            "Makes a film or an image of each prompt on this machine: starts a private broker and workers, shows\n"
            "progress, prints the path, and leaves nothing running.\n"
            "Of a file of prompts all go into the folder -o FOLDER/, as LINE-INDEX.png and so on, with a\n"
            "manifest.json and a contact-sheet.png. Lines that cannot be are told with their numbers; the others\n"
            "are made, and the exit code is 3.",
            rows, count);
        puts("\nExample\n  weir run \"a red circle moving right on a navy background\" --seed 7 -o circle.mp4\n"
             "  weir run \"a yellow star on a black background\" --frames 1 -o star.png\n"
             "  weir run --prompts prompts.jsonl --n 2 --model shapes-sana -o pictures/");
        return 0;
    }
    const size_t prompt_count = (size_t)(argc - first);
    int exit_code = 0;
    status = check_words(&options, prompt_count, &error);
    if (status == WEIR_OK) status = weir_cli_request_files(&options.request, &error);
    for (size_t i = 0; i < prompt_count && status == WEIR_OK; i++) {
        status = weir_cli_request_read(&options.request, argv[first + (int)i], &checked, &error);
    }
    if (status == WEIR_OK) status = weir_cli_output_check(options.request.output, &error);
    if (status == WEIR_OK) status = run(&options, argv + first, prompt_count, &exit_code, &error);
    return status == WEIR_OK ? exit_code : weir_cli_fail(status, &error);
}
