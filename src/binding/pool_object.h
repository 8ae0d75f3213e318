/* pool_object.h: the Python object in front of a pool. */
#ifndef AIO_BINDING_POOL_OBJECT_H
#define AIO_BINDING_POOL_OBJECT_H

#include <Python.h>

extern PyType_Spec aio_pool_spec;

/* Its module, borrowed. */
PyObject *aio_pool_object_module(PyObject *pool);

/* Submit a call from the running loop; all are borrowed, `kwargs` may be NULL. `coroutine` (call.h)
 * is its future; NULL: a new one is. A new reference to the future, or NULL with an exception
 * set. */
PyObject *aio_pool_object_submit(PyObject *pool, PyObject *callable, PyObject *args,
                                 PyObject *kwargs, PyObject *coroutine);

#endif
