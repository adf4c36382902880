#include "worker/tokenizers/bpe_merge.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#define NONE UINT32_MAX
#define GONE (-1) /* the id of a symbol that was merged into the one before */

static int compare_rules(const void *a, const void *b)
{
    const struct weir_bpe_rule *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    if (x->right != y->right) return x->right < y->right ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

enum weir_status weir_bpe_table_init(struct weir_bpe_table *table, struct weir_bpe_rule **rules_p, size_t count,
                                     int32_t id_bound, struct weir_error *error)
{
    struct weir_bpe_rule *rules = *rules_p;
    *rules_p = NULL;
    *table = (struct weir_bpe_table){ .rules = rules, .id_bound = id_bound };
    table->first = calloc((size_t)id_bound + 1, sizeof *table->first);
    if (!table->first) {
        weir_bpe_table_deinit(table);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the merges of a tokenizer");
    }
    if (count > 0) qsort(rules, count, sizeof *rules, compare_rules);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        assert(rules[i].left >= 0 && rules[i].left < id_bound);
        if (kept > 0 && rules[kept - 1].left == rules[i].left && rules[kept - 1].right == rules[i].right) kept--;
        rules[kept++] = rules[i];
    }
    for (size_t i = 0; i < kept; i++) table->first[rules[i].left + 1]++;
    for (int32_t id = 0; id < id_bound; id++) table->first[id + 1] += table->first[id];
    return WEIR_OK;
}

void weir_bpe_table_deinit(struct weir_bpe_table *table)
{
    free(table->rules);
    free(table->first);
    *table = (struct weir_bpe_table){ 0 };
}

static const struct weir_bpe_rule *rule_find(const struct weir_bpe_table *table, int32_t left, int32_t right)
{
    uint32_t low = table->first[left], high = table->first[left + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (table->rules[middle].right < right)
            low = middle + 1;
        else
            high = middle;
    }
    return low < table->first[left + 1] && table->rules[low].right == right ? &table->rules[low] : NULL;
}

enum weir_status weir_bpe_word_reserve(struct weir_bpe_word *word, size_t count, struct weir_error *error)
{
    assert(count < (size_t)1 << 30);
    if (count <= word->capacity) return WEIR_OK;
    weir_bpe_word_deinit(word);
    word->symbols = malloc(count * sizeof *word->symbols);
    word->candidates = malloc(3 * count * sizeof *word->candidates);
    if (!word->symbols || !word->candidates) {
        weir_bpe_word_deinit(word);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a word of %zu bytes", count);
    }
    word->capacity = count;
    return WEIR_OK;
}

void weir_bpe_word_deinit(struct weir_bpe_word *word)
{
    free(word->symbols);
    free(word->candidates);
    *word = (struct weir_bpe_word){ 0 };
}

static bool before(const struct weir_bpe_candidate *a, const struct weir_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct weir_bpe_candidate *heap, size_t *count, struct weir_bpe_candidate new)
{
    size_t at = (*count)++;
    while (at > 0 && before(&new, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = new;
}

static struct weir_bpe_candidate heap_pop(struct weir_bpe_candidate *heap, size_t *count)
{
    const struct weir_bpe_candidate top = heap[0], last = heap[--*count];
    size_t at = 0;
    for (size_t child = 1; child < *count; child = 2 * at + 1) {
        if (child + 1 < *count && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

size_t weir_bpe_merge(const struct weir_bpe_table *table, struct weir_bpe_word *word, int32_t *ids, size_t count)
{
    struct weir_bpe_symbol *symbols = word->symbols;
    struct weir_bpe_candidate *heap = word->candidates;
    size_t heap_count = 0;
    assert(count <= word->capacity);
    for (size_t i = 0; i < count; i++) {
        symbols[i].id = ids[i];
        symbols[i].previous = i == 0 ? NONE : (uint32_t)(i - 1);
        symbols[i].next = i + 1 == count ? NONE : (uint32_t)(i + 1);
    }
    for (size_t i = 0; i + 1 < count; i++) {
        const struct weir_bpe_rule *rule = rule_find(table, ids[i], ids[i + 1]);
        if (rule) heap_push(heap, &heap_count, (struct weir_bpe_candidate){ rule->rank, (uint32_t)i, rule->result });
    }
    /* Each merge makes at most two new pairs and there are fewer than `count` merges: 3 * count candidates in all. */
    while (heap_count > 0) {
        const struct weir_bpe_candidate top = heap_pop(heap, &heap_count);
        struct weir_bpe_symbol *left = &symbols[top.at];
        if (left->id == GONE || left->next == NONE) continue;
        struct weir_bpe_symbol *right = &symbols[left->next];
        const struct weir_bpe_rule *rule = rule_find(table, left->id, right->id);
        if (!rule || rule->result != top.result) continue; /* the pair has changed since */

        left->id = top.result;
        left->next = right->next;
        right->id = GONE;
        if (left->next != NONE) {
            symbols[left->next].previous = top.at;
            rule = rule_find(table, left->id, symbols[left->next].id);
            if (rule) heap_push(heap, &heap_count, (struct weir_bpe_candidate){ rule->rank, top.at, rule->result });
        }
        if (left->previous != NONE) {
            rule = rule_find(table, symbols[left->previous].id, left->id);
            if (rule)
                heap_push(heap, &heap_count, (struct weir_bpe_candidate){ rule->rank, left->previous, rule->result });
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (symbols[i].id != GONE) ids[left++] = symbols[i].id;
    }
    return left;
}
