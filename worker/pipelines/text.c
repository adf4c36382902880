#include "worker/pipelines/internal.h"

#include <stdlib.h>
#include <string.h>

struct weir_text {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    struct weir_program *program;
    struct weir_run run;
    int32_t *ids; /* the window's; NULL before the first run */
};

enum weir_status weir_text_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                struct weir_text **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_text *text = calloc(1, sizeof *text);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a text run");
    text->pipeline = pipeline;
    text->device = device;
    WEIR_TRY(weir_run_create_program(device, &text->program, error));
    pipeline->family->build_text(pipeline, net, text->program);
    WEIR_TRY(weir_program_finish(text->program, error));
    *out = text;
    text = NULL;
cleanup:
    weir_text_destroy(&text);
    return status;
}

enum weir_status weir_text_create(struct weir_pipeline *pipeline, struct weir_text **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_TEXT, &net, error));
    WEIR_TRY(weir_text_plan(pipeline, pipeline->device, net, out, error));
cleanup:
    return status;
}

void weir_text_destroy(struct weir_text **text_p)
{
    struct weir_text *text = *text_p;
    if (!text) return;
    weir_run_stop(&text->run);
    weir_program_destroy(&text->program);
    free(text->ids);
    free(text);
    *text_p = NULL;
}

uint64_t weir_text_host_bytes(const struct weir_text *text)
{
    return text->pipeline->facts.text_tokens * sizeof *text->ids;
}

uint64_t weir_text_bytes(const struct weir_text *text)
{
    return weir_program_arena_bytes(text->program) + weir_text_host_bytes(text);
}

enum weir_status weir_text_run(struct weir_text *text, const char *words, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = &text->pipeline->facts;
    struct weir_program *p = text->program;
    uint32_t real, whole;
    if (!text->ids) text->ids = malloc(facts->text_tokens * sizeof *text->ids);
    if (!text->ids) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u token ids", facts->text_tokens);

    WEIR_TRY(text->pipeline->family->tokens(text->pipeline, words, text->ids, &real, &whole, error));
    WEIR_TRY(weir_run_start(&text->run, text->device, weir_program_arena_bytes(p), error));
    WEIR_TRY(weir_run_write(&text->run, weir_program_offset(p, "ids"), text->ids,
                            facts->text_tokens * sizeof *text->ids, error));
    WEIR_TRY(weir_run_program(&text->run, p, 0, NULL, 0, error));
    WEIR_TRY(weir_run_read(&text->run, weir_program_offset(p, "embedding"), out,
                           (size_t)facts->text_tokens * facts->text_channels * sizeof *out, error));
cleanup:
    return status;
}
