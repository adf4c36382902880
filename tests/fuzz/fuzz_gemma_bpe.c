/* Gemma's tokenizer and a prompt. The input is three files, tokenizer.json, tokenizer_config.json and
 * special_tokens_map.json, each after two bytes of length (least first; 0xffff: there is no such file; more than is
 * left: all that is left), then the instruction in the same form, then the prompt. What opens must encode within its
 * own bounds and alike twice; what does not must say why. */
#include "worker/tokenizers/gemma_prompt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#define PART_COUNT 4
#define WINDOW 24
#define WINDOW_WIDE 512

static void expect(bool kept)
{
    if (!kept) abort();
}

/* A part in memory of its own size, so that a read past its end is seen. */
static struct weir_gemma_bpe_bytes take(const uint8_t **bytes, size_t *count)
{
    struct weir_gemma_bpe_bytes part = { NULL, 0 };
    if (*count < 2) return part;
    size_t wanted = (size_t)((*bytes)[0] | (*bytes)[1] << 8);
    *bytes += 2;
    *count -= 2;
    if (wanted == 0xffff) return part;
    if (wanted > *count) wanted = *count;
    char *copy = malloc(wanted + (wanted == 0));
    expect(copy != NULL);
    memcpy(copy, *bytes, wanted);
    *bytes += wanted;
    *count -= wanted;
    return (struct weir_gemma_bpe_bytes){ copy, wanted };
}

static void see_fault(enum weir_status status, const struct weir_error *error)
{
    expect(error->code == status && error->words[0] && memchr(error->words, 0, sizeof error->words));
}

static void see_ids(const struct weir_gemma_bpe *tokenizer, const char *text, size_t count)
{
    int32_t ids[WINDOW], again[WINDOW], wide[WINDOW_WIDE];
    struct weir_gemma_bpe_counts counts, counts_again, counts_wide;
    struct weir_error error = { .code = WEIR_OK };
    const struct weir_gemma_bpe_facts facts = weir_gemma_bpe_facts(tokenizer);
    const enum weir_status status = weir_gemma_bpe_encode(tokenizer, text, count, WINDOW, ids, &counts, &error);
    expect(weir_gemma_bpe_encode(tokenizer, text, count, WINDOW, again, &counts_again, NULL) == status);
    expect(weir_gemma_bpe_encode(tokenizer, text, count, WINDOW_WIDE, wide, &counts_wide, NULL) == status);
    if (status != WEIR_OK) {
        see_fault(status, &error);
        return;
    }
    expect(memcmp(ids, again, sizeof ids) == 0 && counts.real == counts_again.real);
    expect(counts.whole == counts_wide.whole && counts.whole >= facts.before + facts.after);
    expect(counts.real == (counts.whole < WINDOW ? counts.whole : WINDOW));
    for (int i = 0; i < WINDOW_WIDE; i++) expect(wide[i] >= 0 && wide[i] < facts.id_bound);
    for (uint32_t i = 0; i + facts.after < counts.real; i++) expect(ids[i] == wide[i]);
    for (uint32_t i = counts.real; i < WINDOW; i++) expect(ids[i] == facts.pad);
}

static void see_prompt(const struct weir_gemma_bpe *tokenizer, const char *instruction, const char *text, size_t count)
{
    static struct weir_gemma_prompt_ids ids;
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_error error = { .code = WEIR_OK };
    enum weir_status status = weir_gemma_prompt_open(tokenizer, instruction, &prompt, &error);
    expect((status == WEIR_OK) == (prompt != NULL));
    if (status != WEIR_OK) {
        see_fault(status, &error);
        return;
    }
    for (int with = 0; with < 2; with++) {
        status = weir_gemma_prompt_encode(prompt, text, count, with == 1, &ids, &error);
        if (status != WEIR_OK) {
            see_fault(status, &error);
            continue;
        }
        expect(ids.count >= 1 && ids.count <= WEIR_GEMMA_PROMPT_IDS_MAX && ids.count <= ids.whole);
        expect(ids.kept >= 1 && ids.kept <= WEIR_GEMMA_PROMPT_KEPT_MAX);
        expect(ids.kept == 1 || ids.first + ids.kept - 1 == ids.count);
    }
    weir_gemma_prompt_close(&prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct weir_gemma_bpe_bytes part[PART_COUNT];
    struct weir_gemma_bpe *tokenizer = NULL;
    struct weir_error error = { .code = WEIR_OK };
    for (int i = 0; i < PART_COUNT; i++) part[i] = take(&bytes, &count);
    const struct weir_gemma_bpe_files files = {
        .tokenizer_json = part[0], .tokenizer_config = part[1], .special_tokens_map = part[2], .label = "fuzz"
    };
    const enum weir_status status = weir_gemma_bpe_open(&files, &tokenizer, &error);
    expect((status == WEIR_OK) == (tokenizer != NULL));
    if (status == WEIR_OK) {
        char *text = malloc(count + (count == 0)); /* the prompt, too, in memory of its own size */
        char *instruction = part[3].bytes ? strndup(part[3].bytes, part[3].count) : NULL;
        expect(text != NULL);
        memcpy(text, bytes, count);
        see_ids(tokenizer, text, count);
        see_prompt(tokenizer, instruction, text, count);
        free(instruction);
        free(text);
        weir_gemma_bpe_close(&tokenizer);
    } else {
        see_fault(status, &error);
        expect(strncmp(error.words, "fuzz", 4) == 0 || status == WEIR_NO_MEMORY || status == WEIR_TOO_LARGE);
    }
    for (int i = 0; i < PART_COUNT; i++) free((char *)part[i].bytes);
    return 0;
}
