/* fork_child.h: let forked children of a program with subinterpreters live. */
#ifndef AIO_BINDING_FORK_CHILD_H
#define AIO_BINDING_FORK_CHILD_H

#include <Python.h>

/* Install the remedy, once per process. With a GIL held. */
void aio_fork_child_protect(void);

/* Python, for os.register_at_fork(): a fork by CPython begins in this thread, and
 * has ended in the parent. */
PyObject *aio_fork_child_before(PyObject *module, PyObject *ignored);
PyObject *aio_fork_child_after(PyObject *module, PyObject *ignored);

#endif
