/* list.h: intrusive doubly linked lists.
 *
 * A structure that wants to stand in a list embeds an AioListNode; the list
 * never allocates. A list is circular around its head, so that linking and
 * unlinking have no special cases. Nothing here locks: whoever owns the list
 * says, next to it, what guards it.
 *
 * A node that is in no list points at itself ("detached"), so unlinking twice
 * is harmless and aio_list_is_linked() can be asked at any time.
 */
#ifndef AIO_CORE_LIST_H
#define AIO_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct AioListNode {
    struct AioListNode *prev;
    struct AioListNode *next;
} AioListNode;

typedef struct AioList {
    AioListNode head;
} AioList;

/* The structure of `type` whose field `member` is the node `ptr`. */
#define aio_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

static inline void
aio_list_node_init(AioListNode *node)
{
    node->prev = node;
    node->next = node;
}

static inline void
aio_list_init(AioList *list)
{
    aio_list_node_init(&list->head);
}

static inline bool
aio_list_is_linked(const AioListNode *node)
{
    return node->next != node;
}

static inline bool
aio_list_is_empty(const AioList *list)
{
    return list->head.next == &list->head;
}

static inline void
aio_list_append(AioList *list, AioListNode *node)
{
    node->prev = list->head.prev;
    node->next = &list->head;
    node->prev->next = node;
    list->head.prev = node;
}

static inline void
aio_list_prepend(AioList *list, AioListNode *node)
{
    node->prev = &list->head;
    node->next = list->head.next;
    node->next->prev = node;
    list->head.next = node;
}

static inline void
aio_list_unlink(AioListNode *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    aio_list_node_init(node);
}

/* Behind a node that is in a list, or behind its head: as the first. */
static inline void
aio_list_insert_after(AioListNode *before, AioListNode *node)
{
    node->prev = before;
    node->next = before->next;
    node->next->prev = node;
    before->next = node;
}

/* Unlink and return the first node, or NULL from an empty list. */
static inline AioListNode *
aio_list_pop_first(AioList *list)
{
    AioListNode *node = list->head.next;
    if (node == &list->head) {
        return NULL;
    }
    aio_list_unlink(node);
    return node;
}

/* Unlink and return the last node, or NULL from an empty list. */
static inline AioListNode *
aio_list_pop_last(AioList *list)
{
    AioListNode *node = list->head.prev;
    if (node == &list->head) {
        return NULL;
    }
    aio_list_unlink(node);
    return node;
}

/* Move every node of `from` to `to`, which is initialised here; `from` is left empty. */
static inline void
aio_list_move(AioList *from, AioList *to)
{
    aio_list_init(to);
    if (aio_list_is_empty(from)) {
        return;
    }
    to->head = from->head;
    to->head.next->prev = &to->head;
    to->head.prev->next = &to->head;
    aio_list_init(from);
}

#endif
