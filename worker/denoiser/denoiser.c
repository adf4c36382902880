/* denoise: noise of the item's seed, then step after step to `latents` [channels, frames, height, width]. Every five
 * steps the state goes to the store; a task begins at the newest state that is usable. A picture that the item brings is
 * encoded before, unless it was for the task before or none of it is needed behind the state. */
#include "worker/denoiser/checkpoint.h"
#include "worker/denoiser/encoded.h"
#include "worker/denoiser/lora_cache.h"
#include "worker/link/artefact.h"
#include "worker/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct denoiser {
    struct weir_open_stage stage;
    struct weir_denoiser *run; /* for the shape seen last; NULL before */
    struct weir_encoded control, start;
    uint64_t lora_bytes; /* of files: for so many its memory is planned */
    struct weir_lora_cache loras;
};

/* What comes before the steps of an item with a picture: it takes the place of the run, but for what it leaves. */
static enum weir_status plan_encode(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    struct weir_pipeline_memory encode;
    const uint64_t kept = (item->has_control + item->has_start) * sizeof(float) *
                          weir_item_latent_count(weir_pipeline_facts(pipeline), item);
    const enum weir_status status =
        weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_ENCODE, item, &encode, error);
    if (status != WEIR_OK) return status;
    if (encode.weights + encode.arena > out->arena) out->arena = encode.weights + encode.arena;
    if (encode.host > out->host) out->host = encode.host;
    out->host += kept;
    return WEIR_OK;
}

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    const enum weir_status status =
        weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_DENOISE, item, out, error);
    if (status != WEIR_OK) return status;
    /* latents and history read out, and the checkpoint made of them */
    out->host += 4 * sizeof(float) * weir_item_latent_count(weir_pipeline_facts(pipeline), item);
    out->host += 3 * weir_item_lora_bytes(item); /* the files, and as f32 what they hold */
    return item->has_control || item->has_start ? plan_encode(pipeline, device, item, out, error) : WEIR_OK;
}

static void stage_close(struct weir_open_stage *stage)
{
    struct denoiser *denoiser = (struct denoiser *)stage;
    weir_denoiser_destroy(&denoiser->run);
    weir_encoded_deinit(&denoiser->control);
    weir_encoded_deinit(&denoiser->start);
    weir_lora_cache_deinit(&denoiser->loras);
    weir_pipeline_unload(stage->ground->pipeline, WEIR_PIPELINE_DENOISE);
    free(denoiser);
}

static enum weir_status stage_open(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                                   struct weir_error *error)
{
    struct denoiser *denoiser = calloc(1, sizeof *denoiser);
    *out = NULL;
    if (!denoiser) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the denoiser");
    denoiser->stage = (struct weir_open_stage){ &weir_stage_denoiser, ground };
    const enum weir_status status = weir_pipeline_load(ground->pipeline, ground->device, WEIR_PIPELINE_DENOISE, error);
    if (status == WEIR_OK)
        *out = &denoiser->stage;
    else
        stage_close(&denoiser->stage);
    return status;
}

/* An item whose picture is not encoded yet wants the room for that. */
static bool fits(const struct weir_open_stage *stage, const struct weir_item *item)
{
    const struct denoiser *denoiser = (const struct denoiser *)stage;
    const struct weir_model_facts *facts = weir_pipeline_facts(stage->ground->pipeline);
    if (item->has_control && !weir_encoded_has(&denoiser->control, facts, item, item->control)) return false;
    if (item->has_start && !weir_encoded_has(&denoiser->start, facts, item, item->start)) return false;
    return denoiser->run && weir_denoiser_fits(denoiser->run, item) &&
           weir_item_lora_bytes(item) <= denoiser->lora_bytes;
}

/* The run for this item's shape, told its adapters. */
static enum weir_status ready(struct denoiser *denoiser, struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = denoiser->stage.ground;
    const Weir__Pb__Lease *lease = task->lease;
    struct weir_lora_use uses[WEIR_ITEM_LORAS_MAX];
    if (!denoiser->run || !weir_denoiser_fits(denoiser->run, &task->item)) {
        weir_denoiser_destroy(&denoiser->run);
        denoiser->lora_bytes = 0;
        WEIR_TRY(weir_denoiser_create(ground->pipeline, &task->item, &denoiser->run, error));
    }
    if (denoiser->lora_bytes < weir_item_lora_bytes(&task->item))
        denoiser->lora_bytes = weir_item_lora_bytes(&task->item);
    WEIR_TRY(weir_lora_cache_take(&denoiser->loras, ground->pipeline, ground->link, lease->tenant, lease->spec, uses,
                                  error));
    WEIR_TRY(weir_denoiser_adapt(denoiser->run, uses, lease->spec->n_loras, error));
cleanup:
    return status;
}

/* One task's way through the steps. */
struct passage {
    struct denoiser *denoiser;
    struct weir_task *task;
    const struct weir_stage_ground *ground;
    struct weir_checkpoint_place place;
    struct weir_checkpoint_owner owner;
    float *latents; /* read out: count floats, then as many of history */
    size_t count;
};

/* Latents of one picture. What the run takes makes room for the encoder. */
static enum weir_status encode(struct passage *p, struct weir_encoded *encoded, const uint8_t *digest,
                               const Weir__Pb__FileRef *file, const float **latents, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (!weir_encoded_has(encoded, weir_pipeline_facts(p->ground->pipeline), &p->task->item, digest)) {
        weir_denoiser_destroy(&p->denoiser->run);
        WEIR_TRY(weir_encoded_make(encoded, p->ground, p->task, file, error));
    }
    *latents = encoded->latents;
cleanup:
    return status;
}

/* Whose state counts, and how much of it there is. */
static enum weir_status own(struct passage *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_task *task = p->task;
    bool looks_back;
    WEIR_TRY(weir_pipeline_walk(p->ground->pipeline, &task->item, &p->owner.step_count, &looks_back, error));
    weir_spec_fingerprint(task->lease->spec, p->owner.spec_digest);
    memcpy(p->owner.model_digest, p->ground->model_digest, WEIR_SHA256_BYTES);
    p->owner.numerics_class = p->ground->device->numerics_class;
    p->owner.sampler = weir_item_sampler_name(task->item.sampler);
    p->owner.latent_count = p->count;
    p->owner.history_count = looks_back ? p->count : 0;
    p->place = (struct weir_checkpoint_place){ p->ground->link->store, p->ground->log, task->lease->tenant, &task->id };
cleanup:
    return status;
}

static enum weir_status begin(struct passage *p, const float *embedding, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_task *task = p->task;
    struct denoiser *denoiser = p->denoiser;
    const struct weir_item *item = &task->item;
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    struct weir_denoiser_input input = { .embedding = embedding };
    struct weir_checkpoint_state state;
    void *memory = NULL;

    WEIR_TRY(own(p, error));
    const bool resumes = weir_checkpoint_load(&p->place, &p->owner, &state, &memory);
    const struct weir_denoiser_state from =
        resumes ? (struct weir_denoiser_state){ state.step, state.latents, state.history }
                : (struct weir_denoiser_state){ 0 };
    if (item->has_control) WEIR_TRY(encode(p, &denoiser->control, item->control, spec->control, &input.control, error));
    if (item->has_start && !resumes)
        WEIR_TRY(encode(p, &denoiser->start, item->start, spec->start_image, &input.start, error));
    WEIR_TRY(ready(denoiser, task, error));
    WEIR_TRY(weir_denoiser_begin(denoiser->run, item, &input, resumes ? &from : NULL, error));
    if (resumes) {
        task->resumed_step = state.step;
        weir_log(p->ground->log, WEIR_LOG_INFO, "denoise resumed index=%u step=%u of=%u", task->id.index, state.step,
                 p->owner.step_count);
    }
cleanup:
    free(memory);
    return status;
}

static enum weir_status read_state(struct passage *p, struct weir_error *error)
{
    return weir_denoiser_read(p->denoiser->run, p->latents, p->owner.history_count ? p->latents + p->count : NULL,
                              error);
}

static enum weir_status save(struct passage *p, uint32_t step, struct weir_error *error)
{
    const struct weir_checkpoint_state state = { step, p->latents,
                                                 p->owner.history_count ? p->latents + p->count : NULL };
    const enum weir_status status = read_state(p, error);
    return status == WEIR_OK ? weir_checkpoint_save(&p->place, &p->owner, &state, error) : status;
}

static enum weir_status check_finite(const struct passage *p, uint32_t step, struct weir_error *error)
{
    for (size_t i = 0; i < p->count; i++) {
        if (isfinite(p->latents[i])) continue;
        return weir_fail(error, WEIR_BAD_MODEL,
                         "after step %u of %u the latents are not finite: the model's numbers "
                         "overflow with this prompt and these settings",
                         step, p->owner.step_count);
    }
    return WEIR_OK;
}

static enum weir_status walk(struct passage *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_denoiser *run = p->denoiser->run;
    const uint32_t steps = p->owner.step_count;
    uint32_t step = weir_denoiser_step_index(run);

    weir_task_progress(p->task, step, steps);
    while (step < steps) {
        WEIR_TRY(weir_task_check(p->task, error));
        if (atomic_load(&p->task->yield)) {
            if (step > 0 && step % WEIR_CHECKPOINT_STEPS != 0) WEIR_TRY(save(p, step, error));
            status = weir_fail(error, WEIR_INTERRUPTED, "stopped after step %u of %u, to go on elsewhere", step, steps);
            goto cleanup;
        }
        WEIR_TRY(weir_denoiser_step(run, error));
        p->task->steps_run++;
        step = weir_denoiser_step_index(run);
        if (step % WEIR_CHECKPOINT_STEPS == 0 && step < steps) {
            struct weir_error why;
            const enum weir_status saved = save(p, step, &why);
            if (saved == WEIR_DEVICE) WEIR_TRY(weir_fail(error, saved, "%s", why.words));
            if (saved == WEIR_OK)
                WEIR_TRY(check_finite(p, step, error));
            else
                weir_log(p->ground->log, WEIR_LOG_WARN, "checkpoint not written step=%u words=\"%s\"", step, why.words);
        }
        weir_task_progress(p->task, step, steps);
    }
    WEIR_TRY(read_state(p, error));
    WEIR_TRY(check_finite(p, steps, error));
cleanup:
    return status;
}

static enum weir_status publish(struct passage *p, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = weir_pipeline_facts(p->ground->pipeline);
    const struct weir_item *item = &p->task->item;
    uint32_t dims[4];
    void *bytes = NULL;
    size_t byte_count, count;
    float *values;
    struct weir_output *output;
    weir_item_latent_dims(facts, item, dims);
    WEIR_TRY(weir_artefact_create(4, dims, &bytes, &byte_count, &values, &count, error));
    memcpy(values, p->latents, count * sizeof *values);
    WEIR_TRY(weir_task_output(p->task, &output, error));
    WEIR_TRY(weir_link_put(p->ground->link, p->task->lease->tenant, &p->task->id, "latents", WEIR_ARTEFACT_MEDIA_TYPE,
                           bytes, byte_count, output, error));
cleanup:
    free(bytes);
    return status;
}

static enum weir_status run(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = stage->ground;
    const struct weir_model_facts *facts = weir_pipeline_facts(ground->pipeline);
    const uint32_t dims[] = { weir_item_guided(facts, &task->item) ? 2 : 1, facts->text_rows, facts->text_channels };
    struct passage p = { .denoiser = (struct denoiser *)stage, .task = task, .ground = ground };
    struct weir_artefact_tensor embedding;
    void *bytes = NULL;
    size_t byte_count;

    WEIR_TRY(weir_task_input(task, ground->link, 0, &bytes, &byte_count, error));
    WEIR_TRY(weir_artefact_parse(bytes, byte_count, &embedding, error));
    WEIR_TRY(weir_artefact_expect(&embedding, "the embedding", 3, dims, error));
    p.count = weir_item_latent_count(facts, &task->item);
    p.latents = malloc(2 * p.count * sizeof *p.latents);
    if (!p.latents) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu latents", p.count));
    WEIR_TRY(begin(&p, embedding.values, error));
    WEIR_TRY(walk(&p, error));
    WEIR_TRY(publish(&p, error));
cleanup:
    free(p.latents);
    free(bytes);
    return status;
}

const struct weir_stage_kind weir_stage_denoiser = {
    .stage = WEIR_STAGE_DENOISE,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .run = run,
    .close = stage_close,
};
