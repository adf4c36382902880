/* The commands against a cluster that stays: submit, watch, wait, ls, show, cancel, fetch. */
#include "client/cli/await.h"
#include "client/cli/batch.h"
#include "client/cli/collect.h"
#include "client/cli/commands.h"
#include "client/cli/progress.h"
#include "client/cli/request.h"
#include "client/cli/result.h"
#include "proto/base/clock.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <errno.h>
#include <time.h>
#include <unistd.h>

enum { PROMPTS_MAX = 1000, FIRST_WORKER_WAIT_MS = 10000 };

struct jobs_options {
    struct weir_cli_request request;
    const char *dir, *connect, *key, *output;
    int64_t limit, deadline_s;
    bool json, open_only, insecure_dev, help;
    const volatile sig_atomic_t *interrupted;
    int *exit_code; /* what the program ends with when a command has gone well: 0, or 3 in part */
};

/* One command: its own rows, how many words it wants, and what it does with an open client. */
struct command {
    const char *usage, *text, *example;
    struct weir_option rows[WEIR_OPTIONS_MAX];
    size_t row_count;
    int words_min, words_max;
    enum weir_status (*act)(struct weir_client *client, const struct jobs_options *options, char **words, int count,
                            struct weir_error *error);
};

#define AT(field) offsetof(struct jobs_options, field)
static const struct weir_option common_rows[] = {
    { "dir", 'd', WEIR_OPTION_TEXT, AT(dir), 0, 4000, "DIR", "the directory of a `weir serve` on this machine" },
    { "connect", 0, WEIR_OPTION_TEXT, AT(connect), 0, 120, "ENDPOINT",
      "a broker's clients' socket: ipc:///PATH or tcp://127.0.0.1:PORT" },
    { "insecure-dev", 0, WEIR_OPTION_FLAG, AT(insecure_dev), 0, 0, NULL, "allow unencrypted TCP on loopback" },
    { "help", 'h', WEIR_OPTION_FLAG, AT(help), 0, 0, NULL, "this" },
};
static const struct weir_option json_row = {
    "json", 0, WEIR_OPTION_FLAG, AT(json), 0, 0, NULL, "print JSON, one object a line"
};

static void add_rows(struct command *command, const struct weir_option *rows, size_t count)
{
    memcpy(command->rows + command->row_count, rows, count * sizeof *rows);
    command->row_count += count;
}

static enum weir_status open_client(const struct jobs_options *options, struct weir_client **out,
                                    struct weir_error *error)
{
    if (!options->dir == !options->connect) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "one of --dir DIR and --connect ENDPOINT is wanted");
    }
    const char *where = options->dir ? options->dir : options->connect;
    return options->insecure_dev ? weir_client_open_insecure(where, out, error) : weir_client_open(where, out, error);
}

static bool not_interrupted(void *context)
{
    return !*(const volatile sig_atomic_t *)context;
}

static int perform(struct command *command, int argc, char **argv)
{
    int exit_code = 0;
    struct jobs_options options = { .request = WEIR_CLI_REQUEST_INIT, .limit = 20, .exit_code = &exit_code };
    uint64_t given;
    int first;
    struct weir_error error;
    add_rows(command, common_rows, WEIR_COUNT(common_rows));
    enum weir_status status =
        weir_options_parse(command->rows, command->row_count, argc, argv, &options, &given, &first, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    if (options.help) {
        weir_cli_help(command->usage, command->text, command->rows, command->row_count);
        printf("\nExample\n  %s\n", command->example);
        return 0;
    }
    const int count = argc - first;
    if (count < command->words_min || count > command->words_max) {
        status = weir_fail(&error, WEIR_BAD_ARGUMENT, "%s: %d words; usage: %s", argv[0], count, command->usage);
        return weir_cli_fail(status, &error);
    }
    options.interrupted = weir_cli_catch_signals();
    struct weir_client *client = NULL;
    status = weir_cli_request_files(&options.request, &error);
    if (status == WEIR_OK) status = open_client(&options, &client, &error);
    if (status == WEIR_OK) {
        weir_client_on_idle(client, not_interrupted, (void *)options.interrupted);
        status = command->act(client, &options, argv + first, count, &error);
    }
    weir_client_close(&client);
    return status == WEIR_OK ? exit_code : weir_cli_fail(status, &error);
}

/* Adds how to go on to the words of an interruption. */
static enum weir_status explain(enum weir_status status, const struct jobs_options *options, const char *verb,
                                const char *id, struct weir_error *error)
{
    if (status != WEIR_INTERRUPTED) return status;
    return weir_fail(error, status, "interrupted; what was accepted goes on: weir %s %s %s %s", verb,
                     options->dir ? "--dir" : "--connect", options->dir ? options->dir : options->connect, id);
}

/* ---- submit ------------------------------------------------------------------------------------------------------- */

/* A cluster that has only just started has no workers yet: they are waited for. What one with workers says, it means. */
static enum weir_status submit_one(struct weir_client *client, const struct weir_request *request, const char *key,
                                   char job[WEIR_JOB_BYTES], struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    struct weir_cluster_report cluster;
    bool has_workers = false;
    for (;;) {
        const enum weir_status status = weir_client_submit(client, request, key, job, error);
        if (status != WEIR_UNAVAILABLE || has_workers) return status;
        if (weir_client_status(client, &cluster, NULL) != WEIR_OK) return status;
        has_workers = cluster.numerics_classes[0] != '\0'; /* perhaps since a moment ago: ask once more */
        if (has_workers) continue;
        if (weir_clock_now_ms() - begin_ms > FIRST_WORKER_WAIT_MS) return status;
        usleep(50000); /* there is nothing to wait on but the broker's next answer */
    }
}

struct newcomer {
    struct weir_client *client;
    bool has_workers;
};

/* The same for a batch. */
static bool first_workers(void *context, uint64_t waited_ms)
{
    struct newcomer *cluster = context;
    struct weir_cluster_report report;
    if (cluster->has_workers || weir_client_status(cluster->client, &report, NULL) != WEIR_OK) return false;
    cluster->has_workers = report.numerics_classes[0] != '\0';
    return cluster->has_workers || waited_ms <= FIRST_WORKER_WAIT_MS;
}

static void print_batch(const struct weir_cli_batch *own, bool json)
{
    const uint32_t parts = weir_batch_parts(own->batch);
    json_t *jobs = json_array();
    for (uint32_t i = 0; i < parts; i++) {
        const char *job = weir_batch_job(own->batch, i);
        if (job) json_array_append_new(jobs, json_string(job));
    }
    json_t *object = json_pack("{s:s,s:i,s:I,s:o}", parts > 1 ? "batch" : "job", weir_cli_batch_name(own), "parts",
                               (int)parts, "refused", (json_int_t)own->faults_all, "jobs", jobs);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    puts(json && text ? text : weir_cli_batch_name(own));
    fflush(stdout);
    free(text);
    json_decref(object);
}

static enum weir_status submit_file(struct weir_client *client, const struct jobs_options *options,
                                    const struct weir_request *request, struct weir_error *error)
{
    struct newcomer cluster = { .client = client };
    struct weir_cli_batch *own = calloc(1, sizeof *own);
    if (!own) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a batch");
    enum weir_status status = weir_cli_batch_read(client, request, options->key, options->request.prompts, own, error);
    if (status == WEIR_OK) status = weir_cli_batch_submit(client, own, false, first_workers, &cluster, error);
    if (status == WEIR_OK) print_batch(own, options->json);
    if (weir_cli_batch_tell(own)) *options->exit_code = WEIR_CLI_EXIT_PARTLY;
    if (status != WEIR_OK && weir_cli_batch_name(own)) {
        char words[300];
        snprintf(words, sizeof words, "%.299s", error->words);
        if (status == WEIR_INTERRUPTED)
            explain(status, options, "wait", weir_cli_batch_name(own), error);
        else
            weir_fail(error, status, "%s; what was accepted until then is %s", words, weir_cli_batch_name(own));
    }
    weir_cli_batch_close(own);
    free(own);
    return status;
}

static enum weir_status act_submit(struct weir_client *client, const struct jobs_options *options, char **words,
                                   int count, struct weir_error *error)
{
    struct weir_request request;
    enum weir_status status = weir_cli_request_read(&options->request, NULL, &request, error);
    request.model = options->request.model;
    request.deadline_ms = (uint64_t)options->deadline_s * 1000;
    if (status != WEIR_OK) return status;
    if ((count > 0) == (options->request.prompts != NULL)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "submit: either PROMPTs or --prompts FILE are wanted");
    }
    if (options->request.prompts) return submit_file(client, options, &request, error);
    for (int i = 0; i < count; i++) {
        char job[WEIR_JOB_BYTES], key[192];
        struct weir_request one;
        status = weir_cli_request_read(&options->request, words[i], &one, error);
        if (status != WEIR_OK) return status;
        one.model = request.model;
        one.deadline_ms = request.deadline_ms;
        if (options->key) snprintf(key, sizeof key, count > 1 ? "%s-%d" : "%s", options->key, i);
        status = submit_one(client, &one, options->key ? key : NULL, job, error);
        if (status != WEIR_OK) return status;
        printf(options->json ? "{\"job\":\"%s\"}\n" : "%s\n", job);
    }
    return WEIR_OK;
}

int weir_cli_submit(int argc, char **argv)
{
    struct command command = {
        .usage = "weir submit PROMPT... | --prompts FILE --dir DIR [options]",
        .text = "Hands films or images to a cluster and prints a job id each; of a file of prompts one id for all: a\n"
                "batch's, or the job's where one is enough. It is durable when its id is printed.\n"
                "Lines that cannot be are told with their numbers; the others run, and the exit code is 3.",
        .example = "weir submit --dir ~/weir \"a green square growing on a gray background\" --n 4\n"
                   "  weir submit --dir ~/weir --prompts prompts.csv --n 2",
        .words_min = 0,
        .words_max = PROMPTS_MAX,
        .act = act_submit
    };
    const struct weir_option own[] = {
        { "key", 0, WEIR_OPTION_TEXT, AT(key), 0, 112, "TEXT",
          "idempotency key: the same key and request give the same job again" },
        { "deadline", 0, WEIR_OPTION_INT, AT(deadline_s), 1, 31536000, "SECONDS", "give the job up after that time" },
    };
    weir_cli_request_rows(command.rows, AT(request));
    command.row_count = WEIR_CLI_REQUEST_ROWS;
    add_rows(&command, own, WEIR_COUNT(own));
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

/* ---- watch, wait, show, cancel -------------------------------------------------------------------------------------- */

static enum weir_status failure_of(const struct weir_report *report, struct weir_error *error)
{
    if (report->succeeded) return WEIR_OK;
    return weir_fail(error, report->cause ? report->cause : WEIR_CANCELLED, "job %s %s: %s", report->job, report->state,
                     report->words);
}

static enum weir_status wait_for_job(struct weir_client *client, const struct jobs_options *options, const char *job,
                                     bool quiet, struct weir_error *error)
{
    struct weir_cli_progress progress;
    struct weir_report *report = NULL;
    weir_cli_progress_init(&progress, "", quiet);
    enum weir_status status = weir_client_wait(client, job, weir_cli_progress_show, &progress, &report, error);
    weir_cli_progress_clear(&progress);
    if (status != WEIR_OK) return status;
    if (options->json)
        weir_cli_result_json(report, 0, NULL);
    else
        printf("%s %s\n", report->job, report->state);
    status = failure_of(report, error);
    weir_report_destroy(&report);
    return status;
}

static void print_awaited(const struct weir_cli_jobs *jobs, const struct weir_cli_awaited *awaited, bool json)
{
    if (json) {
        printf("{\"id\":\"%s\",\"state\":\"%s\",\"items\":%llu,\"made\":%llu,\"lost\":%llu}\n", jobs->id,
               awaited->state, (unsigned long long)awaited->items, (unsigned long long)awaited->made,
               (unsigned long long)awaited->lost);
    } else {
        printf("%s %s, %llu of %llu %s\n", jobs->id, awaited->state, (unsigned long long)awaited->made,
               (unsigned long long)awaited->items, awaited->image ? "images" : "films");
    }
    fflush(stdout);
}

/* Something was made and something was not: said, and the exit code is 3. Nothing was made: an error. */
static enum weir_status partly(const struct jobs_options *options, uint64_t made, uint64_t lost, enum weir_status cause,
                               const char *words, struct weir_error *error)
{
    if (lost == 0) return WEIR_OK;
    if (made == 0) return weir_fail(error, cause ? cause : WEIR_CANCELLED, "%s", words);
    fprintf(stderr, "weir: %llu of %llu are lost: %s\n", (unsigned long long)lost, (unsigned long long)(made + lost),
            words);
    *options->exit_code = WEIR_CLI_EXIT_PARTLY;
    return WEIR_OK;
}

static enum weir_status wait_for_id(struct weir_client *client, const struct jobs_options *options, const char *id,
                                    bool quiet, struct weir_error *error)
{
    struct weir_cli_jobs jobs;
    struct weir_cli_awaited awaited;
    enum weir_status status = weir_cli_jobs_find(client, id, &jobs, error);
    if (status != WEIR_OK) return status;
    if (jobs.is_list) {
        status = weir_cli_await(client, &jobs, false, not_interrupted, (void *)options->interrupted, &awaited, error);
        if (status == WEIR_OK) print_awaited(&jobs, &awaited, options->json);
        if (status == WEIR_OK) {
            status = partly(options, awaited.made, awaited.lost, awaited.cause, awaited.words, error);
        }
    } else {
        status = wait_for_job(client, options, id, quiet, error);
    }
    weir_cli_jobs_destroy(&jobs);
    return explain(status, options, "wait", id, error);
}

static enum weir_status act_watch(struct weir_client *client, const struct jobs_options *options, char **words,
                                  int count, struct weir_error *error)
{
    (void)count;
    return wait_for_id(client, options, words[0], false, error);
}

static enum weir_status act_wait(struct weir_client *client, const struct jobs_options *options, char **words,
                                 int count, struct weir_error *error)
{
    enum weir_status first = WEIR_OK;
    for (int i = 0; i < count; i++) {
        struct weir_error own;
        const enum weir_status status = wait_for_id(client, options, words[i], true, &own);
        if (status == WEIR_OK || first != WEIR_OK) continue;
        first = status;
        *error = own;
        if (status == WEIR_INTERRUPTED) break;
    }
    return first;
}

static void print_line(const struct weir_job_line *line, bool with_batch)
{
    char created[32], batch[64] = "";
    const time_t seconds = (time_t)(line->created_ms / 1000);
    struct tm local;
    strftime(created, sizeof created, "%m-%d %H:%M:%S", localtime_r(&seconds, &local));
    if (line->batch[0] && with_batch) {
        snprintf(batch, sizeof batch, "batch %s ", line->batch);
    }
    if (line->batch[0])
        snprintf(batch + strlen(batch), sizeof batch - strlen(batch), "%u/%u  ", line->part + 1, line->parts);
    printf("%s  %-10s  %u/%u tasks  %s  %s%s\n", line->job, line->state, line->tasks_done, line->tasks, created, batch,
           line->prompt);
}

static enum weir_status show_job(struct weir_client *client, const struct jobs_options *options, const char *job,
                                 struct weir_error *error)
{
    struct weir_report *report;
    const enum weir_status status = weir_client_show(client, job, &report, error);
    if (status != WEIR_OK) return status;
    if (options->json)
        weir_cli_result_json(report, 0, NULL);
    else
        weir_cli_result_text(report);
    weir_report_destroy(&report);
    return WEIR_OK;
}

static enum weir_status act_show(struct weir_client *client, const struct jobs_options *options, char **words,
                                 int count, struct weir_error *error)
{
    for (int i = 0; i < count; i++) {
        struct weir_cli_jobs jobs;
        enum weir_status status = weir_cli_jobs_find(client, words[i], &jobs, error);
        if (status != WEIR_OK) return status;
        if (jobs.is_batch && !options->json) printf("batch     %s, %zu jobs\n", jobs.id, jobs.count);
        for (size_t j = 0; j < jobs.count && status == WEIR_OK; j++) {
            if (jobs.is_batch && !options->json)
                print_line(&jobs.lines[j], false);
            else
                status = show_job(client, options, jobs.lines[j].job, error);
        }
        weir_cli_jobs_destroy(&jobs);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

/* A part that ends meanwhile needs no cancelling. */
static enum weir_status cancel_parts(struct weir_client *client, const struct weir_cli_jobs *jobs,
                                     struct weir_error *error)
{
    size_t cancelled = 0;
    for (size_t i = 0; i < jobs->count; i++) {
        static const char *const open[] = { "queued", "running", "cancelling" };
        bool is_open = false;
        for (size_t s = 0; s < WEIR_COUNT(open); s++) is_open |= strcmp(open[s], jobs->lines[i].state) == 0;
        if (!is_open) continue;
        const enum weir_status status = weir_client_cancel(client, jobs->lines[i].job, error);
        if (status != WEIR_OK && status != WEIR_CONFLICT) return status;
        cancelled += status == WEIR_OK;
    }
    if (!cancelled) return weir_fail(error, WEIR_CONFLICT, "%s: each of its %zu jobs has ended", jobs->id, jobs->count);
    printf("%s cancelled, %zu of %zu jobs\n", jobs->id, cancelled, jobs->count);
    return WEIR_OK;
}

static enum weir_status act_cancel(struct weir_client *client, const struct jobs_options *options, char **words,
                                   int count, struct weir_error *error)
{
    (void)options;
    for (int i = 0; i < count; i++) {
        struct weir_cli_jobs jobs;
        enum weir_status status = weir_cli_jobs_find(client, words[i], &jobs, error);
        if (status != WEIR_OK) return status;
        if (jobs.is_batch) {
            status = cancel_parts(client, &jobs, error);
        } else {
            status = weir_client_cancel(client, words[i], error);
            if (status == WEIR_OK) printf("%s cancelled\n", words[i]);
        }
        weir_cli_jobs_destroy(&jobs);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

int weir_cli_watch(int argc, char **argv)
{
    struct command command = { .usage = "weir watch ID --dir DIR",
                               .text =
                                   "Shows the progress of a job or batch until it is done. Ctrl-C leaves it running.",
                               .example = "weir watch --dir ~/weir 019a...",
                               .words_min = 1,
                               .words_max = 1,
                               .act = act_watch };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_wait(int argc, char **argv)
{
    struct command command = {
        .usage = "weir wait ID... --dir DIR",
        .text = "Waits until jobs and batches are done, and says how each ended. When of a list of prompts some were\n"
                "made and some were not, the exit code is 3.",
        .example = "weir wait --dir ~/weir $(weir submit --dir ~/weir \"a red star growing on a navy "
                   "background\")",
        .words_min = 1,
        .words_max = PROMPTS_MAX,
        .act = act_wait
    };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_show(int argc, char **argv)
{
    struct command command = {
        .usage = "weir show ID... --dir DIR",
        .text = "Everything about a job: what was asked for, its tasks, its objects; of a batch its jobs.",
        .example = "weir show --dir ~/weir --json 019a... | jq .tasks",
        .words_min = 1,
        .words_max = PROMPTS_MAX,
        .act = act_show
    };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_cancel(int argc, char **argv)
{
    struct command command = {
        .usage = "weir cancel ID... --dir DIR",
        .text = "Cancels jobs, and of batches every job that is open. When it returns, no result can appear any more;\n"
                "running work stops at the next step.",
        .example = "weir cancel --dir ~/weir 019a...",
        .words_min = 1,
        .words_max = PROMPTS_MAX,
        .act = act_cancel
    };
    return perform(&command, argc, argv);
}

/* ---- ls --------------------------------------------------------------------------------------------------------------- */

static enum weir_status act_ls(struct weir_client *client, const struct jobs_options *options, char **words, int count,
                               struct weir_error *error)
{
    (void)words;
    (void)count;
    struct weir_job_line *lines;
    size_t line_count;
    const enum weir_status status =
        weir_client_list(client, (uint32_t)options->limit, NULL, options->open_only, &lines, &line_count, error);
    if (status != WEIR_OK) return status;
    for (size_t i = 0; i < line_count; i++) print_line(&lines[i], true);
    free(lines);
    return WEIR_OK;
}

int weir_cli_ls(int argc, char **argv)
{
    struct command command = { .usage = "weir ls --dir DIR [--open] [--limit N]",
                               .text = "Lists jobs, newest first; of a batch its id and which part of how many.",
                               .example = "weir ls --dir ~/weir --open",
                               .act = act_ls };
    const struct weir_option own[] = {
        { "limit", 0, WEIR_OPTION_INT, AT(limit), 1, 1000, "N", "at most so many (default: 20)" },
        { "open", 0, WEIR_OPTION_FLAG, AT(open_only), 0, 0, NULL, "only jobs that are not finished" },
    };
    add_rows(&command, own, WEIR_COUNT(own));
    return perform(&command, argc, argv);
}

/* ---- fetch ---------------------------------------------------------------------------------------------------------- */

static enum weir_status fetch_item(struct weir_client *client, const struct jobs_options *options,
                                   const struct weir_report *report, uint32_t item, struct weir_error *error)
{
    char path[PATH_MAX];
    const char *ending = weir_cli_ending(report);
    const int used = snprintf(path, sizeof path, "%s/%s-%03u%s%s", options->output ? options->output : ".", report->job,
                              item, ending[0] ? "." : "", ending);
    if (used >= PATH_MAX) return weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path of %d bytes is too long", used);
    const enum weir_status status = weir_client_fetch(client, report, item, path, error);
    if (status != WEIR_OK) return status;
    if (options->json)
        weir_cli_result_json(report, item, path);
    else
        puts(path);
    return WEIR_OK;
}

static bool was_made(const struct weir_report *report, uint32_t item)
{
    for (size_t i = 0; i < report->object_count; i++) {
        if (report->objects[i].item == item) return true;
    }
    return false;
}

/* Also of a failed job what it made; what is lost is named. */
static enum weir_status fetch_job(struct weir_client *client, const struct jobs_options *options, const char *job,
                                  struct weir_error *error)
{
    struct weir_report *report;
    enum weir_status status = weir_client_show(client, job, &report, error);
    if (status != WEIR_OK) return status;
    if (report->object_count == 0) status = failure_of(report, error);
    uint32_t lost = 0;
    for (uint32_t item = 0; status == WEIR_OK && item < report->items; item++) {
        if (was_made(report, item)) {
            status = fetch_item(client, options, report, item, error);
        } else {
            fprintf(stderr, "weir: item %u of job %s is lost\n", item, report->job);
            lost++;
        }
    }
    if (status == WEIR_OK) {
        status = partly(options, report->items - lost, lost, report->cause, report->words, error);
    }
    weir_report_destroy(&report);
    return status;
}

/* Several ids of lists do not mix: each has a folder of its own then. */
static enum weir_status fetch_list(struct weir_client *client, const struct jobs_options *options,
                                   const struct weir_cli_jobs *jobs, bool alone, struct weir_error *error)
{
    struct weir_cli_collected collected;
    char folder[PATH_MAX];
    const char *output = options->output ? options->output : ".";
    size_t length = strlen(output);
    while (length > 1 && output[length - 1] == '/') length--;
    snprintf(folder, sizeof folder, "%.*s%s%s", (int)length, output, alone ? "" : "/", alone ? "" : jobs->id);
    const enum weir_status status = weir_cli_collect(client, jobs, folder, options->json, &collected, error);
    if (status != WEIR_OK) return status;
    if (collected.open) {
        struct weir_error words;
        weir_fail(&words, WEIR_UNAVAILABLE, "%llu are not made yet; fetch again after weir wait %s %.200s %s",
                  (unsigned long long)collected.open, options->dir ? "--dir" : "--connect",
                  options->dir ? options->dir : options->connect, jobs->id);
        if (collected.made == 0) return weir_fail(error, words.code, "%s", words.words);
        fprintf(stderr, "weir: %s\n", words.words);
        *options->exit_code = WEIR_CLI_EXIT_PARTLY;
    }
    return partly(options, collected.made, collected.lost, collected.cause, collected.words, error);
}

static enum weir_status act_fetch(struct weir_client *client, const struct jobs_options *options, char **words,
                                  int count, struct weir_error *error)
{
    if (options->output && mkdir(options->output, 0777) != 0 && errno != EEXIST) {
        return weir_fail(error, WEIR_IO, "-o %s: %s", options->output, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        struct weir_cli_jobs jobs;
        enum weir_status status = weir_cli_jobs_find(client, words[i], &jobs, error);
        if (status != WEIR_OK) return status;
        status = jobs.is_list ? fetch_list(client, options, &jobs, count == 1, error)
                              : fetch_job(client, options, words[i], error);
        weir_cli_jobs_destroy(&jobs);
        if (status != WEIR_OK) return explain(status, options, "fetch", words[i], error);
    }
    return WEIR_OK;
}

int weir_cli_fetch(int argc, char **argv)
{
    struct command command = {
        .usage = "weir fetch ID... --dir DIR [-o FOLDER]",
        .text = "Writes the films and images of finished jobs into a folder, as JOB-III.mp4 and so on; of lists of\n"
                "prompts and of batches as LINE-INDEX.png, with a manifest.json and a contact-sheet.png.\n"
                "Files of a list that are there already stay, so that what was interrupted goes on. Of a failed job\n"
                "what was made is written, what is lost is named, and the exit code is 3.",
        .example = "weir fetch --dir ~/weir 019a... -o films",
        .words_min = 1,
        .words_max = PROMPTS_MAX,
        .act = act_fetch
    };
    const struct weir_option own[] = {
        { "output", 'o', WEIR_OPTION_TEXT, AT(output), 1, 4000, "FOLDER",
          "where they go; made when missing (default: .)" },
    };
    add_rows(&command, own, WEIR_COUNT(own));
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}
