#include "worker/tokenizers/token_table.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 1024

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 29;
    return h;
}

static uint64_t hash(const struct weir_token_table *table, const char *text, size_t bytes)
{
    uint64_t h = table->key ^ mix(bytes);
    for (; bytes >= 8; text += 8, bytes -= 8) h = mix((h ^ weir_load_u64(text)) + table->key);
    uint64_t tail = 0;
    for (size_t i = 0; i < bytes; i++) tail = tail << 8 | (uint8_t)text[i];
    return mix((h ^ tail) + table->key);
}

/* The slot of a text, or the free one where it would go. */
static uint32_t *slot_of(const struct weir_token_table *table, const char *text, size_t bytes)
{
    size_t at = (size_t)hash(table, text, bytes) & (table->slot_count - 1);
    for (; table->slots[at]; at = (at + 1) & (table->slot_count - 1)) {
        const struct weir_token *token = &table->tokens[table->slots[at] - 1];
        if (token->bytes == bytes && memcmp(table->texts + token->start, text, bytes) == 0) break;
    }
    return &table->slots[at];
}

/* Room for one more token, with at most half of the slots taken. */
static enum weir_status grow_tokens(struct weir_token_table *table, struct weir_error *error)
{
    const size_t room = table->room ? 2 * table->room : ROOM_FIRST;
    if (table->count < table->room) return WEIR_OK;
    struct weir_token *tokens = realloc(table->tokens, room * sizeof *tokens);
    if (tokens) table->tokens = tokens;
    uint32_t *slots = tokens ? calloc(2 * room, sizeof *slots) : NULL;
    if (!slots) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a vocabulary of %zu tokens", room);
    free(table->slots);
    table->slots = slots;
    table->slot_count = 2 * room;
    table->room = room;
    for (size_t i = 0; i < table->count; i++)
        *slot_of(table, table->texts + tokens[i].start, tokens[i].bytes) = (uint32_t)i + 1;
    return WEIR_OK;
}

static enum weir_status grow_texts(struct weir_token_table *table, size_t bytes, struct weir_error *error)
{
    size_t room = table->text_room ? table->text_room : 16 * ROOM_FIRST;
    while (room - table->text_bytes < bytes) room *= 2;
    if (room == table->text_room) return WEIR_OK;
    char *texts = realloc(table->texts, room);
    if (!texts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a vocabulary of %zu bytes", room);
    table->texts = texts;
    table->text_room = room;
    return WEIR_OK;
}

enum weir_status weir_token_table_add(struct weir_token_table *table, const char *text, size_t bytes, int32_t id,
                                      bool *added, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    assert(id >= 0 && table->text_bytes + bytes < UINT32_MAX);
    if (!table->room) weir_random_bytes(&table->key, sizeof table->key);
    WEIR_TRY(grow_tokens(table, error));
    WEIR_TRY(grow_texts(table, bytes, error));
    uint32_t *slot = slot_of(table, text, bytes);
    *added = *slot == 0;
    if (!*added) return WEIR_OK;
    table->tokens[table->count] = (struct weir_token){ (uint32_t)table->text_bytes, (uint32_t)bytes, id };
    if (bytes > 0) memcpy(table->texts + table->text_bytes, text, bytes);
    table->text_bytes += bytes;
    *slot = (uint32_t)++table->count;
cleanup:
    return status;
}

enum weir_status weir_token_table_seal(struct weir_token_table *table, struct weir_error *error)
{
    int32_t id_max = -1;
    for (size_t i = 0; i < table->count; i++) {
        if (table->tokens[i].id > id_max) id_max = table->tokens[i].id;
    }
    table->id_bound = id_max + 1;
    table->by_id = calloc((size_t)table->id_bound + 1, sizeof *table->by_id);
    if (!table->by_id) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %d ids", (int)table->id_bound);
    for (size_t i = table->count; i > 0; i--) table->by_id[table->tokens[i - 1].id] = (uint32_t)i;
    return WEIR_OK;
}

int32_t weir_token_table_id(const struct weir_token_table *table, const char *text, size_t bytes)
{
    if (table->count == 0) return WEIR_TOKEN_NONE;
    const uint32_t slot = *slot_of(table, text, bytes);
    return slot ? table->tokens[slot - 1].id : WEIR_TOKEN_NONE;
}

const char *weir_token_table_text(const struct weir_token_table *table, int32_t id, size_t *bytes)
{
    if (id < 0 || id >= table->id_bound || !table->by_id[id]) return NULL;
    const struct weir_token *token = &table->tokens[table->by_id[id] - 1];
    *bytes = token->bytes;
    return table->texts + token->start;
}

void weir_token_table_deinit(struct weir_token_table *table)
{
    free(table->texts);
    free(table->tokens);
    free(table->slots);
    free(table->by_id);
    *table = (struct weir_token_table){ 0 };
}
