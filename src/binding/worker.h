/* worker.h: a worker: one native thread, one subinterpreter, one GIL. */
#ifndef AIO_BINDING_WORKER_H
#define AIO_BINDING_WORKER_H

#include <Python.h>
#include <pthread.h>

#include "core/taskqueue.h"
#include "function.h"
#include "home.h"
#include "task.h"

struct AioPool;

typedef struct AioWorker {
    struct AioPool *pool; /* borrowed: the worker is part of it */
    AioConsumer consumer;

    /* Guards `interpreter`. Held by an interrupter for as long as it is inside
     * the worker's interpreter; the worker takes it, without its GIL, before it
     * ends the interpreter. Comes before the worker's GIL in the lock order. */
    pthread_mutex_t lock;
    PyInterpreterState *interpreter; /* NULL while there is none to enter */
    /* An interrupter is at work on this worker, one is enough. Exchanged by
     * whoever wants to start one; only this flag itself matters. */
    _Atomic bool has_interrupter;

    /* Guarded by the worker's GIL; on a free-threaded build by `running_lock`,
     * which is taken on every build: it is uncontended where the GIL does it. */
    pthread_mutex_t running_lock;
    bool interruptible; /* user code may be running */
    bool interrupted;   /* an exception was sent and may not have arrived yet */
    AioTask *current;   /* the task that runs, NULL in the set-up */
    unsigned long thread_id;
    PyObject *interrupted_type; /* borrowed from the worker's module state */
    AioHome *home;              /* its interpreter's; a reference */

    AioListener listener; /* of its home: nudges it */

    /* The worker's thread only. */
    AioState *state;
    AioFunctionCache functions;
} AioWorker;

int aio_worker_init(AioWorker *worker, struct AioPool *pool);
void aio_worker_destroy(AioWorker *worker);

/* A worker's thread, from start to end; takes over one reference to the pool
 * and one count in its `live_workers` and `threads`. */
void aio_worker_main(void *worker);

/* True while it runs a task that nobody waits for any more. Any thread. */
bool aio_worker_runs_abandoned(AioWorker *worker);

/* Raise an exception in what the worker runs: in any case, or only if nobody
 * waits for it any more. Called without a GIL; waits for the worker's GIL, up to
 * the switch interval, or as long as a C function keeps it. */
void aio_worker_interrupt(AioWorker *worker, bool only_abandoned);

#endif
