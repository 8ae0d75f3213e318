/* fifo.c: the bounded queue, and its two lines of waiters.
 *
 * Any thread enters any function, holding whatever it likes: the lock is taken
 * for a few instructions, nothing else is taken under it, and waiters are
 * notified after it was released. Nodes and waiters are the callers'; the queue
 * only links them.
 *
 * Why no getter is left sleeping while there is a node. Say that a waiter owes
 * from when it is taken off its line, to be notified, until it has tried, has
 * registered again, or has passed on. Under the lock it always holds that
 *
 *     no getter is registered,  or  nodes <= getters that owe
 *
 *   - a getter registers only when there is no node;
 *   - a put adds a node, and makes the first registered getter owe; if it finds
 *     none, none is registered;
 *   - a get by one who owes takes one from either side; a get by anybody else
 *     takes a node;
 *   - one who owes and finds nothing stops owing when there are no nodes at all;
 *   - one who owes and passes on makes the first registered getter owe in its
 *     place, unless there is no node, or nobody registered;
 *   - to forget one who is registered changes neither side, and one who is not
 *     any more is told so, and still owes.
 * Whoever owes tries in the end, so it comes to "nodes <= 0" or to "no getter is
 * registered". A notification too many does no harm: more owe. A shut-down empties
 * both lines, for good. The same holds of putters, with room in the place of nodes.
 */
#include "fifo.h"

#include <assert.h>

#include "platform.h"

/* Threads on different cores meet at the lock, and each holds it for some ten
 * nanoseconds. A plain mutex puts who comes second to sleep in the kernel, which costs
 * both of them microseconds; an adaptive one has it look again a few times first.
 * Of the two names only the macro can be asked for; glibc alone has them. */
#if !defined(AIO_PORTABLE) && defined(PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP)
#define HAS_ADAPTIVE_MUTEX 1
#endif

static int
init_lock(pthread_mutex_t *lock)
{
#ifdef HAS_ADAPTIVE_MUTEX
    pthread_mutexattr_t attributes;
    int failed;

    if (pthread_mutexattr_init(&attributes) != 0) {
        return -1;
    }
    failed = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP) != 0 ||
             pthread_mutex_init(lock, &attributes) != 0;
    pthread_mutexattr_destroy(&attributes);
    return failed ? -1 : 0;
#else
    return pthread_mutex_init(lock, NULL) == 0 ? 0 : -1;
#endif
}

int
aio_fifo_init(AioFifo *fifo, size_t max_length)
{
    aio_list_init(&fifo->nodes);
    aio_list_init(&fifo->getters);
    aio_list_init(&fifo->putters);
    fifo->length = 0;
    fifo->is_shut_down = false;
    fifo->max_length = max_length;
    return init_lock(&fifo->lock);
}

void
aio_fifo_destroy(AioFifo *fifo)
{
    assert(aio_list_is_empty(&fifo->nodes));
    assert(aio_list_is_empty(&fifo->getters));
    assert(aio_list_is_empty(&fifo->putters));
    pthread_mutex_destroy(&fifo->lock);
}

void
aio_fifo_waiter_init(AioFifoWaiter *waiter, void (*notify)(AioFifoWaiter *waiter))
{
    waiter->link.prev = NULL;
    waiter->link.next = NULL;
    waiter->has_priority = false;
    waiter->notify = notify;
}

/* `lock` must be held. */
static bool
has_room(const AioFifo *fifo)
{
    return fifo->max_length == 0 || fifo->length < fifo->max_length;
}

/* `lock` must be held. The link has left its line, and its waiter owes from now on:
 * forget finds it nowhere. */
static void
mark_notified(AioListNode *link)
{
    link->prev = NULL;
    aio_container_of(link, AioFifoWaiter, link)->has_priority = true;
}

/* `lock` must be held. The waiter to notify after unlocking, or NULL. */
static AioFifoWaiter *
take_first(AioList *line)
{
    AioListNode *link = aio_list_pop_first(line);
    if (link == NULL) {
        return NULL;
    }
    mark_notified(link);
    return aio_container_of(link, AioFifoWaiter, link);
}

/* No lock is held. The waiter may be gone when this returns. */
static void
notify(AioFifoWaiter *waiter)
{
    if (waiter != NULL) {
        waiter->notify(waiter);
    }
}

AioFifoResult
aio_fifo_try_put(AioFifo *fifo, AioFifoNode *node)
{
    AioFifoResult result = AIO_FIFO_DONE;
    AioFifoWaiter *getter = NULL;

    pthread_mutex_lock(&fifo->lock);
    if (fifo->is_shut_down) {
        result = AIO_FIFO_SHUT_DOWN;
    }
    else if (!has_room(fifo)) {
        result = AIO_FIFO_WOULD_BLOCK;
    }
    else {
        aio_list_append(&fifo->nodes, &node->link);
        fifo->length++;
        getter = take_first(&fifo->getters);
    }
    pthread_mutex_unlock(&fifo->lock);

    notify(getter);
    return result;
}

AioFifoResult
aio_fifo_try_get(AioFifo *fifo, AioFifoNode **node)
{
    AioFifoResult result;
    AioFifoWaiter *putter = NULL;

    pthread_mutex_lock(&fifo->lock);
    AioListNode *link = aio_list_pop_first(&fifo->nodes);
    if (link != NULL) {
        fifo->length--;
        putter = take_first(&fifo->putters);
        *node = aio_container_of(link, AioFifoNode, link);
        result = AIO_FIFO_DONE;
    }
    else {
        result = fifo->is_shut_down ? AIO_FIFO_SHUT_DOWN : AIO_FIFO_WOULD_BLOCK;
    }
    pthread_mutex_unlock(&fifo->lock);

    notify(putter);
    return result;
}

/* `lock` must be held. Who was notified before goes to the front: it has waited already. */
static void
stand_in(AioList *line, AioFifoWaiter *waiter)
{
    assert(waiter->link.prev == NULL);
    if (waiter->has_priority) {
        aio_list_prepend(line, &waiter->link);
    }
    else {
        aio_list_append(line, &waiter->link);
    }
}

bool
aio_fifo_wait_to_get(AioFifo *fifo, AioFifoWaiter *waiter)
{
    pthread_mutex_lock(&fifo->lock);
    const bool go_on = fifo->length > 0 || fifo->is_shut_down;
    if (!go_on) {
        stand_in(&fifo->getters, waiter);
    }
    pthread_mutex_unlock(&fifo->lock);
    return go_on;
}

bool
aio_fifo_wait_to_put(AioFifo *fifo, AioFifoWaiter *waiter)
{
    pthread_mutex_lock(&fifo->lock);
    const bool go_on = has_room(fifo) || fifo->is_shut_down;
    if (!go_on) {
        stand_in(&fifo->putters, waiter);
    }
    pthread_mutex_unlock(&fifo->lock);
    return go_on;
}

bool
aio_fifo_forget(AioFifo *fifo, AioFifoWaiter *waiter)
{
    pthread_mutex_lock(&fifo->lock);
    const bool registered = waiter->link.prev != NULL;
    if (registered) {
        aio_list_unlink(&waiter->link);
        waiter->link.prev = NULL;
    }
    pthread_mutex_unlock(&fifo->lock);
    return registered;
}

void
aio_fifo_pass_on(AioFifo *fifo)
{
    AioFifoWaiter *getter = NULL, *putter = NULL;

    pthread_mutex_lock(&fifo->lock);
    if (fifo->length > 0) {
        getter = take_first(&fifo->getters);
    }
    if (has_room(fifo)) {
        putter = take_first(&fifo->putters);
    }
    pthread_mutex_unlock(&fifo->lock);

    notify(getter);
    notify(putter);
}

/* `lock` must be held. Move the whole line to `notified`, which is initialised here. */
static void
take_all(AioList *line, AioList *notified)
{
    aio_list_move(line, notified);
    for (AioListNode *link = notified->head.next; link != &notified->head; link = link->next) {
        mark_notified(link);
    }
}

/* No lock is held. */
static void
notify_all(AioList *notified)
{
    AioListNode *link = notified->head.next;
    while (link != &notified->head) {
        AioFifoWaiter *waiter = aio_container_of(link, AioFifoWaiter, link);
        link = link->next; /* the waiter may be gone once it is notified */
        notify(waiter);
    }
}

void
aio_fifo_shut_down(AioFifo *fifo, AioList *dropped)
{
    AioList getters, putters;

    pthread_mutex_lock(&fifo->lock);
    fifo->is_shut_down = true;
    if (dropped != NULL) {
        aio_list_move(&fifo->nodes, dropped);
        fifo->length = 0;
    }
    take_all(&fifo->getters, &getters);
    take_all(&fifo->putters, &putters);
    pthread_mutex_unlock(&fifo->lock);

    notify_all(&getters);
    notify_all(&putters);
}

size_t
aio_fifo_length(AioFifo *fifo)
{
    pthread_mutex_lock(&fifo->lock);
    const size_t length = fifo->length;
    pthread_mutex_unlock(&fifo->lock);
    return length;
}
