/* coroutines.c: calls of `async def` functions, spread over the workers' event loops.
 *
 * Who gets a call: a loop that idles; else a worker that has no loop yet; else the loop with
 * the fewest calls; none, if all have as many as they may. Then the call waits, and the next
 * place that becomes free is its. While workers are starting, one that is ready first takes
 * no more than its share of what waits, so that all have some of it.
 *
 * From that follows how a pool ends: a call waits only as long as some loop is full or some
 * worker is starting. So a loop that has no call, and whose worker is leaving, leaves none
 * behind.
 *
 * A loop that is held up by a call which can't be stopped keeps the others that it has begun. They
 * are its thread's, which may come back at any moment: so they are not taken from it, but their
 * callers' loops are told (stuck.c), and fail them there. That is posted under the lock, while the
 * task is in the loop's list: so it comes before the task itself, which is posted after it has left
 * the list; and whichever comes first settles the call.
 *
 * Threads are started and tasks posted without the lock. What keeps a loop, which is part of
 * its worker, from being freed meanwhile is that `has_thread` or `has_interrupter` was set
 * under the lock before: the worker waits for both.
 */
#include "coroutines.h"

#include "interrupt.h"
#include "pool.h"
#include "stuck.h"
#include "worker.h"

int
aio_coroutines_init(AioCoroutines *coroutines)
{
    coroutines->concurrency = 1;
    coroutines->closed = false;
    coroutines->waiting_count = 0;
    atomic_init(&coroutines->stopping, false);
    aio_list_init(&coroutines->waiting);
    aio_list_init(&coroutines->loops);
    return pthread_mutex_init(&coroutines->lock, NULL) == 0 ? 0 : -1;
}

void
aio_coroutines_destroy(AioCoroutines *coroutines)
{
    pthread_mutex_destroy(&coroutines->lock);
}

static AioCoroutines *
coroutines_of(AioLoop *loop)
{
    return &loop->pool->coroutines;
}

static AioTask *
task_of_taken_link(AioListNode *link)
{
    return aio_container_of(link, AioTask, taken_link);
}

static AioTask *
task_of_link(AioListNode *link)
{
    return aio_container_of(link, AioTask, loop_link);
}

/* Move all that wait in `from` to `to`, which is initialised here: they are taken, and the
 * canceller lets them be from now on. The lock must be held. */
static void
take_all(AioList *from, AioList *to)
{
    aio_list_move(from, to);
    for (AioListNode *link = to->head.next; link != &to->head; link = link->next) {
        task_of_link(link)->is_taken = true;
    }
}

/* Behind all that come before it: in most cases at the end. The lock must be held. */
static void
insert_waiting(AioCoroutines *coroutines, AioTask *task)
{
    const int64_t priority = task->queue_node.priority;
    AioListNode *before = coroutines->waiting.head.prev;
    while (before != &coroutines->waiting.head &&
           task_of_link(before)->queue_node.priority > priority) {
        before = before->prev;
    }
    aio_list_insert_after(before, &task->loop_link);
    coroutines->waiting_count++;
}

/* ---- dispatch ------------------------------------------------------------ */

/* The lock must be held, as for all that follow and don't say otherwise. */
static void
wake_thread(AioLoop *loop)
{
    if (loop->has_wake) { /* otherwise it has yet to look for the first time */
        aio_wake_signal(&loop->wake);
    }
}

/* Let the worker that waits for its loop's end ask again. */
static void
wake_worker(AioLoop *loop)
{
    if (loop->is_leaving) {
        aio_taskqueue_nudge(&loop->pool->queue, loop->consumer);
    }
}

static bool
takes_calls(const AioLoop *loop)
{
    return loop->is_set_up && !loop->is_retiring && !loop->has_ended;
}

/* Whether `loop` is to be preferred to `best`. */
static bool
is_better(const AioLoop *loop, const AioLoop *best)
{
    if (best == NULL || (loop->count == 0) != (best->count == 0)) {
        return best == NULL || loop->count == 0;
    }
    return loop->count == 0 ? loop->has_thread && !best->has_thread : loop->count < best->count;
}

static AioLoop *
choose_loop(AioCoroutines *coroutines)
{
    AioLoop *best = NULL;
    for (AioListNode *link = coroutines->loops.head.next; link != &coroutines->loops.head;
         link = link->next) {
        AioLoop *loop = aio_container_of(link, AioLoop, link);
        if (takes_calls(loop) && loop->count < coroutines->concurrency && is_better(loop, best)) {
            best = loop;
        }
    }
    return best;
}

/* Give up to `count` of the calls that wait to loops that have places. Those that need a
 * thread for it are put into `to_start`. */
static void
dispatch(AioCoroutines *coroutines, size_t count, AioList *to_start)
{
    AioLoop *loop;
    while (count-- > 0 && !aio_list_is_empty(&coroutines->waiting) &&
           (loop = choose_loop(coroutines)) != NULL) {
        AioTask *task = task_of_link(aio_list_pop_first(&coroutines->waiting));
        coroutines->waiting_count--;
        const bool is_first = aio_list_is_empty(&loop->inbox);
        task->loop = loop;
        loop->count++;
        aio_list_append(&loop->inbox, &task->loop_link);
        if (!loop->has_thread) {
            loop->has_thread = true;
            aio_list_append(to_start, &loop->start_link);
        }
        else if (is_first) {
            wake_thread(loop);
        }
    }
}

/* It is in none of the loop's lists any more: it waits again, before all others. */
static void
wait_again(AioLoop *loop, AioTask *task)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    task->loop = NULL;
    loop->count--;
    aio_list_prepend(&coroutines->waiting, &task->loop_link);
    coroutines->waiting_count++;
}

/* What the loop has not taken waits again. */
static void
give_back(AioLoop *loop)
{
    AioListNode *link;
    while ((link = aio_list_pop_last(&loop->inbox)) != NULL) {
        wait_again(loop, task_of_link(link));
    }
}

/* Take back what it has taken, but not come to; and let the callers of the others know that they
 * wait in vain. Returns how many those are. */
static int
give_up(AioLoop *loop)
{
    AioListNode *link = loop->taken.head.prev;
    int count = 0;
    while (link != &loop->taken.head) {
        AioTask *task = task_of_taken_link(link);
        link = link->prev;
        if (task->reclaim_slot != NULL &&
            !atomic_load_explicit(&task->abandoned, memory_order_relaxed)) {
            *task->reclaim_slot = NULL;
            task->reclaim_slot = NULL;
            task->is_taken = false;
            aio_list_unlink(&task->taken_link);
            wait_again(loop, task);
        }
        else if (!task->is_given_up &&
                 aio_stuck_tell(task, aio_container_of(task->loop, AioWorker, loop))) {
            task->is_given_up = true;
            count++;
        }
    }
    return count;
}

/* The loop's thread is gone, or could not be started. */
static void
forget_thread(AioLoop *loop)
{
    loop->has_thread = false;
    if (loop->has_wake) {
        loop->has_wake = false;
        aio_wake_destroy(&loop->wake);
    }
}

/* Without the lock, after dispatch(). */
static void
start_threads(AioList *to_start)
{
    static const char *const no_thread[2] = {
        "RuntimeError", "the system has no room for a thread or descriptor for an event loop"};
    AioListNode *link;
    while ((link = aio_list_pop_first(to_start)) != NULL) {
        AioLoop *loop = aio_container_of(link, AioLoop, start_link);
        if (aio_loop_start_thread(loop) < 0) {
            aio_coroutines_end_thread(loop, no_thread);
        }
    }
}

/* `count` places have become free, or calls come: dispatch as many, release the lock, and
 * see to the threads. */
static void
dispatch_and_unlock(AioCoroutines *coroutines, size_t count)
{
    AioList to_start;
    aio_list_init(&to_start);
    dispatch(coroutines, count, &to_start);
    pthread_mutex_unlock(&coroutines->lock);
    start_threads(&to_start);
}

/* The loop has one call less. */
static void
free_place(AioLoop *loop, AioTask *task)
{
    task->loop = NULL;
    aio_list_unlink(&task->taken_link);
    loop->count--;
    if (loop->count == 0 && loop->is_leaving) {
        wake_thread(loop); /* unless it gets another call now, it is over */
    }
    else if (loop->count == 0 && loop->pool->idle_ns >= 0) {
        aio_taskqueue_nudge(&loop->pool->queue, loop->consumer); /* perhaps it idles now */
    }
}

/* An interrupter is wanted; true if one is to be started, without the lock. */
static bool
wants_interrupter(AioLoop *loop)
{
    if (!loop->has_thread) {
        return false;
    }
    loop->interrupt_again = true;
    if (loop->has_interrupter) {
        return false;
    }
    loop->has_interrupter = true;
    return true;
}

/* ---- the pool's side ----------------------------------------------------- */

AioPushResult
aio_coroutines_submit(AioTask *task)
{
    AioCoroutines *coroutines = &task->pool->coroutines;
    AioList to_start;

    aio_list_init(&to_start);
    pthread_mutex_lock(&coroutines->lock);
    if (coroutines->closed) {
        pthread_mutex_unlock(&coroutines->lock);
        return AIO_PUSH_CLOSED;
    }
    insert_waiting(coroutines, task);
    dispatch(coroutines, 1, &to_start);
    const bool waits = coroutines->waiting_count > 0;
    pthread_mutex_unlock(&coroutines->lock);
    start_threads(&to_start);
    return waits ? AIO_PUSH_WAITS : AIO_PUSH_COVERED;
}

bool
aio_coroutines_remove(AioTask *task)
{
    AioCoroutines *coroutines = &task->pool->coroutines;
    AioLoop *loop;

    pthread_mutex_lock(&coroutines->lock);
    if (task->is_taken) {
        pthread_mutex_unlock(&coroutines->lock);
        return false;
    }
    loop = task->loop;
    aio_list_unlink(&task->loop_link);
    if (loop != NULL) {
        free_place(loop, task);
    }
    else {
        coroutines->waiting_count--;
    }
    dispatch_and_unlock(coroutines, loop != NULL);
    return true;
}

bool
aio_coroutines_holds(AioTask *task)
{
    AioCoroutines *coroutines = &task->pool->coroutines;
    pthread_mutex_lock(&coroutines->lock);
    const bool is_waiting = !task->is_taken;
    pthread_mutex_unlock(&coroutines->lock);
    return is_waiting;
}

void
aio_coroutines_cancel(AioTask *task)
{
    AioPool *pool = task->pool;
    AioCoroutines *coroutines = &pool->coroutines;
    AioWorker *worker = NULL;
    bool holds_up = false;

    pthread_mutex_lock(&coroutines->lock);
    AioLoop *loop = task->loop;
    if (loop != NULL) { /* it runs, and has not been posted */
        if (!loop->has_abandoned) {
            loop->has_abandoned = true;
            wake_thread(loop);
        }
        holds_up = aio_loop_is_in(loop, task) && wants_interrupter(loop);
        worker = aio_container_of(loop, AioWorker, loop);
        aio_counted_acquire(&worker->counted);
    }
    pthread_mutex_unlock(&coroutines->lock);
    if (holds_up) {
        aio_loop_start_interrupter(loop);
    }
    if (worker != NULL) {
        aio_interrupt_watch(worker);
        aio_worker_release(worker);
    }
}

void
aio_coroutines_close(AioCoroutines *coroutines)
{
    pthread_mutex_lock(&coroutines->lock);
    coroutines->closed = true;
    pthread_mutex_unlock(&coroutines->lock);
}

void
aio_coroutines_empty(AioCoroutines *coroutines, AioList *tasks)
{
    AioListNode *link;

    pthread_mutex_lock(&coroutines->lock);
    take_all(&coroutines->waiting, tasks);
    coroutines->waiting_count = 0;
    for (link = coroutines->loops.head.next; link != &coroutines->loops.head; link = link->next) {
        AioLoop *loop = aio_container_of(link, AioLoop, link);
        AioListNode *first;
        while ((first = aio_list_pop_first(&loop->inbox)) != NULL) {
            free_place(loop, task_of_link(first));
            task_of_link(first)->is_taken = true;
            aio_list_append(tasks, first);
        }
    }
    pthread_mutex_unlock(&coroutines->lock);
}

/* Ask the loop to cancel all its calls, or once more. True as wants_interrupter(). */
static bool
press(AioLoop *loop)
{
    loop->rounds++;
    wake_thread(loop);
    return wants_interrupter(loop);
}

bool
aio_coroutines_press(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool has_thread = loop->has_thread;
    const bool is_to_start = press(loop);
    pthread_mutex_unlock(&coroutines->lock);
    if (is_to_start) {
        aio_loop_start_interrupter(loop);
    }
    return has_thread;
}

void
aio_coroutines_stop(AioCoroutines *coroutines)
{
    AioList to_interrupt;
    AioListNode *link;

    aio_list_init(&to_interrupt);
    pthread_mutex_lock(&coroutines->lock);
    atomic_store_explicit(&coroutines->stopping, true, memory_order_relaxed);
    for (link = coroutines->loops.head.next; link != &coroutines->loops.head; link = link->next) {
        AioLoop *loop = aio_container_of(link, AioLoop, link);
        if (press(loop)) {
            aio_list_append(&to_interrupt, &loop->interrupt_link);
        }
    }
    pthread_mutex_unlock(&coroutines->lock);
    while ((link = aio_list_pop_first(&to_interrupt)) != NULL) {
        aio_loop_start_interrupter(aio_container_of(link, AioLoop, interrupt_link));
    }
}

/* ---- the loop's side ----------------------------------------------------- */

void
aio_coroutines_add_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    aio_list_append(&coroutines->loops, &loop->link);
    pthread_mutex_unlock(&coroutines->lock);
}

static size_t
count_starting(AioCoroutines *coroutines)
{
    size_t count = 0;
    for (AioListNode *link = coroutines->loops.head.next; link != &coroutines->loops.head;
         link = link->next) {
        const AioLoop *loop = aio_container_of(link, AioLoop, link);
        count += !loop->is_set_up && !loop->is_retiring;
    }
    return count;
}

void
aio_coroutines_forget_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    aio_list_unlink(&loop->link);
    pthread_mutex_unlock(&coroutines->lock);
}

void
aio_coroutines_open_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    if (loop->is_set_up) { /* its worker has come back from being stuck */
        loop->is_retiring = false;
    }
    loop->is_set_up = true;
    const size_t others = count_starting(coroutines);
    dispatch_and_unlock(coroutines, (coroutines->waiting_count + others) / (others + 1));
}

bool
aio_coroutines_has_thread(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool has_thread = loop->has_thread;
    pthread_mutex_unlock(&coroutines->lock);
    return has_thread;
}

bool
aio_coroutines_has_calls(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool has_calls = loop->count > 0;
    pthread_mutex_unlock(&coroutines->lock);
    return has_calls;
}

bool
aio_coroutines_retire_idle_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool is_idle = loop->count == 0;
    if (is_idle) {
        loop->is_retiring = true;
    }
    pthread_mutex_unlock(&coroutines->lock);
    return is_idle;
}

long
aio_coroutines_count_waiting(AioCoroutines *coroutines)
{
    pthread_mutex_lock(&coroutines->lock);
    const long count = (long)coroutines->waiting_count;
    pthread_mutex_unlock(&coroutines->lock);
    return count;
}

void
aio_coroutines_retire_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    loop->is_retiring = true;
    pthread_mutex_unlock(&coroutines->lock);
}

void
aio_coroutines_rescue(AioLoop *stuck)
{
    AioCoroutines *coroutines = coroutines_of(stuck);
    AioPool *pool = stuck->pool;
    AioList to_start;
    AioListNode *link;
    int given_up = 0;

    aio_list_init(&to_start);
    pthread_mutex_lock(&coroutines->lock);
    give_back(stuck);
    if (aio_loop_is_held_up(stuck) && !aio_pool_is_stopping(pool)) { /* else all are cancelled */
        given_up = give_up(stuck);
    }
    dispatch(coroutines, SIZE_MAX, &to_start);
    pthread_mutex_unlock(&coroutines->lock);
    while (given_up-- > 0) { /* who drains the pool waits for them no longer */
        aio_pending_done(&pool->unfinished);
    }
    while ((link = aio_list_pop_first(&to_start)) != NULL) {
        AioLoop *loop = aio_container_of(link, AioLoop, start_link);
        if (aio_loop_start_thread(loop) < 0) {
            /* No call can be failed here, under the caller's locks: they wait until something
             * else is dispatched. */
            pthread_mutex_lock(&coroutines->lock);
            forget_thread(loop);
            give_back(loop);
            wake_worker(loop);
            pthread_mutex_unlock(&coroutines->lock);
        }
    }
}

bool
aio_coroutines_leave_loop(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    bool has_left;

    pthread_mutex_lock(&coroutines->lock);
    if (!loop->is_leaving) {
        loop->is_leaving = true;
        wake_thread(loop);
    }
    has_left = !loop->has_thread && !loop->has_interrupter;
    if (has_left) {
        assert(loop->count == 0);
        loop->has_ended = true;
        aio_list_unlink(&loop->link);
    }
    /* If it was starting, its share of what waits is the others' now. */
    dispatch_and_unlock(coroutines, has_left ? SIZE_MAX : 0);
    return has_left;
}

void
aio_coroutines_take(AioLoop *loop, AioLoopNews *news)
{
    AioCoroutines *coroutines = coroutines_of(loop);

    pthread_mutex_lock(&coroutines->lock);
    if (loop->has_wake) {
        aio_wake_clear(&loop->wake);
    }
    take_all(&loop->inbox, &news->calls);
    for (AioListNode *link = news->calls.head.next; link != &news->calls.head; link = link->next) {
        aio_list_append(&loop->taken, &task_of_link(link)->taken_link);
    }
    news->has_abandoned = loop->has_abandoned;
    loop->has_abandoned = false;
    news->rounds = loop->seen = loop->rounds;
    if (loop->is_leaving && loop->count == 0) {
        loop->has_ended = true;
    }
    news->is_over = loop->has_ended;
    pthread_mutex_unlock(&coroutines->lock);
}

void
aio_coroutines_offer(AioTask **slot)
{
    AioTask *task = *slot;
    AioCoroutines *coroutines = &task->pool->coroutines;
    pthread_mutex_lock(&coroutines->lock);
    task->reclaim_slot = slot;
    pthread_mutex_unlock(&coroutines->lock);
}

bool
aio_coroutines_claim(AioLoop *loop, AioTask **slot)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    AioTask *task = *slot;
    if (task != NULL) {
        task->reclaim_slot = NULL;
    }
    pthread_mutex_unlock(&coroutines->lock);
    return task != NULL;
}

void
aio_coroutines_finish(AioLoop *loop, AioTask *task)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    free_place(loop, task);
    dispatch_and_unlock(coroutines, 1);
}

/* The loop has no thread, for which its worker waits yet: what it was given fails. */
static void
fail_inbox(AioLoop *loop, const char *const failure[2])
{
    AioCoroutines *coroutines = coroutines_of(loop);
    AioList tasks;
    AioListNode *link;

    pthread_mutex_lock(&coroutines->lock);
    take_all(&loop->inbox, &tasks);
    for (link = tasks.head.next; link != &tasks.head; link = link->next) {
        free_place(loop, task_of_link(link));
    }
    pthread_mutex_unlock(&coroutines->lock);
    while ((link = aio_list_pop_first(&tasks)) != NULL) {
        AioTask *task = task_of_link(link);
        (void)aio_message_write_failure(&task->message, failure[0], failure[1], "");
        aio_task_complete(task, AIO_TASK_RAISED);
    }
}

void
aio_coroutines_end_thread(AioLoop *loop, const char *const failure[2])
{
    AioCoroutines *coroutines = coroutines_of(loop);
    AioList to_start;

    aio_list_init(&to_start);
    if (failure != NULL) {
        fail_inbox(loop, failure); /* all is posted before the worker, and so the pool, may end */
    }
    pthread_mutex_lock(&coroutines->lock);
    forget_thread(loop);
    give_back(loop);
    dispatch(coroutines, SIZE_MAX, &to_start);
    wake_worker(loop);
    pthread_mutex_unlock(&coroutines->lock);
    /* From here on the loop may be gone. */
    start_threads(&to_start);
}

void
aio_coroutines_interrupt(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool is_to_start = wants_interrupter(loop);
    pthread_mutex_unlock(&coroutines->lock);
    if (is_to_start) {
        aio_loop_start_interrupter(loop);
    }
}

unsigned
aio_coroutines_late(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const unsigned late = loop->rounds - loop->seen;
    loop->interrupt_again = false;
    pthread_mutex_unlock(&coroutines->lock);
    return late;
}

bool
aio_coroutines_end_interrupter(AioLoop *loop)
{
    AioCoroutines *coroutines = coroutines_of(loop);
    pthread_mutex_lock(&coroutines->lock);
    const bool again = loop->interrupt_again && loop->has_thread;
    if (!again) {
        loop->has_interrupter = false;
        loop->interrupt_again = false;
        wake_worker(loop);
    }
    pthread_mutex_unlock(&coroutines->lock);
    return again;
}
