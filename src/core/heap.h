/* heap.h: intrusive priority queues.
 *
 * A structure that wants to stand in a heap embeds an AioHeapNode; the heap never
 * allocates. The node with the smallest key comes first, and among equal keys the one
 * that was inserted first. Nothing here locks: whoever owns the heap says, next to it,
 * what guards it.
 *
 * A node that is in no heap points at itself, so that can be asked at any time, and
 * removing twice is harmless.
 */
#ifndef AIO_CORE_HEAP_H
#define AIO_CORE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct AioHeapNode {
    struct AioHeapNode *first_child; /* no key in the subtree is smaller than the node's own */
    struct AioHeapNode *next;        /* sibling, or NULL */
    /* The sibling before it; for a first child its parent, for the root NULL, and for a
     * node that is in no heap itself. */
    struct AioHeapNode *prev;
    int64_t key;       /* constant while it is in a heap */
    uint64_t sequence; /* likewise: when it was inserted */
} AioHeapNode;

typedef struct AioHeap {
    AioHeapNode *root; /* or NULL */
    uint64_t next_sequence;
} AioHeap;

static inline void
aio_heap_node_init(AioHeapNode *node)
{
    node->prev = node;
}

static inline void
aio_heap_init(AioHeap *heap)
{
    heap->root = NULL;
    heap->next_sequence = 0;
}

static inline bool
aio_heap_is_linked(const AioHeapNode *node)
{
    return node->prev != node;
}

static inline bool
aio_heap_is_empty(const AioHeap *heap)
{
    return heap->root == NULL;
}

/* The node that comes first, or NULL. It stays in the heap. */
static inline AioHeapNode *
aio_heap_first(const AioHeap *heap)
{
    return heap->root;
}

/* For a node that is in no heap. Takes constant time. */
void aio_heap_insert(AioHeap *heap, AioHeapNode *node, int64_t key);

/* `node` must be in this heap, or in none. Takes logarithmic time, amortised. */
void aio_heap_remove(AioHeap *heap, AioHeapNode *node);

/* Remove and return the node that comes first, or NULL from an empty heap. */
AioHeapNode *aio_heap_pop_first(AioHeap *heap);

#endif
