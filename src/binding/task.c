/* task.c: one call, from submit to result. */
#include "task.h"

#include <stdlib.h>

#include "core/clock.h"
#include "coroutines.h"
#include "expiry.h"
#include "failure.h"
#include "future.h"
#include "interrupt.h"
#include "pool.h"
#include "prefetch.h"
#include "workers.h"

AioTask *
aio_task_new(AioPool *pool, const AioFunction *function, bool is_coroutine)
{
    AioTask *task = malloc(sizeof *task);
    if (task == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_mail_init(&task->mail);
    aio_task_node_init(&task->queue_node);
    aio_list_node_init(&task->loop_link);
    task->is_taken = false;
    task->loop = NULL;
    aio_list_node_init(&task->taken_link);
    task->reclaim_slot = NULL;
    task->is_coroutine = is_coroutine;
    task->pool = aio_pool_acquire(pool);
    task->function = function;
    task->has_context = false;
    task->status = AIO_TASK_CANCELLED;
    atomic_init(&task->abandoned, false);
    task->is_given_up = false;
    task->expiry = NULL;
    task->batch = NULL;
    task->lent = (AioHeld){0};
    task->prefetch = NULL;
    aio_list_node_init(&task->copy_link);
    aio_message_init(&task->message);
    return task;
}

void
aio_task_free(AioTask *task)
{
    assert(task->mail.owner_future == NULL);
    if (task->prefetch != NULL) {
        aio_prefetch_free(task->prefetch);
    }
    aio_message_clear(&task->message);
    aio_held_clear(&task->lent);
    if (task->batch != NULL) {
        aio_batch_free(task->batch);
    }
    if (task->expiry != NULL && !aio_pool_is_forked(task->pool)) {
        aio_expiry_release(task->expiry);
    }
    aio_pool_release(task->pool);
    free(task);
}

long
aio_task_weight(AioTask *task)
{
    /* While its results are being copied it is one more. */
    return task->batch != NULL && task->prefetch == NULL ? aio_batch_close(task->batch) : 1;
}

void
aio_task_complete(AioTask *task, AioTaskStatus status)
{
    /* Posting gives the task away, and with it its reference to the pool. */
    AioPool *pool = aio_pool_acquire(task->pool);
    const bool is_counted = !task->is_given_up;
    const long weight = aio_task_weight(task);
    task->status = status;
    aio_mail_post(&task->mail);
    if (is_counted) {
        aio_pending_done_many(&pool->unfinished, weight);
    }
    aio_pool_release(pool);
}

/* What the task has come to: a result, or an exception (`*is_exception`); a new reference. NULL: it
 * was cancelled. */
static PyObject *
decode_outcome(AioState *state, AioTask *task, bool *is_exception)
{
    PyObject *value = NULL;
    *is_exception = true;
    switch (task->status) {
    case AIO_TASK_RETURNED:
        *is_exception = false;
        value = task->batch != NULL
                    ? aio_batch_outcome(state, task)
                    : aio_message_decode_prefetched(state, &task->message, task->prefetch);
        break;
    case AIO_TASK_RAISED:
        value = aio_failure_decode(state, &task->message, AIO_HELPER_REBUILD);
        break;
    case AIO_TASK_BROKEN:
        value = aio_failure_decode(state, &task->pool->failure, AIO_HELPER_BROKEN);
        break;
    case AIO_TASK_NO_ROOM:
        aio_raise_runner_error(state, "the runner has no worker, and the system has no room for "
                                      "another thread");
        break;
    case AIO_TASK_CANCELLED:
        return NULL;
    }
    if (value == NULL) { /* it can't be rebuilt: that is what it has come to */
        *is_exception = true;
        value = PyErr_GetRaisedException();
    }
    return value;
}

int
aio_task_deliver(AioState *state, AioTask *task)
{
    PyObject *future = task->mail.owner_future, *value = NULL;
    bool is_exception = false;
    int ended = 0;

    if (future == NULL) {
        aio_task_free(task);
        return 0;
    }
    Py_INCREF(future);
    aio_mail_let_go(&task->mail);
    value = decode_outcome(state, task, &is_exception);
    /* What the call held is given back before anybody goes on. */
    aio_task_free(task);
    aio_home_settle(state->home);
    if (value == NULL) {
        aio_future_cancel(state, future);
    }
    else {
        ended = is_exception ? aio_future_set_exception(state, future, value)
                             : aio_future_set_result(state, future, value);
        Py_DECREF(value);
    }
    Py_DECREF(future);
    return ended;
}

/* Once its result is being copied it is in the queue, like any other. */
static bool
is_with_coroutines(AioTask *task)
{
    return task->is_coroutine && task->prefetch == NULL;
}

bool
aio_task_take_back(AioTask *task)
{
    return is_with_coroutines(task) ? aio_coroutines_remove(task)
                                    : aio_taskqueue_remove(&task->pool->queue, &task->queue_node);
}

/* It has been taken back. */
static void
free_taken_back(AioTask *task)
{
    AioPool *pool = aio_pool_acquire(task->pool);
    const long weight = aio_task_weight(task);
    aio_mail_abandon(&task->mail);
    aio_task_free(task);
    aio_pending_done_many(&pool->unfinished, weight);
    if (atomic_load_explicit(&pool->closing, memory_order_relaxed)) {
        aio_workers_hurry(pool); /* it may have been the last thing to do */
    }
    aio_pool_release(pool);
}

bool
aio_task_withdraw(AioTask *task)
{
    const bool taken = task->prefetch == NULL && aio_task_take_back(task);
    if (taken) {
        free_taken_back(task);
    }
    return taken;
}

bool
aio_task_is_waiting(AioTask *task)
{
    if (task->prefetch != NULL) {
        return false;
    }
    return task->is_coroutine ? aio_coroutines_holds(task)
                              : aio_taskqueue_holds(&task->pool->queue, &task->queue_node);
}

void
aio_task_abandon(AioTask *task)
{
    AioPool *pool = task->pool;
    if (aio_pool_is_forked(pool)) { /* locks may be held for ever: its memory stays */
        aio_mail_let_go(&task->mail);
        return;
    }
    if (aio_task_take_back(task)) {
        free_taken_back(task);
        return;
    }
    if (task->expiry != NULL) {
        aio_expiry_disarm(task->expiry);
    }
    task->abandoned_at_ns = aio_clock_ns();
    atomic_store_explicit(&task->abandoned, true, memory_order_release);
    aio_mail_let_go(&task->mail);
    /* `task` may belong to the mailbox by now, but nobody else frees it before
     * this thread's next drain. */
    AioWorker *worker = NULL;
    if (is_with_coroutines(task)) {
        aio_coroutines_cancel(task);
    }
    else if ((worker = aio_workers_find(pool, task)) != NULL) {
        aio_interrupt(worker);
        aio_worker_release(worker);
    }
}
