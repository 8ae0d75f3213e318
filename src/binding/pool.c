/* pool.c: a pool's life, and the Python object in front of it.
 *
 *     started ──close──► closing: nothing accepted, the queue runs empty ──► ended
 *        │                  ▲  (stop: queued work cancelled, running work
 *        └── a worker's ────┘   interrupted until every thread has gone)
 *            start fails
 *
 * Entered by the caller's interpreter with its GIL held (everything below the
 * line "the Python object"), and by workers and interrupters without that GIL
 * (everything above).
 */
#include "pool.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "bridge.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/thread.h"
#include "core/wake.h"
#include "failure.h"
#include "fork_child.h"
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

/* ---- any thread, no GIL -------------------------------------------------- */

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
    aio_pending_destroy(&pool->threads);
    aio_pending_destroy(&pool->live_workers);
    aio_pending_destroy(&pool->unfinished);
    aio_taskqueue_destroy(&pool->queue);
    free(pool);
}

bool
aio_pool_is_forked(AioPool *pool)
{
    return pool->fork_generation != aio_fork_generation();
}

/* Accept nothing more; the workers end when the queue is empty. */
static void
close_queue(AioPool *pool)
{
    atomic_store_explicit(&pool->closing, true, memory_order_relaxed);
    aio_taskqueue_close(&pool->queue);
}

/* End every queued task with `status`. */
static void
empty_queue(AioPool *pool, AioTaskStatus status)
{
    AioTaskNode *node;
    while ((node = aio_taskqueue_try_pop(&pool->queue)) != NULL) {
        aio_task_complete(aio_task_of_queue_node(node), status);
    }
}

void
aio_pool_break(AioPool *pool, AioMessage *failure)
{
    pthread_mutex_lock(&pool->failure_lock);
    if (!atomic_load_explicit(&pool->broken, memory_order_relaxed) && failure->size > 0) {
        pool->failure = *failure;
        if (failure->data == failure->inline_data) {
            pool->failure.data = pool->failure.inline_data;
        }
        aio_message_init(failure);
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

/* Accept nothing more, cancel what is queued, and interrupt what runs. Returns
 * at once. While the cancelled tasks are posted the pool must not end, or their
 * loops would be told so first; where it has ended, nothing is left to do. */
static void
stop(AioPool *pool)
{
    if (aio_pending_add_unless_zero(&pool->threads)) {
        close_queue(pool);
        empty_queue(pool, AIO_TASK_CANCELLED);
        start_stopping(pool);
        aio_pending_done(&pool->threads);
    }
}

/* ---- the Python object --------------------------------------------------- */

typedef struct PoolObject {
    PyObject_HEAD
    PyObject *module;  /* owned: keeps the state in memory to the end */
    AioPool *pool;     /* a reference */
    PyObject *bridges; /* dict: loop -> its Bridge */
    /* The bridge that was used last, and its loop: both borrowed from `bridges`. */
    PyObject *last_loop;
    AioBridge *last_bridge;
    bool started;
} PoolObject;

static AioState *
state_of(PoolObject *object)
{
    return aio_state_of_module(object->module);
}

static AioPool *
pool_new(void)
{
    AioPool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    atomic_init(&pool->references, 1);
    aio_message_init(&pool->import_path);
    aio_message_init(&pool->setup);
    aio_message_init(&pool->failure);
    /* With the system's mutexes on Linux and macOS none of these can fail. */
    if (aio_taskqueue_init(&pool->queue, SPIN_NS) < 0 ||
        aio_pending_init(&pool->unfinished, 0) < 0 || aio_pending_init(&pool->live_workers, 0) < 0 ||
        aio_pending_init(&pool->threads, 0) < 0 ||
        pthread_mutex_init(&pool->failure_lock, NULL) != 0) {
        PyErr_NoMemory();
        free(pool);
        return NULL;
    }
    return pool;
}

static PyObject *
pool_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"import_path", "setup", "workers", "name", NULL};
    PyObject *import_path, *setup;
    int workers;
    const char *name;
    PoolObject *self = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!is:Pool", keywords, &PyList_Type,
                                     &import_path, &PyTuple_Type, &setup, &workers, &name)) {
        return NULL;
    }
    if (workers < 1) {
        PyErr_SetString(PyExc_ValueError, "workers must be at least 1");
        return NULL;
    }
    self = (PoolObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = Py_NewRef(PyType_GetModule(type));
    AioState *state = aio_state_of_module(self->module);
    self->pool = pool_new();
    self->bridges = PyDict_New();
    if (self->pool == NULL || self->bridges == NULL ||
        aio_function_table_init(&self->pool->functions) < 0 ||
        aio_message_encode_value(state, &self->pool->import_path, import_path, "sys.path") < 0 ||
        aio_message_encode_value(state, &self->pool->setup, setup, "setup") < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->pool->worker_count = workers;
    PyOS_snprintf(self->pool->name, sizeof self->pool->name, "%s", name);
    return (PyObject *)self;
}

/* ---- the interpreter's list of pools, for the exit handler ---- */

/* Forget the pools whose threads have all gone. As list_pool(), in the module's
 * critical section. */
static void
sweep_pools(AioState *state)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (aio_pending_count(&pool->threads) == 0) {
            aio_pool_release(pool);
        }
        else {
            state->pools[kept++] = pool;
        }
    }
    state->pool_count = kept;
}

static int
list_pool(AioState *state, AioPool *pool)
{
    sweep_pools(state);
    AioPool **pools = realloc(state->pools, (state->pool_count + 1) * sizeof *pools);
    if (pools == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    state->pools = pools;
    pools[state->pool_count++] = aio_pool_acquire(pool);
    return 0;
}

/* ---- start ---- */

static PyObject *
pool_start(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    AioPool *pool = object->pool;
    const int count = pool->worker_count;
    int ready = 0, running = 0;

    if (object->started) {
        return aio_raise_runner_error(state_of(object), "the pool has been started already");
    }
    object->started = true;
    pool->fork_generation = aio_fork_generation();
    aio_fork_child_protect();
    pool->worker_count = 0; /* only what is initialised will be destroyed */
    pool->workers = calloc((size_t)count, sizeof *pool->workers);
    if (pool->workers == NULL) {
        return PyErr_NoMemory();
    }
    while (ready < count && aio_worker_init(&pool->workers[ready], pool) == 0) {
        pool->worker_count = ++ready;
    }
    if (ready < count) {
        return PyErr_NoMemory();
    }
    int failed;
    Py_BEGIN_CRITICAL_SECTION(object->module);
    failed = list_pool(state_of(object), pool);
    Py_END_CRITICAL_SECTION();
    if (failed) {
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        aio_pending_add(&pool->live_workers);
        aio_pending_add(&pool->threads);
    }
    while (running < count) {
        aio_pool_acquire(pool);
        if (aio_thread_start(aio_worker_main, &pool->workers[running], pool->name) < 0) {
            aio_pool_release(pool);
            break;
        }
        running++;
    }
    if (running < count) {
        close_queue(pool);
        for (int i = running; i < count; i++) {
            aio_pending_done(&pool->live_workers);
            aio_pending_done(&pool->threads);
        }
        return aio_raise_runner_error(
            state_of(object), "the system has no room for another thread (%d of %d were started)",
            running, count);
    }
    Py_RETURN_NONE;
}

/* ---- bridges ---- */

/* Close the bridges of loops that were closed, and forget those of ended pools. */
static int
sweep_bridges(AioState *state, PoolObject *object)
{
    PyObject *loops = PyDict_Keys(object->bridges);
    int result = -1;
    if (loops == NULL) {
        return -1;
    }
    object->last_loop = NULL;
    object->last_bridge = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(loops); i++) {
        PyObject *loop = PyList_GET_ITEM(loops, i);
        PyObject *closed = PyObject_CallMethodNoArgs(loop, state->str_is_closed);
        if (closed == NULL) {
            goto done;
        }
        if (closed == Py_True) {
            PyObject *bridge = NULL;
            if (PyDict_GetItemRef(object->bridges, loop, &bridge) == 1) {
                aio_bridge_close((AioBridge *)bridge);
                Py_DECREF(bridge);
                if (PyDict_DelItem(object->bridges, loop) < 0) {
                    PyErr_Clear();
                }
            }
        }
        Py_DECREF(closed);
    }
    result = 0;
done:
    Py_DECREF(loops);
    return result;
}

/* A new bridge for `loop`, kept in `bridges`; borrowed from there. */
static AioBridge *
make_bridge(AioState *state, PoolObject *object, PyObject *loop)
{
    if (sweep_bridges(state, object) < 0) {
        return NULL;
    }
    AioBridge *bridge = aio_bridge_new(object->module, loop, object->pool);
    if (bridge == NULL) {
        return NULL;
    }
    const int failed = PyDict_SetItem(object->bridges, loop, (PyObject *)bridge);
    if (failed) {
        aio_bridge_close(bridge);
    }
    Py_DECREF(bridge); /* the dict has it */
    return failed ? NULL : bridge;
}

/* The bridge of the loop that runs in this thread, a new reference. It is a
 * closed one if the pool has ended. */
static AioBridge *
running_bridge(AioState *state, PoolObject *object)
{
    AioBridge *bridge = NULL;
    PyObject *get_running_loop = aio_helper(state, AIO_HELPER_GET_RUNNING_LOOP);
    PyObject *loop = get_running_loop == NULL ? NULL : PyObject_CallNoArgs(get_running_loop);
    if (loop == NULL) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            PyErr_Clear();
            aio_raise_runner_error(state, "no event loop is running in this thread: call the "
                                          "runner from a coroutine");
        }
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(object);
    if (loop == object->last_loop && object->last_bridge->channel != NULL) {
        bridge = object->last_bridge;
    }
    else {
        PyObject *known = NULL;
        const int found = PyDict_GetItemRef(object->bridges, loop, &known);
        Py_XDECREF(known); /* the dict keeps it */
        if (found == 1 && ((AioBridge *)known)->channel != NULL) {
            bridge = (AioBridge *)known;
        }
        else if (found >= 0) {
            bridge = make_bridge(state, object, loop);
        }
        if (bridge != NULL && bridge->channel != NULL) {
            object->last_loop = bridge->loop;
            object->last_bridge = bridge;
        }
    }
    Py_XINCREF(bridge);
    Py_END_CRITICAL_SECTION();
    Py_DECREF(loop);
    return bridge;
}

/* ---- submit ---- */

static PyObject *
raise_broken(AioState *state, AioPool *pool)
{
    PyObject *exception = aio_failure_decode(state, &pool->failure, AIO_HELPER_BROKEN);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

static PyObject *
raise_closed(AioState *state, AioPool *pool)
{
    if (atomic_load_explicit(&pool->broken, memory_order_acquire)) {
        return raise_broken(state, pool);
    }
    return aio_raise_runner_error(state, "the runner is closed: it takes no more calls");
}

/* 0, or -1 with an exception set in a forked child. */
static int
check_process(PoolObject *object)
{
    if (aio_pool_is_forked(object->pool)) {
        aio_raise_runner_error(state_of(object),
                               "the runner belongs to the parent process: its workers do not exist "
                               "in a forked child; make a new Runner here");
        return -1;
    }
    return 0;
}

/* Why the pool takes no task, as an exception: 0 if it does, else -1. */
static int
check_open(AioState *state, PoolObject *object)
{
    AioPool *pool = object->pool;
    if (!object->started) {
        aio_raise_runner_error(state, "the pool has not been started");
        return -1;
    }
    if (check_process(object) < 0) {
        return -1;
    }
    if (atomic_load_explicit(&pool->closing, memory_order_relaxed)) {
        raise_closed(state, pool);
        return -1;
    }
    return 0;
}

static PyObject *
submit(AioState *state, PoolObject *object, PyObject *callable, PyObject *args, PyObject *kwargs)
{
    AioPool *pool = object->pool;
    AioFunction *function = NULL;
    AioTask *task = NULL;
    PyObject *future = NULL;
    AioBridge *bridge = NULL;
    int failed;

    if (check_open(state, object) < 0 || (bridge = running_bridge(state, object)) == NULL) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(object);
    failed = aio_function_lookup(state, &pool->functions, callable, &function);
    Py_END_CRITICAL_SECTION();
    if (failed || (task = aio_task_new(pool, function)) == NULL) {
        goto failed;
    }
    if (aio_message_encode_call(state, &task->message, function == NULL ? callable : NULL, args,
                                kwargs) < 0) {
        goto failed;
    }
    /* The pool may have ended since, while encoding ran Python code for example. */
    if (bridge->channel == NULL) {
        raise_closed(state, pool);
        goto failed;
    }
    future = aio_task_future_new(state, bridge->loop);
    if (future == NULL) {
        goto failed;
    }
    aio_bridge_adopt(bridge, &task->mail, AIO_MAIL_TASK, future);
    aio_pending_add(&pool->unfinished);
    aio_task_bind(task);
    if (!aio_taskqueue_push(&pool->queue, &task->queue_node)) {
        aio_task_unbind(task);
        aio_mail_abandon(&task->mail);
        aio_pending_done(&pool->unfinished);
        raise_closed(state, pool);
        goto failed;
    }
    /* From here on the task is the queue's. */
    Py_DECREF(bridge);
    return future;
failed:
    if (task != NULL) {
        aio_task_free(task);
    }
    Py_XDECREF(future);
    Py_DECREF(bridge);
    return NULL;
}

/* functools.partial(f, *a, **k)(*args, **kwargs) is f(*a, *args, **{**k, **kwargs}):
 * sent like that, f is found by name like any function. */
static PyObject *
submit_partial(AioState *state, PoolObject *object, PyObject *partial, PyObject *args,
               PyObject *kwargs)
{
    PyObject *callable = PyObject_GetAttrString(partial, "func");
    PyObject *own_args = PyObject_GetAttrString(partial, "args");
    PyObject *own_kwargs = PyObject_GetAttrString(partial, "keywords");
    PyObject *all_args = NULL, *all_kwargs = NULL, *future = NULL;

    if (callable != NULL && own_args != NULL && own_kwargs != NULL) {
        all_args = PySequence_Concat(own_args, args);
        all_kwargs = PyDict_Copy(own_kwargs);
    }
    if (all_args != NULL && all_kwargs != NULL &&
        (kwargs == NULL || PyDict_Update(all_kwargs, kwargs) == 0)) {
        future = submit(state, object, callable, all_args, all_kwargs);
    }
    Py_XDECREF(all_kwargs);
    Py_XDECREF(all_args);
    Py_XDECREF(own_kwargs);
    Py_XDECREF(own_args);
    Py_XDECREF(callable);
    return future;
}

static PyObject *
pool_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PoolObject *object = (PoolObject *)self;
    AioState *state = state_of(object);

    if (count != 3 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "submit(callable, args: tuple, kwargs: dict)");
        return NULL;
    }
    PyObject *partial = aio_helper(state, AIO_HELPER_PARTIAL);
    if (partial == NULL) {
        return NULL;
    }
    PyObject *kwargs = PyDict_GET_SIZE(args[2]) == 0 ? NULL : args[2];
    if (Py_TYPE(args[0]) == (PyTypeObject *)partial) {
        return submit_partial(state, object, args[0], args[1], kwargs);
    }
    return submit(state, object, args[0], args[1], kwargs);
}

/* ---- close ---- */

static PyObject *
pool_close(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PoolObject *object = (PoolObject *)self;
    AioPool *pool = object->pool;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "close(cancel_pending: bool, interrupt: bool)");
        return NULL;
    }
    const int cancel_pending = PyObject_IsTrue(args[0]);
    const int interrupt_running = PyObject_IsTrue(args[1]);
    if (cancel_pending < 0 || interrupt_running < 0) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(object);
    if (sweep_bridges(state_of(object), object) < 0) {
        PyErr_WriteUnraisable(self); /* a loop's is_closed() raised: no reason not to close */
    }
    Py_END_CRITICAL_SECTION();
    /* While we post cancelled tasks the pool must not end, or their loops would
     * be told so first. Where it has ended, nothing is left to do. */
    if (aio_pool_is_forked(pool) || !aio_pending_add_unless_zero(&pool->threads)) {
        atomic_store_explicit(&pool->closing, true, memory_order_relaxed);
        Py_RETURN_NONE;
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
    Py_RETURN_NONE;
}

/* ---- waiting for the end ---- */

typedef struct BlockedWaiter {
    AioPendingWaiter waiter;
    AioWake wake;
} BlockedWaiter;

static void
wake_blocked(AioPendingWaiter *waiter)
{
    aio_wake_signal(&aio_container_of(waiter, BlockedWaiter, waiter)->wake);
}

/* Block until no thread of the pool is left, without the GIL. A signal's handler
 * runs in between, as it does in time.sleep(); if it raises (Ctrl-C), the wait
 * ends. 0, or -1 with an exception set. */
static int
wait_for_end(AioPool *pool)
{
    BlockedWaiter blocked = {.waiter = {.notify = wake_blocked}};
    int result = 0;

    if (aio_pending_count(&pool->threads) == 0) {
        return 0;
    }
    /* A descriptor, because poll() is what a signal interrupts on every system. */
    if (aio_wake_init(&blocked.wake) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!aio_pending_wait(&pool->threads, &blocked.waiter)) {
        struct pollfd readable = {.fd = aio_wake_fd(&blocked.wake), .events = POLLIN};
        bool is_over = false;
        while (!is_over) {
            int ready, reason;
            Py_BEGIN_ALLOW_THREADS
            ready = poll(&readable, 1, -1);
            reason = errno;
            Py_END_ALLOW_THREADS
            if (ready > 0) {
                is_over = true;
            }
            else if (result == 0 && reason == EINTR && PyErr_CheckSignals() < 0) {
                result = -1;
                /* If the notification is under way, it must come before we go. */
                is_over = aio_pending_forget(&pool->threads, &blocked.waiter);
            }
        }
    }
    aio_wake_destroy(&blocked.wake);
    return result;
}

static PyObject *
pool_join(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioPool *pool = ((PoolObject *)self)->pool;
    if (!aio_pool_is_forked(pool) && wait_for_end(pool) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* A future of the running loop that is done once `pending` is zero. */
static PyObject *
future_for(PoolObject *object, AioPending *pending)
{
    AioState *state = state_of(object);
    PyObject *type = aio_helper(state, AIO_HELPER_FUTURE);
    PyObject *future = NULL, *result = NULL;
    AioBridge *bridge = NULL;
    int zero = 1;

    /* In a forked child there is nothing to wait for. */
    if (aio_pending_count(pending) > 0 && !aio_pool_is_forked(object->pool)) {
        bridge = running_bridge(state, object);
        if (bridge == NULL) {
            return NULL;
        }
    }
    /* A future of the running loop. */
    future = type == NULL ? NULL : PyObject_CallNoArgs(type);
    if (future == NULL) {
        goto done;
    }
    if (bridge != NULL && bridge->channel != NULL) {
        zero = aio_bridge_notify(bridge, pending, future);
    }
    if (zero == 1) {
        result = PyObject_CallMethodOneArg(future, state->str_set_result, Py_None);
    }
    if (zero < 0 || (zero == 1 && result == NULL)) {
        Py_CLEAR(future);
    }
done:
    Py_XDECREF(result);
    Py_XDECREF(bridge);
    return future;
}

static PyObject *
pool_when_idle(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    if (check_process(object) < 0) {
        return NULL;
    }
    return future_for(object, &object->pool->unfinished);
}

static PyObject *
pool_when_ended(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return future_for((PoolObject *)self, &((PoolObject *)self)->pool->threads);
}

/* Stop the interpreter's pools: all of them, or those that were not closed. */
static void
stop_pools(AioState *state, bool all)
{
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (!aio_pool_is_forked(pool) &&
            (all || !atomic_load_explicit(&pool->closing, memory_order_relaxed))) {
            stop(pool);
        }
    }
}

/* As wait_for_end(), for all pools. */
static int
wait_for_pools(AioState *state)
{
    for (size_t i = 0; i < state->pool_count; i++) {
        if (!aio_pool_is_forked(state->pools[i]) && wait_for_end(state->pools[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *
aio_pools_shut_down(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioState *state = aio_state_of_module(module);

    /* A pool that was closed in the ordinary way finishes its work, as promised. */
    stop_pools(state, false);
    if (wait_for_pools(state) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            return NULL;
        }
        PyErr_Clear(); /* Ctrl-C: finish no more */
        stop_pools(state, true);
        if (wait_for_pools(state) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static PyObject *
pool_get_closing(PyObject *self, void *Py_UNUSED(closure))
{
    AioPool *pool = ((PoolObject *)self)->pool;
    return PyBool_FromLong(atomic_load_explicit(&pool->closing, memory_order_relaxed));
}

static PyObject *
pool_get_forked(PyObject *self, void *Py_UNUSED(closure))
{
    PoolObject *object = (PoolObject *)self;
    return PyBool_FromLong(object->started && aio_pool_is_forked(object->pool));
}

static PyObject *
pool_get_pending(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(aio_pending_count(&((PoolObject *)self)->pool->unfinished));
}

static int
pool_traverse(PyObject *self, visitproc visit, void *arg)
{
    PoolObject *object = (PoolObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(object->module);
    Py_VISIT(object->bridges);
    if (object->pool != NULL) {
        Py_VISIT(object->pool->functions.owner_indices);
    }
    return 0;
}

static int
pool_clear(PyObject *self)
{
    PoolObject *object = (PoolObject *)self;
    object->last_loop = NULL;
    object->last_bridge = NULL;
    Py_CLEAR(object->bridges);
    if (object->pool != NULL) {
        aio_function_table_clear_owned(&object->pool->functions);
    }
    return 0;
}

static void
pool_dealloc(PyObject *self)
{
    PoolObject *object = (PoolObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    AioPool *pool = object->pool;

    PyObject_GC_UnTrack(self);
    pool_clear(self);
    /* In a forked child the locks may be held by threads that don't exist here:
     * the pool's memory is left alone. */
    if (pool != NULL && !(object->started && aio_pool_is_forked(pool))) {
        if (!atomic_load_explicit(&pool->closing, memory_order_relaxed)) {
            stop(pool); /* nobody closed it */
        }
        aio_pool_release(pool);
    }
    Py_XDECREF(object->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef pool_methods[] = {
    {"start", pool_start, METH_NOARGS, PyDoc_STR("Start the workers; does not wait for them.")},
    {"submit", (PyCFunction)(void (*)(void))pool_submit, METH_FASTCALL,
     PyDoc_STR("submit(callable, args, kwargs): the future of the call, on the running loop.")},
    {"close", (PyCFunction)(void (*)(void))pool_close, METH_FASTCALL,
     PyDoc_STR("close(cancel_pending, interrupt): accept no more work; returns at once.")},
    {"join", pool_join, METH_NOARGS, PyDoc_STR("Block until all threads have ended.")},
    {"when_idle", pool_when_idle, METH_NOARGS,
     PyDoc_STR("A future that is done once all accepted calls are.")},
    {"when_ended", pool_when_ended, METH_NOARGS,
     PyDoc_STR("A future that is done once all threads have ended.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"closing", pool_get_closing, NULL, PyDoc_STR("No more work is accepted."), NULL},
    {"forked", pool_get_forked, NULL, PyDoc_STR("This is a child of the pool's process."), NULL},
    {"pending", pool_get_pending, NULL, PyDoc_STR("Calls accepted and not done."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Pool(import_path, setup, workers, name)\n\n"
                                  "Workers in subinterpreters, and the queue that feeds them.")},
    {Py_tp_new, pool_object_new},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_dealloc, pool_dealloc},
    {0, NULL},
};

PyType_Spec aio_pool_spec = {
    .name = "aiointerpreters._core.Pool",
    .basicsize = sizeof(PoolObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};
