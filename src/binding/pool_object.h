/* pool_object.h: the Python object in front of a pool. */
#ifndef AIO_BINDING_POOL_OBJECT_H
#define AIO_BINDING_POOL_OBJECT_H

#include <Python.h>

extern PyType_Spec aio_pool_spec;

/* Submit a call for a coroutine (call.h), which is its future, from the running loop. All are
 * borrowed. 0, or -1 with an exception set. */
int aio_pool_object_submit(PyObject *pool, PyObject *callable, PyObject *args, PyObject *kwargs,
                           PyObject *call);

#endif
