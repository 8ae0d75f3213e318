/* memory.h: the object behind a memoryview that arrived from elsewhere. */
#ifndef AIO_BINDING_MEMORY_H
#define AIO_BINDING_MEMORY_H

#include <Python.h>
#include <stdbool.h>

#include "state.h"

extern PyType_Spec aio_memory_spec;

/* A memoryview over a copy of `length` bytes at `data`, C-contiguous, with the
 * given item format, number of dimensions and shape (all borrowed). */
PyObject *aio_memory_view(AioState *state, const void *data, Py_ssize_t length, const char *format,
                          Py_ssize_t itemsize, int ndim, const Py_ssize_t *shape, bool readonly);

#endif
