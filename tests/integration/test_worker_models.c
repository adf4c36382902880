/* A worker of several models keeps as many open as its memory holds; which one goes to make room for another is the one
 * that was used least recently; and what has gone and come back gives the bytes that it gave.
 *
 *   test_worker_models [DEVICE]    (default: ref); without a GPU `cuda` is skipped */
#include "tests/integration/pretend_broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MODELS = 3, STEPS = 2, LIMIT = 13 /* its place among the flags */ };

static const char *const names[MODELS] = { "tiny-a", "tiny-b", "tiny-c" };

struct job { /* of one model */
    Weir__Pb__JobSpec *spec;
    Weir__Pb__Done *embedding;
    uint64_t denoise_bytes; /* planned */
    uint8_t latents[WEIR_SHA256_BYTES];
};

struct world {
    struct broker *b;
    struct job jobs[MODELS];
    char folders[MODELS][256], limit[24];
    const char *flags[16];
};

static void see_latents(struct world *w, uint32_t model, uint8_t digest[WEIR_SHA256_BYTES])
{
    const struct job *job = &w->jobs[model];
    Weir__Pb__Done *done = run_task(
        w->b, &(struct lease_options){
                  .stage = WEIR_STAGE_DENOISE, .index = model, .spec = job->spec, .inputs = { job->embedding } });
    digest_of(done, digest);
    done_free(done);
}

/* What was planned last for a denoise stage. */
static uint64_t planned_bytes(const struct broker *b)
{
    char line[4096];
    unsigned long long weights, arena, host;
    uint64_t bytes = 0;
    FILE *file = fopen(b->log, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        const char *plan = strstr(line, "memory planned stage=denoise seats=1 weights_bytes=");
        if (plan && sscanf(strstr(plan, "weights"), "weights_bytes=%llu arena_bytes=%llu host_bytes=%llu", &weights,
                           &arena, &host) == 3)
            bytes = weights + arena + host;
    }
    fclose(file);
    assert_true(bytes > 0);
    return bytes;
}

/* Every model's text and latents, with memory for all; and what each one's denoise stage needs. */
static void make_jobs(struct world *w)
{
    worker_start(w->b, w->flags);
    worker_greet(w->b);
    for (uint32_t i = 0; i < MODELS; i++) {
        struct job *job = &w->jobs[i];
        Weir__Pb__JobSpec wish;
        wish_init(&wish, STEPS);
        wish.model = (char *)(uintptr_t)names[i];
        wish.height = 64;
        wish.format = (char *)(uintptr_t) "png"; /* which asks for no encoder; nothing is decoded here */
        quote(w->b, &wish);
        job->spec = copy_spec(w->b->spec);
        job->embedding =
            run_task(w->b, &(struct lease_options){ .stage = WEIR_STAGE_TEXT, .index = i, .spec = job->spec });
        see_latents(w, i, job->latents);
        job->denoise_bytes = planned_bytes(w->b);
    }
    assert_int_equal(log_count(w->b, "stage closed"), 0);
    worker_kill(w->b);
}

/* The fewest MiB that any two of the three fit, which all three must not. */
static void limit_to_two(struct world *w)
{
    uint64_t all = 0, least = UINT64_MAX;
    for (uint32_t i = 0; i < MODELS; i++) {
        all += w->jobs[i].denoise_bytes;
        if (w->jobs[i].denoise_bytes < least) least = w->jobs[i].denoise_bytes;
    }
    const uint64_t mib = (all - least + (1 << 20) - 1) >> 20;
    print_message("all_bytes=%llu least_bytes=%llu limit_mib=%llu\n", (unsigned long long)all,
                  (unsigned long long)least, (unsigned long long)mib);
    assert_true(mib << 20 < all);
    snprintf(w->limit, sizeof w->limit, "%llu", (unsigned long long)mib);
    w->flags[LIMIT - 1] = "--memory-mib";
    w->flags[LIMIT] = w->limit;
}

/* How often each was opened and closed since the beginning: of the worker with memory for all, once each. */
static void see_counts(const struct world *w, const uint32_t opened[MODELS], const uint32_t closed[MODELS])
{
    char words[128];
    for (uint32_t i = 0; i < MODELS; i++) {
        snprintf(words, sizeof words, "stage opened stage=denoise model=%s ", names[i]);
        assert_int_equal(log_count(w->b, words), 1 + opened[i]);
        snprintf(words, sizeof words, "stage closed stage=denoise model=%s ", names[i]);
        assert_int_equal(log_count(w->b, words), closed[i]);
    }
}

static const char *device = "ref";

static void of_three_models_two_stay_and_the_least_recently_used_goes(void **state)
{
    struct broker *b = *state;
    struct world w = { .b = b,
                       .flags = { "--device", device, "--batch", "1", "--stages", "text,denoise", "--model",
                                  w.folders[0], "--model", w.folders[1], "--model", w.folders[2] } };
    static const struct {
        uint32_t model, opened[MODELS], closed[MODELS];
    } rows[] = {
        { 0, { 1, 0, 0 }, { 0, 0, 0 } }, { 1, { 1, 1, 0 }, { 0, 0, 0 } },
        { 0, { 1, 1, 0 }, { 0, 0, 0 } },                                  /* used again: now 1 waits longest */
        { 2, { 1, 1, 1 }, { 0, 1, 0 } },                                  /* and goes */
        { 0, { 1, 1, 1 }, { 0, 1, 0 } },                                  /* 0 had stayed */
        { 1, { 1, 2, 1 }, { 0, 1, 1 } },                                  /* comes back, for 2 */
        { 2, { 1, 2, 2 }, { 1, 1, 1 } }, { 1, { 1, 2, 2 }, { 1, 1, 1 } }, /* for 0; 1 had stayed */
    };
    for (uint32_t i = 0; i < MODELS; i++)
        snprintf(w.folders[i], sizeof w.folders[i], WEIR_SOURCE_DIR "/tests/golden/%s", names[i]);
    b->logs = true;
    make_jobs(&w);
    limit_to_two(&w);
    worker_start(b, w.flags);
    worker_greet(b);
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        uint8_t digest[WEIR_SHA256_BYTES];
        see_latents(&w, rows[i].model, digest);
        assert_memory_equal(digest, w.jobs[rows[i].model].latents, sizeof digest);
        see_counts(&w, rows[i].opened, rows[i].closed);
    }
    for (uint32_t i = 0; i < MODELS; i++) {
        done_free(w.jobs[i].embedding);
        weir__pb__job_spec__free_unpacked(w.jobs[i].spec, NULL);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, broker_setup, broker_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { CASE(of_three_models_two_stay_and_the_least_recently_used_goes) };
    if (argc > 1) device = argv[1];
    if (strcmp(device, "cuda") == 0 && access("/dev/nvidiactl", F_OK) != 0) {
        printf("skipped: %zu test on cuda: no GPU\n", WEIR_COUNT(tests));
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
