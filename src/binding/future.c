/* future.c: the future that stands for a call, or for a wait of a loop.
 *
 * It is a subclass of asyncio's own, made when the first runner needs it. It carries a
 * plain pointer to its mail, which is good exactly as long as that is in the bridge's
 * flight list: whoever takes the mail off that list resets the pointer. The mail, for its
 * part, holds a reference to the future.
 *
 * As long as it is bound to a mail, and not done, it keeps its callbacks itself (callbacks.h); its
 * base knows of none. Otherwise it is done, or nobody will settle it.
 */
#include "future.h"

#include "call.h"
#include "callbacks.h"
#include "ticket.h"

typedef struct FutureData {
    AioMail *mail;   /* borrowed, NULL once nothing can be cancelled any more */
    bool is_settled; /* by hand */
    AioCallbacks callbacks;
} FutureData;

/* The type has no subclasses, so it is the object's own. */
static FutureData *
future_data(PyObject *future)
{
    return PyObject_GetTypeData(future, Py_TYPE(future));
}

/* Where the future, of one of the three kinds, keeps its pointer. */
static AioMail **
slot_of(AioState *state, PyObject *future)
{
    if (Py_TYPE(future) == state->call_type) {
        return aio_call_mail_slot(future);
    }
    return Py_TYPE(future) == state->future_type ? &future_data(future)->mail
                                                 : aio_ticket_mail_slot(state, future);
}

void
aio_future_bind(AioState *state, AioMail *mail)
{
    mail->owner_slot = slot_of(state, mail->owner_future);
    *mail->owner_slot = mail;
}

void
aio_future_unbind(AioMail *mail)
{
    if (mail->owner_slot != NULL) {
        *mail->owner_slot = NULL;
        mail->owner_slot = NULL;
    }
}

AioMail *
aio_future_mail(PyObject *future)
{
    return future_data(future)->mail;
}

static void
give_up(AioMail *mail)
{
    if (mail != NULL) {
        aio_future_unbind(mail);
        aio_mail_cancelled(mail);
    }
}

void
aio_future_give_up(AioState *state, PyObject *future)
{
    give_up(*slot_of(state, future));
}

/* ---- delivered by the loop ------------------------------------------------ */

/* What settling a future has raised is set: no harm if that is that somebody has settled it by
 * hand. */
static void
forgive_settled(AioState *state, PyObject *future)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *invalid_state = aio_helper(state, AIO_HELPER_INVALID_STATE_ERROR);
    if (invalid_state == NULL || !PyErr_GivenExceptionMatches(exception, invalid_state)) {
        PyErr_SetRaisedException(exception);
        PyErr_WriteUnraisable(future);
        return;
    }
    Py_DECREF(exception);
}

/* `method`: of its base, or for other futures (NULL) by `name`. */
static int
settle(AioState *state, PyObject *future, PyObject *method, PyObject *name, PyObject *value)
{
    PyObject *args[] = {future, value};
    PyObject *result = method != NULL ? PyObject_Vectorcall(method, args, 2, NULL)
                                      : PyObject_CallMethodOneArg(future, name, value);
    if (result == NULL) {
        forgive_settled(state, future);
        return 0;
    }
    Py_DECREF(result);
    if (method == NULL) {
        return 0;
    }
    FutureData *data = future_data(future);
    if (data->callbacks.function == NULL) {
        return 0;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(future, state->str_get_loop);
    if (loop == NULL) {
        PyErr_WriteUnraisable(future);
        return 0;
    }
    const int ended = aio_callbacks_run(&data->callbacks, loop, future);
    Py_DECREF(loop);
    return ended;
}

int
aio_future_set_result(AioState *state, PyObject *future, PyObject *result)
{
    if (Py_TYPE(future) == state->call_type) {
        return aio_call_set_result(future, result);
    }
    if (aio_ticket_has(state, future)) {
        return aio_ticket_settle(state, future, AIO_HELPER_SET_RESULT, result);
    }
    return settle(state, future,
                  Py_TYPE(future) == state->future_type ? state->base_set_result : NULL,
                  state->str_set_result, result);
}

int
aio_future_set_exception(AioState *state, PyObject *future, PyObject *exception)
{
    if (Py_TYPE(future) == state->call_type) {
        return aio_call_set_exception(future, exception);
    }
    if (aio_ticket_has(state, future)) {
        return aio_ticket_settle(state, future, AIO_HELPER_SET_EXCEPTION, exception);
    }
    return settle(state, future,
                  Py_TYPE(future) == state->future_type ? state->base_set_exception : NULL,
                  state->str_set_exception, exception);
}

void
aio_future_cancel(AioState *state, PyObject *future)
{
    if (aio_ticket_has(state, future)) {
        /* What ends the program is not raised by this, but for a signal just now. */
        if (aio_ticket_settle(state, future, AIO_HELPER_SET_CANCELLED, NULL) < 0) {
            PyErr_WriteUnraisable(future);
        }
        return;
    }
    PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->str_cancel);
    if (cancelled == NULL) {
        PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(cancelled);
}

/* ---- methods ---------------------------------------------------------------- */

/* asyncio.Future.NAME(self, *args, **kwargs). Without the module's state: it may be gone when
 * the garbage collector, at the very end, closes a coroutine that cancels. */
static PyObject *
call_base(PyObject *self, const char *name, PyObject *args, PyObject *kwargs)
{
    PyObject *result = NULL;
    PyObject *method = PyObject_GetAttrString((PyObject *)Py_TYPE(self)->tp_base, name);
    PyObject *base_args = PyTuple_New(PyTuple_GET_SIZE(args) + 1);
    if (method == NULL || base_args == NULL) {
        goto done;
    }
    PyTuple_SET_ITEM(base_args, 0, Py_NewRef(self));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        PyTuple_SET_ITEM(base_args, i + 1, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    result = PyObject_Call(method, base_args, kwargs);
done:
    Py_XDECREF(base_args);
    Py_XDECREF(method);
    return result;
}

/* It has been settled by hand. 0, or -1 with an exception set. */
static int
schedule_callbacks(PyObject *self)
{
    FutureData *data = future_data(self);
    if (data->callbacks.function == NULL) {
        return 0;
    }
    PyObject *loop = PyObject_CallMethod(self, "get_loop", NULL);
    const int result = loop == NULL ? -1 : aio_callbacks_schedule(&data->callbacks, loop, self);
    Py_XDECREF(loop);
    return result;
}

static PyObject *
future_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *result = call_base(self, "cancel", args, kwargs);
    if (result == Py_True) {
        give_up(future_data(self)->mail);
        if (schedule_callbacks(self) < 0) {
            Py_CLEAR(result);
        }
    }
    return result;
}

/* set_result() or set_exception(), called by somebody who doesn't wait for ours: that one comes
 * too late. */
static PyObject *
settle_by_hand(PyObject *self, const char *name, PyObject *args)
{
    PyObject *result = call_base(self, name, args, NULL);
    if (result != NULL) {
        future_data(self)->is_settled = true;
        if (schedule_callbacks(self) < 0) {
            Py_CLEAR(result);
        }
    }
    return result;
}

static PyObject *
future_set_result(PyObject *self, PyObject *args)
{
    return settle_by_hand(self, "set_result", args);
}

static PyObject *
future_set_exception(PyObject *self, PyObject *args)
{
    return settle_by_hand(self, "set_exception", args);
}

static PyObject *
future_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    FutureData *data = future_data(self);
    if (data->mail != NULL && !data->is_settled) {
        return aio_callbacks_add_arguments(&data->callbacks, args, count, keywords);
    }
    PyObject *method =
        PyObject_GetAttrString((PyObject *)Py_TYPE(self)->tp_base, "add_done_callback");
    PyObject *result = NULL;
    if (method == NULL) {
        return NULL;
    }
    PyObject *with_self[4] = {self};
    const Py_ssize_t all = count + (keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords));
    if (all < (Py_ssize_t)(sizeof with_self / sizeof *with_self)) {
        for (Py_ssize_t i = 0; i < all; i++) {
            with_self[i + 1] = args[i];
        }
        result = PyObject_Vectorcall(method, with_self, (size_t)count + 1, keywords);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(function, *, context=None)");
    }
    Py_DECREF(method);
    return result;
}

static PyObject *
future_remove_done_callback(PyObject *self, PyObject *args)
{
    if (PyTuple_GET_SIZE(args) == 1) {
        const Py_ssize_t removed =
            aio_callbacks_remove(&future_data(self)->callbacks, PyTuple_GET_ITEM(args, 0));
        if (removed != 0) {
            return removed < 0 ? NULL : PyLong_FromSsize_t(removed);
        }
    }
    return call_base(self, "remove_done_callback", args, NULL);
}

/* What asyncio's repr of a future shows. */
static PyObject *
future_get_callbacks(PyObject *self, void *Py_UNUSED(closure))
{
    if (future_data(self)->callbacks.function != NULL) {
        return aio_callbacks_list(&future_data(self)->callbacks);
    }
    PyObject *property = PyObject_GetAttrString((PyObject *)Py_TYPE(self)->tp_base, "_callbacks");
    PyObject *result =
        property == NULL ? NULL : PyObject_CallMethod(property, "__get__", "O", self);
    Py_XDECREF(property);
    return result;
}

static int
future_traverse(PyObject *self, visitproc visit, void *arg)
{
    const int result = aio_callbacks_traverse(&future_data(self)->callbacks, visit, arg);
    return result != 0 ? result : Py_TYPE(self)->tp_base->tp_traverse(self, visit, arg);
}

static int
future_clear(PyObject *self)
{
    aio_callbacks_clear(&future_data(self)->callbacks);
    return Py_TYPE(self)->tp_base->tp_clear(self);
}

static void
future_dealloc(PyObject *self)
{
    FutureData *data = future_data(self);
    if (data->callbacks.function != NULL) { /* nobody has settled it */
        PyObject_GC_UnTrack(self);
        aio_callbacks_clear(&data->callbacks);
        PyObject_GC_Track(self); /* as its base expects it */
    }
    Py_TYPE(self)->tp_base->tp_dealloc(self); /* which gives the type back, too */
}

static PyMethodDef future_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("Cancel the future: a queued call is taken out of the queue, a running one\n"
               "is interrupted. Returns False if it is done already.")},
    {"set_result", future_set_result, METH_VARARGS,
     PyDoc_STR("As asyncio.Future.set_result(): the call's own result will be dropped.")},
    {"set_exception", future_set_exception, METH_VARARGS,
     PyDoc_STR("As asyncio.Future.set_exception(): the call's own result will be dropped.")},
    {"add_done_callback", (PyCFunction)(void (*)(void))future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("As asyncio.Future.add_done_callback().")},
    {"remove_done_callback", future_remove_done_callback, METH_VARARGS,
     PyDoc_STR("As asyncio.Future.remove_done_callback().")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef future_getset[] = {
    {"_callbacks", future_get_callbacks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The asyncio.Future of a call that a Runner has accepted.")},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_dealloc, future_dealloc},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "aiointerpreters._core.TaskFuture",
    .basicsize = -(int)sizeof(FutureData), /* in addition to the base's, whose layout is private */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
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
    Py_XSETREF(state->base_set_result, PyObject_GetAttr(base, state->str_set_result));
    Py_XSETREF(state->base_set_exception, PyObject_GetAttr(base, state->str_set_exception));
    if (state->base_set_result == NULL || state->base_set_exception == NULL) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &future_spec, base);
    Py_XSETREF(state->future_type, (PyTypeObject *)type);
    return type == NULL ? -1 : 0;
}

PyObject *
aio_future_new(AioState *state)
{
    if (state->future_type == NULL && make_future_type(state) < 0) {
        return NULL;
    }
    return PyObject_CallNoArgs((PyObject *)state->future_type); /* of the running loop */
}
