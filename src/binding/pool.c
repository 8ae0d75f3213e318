/* pool.c: a pool's life.
 *
 *     started ──close──► closing: nothing accepted, the queue runs empty ──► ended
 *        │                  ▲  (stop: queued work cancelled, running work
 *        └── a worker's ────┘   interrupted; who can't be holds up the end no longer
 *            start fails        than the grace period)
 *
 * Nothing here touches a Python object: it is entered by callers with their GIL
 * held, and by workers without it. What a caller does with a pool is in pool_object.c;
 * its workers are in workers.c; how an interpreter waits for its pools in shutdown.c.
 */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/fork.h"
#include "copier.h"
#include "task.h"

/* How long an idle worker spins before it parks. Long enough for a caller's
 * next call in a sequence of awaits, short enough not to matter at all to a
 * program that calls a thousand times a second: 5 % of one processor. */
static const int64_t SPIN_NS = 50 * 1000;

/* ---- its memory ---------------------------------------------------------- */

AioPool *
aio_pool_new(const char *name)
{
    AioPool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return NULL;
    }
    atomic_init(&pool->references, 1);
    aio_message_init(&pool->start);
    aio_message_init(&pool->told);
    aio_message_init(&pool->first_steps);
    aio_message_init(&pool->failure);
    pool->name = strdup(name);
    /* With the system's mutexes on Linux and macOS none of the others can fail. */
    if (pool->name == NULL || aio_taskqueue_init(&pool->queue, SPIN_NS) < 0 ||
        aio_coroutines_init(&pool->coroutines) < 0 || aio_pending_init(&pool->unfinished, 0) < 0 ||
        aio_pending_init(&pool->threads, 0) < 0 || aio_pending_init(&pool->lingering, 0) < 0 ||
        aio_pending_init(&pool->recycling, 0) < 0 || aio_workers_init(&pool->workers) < 0 ||
        pthread_mutex_init(&pool->failure_lock, NULL) != 0) {
        free(pool->name);
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
    aio_function_table_free(&pool->functions);
    aio_message_clear(&pool->start);
    aio_message_clear(&pool->told);
    aio_message_clear(&pool->first_steps);
    aio_message_clear(&pool->failure);
    pthread_mutex_destroy(&pool->failure_lock);
    aio_workers_destroy(&pool->workers);
    aio_pending_destroy(&pool->recycling);
    aio_pending_destroy(&pool->lingering);
    aio_pending_destroy(&pool->threads);
    aio_pending_destroy(&pool->unfinished);
    aio_coroutines_destroy(&pool->coroutines);
    aio_taskqueue_destroy(&pool->queue);
    free(pool->name);
    free(pool);
}

/* ---- the queue's end ------------------------------------------------------ */

/* Accept nothing more; the workers end when the queue is empty. */
static void
close_queue(AioPool *pool)
{
    atomic_store_explicit(&pool->closing, true, memory_order_relaxed);
    aio_coroutines_close(&pool->coroutines);
    aio_taskqueue_close(&pool->queue);
    aio_workers_close(pool);
}

void
aio_pool_take_queued(AioPool *pool, AioList *tasks)
{
    AioTaskNode *node;
    aio_coroutines_empty(&pool->coroutines, tasks);
    while ((node = aio_taskqueue_try_pop(&pool->queue, NULL)) != NULL) {
        aio_list_append(tasks, &aio_task_of_queue_node(node)->loop_link);
    }
}

void
aio_pool_end_queued(AioList *tasks, AioTaskStatus status)
{
    AioListNode *link;
    while ((link = aio_list_pop_first(tasks)) != NULL) {
        AioTask *task = aio_container_of(link, AioTask, loop_link);
        if (task->prefetch != NULL) {
            aio_copier_run(task);
        }
        else {
            aio_task_complete(task, status);
        }
    }
}

void
aio_pool_empty_queue(AioPool *pool, AioTaskStatus status)
{
    AioList tasks;
    aio_pool_take_queued(pool, &tasks);
    aio_pool_end_queued(&tasks, status);
}

/* ---- start --------------------------------------------------------------- */

int
aio_pool_start(AioPool *pool, int least, int most)
{
    pool->fork_generation = aio_fork_generation();
    const int started = aio_workers_start(pool, least, most);
    if (started < least) {
        close_queue(pool);
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
    aio_pool_empty_queue(pool, atomic_load_explicit(&pool->broken, memory_order_acquire)
                                   ? AIO_TASK_BROKEN
                                   : AIO_TASK_CANCELLED);
}

/* ---- close --------------------------------------------------------------- */

/* End as soon as can be: running work is interrupted. The queue is closed. */
static void
stop(AioPool *pool)
{
    int64_t never = 0;
    if (atomic_compare_exchange_strong(&pool->stopping_at_ns, &never, aio_clock_ns())) {
        aio_coroutines_stop(&pool->coroutines);
        aio_workers_interrupt(pool);
    }
}

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
        aio_pool_empty_queue(pool, AIO_TASK_CANCELLED);
    }
    if (interrupt_running) {
        stop(pool);
    }
    aio_workers_hurry(pool);
    aio_pending_done(&pool->threads);
}

void
aio_pool_evict(AioPool *pool)
{
    atomic_store(&pool->evicting, true);
    aio_workers_nudge(pool);
}
