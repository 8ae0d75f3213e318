/* taskqueue.h: submitted work, from many threads to many workers.
 *
 *     submitter ──push──►  [ first … last ]  ──pop──►  worker
 *                           under one lock             spins a moment, then parks
 *
 * Tasks of a lower priority value come first, and among equals it is first in, first
 * out. Who uses no priorities pays nothing for them: tasks of priority 0 stand in a plain
 * list, all others in a heap.
 *
 * The lock is held for a few instructions only. What the queue is careful with is waking: a
 * sleeping worker costs 40 us to wake, and the wake-up is a system call for the submitter. So
 *   - a push wakes a worker only if no worker that is already awake is sure to
 *     look: the ones that spin, and the ones that were woken and have not come
 *     back for the lock yet, each take one task;
 *   - the worker that fell idle last is woken first: its caches are warm, and
 *     the others may sleep on;
 *   - a worker that has just worked spins for some tens of microseconds before
 *     it parks, because in a request-response pattern the next task comes then.
 *     At most one worker of a queue spins, and none on a single processor. Whether
 *     it pays is learnt: while tasks come too late for it, one wait in some spins.
 *
 * A worker may have other things to look after than tasks. Whoever has such a thing
 * for a particular worker puts it where that one looks, and nudges it: its wait ends.
 *
 * Workers come and go. One that comes just pops; one that is to go is dismissed.
 *
 * Nodes belong to the queue between push and pop or remove.
 */
#ifndef AIO_CORE_TASKQUEUE_H
#define AIO_CORE_TASKQUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "heap.h"
#include "list.h"
#include "park.h"

typedef struct AioTaskNode {
    /* Guarded by the queue's lock. In the queue one of both is linked, outside none. */
    AioListNode link;
    AioHeapNode heap_node;
    /* Set by the submitter, before the push; meanwhile the queue's. */
    int64_t priority;
} AioTaskNode;

/* A worker's place in the queue; belongs to the worker, outlives its last pop. */
typedef struct AioConsumer {
    /* guarded by the queue's lock: */
    AioListNode idle_link; /* linked while it is parked in pop, and not chosen or nudged */
    bool is_waking;        /* it is one of the queue's `waking`, or is expected */
    bool is_spinning;      /* it is one of the queue's `spinning` */
    bool awaits_nudge;     /* it is parked until it is nudged */
    bool is_dismissed;     /* it takes no tasks any more */
    /* It was nudged, and has not returned for it yet. Written under the lock; read
     * without it, relaxed, by its owner's spin only, as a hint that taking the lock is
     * worth while: the lock then orders everything. */
    _Atomic bool nudged;
    /* Unparked once by whoever took the consumer off the idle list, or took its
     * `awaits_nudge` back, and by nobody else. */
    AioParker parker;
} AioConsumer;

typedef struct AioTaskQueue {
    pthread_mutex_t lock;
    /* guarded by `lock`: */
    AioList tasks;       /* those of priority 0, and before them those that were prepended */
    AioHeap prioritised; /* all others, by their priority */
    AioList idle;        /* parked consumers, the one that parked last at the end */
    int waking;          /* consumers unparked for a task or the closing, that have not taken the
                          * lock yet; and those that are expected */
    int spinning;        /* consumers that spin, and have not been dismissed since */
    int max_spinning;
    int spin_credit;        /* how often spins were not in vain lately; 0: rarely */
    int waits_without_spin; /* since then */
    bool closed;
    /* Tasks in the queue. Written under the lock; read without it, relaxed, only as a
     * hint: by spinners, that taking the lock is worth while, which then orders
     * everything; and by aio_taskqueue_length(). */
    _Atomic long length;
    int64_t spin_ns; /* constant once initialised, guarded by nothing */
} AioTaskQueue;

/* `spin_ns`: how long an idle consumer spins before it parks; it looks at the queue
 * some 30 times even for 0. Returns 0 or -1. */
int aio_taskqueue_init(AioTaskQueue *queue, int64_t spin_ns);
void aio_taskqueue_destroy(AioTaskQueue *queue);

int aio_consumer_init(AioConsumer *consumer);
void aio_consumer_destroy(AioConsumer *consumer);

/* With priority 0. */
void aio_task_node_init(AioTaskNode *node);

typedef enum AioPushResult {
    AIO_PUSH_CLOSED,  /* refused: the caller keeps it */
    AIO_PUSH_COVERED, /* taken, and a consumer that is free will pop at once */
    AIO_PUSH_WAITS,   /* taken, and every consumer, if there is any, has something else to
                       * do first: whoever can add a consumer may want to now */
} AioPushResult;

/* Take `node`, unless the queue is closed. */
AioPushResult aio_taskqueue_push(AioTaskQueue *queue, AioTaskNode *node);

/* As push, but before all others, whatever their priorities (its own is lost), and only if
 * a consumer idles that has nothing to do yet: it will take this one next. False (and the
 * caller keeps it) if there is none. */
bool aio_taskqueue_push_if_idle(AioTaskQueue *queue, AioTaskNode *node);

/* `consumer` is about to have done its task, and will pop next, or try to: pushes count on it from
 * now on, though it may yet tell somebody of the task's end who pushes the next one. */
void aio_taskqueue_expect(AioTaskQueue *queue, AioConsumer *consumer);

/* The next task, or NULL at once if there is none, or none for `consumer` (NULL: whoever). One that
 * was expected still is, if it gets none: then it must pop next. */
AioTaskNode *aio_taskqueue_try_pop(AioTaskQueue *queue, AioConsumer *consumer);

typedef enum AioPopResult {
    AIO_POP_DISMISSED,
    AIO_POP_TASK,
    AIO_POP_NUDGED,
    AIO_POP_CLOSED, /* and empty */
    AIO_POP_TIMED_OUT,
} AioPopResult;

/* Wait until `consumer` was dismissed, or there is a task, or it was nudged, or the queue is
 * closed, or it is `deadline_ns` by aio_clock_ns() (negative: never): which, is asked in
 * this order.
 * `*node` is set only for TASK; NUDGED takes the nudge back. */
AioPopResult aio_taskqueue_pop(AioTaskQueue *queue, AioConsumer *consumer, int64_t deadline_ns,
                               AioTaskNode **node);

/* `consumer` gets no task any more: its present wait or its next pop returns DISMISSED. What
 * it has popped already stays its own. Any thread; as for nudge. True if tasks are queued
 * that every other consumer, if there is any, has something else to do before: as WAITS.
 *
 * Whoever counts consumers, to decide whether one should be added, must count this one no
 * more before it calls this: then a push that WAITS finds it gone from the count. */
bool aio_taskqueue_dismiss(AioTaskQueue *queue, AioConsumer *consumer);

/* As dismiss, for the consumer's own thread, unless there are tasks: then false. */
bool aio_taskqueue_dismiss_idle(AioTaskQueue *queue, AioConsumer *consumer);

/* Take back that it was dismissed, by its own thread. */
void aio_taskqueue_readmit(AioTaskQueue *queue, AioConsumer *consumer);

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

/* Whether `node`, which nobody frees meanwhile, is still queued. Any thread. */
bool aio_taskqueue_holds(AioTaskQueue *queue, const AioTaskNode *node);

/* Refuse pushes, and let the consumers go once it is empty. Idempotent. The queue
 * must be kept alive until this returns, even if all consumers have gone by then. */
void aio_taskqueue_close(AioTaskQueue *queue);

/* How many tasks are queued: a hint, as it may be another number by now. Any thread. */
static inline long
aio_taskqueue_length(AioTaskQueue *queue)
{
    return atomic_load_explicit(&queue->length, memory_order_relaxed);
}

#endif
