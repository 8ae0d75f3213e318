/* async_call.h: a call of an `async def` function in a worker's loop. */
#ifndef AIO_BINDING_ASYNC_CALL_H
#define AIO_BINDING_ASYNC_CALL_H

#include <Python.h>

#include "loop.h"
#include "task.h"

/* aiointerpreters._core.AsyncCall: a coroutine to asyncio, which runs it in a Task. */
typedef struct AioAsyncCall AioAsyncCall;

extern PyType_Spec aio_async_call_spec;

/* On the loop's thread, like all of it. Takes the task; NULL with an exception set, then
 * the caller keeps it. */
PyObject *aio_async_call_new(PyTypeObject *type, AioLoop *loop, AioTask *task);

/* The loop ends, and leaves calls behind: they end as cancelled. */
void aio_async_call_drop_all(AioLoop *loop);

/* Whether the call whose step runs is being cancelled already. With the GIL, any thread. */
bool aio_async_call_is_cancelled(const AioLoop *loop);

/* What was sent to the step that runs has been raised in it. */
void aio_async_call_note_arrival(AioLoop *loop);

#endif
