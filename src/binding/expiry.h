/* expiry.h: the time limits of one call.
 *
 *     submit ──► armed for the deadline, or for ever ──► moved forward when the work begins
 *                     │                                           and has a time-out
 *                     ├── time is up: mail to the loop, which fails the future, and lets the
 *                     │   call be taken back or interrupted as if it had been cancelled
 *                     └── the call's future is settled, or let go: disarmed
 *
 * Whoever settles the future does so on the loop's thread, and whichever comes first, counts.
 */
#ifndef AIO_BINDING_EXPIRY_H
#define AIO_BINDING_EXPIRY_H

#include <Python.h>

#include "bridge.h"
#include "core/timers.h"

typedef struct AioExpiry AioExpiry;

/* For a call whose future (borrowed) is adopted by the bridge: limits in nanoseconds,
 * negative for none. The deadline counts from now. NULL with an exception set: RunnerError if
 * nobody could enforce them. */
AioExpiry *aio_expiry_new(AioState *state, AioBridge *bridge, PyObject *future, int64_t timeout_ns,
                          int64_t deadline_ns);

/* The work begins. Its worker's thread. */
void aio_expiry_start(AioExpiry *expiry);

/* The call is settled, or nobody waits for it any more. Idempotent. The owner; or any thread,
 * where the future has been let go already. Not in a forked child. */
void aio_expiry_disarm(AioExpiry *expiry);

/* The call is freed: disarm it, if need be, and drop the call's reference. As disarm. */
void aio_expiry_release(AioExpiry *expiry);

/* The mail has come (aio_bridge drains it): as aio_task_deliver(); or found its loop gone. */
int aio_expiry_deliver(AioState *state, AioMail *mail);
void aio_expiry_free_mail(AioMail *mail);

#endif
