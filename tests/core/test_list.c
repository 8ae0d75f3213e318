/* test_list.c: the contract of core/list.h. */
#include "core/list.h"

#include "check.h"

typedef struct Item {
    int before; /* so that the node is not at the structure's start */
    AioListNode link;
} Item;

enum { ITEMS = 4 };
static Item items[ITEMS];

static void
fill(AioList *list)
{
    aio_list_init(list);
    for (int i = 0; i < ITEMS; i++) {
        aio_list_node_init(&items[i].link);
        aio_list_append(list, &items[i].link);
    }
}

/* The index of the item whose node this is; -1 for NULL. */
static int
index_of(AioListNode *node)
{
    return node == NULL ? -1 : (int)(aio_container_of(node, Item, link) - items);
}

static void
a_new_list_is_empty(void)
{
    AioList list;
    aio_list_init(&list);
    CHECK(aio_list_is_empty(&list));
    CHECK(aio_list_pop_first(&list) == NULL);
    CHECK(aio_list_pop_last(&list) == NULL);
    CHECK(aio_list_is_empty(&list));
}

static void
a_node_is_linked_from_append_until_unlink(void)
{
    AioList list;
    AioListNode node;
    aio_list_init(&list);
    aio_list_node_init(&node);
    CHECK(!aio_list_is_linked(&node));
    aio_list_append(&list, &node);
    CHECK(aio_list_is_linked(&node));
    CHECK(!aio_list_is_empty(&list));
    aio_list_unlink(&node);
    CHECK(!aio_list_is_linked(&node));
    CHECK(aio_list_is_empty(&list));
}

static void
pop_first_gives_the_order_of_appending(void)
{
    AioList list;
    fill(&list);
    for (int i = 0; i < ITEMS; i++) {
        AioListNode *node = aio_list_pop_first(&list);
        CHECK(index_of(node) == i);
        CHECK(!aio_list_is_linked(node));
    }
    CHECK(aio_list_is_empty(&list));
}

static void
a_prepended_node_comes_first(void)
{
    AioList list;
    AioListNode first, second;
    aio_list_init(&list);
    aio_list_prepend(&list, &second);
    aio_list_prepend(&list, &first);
    CHECK(aio_list_is_linked(&first));
    CHECK(aio_list_pop_first(&list) == &first);
    CHECK(aio_list_pop_last(&list) == &second);
    CHECK(aio_list_is_empty(&list));
}

static void
pop_last_gives_the_reverse_order(void)
{
    AioList list;
    fill(&list);
    for (int i = ITEMS - 1; i >= 0; i--) {
        AioListNode *node = aio_list_pop_last(&list);
        CHECK(index_of(node) == i);
        CHECK(!aio_list_is_linked(node));
    }
    CHECK(aio_list_is_empty(&list));
}

static void
unlinking_leaves_the_others_in_order(void)
{
    for (int gone = 0; gone < ITEMS; gone++) {
        AioList list;
        fill(&list);
        aio_list_unlink(&items[gone].link);
        for (int i = 0; i < ITEMS; i++) {
            CHECK(i == gone || index_of(aio_list_pop_first(&list)) == i);
        }
        CHECK(aio_list_is_empty(&list));
    }
}

static void
unlinking_twice_is_harmless(void)
{
    AioList list;
    fill(&list);
    aio_list_unlink(&items[1].link);
    aio_list_unlink(&items[1].link);
    CHECK(!aio_list_is_linked(&items[1].link));
    CHECK(index_of(aio_list_pop_first(&list)) == 0);
    CHECK(index_of(aio_list_pop_first(&list)) == 2);
    CHECK(index_of(aio_list_pop_first(&list)) == 3);
}

static void
a_node_may_be_appended_again(void)
{
    AioList list;
    fill(&list);
    aio_list_unlink(&items[0].link);
    aio_list_append(&list, &items[0].link);
    CHECK(index_of(aio_list_pop_first(&list)) == 1);
    CHECK(index_of(aio_list_pop_last(&list)) == 0);
}

static void
move_keeps_the_order_and_empties_the_source(void)
{
    AioList from, to;
    fill(&from);
    aio_list_move(&from, &to);
    CHECK(aio_list_is_empty(&from));
    /* Both lists are whole: nodes can leave the one, and join the other. */
    aio_list_unlink(&items[0].link);
    aio_list_append(&from, &items[0].link);
    CHECK(index_of(aio_list_pop_last(&to)) == 3);
    CHECK(index_of(aio_list_pop_first(&to)) == 1);
    CHECK(index_of(aio_list_pop_first(&to)) == 2);
    CHECK(aio_list_is_empty(&to));
    CHECK(index_of(aio_list_pop_first(&from)) == 0);
    CHECK(aio_list_is_empty(&from));
}

static void
moving_an_empty_list_makes_an_empty_list(void)
{
    AioList from, to;
    aio_list_init(&from);
    aio_list_move(&from, &to);
    CHECK(aio_list_is_empty(&from));
    CHECK(aio_list_is_empty(&to));
}

int
main(void)
{
    RUN(a_new_list_is_empty);
    RUN(a_node_is_linked_from_append_until_unlink);
    RUN(pop_first_gives_the_order_of_appending);
    RUN(a_prepended_node_comes_first);
    RUN(pop_last_gives_the_reverse_order);
    RUN(unlinking_leaves_the_others_in_order);
    RUN(unlinking_twice_is_harmless);
    RUN(a_node_may_be_appended_again);
    RUN(move_keeps_the_order_and_empties_the_source);
    RUN(moving_an_empty_list_makes_an_empty_list);
    return 0;
}
