#include "worker/quote.h"

#include "proto/base/clock.h"
#include "worker/spec.h"
#include "worker/stages.h"

#include <stdlib.h>

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
    const uint64_t all_ms = times(one_ms, n);
    return all_ms > INT64_MAX ? INT64_MAX : all_ms;
}

static enum weir_status answer(struct weir_quoter *quoter, struct weir_quote *quote, struct weir_error *error)
{
    const Weir__Pb__JobSpec *wish = quote->message.body.quote->spec;
    const struct weir_model *model = weir_models_find(quoter->models, wish->model);
    enum weir_status status = WEIR_OK;
    struct weir_item item;
    Weir__Pb__JobSpec first;
    uint32_t real, whole;

    if (!model)
        return weir_fail(error, WEIR_UNAVAILABLE, "--model %s: this worker does not have it",
                         wish->model ? wish->model : "");
    const struct weir_model_facts *facts = weir_pipeline_facts(model->quotes);
    const struct weir_spec_model asked = { model->name, model->digest, weir_model_dir_class_name(model->dir), facts,
                                           weir_precision_name(quoter->device->precision) };
    WEIR_TRY(weir_spec_resolve(wish, &asked, quoter->encoders, &quote->spec, error));
    weir_spec_of_item(&quote->spec, 0, &first);
    WEIR_TRY(weir_spec_item(&first, &item, error));
    WEIR_TRY(weir_pipeline_check_sampler(model->quotes, &item, error));
    WEIR_TRY(weir_pipeline_text_tokens(model->quotes, quote->spec.prompt, false, &real, &whole, error));
    WEIR_TRY(weir_pipeline_text_tokens(model->quotes, quote->spec.negative, true, &real, &whole, error));
    status = weir_stages_plan(model->quotes, quoter->device, &item, &quote->memory_bytes, error);
    if (status == WEIR_BAD_SHAPE) { /* over what an op can count, long before any machine's memory */
        status = weir_fail(error, WEIR_TOO_LARGE, "--size %ux%u with %u frames: more pixels than any plan can hold",
                           item.width, item.height, item.frames);
    }
    if (status != WEIR_OK) goto cleanup;
    quote->cost_ms = predict_ms(quoter, (size_t)(model - quoter->models->items), facts, &item, quote->spec.n);
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
        teach(&speed->decode_ns, decode_units(facts, &task->item, task->lease->frame_count), task->milliseconds);
    }
}

void weir_quote_destroy(struct weir_quote **quote_p)
{
    if (!*quote_p) return;
    weir_message_release(&(*quote_p)->message);
    free(*quote_p);
    *quote_p = NULL;
}
