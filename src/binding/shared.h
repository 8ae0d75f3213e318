/* shared.h: a value that is sent once and used in many calls: `aiointerpreters.Shared`. */
#ifndef AIO_BINDING_SHARED_H
#define AIO_BINDING_SHARED_H

#include <Python.h>

#include "counted.h"
#include "state.h"

/* aiointerpreters._core.Shared */
extern PyType_Spec aio_shared_spec;

/* A new reference to the shared value behind such an object. */
AioCounted *aio_shared_acquire(PyObject *object);

/* The value itself, decoded at first use in this interpreter; a new reference. NULL with
 * an exception set, also where `counted` is no shared value. */
PyObject *aio_shared_to_python(AioState *state, AioCounted *counted);

/* The interpreter ends: what is kept in it of shared values goes with it. */
void aio_shared_forget_all(AioState *state);

#endif
