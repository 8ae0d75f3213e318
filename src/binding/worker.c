/* worker.c: a worker's life.
 *
 *     thread starts
 *       │  new interpreter, sys.path, our module, set-up     ── fails ──► pool breaks
 *       ▼
 *     ┌─► wait for a task (GIL released) ── closed and empty ──┐
 *     │     │                                                  │
 *     └── run it, post the outcome                             ▼
 *                                              linger while others use its memory
 *                                                              ▼
 *                                              end the interpreter; thread ends
 *
 * Lingering. A memoryview that was a result shows memory of this interpreter, which must
 * stay as long as that is used, even if the runner is closed meanwhile. Such a worker has
 * ended for everybody who waits for that; it sleeps until the last loan has come back,
 * or the program ends.
 *
 * The thread belongs to no interpreter but its own: it never has a thread state
 * of, nor waits for the GIL of, the interpreter that submits.
 *
 * Interrupting. A pool that is stopped must also stop `while True: pass`. The
 * public way is PyThreadState_SetAsyncExc(), which finds a thread only among
 * those of the interpreter it is called in. So a helper thread enters the
 * worker's interpreter with a thread state of its own, which waits for the
 * worker to give up its GIL, and sends the exception from there. Whether there
 * is still something to interrupt is looked up then, with the GIL held: so the
 * exception cannot be meant for one task and sent to the next. After each task
 * the worker takes back an exception that was sent and did not arrive in time.
 */
#include "worker.h"

#include "blocked.h"
#include "copier.h"
#include "core/thread.h"
#include "failure.h"
#include "pool.h"
#include "shared.h"

int
aio_worker_init(AioWorker *worker, AioPool *pool)
{
    *worker = (AioWorker){.pool = pool};
    if (aio_consumer_init(&worker->consumer) < 0) {
        return -1;
    }
    if (pthread_mutex_init(&worker->lock, NULL) != 0) {
        aio_consumer_destroy(&worker->consumer);
        return -1;
    }
    if (pthread_mutex_init(&worker->running_lock, NULL) != 0) {
        pthread_mutex_destroy(&worker->lock);
        aio_consumer_destroy(&worker->consumer);
        return -1;
    }
    return 0;
}

void
aio_worker_destroy(AioWorker *worker)
{
    pthread_mutex_destroy(&worker->running_lock);
    pthread_mutex_destroy(&worker->lock);
    aio_consumer_destroy(&worker->consumer);
}

/* ---- what may be interrupted --------------------------------------------- */

/* From here on user code may run, for `task` (NULL: the set-up). */
static void
begin_interruptible(AioWorker *worker, AioTask *task)
{
    pthread_mutex_lock(&worker->running_lock);
    worker->current = task;
    worker->interruptible = true;
    pthread_mutex_unlock(&worker->running_lock);
}

/* No user code runs any more; true if it was interrupted. */
static bool
end_interruptible(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    const bool interrupted = worker->interrupted;
    worker->interruptible = false;
    worker->interrupted = false;
    worker->current = NULL;
    pthread_mutex_unlock(&worker->running_lock);
    if (interrupted) {
        /* Take back an exception that has not been raised yet. */
        PyThreadState_SetAsyncExc(worker->thread_id, NULL);
        aio_blocked_end_task(worker->home);
    }
    return interrupted;
}

/* `running_lock` must be held. */
static bool
current_is_abandoned(AioWorker *worker)
{
    return worker->current != NULL &&
           atomic_load_explicit(&worker->current->abandoned, memory_order_relaxed);
}

bool
aio_worker_runs_abandoned(AioWorker *worker)
{
    pthread_mutex_lock(&worker->running_lock);
    const bool abandoned = current_is_abandoned(worker);
    pthread_mutex_unlock(&worker->running_lock);
    return abandoned;
}

void
aio_worker_interrupt(AioWorker *worker, bool only_abandoned)
{
    pthread_mutex_lock(&worker->lock);
    if (worker->interpreter != NULL) {
        PyThreadState *tstate = PyThreadState_New(worker->interpreter);
        if (tstate != NULL) {
            PyEval_RestoreThread(tstate);
            pthread_mutex_lock(&worker->running_lock);
            if (worker->interruptible && (!only_abandoned || current_is_abandoned(worker))) {
                worker->interrupted = true;
                PyThreadState_SetAsyncExc(worker->thread_id, worker->interrupted_type);
                aio_blocked_interrupt_task(worker->home);
            }
            pthread_mutex_unlock(&worker->running_lock);
            PyThreadState_Clear(tstate);
            PyThreadState_DeleteCurrent();
        }
    }
    pthread_mutex_unlock(&worker->lock);
}

/* ---- a task -------------------------------------------------------------- */

/* The call's outcome goes into the task's message. */
static AioTaskStatus
call(AioWorker *worker, AioTask *task)
{
    AioState *state = worker->state;
    PyObject *callable = NULL, *args = NULL, *kwargs = NULL, *result = NULL;
    AioTaskStatus status = AIO_TASK_RAISED;

    if (aio_message_decode_call(state, &task->message, task->function == NULL, &callable, &args,
                                &kwargs) < 0) {
        goto done;
    }
    if (callable == NULL) {
        callable = aio_function_resolve(state, &worker->functions, task->function);
        if (callable == NULL) {
            goto done;
        }
        Py_INCREF(callable);
    }
    result = PyObject_Call(callable, args, kwargs);
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
        if (PyErr_ExceptionMatches(worker->interrupted_type)) {
            PyErr_Clear();
            aio_message_clear(&task->message);
            status = AIO_TASK_CANCELLED;
        }
        else {
            aio_failure_encode(state, &task->message);
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(callable);
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
    begin_interruptible(worker, task);
    AioTaskStatus status = call(worker, task);
    end_interruptible(worker);
    aio_task_complete(task, status);
}

static void
run_tasks(AioWorker *worker)
{
    AioTaskQueue *queue = &worker->pool->queue;
    for (;;) {
        AioTaskNode *node = aio_taskqueue_try_pop(queue);
        if (node == NULL) {
            /* Other threads of this interpreter run while we wait. */
            PyThreadState *tstate = PyEval_SaveThread();
            const AioPopResult result = aio_taskqueue_pop(queue, &worker->consumer, &node);
            PyEval_RestoreThread(tstate);
            if (result == AIO_POP_CLOSED) {
                return;
            }
            if (result == AIO_POP_NUDGED) {
                aio_home_settle(worker->home);
                continue;
            }
        }
        /* What was given back before the task was submitted is let go before it runs. */
        aio_home_settle(worker->home);
        run_task(worker, aio_task_of_queue_node(node));
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

/* Sleep, with the GIL released, while others use memory of this interpreter; the GIL is
 * held. Returns whether it had to. */
static bool
linger(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    AioHome *home = worker->home;

    if (!is_in_use(home)) {
        return false;
    }
    /* Two workers that look at each other's memory must not linger for each other. */
    release_all(worker->state);
    if (!is_in_use(home)) {
        return false;
    }
    /* Before the others, so that who waits for those finds it. */
    aio_pending_add(&pool->lingering);
    PyThreadState *tstate = PyEval_SaveThread();
    aio_pending_done(&pool->live_workers);
    aio_pending_done(&pool->threads);
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
    return true;
}

/* ---- the interpreter ----------------------------------------------------- */

/* In the new interpreter: the import path, our module, and what _worker.py does.
 * 0, or -1 with an exception set. */
static int
set_up(AioWorker *worker)
{
    AioPool *pool = worker->pool;
    PyObject *path = NULL, *module = NULL, *function, *setup = NULL, *none = NULL;
    int result = -1;

    /* Before any import: where our package lies may be known to the caller alone. */
    path = aio_message_decode_value(NULL, &pool->import_path);
    if (path == NULL || PySys_SetObject("path", path) < 0) {
        goto done;
    }
    module = PyImport_ImportModule("aiointerpreters._core");
    if (module == NULL) {
        goto done;
    }
    worker->state = aio_state_of_module(module);
    worker->interrupted_type = worker->state->interrupted;
    worker->thread_id = PyThread_get_thread_ident();
    worker->state->worker_thread_id = worker->thread_id;
    worker->home = worker->state->home;
    aio_counted_acquire(&worker->home->counted);
    worker->listener.ring = ring_worker;
    aio_home_listen(worker->home, &worker->listener);
    function = aio_helper(worker->state, AIO_HELPER_SET_UP_WORKER);
    if (function == NULL) {
        goto done;
    }
    begin_interruptible(worker, NULL);
    setup = aio_message_decode_value(worker->state, &pool->setup);
    if (setup != NULL) {
        none = PyObject_CallObject(function, setup);
    }
    end_interruptible(worker);
    result = none == NULL ? -1 : 0;
done:
    Py_XDECREF(none);
    Py_XDECREF(setup);
    Py_XDECREF(module);
    Py_XDECREF(path);
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
 * without. The GIL is held. Returns whether it lingered. */
static bool
leave(AioWorker *worker)
{
    AioHome *home = worker->home;

    aio_function_cache_clear(&worker->functions);
    if (home == NULL) { /* our module could not be imported */
        return false;
    }
    aio_blocked_end_all(home);
    aio_shared_forget_all(worker->state);
    const bool has_lingered = linger(worker);
    /* What the interpreter's own end gives back is settled when the module goes. */
    aio_home_unlisten(home, &worker->listener);
    return has_lingered;
}

/* The worker's life inside its interpreter, whose GIL is held. Returns as leave(). */
static bool
live(AioWorker *worker, PyThreadState *tstate)
{
    PyEval_SaveThread();
    publish_interpreter(worker, PyThreadState_GetInterpreter(tstate));
    PyEval_RestoreThread(tstate);

    if (set_up(worker) == 0) {
        run_tasks(worker);
    }
    else {
        AioMessage failure;
        aio_message_init(&failure);
        if (worker->interrupted_type != NULL && PyErr_ExceptionMatches(worker->interrupted_type)) {
            PyErr_Clear();
        }
        else {
            aio_failure_encode(worker->state, &failure);
        }
        aio_pool_break(worker->pool, &failure);
    }

    PyEval_SaveThread();
    publish_interpreter(worker, NULL);
    PyEval_RestoreThread(tstate);
    return leave(worker);
}

static PyStatus
new_interpreter(PyThreadState **tstate)
{
    const PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads = 0,
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    return Py_NewInterpreterFromConfig(tstate, &config);
}

void
aio_worker_main(void *argument)
{
    AioWorker *worker = argument;
    AioPool *pool = worker->pool;
    PyThreadState *tstate = NULL;
    bool has_lingered = false;

    PyStatus status = new_interpreter(&tstate);
    if (PyStatus_Exception(status)) {
        AioMessage failure;
        aio_message_init(&failure);
        (void)aio_message_write_failure(
            &failure, "RuntimeError",
            status.err_msg == NULL ? "the interpreter could not be created" : status.err_msg);
        aio_pool_break(pool, &failure);
    }
    else {
        has_lingered = live(worker, tstate);
        Py_EndInterpreter(tstate);
        if (worker->home != NULL) {
            aio_home_abandon(worker->home);
            aio_home_release(worker->home);
        }
    }
    if (has_lingered) {
        aio_pending_done(&pool->lingering);
    }
    else {
        aio_pending_done(&pool->live_workers);
        aio_pending_done(&pool->threads);
    }
    aio_pool_release(pool);
}
