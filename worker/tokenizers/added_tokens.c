#include "worker/tokenizers/added_tokens.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum weir_status weir_added_set_add(struct weir_added_set *set, char *text, size_t bytes, int32_t id,
                                    struct weir_error *error)
{
    assert(bytes > 0);
    if (set->count == set->room) {
        const size_t room = set->room ? 2 * set->room : 64;
        struct weir_added_token *tokens = realloc(set->tokens, room * sizeof *tokens);
        if (!tokens) {
            free(text);
            return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu added tokens", room);
        }
        set->tokens = tokens;
        set->room = room;
    }
    set->tokens[set->count] =
        (struct weir_added_token){ .text = text, .bytes = bytes, .id = id, .order = (uint32_t)set->count };
    set->count++;
    set->starts[(uint8_t)text[0]] = true;
    return WEIR_OK;
}

static int compare_bytes(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    const int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_tokens(const void *a, const void *b)
{
    const struct weir_added_token *x = a, *y = b;
    const int order = compare_bytes(x->text, x->bytes, y->text, y->bytes);
    return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

static bool begins_with(const char *text, size_t count, const struct weir_added_token *token)
{
    return token->bytes <= count && memcmp(text, token->text, token->bytes) == 0;
}

void weir_added_set_seal(struct weir_added_set *set)
{
    size_t kept = 0;
    if (set->count > 0) qsort(set->tokens, set->count, sizeof *set->tokens, compare_tokens);
    for (size_t i = 0; i < set->count; i++) {
        struct weir_added_token *token = &set->tokens[i];
        const struct weir_added_token *last = kept > 0 ? &set->tokens[kept - 1] : NULL;
        if (last && last->bytes == token->bytes && memcmp(last->text, token->text, token->bytes) == 0) {
            free(token->text);
            continue;
        }
        uint32_t prefix = (uint32_t)kept;
        while (prefix > 0 && !begins_with(token->text, token->bytes, &set->tokens[prefix - 1]))
            prefix = set->tokens[prefix - 1].prefix;
        token->prefix = prefix;
        set->tokens[kept++] = *token;
    }
    set->count = kept;
}

void weir_added_set_deinit(struct weir_added_set *set)
{
    for (size_t i = 0; i < set->count; i++) free(set->tokens[i].text);
    free(set->tokens);
    *set = (struct weir_added_set){ 0 };
}

/* The longest token that `text` begins with. */
static const struct weir_added_token *longest(const struct weir_added_set *set, const char *text, size_t count)
{
    size_t low = 0, high = set->count; /* the first token above the text */
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (compare_bytes(set->tokens[middle].text, set->tokens[middle].bytes, text, count) > 0)
            high = middle;
        else
            low = middle + 1;
    }
    uint32_t at = (uint32_t)low;
    while (at > 0 && !begins_with(text, count, &set->tokens[at - 1])) at = set->tokens[at - 1].prefix;
    return at > 0 ? &set->tokens[at - 1] : NULL;
}

const struct weir_added_token *weir_added_set_next(const struct weir_added_set *set, const char *text, size_t count,
                                                   size_t at, size_t *start)
{
    for (; at < count; at++) {
        if (!set->starts[(uint8_t)text[at]]) continue;
        const struct weir_added_token *token = longest(set, text + at, count - at);
        if (!token) continue;
        *start = at;
        return token;
    }
    return NULL;
}
