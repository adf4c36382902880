/* plan: a resolved spec -> its tasks and what they wait for. PROTOCOL.md section 7: version 1 of films, 2 of images, 3 of
 * lists of prompts.
 *
 * A pure function of the spec: the same job plans to the same tasks on every broker, so that a replay after a crash
 * gives the same task ids. Inputs and consumers of a task are always one run of neighbours in one stage, so the plan
 * is a few numbers and arithmetic, and nothing of it is stored but its version.
 *
 * Threads  all functions are pure
 */
#ifndef WEIR_BROKER_PLAN_H
#define WEIR_BROKER_PLAN_H

#include "proto/job.h"
#include "proto/status.h"

#include <stdbool.h>

#define WEIR_PLAN_SEGMENT_FRAMES 16
#define WEIR_PLAN_TASKS_MAX 4096 /* of one job */

struct weir_plan {
    uint32_t items;
    uint32_t frames;   /* of one item */
    uint32_t segments; /* decode tasks of one item */
    bool is_image;     /* an item is one picture, and nothing is assembled */
    /* Of a list of prompts; all 0 where there is none, and one text for all items. */
    uint32_t each;                              /* items of one prompt */
    uint32_t texts;                             /* text tasks, each of a run of neighbouring prompts */
    uint64_t begins[WEIR_JOB_PROMPTS_MAX / 64]; /* bit p: prompt p has another text than the one before it */
};

/* `count` tasks of a stage from index `first` on; count 0: none. */
struct weir_plan_range {
    enum weir_stage stage;
    uint32_t first;
    uint32_t count;
};

/* Errors   BAD_ARGUMENT (a field is missing, nothing is asked for, an image of several frames), TOO_LARGE (over
 *          WEIR_PLAN_TASKS_MAX; a list of over WEIR_JOB_PROMPTS_MAX items) */
enum weir_status weir_plan_make(const Weir__Pb__JobSpec *spec, struct weir_plan *out, struct weir_error *error);

/* WEIR_PLAN_FILM, _IMAGE or _PROMPTS: what the job's row keeps. */
uint32_t weir_plan_version(const struct weir_plan *plan);
/* The stage whose tasks' artefacts are the manifest, one task an item; the job has succeeded when all are DONE. */
enum weir_stage weir_plan_last(const struct weir_plan *plan);

uint32_t weir_plan_count(const struct weir_plan *plan, enum weir_stage stage);
uint32_t weir_plan_tasks(const struct weir_plan *plan);
bool weir_plan_has(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
/* A task's place when all tasks stand in a row, stage after stage; and back. */
uint32_t weir_plan_place(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
void weir_plan_at(const struct weir_plan *plan, uint32_t place, enum weir_stage *stage, uint32_t *index);

struct weir_plan_range weir_plan_inputs(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
struct weir_plan_range weir_plan_consumers(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
/* Which of the job's items a task works for: for a text the first of them. */
uint32_t weir_plan_item(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
/* How many items a task works for, from weir_plan_item() on. */
uint32_t weir_plan_item_count(const struct weir_plan *plan, enum weir_stage stage, uint32_t index);
/* The tasks of `count` items from `first` on, but the texts. */
struct weir_plan_range weir_plan_of_items(const struct weir_plan *plan, enum weir_stage stage, uint32_t first,
                                          uint32_t count);
/* The frames of a decode task; all of them for other stages. */
void weir_plan_frames(const struct weir_plan *plan, enum weir_stage stage, uint32_t index, uint32_t *first,
                      uint32_t *count);

#endif
