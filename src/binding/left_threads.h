/* left_threads.h: the Python threads that user code left running, when their worker ends.
 *
 * CPython ends no interpreter before its threads have ended (daemon threads there are none
 * in a worker), and it waits for them without a limit. So a worker that ends looks after
 * them itself first. All of this is called by the worker's own thread, with its GIL held.
 */
#ifndef AIO_BINDING_LEFT_THREADS_H
#define AIO_BINDING_LEFT_THREADS_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "blocked.h"
#include "state.h"

typedef struct AioLeftThreads {
    AioState *state;
    PyObject *object;   /* of _left_threads.LeftThreads, owned; NULL: there are none */
    AioBlocked blocked; /* initialised if `object` is there; woken when they have ended */
    bool ended;
} AioLeftThreads;

/* Look for them. If there are any, executors are told to shut down. `module` is the worker's
 * own, borrowed; `is_in_a_hurry`: what they do is given up. */
void aio_left_threads_find(AioLeftThreads *left, PyObject *module, bool is_in_a_hurry);

/* Wait until all have ended, for so many nanoseconds (negative: without a limit); if
 * `interruptible`, only until what this worker runs is interrupted. Whether they have. */
bool aio_left_threads_await(AioLeftThreads *left, int64_t timeout_ns, bool interruptible);

/* There are some. Raise Interrupted in those that still run. */
void aio_left_threads_interrupt(AioLeftThreads *left);

/* Warn of those that still run; and, but `in_a_hurry`, of those that were interrupted. */
void aio_left_threads_warn(AioLeftThreads *left, bool in_a_hurry);

/* After it nothing is waited for any more. */
void aio_left_threads_clear(AioLeftThreads *left);

/* Python: all have ended; called by the thread that watches them. */
PyObject *aio_left_threads_ended(PyObject *module, PyObject *ignored);

/* Python: raise Interrupted in a thread of this interpreter, by its identifier, at its next
 * bytecode. Returns whether there is such a thread. */
PyObject *aio_left_threads_interrupt_one(PyObject *module, PyObject *identifier);

#endif
