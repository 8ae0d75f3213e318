/* refusal.c: why a value cannot cross, and where in it the culprit is.
 *
 * All of this happens while an exception is set, pickle's own mostly, which must
 * survive: so it is put aside around whatever may set another.
 */
#include "refusal.h"

/* Longer paths and reprs are of no use to a reader. */
enum { MAX_PATH = 300, MAX_KEY_REPR = 60, MAX_NOTES = 10 };

void
aio_refusal_clear(AioRefusal *refusal)
{
    Py_CLEAR(refusal->culprit);
    Py_CLEAR(refusal->path);
    refusal->is_cut = false;
}

void
aio_refusal_begin(AioRefusal *refusal, PyObject *value)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    refusal->culprit = PyType_GetName(Py_TYPE(value));
    refusal->path = PyUnicode_FromString("");
    if (refusal->culprit == NULL || refusal->path == NULL) {
        aio_refusal_clear(refusal);
        PyErr_Clear();
    }
    PyErr_SetRaisedException(exception);
}

/* Put `part` (taken; NULL with an exception set is passed over) before the path.
 * No exception is set afterwards. */
static void
prepend(AioRefusal *refusal, PyObject *part)
{
    if (part != NULL && !refusal->is_cut) {
        if (PyUnicode_GET_LENGTH(refusal->path) > MAX_PATH) {
            /* The outer part of a very long path is left out. */
            refusal->is_cut = true;
            Py_SETREF(part, PyUnicode_FromString("..."));
        }
        PyObject *path = part == NULL ? NULL : PyUnicode_Concat(part, refusal->path);
        if (path != NULL) {
            Py_SETREF(refusal->path, path);
        }
    }
    Py_XDECREF(part);
    PyErr_Clear();
}

void
aio_refusal_prepend_index(AioRefusal *refusal, Py_ssize_t index)
{
    if (!aio_refusal_is_set(refusal)) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    prepend(refusal, PyUnicode_FromFormat("[%zd]", index));
    PyErr_SetRaisedException(exception);
}

/* The repr of `key`, or its beginning; "?" if there is none. NULL with an exception
 * set where memory is short. */
static PyObject *
short_repr(AioState *state, PyObject *key)
{
    PyObject *repr, *function;
    if (PyTuple_CheckExact(key) || PyFrozenSet_CheckExact(key)) {
        /* Not more of it than is shown: it may be large, and deep. */
        function = aio_helper(state, AIO_HELPER_SHORT_REPR);
        repr = function == NULL ? NULL : PyObject_CallOneArg(function, key);
    }
    else {
        repr = PyObject_Repr(key);
    }
    if (repr == NULL) {
        PyErr_Clear();
        return PyUnicode_FromString("?");
    }
    if (PyUnicode_GET_LENGTH(repr) > MAX_KEY_REPR) {
        PyObject *start = PyUnicode_Substring(repr, 0, MAX_KEY_REPR);
        Py_SETREF(repr, start == NULL ? NULL : PyUnicode_FromFormat("%U...", start));
        Py_XDECREF(start);
    }
    return repr;
}

void
aio_refusal_prepend_key(AioRefusal *refusal, AioState *state, const char *format, PyObject *key)
{
    if (!aio_refusal_is_set(refusal) || refusal->is_cut) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *repr = short_repr(state, key);
    prepend(refusal, repr == NULL ? NULL : PyUnicode_FromFormat(format, repr));
    Py_XDECREF(repr);
    PyErr_SetRaisedException(exception);
}

/* What pickle noted on its way out (since CPython 3.14): where in an object the part at
 * fault is, innermost first. An empty string where there is nothing. */
static PyObject *
notes_of(PyObject *cause)
{
    PyObject *notes = NULL, *separator = NULL, *joined = NULL, *text = NULL;
    if (PyObject_GetOptionalAttrString(cause, "__notes__", &notes) == 1 && PyList_Check(notes) &&
        PyList_GET_SIZE(notes) > 0 && PyList_GET_SIZE(notes) <= MAX_NOTES) {
        separator = PyUnicode_FromString(", ");
        joined = separator == NULL ? NULL : PyUnicode_Join(separator, notes);
        text = joined == NULL ? NULL : PyUnicode_FromFormat(" (%U)", joined);
    }
    PyErr_Clear();
    Py_XDECREF(joined);
    Py_XDECREF(separator);
    Py_XDECREF(notes);
    return text == NULL ? PyUnicode_FromString("") : text;
}

/* What the error says; NULL with an exception set. */
static PyObject *
describe(AioRefusal *refusal, PyObject *root, PyObject *cause)
{
    PyObject *notes = notes_of(cause);
    PyObject *text =
        notes == NULL ? NULL
                      : PyUnicode_FromFormat("%U%U: %U cannot be sent to another interpreter: %S%U",
                                             root, refusal->path, refusal->culprit, cause, notes);
    Py_XDECREF(notes);
    if (text == NULL) { /* the cause's str() raises */
        PyErr_Clear();
        text = PyUnicode_FromFormat("%U%U: %U cannot be sent to another interpreter", root,
                                    refusal->path, refusal->culprit);
    }
    return text;
}

int
aio_refusal_raise(AioRefusal *refusal, AioState *state, PyObject *root)
{
    if (aio_refusal_is_set(refusal) && root != NULL) {
        PyObject *cause = PyErr_GetRaisedException();
        PyObject *type = aio_helper(state, AIO_HELPER_NOT_SHAREABLE_ERROR);
        PyObject *text = type == NULL ? NULL : describe(refusal, root, cause);
        PyObject *error = text == NULL ? NULL : PyObject_CallOneArg(type, text);
        if (error != NULL) {
            PyException_SetCause(error, Py_NewRef(cause));
            PyException_SetContext(error, Py_NewRef(cause));
            PyErr_SetObject(type, error);
        }
        Py_XDECREF(error);
        Py_XDECREF(text);
        Py_DECREF(cause);
    }
    Py_XDECREF(root);
    aio_refusal_clear(refusal);
    return -1;
}
