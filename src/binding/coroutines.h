/* coroutines.h: calls of `async def` functions, spread over the workers' event loops.
 *
 *      submit ──► waiting ──dispatch──► inbox of a loop ──take──► running there ──► posted
 *                    │                      │                         │
 *                    └── abandon: taken back, freed                   └── abandon: cancelled there
 *
 * Where a loop is stuck, what it has not begun goes back to the waiting ones, and its other calls
 * fail; when it comes back it finds that nobody waits for these.
 *
 * A worker has a loop (loop.h) as it has a thread; the loop's own thread is made when the
 * first call comes to it. A pool has one AioCoroutines, with the calls for which no loop
 * has a place yet. All of it, and which call is in which loop, is under one lock, which is
 * held for moments: nothing else happens under it but that threads are woken.
 *
 * Nothing here touches a Python object. Whoever calls may hold the GIL of any interpreter.
 */
#ifndef AIO_BINDING_COROUTINES_H
#define AIO_BINDING_COROUTINES_H

#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/list.h"
#include "loop.h"
#include "task.h"

typedef struct AioCoroutines {
    /* How many calls a loop has at most; constant once the pool is started. */
    int concurrency;
    /* No call need end in its own way any more. Set under the lock; read without order by
     * a loop's thread, which is woken after it was set. */
    _Atomic bool stopping;
    pthread_mutex_t lock;
    /* guarded by `lock`: */
    bool closed;
    /* AioTask.loop_link: no loop has a place for them; by priority, and first come first served */
    AioList waiting;
    size_t waiting_count;
    AioList loops; /* AioLoop.link: those that take calls, now or soon */
} AioCoroutines;

/* 0, or -1. */
int aio_coroutines_init(AioCoroutines *coroutines);
void aio_coroutines_destroy(AioCoroutines *coroutines);

/* Take a call whose function is a coroutine function. As aio_taskqueue_push(): CLOSED, and
 * the caller keeps it; or WAITS, if there is no place for it. */
AioPushResult aio_coroutines_submit(AioTask *task);

/* Take out a call that no loop has begun: then it is the caller's; else false. */
bool aio_coroutines_remove(AioTask *task);

/* Whether that would succeed. Owner only. */
bool aio_coroutines_holds(AioTask *task);

/* A call that was taken has been abandoned: have it cancelled if it still runs. Its owner. */
void aio_coroutines_cancel(AioTask *task);

/* Whether the loop has a thread, which has not ended. */
bool aio_coroutines_has_thread(AioLoop *loop);

/* Whether it has calls, begun or not. */
bool aio_coroutines_has_calls(AioLoop *loop);

/* How many wait for a place. */
long aio_coroutines_count_waiting(AioCoroutines *coroutines);

/* Take no calls any more. Those that were accepted run to their end. */
void aio_coroutines_close(AioCoroutines *coroutines);

/* Move every call that no loop has begun to `tasks`, which is initialised here, by its
 * `loop_link`. */
void aio_coroutines_empty(AioCoroutines *coroutines, AioList *tasks);

/* Cancel all calls, and interrupt what does not let its loop see to that. */
void aio_coroutines_stop(AioCoroutines *coroutines);

/* Once more, for a loop that has not come to its end in the grace period; and again, after
 * pauses. False if it has none, or has ended. */
bool aio_coroutines_press(AioLoop *loop);

/* ---- for a worker's loop (loop.c) ---- */

/* A new worker will have that loop; its worker has not been set up yet. */
void aio_coroutines_add_loop(AioLoop *loop);

/* The worker is gone, perhaps without ever having been started. */
void aio_coroutines_forget_loop(AioLoop *loop);

/* The worker has been set up, or serves again: its loop takes calls. */
void aio_coroutines_open_loop(AioLoop *loop);

/* As the next, if the loop has no call; else false. Once it has none any more, the worker of an
 * elastic pool is nudged. */
bool aio_coroutines_retire_idle_loop(AioLoop *loop);

/* The loop takes no more calls but those that it has, as its worker is going to end: others
 * do, and if that was the last one there has to be another. */
void aio_coroutines_retire_loop(AioLoop *loop);

/* The worker is stuck, and its loop takes no more calls: those that it has not begun go to
 * others, or wait for one. If the loop is held up, the others are given up: their callers are
 * told, and nobody waits for them any more. Completes no task, so that it may be called under the
 * timers' lock. */
void aio_coroutines_rescue(AioLoop *stuck);

/* The worker has nothing else to do: the loop is to end once its calls have. True if it has
 * ended, or has never begun: then it is none of the pool's any more. Otherwise the worker
 * is nudged when it is time to ask again. */
bool aio_coroutines_leave_loop(AioLoop *loop);

/* What a loop's thread finds when it has been woken. */
typedef struct AioLoopNews {
    AioList calls;      /* AioTask.loop_link: to be begun; they are the thread's now */
    bool has_abandoned; /* some call that runs is to be cancelled */
    unsigned rounds;    /* how often aio_coroutines_stop() has asked */
    bool is_over;       /* no call is left, and none will come */
} AioLoopNews;

void aio_coroutines_take(AioLoop *loop, AioLoopNews *news);

/* The loop's thread has a call for a task that it took. Until it claims the task, which it does
 * before anything of it is run, the task may be taken back: then `*slot` is NULL. */
void aio_coroutines_offer(AioTask **slot);

/* False if it was taken back. */
bool aio_coroutines_claim(AioLoop *loop, AioTask **slot);

/* A call of that loop has ended, and is about to be posted. */
void aio_coroutines_finish(AioLoop *loop, AioTask *task);

/* The loop's thread has left the interpreter. Calls that have come meanwhile begin anew,
 * there or elsewhere; or fail, if there was no such thread (`failure`, which may be NULL:
 * the type's name and the text). */
void aio_coroutines_end_thread(AioLoop *loop, const char *const failure[2]);

/* Have the step that runs looked at by an interrupter, if its call was abandoned or the pool
 * is being stopped. Without the lock. */
void aio_coroutines_interrupt(AioLoop *loop);

/* In the interrupter: how many of the rounds of aio_coroutines_stop() its loop has not seen. */
unsigned aio_coroutines_late(AioLoop *loop);

/* An interrupter has looked. True if it has to do so again; else it is none any more. */
bool aio_coroutines_end_interrupter(AioLoop *loop);

#endif
