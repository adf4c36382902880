/* What the files of a tokenizer share. */
#ifndef WEIR_WORKER_TOKENIZERS_INTERNAL_H
#define WEIR_WORKER_TOKENIZERS_INTERNAL_H

#include "worker/json_text.h"
#include "worker/tokenizers/bpe_merge.h"
#include "worker/tokenizers/clip_bpe.h"
#include "worker/tokenizers/unicode_text.h"

#include <stdbool.h>

#define WEIR_ID_NONE (-1)

/* A token that is found in the text itself, before anything is cut. */
struct weir_special {
    char *text; /* what is looked for; of a normalised token, its normalised form */
    size_t bytes;
    int32_t id;
    bool single_word;  /* only where no word character touches it */
    bool strips_left;  /* takes the white space before it along */
    bool strips_right; /* and after it */
};

/* The tokens of one pass over the text. Of those that begin at a place the longest counts. */
struct weir_special_set {
    struct weir_special *specials; /* [count] */
    size_t count;
    bool starts[256]; /* some special begins with this byte */
};

struct weir_clip_bpe {
    struct weir_unicode *unicode;
    struct weir_bpe_table merges;
    int32_t byte_ids[256];     /* of a byte inside a piece; WEIR_ID_NONE where the vocabulary has none */
    int32_t byte_end_ids[256]; /* of the last byte of a piece */
    int32_t start_id, end_id, pad_id, unknown_id;
    int32_t id_bound;
    uint32_t window;
    struct weir_special_set raw;        /* looked for in the text as it came */
    struct weir_special_set normalised; /* looked for in the normalised rest */
};

/* The character that stands for a byte in the vocabulary, as UTF-8 with a NUL. */
void weir_clip_byte_letter(uint8_t byte, char out[4]);

/* What is known of a folder's files while they are read. */
struct weir_clip_reading {
    const struct weir_clip_bpe_files *files;
    struct weir_clip_bpe *tokenizer;
    json_t *vocab_file, *map, *config, *whole; /* roots; whole is tokenizer.json */
    json_t *vocab;                             /* borrowed from one of them */
    json_int_t id_max;
    size_t vocab_count;
    struct weir_error *error;
};

/* The id of a token of the vocabulary, or WEIR_ID_NONE. */
int32_t weir_clip_vocab_id(const struct weir_clip_reading *reading, const char *text, size_t bytes);
/* Finds the special tokens: fills the sets, the ids of start, end and pad, and the id bound of the tokenizer.
 * `*unknown` becomes the text of the unknown token, good as long as the roots are. */
enum weir_status weir_clip_specials_read(struct weir_clip_reading *reading, const char **unknown);

#endif
