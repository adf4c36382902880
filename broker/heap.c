#include "broker/heap.h"

bool weir_heap_before(const struct weir_heap_node *x, const struct weir_heap_node *y)
{
    if (x->a != y->a) return x->a < y->a;
    if (x->b != y->b) return x->b < y->b;
    return x->c < y->c;
}

/* Two heaps become one; either may be NULL. Roots have neither next nor previous. */
static struct weir_heap_node *meld(struct weir_heap_node *x, struct weir_heap_node *y)
{
    if (x == NULL) return y;
    if (y == NULL) return x;
    if (weir_heap_before(y, x)) {
        struct weir_heap_node *other = x;
        x = y;
        y = other;
    }
    y->previous = x;
    y->next = x->child;
    if (x->child != NULL) x->child->previous = y;
    x->child = y;
    return x;
}

/* Melds a list of siblings pairwise, left to right, then the pairs right to left. */
static struct weir_heap_node *gather(struct weir_heap_node *first)
{
    struct weir_heap_node *pairs = NULL; /* a stack through `next` */
    while (first != NULL) {
        struct weir_heap_node *x = first, *y = first->next;
        first = y != NULL ? y->next : NULL;
        x->next = x->previous = NULL;
        if (y != NULL) y->next = y->previous = NULL;
        x = meld(x, y);
        x->next = pairs;
        pairs = x;
    }
    struct weir_heap_node *root = NULL;
    while (pairs != NULL) {
        struct weir_heap_node *x = pairs;
        pairs = x->next;
        x->next = NULL;
        root = meld(root, x);
    }
    return root;
}

void weir_heap_add(struct weir_heap *heap, struct weir_heap_node *node)
{
    node->child = node->next = node->previous = NULL;
    heap->root = meld(heap->root, node);
}

void weir_heap_remove(struct weir_heap *heap, struct weir_heap_node *node)
{
    struct weir_heap_node *below = gather(node->child);
    node->child = NULL;
    if (node == heap->root) {
        heap->root = below;
        return;
    }
    if (node->previous->child == node)
        node->previous->child = node->next;
    else
        node->previous->next = node->next;
    if (node->next != NULL) node->next->previous = node->previous;
    node->next = node->previous = NULL;
    heap->root = meld(heap->root, below);
}
