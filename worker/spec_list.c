/* Lists of prompts: each is resolved as the one prompt of a job that says what the list's job says. */
#include "worker/spec.h"

#include <stdlib.h>
#include <string.h>

enum weir_status weir_spec_blame(const Weir__Pb__Prompt *prompt, enum weir_status status, struct weir_error *error)
{
    struct weir_error said;
    if (!error) return status;
    said = *error;
    return weir_fail(error, status, "line %u: %s", prompt->line, said.words);
}

/* The job as this prompt alone would ask for it. */
static Weir__Pb__JobSpec wish_of(const Weir__Pb__JobSpec *wish, const Weir__Pb__Prompt *prompt, uint32_t items,
                                 uint64_t seed)
{
    Weir__Pb__JobSpec one = *wish;
    one.n_prompts = 0;
    one.prompts = NULL;
    one.prompt = prompt->text;
    if (prompt->negative) one.negative = prompt->negative;
    if (prompt->has_width) one.has_width = 1, one.width = prompt->width;
    if (prompt->has_height) one.has_height = 1, one.height = prompt->height;
    if (prompt->has_steps) one.has_steps = 1, one.steps = prompt->steps;
    if (prompt->has_guidance) one.has_guidance = 1, one.guidance = prompt->guidance;
    one.has_seed = 1;
    one.seed = prompt->has_seed ? prompt->seed : seed;
    if (prompt->n_loras) one.n_loras = prompt->n_loras, one.loras = prompt->loras;
    one.has_n = 1;
    one.n = items; /* limits are those of the whole job */
    return one;
}

static void fill(const Weir__Pb__JobSpec *one, Weir__Pb__Prompt *out)
{
    out->text = one->prompt;
    out->negative = one->negative;
    out->has_width = out->has_height = out->has_steps = out->has_guidance = out->has_seed = 1;
    out->width = one->width;
    out->height = one->height;
    out->steps = one->steps;
    out->guidance = one->guidance;
    out->seed = one->seed;
    out->n_loras = one->n_loras;
    out->loras = one->loras;
}

/* Whether one embedding serves both: as the plan sees it. */
static bool same_text(const Weir__Pb__Prompt *a, const Weir__Pb__Prompt *b)
{
    return (a->guidance > 1) == (b->guidance > 1) && strcmp(a->text, b->text) == 0 &&
           strcmp(a->negative, b->negative) == 0;
}

/* Those of one text follow the first of them, in their order. */
static void group(struct weir_spec_list *list, size_t count)
{
    size_t placed = 0;
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < placed && !known; k++) known = list->order[k] == &list->prompts[i];
        for (size_t k = i; k < count && !known; k++) {
            if (same_text(&list->prompts[i], &list->prompts[k])) list->order[placed++] = &list->prompts[k];
        }
    }
}

static enum weir_status resolve_list(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                     struct weir_encoders *encoders, Weir__Pb__JobSpec *out,
                                     struct weir_spec_list *list, struct weir_error *error)
{
    const uint32_t n = wish->has_n ? wish->n : 1;
    const size_t count = wish->n_prompts;
    enum weir_status status = WEIR_OK;
    uint64_t seed = wish->seed;

    if (n == 0) return weir_fail(error, WEIR_BAD_ARGUMENT, "--n 0: each prompt is made at least once");
    if ((uint64_t)count * n > WEIR_JOB_PROMPTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE,
                         "--n %u of %zu prompts: one job makes at most %d; more are a batch of jobs", n, count,
                         WEIR_JOB_PROMPTS_MAX);
    }
    if (!wish->has_seed) { /* 32 bits: short enough to be written down */
        uint32_t random;
        weir_random_bytes(&random, sizeof random);
        seed = random;
    }
    list->prompts = calloc(count, sizeof *list->prompts);
    list->order = calloc(count, sizeof(Weir__Pb__Prompt *));
    if (!list->prompts || !list->order) {
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a list of %zu prompts", count);
    }
    for (size_t k = 0; k < count; k++) {
        const Weir__Pb__Prompt *asked = wish->prompts[k];
        Weir__Pb__Prompt *prompt = &list->prompts[k];
        Weir__Pb__JobSpec resolved;
        const Weir__Pb__JobSpec one = wish_of(wish, asked, (uint32_t)count * n, seed + k * n);
        weir__pb__prompt__init(prompt);
        prompt->has_line = 1;
        prompt->line = asked->has_line ? asked->line : (uint32_t)k + 1;
        status = weir_spec_resolve(&one, model, encoders, &resolved, error);
        if (status != WEIR_OK) return weir_spec_blame(prompt, status, error);
        fill(&resolved, prompt);
        if (k == 0) *out = resolved;
    }
    group(list, count);
    out->prompt = out->negative = NULL;
    out->n_loras = 0;
    out->loras = NULL;
    out->seed = seed;
    out->n = n;
    out->n_prompts = count;
    out->prompts = list->order;
    const size_t bytes = protobuf_c_message_get_packed_size(&out->base);
    if (bytes > WEIR_SPEC_BYTES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE,
                         "a list of %zu prompts takes %zu bytes; one job may have %d: make it several", count, bytes,
                         WEIR_SPEC_BYTES_MAX);
    }
    return WEIR_OK;
}

enum weir_status weir_spec_resolve_all(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                       struct weir_encoders *encoders, Weir__Pb__JobSpec *out,
                                       struct weir_spec_list *list, struct weir_error *error)
{
    *list = (struct weir_spec_list){ 0 };
    if (wish->n_prompts == 0) return weir_spec_resolve(wish, model, encoders, out, error);
    if (wish->prompt) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a prompt and a list of %zu prompts: one of the two is wanted",
                         wish->n_prompts);
    }
    return resolve_list(wish, model, encoders, out, list, error);
}

void weir_spec_list_deinit(struct weir_spec_list *list)
{
    free(list->prompts);
    free(list->order);
    *list = (struct weir_spec_list){ 0 };
}
