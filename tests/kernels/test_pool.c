/* The pool does every item of every job exactly once, gives a slot one user at a time, and ends. */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define ITEMS_MAX 1000

struct job {
    atomic_uint done[ITEMS_MAX];
    atomic_bool slot_busy[8];
    unsigned plain[8]; /* by slot, without atomics: a data race if a slot had two users */
    atomic_uint collisions;
    long item_ns;
};

static void work(void *context, uint32_t item, uint32_t slot)
{
    struct job *job = context;
    if (atomic_exchange(&job->slot_busy[slot], true)) atomic_fetch_add(&job->collisions, 1);
    if (job->item_ns > 0) nanosleep(&(struct timespec){ .tv_nsec = job->item_ns }, NULL);
    job->plain[slot]++;
    atomic_fetch_add(&job->done[item], 1);
    atomic_store(&job->slot_busy[slot], false);
}

static struct weir_pool *pool_of(int threads)
{
    struct weir_pool *pool = NULL;
    assert_int_equal(weir_pool_create(threads, NULL, &pool, NULL), WEIR_OK);
    assert_int_equal(weir_pool_slots(pool), threads);
    return pool;
}

static void run_job(struct weir_pool *pool, struct job *job, uint32_t items)
{
    memset(job, 0, sizeof *job);
    weir_pool_run(pool, items, work, job);
    unsigned all = 0;
    for (size_t i = 0; i < 8; i++) all += job->plain[i];
    assert_int_equal(all, items);
    assert_int_equal(atomic_load(&job->collisions), 0);
    for (uint32_t i = 0; i < items; i++) assert_int_equal(atomic_load(&job->done[i]), 1);
}

static void every_item_is_done_once(void **state)
{
    (void)state;
    struct job *job = malloc(sizeof *job);
    for (int threads = 1; threads <= 4; threads++) {
        struct weir_pool *pool = pool_of(threads);
        run_job(pool, job, 0);
        for (uint32_t round = 0; round < 3000; round++) run_job(pool, job, round % 37);
        run_job(pool, job, ITEMS_MAX);
        weir_pool_destroy(&pool);
        assert_null(pool);
    }
    free(job);
}

/* Jobs so far apart that all threads sleep in between. */
static void sleeping_threads_are_woken(void **state)
{
    (void)state;
    struct job *job = malloc(sizeof *job);
    struct weir_pool *pool = pool_of(3);
    for (int round = 0; round < 50; round++) {
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        memset(job, 0, sizeof *job);
        job->item_ns = 100000; /* the caller has to sleep for the others */
        weir_pool_run(pool, 7, work, job);
        for (uint32_t i = 0; i < 7; i++) assert_int_equal(atomic_load(&job->done[i]), 1);
    }
    weir_pool_destroy(&pool);
    free(job);
}

struct caller {
    struct weir_pool *pool;
    struct job job;
    bool fault;
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    for (int round = 0; round < 500; round++) {
        memset(&caller->job, 0, sizeof caller->job);
        weir_pool_run(caller->pool, 20, work, &caller->job);
        for (uint32_t i = 0; i < 20; i++) caller->fault |= atomic_load(&caller->job.done[i]) != 1;
    }
    return NULL;
}

static void callers_on_several_threads_take_turns(void **state)
{
    (void)state;
    struct weir_pool *pool = pool_of(3);
    struct caller *callers = calloc(4, sizeof *callers);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        callers[i].pool = pool;
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_false(callers[i].fault);
    }
    weir_pool_destroy(&pool);
    free(callers);
}

static void a_pool_that_never_worked_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        struct weir_pool *pool = pool_of(4);
        weir_pool_destroy(&pool);
    }
    struct weir_pool *none = NULL;
    weir_pool_destroy(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_once),
        cmocka_unit_test(sleeping_threads_are_woken),
        cmocka_unit_test(callers_on_several_threads_take_turns),
        cmocka_unit_test(a_pool_that_never_worked_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
