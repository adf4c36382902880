/* heap: a priority queue of nodes that live inside their owners (a pairing heap): no allocation, any node can leave.
 *
 * Order    ascending by (a, b, c)
 * Memory   nodes are the caller's; a node is in at most one heap
 */
#ifndef WEIR_BROKER_HEAP_H
#define WEIR_BROKER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weir_heap_node {
    struct weir_heap_node *child, *next, *previous; /* previous: the left neighbour, or the parent of a first child */
    uint64_t a, b;
    uint32_t c;
};

struct weir_heap {
    struct weir_heap_node *root;
};

bool weir_heap_before(const struct weir_heap_node *x, const struct weir_heap_node *y);
void weir_heap_add(struct weir_heap *heap, struct weir_heap_node *node);
/* The node must be in this heap. */
void weir_heap_remove(struct weir_heap *heap, struct weir_heap_node *node);

#endif
