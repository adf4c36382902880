/* denoise: noise of the item's seed, then step after step to `latents` [channels, frames, height, width]. Every five
 * steps the state goes to the store; a task begins at the newest state that is usable.
 *
 * A picture that the item brings is encoded before the run is made, unless it was for the task before or none of it is
 * needed behind the state; others that bring the same can join, if it is there.
 *
 * Several tasks of one shape ride together: before each step those that wait are seated, after it whoever is done is
 * published and answered. What goes wrong with one is that one's alone. When more seats are wanted than there are, all
 * states are read out and seated anew in a larger run, as from checkpoints: their bytes stay the same. So they are when
 * one comes with larger files of adapters than memory was planned for; where there is none for them, it waits until
 * nobody sits. */
#include "proto/base/clock.h"
#include "worker/denoiser/checkpoint.h"
#include "worker/denoiser/encoded.h"
#include "worker/denoiser/lora_cache.h"
#include "worker/link/artefact.h"
#include "worker/stage.h"
#include "worker/text_encoder/embedding.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DURABLE_NS (5 * 1000000000ull) /* of work: what a power cut may take */

/* One task's way through the steps. */
struct rider {
    struct weir_task *task;
    struct weir_checkpoint_place place;
    struct weir_checkpoint_owner owner;
    float *embedding;
    struct weir_factors *factors; /* NULL: no adapters */
    float *latents;               /* read out: latent_count floats, then as many of history */
    uint32_t seat;
    uint64_t ns;         /* its share */
    uint64_t durable_ns; /* when it began, or had its last durable checkpoint */
};

struct denoiser {
    struct weir_open_stage stage;
    struct weir_denoiser *run; /* for the shape seen last; NULL before */
    struct weir_item most;     /* that it is planned for: of its shape, with the most adapters */
    size_t latent_count;       /* of that shape */
    struct weir_encoded control, start;
    struct weir_lora_cache loras;
    const struct weir_stage_door *door;
    struct rider riders[WEIR_DENOISER_SEATS_MAX];
    uint32_t rider_count;
    struct weir_task *waiting; /* came, and finds no seat yet */
    bool is_full;              /* more room could not be had */
    bool is_short;             /* of memory that was planned for */
};

static const struct weir_stage_ground *ground_of(const struct denoiser *d)
{
    return d->stage.ground;
}

/* ---- the stage ---- */

/* What comes before the steps of items with a picture: it takes the place of the run, but for what it leaves. */
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
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(pipeline);
    const enum weir_status status = weir_pipeline_plan_denoise(pipeline, device, item, seats, out, error);
    if (status != WEIR_OK) return status;
    /* each rider's embedding, latents and history; the checkpoint made of one rider's */
    out->host += sizeof(float) * (seats * weir_item_embedding_count(facts, item) +
                                  (2 * (uint64_t)seats + 2) * weir_item_latent_count(facts, item));
    out->host += 3 * weir_item_lora_bytes(item); /* the files of the one that sits down, and as f32 what they hold */
    return item->has_control || item->has_start ? plan_encode(pipeline, device, item, out, error) : WEIR_OK;
}

static void stage_close(struct weir_open_stage *stage)
{
    struct denoiser *denoiser = (struct denoiser *)stage;
    assert(denoiser->rider_count == 0 && !denoiser->waiting);
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

static bool is_encoded(const struct denoiser *d, const struct weir_task *task)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(ground_of(d)->pipeline);
    const struct weir_item *item = &task->item;
    return (!item->has_control || weir_encoded_has(&d->control, facts, task, item->control)) &&
           (!item->has_start || weir_encoded_has(&d->start, facts, task, item->start));
}

static bool has_room_for_loras(const struct denoiser *d, const struct weir_item *item)
{
    return weir_item_lora_bytes(item) <= weir_denoiser_lora_bytes(d->run);
}

/* Room for pictures is room for their encoder. */
static bool fits(const struct weir_open_stage *stage, const struct weir_item *item)
{
    const struct denoiser *d = (const struct denoiser *)stage;
    return d->run && weir_denoiser_fits(d->run, item) && has_room_for_loras(d, item) &&
           item->has_control <= d->most.has_control && item->has_start <= d->most.has_start;
}

/* ---- the end of a ride ---- */

static bool is_of_all(enum weir_status status)
{
    return status == WEIR_DEVICE;
}

static void rider_free(struct rider *r)
{
    weir_factors_destroy(&r->factors);
    free(r->latents);
    free(r->embedding);
    *r = (struct rider){ 0 };
}

/* Answers, and takes it off the list, which stays in order; it sits no more. */
static void end(struct denoiser *d, struct rider *r, enum weir_status status)
{
    struct weir_task *task = r->task;
    task->milliseconds = r->ns / 1000000;
    rider_free(r);
    const size_t behind = (size_t)(&d->riders[--d->rider_count] - r);
    memmove(r, r + 1, behind * sizeof *r);
    d->riders[d->rider_count] = (struct rider){ 0 };
    d->door->ended(d->door->context, task, status);
}

/* The device failed: all end with that. */
static enum weir_status end_all(struct denoiser *d, enum weir_status status, const struct weir_error *why)
{
    weir_denoiser_destroy(&d->run);
    while (d->rider_count > 0) {
        d->riders[0].task->error = *why;
        end(d, &d->riders[0], status);
    }
    if (d->waiting) {
        d->waiting->error = *why;
        d->door->ended(d->door->context, d->waiting, status);
        d->waiting = NULL;
    }
    return status;
}

/* One ends, the others go on. Returns what befell all, else OK. */
static enum weir_status leave(struct denoiser *d, struct rider *r, enum weir_status status)
{
    struct weir_error why = r->task->error;
    if (!is_of_all(status)) {
        const enum weir_status left = weir_denoiser_leave(d->run, r->seat, &why);
        if (left == WEIR_OK) {
            end(d, r, status);
            return WEIR_OK;
        }
        status = left;
    }
    return end_all(d, status, &why);
}

/* ---- the beginning ---- */

static const struct weir_denoiser_state *state_of(const struct weir_checkpoint_state *from,
                                                  struct weir_denoiser_state *out)
{
    *out = (struct weir_denoiser_state){ from->step, from->latents, from->history };
    return out;
}

/* What the rider's item is made from. */
static struct weir_denoiser_input input_of(const struct denoiser *d, const struct rider *r)
{
    return (struct weir_denoiser_input){ .embedding = r->embedding,
                                         .control = r->task->item.has_control ? d->control.latents : NULL,
                                         .start = r->task->item.has_start ? d->start.latents : NULL,
                                         .factors = r->factors };
}

static enum weir_status take_input(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = weir_pipeline_facts(ground_of(d)->pipeline);
    const uint32_t copies = weir_item_guided(facts, &r->task->item) ? 2 : 1;
    struct weir_artefact_tensor embedding;
    void *bytes = NULL;
    size_t byte_count;
    WEIR_TRY(weir_task_input(r->task, ground_of(d)->link, 0, &bytes, &byte_count, error));
    WEIR_TRY(weir_artefact_parse(bytes, byte_count, &embedding, error));
    r->embedding = malloc(weir_item_embedding_count(facts, &r->task->item) * sizeof *r->embedding);
    if (!r->embedding) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for an embedding"));
    WEIR_TRY(weir_embedding_unpack(facts, copies, &embedding, r->embedding, error));
    r->latents = malloc(2 * d->latent_count * sizeof *r->latents);
    if (!r->latents) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu latents", d->latent_count));
cleanup:
    free(bytes);
    return status;
}

static enum weir_status take_adapters(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = ground_of(d);
    const Weir__Pb__Lease *lease = r->task->lease;
    struct weir_lora_use uses[WEIR_ITEM_LORAS_MAX];
    if (lease->spec->n_loras == 0) return WEIR_OK;
    WEIR_TRY(weir_lora_cache_take(&d->loras, ground->pipeline, ground->link, lease->tenant, lease->spec, uses, error));
    WEIR_TRY(weir_factors_create(ground->pipeline, uses, lease->spec->n_loras, &r->factors, error));
cleanup:
    return status;
}

static enum weir_status name_owner(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_stage_ground *ground = ground_of(d);
    struct weir_task *task = r->task;
    bool looks_back;
    WEIR_TRY(weir_pipeline_walk(ground->pipeline, &task->item, &r->owner.step_count, &looks_back, error));
    weir_spec_fingerprint(task->lease->spec, r->owner.spec_digest);
    memcpy(r->owner.model_digest, ground->model_digest, WEIR_SHA256_BYTES);
    r->owner.numerics_class = ground->device->numerics_class;
    r->owner.sampler = weir_item_sampler_name(task->item.sampler);
    r->owner.latent_count = d->latent_count;
    r->owner.history_count = looks_back ? d->latent_count : 0;
    r->place = (struct weir_checkpoint_place){ ground->link->store, ground->log, task->lease->tenant, &task->id };
cleanup:
    return status;
}

static enum weir_status sit_down(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_task *task = r->task;
    struct weir_checkpoint_state found;
    struct weir_denoiser_state from;
    void *memory = NULL;
    WEIR_TRY(weir_task_check(task, error));
    if (atomic_load(&task->yield)) WEIR_TRY(weir_fail(error, WEIR_INTERRUPTED, "stopped before its first step"));
    WEIR_TRY(take_input(d, r, error));
    WEIR_TRY(take_adapters(d, r, error));
    WEIR_TRY(name_owner(d, r, error));
    const bool resumes = weir_checkpoint_load(&r->place, &r->owner, &found, &memory);
    const struct weir_denoiser_input input = input_of(d, r);
    WEIR_TRY(
        weir_denoiser_begin(d->run, &task->item, &input, resumes ? state_of(&found, &from) : NULL, &r->seat, error));
    if (resumes) {
        task->resumed_step = found.step;
        weir_log(ground_of(d)->log, WEIR_LOG_INFO, "denoise resumed index=%u step=%u of=%u", task->id.index, found.step,
                 r->owner.step_count);
    }
    weir_task_progress(task, weir_denoiser_step_index(d->run, r->seat), r->owner.step_count);
cleanup:
    free(memory);
    return status;
}

/* Seats a task, or ends it. Returns what befell all, else OK. */
static enum weir_status join(struct denoiser *d, struct weir_task *task)
{
    const uint64_t begin_ns = weir_clock_now_ns();
    struct rider *r = &d->riders[d->rider_count++];
    *r = (struct rider){ .task = task, .durable_ns = begin_ns };
    ground_of(d)->link->cancel = &task->cancel;
    const enum weir_status status = sit_down(d, r, &task->error);
    ground_of(d)->link->cancel = NULL;
    r->ns = weir_clock_now_ns() - begin_ns;
    if (status == WEIR_OK) return WEIR_OK;
    if (is_of_all(status)) {
        const struct weir_error why = task->error;
        return end_all(d, status, &why);
    }
    d->is_short |= status == WEIR_NO_MEMORY;
    end(d, r, status); /* it never sat */
    return WEIR_OK;
}

/* ---- more seats ---- */

static enum weir_status read_state(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    return weir_denoiser_read(d->run, r->seat, r->latents, r->owner.history_count ? r->latents + d->latent_count : NULL,
                              error);
}

/* A run with so many seats for items like this one, and all riders in it as they stand in their buffers. */
static enum weir_status seat_anew(struct denoiser *d, const struct weir_item *like, uint32_t seats,
                                  const uint32_t *steps, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    weir_denoiser_destroy(&d->run);
    WEIR_TRY(weir_denoiser_create(ground_of(d)->pipeline, like, seats, &d->run, error));
    d->most = *like;
    for (uint32_t i = 0; i < d->rider_count; i++) {
        struct rider *r = &d->riders[i];
        const struct weir_denoiser_state from = { steps[i], r->latents,
                                                  r->owner.history_count ? r->latents + d->latent_count : NULL };
        const struct weir_denoiser_input input = input_of(d, r);
        WEIR_TRY(weir_denoiser_begin(d->run, &r->task->item, &input, &from, &r->seat, error));
    }
cleanup:
    return status;
}

/* Room for one more with that item, where it can be had. Returns what befell all, else OK. */
static enum weir_status grow(struct denoiser *d, const struct weir_item *comes)
{
    enum weir_status status = WEIR_OK;
    struct weir_error why;
    uint32_t steps[WEIR_DENOISER_SEATS_MAX];
    const struct weir_item before = d->most, like = has_room_for_loras(d, comes) ? before : *comes;
    const uint32_t seats = weir_denoiser_seats(d->run);
    const uint32_t wanted = d->is_full ? 0 : d->door->seats(d->door->context, seats, &like);
    d->is_full |= wanted == 0;
    if (wanted <= d->rider_count) return WEIR_OK;
    for (uint32_t i = 0; i < d->rider_count; i++) {
        steps[i] = weir_denoiser_step_index(d->run, d->riders[i].seat);
        WEIR_TRY(read_state(d, &d->riders[i], &why));
    }
    status = seat_anew(d, &like, wanted, steps, &why);
    if (status == WEIR_OK || is_of_all(status)) goto cleanup;
    weir_log(ground_of(d)->log, WEIR_LOG_WARN, "denoise stays at seats=%u words=\"%s\"", seats, why.words);
    d->is_full = true;
    WEIR_TRY(seat_anew(d, &before, seats, steps, &why));
cleanup:
    return status == WEIR_OK ? WEIR_OK : end_all(d, status, &why);
}

/* Whether the one that waits could sit down now. */
static bool has_seat(const struct denoiser *d, const struct weir_item *item)
{
    return d->rider_count < weir_denoiser_seats(d->run) && has_room_for_loras(d, item);
}

/* Whoever waits, while there are seats. One whose picture or whose adapters need the room that others take waits until all
 * are done. */
static enum weir_status seat_others(struct denoiser *d)
{
    enum weir_status status = WEIR_OK;
    for (;;) {
        if (!d->waiting) d->waiting = d->door->next(d->door->context);
        if (!d->waiting || !is_encoded(d, d->waiting)) break;
        if (!has_seat(d, &d->waiting->item)) WEIR_TRY(grow(d, &d->waiting->item));
        if (!has_seat(d, &d->waiting->item)) break;
        struct weir_task *task = d->waiting;
        d->waiting = NULL;
        WEIR_TRY(join(d, task));
    }
cleanup:
    return status;
}

/* ---- steps ---- */

/* An fsync takes as long as a step of a GPU: not for work that is soon done again. */
static enum weir_status save(struct denoiser *d, struct rider *r, uint32_t step, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_checkpoint_state state = { step, r->latents,
                                                 r->owner.history_count ? r->latents + d->latent_count : NULL };
    const uint64_t now_ns = weir_clock_now_ns();
    const bool durable = now_ns - r->durable_ns >= DURABLE_NS;
    WEIR_TRY(read_state(d, r, error));
    WEIR_TRY(weir_checkpoint_save(&r->place, &r->owner, &state, durable, error));
    if (durable) r->durable_ns = now_ns;
cleanup:
    return status;
}

static enum weir_status check_finite(const struct rider *r, uint32_t step, struct weir_error *error)
{
    for (size_t i = 0; i < r->owner.latent_count; i++) {
        if (isfinite(r->latents[i])) continue;
        return weir_fail(error, WEIR_BAD_MODEL,
                         "after step %u of %u the latents are not finite: the model's numbers "
                         "overflow with this prompt and these settings",
                         step, r->owner.step_count);
    }
    return WEIR_OK;
}

/* Before a step: those that are wanted no more, or should stop here. */
static enum weir_status look_up(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t step = weir_denoiser_step_index(d->run, r->seat);
    WEIR_TRY(weir_task_check(r->task, error));
    if (!atomic_load(&r->task->yield)) return WEIR_OK;
    if (step > 0 && step % WEIR_CHECKPOINT_STEPS != 0) WEIR_TRY(save(d, r, step, error));
    status = weir_fail(error, WEIR_INTERRUPTED, "stopped after step %u of %u, to go on elsewhere", step,
                       r->owner.step_count);
cleanup:
    return status;
}

static enum weir_status publish(struct denoiser *d, struct rider *r, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_task *task = r->task;
    uint32_t dims[4];
    void *bytes = NULL;
    size_t byte_count, count;
    float *values;
    struct weir_output *output;
    weir_item_latent_dims(weir_pipeline_facts(ground_of(d)->pipeline), &task->item, dims);
    WEIR_TRY(weir_artefact_create(4, dims, &bytes, &byte_count, &values, &count, error));
    memcpy(values, r->latents, count * sizeof *values);
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put_remakeable(ground_of(d)->link, task->lease->tenant, &task->id, "latents",
                                      WEIR_ARTEFACT_MEDIA_TYPE, bytes, byte_count, output, error));
cleanup:
    free(bytes);
    return status;
}

/* After a step: a checkpoint where one is due, the latents at the end. */
static enum weir_status look_back(struct denoiser *d, struct rider *r, bool *is_done, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t step = weir_denoiser_step_index(d->run, r->seat), steps = r->owner.step_count;
    r->task->steps_run++;
    *is_done = step == steps;
    if (*is_done) {
        WEIR_TRY(read_state(d, r, error));
        WEIR_TRY(check_finite(r, steps, error));
    } else if (step % WEIR_CHECKPOINT_STEPS == 0) {
        struct weir_error why;
        const enum weir_status saved = save(d, r, step, &why);
        if (is_of_all(saved)) WEIR_TRY(weir_fail(error, saved, "%s", why.words));
        if (saved == WEIR_OK)
            WEIR_TRY(check_finite(r, step, error));
        else
            weir_log(ground_of(d)->log, WEIR_LOG_WARN, "checkpoint not written step=%u words=\"%s\"", step, why.words);
    }
    weir_task_progress(r->task, step, steps);
    if (*is_done) WEIR_TRY(publish(d, r, error));
cleanup:
    return status;
}

static enum weir_status stop_some(struct denoiser *d)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < d->rider_count;) {
        struct rider *r = &d->riders[i];
        const enum weir_status ended = look_up(d, r, &r->task->error);
        if (ended != WEIR_OK)
            WEIR_TRY(leave(d, r, ended)); /* the next one is at i now */
        else
            i++;
    }
    if (d->waiting && (atomic_load(&d->waiting->cancel) || atomic_load(&d->waiting->yield))) {
        struct weir_task *task = d->waiting;
        d->waiting = NULL;
        d->door->ended(d->door->context, task, weir_fail(&task->error, WEIR_CANCELLED, "stopped before it began"));
    }
cleanup:
    return status;
}

static enum weir_status finish_some(struct denoiser *d)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < d->rider_count;) {
        struct rider *r = &d->riders[i];
        bool is_done;
        const uint64_t begin_ns = weir_clock_now_ns();
        ground_of(d)->link->cancel = &r->task->cancel;
        const enum weir_status ended = look_back(d, r, &is_done, &r->task->error);
        ground_of(d)->link->cancel = NULL;
        r->ns += weir_clock_now_ns() - begin_ns;
        if (ended != WEIR_OK || is_done)
            WEIR_TRY(leave(d, r, ended));
        else
            i++;
    }
cleanup:
    return status;
}

static enum weir_status step(struct denoiser *d)
{
    struct weir_error why;
    const uint64_t begin_ns = weir_clock_now_ns();
    const uint32_t items = d->rider_count;
    const enum weir_status status = weir_denoiser_step(d->run, &why);
    if (status != WEIR_OK) return end_all(d, status, &why);
    const uint64_t ns = weir_clock_now_ns() - begin_ns;
    for (uint32_t i = 0; i < items; i++) d->riders[i].ns += ns / items;
    const enum weir_status ended = finish_some(d);
    d->door->stepped(d->door->context, items, ns);
    return ended;
}

/* Whether an item begins at a picture, and not behind a checkpoint. */
static bool begins_at_picture(struct denoiser *d, struct weir_task *task)
{
    struct rider r = { .task = task };
    struct weir_checkpoint_state found;
    struct weir_error ignored;
    void *memory = NULL;
    if (!task->item.has_start) return false;
    const bool resumes =
        name_owner(d, &r, &ignored) == WEIR_OK && weir_checkpoint_load(&r.place, &r.owner, &found, &memory);
    free(memory);
    return !resumes;
}

/* The latents of the pictures that an item needs, while no run takes the room. */
static enum weir_status encode(struct denoiser *d, struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = weir_pipeline_facts(ground_of(d)->pipeline);
    const struct weir_item *item = &task->item;
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    ground_of(d)->link->cancel = &task->cancel;
    if (item->has_control && !weir_encoded_has(&d->control, facts, task, item->control))
        WEIR_TRY(weir_encoded_make(&d->control, ground_of(d), task, spec->control, error));
    if (begins_at_picture(d, task) && !weir_encoded_has(&d->start, facts, task, item->start))
        WEIR_TRY(weir_encoded_make(&d->start, ground_of(d), task, spec->start_image, error));
cleanup:
    ground_of(d)->link->cancel = NULL;
    return status;
}

/* A run for this task, which is the first, or waited for what needs the room that the others took. */
static enum weir_status make_run(struct denoiser *d, struct weir_task *task)
{
    enum weir_status status = WEIR_OK;
    struct weir_pipeline *pipeline = ground_of(d)->pipeline;
    d->latent_count = weir_item_latent_count(weir_pipeline_facts(pipeline), &task->item);
    if (!fits(&d->stage, &task->item) || !is_encoded(d, task)) {
        uint32_t seats;
        WEIR_TRY(d->door->room(d->door->context, task, &seats));
        weir_denoiser_destroy(&d->run);
        d->is_full = false;
        WEIR_TRY(encode(d, task, &task->error));
        WEIR_TRY(weir_denoiser_create(pipeline, &task->item, seats, &d->run, &task->error));
        d->most = task->item;
    }
cleanup:
    if (status != WEIR_OK) d->door->ended(d->door->context, task, status);
    return status;
}

/* Before a step: a run, if there is none with riders in it, and whoever waits. */
static enum weir_status fill(struct denoiser *d)
{
    enum weir_status status = WEIR_OK;
    if (d->rider_count == 0) {
        struct weir_task *task = d->waiting;
        d->waiting = NULL;
        WEIR_TRY(make_run(d, task));
        WEIR_TRY(join(d, task));
    }
    if (d->rider_count > 0) WEIR_TRY(seat_others(d));
cleanup:
    return status;
}

static enum weir_status run_batch(struct weir_open_stage *stage, struct weir_task *first,
                                  const struct weir_stage_door *door)
{
    enum weir_status status = WEIR_OK;
    struct denoiser *d = (struct denoiser *)stage;
    d->door = door;
    d->is_short = false;
    d->waiting = first;
    while (d->rider_count > 0 || d->waiting) {
        WEIR_TRY(fill(d));
        WEIR_TRY(stop_some(d));
        if (d->rider_count > 0) WEIR_TRY(step(d));
    }
    if (d->is_short) status = WEIR_NO_MEMORY;
cleanup:
    d->door = NULL;
    return status;
}

const struct weir_stage_kind weir_stage_denoiser = {
    .stage = WEIR_STAGE_DENOISE,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .run_batch = run_batch,
    .close = stage_close,
};
