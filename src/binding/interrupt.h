/* interrupt.h: how running Python code is stopped.
 *
 *     asked for ──► exception sent ──► the code ends, `finally` and all
 *         │              │
 *         │              └── grace period over: the worker is *stuck*: replaced, and it ends
 *         │                  when it comes back; another exception is sent, again and again
 *         └── the task ended meanwhile: nothing is sent
 */
#ifndef AIO_BINDING_INTERRUPT_H
#define AIO_BINDING_INTERRUPT_H

#include "worker.h"

/* Interrupt what the worker runs, if that is to be interrupted, and watch over its end.
 * Returns at once. Any thread, no lock of the pool's held. */
void aio_interrupt(AioWorker *worker);

/* As aio_interrupt(), under the timers' lock. */
void aio_interrupt_from_timer(AioWorker *worker);

/* Only watch over the end of what is told to stop by other means. */
void aio_interrupt_watch(AioWorker *worker);

/* The next of the pauses between one exception and another, after the one in `*pause_ns` (0 at
 * first), which it replaces. */
int64_t aio_interrupt_next_pause(int64_t *pause_ns);

/* aiointerpreters._core.unraisable_hook(unraisable), a worker's sys.unraisablehook. */
PyObject *aio_interrupt_unraisable(PyObject *module, PyObject *unraisable);

/* Put it in place. 0, or -1 with an exception set. */
int aio_interrupt_install_hook(PyObject *module);

/* The fire of AioWorker.grace. */
int64_t aio_interrupt_grace_is_over(AioTimer *grace);

#endif
