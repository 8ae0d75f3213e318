/* copier.h: large results are not copied by the loop's thread.
 *
 *     worker ──► mailbox ──► drain: too large to copy here ──► an idle worker, or a
 *                   ▲                                          thread for this: copies
 *                   └────────────── the task is posted again ◄─────┘
 *
 * Meanwhile the task is in flight as before: it can be cancelled, and its loop closed.
 */
#ifndef AIO_BINDING_COPIER_H
#define AIO_BINDING_COPIER_H

#include <Python.h>
#include <stdbool.h>

#include "bridge.h"
#include "task.h"

/* In a drain: whether the delivery of `task` is put off, because its result is too large
 * to be copied on this thread, or what this drain has copied so far (`*copied`, in bytes)
 * together with it. If so it is in the bridge's `to_copy`. */
bool aio_copier_defers(AioState *state, AioBridge *bridge, AioTask *task, size_t *copied);

/* At the end of a drain: have what is in `to_copy` copied. */
void aio_copier_start(AioBridge *bridge);

/* Whether results of the bridge are being copied, which will be posted to it. */
bool aio_copier_is_busy(AioBridge *bridge);

/* In any thread, for a task whose result waits to be copied: do it, and post the task. */
void aio_copier_run(AioTask *task);

#endif
