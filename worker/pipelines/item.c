#include "worker/pipelines/item.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const sampler_names[WEIR_ITEM_SAMPLER_COUNT] = {
#define X(symbol, name) [WEIR_ITEM_SAMPLER_##symbol] = name,
    WEIR_ITEM_SAMPLER_TABLE(X)
#undef X
};
static const char *const noise_names[WEIR_ITEM_NOISE_COUNT] = { "f32", "f16" };

const char *weir_item_sampler_name(enum weir_item_sampler sampler)
{
    return (unsigned)sampler < WEIR_ITEM_SAMPLER_COUNT ? sampler_names[sampler] : "none";
}

void weir_item_sampler_words(uint32_t samplers, char out[WEIR_ITEM_SAMPLER_WORDS])
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < WEIR_ITEM_SAMPLER_COUNT; i++) {
        if (!(samplers >> i & 1)) continue;
        used +=
            (size_t)snprintf(out + used, WEIR_ITEM_SAMPLER_WORDS - used, "%s%s", used ? ", " : "", sampler_names[i]);
        assert(used < WEIR_ITEM_SAMPLER_WORDS);
    }
}

const char *weir_item_noise_name(enum weir_item_noise noise)
{
    return (unsigned)noise < WEIR_ITEM_NOISE_COUNT ? noise_names[noise] : "none";
}

static enum weir_status check_int(const char *flag, int64_t value, int64_t min, int64_t max, struct weir_error *error)
{
    if (value < min)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s is %lld; the least is %lld", flag, (long long)value,
                         (long long)min);
    if (value > max)
        return weir_fail(error, WEIR_TOO_LARGE, "%s is %lld; the most is %lld", flag, (long long)value, (long long)max);
    return WEIR_OK;
}

static enum weir_status check_size(const char *side, int64_t value, const struct weir_model_facts *facts,
                                   struct weir_error *error)
{
    const uint32_t multiple = facts->size_multiple;
    const uint32_t least = facts->size_min > multiple ? facts->size_min : multiple;
    enum weir_status status = check_int(side, value, least, WEIR_ITEM_SIZE_MAX, error);
    if (status == WEIR_OK && value % multiple != 0)
        status = weir_fail(error, WEIR_BAD_ARGUMENT, "%s is %lld; this model wants a multiple of %u, such as %lld",
                           side, (long long)value, multiple, (long long)(value - value % multiple));
    return status;
}

static enum weir_status refuse_sampler(enum weir_status status, const struct weir_model_facts *facts, const char *what,
                                       struct weir_error *error)
{
    char words[WEIR_ITEM_SAMPLER_WORDS];
    weir_item_sampler_words(facts->samplers, words);
    return weir_fail(error, status, "--sampler %.60s; this model takes: %s", what, words);
}

static enum weir_status check_sampler(const struct weir_model_facts *facts, size_t sampler, struct weir_error *error)
{
    char what[WEIR_ITEM_NAME_BYTES + 8];
    if (facts->samplers >> sampler & 1) return WEIR_OK;
    snprintf(what, sizeof what, "is \"%s\"", sampler_names[sampler]);
    return refuse_sampler(WEIR_UNSUPPORTED, facts, what, error);
}

static enum weir_status choose_sampler(const struct weir_model_facts *facts, const char *wish, size_t *out,
                                       struct weir_error *error)
{
    char what[64];
    if (!wish && *out < WEIR_ITEM_SAMPLER_COUNT) return WEIR_OK;
    if (!wish)
        return refuse_sampler(WEIR_UNSUPPORTED, facts, "is not given, and the model's own is not offered", error);
    for (size_t i = 0; i < WEIR_ITEM_SAMPLER_COUNT; i++) {
        if (strcmp(wish, sampler_names[i]) != 0) continue;
        *out = i;
        return check_sampler(facts, i, error);
    }
    snprintf(what, sizeof what, "is \"%.40s\"", wish);
    return refuse_sampler(WEIR_BAD_ARGUMENT, facts, what, error);
}

static enum weir_status choose(const char *flag, const char *value, const char *const *names, size_t count, size_t *out,
                               struct weir_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(value, names[i]) != 0) continue;
        *out = i;
        return WEIR_OK;
    }
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s is \"%.40s\"; it can be %s or %s", flag, value, names[0],
                     names[count - 1]);
}

static enum weir_status check_control(const struct weir_model_facts *facts, const struct weir_item_wish *w,
                                      struct weir_error *error)
{
    if (w->control && !facts->control)
        return weir_fail(error, WEIR_UNSUPPORTED, "--control: this model has no ControlNet to look at a picture");
    if (!w->control && facts->control)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--control is missing: this model's ControlNet looks at a picture");
    if (!w->control && !isnan(w->control_scale))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the control's scale is %g, but there is no --control",
                         w->control_scale);
    if (w->control && !(w->control_scale >= 0.0 && w->control_scale <= WEIR_ITEM_CONTROL_SCALE_MAX))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--control: its scale is %g; 0 to %g is allowed", w->control_scale,
                         WEIR_ITEM_CONTROL_SCALE_MAX);
    return WEIR_OK;
}

static uint32_t first_step(int64_t steps, double strength)
{
    const double some = (double)steps * strength, done = some < (double)steps ? some : (double)steps;
    return (uint32_t)((double)steps - done);
}

static enum weir_status check_start(const struct weir_model_facts *facts, const struct weir_item_wish *w,
                                    struct weir_error *error)
{
    if (w->start && !facts->start)
        return weir_fail(error, WEIR_UNSUPPORTED, "--image: a model of the family %s does not begin at a picture",
                         facts->family);
    if (!w->start && !isnan(w->strength))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--strength is %g, but there is no --image", w->strength);
    if (w->start && !(w->strength > 0.0 && w->strength <= 1.0))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--strength is %g; over 0 to 1 is allowed", w->strength);
    if (w->start && first_step(w->steps, w->strength) >= w->steps)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--strength is %g: of --steps %lld none is left", w->strength,
                         (long long)w->steps);
    return WEIR_OK;
}

/* One set of rules for wishes and for items that arrive complete: both come here as wide integers. */
static enum weir_status check(const struct weir_model_facts *facts, const struct weir_item_wish *w,
                              struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const int64_t steps_max =
        facts->train_timesteps < WEIR_ITEM_STEPS_MAX ? facts->train_timesteps : WEIR_ITEM_STEPS_MAX;
    WEIR_TRY(check_size("--size: width", w->width, facts, error));
    WEIR_TRY(check_size("--size: height", w->height, facts, error));
    if (facts->frames_max == 1 && w->frames > 1) {
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "--frames is %lld; this model makes pictures, of one frame",
                           (long long)w->frames));
    }
    WEIR_TRY(check_int("--frames", w->frames, 1, facts->frames_max, error));
    WEIR_TRY(check_int("--steps", w->steps, 1, steps_max, error));
    WEIR_TRY(check_int("--fps", w->fps, 1, WEIR_ITEM_FPS_MAX, error));
    if (!(w->guidance >= 0.0))
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "--guidance is %g; the least is 0", w->guidance));
    if (w->guidance > WEIR_ITEM_GUIDANCE_MAX)
        WEIR_TRY(
            weir_fail(error, WEIR_TOO_LARGE, "--guidance is %g; the most is %g", w->guidance, WEIR_ITEM_GUIDANCE_MAX));
    WEIR_TRY(check_control(facts, w, error));
    WEIR_TRY(check_start(facts, w, error));
cleanup:
    return status;
}

enum weir_status weir_item_resolve(const struct weir_model_facts *facts, const struct weir_item_wish *wish,
                                   struct weir_item *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_item_wish w = *wish;
    size_t sampler = facts->sampler, noise = WEIR_ITEM_NOISE_F32;

    if (w.width == WEIR_ITEM_UNSET) w.width = facts->width;
    if (w.height == WEIR_ITEM_UNSET) w.height = facts->height;
    if (w.frames == WEIR_ITEM_UNSET) w.frames = facts->frames;
    if (w.steps == WEIR_ITEM_UNSET) w.steps = facts->steps;
    if (w.fps == WEIR_ITEM_UNSET) w.fps = facts->fps;
    if (isnan(w.guidance)) w.guidance = facts->guidance;
    if (w.control && isnan(w.control_scale)) w.control_scale = facts->control_scale;
    if (w.start && isnan(w.strength)) w.strength = facts->strength;
    WEIR_TRY(check(facts, &w, error));
    WEIR_TRY(choose_sampler(facts, w.sampler, &sampler, error));
    if (w.noise) WEIR_TRY(choose("--noise", w.noise, noise_names, WEIR_ITEM_NOISE_COUNT, &noise, error));

    *out = (struct weir_item){ .width = (uint32_t)w.width,
                               .height = (uint32_t)w.height,
                               .frames = (uint32_t)w.frames,
                               .steps = (uint32_t)w.steps,
                               .fps = (uint32_t)w.fps,
                               .guidance = w.guidance,
                               .sampler = (enum weir_item_sampler)sampler,
                               .noise = (enum weir_item_noise)noise,
                               .seed = w.seed,
                               .has_control = w.control != NULL,
                               .has_start = w.start != NULL };
    if (w.control) {
        memcpy(out->control, w.control, sizeof out->control);
        out->control_scale = w.control_scale;
    }
    if (w.start) {
        memcpy(out->start, w.start, sizeof out->start);
        out->strength = w.strength;
    }
cleanup:
    return status;
}

uint64_t weir_item_lora_bytes(const struct weir_item *item)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < item->lora_count; i++) bytes += item->loras[i].bytes;
    return bytes;
}

static enum weir_status check_loras(const struct weir_model_facts *facts, const struct weir_item *item,
                                    struct weir_error *error)
{
    if (item->lora_count && !facts->loras)
        return weir_fail(error, WEIR_UNSUPPORTED, "--lora: models of the family %s take none", facts->family);
    if (item->lora_count > WEIR_ITEM_LORAS_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "--lora: %u adapters; the most is %d", item->lora_count,
                         WEIR_ITEM_LORAS_MAX);
    for (uint32_t i = 0; i < item->lora_count; i++) {
        const double weight = item->loras[i].weight;
        if (!(fabs(weight) <= WEIR_ITEM_LORA_WEIGHT_MAX))
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--lora: the weight of adapter %u is %g; %g to %g is allowed",
                             i + 1, weight, -WEIR_ITEM_LORA_WEIGHT_MAX, WEIR_ITEM_LORA_WEIGHT_MAX);
    }
    return WEIR_OK;
}

enum weir_status weir_item_check(const struct weir_model_facts *facts, const struct weir_item *item,
                                 struct weir_error *error)
{
    const struct weir_item_wish w = { .width = item->width,
                                      .height = item->height,
                                      .frames = item->frames,
                                      .steps = item->steps,
                                      .fps = item->fps,
                                      .guidance = item->guidance,
                                      .control = item->has_control ? item->control : NULL,
                                      .control_scale = item->has_control ? item->control_scale : (double)NAN,
                                      .start = item->has_start ? item->start : NULL,
                                      .strength = item->has_start ? item->strength : (double)NAN };
    if ((unsigned)item->sampler >= WEIR_ITEM_SAMPLER_COUNT)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--sampler has the number %d, which names none", (int)item->sampler);
    enum weir_status status = check_sampler(facts, (size_t)item->sampler, error);
    if (status == WEIR_OK) status = check_loras(facts, item, error);
    if (status != WEIR_OK) return status;
    if ((unsigned)item->noise >= WEIR_ITEM_NOISE_COUNT)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--noise has the number %d, which names none", (int)item->noise);
    return check(facts, &w, error);
}

bool weir_item_guided(const struct weir_model_facts *facts, const struct weir_item *item)
{
    return item->guidance > 1.0 && !facts->guidance_inside;
}

uint32_t weir_item_first_step(const struct weir_item *item)
{
    return item->has_start ? first_step(item->steps, item->strength) : 0;
}

struct weir_sana_size weir_item_made(const struct weir_model_facts *facts, const struct weir_item *item)
{
    struct weir_sana_size size = { item->width, item->height };
    if (facts->bins == 0) return size;
    const enum weir_status status = weir_sana_bin(facts->bins, item->width, item->height, &size, NULL);
    assert(status == WEIR_OK); /* who filled the facts looked */
    (void)status;
    return size;
}

void weir_item_latent_dims(const struct weir_model_facts *facts, const struct weir_item *item, uint32_t dims[4])
{
    const struct weir_sana_size made = weir_item_made(facts, item);
    dims[0] = facts->latent_channels;
    dims[1] = item->frames;
    dims[2] = made.height / facts->latent_factor;
    dims[3] = made.width / facts->latent_factor;
}

size_t weir_item_latent_count(const struct weir_model_facts *facts, const struct weir_item *item)
{
    uint32_t dims[4];
    weir_item_latent_dims(facts, item, dims);
    return (size_t)dims[0] * dims[1] * dims[2] * dims[3];
}

size_t weir_item_embedding_count(const struct weir_model_facts *facts, const struct weir_item *item)
{
    return (weir_item_guided(facts, item) ? 2 : 1) * (size_t)facts->text_rows * facts->text_channels;
}

size_t weir_item_frame_bytes(const struct weir_item *item)
{
    return (size_t)item->width * item->height * 3;
}
