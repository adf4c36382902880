#include "worker/tokenizers/gemma_prompt.h"

#include "proto/base/bytes.h"
#include "worker/tokenizers/unicode_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define GEMMA_IDS 256000
#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

/* The instruction of Sana's image pipelines as ids of Gemma's vocabulary, <bos> first, and the SHA-256 of its text. */
static const int32_t image_instruction[] = {
    2,      24985,  476,    2425,   18335,  235269, 11941,  671,    777,    98748, 18335,  235303, 674,    6572,
    11352,  9095,   31017,  10383,  604,    2416,   10304,  235265, 64755,  573,   2403,   576,    8637,   575,
    573,    2425,   18335,  235292, 108,    235290, 1927,   573,    18335,  603,   3890,   235269, 6045,   611,
    10480,  85325,  1105,   9276,   235269, 21085,  235269, 14114,  235269, 45882, 235269, 578,    26598,  12733,
    577,    3104,   40041,  578,    13660,  19502,  235265, 108,    235290, 1927,  573,    18335,  603,    3303,
    11352,  235269, 80745,  578,    14915,  573,    7881,   4691,   9677,   2346,  1163,   1795,   85694,  235265,
    108,    4858,   708,    8944,   576,    1368,   577,    9315,   689,    80745, 73815,  235292, 108,    235290,
    4926,   67444,  235292, 586,    4401,   20083,  3978,   71439,  235292, 586,   2301,   235269, 61040,  2674,
    4401,   96771,  908,    575,    476,    5094,   7479,   235269, 20083,  66509, 611,    476,    8056,   30619,
    5912,   81036,  235269, 22442,  731,    37801,  576,    74435,  3118,   9148,  235265, 108,    235290, 4926,
    67444,  235292, 586,    13572,  3413,   7432,   3978,   71439,  235292, 586,   130898, 3413,   7432,   8089,
    696,    68171,  235269, 24519,  46414,  7432,   41114,  235269, 476,    16932, 16495,  576,    1461,   575,
    23148,  14328,  235269, 578,    476,    4199,   235290, 172530, 1986,   13230, 731,    121048, 5570,   171729,
    235265, 108,    5958,   11941,  1297,   573,    20085,  5966,   604,    573,   18335,  3582,   578,    6858,
    3359,   1089,   5942,   45007,  689,    62350,  235292, 108,    2224,   67444, 235292, 235248,
};
static const char image_instruction_sha256[] = "48290080bb4fd4a264bdc81d0647ac0221359a36506e2b3e954616d6cb48c3da";

struct weir_gemma_prompt {
    const struct weir_gemma_bpe *tokenizer;
    char *instruction; /* NUL-terminated, or NULL */
    size_t instruction_bytes;
    uint32_t instruction_ids;
};

/* Takes SPACE_MARK for the spaces that they were; returns the bytes left. */
static size_t unmark(char *text, size_t count)
{
    const size_t mark = strlen(SPACE_MARK);
    size_t used = 0;
    for (size_t at = 0; at < count;) {
        const bool space = count - at >= mark && memcmp(text + at, SPACE_MARK, mark) == 0;
        text[used++] = space ? ' ' : text[at];
        at += space ? mark : 1;
    }
    return used;
}

/* The image instruction as this vocabulary spells it. */
static enum weir_status image_instruction_spell(struct weir_gemma_prompt *prompt, struct weir_error *error)
{
    char *text = malloc(WEIR_GEMMA_INSTRUCTION_BYTES_MAX + 1);
    uint8_t sha[WEIR_SHA256_BYTES], wanted[WEIR_SHA256_BYTES];
    size_t used = 0;
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for an instruction");
    for (size_t i = 1; i < WEIR_COUNT(image_instruction); i++) { /* after <bos> */
        size_t bytes = 0;
        const char *piece = weir_gemma_bpe_piece(prompt->tokenizer, image_instruction[i], &bytes);
        if (!piece || bytes > WEIR_GEMMA_INSTRUCTION_BYTES_MAX - used) break;
        memcpy(text + used, piece, bytes);
        used += bytes;
    }
    used = unmark(text, used);
    text[used] = '\0';
    weir_sha256_of(text, used, sha);
    weir_hex_read(image_instruction_sha256, wanted, sizeof wanted);
    if (memcmp(sha, wanted, sizeof sha) != 0) {
        free(text);
        return weir_fail(error, WEIR_UNSUPPORTED,
                         "the tokenizer has the %d ids of Gemma's, but they do not spell the instruction of Sana's "
                         "pipelines; weir.json can give an instruction as text",
                         GEMMA_IDS);
    }
    prompt->instruction = text;
    prompt->instruction_bytes = used;
    return WEIR_OK;
}

static enum weir_status instruction_take(struct weir_gemma_prompt *prompt, const char *instruction,
                                         struct weir_error *error)
{
    const size_t bytes = strlen(instruction);
    if (bytes == 0) return weir_fail(error, WEIR_BAD_ARGUMENT, "the instruction is empty");
    if (bytes > WEIR_GEMMA_INSTRUCTION_BYTES_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "the instruction has %zu bytes; at most %u are taken", bytes,
                         WEIR_GEMMA_INSTRUCTION_BYTES_MAX);
    prompt->instruction = strdup(instruction);
    prompt->instruction_bytes = bytes;
    if (!prompt->instruction) return weir_fail(error, WEIR_NO_MEMORY, "no memory for an instruction");
    return WEIR_OK;
}

/* Counts its ids, which make the window. */
static enum weir_status instruction_count(struct weir_gemma_prompt *prompt, struct weir_error *error)
{
    int32_t ids[WEIR_GEMMA_BPE_WINDOW_MIN];
    struct weir_gemma_bpe_counts counts;
    const enum weir_status status = weir_gemma_bpe_encode(
        prompt->tokenizer, prompt->instruction, prompt->instruction_bytes, WEIR_COUNT(ids), ids, &counts, error);
    if (status != WEIR_OK) return status;
    if (counts.whole < 2)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the instruction comes to %u ids; at least 2 are wanted",
                         counts.whole);
    if (counts.whole > WEIR_GEMMA_INSTRUCTION_IDS_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "the instruction comes to %u ids; at most %d are taken", counts.whole,
                         WEIR_GEMMA_INSTRUCTION_IDS_MAX);
    prompt->instruction_ids = counts.whole;
    return WEIR_OK;
}

enum weir_status weir_gemma_prompt_open(const struct weir_gemma_bpe *tokenizer, const char *instruction,
                                        struct weir_gemma_prompt **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_gemma_bpe_facts facts = weir_gemma_bpe_facts(tokenizer);
    struct weir_gemma_prompt *prompt = calloc(1, sizeof *prompt);
    if (!prompt) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a prompt");
    prompt->tokenizer = tokenizer;
    if (facts.before == 0)
        WEIR_TRY(weir_fail(error, WEIR_UNSUPPORTED,
                           "the tokenizer puts no token before a text: an empty prompt would "
                           "be nothing at all"));
    if (instruction)
        WEIR_TRY(instruction_take(prompt, instruction, error));
    else if (facts.id_bound >= GEMMA_IDS)
        WEIR_TRY(image_instruction_spell(prompt, error));
    if (prompt->instruction) WEIR_TRY(instruction_count(prompt, error));
    *out = prompt;
    prompt = NULL;
cleanup:
    weir_gemma_prompt_close(&prompt);
    return status;
}

void weir_gemma_prompt_close(struct weir_gemma_prompt **prompt_p)
{
    if (!*prompt_p) return;
    free((*prompt_p)->instruction);
    free(*prompt_p);
    *prompt_p = NULL;
}

uint32_t weir_gemma_prompt_instruction_ids(const struct weir_gemma_prompt *prompt)
{
    return prompt->instruction_ids;
}

const char *weir_gemma_prompt_instruction(const struct weir_gemma_prompt *prompt)
{
    return prompt->instruction;
}

/* Instruction and prompt in one text, which the caller frees. */
static enum weir_status text_make(const struct weir_gemma_prompt *prompt, const char *text, size_t text_bytes,
                                  size_t instruction_bytes, char **out, size_t *out_bytes, struct weir_error *error)
{
    char *lowered = NULL;
    size_t bytes;
    const enum weir_status status = weir_unicode_lower_strip(text, text_bytes, &lowered, &bytes, error);
    if (status != WEIR_OK) return status;
    char *whole = malloc(instruction_bytes + bytes + 1);
    if (whole) {
        if (instruction_bytes > 0) memcpy(whole, prompt->instruction, instruction_bytes);
        memcpy(whole + instruction_bytes, lowered, bytes);
    }
    free(lowered);
    if (!whole) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a prompt of %zu bytes", bytes);
    *out = whole;
    *out_bytes = instruction_bytes + bytes;
    return WEIR_OK;
}

enum weir_status weir_gemma_prompt_encode(const struct weir_gemma_prompt *prompt, const char *text, size_t text_bytes,
                                          bool with_instruction, struct weir_gemma_prompt_ids *out,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const bool instructs = with_instruction && prompt->instruction;
    const uint32_t before = instructs ? prompt->instruction_ids : 2; /* as if <bos> and one more */
    const uint32_t window = before + WEIR_GEMMA_PROMPT_KEPT_MAX - 2;
    struct weir_gemma_bpe_counts counts;
    char *whole = NULL;
    size_t whole_bytes = 0;
    assert(window <= WEIR_GEMMA_PROMPT_IDS_MAX);

    if (text_bytes > WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "the prompt has %zu bytes; at most %u are taken", text_bytes,
                         WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX);
    WEIR_TRY(weir_utf8_check(text, text_bytes, error));
    WEIR_TRY(
        text_make(prompt, text, text_bytes, instructs ? prompt->instruction_bytes : 0, &whole, &whole_bytes, error));
    WEIR_TRY(weir_gemma_bpe_encode(prompt->tokenizer, whole, whole_bytes, window, out->ids, &counts, error));
    out->count = counts.real;
    out->whole = counts.whole;
    out->first = before - 1;
    out->kept = counts.real > out->first ? 1 + counts.real - out->first : 1;
cleanup:
    free(whole);
    return status;
}
