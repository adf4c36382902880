/* The ledgers agree: random sequences of calls run on the SQLite ledger and on the reference model, and every
 * answer, every row and every page must be equal. Tokens, classes and blobs come from small pools, so that repeats,
 * stale tokens and conflicts are common.
 *
 *   model --sequences 100000      of 50 calls each; a difference prints its sequence, which --from repeats
 */
#include "proto/base/options.h"
#include "tests/sim/trial.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CALLS 50

struct settings {
    int64_t sequences, from;
};

static const struct weir_option rows[] = {
    { .name = "sequences",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, sequences),
      .min = 1,
      .max = 1e9,
      .value = "N",
      .help = "how many sequences of 50 calls (default: 3000)" },
    { .name = "from",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, from),
      .min = 0,
      .max = 1e15,
      .value = "S",
      .help = "the first one (default: 1)" },
};

struct pair {
    struct trial trial;
    struct weir_ledger *ledgers[2]; /* model, SQLite */
    uint64_t calls, applied;
};

__attribute__((noreturn)) static void differ(const struct pair *p, const char *what)
{
    printf("FAILED sequence=%" PRIu64 ": %s differs\nagain with: --from %" PRIu64 " --sequences 1\n", p->trial.number,
           what, p->trial.number);
    exit(1);
}

static void compare_told(const struct pair *p, struct told told[2], const enum weir_status status[2], const char *what)
{
    if (status[0] != status[1] || told[0].count != told[1].count ||
        (told[0].count > 0 && memcmp(told[0].text, told[1].text, told[0].count) != 0)) {
        differ(p, what);
    }
    told[0].count = told[1].count = 0;
}

static void compare_reads(struct pair *p, struct told told[2])
{
    struct trial *t = &p->trial;
    enum weir_status status[2];
    for (uint32_t k = 0; k < TRIAL_JOBS; k++) {
        struct weir_ledger_query query = { .job = t->jobs[k] };
        for (int ledger = 0; ledger < 2; ledger++) {
            status[ledger] = weir_ledger_replay(p->ledgers[ledger], &query, told_job, &told[ledger], NULL);
        }
        compare_told(p, told, status, "replay");
        query.ranged = true;
        query.range = trial_range(t);
        for (int ledger = 0; ledger < 2; ledger++) {
            status[ledger] = weir_ledger_replay(p->ledgers[ledger], &query, told_job, &told[ledger], NULL);
        }
        compare_told(p, told, status, "replay of a range");
    }
    struct weir_ledger_query by_key = { .by_key = true,
                                        .tenant = trial_below(t, 2) ? "default" : "other",
                                        .no_tasks = true };
    memcpy(by_key.key, &t->number, sizeof t->number);
    by_key.key[20] = (uint8_t)trial_below(t, 2);
    struct weir_ledger_page page = { .filter = (enum weir_ledger_filter)trial_below(t, 3),
                                     .newest_first = trial_below(t, 2),
                                     .bounded = trial_below(t, 2),
                                     .from = t->jobs[trial_below(t, TRIAL_JOBS)],
                                     .batched = trial_below(t, 2),
                                     .no_tasks = trial_below(t, 2),
                                     .limit = 1 + trial_below(t, 4) };
    memset(page.batch, 1 + (int)trial_below(t, 2), sizeof page.batch);
    by_key.no_spec = trial_below(t, 2);
    for (int ledger = 0; ledger < 2; ledger++) {
        status[ledger] = weir_ledger_replay(p->ledgers[ledger], &by_key, told_job, &told[ledger], NULL);
    }
    compare_told(p, told, status, "replay by key");
    for (int ledger = 0; ledger < 2; ledger++) {
        status[ledger] = weir_ledger_page_open(p->ledgers[ledger], &page, told_job, &told[ledger], NULL);
    }
    compare_told(p, told, status, "page_open");
}

static void run_batch(struct pair *p, uint32_t count)
{
    static struct weir_ledger_call calls[2][TRIAL_BATCH_MAX];
    struct weir_ledger_call *lists[2][TRIAL_BATCH_MAX];
    struct weir_error error = { 0 };
    for (uint32_t k = 0; k < count; k++) {
        trial_call(&p->trial, k, &calls[0][k]);
        calls[1][k] = calls[0][k];
        lists[0][k] = &calls[0][k];
        lists[1][k] = &calls[1][k];
    }
    for (int ledger = 0; ledger < 2; ledger++) {
        if (weir_ledger_apply(p->ledgers[ledger], lists[ledger], count, &error) != WEIR_OK) {
            printf("sequence=%" PRIu64 ": %s\n", p->trial.number, error.words);
            exit(1);
        }
    }
    for (uint32_t k = 0; k < count; k++) {
        const struct weir_ledger_call *a = &calls[0][k], *b = &calls[1][k];
        p->calls++;
        p->applied += a->reply == WEIR_LEDGER_APPLIED;
        trial_answered(&p->trial, a);
        if (a->reply != b->reply || a->job_state != b->job_state || a->task_state != b->task_state ||
            memcmp(a->existing.bytes, b->existing.bytes, WEIR_ID_BYTES) != 0) {
            printf("call %d on %s/%u: model reply %d job %d task %d, sqlite reply %d job %d task %d\n", (int)a->op,
                   weir_stage_name(a->task.stage), a->task.index, (int)a->reply, (int)a->job_state, (int)a->task_state,
                   (int)b->reply, (int)b->job_state, (int)b->task_state);
            differ(p, "an answer");
        }
    }
}

/* Leaves nothing behind: ends and purges the jobs, in both. */
static void clean(struct pair *p)
{
    for (int ledger = 0; ledger < 2; ledger++) {
        for (uint32_t k = 0; k < TRIAL_JOBS; k++) {
            struct weir_ledger_call end = { .op = WEIR_LEDGER_CANCEL, .task.job = p->trial.jobs[k] };
            struct weir_ledger_call purge = { .op = WEIR_LEDGER_PURGE, .task.job = p->trial.jobs[k] };
            struct weir_ledger_call *list[] = { &end, &purge };
            end.u.cancel.to = WEIR_JOB_EXPIRED;
            purge.u.purge.rows = true;
            if (weir_ledger_apply(p->ledgers[ledger], list, 2, NULL) != WEIR_OK) differ(p, "the end");
        }
    }
}

static void run_sequence(struct pair *p, uint64_t number, struct told told[2])
{
    trial_begin(&p->trial, number);
    for (uint32_t done = 0; done < CALLS;) {
        const uint32_t count = 1 + trial_below(&p->trial, TRIAL_BATCH_MAX);
        run_batch(p, count);
        done += count;
        if (trial_below(&p->trial, 4) == 0) compare_reads(p, told);
    }
    compare_reads(p, told);
    clean(p);
}

int main(int argc, char **argv)
{
    struct settings settings = { .sequences = 3000, .from = 1 };
    struct weir_error error = { 0 };
    static struct pair pair;
    struct told told[2] = { { 0 } };
    uint64_t given = 0, epoch = 0;
    int first_word = argc;
    if (weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &settings, &given, &first_word, &error) != WEIR_OK ||
        weir_ledger_memory_open(&pair.ledgers[0], &error) != WEIR_OK ||
        weir_ledger_sqlite_open(":memory:", &pair.ledgers[1], &error) != WEIR_OK ||
        weir_ledger_takeover(pair.ledgers[0], &epoch, &error) != WEIR_OK ||
        weir_ledger_takeover(pair.ledgers[1], &epoch, &error) != WEIR_OK) {
        fprintf(stderr, "model: %s\n", error.words);
        return 64;
    }
    const clock_t start = clock();
    for (int64_t k = 0; k < settings.sequences; k++) {
        run_sequence(&pair, (uint64_t)(settings.from + k), told);
    }
    printf("sequences=%" PRId64 " calls=%" PRIu64 " applied=%" PRIu64 " differences=0 cpu_s=%.1f\n", settings.sequences,
           pair.calls, pair.applied, (double)(clock() - start) / CLOCKS_PER_SEC);
    weir_ledger_close(&pair.ledgers[0]);
    weir_ledger_close(&pair.ledgers[1]);
    free(told[0].text);
    free(told[1].text);
    return 0;
}
