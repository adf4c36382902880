/* token_table: the tokens of a vocabulary, found by text and by id.
 *
 * A hash over all texts, which lie behind one another. The hash has a random key, so that no file can be made whose
 * texts all fall together.
 *
 * Memory   a table owns its texts; one that is all zeros is empty
 * Threads  read-only once it is complete
 */
#ifndef WEIR_WORKER_TOKENIZERS_TOKEN_TABLE_H
#define WEIR_WORKER_TOKENIZERS_TOKEN_TABLE_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_TOKEN_NONE (-1)

struct weir_token {
    uint32_t start, bytes; /* in texts */
    int32_t id;
};

struct weir_token_table {
    char *texts;
    size_t text_bytes, text_room;
    struct weir_token *tokens; /* in the order in which they came */
    size_t count, room;
    uint32_t *slots; /* index of a token plus 1, or 0; [slot_count], a power of two */
    size_t slot_count;
    uint32_t *by_id; /* the same for the first token of an id; [id_bound] */
    int32_t id_bound;
    uint64_t key;
};

void weir_token_table_deinit(struct weir_token_table *table);

/* Adds a token; `*added` is false, and nothing is done, where the text is there already. All texts together have less
 * than 4 GiB. Errors   NO_MEMORY */
enum weir_status weir_token_table_add(struct weir_token_table *table, const char *text, size_t bytes, int32_t id,
                                      bool *added, struct weir_error *error);
/* Called once after the last add: makes ids findable and id_bound known. Errors   NO_MEMORY */
enum weir_status weir_token_table_seal(struct weir_token_table *table, struct weir_error *error);

/* The id of a text, or WEIR_TOKEN_NONE. */
int32_t weir_token_table_id(const struct weir_token_table *table, const char *text, size_t bytes);
/* The text of an id, *bytes long and without a NUL; NULL where no token has the id. */
const char *weir_token_table_text(const struct weir_token_table *table, int32_t id, size_t *bytes);

#endif
