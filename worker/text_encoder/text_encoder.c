/* text: the prompt, and the negative one when the item is guided, to one `embedding` [copies, rows, channels], the
 * negative first. */
#include "worker/link/artefact.h"
#include "worker/stage.h"

#include <stdlib.h>

struct text_encoder {
    struct weir_open_stage stage;
    struct weir_text *text;
};

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    const struct weir_item *item, uint32_t seats, struct weir_pipeline_memory *out,
                                    struct weir_error *error)
{
    (void)seats;
    return weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_TEXT, item, out, error);
}

static void stage_close(struct weir_open_stage *stage)
{
    struct text_encoder *encoder = (struct text_encoder *)stage;
    weir_text_destroy(&encoder->text);
    weir_pipeline_unload(stage->ground->pipeline, WEIR_PIPELINE_TEXT);
    free(encoder);
}

static enum weir_status stage_open(const struct weir_stage_ground *ground, struct weir_open_stage **out,
                                   struct weir_error *error)
{
    struct text_encoder *encoder = calloc(1, sizeof *encoder);
    *out = NULL;
    if (!encoder) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the text encoder");
    encoder->stage = (struct weir_open_stage){ &weir_stage_text_encoder, ground };
    enum weir_status status = weir_pipeline_load(ground->pipeline, ground->device, WEIR_PIPELINE_TEXT, error);
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

static enum weir_status run(struct weir_open_stage *stage, struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct text_encoder *encoder = (struct text_encoder *)stage;
    const struct weir_model_facts *facts = weir_pipeline_facts(stage->ground->pipeline);
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    const bool guided = weir_item_guided(facts, &task->item);
    const char *texts[2] = { guided ? spec->negative : spec->prompt, spec->prompt };
    const uint32_t copies = guided ? 2 : 1;
    const size_t one = (size_t)facts->text_rows * facts->text_channels;
    void *bytes = NULL;
    size_t byte_count, count;
    float *values;
    struct weir_output *output;

    const uint32_t dims[] = { copies, facts->text_rows, facts->text_channels };
    WEIR_TRY(weir_artefact_create(3, dims, &bytes, &byte_count, &values, &count, error));
    for (uint32_t i = 0; i < copies; i++) {
        WEIR_TRY(weir_task_check(task, error));
        WEIR_TRY(weir_text_run(encoder->text, texts[i] ? texts[i] : "", i + 1 < copies, values + i * one, error));
        weir_task_progress(task, i + 1, copies);
    }
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put(stage->ground->link, task->lease->tenant, &task->id, "embedding", WEIR_ARTEFACT_MEDIA_TYPE,
                           bytes, byte_count, output, error));
cleanup:
    free(bytes);
    return status;
}

const struct weir_stage_kind weir_stage_text_encoder = {
    .stage = WEIR_STAGE_TEXT,
    .plan_memory = plan_memory,
    .open = stage_open,
    .fits = fits,
    .run = run,
    .close = stage_close,
};
