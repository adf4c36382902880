/* The commands against a cluster that stays: submit, watch, wait, ls, show, cancel, fetch. */
#include "client/cli/commands.h"
#include "client/cli/progress.h"
#include "client/cli/request.h"
#include "client/cli/result.h"
#include "proto/base/clock.h"

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
};

/* One command: its own rows, how many words it wants, and what it does with an open client. */
struct command {
    const char *usage, *text, *example;
    struct weir_option rows[24];
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
    struct jobs_options options = { .request = WEIR_CLI_REQUEST_INIT, .limit = 20 };
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
    const volatile sig_atomic_t *interrupted = weir_cli_catch_signals();
    struct weir_client *client = NULL;
    status = open_client(&options, &client, &error);
    if (status == WEIR_OK) {
        weir_client_on_idle(client, not_interrupted, (void *)interrupted);
        status = command->act(client, &options, argv + first, count, &error);
    }
    weir_client_close(&client);
    return status == WEIR_OK ? 0 : weir_cli_fail(status, &error);
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

static enum weir_status act_submit(struct weir_client *client, const struct jobs_options *options, char **words,
                                   int count, struct weir_error *error)
{
    for (int i = 0; i < count; i++) {
        struct weir_request request;
        char job[WEIR_JOB_BYTES], key[192];
        enum weir_status status = weir_cli_request_read(&options->request, words[i], &request, error);
        if (status != WEIR_OK) return status;
        request.model = options->request.model;
        request.deadline_ms = (uint64_t)options->deadline_s * 1000;
        if (options->key) snprintf(key, sizeof key, count > 1 ? "%s-%d" : "%s", options->key, i);
        status = submit_one(client, &request, options->key ? key : NULL, job, error);
        if (status != WEIR_OK) return status;
        puts(job);
    }
    return WEIR_OK;
}

int weir_cli_submit(int argc, char **argv)
{
    struct command command = { .usage = "weir submit PROMPT... --dir DIR [options]",
                               .text =
                                   "Hands films or images to a cluster and prints a job id each. The job is durable "
                                   "when its id is printed.",
                               .example =
                                   "weir submit --dir ~/weir \"a green square growing on a gray background\" --n 4",
                               .words_min = 1,
                               .words_max = PROMPTS_MAX,
                               .act = act_submit };
    const struct weir_option own[] = {
        { "key", 0, WEIR_OPTION_TEXT, AT(key), 0, 112, "TEXT",
          "idempotency key: the same key and request give the same job again" },
        { "deadline", 0, WEIR_OPTION_INT, AT(deadline_s), 1, 31536000, "SECONDS", "give the job up after that time" },
    };
    weir_cli_request_rows(command.rows, AT(request));
    command.row_count = WEIR_CLI_REQUEST_ROWS;
    add_rows(&command, own, WEIR_COUNT(own));
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

static enum weir_status act_watch(struct weir_client *client, const struct jobs_options *options, char **words,
                                  int count, struct weir_error *error)
{
    (void)count;
    return wait_for_job(client, options, words[0], false, error);
}

static enum weir_status act_wait(struct weir_client *client, const struct jobs_options *options, char **words,
                                 int count, struct weir_error *error)
{
    enum weir_status first = WEIR_OK;
    for (int i = 0; i < count; i++) {
        struct weir_error own;
        const enum weir_status status = wait_for_job(client, options, words[i], true, &own);
        if (status == WEIR_OK || first != WEIR_OK) continue;
        first = status;
        *error = own;
    }
    return first;
}

static enum weir_status act_show(struct weir_client *client, const struct jobs_options *options, char **words,
                                 int count, struct weir_error *error)
{
    for (int i = 0; i < count; i++) {
        struct weir_report *report;
        const enum weir_status status = weir_client_show(client, words[i], &report, error);
        if (status != WEIR_OK) return status;
        if (options->json)
            weir_cli_result_json(report, 0, NULL);
        else
            weir_cli_result_text(report);
        weir_report_destroy(&report);
    }
    return WEIR_OK;
}

static enum weir_status act_cancel(struct weir_client *client, const struct jobs_options *options, char **words,
                                   int count, struct weir_error *error)
{
    (void)options;
    for (int i = 0; i < count; i++) {
        const enum weir_status status = weir_client_cancel(client, words[i], error);
        if (status != WEIR_OK) return status;
        printf("%s cancelled\n", words[i]);
    }
    return WEIR_OK;
}

int weir_cli_watch(int argc, char **argv)
{
    struct command command = { .usage = "weir watch JOB --dir DIR",
                               .text = "Shows a job's progress until it is done. Ctrl-C leaves the job running.",
                               .example = "weir watch --dir ~/weir 019a...",
                               .words_min = 1,
                               .words_max = 1,
                               .act = act_watch };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_wait(int argc, char **argv)
{
    struct command command = { .usage = "weir wait JOB... --dir DIR",
                               .text = "Waits until the jobs are done, and says how each ended.",
                               .example =
                                   "weir wait --dir ~/weir $(weir submit --dir ~/weir \"a red star growing on a navy "
                                   "background\")",
                               .words_min = 1,
                               .words_max = PROMPTS_MAX,
                               .act = act_wait };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_show(int argc, char **argv)
{
    struct command command = { .usage = "weir show JOB... --dir DIR",
                               .text = "Everything about a job: what was asked for, its tasks, its objects.",
                               .example = "weir show --dir ~/weir --json 019a... | jq .tasks",
                               .words_min = 1,
                               .words_max = PROMPTS_MAX,
                               .act = act_show };
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}

int weir_cli_cancel(int argc, char **argv)
{
    struct command command = {
        .usage = "weir cancel JOB... --dir DIR",
        .text = "Cancels jobs. When it returns, no result can appear any more; running work stops at "
                "the next step.",
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
    for (size_t i = 0; i < line_count; i++) {
        char created[32];
        const time_t seconds = (time_t)(lines[i].created_ms / 1000);
        struct tm local;
        strftime(created, sizeof created, "%m-%d %H:%M:%S", localtime_r(&seconds, &local));
        printf("%s  %-10s  %u/%u tasks  %s  %s\n", lines[i].job, lines[i].state, lines[i].tasks_done, lines[i].tasks,
               created, lines[i].prompt);
    }
    free(lines);
    return WEIR_OK;
}

int weir_cli_ls(int argc, char **argv)
{
    struct command command = { .usage = "weir ls --dir DIR [--open] [--limit N]",
                               .text = "Lists jobs, newest first.",
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

static enum weir_status fetch_job(struct weir_client *client, const struct jobs_options *options, const char *job,
                                  struct weir_error *error)
{
    struct weir_report *report;
    enum weir_status status = weir_client_show(client, job, &report, error);
    if (status != WEIR_OK) return status;
    status = failure_of(report, error);
    for (uint32_t item = 0; status == WEIR_OK && item < report->n; item++) {
        char path[PATH_MAX];
        const char *ending = weir_cli_ending(report);
        const int used = snprintf(path, sizeof path, "%s/%s-%03u%s%s", options->output ? options->output : ".", job,
                                  item, ending[0] ? "." : "", ending);
        if (used >= PATH_MAX) status = weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path of %d bytes is too long", used);
        if (status == WEIR_OK) status = weir_client_fetch(client, report, item, path, error);
        if (status == WEIR_OK && options->json) weir_cli_result_json(report, item, path);
        if (status == WEIR_OK && !options->json) puts(path);
    }
    weir_report_destroy(&report);
    return status;
}

static enum weir_status act_fetch(struct weir_client *client, const struct jobs_options *options, char **words,
                                  int count, struct weir_error *error)
{
    if (options->output && mkdir(options->output, 0777) != 0 && errno != EEXIST) {
        return weir_fail(error, WEIR_IO, "-o %s: %s", options->output, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        const enum weir_status status = fetch_job(client, options, words[i], error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

int weir_cli_fetch(int argc, char **argv)
{
    struct command command = { .usage = "weir fetch JOB... --dir DIR [-o FOLDER]",
                               .text = "Writes the films and images of finished jobs into a folder, as JOB-III.mp4 "
                                       "and so on.",
                               .example = "weir fetch --dir ~/weir 019a... -o films",
                               .words_min = 1,
                               .words_max = PROMPTS_MAX,
                               .act = act_fetch };
    const struct weir_option own[] = {
        { "output", 'o', WEIR_OPTION_TEXT, AT(output), 1, 4000, "FOLDER",
          "where they go; made when missing (default: .)" },
    };
    add_rows(&command, own, WEIR_COUNT(own));
    add_rows(&command, &json_row, 1);
    return perform(&command, argc, argv);
}
