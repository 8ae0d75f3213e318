/* pool.h: a pool of workers.
 *
 * An AioPool belongs to no interpreter: it is counted, and held by the
 * Python object, by every worker thread and by every task. It ends when it has
 * been closed, its queue is empty and its last thread has gone.
 */
#ifndef AIO_BINDING_POOL_H
#define AIO_BINDING_POOL_H

#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/pending.h"
#include "core/taskqueue.h"
#include "coroutines.h"
#include "function.h"
#include "message.h"
#include "task.h"
#include "workers.h"

typedef struct AioPool {
    _Atomic long references; /* as AioChannel.references */
    AioTaskQueue queue;
    AioCoroutines coroutines; /* the calls that do not go through the queue */
    AioPending unfinished;    /* tasks accepted and not yet posted or taken back */
    /* Items in queued batches beyond one for each of these. Relaxed, for statistics. */
    _Atomic long batched;
    /* Those of workers; one for the pool itself while it is open; one for who is closing it. Its
     * end is when none is left. */
    AioPending threads;
    /* Threads that may outlive its end: workers whose memory is still used by others, and
     * copiers. Only the end of the interpreter waits for them. */
    AioPending lingering;
    AioPending recycling;  /* rounds of renewing all workers: one at most */
    _Atomic bool evicting; /* workers linger no more; read after each nudge */
    AioWorkers workers;
    char *name;               /* owned; threads have the first 15 characters of it */
    unsigned fork_generation; /* of the process that the threads live in */

    /* What a new worker needs; constant once started. */
    AioMessage start; /* sys.path, sys.argv, the file of our module, and what our package is in */
    AioMessage told;  /* what its Python code asks for by _core.told() */
    AioMessage first_steps; /* the arguments of _worker.do_first_steps(); empty: none */
    bool forwards;          /* log records and warnings go to the program */
    int64_t grace_ns;       /* what interrupted code has to come to its end */
    int64_t idle_ns;        /* after that an idle worker retires, if it may; negative: never */
    int tasks_per_worker;   /* until it is renewed; negative: no limit */

    AioFunctionTable functions;

    /* No task is accepted any more. Set before the queue is closed; read
     * without order, for error messages and by the owner of a cancelled task. */
    _Atomic bool closing;
    /* When what runs was told to stop, by aio_clock_ns(); 0: it was not. Set once. Relaxed: a
     * worker that begins something sees it after taking its `running_lock`, or else whoever
     * set it finds, under that lock, what the worker has begun. */
    _Atomic int64_t stopping_at_ns;
    /* A worker could not start: `failure` says why. Written once, under
     * `failure_lock`, then published by `broken` (release, acquire). */
    pthread_mutex_t failure_lock;
    _Atomic bool broken;
    AioMessage failure;
} AioPool;

/* A new pool, not started, with one reference; NULL where memory is short. */
AioPool *aio_pool_new(const char *name);

AioPool *aio_pool_acquire(AioPool *pool);

/* Any thread, no GIL needed. */
void aio_pool_release(AioPool *pool);

/* Whether this process is a forked child of the one that started the pool. Then
 * the pool has no threads, and its locks must not be touched. */
bool aio_pool_is_forked(AioPool *pool);

/* Start `least` workers, of `most` at most; does not wait for them. Returns how many could
 * be started: if fewer, the pool is closed. */
int aio_pool_start(AioPool *pool, int least, int most);

static inline int64_t
aio_pool_stopping_at_ns(AioPool *pool)
{
    return atomic_load_explicit(&pool->stopping_at_ns, memory_order_relaxed);
}

static inline bool
aio_pool_is_stopping(AioPool *pool)
{
    return aio_pool_stopping_at_ns(pool) != 0;
}

/* End every queued task with `status`, but those that have run. No lock held. */
void aio_pool_empty_queue(AioPool *pool, AioTaskStatus status);

/* The same in two steps, of which the first may be done with the lock of the workers: who finds
 * that none will come for what is queued takes that, and not what is queued afterwards. */
void aio_pool_take_queued(AioPool *pool, AioList *tasks);
void aio_pool_end_queued(AioList *tasks, AioTaskStatus status);

/* Accept nothing more. Queued tasks are finished, or cancelled; running ones are
 * finished, or interrupted. Returns at once; may be called again, to be less patient. */
void aio_pool_close(AioPool *pool, bool cancel_pending, bool interrupt_running);

/* A worker could not start. Takes over the contents of `failure`; refuses all
 * further work, and fails what is queued. An empty failure means that its start
 * was interrupted: queued work is cancelled. Any thread, no GIL needed. */
void aio_pool_break(AioPool *pool, AioMessage *failure);

/* Let workers that linger end, though their memory may still be used. Returns at once. */
void aio_pool_evict(AioPool *pool);

/* aiointerpreters._core.Pool, in pool_object.c. */

#endif
