/* test_fifo.c: the contract of core/fifo.h. */
#include "core/fifo.h"

#include <stdlib.h>

#include "check.h"
#include "core/clock.h"
#include "core/park.h"

/* ---- one thread ---------------------------------------------------------- */

typedef struct Waiter {
    AioFifoWaiter waiter; /* first: a waiter is a Waiter */
    AioFifo *fifo;
    int notices;
} Waiter;

static void
count_notice(AioFifoWaiter *raw)
{
    ((Waiter *)raw)->notices++;
}

static void
init_waiter(Waiter *waiter, AioFifo *fifo)
{
    aio_fifo_waiter_init(&waiter->waiter, count_notice);
    waiter->fifo = fifo;
    waiter->notices = 0;
}

static void
put(AioFifo *fifo, AioFifoNode *node)
{
    CHECK(aio_fifo_try_put(fifo, node) == AIO_FIFO_DONE);
}

static AioFifoNode *
get(AioFifo *fifo)
{
    AioFifoNode *node = NULL;
    CHECK(aio_fifo_try_get(fifo, &node) == AIO_FIFO_DONE);
    return node;
}

static AioFifoResult
result_of_get(AioFifo *fifo)
{
    AioFifoNode *node;
    return aio_fifo_try_get(fifo, &node);
}

/* Register new waiters, all for the one or all for the other end. */
static void
wait_to_get(AioFifo *fifo, Waiter *waiters, int count)
{
    for (int i = 0; i < count; i++) {
        init_waiter(&waiters[i], fifo);
        CHECK(!aio_fifo_wait_to_get(fifo, &waiters[i].waiter));
    }
}

static void
wait_to_put(AioFifo *fifo, Waiter *waiters, int count)
{
    for (int i = 0; i < count; i++) {
        init_waiter(&waiters[i], fifo);
        CHECK(!aio_fifo_wait_to_put(fifo, &waiters[i].waiter));
    }
}

static void
nodes_are_got_in_the_order_of_putting(void)
{
    enum { NODES = 5 };
    AioFifo fifo;
    AioFifoNode nodes[NODES];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    CHECK(aio_fifo_length(&fifo) == 0);
    for (int i = 0; i < NODES; i++) {
        put(&fifo, &nodes[i]);
        CHECK(aio_fifo_length(&fifo) == (size_t)i + 1);
    }
    for (int i = 0; i < NODES; i++) {
        CHECK(get(&fifo) == &nodes[i]);
    }
    CHECK(aio_fifo_length(&fifo) == 0);
    aio_fifo_destroy(&fifo);
}

static void
a_full_queue_takes_no_node_and_an_empty_one_gives_none(void)
{
    AioFifo fifo;
    AioFifoNode nodes[3];
    CHECK(aio_fifo_init(&fifo, 2) == 0);
    CHECK(result_of_get(&fifo) == AIO_FIFO_WOULD_BLOCK);
    put(&fifo, &nodes[0]);
    put(&fifo, &nodes[1]);
    CHECK(aio_fifo_try_put(&fifo, &nodes[2]) == AIO_FIFO_WOULD_BLOCK);
    CHECK(aio_fifo_length(&fifo) == 2);
    CHECK(get(&fifo) == &nodes[0]);
    put(&fifo, &nodes[2]);
    CHECK(get(&fifo) == &nodes[1]);
    CHECK(get(&fifo) == &nodes[2]);
    CHECK(result_of_get(&fifo) == AIO_FIFO_WOULD_BLOCK);
    aio_fifo_destroy(&fifo);
}

static void
waiting_is_over_at_once_where_trying_is_worth_while_and_registers_nothing(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter getter, putter;
    CHECK(aio_fifo_init(&fifo, 1) == 0);
    init_waiter(&getter, &fifo);
    init_waiter(&putter, &fifo);
    CHECK(aio_fifo_wait_to_put(&fifo, &putter.waiter));
    put(&fifo, &node);
    CHECK(aio_fifo_wait_to_get(&fifo, &getter.waiter));
    CHECK(get(&fifo) == &node);
    aio_fifo_shut_down(&fifo, NULL);
    CHECK(aio_fifo_wait_to_get(&fifo, &getter.waiter));
    CHECK(aio_fifo_wait_to_put(&fifo, &putter.waiter));
    CHECK(getter.notices == 0);
    CHECK(putter.notices == 0);
    aio_fifo_destroy(&fifo);
}

static void
without_a_bound_nobody_waits_to_put(void)
{
    enum { NODES = 100 };
    AioFifo fifo;
    AioFifoNode nodes[NODES];
    Waiter putter;
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    init_waiter(&putter, &fifo);
    for (int i = 0; i < NODES; i++) {
        CHECK(aio_fifo_wait_to_put(&fifo, &putter.waiter));
        put(&fifo, &nodes[i]);
    }
    for (int i = 0; i < NODES; i++) {
        CHECK(get(&fifo) == &nodes[i]);
    }
    aio_fifo_destroy(&fifo);
}

static void
each_put_notifies_the_getter_that_came_first(void)
{
    AioFifo fifo;
    AioFifoNode nodes[3];
    Waiter getters[2];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    wait_to_get(&fifo, getters, 2);
    put(&fifo, &nodes[0]);
    CHECK(getters[0].notices == 1 && getters[1].notices == 0);
    put(&fifo, &nodes[1]);
    CHECK(getters[0].notices == 1 && getters[1].notices == 1);
    put(&fifo, &nodes[2]);
    CHECK(getters[0].notices == 1 && getters[1].notices == 1);
    for (int i = 0; i < 3; i++) {
        CHECK(get(&fifo) == &nodes[i]);
    }
    aio_fifo_destroy(&fifo);
}

static void
each_get_notifies_the_putter_that_came_first(void)
{
    AioFifo fifo;
    AioFifoNode nodes[3];
    Waiter putters[2];
    CHECK(aio_fifo_init(&fifo, 3) == 0);
    for (int i = 0; i < 3; i++) {
        put(&fifo, &nodes[i]);
    }
    wait_to_put(&fifo, putters, 2);
    CHECK(get(&fifo) == &nodes[0]);
    CHECK(putters[0].notices == 1 && putters[1].notices == 0);
    CHECK(get(&fifo) == &nodes[1]);
    CHECK(putters[0].notices == 1 && putters[1].notices == 1);
    CHECK(get(&fifo) == &nodes[2]);
    CHECK(putters[0].notices == 1 && putters[1].notices == 1);
    aio_fifo_destroy(&fifo);
}

static void
an_attempt_that_fails_notifies_nobody(void)
{
    AioFifo fifo;
    AioFifoNode nodes[2];
    Waiter waiter;
    CHECK(aio_fifo_init(&fifo, 1) == 0);
    wait_to_get(&fifo, &waiter, 1);
    CHECK(result_of_get(&fifo) == AIO_FIFO_WOULD_BLOCK);
    CHECK(waiter.notices == 0);
    CHECK(aio_fifo_forget(&fifo, &waiter.waiter));
    put(&fifo, &nodes[0]);
    wait_to_put(&fifo, &waiter, 1);
    CHECK(aio_fifo_try_put(&fifo, &nodes[1]) == AIO_FIFO_WOULD_BLOCK);
    CHECK(waiter.notices == 0);
    CHECK(aio_fifo_forget(&fifo, &waiter.waiter));
    CHECK(get(&fifo) == &nodes[0]);
    aio_fifo_destroy(&fifo);
}

static void
a_getter_that_found_nothing_waits_before_those_who_came_later(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter getters[2];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    wait_to_get(&fifo, getters, 2);
    for (int round = 1; round <= 3; round++) {
        put(&fifo, &node);
        CHECK(getters[0].notices == round && getters[1].notices == 0);
        CHECK(get(&fifo) == &node); /* somebody else is quicker */
        CHECK(!aio_fifo_wait_to_get(&fifo, &getters[0].waiter));
    }
    /* To have been forgotten in between takes nothing from it; a new wait does. */
    CHECK(aio_fifo_forget(&fifo, &getters[0].waiter));
    CHECK(!aio_fifo_wait_to_get(&fifo, &getters[0].waiter));
    put(&fifo, &node);
    CHECK(getters[0].notices == 4 && getters[1].notices == 0);
    CHECK(get(&fifo) == &node);
    wait_to_get(&fifo, &getters[0], 1);
    put(&fifo, &node);
    CHECK(getters[0].notices == 0 && getters[1].notices == 1);
    CHECK(get(&fifo) == &node);
    CHECK(aio_fifo_forget(&fifo, &getters[0].waiter));
    aio_fifo_destroy(&fifo);
}

static void
a_putter_that_found_no_room_waits_before_those_who_came_later(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter putters[2];
    CHECK(aio_fifo_init(&fifo, 1) == 0);
    put(&fifo, &node);
    wait_to_put(&fifo, putters, 2);
    for (int round = 1; round <= 3; round++) {
        CHECK(get(&fifo) == &node);
        CHECK(putters[0].notices == round && putters[1].notices == 0);
        put(&fifo, &node); /* somebody else is quicker */
        CHECK(!aio_fifo_wait_to_put(&fifo, &putters[0].waiter));
    }
    CHECK(get(&fifo) == &node);
    CHECK(putters[0].notices == 4 && putters[1].notices == 0);
    CHECK(aio_fifo_forget(&fifo, &putters[1].waiter));
    aio_fifo_destroy(&fifo);
}

static void
a_forgotten_waiter_is_not_notified_and_the_next_one_is(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter getters[3];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    wait_to_get(&fifo, getters, 3);
    CHECK(aio_fifo_forget(&fifo, &getters[0].waiter));
    CHECK(!aio_fifo_forget(&fifo, &getters[0].waiter));
    put(&fifo, &node);
    CHECK(getters[0].notices == 0 && getters[1].notices == 1 && getters[2].notices == 0);
    CHECK(get(&fifo) == &node);
    /* It may wait again, and has lost its place. */
    CHECK(!aio_fifo_wait_to_get(&fifo, &getters[0].waiter));
    put(&fifo, &node);
    CHECK(getters[0].notices == 0 && getters[2].notices == 1);
    CHECK(get(&fifo) == &node);
    CHECK(aio_fifo_forget(&fifo, &getters[0].waiter));
    aio_fifo_destroy(&fifo);
}

static void
forgetting_a_notified_waiter_says_so(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter getter, putter;
    CHECK(aio_fifo_init(&fifo, 1) == 0);
    wait_to_get(&fifo, &getter, 1);
    put(&fifo, &node);
    CHECK(!aio_fifo_forget(&fifo, &getter.waiter));
    wait_to_put(&fifo, &putter, 1);
    aio_fifo_shut_down(&fifo, NULL);
    CHECK(!aio_fifo_forget(&fifo, &putter.waiter));
    CHECK(getter.notices == 1 && putter.notices == 1);
    CHECK(get(&fifo) == &node);
    aio_fifo_destroy(&fifo);
}

static void
passing_on_notifies_the_next_getter_if_there_is_a_node(void)
{
    AioFifo fifo;
    AioFifoNode node;
    Waiter getters[3];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    wait_to_get(&fifo, getters, 3);
    aio_fifo_pass_on(&fifo);
    CHECK(getters[0].notices == 0);
    put(&fifo, &node);
    CHECK(getters[0].notices == 1);
    aio_fifo_pass_on(&fifo);
    CHECK(getters[1].notices == 1 && getters[2].notices == 0);
    CHECK(get(&fifo) == &node);
    aio_fifo_pass_on(&fifo);
    CHECK(getters[2].notices == 0);
    CHECK(aio_fifo_forget(&fifo, &getters[2].waiter));
    aio_fifo_pass_on(&fifo);
    aio_fifo_destroy(&fifo);
}

static void
passing_on_notifies_the_next_putter_if_there_is_room(void)
{
    AioFifo fifo;
    AioFifoNode nodes[2];
    Waiter putters[3];
    CHECK(aio_fifo_init(&fifo, 2) == 0);
    put(&fifo, &nodes[0]);
    put(&fifo, &nodes[1]);
    wait_to_put(&fifo, putters, 3);
    aio_fifo_pass_on(&fifo);
    CHECK(putters[0].notices == 0);
    CHECK(get(&fifo) == &nodes[0]);
    CHECK(putters[0].notices == 1);
    aio_fifo_pass_on(&fifo);
    CHECK(putters[1].notices == 1 && putters[2].notices == 0);
    put(&fifo, &nodes[0]);
    aio_fifo_pass_on(&fifo);
    CHECK(putters[2].notices == 0);
    CHECK(aio_fifo_forget(&fifo, &putters[2].waiter));
    CHECK(get(&fifo) == &nodes[1]);
    CHECK(get(&fifo) == &nodes[0]);
    aio_fifo_destroy(&fifo);
}

static void
shut_down_notifies_every_getter(void)
{
    AioFifo fifo;
    Waiter getters[3];
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    wait_to_get(&fifo, getters, 3);
    aio_fifo_shut_down(&fifo, NULL);
    aio_fifo_shut_down(&fifo, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK(getters[i].notices == 1);
    }
    CHECK(result_of_get(&fifo) == AIO_FIFO_SHUT_DOWN);
    aio_fifo_destroy(&fifo);
}

static void
shut_down_notifies_every_putter_and_lets_the_nodes_be_got(void)
{
    AioFifo fifo;
    AioFifoNode nodes[2], late;
    Waiter putters[3];
    CHECK(aio_fifo_init(&fifo, 2) == 0);
    put(&fifo, &nodes[0]);
    put(&fifo, &nodes[1]);
    wait_to_put(&fifo, putters, 3);
    aio_fifo_shut_down(&fifo, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK(putters[i].notices == 1);
    }
    CHECK(aio_fifo_wait_to_put(&fifo, &putters[0].waiter)); /* full, but no use waiting */
    CHECK(aio_fifo_try_put(&fifo, &late) == AIO_FIFO_SHUT_DOWN);
    CHECK(get(&fifo) == &nodes[0]);
    CHECK(aio_fifo_try_put(&fifo, &late) == AIO_FIFO_SHUT_DOWN);
    CHECK(aio_fifo_length(&fifo) == 1);
    CHECK(get(&fifo) == &nodes[1]);
    CHECK(result_of_get(&fifo) == AIO_FIFO_SHUT_DOWN);
    CHECK(putters[0].notices == 1);
    aio_fifo_destroy(&fifo);
}

static void
shut_down_hands_out_the_nodes_to_drop_in_their_order(void)
{
    AioFifo fifo;
    AioFifoNode nodes[3];
    AioList dropped;
    CHECK(aio_fifo_init(&fifo, 0) == 0);
    for (int i = 0; i < 3; i++) {
        put(&fifo, &nodes[i]);
    }
    aio_fifo_shut_down(&fifo, NULL); /* changing one's mind is possible */
    aio_fifo_shut_down(&fifo, &dropped);
    CHECK(aio_fifo_length(&fifo) == 0);
    CHECK(result_of_get(&fifo) == AIO_FIFO_SHUT_DOWN);
    for (int i = 0; i < 3; i++) {
        AioListNode *link = aio_list_pop_first(&dropped);
        CHECK(link == &nodes[i].link);
    }
    CHECK(aio_list_is_empty(&dropped));
    aio_fifo_shut_down(&fifo, &dropped);
    CHECK(aio_list_is_empty(&dropped));
    aio_fifo_destroy(&fifo);
}

static void
free_waiter(AioFifoWaiter *raw)
{
    Waiter *waiter = (Waiter *)raw;
    (void)aio_fifo_length(waiter->fifo); /* no lock is held, or this would never return */
    free(waiter);
}

static void
wait_to_be_freed(AioFifo *fifo, bool (*wait)(AioFifo *, AioFifoWaiter *))
{
    Waiter *waiter = malloc(sizeof *waiter);
    CHECK(waiter != NULL);
    init_waiter(waiter, fifo);
    waiter->waiter.notify = free_waiter;
    CHECK(!wait(fifo, &waiter->waiter));
}

static void
a_notified_waiter_is_the_callees_to_free(void)
{
    /* AddressSanitizer watches. */
    AioFifo fifo;
    AioFifoNode node;
    CHECK(aio_fifo_init(&fifo, 1) == 0);
    for (int i = 0; i < 4; i++) {
        wait_to_be_freed(&fifo, aio_fifo_wait_to_get);
    }
    put(&fifo, &node);
    aio_fifo_pass_on(&fifo);
    for (int i = 0; i < 4; i++) {
        wait_to_be_freed(&fifo, aio_fifo_wait_to_put);
    }
    CHECK(get(&fifo) == &node);
    aio_fifo_pass_on(&fifo);
    aio_fifo_shut_down(&fifo, NULL);
    aio_fifo_destroy(&fifo);
}

/* ---- threads that put and get, give up, and leave ------------------------- */

enum { EACH_SIDE = 3, MAX_NODES = 60 };

typedef struct Item {
    AioFifoNode node; /* first: a node is an item */
    int producer;
    int number;
    /* What became of it. Not atomic: the queue orders the accesses, and
     * ThreadSanitizer reports where it does not. */
    int puts;
    int gets;
    int drops;
} Item;

typedef struct Storm Storm;

/* A producer or a consumer. Number 0 of either side is steadfast; the others may
 * leave, so what they would keep from the rest is never made up for by them. */
typedef struct Actor {
    Storm *storm;
    bool produces;
    int index;
    pthread_t thread;
    uint32_t random_state;
    bool has_left;
    int forgot_in_time; /* for how often which race was met */
    int forgot_too_late;
    int passed_on;
    Item items[MAX_NODES];      /* a producer's */
    int last_number[EACH_SIDE]; /* a consumer's: what it had last from each producer */
} Actor;

struct Storm {
    AioFifo fifo;
    Barrier start;
    _Atomic int arrived; /* nodes that consumers got */
    int consumer_count;
    Actor producers[EACH_SIDE];
    Actor consumers[EACH_SIDE];
};

typedef struct Sleeper {
    AioFifoWaiter waiter; /* first: a waiter is a Sleeper */
    AioParker parker;
} Sleeper;

static void
wake_sleeper(AioFifoWaiter *raw)
{
    aio_unpark(&((Sleeper *)raw)->parker);
}

/* On the heap, so that AddressSanitizer sees a use after it was given back. */
static Sleeper *
new_sleeper(void)
{
    Sleeper *sleeper = malloc(sizeof *sleeper);
    CHECK(sleeper != NULL);
    CHECK(aio_parker_init(&sleeper->parker) == 0);
    aio_fifo_waiter_init(&sleeper->waiter, wake_sleeper);
    return sleeper;
}

static void
free_sleeper(Sleeper *sleeper)
{
    aio_parker_destroy(&sleeper->parker);
    free(sleeper);
}

static void
pass_on(Actor *actor)
{
    aio_fifo_pass_on(&actor->storm->fifo);
    actor->passed_on++;
}

/* Wait, registered, until notified (true), or give up (false). */
static bool
sleep_or_give_up(Actor *actor, Sleeper *sleeper)
{
    switch (next_random(&actor->random_state) % 6) {
    case 0:
        dawdle(&actor->random_state, 2000);
        break;
    case 1: {
        const int64_t patience_ns = next_random(&actor->random_state) % 30000;
        if (aio_park_until(&sleeper->parker, aio_clock_ns() + patience_ns)) {
            return true;
        }
        break;
    }
    case 2: /* cancelled when it was notified already */
        aio_park(&sleeper->parker);
        pass_on(actor);
        return false;
    default:
        aio_park(&sleeper->parker);
        return true;
    }
    if (aio_fifo_forget(&actor->storm->fifo, &sleeper->waiter)) {
        actor->forgot_in_time++;
        return false;
    }
    actor->forgot_too_late++;
    aio_park(&sleeper->parker); /* its notify is called, or will be */
    if (next_random(&actor->random_state) % 2 == 0) {
        return true;
    }
    pass_on(actor);
    return false;
}

static AioFifoResult
try_once(Actor *actor, AioFifoNode **node)
{
    AioFifo *fifo = &actor->storm->fifo;
    return actor->produces ? aio_fifo_try_put(fifo, *node) : aio_fifo_try_get(fifo, node);
}

/* Put or get one node. WOULD_BLOCK: it has given up, and leaves. */
static AioFifoResult
put_or_get(Actor *actor, AioFifoNode **node)
{
    AioFifo *fifo = &actor->storm->fifo;
    Sleeper *sleeper = new_sleeper();
    AioFifoResult result;

    while ((result = try_once(actor, node)) == AIO_FIFO_WOULD_BLOCK) {
        const bool go_on = actor->produces ? aio_fifo_wait_to_put(fifo, &sleeper->waiter)
                                           : aio_fifo_wait_to_get(fifo, &sleeper->waiter);
        if (go_on || sleep_or_give_up(actor, sleeper)) {
            continue;
        }
        if (actor->index > 0 && next_random(&actor->random_state) % 4 == 0) {
            break;
        }
        free_sleeper(sleeper);
        sleeper = new_sleeper(); /* the next wait is another one */
    }
    free_sleeper(sleeper);
    actor->has_left = result == AIO_FIFO_WOULD_BLOCK;
    return result;
}

static void *
produce(void *raw)
{
    Actor *actor = raw;
    barrier_wait(&actor->storm->start);
    for (int i = 0; i < MAX_NODES; i++) {
        Item *item = &actor->items[i];
        AioFifoNode *node = &item->node;
        item->producer = actor->index;
        item->number = i;
        item->puts = 1; /* before others see it */
        if (put_or_get(actor, &node) != AIO_FIFO_DONE) {
            item->puts = 0;
            break;
        }
        if (next_random(&actor->random_state) % 16 == 0) {
            dawdle(&actor->random_state, 10000); /* let the consumers fall asleep */
        }
    }
    return NULL;
}

static void *
consume(void *raw)
{
    Actor *actor = raw;
    AioFifoNode *node;
    barrier_wait(&actor->storm->start);
    while (put_or_get(actor, &node) == AIO_FIFO_DONE) {
        Item *item = (Item *)node;
        int *last = &actor->last_number[item->producer];
        item->gets++;
        /* Each consumer sees each producer's nodes in order, whoever has the ones
         * between: a single one sees them all. */
        CHECK(item->number > *last);
        CHECK(actor->storm->consumer_count > 1 || item->number == *last + 1);
        *last = item->number;
        atomic_fetch_add(&actor->storm->arrived, 1);
        if (next_random(&actor->random_state) % 16 == 0) {
            dawdle(&actor->random_state, 10000); /* let the producers fall asleep */
        }
    }
    return NULL;
}

static void
start_actor(Storm *storm, Actor *actor, int index, bool produces, uint32_t seed)
{
    actor->storm = storm;
    actor->produces = produces;
    actor->index = index;
    actor->random_state = seed * 16 + 2 * (uint32_t)index + produces;
    for (int i = 0; i < EACH_SIDE; i++) {
        actor->last_number[i] = -1;
    }
    actor->thread = start_thread(produces ? produce : consume, actor);
}

static Storm *
start_storm(size_t max_length, int consumers, uint32_t seed)
{
    Storm *storm = calloc(1, sizeof *storm);
    CHECK(storm != NULL);
    CHECK(aio_fifo_init(&storm->fifo, max_length) == 0);
    storm->consumer_count = consumers;
    barrier_init(&storm->start, EACH_SIDE + consumers + 1);
    for (int i = 0; i < EACH_SIDE; i++) {
        start_actor(storm, &storm->producers[i], i, true, seed);
    }
    for (int i = 0; i < consumers; i++) {
        start_actor(storm, &storm->consumers[i], i, false, seed);
    }
    barrier_wait(&storm->start);
    return storm;
}

static void
join_actors(Actor *actors, int count)
{
    for (int i = 0; i < count; i++) {
        join_thread(actors[i].thread);
    }
}

static void
wait_until_arrived(Storm *storm, int count)
{
    while (atomic_load(&storm->arrived) < count) {
        sched_yield();
    }
}

/* How many were put; only when the producers are joined. */
static int
count_puts(Storm *storm)
{
    int puts = 0;
    for (int i = 0; i < EACH_SIDE; i++) {
        for (int j = 0; j < MAX_NODES; j++) {
            puts += storm->producers[i].items[j].puts;
        }
    }
    return puts;
}

/* How often which race was met, over many storms. */
typedef struct Tally {
    int forgot_in_time;
    int forgot_too_late;
    int passed_on;
    int left;
    int cut_short; /* storms whose steadfast producer was shut down before its end */
    int dropped;
} Tally;

static void
add_to_tally(Tally *tally, const Actor *actor)
{
    tally->forgot_in_time += actor->forgot_in_time;
    tally->forgot_too_late += actor->forgot_too_late;
    tally->passed_on += actor->passed_on;
    tally->left += actor->has_left;
}

/* After the shut-down, with the producers joined: all consumers end, and each node that was put has
 * arrived or was dropped, once. */
static void
end_storm(Storm *storm, Tally *tally)
{
    join_actors(storm->consumers, storm->consumer_count);
    for (int i = 0; i < EACH_SIDE; i++) {
        Actor *producer = &storm->producers[i];
        for (int j = 0; j < MAX_NODES; j++) {
            const Item *item = &producer->items[j];
            CHECK(item->gets + item->drops == item->puts);
            tally->dropped += item->drops;
        }
        add_to_tally(tally, producer);
    }
    for (int i = 0; i < storm->consumer_count; i++) {
        add_to_tally(tally, &storm->consumers[i]);
    }
    tally->cut_short += storm->producers[0].items[MAX_NODES - 1].puts == 0;
    CHECK(!storm->producers[0].has_left && !storm->consumers[0].has_left);
    CHECK(aio_fifo_length(&storm->fifo) == 0);
    CHECK(aio_list_is_empty(&storm->fifo.getters));
    CHECK(aio_list_is_empty(&storm->fifo.putters));
    aio_fifo_destroy(&storm->fifo);
    barrier_destroy(&storm->start);
    free(storm);
}

static const size_t BOUNDS[] = {1, 0, 2, 7};
enum { BOUNDS_COUNT = sizeof BOUNDS / sizeof *BOUNDS };

/* A lost wake-up shows here: the steadfast producer or consumer sleeps for ever, as
 * nobody shuts the queue down before everything has arrived. */
static void
run_until_all_has_arrived(int consumers, int rounds)
{
    Tally tally = {0};
    for (int round = 0; round < rounds; round++) {
        Storm *storm = start_storm(BOUNDS[round % BOUNDS_COUNT], consumers, (uint32_t)round + 1);
        join_actors(storm->producers, EACH_SIDE);
        wait_until_arrived(storm, count_puts(storm));
        aio_fifo_shut_down(&storm->fifo, NULL);
        end_storm(storm, &tally);
    }
    CHECK(tally.cut_short == 0);
    EXPECT_MET(tally.forgot_in_time > 0);
    EXPECT_MET(tally.forgot_too_late > 0);
    EXPECT_MET(tally.passed_on > 0);
    EXPECT_MET(tally.left > 0);
}

static void
whoever_gives_up_keeps_nothing_from_the_others(void)
{
    run_until_all_has_arrived(EACH_SIDE, 600);
}

static void
with_one_consumer_each_producers_nodes_come_in_order(void)
{
    run_until_all_has_arrived(1, 300);
}

static void
note_dropped(AioList *dropped)
{
    int last_number[EACH_SIDE] = {-1, -1, -1};
    AioListNode *link;
    while ((link = aio_list_pop_first(dropped)) != NULL) {
        Item *item = (Item *)aio_container_of(link, AioFifoNode, link);
        item->drops++;
        CHECK(item->number > last_number[item->producer]);
        last_number[item->producer] = item->number;
    }
}

/* Shut down at a random moment, with or without dropping what is there. */
static void
run_until_shut_down(bool drop)
{
    Tally tally = {0};
    uint32_t random_state = 61;
    for (int round = 0; round < 400; round++) {
        AioList dropped;
        Storm *storm = start_storm(BOUNDS[round % BOUNDS_COUNT], EACH_SIDE, (uint32_t)round + 1);
        /* The steadfast producer's nodes are certain to come. */
        wait_until_arrived(storm, (int)(next_random(&random_state) % MAX_NODES));
        dawdle(&random_state, 3000);
        aio_fifo_shut_down(&storm->fifo, drop ? &dropped : NULL);
        if (drop) {
            note_dropped(&dropped);
        }
        join_actors(storm->producers, EACH_SIDE);
        end_storm(storm, &tally);
    }
    CHECK(drop || tally.dropped == 0);
    EXPECT_MET(tally.cut_short > 0);
    EXPECT_MET(!drop || tally.dropped > 0);
}

static void
after_shut_down_everybody_ends_and_all_that_was_put_arrives(void)
{
    run_until_shut_down(false);
}

static void
after_shut_down_everybody_ends_and_what_has_not_arrived_is_dropped(void)
{
    run_until_shut_down(true);
}

int
main(void)
{
    RUN(nodes_are_got_in_the_order_of_putting);
    RUN(a_full_queue_takes_no_node_and_an_empty_one_gives_none);
    RUN(waiting_is_over_at_once_where_trying_is_worth_while_and_registers_nothing);
    RUN(without_a_bound_nobody_waits_to_put);
    RUN(each_put_notifies_the_getter_that_came_first);
    RUN(each_get_notifies_the_putter_that_came_first);
    RUN(an_attempt_that_fails_notifies_nobody);
    RUN(a_getter_that_found_nothing_waits_before_those_who_came_later);
    RUN(a_putter_that_found_no_room_waits_before_those_who_came_later);
    RUN(a_forgotten_waiter_is_not_notified_and_the_next_one_is);
    RUN(forgetting_a_notified_waiter_says_so);
    RUN(passing_on_notifies_the_next_getter_if_there_is_a_node);
    RUN(passing_on_notifies_the_next_putter_if_there_is_room);
    RUN(shut_down_notifies_every_getter);
    RUN(shut_down_notifies_every_putter_and_lets_the_nodes_be_got);
    RUN(shut_down_hands_out_the_nodes_to_drop_in_their_order);
    RUN(a_notified_waiter_is_the_callees_to_free);
    RUN(whoever_gives_up_keeps_nothing_from_the_others);
    RUN(with_one_consumer_each_producers_nodes_come_in_order);
    RUN(after_shut_down_everybody_ends_and_all_that_was_put_arrives);
    RUN(after_shut_down_everybody_ends_and_what_has_not_arrived_is_dropped);
    return 0;
}
