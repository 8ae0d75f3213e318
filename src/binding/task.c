/* task.c: one call, from submit to result, and the future that stands for it.
 *
 * The future is a subclass of asyncio's own, made when the first runner needs
 * it. It carries a plain pointer to its task, which is good exactly as long as
 * the task is in the bridge's flight list: whoever takes the task off that list
 * resets the pointer. The task, for its part, holds a reference to the future.
 */
#include "task.h"

#include <stdlib.h>

#include "failure.h"
#include "pool.h"

typedef struct FutureData {
    AioTask *task; /* borrowed, NULL once nothing can be cancelled any more */
} FutureData;

AioTask *
aio_task_new(AioPool *pool, const AioFunction *function)
{
    AioTask *task = malloc(sizeof *task);
    if (task == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    task->mail.owner_future = NULL;
    aio_list_node_init(&task->mail.in_flight);
    aio_task_node_init(&task->queue_node);
    task->pool = aio_pool_acquire(pool);
    task->function = function;
    task->status = AIO_TASK_CANCELLED;
    atomic_init(&task->abandoned, false);
    task->owner_slot = NULL;
    aio_message_init(&task->message);
    return task;
}

void
aio_task_free(AioTask *task)
{
    assert(task->mail.owner_future == NULL);
    aio_message_clear(&task->message);
    aio_pool_release(task->pool);
    free(task);
}

void
aio_task_complete(AioTask *task, AioTaskStatus status)
{
    /* Posting gives the task away, and with it its reference to the pool. */
    AioPool *pool = aio_pool_acquire(task->pool);
    task->status = status;
    aio_mail_post(&task->mail);
    aio_pending_done(&pool->unfinished);
    aio_pool_release(pool);
}

/* The future fails with the exception that is set, which is cleared. Whatever
 * happens, nobody shall wait for ever. */
static void
fail_with_raised(AioState *state, PyObject *future)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(future, state->str_set_exception, exception);
    if (result == NULL) {
        PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(result);
    Py_DECREF(exception);
}

/* Call set_result or set_exception with `argument`, which is taken; if it is NULL
 * the future fails with the exception that is set. */
static void
settle(AioState *state, PyObject *future, PyObject *method, PyObject *argument)
{
    if (argument == NULL) {
        fail_with_raised(state, future);
        return;
    }
    PyObject *result = PyObject_CallMethodOneArg(future, method, argument);
    Py_DECREF(argument);
    if (result != NULL) {
        Py_DECREF(result);
        return;
    }
    /* Somebody settled the future by hand: as with any asyncio future, the first
     * result counts. */
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *invalid_state = aio_helper(state, AIO_HELPER_INVALID_STATE_ERROR);
    const bool settled_already =
        invalid_state != NULL && PyErr_GivenExceptionMatches(exception, invalid_state);
    PyErr_SetRaisedException(exception);
    if (settled_already) {
        PyErr_Clear();
    }
    else {
        fail_with_raised(state, future);
    }
}

void
aio_task_deliver(AioState *state, AioTask *task)
{
    PyObject *future = task->mail.owner_future;

    if (future != NULL) {
        Py_INCREF(future);
        aio_task_unbind(task);
        aio_mail_let_go(&task->mail);
        switch (task->status) {
        case AIO_TASK_RETURNED:
            settle(state, future, state->str_set_result,
                   aio_message_decode_value(state, &task->message));
            break;
        case AIO_TASK_RAISED:
            settle(state, future, state->str_set_exception,
                   aio_failure_decode(state, &task->message, AIO_HELPER_REBUILD));
            break;
        case AIO_TASK_BROKEN:
            settle(state, future, state->str_set_exception,
                   aio_failure_decode(state, &task->pool->failure, AIO_HELPER_BROKEN));
            break;
        case AIO_TASK_CANCELLED: {
            PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->str_cancel);
            if (cancelled == NULL) {
                PyErr_WriteUnraisable(future);
            }
            Py_XDECREF(cancelled);
            break;
        }
        }
        Py_DECREF(future);
    }
    aio_task_free(task);
}

/* Nobody waits for the task any more: take it back if it is still queued, and
 * let go of it if it is not. */
static void
abandon(AioTask *task)
{
    AioPool *pool = task->pool;
    if (aio_taskqueue_remove(&pool->queue, &task->queue_node)) {
        aio_mail_abandon(&task->mail);
        aio_pool_acquire(pool);
        aio_task_free(task);
        aio_pending_done(&pool->unfinished);
        aio_pool_release(pool);
        return;
    }
    atomic_store_explicit(&task->abandoned, true, memory_order_relaxed);
    aio_mail_let_go(&task->mail);
    /* `task` may belong to the mailbox by now, but nobody else frees it before
     * this thread's next drain. */
    aio_pool_stop_abandoned(pool);
}

/* ---- the future ---------------------------------------------------------- */

/* The type has no subclasses, so it is the object's own. */
static FutureData *
future_data(PyObject *future)
{
    return PyObject_GetTypeData(future, Py_TYPE(future));
}

void
aio_task_bind(AioTask *task)
{
    task->owner_slot = &future_data(task->mail.owner_future)->task;
    *task->owner_slot = task;
}

void
aio_task_unbind(AioTask *task)
{
    if (task->owner_slot != NULL) {
        *task->owner_slot = NULL;
        task->owner_slot = NULL;
    }
}

static PyObject *
future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    /* Without the module's state: it may be gone when the garbage collector, at
     * the very end, closes a coroutine that cancels. */
    PyObject *base_cancel = NULL, *base_args = NULL, *result = NULL;

    /* asyncio.Future.cancel(self, *args, **kwargs) */
    base_cancel = PyObject_GetAttrString((PyObject *)Py_TYPE(self)->tp_base, "cancel");
    base_args = PyTuple_New(PyTuple_GET_SIZE(args) + 1);
    if (base_cancel == NULL || base_args == NULL) {
        goto done;
    }
    PyTuple_SET_ITEM(base_args, 0, Py_NewRef(self));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        PyTuple_SET_ITEM(base_args, i + 1, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    result = PyObject_Call(base_cancel, base_args, kwargs);
    if (result == Py_True) {
        AioTask *task = future_data(self)->task;
        if (task != NULL) {
            aio_task_unbind(task);
            abandon(task);
        }
    }
done:
    Py_XDECREF(base_args);
    Py_XDECREF(base_cancel);
    return result;
}

static PyMethodDef future_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("Cancel the future: a queued call is taken out of the queue, a running one\n"
               "is no longer waited for. Returns False if the call is done already.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The asyncio.Future of a call that a Runner has accepted.")},
    {Py_tp_methods, future_methods},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "aiointerpreters._core.TaskFuture",
    .basicsize = -(int)sizeof(FutureData), /* in addition to the base's, whose layout is private */
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = future_slots,
};

/* 0, or -1 with an exception set. */
static int
make_future_type(AioState *state)
{
    PyObject *module = PyType_GetModule(state->pool_type); /* borrowed */
    PyObject *base = aio_helper(state, AIO_HELPER_FUTURE);
    if (module == NULL || base == NULL) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &future_spec, base);
    Py_XSETREF(state->future_type, (PyTypeObject *)type);
    return type == NULL ? -1 : 0;
}

PyObject *
aio_task_future_new(AioState *state, PyObject *loop)
{
    if (state->future_type == NULL && make_future_type(state) < 0) {
        return NULL;
    }
    return PyObject_Vectorcall((PyObject *)state->future_type, &loop, 0, state->loop_keyword);
}
