/* worker.c: a worker's life.
 *
 *     thread starts
 *       │  new interpreter, our module, set-up               ── fails ──► pool breaks
 *       │                                        (or is left off, where it is in vain)
 *       ▼
 *     ┌─► wait for a task (GIL released) ── closed and empty ──┐
 *     │     │                                                  │
 *     └── run it, post the outcome                             ▼
 *                                        end threads that user code left, or linger for them
 *                                                              ▼
 *                                              linger while others use its memory
 *                                                              ▼
 *                                              end the interpreter; thread ends
 *
 * Lingering. A memoryview that was a result shows memory of this interpreter, which must
 * stay as long as that is used, even if the runner is closed meanwhile. Such a worker has
 * ended for everybody who waits for that; it sleeps until the last loan has come back,
 * or the program ends. So it does if user code left threads running that do not end, however
 * they are asked to: for those even the program's end waits.
 *
 * The thread belongs to no interpreter but its own: it never has a thread state
 * of, nor waits for the GIL of, the interpreter that submits.
 *
 * Interrupting is done by others (interrupt.c); which moments it may hit is said here,
 * by begin_interruptible() and end_interruptible().
 */
#include "worker.h"

#include <stdlib.h>

#include "blocked.h"
#include "copier.h"
#include "core/clock.h"
#include "core/monitor.h"
#include "expiry.h"
#include "failure.h"
#include "finder.h"
#include "imports.h"
#include "interpreter.h"
#include "interrupt.h"
#include "left_threads.h"
#include "pool.h"
#include "set_up.h"
#include "shared.h"
#include "sleep.h"
#include "workers.h"

static void
destroy(AioCounted *counted)
{
    AioWorker *worker = aio_container_of(counted, AioWorker, counted);
    AioPool *pool = worker->pool;
    aio_loop_destroy(&worker->loop);
    aio_gate_destroy(&worker->import_gate);
    pthread_mutex_destroy(&worker->running_lock);
    pthread_mutex_destroy(&worker->lock);
    aio_consumer_destroy(&worker->consumer);
    free(worker);
    aio_pool_release(pool);
}

AioWorker *
aio_worker_new(AioPool *pool, int index)
{
    AioWorker *worker = calloc(1, sizeof *worker);
    if (worker == NULL || aio_consumer_init(&worker->consumer) < 0) {
        free(worker);
        return NULL;
    }
    /* With the system's mutexes on Linux and macOS these can't fail. */
    if (pthread_mutex_init(&worker->lock, NULL) != 0 ||
        pthread_mutex_init(&worker->running_lock, NULL) != 0 ||
        aio_gate_init(&worker->import_gate) < 0 ||
        aio_loop_init(&worker->loop, pool, &worker->consumer) < 0) {
        aio_consumer_destroy(&worker->consumer);
        free(worker);
        return NULL;
    }
    aio_counted_init(&worker->counted, destroy);
    aio_list_node_init(&worker->link);
    aio_timer_init(&worker->grace, aio_interrupt_grace_is_over);
    worker->pool = aio_pool_acquire(pool);
    worker->index = index;
    worker->tasks_left = pool->tasks_per_worker;
    worker->is_setting_up = true;
    return worker;
}

/* ---- what may be interrupted --------------------------------------------- */

bool
aio_worker_wants_interruption(AioWorker *worker)
{
    AioTask *task = worker->current;
    return (task != NULL && atomic_load_explicit(&task->abandoned, memory_order_relaxed)) ||
           aio_worker_told_to_end_at_ns(worker) != 0;
}

int64_t
aio_worker_told_to_end_at_ns(AioWorker *worker)
{
    return worker->is_setting_up && worker->unneeded_at_ns != 0
               ? worker->unneeded_at_ns
               : aio_pool_stopping_at_ns(worker->pool);
}

void
aio_worker_leave_off_set_up(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    worker->unneeded_at_ns = aio_clock_ns();
    pthread_mutex_unlock(&worker->running_lock);
}

/* Its set-up has ended, in whichever way; true if that was in vain. */
static bool
end_set_up(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    worker->is_setting_up = false;
    const bool is_unneeded = worker->unneeded_at_ns != 0;
    pthread_mutex_unlock(&worker->running_lock);
    return is_unneeded;
}

bool
aio_worker_runs(AioWorker *worker, const AioTask *task)
{
    pthread_mutex_lock(&worker->running_lock);
    const bool runs = worker->current == task;
    pthread_mutex_unlock(&worker->running_lock);
    return runs;
}

/* From here on user code may run, for `task` (NULL: the set-up). False if it must not: who
 * interrupts has come before, and found nothing here. */
static bool
begin_interruptible(AioWorker *worker, AioTask *task)
{
    pthread_mutex_lock(&worker->running_lock);
    worker->current = task;
    const bool may_run = !aio_worker_wants_interruption(worker);
    worker->interruptible = may_run;
    worker->held_off = 0;
    worker->importing = 0;
    pthread_mutex_unlock(&worker->running_lock);
    return may_run;
}

/* No user code runs any more; true if it was interrupted. */
static bool
end_interruptible(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    const bool interrupted = worker->interrupted;
    worker->interruptible = false;
    worker->interrupted = false;
    worker->insist = false;
    worker->pause_ns = 0;
    worker->current = NULL;
    pthread_mutex_unlock(&worker->running_lock);
    if (interrupted) {
        /* Take back an exception that has not been raised yet. */
        PyThreadState_SetAsyncExc(worker->thread_id, NULL);
        aio_blocked_end_work(worker->home, AIO_BLOCKED_TASK);
    }
    return interrupted;
}

static int
hold_off(AioState *state, bool begins, bool is_import)
{
    AioWorker *worker = state->worker;
    const int change = begins ? 1 : -1;
    bool is_due = false;

    if (worker == NULL) {
        return 0;
    }
    if (worker->thread_id != PyThread_get_thread_ident()) {
        aio_loop_hold_off(&worker->loop, change, is_import);
        return 0;
    }
    pthread_mutex_lock(&worker->running_lock);
    *(is_import ? &worker->importing : &worker->held_off) += change;
    if (worker->held_off == 0 && worker->importing == 0 && worker->interruptible &&
        !worker->interrupted && aio_worker_wants_interruption(worker)) {
        worker->interrupted = is_due = true; /* whoever came to send it has gone */
    }
    pthread_mutex_unlock(&worker->running_lock);
    if (is_due) {
        PyErr_SetNone(worker->interrupted_type);
        return -1;
    }
    return 0;
}

int
aio_worker_hold_off(AioState *state, bool begins)
{
    return hold_off(state, begins, false);
}

int
aio_worker_note_import(AioState *state, bool begins)
{
    return hold_off(state, begins, true);
}

PyObject *
aio_worker_py_hold_off(PyObject *module, PyObject *begins)
{
    if (aio_worker_hold_off(aio_state_of_module(module), begins == Py_True) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
aio_worker_describe(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioWorker *worker = aio_state_of_module(module)->worker;
    if (worker == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(isk)", worker->index, worker->pool->name, worker->thread_id);
}

PyObject *
aio_worker_should_stop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioWorker *worker = aio_state_of_module(module)->worker;
    if (worker == NULL) {
        Py_RETURN_FALSE;
    }
    bool should_stop;
    if (!aio_loop_should_stop(&worker->loop, &should_stop)) { /* not its thread */
        pthread_mutex_lock(&worker->running_lock);
        should_stop = aio_worker_wants_interruption(worker);
        pthread_mutex_unlock(&worker->running_lock);
    }
    return PyBool_FromLong(should_stop);
}

/* ---- a task -------------------------------------------------------------- */

/* Call it; with `context`, in a context of its own in which those variables are set. */
static PyObject *
call_in(AioState *state, PyObject *context, PyObject *callable, PyObject *args, PyObject *kwargs)
{
    if (context == NULL) {
        return PyObject_Call(callable, args, kwargs);
    }
    PyObject *helper = aio_helper(state, AIO_HELPER_CALL_IN_CONTEXT);
    return helper == NULL ? NULL
                          : PyObject_CallFunctionObjArgs(helper, context, callable, args,
                                                         kwargs == NULL ? Py_None : kwargs, NULL);
}

void
aio_worker_encode_failure(AioWorker *worker, AioMessage *message)
{
    if (worker->interrupted) { /* too late, and not to be raised in what follows */
        PyThreadState_SetAsyncExc(worker->thread_id, NULL);
    }
    aio_failure_encode(worker->state, message);
}

/* The call's outcome goes into the task's message. */
static AioTaskStatus
call(AioWorker *worker, AioTask *task)
{
    AioState *state = worker->state;
    PyObject *context = NULL, *callable = NULL, *args = NULL, *kwargs = NULL, *result = NULL;
    AioTaskStatus status = AIO_TASK_RAISED;

    if (aio_message_decode_call(state, &task->message, task->has_context ? &context : NULL,
                                task->function == NULL ? &callable : NULL, &args, &kwargs) < 0) {
        aio_function_note_not_begun(state, task->function);
        goto done;
    }
    if (callable == NULL) {
        callable = aio_function_resolve(state, &worker->functions, task->function);
        if (callable == NULL) {
            aio_function_note_not_begun(state, task->function);
            goto done;
        }
        Py_INCREF(callable);
    }
    result = call_in(state, context, callable, args, kwargs);
    if (result == NULL) {
        goto done;
    }
    /* What the caller lent goes back with the task, without a wake-up of its own. */
    aio_message_clear_bytes(&task->message, &task->lent);
    if (aio_message_encode_value(state, &task->message, result, "result") == 0) {
        status = AIO_TASK_RETURNED;
    }
done:
    if (status == AIO_TASK_RAISED) {
        if (task->lent.count == 0) {
            aio_message_clear_bytes(&task->message, &task->lent); /* as above */
        }
        if (worker->interrupted && PyErr_ExceptionMatches(worker->interrupted_type)) {
            PyErr_Clear();
            aio_message_clear(&task->message);
            status = AIO_TASK_CANCELLED;
        }
        else {
            aio_worker_encode_failure(worker, &task->message);
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(callable);
    Py_XDECREF(context);
    return status;
}

static void
run_task(AioWorker *worker, AioTask *task)
{
    if (task->prefetch != NULL) { /* it has run: its result is to be copied */
        PyThreadState *tstate = PyEval_SaveThread();
        aio_copier_run(task);
        PyEval_RestoreThread(tstate);
        return;
    }
    AioTaskStatus status = AIO_TASK_CANCELLED;
    if (begin_interruptible(worker, task)) {
        if (task->expiry != NULL) {
            aio_expiry_start(task->expiry);
        }
        status =
            task->batch != NULL ? (AioTaskStatus)aio_batch_run(worker, task) : call(worker, task);
    }
    end_interruptible(worker);
    if (worker->pool->workers.is_elastic) { /* no other need be started for the caller's next */
        aio_taskqueue_expect(&worker->pool->queue, &worker->consumer);
    }
    const unsigned long count = atomic_load_explicit(&worker->task_count, memory_order_relaxed);
    const unsigned long more = task->batch != NULL ? aio_batch_done(task->batch) : 1;
    atomic_store_explicit(&worker->task_count, count + more, memory_order_relaxed);
    aio_task_complete(task, status);
    /* Not while it ran: its successor would run the next one beside it, and have one, too. */
    if (worker->tasks_left > 0 && (worker->tasks_left > 1 || aio_workers_renew(worker))) {
        worker->tasks_left--;
    }
}

/* As aio_taskqueue_pop(), with the GIL released; for so long (negative: for ever). */
static AioPopResult
wait_for_task(AioWorker *worker, int64_t patience_ns, AioTaskNode **node)
{
    AioPool *pool = worker->pool;
    /* Other threads of this interpreter run while we wait. */
    PyThreadState *tstate = PyEval_SaveThread();
    const int64_t until = patience_ns < 0 ? AIO_NEVER : aio_clock_ns() + patience_ns;
    const AioPopResult result = aio_taskqueue_pop(&pool->queue, &worker->consumer, until, node);
    PyEval_RestoreThread(tstate);
    return result;
}

static void
run_tasks(AioWorker *worker)
{
    AioTaskQueue *queue = &worker->pool->queue;
    int64_t patience_ns = worker->pool->idle_ns;
    for (;;) {
        AioTaskNode *node = aio_taskqueue_try_pop(queue, &worker->consumer);
        if (node == NULL) {
            switch (wait_for_task(worker, patience_ns, &node)) {
            case AIO_POP_TASK:
                break;
            case AIO_POP_NUDGED:
                aio_home_settle(worker->home);
                patience_ns = worker->pool->idle_ns;
                continue;
            case AIO_POP_TIMED_OUT:
                switch (aio_workers_retire_idle(worker)) {
                case AIO_IDLE_RETIRED:
                    return;
                case AIO_IDLE_STAYS:
                    patience_ns = AIO_NEVER;
                    break;
                case AIO_IDLE_WANTED:
                    break;
                }
                continue;
            case AIO_POP_DISMISSED:
                if (aio_workers_stay(worker)) {
                    continue;
                }
                return;
            case AIO_POP_CLOSED:
                return;
            }
        }
        /* What was given back before the task was submitted is let go before it runs. */
        aio_home_settle(worker->home);
        run_task(worker, aio_task_of_queue_node(node));
        patience_ns = worker->pool->idle_ns;
    }
}

static void
ring_worker(AioListener *listener)
{
    AioWorker *worker = aio_container_of(listener, AioWorker, listener);
    aio_taskqueue_nudge(&worker->pool->queue, &worker->consumer);
}

/* Whether others use memory of this interpreter, whose GIL is held. */
static bool
is_in_use(AioHome *home)
{
    aio_home_settle(home);
    return atomic_load_explicit(&home->lent, memory_order_relaxed) > 0;
}

/* Let go of what this interpreter has of others, and of itself. */
static void
release_all(AioState *state)
{
    PyObject *function = aio_helper(state, AIO_HELPER_RELEASE_ALL);
    PyObject *result = function == NULL ? NULL : PyObject_CallNoArgs(function);
    if (result == NULL) {
        PyErr_WriteUnraisable(function);
    }
    Py_XDECREF(result);
}

/* How long threads that user code left running may take to end by themselves; where the pool
 * is being stopped, just long enough for those that wait for work in an executor. */
static const int64_t PATIENCE_NS = 1000 * 1000 * 1000;
static const int64_t PATIENCE_IN_A_HURRY_NS = 50 * 1000 * 1000;

/* End the threads that user code left running: wait for them, interrupt them, wait again.
 * While they may end by themselves, whoever stops the pool can interrupt the wait. The GIL
 * is held. What is left of them is in `left`, to be cleared by the caller. */
static void
end_threads(AioWorker *worker, AioLeftThreads *left)
{
    const bool is_in_a_hurry = aio_pool_is_stopping(worker->pool);
    aio_blocked_end_all(worker->home);
    aio_left_threads_find(left, worker->module, is_in_a_hurry);
    if (left->object == NULL) {
        return;
    }
    (void)begin_interruptible(worker, NULL); /* if it is stopped, that may be in a hurry */
    aio_left_threads_await(left, is_in_a_hurry ? PATIENCE_IN_A_HURRY_NS : PATIENCE_NS, true);
    end_interruptible(worker);
    if (!left->ended) {
        aio_left_threads_interrupt(left);
        aio_left_threads_await(left, worker->pool->grace_ns, false);
        aio_left_threads_warn(left, aio_pool_is_stopping(worker->pool));
    }
}

/* Sleep, with the GIL released, while others use memory of this interpreter; the GIL is
 * held. */
static void
linger(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioHome *home = worker->home;

    if (!is_in_use(home)) {
        return;
    }
    /* Two workers that look at each other's memory must not linger for each other. */
    release_all(worker->state);
    if (!is_in_use(home)) {
        return;
    }
    PyThreadState *tstate = PyEval_SaveThread();
    aio_workers_detach(worker);
    while (!atomic_load(&pool->evicting)) {
        aio_taskqueue_await_nudge(&pool->queue, &worker->consumer);
        PyEval_RestoreThread(tstate);
        const bool in_use = is_in_use(home);
        tstate = PyEval_SaveThread();
        if (!in_use) {
            break;
        }
    }
    PyEval_RestoreThread(tstate);
}

/* ---- the interpreter ----------------------------------------------------- */

/* In the new interpreter: our module, and what set_up.c does with it.
 * 0, or -1 with an exception set. */
static int
set_up(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    PyObject *module = aio_set_up_module(pool);
    if (module == NULL) {
        return -1;
    }
    int result = -1;
    worker->module = module;
    worker->state = aio_state_of_module(module);
    worker->interrupted_type = worker->state->interrupted;
    worker->thread_id = PyThread_get_thread_ident();
    worker->owner_thread = PyThreadState_Get();
    worker->state->worker_thread_id = worker->thread_id;
    worker->state->worker = worker;
    worker->home = worker->state->home;
    aio_counted_acquire(&worker->home->counted);
    worker->listener.ring = ring_worker;
    aio_home_listen(worker->home, &worker->listener);
    if (aio_sleep_install(module) < 0 || aio_imports_install(module) < 0 ||
        aio_interrupt_install_hook(module) < 0) {
        return -1;
    }
    if (!begin_interruptible(worker, NULL)) {
        PyErr_SetNone(worker->interrupted_type);
    }
    else if (aio_finder_install(worker->state) == 0) {
        result = aio_set_up_first_steps(worker->state, pool);
    }
    end_interruptible(worker);
    return result;
}

/* Let interrupters in, or (NULL) wait until the last one is out. No GIL held. */
static void
publish_interpreter(AioWorker *worker, PyInterpreterState *interpreter)
{
    pthread_mutex_lock(&worker->lock);
    worker->interpreter = interpreter;
    pthread_mutex_unlock(&worker->lock);
}

/* The interpreter's last moments: nothing of it is used by others, or they must do
 * without. The GIL is held. */
static void
leave(AioWorker *worker, AioLeftThreads *left)
{
    AioHome *home = worker->home;

    aio_function_cache_clear(&worker->functions);
    if (home == NULL) { /* our module could not be imported */
        return;
    }
    if (left->object != NULL && !left->ended) {
        aio_workers_detach(worker);
        aio_left_threads_await(left, -1, false);
    }
    aio_left_threads_clear(left);
    aio_shared_forget_all(worker->state);
    linger(worker);
    /* What the interpreter's own end gives back is settled when the module goes. */
    aio_home_unlisten(home, &worker->listener);
    Py_CLEAR(worker->module);
}

/* Its set-up has failed, with an exception set, which breaks the pool; or it has been
 * interrupted, because that is being stopped. */
static void
break_pool(AioWorker *worker)
{
    AioMessage failure;
    aio_message_init(&failure);
    if (worker->interrupted_type != NULL && aio_pool_is_stopping(worker->pool) &&
        PyErr_ExceptionMatches(worker->interrupted_type)) {
        PyErr_Clear();
    }
    else {
        aio_failure_encode(worker->state, &failure);
    }
    aio_pool_break(worker->pool, &failure);
}

/* The worker's life inside its interpreter, whose GIL is held. */
static void
live(AioWorker *worker, PyThreadState *tstate)
{
    PyEval_SaveThread();
    publish_interpreter(worker, PyThreadState_GetInterpreter(tstate));
    PyEval_RestoreThread(tstate);

    const bool is_set_up = set_up(worker) == 0;
    const bool is_unneeded = end_set_up(worker);
    if (is_set_up) {
        aio_loop_open(&worker->loop, worker->state);
        aio_workers_ready(worker);
        run_tasks(worker);
    }
    else if (is_unneeded) { /* whatever it has raised: nothing depends on it */
        PyErr_Clear();
    }
    else {
        break_pool(worker);
    }
    aio_loop_leave(&worker->loop);
    AioLeftThreads left = {NULL};
    if (worker->home != NULL) {
        end_threads(worker, &left);
    }

    PyEval_SaveThread();
    aio_workers_leave(worker);
    publish_interpreter(worker, NULL);
    PyEval_RestoreThread(tstate);
    leave(worker, &left);
}

void
aio_worker_main(void *argument)
{
    AioWorker *worker = argument;
    AioPool *pool = aio_pool_acquire(worker->pool);
    PyThreadState *tstate = NULL;

    PyStatus status = PyStatus_Ok();
    if (!aio_workers_is_wanted(worker)) {
        (void)aio_coroutines_leave_loop(&worker->loop); /* its share of what waits is the others' */
        aio_workers_leave(worker);
    }
    else if (PyStatus_Exception(status = aio_interpreter_new(&tstate))) {
        AioMessage failure;
        aio_message_init(&failure);
        (void)aio_message_write_failure(
            &failure, "RuntimeError",
            status.err_msg == NULL ? "the interpreter could not be created" : status.err_msg, "");
        aio_pool_break(pool, &failure);
        aio_workers_leave(worker);
    }
    else {
        live(worker, tstate);
        Py_EndInterpreter(tstate);
        if (worker->home != NULL) {
            aio_home_abandon(worker->home);
            aio_home_release(worker->home);
        }
    }
    aio_monitor_retire(&worker->grace);
    aio_workers_ended(worker);
    aio_worker_release(worker); /* the thread's */
    aio_pool_release(pool);
}
