/* bpe_merge: byte-pair merging of one word, lowest rank first, leftmost first among equals, in O(n log n).
 *
 * A heap holds every pair that may be merged; entries whose pair has changed since are dropped when they come up. The
 * table lists, a left id, its right ids in order, so that a pair is found by one index and a short binary search.
 *
 * Memory   a table owns its rows; a word owns its room, which grows and is reused
 * Threads  a table is read-only after init; a word belongs to one thread
 */
#ifndef WEIR_WORKER_TOKENIZERS_BPE_MERGE_H
#define WEIR_WORKER_TOKENIZERS_BPE_MERGE_H

#include "proto/status.h"

struct weir_bpe_rule {
    int32_t left, right, result;
    uint32_t rank;
};

struct weir_bpe_table {
    struct weir_bpe_rule *rules; /* by left, right */
    uint32_t *first;             /* [id_bound + 1], of a left id's rules */
    int32_t id_bound;
};

/* Takes `rules` (malloc'ed; *rules_p becomes NULL, on failure too), whose ids are in 0..id_bound. Of rules for one pair
 * the last counts. Errors   NO_MEMORY */
enum weir_status weir_bpe_table_init(struct weir_bpe_table *table, struct weir_bpe_rule **rules_p, size_t count,
                                     int32_t id_bound, struct weir_error *error);
void weir_bpe_table_deinit(struct weir_bpe_table *table);

struct weir_bpe_symbol {
    int32_t id;
    uint32_t previous, next;
};
struct weir_bpe_candidate {
    uint32_t rank, at;
    int32_t result;
};
struct weir_bpe_word {
    struct weir_bpe_symbol *symbols;       /* [capacity] */
    struct weir_bpe_candidate *candidates; /* [3 * capacity] */
    size_t capacity;
};

/* Room for `count` symbols, count < 2^30. A word that is all zeros is an empty one. Errors   NO_MEMORY */
enum weir_status weir_bpe_word_reserve(struct weir_bpe_word *word, size_t count, struct weir_error *error);
void weir_bpe_word_deinit(struct weir_bpe_word *word);

/* Merges ids[0..count) in place, count <= capacity; returns how many are left. */
size_t weir_bpe_merge(const struct weir_bpe_table *table, struct weir_bpe_word *word, int32_t *ids, size_t count);

#endif
