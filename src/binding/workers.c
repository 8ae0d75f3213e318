/* workers.c: a pool's workers: how many there are, and which.
 *
 * Entered from everywhere: by callers with their GIL held, by workers without it, and
 * under the timers' lock. Threads are started under the lock, which takes some tens of
 * microseconds, so that the counts are always true.
 *
 * Why no task is left lying. A task that is pushed while nobody serves finds `may_grow` set,
 * because that is written before the last worker is dismissed from the queue; so its
 * submitter comes here, and starts a worker. One that was pushed just before the queue was
 * closed is found by aio_workers_close(). And who retires in another's favour has started
 * that one before.
 *
 * A worker that has been *detached* counts in the pool's `lingering`, no more in its `threads`:
 * the end of the pool does not wait for it, only the end of the interpreter that started the
 * pool.
 */
#include "workers.h"

#include "core/thread.h"
#include "interrupt.h"
#include "pool.h"
#include "stuck.h"
#include "worker.h"

int
aio_workers_init(AioWorkers *workers)
{
    *workers = (AioWorkers){0};
    aio_list_init(&workers->list);
    return pthread_mutex_init(&workers->lock, NULL) == 0 ? 0 : -1;
}

void
aio_workers_destroy(AioWorkers *workers)
{
    pthread_mutex_destroy(&workers->lock);
}

/* ---- with the lock held ---------------------------------------------------- */

#define for_each_worker(worker, workers)                                                           \
    for (AioListNode *link_ = (workers)->list.head.next;                                           \
         link_ != &(workers)->list.head &&                                                         \
         ((worker) = aio_container_of(link_, AioWorker, link), true);                              \
         link_ = link_->next)

/* `change` more serve than did. */
static void
count_serving(AioWorkers *workers, int change)
{
    workers->serving += change;
    atomic_store_explicit(&workers->may_grow, workers->serving < workers->most,
                          memory_order_relaxed);
}

static int
smallest_free_index(AioWorkers *workers)
{
    AioWorker *worker;
    int index = -1;
    bool is_taken;
    do {
        index++;
        is_taken = false;
        for_each_worker(worker, workers)
        {
            is_taken = is_taken || worker->index == index;
        }
    } while (is_taken);
    return index;
}

static int
count_starting(AioWorkers *workers)
{
    AioWorker *worker;
    int count = 0;
    for_each_worker(worker, workers)
    {
        count += worker->is_serving && !worker->is_ready;
    }
    return count;
}

/* Calls that nobody has begun. */
static long
count_waiting(AioPool *pool)
{
    return aio_taskqueue_length(&pool->queue) + aio_coroutines_count_waiting(&pool->coroutines);
}

/* Whether there is, or may be, anything to do for a new worker. */
static bool
may_start(AioPool *pool)
{
    return !aio_pool_is_stopping(pool) && (pool->workers.is_open || count_waiting(pool) > 0);
}

/* The new worker, borrowed from the list; NULL if it could not be started. */
static AioWorker *
start_worker(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    AioWorker *worker = aio_worker_new(pool, smallest_free_index(workers));
    if (worker == NULL) {
        return NULL;
    }
    if (!aio_pending_add_unless_zero(&pool->threads)) { /* the pool has ended */
        aio_worker_release(worker);
        return NULL;
    }
    worker->generation = workers->generation;
    worker->is_serving = true;
    aio_list_append(&workers->list, &worker->link);
    count_serving(workers, +1);
    aio_counted_acquire(&worker->counted); /* the thread's */
    if (aio_thread_start(aio_worker_main, worker, pool->name) < 0) {
        count_serving(workers, -1);
        aio_list_unlink(&worker->link);
        aio_worker_release(worker);
        aio_worker_release(worker);
        aio_pending_done(&pool->threads);
        return NULL;
    }
    workers->started_count++;
    return worker;
}

/* Start another, if there may be more, for a task that all are too busy for. */
static void
start_wanted(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    if (may_start(pool) && workers->serving < workers->most &&
        count_starting(workers) < count_waiting(pool)) {
        (void)start_worker(pool);
    }
}

/* No task for it any more. True if that leaves tasks for which all others are too busy. */
static bool
retire(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;
    if (workers->successor == worker) {
        workers->successor = NULL;
    }
    if (!worker->is_serving) {
        return false;
    }
    worker->is_serving = false;
    count_serving(workers, -1); /* before it can be seen in the queue */
    aio_coroutines_retire_loop(&worker->loop);
    return aio_taskqueue_dismiss(&pool->queue, &worker->consumer);
}

static unsigned long
count_tasks(AioWorker *worker)
{
    return atomic_load_explicit(&worker->task_count, memory_order_relaxed) +
           atomic_load_explicit(&worker->loop.call_count, memory_order_relaxed);
}

/* Whether it runs neither a plain call nor a coroutine. */
static bool
is_idle(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    const bool runs_none = worker->is_ready && worker->current == NULL;
    pthread_mutex_unlock(&worker->running_lock);
    return runs_none && !aio_coroutines_has_calls(&worker->loop);
}

/* How little is lost with a worker: least with one that is not ready. */
static int
rank(AioWorker *worker)
{
    return !worker->is_ready ? 0 : is_idle(worker) ? 1 : 2;
}

/* The worker that serves with which the least is lost; `old`: of an older generation. */
static AioWorker *
choose(AioWorkers *workers, bool old)
{
    AioWorker *worker, *chosen = NULL;
    for_each_worker(worker, workers)
    {
        if (worker->is_serving && (!old || worker->generation != workers->generation) &&
            (chosen == NULL || rank(worker) < rank(chosen))) {
            chosen = worker;
        }
    }
    return chosen;
}

/* How many serve, but for the successor, which will not be one more, but take another's place. */
static int
count_lasting(AioWorkers *workers)
{
    return workers->serving - (workers->successor != NULL);
}

/* Fewer serve than should. */
static bool
is_too_small(AioWorkers *workers)
{
    return count_lasting(workers) < workers->least;
}

/* More serve than need be. */
static bool
is_too_large(AioWorkers *workers)
{
    return count_lasting(workers) > workers->least;
}

static void
retire_surplus(AioWorkers *workers)
{
    while (count_lasting(workers) > workers->most) {
        (void)retire(choose(workers, false)); /* there may be no more than are left */
    }
}

/* Go on recycling, if that is under way. True if it has come to its end, which is to be
 * announced once the lock is free. */
static bool
recycle_next(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    if (!workers->is_recycling || workers->successor != NULL) {
        return false;
    }
    const bool has_old = choose(workers, true) != NULL && may_start(pool);
    if (has_old) {
        workers->successor = start_worker(pool);
    }
    workers->is_recycling = workers->successor != NULL;
    if (!workers->is_recycling) {
        atomic_store(&workers->recycling_has_failed, has_old);
    }
    return !workers->is_recycling;
}

/* ---- size ------------------------------------------------------------------ */

int
aio_workers_start(AioPool *pool, int least, int most)
{
    AioWorkers *workers = &pool->workers;
    int started = 0;

    pthread_mutex_lock(&workers->lock);
    /* The pool's own, so that it does not end before it is closed. */
    aio_pending_add(&pool->threads);
    workers->is_open = true;
    workers->is_elastic = least < most;
    workers->least_wanted = least;
    workers->least = least;
    workers->most = most;
    count_serving(workers, 0);
    while (started < least && start_worker(pool) != NULL) {
        started++;
    }
    pthread_mutex_unlock(&workers->lock);
    return started;
}

bool
aio_workers_grow(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    pthread_mutex_lock(&workers->lock);
    start_wanted(pool);
    const bool is_hopeful = workers->serving > 0 || !workers->is_open;
    pthread_mutex_unlock(&workers->lock);
    return is_hopeful;
}

int
aio_workers_resize(AioPool *pool, int most)
{
    AioWorkers *workers = &pool->workers;
    bool has_failed = false;

    pthread_mutex_lock(&workers->lock);
    workers->most = most;
    workers->least =
        workers->is_elastic && workers->least_wanted < most ? workers->least_wanted : most;
    count_serving(workers, 0);
    while (!has_failed && may_start(pool) &&
           (is_too_small(workers) ||
            (workers->serving < most && count_starting(workers) < count_waiting(pool)))) {
        has_failed = start_worker(pool) == NULL;
    }
    retire_surplus(workers);
    pthread_mutex_unlock(&workers->lock);
    return has_failed ? -1 : 0;
}

void
aio_workers_recycle(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    bool has_ended;

    pthread_mutex_lock(&workers->lock);
    workers->generation++;
    if (!workers->is_recycling) {
        workers->is_recycling = true;
        aio_pending_add(&pool->recycling);
    }
    has_ended = recycle_next(pool);
    pthread_mutex_unlock(&workers->lock);
    if (has_ended) {
        aio_pending_done(&pool->recycling);
    }
}

void
aio_workers_close(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    AioList hopeless;

    aio_list_init(&hopeless);
    pthread_mutex_lock(&workers->lock);
    const bool was_open = workers->is_open;
    const bool was_recycling = workers->is_recycling;
    workers->is_open = false;
    workers->is_recycling = false;
    if (was_recycling) {
        atomic_store(&workers->recycling_has_failed, false);
    }
    /* Nobody serves, and a task came just before the queue was closed. */
    if (was_open && workers->serving == 0 && may_start(pool) && start_worker(pool) == NULL) {
        aio_pool_take_queued(pool, &hopeless);
    }
    pthread_mutex_unlock(&workers->lock);
    aio_pool_end_queued(&hopeless, AIO_TASK_NO_ROOM);
    if (was_recycling) {
        aio_pending_done(&pool->recycling);
    }
    if (was_open) {
        aio_pending_done(&pool->threads);
    }
}

/* ---- a worker's own steps ---------------------------------------------------- */

void
aio_workers_ready(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;
    bool has_ended;

    pthread_mutex_lock(&workers->lock);
    if (workers->successor == worker) {
        workers->successor = NULL;
        AioWorker *old = choose(workers, true);
        if (old != NULL && retire(old)) {
            start_wanted(pool); /* beside this one, which takes one of those tasks */
        }
        retire_surplus(workers);
    }
    worker->is_ready = true;
    has_ended = recycle_next(pool);
    pthread_mutex_unlock(&workers->lock);
    if (has_ended) {
        aio_pending_done(&pool->recycling);
    }
}

AioIdleResult
aio_workers_retire_idle(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;
    AioIdleResult result = AIO_IDLE_STAYS;

    pthread_mutex_lock(&workers->lock);
    if (worker->is_serving && is_too_large(workers)) {
        count_serving(workers, -1); /* before it can be seen in the queue */
        if (!aio_taskqueue_dismiss_idle(&pool->queue, &worker->consumer)) {
            result = AIO_IDLE_WANTED;
        }
        else if (aio_coroutines_retire_idle_loop(&worker->loop)) {
            result = AIO_IDLE_RETIRED;
            worker->is_serving = false;
        }
        else { /* it has coroutines: when they have ended it is nudged */
            aio_taskqueue_readmit(&pool->queue, &worker->consumer);
        }
        if (result != AIO_IDLE_RETIRED) {
            count_serving(workers, +1);
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return result;
}

bool
aio_workers_is_wanted(AioWorker *worker)
{
    AioWorkers *workers = &worker->pool->workers;
    pthread_mutex_lock(&workers->lock);
    const bool is_wanted = worker->is_serving;
    pthread_mutex_unlock(&workers->lock);
    return is_wanted;
}

bool
aio_workers_renew(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;

    pthread_mutex_lock(&workers->lock);
    if (worker->is_serving && may_start(pool) && start_worker(pool) != NULL) {
        (void)retire(worker); /* the successor takes what is left */
    }
    const bool retires = !worker->is_serving;
    pthread_mutex_unlock(&workers->lock);
    return retires;
}

bool
aio_workers_stay(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;

    pthread_mutex_lock(&workers->lock);
    const bool stays = worker->is_stuck && !worker->is_serving && !worker->is_detached &&
                       workers->serving == 0 && aio_taskqueue_length(&pool->queue) > 0 &&
                       !aio_coroutines_has_calls(&worker->loop) && may_start(pool) &&
                       start_worker(pool) == NULL;
    if (stays) {
        worker->is_stuck = false;
        worker->is_serving = true;
        aio_taskqueue_readmit(&pool->queue, &worker->consumer);
        count_serving(workers, +1);
    }
    pthread_mutex_unlock(&workers->lock);
    if (stays) {
        aio_coroutines_open_loop(&worker->loop);
    }
    return stays;
}

void
aio_workers_leave(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;
    AioList hopeless;
    bool has_ended;

    aio_list_init(&hopeless);
    pthread_mutex_lock(&workers->lock);
    (void)retire(worker); /* it was busy: nothing had been left to it */
    has_ended = recycle_next(pool);
    /* Where there was no room to replace those that were stuck, nor is now. */
    if (workers->serving == 0 && count_waiting(pool) > 0 && may_start(pool) &&
        start_worker(pool) == NULL) {
        aio_pool_take_queued(pool, &hopeless);
    }
    pthread_mutex_unlock(&workers->lock);
    if (has_ended) {
        aio_pending_done(&pool->recycling);
    }
    aio_pool_end_queued(&hopeless, AIO_TASK_NO_ROOM);
    aio_workers_hurry(pool);
}

void
aio_workers_detach(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;

    pthread_mutex_lock(&workers->lock);
    const bool was_detached = worker->is_detached;
    if (!was_detached) {
        worker->is_detached = true;
        aio_pending_add(&pool->lingering); /* before: who waits for the others shall find it */
    }
    pthread_mutex_unlock(&workers->lock);
    if (!was_detached) {
        aio_pending_done(&pool->threads);
    }
}

void
aio_workers_ended(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;

    pthread_mutex_lock(&workers->lock);
    aio_list_unlink(&worker->link);
    workers->task_count += count_tasks(worker);
    const bool was_detached = worker->is_detached;
    worker->is_detached = true;
    pthread_mutex_unlock(&workers->lock);
    aio_worker_release(worker); /* the list's */
    if (was_detached) {
        aio_pending_done(&pool->lingering);
    }
    else {
        aio_pending_done(&pool->threads);
    }
}

/* ---- for others -------------------------------------------------------------- */

/* One that is being set up in vain, a new reference; it is regarded as told. */
static AioWorker *
next_unneeded(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    AioWorker *worker, *found = NULL;

    pthread_mutex_lock(&workers->lock);
    if (!workers->is_open && count_waiting(pool) == 0) {
        for_each_worker(worker, workers)
        {
            if (!worker->is_ready && !worker->is_unneeded) {
                worker->is_unneeded = true;
                found = worker;
                aio_counted_acquire(&found->counted);
                break;
            }
        }
        if (found != NULL && retire(found)) { /* should anything wait again, another starts */
            start_wanted(pool);
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return found;
}

static void
hurry(AioPool *pool, void (*interrupt)(AioWorker *))
{
    AioWorker *worker;
    while ((worker = next_unneeded(pool)) != NULL) {
        aio_worker_leave_off_set_up(worker);
        interrupt(worker);
        aio_worker_release(worker);
    }
}

void
aio_workers_hurry(AioPool *pool)
{
    hurry(pool, aio_interrupt);
}

void
aio_workers_replace_stuck(AioWorker *worker, AioStuckNotice *notices[2])
{
    AioPool *pool = worker->pool;
    AioWorkers *workers = &pool->workers;

    pthread_mutex_lock(&workers->lock);
    if (!worker->is_stuck) {
        worker->is_stuck = true;
        workers->stuck_count++;
    }
    (void)retire(worker); /* as it was busy */
    aio_coroutines_rescue(&worker->loop);
    AioStuckSequel sequel = is_too_small(workers) ? AIO_STUCK_NOT_NEEDED : AIO_STUCK_REPLACED;
    if (is_too_small(workers) && may_start(pool)) {
        sequel = start_worker(pool) != NULL ? AIO_STUCK_REPLACED : AIO_STUCK_NO_ROOM;
    }
    else {
        start_wanted(pool);
    }
    /* Where no thread could be started the pool must not end, with what is queued: it is
     * tried again the next time. */
    const bool is_needed = workers->serving == 0 && may_start(pool) && count_waiting(pool) > 0;
    pthread_mutex_unlock(&workers->lock);
    for (int i = 0; i < 2; i++) { /* before the pool may end */
        aio_stuck_post(notices[i], worker, sequel);
    }
    hurry(pool, aio_interrupt_from_timer);
    if (!is_needed) {
        aio_workers_detach(worker);
    }
}

AioWorker *
aio_workers_find(AioPool *pool, const AioTask *task)
{
    AioWorkers *workers = &pool->workers;
    AioWorker *worker, *found = NULL;

    pthread_mutex_lock(&workers->lock);
    for_each_worker(worker, workers)
    {
        if (aio_worker_runs(worker, task)) {
            found = worker;
            aio_counted_acquire(&found->counted);
            break;
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return found;
}

/* One that has not been told to stop, a new reference; it is regarded as told. */
static AioWorker *
next_to_stop(AioWorkers *workers)
{
    AioWorker *worker, *found = NULL;
    pthread_mutex_lock(&workers->lock);
    for_each_worker(worker, workers)
    {
        if (!worker->is_told_to_stop) {
            worker->is_told_to_stop = true;
            found = worker;
            aio_counted_acquire(&found->counted);
            break;
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return found;
}

void
aio_workers_interrupt(AioPool *pool)
{
    AioWorker *worker;
    while ((worker = next_to_stop(&pool->workers)) != NULL) {
        aio_interrupt(worker);
        aio_worker_release(worker);
    }
}

void
aio_workers_nudge(AioPool *pool)
{
    AioWorkers *workers = &pool->workers;
    AioWorker *worker;

    pthread_mutex_lock(&workers->lock);
    for_each_worker(worker, workers)
    {
        aio_taskqueue_nudge(&pool->queue, &worker->consumer);
    }
    pthread_mutex_unlock(&workers->lock);
}

void
aio_workers_count(AioPool *pool, AioWorkersCounts *counts)
{
    AioWorkers *workers = &pool->workers;
    AioWorker *worker;

    *counts = (AioWorkersCounts){0};
    pthread_mutex_lock(&workers->lock);
    counts->started = workers->started_count;
    counts->replaced = workers->stuck_count;
    counts->tasks = workers->task_count;
    for_each_worker(worker, workers)
    {
        counts->tasks += count_tasks(worker);
        if (worker->is_stuck) {
            counts->stuck++;
        }
        else if (!worker->is_serving) {
            counts->retiring++;
        }
        else if (!worker->is_ready) {
            counts->starting++;
        }
        else if (is_idle(worker)) {
            counts->idle++;
        }
        else {
            counts->busy++;
        }
    }
    pthread_mutex_unlock(&workers->lock);
}
