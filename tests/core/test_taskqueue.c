/* test_taskqueue.c: the contract of core/taskqueue.h.
 *
 * The concurrent tests run with a spin time of zero, where an idle consumer
 * parks almost at once, and with the pool's own, where it is often met
 * spinning: the two take different ways through push() and pop().
 */
#include "core/taskqueue.h"

#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "core/clock.h"
#include "core/platform.h"

static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

static const int64_t SPIN_TIMES[] = {0, 50 * 1000};
enum { SPIN_TIMES_COUNT = sizeof SPIN_TIMES / sizeof *SPIN_TIMES };

/* The next task, or NULL from a closed queue, for who is never nudged. */
static AioTaskNode *
pop_task(AioTaskQueue *queue, AioConsumer *consumer)
{
    AioTaskNode *node = NULL;
    const AioPopResult result = aio_taskqueue_pop(queue, consumer, AIO_NEVER, &node);
    CHECK(result == (node != NULL ? AIO_POP_TASK : AIO_POP_CLOSED));
    return node;
}

/* ---- one thread ---------------------------------------------------------- */

static void
tasks_are_popped_in_the_order_of_pushing(void)
{
    enum { TASKS = 5 };
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[TASKS];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < TASKS; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) != AIO_PUSH_CLOSED);
    }
    for (int i = 0; i < TASKS; i++) {
        /* The two ways of popping take from the same end. */
        AioTaskNode *node =
            i % 2 == 0 ? pop_task(&queue, &consumer) : aio_taskqueue_try_pop(&queue, NULL);
        CHECK(node == &nodes[i]);
    }
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
try_pop_from_an_empty_queue_returns_at_once(void)
{
    AioTaskQueue queue;
    CHECK(aio_taskqueue_init(&queue, LONG_NS) == 0);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == NULL);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == NULL);
    aio_taskqueue_destroy(&queue);
}

static void
a_push_counts_on_a_consumer_that_is_expected_for_one_task(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[4];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < 4; i++) {
        aio_task_node_init(&nodes[i]);
    }
    aio_taskqueue_expect(&queue, &consumer);
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_COVERED);
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) == AIO_PUSH_WAITS);
    CHECK(aio_taskqueue_try_pop(&queue, &consumer) == &nodes[0]);
    CHECK(aio_taskqueue_push(&queue, &nodes[2]) == AIO_PUSH_WAITS); /* it has one to do */
    CHECK(pop_task(&queue, &consumer) == &nodes[1]);
    CHECK(pop_task(&queue, &consumer) == &nodes[2]);
    /* It has looked, found nothing, and will look again. */
    aio_taskqueue_expect(&queue, &consumer);
    CHECK(aio_taskqueue_try_pop(&queue, &consumer) == NULL);
    CHECK(aio_taskqueue_push(&queue, &nodes[3]) == AIO_PUSH_COVERED);
    CHECK(pop_task(&queue, &consumer) == &nodes[3]);
    /* Dismissed in between, it is counted on no more. */
    aio_taskqueue_expect(&queue, &consumer);
    CHECK(!aio_taskqueue_dismiss(&queue, &consumer));
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_WAITS);
    aio_taskqueue_expect(&queue, &consumer);
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) == AIO_PUSH_WAITS);
    CHECK(queue.waking == 0);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
remove_takes_out_a_queued_task_and_no_other(void)
{
    enum { TASKS = 4 };
    AioTaskQueue queue;
    AioTaskNode nodes[TASKS], refused;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    aio_task_node_init(&refused);
    for (int i = 0; i < TASKS; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(!aio_taskqueue_remove(&queue, &nodes[i])); /* not pushed yet */
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) != AIO_PUSH_CLOSED);
    }
    CHECK(aio_taskqueue_remove(&queue, &nodes[1]));
    CHECK(!aio_taskqueue_remove(&queue, &nodes[1]));
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[0]);
    CHECK(!aio_taskqueue_remove(&queue, &nodes[0]));
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) !=
          AIO_PUSH_CLOSED); /* a removed one may come again */
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_push(&queue, &refused) == AIO_PUSH_CLOSED);
    CHECK(!aio_taskqueue_remove(&queue, &refused));
    CHECK(aio_taskqueue_remove(&queue, &nodes[3])); /* from a closed queue as well */
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[2]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[1]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == NULL);
    aio_taskqueue_destroy(&queue);
}

static void
a_closed_queue_refuses_pushes_and_is_still_emptied(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[2], late;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) != AIO_PUSH_CLOSED);
    }
    aio_task_node_init(&late);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_push(&queue, &late) == AIO_PUSH_CLOSED);
    CHECK(pop_task(&queue, &consumer) == &nodes[0]);
    aio_taskqueue_close(&queue);
    CHECK(pop_task(&queue, &consumer) == &nodes[1]);
    CHECK(pop_task(&queue, &consumer) == NULL);
    CHECK(pop_task(&queue, &consumer) == NULL);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_push(&queue, &late) == AIO_PUSH_CLOSED);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static AioPopResult
result_of_pop(AioTaskQueue *queue, AioConsumer *consumer)
{
    AioTaskNode *node;
    return aio_taskqueue_pop(queue, consumer, AIO_NEVER, &node);
}

static void
nudges_that_come_before_the_wait_end_it_together(void)
{
    AioTaskQueue queue;
    AioConsumer consumer, another;
    AioTaskNode node;
    CHECK(aio_taskqueue_init(&queue, LONG_NS) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    CHECK(aio_consumer_init(&another) == 0);
    aio_task_node_init(&node);
    for (int i = 0; i < 3; i++) {
        aio_taskqueue_nudge(&queue, &consumer);
        aio_taskqueue_nudge(&queue, &consumer);
        CHECK(result_of_pop(&queue, &consumer) == AIO_POP_NUDGED);
    }
    aio_taskqueue_nudge(&queue, &consumer);
    aio_taskqueue_nudge(&queue, &consumer);
    aio_taskqueue_await_nudge(&queue, &consumer);
    aio_taskqueue_nudge(&queue, &another); /* nobody else's */
    aio_taskqueue_close(&queue);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_CLOSED);
    CHECK(!aio_park_until(&consumer.parker, 0)); /* no token is left that ends a later park */
    aio_consumer_destroy(&another);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
a_task_comes_before_a_nudge_and_that_before_the_closing(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    aio_taskqueue_nudge(&queue, &consumer);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) != AIO_PUSH_CLOSED);
    }
    aio_taskqueue_close(&queue);
    CHECK(pop_task(&queue, &consumer) == &nodes[0]);
    aio_taskqueue_nudge(&queue, &consumer); /* while it is busy */
    CHECK(pop_task(&queue, &consumer) == &nodes[1]);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_NUDGED);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_CLOSED);
    aio_taskqueue_nudge(&queue, &consumer);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_NUDGED);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_CLOSED);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
awaiting_a_nudge_leaves_tasks_and_the_closing_alone(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode node;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    aio_task_node_init(&node);
    CHECK(aio_taskqueue_push(&queue, &node) != AIO_PUSH_CLOSED);
    aio_taskqueue_close(&queue);
    aio_taskqueue_nudge(&queue, &consumer);
    aio_taskqueue_await_nudge(&queue, &consumer);
    CHECK(pop_task(&queue, &consumer) == &node);
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_CLOSED);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
a_push_does_not_count_on_whom_a_nudge_woke(void)
{
    /* Two consumers as they are when they park, but here they cannot come back for the
     * lock by themselves. */
    AioTaskQueue queue;
    AioConsumer consumers[2];
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_consumer_init(&consumers[i]) == 0);
        aio_list_append(&queue.idle, &consumers[i].idle_link);
    }
    aio_taskqueue_nudge(&queue, &consumers[1]);
    CHECK(aio_park_until(&consumers[1].parker, 0));
    CHECK(queue.waking == 0);
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) != AIO_PUSH_CLOSED);
    CHECK(aio_park_until(&consumers[0].parker, 0));
    CHECK(queue.waking == 1 && consumers[0].is_waking);
    /* Whom a push woke is not woken again, and still is counted on. */
    aio_taskqueue_nudge(&queue, &consumers[0]);
    CHECK(!aio_park_until(&consumers[0].parker, 0));
    CHECK(queue.waking == 1 && consumers[0].is_waking);
    for (int i = 0; i < 2; i++) {
        aio_consumer_destroy(&consumers[i]);
    }
    aio_taskqueue_destroy(&queue);
}

static void
a_task_for_whoever_idles_is_refused_where_nobody_does(void)
{
    /* As above: a consumer that parks, and does not come back by itself. */
    AioTaskQueue queue;
    AioConsumer idle;
    AioTaskNode early, late, refused;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&idle) == 0);
    aio_task_node_init(&early);
    aio_task_node_init(&late);
    aio_task_node_init(&refused);
    CHECK(!aio_taskqueue_push_if_idle(&queue, &refused)); /* nobody is there at all */
    aio_list_append(&queue.idle, &idle.idle_link);
    CHECK(aio_taskqueue_push_if_idle(&queue, &early));
    CHECK(aio_park_until(&idle.parker, 0));               /* it is woken for that */
    CHECK(!aio_taskqueue_push_if_idle(&queue, &refused)); /* now it has something to do */
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &early);
    CHECK(aio_taskqueue_push_if_idle(&queue, &early)); /* it still is about to look */
    CHECK(!aio_taskqueue_push_if_idle(&queue, &refused));
    CHECK(aio_taskqueue_remove(&queue, &early));

    /* Before what was pushed earlier, but only if there is one more who idles. */
    AioConsumer second;
    CHECK(aio_consumer_init(&second) == 0);
    CHECK(aio_taskqueue_push(&queue, &late) != AIO_PUSH_CLOSED);
    CHECK(!aio_taskqueue_push_if_idle(&queue, &refused));
    aio_list_append(&queue.idle, &second.idle_link);
    CHECK(aio_taskqueue_push_if_idle(&queue, &early));
    CHECK(aio_park_until(&second.parker, 0));
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &early);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &late);
    aio_taskqueue_close(&queue);
    CHECK(!aio_taskqueue_push_if_idle(&queue, &refused));
    aio_consumer_destroy(&second);
    aio_consumer_destroy(&idle);
    aio_taskqueue_destroy(&queue);
}

/* ---- priorities ------------------------------------------------------------ */

static void
push_with_priority(AioTaskQueue *queue, AioTaskNode *node, int64_t priority)
{
    aio_task_node_init(node);
    node->priority = priority;
    CHECK(aio_taskqueue_push(queue, node) != AIO_PUSH_CLOSED);
}

static void
lower_priorities_come_first_and_equals_in_the_order_of_pushing(void)
{
    static const int64_t PRIORITIES[] = {0, 7, -2, 0, INT64_MAX, 7, -2, INT64_MIN, 0, -1};
    static const int EXPECTED[] = {7, 2, 6, 9, 0, 3, 8, 1, 5, 4};
    enum { TASKS = sizeof PRIORITIES / sizeof *PRIORITIES };
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[TASKS];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < TASKS; i++) {
        push_with_priority(&queue, &nodes[i], PRIORITIES[i]);
        CHECK(aio_taskqueue_length(&queue) == i + 1);
    }
    for (int i = 0; i < TASKS; i++) {
        AioTaskNode *node =
            i % 2 == 0 ? pop_task(&queue, &consumer) : aio_taskqueue_try_pop(&queue, NULL);
        CHECK(node == &nodes[EXPECTED[i]]);
        CHECK(aio_taskqueue_length(&queue) == TASKS - i - 1);
    }
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
remove_takes_out_a_task_of_any_priority(void)
{
    enum { TASKS = 6 };
    AioTaskQueue queue;
    AioTaskNode nodes[TASKS];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < TASKS; i++) {
        push_with_priority(&queue, &nodes[i], i % 3 - 1);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(aio_taskqueue_remove(&queue, &nodes[i]));
        CHECK(!aio_taskqueue_remove(&queue, &nodes[i]));
        CHECK(aio_taskqueue_length(&queue) == TASKS - i - 1);
    }
    push_with_priority(&queue, &nodes[0], 1); /* a removed one may come with another one */
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[3]);
    CHECK(!aio_taskqueue_remove(&queue, &nodes[3]));
    CHECK(aio_taskqueue_remove(&queue, &nodes[5])); /* from a closed queue as well */
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[4]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[0]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == NULL);
    aio_taskqueue_destroy(&queue);
}

static void
a_task_for_whoever_idles_comes_before_every_priority(void)
{
    AioTaskQueue queue;
    AioConsumer consumers[4];
    AioTaskNode nodes[2], first, second;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < 4; i++) {
        CHECK(aio_consumer_init(&consumers[i]) == 0);
        aio_list_append(&queue.idle, &consumers[i].idle_link);
    }
    push_with_priority(&queue, &nodes[0], INT64_MIN);
    push_with_priority(&queue, &nodes[1], 0);
    aio_task_node_init(&first);
    first.priority = 3;
    aio_task_node_init(&second);
    CHECK(aio_taskqueue_push_if_idle(&queue, &second));
    CHECK(aio_taskqueue_push_if_idle(&queue, &first));
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &first);
    CHECK(aio_taskqueue_remove(&queue, &second));
    CHECK(aio_taskqueue_push_if_idle(&queue, &second));
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &second);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[0]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[1]);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == NULL);
    for (int i = 0; i < 4; i++) {
        aio_consumer_destroy(&consumers[i]);
    }
    aio_taskqueue_destroy(&queue);
}

/* ---- whether somebody is free, and dismissals ------------------------------ */

static void
push_tells_whether_somebody_is_free(void)
{
    /* Consumers that are where the test puts them. */
    AioTaskQueue queue;
    AioConsumer idle;
    AioTaskNode nodes[4];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&idle) == 0);
    for (int i = 0; i < 4; i++) {
        aio_task_node_init(&nodes[i]);
        nodes[i].priority = i % 2;
    }
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_WAITS);
    CHECK(aio_taskqueue_try_pop(&queue, NULL) == &nodes[0]);

    queue.spinning = 1;
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_COVERED);
    aio_list_append(&queue.idle, &idle.idle_link);
    CHECK(!aio_park_until(&idle.parker, 0)); /* who idles was not woken for nothing */
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) == AIO_PUSH_COVERED);
    CHECK(aio_park_until(&idle.parker, 0));
    CHECK(aio_taskqueue_push(&queue, &nodes[2]) == AIO_PUSH_WAITS);
    CHECK(aio_taskqueue_remove(&queue, &nodes[0]));
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_WAITS);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_push(&queue, &nodes[3]) == AIO_PUSH_CLOSED);
    aio_consumer_destroy(&idle);
    aio_taskqueue_destroy(&queue);
}

static void
the_dismissal_comes_before_all_other_results_and_for_good(void)
{
    AioTaskQueue queue;
    AioConsumer dismissed, another;
    AioTaskNode node;
    CHECK(aio_taskqueue_init(&queue, LONG_NS) == 0);
    CHECK(aio_consumer_init(&dismissed) == 0);
    CHECK(aio_consumer_init(&another) == 0);
    aio_task_node_init(&node);
    CHECK(!aio_taskqueue_dismiss(&queue, &dismissed)); /* nothing is queued */
    CHECK(!aio_taskqueue_dismiss(&queue, &dismissed));
    CHECK(result_of_pop(&queue, &dismissed) == AIO_POP_DISMISSED);
    CHECK(aio_taskqueue_push(&queue, &node) == AIO_PUSH_WAITS);
    aio_taskqueue_nudge(&queue, &dismissed);
    CHECK(result_of_pop(&queue, &dismissed) == AIO_POP_DISMISSED);
    CHECK(aio_taskqueue_try_pop(&queue, &dismissed) == NULL);
    aio_taskqueue_close(&queue);
    CHECK(result_of_pop(&queue, &dismissed) == AIO_POP_DISMISSED);
    aio_taskqueue_await_nudge(&queue, &dismissed);           /* which it had not been told of */
    CHECK(aio_taskqueue_try_pop(&queue, &another) == &node); /* nobody else is dismissed */
    CHECK(result_of_pop(&queue, &another) == AIO_POP_CLOSED);
    CHECK(!aio_park_until(&dismissed.parker, 0));
    aio_consumer_destroy(&another);
    aio_consumer_destroy(&dismissed);
    aio_taskqueue_destroy(&queue);
}

static void
nobody_counts_on_whom_is_dismissed_while_it_sleeps(void)
{
    /* Consumers as they are when they park, which do not come back by themselves. */
    AioTaskQueue queue;
    AioConsumer consumers[2];
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_consumer_init(&consumers[i]) == 0);
        aio_list_append(&queue.idle, &consumers[i].idle_link);
    }
    CHECK(!aio_taskqueue_dismiss(&queue, &consumers[1]));
    CHECK(aio_park_until(&consumers[1].parker, 0)); /* woken, to learn of it; once */
    CHECK(!aio_taskqueue_dismiss(&queue, &consumers[1]));
    CHECK(!aio_park_until(&consumers[1].parker, 0));
    CHECK(!aio_park_until(&consumers[0].parker, 0)); /* and nobody else */
    CHECK(queue.waking == 0);
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_COVERED);
    CHECK(aio_park_until(&consumers[0].parker, 0));
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) == AIO_PUSH_WAITS);
    CHECK(!aio_park_until(&consumers[1].parker, 0));
    for (int i = 0; i < 2; i++) {
        aio_consumer_destroy(&consumers[i]);
    }
    aio_taskqueue_destroy(&queue);
}

static void
another_is_woken_for_the_task_of_whom_is_dismissed_while_it_wakes(void)
{
    AioTaskQueue queue;
    AioConsumer consumers[2];
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_consumer_init(&consumers[i]) == 0);
        aio_list_append(&queue.idle, &consumers[i].idle_link);
    }
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_COVERED);
    CHECK(aio_park_until(&consumers[1].parker, 0));
    CHECK(!aio_taskqueue_dismiss(&queue, &consumers[1])); /* there is one who takes over */
    CHECK(aio_park_until(&consumers[0].parker, 0));
    CHECK(!aio_park_until(&consumers[1].parker, 0)); /* it has had its token */
    CHECK(queue.waking == 1 && consumers[0].is_waking && !consumers[1].is_waking);
    CHECK(aio_taskqueue_dismiss(&queue, &consumers[0])); /* nobody is left */
    CHECK(queue.waking == 0 && !consumers[0].is_waking);
    CHECK(aio_taskqueue_push(&queue, &nodes[1]) == AIO_PUSH_WAITS);
    /* One whose task has been taken away meanwhile leaves nobody anything. */
    CHECK(aio_taskqueue_remove(&queue, &nodes[0]));
    CHECK(aio_taskqueue_remove(&queue, &nodes[1]));
    CHECK(!aio_taskqueue_dismiss(&queue, &consumers[0]));
    for (int i = 0; i < 2; i++) {
        aio_consumer_destroy(&consumers[i]);
    }
    aio_taskqueue_destroy(&queue);
}

static void
to_dismiss_a_busy_consumer_tells_whether_its_tasks_wait(void)
{
    AioTaskQueue queue;
    AioConsumer busy[3];
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(aio_consumer_init(&busy[i]) == 0);
    }
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        nodes[i].priority = i;
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) == AIO_PUSH_WAITS);
    }
    CHECK(aio_taskqueue_dismiss(&queue, &busy[0]));
    queue.spinning = 1; /* somebody comes */
    CHECK(aio_taskqueue_dismiss(&queue, &busy[1]));
    queue.spinning = 2;
    CHECK(!aio_taskqueue_dismiss(&queue, &busy[2]));
    for (int i = 0; i < 3; i++) {
        CHECK(aio_taskqueue_try_pop(&queue, &busy[i]) == NULL);
        aio_consumer_destroy(&busy[i]);
    }
    aio_taskqueue_destroy(&queue);
}

static void
who_would_go_because_it_is_idle_stays_for_a_queued_task(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[2];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        nodes[i].priority = i;
        CHECK(aio_taskqueue_push(&queue, &nodes[i]) == AIO_PUSH_WAITS);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(!aio_taskqueue_dismiss_idle(&queue, &consumer));
        CHECK(pop_task(&queue, &consumer) == &nodes[i]);
    }
    CHECK(aio_taskqueue_push(&queue, &nodes[0]) == AIO_PUSH_WAITS);
    aio_taskqueue_close(&queue);
    CHECK(!aio_taskqueue_dismiss_idle(&queue, &consumer));
    CHECK(pop_task(&queue, &consumer) == &nodes[0]);
    CHECK(aio_taskqueue_dismiss_idle(&queue, &consumer));
    CHECK(result_of_pop(&queue, &consumer) == AIO_POP_DISMISSED);
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

/* ---- deadlines -------------------------------------------------------------- */

static void
the_end_of_the_time_comes_after_all_other_results(void)
{
    const int64_t deadlines[] = {0, 1, aio_clock_ns()};
    for (int i = 0; i < 3; i++) {
        const int64_t deadline = deadlines[i];
        AioTaskQueue queue;
        AioConsumer consumer;
        AioTaskNode node, *popped = NULL;
        CHECK(aio_taskqueue_init(&queue, i == 0 ? LONG_NS : 0) == 0);
        CHECK(aio_consumer_init(&consumer) == 0);
        aio_task_node_init(&node);
        CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &popped) == AIO_POP_TIMED_OUT);
        CHECK(popped == NULL);
        CHECK(aio_taskqueue_push(&queue, &node) == AIO_PUSH_WAITS); /* it is not idle any more */
        aio_taskqueue_nudge(&queue, &consumer);
        CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &popped) == AIO_POP_TASK);
        CHECK(popped == &node);
        CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &popped) == AIO_POP_NUDGED);
        CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &popped) == AIO_POP_TIMED_OUT);
        aio_taskqueue_close(&queue);
        CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &popped) == AIO_POP_CLOSED);
        CHECK(!aio_park_until(&consumer.parker, 0));
        aio_consumer_destroy(&consumer);
        aio_taskqueue_destroy(&queue);
    }
}

static void
a_wait_lasts_until_its_deadline_spinning_or_parked(void)
{
    static const int64_t SPINS[] = {0, 50 * 1000, LONG_NS};
    for (int i = 0; i < 3; i++) {
        AioTaskQueue queue;
        AioConsumer consumer;
        AioTaskNode *node;
        CHECK(aio_taskqueue_init(&queue, SPINS[i]) == 0);
        CHECK(aio_consumer_init(&consumer) == 0);
        for (int64_t wait = 1000; wait <= 10 * MS; wait *= 10) {
            const int64_t deadline = aio_clock_ns() + wait;
            CHECK(aio_taskqueue_pop(&queue, &consumer, deadline, &node) == AIO_POP_TIMED_OUT);
            CHECK(aio_clock_ns() >= deadline);
            CHECK(aio_list_is_empty(&queue.idle));
        }
        aio_consumer_destroy(&consumer);
        aio_taskqueue_destroy(&queue);
    }
}

/* ---- consumers in threads ------------------------------------------------ */

enum { MAX_WORKERS = 4 };

typedef struct Work Work;

/* A task knows what to do; what its fields mean is each test's own business. */
typedef struct Task {
    AioTaskNode node; /* first: a node is a task */
    void (*run)(struct Task *task, int worker);
    void *context;
    int pusher;
    int number;
    /* How the task came out of the queue. Not atomic: the queue orders the
     * accesses, and ThreadSanitizer reports where it does not. */
    int pops;
} Task;

typedef struct Worker {
    Work *work;
    int index;
    pthread_t thread;
    AioConsumer *consumer;
    int64_t cpu_ns; /* the processor time that the thread used; after its end */
} Worker;

struct Work {
    AioTaskQueue queue;
    void (*when_nudged)(Worker *worker); /* or NULL; called in the worker's thread */
    void *nudge_context;
    int worker_count;
    Worker workers[MAX_WORKERS];
};

static void *
work_until_close(void *raw)
{
    Worker *worker = raw;
    AioTaskQueue *queue = &worker->work->queue;
    AioTaskNode *node;
    /* On the heap and freed here, as a consumer need not outlive its last pop. */
    worker->consumer = malloc(sizeof *worker->consumer);
    CHECK(worker->consumer != NULL);
    CHECK(aio_consumer_init(worker->consumer) == 0);
    for (;;) {
        const AioPopResult result = aio_taskqueue_pop(queue, worker->consumer, AIO_NEVER, &node);
        if (result == AIO_POP_CLOSED) {
            break;
        }
        if (result == AIO_POP_NUDGED) {
            CHECK(worker->work->when_nudged != NULL);
            worker->work->when_nudged(worker);
            continue;
        }
        Task *task = (Task *)node;
        task->pops++;
        if (task->run != NULL) {
            task->run(task, worker->index);
        }
    }
    aio_consumer_destroy(worker->consumer);
    free(worker->consumer);
    worker->cpu_ns = thread_cpu_ns();
    return NULL;
}

static void
start_work_with_nudges(Work *work, int workers, int64_t spin_ns, void (*when_nudged)(Worker *),
                       void *nudge_context)
{
    CHECK(aio_taskqueue_init(&work->queue, spin_ns) == 0);
    work->when_nudged = when_nudged;
    work->nudge_context = nudge_context;
    work->worker_count = workers;
    for (int i = 0; i < workers; i++) {
        work->workers[i] = (Worker){.work = work, .index = i};
        work->workers[i].thread = start_thread(work_until_close, &work->workers[i]);
    }
}

static void
start_work(Work *work, int workers, int64_t spin_ns)
{
    start_work_with_nudges(work, workers, spin_ns, NULL, NULL);
}

/* All workers come back from the queue, or this never does. */
static void
join_work(Work *work)
{
    for (int i = 0; i < work->worker_count; i++) {
        join_thread(work->workers[i].thread);
    }
    CHECK(aio_taskqueue_try_pop(&work->queue, NULL) == NULL);
    /* The accounts are even. Where they drift, work is still done, but a push
     * wakes too many workers, or after a while too few. */
    CHECK(aio_taskqueue_length(&work->queue) == 0);
    CHECK(work->queue.waking == 0);
    CHECK(work->queue.spinning == 0);
    CHECK(aio_list_is_empty(&work->queue.idle));
    aio_taskqueue_destroy(&work->queue);
}

static void
end_work(Work *work)
{
    aio_taskqueue_close(&work->queue);
    join_work(work);
}

/* Wait until `count` workers are parked. */
static void
wait_until_parked(Work *work, int count)
{
    int parked;
    do {
        sched_yield();
        parked = 0;
        pthread_mutex_lock(&work->queue.lock);
        AioListNode *head = &work->queue.idle.head;
        for (AioListNode *link = head->next; link != head; link = link->next) {
            parked++;
        }
        pthread_mutex_unlock(&work->queue.lock);
    } while (parked < count);
}

static Task
new_task(void (*run)(Task *, int), void *context)
{
    Task task = {.run = run, .context = context, .pusher = 0, .number = 0, .pops = 0};
    return task;
}

static void
push_new(Work *work, Task *task, void (*run)(Task *, int), void *context)
{
    *task = new_task(run, context);
    aio_task_node_init(&task->node);
    CHECK(aio_taskqueue_push(&work->queue, &task->node) != AIO_PUSH_CLOSED);
}

/* Who is told by tasks that they have run. */
typedef struct Done {
    AioParker parker;
    _Atomic int left; /* the task that brings it to zero unparks */
    int last_worker;
} Done;

static void
finish(Task *task, int worker)
{
    Done *done = task->context;
    if (atomic_fetch_sub(&done->left, 1) == 1) {
        done->last_worker = worker;
        aio_unpark(&done->parker);
    }
}

/* A lost wake-up shows here: the task lies in the queue while workers sleep. */
static void
wait_until_done(Done *done)
{
    CHECK(aio_park_until(&done->parker, aio_clock_ns() + LONG_NS));
}

static void
an_idle_worker_spins_for_a_moment_only(void)
{
    Work work;
    start_work(&work, 2, 50 * 1000);
    const struct timespec while_idle = {.tv_nsec = 200 * MS};
    nanosleep(&while_idle, NULL);
    end_work(&work);
    for (int i = 0; i < 2; i++) {
        CHECK(work.workers[i].cpu_ns < 50 * MS);
    }
}

static void
close_wakes_every_parked_worker(void)
{
    for (int round = 0; round < 200; round++) {
        Work work;
        start_work(&work, MAX_WORKERS, SPIN_TIMES[round % SPIN_TIMES_COUNT]);
        if (round % 4 < 2) {
            wait_until_parked(&work, MAX_WORKERS);
        }
        end_work(&work);
    }
}

static void
the_worker_that_fell_idle_last_is_woken_first(void)
{
    Work work;
    Task task;
    Done done = {.left = 0};
    CHECK(aio_parker_init(&done.parker) == 0);
    start_work(&work, 3, 0);
    for (int round = 0; round < 200; round++) {
        /* The one at the list's end; the other two are never woken at all. */
        wait_until_parked(&work, 3);
        AioConsumer *last = aio_container_of(work.queue.idle.head.prev, AioConsumer, idle_link);
        atomic_store(&done.left, 1);
        push_new(&work, &task, finish, &done);
        wait_until_done(&done);
        CHECK(work.workers[done.last_worker].consumer == last);
    }
    end_work(&work);
    aio_parker_destroy(&done.parker);
}

static void
a_single_task_never_lies_while_workers_sleep(void)
{
    enum { ROUNDS = 5000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task task;
        Done done = {.left = 0};
        uint32_t random_state = 41;
        CHECK(aio_parker_init(&done.parker) == 0);
        start_work(&work, 3, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            /* Find the workers at work's end, spinning, about to park, parked. */
            dawdle(&random_state, round % 4 == 0 ? 60000 : 2000);
            atomic_store(&done.left, 1);
            push_new(&work, &task, finish, &done);
            wait_until_done(&done);
            CHECK(task.pops == 1);
        }
        end_work(&work);
        aio_parker_destroy(&done.parker);
    }
}

/* A task that goes on only when all the tasks of its group are running. */
typedef struct Group {
    Barrier all_running;
    Done done;
} Group;

static void
meet(Task *task, int worker)
{
    Group *group = task->context;
    barrier_wait(&group->all_running);
    Task finisher = new_task(NULL, &group->done);
    finish(&finisher, worker);
}

static void
as_many_tasks_run_at_once_as_there_are_workers(void)
{
    enum { ROUNDS = 2000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task tasks[MAX_WORKERS];
        Group group = {.done = {.left = 0}};
        uint32_t random_state = 43;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        barrier_init(&group.all_running, MAX_WORKERS);
        start_work(&work, MAX_WORKERS, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            atomic_store(&group.done.left, MAX_WORKERS);
            for (int j = 0; j < MAX_WORKERS; j++) {
                push_new(&work, &tasks[j], meet, &group);
                dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
            }
            wait_until_done(&group.done); /* one worker too few, and they wait for ever */
            dawdle(&random_state, round % 3 == 0 ? 30000 : 0);
        }
        end_work(&work);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&group.done.parker);
    }
}

static void
a_removed_task_takes_nobodys_wake_up(void)
{
    /* The first task wakes a worker, or counts on a spinning one, and is gone
     * when that looks; the two that follow need two workers all the same. */
    enum { ROUNDS = 3000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task removed, tasks[2];
        Group group = {.done = {.left = 0}};
        Done first = {.left = 0};
        uint32_t random_state = 47;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        CHECK(aio_parker_init(&first.parker) == 0);
        barrier_init(&group.all_running, 2);
        start_work(&work, 2, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            atomic_store(&first.left, 1);
            push_new(&work, &removed, finish, &first);
            dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
            const bool was_removed = aio_taskqueue_remove(&work.queue, &removed.node);
            atomic_store(&group.done.left, 2);
            push_new(&work, &tasks[0], meet, &group);
            push_new(&work, &tasks[1], meet, &group);
            wait_until_done(&group.done);
            if (!was_removed) {
                wait_until_done(&first);
            }
            CHECK(removed.pops == !was_removed);
        }
        end_work(&work);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&first.parker);
        aio_parker_destroy(&group.done.parker);
    }
}

/* ---- several pushers, removes, and a close at a random moment ------------- */

enum { PUSHERS = 3, MAX_TASKS = 400, PRIORITIES = 3 };

typedef struct Storm Storm;

typedef struct StormPusher {
    Storm *storm;
    int index;
    pthread_t thread;
    int task_count;
    Task tasks[MAX_TASKS];
    bool removed[MAX_TASKS];
    bool refused[MAX_TASKS];
} StormPusher;

struct Storm {
    Work work;
    Barrier start;
    StormPusher pushers[PUSHERS];
    _Atomic int popped;
    /* of the pusher's tasks of that priority, what that worker had last */
    int last_number[MAX_WORKERS][PUSHERS][PRIORITIES];
};

static void
check_order(Task *task, int worker)
{
    Storm *storm = task->context;
    /* Each worker sees each pusher's tasks of one priority in order, whoever has the ones
     * between. */
    int *last = &storm->last_number[worker][task->pusher][task->node.priority + 1];
    CHECK(task->number > *last);
    *last = task->number;
    atomic_fetch_add_explicit(&storm->popped, 1, memory_order_relaxed);
}

static void *
push_and_remove(void *raw)
{
    StormPusher *pusher = raw;
    Storm *storm = pusher->storm;
    AioTaskQueue *queue = &storm->work.queue;
    uint32_t random_state = 53u + 7u * (uint32_t)pusher->index;
    bool was_refused = false;
    barrier_wait(&storm->start);
    for (int i = 0; i < pusher->task_count; i++) {
        Task *task = &pusher->tasks[i];
        *task = new_task(check_order, storm);
        task->pusher = pusher->index;
        task->number = i;
        aio_task_node_init(&task->node);
        if (next_random(&random_state) % 2 == 0) {
            task->node.priority = (int64_t)(next_random(&random_state) % PRIORITIES) - 1;
        }
        pusher->refused[i] = aio_taskqueue_push(queue, &task->node) == AIO_PUSH_CLOSED;
        CHECK(pusher->refused[i] || !was_refused); /* closed once is closed for good */
        was_refused = pusher->refused[i];
        if (next_random(&random_state) % 4 == 0) {
            const int chosen = (int)(next_random(&random_state) % (uint32_t)(i + 1));
            if (aio_taskqueue_remove(queue, &pusher->tasks[chosen].node)) {
                CHECK(!pusher->refused[chosen] && !pusher->removed[chosen]);
                pusher->removed[chosen] = true;
            }
        }
        if (next_random(&random_state) % 16 == 0) {
            dawdle(&random_state, 20000); /* let the workers fall idle */
        }
    }
    return NULL;
}

/* Start it all; the caller closes when it likes. */
static Storm *
start_storm(int workers, int64_t spin_ns, int tasks_each)
{
    Storm *storm = calloc(1, sizeof *storm);
    CHECK(storm != NULL);
    for (int i = 0; i < MAX_WORKERS; i++) {
        for (int j = 0; j < PUSHERS; j++) {
            for (int k = 0; k < PRIORITIES; k++) {
                storm->last_number[i][j][k] = -1;
            }
        }
    }
    barrier_init(&storm->start, PUSHERS + 1);
    start_work(&storm->work, workers, spin_ns);
    for (int i = 0; i < PUSHERS; i++) {
        StormPusher *pusher = &storm->pushers[i];
        pusher->storm = storm;
        pusher->index = i;
        pusher->task_count = tasks_each;
        pusher->thread = start_thread(push_and_remove, pusher);
    }
    barrier_wait(&storm->start);
    return storm;
}

/* Each task is popped, or removed, or refused. Returns how many were refused. */
static int
end_storm(Storm *storm)
{
    int popped = 0, refused = 0;
    for (int i = 0; i < PUSHERS; i++) {
        join_thread(storm->pushers[i].thread);
    }
    join_work(&storm->work);
    for (int i = 0; i < PUSHERS; i++) {
        StormPusher *pusher = &storm->pushers[i];
        for (int j = 0; j < pusher->task_count; j++) {
            CHECK(pusher->tasks[j].pops + pusher->removed[j] + pusher->refused[j] == 1);
            popped += pusher->tasks[j].pops;
            refused += pusher->refused[j];
        }
    }
    CHECK(popped == atomic_load(&storm->popped));
    barrier_destroy(&storm->start);
    free(storm);
    return refused;
}

/* Close at a random moment: after some tasks, and a little later. */
static void
close_at_random(Storm *storm, uint32_t *random_state, int tasks)
{
    const int enough = (int)(next_random(random_state) % (uint32_t)tasks);
    while (atomic_load_explicit(&storm->popped, memory_order_relaxed) < enough) {
        sched_yield();
    }
    dawdle(random_state, 3000);
    aio_taskqueue_close(&storm->work.queue);
}

static void
run_storms(int workers, int rounds)
{
    uint32_t random_state = 59;
    int refused = 0;
    for (int round = 0; round < rounds; round++) {
        Storm *storm = start_storm(workers, SPIN_TIMES[round % SPIN_TIMES_COUNT], MAX_TASKS);
        /* Up to a third is removed before it is popped, so don't wait for more than half. */
        close_at_random(storm, &random_state, PUSHERS * MAX_TASKS / 2);
        refused += end_storm(storm);
    }
    EXPECT_MET(refused > 0);
}

static void
each_task_is_popped_or_removed_or_refused_exactly_once(void)
{
    run_storms(3, 100);
}

static void
with_one_worker_each_pushers_tasks_come_in_order(void)
{
    run_storms(1, 50);
}

/* ---- nudges --------------------------------------------------------------- */

static void
finish_when_nudged(Worker *worker)
{
    Task finisher = new_task(NULL, worker->work->nudge_context);
    finish(&finisher, worker->index);
}

static void
a_nudge_wakes_the_one_it_is_for(void)
{
    Work work;
    Done done = {.left = 0};
    uint32_t random_state = 67;
    CHECK(aio_parker_init(&done.parker) == 0);
    start_work_with_nudges(&work, MAX_WORKERS, 0, finish_when_nudged, &done);
    for (int round = 0; round < 500; round++) {
        const int chosen = (int)(next_random(&random_state) % MAX_WORKERS);
        wait_until_parked(&work, MAX_WORKERS);
        atomic_store(&done.left, 1);
        aio_taskqueue_nudge(&work.queue, work.workers[chosen].consumer);
        wait_until_done(&done);
        CHECK(done.last_worker == chosen);
    }
    end_work(&work);
    CHECK(atomic_load(&done.left) == 0); /* and nobody else */
    aio_parker_destroy(&done.parker);
}

static void
no_nudge_is_lost(void)
{
    enum { ROUNDS = 5000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Done done = {.left = 0};
        uint32_t random_state = 71;
        CHECK(aio_parker_init(&done.parker) == 0);
        start_work_with_nudges(&work, 2, SPIN_TIMES[i], finish_when_nudged, &done);
        wait_until_parked(&work, 2); /* from then on there are consumers to name */
        for (int round = 0; round < ROUNDS; round++) {
            /* Find it on its way back, spinning, about to park, parked. */
            dawdle(&random_state, round % 4 == 0 ? 60000 : 2000);
            atomic_store(&done.left, 1);
            aio_taskqueue_nudge(&work.queue, work.workers[round % 3 == 0].consumer);
            wait_until_done(&done);
            CHECK(done.last_worker == (round % 3 == 0));
        }
        end_work(&work);
        aio_parker_destroy(&done.parker);
    }
}

typedef struct Lonely {
    AioTaskQueue queue;
    AioConsumer consumer;
    Done done;
    AioPopResult result;
} Lonely;

static void *
pop_once(void *raw)
{
    Lonely *lonely = raw;
    lonely->result = result_of_pop(&lonely->queue, &lonely->consumer);
    return NULL;
}

static void
a_nudge_ends_the_spinning(void)
{
    Lonely lonely;
    int spinning;
    CHECK(aio_taskqueue_init(&lonely.queue, LONG_NS * 10) == 0); /* above the watchdog's */
    CHECK(aio_consumer_init(&lonely.consumer) == 0);
    lonely.queue.max_spinning = 1; /* on a single processor, too */
    pthread_t thread = start_thread(pop_once, &lonely);
    do {
        sched_yield();
        pthread_mutex_lock(&lonely.queue.lock);
        spinning = lonely.queue.spinning;
        pthread_mutex_unlock(&lonely.queue.lock);
    } while (spinning == 0);
    aio_taskqueue_nudge(&lonely.queue, &lonely.consumer);
    join_thread(thread);
    CHECK(lonely.result == AIO_POP_NUDGED);
    CHECK(lonely.queue.spinning == 0);
    aio_consumer_destroy(&lonely.consumer);
    aio_taskqueue_destroy(&lonely.queue);
}

enum { AWAITED_NUDGES = 5000 };

static void *
await_nudges(void *raw)
{
    Lonely *lonely = raw;
    for (int i = 0; i < AWAITED_NUDGES; i++) {
        aio_taskqueue_await_nudge(&lonely->queue, &lonely->consumer);
        Task finisher = new_task(NULL, &lonely->done);
        finish(&finisher, i);
    }
    return NULL;
}

static void
no_awaited_nudge_is_lost_whatever_is_in_the_queue(void)
{
    Lonely lonely = {.done = {.left = 0}};
    AioTaskNode node;
    uint32_t random_state = 73;
    CHECK(aio_taskqueue_init(&lonely.queue, 0) == 0);
    CHECK(aio_consumer_init(&lonely.consumer) == 0);
    CHECK(aio_parker_init(&lonely.done.parker) == 0);
    aio_task_node_init(&node);
    pthread_t thread = start_thread(await_nudges, &lonely);
    for (int i = 0; i < AWAITED_NUDGES; i++) {
        dawdle(&random_state, i % 4 == 0 ? 60000 : 2000);
        if (i == AWAITED_NUDGES / 3) {
            CHECK(aio_taskqueue_push(&lonely.queue, &node) != AIO_PUSH_CLOSED);
        }
        if (i == AWAITED_NUDGES * 2 / 3) {
            aio_taskqueue_close(&lonely.queue);
        }
        atomic_store(&lonely.done.left, 1);
        aio_taskqueue_nudge(&lonely.queue, &lonely.consumer);
        wait_until_done(&lonely.done);
        CHECK(lonely.done.last_worker == i); /* one end of the wait for one nudge */
    }
    join_thread(thread);
    CHECK(aio_taskqueue_try_pop(&lonely.queue, NULL) == &node);
    aio_parker_destroy(&lonely.done.parker);
    aio_consumer_destroy(&lonely.consumer);
    aio_taskqueue_destroy(&lonely.queue);
}

/* Somebody who nudges everybody all the time. */
typedef struct Nuisance {
    Work *work;
    _Atomic bool ends;
    _Atomic int felt;
} Nuisance;

static void
count_nuisance(Worker *worker)
{
    Nuisance *nuisance = worker->work->nudge_context;
    atomic_fetch_add_explicit(&nuisance->felt, 1, memory_order_relaxed);
}

static void *
nudge_without_end(void *raw)
{
    Nuisance *nuisance = raw;
    Work *work = nuisance->work;
    uint32_t random_state = 79;
    while (!atomic_load(&nuisance->ends)) {
        const uint32_t chosen = next_random(&random_state) % (uint32_t)work->worker_count;
        aio_taskqueue_nudge(&work->queue, work->workers[chosen].consumer);
        dawdle(&random_state, 3000);
    }
    return NULL;
}

static void
nudges_take_nobodys_wake_up(void)
{
    enum { ROUNDS = 1000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task tasks[MAX_WORKERS];
        Group group = {.done = {.left = 0}};
        Nuisance nuisance = {.work = &work};
        uint32_t random_state = 83;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        barrier_init(&group.all_running, MAX_WORKERS);
        start_work_with_nudges(&work, MAX_WORKERS, SPIN_TIMES[i], count_nuisance, &nuisance);
        wait_until_parked(&work, MAX_WORKERS);
        pthread_t thread = start_thread(nudge_without_end, &nuisance);
        for (int round = 0; round < ROUNDS; round++) {
            atomic_store(&group.done.left, MAX_WORKERS);
            for (int j = 0; j < MAX_WORKERS; j++) {
                push_new(&work, &tasks[j], meet, &group);
                dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
            }
            wait_until_done(&group.done); /* one worker too few, and they wait for ever */
            dawdle(&random_state, round % 3 == 0 ? 30000 : 0);
        }
        atomic_store(&nuisance.ends, true);
        join_thread(thread); /* before there are no more consumers */
        end_work(&work);
        EXPECT_MET(atomic_load(&nuisance.felt) > 0);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&group.done.parker);
    }
}

/* What keeps a nudged worker busy until a task that came meanwhile has run. */
typedef struct Errand {
    Barrier left;
    Barrier back;
} Errand;

static void
run_errand(Worker *worker)
{
    Errand *errand = worker->work->nudge_context;
    barrier_wait(&errand->left);
    barrier_wait(&errand->back);
}

static void
a_nudged_worker_may_be_busy_while_another_takes_the_task(void)
{
    Work work;
    Task task;
    Errand errand;
    Done done = {.left = 0};
    CHECK(aio_parker_init(&done.parker) == 0);
    barrier_init(&errand.left, 2);
    barrier_init(&errand.back, 2);
    start_work_with_nudges(&work, 2, 0, run_errand, &errand);
    for (int round = 0; round < 500; round++) {
        wait_until_parked(&work, 2);
        aio_taskqueue_nudge(&work.queue, work.workers[round % 2].consumer);
        if (round % 4 < 2) {
            barrier_wait(&errand.left);
        }
        atomic_store(&done.left, 1);
        push_new(&work, &task, finish, &done);
        wait_until_done(&done);
        if (round % 4 < 2) {
            CHECK(done.last_worker != round % 2);
        }
        else {
            barrier_wait(&errand.left); /* it may have taken the task before that */
        }
        barrier_wait(&errand.back);
    }
    end_work(&work);
    barrier_destroy(&errand.back);
    barrier_destroy(&errand.left);
    aio_parker_destroy(&done.parker);
}

/* ---- pushes, nudges and a close, all at once ------------------------------ */

enum { HUSTLE_SIDE = 3, HUSTLE_TASKS = 300, HUSTLE_LETTERS = 150 };

typedef struct Hustle Hustle;

/* A worker that has a letter box besides: whoever puts something in nudges it. */
typedef struct Addressee {
    Hustle *hustle;
    pthread_t thread;
    AioConsumer consumer; /* outlives the thread, as it may be nudged until the end */
    _Atomic int letters;
    uint32_t random_state;
    int nudged; /* how often its wait ended so; after its end */
    int pops;
} Addressee;

struct Hustle {
    AioTaskQueue queue;
    Barrier start;
    _Atomic bool ends; /* nobody writes any more; told by a last nudge */
    Addressee addressees[HUSTLE_SIDE];
};

typedef struct Hustler {
    Hustle *hustle;
    pthread_t thread;
    uint32_t random_state;
    int pushed;
    Task tasks[HUSTLE_TASKS];
} Hustler;

static void
read_letters(Addressee *addressee)
{
    addressee->nudged++;
    atomic_store(&addressee->letters, 0);
}

static void *
work_and_read(void *raw)
{
    Addressee *addressee = raw;
    AioTaskQueue *queue = &addressee->hustle->queue;
    AioTaskNode *node;
    barrier_wait(&addressee->hustle->start);
    for (;;) {
        switch (aio_taskqueue_pop(queue, &addressee->consumer, AIO_NEVER, &node)) {
        case AIO_POP_TASK:
            ((Task *)node)->pops++;
            addressee->pops++;
            dawdle(&addressee->random_state, 500);
            continue;
        case AIO_POP_NUDGED:
            read_letters(addressee);
            if (next_random(&addressee->random_state) % 8 != 0) {
                continue;
            }
            break; /* for now it has no eye for tasks */
        case AIO_POP_CLOSED:
            break;
        case AIO_POP_DISMISSED:
        case AIO_POP_TIMED_OUT:
            CHECK(false);
        }
        if (atomic_load(&addressee->hustle->ends)) {
            /* Tasks may be left, if it was a nudge. */
            while ((node = aio_taskqueue_try_pop(queue, NULL)) != NULL) {
                ((Task *)node)->pops++;
                addressee->pops++;
            }
            return NULL;
        }
        aio_taskqueue_await_nudge(queue, &addressee->consumer);
        read_letters(addressee);
    }
}

static void *
push_tasks(void *raw)
{
    Hustler *hustler = raw;
    barrier_wait(&hustler->hustle->start);
    for (int i = 0; i < HUSTLE_TASKS; i++) {
        Task *task = &hustler->tasks[i];
        *task = new_task(NULL, NULL);
        aio_task_node_init(&task->node);
        if (aio_taskqueue_push(&hustler->hustle->queue, &task->node) == AIO_PUSH_CLOSED) {
            break;
        }
        hustler->pushed++;
        dawdle(&hustler->random_state, i % 16 == 0 ? 20000 : 200);
    }
    return NULL;
}

static void *
write_letters(void *raw)
{
    Hustler *hustler = raw;
    Hustle *hustle = hustler->hustle;
    barrier_wait(&hustle->start);
    for (int i = 0; i < HUSTLE_LETTERS; i++) {
        const uint32_t chosen = next_random(&hustler->random_state) % HUSTLE_SIDE;
        Addressee *addressee = &hustle->addressees[chosen];
        atomic_fetch_add(&addressee->letters, 1);
        aio_taskqueue_nudge(&hustle->queue, &addressee->consumer);
        if (i % 4 == 0) {
            while (atomic_load(&addressee->letters) > 0) {
                sched_yield(); /* a lost nudge would keep us here */
            }
        }
        dawdle(&hustler->random_state, 2000);
    }
    return NULL;
}

static void
start_hustler(Hustler *hustler, Hustle *hustle, void *(*entry)(void *), uint32_t seed)
{
    hustler->hustle = hustle;
    hustler->random_state = seed;
    hustler->thread = start_thread(entry, hustler);
}

static void
run_hustle(int64_t spin_ns, uint32_t seed)
{
    Hustle *hustle = calloc(1, sizeof *hustle);
    Hustler *pushers = calloc(HUSTLE_SIDE, sizeof *pushers);
    Hustler *writers = calloc(HUSTLE_SIDE, sizeof *writers);
    uint32_t random_state = seed;
    int pushed = 0, popped = 0, nudged = 0;
    CHECK(hustle != NULL && pushers != NULL && writers != NULL);
    CHECK(aio_taskqueue_init(&hustle->queue, spin_ns) == 0);
    barrier_init(&hustle->start, 3 * HUSTLE_SIDE + 1);
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        Addressee *addressee = &hustle->addressees[i];
        CHECK(aio_consumer_init(&addressee->consumer) == 0);
        addressee->hustle = hustle;
        addressee->random_state = next_random(&random_state);
    }
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        Addressee *addressee = &hustle->addressees[i];
        addressee->thread = start_thread(work_and_read, addressee);
        start_hustler(&pushers[i], hustle, push_tasks, next_random(&random_state));
        start_hustler(&writers[i], hustle, write_letters, next_random(&random_state));
    }
    barrier_wait(&hustle->start);
    dawdle(&random_state, 300000);
    aio_taskqueue_close(&hustle->queue);
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        join_thread(pushers[i].thread);
        join_thread(writers[i].thread);
    }
    atomic_store(&hustle->ends, true);
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        aio_taskqueue_nudge(&hustle->queue, &hustle->addressees[i].consumer);
    }
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        Addressee *addressee = &hustle->addressees[i];
        join_thread(addressee->thread);
        CHECK(atomic_load(&addressee->letters) == 0);
        CHECK(!aio_park_until(&addressee->consumer.parker, 0));
        nudged += addressee->nudged;
        popped += addressee->pops;
        aio_consumer_destroy(&addressee->consumer);
    }
    CHECK(nudged <= HUSTLE_SIDE * (HUSTLE_LETTERS + 1));
    for (int i = 0; i < HUSTLE_SIDE; i++) {
        pushed += pushers[i].pushed;
        for (int j = 0; j < HUSTLE_TASKS; j++) {
            CHECK(pushers[i].tasks[j].pops == (j < pushers[i].pushed));
        }
    }
    CHECK(popped == pushed);
    CHECK(atomic_load(&hustle->queue.length) == 0);
    CHECK(hustle->queue.waking == 0);
    CHECK(hustle->queue.spinning == 0);
    CHECK(aio_list_is_empty(&hustle->queue.idle));
    barrier_destroy(&hustle->start);
    aio_taskqueue_destroy(&hustle->queue);
    free(writers);
    free(pushers);
    free(hustle);
}

static void
every_nudge_is_felt_and_every_task_popped_amid_pushes_nudges_and_a_close(void)
{
    for (int round = 0; round < 100; round++) {
        run_hustle(SPIN_TIMES[round % SPIN_TIMES_COUNT], (uint32_t)round + 1);
    }
}

/* ---- consumers whose time is over, that are dismissed, and that come -------------- */

enum { RACES = 4000 };

typedef struct Race {
    AioTaskQueue queue;
    AioConsumer consumer;
    _Atomic int ready[2];
    _Atomic int64_t deadline;
    bool has_timed_out; /* in this round: written before `over`, read after it */
    _Atomic int over;   /* the last round of which the consumer has come back */
} Race;

static void *
wait_for_a_moment(void *raw)
{
    Race *race = raw;
    for (int round = 1; round <= RACES; round++) {
        const int64_t deadline = aio_clock_ns() + 20 * 1000 + 50 * (round % 400);
        AioTaskNode *node = NULL;
        atomic_store(&race->deadline, deadline);
        line_up(&race->ready[0], &race->ready[1], round);
        AioPopResult result = aio_taskqueue_pop(&race->queue, &race->consumer, deadline, &node);
        race->has_timed_out = result == AIO_POP_TIMED_OUT;
        if (race->has_timed_out) {
            result = aio_taskqueue_pop(&race->queue, &race->consumer, AIO_NEVER, &node);
        }
        CHECK(result == (round % 4 < 2 ? AIO_POP_TASK : AIO_POP_NUDGED));
        /* Whoever chose it at the last moment has left nothing behind. */
        CHECK(!aio_park_until(&race->consumer.parker, 0));
        CHECK(!race->consumer.is_waking);
        CHECK(!aio_list_is_linked(&race->consumer.idle_link));
        atomic_store(&race->over, round);
    }
    return NULL;
}

static void
what_comes_at_the_last_moment_is_not_lost(void)
{
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Race race = {.has_timed_out = false};
        AioTaskNode node;
        int timed_out = 0;
        /* How long after the deadline to push: it moves by itself to where half of the waits
         * time out, which is when the consumer is about to take the lock. */
        int64_t delay = 0;
        uint32_t random_state = 83;
        CHECK(aio_taskqueue_init(&race.queue, SPIN_TIMES[i]) == 0);
        CHECK(aio_consumer_init(&race.consumer) == 0);
        pthread_t thread = start_thread(wait_for_a_moment, &race);
        for (int round = 1; round <= RACES; round++) {
            line_up(&race.ready[1], &race.ready[0], round);
            const int64_t jitter = next_random(&random_state) % 4000;
            const int64_t at = atomic_load(&race.deadline) + delay + jitter;
            while (aio_clock_ns() < at) {
                aio_cpu_relax();
            }
            if (round % 4 < 2) {
                aio_task_node_init(&node);
                node.priority = round % 2;
                aio_taskqueue_push(&race.queue, &node);
            }
            else {
                aio_taskqueue_nudge(&race.queue, &race.consumer);
            }
            while (atomic_load(&race.over) < round) {
                sched_yield(); /* a task left lying would keep us here */
            }
            timed_out += race.has_timed_out;
            delay += race.has_timed_out ? -1000 : 1000;
        }
        join_thread(thread);
        CHECK(race.queue.waking == 0 && race.queue.spinning == 0);
        EXPECT_MET(timed_out > RACES / 4 && timed_out < RACES * 3 / 4);
        aio_consumer_destroy(&race.consumer);
        aio_taskqueue_destroy(&race.queue);
    }
}

static void
who_is_dismissed_while_it_spins_is_counted_on_no_more(void)
{
    Lonely lonely;
    AioTaskNode node;
    int spinning;
    CHECK(aio_taskqueue_init(&lonely.queue, LONG_NS * 10) == 0); /* above the watchdog's */
    CHECK(aio_consumer_init(&lonely.consumer) == 0);
    aio_task_node_init(&node);
    lonely.queue.max_spinning = 1; /* on a single processor, too */
    pthread_t thread = start_thread(pop_once, &lonely);
    do {
        sched_yield();
        pthread_mutex_lock(&lonely.queue.lock);
        spinning = lonely.queue.spinning;
        pthread_mutex_unlock(&lonely.queue.lock);
    } while (spinning == 0);
    CHECK(!aio_taskqueue_dismiss(&lonely.queue, &lonely.consumer));
    CHECK(aio_taskqueue_push(&lonely.queue, &node) == AIO_PUSH_WAITS);
    join_thread(thread);
    CHECK(lonely.result == AIO_POP_DISMISSED);
    CHECK(lonely.queue.spinning == 0);
    CHECK(aio_taskqueue_try_pop(&lonely.queue, NULL) == &node);
    aio_consumer_destroy(&lonely.consumer);
    aio_taskqueue_destroy(&lonely.queue);
}

/* A consumer beside the workers, until it is dismissed. */
typedef struct Temp {
    AioTaskQueue *queue;
    AioConsumer consumer;
    pthread_t thread;
    _Atomic bool is_there;
} Temp;

static void *
work_until_dismissed(void *raw)
{
    Temp *temp = raw;
    AioTaskNode *node;
    AioPopResult result;
    atomic_store(&temp->is_there, true);
    while ((result = aio_taskqueue_pop(temp->queue, &temp->consumer, AIO_NEVER, &node)) ==
           AIO_POP_TASK) {
        ((Task *)node)->pops++;
        ((Task *)node)->run((Task *)node, MAX_WORKERS);
    }
    CHECK(result == AIO_POP_DISMISSED);
    CHECK(!aio_park_until(&temp->consumer.parker, 0));
    return NULL;
}

static void
a_dismissal_leaves_no_task_lying_while_others_sleep(void)
{
    /* Two tasks that need two workers at once, and have them without the third. */
    enum { ROUNDS = 1500 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task tasks[2];
        Group group = {.done = {.left = 0}};
        uint32_t random_state = 89;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        barrier_init(&group.all_running, 2);
        start_work(&work, 2, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            Temp temp = {.queue = &work.queue, .is_there = false};
            CHECK(aio_consumer_init(&temp.consumer) == 0);
            temp.thread = start_thread(work_until_dismissed, &temp);
            if (round % 4 < 2) {
                wait_until_parked(&work, 3);
            }
            else {
                while (!atomic_load(&temp.is_there)) {
                    sched_yield();
                }
                dawdle(&random_state, 3000); /* it parks, or spins, or is about to */
            }
            atomic_store(&group.done.left, 2);
            for (int step = 0; step < 3; step++) {
                /* Before the tasks, between them, or after them. */
                if (step == round % 3) {
                    dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
                    (void)aio_taskqueue_dismiss(&work.queue, &temp.consumer);
                }
                if (step < 2) {
                    push_new(&work, &tasks[step], meet, &group);
                }
            }
            wait_until_done(&group.done); /* one worker too few, and they wait for ever */
            join_thread(temp.thread);
            CHECK(tasks[0].pops == 1 && tasks[1].pops == 1);
            aio_consumer_destroy(&temp.consumer);
        }
        end_work(&work);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&group.done.parker);
    }
}

/* Consumers that come when they are needed, and go for many reasons: as in a pool that
 * adapts its size. At first there are none. */
enum { CROWD_PUSHERS = 3, CROWD_TASKS = 600, CROWD_LIMIT = 3 };

typedef struct Crowd {
    AioTaskQueue queue;
    Barrier start;
    pthread_mutex_t lock; /* guards the next six; comes before the queue's */
    pthread_cond_t ended;
    AioList present; /* who has not been dismissed */
    int present_count;
    int threads; /* not joined yet */
    AioList to_join;
    uint32_t random_state;
    _Atomic int left; /* tasks to be popped; the last one unparks */
    AioParker all_popped;
    _Atomic bool ends;
    _Atomic int came, dismissed, idled_out;
} Crowd;

typedef struct Hand {
    Crowd *crowd;
    pthread_t thread;
    AioConsumer consumer;
    AioListNode link; /* in `present`, then, at the thread's end, in `to_join` */
    uint32_t random_state;
} Hand;

typedef struct CrowdPusher {
    Crowd *crowd;
    pthread_t thread;
    uint32_t random_state;
    Task tasks[CROWD_TASKS];
} CrowdPusher;

static void
join_ended(Crowd *crowd)
{
    AioList ended;
    AioListNode *link;
    pthread_mutex_lock(&crowd->lock);
    aio_list_move(&crowd->to_join, &ended);
    pthread_mutex_unlock(&crowd->lock);
    while ((link = aio_list_pop_first(&ended)) != NULL) {
        Hand *hand = aio_container_of(link, Hand, link);
        join_thread(hand->thread);
        free(hand);
    }
}

static void *consume_for_a_while(void *raw);

/* Add a consumer unless there are as many as there may be. */
static void
call_for_help(Crowd *crowd)
{
    join_ended(crowd);
    pthread_mutex_lock(&crowd->lock);
    if (crowd->present_count < CROWD_LIMIT) {
        Hand *hand = malloc(sizeof *hand);
        CHECK(hand != NULL);
        CHECK(aio_consumer_init(&hand->consumer) == 0);
        hand->crowd = crowd;
        hand->random_state = next_random(&crowd->random_state);
        aio_list_node_init(&hand->link);
        aio_list_append(&crowd->present, &hand->link);
        crowd->present_count++;
        crowd->threads++;
        atomic_fetch_add(&crowd->came, 1);
        hand->thread = start_thread(consume_for_a_while, hand);
    }
    pthread_mutex_unlock(&crowd->lock);
}

/* The crowd's lock must be held: the hand, or (NULL) one of those present, is sent away.
 * True if that leaves tasks to be done that nobody is free for. */
static bool
send_away(Crowd *crowd, Hand *hand)
{
    if (hand == NULL && !aio_list_is_empty(&crowd->present)) {
        hand = aio_container_of(crowd->present.head.next, Hand, link);
    }
    if (hand == NULL || !aio_list_is_linked(&hand->link)) {
        return false; /* nobody is there, or it was sent away already */
    }
    aio_list_unlink(&hand->link);
    crowd->present_count--;
    atomic_fetch_add(&crowd->dismissed, 1);
    return aio_taskqueue_dismiss(&crowd->queue, &hand->consumer);
}

static void
dismiss(Crowd *crowd, Hand *hand)
{
    pthread_mutex_lock(&crowd->lock);
    const bool needs_help = send_away(crowd, hand);
    pthread_mutex_unlock(&crowd->lock);
    if (needs_help) {
        call_for_help(crowd);
    }
}

static bool
go_if_idle(Hand *hand)
{
    Crowd *crowd = hand->crowd;
    bool goes = true; /* if it was sent away in the meantime */
    pthread_mutex_lock(&crowd->lock);
    if (aio_list_is_linked(&hand->link)) {
        goes = aio_taskqueue_dismiss_idle(&crowd->queue, &hand->consumer);
        if (goes) {
            aio_list_unlink(&hand->link);
            crowd->present_count--;
            atomic_fetch_add(&crowd->idled_out, 1);
        }
    }
    pthread_mutex_unlock(&crowd->lock);
    return goes;
}

/* Until its time is over, or it is dismissed, or the queue is closed. */
static void
consume(Hand *hand)
{
    Crowd *crowd = hand->crowd;
    AioTaskNode *node;
    for (;;) {
        const bool may_time_out = next_random(&hand->random_state) % 4 != 0;
        const int64_t patience = next_random(&hand->random_state) % (200 * 1000);
        const int64_t deadline = may_time_out ? aio_clock_ns() + patience : AIO_NEVER;
        switch (aio_taskqueue_pop(&crowd->queue, &hand->consumer, deadline, &node)) {
        case AIO_POP_TASK:
            ((Task *)node)->pops++;
            dawdle(&hand->random_state, 2000);
            if (atomic_fetch_sub(&crowd->left, 1) == 1) {
                aio_unpark(&crowd->all_popped);
            }
            if (next_random(&hand->random_state) % 16 == 0) {
                dismiss(crowd, hand); /* it has had enough */
            }
            break;
        case AIO_POP_TIMED_OUT:
            if (go_if_idle(hand)) {
                return;
            }
            break;
        case AIO_POP_NUDGED:
            CHECK(false);
        case AIO_POP_DISMISSED:
        case AIO_POP_CLOSED:
            return;
        }
    }
}

static void *
consume_for_a_while(void *raw)
{
    Hand *hand = raw;
    Crowd *crowd = hand->crowd;
    consume(hand);
    pthread_mutex_lock(&crowd->lock);
    if (aio_list_is_linked(&hand->link)) { /* the queue was closed */
        aio_list_unlink(&hand->link);
        crowd->present_count--;
    }
    CHECK(!aio_park_until(&hand->consumer.parker, 0));
    aio_consumer_destroy(&hand->consumer);
    aio_list_append(&crowd->to_join, &hand->link);
    crowd->threads--;
    pthread_cond_signal(&crowd->ended);
    pthread_mutex_unlock(&crowd->lock);
    return NULL;
}

/* Sends away whoever has been there for longest, wherever that is just then. */
static void *
send_away_without_end(void *raw)
{
    Crowd *crowd = raw;
    uint32_t random_state = 97;
    while (!atomic_load(&crowd->ends)) {
        dismiss(crowd, NULL);
        dawdle(&random_state, 100000);
    }
    return NULL;
}

static void *
push_into_crowd(void *raw)
{
    CrowdPusher *pusher = raw;
    Crowd *crowd = pusher->crowd;
    barrier_wait(&crowd->start);
    for (int i = 0; i < CROWD_TASKS; i++) {
        Task *task = &pusher->tasks[i];
        *task = new_task(NULL, NULL);
        aio_task_node_init(&task->node);
        task->node.priority = (int64_t)(next_random(&pusher->random_state) % 3) - 1;
        const AioPushResult result = aio_taskqueue_push(&crowd->queue, &task->node);
        CHECK(result != AIO_PUSH_CLOSED);
        if (result == AIO_PUSH_WAITS) {
            call_for_help(crowd);
        }
        dawdle(&pusher->random_state, i % 16 == 0 ? 100000 : 1000);
    }
    return NULL;
}

typedef struct CrowdFigures {
    int came, dismissed, idled_out;
} CrowdFigures;

static void
run_crowd(int64_t spin_ns, uint32_t seed, CrowdFigures *figures)
{
    Crowd crowd = {.random_state = seed};
    CrowdPusher *pushers = calloc(CROWD_PUSHERS, sizeof *pushers);
    CHECK(pushers != NULL);
    CHECK(aio_taskqueue_init(&crowd.queue, spin_ns) == 0);
    CHECK(aio_parker_init(&crowd.all_popped) == 0);
    CHECK(pthread_mutex_init(&crowd.lock, NULL) == 0);
    CHECK(pthread_cond_init(&crowd.ended, NULL) == 0);
    aio_list_init(&crowd.to_join);
    aio_list_init(&crowd.present);
    atomic_store(&crowd.left, CROWD_PUSHERS * CROWD_TASKS);
    barrier_init(&crowd.start, CROWD_PUSHERS);
    for (int i = 0; i < CROWD_PUSHERS; i++) {
        pushers[i].crowd = &crowd;
        pushers[i].random_state = seed * 97 + (uint32_t)i;
        pushers[i].thread = start_thread(push_into_crowd, &pushers[i]);
    }
    const pthread_t sender = start_thread(send_away_without_end, &crowd);
    for (int i = 0; i < CROWD_PUSHERS; i++) {
        join_thread(pushers[i].thread);
    }
    /* Only a push or a dismissal calls one: a task that both leave lying shows here. */
    CHECK(aio_park_until(&crowd.all_popped, aio_clock_ns() + LONG_NS));
    atomic_store(&crowd.ends, true);
    join_thread(sender);
    aio_taskqueue_close(&crowd.queue);
    pthread_mutex_lock(&crowd.lock);
    while (crowd.threads > 0) {
        pthread_cond_wait(&crowd.ended, &crowd.lock);
    }
    pthread_mutex_unlock(&crowd.lock);
    join_ended(&crowd);
    for (int i = 0; i < CROWD_PUSHERS; i++) {
        for (int j = 0; j < CROWD_TASKS; j++) {
            CHECK(pushers[i].tasks[j].pops == 1);
        }
    }
    CHECK(crowd.present_count == 0 && aio_list_is_empty(&crowd.present));
    CHECK(aio_taskqueue_length(&crowd.queue) == 0);
    CHECK(crowd.queue.waking == 0);
    CHECK(crowd.queue.spinning == 0);
    CHECK(aio_list_is_empty(&crowd.queue.idle));
    barrier_destroy(&crowd.start);
    pthread_cond_destroy(&crowd.ended);
    pthread_mutex_destroy(&crowd.lock);
    aio_parker_destroy(&crowd.all_popped);
    aio_taskqueue_destroy(&crowd.queue);
    free(pushers);
    figures->came += atomic_load(&crowd.came);
    figures->dismissed += atomic_load(&crowd.dismissed);
    figures->idled_out += atomic_load(&crowd.idled_out);
}

static void
every_task_is_popped_once_while_consumers_come_time_out_and_are_dismissed(void)
{
    CrowdFigures figures = {0};
    for (int round = 0; round < 20; round++) {
        run_crowd(SPIN_TIMES[round % SPIN_TIMES_COUNT], (uint32_t)round + 1, &figures);
    }
    EXPECT_MET(figures.came > 20 * CROWD_LIMIT);
    EXPECT_MET(figures.dismissed > 20 * CROWD_LIMIT);
    EXPECT_MET(figures.idled_out > 0);
}

int
main(void)
{
    RUN(tasks_are_popped_in_the_order_of_pushing);
    RUN(try_pop_from_an_empty_queue_returns_at_once);
    RUN(a_push_counts_on_a_consumer_that_is_expected_for_one_task);
    RUN(remove_takes_out_a_queued_task_and_no_other);
    RUN(a_closed_queue_refuses_pushes_and_is_still_emptied);
    RUN(nudges_that_come_before_the_wait_end_it_together);
    RUN(a_task_comes_before_a_nudge_and_that_before_the_closing);
    RUN(awaiting_a_nudge_leaves_tasks_and_the_closing_alone);
    RUN(a_push_does_not_count_on_whom_a_nudge_woke);
    RUN(a_task_for_whoever_idles_is_refused_where_nobody_does);
    RUN(lower_priorities_come_first_and_equals_in_the_order_of_pushing);
    RUN(remove_takes_out_a_task_of_any_priority);
    RUN(a_task_for_whoever_idles_comes_before_every_priority);
    RUN(push_tells_whether_somebody_is_free);
    RUN(the_dismissal_comes_before_all_other_results_and_for_good);
    RUN(nobody_counts_on_whom_is_dismissed_while_it_sleeps);
    RUN(another_is_woken_for_the_task_of_whom_is_dismissed_while_it_wakes);
    RUN(to_dismiss_a_busy_consumer_tells_whether_its_tasks_wait);
    RUN(who_would_go_because_it_is_idle_stays_for_a_queued_task);
    RUN(the_end_of_the_time_comes_after_all_other_results);
    RUN(a_wait_lasts_until_its_deadline_spinning_or_parked);
    RUN(an_idle_worker_spins_for_a_moment_only);
    RUN(close_wakes_every_parked_worker);
    RUN(the_worker_that_fell_idle_last_is_woken_first);
    RUN(a_single_task_never_lies_while_workers_sleep);
    RUN(as_many_tasks_run_at_once_as_there_are_workers);
    RUN(a_removed_task_takes_nobodys_wake_up);
    RUN(each_task_is_popped_or_removed_or_refused_exactly_once);
    RUN(with_one_worker_each_pushers_tasks_come_in_order);
    RUN(a_nudge_wakes_the_one_it_is_for);
    RUN(no_nudge_is_lost);
    RUN(a_nudge_ends_the_spinning);
    RUN(no_awaited_nudge_is_lost_whatever_is_in_the_queue);
    RUN(nudges_take_nobodys_wake_up);
    RUN(a_nudged_worker_may_be_busy_while_another_takes_the_task);
    RUN(every_nudge_is_felt_and_every_task_popped_amid_pushes_nudges_and_a_close);
    RUN(what_comes_at_the_last_moment_is_not_lost);
    RUN(who_is_dismissed_while_it_spins_is_counted_on_no_more);
    RUN(a_dismissal_leaves_no_task_lying_while_others_sleep);
    RUN(every_task_is_popped_once_while_consumers_come_time_out_and_are_dismissed);
    return 0;
}
