/* gemma_bpe: the BPE tokenizer of Gemma and its kind, read from a tokenizer.json, id for id as the library tokenizers.
 *
 * Added tokens are cut out of the text as it came (and those that are `normalized` out of the normalised rest); what is
 * left between them is normalised, as a rule by writing each space as U+2581, and is one word: its characters, those
 * that the vocabulary lacks as the bytes of their UTF-8, merged pair by pair, lowest rank first.
 *
 * Honoured of tokenizer.json
 *   model           type BPE; vocab; merges as "left right" or ["left", "right"]; byte_fallback; fuse_unk; unk_token
 *   added_tokens    content, id, normalized (id must be the one that the library gives)
 *   normalizer      null, Replace of a text, Prepend, a Sequence of these
 *   pre_tokenizer   null, Split after each " ", and any Split on " " where the normaliser leaves none
 *   post_processor  null, TemplateProcessing: what stands before and after the text
 *   truncation, padding, decoder and version are nothing to encoding with a window of one's own and are passed over.
 * Of tokenizer_config.json and special_tokens_map.json the names of bos, eos, pad and unk are taken. Every other
 * setting that would change ids is UNSUPPORTED, in words that name file and key.
 *
 * Files    as bytes, so that nothing here opens a file
 * Memory   the files are borrowed for the call of open; a tokenizer owns what it keeps (Gemma's: about 20 MB)
 * Threads  a tokenizer is read-only after open: any number of threads may encode
 * Source   judged by tokenizers and transformers: tests/golden/make_gemma_bpe.py, live_tokenizer.py --gemma
 */
#ifndef WEIR_WORKER_TOKENIZERS_GEMMA_BPE_H
#define WEIR_WORKER_TOKENIZERS_GEMMA_BPE_H

#include "proto/status.h"

struct weir_gemma_bpe;

#define WEIR_GEMMA_BPE_FILE_BYTES_MAX (64u << 20)
#define WEIR_GEMMA_BPE_VOCAB_MAX (512u << 10)
#define WEIR_GEMMA_BPE_MERGES_MAX (1u << 20)
#define WEIR_GEMMA_BPE_TOKEN_BYTES_MAX 1024
#define WEIR_GEMMA_BPE_ADDED_MAX 8192
#define WEIR_GEMMA_BPE_STEPS_MAX 8       /* of a normaliser */
#define WEIR_GEMMA_BPE_STEP_BYTES_MAX 32 /* of a text in a step */
#define WEIR_GEMMA_BPE_AROUND_MAX 8      /* ids that a post-processor puts on one side of a text */
#define WEIR_GEMMA_BPE_TEXT_BYTES_MAX (64u << 10)
#define WEIR_GEMMA_BPE_NORMALISED_BYTES_MAX (1u << 20)
#define WEIR_GEMMA_BPE_WINDOW_MIN (2 * WEIR_GEMMA_BPE_AROUND_MAX)
#define WEIR_GEMMA_BPE_WINDOW_MAX 4096

struct weir_gemma_bpe_bytes {
    const char *bytes; /* NULL: there is no such file */
    size_t count;
};

struct weir_gemma_bpe_files {
    struct weir_gemma_bpe_bytes tokenizer_json;                       /* required */
    struct weir_gemma_bpe_bytes tokenizer_config, special_tokens_map; /* optional */
    const char *label;                                                /* the folder, for the words of an error */
};

/* Errors   BAD_MODEL: a file is missing, malformed or contradicts itself; UNSUPPORTED: a setting is not honoured;
 *          TOO_LARGE: over a limit above; NO_MEMORY */
enum weir_status weir_gemma_bpe_open(const struct weir_gemma_bpe_files *files, struct weir_gemma_bpe **out,
                                     struct weir_error *error);
void weir_gemma_bpe_close(struct weir_gemma_bpe **tokenizer_p);

struct weir_gemma_bpe_facts {
    int32_t id_bound;           /* every id is below: the text encoder's embedding must have at least so many rows */
    uint32_t entries;           /* texts that have an id, added ones included */
    int32_t bos, eos, pad, unk; /* ids; -1 where the tokenizer has none; there always is a pad */
    uint32_t before, after;     /* ids that are put before and after a text */
};
struct weir_gemma_bpe_facts weir_gemma_bpe_facts(const struct weir_gemma_bpe *tokenizer);

/* The text of an id as the vocabulary has it (U+2581 for a space), *bytes long and without a NUL; NULL where the
 * vocabulary has no such id. */
const char *weir_gemma_bpe_piece(const struct weir_gemma_bpe *tokenizer, int32_t id, size_t *bytes);

struct weir_gemma_bpe_counts {
    uint32_t real;  /* ids before the padding; <= window */
    uint32_t whole; /* what it would have been without a window: more than `real` when the text was cut */
};

/* Fills ids[0..window): what comes before, the text's ids cut on the right, what comes after, then the pad token.
 *
 * Errors   BAD_ARGUMENT: not UTF-8, or a NUL (the words name the byte offset); TOO_LARGE: text over
 *          WEIR_GEMMA_BPE_TEXT_BYTES_MAX, or over WEIR_GEMMA_BPE_NORMALISED_BYTES_MAX once normalised; NO_MEMORY.
 *          `window` is WEIR_GEMMA_BPE_WINDOW_MIN..WEIR_GEMMA_BPE_WINDOW_MAX, else an assert fails.
 * Blocks   O(n log n) in the bytes of the text */
enum weir_status weir_gemma_bpe_encode(const struct weir_gemma_bpe *tokenizer, const char *text, size_t text_bytes,
                                       uint32_t window, int32_t *ids, struct weir_gemma_bpe_counts *counts,
                                       struct weir_error *error);

#endif
