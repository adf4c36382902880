/* added_tokens: the tokens that are looked for in the text itself, before it is cut: leftmost first, of those that
 * begin at one place the longest.
 *
 * Sorted by bytes, the longest token at a place is the last one that is not above the text there, or a prefix of it:
 * a binary search and a walk over prefixes, however many tokens there are.
 *
 * Memory   a set owns its texts; one that is all zeros is empty
 * Threads  read-only once it is sealed
 */
#ifndef WEIR_WORKER_TOKENIZERS_ADDED_TOKENS_H
#define WEIR_WORKER_TOKENIZERS_ADDED_TOKENS_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_added_token {
    char *text; /* what is looked for; not empty */
    size_t bytes;
    int32_t id;
    uint32_t order;  /* in which it was added */
    uint32_t prefix; /* the longest other token that this one begins with: its index plus 1, or 0 */
};

struct weir_added_set {
    struct weir_added_token *tokens; /* by bytes */
    size_t count, room;
    bool starts[256]; /* some token begins with this byte */
};

/* Takes `text` (malloc'ed, not empty; freed on failure too). Errors   NO_MEMORY */
enum weir_status weir_added_set_add(struct weir_added_set *set, char *text, size_t bytes, int32_t id,
                                    struct weir_error *error);
/* Called once after the last add. Of tokens with one text the first counts. */
void weir_added_set_seal(struct weir_added_set *set);
void weir_added_set_deinit(struct weir_added_set *set);

/* The first token in text[at..count), NULL when there is none; *start is where it stands. */
const struct weir_added_token *weir_added_set_next(const struct weir_added_set *set, const char *text, size_t count,
                                                   size_t at, size_t *start);

#endif
