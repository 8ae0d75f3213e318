/* taskqueue.h: submitted work, from many threads to many workers.
 *
 *     submitter ──push──►  [ first … last ]  ──pop──►  worker
 *                           under one lock             spins a moment, then parks
 *
 * First in, first out. The lock is held for a few instructions only. What the
 * queue is careful with is waking: a sleeping worker costs 40 us to wake, and
 * the wake-up is a system call for the submitter. So
 *   - a push wakes a worker only if no worker that is already awake is sure to
 *     look: the ones that spin, and the ones that were woken and have not come
 *     back for the lock yet, each take one task;
 *   - the worker that fell idle last is woken first: its caches are warm, and
 *     the others may sleep on;
 *   - a worker that has just worked spins for some tens of microseconds before
 *     it parks, because in a request-response pattern the next task comes then.
 *     At most one worker of a queue spins, and none on a single processor.
 *
 * A worker may have other things to look after than tasks. Whoever has such a thing
 * for a particular worker puts it where that one looks, and nudges it: its wait ends.
 *
 * Nodes belong to the queue between push and pop or remove.
 */
#ifndef AIO_CORE_TASKQUEUE_H
#define AIO_CORE_TASKQUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "list.h"
#include "park.h"

typedef struct AioTaskNode {
    AioListNode link; /* guarded by the queue's lock; unlinked outside the queue */
} AioTaskNode;

/* A worker's place in the queue; belongs to the worker, outlives its last pop. */
typedef struct AioConsumer {
    /* guarded by the queue's lock: */
    AioListNode idle_link; /* linked while it is parked in pop */
    bool is_waking;        /* it is one of the queue's `waking` */
    bool awaits_nudge;     /* it is parked until it is nudged */
    /* It was nudged, and has not returned for it yet. Written under the lock; read
     * without it, relaxed, by its owner's spin only, as a hint that taking the lock is
     * worth while: the lock then orders everything. */
    _Atomic bool nudged;
    /* Unparked once per park, by whoever took the consumer off the idle list, or took
     * its `awaits_nudge` back. */
    AioParker parker;
} AioConsumer;

typedef struct AioTaskQueue {
    pthread_mutex_t lock;
    /* guarded by `lock`: */
    AioList tasks;
    AioList idle; /* parked consumers, the one that parked last at the end */
    int waking;   /* consumers unparked for a task or the closing, that have not taken the
                   * lock yet */
    int spinning; /* consumers that spin */
    int max_spinning;
    bool closed;
    /* Tasks in the queue. Written under the lock; read without it, relaxed, by
     * spinners only, as a hint that taking the lock is worth while: the lock
     * then orders everything. */
    _Atomic long length;
    int64_t spin_ns; /* constant once initialised, guarded by nothing */
} AioTaskQueue;

/* `spin_ns`: how long an idle consumer spins before it parks; it looks at the queue
 * some 30 times even for 0. Returns 0 or -1. */
int aio_taskqueue_init(AioTaskQueue *queue, int64_t spin_ns);
void aio_taskqueue_destroy(AioTaskQueue *queue);

int aio_consumer_init(AioConsumer *consumer);
void aio_consumer_destroy(AioConsumer *consumer);

void aio_task_node_init(AioTaskNode *node);

/* Take `node`. False (and the caller keeps it) if the queue is closed. */
bool aio_taskqueue_push(AioTaskQueue *queue, AioTaskNode *node);

/* As push, but at the front, and only if a consumer idles that has nothing to do yet: it
 * will take this one next. False (and the caller keeps it) if there is none. */
bool aio_taskqueue_push_if_idle(AioTaskQueue *queue, AioTaskNode *node);

/* The next task, or NULL at once if there is none. */
AioTaskNode *aio_taskqueue_try_pop(AioTaskQueue *queue);

typedef enum AioPopResult {
    AIO_POP_TASK,
    AIO_POP_NUDGED,
    AIO_POP_CLOSED, /* and empty */
} AioPopResult;

/* Wait until there is a task, or `consumer` was nudged, or the queue is closed: which,
 * is asked in this order. `*node` is set only for TASK; NUDGED takes the nudge back. */
AioPopResult aio_taskqueue_pop(AioTaskQueue *queue, AioConsumer *consumer, AioTaskNode **node);

/* Let `consumer` return NUDGED from its present wait or its next one, without a task; if
 * there is a task after all, from the one after that. Until it has, more nudges change
 * nothing. What was written before the nudge is seen after the wait. Any thread; the
 * consumer must be kept alive by the caller's means until this returns. */
void aio_taskqueue_nudge(AioTaskQueue *queue, AioConsumer *consumer);

/* Wait until `consumer` was nudged, whether or not there are tasks or the queue is
 * closed, and take the nudge back. It looks at no task meanwhile, as if it ran one. */
void aio_taskqueue_await_nudge(AioTaskQueue *queue, AioConsumer *consumer);

/* Take `node` out if it is still queued (then it is the caller's); else false. */
bool aio_taskqueue_remove(AioTaskQueue *queue, AioTaskNode *node);

/* Refuse pushes, and let the consumers go once it is empty. Idempotent. The queue
 * must be kept alive until this returns, even if all consumers have gone by then. */
void aio_taskqueue_close(AioTaskQueue *queue);

#endif
