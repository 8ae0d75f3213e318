/* imports.h: a worker's imports are not broken off, and not made by both its threads at first. */
#ifndef AIO_BINDING_IMPORTS_H
#define AIO_BINDING_IMPORTS_H

#include <Python.h>
#include <stdbool.h>

#include "state.h"

struct AioWorker;

/* Take the place of __import__() in a worker's new interpreter, whose GIL is held. 0, or -1 with an
 * exception set. */
int aio_imports_install(PyObject *module);

/* Keep the worker's thread from importing anything, as soon as it does not, until the gate is
 * opened. For another thread of its interpreter, whose GIL is released meanwhile. */
void aio_imports_close_gate(struct AioWorker *worker);
void aio_imports_open_gate(struct AioWorker *worker);

/* Whether what that thread, of the interpreter whose GIL is held, executes is Python code of the
 * import system itself. No lock may be held. Clears its own errors. */
bool aio_imports_is_in_system(unsigned long thread_id);

#endif
