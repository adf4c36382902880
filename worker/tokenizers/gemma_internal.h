/* What the files of gemma_bpe share. */
#ifndef WEIR_WORKER_TOKENIZERS_GEMMA_INTERNAL_H
#define WEIR_WORKER_TOKENIZERS_GEMMA_INTERNAL_H

#include "worker/json_text.h"
#include "worker/tokenizers/added_tokens.h"
#include "worker/tokenizers/bpe_merge.h"
#include "worker/tokenizers/gemma_bpe.h"
#include "worker/tokenizers/token_table.h"

/* One step of the normaliser: `from` written as `to` everywhere; without a `from`, `to` before a text that is not
 * empty. */
struct weir_gemma_step {
    char from[WEIR_GEMMA_BPE_STEP_BYTES_MAX], to[WEIR_GEMMA_BPE_STEP_BYTES_MAX];
    size_t from_bytes, to_bytes;
};

struct weir_gemma_around {
    int32_t ids[WEIR_GEMMA_BPE_AROUND_MAX];
    uint32_t count;
};

struct weir_gemma_bpe {
    struct weir_token_table vocab; /* the model's */
    struct weir_bpe_table merges;
    int32_t byte_ids[256]; /* of <0x00>..<0xFF>, all WEIR_TOKEN_NONE without byte_fallback */
    int32_t unknown_id;    /* the model's, for what the vocabulary lacks; WEIR_TOKEN_NONE: it is left out */
    bool fuse_unknown;
    bool cut_after_space;
    struct weir_gemma_step steps[WEIR_GEMMA_BPE_STEPS_MAX];
    size_t step_count;
    struct weir_added_set raw;        /* looked for in the text as it came */
    struct weir_added_set normalised; /* looked for in the normalised rest */
    struct weir_gemma_around before, after;
    struct weir_gemma_bpe_facts facts;
};

/* A text after all steps of the normaliser; *out is malloc'ed. Errors   TOO_LARGE, NO_MEMORY */
enum weir_status weir_gemma_normalise(const struct weir_gemma_bpe *tokenizer, const char *text, size_t count,
                                      char **out, size_t *out_count, struct weir_error *error);

/* What is known of the files while they are read. */
struct weir_gemma_reading {
    const struct weir_gemma_bpe_files *files;
    struct weir_gemma_bpe *tokenizer;
    json_t *whole; /* tokenizer.json, its two long tables left empty */
    json_t *config, *map;
    struct weir_error *error;
};

/* Fails with "LABEL/tokenizer.json: KEY ..."; UNSUPPORTED or BAD_MODEL. */
enum weir_status weir_gemma_refuse(const struct weir_gemma_reading *reading, const char *key, const char *what);
enum weir_status weir_gemma_bad(const struct weir_gemma_reading *reading, const char *key, const char *what);

/* tokenizer.json: parsed, with model.vocab and model.merges read into the tokenizer (gemma_bpe_model.c). */
enum weir_status weir_gemma_model_read(struct weir_gemma_reading *reading);
/* normalizer, pre_tokenizer, post_processor (gemma_bpe_steps.c). */
enum weir_status weir_gemma_steps_read(struct weir_gemma_reading *reading);
enum weir_status weir_gemma_around_read(struct weir_gemma_reading *reading);

#endif
