/* pending.h: count what is still to be done, and tell whoever waits for none.
 *
 * Used for accepted tasks (drain) and for live threads (close). Adding and
 * finishing are one atomic operation each; only the step to zero takes the lock.
 *
 * Whoever finishes one must keep the AioPending alive until aio_pending_done()
 * returns, by a reference to what it is part of: it is still used after others
 * can see the count at zero.
 */
#ifndef AIO_CORE_PENDING_H
#define AIO_CORE_PENDING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "list.h"

typedef struct AioPendingWaiter {
    AioListNode link;
    /* Called once, with no lock held, from the thread that finished the last
     * one. From then on the waiter belongs to the callee. */
    void (*notify)(struct AioPendingWaiter *waiter);
} AioPendingWaiter;

typedef struct AioPending {
    /* Sequentially consistent throughout, for the argument in pending.c. */
    _Atomic long count;
    pthread_mutex_t lock; /* guards `waiters` */
    AioList waiters;
} AioPending;

int aio_pending_init(AioPending *pending, long count);
void aio_pending_destroy(AioPending *pending);

void aio_pending_add(AioPending *pending);
void aio_pending_add_many(AioPending *pending, long count);

/* Add one only if the count is not zero; true if it was added. */
bool aio_pending_add_unless_zero(AioPending *pending);

/* Finish one. At zero the waiters are notified from here. */
void aio_pending_done(AioPending *pending);
void aio_pending_done_many(AioPending *pending, long count);

static inline long
aio_pending_count(AioPending *pending)
{
    return atomic_load(&pending->count);
}

/* True: the count is zero already, and `waiter` is not registered. False:
 * `waiter` is borrowed until it is notified, or given back by forget. */
bool aio_pending_wait(AioPending *pending, AioPendingWaiter *waiter);

/* For a waiter that is registered or has been notified, once. True: it was still
 * registered, and now is not. False: its notify has been called, or is about to be. */
bool aio_pending_forget(AioPending *pending, AioPendingWaiter *waiter);

#endif
