/* fifo.h: a bounded queue of nodes, many to many, with somebody waiting at either end.
 *
 *     put ──►  [ first … last ]  ──► get
 *     putters wait for room          getters wait for a node
 *
 * First in, first out, for the nodes. Nobody sleeps in here: whoever cannot go on
 * registers a waiter, which is notified once, when trying again is worth while. So
 * threads that park and event loops that go on meanwhile can wait side by side.
 *
 * A notification is a hint, not a promise: somebody else may have been quicker, and
 * then one registers again, before those who came later. But it is a duty as well:
 * one put notifies one getter, and one get one putter, so whoever was notified and
 * will not try (it was cancelled, its time is over) must call aio_fifo_pass_on().
 *
 * Nodes belong to the queue between put and get.
 */
#ifndef AIO_CORE_FIFO_H
#define AIO_CORE_FIFO_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "list.h"

typedef struct AioFifoNode {
    AioListNode link; /* guarded by the queue's lock */
} AioFifoNode;

typedef struct AioFifoWaiter {
    AioListNode link;  /* guarded by the queue's lock; NULL in `prev` when not registered */
    bool has_priority; /* guarded by it too: it was notified since it was initialised */
    /* Called once per registration, with no lock held, from the thread whose put, get,
     * passing on or shut-down it is; it should only tell somebody. Constant. From then
     * on the waiter belongs to the callee. */
    void (*notify)(struct AioFifoWaiter *waiter);
} AioFifoWaiter;

typedef enum AioFifoResult {
    AIO_FIFO_DONE,
    AIO_FIFO_WOULD_BLOCK, /* full, or empty */
    AIO_FIFO_SHUT_DOWN,
} AioFifoResult;

typedef struct AioFifo {
    pthread_mutex_t lock; /* innermost: nothing else is taken under it */
    /* guarded by `lock`: */
    AioList nodes;
    AioList getters; /* AioFifoWaiter.link, whose turn it is first */
    AioList putters;
    size_t length;
    bool is_shut_down;
    size_t max_length; /* constant; 0: no bound */
} AioFifo;

/* Returns 0 or -1. */
int aio_fifo_init(AioFifo *fifo, size_t max_length);

/* Nobody may be waiting, and no node left. */
void aio_fifo_destroy(AioFifo *fifo);

/* Once per wait, which may take several registrations: it is what gives priority to
 * all but the first. */
void aio_fifo_waiter_init(AioFifoWaiter *waiter, void (*notify)(AioFifoWaiter *waiter));

/* Take `node` to the end. Unless that is DONE the caller keeps it. */
AioFifoResult aio_fifo_try_put(AioFifo *fifo, AioFifoNode *node);

/* The first node, now the caller's. SHUT_DOWN only once the queue is empty, too. */
AioFifoResult aio_fifo_try_get(AioFifo *fifo, AioFifoNode **node);

/* True: trying is worth while right now (also because of a shut-down), and `waiter`
 * is not registered. False: `waiter` is borrowed until it is notified or forgotten. */
bool aio_fifo_wait_to_get(AioFifo *fifo, AioFifoWaiter *waiter);
bool aio_fifo_wait_to_put(AioFifo *fifo, AioFifoWaiter *waiter);

/* For a waiter of this queue that has been registered. True: it still was, and now is
 * not. False: its notify has been called, or is about to be (so the waiter must stay
 * until then), and then comes the duty to try or pass on. */
bool aio_fifo_forget(AioFifo *fifo, AioFifoWaiter *waiter);

/* Notify the next getter if there is a node, and the next putter if there is room. */
void aio_fifo_pass_on(AioFifo *fifo);

/* Refuse all puts from now on, and gets once empty; notify everybody who waits. If
 * `dropped` is not NULL all nodes are moved there (it is initialised here), and are
 * the caller's. May be called again. */
void aio_fifo_shut_down(AioFifo *fifo, AioList *dropped);

size_t aio_fifo_length(AioFifo *fifo);

#endif
