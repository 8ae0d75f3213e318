/* future.h: the future that stands for a call, or for a wait of a loop. */
#ifndef AIO_BINDING_FUTURE_H
#define AIO_BINDING_FUTURE_H

#include <Python.h>

#include "bridge.h"
#include "state.h"

/* A new future on `loop`: an asyncio.Future whose cancel() also cancels the mail that it
 * is bound to: it takes a task out of the queue, or stops it where it runs. */
PyObject *aio_future_new(AioState *state, PyObject *loop);

/* Bind a mail in flight to its future, which aio_future_new() made; and undo that (it
 * need not be bound). Owner only. */
void aio_future_bind(AioMail *mail);
void aio_future_unbind(AioMail *mail);

/* The mail that a future, made by aio_future_new(), is bound to; NULL if it is not. */
AioMail *aio_future_mail(PyObject *future);

/* The future, made by aio_future_new(), is done: what it is still bound to is taken back, or
 * stopped. Owner only. */
void aio_future_give_up(PyObject *future);

#endif
