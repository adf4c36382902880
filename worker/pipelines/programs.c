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

/* ---- pairs ---- */

static void pair_deinit(struct weir_program_pair *pair)
{
    weir_program_destroy(&pair->step);
    weir_program_destroy(&pair->prepare);
    own_free(&pair->own);
}

void weir_programs_deinit(struct weir_programs *programs)
{
    for (uint32_t i = 0; i < programs->count; i++) pair_deinit(&programs->pairs[i]);
    *programs = (struct weir_programs){ 0 };
}

static enum weir_status plan(const struct weir_programs_ground *ground, const struct weir_adapters *adapters,
                             struct weir_program_pair *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = ground->pipeline->family;
    struct weir_program_pair pair = { 0 };
    WEIR_TRY(own_copy(adapters, &pair.own, error));
    WEIR_TRY(weir_run_create_program(ground->device, &pair.prepare, error));
    WEIR_TRY(weir_run_create_program(ground->device, &pair.step, error));
    family->build_prepare(ground->pipeline, ground->net, pair.prepare, ground->item, adapters);
    WEIR_TRY(weir_program_finish(pair.prepare, error));
    family->build_step(ground->pipeline, ground->net, pair.step, ground->item, adapters);
    WEIR_TRY(weir_program_finish(pair.step, error));
    *out = pair;
    pair = (struct weir_program_pair){ 0 };
cleanup:
    pair_deinit(&pair);
    return status;
}

/* A free place, or that of the pair with adapters which was taken longest ago. */
static struct weir_program_pair *make_place(struct weir_programs *programs)
{
    if (programs->count < WEIR_PROGRAMS_MAX) return &programs->pairs[programs->count++];
    struct weir_program_pair *oldest = &programs->pairs[1];
    for (uint32_t i = 2; i < programs->count; i++) {
        if (programs->pairs[i].taken < oldest->taken) oldest = &programs->pairs[i];
    }
    pair_deinit(oldest);
    return oldest;
}

enum weir_status weir_programs_take(struct weir_programs *programs, const struct weir_programs_ground *ground,
                                    const struct weir_adapters *adapters, const struct weir_program_pair **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program_pair pair, *found = NULL;
    assert(programs->count > 0 || adapters->count == 0);
    for (uint32_t i = 0; i < programs->count && !found; i++) {
        if (is_for(&programs->pairs[i].own, adapters)) found = &programs->pairs[i];
    }
    if (!found) {
        WEIR_TRY(plan(ground, adapters, &pair, error));
        found = make_place(programs);
        *found = pair;
    }
    found->taken = ++programs->takings;
    *out = found;
cleanup:
    return status;
}
