/* gemma_prompt: what the text encoder of Sana's pipelines reads for a prompt, and which of its outputs are kept.
 *
 * The prompt is lowered and stripped as by Python's str.lower().strip(). A prompt to be followed stands behind the
 * instruction, which tells the encoder to elaborate it; a negative one stands alone. Both are as
 * `_get_gemma_prompt_embeds` of diffusers 0.42's pipeline_sana.py lays them out, but for the padding, which is left
 * out: it is on the right, attention is causal, and padded positions are masked afterwards, so that it changes nothing.
 *
 *   with instruction      the window has (ids of the instruction) + 300 - 2 positions, of which upstream keeps position
 *                         0 and the last 299: <bos> and the prompt, whose first id stands in the place of the
 *                         instruction's last
 *   without               the window has 300 positions, all kept
 *
 * Instruction  a text given to open (weir.json's `instruction`); else, where the vocabulary is Gemma's, the one of
 *              Sana's image pipelines, which is known by its ids and spelled by the tokenizer; else none
 * Memory       a prompt borrows the tokenizer, which must live as long
 * Threads      read-only after open: any number of threads may encode
 * Source       judged by diffusers and transformers: tests/golden/live_tokenizer.py --gemma
 */
#ifndef WEIR_WORKER_TOKENIZERS_GEMMA_PROMPT_H
#define WEIR_WORKER_TOKENIZERS_GEMMA_PROMPT_H

#include "worker/tokenizers/gemma_bpe.h"

#include <stdbool.h>

struct weir_gemma_prompt;

#define WEIR_GEMMA_PROMPT_KEPT_MAX 300 /* positions that reach the denoiser */
#define WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX (32u << 10)
#define WEIR_GEMMA_INSTRUCTION_BYTES_MAX (16u << 10)
#define WEIR_GEMMA_INSTRUCTION_IDS_MAX 1024
#define WEIR_GEMMA_PROMPT_IDS_MAX (WEIR_GEMMA_INSTRUCTION_IDS_MAX + WEIR_GEMMA_PROMPT_KEPT_MAX - 2)

/* `instruction` is a text or NULL; it is neither lowered nor stripped.
 * Errors   BAD_ARGUMENT: the instruction is no text, is empty, or comes to less than two ids; TOO_LARGE: it is over a
 *          limit above; UNSUPPORTED: the tokenizer puts nothing before a text, or has Gemma's 256,000 ids with other
 *          texts (an instruction given as a text then says what is wanted); NO_MEMORY */
enum weir_status weir_gemma_prompt_open(const struct weir_gemma_bpe *tokenizer, const char *instruction,
                                        struct weir_gemma_prompt **out, struct weir_error *error);
void weir_gemma_prompt_close(struct weir_gemma_prompt **prompt_p);

/* Ids of the instruction alone, <bos> included; 0 when there is none. */
uint32_t weir_gemma_prompt_instruction_ids(const struct weir_gemma_prompt *prompt);
/* The instruction, NUL-terminated; NULL when there is none. What is encoded is this text and the prompt behind it. */
const char *weir_gemma_prompt_instruction(const struct weir_gemma_prompt *prompt);

struct weir_gemma_prompt_ids {
    int32_t ids[WEIR_GEMMA_PROMPT_IDS_MAX]; /* [count]: what the encoder reads; no padding */
    uint32_t count;
    uint32_t whole; /* what count would be without a window: more than it when the prompt was cut */
    uint32_t first; /* of the encoder's positions, 0 and first .. first + kept - 2 are kept */
    uint32_t kept;  /* 1..WEIR_GEMMA_PROMPT_KEPT_MAX */
};

/* `with_instruction` is false for a negative prompt; without an instruction it makes no difference.
 * Errors   BAD_ARGUMENT: not UTF-8, or a NUL (the words name the byte offset); TOO_LARGE: text over
 *          WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX; NO_MEMORY
 * Blocks   O(n log n) in the bytes of instruction and text */
enum weir_status weir_gemma_prompt_encode(const struct weir_gemma_prompt *prompt, const char *text, size_t text_bytes,
                                          bool with_instruction, struct weir_gemma_prompt_ids *out,
                                          struct weir_error *error);

#endif
