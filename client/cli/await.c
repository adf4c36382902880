#include "client/cli/await.h"

#include "proto/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FEW_JOBS = 8, SOON_MS = 200, LATER_MS = 1000, SLICE_MS = 50, LINE_MS = 10000, LINES_A_RUN = 20 };

/* ---- finding ------------------------------------------------------------------------------------------------------- */

enum weir_status weir_cli_jobs_find(struct weir_client *client, const char *id, struct weir_cli_jobs *out,
                                    struct weir_error *error)
{
    struct weir_report *report;
    *out = (struct weir_cli_jobs){ .count = 1 };
    snprintf(out->id, sizeof out->id, "%s", id);
    enum weir_status status = weir_client_show(client, id, &report, error);
    if (status == WEIR_NOT_FOUND) {
        out->is_batch = out->is_list = true;
        return weir_client_list_batch(client, id, &out->lines, &out->count, error);
    }
    if (status != WEIR_OK) return status;
    out->is_list = report->prompts[0].line != 0;
    out->lines = calloc(1, sizeof *out->lines);
    if (out->lines) {
        memcpy(out->lines->job, report->job, sizeof out->lines->job);
        out->lines->state = out->lines->prompt = "";
    } else {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for a job");
    }
    weir_report_destroy(&report);
    return status;
}

void weir_cli_jobs_destroy(struct weir_cli_jobs *jobs)
{
    free(jobs->lines);
    *jobs = (struct weir_cli_jobs){ .count = 0 };
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

struct part {
    char job[WEIR_JOB_BYTES], state[16];
    uint32_t tasks_done, items, made;
    bool known, terminal, succeeded;
};

struct waiting {
    struct weir_client *client;
    const struct weir_cli_jobs *jobs;
    struct part *parts;
    size_t count;
    struct weir_cli_awaited *out;
    bool quiet, terminal, shown;
    uint64_t begin_ms, printed_ms, made_at_begin, made_printed;
};

/* Items of which every byte is there: of an ended job those of its manifest, else those whose last task is done. */
static uint32_t made_of(const struct weir_report *report)
{
    const char *last = report->image ? "decode" : "assemble";
    uint32_t made = 0, item = UINT32_MAX;
    for (size_t i = 0; report->terminal && i < report->object_count; i++) {
        made += report->objects[i].item != item;
        item = report->objects[i].item;
    }
    for (size_t i = 0; !report->terminal && i < report->task_count; i++) {
        made += strcmp(report->tasks[i].stage, last) == 0 && strcmp(report->tasks[i].state, "done") == 0;
    }
    return made;
}

static enum weir_status look(struct waiting *w, struct part *part, struct weir_error *error)
{
    struct weir_report *report;
    const enum weir_status status = weir_client_show(w->client, part->job, &report, error);
    if (status != WEIR_OK) return status;
    part->known = true;
    part->items = report->items;
    part->made = made_of(report);
    part->terminal = report->terminal;
    part->succeeded = report->succeeded;
    snprintf(part->state, sizeof part->state, "%s", report->state);
    w->out->image = report->image;
    if (report->terminal && !report->succeeded && w->out->cause == WEIR_OK) {
        w->out->cause = report->cause ? report->cause : WEIR_CANCELLED;
        snprintf(w->out->words, sizeof w->out->words, "%s", report->words);
    }
    weir_report_destroy(&report);
    return WEIR_OK;
}

/* Parts that have come since the last look are taken in; both are sorted by part. */
static enum weir_status take_lines(struct waiting *w, const struct weir_job_line *lines, size_t count,
                                   struct weir_error *error)
{
    struct part *parts = calloc(count + 1, sizeof *parts);
    if (!parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu jobs", count);
    for (size_t i = 0, old = 0; i < count; i++) {
        while (old < w->count && strcmp(w->parts[old].job, lines[i].job) != 0 && w->count - old > count - i) old++;
        if (old < w->count && strcmp(w->parts[old].job, lines[i].job) == 0)
            parts[i] = w->parts[old++];
        else
            memcpy(parts[i].job, lines[i].job, sizeof parts[i].job);
    }
    free(w->parts);
    w->parts = parts;
    w->count = count;
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < count && status == WEIR_OK; i++) {
        const bool moved = parts[i].tasks_done != lines[i].tasks_done || strcmp(parts[i].state, lines[i].state) != 0;
        parts[i].tasks_done = lines[i].tasks_done;
        if (!parts[i].known || (!parts[i].terminal && moved)) status = look(w, &parts[i], error);
    }
    return status;
}

static enum weir_status refresh(struct waiting *w, struct weir_error *error)
{
    if (!w->jobs->is_batch) return look(w, &w->parts[0], error);
    struct weir_job_line *lines;
    size_t count;
    enum weir_status status = weir_client_list_batch(w->client, w->jobs->id, &lines, &count, error);
    if (status != WEIR_OK) return status;
    status = take_lines(w, lines, count, error);
    free(lines);
    return status;
}

static void sum(struct waiting *w)
{
    struct weir_cli_awaited *out = w->out;
    out->items = out->made = out->ready = out->lost = 0;
    out->ended = true;
    out->state = "succeeded";
    for (size_t i = 0; i < w->count; i++) {
        const struct part *part = &w->parts[i];
        out->items += part->items;
        out->made += part->made;
        if (part->terminal) out->ready += part->made;
        if (part->terminal) out->lost += part->items - part->made;
        out->ended = out->ended && part->terminal;
        if (part->terminal && !part->succeeded && strcmp(out->state, "succeeded") == 0) {
            static const char *const states[] = { "failed", "cancelled", "expired" };
            for (size_t s = 0; s < WEIR_COUNT(states); s++) {
                if (strcmp(states[s], part->state) == 0) out->state = states[s];
            }
        }
    }
}

static void expected(const struct waiting *w, uint64_t now_ms, char out[80])
{
    const uint64_t made = w->out->made - w->made_at_begin, passed_ms = now_ms - w->begin_ms;
    out[0] = '\0';
    if (w->out->made <= w->made_at_begin || passed_ms < 1000) return;
    const uint64_t left = w->out->items - w->out->made - w->out->lost, left_s = passed_ms * left / made / 1000;
    const double rate = 1000.0 * (double)made / (double)passed_ms;
    if (left_s >= 3600) {
        snprintf(out, 80, ", %.3g/s, about %llu h %llu min left", rate, (unsigned long long)(left_s / 3600),
                 (unsigned long long)(left_s % 3600 / 60));
    } else if (left_s >= 60) {
        snprintf(out, 80, ", %.3g/s, about %llu min %llu s left", rate, (unsigned long long)(left_s / 60),
                 (unsigned long long)(left_s % 60));
    } else {
        snprintf(out, 80, ", %.3g/s, about %llu s left", rate, (unsigned long long)left_s);
    }
}

/* On a terminal one line that is drawn again; in a pipe a line for every twentieth, or every ten seconds of change. */
static void show(struct waiting *w)
{
    const struct weir_cli_awaited *out = w->out;
    const uint64_t now_ms = weir_clock_now_ms();
    char left[80], lost[48] = "";
    if (w->quiet) return;
    const uint64_t step = out->items / LINES_A_RUN + 1;
    const bool due = out->made != w->made_printed &&
                     (out->made >= w->made_printed + step || out->ended || now_ms - w->printed_ms > LINE_MS);
    if (!w->terminal && !due) return;
    expected(w, now_ms, left);
    if (out->lost) snprintf(lost, sizeof lost, ", %llu lost", (unsigned long long)out->lost);
    fprintf(stderr, "%s%s %llu/%llu%s%s%s", w->terminal ? "\r\033[K" : "", out->image ? "images" : "films",
            (unsigned long long)out->made, (unsigned long long)out->items, lost, left, w->terminal ? "" : "\n");
    fflush(stderr);
    w->shown = w->terminal;
    w->made_printed = out->made;
    w->printed_ms = now_ms;
}

static bool rest(const struct waiting *w, weir_on_idle *goes_on, void *context)
{
    for (int ms = 0; ms < (w->count > FEW_JOBS ? LATER_MS : SOON_MS); ms += SLICE_MS) {
        if (!goes_on(context)) return false;
        usleep(SLICE_MS * 1000);
    }
    return goes_on(context);
}

enum weir_status weir_cli_await(struct weir_client *client, const struct weir_cli_jobs *jobs, bool quiet,
                                weir_on_idle *goes_on, void *context, struct weir_cli_awaited *out,
                                struct weir_error *error)
{
    *out = (struct weir_cli_awaited){ .state = "" };
    struct waiting w = { .client = client, .jobs = jobs, .out = out, .quiet = quiet, .terminal = isatty(2) };
    w.parts = calloc(1, sizeof *w.parts);
    if (!w.parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory to wait");
    if (!jobs->is_batch) memcpy(w.parts[0].job, jobs->lines[0].job, sizeof w.parts[0].job);
    w.count = jobs->is_batch ? 0 : 1;
    w.begin_ms = w.printed_ms = weir_clock_now_ms();
    enum weir_status status = refresh(&w, error);
    sum(&w);
    w.made_at_begin = w.made_printed = out->made;
    while (status == WEIR_OK && !out->ended) {
        show(&w);
        if (!rest(&w, goes_on, context)) {
            status = weir_fail(error, WEIR_INTERRUPTED, "interrupted");
            break;
        }
        status = refresh(&w, error);
        if (status == WEIR_OK) sum(&w);
    }
    if (status == WEIR_OK) show(&w);
    if (w.shown) fputc('\n', stderr);
    free(w.parts);
    return status;
}
