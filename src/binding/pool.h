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
#include "function.h"
#include "message.h"

struct AioWorker;

typedef struct AioPool {
    _Atomic long references; /* as AioChannel.references */
    AioTaskQueue queue;
    AioPending unfinished;   /* tasks accepted and not yet posted or taken back */
    AioPending live_workers; /* workers whose interpreter has not ended yet */
    AioPending threads;      /* all threads of this pool: its end is when none is left */
    /* Threads that may outlive its end: workers whose memory is still used by others, and
     * copiers. Only the end of the interpreter waits for them. */
    AioPending lingering;
    _Atomic bool evicting;     /* workers linger no more; read after each nudge */
    struct AioWorker *workers; /* `worker_count` of them, constant once started */
    int worker_count;
    char name[16];
    unsigned fork_generation; /* of the process that the threads live in */

    /* What a new worker needs; constant once started. */
    AioMessage import_path; /* sys.path */
    AioMessage setup;       /* what aiointerpreters._worker.set_up() takes */

    AioFunctionTable functions;

    /* No task is accepted any more. Set before the queue is closed; read
     * without order, for error messages and by the owner of a cancelled task. */
    _Atomic bool closing;
    _Atomic bool stopping; /* a stopper runs, or has run */
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

/* Make `count` workers, once. 0, or -1 where memory is short. */
int aio_pool_prepare(AioPool *pool, int count);

/* Start the workers' threads; does not wait for them. Returns how many could be
 * started: if fewer than there are, the pool is closed. */
int aio_pool_start(AioPool *pool);

/* Accept nothing more. Queued tasks are finished, or cancelled; running ones are
 * finished, or interrupted until every worker has ended. Returns at once; may be
 * called again, to be less patient. */
void aio_pool_close(AioPool *pool, bool cancel_pending, bool interrupt_running);

/* A worker could not start. Takes over the contents of `failure`; refuses all
 * further work, and fails what is queued. An empty failure means that its start
 * was interrupted: queued work is cancelled. Any thread, no GIL needed. */
void aio_pool_break(AioPool *pool, AioMessage *failure);

/* Let workers that linger end, though their memory may still be used. Returns at once. */
void aio_pool_evict(AioPool *pool);

/* In a pool that is closing: interrupt work that nobody waits for any more, so
 * that it does not hold up the end. Returns at once. */
void aio_pool_stop_abandoned(AioPool *pool);

/* aiointerpreters._core.Pool, in pool_object.c. */
extern PyType_Spec aio_pool_spec;

#endif
