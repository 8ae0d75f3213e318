/* failure.c: exceptions, from a worker to the caller.
 *
 * What of an exception crosses, and how it is put together again, is Python's
 * business (_failures.py); a failure is rare enough. Here is only the ladder
 * down for when that fails in turn: from the full account to type and text, to
 * an empty message, so that a caller gets an error whatever happened.
 */
#include "failure.h"

#include "worker.h"

/* The account as plain values in `message`, or -1 with an exception set. */
static int
encode_account(AioState *state, AioMessage *message, PyObject *exception)
{
    PyObject *pack = aio_helper(state, AIO_HELPER_PACK_FAILURE);
    PyObject *account = pack == NULL ? NULL : PyObject_CallOneArg(pack, exception);
    int result = -1;
    if (account != NULL) {
        result = aio_message_encode_value(state, message, account, "exception");
        Py_DECREF(account);
    }
    return result;
}

/* Type and text only, without running any Python code but its __str__; and in the place of a
 * traceback what kept `message` from being the whole account, which is the exception that is set,
 * and is cleared. */
static void
write_text(AioMessage *message, PyObject *exception)
{
    PyObject *reason = PyErr_GetRaisedException();
    PyObject *why = NULL;
    if (reason != NULL) {
        why = PyUnicode_FromFormat("(no traceback: %s: %S)\n", Py_TYPE(reason)->tp_name, reason);
        Py_XSETREF(why, why == NULL ? NULL
                                    : PyUnicode_AsEncodedString(why, "ascii", "backslashreplace"));
        PyErr_Clear();
        Py_DECREF(reason);
    }
    PyObject *name = PyType_GetName(Py_TYPE(exception));
    PyObject *text = PyObject_Str(exception);
    PyObject *ascii =
        text == NULL ? NULL : PyUnicode_AsEncodedString(text, "ascii", "backslashreplace");
    PyErr_Clear();
    const char *name_bytes = name == NULL ? NULL : PyUnicode_AsUTF8(name);
    if (name_bytes == NULL || !PyUnicode_IS_ASCII(name)) {
        name_bytes = "BaseException";
    }
    PyErr_Clear();
    (void)aio_message_write_failure(message, name_bytes,
                                    ascii == NULL ? "" : PyBytes_AS_STRING(ascii),
                                    why == NULL ? "" : PyBytes_AS_STRING(why));
    Py_XDECREF(why);
    Py_XDECREF(ascii);
    Py_XDECREF(text);
    Py_XDECREF(name);
}

void
aio_failure_encode(AioState *state, AioMessage *message)
{
    PyObject *exception = PyErr_GetRaisedException();

    aio_message_clear(message);
    if (exception == NULL) {
        return;
    }
    /* The call has ended, if by this exception: what comes to interrupt it now comes too late. */
    if (state != NULL) {
        (void)aio_worker_hold_off(state, true);
    }
    if (state == NULL || encode_account(state, message, exception) < 0) {
        aio_message_clear(message);
        write_text(message, exception);
        PyErr_Clear();
    }
    if (state != NULL && aio_worker_hold_off(state, false) < 0) {
        PyErr_Clear();
    }
    Py_DECREF(exception);
}

PyObject *
aio_failure_decode(AioState *state, const AioMessage *message, AioHelper rebuild)
{
    PyObject *account = NULL, *exception = NULL;
    PyObject *function = aio_helper(state, rebuild);

    if (function != NULL) {
        account =
            message->size == 0 ? Py_NewRef(Py_None) : aio_message_decode_value(state, message);
    }
    if (account != NULL) {
        exception = PyObject_CallOneArg(function, account);
        Py_DECREF(account);
    }
    if (exception == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        exception = PyErr_GetRaisedException();
    }
    return exception;
}
