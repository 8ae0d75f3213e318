/* async_call.c: a call of an `async def` function in a worker's loop.
 *
 * To asyncio it is a coroutine, which the loop runs in a Task of its own. At its first step
 * it decodes the call and makes the user's coroutine; each step is a step of that; and
 * when that has ended, what it returned or raised is encoded and posted, within the same
 * step. So a call's Task always ends without an exception: KeyboardInterrupt, which asyncio
 * would raise out of the loop, is the call's failure like any other.
 *
 * All of the user's code that belongs to a call runs between begin_step() and end_step():
 * that is what an interrupter goes by (loop.c). It looks with the GIL held, or the lock that
 * stands for it: so what it sends hits that step, or is taken back at its end.
 */
#include "async_call.h"

#include "blocked.h"
#include "core/clock.h"
#include "coroutines.h"
#include "expiry.h"
#include "failure.h"
#include "interrupt.h"
#include "pool.h"
#include "worker.h"

struct AioAsyncCall {
    PyObject_HEAD AioLoop *loop; /* borrowed; NULL once the call has ended */
    AioTask *task;               /* owned; NULL likewise */
    PyObject *coroutine;         /* the user's; NULL before the first step */
    AioListNode link;            /* in the loop's list, guarded by the GIL as all of it */
    bool is_claimed;             /* until then the task may be taken back */
    bool is_running;             /* in a step */
    bool is_cancelled;           /* what cancels it has been raised, or asyncio is to do so */
};

/* To be asked before anything is done with the task; false if the call has ended. That it also has
 * where the task was taken back, to be run elsewhere, because the loop was held up. */
static bool
claim(AioAsyncCall *call)
{
    if (call->loop != NULL && !call->is_claimed) {
        call->is_claimed = true;
        if (!aio_coroutines_claim(call->loop, &call->task)) {
            aio_list_unlink(&call->link);
            call->loop = NULL;
        }
    }
    return call->loop != NULL;
}

/* ---- a step -------------------------------------------------------------- */

static bool
is_abandoned(AioAsyncCall *call)
{
    return atomic_load_explicit(&call->task->abandoned, memory_order_relaxed);
}

static void
begin_step(AioAsyncCall *call)
{
    AioLoop *loop = call->loop;
    call->is_running = true;
    loop->current_call = call;
    const bool was_abandoned = is_abandoned(call);
    pthread_mutex_lock(&loop->step_lock);
    loop->current = call->task;
    loop->held_off = 0;
    loop->importing = 0;
    loop->abandoned_step_began_ns = was_abandoned ? aio_clock_ns() : 0;
    loop->has_sent = false;
    loop->insist = false;
    pthread_mutex_unlock(&loop->step_lock);
    /* Who abandons it marks it, then looks what runs, under that lock. So either it saw this
     * step, or this sees the mark. */
    if (is_abandoned(call) && !call->is_cancelled) {
        aio_coroutines_interrupt(loop);
    }
    if (was_abandoned) { /* this step of its clean-up has the grace period, as any other */
        aio_interrupt_watch(aio_container_of(loop, AioWorker, loop));
    }
}

static void
end_step(AioAsyncCall *call)
{
    AioLoop *loop = call->loop;
    call->is_running = false;
    pthread_mutex_lock(&loop->step_lock);
    const bool has_sent = loop->has_sent;
    loop->current = NULL;
    loop->has_sent = false;
    loop->insist = false;
    pthread_mutex_unlock(&loop->step_lock);
    loop->current_call = NULL;
    if (has_sent) {
        PyThreadState_SetAsyncExc(loop->thread_id, NULL);
        aio_blocked_end_work(loop->home, AIO_BLOCKED_LOOP);
    }
}

bool
aio_async_call_is_cancelled(const AioLoop *loop)
{
    return loop->current_call != NULL && loop->current_call->is_cancelled;
}

void
aio_async_call_note_arrival(AioLoop *loop)
{
    if (loop->current_call != NULL) {
        loop->current_call->is_cancelled = true;
    }
}

/* ---- a call's end -------------------------------------------------------- */

/* Post the task, which has been claimed; the call is nobody's but Python's any more. */
static void
complete(AioAsyncCall *call, AioTaskStatus status)
{
    AioLoop *loop = call->loop;
    AioTask *task = call->task;
    call->loop = NULL;
    call->task = NULL;
    aio_list_unlink(&call->link);
    atomic_fetch_add_explicit(&loop->call_count, 1, memory_order_relaxed);
    aio_coroutines_finish(loop, task);
    aio_task_complete(task, status);
}

/* Put into the task's message what the call returned, or (NULL) the exception that is set. */
static AioTaskStatus
encode_outcome(AioAsyncCall *call, PyObject *result)
{
    AioState *state = call->loop->state;
    AioTask *task = call->task;

    /* What the caller lent goes back with the task, without a wake-up of its own. */
    if (task->lent.count == 0) {
        aio_message_clear_bytes(&task->message, &task->lent);
    }
    if (result != NULL && aio_message_encode_value(state, &task->message, result, "result") == 0) {
        return AIO_TASK_RETURNED;
    }
    if (call->loop->has_sent) { /* too late, if it has not been raised yet */
        PyThreadState_SetAsyncExc(call->loop->thread_id, NULL);
    }
    /* No failure, if it was asked for: the pool is being stopped, or nobody waits. */
    const bool is_asked_for = is_abandoned(call) || aio_pool_is_stopping(task->pool);
    if ((is_asked_for && PyErr_ExceptionMatches(state->interrupted)) ||
        (call->is_cancelled && (is_abandoned(call) || PyErr_ExceptionMatches(aio_helper(
                                                          state, AIO_HELPER_CANCELLED_ERROR))))) {
        PyErr_Clear();
        aio_message_clear(&task->message);
        return AIO_TASK_CANCELLED;
    }
    aio_failure_encode(state, &task->message);
    return AIO_TASK_RAISED;
}

/* ---- running it ---------------------------------------------------------- */

/* Set context variables in the current context, which is the call's own. 0, or -1 with an
 * exception set. */
static int
enter_context(AioState *state, PyObject *context)
{
    if (context == NULL) {
        return 0;
    }
    PyObject *enter = aio_helper(state, AIO_HELPER_ENTER_CONTEXT);
    PyObject *none = enter == NULL ? NULL : PyObject_CallOneArg(enter, context);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Decode the call, and call the function. 0, or -1 with an exception set. */
static int
start(AioAsyncCall *call)
{
    AioLoop *loop = call->loop;
    AioTask *task = call->task;
    PyObject *context = NULL, *callable = NULL, *args = NULL, *kwargs = NULL, *awaitable = NULL;

    if (task->expiry != NULL) {
        aio_expiry_start(task->expiry);
    }
    if (aio_message_decode_call(loop->state, &task->message, task->has_context ? &context : NULL,
                                task->function == NULL ? &callable : NULL, &args, &kwargs) == 0 &&
        enter_context(loop->state, context) == 0) {
        if (callable == NULL) {
            callable =
                Py_XNewRef(aio_function_resolve(loop->state, &loop->functions, task->function));
        }
        if (callable == NULL) {
            aio_function_note_not_begun(loop->state, task->function);
        }
        awaitable = callable == NULL ? NULL : PyObject_Call(callable, args, kwargs);
    }
    else {
        aio_function_note_not_begun(loop->state, task->function);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(callable);
    Py_XDECREF(context);
    if (awaitable != NULL && !PyCoro_CheckExact(awaitable)) {
        Py_SETREF(awaitable, PyObject_CallOneArg(loop->await_any, awaitable));
    }
    call->coroutine = awaitable;
    return awaitable == NULL ? -1 : 0;
}

/* Raise something in the coroutine, whose step that is. */
static PySendResult
throw_into(AioAsyncCall *call, PyObject *const *thrown, Py_ssize_t count, PyObject **result)
{
    PyObject *throw = PyObject_GetAttrString(call->coroutine, "throw");
    *result = throw == NULL ? NULL : PyObject_Vectorcall(throw, thrown, (size_t)count, NULL);
    Py_XDECREF(throw);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *stop = PyErr_GetRaisedException();
    *result = PyObject_GetAttrString(stop, "value");
    Py_DECREF(stop);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* Set the exception of throw(exception) or throw(type, value, traceback). */
static void
set_thrown(PyObject *const *thrown, Py_ssize_t count)
{
    if (PyExceptionInstance_Check(thrown[0])) {
        PyErr_SetRaisedException(Py_NewRef(thrown[0]));
    }
    else {
        PyErr_SetObject(thrown[0], count > 1 ? thrown[1] : NULL);
    }
}

/* Whether it can be stepped or closed: not where it has ended, or from within its own step. 0,
 * or -1 with an exception set. */
static int
check_suspended(AioAsyncCall *call)
{
    if (call->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this call has ended");
        return -1;
    }
    if (call->is_running) {
        PyErr_SetString(PyExc_ValueError, "this call is already executing");
        return -1;
    }
    return 0;
}

/* One step: send `value`, or (NULL) raise what is thrown. As PyIter_Send(), but never with
 * an error of the user's. */
static PySendResult
step(AioAsyncCall *call, PyObject *value, PyObject *const *thrown, Py_ssize_t count,
     PyObject **result)
{
    PySendResult outcome = PYGEN_ERROR;
    AioTaskStatus status = AIO_TASK_CANCELLED;

    *result = NULL;
    if (call->loop != NULL && !claim(call)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (check_suspended(call) < 0) {
        return PYGEN_ERROR;
    }
    if (call->coroutine == NULL && is_abandoned(call)) {
        complete(call, AIO_TASK_CANCELLED); /* it need not even begin */
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    begin_step(call);
    if (call->coroutine == NULL && value == NULL) {
        set_thrown(thrown, count); /* it was cancelled before it began */
    }
    else if (call->coroutine == NULL && start(call) < 0) {
        /* an exception is set */
    }
    else if (value != NULL) {
        outcome = PyIter_Send(call->coroutine, value, result);
    }
    else {
        outcome = throw_into(call, thrown, count, result);
    }
    if (outcome != PYGEN_NEXT) {
        status = encode_outcome(call, *result);
        Py_CLEAR(*result);
        Py_CLEAR(call->coroutine);
    }
    end_step(call);
    if (outcome == PYGEN_NEXT) {
        return PYGEN_NEXT;
    }
    complete(call, status);
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* ---- the type ------------------------------------------------------------ */

PyObject *
aio_async_call_new(PyTypeObject *type, AioLoop *loop, AioTask *task)
{
    AioAsyncCall *call = (AioAsyncCall *)type->tp_alloc(type, 0);
    if (call != NULL) {
        call->loop = loop;
        call->task = task;
        aio_list_append(&loop->running, &call->link);
        aio_coroutines_offer(&call->task);
    }
    return (PyObject *)call;
}

void
aio_async_call_drop_all(AioLoop *loop)
{
    AioListNode *link;
    while ((link = aio_list_pop_first(&loop->running)) != NULL) {
        AioAsyncCall *call = aio_container_of(link, AioAsyncCall, link);
        Py_INCREF(call);
        if (claim(call)) {
            complete(call, AIO_TASK_CANCELLED);
            Py_CLEAR(call->coroutine);
        }
        Py_DECREF(call);
    }
}

static PySendResult
async_call_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    return step((AioAsyncCall *)self, value, NULL, 0, result);
}

/* As a method has it: an end is a StopIteration. */
static PyObject *
as_method(PySendResult outcome, PyObject *result)
{
    if (outcome == PYGEN_RETURN) {
        Py_CLEAR(result);
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *
async_call_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    const PySendResult outcome = step((AioAsyncCall *)self, value, NULL, 0, &result);
    return as_method(outcome, result);
}

static PyObject *
async_call_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *result;
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    const PySendResult outcome = step((AioAsyncCall *)self, NULL, args, count, &result);
    return as_method(outcome, result);
}

static PyObject *
async_call_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioAsyncCall *call = (AioAsyncCall *)self;
    if (claim(call)) {
        if (check_suspended(call) < 0) {
            return NULL;
        }
        complete(call, AIO_TASK_CANCELLED);
        Py_CLEAR(call->coroutine);
    }
    Py_RETURN_NONE;
}

/* Whether asyncio is to cancel it now: once. */
static PyObject *
async_call_must_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioAsyncCall *call = (AioAsyncCall *)self;
    bool must_cancel = false;
    if (claim(call) && !call->is_cancelled) {
        must_cancel =
            is_abandoned(call) ||
            atomic_load_explicit(&call->task->pool->coroutines.stopping, memory_order_relaxed);
        call->is_cancelled = must_cancel;
    }
    return PyBool_FromLong(must_cancel);
}

/* What debuggers and asyncio's own displays ask a coroutine for: that is the user's. */
static PyObject *
async_call_getattro(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    PyObject *coroutine = ((AioAsyncCall *)self)->coroutine;
    if (found == NULL && coroutine != NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(coroutine, name);
    }
    return found;
}

static int
async_call_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((AioAsyncCall *)self)->coroutine);
    return 0;
}

static int
async_call_clear(PyObject *self)
{
    Py_CLEAR(((AioAsyncCall *)self)->coroutine);
    return 0;
}

static void
async_call_dealloc(PyObject *self)
{
    AioAsyncCall *call = (AioAsyncCall *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (claim(call)) {
        complete(call, AIO_TASK_CANCELLED); /* its Task was dropped */
    }
    Py_CLEAR(call->coroutine);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef async_call_methods[] = {
    {"send", async_call_send, METH_O, PyDoc_STR("As a coroutine's.")},
    {"throw", (PyCFunction)(void (*)(void))async_call_throw, METH_FASTCALL,
     PyDoc_STR("As a coroutine's.")},
    {"close", async_call_close, METH_NOARGS, PyDoc_STR("As a coroutine's.")},
    {"must_cancel", async_call_must_cancel, METH_NOARGS,
     PyDoc_STR("Whether its Task is to be cancelled now; true once.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot async_call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A call of an async def function, as asyncio runs it.")},
    {Py_tp_methods, async_call_methods},
    {Py_tp_getattro, async_call_getattro},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, async_call_am_send},
    {Py_tp_traverse, async_call_traverse},
    {Py_tp_clear, async_call_clear},
    {Py_tp_dealloc, async_call_dealloc},
    {0, NULL},
};

PyType_Spec aio_async_call_spec = {
    .name = "aiointerpreters._core.AsyncCall",
    .basicsize = sizeof(AioAsyncCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = async_call_slots,
};
