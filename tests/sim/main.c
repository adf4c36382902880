/* The simulator: many seeds of world.h, or one again.
 *
 *   sim --seeds 20000            the product's rules: no seed may fail; prints what was seen
 *   sim --seed 4711 --verbose    one seed, told event by event
 *   sim --ledger sqlite          on the real ledger (in memory), slower
 *   sim_sabotaged --sabotage all every planted bug must be caught; `--sabotage NAME --seed S` shows one
 */
#include "broker/sabotage.h"
#include "proto/base/options.h"
#include "tests/sim/world.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifdef WEIR_SABOTAGE_BUILD
enum weir_sabotage weir_sabotage_chosen = WEIR_SABOTAGE_NONE;
#endif

struct settings {
    int64_t seeds, from, seed;
    const char *ledger, *sabotage;
    bool verbose, help;
};

static const struct weir_option rows[] = {
    { .name = "seeds",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, seeds),
      .min = 1,
      .max = 1e9,
      .value = "N",
      .help = "how many seeds (default: 1000)" },
    { .name = "from",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, from),
      .min = 0,
      .max = 1e15,
      .value = "S",
      .help = "the first seed (default: 1)" },
    { .name = "seed",
      .kind = WEIR_OPTION_INT,
      .offset = offsetof(struct settings, seed),
      .min = 0,
      .max = 1e15,
      .value = "S",
      .help = "this seed alone" },
    { .name = "ledger",
      .kind = WEIR_OPTION_CHOICE,
      .offset = offsetof(struct settings, ledger),
      .value = "memory|sqlite",
      .help = "which ledger the broker has (default: memory)" },
    { .name = "sabotage",
      .kind = WEIR_OPTION_TEXT,
      .offset = offsetof(struct settings, sabotage),
      .value = "NAME",
      .help = "plant a bug, or `all` one after another (sim_sabotaged only)" },
    { .name = "verbose",
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, verbose),
      .help = "tell every event" },
    { .name = "help",
      .letter = 'h',
      .kind = WEIR_OPTION_FLAG,
      .offset = offsetof(struct settings, help),
      .help = "print this and leave" },
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Runs seeds until one fails; returns how many ran, and what failed in words (empty: nothing). */
static uint64_t run_seeds(const struct settings *settings, uint64_t from, uint64_t count, struct sim_totals *totals,
                          char words[400])
{
    const enum sim_ledger ledger =
        settings->ledger != NULL && strcmp(settings->ledger, "sqlite") == 0 ? SIM_SQLITE : SIM_MEMORY;
    words[0] = 0;
    for (uint64_t k = 0; k < count; k++) {
        if (sim_run(from + k, ledger, settings->verbose, totals, words) != NULL) return k + 1;
    }
    return count;
}

static void print_totals(const struct sim_totals *t, double took)
{
    printf(
        "seeds=%llu seeds_s=%.0f jobs=%llu lists=%llu succeeded=%llu failed=%llu partly=%llu cancelled=%llu expired=%llu lost=%llu "
        "second_results=%llu\n",
        (unsigned long long)t->seeds, (double)t->seeds / took, (unsigned long long)t->jobs,
        (unsigned long long)t->lists, (unsigned long long)t->succeeded, (unsigned long long)t->failed,
        (unsigned long long)t->partly, (unsigned long long)t->cancelled, (unsigned long long)t->expired,
        (unsigned long long)t->lost, (unsigned long long)t->second_results);
    printf("kills=%llu broker_kills=%llu pauses=%llu resets=%llu messages=%llu dropped=%llu duplicates=%llu stale=%llu "
           "executions=%llu resumed=%llu outputs_lost=%llu cpu_s=%.1f\n",
           (unsigned long long)t->kills, (unsigned long long)t->broker_kills, (unsigned long long)t->pauses,
           (unsigned long long)t->resets, (unsigned long long)t->messages, (unsigned long long)t->dropped,
           (unsigned long long)t->duplicates, (unsigned long long)t->stale, (unsigned long long)t->executions,
           (unsigned long long)t->resumed, (unsigned long long)t->regressed, took);
    printf("transitions");
    for (int k = 1; k <= 13; k++) printf(" T%d=%llu", k, (unsigned long long)t->seen[k]);
    printf("\n");
}

static int run_product(const struct settings *settings)
{
    struct sim_totals totals = { 0 };
    char words[400];
    const double start = seconds();
    const bool one = settings->seed >= 0;
    const uint64_t from = (uint64_t)(one ? settings->seed : settings->from);
    const uint64_t ran = run_seeds(settings, from, one ? 1 : (uint64_t)settings->seeds, &totals, words);
    print_totals(&totals, seconds() - start);
    if (words[0] == 0) return 0;
    printf("FAILED seed=%llu: %s\nagain with: --seed %llu --verbose\n", (unsigned long long)(from + ran - 1), words,
           (unsigned long long)(from + ran - 1));
    return 1;
}

#ifdef WEIR_SABOTAGE_BUILD
static int run_sabotage(const struct settings *settings)
{
    static const char *const names[] = {
#define X(name, text) text,
        WEIR_SABOTAGE_TABLE(X)
#undef X
    };
    int missed = 0, known = 0;
    for (int bug = 1; bug < WEIR_SABOTAGE_COUNT; bug++) {
        if (strcmp(settings->sabotage, "all") != 0 && strcmp(settings->sabotage, names[bug]) != 0) continue;
        struct sim_totals totals = { 0 };
        char words[400];
        const bool one = settings->seed >= 0;
        const uint64_t from = (uint64_t)(one ? settings->seed : settings->from);
        known++;
        weir_sabotage_chosen = (enum weir_sabotage)bug;
        const uint64_t ran = run_seeds(settings, from, one ? 1 : (uint64_t)settings->seeds, &totals, words);
        if (words[0] == 0) missed++;
        printf("%-34s %s seed=%llu %s\n", names[bug], words[0] != 0 ? "caught" : "MISSED",
               (unsigned long long)(from + ran - 1), words);
    }
    if (known == 0) printf("--sabotage %s: there is no such bug\n", settings->sabotage);
    return missed > 0 || known == 0;
}
#endif

int main(int argc, char **argv)
{
    struct settings settings = { .seeds = 1000, .from = 1, .seed = -1 };
    struct weir_error error = { 0 };
    uint64_t given = 0;
    int first_word = argc;
    if (weir_options_parse(rows, WEIR_COUNT(rows), argc, argv, &settings, &given, &first_word, &error) != WEIR_OK) {
        fprintf(stderr, "sim: %s\n", error.words);
        return 64;
    }
    if (settings.help) {
        weir_options_help(rows, WEIR_COUNT(rows));
        return 0;
    }
    if (settings.sabotage != NULL) {
#ifdef WEIR_SABOTAGE_BUILD
        return run_sabotage(&settings);
#else
        fprintf(stderr, "sim: bugs can be planted in sim_sabotaged alone\n");
        return 64;
#endif
    }
    return run_product(&settings);
}
