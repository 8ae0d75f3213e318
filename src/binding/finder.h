/* finder.h: what a worker's import system asks first. */
#ifndef AIO_BINDING_FINDER_H
#define AIO_BINDING_FINDER_H

#include <Python.h>

#include "state.h"

/* Put our finder in place, and have what is loaded of the modules that it waits for set up. 0, or
 * -1 with an exception set. */
int aio_finder_install(AioState *state);

/* aiointerpreters._core.find_spec(name, path, target) */
PyObject *aio_finder_find_spec(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
