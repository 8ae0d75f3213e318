/* future.c: the future that stands for a call, or for a wait of a loop.
 *
 * It is a subclass of asyncio's own, made when the first runner needs it. It carries a
 * plain pointer to its mail, which is good exactly as long as that is in the bridge's
 * flight list: whoever takes the mail off that list resets the pointer. The mail, for its
 * part, holds a reference to the future.
 */
#include "future.h"

typedef struct FutureData {
    AioMail *mail; /* borrowed, NULL once nothing can be cancelled any more */
} FutureData;

/* The type has no subclasses, so it is the object's own. */
static FutureData *
future_data(PyObject *future)
{
    return PyObject_GetTypeData(future, Py_TYPE(future));
}

void
aio_future_bind(AioMail *mail)
{
    mail->owner_slot = &future_data(mail->owner_future)->mail;
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

void
aio_future_give_up(PyObject *future)
{
    AioMail *mail = future_data(future)->mail;
    if (mail != NULL) {
        aio_future_unbind(mail);
        aio_mail_cancelled(mail);
    }
}

/* What an asyncio.Future's cancel() has raised is set: it does so where its loop is closed and
 * somebody is to be called back, but has cancelled the future by then. */
static void
give_up_if_cancelled(PyObject *self)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *cancelled = PyObject_CallMethod(self, "cancelled", NULL);
    if (cancelled == Py_True) {
        aio_future_give_up(self);
    }
    Py_XDECREF(cancelled);
    PyErr_SetRaisedException(exception);
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
        aio_future_give_up(self);
    }
    else if (result == NULL) {
        give_up_if_cancelled(self);
    }
done:
    Py_XDECREF(base_args);
    Py_XDECREF(base_cancel);
    return result;
}

static PyMethodDef future_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("Cancel the future: a queued call is taken out of the queue, a running one\n"
               "is interrupted. Returns False if it is done already.")},
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
aio_future_new(AioState *state, PyObject *loop)
{
    if (state->future_type == NULL && make_future_type(state) < 0) {
        return NULL;
    }
    return PyObject_Vectorcall((PyObject *)state->future_type, &loop, 0, state->loop_keyword);
}
