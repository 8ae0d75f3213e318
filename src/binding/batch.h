/* batch.h: several calls of one function that travel as one task.
 *
 *     items ──encoded one by one──► task ──► worker: decode, call, encode, item by item
 *                                              │
 *     list of results ◄──── outcome ◄──────────┘
 *
 * `Runner.map` sends short calls like that, since for those the way there and back costs much
 * more than the work. The task is one to the queue, to whoever interrupts it and to its
 * future. Each item is called exactly as a call of its own would be. After an item that fails
 * no other is run.
 *
 * An item may turn out to be slow. So that the results before it need not wait, nor the items
 * after it for this worker, the owner can *split* a batch that runs: it takes the results that
 * there are, and takes back the items that have not been begun, to send them anew.
 */
#ifndef AIO_BINDING_BATCH_H
#define AIO_BINDING_BATCH_H

#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "message.h"

struct AioPool;
struct AioTask;
struct AioWorker;

typedef struct AioBatch {
    struct AioPool *pool; /* borrowed from the task */
    /* Held for some instructions, by the worker and by the owner, with their GILs. Comes
     * after a worker's `running_lock`. */
    pthread_mutex_t lock;
    /* guarded by `lock`, once it has been sent: */
    size_t count;       /* items that it stands for: fewer, once it was split */
    size_t begun;       /* of them; 0: nobody has begun it */
    bool is_counted;    /* in the pool's `batched` */
    bool is_closed;     /* it is at its end, or given up: it can't be split any more */
    size_t ready;       /* results in `results` */
    AioMessage results; /* a prefix and the value of each */
    int64_t since_ns;   /* when the worker began what it has not told of, by aio_clock_ns() */
    /* The worker's; from the posting on the owner's: */
    AioMessage scratch; /* the result at hand */
    AioMessage failure; /* of the item after the last result, if `raised` */
    bool raised;
    bool interrupted; /* the item after the last result was, or not begun for that */
    int64_t spent_ns; /* since `since_ns` */
    /* Where each item ends in the task's message. Constant once it has been sent. */
    size_t ends[];
} AioBatch;

/* An empty batch with room for that many items; NULL with an exception set. */
AioBatch *aio_batch_new(struct AioPool *pool, size_t room);

/* As aio_message_clear(). */
void aio_batch_free(AioBatch *batch);

/* It is being sent: from now on it is counted as queued. */
void aio_batch_count(AioBatch *batch);

/* It can't be split from now on. How many items it stands for. Any thread. */
long aio_batch_close(AioBatch *batch);

/* In a worker: run it, up to its end or a failure. An AioTaskStatus. */
int aio_batch_run(struct AioWorker *worker, struct AioTask *task);

/* How many items were begun; for the worker that ran it. */
unsigned long aio_batch_done(AioBatch *batch);

/* The outcome, for the owner: a tuple (values: list, error: BaseException | None,
 * nanoseconds spent, rest, whether results are large). A new reference; NULL with an exception set.
 */
PyObject *aio_batch_outcome(AioState *state, struct AioTask *task);

/* The same for `count` results in `message`, where the calls of `rest` (borrowed) come next:
 * pairs of a future and how many items it stands for. `ended`: whose they are, at its end; or
 * NULL. */
PyObject *aio_batch_decode(AioState *state, const AioMessage *message, size_t count,
                           int64_t spent_ns, PyObject *rest, struct AioTask *ended);

#endif
