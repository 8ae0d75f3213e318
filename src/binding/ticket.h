/* ticket.h: what binds a CallFuture to its call.
 *
 * A CallFuture (_call_future.py) is a concurrent.futures.Future, whose own state is Python's. It
 * has a ticket, which points to the mail as long as that is in flight, as an asyncio future of
 * ours does itself; and through which it is cancelled, interrupted, and waited for. All of it
 * belongs to the collector's owner (collector.h).
 */
#ifndef AIO_BINDING_TICKET_H
#define AIO_BINDING_TICKET_H

#include <Python.h>
#include <stdbool.h>

#include "bridge.h"
#include "state.h"

extern PyType_Spec aio_ticket_spec;

/* A new CallFuture of that collector (borrowed), bound to nothing yet. Runs Python code. */
PyObject *aio_ticket_new_future(AioState *state, AioBridge *collector);

/* Whether the future is a CallFuture. */
static inline bool
aio_ticket_has(AioState *state, PyObject *future)
{
    return (PyObject *)Py_TYPE(future) == state->helpers[AIO_HELPER_CALL_FUTURE];
}

/* Where a CallFuture's ticket points to the mail. */
AioMail **aio_ticket_mail_slot(AioState *state, PyObject *future);

/* Settle a CallFuture by that helper, with a value (borrowed) or NULL, and run what waits for it.
 * As aio_future_set_result(). */
int aio_ticket_settle(AioState *state, PyObject *future, AioHelper how, PyObject *value);

#endif
