/* Files of prompts: the first byte says the form (t: .txt, j: .jsonl, anything else: .csv), the second in pieces of how many
 * bytes the rest comes. What is handed over must be within its limits, what is refused must have been said why, and lines
 * never go backwards. */
#include "client/cli/prompts.h"

#include "proto/base/bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

struct seen {
    uint32_t line, left;
};

static void expect(bool kept)
{
    if (!kept) abort();
}

static bool take_prompt(void *context, const struct weir_prompt *p)
{
    struct seen *seen = context;
    const size_t bytes = strlen(p->text);
    expect(p->line >= 1 && p->line >= seen->line);
    expect(bytes >= 1 && bytes <= 10240 && weir_utf8_valid(p->text, bytes));
    expect(!p->negative || (strlen(p->negative) <= 10240 && weir_utf8_valid(p->negative, strlen(p->negative))));
    expect(p->width <= 65536 && p->height <= 65536 && p->steps <= 1000 && p->lora_count <= 8);
    expect(p->guidance == -1 || (p->guidance >= 0 && p->guidance <= 100));
    for (size_t i = 0; i < p->lora_count; i++) {
        expect(p->loras[i].path && p->loras[i].path[0] && strlen(p->loras[i].path) <= 4000);
        expect(isfinite(p->loras[i].weight));
    }
    seen->line = p->line;
    return seen->left-- > 0;
}

static void take_fault(void *context, uint32_t line, const struct weir_error *why)
{
    const struct seen *seen = context;
    expect(line >= 1 && line >= seen->line && why->code != WEIR_OK && why->words[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (count < 2) return 0;
    struct seen seen = { .left = 100 };
    const struct weir_cli_prompts_sink sink = { take_prompt, take_fault, &seen };
    const enum weir_cli_prompts_kind kind = bytes[0] == 't'   ? WEIR_CLI_PROMPTS_TXT
                                            : bytes[0] == 'j' ? WEIR_CLI_PROMPTS_JSONL
                                                              : WEIR_CLI_PROMPTS_CSV;
    const size_t piece = bytes[1] ? bytes[1] : count;
    struct weir_cli_prompts *prompts;
    struct weir_error error = { .words = "" };
    expect(weir_cli_prompts_open(kind, &sink, &prompts, &error) == WEIR_OK);
    enum weir_status status = WEIR_OK;
    for (size_t at = 2; at < count && status == WEIR_OK; at += piece) {
        status = weir_cli_prompts_feed(prompts, bytes + at, count - at < piece ? count - at : piece, &error);
    }
    if (status == WEIR_OK) status = weir_cli_prompts_finish(prompts, &error);
    expect(status == WEIR_OK || (error.words[0] && error.code == status));
    weir_cli_prompts_close(&prompts);
    return 0;
}
