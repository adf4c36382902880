/* One allocation holds, one behind the other: the latents of all places, and the last data predictions, which live from
 * step to step; every slot that a step reads, for all places; scratch, which is the arena of prepare while an item is
 * seated and that of a step's program otherwise; and the matrices of adapters, place after place of those that have any.
 *
 * Place i of a value lies right behind place i - 1, so the program for n items finds them at places 0..n-1. Prepare
 * runs for one item and writes its slots where that item's place is. Whoever leaves, the last takes his place: one item
 * is copied at most.
 *
 * Which program a step is, and where which matrices lie, depends on who sits where: both are settled before the first
 * step of a new seating. */
#include "worker/pipelines/internal.h"
#include "worker/pipelines/programs.h"
#include "worker/samplers/noise.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PLANNED_RANK_MAX 512
#define ROWS_MAX (2 * WEIR_DENOISER_SEATS_MAX)

struct slot { /* what prepare leaves for the steps */
    char name[WEIR_PIPELINE_SLOT_NAME_BYTES];
    size_t at, bytes; /* in the allocation; of one place */
};

struct seat {
    struct weir_sampler *sampler; /* NULL: free */
    struct weir_item item;
    uint32_t place, done;
    int32_t lengths[2];                 /* real tokens of each row; where embeddings count them */
    const struct weir_factors *factors; /* borrowed; NULL: no adapters, or none that change anything */
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
    const void *net; /* borrowed: the stage's */
    struct weir_programs programs;
    size_t latent_count, latents_at, previous_at, scratch_at, scratch_bytes, factors_at, factors_bytes;
    struct slot *slots;
    struct weir_binding *bindings; /* room for every slot, adapters, latents and previous */
    uint32_t slot_count;
    const struct weir_program *step; /* settled: for those who sit; NULL: not yet */
    uint32_t step_items;             /* that it is for */
    struct weir_adapter_set sets[WEIR_DENOISER_SEATS_MAX];
    uint32_t set_count; /* settled */
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

static enum weir_status take_program(struct weir_denoiser *d, uint32_t items, const struct weir_adapter_set *sets,
                                     uint32_t set_count, const struct weir_program **out, struct weir_error *error)
{
    const struct weir_programs_ground ground = { d->pipeline, d->device, d->net, &d->shape };
    return weir_programs_take(&d->programs, &ground, items, &(struct weir_adapters){ sets, set_count }, out, error);
}

static enum weir_status plan_slots(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = d->pipeline->family;
    const struct weir_program *prepare;
    d->slot_count = family->slot_count(d->net);
    d->slots = calloc(d->slot_count + 1, sizeof *d->slots);
    d->bindings = calloc(d->slot_count + 3, sizeof *d->bindings);
    if (!d->slots || !d->bindings) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for the names of %u slots", d->slot_count));
    }
    WEIR_TRY(take_program(d, WEIR_PROGRAMS_PREPARE, NULL, 0, &prepare, error));
    for (uint32_t i = 0; i < d->slot_count; i++) {
        family->slot_name(d->net, i, d->slots[i].name, sizeof d->slots[i].name);
        d->slots[i].bytes = weir_program_bytes(prepare, d->slots[i].name);
    }
cleanup:
    return status;
}

/* Scratch that such a program finds room in. */
static enum weir_status plan_scratch(struct weir_denoiser *d, uint32_t items, const struct weir_adapter_set *sets,
                                     uint32_t set_count, struct weir_error *error)
{
    const struct weir_program *program;
    const enum weir_status status = take_program(d, items, sets, set_count, &program, error);
    if (status != WEIR_OK) return status;
    const size_t bytes = aligned(weir_program_arena_bytes(program));
    if (bytes > d->scratch_bytes) d->scratch_bytes = bytes;
    return WEIR_OK;
}

/* Of the files of an item nothing but their size is known: at most two bytes of it a number. So every linear of every
 * item may be adapted, and any one at the rank that takes all of it, within reason; not a round one, since ops may copy
 * what is not. */
static enum weir_status plan_adapters(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_params *params = d->pipeline->family->adapted_params(d->net);
    const uint32_t count = weir_params_part_count(params);
    const uint64_t numbers = weir_item_lora_bytes(&d->shape) / 2;
    struct weir_adapter_shape shape = { .parts = malloc((count + 1) * sizeof *shape.parts), .count = count };
    struct weir_adapter_set sets[WEIR_DENOISER_SEATS_MAX];
    if (!shape.parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u adapted linears", count);
    for (uint32_t i = 0; i < count; i++) {
        const struct weir_params_part part = weir_params_part_at(params, i);
        const uint64_t rank = numbers / (part.in + part.out);
        shape.parts[i] =
            (struct weir_adapter_part){ i, (uint32_t)(rank < PLANNED_RANK_MAX ? rank : PLANNED_RANK_MAX) | 1 };
    }
    for (uint32_t i = 0; i < d->seat_count; i++)
        sets[i] = (struct weir_adapter_set){ i * copies_of(d), copies_of(d), &shape };
    WEIR_TRY(plan_scratch(d, WEIR_PROGRAMS_PREPARE, sets, 1, error));
    WEIR_TRY(plan_scratch(d, d->seat_count, sets, d->seat_count, error));
    if (d->seat_count > 1) /* where rows of both kinds meet, some values are there twice */
        WEIR_TRY(plan_scratch(d, d->seat_count, sets + 1, d->seat_count - 1, error));
    d->factors_bytes = d->seat_count * (size_t)(numbers * sizeof(float) + (uint64_t)count * 2 * WEIR_ALIGNMENT);
cleanup:
    weir_lora_shape_free(&shape);
    return status;
}

static void lay_out(struct weir_denoiser *d)
{
    d->latents_at = 0;
    d->previous_at = aligned(d->seat_count * latent_bytes(d));
    size_t at = 2 * d->previous_at;
    for (uint32_t i = 0; i < d->slot_count; i++) {
        d->slots[i].at = at;
        at += aligned(d->seat_count * d->slots[i].bytes);
    }
    d->scratch_at = at;
    d->factors_at = at + d->scratch_bytes;
}

static size_t arena_bytes(const struct weir_denoiser *d)
{
    return d->factors_at + aligned(d->factors_bytes);
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
    WEIR_TRY(plan_slots(d, error));
    WEIR_TRY(plan_scratch(d, WEIR_PROGRAMS_PREPARE, NULL, 0, error));
    WEIR_TRY(plan_scratch(d, seats, NULL, 0, error));
    if (weir_item_lora_bytes(item)) WEIR_TRY(plan_adapters(d, error));
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
    d->step = NULL;
    for (uint32_t i = 0; i < d->seat_count; i++) weir_sampler_destroy(&d->seats[i].sampler);
    d->seated = 0;
}

void weir_denoiser_destroy(struct weir_denoiser **denoiser_p)
{
    struct weir_denoiser *d = *denoiser_p;
    if (!d) return;
    weir_run_stop(&d->run);
    clear(d);
    weir_programs_deinit(&d->programs);
    free(d->slots);
    free(d->bindings);
    free(d->host);
    free(d);
    *denoiser_p = NULL;
}

/* Also the factors of all who sit, which others keep for it. */
uint64_t weir_denoiser_host_bytes(const struct weir_denoiser *denoiser)
{
    return latent_bytes(denoiser) + denoiser->factors_bytes;
}

uint64_t weir_denoiser_bytes(const struct weir_denoiser *denoiser)
{
    return arena_bytes(denoiser) + weir_denoiser_host_bytes(denoiser);
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

uint64_t weir_denoiser_lora_bytes(const struct weir_denoiser *denoiser)
{
    return weir_item_lora_bytes(&denoiser->shape);
}

/* ---- an item comes ---- */

/* Room for a program and matrices that are larger than what was planned. Who sits stays. */
static enum weir_status need(struct weir_denoiser *d, size_t scratch_bytes, size_t factors_bytes,
                             struct weir_error *error)
{
    const size_t scratch_before = d->scratch_bytes, factors_before = d->factors_bytes;
    if (scratch_bytes <= d->scratch_bytes && factors_bytes <= d->factors_bytes) return WEIR_OK;
    if (scratch_bytes > d->scratch_bytes) d->scratch_bytes = aligned(scratch_bytes);
    if (factors_bytes > d->factors_bytes) d->factors_bytes = factors_bytes;
    lay_out(d);
    const enum weir_status status = weir_run_enlarge(&d->run, d->scratch_at, arena_bytes(d), error);
    if (status != WEIR_OK) {
        d->scratch_bytes = scratch_before;
        d->factors_bytes = factors_before;
        lay_out(d);
    }
    return status;
}

static enum weir_status start(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_run_start(&d->run, d->device, arena_bytes(d), error));
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

static enum weir_status check_adapters(const struct weir_item *item, const struct weir_factors *factors,
                                       struct weir_error *error)
{
    const size_t given = factors ? factors->use_count : 0;
    if (item->lora_count == given) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "the item has %u adapters, but %zu are given", item->lora_count, given);
}

/* Noise, or some noise over a picture. */
static void first_latents(struct weir_denoiser *d, const struct weir_item *item, const float *picture,
                          const struct weir_sampler_start *start)
{
    draw(item, 0, d->host, d->latent_count);
    if (!item->has_start) return;
    for (size_t i = 0; i < d->latent_count; i++) d->host[i] = start->signal * picture[i] + start->noise * d->host[i];
}

/* Latents and the last prediction, from the checkpoint or from the seed. What no sampler has written yet is zero, so
 * that reading it back gives the same bytes every time. */
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

static enum weir_status write_text(struct weir_denoiser *d, const struct weir_program *program, const float *embedding,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = &d->pipeline->facts;
    const size_t at = d->scratch_at + weir_program_offset(program, "text");
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
static enum weir_status write_control(struct weir_denoiser *d, const struct weir_program *program,
                                      const struct seat *seat, const float *latents, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct slot *slot = d->slots;
    while (strcmp(slot->name, "control_scale") != 0) slot++;
    float *scales = malloc(slot->bytes);
    if (!scales) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of scales", slot->bytes);
    for (size_t i = 0; i < slot->bytes / sizeof *scales; i++) scales[i] = (float)seat->item.control_scale;
    WEIR_TRY(weir_run_write(&d->run, slot_at(slot, seat->place), scales, slot->bytes, error));
    WEIR_TRY(weir_run_write(&d->run, d->scratch_at + weir_program_offset(program, "control_latents"), latents,
                            latent_bytes(d), error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the scales are freed */
cleanup:
    free(scales);
    return status;
}

/* Slots from a place on, and matrices where there are any. Returns how many bindings. */
static size_t bind(struct weir_denoiser *d, uint32_t place, bool is_adapted)
{
    size_t count = 0;
    for (; count < d->slot_count; count++) {
        const struct slot *slot = &d->slots[count];
        d->bindings[count] = (struct weir_binding){ slot->name, d->run.arena + slot_at(slot, place) };
    }
    if (is_adapted) d->bindings[count++] = (struct weir_binding){ WEIR_ADAPTERS_NAME, d->run.arena + d->factors_at };
    return count;
}

/* What an item is made from to the slots of its place. */
static enum weir_status prepare(struct weir_denoiser *d, const struct seat *seat,
                                const struct weir_denoiser_input *input, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_factors *factors = seat->factors;
    const struct weir_adapter_set set = { 0, copies_of(d), factors ? &factors->shape : NULL };
    const struct weir_program *program;
    WEIR_TRY(take_program(d, WEIR_PROGRAMS_PREPARE, &set, factors ? 1 : 0, &program, error));
    WEIR_TRY(need(d, weir_program_arena_bytes(program), factors ? factors->bytes : 0, error));
    if (factors) WEIR_TRY(weir_run_write(&d->run, d->factors_at, factors->values, factors->bytes, error));
    WEIR_TRY(write_text(d, program, input->embedding, error));
    if (seat->item.has_control) WEIR_TRY(write_control(d, program, seat, input->control, error));
    const size_t count = bind(d, seat->place, factors != NULL);
    WEIR_TRY(weir_run_program(&d->run, program, d->scratch_at, d->bindings, count, error));
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
    struct seat seat = { .item = *item,
                         .place = d->seated,
                         .done = state ? state->step : 0,
                         .factors = input->factors && input->factors->bytes ? input->factors : NULL };

    WEIR_TRY(check_item(d, item, error));
    WEIR_TRY(read_lengths(d, input->embedding, seat.lengths, error));
    WEIR_TRY(check_pictures(item, input, state, error));
    WEIR_TRY(check_adapters(item, input->factors, error));
    WEIR_TRY(weir_pipeline_sampler(d->pipeline, item, &seat.sampler, &first, error));
    WEIR_TRY(check_state(seat.sampler, state, error));
    WEIR_TRY(start(d, error));
    d->step = NULL;
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
    d->step = NULL;
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

/* The sets of those who sit, by place, and their matrices, one set behind the other. */
static enum weir_status write_factors(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    size_t bytes = 0;
    d->set_count = 0;
    for (uint32_t place = 0; place < d->seated; place++) {
        const struct weir_factors *factors = d->seats[d->at_place[place]].factors;
        if (factors) bytes += factors->bytes;
    }
    WEIR_TRY(need(d, 0, bytes, error));
    bytes = 0;
    for (uint32_t place = 0; place < d->seated; place++) {
        const struct weir_factors *factors = d->seats[d->at_place[place]].factors;
        if (!factors) continue;
        d->sets[d->set_count++] = (struct weir_adapter_set){ place * copies_of(d), copies_of(d), &factors->shape };
        WEIR_TRY(weir_run_write(&d->run, d->factors_at + bytes, factors->values, factors->bytes, error));
        bytes += factors->bytes;
    }
cleanup:
    return status;
}

/* The program for those who sit, or, where its arena would be larger than what was planned, the next one up: rows that
 * nobody has are computed then, and are of no consequence. */
static enum weir_status settle(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_program *step = NULL;
    uint32_t items = d->seated;
    WEIR_TRY(write_factors(d, error));
    for (; items <= d->seat_count; items++) {
        WEIR_TRY(take_program(d, items, d->sets, d->set_count, &step, error));
        if (weir_program_arena_bytes(step) <= d->scratch_bytes) break;
    }
    if (items > d->seat_count) {
        items = d->seat_count;
        WEIR_TRY(need(d, weir_program_arena_bytes(step), 0, error));
        WEIR_TRY(write_factors(d, error)); /* they lie elsewhere now */
    }
    d->step = step;
    d->step_items = items;
cleanup:
    return status;
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
static enum weir_status write_inputs(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct inputs *in = &d->inputs;
    const size_t items = d->step_items, rows = items * copies_of(d);
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
        WEIR_TRY(weir_run_write(&d->run, d->scratch_at + weir_program_offset(d->step, inputs[i].name), inputs[i].host,
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
    if (!all_have_steps(d)) return weir_fail(error, WEIR_BAD_ARGUMENT, "no step is left to do");

    if (!d->step) WEIR_TRY(settle(d, error));
    WEIR_TRY(write_noise(d, error));
    WEIR_TRY(write_inputs(d, error));
    size_t count = bind(d, 0, d->set_count > 0);
    d->bindings[count++] = (struct weir_binding){ "latents", d->run.arena + d->latents_at };
    d->bindings[count++] = (struct weir_binding){ "previous", d->run.arena + d->previous_at };
    WEIR_TRY(weir_run_program(&d->run, d->step, d->scratch_at, d->bindings, count, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error));
    for (uint32_t place = 0; place < d->seated; place++) d->seats[d->at_place[place]].done++;
cleanup:
    if (status != WEIR_OK) clear(d); /* the latents may be half way */
    return status;
}
