/* heap.c: a pairing heap.
 *
 * A tree in which no node comes before its parent, of any shape: a node's children are
 * a list. Two trees are joined by making one root the first child of the other; that is
 * all that an insertion does. The work is put off until a node goes whose children then
 * have to become one tree: they are joined in pairs, and the pairs, from the last to the
 * first, into one. Doing it in this order is what makes the cost logarithmic over time.
 *
 * Nothing recurs: a heap into which keys came in falling order is as deep as it is large.
 */
#include "heap.h"

static bool
comes_before(const AioHeapNode *one, const AioHeapNode *other)
{
    return one->key != other->key ? one->key < other->key : one->sequence < other->sequence;
}

/* Join two trees. The root is returned, which still has to be linked to what is around it. */
static AioHeapNode *
join(AioHeapNode *one, AioHeapNode *other)
{
    AioHeapNode *parent = comes_before(one, other) ? one : other;
    AioHeapNode *child = parent == one ? other : one;
    child->next = parent->first_child;
    if (child->next != NULL) {
        child->next->prev = child;
    }
    child->prev = parent;
    parent->first_child = child;
    return parent;
}

/* As join(), of which either may be NULL. */
static AioHeapNode *
join_if_any(AioHeapNode *one, AioHeapNode *other)
{
    if (one == NULL || other == NULL) {
        return one != NULL ? one : other;
    }
    return join(one, other);
}

/* Join a list of siblings, linked by `next`; the root, as from join(), or NULL. */
static AioHeapNode *
join_siblings(AioHeapNode *first)
{
    AioHeapNode *pairs = NULL; /* the last pair first; linked by `next` */
    AioHeapNode *root = NULL;
    while (first != NULL) {
        AioHeapNode *second = first->next;
        AioHeapNode *rest = second != NULL ? second->next : NULL;
        AioHeapNode *pair = join_if_any(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    while (pairs != NULL) {
        AioHeapNode *rest = pairs->next;
        root = join_if_any(root, pairs);
        pairs = rest;
    }
    return root;
}

static void
set_root(AioHeap *heap, AioHeapNode *root)
{
    heap->root = root;
    if (root != NULL) {
        root->prev = NULL;
        root->next = NULL;
    }
}

void
aio_heap_insert(AioHeap *heap, AioHeapNode *node, int64_t key)
{
    node->first_child = NULL;
    node->key = key;
    node->sequence = heap->next_sequence++;
    set_root(heap, join_if_any(heap->root, node));
}

/* Take the tree of a node that is not the root out of its list of siblings. */
static void
cut(AioHeapNode *node)
{
    if (node->prev->first_child == node) {
        node->prev->first_child = node->next;
    }
    else {
        node->prev->next = node->next;
    }
    if (node->next != NULL) {
        node->next->prev = node->prev;
    }
}

void
aio_heap_remove(AioHeap *heap, AioHeapNode *node)
{
    if (!aio_heap_is_linked(node)) {
        return;
    }
    AioHeapNode *orphans = join_siblings(node->first_child);
    if (node == heap->root) {
        set_root(heap, orphans);
    }
    else {
        cut(node);
        set_root(heap, join_if_any(heap->root, orphans));
    }
    aio_heap_node_init(node);
}

AioHeapNode *
aio_heap_pop_first(AioHeap *heap)
{
    AioHeapNode *first = heap->root;
    if (first != NULL) {
        aio_heap_remove(heap, first);
    }
    return first;
}
