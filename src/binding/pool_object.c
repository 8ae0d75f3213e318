/* pool_object.c: the Python object in front of a pool: `aiointerpreters._core.Pool`.
 *
 * It belongs to the interpreter of the callers, and is entered with that GIL held;
 * on a free-threaded build its critical section guards `bridges`, the last bridge,
 * and the function table. It owns the bridges to the loops that use the pool.
 */
#include "pool_object.h"

#include <limits.h>

#include "batching.h"
#include "bridge.h"
#include "call.h"
#include "core/clock.h"
#include "expiry.h"
#include "failure.h"
#include "fork_child.h"
#include "future.h"
#include "pool.h"
#include "shutdown.h"
#include "task.h"
#include "ticket.h"

typedef struct PoolObject {
    PyObject_HEAD PyObject *module; /* owned: keeps the state in memory to the end */
    AioPool *pool;                  /* a reference */
    PyObject *bridges;              /* dict: loop -> its Bridge */
    /* The bridge that was used last, and its loop: both borrowed from `bridges`. */
    PyObject *last_loop;
    AioBridge *last_bridge;
    int most, least; /* workers */
    bool started;
} PoolObject;

static AioState *
state_of(PoolObject *object)
{
    return aio_state_of_module(object->module);
}

/* Negative for what is negative. */
static int64_t
nanoseconds(double seconds)
{
    const double longest = (double)(INT64_MAX / 4); /* so that it can be added to a time */
    if (seconds < 0) {
        return AIO_NEVER;
    }
    return seconds * 1e9 < longest ? (int64_t)(seconds * 1e9) : INT64_MAX / 4;
}

static PyObject *
pool_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {
        "start",       "told",        "first_steps",  "forwards",     "name",
        "workers",     "min_workers", "idle_timeout", "grace_period", "max_tasks_per_worker",
        "concurrency", NULL};
    PyObject *start, *told, *first_steps;
    int most, least, tasks_per_worker, concurrency, forwards;
    double idle_timeout, grace_period;
    const char *name;
    PoolObject *self = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!Opsiiddii:Pool", keywords, &PyTuple_Type,
                                     &start, &PyTuple_Type, &told, &first_steps, &forwards, &name,
                                     &most, &least, &idle_timeout, &grace_period, &tasks_per_worker,
                                     &concurrency)) {
        return NULL;
    }
    if (most < 1 || least < 0 || least > most || concurrency < 1) {
        PyErr_SetString(PyExc_ValueError,
                        "workers and concurrency must be at least 1, min_workers 0 to workers");
        return NULL;
    }
    self = (PoolObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = Py_NewRef(PyType_GetModule(type));
    AioState *state = aio_state_of_module(self->module);
    self->most = most;
    self->least = least;
    self->bridges = PyDict_New();
    self->pool = aio_pool_new(name);
    if (self->pool == NULL) {
        PyErr_NoMemory();
    }
    else {
        self->pool->coroutines.concurrency = concurrency;
    }
    if (self->pool == NULL || self->bridges == NULL ||
        aio_function_table_init(&self->pool->functions) < 0 ||
        aio_message_encode_value(state, &self->pool->start, start, "start") < 0 ||
        aio_message_encode_value(state, &self->pool->told, told, "told") < 0 ||
        (first_steps != Py_None && aio_message_encode_value(state, &self->pool->first_steps,
                                                            first_steps, "first_steps") < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    self->pool->idle_ns = least < most ? nanoseconds(idle_timeout) : AIO_NEVER;
    self->pool->grace_ns = nanoseconds(grace_period);
    self->pool->tasks_per_worker = tasks_per_worker;
    self->pool->forwards = forwards;
    return (PyObject *)self;
}

/* ---- start ---- */

static PyObject *
pool_start(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    AioState *state = state_of(object);
    int failed;

    if (object->started) {
        return aio_raise_runner_error(state, "the pool has been started already");
    }
    object->started = true;
    aio_fork_child_protect();
    Py_BEGIN_CRITICAL_SECTION(object->module);
    failed = aio_shutdown_register(state, object->pool);
    Py_END_CRITICAL_SECTION();
    if (failed) {
        return NULL;
    }
    const int started = aio_pool_start(object->pool, object->least, object->most);
    if (started < object->least) {
        return aio_raise_runner_error(
            state, "the system has no room for another thread (%d of %d were started)", started,
            object->least);
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
    PyObject *loop = aio_running_loop(state, "the runner");
    if (loop == NULL) {
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

/* What a call may ask for beyond its arguments. */
typedef struct CallOptions {
    int64_t priority;
    int64_t timeout_ns, deadline_ns; /* negative: none */
    PyObject *context;               /* borrowed: a tuple; or NULL */
    PyObject *coroutine;  /* borrowed: it is the future (call.h); or NULL: that is a new one */
    AioBridge *collector; /* borrowed: the result comes there; or NULL: to the running loop */
} CallOptions;

static const CallOptions NO_OPTIONS = {0, AIO_NEVER, AIO_NEVER, NULL, NULL, NULL};

/* All workers are busy with other tasks. False if this one would wait for ever. */
static bool
ask_for_worker(AioPool *pool)
{
    return !aio_workers_may_grow(&pool->workers) || aio_workers_grow(pool);
}

/* Send the task on its way to a worker, and its outcome to `future` (borrowed), of the open bridge.
 * Takes the task. 0, or -1 with an exception set. */
static int
send(AioState *state, AioPool *pool, AioBridge *bridge, AioTask *task, PyObject *future)
{
    aio_bridge_adopt(bridge, &task->mail, AIO_MAIL_TASK, future);
    aio_pending_add_many(&pool->unfinished, task->batch == NULL ? 1 : (long)task->batch->count);
    if (task->batch != NULL) {
        aio_batch_count(task->batch);
    }
    aio_future_bind(state, &task->mail);
    const bool is_coroutine = task->is_coroutine;
    switch (is_coroutine ? aio_coroutines_submit(task)
                         : aio_taskqueue_push(&pool->queue, &task->queue_node)) {
    case AIO_PUSH_COVERED:
        break;
    case AIO_PUSH_WAITS:
        if (ask_for_worker(pool) || !aio_task_take_back(task)) {
            break;
        }
        aio_raise_runner_error(state, "the runner has no worker, and the system has no room for "
                                      "another thread");
        goto refused;
    case AIO_PUSH_CLOSED:
        raise_closed(state, pool);
        goto refused;
    }
    /* From here on the task is the queue's, or a loop's. */
    if (!is_coroutine) { /* which as a rule waits for something */
        aio_bridge_expect(state, bridge);
    }
    return 0;
refused:
    aio_mail_abandon(&task->mail);
    aio_pending_done_many(&pool->unfinished, aio_task_weight(task));
    aio_task_free(task);
    return -1;
}

/* The same, unless the bridge has been closed meanwhile, and with its time limits. */
static int
send_limited(AioState *state, AioPool *pool, AioBridge *bridge, AioTask *task, PyObject *future,
             const CallOptions *options)
{
    if (bridge->channel == NULL) {
        raise_closed(state, pool);
        aio_task_free(task);
        return -1;
    }
    if ((options->timeout_ns >= 0 || options->deadline_ns >= 0) &&
        (task->expiry = aio_expiry_new(state, bridge, future, options->timeout_ns,
                                       options->deadline_ns)) == NULL) {
        aio_task_free(task);
        return -1;
    }
    return send(state, pool, bridge, task, future);
}

/* To where the result shall come, a new reference; NULL with an exception set. */
static AioBridge *
bridge_for(AioState *state, PoolObject *object, const CallOptions *options)
{
    return options->collector != NULL ? (AioBridge *)Py_NewRef(options->collector)
                                      : running_bridge(state, object);
}

static PyObject *
submit(AioState *state, PoolObject *object, PyObject *callable, PyObject *args, PyObject *kwargs,
       const CallOptions *options)
{
    AioPool *pool = object->pool;
    AioFunction *function = NULL;
    AioTask *task = NULL;
    PyObject *future = NULL, *to_send = NULL;
    AioBridge *bridge = NULL;
    bool is_coroutine = false;

    if (check_open(state, object) < 0 || (bridge = bridge_for(state, object, options)) == NULL) {
        return NULL;
    }
    if (aio_pool_object_lookup((PyObject *)object, callable, &function, &to_send, &is_coroutine) <
            0 ||
        (task = aio_task_new(pool, function, is_coroutine)) == NULL) {
        goto failed;
    }
    task->has_context = options->context != NULL;
    if (aio_message_encode_call(state, &task->message, options->context, to_send, args, kwargs) <
        0) {
        goto failed;
    }
    /* The pool may have ended since, while encoding ran Python code for example. */
    if (bridge->channel == NULL) {
        raise_closed(state, pool);
        goto failed;
    }
    if (options->coroutine != NULL) {
        future = Py_NewRef(options->coroutine);
        aio_call_begin(future, bridge->loop);
    }
    else if ((future = options->collector != NULL ? aio_ticket_new_future(state, bridge)
                                                  : aio_future_new(state)) == NULL) {
        goto failed;
    }
    task->queue_node.priority = options->priority;
    AioTask *sent = task;
    task = NULL; /* whatever comes of it */
    int failure;
    Py_BEGIN_CRITICAL_SECTION(bridge);
    failure = send_limited(state, pool, bridge, sent, future, options);
    Py_END_CRITICAL_SECTION();
    if (failure < 0) {
        goto failed;
    }
    Py_XDECREF(to_send);
    Py_DECREF(bridge);
    return future;
failed:
    if (task != NULL) {
        aio_task_free(task);
    }
    Py_XDECREF(future);
    Py_XDECREF(to_send);
    Py_DECREF(bridge);
    return NULL;
}

/* ---- for batching.c ---- */

AioState *
aio_pool_object_state(PyObject *object)
{
    return state_of((PoolObject *)object);
}

AioPool *
aio_pool_object_pool(PyObject *object)
{
    return ((PoolObject *)object)->pool;
}

AioBridge *
aio_pool_object_bridge(PyObject *object, AioBridge *collector)
{
    AioState *state = aio_pool_object_state(object);
    const CallOptions options = {.collector = collector};
    return check_open(state, (PoolObject *)object) < 0
               ? NULL
               : bridge_for(state, (PoolObject *)object, &options);
}

int
aio_pool_object_lookup(PyObject *object, PyObject *callable, AioFunction **function,
                       PyObject **to_send, bool *is_coroutine)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(object);
    result =
        aio_function_lookup(aio_pool_object_state(object), &aio_pool_object_pool(object)->functions,
                            callable, function, to_send, is_coroutine);
    Py_END_CRITICAL_SECTION();
    return result;
}

int
aio_pool_object_send(PyObject *object, AioBridge *bridge, AioTask *task, PyObject *future)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(bridge);
    /* The pool may have ended since, while encoding ran Python code for example. */
    result = send_limited(aio_pool_object_state(object), aio_pool_object_pool(object), bridge, task,
                          future, &NO_OPTIONS);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* functools.partial(f, *a, **k)(*args, **kwargs) is f(*a, *args, **{**k, **kwargs}):
 * sent like that, f is found by name like any function. */
static PyObject *
submit_partial(AioState *state, PoolObject *object, PyObject *partial, PyObject *args,
               PyObject *kwargs, const CallOptions *options)
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
        future = submit(state, object, callable, all_args, all_kwargs, options);
    }
    Py_XDECREF(all_kwargs);
    Py_XDECREF(all_args);
    Py_XDECREF(own_kwargs);
    Py_XDECREF(own_args);
    Py_XDECREF(callable);
    return future;
}

static PyObject *
submit_any(PoolObject *object, PyObject *callable, PyObject *args, PyObject *kwargs,
           const CallOptions *options)
{
    AioState *state = state_of(object);
    PyObject *partial = aio_helper(state, AIO_HELPER_PARTIAL);
    if (partial == NULL) {
        return NULL;
    }
    return Py_TYPE(callable) == (PyTypeObject *)partial
               ? submit_partial(state, object, callable, args, kwargs, options)
               : submit(state, object, callable, args, kwargs, options);
}

PyObject *
aio_pool_object_module(PyObject *pool)
{
    return ((PoolObject *)pool)->module;
}

PyObject *
aio_pool_object_submit(PyObject *pool, PyObject *callable, PyObject *args, PyObject *kwargs,
                       PyObject *coroutine)
{
    CallOptions options = NO_OPTIONS;
    options.coroutine = coroutine;
    return submit_any((PoolObject *)pool, callable, args, kwargs, &options);
}

/* 0, or -1 with an exception set. */
static int
check_call(PyObject *const *args)
{
    if (!PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "a call is a callable, a tuple and a dict");
        return -1;
    }
    return 0;
}

static PyObject *
null_if_empty(PyObject *kwargs)
{
    return PyDict_GET_SIZE(kwargs) == 0 ? NULL : kwargs;
}

static PyObject *
pool_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "submit(callable, args: tuple, kwargs: dict)");
        return NULL;
    }
    return check_call(args) < 0 ? NULL
                                : submit_any((PoolObject *)self, args[0], args[1],
                                             null_if_empty(args[2]), &NO_OPTIONS);
}

/* None is AIO_NEVER. 0, or -1 with an exception set. */
static int
parse_limit(PyObject *seconds, int64_t *limit_ns)
{
    *limit_ns = AIO_NEVER;
    if (seconds != Py_None) {
        const double value = PyFloat_AsDouble(seconds);
        if (value == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        *limit_ns = nanoseconds(value);
    }
    return 0;
}

/* The options in the arguments from the fourth on: priority, timeout, deadline, context. 0, or -1
 * with an exception set. */
static int
parse_options(PyObject *const *args, CallOptions *options)
{
    *options = NO_OPTIONS;
    options->context = args[6] == Py_None ? NULL : args[6];
    options->priority = PyLong_AsLongLong(args[3]);
    return (options->priority == -1 && PyErr_Occurred()) ||
                   parse_limit(args[4], &options->timeout_ns) < 0 ||
                   parse_limit(args[5], &options->deadline_ns) < 0
               ? -1
               : 0;
}

static PyObject *
pool_submit_with(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    CallOptions options;
    if (count != 7 || (args[6] != Py_None && !PyTuple_CheckExact(args[6]))) {
        PyErr_SetString(PyExc_TypeError, "submit_with(callable, args: tuple, kwargs: dict, "
                                         "priority, timeout, deadline, context: tuple | None)");
        return NULL;
    }
    return check_call(args) < 0 || parse_options(args, &options) < 0
               ? NULL
               : submit_any((PoolObject *)self, args[0], args[1], null_if_empty(args[2]), &options);
}

bool
aio_pool_object_has_collector(PyObject *object, PyObject *collector)
{
    const PoolObject *self = (PoolObject *)object;
    if (Py_TYPE(collector) != state_of((PoolObject *)object)->collector_type) {
        return false;
    }
    /* A closed one has no pool any more, and is refused when something is sent to it. */
    const AioPool *pool = ((AioBridge *)collector)->pool;
    return pool == NULL || pool == self->pool;
}

static PyObject *
pool_submit_to(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PoolObject *object = (PoolObject *)self;
    CallOptions options;
    if (count != 8 || (args[7] != Py_None && !PyTuple_CheckExact(args[7])) ||
        !aio_pool_object_has_collector(self, args[0])) {
        PyErr_SetString(PyExc_TypeError,
                        "submit_to(collector: of this pool, callable, args: tuple, kwargs: dict, "
                        "priority, timeout, deadline, context: tuple | None)");
        return NULL;
    }
    if (check_call(args + 1) < 0 || parse_options(args + 1, &options) < 0) {
        return NULL;
    }
    options.collector = (AioBridge *)args[0];
    return submit_any(object, args[1], args[2], null_if_empty(args[3]), &options);
}

static PyObject *
pool_collector(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    return check_open(state_of(object), object) < 0
               ? NULL
               : (PyObject *)aio_bridge_new_collector(object->module, object->pool);
}

/* ---- workers ---- */

static PyObject *
pool_resize(PyObject *self, PyObject *argument)
{
    PoolObject *object = (PoolObject *)self;
    AioState *state = state_of(object);
    const long most = PyLong_AsLong(argument);
    if ((most == -1 && PyErr_Occurred()) || check_open(state, object) < 0) {
        return NULL;
    }
    if (most < 1 || most > INT_MAX) {
        PyErr_SetString(PyExc_ValueError, "workers must be at least 1");
        return NULL;
    }
    if (aio_workers_resize(object->pool, (int)most) < 0) {
        return aio_raise_runner_error(state, "the system has no room for another thread");
    }
    Py_RETURN_NONE;
}

static PyObject *
pool_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    AioPool *pool = object->pool;
    AioWorkersCounts counts = {0};
    long pending = 0, queued = 0;

    if (object->started && check_process(object) < 0) {
        return NULL;
    }
    if (object->started) {
        aio_workers_count(pool, &counts);
        pending = aio_pending_count(&pool->unfinished);
        queued = aio_taskqueue_length(&pool->queue) +
                 aio_coroutines_count_waiting(&pool->coroutines) +
                 atomic_load_explicit(&pool->batched, memory_order_relaxed);
    }
    return Py_BuildValue("{s:i,s:i,s:i,s:i,s:i,s:k,s:k,s:k,s:l,s:l}", "starting", counts.starting,
                         "idle", counts.idle, "busy", counts.busy, "retiring", counts.retiring,
                         "stuck", counts.stuck, "started", counts.started, "replaced",
                         counts.replaced, "done", counts.tasks, "pending", pending, "queued",
                         queued);
}

/* ---- close ---- */

static PyObject *
pool_close(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PoolObject *object = (PoolObject *)self;
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
    aio_pool_close(object->pool, cancel_pending, interrupt_running);
    Py_RETURN_NONE;
}

/* ---- waiting ---- */

static PyObject *
pool_join(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    if (!aio_pool_is_forked(object->pool) &&
        aio_shutdown_wait(state_of(object), object->pool) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* A future of the running loop that is done once `pending` is zero and this loop's
 * results up to then are delivered; it may have failed, as aio_bridge_notify() says. */
static PyObject *
future_for(PoolObject *object, AioPending *pending, _Atomic bool *has_failed)
{
    AioState *state = state_of(object);
    PyObject *type = aio_helper(state, AIO_HELPER_FUTURE);
    PyObject *future = NULL, *result = NULL;
    AioBridge *bridge = NULL;
    bool failed;

    /* In a forked child there is nothing to wait for. */
    if (!aio_pool_is_forked(object->pool)) {
        bridge = running_bridge(state, object);
        if (bridge == NULL) {
            return NULL;
        }
    }
    future = type == NULL ? NULL : PyObject_CallNoArgs(type);
    if (future == NULL) {
        goto done;
    }
    if (bridge != NULL && bridge->channel != NULL) {
        failed = aio_bridge_notify(bridge, pending, has_failed, future) < 0;
    }
    else { /* the pool has ended, and this loop has been told */
        result = PyObject_CallMethodOneArg(future, state->str_set_result, Py_None);
        failed = result == NULL;
    }
    if (failed) {
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
    return future_for(object, &object->pool->unfinished, NULL);
}

static PyObject *
pool_recycle(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PoolObject *object = (PoolObject *)self;
    AioBridge *bridge;
    if (check_open(state_of(object), object) < 0 ||
        (bridge = running_bridge(state_of(object), object)) == NULL) {
        return NULL;
    }
    Py_DECREF(bridge); /* there is a loop to tell */
    aio_workers_recycle(object->pool);
    return future_for(object, &object->pool->recycling,
                      &object->pool->workers.recycling_has_failed);
}

static PyObject *
pool_when_ended(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return future_for((PoolObject *)self, &((PoolObject *)self)->pool->threads, NULL);
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
pool_get_failure(PyObject *self, void *Py_UNUSED(closure))
{
    PoolObject *object = (PoolObject *)self;
    return atomic_load_explicit(&object->pool->broken, memory_order_acquire)
               ? aio_failure_decode(state_of(object), &object->pool->failure, AIO_HELPER_BROKEN)
               : Py_NewRef(Py_None);
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
            aio_pool_close(pool, true, true); /* nobody closed it */
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
    {"submit_with", (PyCFunction)(void (*)(void))pool_submit_with, METH_FASTCALL,
     PyDoc_STR("submit_with(callable, args, kwargs, priority, timeout, deadline, context): as "
               "submit.")},
    {"collector", pool_collector, METH_NOARGS,
     PyDoc_STR("A new Collector: where results of the pool come to, without a loop.")},
    {"submit_to", (PyCFunction)(void (*)(void))pool_submit_to, METH_FASTCALL,
     PyDoc_STR("submit_to(collector, callable, args, kwargs, priority, timeout, deadline, "
               "context): as submit_with; a CallFuture, from any thread.")},
    {"takes_batches", aio_batching_py_takes_batches, METH_O,
     PyDoc_STR("takes_batches(callable): whether its calls may travel together.")},
    {"submit_batch", (PyCFunction)(void (*)(void))aio_batching_py_submit, METH_FASTCALL,
     PyDoc_STR("submit_batch(callable, prefix, kwargs, arguments, most, priority): pull so many "
               "tuples of arguments, or fewer, from an iterator, and submit them.\n\n"
               "Returns what was submitted, pairs of a future and how many calls it stands for (0: "
               "it is a single call's own); whether there may be more; and what was raised, or "
               "None. The future of a batch gets a tuple: a list of results, the error after "
               "them or None, the time spent, and what follows, as such pairs.")},
    {"split", (PyCFunction)(void (*)(void))aio_batching_py_split, METH_FASTCALL,
     PyDoc_STR("split(future, nanoseconds, pieces): if that batch has run for so long, let its "
               "future be done with the results so far, and send what has not been begun anew, in "
               "so many pieces. Returns whether it was split.")},
    {"resize", pool_resize, METH_O, PyDoc_STR("resize(workers): how many there are from now on.")},
    {"recycle", pool_recycle, METH_NOARGS,
     PyDoc_STR("A future that is done once all workers are new ones.")},
    {"stats", pool_stats, METH_NOARGS, PyDoc_STR("Counts of workers and calls, by name.")},
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
    {"failure", pool_get_failure, NULL,
     PyDoc_STR("The BrokenRunner that calls fail with; None unless the pool is broken."), NULL},
    {"closing", pool_get_closing, NULL, PyDoc_STR("No more work is accepted."), NULL},
    {"forked", pool_get_forked, NULL, PyDoc_STR("This is a child of the pool's process."), NULL},
    {"pending", pool_get_pending, NULL, PyDoc_STR("Calls accepted and not done."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Pool(start, told, first_steps, forwards, name, workers, ...)\n\n"
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
