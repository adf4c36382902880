#include "worker/quote.h"

#include "proto/base/clock.h"
#include "worker/stages.h"

#include <stdlib.h>
#include <string.h>

/* A guided step of the shipped model on two cores, and its decoding: what is believed before the first task. */
enum { DENOISE_NS_GUESS = 50000, DECODE_NS_GUESS = 6000, TASK_MS = 20 };

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t denoise_units(const struct weir_model_facts *facts, const struct weir_item *item, uint32_t steps)
{
    uint32_t dims[4];
    weir_item_latent_dims(facts, item, dims);
    return times(times((uint64_t)dims[2] * dims[3], dims[1]),
                 (uint64_t)steps * (weir_item_guided(facts, item) ? 2 : 1));
}

static uint64_t decode_units(const struct weir_model_facts *facts, const struct weir_item *item, uint32_t frames)
{
    const struct weir_sana_size made = weir_item_made(facts, item);
    return times((uint64_t)made.width * made.height, frames);
}

static uint64_t predict_ms(const struct weir_quoter *quoter, size_t model, const struct weir_model_facts *facts,
                           const struct weir_item *item, uint32_t n)
{
    const struct weir_speed *speed = &quoter->speeds[model];
    const uint64_t denoise = atomic_load(&speed->denoise_ns), decode = atomic_load(&speed->decode_ns);
    const uint32_t steps = item->steps - weir_item_first_step(item);
    const uint32_t frames = item->frames + item->has_control + item->has_start; /* encoding takes about as long */
    const uint64_t denoise_ns = times(denoise_units(facts, item, steps), denoise ? denoise : DENOISE_NS_GUESS);
    const uint64_t decode_ns = times(decode_units(facts, item, frames), decode ? decode : DECODE_NS_GUESS);
    const uint64_t one_ms = denoise_ns / 1000000 + decode_ns / 1000000 + 3 * TASK_MS;
    return times(one_ms, n);
}

/* Items that take as much memory as each other, but for their adapters. */
struct shape {
    struct weir_item most; /* the one with the most bytes of adapters */
    uint64_t lora_bytes;
    const Weir__Pb__Prompt *prompt; /* whose item it is; NULL: no list */
};

/* The answer as it is worked out, prompt after prompt. */
struct work {
    struct weir_quoter *quoter;
    struct weir_quote *quote;
    const struct weir_model *model;
    const char *negative; /* the last one that was looked at; often that of all prompts */
    struct shape shapes[WEIR_JOB_SHAPES_MAX];
    size_t shape_count;
};

static bool alike(const struct weir_item *a, const struct weir_item *b)
{
    return a->width == b->width && a->height == b->height && (a->guidance > 1) == (b->guidance > 1);
}

/* Keeps the item if none of its shape with as many adapters was seen before. */
static enum weir_status note_shape(struct work *work, const struct weir_item *item, const Weir__Pb__Prompt *prompt,
                                   struct weir_error *error)
{
    const struct shape mine = { *item, weir_item_lora_bytes(item), prompt };
    for (size_t k = 0; k < work->shape_count; k++) {
        struct shape *known = &work->shapes[k];
        if (!alike(&known->most, item)) continue;
        if (known->lora_bytes < mine.lora_bytes) *known = mine;
        return WEIR_OK;
    }
    if (work->shape_count == WEIR_JOB_SHAPES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE,
                         "--size %ux%u, %s: one job has at most %d different sizes, guided or not", item->width,
                         item->height, item->guidance > 1 ? "guided" : "not guided", WEIR_JOB_SHAPES_MAX);
    }
    work->shapes[work->shape_count++] = mine;
    return WEIR_OK;
}

/* A picture or adapters add to what its size takes. */
static bool is_plain(const struct weir_item *item)
{
    return !item->has_control && !item->has_start && item->lora_count == 0;
}

static const struct weir_quote_plan *known_plan(const struct weir_quoter *quoter, const struct weir_model *model,
                                                const struct weir_item *item)
{
    for (size_t k = 0; k < WEIR_QUOTE_PLANS && is_plain(item); k++) {
        const struct weir_quote_plan *known = &quoter->plans[k];
        if (known->model == model && alike(&known->item, item) && known->item.frames == item->frames &&
            known->item.bands == item->bands)
            return known;
    }
    return NULL;
}

static enum weir_status plan_item(const struct work *work, const struct weir_item *item, uint64_t *bytes,
                                  struct weir_error *error)
{
    struct weir_quoter *quoter = work->quoter;
    const struct weir_quote_plan *known = known_plan(quoter, work->model, item);
    if (known) {
        *bytes = known->bytes;
        return WEIR_OK;
    }
    const enum weir_status status = weir_stages_plan(work->model->quotes, quoter->device, item, bytes, error);
    if (status == WEIR_OK && is_plain(item))
        quoter->plans[quoter->plan_next++ % WEIR_QUOTE_PLANS] = (struct weir_quote_plan){ work->model, *item, *bytes };
    return status;
}

/* Plans the memory of each shape. */
static enum weir_status plan(struct work *work, struct weir_error *error)
{
    for (size_t k = 0; k < work->shape_count; k++) {
        const struct shape *shape = &work->shapes[k];
        const struct weir_item *item = &shape->most;
        uint64_t bytes = 0;
        enum weir_status status = plan_item(work, item, &bytes, error);
        if (status == WEIR_BAD_SHAPE) { /* over what an op can count, long before any machine's memory */
            status = weir_fail(error, WEIR_TOO_LARGE, "--size %ux%u with %u frames: more pixels than any plan can hold",
                               item->width, item->height, item->frames);
        }
        if (status != WEIR_OK) return shape->prompt ? weir_spec_blame(shape->prompt, status, error) : status;
        if (bytes > work->quote->memory_bytes) work->quote->memory_bytes = bytes;
    }
    return WEIR_OK;
}

/* Everything about one prompt, whose first item's spec this is. */
static enum weir_status answer_one(struct work *work, const Weir__Pb__JobSpec *spec, const Weir__Pb__Prompt *prompt,
                                   struct weir_error *error)
{
    struct weir_quote *quote = work->quote;
    struct weir_pipeline *pipeline = work->model->quotes;
    const size_t model_index = (size_t)(work->model - work->quoter->models->items);
    enum weir_status status = WEIR_OK;
    struct weir_item item;
    uint32_t real, whole;

    WEIR_TRY(weir_spec_item(spec, &item, error));
    WEIR_TRY(weir_pipeline_check_sampler(pipeline, &item, error));
    WEIR_TRY(weir_pipeline_text_tokens(pipeline, spec->prompt, false, &real, &whole, error));
    if (!work->negative || strcmp(work->negative, spec->negative) != 0) {
        WEIR_TRY(weir_pipeline_text_tokens(pipeline, spec->negative, true, &real, &whole, error));
        work->negative = spec->negative;
    }
    WEIR_TRY(note_shape(work, &item, prompt, error));
    const uint64_t more_ms = predict_ms(work->quoter, model_index, weir_pipeline_facts(pipeline), &item, quote->spec.n);
    quote->cost_ms = more_ms > INT64_MAX - quote->cost_ms ? INT64_MAX : quote->cost_ms + more_ms;
cleanup:
    return status;
}

static uint32_t bands_of(const void *pipeline, const struct weir_item *item)
{
    return weir_pipeline_bands(pipeline, item);
}

static enum weir_status answer(struct weir_quoter *quoter, struct weir_quote *quote, struct weir_error *error)
{
    const Weir__Pb__JobSpec *wish = quote->message.body.quote->spec;
    const struct weir_model *model = weir_models_find(quoter->models, wish->model);
    struct work work = { .quoter = quoter, .quote = quote, .model = model };
    enum weir_status status = WEIR_OK;
    Weir__Pb__JobSpec one;

    if (!model)
        return weir_fail(error, WEIR_UNAVAILABLE, "--model %s: this worker does not have it",
                         wish->model ? wish->model : "");
    const struct weir_spec_model asked = { model->name,
                                           model->digest,
                                           weir_model_dir_class_name(model->dir),
                                           weir_pipeline_facts(model->quotes),
                                           weir_precision_name(quoter->device->precision),
                                           bands_of,
                                           model->quotes };
    WEIR_TRY(weir_spec_resolve_all(wish, &asked, quoter->encoders, &quote->spec, &quote->list, error));
    if (quote->spec.n_prompts == 0) {
        weir_spec_of_item(&quote->spec, 0, &one);
        WEIR_TRY(answer_one(&work, &one, NULL, error));
    }
    for (uint32_t k = 0; k < quote->spec.n_prompts; k++) {
        weir_spec_of_item(&quote->spec, k * quote->spec.n, &one);
        status = answer_one(&work, &one, quote->spec.prompts[k], error);
        if (status != WEIR_OK) return weir_spec_blame(quote->spec.prompts[k], status, error);
    }
    WEIR_TRY(plan(&work, error));
cleanup:
    return status;
}

void weir_quoter_answer(struct weir_quoter *quoter, struct weir_quote *quote)
{
    quote->error = (struct weir_error){ .code = WEIR_OK };
    if (weir_clock_now_ms() - quote->asked_ms > WEIR_QUOTE_WAIT_MS) {
        quote->status =
            weir_fail(&quote->error, WEIR_BUSY, "quotes before this one took over %d s", WEIR_QUOTE_WAIT_MS / 1000);
    } else {
        quote->status = answer(quoter, quote, &quote->error);
    }
}

void weir_quoter_prepare(struct weir_quoter *quoter)
{
    const char *codec;
    (void)weir_encoders_codec(quoter->encoders, "mp4", NULL, &codec, NULL);
}

/* Half of what was known, half of what was seen. */
static void teach(atomic_ullong *known_ns, uint64_t units, uint64_t milliseconds)
{
    if (units == 0 || milliseconds == 0) return;
    const uint64_t seen = times(milliseconds, 1000000) / units, before = atomic_load(known_ns);
    const uint64_t now = before ? before / 2 + seen / 2 : seen;
    atomic_store(known_ns, now ? now : 1);
}

void weir_quoter_learn(struct weir_quoter *quoter, const struct weir_task *task)
{
    struct weir_speed *speed = &quoter->speeds[task->model_index];
    const struct weir_model_facts *facts = weir_pipeline_facts(quoter->models->items[task->model_index].quotes);
    if (task->id.stage == WEIR_STAGE_DENOISE) {
        if (task->item.has_start) return; /* a few steps, and encoding is not known apart from them */
        teach(&speed->denoise_ns, denoise_units(facts, &task->item, task->steps_run), task->milliseconds);
    } else if (task->id.stage == WEIR_STAGE_DECODE && task->lease->frame_count) {
        const uint32_t shared = task->item.bands > 1 ? task->item.bands : 1; /* each takes about its share */
        teach(&speed->decode_ns, decode_units(facts, &task->item, task->lease->frame_count) / shared,
              task->milliseconds);
    }
}

void weir_quote_destroy(struct weir_quote **quote_p)
{
    if (!*quote_p) return;
    weir_message_release(&(*quote_p)->message);
    weir_spec_list_deinit(&(*quote_p)->list);
    free(*quote_p);
    *quote_p = NULL;
}
