/* A linear without an activation is followed by its products, which are added to y where it lies; that a residual or a
 * gated part is in it already changes nothing. Before an activation the rows that are adapted take another way: plain
 * linear, products, activation. The rows between them keep the op that does both at once, so that their bytes stay
 * what they are without neighbours. */
#include "worker/nets/adapters.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define STEP 16 /* floats between which matrices begin: a cache line */

static uint64_t aligned(uint64_t floats)
{
    return (floats + STEP - 1) / STEP * STEP;
}

struct weir_adapter_place weir_adapter_place(struct weir_params_part part, uint32_t rank, uint64_t at)
{
    struct weir_adapter_place place = { .a = at };
    place.b = place.a + aligned((uint64_t)part.in * rank);
    place.end = place.b + aligned((uint64_t)rank * part.out);
    return place;
}

uint64_t weir_adapter_floats(const struct weir_params *params, const struct weir_adapter_shape *shape)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < shape->count; i++)
        at = weir_adapter_place(weir_params_part_at(params, shape->parts[i].part), shape->parts[i].rank, at).end;
    return at;
}

bool weir_adapter_shapes_equal(const struct weir_adapter_shape *a, const struct weir_adapter_shape *b)
{
    if (a->count != b->count) return false;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->parts[i].part != b->parts[i].part || a->parts[i].rank != b->parts[i].rank) return false;
    }
    return true;
}

struct weir_adapted weir_adapted_begin(struct weir_program *p, struct weir_params *params,
                                       const struct weir_adapters *adapters)
{
    struct weir_adapted adapted = { .p = p, .params = params };
    uint64_t floats = 0;
    if (!adapters) return adapted;
    for (uint32_t s = 0; s < adapters->count; s++) {
        assert(s == 0 ||
               adapters->sets[s].first_row >= adapters->sets[s - 1].first_row + adapters->sets[s - 1].row_count);
        floats += weir_adapter_floats(params, adapters->sets[s].shape);
    }
    if (floats == 0) return adapted;
    assert(floats / STEP <= UINT32_MAX); /* files are at most 4 GiB */
    adapted.adapters = *adapters;
    adapted.factors = weir_program_extern(p, WEIR_ADAPTERS_NAME, WEIR_F32,
                                          &(struct weir_dims){ 1, 1, 1, (uint32_t)(floats / STEP), STEP });
    return adapted;
}

/* ---- one linear ---- */

/* A linear while it is built. */
struct job {
    const struct weir_adapted *adapted;
    const struct weir_linear_params *shape;
    const struct weir_packed *layer;
    const struct weir_linear_call *call;
    struct weir_value x;
    uint32_t numbers[WEIR_PARAMS_STACK_MAX], count; /* of its parts */
};

/* Rows of a value; all of them are the value itself. */
static struct weir_value rows_of(struct weir_program *p, struct weir_value value, uint32_t first, uint32_t count)
{
    struct weir_dims d = weir_program_dims(p, value);
    if (value.index == 0 || count == d.rows) return value;
    const uint64_t row = (uint64_t)d.frames * d.height * d.width * d.channels;
    d.rows = count;
    return weir_program_part(p, value, first * row, &d);
}

/* Adds what `set`, whose matrices begin at `at`, has for this linear to y, the set's rows of it. With `y` none it only
 * tells whether there is something. */
static bool add_products(const struct job *job, const struct weir_adapter_set *set, uint64_t at, struct weir_value y)
{
    const struct weir_adapted *adapted = job->adapted;
    struct weir_program *p = adapted->p;
    bool any = false;
    for (uint32_t i = 0; i < set->shape->count; i++) {
        const struct weir_adapter_part *part = &set->shape->parts[i];
        const struct weir_params_part linear = weir_params_part_at(adapted->params, part->part);
        const struct weir_adapter_place place = weir_adapter_place(linear, part->rank, at);
        at = place.end;
        for (uint32_t k = 0; k < job->count; k++) {
            if (job->numbers[k] != part->part) continue;
            any = true;
            if (y.index == 0) continue;
            const struct weir_dims a = { 1, 1, 1, linear.in, part->rank }, b = { 1, 1, 1, part->rank, linear.out };
            weir_program_low_rank(
                p, rows_of(p, job->x, set->first_row, set->row_count),
                &(struct weir_low_rank_call){ .a = weir_program_part(p, adapted->factors, place.a, &a),
                                              .b = weir_program_part(p, adapted->factors, place.b, &b),
                                              .channel = k * linear.out,
                                              .gate = rows_of(p, job->call->gate, set->first_row, set->row_count),
                                              .gate_vector = job->call->gate_vector },
                y);
        }
    }
    return any;
}

/* Rows first .. first + count - 1 of an activated linear, into `into` or, when that is none, a value of its own. The sets
 * from `sets` on, of which the first begins there and the last ends there, adapt all of them. */
static struct weir_value activated_rows(const struct job *job, uint32_t first_set, uint32_t set_count, uint64_t at,
                                        struct weir_value into)
{
    struct weir_program *p = job->adapted->p;
    const struct weir_adapter_set *sets = job->adapted->adapters.sets + first_set;
    const uint32_t first = sets[0].first_row, end = sets[set_count - 1].first_row + sets[set_count - 1].row_count;
    const struct weir_value h = weir_program_linear(p, job->layer, rows_of(p, job->x, first, end - first), NULL);
    for (uint32_t s = 0; s < set_count; s++) {
        add_products(job, &sets[s], at, rows_of(p, h, sets[s].first_row - first, sets[s].row_count));
        at += weir_adapter_floats(job->adapted->params, sets[s].shape);
    }
    if (into.index == 0) return weir_program_activate(p, h, job->call->activation);
    weir_program_activate_into(p, h, job->call->activation, into);
    return into;
}

static void plain_rows(const struct job *job, struct weir_value y, uint32_t first, uint32_t end)
{
    struct weir_program *p = job->adapted->p;
    if (first < end)
        weir_program_linear_into(p, job->layer, rows_of(p, job->x, first, end - first), job->call,
                                 rows_of(p, y, first, end - first));
}

/* In runs of neighbouring rows that are adapted, and of those between. */
static struct weir_value activated(const struct job *job)
{
    struct weir_program *p = job->adapted->p;
    const struct weir_adapters *adapters = &job->adapted->adapters;
    const struct weir_value none = { 0 };
    struct weir_dims dims = weir_program_dims(p, job->x);
    struct weir_value y = none;
    uint32_t row = 0;
    uint64_t at = 0;
    assert(job->call->residual.index == 0 && job->call->gate.index == 0);
    dims.channels = job->shape->geglu ? job->shape->out / 2 : job->shape->out;
    for (uint32_t s = 0; s < adapters->count;) {
        uint32_t count = 0;
        uint64_t floats = 0;
        for (; s + count < adapters->count; count++) {
            const struct weir_adapter_set *set = &adapters->sets[s + count];
            if (count && set->first_row != set[-1].first_row + set[-1].row_count) break;
            if (!add_products(job, set, 0, none)) break;
            floats += weir_adapter_floats(job->adapted->params, set->shape);
        }
        if (count == 0) {
            at += weir_adapter_floats(job->adapted->params, adapters->sets[s++].shape);
            continue;
        }
        const struct weir_adapter_set *last = &adapters->sets[s + count - 1];
        const uint32_t first = adapters->sets[s].first_row, end = last->first_row + last->row_count;
        if (end - first == dims.rows) return activated_rows(job, s, count, at, none);
        if (y.index == 0) y = weir_program_room(p, &dims);
        plain_rows(job, y, row, first);
        activated_rows(job, s, count, at, rows_of(p, y, first, end - first));
        row = end;
        s += count;
        at += floats;
    }
    plain_rows(job, y, row, dims.rows);
    return y;
}

static void find_numbers(struct job *job, const char *name)
{
    char part[2 * WEIR_PARAMS_NAME_MAX];
    job->count = job->shape->parts ? job->shape->parts : 1;
    for (uint32_t k = 0; k < job->count; k++) {
        snprintf(part, sizeof part, "%s%s%s", name, job->shape->parts ? "." : "",
                 job->shape->parts ? job->shape->part[k] : "");
        job->numbers[k] = weir_params_part_find(job->adapted->params, part);
    }
}

static bool is_adapted(const struct job *job)
{
    for (uint32_t s = 0; job->adapted->factors.index && s < job->adapted->adapters.count; s++) {
        if (add_products(job, &job->adapted->adapters.sets[s], 0, (struct weir_value){ 0 })) return true;
    }
    return false;
}

struct weir_value weir_adapted_linear(const struct weir_adapted *adapted, const struct weir_linear_params *shape,
                                      struct weir_value x, const struct weir_linear_call *call, const char *format, ...)
{
    static const struct weir_linear_call plain = { 0 };
    char name[WEIR_PARAMS_NAME_MAX];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    assert(length > 0 && (size_t)length < sizeof name);
    (void)length;
    struct job job = { .adapted = adapted,
                       .shape = shape,
                       .layer = weir_params_linear(adapted->params, shape, "%s", name),
                       .call = call ? call : &plain,
                       .x = x };
    if (adapted->factors.index) find_numbers(&job, name);
    if (!is_adapted(&job)) return weir_program_linear(adapted->p, job.layer, x, call);
    if (job.call->activation != WEIR_ACT_NONE) return activated(&job);
    const struct weir_value y = weir_program_linear(adapted->p, job.layer, x, call);
    uint64_t at = 0;
    for (uint32_t s = 0; s < adapted->adapters.count; s++) {
        const struct weir_adapter_set *set = &adapted->adapters.sets[s];
        if (y.index) add_products(&job, set, at, rows_of(adapted->p, y, set->first_row, set->row_count));
        at += weir_adapter_floats(adapted->params, set->shape);
    }
    return y;
}
