/* queue.h: a first-in-first-out queue between interpreters: `aiointerpreters.Queue`. */
#ifndef AIO_BINDING_QUEUE_H
#define AIO_BINDING_QUEUE_H

#include <Python.h>
#include <stdbool.h>

#include "bridge.h"
#include "counted.h"
#include "state.h"

/* aiointerpreters._core.Queue and what a value is in that waits to be put. */
extern PyType_Spec aio_queue_spec;
extern PyType_Spec aio_queue_item_spec;

/* Whether `object` is an aiointerpreters.Queue, or its base in C, exactly. */
bool aio_queue_is_one(AioState *state, PyObject *object);

/* A new reference to the queue behind such an object. */
AioCounted *aio_queue_acquire(PyObject *object);

/* An aiointerpreters.Queue for the queue in the current interpreter, or, if it is to be plain,
 * its base; NULL with an exception set, also where `counted` is no queue. */
PyObject *aio_queue_to_python(AioState *state, AioCounted *counted, bool plain);

/* A loop's wait for a queue, as a mail of the loop's bridge. */
typedef struct AioQueueWait AioQueueWait;

/* The wait has come to its loop, and its future has been settled or let go. Without a
 * future, somebody else is told instead. Frees it; needs no GIL. */
void aio_queue_wait_end(AioMail *mail, bool delivered);

/* Nobody waits any more, the future has been let go: take the wait back, or leave it to
 * come. Owner only. */
void aio_queue_wait_abandon(AioMail *mail);

#endif
