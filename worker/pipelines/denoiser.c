/* One allocation holds, one behind the other: the latents of all places, and the last data predictions, which live from
 * step to step; every slot that a step reads, for all places; and scratch, which is the arena of prepare while an item is
 * seated and that of a step's program otherwise.
 *
 * Place i of a value lies right behind place i - 1, so the program for n items finds them at places 0..n-1. Prepare
 * runs for one item and writes its slots where that item's place is. Whoever leaves, the last takes his place: one item
 * is copied at most. */
#include "worker/pipelines/internal.h"
#include "worker/samplers/noise.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_NAME_BYTES 32
#define ROWS_MAX (2 * WEIR_DENOISER_SEATS_MAX)

struct slot { /* what prepare leaves for the steps */
    char name[SLOT_NAME_BYTES];
    size_t at, bytes; /* in the allocation; of one place */
};

struct seat {
    struct weir_sampler *sampler; /* NULL: free */
    struct weir_item item;
    uint32_t place, done;
    int32_t lengths[2]; /* real tokens of each row; where embeddings count them */
};

/* Of the step in progress, on their way in: by row, or by item. */
struct inputs {
    float t[ROWS_MAX], guidance[WEIR_DENOISER_SEATS_MAX];
    int32_t lengths[ROWS_MAX];
    struct weir_sampler_coefficients k[WEIR_DENOISER_SEATS_MAX];
};

struct weir_denoiser {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    const void *net;                                               /* borrowed: the stage's */
    struct weir_program *prepare, *steps[WEIR_DENOISER_SEATS_MAX]; /* steps[n - 1]: of n items; NULL: not planned yet */
    size_t latent_count, latents_at, previous_at, scratch_at, scratch_bytes;
    struct slot *slots;
    struct weir_binding *bindings; /* of prepare: every slot; of step: latents and previous behind them */
    uint32_t slot_count;
    struct weir_run run;
    float *host;            /* latent_count: noise on its way in; NULL before the first begin */
    struct weir_item shape; /* planned for */
    uint32_t seat_count, seated;
    struct seat seats[WEIR_DENOISER_SEATS_MAX];
    uint32_t at_place[WEIR_DENOISER_SEATS_MAX]; /* which seat; of `seated` places */
    struct inputs inputs;
};

static size_t aligned(size_t bytes)
{
    return (bytes + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

static uint32_t copies_of(const struct weir_denoiser *d)
{
    return weir_item_guided(&d->pipeline->facts, &d->shape) ? 2 : 1;
}

static size_t latent_bytes(const struct weir_denoiser *d)
{
    return d->latent_count * sizeof(float);
}

/* ---- planning ---- */

static enum weir_status plan_prepare(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = d->pipeline->family;
    d->slot_count = family->slot_count(d->net);
    d->slots = calloc(d->slot_count + 1, sizeof *d->slots);
    d->bindings = calloc(d->slot_count + 2, sizeof *d->bindings);
    if (!d->slots || !d->bindings) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for the names of %u slots", d->slot_count));
    }
    WEIR_TRY(weir_run_create_program(d->device, &d->prepare, error));
    family->build_prepare(d->pipeline, d->net, d->prepare, &d->shape);
    for (uint32_t i = 0; i < d->slot_count; i++) {
        family->slot_name(d->net, i, d->slots[i].name, SLOT_NAME_BYTES);
        d->bindings[i].name = d->slots[i].name;
        weir_program_put_elsewhere(d->prepare, d->slots[i].name);
    }
    d->bindings[d->slot_count].name = "latents";
    d->bindings[d->slot_count + 1].name = "previous";
    WEIR_TRY(weir_program_finish(d->prepare, error));
cleanup:
    return status;
}

static enum weir_status plan_step(struct weir_denoiser *d, uint32_t items, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *p = NULL;
    if (d->steps[items - 1]) return WEIR_OK;
    WEIR_TRY(weir_run_create_program(d->device, &p, error));
    d->pipeline->family->build_step(d->pipeline, d->net, p, &d->shape, items);
    WEIR_TRY(weir_program_finish(p, error));
    d->steps[items - 1] = p;
    p = NULL;
cleanup:
    weir_program_destroy(&p);
    return status;
}

static void lay_out(struct weir_denoiser *d)
{
    const size_t prepare = weir_program_arena_bytes(d->prepare);
    const size_t step = weir_program_arena_bytes(d->steps[d->seat_count - 1]);
    d->latents_at = 0;
    d->previous_at = aligned(d->seat_count * latent_bytes(d));
    size_t at = 2 * d->previous_at;
    for (uint32_t i = 0; i < d->slot_count; i++) {
        d->slots[i].at = at;
        d->slots[i].bytes = weir_program_bytes(d->prepare, d->slots[i].name);
        at += aligned(d->seat_count * d->slots[i].bytes);
    }
    d->scratch_at = at;
    d->scratch_bytes = aligned(prepare > step ? prepare : step);
}

enum weir_status weir_denoiser_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                    const struct weir_item *item, uint32_t seats, struct weir_denoiser **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_denoiser *d = calloc(1, sizeof *d);
    if (!d) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a denoise run");
    d->pipeline = pipeline;
    d->device = device;
    d->net = net;
    d->shape = *item;
    d->seat_count = seats;
    assert(seats >= 1 && seats <= WEIR_DENOISER_SEATS_MAX);
    WEIR_TRY(weir_item_check(&pipeline->facts, item, error));
    d->latent_count = weir_item_latent_count(&pipeline->facts, item);
    WEIR_TRY(plan_prepare(d, error));
    WEIR_TRY(plan_step(d, seats, error));
    lay_out(d);
    *out = d;
    d = NULL;
cleanup:
    weir_denoiser_destroy(&d);
    return status;
}

enum weir_status weir_denoiser_create(struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t seats,
                                      struct weir_denoiser **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_DENOISE, &net, error));
    WEIR_TRY(weir_denoiser_plan(pipeline, pipeline->device, net, item, seats, out, error));
cleanup:
    return status;
}

static void clear(struct weir_denoiser *d)
{
    for (uint32_t i = 0; i < d->seat_count; i++) weir_sampler_destroy(&d->seats[i].sampler);
    d->seated = 0;
}

void weir_denoiser_destroy(struct weir_denoiser **denoiser_p)
{
    struct weir_denoiser *d = *denoiser_p;
    if (!d) return;
    weir_run_stop(&d->run);
    clear(d);
    for (uint32_t i = 0; i < d->seat_count; i++) weir_program_destroy(&d->steps[i]);
    weir_program_destroy(&d->prepare);
    free(d->slots);
    free(d->bindings);
    free(d->host);
    free(d);
    *denoiser_p = NULL;
}

uint64_t weir_denoiser_host_bytes(const struct weir_denoiser *denoiser)
{
    return latent_bytes(denoiser);
}

uint64_t weir_denoiser_bytes(const struct weir_denoiser *denoiser)
{
    return denoiser->scratch_at + denoiser->scratch_bytes + weir_denoiser_host_bytes(denoiser);
}

uint32_t weir_denoiser_seats(const struct weir_denoiser *denoiser)
{
    return denoiser->seat_count;
}

uint32_t weir_denoiser_seated(const struct weir_denoiser *denoiser)
{
    return denoiser->seated;
}

bool weir_denoiser_fits(const struct weir_denoiser *denoiser, const struct weir_item *item)
{
    const struct weir_item *shape = &denoiser->shape;
    const struct weir_model_facts *facts = &denoiser->pipeline->facts;
    uint32_t planned[4], wanted[4];
    weir_item_latent_dims(facts, shape, planned);
    weir_item_latent_dims(facts, item, wanted);
    return memcmp(planned, wanted, sizeof planned) == 0 &&
           weir_item_guided(facts, shape) == weir_item_guided(facts, item);
}

/* ---- an item comes ---- */

static enum weir_status start(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_run_start(&d->run, d->device, d->scratch_at + d->scratch_bytes, error));
    if (!d->host) d->host = malloc(latent_bytes(d));
    if (!d->host) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of noise", latent_bytes(d)));
cleanup:
    return status;
}

static void draw(const struct weir_item *item, uint32_t index, float *out, size_t count)
{
    weir_noise_draw(item->seed, item->noise == WEIR_ITEM_NOISE_F16, index, out, count);
}

static enum weir_status check_state(const struct weir_sampler *sampler, const struct weir_denoiser_state *state,
                                    struct weir_error *error)
{
    if (!state) return WEIR_OK;
    if (state->step > weir_sampler_step_count(sampler))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the checkpoint has done %u steps of %u", state->step,
                         weir_sampler_step_count(sampler));
    if (!state->latents || (!state->previous && state->step > 0 && weir_sampler_state_bytes(sampler, 1) > 0))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the checkpoint at step %u lacks what its sampler looks back at",
                         state->step);
    return WEIR_OK;
}

static enum weir_status check_item(const struct weir_denoiser *d, const struct weir_item *item,
                                   struct weir_error *error)
{
    const enum weir_status status = weir_item_check(&d->pipeline->facts, item, error);
    if (status != WEIR_OK) return status;
    if (!weir_denoiser_fits(d, item))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a denoise run of %ux%u, %u frames, was planned for %ux%u, %u",
                         item->width, item->height, item->frames, d->shape.width, d->shape.height, d->shape.frames);
    if (d->seated == d->seat_count)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "all %u seats of a denoise run are taken", d->seat_count);
    return WEIR_OK;
}

static enum weir_status check_pictures(const struct weir_item *item, const struct weir_denoiser_input *input,
                                       const struct weir_denoiser_state *state, struct weir_error *error)
{
    if (item->has_control && !input->control)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the latents of the control image are missing");
    if (item->has_start && !input->start && !state)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the latents of the image to begin at are missing");
    return WEIR_OK;
}

/* Noise, or some noise over a picture. */
static void first_latents(struct weir_denoiser *d, const struct weir_item *item, const float *picture,
                          const struct weir_sampler_start *start)
{
    draw(item, 0, d->host, d->latent_count);
    if (!item->has_start) return;
    for (size_t i = 0; i < d->latent_count; i++) d->host[i] = start->signal * picture[i] + start->noise * d->host[i];
}

/* Latents and the last prediction, from the checkpoint or from the seed. What no sampler has written yet is zero, so that
 * reading it back gives the same bytes every time. */
static enum weir_status write_state(struct weir_denoiser *d, const struct seat *seat, const float *picture,
                                    const struct weir_sampler_start *start, const struct weir_denoiser_state *state,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = latent_bytes(d), offset = seat->place * bytes;
    const float *previous = state && state->previous ? state->previous : d->host;
    memset(d->host, 0, bytes);
    WEIR_TRY(weir_run_write(&d->run, d->previous_at + offset, previous, bytes, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the buffer is drawn over */
    if (!state) first_latents(d, &seat->item, picture, start);
    WEIR_TRY(weir_run_write(&d->run, d->latents_at + offset, state ? state->latents : d->host, bytes, error));
cleanup:
    return status;
}

static bool counts_tokens(const struct weir_denoiser *d)
{
    return d->pipeline->facts.text_rows > d->pipeline->facts.text_tokens;
}

static enum weir_status read_lengths(const struct weir_denoiser *d, const float *embedding, int32_t lengths[2],
                                     struct weir_error *error)
{
    const struct weir_model_facts *facts = &d->pipeline->facts;
    for (uint32_t copy = 0; counts_tokens(d) && copy < copies_of(d); copy++) {
        const float count = embedding[((size_t)copy * facts->text_rows + facts->text_tokens) * facts->text_channels];
        if (!(count >= 1 && count <= (float)facts->text_tokens && floorf(count) == count))
            return weir_fail(error, WEIR_BAD_FILE, "the embedding says that %g of %u tokens are real", (double)count,
                             facts->text_tokens);
        lengths[copy] = (int32_t)count;
    }
    return WEIR_OK;
}

static enum weir_status write_text(struct weir_denoiser *d, const float *embedding, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = &d->pipeline->facts;
    const size_t at = d->scratch_at + weir_program_offset(d->prepare, "text");
    const size_t bytes = (size_t)facts->text_tokens * facts->text_channels * sizeof *embedding;
    for (uint32_t copy = 0; copy < copies_of(d); copy++) {
        const float *from = embedding + (size_t)copy * facts->text_rows * facts->text_channels;
        WEIR_TRY(weir_run_write(&d->run, at + copy * bytes, from, bytes, error));
    }
cleanup:
    return status;
}

/* Where a slot of a place begins in the allocation. */
static size_t slot_at(const struct slot *slot, uint32_t place)
{
    return slot->at + place * slot->bytes;
}

/* What a network that looks at a picture is given of it. The scales are a slot like those that prepare writes. */
static enum weir_status write_control(struct weir_denoiser *d, const struct seat *seat, const float *latents,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct slot *slot = d->slots;
    while (strcmp(slot->name, "control_scale") != 0) slot++;
    float *scales = malloc(slot->bytes);
    if (!scales) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of scales", slot->bytes);
    for (size_t i = 0; i < slot->bytes / sizeof *scales; i++) scales[i] = (float)seat->item.control_scale;
    WEIR_TRY(weir_run_write(&d->run, slot_at(slot, seat->place), scales, slot->bytes, error));
    WEIR_TRY(weir_run_write(&d->run, d->scratch_at + weir_program_offset(d->prepare, "control_latents"), latents,
                            latent_bytes(d), error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the scales are freed */
cleanup:
    free(scales);
    return status;
}

/* What an item is made from to the slots of its place. */
static enum weir_status prepare(struct weir_denoiser *d, const struct seat *seat,
                                const struct weir_denoiser_input *input, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(write_text(d, input->embedding, error));
    if (seat->item.has_control) WEIR_TRY(write_control(d, seat, input->control, error));
    for (uint32_t i = 0; i < d->slot_count; i++)
        d->bindings[i].memory = d->run.arena + slot_at(&d->slots[i], seat->place);
    WEIR_TRY(weir_run_program(&d->run, d->prepare, d->scratch_at, d->bindings, d->slot_count, error));
cleanup:
    return status;
}

enum weir_status weir_denoiser_begin(struct weir_denoiser *d, const struct weir_item *item,
                                     const struct weir_denoiser_input *input, const struct weir_denoiser_state *state,
                                     uint32_t *seat_out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint32_t index = 0;
    struct weir_sampler_start first = { 0 };
    struct seat seat = { .item = *item, .place = d->seated, .done = state ? state->step : 0 };

    WEIR_TRY(check_item(d, item, error));
    WEIR_TRY(read_lengths(d, input->embedding, seat.lengths, error));
    WEIR_TRY(check_pictures(item, input, state, error));
    WEIR_TRY(weir_pipeline_sampler(d->pipeline, item, &seat.sampler, &first, error));
    WEIR_TRY(check_state(seat.sampler, state, error));
    WEIR_TRY(start(d, error));
    WEIR_TRY(write_state(d, &seat, input->start, &first, state, error));
    WEIR_TRY(prepare(d, &seat, input, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error));
    while (d->seats[index].sampler) index++;
    d->seats[index] = seat;
    d->at_place[d->seated++] = index;
    *seat_out = index;
    seat.sampler = NULL;
cleanup:
    weir_sampler_destroy(&seat.sampler);
    return status;
}

/* ---- who sits ---- */

static const struct seat *seat_of(const struct weir_denoiser *d, uint32_t seat)
{
    assert(seat < d->seat_count && d->seats[seat].sampler);
    return &d->seats[seat];
}

uint32_t weir_denoiser_step_count(const struct weir_denoiser *denoiser, uint32_t seat)
{
    return weir_sampler_step_count(seat_of(denoiser, seat)->sampler);
}

uint32_t weir_denoiser_step_index(const struct weir_denoiser *denoiser, uint32_t seat)
{
    return seat_of(denoiser, seat)->done;
}

bool weir_denoiser_looks_back(const struct weir_denoiser *denoiser, uint32_t seat)
{
    return weir_sampler_state_bytes(seat_of(denoiser, seat)->sampler, 1) > 0;
}

enum weir_status weir_denoiser_read(struct weir_denoiser *d, uint32_t seat, float *latents, float *previous,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = latent_bytes(d), offset = seat_of(d, seat)->place * bytes;
    WEIR_TRY(weir_run_read(&d->run, d->latents_at + offset, latents, bytes, error));
    if (previous) WEIR_TRY(weir_run_read(&d->run, d->previous_at + offset, previous, bytes, error));
cleanup:
    return status;
}

static enum weir_status move(struct weir_denoiser *d, uint32_t from, uint32_t to, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = latent_bytes(d);
    WEIR_TRY(weir_run_copy(&d->run, d->latents_at + to * bytes, d->latents_at + from * bytes, bytes, error));
    WEIR_TRY(weir_run_copy(&d->run, d->previous_at + to * bytes, d->previous_at + from * bytes, bytes, error));
    for (uint32_t i = 0; i < d->slot_count; i++) {
        const struct slot *slot = &d->slots[i];
        WEIR_TRY(weir_run_copy(&d->run, slot_at(slot, to), slot_at(slot, from), slot->bytes, error));
    }
cleanup:
    return status;
}

enum weir_status weir_denoiser_leave(struct weir_denoiser *d, uint32_t seat, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t place = seat_of(d, seat)->place, last = d->seated - 1;
    weir_sampler_destroy(&d->seats[seat].sampler);
    d->seated = last;
    if (place == last) return WEIR_OK;
    WEIR_TRY(move(d, last, place, error));
    d->at_place[place] = d->at_place[last];
    d->seats[d->at_place[place]].place = place;
cleanup:
    if (status != WEIR_OK) clear(d);
    return status;
}

/* ---- a step ---- */

/* What the op of a step reads is what a sampler says, number by number. */
static_assert(sizeof(struct weir_sampler_coefficients) == WEIR_SAMPLER_COEFFICIENTS * sizeof(float),
              "sampler_step and the samplers share one formula");

/* The program for so many items, or, where its arena would be larger than what was planned, the next one up: rows that
 * nobody has are computed then, and are of no consequence. */
static enum weir_status step_for(struct weir_denoiser *d, uint32_t items, uint32_t *rows_for, struct weir_error *error)
{
    for (;; items++) {
        const enum weir_status status = plan_step(d, items, error);
        if (status != WEIR_OK) return status;
        if (weir_program_arena_bytes(d->steps[items - 1]) <= d->scratch_bytes) break;
    }
    *rows_for = items;
    return WEIR_OK;
}

static void gather_inputs(struct weir_denoiser *d)
{
    const struct weir_pipeline *pipeline = d->pipeline;
    const uint32_t copies = copies_of(d);
    struct inputs *in = &d->inputs;
    memset(in, 0, sizeof *in);
    for (uint32_t row = 0; row < ROWS_MAX; row++) in->lengths[row] = 1;
    for (uint32_t place = 0; place < d->seated; place++) {
        const struct seat *seat = &d->seats[d->at_place[place]];
        in->k[place] = *weir_sampler_coefficients(seat->sampler, seat->done);
        in->guidance[place] = (float)seat->item.guidance * pipeline->guidance_factor;
        for (uint32_t copy = 0; copy < copies; copy++) {
            in->t[place * copies + copy] =
                (float)weir_sampler_timestep(seat->sampler, seat->done) * pipeline->time_factor;
            in->lengths[place * copies + copy] = seat->lengths[copy];
        }
    }
}

/* What a step's program is given beside latents and slots. Its arena is one for all steps, so all of it every time. */
static enum weir_status write_inputs(struct weir_denoiser *d, const struct weir_program *step, uint32_t items,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct inputs *in = &d->inputs;
    const size_t rows = (size_t)items * copies_of(d);
    const struct {
        const char *name;
        const void *host;
        size_t bytes;
        bool there;
    } inputs[] = { { "t", in->t, rows * sizeof *in->t, true },
                   { "k", in->k, items * sizeof *in->k, true },
                   { "guidance", in->guidance, items * sizeof *in->guidance,
                     copies_of(d) == 2 || d->pipeline->facts.guidance_inside },
                   { "lengths", in->lengths, rows * sizeof *in->lengths, counts_tokens(d) } };
    gather_inputs(d);
    for (size_t i = 0; i < WEIR_COUNT(inputs); i++) {
        if (!inputs[i].there) continue;
        WEIR_TRY(weir_run_write(&d->run, d->scratch_at + weir_program_offset(step, inputs[i].name), inputs[i].host,
                                inputs[i].bytes, error));
    }
cleanup:
    return status;
}

/* The noise of this step, for those whose sampler wants any. */
static enum weir_status write_noise(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t place = 0; place < d->seated; place++) {
        const struct seat *seat = &d->seats[d->at_place[place]];
        const size_t bytes = latent_bytes(d);
        if (!weir_sampler_draws(seat->sampler, seat->done)) continue;
        draw(&seat->item, seat->done + 1, d->host, d->latent_count);
        WEIR_TRY(weir_run_write(&d->run, d->previous_at + place * bytes, d->host, bytes, error));
        WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the buffer is drawn over */
    }
cleanup:
    return status;
}

static bool all_have_steps(const struct weir_denoiser *d)
{
    for (uint32_t place = 0; place < d->seated; place++) {
        const struct seat *seat = &d->seats[d->at_place[place]];
        if (seat->done >= weir_sampler_step_count(seat->sampler)) return false;
    }
    return d->seated > 0;
}

enum weir_status weir_denoiser_step(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint32_t items;
    if (!all_have_steps(d)) return weir_fail(error, WEIR_BAD_ARGUMENT, "no step is left to do");

    WEIR_TRY(step_for(d, d->seated, &items, error));
    WEIR_TRY(write_noise(d, error));
    WEIR_TRY(write_inputs(d, d->steps[items - 1], items, error));
    for (uint32_t i = 0; i < d->slot_count; i++) d->bindings[i].memory = d->run.arena + d->slots[i].at;
    d->bindings[d->slot_count].memory = d->run.arena + d->latents_at;
    d->bindings[d->slot_count + 1].memory = d->run.arena + d->previous_at;
    WEIR_TRY(weir_run_program(&d->run, d->steps[items - 1], d->scratch_at, d->bindings, d->slot_count + 2, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error));
    for (uint32_t place = 0; place < d->seated; place++) d->seats[d->at_place[place]].done++;
cleanup:
    if (status != WEIR_OK) clear(d); /* the latents may be half way */
    return status;
}
