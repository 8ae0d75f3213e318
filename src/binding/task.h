/* task.h: one call, from submit to result.
 *
 *     submit ──► QUEUED ──pop──► RUNNING ──post──► posted ──drain──► freed
 *                   │                │
 *                   │ cancel         │ cancel: the future is let go, the work is
 *                   ▼                │ interrupted, its outcome is dropped
 *                 freed              ▼
 *                               RUNNING, abandoned ──► posted ──► freed
 *
 * A large result makes a second round before it is delivered (copier.h): posted ──►
 * queued again, or with a thread ──► copied ──► posted ──► delivered.
 *
 * One party at a time owns a task and may free it: the queue, then the worker,
 * then the mailbox, then the loop's drain. The caller's future knows its task
 * only while the bridge has it in flight, and the fields marked "owner" are
 * touched by the loop's thread alone, whoever owns the task.
 */
#ifndef AIO_BINDING_TASK_H
#define AIO_BINDING_TASK_H

#include <Python.h>
#include <stdatomic.h>

#include "batch.h"
#include "bridge.h"
#include "core/taskqueue.h"
#include "function.h"
#include "message.h"

struct AioExpiry;
struct AioLoop;
struct AioPool;

typedef enum AioTaskStatus {
    AIO_TASK_RETURNED,  /* `message` is the result */
    AIO_TASK_RAISED,    /* `message` is a failure */
    AIO_TASK_CANCELLED, /* stopped or never run */
    AIO_TASK_BROKEN,    /* never run: the pool's failure is the task's */
    AIO_TASK_NO_ROOM,   /* never run: no worker is left, and none can be started */
} AioTaskStatus;

typedef struct AioTask {
    AioMail mail; /* first: a task is a mail */
    AioTaskNode queue_node;
    /* Where its function is a coroutine function, guarded by AioCoroutines.lock: the list in
     * which it waits, whether it was taken from there, to be begun or to be ended (the link is
     * the taker's then), and the loop that has it until it is posted. */
    AioListNode loop_link;
    bool is_taken;
    struct AioLoop *loop;
    /* Likewise: its place among those that the loop has taken, and where the loop's call has its
     * pointer to the task, as long as the task may be taken back from there (then that is NULL). */
    AioListNode taken_link;
    struct AioTask **reclaim_slot;
    bool is_coroutine;           /* constant */
    struct AioPool *pool;        /* a reference, owned by the task */
    const AioFunction *function; /* the pool's; NULL: the message carries a pickled callable */
    bool has_context;            /* the message carries context variables */
    AioTaskStatus status;        /* written by the worker before it posts */
    /* Nobody waits for it any more, since then. Set by the owner, the time first (release);
     * read by whoever decides to interrupt the work, or not to begin it. A worker that
     * begins it either sees that, having taken its `running_lock` after the owner's search
     * for the worker did; or else that search finds it. */
    _Atomic bool abandoned;
    int64_t abandoned_at_ns; /* by aio_clock_ns() */
    /* A stuck worker runs it: it is not counted in the pool's `unfinished` any more. Written by
     * the timers' thread, under a lock which whoever completes it takes before: the worker's
     * `running_lock`, the loop's `step_lock`, or AioCoroutines.lock. */
    bool is_given_up;
    struct AioExpiry *expiry; /* its time limits, owned; or NULL */
    AioMessage message;       /* the call; then, written by the worker, its outcome */
    AioBatch *batch;          /* NULL, or what makes it several calls: see batch.h; owned */
    AioHeld lent;             /* what the call held, until the task is freed by its caller */
    /* Where the result is large: see copier.h. */
    AioListNode copy_link;
    struct AioPrefetch *prefetch; /* NULL, or what is copied; owned */
} AioTask;

static inline AioTask *
aio_task_of_mail(AioMail *mail)
{
    return (AioTask *)mail;
}

static inline AioTask *
aio_task_of_queue_node(AioTaskNode *node)
{
    return aio_container_of(node, AioTask, queue_node);
}

/* A task that is nobody's mail yet. Takes no reference but to the pool. */
AioTask *aio_task_new(struct AioPool *pool, const AioFunction *function, bool is_coroutine);

/* Free a task whose future has been let go. Needs no GIL. */
void aio_task_free(AioTask *task);

/* Settle the task's future by its outcome, and free the task; from a callback of the loop. As
 * aio_future_set_result(). Owner only. */
int aio_task_deliver(AioState *state, AioTask *task);

/* As how many calls it counts in the pool's `unfinished`, when it leaves that: a batch can't be
 * split from then on. Any thread. */
long aio_task_weight(AioTask *task);

/* Post a task that has ended, and count it as done. Takes the task. */
void aio_task_complete(AioTask *task, AioTaskStatus status);

/* Take the task back, if nobody has begun it: true, and it is the caller's. Owner only. */
bool aio_task_take_back(AioTask *task);

/* As take back, but for one whose result is being copied; and free it, with its future let go.
 * Owner only, not in a forked child. */
bool aio_task_withdraw(AioTask *task);

/* Whether nobody has begun it. Owner only, not in a forked child. */
bool aio_task_is_waiting(AioTask *task);

/* Nobody waits for the task any more: take it back if it is still queued, and interrupt
 * it if it runs. Owner only. */
void aio_task_abandon(AioTask *task);

#endif
