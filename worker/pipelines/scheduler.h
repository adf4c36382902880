/* scheduler: a model folder's scheduler as a family of pipelines sees it: which sampler is the default, and the table that
 * a sampler is made from.
 *
 * Memory   the scheduler owns its config; the model is borrowed and outlives it
 * Errors   BAD_MODEL: no scheduler, or a weir.json that names a sampler the model does not take; and those of
 *          weir_sampler_config_read
 * Threads  read-only after open
 */
#ifndef WEIR_WORKER_PIPELINES_SCHEDULER_H
#define WEIR_WORKER_PIPELINES_SCHEDULER_H

#include "worker/pipelines/item.h"
#include "worker/samplers/sampler.h"

struct weir_model_dir;

struct weir_scheduler {
    const struct weir_model_dir *model;
    struct weir_config *config;
    const char *class_name; /* of model_index.json */
};

enum weir_status weir_scheduler_open(const struct weir_model_dir *model, struct weir_scheduler *out,
                                     struct weir_error *error);
/* Of one that was never opened, too, when it is zero. */
void weir_scheduler_close(struct weir_scheduler *scheduler);

/* The folder's own class is read as it is; another asked for takes over what both know, as from_config() does. */
enum weir_status weir_scheduler_config(const struct weir_scheduler *scheduler, enum weir_item_sampler sampler,
                                       struct weir_sampler_config *out, struct weir_error *error);

/* Fills facts->sampler, of those that facts->samplers offers: weir.json's, else the folder's own scheduler, else
 * WEIR_ITEM_SAMPLER_COUNT; and facts->train_timesteps. So a scheduler that cannot be honoured is refused before a job is
 * taken. */
enum weir_status weir_scheduler_fill_facts(const struct weir_scheduler *scheduler, struct weir_model_facts *facts,
                                           struct weir_error *error);

#endif
