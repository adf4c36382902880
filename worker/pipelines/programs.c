#include "worker/pipelines/programs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void pair_deinit(struct weir_program_pair *pair)
{
    weir_program_destroy(&pair->step);
    weir_program_destroy(&pair->prepare);
    weir_lora_shape_free(&pair->shape);
}

void weir_programs_deinit(struct weir_programs *programs)
{
    for (uint32_t i = 0; i < programs->count; i++) pair_deinit(&programs->pairs[i]);
    *programs = (struct weir_programs){ 0 };
}

static enum weir_status copy_shape(const struct weir_adapter_shape *shape, struct weir_adapter_shape *out,
                                   struct weir_error *error)
{
    if (shape->count == 0) return WEIR_OK;
    out->parts = malloc(shape->count * sizeof *out->parts);
    if (!out->parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u adapted linears", shape->count);
    memcpy(out->parts, shape->parts, shape->count * sizeof *out->parts);
    out->count = shape->count;
    return WEIR_OK;
}

static enum weir_status plan(const struct weir_programs_ground *ground, const struct weir_adapter_shape *shape,
                             struct weir_program_pair *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = ground->pipeline->family;
    const uint32_t rows = weir_item_guided(&ground->pipeline->facts, ground->item) ? 2 : 1;
    const struct weir_adapter_set set = { 0, rows, shape };
    const struct weir_adapters adapters = { &set, shape->count ? 1 : 0 };
    struct weir_program_pair pair = { 0 };
    WEIR_TRY(copy_shape(shape, &pair.shape, error));
    WEIR_TRY(weir_run_create_program(ground->device, &pair.prepare, error));
    WEIR_TRY(weir_run_create_program(ground->device, &pair.step, error));
    family->build_prepare(ground->pipeline, ground->net, pair.prepare, rows, &adapters);
    WEIR_TRY(weir_program_finish(pair.prepare, error));
    family->build_step(ground->pipeline, ground->net, pair.step, ground->item, &adapters);
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
                                    const struct weir_adapter_shape *shape, const struct weir_program_pair **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program_pair pair, *found = NULL;
    assert(programs->count > 0 || shape->count == 0);
    for (uint32_t i = 0; i < programs->count && !found; i++) {
        if (weir_adapter_shapes_equal(&programs->pairs[i].shape, shape)) found = &programs->pairs[i];
    }
    if (!found) {
        WEIR_TRY(plan(ground, shape, &pair, error));
        found = make_place(programs);
        *found = pair;
    }
    found->taken = ++programs->takings;
    *out = found;
cleanup:
    return status;
}
