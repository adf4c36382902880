#include "worker/pipelines/scheduler.h"

#include "worker/model_dir.h"

#include <string.h>

static const enum weir_sampler_kind kinds[WEIR_ITEM_SAMPLER_COUNT] = {
    [WEIR_ITEM_SAMPLER_DDIM] = WEIR_SAMPLER_DDIM,
    [WEIR_ITEM_SAMPLER_DPM_SOLVER] = WEIR_SAMPLER_DPM_SOLVER,
    [WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER] = WEIR_SAMPLER_FLOW_DPM_SOLVER,
    [WEIR_ITEM_SAMPLER_FLOW_EULER] = WEIR_SAMPLER_FLOW_EULER,
    [WEIR_ITEM_SAMPLER_SCM] = WEIR_SAMPLER_SCM,
};

enum weir_status weir_scheduler_open(const struct weir_model_dir *model, struct weir_scheduler *out,
                                     struct weir_error *error)
{
    const struct weir_component *component = weir_model_dir_component(model, "scheduler");
    if (!component) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s/model_index.json: it names no scheduler",
                         weir_model_dir_path(model));
    }
    *out = (struct weir_scheduler){ .model = model, .class_name = component->class_name };
    return weir_model_dir_config(model, "scheduler", &out->config, error);
}

void weir_scheduler_close(struct weir_scheduler *scheduler)
{
    weir_config_close(&scheduler->config);
}

enum weir_status weir_scheduler_config(const struct weir_scheduler *scheduler, enum weir_item_sampler sampler,
                                       struct weir_sampler_config *out, struct weir_error *error)
{
    return weir_sampler_config_read(scheduler->config, scheduler->class_name, &kinds[sampler], out, error);
}

static enum weir_status choose(const struct weir_scheduler *scheduler, uint32_t offered, enum weir_item_sampler *out,
                               struct weir_error *error)
{
    const char *wish = weir_model_dir_defaults(scheduler->model)->sampler;
    enum weir_sampler_kind kind = WEIR_SAMPLER_KIND_COUNT; /* which is none of ours */
    char words[WEIR_ITEM_SAMPLER_WORDS];
    if (!wish) {
        const enum weir_status status = weir_sampler_kind_find(scheduler->config, scheduler->class_name, &kind, error);
        if (status != WEIR_OK && status != WEIR_UNSUPPORTED) return status;
    }
    *out = WEIR_ITEM_SAMPLER_COUNT;
    for (unsigned i = 0; i < WEIR_ITEM_SAMPLER_COUNT; i++) {
        const bool is_it =
            wish ? strcmp(wish, weir_item_sampler_name((enum weir_item_sampler)i)) == 0 : kinds[i] == kind;
        if (is_it && (offered >> i & 1)) *out = (enum weir_item_sampler)i;
    }
    if (!wish || *out != WEIR_ITEM_SAMPLER_COUNT) return WEIR_OK;
    weir_item_sampler_words(offered, words);
    return weir_fail(error, WEIR_BAD_MODEL, "%s/weir.json: sampler is \"%.40s\"; this model takes: %s",
                     weir_model_dir_path(scheduler->model), wish, words);
}

enum weir_status weir_scheduler_fill_facts(const struct weir_scheduler *scheduler, struct weir_model_facts *facts,
                                           struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sampler_config config;
    WEIR_TRY(choose(scheduler, facts->samplers, &facts->sampler, error));
    const bool has_own = facts->sampler < WEIR_ITEM_SAMPLER_COUNT;
    const enum weir_item_sampler read =
        has_own ? facts->sampler : (enum weir_item_sampler)__builtin_ctz(facts->samplers); /* else the first offered */
    WEIR_TRY(weir_scheduler_config(scheduler, read, &config, error));
    facts->train_timesteps = (uint32_t)config.num_train_timesteps;
cleanup:
    return status;
}
