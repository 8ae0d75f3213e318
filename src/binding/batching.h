/* batching.h: how the owner makes batches of calls, and splits them (batch.h). */
#ifndef AIO_BINDING_BATCHING_H
#define AIO_BINDING_BATCHING_H

#include <Python.h>

/* Pool.takes_batches(callable), Pool.submit_batch(...), Pool.split(...): see there. */
PyObject *aio_batching_py_takes_batches(PyObject *pool, PyObject *callable);
PyObject *aio_batching_py_submit(PyObject *pool, PyObject *const *args, Py_ssize_t count);
PyObject *aio_batching_py_split(PyObject *pool, PyObject *const *args, Py_ssize_t count);

#endif
