#include "worker/rows.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SHAPES = 64,
    DOUBLINGS = 5,         /* 1, 2, 4, 8, 16 */
    STEPS_TO_KNOW = 8,     /* of a busy machine's steps one in so many is its own */
    STEPS_TO_DOUBT = 2000, /* then what did not pay is tried again: the machine may have been busy */
    GAIN_PERCENT = 3,
};
static_assert(1 << (DOUBLINGS - 1) == WEIR_ROWS_MAX, "the last doubling is the most that sit");

struct known {
    struct weir_shape shape;
    uint64_t used; /* 0: free; else when, as a number that only grows */
    uint64_t quickest_ns[DOUBLINGS];
    uint32_t steps[DOUBLINGS]; /* seen */
    uint32_t allowed, since_doubt;
};

struct weir_rows {
    const struct weir_log *log;
    uint32_t fixed;
    pthread_mutex_t lock; /* of the rest */
    uint64_t uses;
    struct known shapes[SHAPES];
};

enum weir_status weir_rows_create(uint32_t fixed, const struct weir_log *log, struct weir_rows **out,
                                  struct weir_error *error)
{
    struct weir_rows *rows = calloc(1, sizeof *rows);
    *out = rows;
    if (!rows) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of rows");
    assert(fixed <= WEIR_ROWS_MAX);
    rows->fixed = fixed;
    rows->log = log;
    pthread_mutex_init(&rows->lock, NULL);
    return WEIR_OK;
}

void weir_rows_destroy(struct weir_rows **rows_p)
{
    if (!*rows_p) return;
    pthread_mutex_destroy(&(*rows_p)->lock);
    free(*rows_p);
    *rows_p = NULL;
}

uint32_t weir_rows_most(const struct weir_rows *rows)
{
    return rows->fixed ? rows->fixed : WEIR_ROWS_MAX;
}

/* Under the lock. A shape that is new takes the place of the one that nobody asked for the longest. */
static struct known *find(struct weir_rows *rows, const struct weir_shape *shape)
{
    struct known *oldest = &rows->shapes[0];
    for (size_t i = 0; i < SHAPES; i++) {
        struct known *known = &rows->shapes[i];
        if (known->used && weir_shape_same(&known->shape, shape)) {
            known->used = ++rows->uses;
            return known;
        }
        if (known->used < oldest->used) oldest = known;
    }
    *oldest = (struct known){ .shape = *shape, .used = ++rows->uses, .allowed = WEIR_ROWS_MAX };
    return oldest;
}

static bool is_known(const struct known *known, unsigned doubling)
{
    return known->steps[doubling] >= STEPS_TO_KNOW;
}

/* Whether twice the items give enough more of them a second: a step may take 2 / 1.03 of the time. */
static bool gains(const struct known *known, unsigned doubling)
{
    return known->quickest_ns[doubling + 1] * (100 + GAIN_PERCENT) <= known->quickest_ns[doubling] * 200;
}

static uint32_t wished(const struct weir_rows *rows, const struct known *known)
{
    unsigned doubling = 0;
    if (rows->fixed) return rows->fixed;
    while (doubling + 1 < DOUBLINGS && is_known(known, doubling)) {
        if (is_known(known, doubling + 1) && !gains(known, doubling)) break;
        doubling++;
    }
    return 1u << doubling;
}

static uint32_t wanted(const struct weir_rows *rows, const struct known *known)
{
    const uint32_t wish = wished(rows, known);
    return wish < known->allowed ? wish : known->allowed;
}

uint32_t weir_rows_wished(struct weir_rows *rows, const struct weir_shape *shape)
{
    pthread_mutex_lock(&rows->lock);
    const uint32_t count = wished(rows, find(rows, shape));
    pthread_mutex_unlock(&rows->lock);
    return count;
}

uint32_t weir_rows_wanted(struct weir_rows *rows, const struct weir_shape *shape)
{
    pthread_mutex_lock(&rows->lock);
    const uint32_t count = wanted(rows, find(rows, shape));
    pthread_mutex_unlock(&rows->lock);
    return count;
}

/* "1:14.80 2:6.40": items and milliseconds a step and item. */
static void say_table(const struct weir_rows *rows, const struct known *known)
{
    char words[DOUBLINGS * 32] = "";
    const struct weir_shape *s = &known->shape;
    size_t at = 0;
    for (unsigned i = 0; i < DOUBLINGS; i++) {
        if (!is_known(known, i)) continue;
        at += (size_t)snprintf(words + at, sizeof words - at, "%s%u:%.2f", at ? " " : "", 1u << i,
                               (double)known->quickest_ns[i] / 1e6 / (1u << i));
    }
    weir_log(rows->log, WEIR_LOG_INFO,
             "denoise measured model=%u latents=%ux%ux%ux%u guided=%d ms_per_step_and_item=\"%s\" wanted=%u", s->model,
             s->dims[0], s->dims[1], s->dims[2], s->dims[3], (int)s->guided, words, wanted(rows, known));
}

/* Forgets the larger numbers that are not wanted. */
static void doubt(const struct weir_rows *rows, struct known *known)
{
    const uint32_t wish = wished(rows, known);
    known->since_doubt = 0;
    for (unsigned i = 0; i < DOUBLINGS; i++) {
        if (1u << i > wish) known->steps[i] = 0;
    }
}

void weir_rows_measured(struct weir_rows *rows, const struct weir_shape *shape, uint32_t items, uint64_t nanoseconds)
{
    unsigned doubling = 0;
    while (doubling + 1 < DOUBLINGS && 1u << doubling < items) doubling++;
    if (1u << doubling != items) return;
    pthread_mutex_lock(&rows->lock);
    struct known *known = find(rows, shape);
    const uint32_t before = known->steps[doubling];
    if (before < STEPS_TO_KNOW) known->steps[doubling]++;
    if (before == 1 || (before > 1 && nanoseconds < known->quickest_ns[doubling]))
        known->quickest_ns[doubling] = nanoseconds;
    if (before + 1 == STEPS_TO_KNOW) say_table(rows, known);
    if (++known->since_doubt == STEPS_TO_DOUBT) doubt(rows, known);
    pthread_mutex_unlock(&rows->lock);
}

void weir_rows_allow(struct weir_rows *rows, const struct weir_shape *shape, uint32_t items)
{
    assert(items >= 1);
    pthread_mutex_lock(&rows->lock);
    find(rows, shape)->allowed = items;
    pthread_mutex_unlock(&rows->lock);
}
