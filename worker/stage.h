/* stage: the table every stage fills. A stage takes a task's inputs to its outputs on one device.
 *
 *   plan_memory   what an item will take, before anything is allocated
 *   open          brings the networks to the device; they stay between tasks
 *   fits          whether the open stage can run the item without planning anew
 *   recall        before open: does a task without the networks, from what the store kept, if it can; NULL: never
 *   run           one task: inputs through the link, outputs put in the store and added to the task; or all but the
 *                 files that remain to be written, as task->rest
 *   afterwards    when run's task has ended and may be gone: what nobody waits for; NULL: nothing
 *   run_batch     instead of run, in a stage that runs several tasks at once: a first one, and whoever waits at the door
 *   close         gives everything back
 *
 * run looks at task->cancel between pieces of work (each denoise step, each chunk of frames) and ends CANCELLED; the
 * denoiser also looks at task->yield and ends INTERRUPTED behind a checkpoint. Bytes depend on the resolved spec, the
 * model digest and the numerics class alone: not on who runs beside a task, or when.
 *
 * In a batch a task that is cancelled, yields or fails ends by itself, and the others go on. Only what befalls the device
 * (DEVICE, or NO_MEMORY for what was planned) ends them all: run_batch returns it.
 *
 * Errors   what the broker is told: BAD_ARGUMENT and BAD_MODEL are for ever; NO_MEMORY, DEVICE, INTERNAL elsewhere;
 *          STORE, IO, INPUT_LOST later. Whatever fails, no file is left behind
 * Threads  one a stage: that of its lane; a rest runs on any, beside its stage's next task
 */
#ifndef WEIR_WORKER_STAGE_H
#define WEIR_WORKER_STAGE_H

#include "worker/encoders.h"
#include "worker/link/link.h"
#include "worker/pipelines/pipeline.h"
#include "worker/task.h"

/* What a stage stands on; outlives it. */
struct weir_stage_ground {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    uint8_t model_digest[WEIR_SHA256_BYTES];
    struct weir_link *link;
    struct weir_encoders *encoders;
    const char *run_dir; /* for scratch files */
    const struct weir_log *log;
};

struct weir_stage_kind;

/* The head of what is left of a task when its networks have done their part: encoding, and putting what came out of it
 * in the store. finish is called once, and frees it; `ground` has a link of its own. It uses nothing of the open stage,
 * which may be at its next task, or closed. */
struct weir_rest {
    enum weir_status (*finish)(struct weir_rest *rest, const struct weir_stage_ground *ground, struct weir_task *task,
                               struct weir_error *error);
};

/* What a batch asks of whoever runs it. */
struct weir_stage_door {
    void *context;
    /* One more task that can run beside those that do; NULL: none waits. */
    struct weir_task *(*next)(void *context);
    /* The task is done, or `status` and task->error say why not. It is not to be touched any more. */
    void (*ended)(void *context, struct weir_task *task, enum weir_status status);
    /* Memory for a batch of items like this task's, while nobody sits, and for how many. Errors go to task->error. */
    enum weir_status (*room)(void *context, struct weir_task *task, uint32_t *seats);
    /* How many tasks may sit, of a batch that has room for `seats`, when memory is for items like this one, which may have
     * more adapters than those before: more when more are wanted and memory has room for them. 0: not like this one. */
    uint32_t (*seats)(void *context, uint32_t seats, const struct weir_item *item);
    /* A step of so many tasks took so long: a boundary. */
    void (*stepped)(void *context, uint32_t items, uint64_t nanoseconds);
};

/* The head of every stage's own struct. */
struct weir_open_stage {
    const struct weir_stage_kind *kind;
    const struct weir_stage_ground *ground;
};

struct weir_stage_kind {
    enum weir_stage stage;
    bool in_turn; /* its rests run one after the other: memory is planned for one of them */
    /* seats: how many tasks at once; 1 in stages without run_batch */
    enum weir_status (*plan_memory)(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error);
    enum weir_status (*recall)(const struct weir_stage_ground *ground, struct weir_task *task, bool *is_done,
                               struct weir_error *error);
    enum weir_status (*open)(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                             struct weir_error *error);
    bool (*fits)(const struct weir_open_stage *stage, const struct weir_item *item);
    enum weir_status (*run)(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error);
    void (*afterwards)(struct weir_open_stage *stage);
    enum weir_status (*run_batch)(struct weir_open_stage *stage, struct weir_task *first,
                                  const struct weir_stage_door *door);
    void (*close)(struct weir_open_stage *stage);
};

extern const struct weir_stage_kind weir_stage_text_encoder;
extern const struct weir_stage_kind weir_stage_denoiser;
extern const struct weir_stage_kind weir_stage_decoder;
extern const struct weir_stage_kind weir_stage_assembler;

#endif
