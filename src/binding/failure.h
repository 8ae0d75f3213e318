/* failure.h: exceptions, from a worker to the caller. */
#ifndef AIO_BINDING_FAILURE_H
#define AIO_BINDING_FAILURE_H

#include "message.h"

/* Replace what `message` holds by the exception that is set, which is cleared.
 * Always leaves a message that can be decoded, at worst an empty one; no
 * exception is set afterwards. `state` may be NULL (then only the type's name
 * and the text are told). */
void aio_failure_encode(AioState *state, AioMessage *message);

/* The exception of a failure's message, a new reference; for a message that
 * cannot be made into one, what went wrong instead. NULL only where not even
 * that works, with an exception set. */
PyObject *aio_failure_decode(AioState *state, const AioMessage *message, AioHelper rebuild);

#endif
