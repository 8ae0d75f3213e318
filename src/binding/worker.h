/* worker.h: a worker: one native thread, one subinterpreter, one GIL. */
#ifndef AIO_BINDING_WORKER_H
#define AIO_BINDING_WORKER_H

#include <Python.h>
#include <pthread.h>

#include "core/gate.h"
#include "core/taskqueue.h"
#include "core/timers.h"
#include "counted.h"
#include "function.h"
#include "home.h"
#include "loop.h"
#include "task.h"

struct AioPool;

typedef struct AioWorker {
    AioCounted counted;   /* by the pool's list of workers, and by who interrupts it */
    struct AioPool *pool; /* a reference */
    AioConsumer consumer;
    int index; /* the smallest number that no other worker had when this one began; constant */

    /* Guarded by the lock of the pool's workers (workers.h): */
    AioListNode link;
    unsigned generation; /* of the pool's, when it began */
    bool is_ready;       /* its set-up is done */
    bool is_serving;     /* it takes tasks, or will once it is ready */
    bool is_stuck;       /* it could not be stopped in time */
    bool is_detached;    /* the end of the pool does not wait for it: see workers.c */
    bool is_told_to_stop;
    bool is_unneeded; /* it was told to leave off its set-up */

    /* Guards `interpreter`. Held by an interrupter for as long as it is inside
     * the worker's interpreter; the worker takes it, without its GIL, before it
     * ends the interpreter. Comes before the worker's GIL in the lock order. */
    pthread_mutex_t lock;
    PyInterpreterState *interpreter; /* NULL while there is none to enter */

    /* Guarded by the worker's GIL; on a free-threaded build by `running_lock`,
     * which is taken on every build: it is uncontended where the GIL does it. */
    pthread_mutex_t running_lock;
    bool is_setting_up; /* at first */
    /* Since when its set-up is in vain, by aio_clock_ns(); 0: it is not. */
    int64_t unneeded_at_ns;
    bool interruptible; /* user code may be running */
    bool interrupted;   /* an exception was sent and may not have arrived yet */
    int held_off;       /* while positive nothing is sent: see aio_worker_hold_off() */
    int importing;      /* while positive only who insists sends: see aio_worker_note_import() */
    bool insist;        /* the grace period is over: send another one */
    int64_t pause_ns;   /* until the next one after that */
    AioTask *current;   /* the task that runs, NULL in the set-up */
    unsigned long thread_id;
    PyThreadState *owner_thread; /* the worker's; to be looked at with the GIL, while it runs one */
    PyObject *interrupted_type;  /* borrowed from the worker's module state */
    AioHome *home;               /* its interpreter's; a reference */

    /* How many interruptions have been asked for and not been seen to: who makes it
     * one starts the interrupter. Sequentially consistent. */
    _Atomic long interruptions;
    _Atomic bool is_unwatched; /* the interrupter is to set `grace`; sequentially consistent */
    AioTimer grace;            /* runs out for what was interrupted: see interrupt.c */

    AioListener listener; /* of its home: nudges it */
    AioLoop loop;         /* for coroutines; see there what guards what */

    /* Tasks that it has run. Written by its thread alone; relaxed, for statistics. */
    _Atomic unsigned long task_count;

    /* Passed by the worker's thread or the loop's while it loads modules: see imports.c. User code
     * is run in it; no lock of ours is held by who waits there. */
    AioGate import_gate;

    /* The worker's thread only. */
    int import_depth; /* how many imports it is in */
    PyObject *module; /* owned while the interpreter lives: user code may empty sys.modules */
    AioState *state;  /* the module's */
    AioFunctionCache functions;
    int tasks_left; /* until it is renewed; negative: no limit */
} AioWorker;

/* A new worker, not started, with one reference; NULL where memory is short. */
AioWorker *aio_worker_new(struct AioPool *pool, int index);

static inline void
aio_worker_release(AioWorker *worker)
{
    aio_counted_release(&worker->counted);
}

/* A worker's thread, from start to end. */
void aio_worker_main(void *worker);

/* Whether what it runs is to be interrupted: nobody waits for it, or for it to be set up, any
 * more, or the pool is being stopped. `running_lock` must be held. */
bool aio_worker_wants_interruption(AioWorker *worker);

/* Its set-up is in vain: whatever that runs is to be interrupted. */
void aio_worker_leave_off_set_up(AioWorker *worker);

/* Since when that is so, or the pool is being stopped. `running_lock` must be held. */
int64_t aio_worker_told_to_end_at_ns(AioWorker *worker);

/* Whether it runs that task, which it may not have been its to run ever. Any thread; the
 * task is compared, not touched. */
bool aio_worker_runs(AioWorker *worker, const AioTask *task);

/* What the calling thread runs in a worker is not interrupted until it has been said to end as
 * often as it began; then it is, if it was to be. 0, or -1 with an exception set, which is the
 * interruption. The GIL is held. */
int aio_worker_hold_off(AioState *state, bool begins);

/* The same for an import that user code makes; but who has not ended in time may be interrupted. */
int aio_worker_note_import(AioState *state, bool begins);

/* On its thread: what the call that runs has raised, which is set, and is cleared, into `message`.
 */
void aio_worker_encode_failure(AioWorker *worker, AioMessage *message);

/* aiointerpreters._core.hold_off(begins) */
PyObject *aio_worker_py_hold_off(PyObject *module, PyObject *begins);

/* aiointerpreters._core.worker() and .should_stop() */
PyObject *aio_worker_describe(PyObject *module, PyObject *ignored);
PyObject *aio_worker_should_stop(PyObject *module, PyObject *ignored);

#endif
