/* call.c: the coroutine that run() returns, and the future for which it waits, in one object.
 *
 *     NEW ──first step──► PENDING ──delivered, or cancelled──► DONE ──next step──► ENDED
 *      └────────────────────┴──────────────── close(), throw() ──────────────────────┘
 *
 * `await runner.run(f, x)` used to take a coroutine, its frame, a future and its Handle in the
 * loop's list; this is one object, without a Python frame. Nothing happens before it is awaited, as
 * with any coroutine: its first step submits the call, and yields the object itself. For what
 * asyncio's Task (and nobody else) looks for in what is yielded, it is a future then: a Task asks
 * for `_asyncio_future_blocking`, `get_loop()`, `add_done_callback()`, `cancel()` and `result()`.
 * Before that the first of them is None, so that for asyncio.isfuture() it is no future, but a
 * coroutine: gather(), create_task() and the like make a Task of it.
 *
 * Belongs to the interpreter of the callers; from its first step on, to the loop's thread.
 */
#include "call.h"

#include "callbacks.h"
#include "future.h"
#include "pool_object.h"

typedef enum CallState { NEW, PENDING, DONE, ENDED } CallState;

typedef struct CallObject {
    PyObject_HEAD CallState state;
    bool is_stepping;  /* its first step runs */
    bool is_cancelled; /* done, without a result */
    bool is_blocking;  /* what is yielded was not yet taken note of */
    /* NEW only: what is to be called. Owned. */
    PyObject *pool, *callable, *args, *kwargs;
    PyObject *module; /* owned: keeps the state in memory to the end */
    /* From PENDING on. */
    PyObject *loop; /* owned */
    AioMail *mail;  /* borrowed, NULL once nothing can be cancelled any more */
    AioCallbacks callbacks;
    /* DONE: one of both, or, if it is cancelled, perhaps what cancel() was told. Owned. */
    PyObject *result, *exception, *cancel_message;
} CallObject;

PyObject *
aio_call_new(PyObject *pool, PyObject *callable, PyObject *args, PyObject *kwargs)
{
    PyObject *module = aio_pool_object_module(pool);
    AioState *state = aio_state_of_module(module);
    CallObject *call = PyObject_GC_New(CallObject, state->call_type);
    if (call == NULL) {
        return NULL;
    }
    call->state = NEW;
    call->is_stepping = false;
    call->is_cancelled = false;
    call->is_blocking = false;
    call->pool = Py_NewRef(pool);
    call->callable = Py_NewRef(callable);
    call->args = Py_NewRef(args);
    call->kwargs = Py_XNewRef(kwargs);
    call->module = Py_NewRef(module);
    call->loop = NULL;
    call->mail = NULL;
    call->callbacks = (AioCallbacks){NULL};
    call->result = call->exception = call->cancel_message = NULL;
    PyObject_GC_Track(call);
    return (PyObject *)call;
}

void
aio_call_begin(PyObject *self, PyObject *loop)
{
    CallObject *call = (CallObject *)self;
    call->loop = Py_NewRef(loop);
    call->state = PENDING;
}

AioMail **
aio_call_mail_slot(PyObject *self)
{
    return &((CallObject *)self)->mail;
}

/* ---- the future's side ------------------------------------------------------ */

int
aio_call_set_result(PyObject *self, PyObject *result)
{
    CallObject *call = (CallObject *)self;
    if (call->state != PENDING) {
        return 0;
    }
    call->state = DONE;
    call->result = Py_NewRef(result);
    return aio_callbacks_run(&call->callbacks, call->loop, self);
}

/* A coroutine can't raise StopIteration: a new RuntimeError with it as its cause. NULL with an
 * exception set. */
static PyObject *
wrap_stop_iteration(PyObject *stop)
{
    PyErr_SetString(PyExc_RuntimeError, "the call raised StopIteration, which a coroutine can't");
    PyObject *wrapper = PyErr_GetRaisedException();
    PyException_SetCause(wrapper, Py_NewRef(stop));
    PyException_SetContext(wrapper, Py_NewRef(stop));
    return wrapper;
}

int
aio_call_set_exception(PyObject *self, PyObject *exception)
{
    CallObject *call = (CallObject *)self;
    if (call->state != PENDING) {
        return 0;
    }
    call->state = DONE;
    call->exception = PyErr_GivenExceptionMatches(exception, PyExc_StopIteration)
                          ? wrap_stop_iteration(exception)
                          : Py_NewRef(exception);
    return aio_callbacks_run(&call->callbacks, call->loop, self);
}

static void
raise_cancelled(CallObject *call)
{
    PyObject *type = aio_helper(aio_state_of_module(call->module), AIO_HELPER_CANCELLED_ERROR);
    if (type == NULL) {
        return;
    }
    if (call->cancel_message == NULL || call->cancel_message == Py_None) {
        PyErr_SetNone(type);
    }
    else {
        PyErr_SetObject(type, call->cancel_message);
    }
}

/* Raise what it is done with, unless that is a result: then it is returned, borrowed. */
static PyObject *
outcome(CallObject *call)
{
    if (call->is_cancelled) {
        raise_cancelled(call);
        return NULL;
    }
    if (call->exception != NULL) {
        PyErr_SetRaisedException(Py_NewRef(call->exception));
        return NULL;
    }
    return call->result;
}

static PyObject *
call_result(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CallObject *call = (CallObject *)self;
    if (call->state != DONE) {
        AioState *state = aio_state_of_module(call->module);
        PyObject *type = aio_helper(state, AIO_HELPER_INVALID_STATE_ERROR);
        if (type != NULL) {
            PyErr_SetString(type, "the call has no result yet");
        }
        return NULL;
    }
    return Py_XNewRef(outcome(call));
}

/* Nobody waits for what it is still bound to. */
static void
let_go(CallObject *call)
{
    AioMail *mail = call->mail;
    if (mail != NULL) {
        aio_future_unbind(mail);
        aio_mail_cancelled(mail);
    }
}

/* cancel(msg=None) */
static PyObject *
call_cancel(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    CallObject *call = (CallObject *)self;
    const Py_ssize_t all = count + (keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords));
    if (all > 1 || (all > count && !PyUnicode_EqualToUTF8(PyTuple_GET_ITEM(keywords, 0), "msg"))) {
        PyErr_SetString(PyExc_TypeError, "cancel(msg=None)");
        return NULL;
    }
    if (call->state != PENDING) {
        Py_RETURN_FALSE;
    }
    call->state = DONE;
    call->is_cancelled = true;
    call->cancel_message = all == 1 ? Py_NewRef(args[0]) : NULL;
    let_go(call);
    if (aio_callbacks_schedule(&call->callbacks, call->loop, self) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *
call_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    CallObject *call = (CallObject *)self;
    PyObject *result = aio_callbacks_add_arguments(&call->callbacks, args, count, keywords);
    if (result != NULL && call->state == DONE &&
        aio_callbacks_schedule(&call->callbacks, call->loop, self) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
call_get_loop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CallObject *call = (CallObject *)self;
    if (call->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a coroutine that was not started has no loop");
        return NULL;
    }
    return Py_NewRef(call->loop);
}

static PyObject *
call_get_blocking(PyObject *self, void *Py_UNUSED(closure))
{
    CallObject *call = (CallObject *)self;
    if (call->state != PENDING && call->state != DONE) {
        Py_RETURN_NONE; /* it is no future */
    }
    return PyBool_FromLong(call->is_blocking);
}

static int
call_set_blocking(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    const int is_blocking = value == NULL ? 0 : PyObject_IsTrue(value);
    if (is_blocking >= 0) {
        ((CallObject *)self)->is_blocking = is_blocking;
    }
    return is_blocking < 0 ? -1 : 0;
}

/* ---- the coroutine's side ---------------------------------------------------- */

static void
forget_what_to_call(CallObject *call)
{
    Py_CLEAR(call->pool);
    Py_CLEAR(call->callable);
    Py_CLEAR(call->args);
    Py_CLEAR(call->kwargs);
}

/* Nothing comes after this. */
static void
end(CallObject *call)
{
    call->state = ENDED;
    forget_what_to_call(call);
    Py_CLEAR(call->result);
    Py_CLEAR(call->exception);
    Py_CLEAR(call->cancel_message);
}

/* The first step: 0, or -1 with an exception set, and it has ended. */
static int
begin(CallObject *call)
{
    PyObject *pool = call->pool, *callable = call->callable;
    PyObject *args = call->args, *kwargs = call->kwargs;

    /* What is sent is not kept while it runs. */
    call->pool = call->callable = call->args = call->kwargs = NULL;
    call->is_stepping = true;
    PyObject *future = aio_pool_object_submit(pool, callable, args, kwargs, (PyObject *)call);
    call->is_stepping = false;
    PyObject *exception = PyErr_GetRaisedException();
    Py_XDECREF(future); /* it is the call */
    Py_XDECREF(kwargs);
    Py_DECREF(args);
    Py_DECREF(callable);
    Py_DECREF(pool);
    PyErr_SetRaisedException(exception);
    if (future == NULL) {
        end(call);
        return -1;
    }
    call->is_blocking = true;
    return 0;
}

static PySendResult
call_send(PyObject *self, PyObject *value, PyObject **result)
{
    CallObject *call = (CallObject *)self;
    *result = NULL;
    if (call->is_stepping) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return PYGEN_ERROR;
    }
    switch (call->state) {
    case NEW:
        if (value != Py_None) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        if (begin(call) < 0) {
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(self);
        return PYGEN_NEXT;
    case PENDING:
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return PYGEN_ERROR;
    case DONE:
        *result = Py_XNewRef(outcome(call));
        end(call);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    case ENDED:
        break;
    }
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return PYGEN_ERROR;
}

/* What call_send() gives, as an iterator gives it. */
static PyObject *
call_send_or_stop(PyObject *self, PyObject *value)
{
    PyObject *result;
    if (call_send(self, value, &result) != PYGEN_RETURN) {
        return result;
    }
    /* By hand, as a result that is a tuple or an exception must not be taken apart. */
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetRaisedException(stop);
    }
    return NULL;
}

static PyObject *
call_next(PyObject *self)
{
    return call_send_or_stop(self, Py_None);
}

/* throw(exception), or as ever throw(type[, value[, traceback]]) */
static PyObject *
call_throw(PyObject *self, PyObject *args)
{
    CallObject *call = (CallObject *)self;
    PyObject *type, *value = NULL, *traceback = NULL, *exception = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) {
        return NULL;
    }
    if (PyExceptionInstance_Check(type)) {
        exception = Py_NewRef(type);
    }
    else if (!PyExceptionClass_Check(type)) {
        return PyErr_Format(PyExc_TypeError, "exceptions must derive from BaseException, not %s",
                            Py_TYPE(type)->tp_name);
    }
    else if (value != NULL && PyExceptionInstance_Check(value)) {
        exception = Py_NewRef(value);
    }
    else {
        exception = value == NULL || value == Py_None ? PyObject_CallNoArgs(type)
                                                      : PyObject_CallOneArg(type, value);
    }
    if (exception == NULL) {
        return NULL;
    }
    if (traceback != NULL && traceback != Py_None &&
        PyException_SetTraceback(exception, traceback) < 0) {
        Py_DECREF(exception);
        return NULL;
    }
    if (call->is_stepping || call->state == ENDED) {
        Py_DECREF(exception);
        PyErr_SetString(call->is_stepping ? PyExc_ValueError : PyExc_RuntimeError,
                        call->is_stepping ? "coroutine already executing"
                                          : "cannot reuse already awaited coroutine");
        return NULL;
    }
    let_go(call);
    end(call);
    PyErr_SetRaisedException(exception);
    return NULL;
}

static PyObject *
call_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CallObject *call = (CallObject *)self;
    if (call->is_stepping) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    let_go(call);
    end(call);
    Py_RETURN_NONE;
}

static PyObject *
call_get_running(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((CallObject *)self)->is_stepping);
}

static PyObject *
call_get_suspended(PyObject *self, void *Py_UNUSED(closure))
{
    const CallState state = ((CallObject *)self)->state;
    return PyBool_FromLong(state == PENDING || state == DONE);
}

static PyObject *
call_get_none(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyObject *
call_get_name(PyObject *Py_UNUSED(self), void *closure)
{
    return PyUnicode_FromString(closure);
}

static PyObject *
call_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object Runner.run at %p>", self);
}

/* ---- the type ------------------------------------------------------------------ */

static int
call_traverse(PyObject *self, visitproc visit, void *arg)
{
    CallObject *call = (CallObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call->pool);
    Py_VISIT(call->callable);
    Py_VISIT(call->args);
    Py_VISIT(call->kwargs);
    Py_VISIT(call->module);
    Py_VISIT(call->loop);
    Py_VISIT(call->result);
    Py_VISIT(call->exception);
    Py_VISIT(call->cancel_message);
    return aio_callbacks_traverse(&call->callbacks, visit, arg);
}

static int
call_clear(PyObject *self)
{
    CallObject *call = (CallObject *)self;
    forget_what_to_call(call);
    Py_CLEAR(call->loop);
    Py_CLEAR(call->result);
    Py_CLEAR(call->exception);
    Py_CLEAR(call->cancel_message);
    aio_callbacks_clear(&call->callbacks);
    return 0;
}

static void
call_finalize(PyObject *self)
{
    CallObject *call = (CallObject *)self;
    if (call->state == NEW && call->callable != NULL) {
        PyObject *exception = PyErr_GetRaisedException();
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                             "coroutine 'Runner.run' was never awaited, "
                             "so %R was not called",
                             call->callable) < 0) {
            PyErr_WriteUnraisable(self);
        }
        PyErr_SetRaisedException(exception);
    }
}

static void
call_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    call_clear(self);
    Py_CLEAR(((CallObject *)self)->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef call_methods[] = {
    {"send", call_send_or_stop, METH_O, PyDoc_STR("As a coroutine's.")},
    {"throw", call_throw, METH_VARARGS, PyDoc_STR("As a coroutine's.")},
    {"close", call_close, METH_NOARGS, PyDoc_STR("As a coroutine's; what runs is interrupted.")},
    {"result", call_result, METH_NOARGS, PyDoc_STR("For asyncio.Task.")},
    {"cancel", (PyCFunction)(void (*)(void))call_cancel, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("For asyncio.Task.")},
    {"add_done_callback", (PyCFunction)(void (*)(void))call_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("For asyncio.Task.")},
    {"get_loop", call_get_loop, METH_NOARGS, PyDoc_STR("For asyncio.Task.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"_asyncio_future_blocking", call_get_blocking, call_set_blocking, NULL, NULL},
    {"cr_running", call_get_running, NULL, NULL, NULL},
    {"cr_suspended", call_get_suspended, NULL, NULL, NULL},
    {"cr_frame", call_get_none, NULL, PyDoc_STR("None: it has no Python frame."), NULL},
    {"__name__", call_get_name, NULL, NULL, "run"},
    {"__qualname__", call_get_name, NULL, NULL, "Runner.run"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The coroutine of a call: what Runner.run() returns.")},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, call_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, call_next},
    {Py_tp_methods, call_methods},
    {Py_tp_getset, call_getset},
    {Py_tp_repr, call_repr},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_finalize, call_finalize},
    {Py_tp_dealloc, call_dealloc},
    {0, NULL},
};

PyType_Spec aio_call_spec = {
    .name = "aiointerpreters._core.Call",
    .basicsize = sizeof(CallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_MANAGED_WEAKREF,
    .slots = call_slots,
};
