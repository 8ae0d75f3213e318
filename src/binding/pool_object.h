/* pool_object.h: the Python object in front of a pool, and ways to submit to it. */
#ifndef AIO_BINDING_POOL_OBJECT_H
#define AIO_BINDING_POOL_OBJECT_H

#include <Python.h>

#include "bridge.h"
#include "function.h"

struct AioPool;
struct AioTask;

extern PyType_Spec aio_pool_spec;

AioState *aio_pool_object_state(PyObject *object);

/* Borrowed. */
struct AioPool *aio_pool_object_pool(PyObject *object);

/* The collector (borrowed), or if that is NULL the bridge of the running loop; a new reference.
 * NULL with an exception set if there is none, or the pool takes no calls. */
AioBridge *aio_pool_object_bridge(PyObject *object, AioBridge *collector);

/* Raise why the pool takes no calls any more. */
void aio_pool_object_raise_closed(PyObject *object);

/* As aio_function_lookup(), in the pool's table. */
int aio_pool_object_lookup(PyObject *object, PyObject *callable, AioFunction **function,
                           PyObject **to_send, bool *is_coroutine);

/* Send a batch whose outcome `future` (borrowed) gets. Takes the task. 0, or -1 with an exception
 * set. */
int aio_pool_object_send(PyObject *object, AioBridge *bridge, struct AioTask *task,
                         PyObject *future);

/* Whether `collector`, any object, is a collector of the pool's, or a closed one. */
bool aio_pool_object_has_collector(PyObject *object, PyObject *collector);

/* Its module, borrowed. */
PyObject *aio_pool_object_module(PyObject *pool);

/* Submit a call from the running loop; all are borrowed, `kwargs` may be NULL. `coroutine` (call.h)
 * is its future; NULL: a new one is. A new reference to the future, or NULL with an exception
 * set. */
PyObject *aio_pool_object_submit(PyObject *pool, PyObject *callable, PyObject *args,
                                 PyObject *kwargs, PyObject *coroutine);

#endif
