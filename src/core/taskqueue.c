/* taskqueue.c: the queue of submitted work and the waiting of idle workers.
 *
 * Why no task is left lying while a worker sleeps. Say that a task is covered
 * if some consumer is certain to take the lock and look at the queue after the
 * task was linked. Under the lock:
 *   - a spinner leaves its spin only by taking the lock and looking;
 *   - a woken consumer takes the lock and looks;
 *   - a busy consumer takes the lock and looks when its task ends, unless it is dismissed; one that
 *     is expected does so next, and is counted among the waking until it parks, spins or gets a
 * task. What holds whenever the lock is free:
 *
 *     if a consumer is idle, there are at most as many queued tasks as spinning and
 *     waking consumers, and these take one task each.
 *
 * A consumer falls idle only where it finds no task at all, under the same lock. push()
 * takes one off the idle list, which then is waking, if the tasks became too many. Who
 * spun or was waking and has taken the lock is counted no more, but has taken one task, if
 * there was any. All others can only make tasks fewer, or idle consumers.
 *
 * A consumer that is dismissed while it is busy leaves no gap: a task that counted on
 * nobody but busy consumers was pushed, or has stayed, while none was idle; then none will
 * be before that task is popped. If it is dismissed while it spins or is waking, it is
 * counted on no more from that moment, and whoever dismisses it wakes another in its place,
 * if there is an idle one. Where there is none, nobody is free until somebody comes and pops:
 * dismiss() and push() tell. One that comes need not be known before it pops, for the same
 * reasons.
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
 * A consumer whose time is over takes itself off the idle list, and from then on is busy,
 * until it pops again. It may be too late for that: a push, nudge or close has chosen it
 * already, and unparks it, or is just about to. Then it waits for that (the parker must
 * not hold a token when it parks next, or is destroyed), and looks as any woken one does.
 * Only if it finds nothing, and would park again, its time is over.
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

/* A spin costs about as much as the wake-up that it saves if a task comes meanwhile: so it pays
 * where that happens every second time. A credit of zero means not to spin, but for one wait in so
 * many, to learn whether it would pay now. */
enum { MAX_SPIN_CREDIT = 8, WAITS_PER_TRIAL = 16 };

int
aio_taskqueue_init(AioTaskQueue *queue, int64_t spin_ns)
{
    aio_list_init(&queue->tasks);
    aio_heap_init(&queue->prioritised);
    aio_list_init(&queue->idle);
    queue->waking = 0;
    queue->spinning = 0;
    queue->max_spinning = aio_may_spin() ? 1 : 0;
    queue->spin_credit = MAX_SPIN_CREDIT;
    queue->waits_without_spin = 0;
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
    consumer->is_spinning = false;
    consumer->awaits_nudge = false;
    consumer->is_dismissed = false;
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
    aio_heap_node_init(&node->heap_node);
    node->priority = 0;
}

/* `lock` must be held: the length is only ever written under it. */
static long
add_to_length(AioTaskQueue *queue, long change)
{
    long length = atomic_load_explicit(&queue->length, memory_order_relaxed) + change;
    atomic_store_explicit(&queue->length, length, memory_order_relaxed);
    return length;
}

/* The priority of tasks that must be taken next: nothing comes before it. */
static const int64_t FIRST_OF_ALL = INT64_MIN;

/* `lock` must be held, and both be not empty: whether the heap's first task is next, or the
 * list's. */
static bool
is_heap_next(AioTaskQueue *queue)
{
    AioTaskNode *plain = aio_container_of(queue->tasks.head.next, AioTaskNode, link);
    return aio_heap_first(&queue->prioritised)->key < plain->priority;
}

/* `lock` must be held. */
static AioTaskNode *
take_first(AioTaskQueue *queue)
{
    AioTaskNode *first;
    if (!aio_heap_is_empty(&queue->prioritised) &&
        (aio_list_is_empty(&queue->tasks) || is_heap_next(queue))) {
        AioHeapNode *heap_node = aio_heap_pop_first(&queue->prioritised);
        first = aio_container_of(heap_node, AioTaskNode, heap_node);
    }
    else {
        AioListNode *link = aio_list_pop_first(&queue->tasks);
        if (link == NULL) {
            return NULL;
        }
        first = aio_container_of(link, AioTaskNode, link);
    }
    add_to_length(queue, -1);
    return first;
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

/* `lock` must be held: it spins or is waking no more. Harmless where it did not. */
static void
count_on_no_more(AioTaskQueue *queue, AioConsumer *consumer)
{
    queue->waking -= consumer->is_waking;
    queue->spinning -= consumer->is_spinning;
    consumer->is_waking = false;
    consumer->is_spinning = false;
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

/* `lock` must be held: whether that many tasks are more than those who are awake and free
 * will take. */
static bool
is_too_much(AioTaskQueue *queue, long length)
{
    return length > queue->spinning + queue->waking;
}

/* `lock` must be held, a task has just been linked. `*to_wake` is the consumer to unpark
 * after unlocking, or NULL. */
static AioPushResult
cover(AioTaskQueue *queue, AioConsumer **to_wake)
{
    if (!is_too_much(queue, add_to_length(queue, 1))) {
        *to_wake = NULL;
        return AIO_PUSH_COVERED;
    }
    *to_wake = choose_idle(queue);
    return *to_wake != NULL ? AIO_PUSH_COVERED : AIO_PUSH_WAITS;
}

AioPushResult
aio_taskqueue_push(AioTaskQueue *queue, AioTaskNode *node)
{
    AioConsumer *to_wake;
    AioPushResult result;

    pthread_mutex_lock(&queue->lock);
    if (queue->closed) {
        pthread_mutex_unlock(&queue->lock);
        return AIO_PUSH_CLOSED;
    }
    if (node->priority == 0) {
        aio_list_append(&queue->tasks, &node->link);
    }
    else {
        aio_heap_insert(&queue->prioritised, &node->heap_node, node->priority);
    }
    result = cover(queue, &to_wake);
    pthread_mutex_unlock(&queue->lock);

    /* Outside the lock, so that the woken one does not run into it. */
    if (to_wake != NULL) {
        aio_unpark(&to_wake->parker);
    }
    return result;
}

bool
aio_taskqueue_push_if_idle(AioTaskQueue *queue, AioTaskNode *node)
{
    AioConsumer *to_wake;

    pthread_mutex_lock(&queue->lock);
    if (queue->closed ||
        (is_too_much(queue, aio_taskqueue_length(queue) + 1) && aio_list_is_empty(&queue->idle))) {
        pthread_mutex_unlock(&queue->lock);
        return false;
    }
    node->priority = FIRST_OF_ALL;
    aio_list_prepend(&queue->tasks, &node->link);
    (void)cover(queue, &to_wake);
    pthread_mutex_unlock(&queue->lock);
    if (to_wake != NULL) {
        aio_unpark(&to_wake->parker);
    }
    return true;
}

void
aio_taskqueue_expect(AioTaskQueue *queue, AioConsumer *consumer)
{
    pthread_mutex_lock(&queue->lock);
    if (!consumer->is_dismissed && !consumer->is_waking) {
        consumer->is_waking = true;
        queue->waking++;
    }
    pthread_mutex_unlock(&queue->lock);
}

AioTaskNode *
aio_taskqueue_try_pop(AioTaskQueue *queue, AioConsumer *consumer)
{
    pthread_mutex_lock(&queue->lock);
    AioTaskNode *node = consumer != NULL && consumer->is_dismissed ? NULL : take_first(queue);
    if (node != NULL && consumer != NULL) {
        count_on_no_more(queue, consumer);
    }
    pthread_mutex_unlock(&queue->lock);
    return node;
}

/* Wait, for `spin_ns` at most, until there seems to be a task or a nudge. No lock held. */
static void
spin(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns)
{
    int64_t until = aio_clock_ns() + queue->spin_ns;
    if (deadline_ns >= 0 && deadline_ns < until) {
        until = deadline_ns;
    }
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

/* `lock` must be held: whether the present wait is to begin with a spin. */
static bool
should_spin(AioTaskQueue *queue)
{
    if (queue->spinning >= queue->max_spinning) {
        return false;
    }
    if (queue->spin_credit == 0 && ++queue->waits_without_spin < WAITS_PER_TRIAL) {
        return false;
    }
    queue->waits_without_spin = 0;
    return true;
}

/* `lock` must be held, and is released meanwhile. */
static void
wait_spinning(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns)
{
    consumer->is_spinning = true;
    queue->spinning++;
    pthread_mutex_unlock(&queue->lock);
    spin(queue, consumer, deadline_ns);
    pthread_mutex_lock(&queue->lock);
    count_on_no_more(queue, consumer);
    if (aio_taskqueue_length(queue) == 0) {
        queue->spin_credit -= queue->spin_credit > 0;
    }
    else {
        queue->spin_credit += queue->spin_credit < MAX_SPIN_CREDIT;
    }
}

/* `lock` must be held, and is released meanwhile. Sleep until somebody takes the consumer
 * off the idle list: false if nobody has by the deadline. */
static bool
wait_on_idle_list(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns)
{
    bool is_unparked = true;

    aio_list_append(&queue->idle, &consumer->idle_link);
    pthread_mutex_unlock(&queue->lock);
    if (deadline_ns < 0) {
        aio_park(&consumer->parker);
    }
    else {
        is_unparked = aio_park_until(&consumer->parker, deadline_ns);
    }
    pthread_mutex_lock(&queue->lock);
    if (is_unparked) {
        return true;
    }
    if (aio_list_is_linked(&consumer->idle_link)) {
        aio_list_unlink(&consumer->idle_link);
        return false;
    }
    /* Chosen at the last moment: the token is on its way. */
    pthread_mutex_unlock(&queue->lock);
    aio_park(&consumer->parker);
    pthread_mutex_lock(&queue->lock);
    return true;
}

/* `lock` must be held, and is released meanwhile. False: the time is over. */
static bool
wait_parked(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns)
{
    if (!wait_on_idle_list(queue, consumer, deadline_ns)) {
        return false;
    }
    /* choose_idle() has taken it off the idle list, or else a nudge or its dismissal. */
    count_on_no_more(queue, consumer);
    return true;
}

AioPopResult
aio_taskqueue_pop(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns,
                  AioTaskNode **node)
{
    bool has_spun = false, is_in_time = true;
    AioTaskNode *first = NULL;
    AioPopResult result;

    pthread_mutex_lock(&queue->lock);
    count_on_no_more(queue, consumer); /* which it was if it was expected */
    while (!consumer->is_dismissed && (first = take_first(queue)) == NULL && !is_nudged(consumer) &&
           !queue->closed && is_in_time) {
        if (!has_spun && should_spin(queue)) {
            has_spun = true;
            wait_spinning(queue, consumer, deadline_ns);
        }
        else {
            is_in_time = wait_parked(queue, consumer, deadline_ns);
        }
    }
    if (first != NULL) {
        *node = first;
        result = AIO_POP_TASK;
    }
    else if (consumer->is_dismissed) {
        result = AIO_POP_DISMISSED;
    }
    else if (is_nudged(consumer)) {
        set_nudged(consumer, false);
        result = AIO_POP_NUDGED;
    }
    else {
        result = queue->closed ? AIO_POP_CLOSED : AIO_POP_TIMED_OUT;
    }
    pthread_mutex_unlock(&queue->lock);
    return result;
}

bool
aio_taskqueue_dismiss(AioTaskQueue *queue, AioConsumer *consumer)
{
    AioConsumer *to_wake = NULL;

    pthread_mutex_lock(&queue->lock);
    consumer->is_dismissed = true;
    const bool is_parked = aio_list_is_linked(&consumer->idle_link);
    aio_list_unlink(&consumer->idle_link);
    count_on_no_more(queue, consumer);
    if (is_too_much(queue, aio_taskqueue_length(queue))) {
        to_wake = choose_idle(queue);
    }
    const bool waits = is_too_much(queue, aio_taskqueue_length(queue));
    pthread_mutex_unlock(&queue->lock);
    if (is_parked) {
        aio_unpark(&consumer->parker);
    }
    if (to_wake != NULL) {
        aio_unpark(&to_wake->parker);
    }
    return waits;
}

bool
aio_taskqueue_dismiss_idle(AioTaskQueue *queue, AioConsumer *consumer)
{
    pthread_mutex_lock(&queue->lock);
    if (aio_taskqueue_length(queue) == 0) {
        consumer->is_dismissed = true;
    }
    const bool is_dismissed = consumer->is_dismissed;
    pthread_mutex_unlock(&queue->lock);
    return is_dismissed;
}

void
aio_taskqueue_readmit(AioTaskQueue *queue, AioConsumer *consumer)
{
    pthread_mutex_lock(&queue->lock);
    consumer->is_dismissed = false;
    pthread_mutex_unlock(&queue->lock);
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
    bool queued = aio_list_is_linked(&node->link) || aio_heap_is_linked(&node->heap_node);
    if (queued) {
        /* Both are harmless where it is not. */
        aio_list_unlink(&node->link);
        aio_heap_remove(&queue->prioritised, &node->heap_node);
        add_to_length(queue, -1);
    }
    pthread_mutex_unlock(&queue->lock);
    return queued;
}

bool
aio_taskqueue_holds(AioTaskQueue *queue, const AioTaskNode *node)
{
    pthread_mutex_lock(&queue->lock);
    const bool queued = aio_list_is_linked(&node->link) || aio_heap_is_linked(&node->heap_node);
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
