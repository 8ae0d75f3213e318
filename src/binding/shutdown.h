/* shutdown.h: how an interpreter waits for its pools to end. */
#ifndef AIO_BINDING_SHUTDOWN_H
#define AIO_BINDING_SHUTDOWN_H

#include <Python.h>

#include "pool.h"
#include "state.h"

/* Remember a pool, which is about to be started, for the exit handler. In the
 * module's critical section. 0, or -1 with an exception set. */
int aio_shutdown_register(AioState *state, AioPool *pool);

/* Block until no thread of the pool is left, without the GIL. A signal's handler
 * runs in between, as it does in time.sleep(); if it raises (Ctrl-C), the wait
 * ends. 0, or -1 with an exception set. */
int aio_shutdown_wait(AioState *state, AioPool *pool);

/* Python: stop this interpreter's pools, let those that were closed finish, and
 * wait until all have ended. A first Ctrl-C stops these as well, a second one
 * raises KeyboardInterrupt. */
PyObject *aio_shutdown_all(PyObject *module, PyObject *ignored);

/* Forget all pools, when the module is freed. */
void aio_shutdown_forget(AioState *state);

#endif
