/* taskqueue.c: the queue of submitted work and the waiting of idle workers.
 *
 * Why no task is left lying while a worker sleeps. Say that a task is covered
 * if some consumer is certain to take the lock and look at the queue after the
 * task was linked. Under the lock:
 *   - a spinner leaves its spin only by taking the lock and looking;
 *   - a woken consumer takes the lock and looks;
 *   - a busy consumer takes the lock and looks when its task ends.
 * push() wakes another consumer unless there are at least as many spinning and
 * waking consumers as queued tasks, and they take one task each. Where the idle
 * list is empty all consumers are busy, spinning or waking, so they will look.
 *
 * A nudged consumer is busy: it sees to what it was nudged for, for as long as that
 * takes, before it pops again. So one that a nudge takes off the idle list is not
 * counted among the waking, and a push meanwhile wakes somebody else. If it finds a
 * task when it takes the lock it takes it, nevertheless: that can only leave fewer
 * tasks to cover. Where the nudge meets a consumer that spins or is waking, that one
 * stays counted, as it looks for a task before it looks for the nudge; once it has
 * taken the lock it is counted no more, whatever it returns. One that awaits a nudge
 * is busy, too.
 *
 * No nudge is lost: the flag is set under the lock. A consumer parks only if it found
 * the flag not set, and it can be seen under the same lock that it is going to.
 */
#include "taskqueue.h"

#include <assert.h>

#include "clock.h"
#include "platform.h"
#include "thread.h"

enum { SPINS_BETWEEN_CLOCK_READS = 32 };

int
aio_taskqueue_init(AioTaskQueue *queue, int64_t spin_ns)
{
    aio_list_init(&queue->tasks);
    aio_list_init(&queue->idle);
    queue->waking = 0;
    queue->spinning = 0;
    queue->max_spinning = aio_cpu_count() > 1 ? 1 : 0;
    queue->closed = false;
    queue->spin_ns = spin_ns;
    atomic_init(&queue->length, 0);
    return pthread_mutex_init(&queue->lock, NULL) == 0 ? 0 : -1;
}

void
aio_taskqueue_destroy(AioTaskQueue *queue)
{
    pthread_mutex_destroy(&queue->lock);
}

int
aio_consumer_init(AioConsumer *consumer)
{
    aio_list_node_init(&consumer->idle_link);
    consumer->is_waking = false;
    consumer->awaits_nudge = false;
    atomic_init(&consumer->nudged, false);
    return aio_parker_init(&consumer->parker);
}

void
aio_consumer_destroy(AioConsumer *consumer)
{
    aio_parker_destroy(&consumer->parker);
}

void
aio_task_node_init(AioTaskNode *node)
{
    aio_list_node_init(&node->link);
}

/* `lock` must be held: the length is only ever written under it. */
static long
add_to_length(AioTaskQueue *queue, long change)
{
    long length = atomic_load_explicit(&queue->length, memory_order_relaxed) + change;
    atomic_store_explicit(&queue->length, length, memory_order_relaxed);
    return length;
}

/* `lock` must be held. */
static AioTaskNode *
take_first(AioTaskQueue *queue)
{
    AioListNode *link = aio_list_pop_first(&queue->tasks);
    if (link == NULL) {
        return NULL;
    }
    add_to_length(queue, -1);
    return aio_container_of(link, AioTaskNode, link);
}

/* `lock` must be held. The consumer to unpark after unlocking, or NULL. */
static AioConsumer *
choose_idle(AioTaskQueue *queue)
{
    AioListNode *link = aio_list_pop_last(&queue->idle);
    if (link == NULL) {
        return NULL;
    }
    AioConsumer *consumer = aio_container_of(link, AioConsumer, idle_link);
    consumer->is_waking = true;
    queue->waking++;
    return consumer;
}

/* `lock` must be held. */
static void
set_nudged(AioConsumer *consumer, bool nudged)
{
    atomic_store_explicit(&consumer->nudged, nudged, memory_order_relaxed);
}

/* `lock` must be held, except by the consumer itself while it spins. */
static bool
is_nudged(AioConsumer *consumer)
{
    return atomic_load_explicit(&consumer->nudged, memory_order_relaxed);
}

/* `lock` must be held, a task has just been linked. The consumer to unpark after
 * unlocking, or NULL. */
static AioConsumer *
cover(AioTaskQueue *queue)
{
    return add_to_length(queue, 1) > queue->spinning + queue->waking ? choose_idle(queue) : NULL;
}

bool
aio_taskqueue_push(AioTaskQueue *queue, AioTaskNode *node)
{
    AioConsumer *to_wake = NULL;

    pthread_mutex_lock(&queue->lock);
    if (queue->closed) {
        pthread_mutex_unlock(&queue->lock);
        return false;
    }
    aio_list_append(&queue->tasks, &node->link);
    to_wake = cover(queue);
    pthread_mutex_unlock(&queue->lock);

    /* Outside the lock, so that the woken one does not run into it. */
    if (to_wake != NULL) {
        aio_unpark(&to_wake->parker);
    }
    return true;
}

bool
aio_taskqueue_push_if_idle(AioTaskQueue *queue, AioTaskNode *node)
{
    AioConsumer *to_wake = NULL;

    pthread_mutex_lock(&queue->lock);
    const long length = atomic_load_explicit(&queue->length, memory_order_relaxed);
    if (queue->closed ||
        (length >= queue->spinning + queue->waking && aio_list_is_empty(&queue->idle))) {
        pthread_mutex_unlock(&queue->lock);
        return false;
    }
    aio_list_prepend(&queue->tasks, &node->link);
    to_wake = cover(queue);
    pthread_mutex_unlock(&queue->lock);
    if (to_wake != NULL) {
        aio_unpark(&to_wake->parker);
    }
    return true;
}

AioTaskNode *
aio_taskqueue_try_pop(AioTaskQueue *queue)
{
    pthread_mutex_lock(&queue->lock);
    AioTaskNode *node = take_first(queue);
    pthread_mutex_unlock(&queue->lock);
    return node;
}

/* Wait, for `spin_ns` at most, until there seems to be a task or a nudge. No lock held. */
static void
spin(AioTaskQueue *queue, AioConsumer *consumer)
{
    const int64_t until = aio_clock_ns() + queue->spin_ns;
    do {
        for (int i = 0; i < SPINS_BETWEEN_CLOCK_READS; i++) {
            if (atomic_load_explicit(&queue->length, memory_order_relaxed) > 0 ||
                is_nudged(consumer)) {
                return;
            }
            aio_cpu_relax();
        }
    } while (aio_clock_ns() < until);
}

/* `lock` must be held, and is released meanwhile. */
static void
wait_spinning(AioTaskQueue *queue, AioConsumer *consumer)
{
    queue->spinning++;
    pthread_mutex_unlock(&queue->lock);
    spin(queue, consumer);
    pthread_mutex_lock(&queue->lock);
    queue->spinning--;
}

/* `lock` must be held, and is released meanwhile. */
static void
wait_parked(AioTaskQueue *queue, AioConsumer *consumer)
{
    aio_list_append(&queue->idle, &consumer->idle_link);
    pthread_mutex_unlock(&queue->lock);
    aio_park(&consumer->parker);
    pthread_mutex_lock(&queue->lock);
    /* choose_idle() has taken it off the idle list, or else a nudge. */
    if (consumer->is_waking) {
        consumer->is_waking = false;
        queue->waking--;
    }
}

AioPopResult
aio_taskqueue_pop(AioTaskQueue *queue, AioConsumer *consumer, AioTaskNode **node)
{
    bool has_spun = false;
    AioTaskNode *first;
    AioPopResult result;

    pthread_mutex_lock(&queue->lock);
    while ((first = take_first(queue)) == NULL && !is_nudged(consumer) && !queue->closed) {
        if (!has_spun && queue->spinning < queue->max_spinning) {
            has_spun = true;
            wait_spinning(queue, consumer);
        }
        else {
            wait_parked(queue, consumer);
        }
    }
    if (first != NULL) {
        *node = first;
        result = AIO_POP_TASK;
    }
    else if (is_nudged(consumer)) {
        set_nudged(consumer, false);
        result = AIO_POP_NUDGED;
    }
    else {
        result = AIO_POP_CLOSED;
    }
    pthread_mutex_unlock(&queue->lock);
    return result;
}

void
aio_taskqueue_nudge(AioTaskQueue *queue, AioConsumer *consumer)
{
    bool is_parked;

    pthread_mutex_lock(&queue->lock);
    set_nudged(consumer, true);
    is_parked = aio_list_is_linked(&consumer->idle_link) || consumer->awaits_nudge;
    aio_list_unlink(&consumer->idle_link);
    consumer->awaits_nudge = false;
    pthread_mutex_unlock(&queue->lock);

    /* Who is awake, or was unparked by somebody else already, will look at the flag. */
    if (is_parked) {
        aio_unpark(&consumer->parker);
    }
}

void
aio_taskqueue_await_nudge(AioTaskQueue *queue, AioConsumer *consumer)
{
    pthread_mutex_lock(&queue->lock);
    if (!is_nudged(consumer)) {
        consumer->awaits_nudge = true;
        pthread_mutex_unlock(&queue->lock);
        aio_park(&consumer->parker);
        pthread_mutex_lock(&queue->lock);
        assert(is_nudged(consumer));
    }
    set_nudged(consumer, false);
    pthread_mutex_unlock(&queue->lock);
}

bool
aio_taskqueue_remove(AioTaskQueue *queue, AioTaskNode *node)
{
    pthread_mutex_lock(&queue->lock);
    bool queued = aio_list_is_linked(&node->link);
    if (queued) {
        aio_list_unlink(&node->link);
        add_to_length(queue, -1);
    }
    pthread_mutex_unlock(&queue->lock);
    return queued;
}

void
aio_taskqueue_close(AioTaskQueue *queue)
{
    AioConsumer *to_wake;
    do {
        pthread_mutex_lock(&queue->lock);
        queue->closed = true;
        to_wake = choose_idle(queue);
        pthread_mutex_unlock(&queue->lock);
        if (to_wake != NULL) {
            aio_unpark(&to_wake->parker);
        }
    } while (to_wake != NULL);
}
