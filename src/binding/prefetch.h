/* prefetch.h: copy what is large in a message before it is decoded, in another thread.
 *
 * The receiver of a large str or bytes makes the one copy of it. On an event loop's
 * thread that would take the loop's time, so there it is done in three steps:
 *   1. the loop's thread makes the objects, without contents;
 *   2. any thread, which needs no GIL for that, copies the lent memory into them;
 *   3. the loop's thread decodes the message, and finds them ready.
 * Between the steps nobody else sees the objects.
 */
#ifndef AIO_BINDING_PREFETCH_H
#define AIO_BINDING_PREFETCH_H

#include <Python.h>

#include "message.h"
#include "state.h"

typedef struct AioPrefetch AioPrefetch;

/* How much there is to copy in `message`, in bytes. */
size_t aio_prefetch_size(const AioMessage *message);

/* Step 1. Borrows the message until it is freed; NULL with an exception set. */
AioPrefetch *aio_prefetch_new(AioState *state, const AioMessage *message);

/* Step 2: any thread, no GIL. */
void aio_prefetch_copy(AioPrefetch *prefetch);

/* In step 3: a new reference to the object that is the copy of what the message holds
 * in that place, or NULL (without an exception) if that was not copied. */
PyObject *aio_prefetch_take(AioPrefetch *prefetch, size_t place);

/* Any thread: the objects go back to their interpreter. */
void aio_prefetch_free(AioPrefetch *prefetch);

#endif
