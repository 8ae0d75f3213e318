/* stuck.c: what the callers' loops are told of a worker that is stuck.
 *
 * The timers' thread finds that a worker is stuck. It belongs to no interpreter, and the worker's
 * can't be entered: so a notice is posted to the loop of whoever called, as a result would be. It
 * holds what is told, and refers to a task only to fail it.
 *
 * That task is its loop's, still; it can be posted, and freed, at any time after the notice. But
 * mail is delivered in order, and as long as the bridge is open all of it is delivered, and freed,
 * by the loop's thread: so then the task is there. If the bridge was closed in the meantime all its
 * futures were let go.
 */
#include "stuck.h"

#include <stdlib.h>

#include "future.h"
#include "pool.h"
#include "worker.h"

struct AioStuckNotice {
    AioMail mail;  /* first: it is a mail */
    AioPool *pool; /* a reference */
    AioTask *task; /* to be failed, borrowed: see above; or NULL: there is something to log */
    const AioFunction *function; /* the pool's; NULL: one that was sent by value */
    int worker_index;
    AioStuckSequel sequel;
    int64_t waited_ns;
};

static AioStuckNotice *
notice_of_mail(AioMail *mail)
{
    return (AioStuckNotice *)mail;
}

AioStuckNotice *
aio_stuck_notice_new(AioTask *task, int64_t waited_ns)
{
    AioStuckNotice *notice = calloc(1, sizeof *notice);
    if (notice != NULL) {
        aio_mail_init(&notice->mail);
        aio_mail_follow(&notice->mail, AIO_MAIL_STUCK, &task->mail);
        notice->pool = aio_pool_acquire(task->pool);
        notice->function = task->function;
        notice->waited_ns = waited_ns;
    }
    return notice;
}

void
aio_stuck_post(AioStuckNotice *notice, const AioWorker *worker, AioStuckSequel sequel)
{
    if (notice != NULL) {
        notice->worker_index = worker->index;
        notice->sequel = sequel;
        aio_mail_post(&notice->mail);
    }
}

bool
aio_stuck_tell(AioTask *task, const AioWorker *worker)
{
    AioStuckNotice *notice = aio_stuck_notice_new(task, task->pool->grace_ns);
    if (notice == NULL) {
        return false;
    }
    notice->task = task;
    aio_stuck_post(notice, worker, AIO_STUCK_REPLACED);
    return true;
}

/* What the helper makes of the notice; NULL with an exception set. */
static PyObject *
call_helper(AioState *state, AioStuckNotice *notice, AioHelper which)
{
    PyObject *helper = aio_helper(state, which);
    PyObject *name = NULL, *result = NULL;
    if (helper == NULL) {
        return NULL;
    }
    name = notice->function == NULL ? Py_NewRef(Py_None)
                                    : aio_message_decode_value(state, &notice->function->name);
    if (name != NULL) {
        result =
            PyObject_CallFunction(helper, "Osidi", name, notice->pool->name, notice->worker_index,
                                  (double)notice->waited_ns / 1e9, (int)notice->sequel);
        Py_DECREF(name);
    }
    return result;
}

/* As a call whose time is up is failed: expiry.c. */
static int
fail_task(AioState *state, AioStuckNotice *notice)
{
    PyObject *future = Py_XNewRef(notice->task->mail.owner_future);
    if (future == NULL) {
        return 0;
    }
    PyObject *error = call_helper(state, notice, AIO_HELPER_STUCK_ERROR);
    if (error == NULL) {
        error = PyErr_GetRaisedException();
    }
    aio_future_give_up(state, future); /* when the worker comes back the call is cancelled there */
    const int ended = aio_future_set_exception(state, future, error);
    Py_DECREF(error);
    Py_DECREF(future);
    return ended;
}

static void
log_it(AioState *state, AioStuckNotice *notice)
{
    PyObject *none = call_helper(state, notice, AIO_HELPER_LOG_STUCK);
    if (none == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(none);
}

int
aio_stuck_deliver(AioState *state, AioBridge *bridge, AioMail *mail)
{
    AioStuckNotice *notice = notice_of_mail(mail);
    int ended = 0;
    if (notice->task == NULL) {
        log_it(state, notice);
    }
    else if (bridge->channel != NULL) {
        ended = fail_task(state, notice);
    }
    aio_stuck_free_mail(mail);
    return ended;
}

void
aio_stuck_free_mail(AioMail *mail)
{
    AioPool *pool = notice_of_mail(mail)->pool;
    free(notice_of_mail(mail));
    aio_pool_release(pool);
}
