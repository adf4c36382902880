/* stage: the table every stage fills. A stage takes a task's inputs to its outputs on one device.
 *
 *   plan_memory   what an item will take, before anything is allocated
 *   open          brings the networks to the device; they stay between tasks
 *   fits          whether the open stage can run the item without planning anew
 *   run           one task: inputs through the link, outputs put in the store and added to the task
 *   close         gives everything back
 *
 * run looks at task->cancel between pieces of work (each denoise step, each chunk of frames) and ends CANCELLED; the
 * denoiser also looks at task->yield and ends INTERRUPTED behind a checkpoint. Bytes depend on the resolved spec, the
 * model digest and the numerics class alone.
 *
 * Errors   what the broker is told: BAD_ARGUMENT and BAD_MODEL are for ever; NO_MEMORY, DEVICE, INTERNAL elsewhere;
 *          STORE, IO, INPUT_LOST later. Whatever fails, no file is left behind
 * Threads  one
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

/* The head of every stage's own struct. */
struct weir_open_stage {
    const struct weir_stage_kind *kind;
    const struct weir_stage_ground *ground;
};

struct weir_stage_kind {
    enum weir_stage stage;
    enum weir_status (*plan_memory)(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, struct weir_pipeline_memory *out,
                                    struct weir_error *error);
    enum weir_status (*open)(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                             struct weir_error *error);
    bool (*fits)(const struct weir_open_stage *stage, const struct weir_item *item);
    enum weir_status (*run)(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error);
    void (*close)(struct weir_open_stage *stage);
};

extern const struct weir_stage_kind weir_stage_text_encoder;
extern const struct weir_stage_kind weir_stage_denoiser;
extern const struct weir_stage_kind weir_stage_decoder;
extern const struct weir_stage_kind weir_stage_assembler;
/* By enum weir_stage. */
const struct weir_stage_kind *weir_stage_kind_of(enum weir_stage stage);

#endif
