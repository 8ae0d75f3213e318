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
 */
#include "taskqueue.h"

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
    queue->waking++;
    return aio_container_of(link, AioConsumer, idle_link);
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
    if (add_to_length(queue, 1) > queue->spinning + queue->waking) {
        to_wake = choose_idle(queue);
    }
    pthread_mutex_unlock(&queue->lock);

    /* Outside the lock, so that the woken one does not run into it. */
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

/* Wait, for `spin_ns` at most, until there seems to be a task. No lock held. */
static void
spin(AioTaskQueue *queue)
{
    const int64_t until = aio_clock_ns() + queue->spin_ns;
    do {
        for (int i = 0; i < SPINS_BETWEEN_CLOCK_READS; i++) {
            if (atomic_load_explicit(&queue->length, memory_order_relaxed) > 0) {
                return;
            }
            aio_cpu_relax();
        }
    } while (aio_clock_ns() < until);
}

AioTaskNode *
aio_taskqueue_pop(AioTaskQueue *queue, AioConsumer *consumer)
{
    bool has_spun = false;
    AioTaskNode *node;

    pthread_mutex_lock(&queue->lock);
    while ((node = take_first(queue)) == NULL && !queue->closed) {
        if (!has_spun && queue->spinning < queue->max_spinning) {
            has_spun = true;
            queue->spinning++;
            pthread_mutex_unlock(&queue->lock);
            spin(queue);
            pthread_mutex_lock(&queue->lock);
            queue->spinning--;
            continue;
        }
        aio_list_append(&queue->idle, &consumer->idle_link);
        pthread_mutex_unlock(&queue->lock);
        aio_park(&consumer->parker);
        pthread_mutex_lock(&queue->lock);
        /* Only choose_idle() takes a consumer off the idle list and unparks it. */
        queue->waking--;
    }
    pthread_mutex_unlock(&queue->lock);
    return node;
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
