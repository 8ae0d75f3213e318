/* callbacks.h: who is to be told when a future of ours is done.
 *
 * asyncio has a future's callbacks run by its loop: each one costs a Handle, an entry in the
 * list of what is ready, and a turn. Results, however, are delivered by a callback of the loop
 * already (bridge.c), and nothing of asyncio's says which callback of the loop runs them. So
 * there they are run at once, one after the other, each in its context, as a Handle would. Only
 * where a future is settled from somewhere else, by cancel() for example, is the loop asked.
 *
 * Belongs to its future; owner only.
 */
#ifndef AIO_BINDING_CALLBACKS_H
#define AIO_BINDING_CALLBACKS_H

#include <Python.h>

typedef struct AioCallbacks {
    PyObject *function; /* the first, owned; NULL: there is none at all */
    PyObject *context;  /* in which it runs, owned */
    PyObject *more;     /* a list of (function, context), owned; or NULL */
} AioCallbacks;

/* `context`: borrowed; NULL stands for a copy of the present one. 0, or -1 with an exception
 * set. */
int aio_callbacks_add(AioCallbacks *callbacks, PyObject *function, PyObject *context);

/* How many there were that equal `function`; -1 with an exception set. */
Py_ssize_t aio_callbacks_remove(AioCallbacks *callbacks, PyObject *function);

/* A new list of (function, context). */
PyObject *aio_callbacks_list(AioCallbacks *callbacks);

/* Run them all with `future`, and forget them; from a callback of its loop. What they raise is
 * the loop's exception handler's; but for what ends a program: then -1, with that set, and those
 * that come after it are left to the loop. */
int aio_callbacks_run(AioCallbacks *callbacks, PyObject *loop, PyObject *future);

/* Let the loop run them soon, and forget them. 0, or -1 with an exception set. */
int aio_callbacks_schedule(AioCallbacks *callbacks, PyObject *loop, PyObject *future);

int aio_callbacks_traverse(AioCallbacks *callbacks, visitproc visit, void *arg);
void aio_callbacks_clear(AioCallbacks *callbacks);

/* As aio_callbacks_add(), for the arguments of add_done_callback(function, *, context=None).
 * Returns None, or NULL with an exception set. */
PyObject *aio_callbacks_add_arguments(AioCallbacks *callbacks, PyObject *const *args,
                                      Py_ssize_t count, PyObject *keywords);

#endif
