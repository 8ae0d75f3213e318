/* interrupt.c: how running Python code is stopped.
 *
 * The public way is PyThreadState_SetAsyncExc(), which finds a thread only among those of
 * the interpreter it is called in. So a helper thread enters the worker's interpreter
 * with a thread state of its own, which waits for the worker to give up its GIL, up to the
 * switch interval, and sends the exception from there. Whether there still is something to
 * interrupt is looked up then, with the GIL held: so the exception cannot be meant for one
 * task and sent to the next. After each task the worker takes back an exception that was
 * sent and did not arrive in time.
 *
 * An exception is sent once, so that `finally` blocks can do their work, for which they
 * have the grace period. Whoever is not done then has swallowed it, or sits in a C
 * function: it gets another one, after pauses that double. Where it was raised in a __del__
 * or the like, from which nothing is raised, it is sent again at once.
 */
#include "interrupt.h"

#include "blocked.h"
#include "core/clock.h"
#include "core/monitor.h"
#include "core/thread.h"
#include "imports.h"
#include "pool.h"
#include "stuck.h"
#include "workers.h"

static const int64_t FIRST_PAUSE_NS = 100 * 1000 * 1000;
static const int64_t LONGEST_PAUSE_NS = 3200 * 1000 * 1000LL;

/* With a thread state of the worker's interpreter, whose GIL is held. */
static void
send_exception(AioWorker *worker)
{
    bool may_break_import = false;
    pthread_mutex_lock(&worker->running_lock);
    if (worker->importing > 0 && worker->insist) {
        pthread_mutex_unlock(&worker->running_lock);
        may_break_import = !aio_imports_is_in_system(worker->owner_thread);
        pthread_mutex_lock(&worker->running_lock);
    }
    if (worker->interruptible && worker->held_off == 0 &&
        (worker->importing == 0 || (worker->insist && may_break_import)) &&
        (!worker->interrupted || worker->insist) && aio_worker_wants_interruption(worker)) {
        worker->interrupted = true;
        worker->insist = false;
        PyThreadState_SetAsyncExc(worker->thread_id, worker->interrupted_type);
        aio_blocked_interrupt_work(worker->home, AIO_BLOCKED_TASK);
    }
    pthread_mutex_unlock(&worker->running_lock);
}

/* Waits for the worker's GIL: for the switch interval, or as long as a C function keeps it. */
static void
enter_and_send(AioWorker *worker)
{
    pthread_mutex_lock(&worker->lock);
    if (worker->interpreter != NULL) {
        PyThreadState *tstate = PyThreadState_New(worker->interpreter);
        if (tstate != NULL) {
            PyEval_RestoreThread(tstate);
            send_exception(worker);
            PyThreadState_Clear(tstate);
            PyThreadState_DeleteCurrent();
        }
    }
    pthread_mutex_unlock(&worker->lock);
}

/* The interrupter's thread. */
static void
interrupter_main(void *argument)
{
    AioWorker *worker = argument;
    AioPool *pool = aio_pool_acquire(worker->pool);
    long seen = atomic_load(&worker->interruptions);
    while (seen > 0) {
        if (atomic_exchange(&worker->is_unwatched, false)) {
            aio_interrupt_watch(worker);
        }
        enter_and_send(worker);
        /* What was asked for since then may concern another task. */
        seen = atomic_fetch_sub(&worker->interruptions, seen) - seen;
    }
    aio_worker_release(worker);
    aio_pending_done(&pool->lingering);
    aio_pool_release(pool);
}

/* Send the exception from a thread of its own, because that may have to wait for the
 * worker's GIL. Where no thread can be had, the grace timer tries again. */
static void
start_interrupter(AioWorker *worker)
{
    if (atomic_fetch_add(&worker->interruptions, 1) > 0) {
        return; /* the one that is at work will look again */
    }
    /* Nobody but the end of the program waits for it. */
    aio_pending_add(&worker->pool->lingering);
    aio_counted_acquire(&worker->counted);
    if (aio_thread_start(interrupter_main, worker, "aio-interrupt") < 0) {
        atomic_store(&worker->interruptions, 0);
        aio_pending_done(&worker->pool->lingering);
        aio_worker_release(worker);
    }
}

/* ---- what gets lost ---- */

/* An exception that was sent has been raised where nobody can catch it, in a __del__ or a
 * callback of a weak reference, and so got lost: send it once more, to whatever comes next.
 * False if it is none of those. The hook is C, with no bytecode of its own to be hit. */
static bool
send_lost(AioWorker *worker, PyObject *type)
{
    const unsigned long thread_id = PyThread_get_thread_ident();
    bool is_ours = false;

    if (thread_id == worker->thread_id) {
        pthread_mutex_lock(&worker->running_lock);
        is_ours = worker->interruptible && worker->interrupted && type == worker->interrupted_type;
        pthread_mutex_unlock(&worker->running_lock);
    }
    else {
        is_ours = aio_loop_has_sent(&worker->loop, type);
    }
    if (is_ours) {
        PyThreadState_SetAsyncExc(thread_id, type);
    }
    return is_ours;
}

PyObject *
aio_interrupt_unraisable(PyObject *module, PyObject *unraisable)
{
    AioWorker *worker = aio_state_of_module(module)->worker;
    PyObject *type = PyObject_GetAttrString(unraisable, "exc_type");
    PyObject *hook, *none;

    if (type == NULL) {
        return NULL;
    }
    const bool is_ours = worker != NULL && send_lost(worker, type);
    Py_DECREF(type);
    if (is_ours) {
        Py_RETURN_NONE;
    }
    hook = PySys_GetObject("__unraisablehook__"); /* borrowed */
    if (hook == NULL) {
        Py_RETURN_NONE;
    }
    Py_INCREF(hook);
    none = PyObject_CallOneArg(hook, unraisable);
    Py_DECREF(hook);
    return none;
}

int
aio_interrupt_install_hook(PyObject *module)
{
    PyObject *hook = PyObject_GetAttrString(module, "unraisable_hook");
    const int result = hook == NULL ? -1 : PySys_SetObject("unraisablehook", hook);
    Py_XDECREF(hook);
    return result;
}

/* ---- asking for it ---- */

void
aio_interrupt_watch(AioWorker *worker)
{
    /* Where it can't be, nobody watches over the end. */
    (void)aio_monitor_set_earlier(&worker->grace, aio_clock_ns() + worker->pool->grace_ns);
}

void
aio_interrupt(AioWorker *worker)
{
    aio_interrupt_watch(worker);
    start_interrupter(worker);
}

void
aio_interrupt_from_timer(AioWorker *worker)
{
    atomic_store(&worker->is_unwatched, true);
    start_interrupter(worker);
}

/* Whether a plain call, or the set-up, has used up its grace. If so it is to be interrupted
 * once more. `*again`: when to look next; negative: not. `*notice`: as aio_loop_is_stuck(). */
static bool
is_task_stuck(AioWorker *worker, int64_t now, int64_t *again, AioStuckNotice **notice)
{
    AioPool *pool = worker->pool;
    AioTask *task;
    bool is_stuck = false;
    long given_up = 0;

    *again = AIO_NEVER;
    pthread_mutex_lock(&worker->running_lock);
    if (worker->interruptible && aio_worker_wants_interruption(worker)) {
        task = worker->current;
        const bool is_abandoned =
            task != NULL && atomic_load_explicit(&task->abandoned, memory_order_acquire);
        const int64_t told_at =
            is_abandoned ? task->abandoned_at_ns : aio_worker_told_to_end_at_ns(worker);
        is_stuck = now >= told_at + pool->grace_ns;
        *again =
            is_stuck ? now + aio_interrupt_next_pause(&worker->pause_ns) : told_at + pool->grace_ns;
        worker->insist = is_stuck;
        if (is_stuck && is_abandoned && !task->is_given_up) {
            task->is_given_up = true;
            *notice = aio_stuck_notice_new(task, now - told_at);
            (void)aio_stuck_tell(task, worker);
            given_up = aio_task_weight(task);
        }
    }
    pthread_mutex_unlock(&worker->running_lock);
    if (given_up > 0) { /* who drains the pool waits for it no longer */
        aio_pending_done_many(&pool->unfinished, given_up);
    }
    return is_stuck;
}

int64_t
aio_interrupt_next_pause(int64_t *pause_ns)
{
    const int64_t longer = 2 * *pause_ns;
    *pause_ns = longer < FIRST_PAUSE_NS     ? FIRST_PAUSE_NS
                : longer > LONGEST_PAUSE_NS ? LONGEST_PAUSE_NS
                                            : longer;
    return *pause_ns;
}

int64_t
aio_interrupt_grace_is_over(AioTimer *grace)
{
    AioWorker *worker = aio_container_of(grace, AioWorker, grace);
    const int64_t now = aio_clock_ns();
    int64_t task_again, loop_again;
    AioStuckNotice *notices[2] = {NULL, NULL};
    const bool is_stuck = is_task_stuck(worker, now, &task_again, &notices[0]);
    const bool is_loop_stuck = aio_loop_is_stuck(&worker->loop, now, &loop_again, &notices[1]);

    if (is_stuck || is_loop_stuck) {
        aio_workers_replace_stuck(worker, notices);
    }
    if (is_stuck) {
        start_interrupter(worker);
    }
    if (is_loop_stuck) {
        aio_loop_insist(&worker->loop);
    }
    return task_again < 0 || (loop_again >= 0 && loop_again < task_again) ? loop_again : task_again;
}
