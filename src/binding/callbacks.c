/* callbacks.c: run what was to be called when a future of ours is done. */
#include "callbacks.h"

/* `context`: taken. */
static int
add(AioCallbacks *callbacks, PyObject *function, PyObject *context)
{
    if (callbacks->function == NULL) {
        callbacks->function = Py_NewRef(function);
        callbacks->context = context;
        return 0;
    }
    PyObject *pair = PyTuple_Pack(2, function, context);
    int result = -1;
    Py_DECREF(context);
    if (pair != NULL && (callbacks->more != NULL || (callbacks->more = PyList_New(0)) != NULL)) {
        result = PyList_Append(callbacks->more, pair);
    }
    Py_XDECREF(pair);
    return result;
}

int
aio_callbacks_add(AioCallbacks *callbacks, PyObject *function, PyObject *context)
{
    context = context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
    return context == NULL ? -1 : add(callbacks, function, context);
}

PyObject *
aio_callbacks_add_arguments(AioCallbacks *callbacks, PyObject *const *args, Py_ssize_t count,
                            PyObject *keywords)
{
    const Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    if (count != 1 || named > 1 ||
        (named == 1 && !PyUnicode_EqualToUTF8(PyTuple_GET_ITEM(keywords, 0), "context"))) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback(function, *, context=None)");
        return NULL;
    }
    PyObject *context = named == 1 && args[1] != Py_None ? args[1] : NULL;
    if (aio_callbacks_add(callbacks, args[0], context) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
aio_callbacks_list(AioCallbacks *callbacks)
{
    PyObject *list = PyList_New(0), *first = NULL;
    if (list == NULL || callbacks->function == NULL) {
        return list;
    }
    first = PyTuple_Pack(2, callbacks->function, callbacks->context);
    if (first == NULL || PyList_Append(list, first) < 0 ||
        (callbacks->more != NULL && PyList_SetSlice(list, 1, 1, callbacks->more) < 0)) {
        Py_CLEAR(list);
    }
    Py_XDECREF(first);
    return list;
}

Py_ssize_t
aio_callbacks_remove(AioCallbacks *callbacks, PyObject *function)
{
    AioCallbacks kept = {NULL};
    Py_ssize_t removed = -1;
    /* Comparing can run Python code, so a list is gone through that nobody else has. */
    PyObject *list = aio_callbacks_list(callbacks);
    if (list == NULL) {
        return -1;
    }
    const Py_ssize_t count = PyList_GET_SIZE(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GET_ITEM(list, i);
        const int equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), function, Py_EQ);
        if (equal < 0 || (!equal && aio_callbacks_add(&kept, PyTuple_GET_ITEM(pair, 0),
                                                      PyTuple_GET_ITEM(pair, 1)) < 0)) {
            goto done;
        }
    }
    removed =
        count - (kept.function != NULL) - (kept.more == NULL ? 0 : PyList_GET_SIZE(kept.more));
    AioCallbacks old = *callbacks;
    *callbacks = kept;
    kept = old;
done:
    aio_callbacks_clear(&kept);
    Py_DECREF(list);
    return removed;
}

/* Tell the loop's exception handler what a callback has raised, as asyncio.Handle does. */
static void
report(PyObject *loop, PyObject *function, PyObject *future)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *context = NULL, *result = NULL;
    PyObject *message = PyUnicode_FromFormat("Exception in callback %R", function);
    if (message != NULL) {
        context = Py_BuildValue("{s:O,s:O,s:O}", "message", message, "exception", exception,
                                "future", future);
    }
    if (context != NULL) {
        result = PyObject_CallMethod(loop, "call_exception_handler", "O", context);
    }
    if (result == NULL) {
        PyErr_WriteUnraisable(function);
    }
    Py_XDECREF(result);
    Py_XDECREF(context);
    Py_XDECREF(message);
    Py_DECREF(exception);
}

/* 0; or -1 with an exception set that ends the program. */
static int
run_one(PyObject *loop, PyObject *future, PyObject *function, PyObject *context)
{
    PyObject *result = NULL;
    if (PyContext_Enter(context) == 0) {
        result = PyObject_CallOneArg(function, future);
        /* Leaving it must not find an exception set. */
        PyObject *exception = PyErr_GetRaisedException();
        if (PyContext_Exit(context) < 0) {
            Py_CLEAR(result);
            Py_CLEAR(exception);
        }
        else {
            PyErr_SetRaisedException(exception);
        }
    }
    if (result == NULL) {
        if (PyErr_ExceptionMatches(PyExc_SystemExit) ||
            PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            return -1;
        }
        report(loop, function, future);
    }
    Py_XDECREF(result);
    return 0;
}

int
aio_callbacks_run(AioCallbacks *callbacks, PyObject *loop, PyObject *future)
{
    AioCallbacks taken = *callbacks;
    int result = 0;

    *callbacks = (AioCallbacks){NULL};
    if (taken.function == NULL) {
        return 0;
    }
    result = run_one(loop, future, taken.function, taken.context);
    const Py_ssize_t more = taken.more == NULL ? 0 : PyList_GET_SIZE(taken.more);
    for (Py_ssize_t i = 0; i < more; i++) {
        PyObject *pair = PyList_GET_ITEM(taken.more, i);
        PyObject *function = PyTuple_GET_ITEM(pair, 0), *context = PyTuple_GET_ITEM(pair, 1);
        if (result == 0) {
            result = run_one(loop, future, function, context);
            continue;
        }
        AioCallbacks left = {NULL};
        PyObject *exception = PyErr_GetRaisedException();
        if (aio_callbacks_add(&left, function, context) < 0 ||
            aio_callbacks_schedule(&left, loop, future) < 0) {
            PyErr_WriteUnraisable(function);
        }
        PyErr_SetRaisedException(exception);
    }
    aio_callbacks_clear(&taken);
    return result;
}

static int
schedule_one(PyObject *loop, PyObject *future, PyObject *function, PyObject *context)
{
    PyObject *call_soon = PyObject_GetAttrString(loop, "call_soon");
    PyObject *args = call_soon == NULL ? NULL : PyTuple_Pack(2, function, future);
    PyObject *kwargs = args == NULL ? NULL : Py_BuildValue("{s:O}", "context", context);
    PyObject *handle = kwargs == NULL ? NULL : PyObject_Call(call_soon, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(call_soon);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

int
aio_callbacks_schedule(AioCallbacks *callbacks, PyObject *loop, PyObject *future)
{
    AioCallbacks taken = *callbacks;
    int result = 0;

    *callbacks = (AioCallbacks){NULL};
    if (taken.function == NULL) {
        return 0;
    }
    result = schedule_one(loop, future, taken.function, taken.context);
    const Py_ssize_t more = taken.more == NULL ? 0 : PyList_GET_SIZE(taken.more);
    for (Py_ssize_t i = 0; result == 0 && i < more; i++) {
        PyObject *pair = PyList_GET_ITEM(taken.more, i);
        result = schedule_one(loop, future, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    }
    aio_callbacks_clear(&taken);
    return result;
}

int
aio_callbacks_traverse(AioCallbacks *callbacks, visitproc visit, void *arg)
{
    Py_VISIT(callbacks->function);
    Py_VISIT(callbacks->context);
    Py_VISIT(callbacks->more);
    return 0;
}

void
aio_callbacks_clear(AioCallbacks *callbacks)
{
    Py_CLEAR(callbacks->function);
    Py_CLEAR(callbacks->context);
    Py_CLEAR(callbacks->more);
}
