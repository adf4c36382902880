/* One allocation holds, one behind the other: the latents and the last data prediction, which live from step to step;
 * the arena of prepare, whose outputs are the slots that every step reads; the arena of step; the matrices of
 * adapters. */
#include "worker/pipelines/internal.h"
#include "worker/pipelines/programs.h"
#include "worker/samplers/noise.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_NAME_BYTES 32
#define PLANNED_RANK 16 /* of adapters nobody has read yet; ops' scratch hardly depends on it */

struct weir_denoiser {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    const void *net;                     /* borrowed: the stage's */
    struct weir_programs programs;       /* planned so far */
    const struct weir_program_pair *now; /* of them: for the adapters that are set */
    size_t latent_count, latents_at, previous_at, prepare_at, step_at, factors_at, bytes;
    struct weir_binding *bindings; /* of step: every slot, then latents, previous and, last, adapters */
    char (*names)[SLOT_NAME_BYTES];
    uint32_t binding_count; /* without adapters */
    size_t use_count;       /* adapters that are set */
    float *factors;         /* factor_bytes of them; NULL when they change nothing */
    size_t factor_bytes;
    size_t taken; /* bytes of run's memory */
    struct weir_run run;
    float *host;                  /* latent_count: noise on its way in; NULL before the first begin */
    struct weir_item shape;       /* planned for */
    struct weir_item item;        /* in progress */
    int32_t lengths[2];           /* real tokens of each row; where embeddings count them */
    float t[2], guidance;         /* of the step in progress: on their way in */
    struct weir_sampler *sampler; /* NULL: no item was begun */
    uint32_t done;
};

static size_t aligned(size_t bytes)
{
    return (bytes + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

static enum weir_status name_bindings(struct weir_denoiser *d, struct weir_error *error)
{
    const struct weir_pipeline_family *family = d->pipeline->family;
    const uint32_t slots = family->slot_count(d->net);
    d->binding_count = slots + 2;
    d->bindings = calloc(d->binding_count + 1, sizeof *d->bindings);
    d->names = calloc(d->binding_count, sizeof *d->names);
    if (!d->bindings || !d->names)
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the names of %u slots", slots);
    for (uint32_t i = 0; i < slots; i++) {
        family->slot_name(d->net, i, d->names[i], SLOT_NAME_BYTES);
        d->bindings[i].name = d->names[i];
    }
    d->bindings[slots].name = "latents";
    d->bindings[slots + 1].name = "previous";
    d->bindings[slots + 2].name = WEIR_ADAPTERS_NAME;
    return WEIR_OK;
}

/* Takes the programs for adapters of that shape, and lays out the memory. */
static enum weir_status choose_programs(struct weir_denoiser *d, const struct weir_adapter_shape *shape,
                                        size_t factor_bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t rows = weir_item_guided(&d->pipeline->facts, &d->shape) ? 2 : 1;
    const struct weir_programs_ground ground = { d->pipeline, d->device, d->net, &d->shape };
    const struct weir_adapter_set set = { 0, rows, shape };
    const size_t latent_bytes = aligned(d->latent_count * sizeof(float));
    WEIR_TRY(weir_programs_take(&d->programs, &ground, &(struct weir_adapters){ &set, shape->count ? 1 : 0 }, &d->now,
                                error));
    d->latents_at = 0;
    d->previous_at = latent_bytes;
    d->prepare_at = d->previous_at + latent_bytes;
    d->step_at = d->prepare_at + aligned(weir_program_arena_bytes(d->now->prepare));
    d->factors_at = d->step_at + aligned(weir_program_arena_bytes(d->now->step));
    d->factor_bytes = factor_bytes;
    d->bytes = d->factors_at + aligned(factor_bytes);
cleanup:
    return status;
}

enum weir_status weir_denoiser_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                    const struct weir_item *item, struct weir_denoiser **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_denoiser *d = calloc(1, sizeof *d);
    if (!d) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a denoise run");
    d->pipeline = pipeline;
    d->device = device;
    d->net = net;
    d->shape = *item;
    WEIR_TRY(weir_item_check(&pipeline->facts, item, error));
    d->latent_count = weir_item_latent_count(&pipeline->facts, item);
    WEIR_TRY(choose_programs(d, &(struct weir_adapter_shape){ 0 }, 0, error));
    WEIR_TRY(name_bindings(d, error));
    *out = d;
    d = NULL;
cleanup:
    weir_denoiser_destroy(&d);
    return status;
}

enum weir_status weir_denoiser_create(struct weir_pipeline *pipeline, const struct weir_item *item,
                                      struct weir_denoiser **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_DENOISE, &net, error));
    WEIR_TRY(weir_denoiser_plan(pipeline, pipeline->device, net, item, out, error));
cleanup:
    return status;
}

void weir_denoiser_destroy(struct weir_denoiser **denoiser_p)
{
    struct weir_denoiser *d = *denoiser_p;
    if (!d) return;
    weir_run_stop(&d->run);
    weir_sampler_destroy(&d->sampler);
    weir_programs_deinit(&d->programs);
    free(d->factors);
    free(d->bindings);
    free(d->names);
    free(d->host);
    free(d);
    *denoiser_p = NULL;
}

uint64_t weir_denoiser_host_bytes(const struct weir_denoiser *denoiser)
{
    return denoiser->latent_count * sizeof(float) + denoiser->factor_bytes;
}

uint64_t weir_denoiser_bytes(const struct weir_denoiser *denoiser)
{
    const size_t bytes = denoiser->taken > denoiser->bytes ? denoiser->taken : denoiser->bytes;
    return bytes + weir_denoiser_host_bytes(denoiser);
}

bool weir_denoiser_fits(const struct weir_denoiser *denoiser, const struct weir_item *item)
{
    const struct weir_item *shape = &denoiser->shape;
    const struct weir_model_facts *facts = &denoiser->pipeline->facts;
    return shape->width == item->width && shape->height == item->height && shape->frames == item->frames &&
           weir_item_guided(facts, shape) == weir_item_guided(facts, item);
}

/* ---- adapters ---- */

enum weir_status weir_denoiser_adapt(struct weir_denoiser *d, const struct weir_lora_use *uses, size_t count,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_params *params = d->pipeline->family->adapted_params(d->net);
    struct weir_adapter_shape shape = { 0 };
    float *factors = NULL;

    weir_sampler_destroy(&d->sampler);
    WEIR_TRY(weir_lora_shape(uses, count, &shape, error));
    const size_t bytes = (size_t)weir_adapter_floats(params, &shape) * sizeof *factors;
    if (bytes) {
        factors = malloc(bytes);
        if (!factors) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of adapters", bytes));
        weir_lora_write(params, uses, count, &shape, factors);
    }
    WEIR_TRY(choose_programs(d, &shape, bytes, error));
    free(d->factors);
    d->factors = factors;
    factors = NULL;
    d->use_count = count;
cleanup:
    free(factors);
    weir_lora_shape_free(&shape);
    return status;
}

/* Of files nothing but their size is known: at most two bytes of it a number, of every linear some. */
enum weir_status weir_denoiser_plan_loras(struct weir_denoiser *d, const struct weir_item *item,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t count = weir_params_part_count(d->pipeline->family->adapted_params(d->net));
    struct weir_adapter_shape shape = { .parts = malloc((count + 1) * sizeof *shape.parts), .count = count };
    uint64_t bytes = (uint64_t)count * 2 * WEIR_ALIGNMENT;
    if (!shape.parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u adapted linears", count);
    for (uint32_t i = 0; i < count; i++) shape.parts[i] = (struct weir_adapter_part){ i, PLANNED_RANK };
    for (uint32_t i = 0; i < item->lora_count; i++) bytes += item->loras[i].bytes / 2 * sizeof(float);
    WEIR_TRY(choose_programs(d, &shape, (size_t)bytes, error));
cleanup:
    weir_lora_shape_free(&shape);
    return status;
}

/* ---- an item ---- */

static enum weir_status start(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t slots = d->binding_count - 2;
    if (d->taken < d->bytes) weir_run_stop(&d->run);
    WEIR_TRY(weir_run_start(&d->run, d->device, d->bytes, error));
    if (d->taken < d->bytes) d->taken = d->bytes;
    if (!d->host) d->host = malloc(d->latent_count * sizeof *d->host);
    if (!d->host) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of noise", d->latent_count * sizeof(float)));
    }
    for (uint32_t i = 0; i < slots; i++) {
        d->bindings[i].memory =
            d->run.arena + d->prepare_at + weir_program_offset(d->now->prepare, d->bindings[i].name);
    }
    d->bindings[slots].memory = d->run.arena + d->latents_at;
    d->bindings[slots + 1].memory = d->run.arena + d->previous_at;
    d->bindings[slots + 2].memory = d->run.arena + d->factors_at;
    if (d->factors) WEIR_TRY(weir_run_write(&d->run, d->factors_at, d->factors, d->factor_bytes, error));
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

/* Latents and the last prediction, from the checkpoint or from the seed. What no sampler has written yet is zero, so
 * that reading it back gives the same bytes every time. */
static enum weir_status write_state(struct weir_denoiser *d, const struct weir_item *item, const float *picture,
                                    const struct weir_sampler_start *start, const struct weir_denoiser_state *state,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = d->latent_count * sizeof(float);
    const float *previous = state && state->previous ? state->previous : d->host;
    memset(d->host, 0, bytes);
    WEIR_TRY(weir_run_write(&d->run, d->previous_at, previous, bytes, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the buffer is drawn over */
    if (!state) first_latents(d, item, picture, start);
    WEIR_TRY(weir_run_write(&d->run, d->latents_at, state ? state->latents : d->host, bytes, error));
cleanup:
    return status;
}

static uint32_t rows_of(const struct weir_denoiser *d)
{
    return weir_item_guided(&d->pipeline->facts, &d->shape) ? 2 : 1;
}

static bool counts_tokens(const struct weir_denoiser *d)
{
    return d->pipeline->facts.text_rows > d->pipeline->facts.text_tokens;
}

static enum weir_status read_lengths(struct weir_denoiser *d, const float *embedding, struct weir_error *error)
{
    const struct weir_model_facts *facts = &d->pipeline->facts;
    for (uint32_t row = 0; counts_tokens(d) && row < rows_of(d); row++) {
        const float count = embedding[((size_t)row * facts->text_rows + facts->text_tokens) * facts->text_channels];
        if (!(count >= 1 && count <= (float)facts->text_tokens && floorf(count) == count))
            return weir_fail(error, WEIR_BAD_FILE, "the embedding says that %g of %u tokens are real", (double)count,
                             facts->text_tokens);
        d->lengths[row] = (int32_t)count;
    }
    return WEIR_OK;
}

static enum weir_status write_text(struct weir_denoiser *d, const float *embedding, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = &d->pipeline->facts;
    const size_t at = d->prepare_at + weir_program_offset(d->now->prepare, "text");
    const size_t bytes = (size_t)facts->text_tokens * facts->text_channels * sizeof *embedding;
    for (uint32_t row = 0; row < rows_of(d); row++) {
        const float *from = embedding + (size_t)row * facts->text_rows * facts->text_channels;
        WEIR_TRY(weir_run_write(&d->run, at + row * bytes, from, bytes, error));
    }
cleanup:
    return status;
}

/* What a network that looks at a picture is given of it. */
static enum weir_status write_control(struct weir_denoiser *d, const struct weir_item *item, const float *latents,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = weir_program_bytes(d->now->prepare, "control_scale");
    float *scales = malloc(bytes);
    if (!scales) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of scales", bytes);
    for (size_t i = 0; i < bytes / sizeof *scales; i++) scales[i] = (float)item->control_scale;
    WEIR_TRY(weir_run_write(&d->run, d->prepare_at + weir_program_offset(d->now->prepare, "control_scale"), scales,
                            bytes, error));
    WEIR_TRY(weir_run_write(&d->run, d->prepare_at + weir_program_offset(d->now->prepare, "control_latents"), latents,
                            d->latent_count * sizeof *latents, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error)); /* before the scales are freed */
cleanup:
    free(scales);
    return status;
}

enum weir_status weir_denoiser_begin(struct weir_denoiser *d, const struct weir_item *item,
                                     const struct weir_denoiser_input *input, const struct weir_denoiser_state *state,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sampler *sampler = NULL; /* owned here until the item is begun */
    struct weir_sampler_start first = { 0 };

    weir_sampler_destroy(&d->sampler);
    WEIR_TRY(weir_item_check(&d->pipeline->facts, item, error));
    if (!weir_denoiser_fits(d, item)) {
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "a denoise run of %ux%u, %u frames, was planned for %ux%u, %u",
                           item->width, item->height, item->frames, d->shape.width, d->shape.height, d->shape.frames));
    }
    if (item->lora_count != d->use_count) {
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "the item has %u adapters, but %zu are set", item->lora_count,
                           d->use_count));
    }
    WEIR_TRY(read_lengths(d, input->embedding, error));
    WEIR_TRY(check_pictures(item, input, state, error));
    WEIR_TRY(weir_pipeline_sampler(d->pipeline, item, &sampler, &first, error));
    WEIR_TRY(check_state(sampler, state, error));
    WEIR_TRY(start(d, error));
    WEIR_TRY(write_state(d, item, input->start, &first, state, error));
    WEIR_TRY(write_text(d, input->embedding, error));
    if (item->has_control) WEIR_TRY(write_control(d, item, input->control, error));
    WEIR_TRY(weir_run_program(&d->run, d->now->prepare, d->prepare_at, d->bindings + d->binding_count,
                              d->factors ? 1 : 0, error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error));
    d->item = *item;
    d->done = state ? state->step : 0;
    d->sampler = sampler;
    sampler = NULL;
cleanup:
    weir_sampler_destroy(&sampler);
    return status;
}

uint32_t weir_denoiser_step_count(const struct weir_denoiser *denoiser)
{
    return denoiser->sampler ? weir_sampler_step_count(denoiser->sampler) : 0;
}

uint32_t weir_denoiser_step_index(const struct weir_denoiser *denoiser)
{
    return denoiser->sampler ? denoiser->done : 0;
}

bool weir_denoiser_looks_back(const struct weir_denoiser *denoiser)
{
    return denoiser->sampler && weir_sampler_state_bytes(denoiser->sampler, 1) > 0;
}

/* What the op of a step reads is what a sampler says, number by number. */
static_assert(sizeof(struct weir_sampler_coefficients) == WEIR_SAMPLER_COEFFICIENTS * sizeof(float),
              "sampler_step and the samplers share one formula");

/* What a step's program is given beside latents and slots. Its arena is one for all steps, so all of it every time. */
static enum weir_status write_inputs(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline *pipeline = d->pipeline;
    const struct weir_sampler_coefficients *k = weir_sampler_coefficients(d->sampler, d->done);
    const size_t rows = rows_of(d);
    const struct {
        const char *name;
        const void *host;
        size_t bytes;
        bool there;
    } inputs[] = { { "t", d->t, rows * sizeof *d->t, true },
                   { "k", k, sizeof *k, true },
                   { "guidance", &d->guidance, sizeof d->guidance, rows == 2 || pipeline->facts.guidance_inside },
                   { "lengths", d->lengths, rows * sizeof *d->lengths, counts_tokens(d) } };
    d->t[0] = d->t[1] = (float)weir_sampler_timestep(d->sampler, d->done) * pipeline->time_factor;
    d->guidance = (float)d->item.guidance * pipeline->guidance_factor;
    for (size_t i = 0; i < WEIR_COUNT(inputs); i++) {
        if (!inputs[i].there) continue;
        WEIR_TRY(weir_run_write(&d->run, d->step_at + weir_program_offset(d->now->step, inputs[i].name), inputs[i].host,
                                inputs[i].bytes, error));
    }
cleanup:
    return status;
}

enum weir_status weir_denoiser_step(struct weir_denoiser *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (!d->sampler || d->done >= weir_sampler_step_count(d->sampler))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "no step is left to do");

    if (weir_sampler_draws(d->sampler, d->done)) {
        draw(&d->item, d->done + 1, d->host, d->latent_count);
        WEIR_TRY(weir_run_write(&d->run, d->previous_at, d->host, d->latent_count * sizeof(float), error));
    }
    WEIR_TRY(write_inputs(d, error));
    WEIR_TRY(weir_run_program(&d->run, d->now->step, d->step_at, d->bindings, d->binding_count + (d->factors ? 1 : 0),
                              error));
    WEIR_TRY(d->device->table->stream_sync(d->run.stream, error));
    d->done++;
cleanup:
    if (status != WEIR_OK) weir_sampler_destroy(&d->sampler); /* the latents may be half way */
    return status;
}

enum weir_status weir_denoiser_read(struct weir_denoiser *d, float *latents, float *previous, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t bytes = d->latent_count * sizeof(float);
    if (!d->sampler) return weir_fail(error, WEIR_BAD_ARGUMENT, "no item is in progress");
    WEIR_TRY(weir_run_read(&d->run, d->latents_at, latents, bytes, error));
    if (previous) WEIR_TRY(weir_run_read(&d->run, d->previous_at, previous, bytes, error));
cleanup:
    return status;
}
