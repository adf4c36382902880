#include "worker/pipelines/programs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a pair is for ---- */

static void own_free(struct weir_programs_sets *own)
{
    for (uint32_t i = 0; i < own->count; i++) weir_lora_shape_free(&own->shapes[i]);
    free(own->sets);
    free(own->shapes);
    *own = (struct weir_programs_sets){ 0 };
}

static enum weir_status own_copy(const struct weir_adapters *adapters, struct weir_programs_sets *out,
                                 struct weir_error *error)
{
    struct weir_programs_sets own = { .sets = calloc(adapters->count + 1, sizeof *own.sets),
                                      .shapes = calloc(adapters->count + 1, sizeof *own.shapes) };
    bool whole = own.sets && own.shapes;
    for (; whole && own.count < adapters->count; own.count++) {
        const struct weir_adapter_set *from = &adapters->sets[own.count];
        struct weir_adapter_shape *shape = &own.shapes[own.count];
        own.sets[own.count] = (struct weir_adapter_set){ from->first_row, from->row_count, shape };
        shape->count = from->shape->count;
        shape->parts = malloc((shape->count + 1) * sizeof *shape->parts);
        whole = shape->parts != NULL;
        if (whole) memcpy(shape->parts, from->shape->parts, shape->count * sizeof *shape->parts);
    }
    if (!whole) {
        own_free(&own);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the shapes of %u adapters", adapters->count);
    }
    *out = own;
    return WEIR_OK;
}

static bool is_for(const struct weir_programs_sets *own, const struct weir_adapters *adapters)
{
    if (own->count != adapters->count) return false;
    for (uint32_t i = 0; i < own->count; i++) {
        const struct weir_adapter_set *a = &own->sets[i], *b = &adapters->sets[i];
        if (a->first_row != b->first_row || a->row_count != b->row_count) return false;
        if (!weir_adapter_shapes_equal(a->shape, b->shape)) return false;
    }
    return true;
}

/* ---- programs ---- */

static void adapted_deinit(struct weir_programs_adapted *adapted)
{
    weir_program_destroy(&adapted->program);
    own_free(&adapted->own);
}

void weir_programs_deinit(struct weir_programs *programs)
{
    for (size_t i = 0; i < WEIR_COUNT(programs->plain); i++) weir_program_destroy(&programs->plain[i]);
    for (uint32_t i = 0; i < programs->adapted_count; i++) adapted_deinit(&programs->adapted[i]);
    *programs = (struct weir_programs){ 0 };
}

static void put_slots_elsewhere(const struct weir_programs_ground *ground, struct weir_program *prepare)
{
    const struct weir_pipeline_family *family = ground->pipeline->family;
    const uint32_t count = family->slot_count(ground->net);
    for (uint32_t i = 0; i < count; i++) {
        char name[WEIR_PIPELINE_SLOT_NAME_BYTES];
        family->slot_name(ground->net, i, name, sizeof name);
        weir_program_put_elsewhere(prepare, name);
    }
}

static enum weir_status plan(const struct weir_programs_ground *ground, uint32_t items,
                             const struct weir_adapters *adapters, struct weir_program **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = ground->pipeline->family;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_run_create_program(ground->device, &p, error));
    if (items == WEIR_PROGRAMS_PREPARE) {
        family->build_prepare(ground->pipeline, ground->net, p, ground->item, adapters);
        put_slots_elsewhere(ground, p);
    } else {
        family->build_step(ground->pipeline, ground->net, p, ground->item, items, adapters);
    }
    WEIR_TRY(weir_program_finish(p, error));
    *out = p;
    p = NULL;
cleanup:
    weir_program_destroy(&p);
    return status;
}

/* A free place, or that of the one which was taken longest ago. */
static struct weir_programs_adapted *make_place(struct weir_programs *programs)
{
    if (programs->adapted_count < WEIR_PROGRAMS_ADAPTED_MAX) return &programs->adapted[programs->adapted_count++];
    struct weir_programs_adapted *oldest = &programs->adapted[0];
    for (uint32_t i = 1; i < programs->adapted_count; i++) {
        if (programs->adapted[i].taken < oldest->taken) oldest = &programs->adapted[i];
    }
    adapted_deinit(oldest);
    return oldest;
}

static enum weir_status take_adapted(struct weir_programs *programs, const struct weir_programs_ground *ground,
                                     uint32_t items, const struct weir_adapters *adapters,
                                     struct weir_programs_adapted **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_programs_adapted made = { .items = items };
    for (uint32_t i = 0; i < programs->adapted_count; i++) {
        struct weir_programs_adapted *known = &programs->adapted[i];
        if (known->items != items || !is_for(&known->own, adapters)) continue;
        *out = known;
        return WEIR_OK;
    }
    WEIR_TRY(own_copy(adapters, &made.own, error));
    WEIR_TRY(plan(ground, items, adapters, &made.program, error));
    *out = make_place(programs);
    **out = made;
    made = (struct weir_programs_adapted){ 0 };
cleanup:
    adapted_deinit(&made);
    return status;
}

enum weir_status weir_programs_take(struct weir_programs *programs, const struct weir_programs_ground *ground,
                                    uint32_t items, const struct weir_adapters *adapters,
                                    const struct weir_program **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_programs_adapted *adapted = NULL;
    assert(items < WEIR_COUNT(programs->plain));
    if (adapters->count == 0) {
        if (!programs->plain[items]) WEIR_TRY(plan(ground, items, adapters, &programs->plain[items], error));
        *out = programs->plain[items];
    } else {
        WEIR_TRY(take_adapted(programs, ground, items, adapters, &adapted, error));
        adapted->taken = ++programs->takings;
        *out = adapted->program;
    }
cleanup:
    return status;
}
