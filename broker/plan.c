#include "broker/plan.h"

#include <assert.h>
#include <string.h>

/* ---- prompts ---- */

static bool is_complete(const Weir__Pb__Prompt *prompt)
{
    return prompt->text != NULL && prompt->negative != NULL && prompt->has_width && prompt->has_height &&
           prompt->has_steps && prompt->has_guidance && prompt->has_seed;
}

/* Whether one embedding serves both. */
static bool same_text(const Weir__Pb__Prompt *a, const Weir__Pb__Prompt *b)
{
    return (a->guidance > 1) == (b->guidance > 1) && strcmp(a->text, b->text) == 0 &&
           strcmp(a->negative, b->negative) == 0;
}

static enum weir_status count_texts(const Weir__Pb__JobSpec *spec, struct weir_plan *plan, struct weir_error *error)
{
    plan->each = spec->n;
    for (uint32_t p = 0; p < spec->n_prompts; p++) {
        if (!is_complete(spec->prompts[p])) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "prompt %u of the resolved spec lacks a field", p);
        }
        if (p > 0 && same_text(spec->prompts[p - 1], spec->prompts[p])) continue;
        plan->begins[p / 64] |= UINT64_C(1) << p % 64;
        plan->texts++;
    }
    return WEIR_OK;
}

static uint32_t ones(uint64_t bits)
{
    return (uint32_t)__builtin_popcountll(bits);
}

/* The text that prompt `prompt` has. */
static uint32_t text_of(const struct weir_plan *plan, uint32_t prompt)
{
    uint32_t begun = 0;
    for (uint32_t word = 0; word < prompt / 64; word++) begun += ones(plan->begins[word]);
    return begun + ones(plan->begins[prompt / 64] << (63 - prompt % 64)) - 1; /* its own bit among them */
}

/* The first prompt of text `text`; of the one past the last, the number of prompts. */
static uint32_t begin_of(const struct weir_plan *plan, uint32_t text)
{
    for (uint32_t word = 0; word < WEIR_COUNT(plan->begins); word++) {
        uint64_t bits = plan->begins[word];
        const uint32_t here = ones(bits);
        if (text >= here) {
            text -= here;
            continue;
        }
        while (text-- > 0) bits &= bits - 1;
        return word * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return plan->items / plan->each;
}

/* ---- making ---- */

static enum weir_status check(const Weir__Pb__JobSpec *spec, bool is_image, struct weir_error *error)
{
    if (spec->n == 0 || spec->frames == 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "n is %u and frames is %u; both must be at least 1", spec->n,
                         spec->frames);
    }
    if (is_image && spec->frames != 1) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "an image of %u frames; it has one", spec->frames);
    }
    if (spec->n_prompts > 0 && (uint64_t)spec->n_prompts * spec->n > WEIR_JOB_PROMPTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "n = %u of %zu prompts make %llu items; one job may have %d", spec->n,
                         spec->n_prompts, (unsigned long long)spec->n_prompts * spec->n, WEIR_JOB_PROMPTS_MAX);
    }
    return WEIR_OK;
}

enum weir_status weir_plan_make(const Weir__Pb__JobSpec *spec, struct weir_plan *out, struct weir_error *error)
{
    if (!spec->has_n || !spec->has_frames || spec->format == NULL) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the resolved spec lacks n, frames or format");
    }
    const bool is_image = spec->has_image && spec->image;
    enum weir_status status = check(spec, is_image, error);
    if (status != WEIR_OK) return status;
    const bool joined = !is_image && (strcmp(spec->format, "mp4") == 0 || strcmp(spec->format, "webm") == 0);
    const uint64_t segments =
        joined ? ((uint64_t)spec->frames + WEIR_PLAN_SEGMENT_FRAMES - 1) / WEIR_PLAN_SEGMENT_FRAMES : 1;
    struct weir_plan plan = { .items = spec->n, .frames = spec->frames, .is_image = is_image };
    if (spec->n_prompts > 0) {
        plan.items = spec->n * (uint32_t)spec->n_prompts;
        status = count_texts(spec, &plan, error);
        if (status != WEIR_OK) return status;
    }
    const uint64_t texts = plan.each > 0 ? plan.texts : 1;
    const uint64_t tasks =
        texts + (uint64_t)plan.items * (is_image ? 2 : 2 + segments); /* at most 2^32 * 2^28: no overflow */
    if (tasks > WEIR_PLAN_TASKS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s%u %s of %u frame%s make %llu tasks; one job may have %d",
                         plan.each > 0 ? "" : "n = ", plan.items, is_image ? "images" : "films", spec->frames,
                         spec->frames == 1 ? "" : "s", (unsigned long long)tasks, WEIR_PLAN_TASKS_MAX);
    }
    plan.segments = (uint32_t)segments;
    *out = plan;
    return WEIR_OK;
}

uint32_t weir_plan_version(const struct weir_plan *plan)
{
    if (plan->each > 0) return WEIR_PLAN_PROMPTS;
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
        return plan->each > 0 ? plan->texts : 1;
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
    return weir_plan_count(plan, WEIR_STAGE_TEXT) + plan->items * (plan->is_image ? 2 : 2 + plan->segments);
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
        return (struct weir_plan_range){ WEIR_STAGE_TEXT, plan->each > 0 ? text_of(plan, index / plan->each) : 0, 1 };
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
        return (struct weir_plan_range){ WEIR_STAGE_DENOISE, weir_plan_item(plan, stage, index),
                                         weir_plan_item_count(plan, stage, index) };
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
    if (stage == WEIR_STAGE_TEXT) return plan->each > 0 ? begin_of(plan, index) * plan->each : 0;
    return stage == WEIR_STAGE_DECODE ? index / plan->segments : index;
}

uint32_t weir_plan_item_count(const struct weir_plan *plan, enum weir_stage stage, uint32_t index)
{
    if (stage != WEIR_STAGE_TEXT) return 1;
    if (plan->each == 0) return plan->items;
    return (begin_of(plan, index + 1) - begin_of(plan, index)) * plan->each;
}

struct weir_plan_range weir_plan_of_items(const struct weir_plan *plan, enum weir_stage stage, uint32_t first,
                                          uint32_t count)
{
    assert(stage != WEIR_STAGE_TEXT);
    if (stage == WEIR_STAGE_DECODE)
        return (struct weir_plan_range){ stage, first * plan->segments, count * plan->segments };
    return (struct weir_plan_range){ stage, first, stage == WEIR_STAGE_ASSEMBLE && plan->is_image ? 0 : count };
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
