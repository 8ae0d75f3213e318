/* future.h: the futures that stand for a call, or for a wait of a loop.
 *
 * There are three kinds: an asyncio.Future's subclass, which submit() returns; the coroutine of
 * run() itself (call.h), which is the future for which its task waits; and, where no loop is, a
 * concurrent.futures.Future's subclass (ticket.h). A notice's future (bridge.h) may be any other.
 */
#ifndef AIO_BINDING_FUTURE_H
#define AIO_BINDING_FUTURE_H

#include <Python.h>

#include "bridge.h"
#include "state.h"

/* A new future of the running loop: an asyncio.Future whose cancel() also cancels the mail that it
 * is bound to: it takes a task out of the queue, or stops it where it runs. */
PyObject *aio_future_new(AioState *state);

/* Bind a mail in flight to its future, of one of the three kinds; and undo that (it need not be
 * bound). Owner only. */
void aio_future_bind(AioState *state, AioMail *mail);
void aio_future_unbind(AioMail *mail);

/* The mail that a future, made by aio_future_new(), is bound to; NULL if it is not. */
AioMail *aio_future_mail(PyObject *future);

/* The future, of one of the three kinds, has been settled or is about to be: what it is still bound
 * to is taken back, or stopped. Owner only. */
void aio_future_give_up(AioState *state, PyObject *future);

/* Settle a future of any kind as cancelled: what it was bound to has been taken back, or stopped.
 * Clears its own errors. */
void aio_future_cancel(AioState *state, PyObject *future);

/* Settle a future of any kind, with a result or an exception (both borrowed), from a callback of
 * its loop, and run what waits for that. Does nothing where it has been settled by hand before, as
 * the first result counts. 0; or -1 with an exception set that ends the program, raised by what
 * waited. */
int aio_future_set_result(AioState *state, PyObject *future, PyObject *result);
int aio_future_set_exception(AioState *state, PyObject *future, PyObject *exception);

#endif
