/* weir-requests: whole requests to a cluster that runs, as a client sees them: from Submit to the file on disk.
 *
 *   weir-requests --dir DIR [--model NAME] [--size WxH] [--frames N] [--steps N] [--guidance G] [--format F]
 *                 [--requests N] [--in-flight M] [--warm N] [-o FOLDER]
 *
 * M threads, each with a client of its own, hand over N requests in all, one after the other: one sends the next when its
 * file is there. Every request has a prompt and a seed of its own. --warm requests (default 2 a thread) go before and are
 * not counted: they load the weights and plan the programs. Prints median, p90 and the fastest in ms, requests a second,
 * and what the workers say that the stages took.
 * Not a test: it fails nothing but what cannot be run. */
#include "client/weir.h"
#include "proto/base/clock.h"

#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define REQUESTS_MAX 100000
#define THREADS_MAX 256
enum { STAGES = 4 };
static const char *const stages[STAGES] = { "text", "denoise", "decode", "assemble" };

struct sample {
    double ms, stage_ms[STAGES];
};

struct run {
    const char *dir, *folder;
    struct weir_request request;
    unsigned requests, in_flight, warm;
    atomic_uint begun, failed;
    struct sample *samples; /* requests */
    atomic_uint_fast64_t first_ns, last_ns;
    pthread_barrier_t warmed;
};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One request; false, with a line on stderr, when it did not end in a file. */
static bool make(struct run *run, struct weir_client *client, unsigned number, struct sample *sample)
{
    struct weir_error error;
    struct weir_report *report = NULL;
    struct weir_request request = run->request;
    char prompt[64], path[512], job[WEIR_JOB_BYTES];
    snprintf(prompt, sizeof prompt, "a blue star on a black background, number %u", number);
    snprintf(path, sizeof path, "%s/%u.%s", run->folder, number, request.format);
    request.prompt = prompt;
    request.seed_given = true;
    request.seed = number;
    const uint64_t begin_ns = weir_clock_now_ns();
    enum weir_status status = weir_client_submit(client, &request, NULL, job, &error);
    if (status == WEIR_OK) status = weir_client_wait(client, job, NULL, NULL, &report, &error);
    if (status == WEIR_OK && !report->succeeded) {
        snprintf(error.words, sizeof error.words, "%.200s", report->words);
        status = report->cause;
    }
    if (status == WEIR_OK) status = weir_client_fetch(client, report, 0, path, &error);
    *sample = (struct sample){ .ms = (double)(weir_clock_now_ns() - begin_ns) / 1e6 };
    if (status != WEIR_OK) fprintf(stderr, "weir-requests: number %u: %s\n", number, error.words);
    for (size_t i = 0; status == WEIR_OK && i < report->task_count; i++) {
        for (size_t s = 0; s < STAGES; s++) {
            if (strcmp(report->tasks[i].stage, stages[s]) == 0)
                sample->stage_ms[s] += (double)report->tasks[i].milliseconds;
        }
    }
    weir_report_destroy(&report);
    return status == WEIR_OK;
}

static void *thread(void *context)
{
    struct run *run = context;
    struct weir_client *client = NULL;
    struct weir_error error;
    struct sample unused;
    static atomic_uint warm_numbers = REQUESTS_MAX;
    if (weir_client_open(run->dir, &client, &error) != WEIR_OK) {
        fprintf(stderr, "weir-requests: %s\n", error.words);
        atomic_fetch_add(&run->failed, 1);
    }
    for (unsigned i = 0; client && i < run->warm; i++) {
        if (!make(run, client, atomic_fetch_add(&warm_numbers, 1), &unused)) atomic_fetch_add(&run->failed, 1);
    }
    pthread_barrier_wait(&run->warmed);
    uint_fast64_t none = 0;
    atomic_compare_exchange_strong(&run->first_ns, &none, weir_clock_now_ns());
    for (unsigned number; client && (number = atomic_fetch_add(&run->begun, 1)) < run->requests;) {
        if (!make(run, client, number, &run->samples[number])) atomic_fetch_add(&run->failed, 1);
        atomic_store(&run->last_ns, weir_clock_now_ns());
    }
    weir_client_close(&client);
    return NULL;
}

static void print_row(const char *what, double *values, unsigned count)
{
    qsort(values, count, sizeof *values, ascending);
    printf("%-9s median_ms=%.1f p90_ms=%.1f fastest_ms=%.1f\n", what, values[count / 2], values[count * 9 / 10],
           values[0]);
}

static void print(const struct run *run)
{
    double *values = calloc(run->requests, sizeof *values);
    if (!values) return;
    const double seconds = (double)(atomic_load(&run->last_ns) - atomic_load(&run->first_ns)) / 1e9;
    printf("requests=%u in_flight=%u failed=%u seconds=%.2f per_second=%.2f\n", run->requests, run->in_flight,
           atomic_load(&run->failed), seconds, run->requests / seconds);
    for (unsigned i = 0; i < run->requests; i++) values[i] = run->samples[i].ms;
    print_row("request", values, run->requests);
    for (size_t s = 0; s < STAGES; s++) {
        for (unsigned i = 0; i < run->requests; i++) values[i] = run->samples[i].stage_ms[s];
        print_row(stages[s], values, run->requests);
    }
    free(values);
}

static unsigned number_of(const char *flag, const char *text, unsigned least, unsigned most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end && value >= least && value <= most) return (unsigned)value;
    fprintf(stderr, "weir-requests: --%s %s: a number from %u to %u is wanted\n", flag, text, least, most);
    exit(64);
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {
        { "dir", required_argument, NULL, 'd' },       { "model", required_argument, NULL, 'm' },
        { "size", required_argument, NULL, 'z' },      { "frames", required_argument, NULL, 'f' },
        { "steps", required_argument, NULL, 's' },     { "guidance", required_argument, NULL, 'g' },
        { "format", required_argument, NULL, 'F' },    { "requests", required_argument, NULL, 'r' },
        { "in-flight", required_argument, NULL, 'i' }, { "warm", required_argument, NULL, 'w' },
        { "output", required_argument, NULL, 'o' },    { 0 },
    };
    struct run run = { .folder = ".", .request = WEIR_REQUEST_INIT, .requests = 10, .in_flight = 1, .warm = 2 };
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;
    run.request.format = "jpeg";
    for (int flag; (flag = getopt_long(argc, argv, "o:", flags, NULL)) != -1;) {
        switch (flag) {
        case 'd':
            run.dir = optarg;
            break;
        case 'm':
            run.request.model = optarg;
            break;
        case 'z':
            if (sscanf(optarg, "%ux%u", &run.request.width, &run.request.height) == 2) break;
            fprintf(stderr, "weir-requests: --size %s: WIDTHxHEIGHT is wanted\n", optarg);
            return 64;
        case 'f':
            run.request.frames = number_of("frames", optarg, 1, 1000);
            break;
        case 's':
            run.request.steps = number_of("steps", optarg, 1, 1000);
            break;
        case 'g':
            run.request.guidance = strtod(optarg, NULL);
            break;
        case 'F':
            run.request.format = optarg;
            break;
        case 'r':
            run.requests = number_of("requests", optarg, 1, REQUESTS_MAX);
            break;
        case 'i':
            run.in_flight = number_of("in-flight", optarg, 1, THREADS_MAX);
            break;
        case 'w':
            run.warm = number_of("warm", optarg, 0, 1000);
            break;
        case 'o':
            run.folder = optarg;
            break;
        default:
            return 64;
        }
    }
    if (!run.dir || optind != argc) {
        fprintf(stderr, "weir-requests: --dir DIR of a running `weir serve` is wanted, and flags alone\n");
        return 64;
    }
    (void)mkdir(run.folder, 0755);
    run.samples = calloc(run.requests, sizeof *run.samples);
    if (!run.samples || pthread_barrier_init(&run.warmed, NULL, run.in_flight) != 0) return 70;
    for (; started < run.in_flight; started++) {
        if (pthread_create(&threads[started], NULL, thread, &run) != 0) {
            fprintf(stderr, "weir-requests: thread %u could not be started\n", started);
            return 71;
        }
    }
    for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
    print(&run);
    free(run.samples);
    return atomic_load(&run.failed) ? 1 : 0;
}
