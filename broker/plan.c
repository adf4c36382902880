#include "broker/plan.h"

#include <assert.h>
#include <string.h>

enum weir_status weir_plan_make(const Weir__Pb__JobSpec *spec, struct weir_plan *out, struct weir_error *error)
{
    if (!spec->has_n || !spec->has_frames || spec->format == NULL) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the resolved spec lacks n, frames or format");
    }
    if (spec->n == 0 || spec->frames == 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "n is %u and frames is %u; both must be at least 1", spec->n,
                         spec->frames);
    }
    const bool is_image = spec->has_image && spec->image;
    if (is_image && spec->frames != 1) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "an image of %u frames; it has one", spec->frames);
    }
    const bool joined = !is_image && (strcmp(spec->format, "mp4") == 0 || strcmp(spec->format, "webm") == 0);
    const uint64_t segments =
        joined ? ((uint64_t)spec->frames + WEIR_PLAN_SEGMENT_FRAMES - 1) / WEIR_PLAN_SEGMENT_FRAMES : 1;
    const uint64_t tasks = 1 + (uint64_t)spec->n * (is_image ? 2 : 2 + segments); /* at most 2^32 * 2^28: no overflow */
    if (tasks > WEIR_PLAN_TASKS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "n = %u %s of %u frame%s make %llu tasks; one job may have %d", spec->n,
                         is_image ? "images" : "films", spec->frames, spec->frames == 1 ? "" : "s",
                         (unsigned long long)tasks, WEIR_PLAN_TASKS_MAX);
    }
    *out = (struct weir_plan){
        .items = spec->n, .frames = spec->frames, .segments = (uint32_t)segments, .is_image = is_image
    };
    return WEIR_OK;
}

uint32_t weir_plan_version(const struct weir_plan *plan)
{
    return plan->is_image ? WEIR_PLAN_IMAGE : WEIR_PLAN_FILM;
}

enum weir_stage weir_plan_last(const struct weir_plan *plan)
{
    return plan->is_image ? WEIR_STAGE_DECODE : WEIR_STAGE_ASSEMBLE;
}

uint32_t weir_plan_count(const struct weir_plan *plan, enum weir_stage stage)
{
    switch (stage) {
    case WEIR_STAGE_TEXT:
        return 1;
    case WEIR_STAGE_DENOISE:
        return plan->items;
    case WEIR_STAGE_DECODE:
        return plan->items * plan->segments;
    case WEIR_STAGE_ASSEMBLE:
        return plan->is_image ? 0 : plan->items;
    case WEIR_STAGE_COUNT:
        break;
    }
    return 0;
}

uint32_t weir_plan_tasks(const struct weir_plan *plan)
{
    return 1 + plan->items * (plan->is_image ? 2 : 2 + plan->segments);
}

bool weir_plan_has(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    return index < weir_plan_count(plan, stage);
}

uint32_t weir_plan_place(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    assert(weir_plan_has(plan, stage, index));
    uint32_t place = index;
    for (int before = 0; before < (int)stage; before++) place += weir_plan_count(plan, (enum weir_stage)before);
    return place;
}

void weir_plan_at(const struct weir_plan *plan, uint32_t place, enum weir_stage *stage, uint32_t *index)
{
    assert(place < weir_plan_tasks(plan));
    int at = 0;
    while (place >= weir_plan_count(plan, (enum weir_stage)at)) {
        place -= weir_plan_count(plan, (enum weir_stage)at);
        at++;
    }
    *stage = (enum weir_stage)at;
    *index = place;
}

struct weir_plan_range weir_plan_inputs(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    switch (stage) {
    case WEIR_STAGE_DENOISE:
        return (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 1 };
    case WEIR_STAGE_DECODE:
        return (struct weir_plan_range){ WEIR_STAGE_DENOISE, index / plan->segments, 1 };
    case WEIR_STAGE_ASSEMBLE:
        return (struct weir_plan_range){ WEIR_STAGE_DECODE, index * plan->segments, plan->segments };
    case WEIR_STAGE_TEXT:
    case WEIR_STAGE_COUNT:
        break;
    }
    return (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 0 };
}

struct weir_plan_range weir_plan_consumers(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    switch (stage) {
    case WEIR_STAGE_TEXT:
        return (struct weir_plan_range){ WEIR_STAGE_DENOISE, 0, plan->items };
    case WEIR_STAGE_DENOISE:
        return (struct weir_plan_range){ WEIR_STAGE_DECODE, index * plan->segments, plan->segments };
    case WEIR_STAGE_DECODE:
        return (struct weir_plan_range){ WEIR_STAGE_ASSEMBLE, index / plan->segments, plan->is_image ? 0 : 1 };
    case WEIR_STAGE_ASSEMBLE:
    case WEIR_STAGE_COUNT:
        break;
    }
    return (struct weir_plan_range){ WEIR_STAGE_ASSEMBLE, 0, 0 };
}

uint32_t weir_plan_item(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    if (stage == WEIR_STAGE_TEXT) return 0;
    return stage == WEIR_STAGE_DECODE ? index / plan->segments : index;
}

void weir_plan_frames(const struct weir_plan *plan, enum weir_stage stage, uint32_t index, uint32_t *first,
                      uint32_t *count)
{
    *first = 0;
    *count = plan->frames;
    if (stage != WEIR_STAGE_DECODE || plan->segments == 1) return;
    *first = index % plan->segments * WEIR_PLAN_SEGMENT_FRAMES;
    const uint32_t left = plan->frames - *first;
    *count = left < WEIR_PLAN_SEGMENT_FRAMES ? left : WEIR_PLAN_SEGMENT_FRAMES;
}
