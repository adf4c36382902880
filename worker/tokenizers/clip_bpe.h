/* clip_bpe: CLIP's byte-level BPE tokenizer, id for id as the fast tokenizer of transformers.
 *
 * Text is cut at the special tokens, each rest is normalised (NFC, runs of white space to one space, lower case), split
 * (special tokens, English contractions, runs of letters, single digits, runs of anything else), each piece spelled in
 * the 256-letter byte alphabet and merged pair by pair, lowest rank first.
 *
 * Files    as bytes, so that nothing here opens a file: vocab.json {token: id}; merges.txt, "left right" a line after a
 *          first line that may be a `#version` comment; special_tokens_map.json and tokenizer_config.json may be
 *          absent
 * Memory   the files are borrowed for the call of open; a tokenizer owns what it keeps
 * Threads  a tokenizer is read-only after open: any number of threads may encode
 * Source   judged by transformers: tests/golden/make_clip_bpe.py, tests/golden/live_tokenizer.py
 */
#ifndef WEIR_WORKER_TOKENIZERS_CLIP_BPE_H
#define WEIR_WORKER_TOKENIZERS_CLIP_BPE_H

#include "proto/status.h"

struct weir_clip_bpe;

#define WEIR_CLIP_BPE_FILE_BYTES_MAX (64u << 20)
#define WEIR_CLIP_BPE_VOCAB_MAX (512u << 10)
#define WEIR_CLIP_BPE_MERGES_MAX (1u << 20)
#define WEIR_CLIP_BPE_TOKEN_BYTES_MAX 1024
#define WEIR_CLIP_BPE_SPECIALS_MAX 256
#define WEIR_CLIP_BPE_TEXT_BYTES_MAX (64u << 10)
#define WEIR_CLIP_BPE_WINDOW_MAX 4096

struct weir_clip_bpe_bytes {
    const char *bytes; /* NULL: there is no such file */
    size_t count;
};

struct weir_clip_bpe_files {
    struct weir_clip_bpe_bytes vocab, merges;                        /* required, unless there is a tokenizer_json */
    struct weir_clip_bpe_bytes special_tokens_map, tokenizer_config; /* optional */
    struct weir_clip_bpe_bytes tokenizer_json; /* optional; when there, its vocabulary and merges are taken */
    const char *label;                         /* the folder, for the words of an error */
};

/* Errors   BAD_MODEL: a file is missing, malformed or not of this tokenizer; TOO_LARGE: over a limit above; NO_MEMORY */
enum weir_status weir_clip_bpe_open(const struct weir_clip_bpe_files *files, struct weir_clip_bpe **out,
                                    struct weir_error *error);
void weir_clip_bpe_close(struct weir_clip_bpe **tokenizer_p);

/* Every id is below this: the text encoder's embedding must have at least so many rows. */
int32_t weir_clip_bpe_id_bound(const struct weir_clip_bpe *tokenizer);
/* model_max_length of tokenizer_config.json, 0 when it says none. */
uint32_t weir_clip_bpe_window(const struct weir_clip_bpe *tokenizer);

struct weir_clip_bpe_counts {
    uint32_t real;  /* ids before the padding, start and end included; <= window */
    uint32_t whole; /* what it would have been without a window: more than `real` when the text was cut */
};

/* Fills ids[0..window): start, the text's ids cut to window - 2, end, then the pad token.
 *
 * Errors   BAD_ARGUMENT: not UTF-8, or a NUL (the words name the byte offset); TOO_LARGE: text over
 *          WEIR_CLIP_BPE_TEXT_BYTES_MAX; NO_MEMORY. `window` is 2..WEIR_CLIP_BPE_WINDOW_MAX, else an assert fails.
 * Blocks   O(n log n) in the bytes of the text */
enum weir_status weir_clip_bpe_encode(const struct weir_clip_bpe *tokenizer, const char *text, size_t text_bytes,
                                      uint32_t window, int32_t *ids, struct weir_clip_bpe_counts *counts,
                                      struct weir_error *error);

#endif
