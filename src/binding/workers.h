/* workers.h: a pool's workers: how many there are, and which.
 *
 *     starting ──ready──► serving ──────► retiring ──► ended
 *         └───────────────────┴─► stuck ─────┘
 *
 * A worker serves from the moment that its thread is started: it takes tasks, or will once
 * it is ready. It retires, and ends after what it runs just then, when there are more than
 * there should be, when it has been idle for long, when it has done its number of tasks, when
 * the pool is recycled, when it is stuck, and when the pool is closed and has nothing to do for it
 * while it is still starting.
 */
#ifndef AIO_BINDING_WORKERS_H
#define AIO_BINDING_WORKERS_H

#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/list.h"
#include "loop.h"

struct AioPool;
struct AioStuckNotice;
struct AioTask;
struct AioWorker;

typedef struct AioWorkers {
    /* Guards the rest. Python is not run, nor a GIL waited for, while it is held; comes
     * after the timers' lock, before a worker's `running_lock` and the task queue's. */
    pthread_mutex_t lock;
    AioList list; /* AioWorker.link, one reference each: all whose threads have not ended */
    int serving;
    bool is_elastic;     /* constant once started, as the next */
    int least_wanted;    /* `least`, unless `most` is smaller; only where it is elastic */
    int least;           /* as many serve even if there is nothing to do */
    int most;            /* and no more than these, but for one that takes another's place */
    bool is_open;        /* the pool counts itself as one of its `threads` */
    unsigned generation; /* workers of an older one are to be replaced */
    bool is_recycling;   /* some are; counted in the pool's `recycling` */
    /* Of the last round: old ones are left, as none could be started in their place. Written under
     * the lock, before the round counts as done. Sequentially consistent. */
    _Atomic bool recycling_has_failed;
    struct AioWorker *successor; /* the worker that will take an old one's place; NULL: none */
    /* More may serve than do. Written under the lock, before whatever makes that so can be
     * seen in the task queue, whose lock orders the two; read without, relaxed, after a push. */
    _Atomic bool may_grow;
    /* Since the start, for statistics: */
    unsigned long started_count;
    unsigned long stuck_count;
    unsigned long task_count; /* of workers that have ended */
} AioWorkers;

/* With the system's mutexes on Linux and macOS it can't fail. 0 or -1. */
int aio_workers_init(AioWorkers *workers);
void aio_workers_destroy(AioWorkers *workers);

/* Start as many workers as there should be at least. Returns how many could be: if fewer,
 * the pool must be closed. */
int aio_workers_start(struct AioPool *pool, int least, int most);

/* A task was pushed that all workers are too busy for: start another, if there may be
 * more. False if there is none at all, nor can one be started. */
bool aio_workers_grow(struct AioPool *pool);

static inline bool
aio_workers_may_grow(AioWorkers *workers)
{
    return atomic_load_explicit(&workers->may_grow, memory_order_relaxed);
}

/* There should be `most` from now on. 0, or -1 if threads could not be started. */
int aio_workers_resize(struct AioPool *pool, int most);

/* Replace all that serve, one after the other. `recycling` is zero again once the last old
 * one takes no more tasks, or no other can be started (`recycling_has_failed`). */
void aio_workers_recycle(struct AioPool *pool);

/* The pool takes no more tasks, `recycling` ends. Workers are still started for what is
 * queued. Idempotent. The queue has been closed. */
void aio_workers_close(struct AioPool *pool);

/* ---- for the worker itself, by its thread ---- */

/* Its thread has begun: whether it should make its interpreter, or has been retired already. */
bool aio_workers_is_wanted(struct AioWorker *worker);

/* Its set-up is done. */
void aio_workers_ready(struct AioWorker *worker);

typedef enum AioIdleResult {
    AIO_IDLE_RETIRED, /* it must leave */
    AIO_IDLE_WANTED,  /* there is a task */
    AIO_IDLE_STAYS,   /* there are no more than there should be, or it has coroutines: it need not
                       * ask again before it has worked, or was nudged */
} AioIdleResult;

/* It has been idle for long. */
AioIdleResult aio_workers_retire_idle(struct AioWorker *worker);

/* It has run its number of tasks: start its successor, and let it retire. False if there can
 * be no successor, or there is nothing to do for one any more: then it goes on. */
bool aio_workers_renew(struct AioWorker *worker);

/* It was dismissed. True if it is to serve all the same: it was stuck, and has come back, but none
 * could be started in its place, and tasks wait. */
bool aio_workers_stay(struct AioWorker *worker);

/* It takes no more tasks, whatever the reason. */
void aio_workers_leave(struct AioWorker *worker);

/* The end of the pool does not wait for it any more. Idempotent. */
void aio_workers_detach(struct AioWorker *worker);

/* Its interpreter has ended: forget it. */
void aio_workers_ended(struct AioWorker *worker);

/* ---- for others ---- */

/* It can't be stopped: it holds up nobody any more, and another one takes its place. Called
 * again for the same worker if that is needed. Takes and posts the notices, which may be NULL. */
void aio_workers_replace_stuck(struct AioWorker *worker, struct AioStuckNotice *notices[2]);

/* The worker that runs the task, a new reference; NULL if none does. */
struct AioWorker *aio_workers_find(struct AioPool *pool, const struct AioTask *task);

/* A pool that was closed may have nothing to do for workers that are still being set up: let these
 * leave that off. */
void aio_workers_hurry(struct AioPool *pool);

/* Interrupt all of them. */
void aio_workers_interrupt(struct AioPool *pool);

/* Nudge all of them. */
void aio_workers_nudge(struct AioPool *pool);

typedef struct AioWorkersCounts {
    int starting, idle, busy, retiring, stuck;
    unsigned long started, replaced, tasks;
} AioWorkersCounts;

void aio_workers_count(struct AioPool *pool, AioWorkersCounts *counts);

#endif
