/* pool.c: a pool's life.
 *
 *     started ──close──► closing: nothing accepted, the queue runs empty ──► ended
 *        │                  ▲  (stop: queued work cancelled, running work
 *        └── a worker's ────┘   interrupted until every thread has gone)
 *            start fails
 *
 * Nothing here touches a Python object: it is entered by callers with their GIL
 * held, and by workers and interrupters without it. What a caller does with a
 * pool is in pool_object.c; how an interpreter waits for its pools in shutdown.c.
 */
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/fork.h"
#include "core/thread.h"
#include "copier.h"
#include "task.h"
#include "worker.h"

/* How long an idle worker spins before it parks. Long enough for a caller's
 * next call in a sequence of awaits, short enough not to matter at all to a
 * program that calls a thousand times a second: 5 % of one processor. */
static const int64_t SPIN_NS = 50 * 1000;

/* While a pool is being stopped, work that swallows the exception is sent
 * another one after this time, which doubles up to the limit. */
static const int64_t FIRST_PAUSE_NS = 10 * 1000 * 1000;
static const int64_t LONGEST_PAUSE_NS = 640 * 1000 * 1000;

/* ---- its memory ---------------------------------------------------------- */

AioPool *
aio_pool_new(const char *name)
{
    AioPool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return NULL;
    }
    atomic_init(&pool->references, 1);
    aio_message_init(&pool->import_path);
    aio_message_init(&pool->setup);
    aio_message_init(&pool->failure);
    snprintf(pool->name, sizeof pool->name, "%s", name);
    /* With the system's mutexes on Linux and macOS none of these can fail. */
    if (aio_taskqueue_init(&pool->queue, SPIN_NS) < 0 ||
        aio_pending_init(&pool->unfinished, 0) < 0 ||
        aio_pending_init(&pool->live_workers, 0) < 0 || aio_pending_init(&pool->threads, 0) < 0 ||
        aio_pending_init(&pool->lingering, 0) < 0 ||
        pthread_mutex_init(&pool->failure_lock, NULL) != 0) {
        free(pool);
        return NULL;
    }
    return pool;
}

AioPool *
aio_pool_acquire(AioPool *pool)
{
    atomic_fetch_add_explicit(&pool->references, 1, memory_order_relaxed);
    return pool;
}

void
aio_pool_release(AioPool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (int i = 0; i < pool->worker_count; i++) {
        aio_worker_destroy(&pool->workers[i]);
    }
    free(pool->workers);
    aio_function_table_free(&pool->functions);
    aio_message_clear(&pool->import_path);
    aio_message_clear(&pool->setup);
    aio_message_clear(&pool->failure);
    pthread_mutex_destroy(&pool->failure_lock);
    aio_pending_destroy(&pool->lingering);
    aio_pending_destroy(&pool->threads);
    aio_pending_destroy(&pool->live_workers);
    aio_pending_destroy(&pool->unfinished);
    aio_taskqueue_destroy(&pool->queue);
    free(pool);
}

/* ---- the queue's end ------------------------------------------------------ */

/* Accept nothing more; the workers end when the queue is empty. */
static void
close_queue(AioPool *pool)
{
    atomic_store_explicit(&pool->closing, true, memory_order_relaxed);
    aio_taskqueue_close(&pool->queue);
}

/* End every queued task with `status`, but those that have run. */
static void
empty_queue(AioPool *pool, AioTaskStatus status)
{
    AioTaskNode *node;
    while ((node = aio_taskqueue_try_pop(&pool->queue)) != NULL) {
        AioTask *task = aio_task_of_queue_node(node);
        if (task->prefetch != NULL) {
            aio_copier_run(task);
        }
        else {
            aio_task_complete(task, status);
        }
    }
}

/* ---- start --------------------------------------------------------------- */

int
aio_pool_prepare(AioPool *pool, int count)
{
    pool->workers = calloc((size_t)count, sizeof *pool->workers);
    if (pool->workers == NULL) {
        return -1;
    }
    /* The count says how many are initialised, which the release relies on. */
    while (pool->worker_count < count) {
        if (aio_worker_init(&pool->workers[pool->worker_count], pool) < 0) {
            return -1;
        }
        pool->worker_count++;
    }
    return 0;
}

int
aio_pool_start(AioPool *pool)
{
    const int count = pool->worker_count;
    int started = 0;

    pool->fork_generation = aio_fork_generation();
    /* All at once, so that the first worker to end is not taken for the last. */
    for (int i = 0; i < count; i++) {
        aio_pending_add(&pool->live_workers);
        aio_pending_add(&pool->threads);
    }
    while (started < count) {
        aio_pool_acquire(pool);
        if (aio_thread_start(aio_worker_main, &pool->workers[started], pool->name) < 0) {
            aio_pool_release(pool);
            break;
        }
        started++;
    }
    if (started < count) {
        close_queue(pool);
    }
    for (int i = started; i < count; i++) {
        aio_pending_done(&pool->live_workers);
        aio_pending_done(&pool->threads);
    }
    return started;
}

bool
aio_pool_is_forked(AioPool *pool)
{
    return pool->fork_generation != aio_fork_generation();
}

void
aio_pool_break(AioPool *pool, AioMessage *failure)
{
    pthread_mutex_lock(&pool->failure_lock);
    if (!atomic_load_explicit(&pool->broken, memory_order_relaxed) && failure->size > 0) {
        aio_message_move(failure, &pool->failure);
        atomic_store_explicit(&pool->broken, true, memory_order_release);
    }
    pthread_mutex_unlock(&pool->failure_lock);
    aio_message_clear(failure);
    close_queue(pool);
    empty_queue(pool, atomic_load_explicit(&pool->broken, memory_order_acquire)
                          ? AIO_TASK_BROKEN
                          : AIO_TASK_CANCELLED);
}

/* ---- interrupting -------------------------------------------------------- */

/* Start a thread in `entry(argument)` that counts as one of the pool's. It holds
 * a reference to the pool and ends with leave_pool_thread(). 0, or -1 where the
 * pool has ended already or no thread can be had. */
static int
start_pool_thread(AioPool *pool, void (*entry)(void *), void *argument, const char *name)
{
    if (!aio_pending_add_unless_zero(&pool->threads)) {
        return -1;
    }
    aio_pool_acquire(pool);
    if (aio_thread_start(entry, argument, name) < 0) {
        aio_pending_done(&pool->threads);
        aio_pool_release(pool);
        return -1;
    }
    return 0;
}

static void
leave_pool_thread(AioPool *pool)
{
    aio_pending_done(&pool->threads);
    aio_pool_release(pool);
}

static void
interrupt(AioWorker *worker, bool only_abandoned)
{
    AioPool *pool = worker->pool;
    aio_worker_interrupt(worker, only_abandoned);
    atomic_store(&worker->has_interrupter, false);
    leave_pool_thread(pool);
}

static void
interrupt_abandoned(void *worker)
{
    interrupt(worker, true);
}

static void
interrupt_any(void *worker)
{
    interrupt(worker, false);
}

/* Interrupt a worker from a thread of its own, because that may have to wait for
 * the worker's GIL. Where no thread can be had, the work runs to its own end. */
static void
start_interrupter(AioWorker *worker, void (*entry)(void *))
{
    if (atomic_exchange(&worker->has_interrupter, true)) {
        return; /* it will look at the worker as it is then */
    }
    if (start_pool_thread(worker->pool, entry, worker, "aio-interrupt") < 0) {
        atomic_store(&worker->has_interrupter, false);
    }
}

void
aio_pool_stop_abandoned(AioPool *pool)
{
    if (!atomic_load_explicit(&pool->closing, memory_order_relaxed)) {
        return;
    }
    for (int i = 0; i < pool->worker_count; i++) {
        if (aio_worker_runs_abandoned(&pool->workers[i])) {
            start_interrupter(&pool->workers[i], interrupt_abandoned);
        }
    }
}

typedef struct ParkedWaiter {
    AioPendingWaiter waiter;
    AioParker parker;
} ParkedWaiter;

static void
unpark_waiter(AioPendingWaiter *waiter)
{
    aio_unpark(&aio_container_of(waiter, ParkedWaiter, waiter)->parker);
}

/* The stopper's thread: interrupt all workers, again and again for those that
 * swallow it or sat in a C function, until the last one has ended. */
static void
stop_workers(void *argument)
{
    AioPool *pool = argument;
    int64_t pause = FIRST_PAUSE_NS;
    /* On our stack: we stay until it has been notified. */
    ParkedWaiter end = {.waiter = {.notify = unpark_waiter}};

    if (aio_parker_init(&end.parker) == 0) {
        bool ended = aio_pending_wait(&pool->live_workers, &end.waiter);
        while (!ended) {
            for (int i = 0; i < pool->worker_count; i++) {
                start_interrupter(&pool->workers[i], interrupt_any);
            }
            ended = aio_park_until(&end.parker, aio_clock_ns() + pause);
            pause = pause < LONGEST_PAUSE_NS ? 2 * pause : pause;
        }
        aio_parker_destroy(&end.parker);
    }
    leave_pool_thread(pool);
}

/* End as soon as can be: running work is interrupted. The queue is closed. */
static void
start_stopping(AioPool *pool)
{
    if (!atomic_exchange(&pool->stopping, true)) {
        (void)start_pool_thread(pool, stop_workers, pool, "aio-stop");
    }
}

/* ---- close --------------------------------------------------------------- */

void
aio_pool_close(AioPool *pool, bool cancel_pending, bool interrupt_running)
{
    /* While cancelled tasks are posted the pool must not end, or their loops would
     * be told so first. Where it has ended, nothing is left to do. */
    if (aio_pool_is_forked(pool) || !aio_pending_add_unless_zero(&pool->threads)) {
        atomic_store_explicit(&pool->closing, true, memory_order_relaxed);
        return;
    }
    close_queue(pool);
    if (cancel_pending) {
        empty_queue(pool, AIO_TASK_CANCELLED);
    }
    if (interrupt_running) {
        start_stopping(pool);
    }
    else {
        aio_pool_stop_abandoned(pool);
    }
    aio_pending_done(&pool->threads);
}

void
aio_pool_evict(AioPool *pool)
{
    atomic_store(&pool->evicting, true);
    for (int i = 0; i < pool->worker_count; i++) {
        aio_taskqueue_nudge(&pool->queue, &pool->workers[i].consumer);
    }
}
