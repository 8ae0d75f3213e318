/* function.c: name a function in the caller, find it in a worker, once each.
 *
 * How a callable is named and found is Python's business (_naming.py and
 * _finding.py); here the answers are remembered, so that a call costs one dict
 * look-up on the way in and one array access in the worker.
 */
#include "function.h"

#include <stdlib.h>
#include <string.h>

#include "worker.h"

int
aio_function_table_init(AioFunctionTable *table)
{
    table->functions = NULL;
    table->count = 0;
    table->owner_indices = PyDict_New();
    return table->owner_indices == NULL ? -1 : 0;
}

void
aio_function_table_clear_owned(AioFunctionTable *table)
{
    Py_CLEAR(table->owner_indices);
}

void
aio_function_table_free(AioFunctionTable *table)
{
    for (size_t i = 0; i < table->count; i++) {
        aio_message_clear(&table->functions[i]->name);
        free(table->functions[i]);
    }
    free(table->functions);
}

/* Add a function with that name (a tuple of str). Returns it, or NULL. */
static AioFunction *
add(AioState *state, AioFunctionTable *table, PyObject *name, bool is_coroutine)
{
    AioFunction **functions =
        realloc(table->functions, (table->count + 1) * sizeof *table->functions);
    if (functions == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    table->functions = functions;

    AioFunction *function = malloc(sizeof *function);
    if (function == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_message_init(&function->name);
    if (aio_message_encode_value(state, &function->name, name, "function name") < 0) {
        aio_message_clear(&function->name);
        free(function);
        return NULL;
    }
    function->index = table->count;
    function->is_coroutine = is_coroutine;
    functions[table->count++] = function;
    return function;
}

/* The function remembered for `callable`, or NULL (perhaps with an exception). */
static AioFunction *
remembered(AioFunctionTable *table, PyObject *callable)
{
    PyObject *index;
    AioFunction *function = NULL;
    if (PyDict_GetItemRef(table->owner_indices, callable, &index) == 1) {
        function = table->functions[PyLong_AsSize_t(index)];
        Py_DECREF(index);
    }
    return function;
}

int
aio_function_lookup(AioState *state, AioFunctionTable *table, PyObject *callable,
                    AioFunction **function, PyObject **to_send, bool *is_coroutine)
{
    PyObject *describe, *told = NULL, *name, *index = NULL;
    int is_async, result = -1;

    *to_send = NULL;
    *function = remembered(table, callable);
    if (*function != NULL) {
        *is_coroutine = (*function)->is_coroutine;
        return 0;
    }
    /* An instance that can be called but not hashed is no error. */
    bool hashable = !PyErr_Occurred();
    PyErr_Clear();

    describe = aio_helper(state, AIO_HELPER_DESCRIBE);
    if (describe == NULL || (told = PyObject_CallOneArg(describe, callable)) == NULL ||
        !PyArg_ParseTuple(told, "Op", &name, &is_async)) {
        goto done;
    }
    *is_coroutine = is_async;
    if (!PyTuple_Check(name)) { /* by pickle, or by value */
        *to_send = Py_NewRef(name == Py_None ? callable : name);
        result = 0;
        goto done;
    }
    /* Describing ran Python code, so another thread may have been quicker. */
    if (hashable && (*function = remembered(table, callable)) != NULL) {
        result = 0;
        goto done;
    }
    PyErr_Clear();
    *function = add(state, table, name, is_async);
    if (*function == NULL) {
        goto done;
    }
    if (hashable) {
        index = PyLong_FromSize_t((*function)->index);
        if (index == NULL || PyDict_SetItem(table->owner_indices, callable, index) < 0) {
            goto done;
        }
    }
    result = 0;
done:
    Py_XDECREF(index);
    Py_XDECREF(told);
    return result;
}

/* What is at the top level of an ordinary module, or below a class there, is found here: the
 * first call of a worker then needs no module of ours. The rest is _finding.py's, which does the
 * same for that. A new reference, or NULL with an exception set. */
static PyObject *
find_in_module(AioState *state, PyObject *where, PyObject *name)
{
    PyObject *dot = NULL, *parts = NULL, *found = NULL;

    (void)aio_worker_hold_off(state, true); /* an import is not to be broken off */
    found = PyImport_Import(where);
    if (aio_worker_hold_off(state, false) < 0) {
        Py_CLEAR(found);
    }
    if (found == NULL || (dot = PyUnicode_FromOrdinal('.')) == NULL ||
        (parts = PyUnicode_Split(name, dot, -1)) == NULL) {
        Py_CLEAR(found);
    }
    for (Py_ssize_t i = 0; found != NULL && i < PyList_GET_SIZE(parts); i++) {
        Py_SETREF(found, PyObject_GetAttr(found, PyList_GET_ITEM(parts, i)));
    }
    Py_XDECREF(parts);
    Py_XDECREF(dot);
    return found;
}

/* As _finding.resolve(). */
static PyObject *
find(AioState *state, PyObject *described)
{
    PyObject *kind, *where, *name;
    if (!PyArg_ParseTuple(described, "UUU", &kind, &where, &name)) {
        return NULL;
    }
    if (PyUnicode_EqualToUTF8(kind, "module") && !PyUnicode_EqualToUTF8(where, "__main__") &&
        !PyUnicode_EqualToUTF8(where, "__mp_main__")) {
        return find_in_module(state, where, name);
    }
    PyObject *resolve = aio_helper(state, AIO_HELPER_RESOLVE);
    return resolve == NULL ? NULL : PyObject_CallObject(resolve, described);
}

PyObject *
aio_function_resolve(AioState *state, AioFunctionCache *cache, const AioFunction *function)
{
    if (function->index < cache->size && cache->found[function->index] != NULL) {
        return cache->found[function->index];
    }
    if (function->index >= cache->size) {
        const size_t size = function->index + 16;
        PyObject **found = realloc(cache->found, size * sizeof *found);
        if (found == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memset(found + cache->size, 0, (size - cache->size) * sizeof *found);
        cache->found = found;
        cache->size = size;
    }
    PyObject *name = aio_message_decode_value(state, &function->name);
    if (name == NULL) {
        return NULL;
    }
    cache->found[function->index] = find(state, name);
    Py_DECREF(name);
    return cache->found[function->index];
}

void
aio_function_note_not_begun(AioState *state, const AioFunction *function)
{
    if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *note = aio_helper(state, AIO_HELPER_NOTE_NOT_BEGUN), *name = NULL, *none = NULL;
    if (note != NULL) {
        name = function == NULL ? Py_NewRef(Py_None)
                                : aio_message_decode_value(state, &function->name);
    }
    if (name != NULL) {
        none = PyObject_CallFunctionObjArgs(note, exception, name, NULL);
    }
    if (none == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) { /* an interruption counts */
        Py_SETREF(exception, PyErr_GetRaisedException());
    }
    PyErr_Clear();
    Py_XDECREF(none);
    Py_XDECREF(name);
    PyErr_SetRaisedException(exception);
}

void
aio_function_cache_clear(AioFunctionCache *cache)
{
    for (size_t i = 0; i < cache->size; i++) {
        Py_CLEAR(cache->found[i]);
    }
    free(cache->found);
    cache->found = NULL;
    cache->size = 0;
}
