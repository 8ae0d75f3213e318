/* pending.c: a count and its waiters.
 *
 * No wake-up is lost: a waiter registers under the lock after it saw a count
 * above zero. The thread that brings the count to zero does so after that
 * moment, and takes the lock afterwards: it finds the waiter.
 */
#include "pending.h"

int
aio_pending_init(AioPending *pending, long count)
{
    atomic_init(&pending->count, count);
    aio_list_init(&pending->waiters);
    return pthread_mutex_init(&pending->lock, NULL) == 0 ? 0 : -1;
}

void
aio_pending_destroy(AioPending *pending)
{
    pthread_mutex_destroy(&pending->lock);
}

void
aio_pending_add(AioPending *pending)
{
    aio_pending_add_many(pending, 1);
}

void
aio_pending_add_many(AioPending *pending, long count)
{
    atomic_fetch_add(&pending->count, count);
}

bool
aio_pending_add_unless_zero(AioPending *pending)
{
    long count = atomic_load(&pending->count);
    do {
        if (count == 0) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&pending->count, &count, count + 1));
    return true;
}

void
aio_pending_done(AioPending *pending)
{
    aio_pending_done_many(pending, 1);
}

void
aio_pending_done_many(AioPending *pending, long count)
{
    AioList ready;
    AioListNode *link;

    if (atomic_fetch_sub(&pending->count, count) != count) {
        return;
    }
    aio_list_init(&ready);
    pthread_mutex_lock(&pending->lock);
    /* Something may have been added since: then its own end will notify. */
    if (atomic_load(&pending->count) == 0) {
        aio_list_move(&pending->waiters, &ready);
    }
    /* A waiter that is being notified is in no list that forget could find. */
    for (link = ready.head.next; link != &ready.head; link = link->next) {
        link->prev = NULL;
    }
    pthread_mutex_unlock(&pending->lock);

    link = ready.head.next;
    while (link != &ready.head) {
        AioPendingWaiter *waiter = aio_container_of(link, AioPendingWaiter, link);
        link = link->next; /* the waiter may be gone once it is notified */
        waiter->notify(waiter);
    }
}

bool
aio_pending_wait(AioPending *pending, AioPendingWaiter *waiter)
{
    bool zero;
    pthread_mutex_lock(&pending->lock);
    zero = atomic_load(&pending->count) == 0;
    if (!zero) {
        aio_list_append(&pending->waiters, &waiter->link);
    }
    pthread_mutex_unlock(&pending->lock);
    return zero;
}

bool
aio_pending_forget(AioPending *pending, AioPendingWaiter *waiter)
{
    bool registered;
    pthread_mutex_lock(&pending->lock);
    registered = waiter->link.prev != NULL;
    if (registered) {
        aio_list_unlink(&waiter->link);
    }
    pthread_mutex_unlock(&pending->lock);
    return registered;
}
