/* imports.h: a worker's imports are not broken off, and not made by both its threads at a time. */
#ifndef AIO_BINDING_IMPORTS_H
#define AIO_BINDING_IMPORTS_H

#include <Python.h>
#include <stdbool.h>

#include "state.h"

/* Take the place of __import__() in a worker's new interpreter, whose GIL is held. 0, or -1 with an
 * exception set. */
int aio_imports_install(PyObject *module);

/* One of a worker's two threads is about to load modules; wait until the other does not. To be left
 * as often as it was entered. The GIL, which is held, is released meanwhile. */
void aio_imports_enter_gate(AioState *state);
void aio_imports_leave_gate(AioState *state);

/* Whether what that thread, of the interpreter whose GIL is held, executes is Python code of the
 * import system itself. No lock may be held. Clears its own errors. */
bool aio_imports_is_in_system(PyThreadState *thread);

#endif
