/* weir verify: a film or image is made again from its receipt by a private cluster, and the bytes are compared. */
#include "client/cli/commands.h"
#include "client/cli/private.h"
#include "client/cli/progress.h"
#include "client/cli/receipt.h"
#include "proto/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_SAME = 0, EXIT_DIFFERS = 1, EXIT_ELSEWHERE = 2, COMPARE_BYTES = 1 << 16, FRAMES_MAX = 100000 };

struct verify_options {
    const char *model, *device, *workers, *control, *image;
    struct weir_option_texts loras;
    int64_t threads;
    bool quiet, help;
};

#define AT(field) offsetof(struct verify_options, field)
static const struct weir_option rows[] = {
    { "model", 'm', WEIR_OPTION_TEXT, AT(model), 0, 4096, "DIR|NAME",
      "where its model is (default: the name in the receipt)" },
    { "lora", 0, WEIR_OPTION_TEXTS, AT(loras), 1, 4000, "FILE",
      "a LoRA that it was made with, found by its digest; its weight is in the receipt; up to 8 times" },
    { "control", 0, WEIR_OPTION_TEXT, AT(control), 1, 4000, "FILE", "the control image that it was made with" },
    { "image", 0, WEIR_OPTION_TEXT, AT(image), 1, 4000, "FILE", "the picture that it began from" },
    { "device", 0, WEIR_OPTION_TEXT, AT(device), 0, 0, "auto|cpu|ref|cuda[:GPU]",
      "what computes (default: what the receipt says it was made on)" },
    { "threads", 0, WEIR_OPTION_INT, AT(threads), 1, 1024, "N",
      "threads of each worker (default: the cores shared out)" },
    { "workers", 0, WEIR_OPTION_TEXT, AT(workers), 0, 200, "SPEC",
      "2: two that do all; text=1,denoise=2,decode=1: some for each stage (default: 1)" },
    { "quiet", 'q', WEIR_OPTION_FLAG, AT(quiet), 0, 0, NULL, "no progress" },
    { "help", 'h', WEIR_OPTION_FLAG, AT(help), 0, 0, NULL, "this" },
};
#undef AT

/* What came out: an exit code, and why the bytes cannot be had here. */
struct verdict {
    int code;
    char words[400];
};

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static enum weir_status read_full(FILE *file, const char *path, char *bytes, size_t *got, struct weir_error *error)
{
    *got = fread(bytes, 1, COMPARE_BYTES, file);
    return ferror(file) ? weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno)) : WEIR_OK;
}

static enum weir_status compare_files(const char *path, const char *again, bool *same, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static char a[COMPARE_BYTES], b[COMPARE_BYTES];
    size_t a_bytes = 1, b_bytes;
    FILE *first = fopen(path, "rbe"), *second = fopen(again, "rbe");
    *same = first && second;
    if (!first || !second) {
        const bool gone = errno == ENOENT;
        if (!gone) status = weir_fail(error, WEIR_IO, "%s: %s", first ? again : path, strerror(errno));
        goto cleanup; /* a frame that is missing makes a folder another one */
    }
    while (*same && a_bytes > 0) {
        WEIR_TRY(read_full(first, path, a, &a_bytes, error));
        WEIR_TRY(read_full(second, again, b, &b_bytes, error));
        *same = a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0;
    }

cleanup:
    if (first) fclose(first);
    if (second) fclose(second);
    return status;
}

static int count_entries(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;
    if (!folder) return -1;
    for (const struct dirent *entry; count <= FRAMES_MAX && (entry = readdir(folder));) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(folder);
    return count;
}

static enum weir_status compare(const char *path, const char *again, bool *same, struct weir_error *error)
{
    struct stat facts, made;
    if (stat(path, &facts) != 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    if (stat(again, &made) != 0) return weir_fail(error, WEIR_IO, "%s: %s", again, strerror(errno));
    *same = S_ISDIR(facts.st_mode) == S_ISDIR(made.st_mode);
    if (!*same || !S_ISDIR(made.st_mode)) return *same ? compare_files(path, again, same, error) : WEIR_OK;
    const int frames = count_entries(again);
    *same = frames == count_entries(path);
    for (int i = 0; *same && i < frames; i++) {
        char one[PATH_MAX + 32], other[PATH_MAX + 32];
        snprintf(one, sizeof one, "%.4095s/%05d.png", path, i);
        snprintf(other, sizeof other, "%.4095s/%05d.png", again, i);
        const enum weir_status status = compare_files(one, other, same, error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

/* ---- making it again
 * ---------------------------------------------------------------------------------------------- */

static const char *device_of(const char *numerics_class)
{
    static const char *const devices[] = { "cpu", "ref", "cuda" };
    for (size_t i = 0; i < WEIR_COUNT(devices); i++) {
        const size_t length = strlen(devices[i]);
        if (strncmp(numerics_class, devices[i], length) == 0 && numerics_class[length] == '-') return devices[i];
    }
    return "auto";
}

/* Until a worker has said what it is. */
static enum weir_status wait_for_class(const struct weir_cli_private *own, struct weir_cluster_report *out,
                                       struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    for (;;) {
        const enum weir_status status = weir_client_status(own->client, out, error);
        if (status != WEIR_OK || out->numerics_classes[0]) return status;
        if (!weir_cli_private_goes_on(own)) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
        if (weir_clock_now_ms() - begin_ms > WEIR_CLI_WORKERS_WAIT_MS) {
            return weir_fail(error, WEIR_TIMEOUT, "no worker was ready within %d s", WEIR_CLI_WORKERS_WAIT_MS / 1000);
        }
        usleep(50000); /* it is loading: there is nothing to wait on but the broker's next answer */
    }
}

static enum weir_status elsewhere(struct verdict *verdict, const char *made_on, const char *here)
{
    verdict->code = EXIT_ELSEWHERE;
    snprintf(verdict->words, sizeof verdict->words, "made on %.150s, cannot be replayed here: this is %.150s", made_on,
             here);
    return WEIR_OK;
}

/* The bytes are others: by another build of the encoder, under another name of the model, or for no such reason. */
static void judge(const struct weir_cli_receipt *then, const struct weir_cli_receipt *now, struct verdict *verdict)
{
    if (strcmp(then->encoder, now->encoder) != 0) {
        elsewhere(verdict, then->encoder, now->encoder);
    } else if (strcmp(then->model, now->model) != 0) {
        verdict->code = EXIT_ELSEWHERE;
        snprintf(verdict->words, sizeof verdict->words,
                 "made of a model called %.120s, cannot be replayed here: it is "
                 "called %.120s; its folder's name is what counts",
                 then->model, now->model);
    } else {
        verdict->code = EXIT_DIFFERS;
        snprintf(verdict->words, sizeof verdict->words, "differs");
    }
}

static enum weir_status take(const struct weir_cli_private *own, const struct weir_report *report, const char *path,
                             const struct weir_cli_receipt *receipt, struct verdict *verdict, struct weir_error *error)
{
    struct weir_cli_receipt now;
    char again[PATH_MAX + 16];
    bool same = false;
    if (!report->succeeded) {
        return weir_fail(error, report->cause ? report->cause : WEIR_CANCELLED, "the job %s: %s", report->state,
                         report->words);
    }
    snprintf(again, sizeof again, "%s/again", own->folder);
    enum weir_status status = weir_client_fetch(own->client, report, 0, again, error);
    if (status == WEIR_OK) status = compare(path, again, &same, error);
    if (status != WEIR_OK || same) return status;
    const char *text = weir_report_receipt(report, 0);
    status = weir_cli_receipt_parse(text ? text : "", "what was made again", &now, error);
    if (status != WEIR_OK) return status;
    judge(receipt, &now, verdict);
    weir_cli_receipt_destroy(&now);
    return WEIR_OK;
}

static enum weir_status make_again(const struct weir_cli_private *own, const struct verify_options *options,
                                   const char *path, const struct weir_cli_receipt *receipt, struct verdict *verdict,
                                   struct weir_error *error)
{
    struct weir_cluster_report cluster;
    struct weir_cli_progress progress;
    struct weir_report *report = NULL;
    char job[WEIR_JOB_BYTES];
    enum weir_status status = wait_for_class(own, &cluster, error);
    if (status != WEIR_OK) return status;
    if (strcmp(cluster.numerics_classes, receipt->numerics_class) != 0) {
        return elsewhere(verdict, receipt->numerics_class, cluster.numerics_classes);
    }
    status = weir_cli_private_submit(own, &receipt->request, job, error);
    if (status == WEIR_CONFLICT || status == WEIR_UNSUPPORTED) { /* another model of this name; an encoder is missing */
        verdict->code = EXIT_ELSEWHERE;
        snprintf(verdict->words, sizeof verdict->words, "cannot be replayed here: %.340s", error->words);
        return WEIR_OK;
    }
    if (status != WEIR_OK) return status;
    weir_cli_progress_init(&progress, "", options->quiet);
    status = weir_client_wait(own->client, job, weir_cli_progress_show, &progress, &report, error);
    weir_cli_progress_clear(&progress);
    if (status == WEIR_OK) status = take(own, report, path, receipt, verdict, error);
    weir_report_destroy(&report);
    return status;
}

static enum weir_status give_files(const struct verify_options *options, struct weir_cli_receipt *receipt,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < options->loras.count; i++) {
        WEIR_TRY(weir_cli_receipt_give(receipt, "--lora", options->loras.texts[i], error));
    }
    if (options->control) WEIR_TRY(weir_cli_receipt_give(receipt, "--control", options->control, error));
    if (options->image) WEIR_TRY(weir_cli_receipt_give(receipt, "--image", options->image, error));
    status = weir_cli_receipt_complete(receipt, error);

cleanup:
    return status;
}

static enum weir_status verify(const struct verify_options *options, const char *path, struct verdict *verdict,
                               struct weir_error *error)
{
    static const char worker_says[] = "weir-worker: "; /* before what it ended with */
    char *text = NULL;
    struct weir_cli_receipt receipt = { .json = NULL };
    struct weir_cli_private own = { .folder = "" };
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_cli_receipt_read(path, &text, error));
    WEIR_TRY(weir_cli_receipt_parse(text, path, &receipt, error));
    WEIR_TRY(give_files(options, &receipt, error));
    const struct weir_cluster_options cluster_options = {
        .model = options->model ? options->model : receipt.model,
        .precision = receipt.request.precision,
        .device = options->device ? options->device : device_of(receipt.numerics_class),
        .workers = options->workers,
        .threads = options->threads,
    };
    status = weir_cli_private_start(&cluster_options, &own, error);
    if (status == WEIR_OK) status = make_again(&own, options, path, &receipt, verdict, error);
    status = weir_cli_private_explain(&own, status, error);
    if (status == WEIR_BAD_ARGUMENT && strncmp(error->words, worker_says, sizeof worker_says - 1) == 0) {
        verdict->code = EXIT_ELSEWHERE; /* there is no such device or precision here */
        snprintf(verdict->words, sizeof verdict->words, "made on %.150s, cannot be replayed here: %.200s",
                 receipt.numerics_class, error->words + sizeof worker_says - 1);
        status = WEIR_OK;
    }

cleanup:
    weir_cli_private_stop(&own);
    weir_cli_receipt_destroy(&receipt);
    free(text);
    return status;
}

int weir_cli_verify(int argc, char **argv)
{
    struct verify_options options = { .help = false };
    struct verdict verdict = { EXIT_SAME, "same bytes" };
    struct weir_error error = { 0 };
    uint64_t given;
    int first;
    enum weir_status status = weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &options, &given, &first, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    if (options.help) {
        weir_cli_help(
            "weir verify FILE [options]",
            "Reads the receipt of a film, an image or a folder of frames, makes it again on this machine, and "
            "compares the bytes.",
            rows, WEIR_COUNT(rows));
        puts(
            "\nPrints `same bytes` (exit code 0), `differs` (1), or `made on CLASS, cannot be replayed here` (2) where\n"
            "device, encoder or model are others and other bytes prove nothing. A file without a receipt is an error (74).\n\n"
            "Example\n  weir verify cat.png");
        return 0;
    }
    if (argc - first != 1) {
        status =
            weir_fail(&error, WEIR_BAD_ARGUMENT, "verify: %d files, 1 is wanted; weir verify --help", argc - first);
        return weir_cli_fail(status, &error);
    }
    status = verify(&options, argv[first], &verdict, &error);
    if (status != WEIR_OK) return weir_cli_fail(status, &error);
    puts(verdict.words);
    return verdict.code;
}
