#include "worker/stages.h"

#include "proto/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_UP_MS = 100 }; /* so often does one that waits for memory look whether it is still wanted */

struct entry {
    size_t model;
    struct weir_link link; /* its lane's */
    struct weir_stage_ground ground;
    pthread_mutex_t finishing; /* held by the one rest of a stage where they take turns */
    uint32_t seats;            /* planned */
    /* Under the lock: written by its lane, and while it has no users by others, who close it. */
    struct weir_open_stage *stage; /* NULL: closed */
    uint64_t bytes;                /* planned */
    uint32_t users;                /* tasks that need what it holds */
    uint64_t used;                 /* when, as a number that only grows */
};

struct weir_stages {
    struct weir_stages_options o;
    const struct weir_models *models;
    struct weir_device *device;
    const struct weir_log *log;
    pthread_mutex_t lock;
    pthread_cond_t ended; /* somebody needs what he held no more */
    uint32_t waiting;     /* for memory */
    uint64_t uses;
    struct entry entries[WEIR_MODELS_MAX][WEIR_STAGE_COUNT];
};

static const struct weir_stage_kind *const kinds[WEIR_STAGE_COUNT] = {
    [WEIR_STAGE_TEXT] = &weir_stage_text_encoder,
    [WEIR_STAGE_DENOISE] = &weir_stage_denoiser,
    [WEIR_STAGE_DECODE] = &weir_stage_decoder,
    [WEIR_STAGE_ASSEMBLE] = &weir_stage_assembler,
};

enum weir_status weir_stages_create(const struct weir_stages_options *options, struct weir_stages **out,
                                    struct weir_error *error)
{
    const struct weir_models *models = options->models;
    struct weir_stages *stages = calloc(1, sizeof *stages);
    *out = stages;
    if (!stages) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of stages");
    stages->o = *options;
    stages->models = models;
    stages->device = options->common.device;
    stages->log = options->common.log;
    pthread_mutex_init(&stages->lock, NULL);
    pthread_cond_init(&stages->ended, NULL);
    for (size_t i = 0; i < models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) {
            struct weir_stage_ground *ground = &stages->entries[i][j].ground;
            stages->entries[i][j].model = i;
            pthread_mutex_init(&stages->entries[i][j].finishing, NULL);
            *ground = options->common;
            stages->entries[i][j].link = *options->common.link;
            ground->link = &stages->entries[i][j].link;
            ground->pipeline = models->items[i].pipeline;
            for (size_t k = 0; k < sizeof ground->model_digest; k++)
                ground->model_digest[k] = models->items[i].digest[k];
        }
    }
    return WEIR_OK;
}

static void close_entry(struct entry *entry)
{
    if (entry->stage) entry->stage->kind->close(entry->stage);
    entry->stage = NULL;
    entry->bytes = 0;
}

void weir_stages_destroy(struct weir_stages **stages_p)
{
    struct weir_stages *stages = *stages_p;
    if (!stages) return;
    for (size_t i = 0; i < WEIR_MODELS_MAX; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) {
            close_entry(&stages->entries[i][j]);
            if (i < stages->models->count) pthread_mutex_destroy(&stages->entries[i][j].finishing);
        }
    }
    pthread_cond_destroy(&stages->ended);
    pthread_mutex_destroy(&stages->lock);
    free(stages);
    *stages_p = NULL;
}

static uint64_t sum(const struct weir_pipeline_memory *plan)
{
    return plan->weights + plan->arena + plan->host;
}

static const char *model_of(const struct weir_stages *stages, const struct entry *entry)
{
    return stages->models->items[entry->model].name;
}

static uint64_t open_bytes(const struct weir_stages *stages)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < stages->models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) bytes += stages->entries[i][j].bytes;
    }
    return bytes;
}

/* Of the open entries that nobody needs the one that was not used for the longest time, other than `but`; NULL when
 * there is none. */
static struct entry *oldest(struct weir_stages *stages, const struct entry *but)
{
    struct entry *found = NULL;
    for (size_t i = 0; i < stages->models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) {
            struct entry *entry = &stages->entries[i][j];
            if (entry == but || !entry->stage || entry->users > 0) continue;
            if (!found || entry->used < found->used) found = entry;
        }
    }
    return found;
}

static enum weir_status too_large(const struct weir_device *device, const char *what, uint64_t bytes,
                                  struct weir_error *error)
{
    return weir_fail(error, WEIR_TOO_LARGE,
                     "%s needs %.1f MiB of memory, %s has %.1f MiB for it: fewer frames or a "
                     "smaller size would fit",
                     what, (double)bytes / 1048576.0, device->table->name, (double)device->memory_bytes / 1048576.0);
}

/* What seats may not take: the memory of the other stages that are open, */
struct kept {
    uint64_t least; /* and of the largest of the model's, */
    uint64_t all;   /* or of all of the model's at once */
};

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct kept kept_for_others(struct weir_stages *stages, const struct entry *own, const struct weir_item *item)
{
    uint64_t bytes[WEIR_STAGE_COUNT], largest = 0, whole = 0;
    pthread_mutex_lock(&stages->lock);
    const uint64_t open = open_bytes(stages) - own->bytes;
    for (size_t i = 0; i < WEIR_STAGE_COUNT; i++) bytes[i] = stages->entries[own->model][i].bytes;
    pthread_mutex_unlock(&stages->lock);
    for (size_t i = 0; i < WEIR_STAGE_COUNT; i++) {
        struct weir_pipeline_memory plan;
        if (&stages->entries[own->model][i] == own || !(stages->o.stage_mask >> i & 1)) continue;
        struct weir_pipeline *shapes = stages->models->items[own->model].quotes; /* its own lane's may be loading */
        if (bytes[i] == 0 && kinds[i]->plan_memory(shapes, stages->device, item, 1, &plan, NULL) == WEIR_OK)
            bytes[i] = sum(&plan);
        largest = larger(largest, bytes[i]);
        whole += bytes[i];
    }
    return (struct kept){ larger(open, largest), larger(open, whole) };
}

/* Whether so many seats fit beside others. */
static bool seats_fit(const struct weir_stages *stages, const struct entry *own, const struct weir_item *item,
                      uint32_t seats, uint64_t others, struct weir_pipeline_memory *plan)
{
    const uint64_t room = stages->device->memory_bytes;
    return kinds[WEIR_STAGE_DENOISE]->plan_memory(own->ground.pipeline, stages->device, item, seats, plan, NULL) ==
               WEIR_OK &&
           others < room && sum(plan) <= room - others;
}

/* The largest number of seats, from `wish` on halved down to `least`, that fits; `least` is not asked for. */
static uint32_t seats_that_fit(struct weir_stages *stages, const struct entry *own, const struct weir_item *item,
                               uint32_t wish, uint32_t least, struct weir_pipeline_memory *plan)
{
    if (wish <= least) return least;
    const struct kept kept = kept_for_others(stages, own, item);
    for (uint32_t seats = wish; stages->o.lanes.count > 1 && seats > least; seats /= 2) {
        if (seats_fit(stages, own, item, seats, kept.all, plan)) return seats;
    }
    for (uint32_t seats = wish; seats > least; seats /= 2) {
        if (seats_fit(stages, own, item, seats, kept.least, plan)) return seats;
    }
    return least;
}

static void say_plan(const struct weir_stages *stages, const struct weir_stage_kind *kind, uint32_t seats,
                     const struct weir_pipeline_memory *plan)
{
    weir_log(
        stages->log, WEIR_LOG_INFO,
        "memory planned stage=%s seats=%u weights_bytes=%llu arena_bytes=%llu host_bytes=%llu all_bytes=%llu of=%llu",
        weir_stage_name(kind->stage), seats, (unsigned long long)plan->weights, (unsigned long long)plan->arena,
        (unsigned long long)plan->host, (unsigned long long)open_bytes(stages),
        (unsigned long long)stages->device->memory_bytes);
}

/* CANCELLED, INTERRUPTED: it need not begin. */
static enum weir_status check_wanted(const struct weir_task *task, struct weir_error *error)
{
    const enum weir_status status = weir_task_check(task, error);
    if (status == WEIR_OK && atomic_load(&task->yield))
        return weir_fail(error, WEIR_INTERRUPTED, "stopped before it began");
    return status;
}

/* Waits for a moment, under the lock. */
static enum weir_status wait_for_others(struct weir_stages *stages, const struct weir_task *task,
                                        struct weir_error *error)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_UP_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) until = (struct timespec){ until.tv_sec + 1, until.tv_nsec - 1000000000L };
    pthread_cond_timedwait(&stages->ended, &stages->lock, &until);
    return check_wanted(task, error);
}

/* Closes what nobody needs until `wanted` bytes are free for the entry, under the lock. holds: what it has open itself
 * must stay so. */
static enum weir_status free_bytes(struct weir_stages *stages, struct entry *entry, uint64_t wanted, bool holds,
                                   const struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint64_t room = stages->device->memory_bytes;
    bool waits = false;
    while (status == WEIR_OK && open_bytes(stages) - entry->bytes > room - wanted) {
        struct entry *old = oldest(stages, entry);
        if (old) {
            weir_log(stages->log, WEIR_LOG_INFO, "stage closed stage=%s model=%s to make room",
                     weir_stage_name(old->stage->kind->stage), model_of(stages, old));
            close_entry(old);
            continue;
        }
        if (!waits) {
            weir_log(stages->log, WEIR_LOG_INFO, "stage waits stage=%s for memory that others use",
                     weir_stage_name(task->id.stage));
            stages->waiting++;
            if (!holds) entry->users--;
            pthread_cond_broadcast(&stages->ended);
        }
        waits = true;
        status = wait_for_others(stages, task, error);
    }
    if (!waits) return status;
    stages->waiting--;
    if (!holds) entry->users++;
    pthread_cond_broadcast(&stages->ended);
    return status;
}

/* holds: a batch runs in the entry's stage. */
static enum weir_status make_room(struct weir_stages *stages, struct entry *entry, const struct weir_stage_kind *kind,
                                  bool holds, const struct weir_task *task, struct weir_error *error)
{
    struct weir_pipeline_memory plan;
    const char *name = weir_stage_name(kind->stage);
    const uint64_t room = stages->device->memory_bytes;
    entry->seats = 1;
    if (kind->run_batch) {
        const uint32_t wish = weir_rows_wished(stages->o.rows, &task->shape);
        entry->seats = seats_that_fit(stages, entry, &task->item, wish, 1, &plan);
        weir_rows_allow(stages->o.rows, &task->shape, entry->seats < wish ? entry->seats : WEIR_ROWS_MAX);
    }
    const enum weir_status status =
        kind->plan_memory(entry->ground.pipeline, stages->device, &task->item, entry->seats, &plan, error);
    if (status != WEIR_OK) return status;
    const uint64_t wanted = sum(&plan);
    if (wanted > room) return too_large(stages->device, name, wanted, error);
    pthread_mutex_lock(&stages->lock);
    const enum weir_status freed = free_bytes(stages, entry, wanted, holds, task, error);
    if (freed == WEIR_OK) {
        entry->bytes = wanted;
        say_plan(stages, kind, entry->seats, &plan);
    }
    pthread_mutex_unlock(&stages->lock);
    return freed;
}

/* ---- running ---- */

/* The stage of a task, open, with room for it. */
static enum weir_status get_ready(struct weir_stages *stages, struct entry *entry, const struct weir_task *task,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_kind *kind = kinds[task->id.stage];
    const uint64_t begin_ms = weir_clock_now_ms();
    struct weir_open_stage *stage = NULL;
    if (!entry->stage || !kind->fits(entry->stage, &task->item))
        WEIR_TRY(make_room(stages, entry, kind, false, task, error));
    if (entry->stage) return WEIR_OK;
    const uint64_t planned_ms = weir_clock_now_ms();
    WEIR_TRY(kind->open(&entry->ground, &stage, error));
    pthread_mutex_lock(&stages->lock);
    entry->stage = stage;
    pthread_mutex_unlock(&stages->lock);
    weir_log(stages->log, WEIR_LOG_INFO, "stage opened stage=%s model=%s planned_ms=%llu loaded_ms=%llu",
             weir_stage_name(kind->stage), model_of(stages, entry), (unsigned long long)(planned_ms - begin_ms),
             (unsigned long long)(weir_clock_now_ms() - planned_ms));
cleanup:
    return status;
}

static enum weir_status run_one(struct weir_stages *stages, struct entry *entry, struct weir_task *task)
{
    enum weir_status status = WEIR_OK;
    struct weir_error *error = &task->error;
    const struct weir_stage_kind *kind = kinds[task->id.stage];
    bool is_done = false;
    if (kind->recall) WEIR_TRY(kind->recall(&entry->ground, task, &is_done, error));
    if (is_done) return WEIR_OK;
    WEIR_TRY(get_ready(stages, entry, task, error));
    WEIR_TRY(kind->run(entry->stage, task, error));
cleanup:
    return status;
}

/* What stands at a batch's door. */
struct door {
    struct weir_stages *stages;
    struct entry *entry;
    const struct weir_task_flow *flow;
    struct weir_shape shape;
    struct weir_item item; /* one of the shape: the one that memory is planned for */
    bool is_planned;       /* for the first one, a moment ago */
};

static struct weir_task *door_next(void *context)
{
    const struct door *door = context;
    pthread_mutex_lock(&door->stages->lock);
    const bool one_waits = door->stages->waiting > 0;
    pthread_mutex_unlock(&door->stages->lock);
    struct weir_task *task = one_waits ? NULL : door->flow->next(door->flow->context);
    assert(!task || (task->joins && weir_shape_same(&task->shape, &door->shape)));
    return task;
}

static void door_ended(void *context, struct weir_task *task, enum weir_status status)
{
    const struct door *door = context;
    task->status = status;
    door->flow->ended(door->flow->context, task);
}

static enum weir_status door_room(void *context, struct weir_task *task, uint32_t *seats)
{
    struct door *door = context;
    enum weir_status status = WEIR_OK;
    if (!door->is_planned)
        status = make_room(door->stages, door->entry, kinds[WEIR_STAGE_DENOISE], true, task, &task->error);
    door->is_planned = false;
    door->item = task->item;
    *seats = door->entry->seats;
    return status;
}

static uint32_t door_seats(void *context, uint32_t seats, const struct weir_item *item)
{
    struct door *door = context;
    struct weir_stages *stages = door->stages;
    struct entry *entry = door->entry;
    struct weir_pipeline_memory plan;
    const bool is_heavier = weir_item_lora_bytes(item) > weir_item_lora_bytes(&door->item);
    const uint32_t wish = weir_rows_wanted(stages->o.rows, &door->shape);
    const uint32_t found = seats_that_fit(stages, entry, item, wish, seats, &plan);
    if (found < wish) weir_rows_allow(stages->o.rows, &door->shape, found);
    if (found == seats && !is_heavier) return seats;
    if (found == seats && !seats_fit(stages, entry, item, seats, kept_for_others(stages, entry, item).least, &plan))
        return 0;
    pthread_mutex_lock(&stages->lock); /* another lane may have taken what was free when it was looked */
    const bool is_free = open_bytes(stages) - entry->bytes <= stages->device->memory_bytes - sum(&plan);
    if (is_free) {
        entry->seats = found;
        entry->bytes = sum(&plan);
        door->item = *item;
        say_plan(stages, kinds[WEIR_STAGE_DENOISE], found, &plan);
    }
    pthread_mutex_unlock(&stages->lock);
    return is_free ? found : is_heavier ? 0 : seats;
}

static void door_stepped(void *context, uint32_t items, uint64_t nanoseconds)
{
    const struct door *door = context;
    weir_rows_measured(door->stages->o.rows, &door->shape, items, nanoseconds);
    door->flow->stepped(door->flow->context);
}

static enum weir_status run_batch(struct weir_stages *stages, struct entry *entry, struct weir_task *first,
                                  const struct weir_task_flow *flow)
{
    struct door door = { .stages = stages, .entry = entry, .flow = flow, .shape = first->shape, .item = first->item };
    const struct weir_stage_door at = { &door, door_next, door_ended, door_room, door_seats, door_stepped };
    door.is_planned = !entry->stage || !entry->stage->kind->fits(entry->stage, &first->item);
    first->status = get_ready(stages, entry, first, &first->error);
    if (first->status == WEIR_OK) return entry->stage->kind->run_batch(entry->stage, first, &at);
    const enum weir_status status = first->status;
    flow->ended(flow->context, first);
    return status;
}

/* The entry is needed by one more, unless nobody may begin, and the task need not. */
static enum weir_status enter(struct weir_stages *stages, struct entry *entry, struct weir_task *task)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&stages->lock);
    while (status == WEIR_OK && stages->waiting > 0) status = wait_for_others(stages, task, &task->error);
    entry->used = ++stages->uses;
    entry->users++;
    pthread_mutex_unlock(&stages->lock);
    return status;
}

static void leave(struct weir_stages *stages, struct entry *entry, bool is_lost)
{
    pthread_mutex_lock(&stages->lock);
    entry->users--;
    if (is_lost) close_entry(entry);
    pthread_cond_broadcast(&stages->ended);
    pthread_mutex_unlock(&stages->lock);
}

/* What the broker asked for, looked at before anything is opened. */
static enum weir_status check(const struct entry *entry, struct weir_task *task)
{
    const enum weir_status status = check_wanted(task, &task->error);
    if (status != WEIR_OK) return status;
    return weir_item_check(weir_pipeline_facts(entry->ground.pipeline), &task->item, &task->error);
}

void weir_stages_run(struct weir_stages *stages, struct weir_task *task, const struct weir_task_flow *flow)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    struct entry *entry = &stages->entries[task->model_index][task->id.stage];
    bool is_left = false;
    task->error = (struct weir_error){ .code = WEIR_OK };
    enum weir_status status = enter(stages, entry, task);
    if (status == WEIR_OK) status = check(entry, task);
    task->status = status;
    if (status == WEIR_OK && kinds[task->id.stage]->run_batch) {
        status = run_batch(stages, entry, task, flow);
    } else {
        entry->link.cancel = &task->cancel;
        if (status == WEIR_OK) status = task->status = run_one(stages, entry, task);
        entry->link.cancel = NULL;
        task->milliseconds = weir_clock_now_ms() - begin_ms;
        is_left = task->rest != NULL;
        const struct weir_stage_kind *kind = kinds[task->id.stage];
        if (!is_left) flow->ended(flow->context, task);
        if (kind->afterwards && entry->stage) kind->afterwards(entry->stage);
    }
    if (is_left)
        flow->left(flow->context, task); /* and the entry is needed until that is done */
    else
        leave(stages, entry, status == WEIR_DEVICE || status == WEIR_NO_MEMORY || !entry->stage);
}

void weir_stages_finish(struct weir_stages *stages, struct weir_task *task)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    struct entry *entry = &stages->entries[task->model_index][task->id.stage];
    struct weir_link link = *stages->o.common.link;
    struct weir_stage_ground ground = entry->ground;
    struct weir_rest *rest = task->rest;
    ground.link = &link;
    link.cancel = &task->cancel;
    const bool in_turn = kinds[task->id.stage]->in_turn;
    task->rest = NULL;
    if (in_turn) pthread_mutex_lock(&entry->finishing);
    task->status = rest->finish(rest, &ground, task, &task->error);
    if (in_turn) pthread_mutex_unlock(&entry->finishing);
    if (task->milliseconds == 0) task->milliseconds = weir_clock_now_ms() - begin_ms; /* nothing was the device's */
    leave(stages, entry, false);
}

enum weir_status weir_stages_plan(struct weir_pipeline *pipeline, struct weir_device *device,
                                  const struct weir_item *item, uint64_t *bytes, struct weir_error *error)
{
    *bytes = 0;
    for (unsigned i = 0; i < WEIR_STAGE_COUNT; i++) {
        struct weir_pipeline_memory plan = { 0 };
        const enum weir_status status = kinds[i]->plan_memory(pipeline, device, item, 1, &plan, error);
        if (status != WEIR_OK) return status;
        if (sum(&plan) > device->memory_bytes) return too_large(device, weir_stage_name(i), sum(&plan), error);
        *bytes += sum(&plan);
    }
    return WEIR_OK;
}
