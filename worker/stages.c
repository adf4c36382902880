#include "worker/stages.h"

#include "proto/base/clock.h"

#include <assert.h>
#include <stdlib.h>

struct entry {
    struct weir_stage_ground ground;
    struct weir_open_stage *stage; /* NULL: closed */
    uint64_t bytes;                /* planned */
    uint64_t used;                 /* when, as a number that only grows */
};

struct weir_stages {
    const struct weir_models *models;
    struct weir_device *device;
    const struct weir_log *log;
    uint64_t uses;
    struct entry entries[WEIR_MODELS_MAX][WEIR_STAGE_COUNT];
};

static const struct weir_stage_kind *const kinds[WEIR_STAGE_COUNT] = {
    [WEIR_STAGE_TEXT] = &weir_stage_text_encoder,
    [WEIR_STAGE_DENOISE] = &weir_stage_denoiser,
    [WEIR_STAGE_DECODE] = &weir_stage_decoder,
    [WEIR_STAGE_ASSEMBLE] = &weir_stage_assembler,
};

const struct weir_stage_kind *weir_stage_kind_of(enum weir_stage stage)
{
    assert((unsigned)stage < WEIR_STAGE_COUNT);
    return kinds[stage];
}

enum weir_status weir_stages_create(const struct weir_models *models, const struct weir_stage_ground *common,
                                    struct weir_stages **out, struct weir_error *error)
{
    struct weir_stages *stages = calloc(1, sizeof *stages);
    *out = stages;
    if (!stages) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of stages");
    stages->models = models;
    stages->device = common->device;
    stages->log = common->log;
    for (size_t i = 0; i < models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) {
            struct weir_stage_ground *ground = &stages->entries[i][j].ground;
            *ground = *common;
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
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) close_entry(&stages->entries[i][j]);
    }
    free(stages);
    *stages_p = NULL;
}

static uint64_t sum(const struct weir_pipeline_memory *plan)
{
    return plan->weights + plan->arena + plan->host;
}

static uint64_t open_bytes(const struct weir_stages *stages)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < stages->models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) bytes += stages->entries[i][j].bytes;
    }
    return bytes;
}

/* The open entry that was not used for the longest time, other than `but`; NULL when there is none. */
static struct entry *oldest(struct weir_stages *stages, const struct entry *but)
{
    struct entry *found = NULL;
    for (size_t i = 0; i < stages->models->count; i++) {
        for (size_t j = 0; j < WEIR_STAGE_COUNT; j++) {
            struct entry *entry = &stages->entries[i][j];
            if (entry != but && entry->stage && (!found || entry->used < found->used)) found = entry;
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

static enum weir_status make_room(struct weir_stages *stages, struct entry *entry, const struct weir_stage_kind *kind,
                                  const struct weir_item *item, struct weir_error *error)
{
    struct weir_pipeline_memory plan;
    const char *name = weir_stage_name(kind->stage);
    const enum weir_status status = kind->plan_memory(entry->ground.pipeline, stages->device, item, &plan, error);
    if (status != WEIR_OK) return status;
    const uint64_t wanted = sum(&plan), room = stages->device->memory_bytes;
    if (wanted > room) return too_large(stages->device, name, wanted, error);
    entry->bytes = 0;
    for (struct entry *old; open_bytes(stages) > room - wanted && (old = oldest(stages, entry)) != NULL;) {
        weir_log(stages->log, WEIR_LOG_INFO, "stage closed stage=%s to make room",
                 weir_stage_name(old->stage->kind->stage));
        close_entry(old);
    }
    entry->bytes = wanted;
    weir_log(stages->log, WEIR_LOG_INFO,
             "memory planned stage=%s weights_bytes=%llu arena_bytes=%llu host_bytes=%llu all_bytes=%llu of=%llu", name,
             (unsigned long long)plan.weights, (unsigned long long)plan.arena, (unsigned long long)plan.host,
             (unsigned long long)open_bytes(stages), (unsigned long long)room);
    return WEIR_OK;
}

static enum weir_status run(struct weir_stages *stages, struct weir_task *task)
{
    enum weir_status status = WEIR_OK;
    struct weir_error *error = &task->error;
    struct entry *entry = &stages->entries[task->model_index][task->id.stage];
    const struct weir_stage_kind *kind = kinds[task->id.stage];

    entry->used = ++stages->uses;
    WEIR_TRY(weir_task_check(task, error));
    WEIR_TRY(weir_item_check(weir_pipeline_facts(entry->ground.pipeline), &task->item, error));
    if (!entry->stage || !kind->fits(entry->stage, &task->item)) {
        WEIR_TRY(make_room(stages, entry, kind, &task->item, error));
    }
    if (!entry->stage) WEIR_TRY(kind->open(&entry->ground, &entry->stage, error));
    WEIR_TRY(kind->run(entry->stage, task, error));
cleanup:
    if (status == WEIR_DEVICE || status == WEIR_NO_MEMORY || !entry->stage) close_entry(entry);
    return status;
}

void weir_stages_run(struct weir_stages *stages, struct weir_task *task)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    struct weir_link *link = stages->entries[0][0].ground.link;
    task->error = (struct weir_error){ .code = WEIR_OK };
    link->cancel = &task->cancel;
    task->status = run(stages, task);
    link->cancel = NULL;
    task->milliseconds = weir_clock_now_ms() - begin_ms;
}

enum weir_status weir_stages_plan(struct weir_pipeline *pipeline, struct weir_device *device,
                                  const struct weir_item *item, uint64_t *bytes, struct weir_error *error)
{
    *bytes = 0;
    for (unsigned i = 0; i < WEIR_STAGE_COUNT; i++) {
        struct weir_pipeline_memory plan = { 0 };
        const enum weir_status status = kinds[i]->plan_memory(pipeline, device, item, &plan, error);
        if (status != WEIR_OK) return status;
        if (sum(&plan) > device->memory_bytes) return too_large(device, weir_stage_name(i), sum(&plan), error);
        *bytes += sum(&plan);
    }
    return WEIR_OK;
}
