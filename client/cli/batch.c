#include "client/cli/batch.h"

#include "client/cli/prompts.h"
#include "proto/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add_fault(void *context, uint32_t line, const struct weir_error *why)
{
    struct weir_cli_batch *own = context;
    own->faults_all++;
    if (own->fault_count == WEIR_CLI_FAULTS_MAX) return;
    char *words = strdup(why->words[0] ? why->words : weir_status_words(why->code));
    if (words) own->faults[own->fault_count++] = (struct weir_cli_fault){ line, words };
}

static bool add_prompt(void *context, const struct weir_prompt *prompt)
{
    struct weir_cli_batch *own = context;
    struct weir_error error = { .words = "" };
    const enum weir_status status = weir_batch_add(own->batch, prompt, &error);
    if (status == WEIR_NO_MEMORY || status == WEIR_INTERRUPTED) {
        own->failed = error;
        return false;
    }
    if (status == WEIR_OK)
        own->prompts++;
    else
        add_fault(own, prompt->line, &error);
    return true;
}

enum weir_status weir_cli_batch_read(struct weir_client *client, const struct weir_request *request, const char *key,
                                     const char *path, struct weir_cli_batch *out, struct weir_error *error)
{
    memset(out, 0, sizeof *out);
    out->path = path;
    enum weir_status status = weir_batch_open(client, request, key, &out->batch, error);
    if (status != WEIR_OK) return status;
    const struct weir_cli_prompts_sink sink = { .prompt = add_prompt, .fault = add_fault, .context = out };
    status = weir_cli_prompts_read(path, &sink, error);
    if (out->failed.code != WEIR_OK) return weir_fail(error, out->failed.code, "%s", out->failed.words);
    if (status != WEIR_OK || out->prompts > 0) return status;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: no prompt in it is usable", path);
}

static bool show(void *context, const struct weir_batch_progress *p)
{
    struct weir_cli_batch *own = context;
    if (own->quiet || !own->terminal) return true;
    fprintf(stderr, "\r\033[Khanding over %llu/%llu prompts%s", (unsigned long long)p->prompts_accepted,
            (unsigned long long)p->prompts, p->waiting ? ", waiting: the cluster has enough for now" : "");
    fflush(stderr);
    own->shown = true;
    return true;
}

enum weir_status weir_cli_batch_submit(struct weir_client *client, struct weir_cli_batch *own, bool quiet,
                                       weir_cli_more *more, void *context, struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    enum weir_status status;
    own->quiet = quiet;
    own->terminal = isatty(2);
    for (;;) {
        status = weir_client_submit_batch(client, own->batch, show, add_fault, own, error);
        if (status != WEIR_UNAVAILABLE || !more(context, weir_clock_now_ms() - begin_ms)) break;
        usleep(50000); /* there is nothing to wait on but the broker's next answer */
    }
    if (own->shown) fprintf(stderr, "\r\033[K");
    own->shown = false;
    if (status == WEIR_OK && !weir_cli_batch_name(own)) {
        status = weir_fail(error, WEIR_BAD_ARGUMENT, "%s: every prompt in it was refused", own->path);
    }
    return status;
}

const char *weir_cli_batch_name(const struct weir_cli_batch *own)
{
    const uint32_t parts = own->batch ? weir_batch_parts(own->batch) : 0;
    for (uint32_t i = 0; i < parts; i++) {
        if (weir_batch_job(own->batch, i)) return parts > 1 ? weir_batch_id(own->batch) : weir_batch_job(own->batch, 0);
    }
    return NULL;
}

static int by_line(const void *a, const void *b)
{
    const struct weir_cli_fault *one = a, *other = b;
    return one->line < other->line ? -1 : one->line > other->line;
}

bool weir_cli_batch_tell(struct weir_cli_batch *own)
{
    qsort(own->faults, own->fault_count, sizeof own->faults[0], by_line);
    for (size_t i = 0; i < own->fault_count; i++) {
        fprintf(stderr, "%s:%u: %s\n", own->path, own->faults[i].line, own->faults[i].words);
    }
    if (own->faults_all > own->fault_count) {
        fprintf(stderr, "%s: %llu more lines were refused\n", own->path,
                (unsigned long long)(own->faults_all - own->fault_count));
    }
    return own->faults_all > 0;
}

void weir_cli_batch_close(struct weir_cli_batch *own)
{
    for (size_t i = 0; i < own->fault_count; i++) free(own->faults[i].words);
    own->fault_count = 0;
    weir_batch_close(&own->batch);
}
