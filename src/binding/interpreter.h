/* interpreter.h: make the interpreter of a worker. */
#ifndef AIO_BINDING_INTERPRETER_H
#define AIO_BINDING_INTERPRETER_H

#include <Python.h>

/* A new interpreter with a GIL of its own, which the calling thread, that has no thread state,
 * gets with `*tstate`; or an error, and no thread state. May wait for others that are made. */
PyStatus aio_interpreter_new(PyThreadState **tstate);

#endif
