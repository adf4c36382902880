#include "worker/pipelines/internal.h"

#include <stdlib.h>
#include <string.h>

/* A text is read in a program for its number of tokens, rounded up to this: where padding is not read, a short text
 * costs less. Families that read all of their window have one program. */
#define TOKENS_STEP 32

struct weir_text {
    struct weir_pipeline *pipeline;
    struct weir_device *device;
    const void *net;              /* borrowed: the stage's */
    struct weir_program *program; /* for the whole window */
    struct weir_program *shorter; /* for `tokens` of it; NULL: there was none yet */
    uint32_t tokens;
    struct weir_run run;
    int32_t *ids; /* the window's; NULL before the first run */
};

static enum weir_status build(const struct weir_text *text, uint32_t tokens, struct weir_program **out,
                              struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_program *program = NULL;
    WEIR_TRY(weir_run_create_program(text->device, &program, error));
    text->pipeline->family->build_text(text->pipeline, text->net, program, tokens);
    WEIR_TRY(weir_program_finish(program, error));
    *out = program;
    program = NULL;
cleanup:
    weir_program_destroy(&program);
    return status;
}

enum weir_status weir_text_plan(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                struct weir_text **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_text *text = calloc(1, sizeof *text);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a text run");
    text->pipeline = pipeline;
    text->device = device;
    text->net = net;
    WEIR_TRY(build(text, pipeline->text_window, &text->program, error));
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
    weir_program_destroy(&text->shorter);
    weir_program_destroy(&text->program);
    free(text->ids);
    free(text);
    *text_p = NULL;
}

uint64_t weir_text_host_bytes(const struct weir_text *text)
{
    return text->pipeline->text_window * sizeof *text->ids;
}

uint64_t weir_text_bytes(const struct weir_text *text)
{
    return weir_program_arena_bytes(text->program) + weir_text_host_bytes(text);
}

/* The program for a text of `count` tokens, and how many it reads: a function of `count` alone. */
static enum weir_status program_for(struct weir_text *text, uint32_t count, const struct weir_program **out,
                                    uint32_t *tokens, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t window = text->pipeline->text_window;
    *tokens = (count + TOKENS_STEP - 1) / TOKENS_STEP * TOKENS_STEP;
    if (*tokens < window && (!text->shorter || text->tokens != *tokens)) {
        weir_program_destroy(&text->shorter);
        WEIR_TRY(build(text, *tokens, &text->shorter, error));
        text->tokens = *tokens;
    }
    if (*tokens < window && weir_program_arena_bytes(text->shorter) <= weir_program_arena_bytes(text->program)) {
        *out = text->shorter;
    } else { /* never more memory than was planned */
        *out = text->program;
        *tokens = window;
    }
cleanup:
    return status;
}

/* Position 0, and those from tokens->first on; behind them rows of zeros, and the count where there is room for it. */
static enum weir_status read_rows(struct weir_text *text, const struct weir_program *p,
                                  const struct weir_text_tokens *tokens, float *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = &text->pipeline->facts;
    const size_t channels = facts->text_channels, row = channels * sizeof *out;
    const size_t at = weir_program_offset(p, "embedding");
    WEIR_TRY(weir_run_read(&text->run, at, out, row, error));
    if (tokens->kept > 1) {
        WEIR_TRY(weir_run_read(&text->run, at + tokens->first * row, out + channels, (tokens->kept - 1) * row, error));
    }
    memset(out + tokens->kept * channels, 0, (facts->text_rows - tokens->kept) * row);
    if (facts->text_rows > facts->text_tokens) out[facts->text_tokens * channels] = (float)tokens->kept;
cleanup:
    return status;
}

enum weir_status weir_text_run(struct weir_text *text, const char *words, bool is_negative, float *out,
                               struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline *pipeline = text->pipeline;
    const struct weir_program *p = NULL;
    struct weir_text_tokens tokens;
    uint32_t read;
    if (!text->ids) text->ids = malloc(weir_text_host_bytes(text));
    if (!text->ids) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u token ids", pipeline->text_window);

    WEIR_TRY(pipeline->family->tokens(pipeline, words, is_negative, text->ids, &tokens, error));
    WEIR_TRY(program_for(text, tokens.count, &p, &read, error));
    WEIR_TRY(weir_run_start(&text->run, text->device, weir_program_arena_bytes(text->program), error));
    WEIR_TRY(weir_run_write(&text->run, weir_program_offset(p, "ids"), text->ids, read * sizeof *text->ids, error));
    WEIR_TRY(weir_run_program(&text->run, p, 0, NULL, 0, error));
    WEIR_TRY(read_rows(text, p, &tokens, out, error));
cleanup:
    return status;
}
