/* call.h: the coroutine that run() returns. */
#ifndef AIO_BINDING_CALL_H
#define AIO_BINDING_CALL_H

#include <Python.h>

#include "bridge.h"
#include "state.h"

extern PyType_Spec aio_call_spec;

/* A new coroutine that calls `callable` in a worker of `pool`, an aiointerpreters._core.Pool,
 * once it is awaited. All are borrowed; `args` is a tuple, `kwargs` a dict or NULL. */
PyObject *aio_call_new(PyObject *pool, PyObject *callable, PyObject *args, PyObject *kwargs);

/* It is submitted just now, from that loop (borrowed), by its first step. */
void aio_call_begin(PyObject *call, PyObject *loop);

/* Where it keeps the mail that it waits for; NULL in there if there is none. */
AioMail **aio_call_mail_slot(PyObject *call);

/* As aio_future_set_result() and aio_future_set_exception(). */
int aio_call_set_result(PyObject *call, PyObject *result);
int aio_call_set_exception(PyObject *call, PyObject *exception);

#endif
