/* stuck.h: what the callers' loops are told of a worker that is stuck.
 *
 *     the timers' thread                         the loop's thread
 *     a call could not be stopped  ──notice──►   a log record says so
 *     coroutines hang with it      ──notice──►   each of them fails, if it has not ended
 */
#ifndef AIO_BINDING_STUCK_H
#define AIO_BINDING_STUCK_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "bridge.h"
#include "task.h"

struct AioWorker;

typedef struct AioStuckNotice AioStuckNotice;

/* Whether another one serves in the worker's place. As _stuck.py has it. */
typedef enum AioStuckSequel {
    AIO_STUCK_REPLACED,
    AIO_STUCK_NO_ROOM,    /* it could not be started */
    AIO_STUCK_NOT_NEEDED, /* the pool is closed, or elastic, and has nothing to do for it */
} AioStuckSequel;

/* The call of `task` has not ended so long after it was told to: a notice of that, to be posted.
 * NULL where memory is short. What keeps the task from being posted is held. */
AioStuckNotice *aio_stuck_notice_new(AioTask *task, int64_t waited_ns);

/* Takes the notice, which may be NULL. */
void aio_stuck_post(AioStuckNotice *notice, const struct AioWorker *worker, AioStuckSequel sequel);

/* Tell the caller's loop that `task` hangs with its worker: a coroutine, because of another one; or
 * a call that was stopped, and whoever stopped it may wait for its end. What keeps it from being
 * posted is held. False where memory is short. */
bool aio_stuck_tell(AioTask *task, const struct AioWorker *worker);

/* The mail has come: as aio_task_deliver(); or found its loop gone. */
int aio_stuck_deliver(AioState *state, AioBridge *bridge, AioMail *mail);
void aio_stuck_free_mail(AioMail *mail);

#endif
