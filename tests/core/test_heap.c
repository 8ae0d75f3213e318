/* test_heap.c: the contract of core/heap.h. */
#include "core/heap.h"

#include <stdlib.h>

#include "check.h"
#include "core/list.h"

typedef struct Item {
    AioHeapNode node;
    bool is_in; /* what the model says */
    int64_t key;
    int turn; /* when it was inserted */
} Item;

static Item *
item_of(AioHeapNode *node)
{
    return aio_container_of(node, Item, node);
}

static void
insert(AioHeap *heap, Item *item, int64_t key, int turn)
{
    item->key = key;
    item->turn = turn;
    item->is_in = true;
    aio_heap_insert(heap, &item->node, key);
}

static void
a_new_heap_is_empty(void)
{
    AioHeap heap;
    aio_heap_init(&heap);
    CHECK(aio_heap_is_empty(&heap));
    CHECK(aio_heap_first(&heap) == NULL);
    CHECK(aio_heap_pop_first(&heap) == NULL);
}

static void
a_node_knows_whether_it_is_in_a_heap(void)
{
    AioHeap heap;
    Item items[3];
    aio_heap_init(&heap);
    for (int i = 0; i < 3; i++) {
        aio_heap_node_init(&items[i].node);
        CHECK(!aio_heap_is_linked(&items[i].node));
        aio_heap_remove(&heap, &items[i].node); /* harmless */
        insert(&heap, &items[i], i, i);
        CHECK(aio_heap_is_linked(&items[i].node));
    }
    CHECK(!aio_heap_is_empty(&heap));
    aio_heap_remove(&heap, &items[1].node);
    CHECK(!aio_heap_is_linked(&items[1].node));
    aio_heap_remove(&heap, &items[1].node);
    CHECK(aio_heap_first(&heap) == &items[0].node);
    CHECK(aio_heap_is_linked(&items[0].node)); /* looking takes nothing out */
    CHECK(aio_heap_pop_first(&heap) == &items[0].node);
    CHECK(!aio_heap_is_linked(&items[0].node));
    CHECK(aio_heap_pop_first(&heap) == &items[2].node);
    CHECK(!aio_heap_is_linked(&items[2].node));
    CHECK(aio_heap_is_empty(&heap));
}

static void
nodes_come_out_by_key_and_then_in_the_order_of_insertion(void)
{
    static const int64_t KEYS[] = {3, INT64_MAX, 0, -7, 3, 0, INT64_MIN, 3, -7, INT64_MAX};
    static const int EXPECTED[] = {6, 3, 8, 2, 5, 0, 4, 7, 1, 9};
    enum { ITEMS = sizeof KEYS / sizeof *KEYS };
    AioHeap heap;
    Item items[ITEMS];
    aio_heap_init(&heap);
    for (int round = 0; round < 2; round++) { /* a heap may be used again */
        for (int i = 0; i < ITEMS; i++) {
            aio_heap_node_init(&items[i].node);
            insert(&heap, &items[i], KEYS[i], i);
        }
        for (int i = 0; i < ITEMS; i++) {
            CHECK(aio_heap_pop_first(&heap) == &items[EXPECTED[i]].node);
        }
        CHECK(aio_heap_is_empty(&heap));
    }
}

static void
a_node_that_comes_back_comes_after_its_equals(void)
{
    AioHeap heap;
    Item items[3];
    aio_heap_init(&heap);
    for (int i = 0; i < 3; i++) {
        aio_heap_node_init(&items[i].node);
        insert(&heap, &items[i], 1, i);
    }
    aio_heap_remove(&heap, &items[0].node);
    insert(&heap, &items[0], 1, 3);
    CHECK(aio_heap_pop_first(&heap) == &items[1].node);
    CHECK(aio_heap_pop_first(&heap) == &items[2].node);
    CHECK(aio_heap_pop_first(&heap) == &items[0].node);
}

/* Take all out; they come in the order of the keys, `step` apart. */
static void
pop_all(AioHeap *heap, int count, int64_t first, int64_t step)
{
    for (int i = 0; i < count; i++) {
        Item *item = item_of(aio_heap_pop_first(heap));
        CHECK(item->key == first + step * i);
    }
    CHECK(aio_heap_is_empty(heap));
}

static void
a_heap_may_be_as_deep_or_as_broad_as_it_is_large(void)
{
    enum { MANY = 300 * 1000 };
    AioHeap heap;
    Item *items = malloc(MANY * sizeof *items);
    CHECK(items != NULL);
    aio_heap_init(&heap);
    for (int i = 0; i < MANY; i++) {
        aio_heap_node_init(&items[i].node);
        insert(&heap, &items[i], -i, i); /* each becomes the parent of all before */
    }
    pop_all(&heap, MANY, 1 - MANY, 1);
    for (int i = 0; i < MANY; i++) {
        insert(&heap, &items[i], i, i); /* each becomes a child of the first */
    }
    pop_all(&heap, MANY, 0, 1);
    for (int i = 0; i < MANY; i++) {
        insert(&heap, &items[i], -i, i);
    }
    for (int i = 0; i < MANY; i += 2) { /* from the depth up, out of the middle */
        aio_heap_remove(&heap, &items[i].node);
    }
    pop_all(&heap, MANY / 2, 1 - MANY, 2);
    free(items);
}

/* ---- against a model: an array that is searched ---------------------------- */

enum { ITEMS = 200 };

static Item *
first_of_model(Item *items)
{
    Item *first = NULL;
    for (int i = 0; i < ITEMS; i++) {
        Item *item = &items[i];
        if (item->is_in && (first == NULL || item->key < first->key ||
                            (item->key == first->key && item->turn < first->turn))) {
            first = item;
        }
    }
    return first;
}

static void
any_sequence_of_insertions_and_removals_leaves_the_right_node_first(void)
{
    Item items[ITEMS] = {0};
    AioHeap heap;
    uint32_t random_state = 23;
    aio_heap_init(&heap);
    for (int i = 0; i < ITEMS; i++) {
        aio_heap_node_init(&items[i].node);
    }
    for (int turn = 0; turn < 100 * 1000; turn++) {
        Item *item = &items[next_random(&random_state) % ITEMS];
        /* Fill and drain by turns; few different keys, so that many are equal. */
        const bool fills = turn / 1000 % 2 == 0;
        CHECK(aio_heap_is_linked(&item->node) == item->is_in);
        if (!item->is_in && (fills || turn % 4 == 0)) {
            insert(&heap, item, (int64_t)(next_random(&random_state) % 40) - 20, turn);
        }
        else if (turn % 2 == 0) {
            aio_heap_remove(&heap, &item->node);
            item->is_in = false;
        }
        else if (!fills || turn % 8 == 1) {
            Item *first = first_of_model(items);
            AioHeapNode *popped = aio_heap_pop_first(&heap);
            CHECK(popped == (first != NULL ? &first->node : NULL));
            if (first != NULL) {
                first->is_in = false;
            }
        }
        Item *first = first_of_model(items);
        CHECK(aio_heap_first(&heap) == (first != NULL ? &first->node : NULL));
        CHECK(aio_heap_is_empty(&heap) == (first == NULL));
    }
}

int
main(void)
{
    RUN(a_new_heap_is_empty);
    RUN(a_node_knows_whether_it_is_in_a_heap);
    RUN(nodes_come_out_by_key_and_then_in_the_order_of_insertion);
    RUN(a_node_that_comes_back_comes_after_its_equals);
    RUN(a_heap_may_be_as_deep_or_as_broad_as_it_is_large);
    RUN(any_sequence_of_insertions_and_removals_leaves_the_right_node_first);
    return 0;
}
