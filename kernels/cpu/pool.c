/* How it works. `state` holds the number of the job and how many of its items are not yet taken. A thread takes an item
 * by lowering that number with compare-and-swap; the number it gives up is the item. The job's fields are written
 * before `state` and read after it: a thread that read fields of a job which has ended meanwhile fails to swap and
 * reads again, so fields are atomic (relaxed) but need no lock. `done` counts finished items; who finishes the last one
 * wakes the caller. Sleeping needs the usual care: a sleeper says so, then looks once more; a waker changes the state,
 * then looks for sleepers. Both in one total order (seq_cst), so one of them sees the other. */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct weir_pool {
    pthread_mutex_t run_lock; /* one job at a time */
    pthread_mutex_t sleep_lock;
    pthread_cond_t work_there, all_done;
    void (*start)(void);
    uint32_t slots, started;
    pthread_t *threads;
    struct seat *seats;

    _Alignas(64) atomic_uint_fast64_t state; /* job << 32 | items not yet taken */
    _Atomic(void (*)(void *, uint32_t, uint32_t)) work;
    _Atomic(void *) context;
    _Alignas(64) atomic_uint done, items;
    atomic_uint sleepers;
    atomic_bool caller_sleeps, stop;
};

struct seat {
    struct weir_pool *pool;
    uint32_t slot;
};

#define LEFT(state) ((uint32_t)(state))

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Takes and does one item; false when none was left. */
static bool take_one(struct weir_pool *pool, uint32_t slot)
{
    uint_fast64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
    while (LEFT(state) > 0) {
        void (*work)(void *, uint32_t, uint32_t) = atomic_load_explicit(&pool->work, memory_order_relaxed);
        void *context = atomic_load_explicit(&pool->context, memory_order_relaxed);
        if (!atomic_compare_exchange_weak_explicit(&pool->state, &state, state - 1, memory_order_acq_rel,
                                                   memory_order_acquire)) {
            continue;
        }
        work(context, LEFT(state) - 1, slot);
        const unsigned items = atomic_load_explicit(&pool->items, memory_order_relaxed);
        if (atomic_fetch_add(&pool->done, 1) + 1 == items && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->sleep_lock);
            pthread_cond_signal(&pool->all_done);
            pthread_mutex_unlock(&pool->sleep_lock);
        }
        return true;
    }
    return false;
}

static void sleep_until_work(struct weir_pool *pool)
{
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (LEFT(atomic_load(&pool->state)) == 0 && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->work_there, &pool->sleep_lock);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->sleep_lock);
}

static void *thread_main(void *argument)
{
    const struct seat *seat = argument;
    struct weir_pool *pool = seat->pool;
    if (pool->start) pool->start();
    for (unsigned idle = 0; !atomic_load_explicit(&pool->stop, memory_order_relaxed);) {
        if (take_one(pool, seat->slot)) {
            idle = 0;
        } else if (idle < WEIR_POOL_SPINS) {
            idle++;
            relax();
        } else {
            sleep_until_work(pool);
            idle = 0;
        }
    }
    return NULL;
}

static bool all_done(struct weir_pool *pool, uint32_t items)
{
    return atomic_load(&pool->done) == items;
}

static void wait_until_done(struct weir_pool *pool, uint32_t items)
{
    for (unsigned idle = 0; idle < WEIR_POOL_SPINS; idle++) {
        if (all_done(pool, items)) return;
        relax();
    }
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->caller_sleeps, true);
    while (!all_done(pool, items)) pthread_cond_wait(&pool->all_done, &pool->sleep_lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->sleep_lock);
}

void weir_pool_run(struct weir_pool *pool, uint32_t items, void (*work)(void *context, uint32_t item, uint32_t slot),
                   void *context)
{
    if (items == 0) return;
    pthread_mutex_lock(&pool->run_lock);
    if (items == 1 || pool->slots == 1) { /* nothing to share: nobody is woken */
        for (uint32_t item = items; item-- > 0;) work(context, item, 0);
        pthread_mutex_unlock(&pool->run_lock);
        return;
    }
    atomic_store_explicit(&pool->work, work, memory_order_relaxed);
    atomic_store_explicit(&pool->context, context, memory_order_relaxed);
    atomic_store_explicit(&pool->items, items, memory_order_relaxed);
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    const uint_fast64_t job = (atomic_load_explicit(&pool->state, memory_order_relaxed) >> 32) + 1;
    atomic_store(&pool->state, job << 32 | items);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->sleep_lock);
        pthread_cond_broadcast(&pool->work_there);
        pthread_mutex_unlock(&pool->sleep_lock);
    }
    while (take_one(pool, 0)) {}
    wait_until_done(pool, items);
    pthread_mutex_unlock(&pool->run_lock);
}

uint32_t weir_pool_slots(const struct weir_pool *pool)
{
    return pool->slots;
}

enum weir_status weir_pool_create(int threads, void (*start)(void), struct weir_pool **out, struct weir_error *error)
{
    *out = NULL;
    struct weir_pool *pool = aligned_alloc(_Alignof(struct weir_pool), sizeof *pool);
    if (!pool) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a pool of %d threads", threads);
    *pool = (struct weir_pool){ .slots = (uint32_t)threads, .start = start };
    pthread_mutex_init(&pool->run_lock, NULL);
    pthread_mutex_init(&pool->sleep_lock, NULL);
    pthread_cond_init(&pool->work_there, NULL);
    pthread_cond_init(&pool->all_done, NULL);
    pool->threads = calloc((size_t)threads, sizeof *pool->threads);
    pool->seats = calloc((size_t)threads, sizeof *pool->seats);
    int fault = pool->threads && pool->seats ? 0 : -1;
    for (uint32_t slot = 1; slot < pool->slots && fault == 0; slot++) {
        pool->seats[slot] = (struct seat){ .pool = pool, .slot = slot };
        fault = pthread_create(&pool->threads[slot], NULL, thread_main, &pool->seats[slot]);
        if (fault == 0) pool->started++;
    }
    if (fault != 0) {
        weir_pool_destroy(&pool);
        return weir_fail(error, WEIR_NO_MEMORY, "could not start %d threads", threads);
    }
    *out = pool;
    return WEIR_OK;
}

void weir_pool_destroy(struct weir_pool **pool_p)
{
    struct weir_pool *pool = *pool_p;
    if (!pool) return;
    pthread_mutex_lock(&pool->sleep_lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work_there);
    pthread_mutex_unlock(&pool->sleep_lock);
    for (uint32_t slot = 1; slot <= pool->started; slot++) pthread_join(pool->threads[slot], NULL);
    pthread_cond_destroy(&pool->all_done);
    pthread_cond_destroy(&pool->work_there);
    pthread_mutex_destroy(&pool->sleep_lock);
    pthread_mutex_destroy(&pool->run_lock);
    free(pool->seats);
    free(pool->threads);
    free(pool);
    *pool_p = NULL;
}
