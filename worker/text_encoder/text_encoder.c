/* text: the prompt, and the negative one when the item is guided, to one `embedding` [copies, rows, channels], the
 * negative first. Each text is looked for in the tenant's cache; what is not there is computed, and put there when the task
 * has ended, since nobody waits for that. A task all of whose texts are there is done without the network. */
#include "worker/link/artefact.h"
#include "worker/stage.h"
#include "worker/text_encoder/cache.h"
#include "worker/text_encoder/embedding.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { TEXTS_MAX = 2 };

/* What was computed and is not in the cache yet. */
struct fresh {
    char key[WEIR_KEY_BYTES];
    const float *values; /* the encoder's */
};

struct text_encoder {
    struct weir_open_stage stage;
    struct weir_text *text;
    float *values; /* of a task's texts */
    struct fresh fresh[TEXTS_MAX];
    uint32_t fresh_count;
};

/* Floats of one text's embedding. */
static size_t one_text(const struct weir_stage_ground *ground)
{
    const struct weir_model_facts *facts = weir_pipeline_facts(ground->pipeline);
    return (size_t)facts->text_rows * facts->text_channels;
}

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    (void)seats;
    const struct weir_model_facts *facts = weir_pipeline_facts(pipeline);
    const enum weir_status status = weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_TEXT, item, out, error);
    out->host += TEXTS_MAX * sizeof(float) * facts->text_rows * facts->text_channels;
    return status;
}

static void stage_close(struct weir_open_stage *stage)
{
    struct text_encoder *encoder = (struct text_encoder *)stage;
    assert(encoder->fresh_count == 0);
    weir_text_destroy(&encoder->text);
    weir_pipeline_unload(stage->ground->pipeline, WEIR_PIPELINE_TEXT);
    free(encoder->values);
    free(encoder);
}

static enum weir_status stage_open(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                                   struct weir_error *error)
{
    struct text_encoder *encoder = calloc(1, sizeof *encoder);
    *out = NULL;
    if (!encoder) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the text encoder");
    encoder->stage = (struct weir_open_stage){ &weir_stage_text_encoder, ground };
    encoder->values = malloc(TEXTS_MAX * one_text(ground) * sizeof *encoder->values);
    enum weir_status status = encoder->values ? WEIR_OK : weir_fail(error, WEIR_NO_MEMORY, "no memory for embeddings");
    if (status == WEIR_OK) status = weir_pipeline_load(ground->pipeline, ground->device, WEIR_PIPELINE_TEXT, error);
    if (status == WEIR_OK) status = weir_text_create(ground->pipeline, &encoder->text, error);
    if (status == WEIR_OK)
        *out = &encoder->stage;
    else
        stage_close(&encoder->stage);
    return status;
}

static bool fits(const struct weir_open_stage *stage, const struct weir_item *item)
{
    (void)stage, (void)item;
    return true; /* a window of tokens has one shape */
}

static void afterwards(struct weir_open_stage *stage)
{
    struct text_encoder *encoder = (struct text_encoder *)stage;
    for (uint32_t i = 0; i < encoder->fresh_count; i++) {
        weir_embedding_keep(stage->ground, encoder->fresh[i].key, encoder->fresh[i].values);
    }
    encoder->fresh_count = 0;
}

/* From the cache, else by the network. *found: it is there; without an encoder it may not be. */
static enum weir_status embed(const struct weir_stage_ground *ground, struct text_encoder *encoder,
                              struct weir_task *task, const char *words, bool is_negative, float *out, bool *found,
                              struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char key[WEIR_KEY_BYTES];
    WEIR_TRY(weir_embedding_key(ground, task->lease->tenant, words, is_negative, key, error));
    *found = weir_embedding_find(ground, key, out);
    if (*found || !encoder) return WEIR_OK;
    WEIR_TRY(weir_text_run(encoder->text, words, is_negative, out, error));
    struct fresh *fresh = &encoder->fresh[encoder->fresh_count++];
    memcpy(fresh->key, key, sizeof fresh->key);
    fresh->values = out;
    task->steps_run++;
    *found = true;
cleanup:
    return status;
}

/* The item's texts in the order of the embedding; how many there are. */
static uint32_t texts_of(const struct weir_stage_ground *ground, const struct weir_task *task,
                         const char *texts[TEXTS_MAX])
{
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    const bool guided = weir_item_guided(weir_pipeline_facts(ground->pipeline), &task->item);
    const char *prompt = spec->prompt ? spec->prompt : "", *negative = spec->negative ? spec->negative : "";
    texts[0] = guided ? negative : prompt;
    texts[1] = prompt;
    return guided ? 2 : 1;
}

static enum weir_status compose(const struct weir_stage_ground *ground, struct text_encoder *encoder,
                                struct weir_task *task, bool *is_done, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = weir_pipeline_facts(ground->pipeline);
    const char *texts[TEXTS_MAX];
    const uint32_t copies = texts_of(ground, task, texts);
    const size_t one = one_text(ground);
    void *bytes = NULL;
    size_t byte_count, count;
    float *packed, *own = encoder ? NULL : malloc(copies * one * sizeof *own),
                   *values = encoder ? encoder->values : own;
    struct weir_output *output;

    *is_done = true;
    if (!values) return weir_fail(error, WEIR_NO_MEMORY, "no memory for an embedding");
    for (uint32_t i = 0; i < copies && *is_done; i++) {
        WEIR_TRY(weir_task_check(task, error));
        WEIR_TRY(embed(ground, encoder, task, texts[i], i + 1 < copies, values + i * one, is_done, error));
        if (*is_done) weir_task_progress(task, i + 1, copies);
    }
    if (!*is_done) goto cleanup;
    const uint32_t rows = weir_embedding_rows(facts, copies, values);
    const uint32_t dims[] = { copies, rows, facts->text_channels };
    WEIR_TRY(weir_artefact_create(3, dims, &bytes, &byte_count, &packed, &count, error));
    weir_embedding_pack(facts, copies, rows, values, packed);
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put_remakeable(ground->link, task->lease->tenant, &task->id, "embedding",
                                      WEIR_ARTEFACT_MEDIA_TYPE, bytes, byte_count, output, error));
cleanup:
    free(bytes);
    free(own);
    return status;
}

/* Where one is missing none is read: run() will read the others. */
static enum weir_status recall(const struct weir_stage_ground *ground, struct weir_task *task, bool *is_done,
                               struct weir_error *error)
{
    const char *texts[TEXTS_MAX];
    const uint32_t copies = texts_of(ground, task, texts);
    *is_done = true;
    for (uint32_t i = 0; i < copies && *is_done; i++) {
        char key[WEIR_KEY_BYTES];
        const enum weir_status status =
            weir_embedding_key(ground, task->lease->tenant, texts[i], i + 1 < copies, key, error);
        if (status != WEIR_OK) return status;
        *is_done = weir_embedding_exists(ground, key);
    }
    return *is_done ? compose(ground, NULL, task, is_done, error) : WEIR_OK;
}

static enum weir_status run(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error)
{
    bool is_done;
    return compose(stage->ground, (struct text_encoder *)stage, task, &is_done, error);
}

const struct weir_stage_kind weir_stage_text_encoder = {
    .stage = WEIR_STAGE_TEXT,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .recall = recall,
    .run = run,
    .afterwards = afterwards,
    .close = stage_close,
};
