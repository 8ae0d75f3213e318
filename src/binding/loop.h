/* loop.h: a worker's event loop, on a thread of its own.
 *
 *     worker's own thread          its loop's thread (made at first need)
 *       plain calls                  coroutines
 *             └── one interpreter, one GIL ──┘
 *
 * Both threads have thread states of the worker's interpreter and take turns with its GIL:
 * so coroutines go on while the worker is busy with a plain call, as threads do. The worker
 * waits for its loop's thread, without its GIL, before it ends the interpreter.
 */
#ifndef AIO_BINDING_LOOP_H
#define AIO_BINDING_LOOP_H

#include <Python.h>
#include <pthread.h>
#include <stdbool.h>

#include "core/list.h"
#include "core/taskqueue.h"
#include "core/wake.h"
#include "function.h"
#include "home.h"
#include "state.h"

struct AioAsyncCall;
struct AioPool;
struct AioStuckNotice;
struct AioTask;

typedef struct AioLoop {
    struct AioPool *pool;  /* borrowed: the loop is part of a worker, which is part of it */
    AioConsumer *consumer; /* borrowed: the worker's, nudged when the worker is to look */

    /* Constant once it is open; the home is borrowed, the worker has a reference. */
    PyInterpreterState *interpreter;
    AioState *state;
    AioHome *home;

    /* Guarded by AioCoroutines.lock, to the next gap. */
    AioListNode link;
    AioListNode start_link;     /* in a list of whose thread is to be started by whom it is of */
    AioListNode interrupt_link; /* likewise, of an interrupter */
    bool is_set_up;             /* its worker has been: calls may come */
    bool is_retiring;           /* none are to come, as long as others take them */
    bool is_leaving;            /* its worker waits for its end */
    bool has_ended;             /* no call will come any more */
    int count;                  /* the calls that it has, begun or not */
    AioList inbox;              /* AioTask.loop_link: not begun */
    AioList taken;              /* AioTask.taken_link: the others */
    bool has_abandoned;
    unsigned rounds; /* of being stopped: asked for, and seen by its thread */
    unsigned seen;
    /* Each keeps the worker from ending. Set before the thread is started. */
    bool has_thread;
    bool has_interrupter;
    bool interrupt_again; /* it is to look once more */
    /* Made when the thread is, and closed with it. Signalled under the lock. */
    bool has_wake;
    AioWake wake;

    /* Which step of which call the loop's thread runs, if any: see begin and end of a step
     * in async_call.c. Written by that thread with its GIL held, and under this lock: for
     * builds without a GIL, and for who asks without having it (`current`, only compared). */
    pthread_mutex_t step_lock;
    struct AioTask *current;
    int held_off, importing;         /* as in AioWorker */
    int64_t abandoned_step_began_ns; /* by aio_clock_ns(); 0: its call was not abandoned then */
    bool has_sent;                   /* an exception was sent to this step */
    bool insist;                     /* it has not helped: another one is to be sent */
    unsigned long thread_id;         /* 0 while there is none */
    PyThreadState *owner_thread;     /* its; to be looked at with the GIL, while it runs a step */
    PyObject *cancelled;             /* borrowed from the thread: what it sends, a CancelledError */

    int64_t pause_ns; /* between insisting and insisting once more; the monitor's thread only */

    _Atomic unsigned long call_count; /* calls that have ended; relaxed, for statistics */

    /* Guarded by the GIL. */
    AioList running; /* AioAsyncCall.link */
    struct AioAsyncCall *current_call;

    /* The loop's thread only. */
    AioFunctionCache functions;
    int import_depth;    /* as AioWorker.import_depth */
    PyObject *await_any; /* borrowed: an awaitable -> a coroutine that awaits it */
} AioLoop;

/* 0, or -1. */
int aio_loop_init(AioLoop *loop, struct AioPool *pool, AioConsumer *consumer);
void aio_loop_destroy(AioLoop *loop);

/* On the worker's thread, with its GIL: the worker has been set up, coroutines may come. */
void aio_loop_open(AioLoop *loop, AioState *state);

/* On the worker's thread, with its GIL, which is released meanwhile: the worker takes no
 * more plain calls; wait until its coroutines have ended, and its loop with them. */
void aio_loop_leave(AioLoop *loop);

/* For coroutines.c, without a lock held: start the thread, once `has_thread` is set; which
 * ends with aio_coroutines_end_thread(). 0, or -1: then the caller is to do that. */
int aio_loop_start_thread(AioLoop *loop);

/* Likewise for `has_interrupter`. Where no thread can be had, nothing is interrupted. */
void aio_loop_start_interrupter(AioLoop *loop);

/* For AioWorker.grace, in the monitor's thread: whether the loop has used up the grace of a
 * call that was told to stop, or is to end. `*again`: when to look next; negative: not.
 * `*notice`: if that is found of a call for the first time, what its caller's loop is to hear. */
bool aio_loop_is_stuck(AioLoop *loop, int64_t now, int64_t *again, struct AioStuckNotice **notice);

/* Whether it is held up, at this moment, by a step of a call that was told to stop. */
bool aio_loop_is_held_up(AioLoop *loop);

/* If so: interrupt it once more. */
void aio_loop_insist(AioLoop *loop);

/* As aio_worker_hold_off() and aio_worker_note_import(), if this is the loop's own thread, in a
 * step of a call. */
void aio_loop_hold_off(AioLoop *loop, int change, bool is_import);

/* On the loop's own thread: whether the call that runs was told to stop. False on others. */
bool aio_loop_should_stop(AioLoop *loop, bool *should_stop);

/* On any thread, with the GIL: whether it is the loop's, and an exception of that type was
 * sent to the step that it runs. */
bool aio_loop_has_sent(AioLoop *loop, PyObject *type);

/* Whether that call's step runs at this moment. Any thread. */
bool aio_loop_is_in(AioLoop *loop, struct AioTask *task);

#endif
