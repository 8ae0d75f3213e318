/* pool.h: a pool of workers, and the Python object in front of it.
 *
 * The AioPool itself belongs to no interpreter: it is counted, and held by the
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
    AioPending unfinished; /* tasks accepted and not yet posted or taken back */
    AioPending live_workers; /* workers whose interpreter has not ended yet */
    AioPending threads;    /* all threads of this pool: its end is when none is left */
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

AioPool *aio_pool_acquire(AioPool *pool);

/* Any thread, no GIL needed. */
void aio_pool_release(AioPool *pool);

/* Whether this process is a forked child of the one that started the pool. Then
 * the pool has no threads, and its locks must not be touched. */
bool aio_pool_is_forked(AioPool *pool);

/* A worker could not start. Takes over the contents of `failure`; refuses all
 * further work, and fails what is queued. An empty failure means that its start
 * was interrupted: queued work is cancelled. Any thread, no GIL needed. */
void aio_pool_break(AioPool *pool, AioMessage *failure);

/* In a pool that is closing: interrupt work that nobody waits for any more, so
 * that it does not hold up the end. Returns at once. */
void aio_pool_stop_abandoned(AioPool *pool);

extern PyType_Spec aio_pool_spec;

/* Python: stop this interpreter's pools, let those that were closed finish, and
 * wait until all have ended. A first Ctrl-C stops these as well, a second one
 * raises KeyboardInterrupt. For the exit handler. */
PyObject *aio_pools_shut_down(PyObject *module, PyObject *ignored);

#endif
