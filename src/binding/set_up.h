/* set_up.h: what makes a fresh interpreter one of the program's workers. */
#ifndef AIO_BINDING_SET_UP_H
#define AIO_BINDING_SET_UP_H

#include <Python.h>
#include <stdbool.h>

#include "pool.h"

/* Make our module, `aiointerpreters._core`, in this interpreter, which has none yet, and give it
 * the program's sys.path and sys.argv. A new reference, or NULL with an exception set. */
PyObject *aio_set_up_module(const AioPool *pool);

/* What the program wants done first in its workers: user code. 0, or -1 with an exception set. */
int aio_set_up_first_steps(AioState *state, const AioPool *pool);

/* Import it with the program's sys.path, once that has failed, with an exception set, for want of a
 * module: user code may have emptied this interpreter's. A new reference, or NULL, and the
 * exception is as it was. */
PyObject *aio_set_up_import_again(const AioPool *pool, const char *name);

/* aiointerpreters._core.told() */
PyObject *aio_set_up_told(PyObject *module, PyObject *ignored);

#endif
