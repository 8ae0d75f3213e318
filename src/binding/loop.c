/* loop.c: a worker's event loop, on a thread of its own.
 *
 * What the loop does is in _coroutines.py: it watches the descriptor of its Inbox, begins
 * the calls that come (async_call.c), cancels those that were abandoned, and ends.
 *
 * Interrupting. A call is cancelled as any asyncio task, by its loop. But a step that does
 * not come to its end (`while True: pass`) keeps the loop from that. So if the call that is
 * abandoned is being executed at that moment, a helper thread enters the interpreter, as
 * for a plain call (worker.c), and if the same call is still being executed when it has the
 * GIL, it sends the exception that the loop would have raised in it, a CancelledError. The
 * exception itself notes that it has been raised (its __init__ does); if the step ended
 * before, it is taken back, and the loop cancels the call after all.
 *
 * When a pool is stopped its loops are asked to cancel all their calls, and whichever call's
 * step runs just then is interrupted likewise. After the grace period they are asked once
 * more, and who has not come to that is interrupted with Interrupted, even if it is in no
 * call (but in a task that a call has left behind, or a callback); and so on, after pauses.
 * A loop that comes to it, again and again, but whose calls don't end is given up by
 * _coroutines.py.
 *
 * A step that goes on for the grace period, or beyond it, though its call was cancelled, makes
 * its worker stuck, as a plain call does. Then the other calls that the loop has begun are given
 * up (coroutines.c): for all that anybody knows they will never go on.
 */
#include "loop.h"

#include "async_call.h"
#include "blocked.h"
#include "core/clock.h"
#include "core/thread.h"
#include "coroutines.h"
#include "failure.h"
#include "imports.h"
#include "interrupt.h"
#include "pool.h"
#include "stuck.h"

/* What is not a step of a call is interrupted only if its loop has not been able to look
 * for as many rounds of the pool's being stopped: it may be asyncio that we hit. */
enum { LATE = 1, VERY_LATE = 2 };

int
aio_loop_init(AioLoop *loop, AioPool *pool, AioConsumer *consumer)
{
    *loop = (AioLoop){.pool = pool, .consumer = consumer};
    aio_list_node_init(&loop->link);
    aio_list_node_init(&loop->start_link);
    aio_list_node_init(&loop->interrupt_link);
    aio_list_init(&loop->inbox);
    aio_list_init(&loop->taken);
    aio_list_init(&loop->running);
    if (pthread_mutex_init(&loop->step_lock, NULL) != 0) {
        return -1;
    }
    aio_coroutines_add_loop(loop);
    return 0;
}

void
aio_loop_destroy(AioLoop *loop)
{
    aio_coroutines_forget_loop(loop);
    pthread_mutex_destroy(&loop->step_lock);
}

/* ---- the worker's side --------------------------------------------------- */

void
aio_loop_open(AioLoop *loop, AioState *state)
{
    loop->interpreter = PyInterpreterState_Get();
    loop->state = state;
    loop->home = state->home;
    aio_coroutines_open_loop(loop);
}

void
aio_loop_leave(AioLoop *loop)
{
    PyThreadState *tstate = PyEval_SaveThread();
    while (!aio_coroutines_leave_loop(loop)) {
        aio_taskqueue_await_nudge(&loop->pool->queue, loop->consumer);
        PyEval_RestoreThread(tstate);
        aio_home_settle(loop->home); /* for which it may have been nudged, too */
        tstate = PyEval_SaveThread();
    }
    PyEval_RestoreThread(tstate);
}

/* ---- the Inbox: what _coroutines.py sees of the loop ---------------------- */

typedef struct Inbox {
    PyObject_HEAD AioLoop *loop; /* borrowed; NULL once the thread ends */
    PyTypeObject *call_type;     /* owned */
} Inbox;

/* The loop, for its own thread; NULL with an exception set. */
static AioLoop *
inbox_loop(PyObject *self)
{
    AioLoop *loop = ((Inbox *)self)->loop;
    if (loop == NULL || loop->thread_id != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "this inbox belongs to another thread");
        return NULL;
    }
    return loop;
}

static PyObject *
inbox_get_fd(PyObject *self, void *Py_UNUSED(closure))
{
    AioLoop *loop = inbox_loop(self);
    return loop == NULL ? NULL : PyLong_FromLong(aio_wake_fd(&loop->wake));
}

/* A task that can't even be begun fails with the exception that is set, which is cleared. */
static void
fail(AioLoop *loop, AioTask *task)
{
    aio_failure_encode(loop->state, &task->message);
    aio_coroutines_finish(loop, task);
    aio_task_complete(task, AIO_TASK_RAISED);
}

static PyObject *
inbox_take(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioLoop *loop = inbox_loop(self);
    AioLoopNews news;
    AioListNode *link;

    if (loop == NULL) {
        return NULL;
    }
    aio_home_settle(loop->home);
    PyObject *calls = PyList_New(0);
    if (calls == NULL) {
        return NULL;
    }
    aio_coroutines_take(loop, &news);
    while ((link = aio_list_pop_first(&news.calls)) != NULL) {
        AioTask *task = aio_container_of(link, AioTask, loop_link);
        PyObject *call = aio_async_call_new(((Inbox *)self)->call_type, loop, task);
        if (call == NULL) {
            fail(loop, task);
        }
        else if (PyList_Append(calls, call) < 0) {
            PyErr_Clear(); /* nobody has it: it ends as one that was dropped */
        }
        Py_XDECREF(call);
    }
    return Py_BuildValue("(NOIO)", calls, news.has_abandoned ? Py_True : Py_False, news.rounds,
                         news.is_over ? Py_True : Py_False);
}

static PyObject *
inbox_prepare(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    AioLoop *loop = inbox_loop(self);
    if (loop == NULL) {
        return NULL;
    }
    if (count != 2 || !PyExceptionClass_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "prepare(cancelled, await_any)");
        return NULL;
    }
    if (aio_helper(loop->state, AIO_HELPER_CANCELLED_ERROR) == NULL) { /* so that it is there */
        return NULL;
    }
    pthread_mutex_lock(&loop->step_lock);
    loop->cancelled = args[0];
    pthread_mutex_unlock(&loop->step_lock);
    loop->await_any = args[1];
    Py_RETURN_NONE;
}

static PyObject *
inbox_note_arrival(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioLoop *loop = ((Inbox *)self)->loop;
    if (loop != NULL && loop->thread_id == PyThread_get_thread_ident()) {
        aio_async_call_note_arrival(loop);
    }
    Py_RETURN_NONE;
}

static void
inbox_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Inbox *)self)->call_type);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef inbox_methods[] = {
    {"take", inbox_take, METH_NOARGS,
     PyDoc_STR("take(): new calls; whether some were abandoned; how often the pool's stop asked;\n"
               "and whether all is over.")},
    {"prepare", (PyCFunction)(void (*)(void))inbox_prepare, METH_FASTCALL,
     PyDoc_STR("prepare(cancelled, await_any): both must be kept for as long as the loop runs.")},
    {"note_arrival", inbox_note_arrival, METH_NOARGS,
     PyDoc_STR("What was sent to the step that runs has been raised in it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef inbox_getset[] = {
    {"fd", inbox_get_fd, NULL, PyDoc_STR("Readable when there is something to take."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot inbox_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What comes to a worker's event loop.")},
    {Py_tp_methods, inbox_methods},
    {Py_tp_getset, inbox_getset},
    {Py_tp_dealloc, inbox_dealloc},
    {0, NULL},
};

static PyType_Spec inbox_spec = {
    .name = "aiointerpreters._core.Inbox",
    .basicsize = sizeof(Inbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = inbox_slots,
};

/* The types are made here, so that workers that run no coroutine don't have them. */
static PyObject *
inbox_new(AioLoop *loop)
{
    PyObject *module = PyType_GetModule(loop->state->pool_type); /* borrowed */
    PyTypeObject *inbox_type = NULL, *call_type = NULL;
    Inbox *inbox = NULL;

    if (module == NULL ||
        (inbox_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &inbox_spec, NULL)) ==
            NULL ||
        (call_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &aio_async_call_spec,
                                                              NULL)) == NULL) {
        goto done;
    }
    inbox = (Inbox *)inbox_type->tp_alloc(inbox_type, 0);
    if (inbox != NULL) {
        inbox->loop = loop;
        inbox->call_type = (PyTypeObject *)Py_NewRef(call_type);
    }
done:
    Py_XDECREF(call_type);
    Py_XDECREF(inbox_type);
    return (PyObject *)inbox;
}

/* ---- the thread ---------------------------------------------------------- */

/* From here on interrupters may send something to this thread, or (0) no longer. */
static void
publish_thread(AioLoop *loop, unsigned long thread_id)
{
    pthread_mutex_lock(&loop->step_lock);
    loop->thread_id = thread_id;
    loop->cancelled = NULL;
    pthread_mutex_unlock(&loop->step_lock);
    loop->state->loop_thread_id = thread_id;
    loop->state->loop_interruption = NULL;
}

/* The loop could not be run: what is in its inbox fails with the exception that is set,
 * which is cleared. */
static void
fail_inbox(AioLoop *loop)
{
    PyObject *exception = PyErr_GetRaisedException();
    AioLoopNews news;
    AioListNode *link;

    aio_coroutines_take(loop, &news);
    while ((link = aio_list_pop_first(&news.calls)) != NULL) {
        PyErr_SetRaisedException(Py_NewRef(exception));
        fail(loop, aio_container_of(link, AioTask, loop_link));
    }
    Py_DECREF(exception);
}

/* What the thread is to run, a borrowed reference, with all that it needs of asyncio; and `typing`,
 * which others are not to find half loaded later. NULL with an exception set. */
static PyObject *
load(AioState *state)
{
    PyObject *typing, *run = NULL;
    aio_imports_enter_gate(state);
    typing = PyImport_ImportModule("typing");
    if (typing != NULL) {
        run = aio_helper(state, AIO_HELPER_RUN_LOOP);
        Py_DECREF(typing);
    }
    aio_imports_leave_gate(state);
    return run;
}

/* The thread's life inside the interpreter, whose GIL is held. */
static void
live(AioLoop *loop)
{
    PyObject *inbox = NULL, *run = NULL, *none = NULL;

    loop->owner_thread = PyThreadState_Get();
    publish_thread(loop, PyThread_get_thread_ident());
    inbox = inbox_new(loop);
    run = inbox == NULL ? NULL : load(loop->state);
    none = run == NULL ? NULL : PyObject_CallOneArg(run, inbox);
    PyThreadState_SetAsyncExc(loop->thread_id, NULL); /* what was sent, and did not arrive */
    if (none == NULL) {
        fail_inbox(loop);
    }
    aio_async_call_drop_all(loop);
    if (inbox != NULL) {
        ((Inbox *)inbox)->loop = NULL;
    }
    aio_blocked_end_work(loop->home, AIO_BLOCKED_LOOP);
    publish_thread(loop, 0);
    loop->await_any = NULL;
    aio_function_cache_clear(&loop->functions);
    Py_XDECREF(none);
    Py_XDECREF(inbox);
}

static void
loop_main(void *argument)
{
    static const char *const no_memory[2] = {"MemoryError", ""};
    AioLoop *loop = argument;
    AioPool *pool = loop->pool;
    PyThreadState *tstate = PyThreadState_New(loop->interpreter);

    if (tstate != NULL) {
        PyEval_RestoreThread(tstate);
        live(loop);
        PyThreadState_Clear(tstate);
        PyThreadState_DeleteCurrent();
    }
    aio_coroutines_end_thread(loop, tstate == NULL ? no_memory : NULL);
    aio_pool_release(pool);
}

int
aio_loop_start_thread(AioLoop *loop)
{
    AioPool *pool = aio_pool_acquire(loop->pool);
    AioWake wake;

    if (aio_wake_init(&wake) < 0) {
        aio_pool_release(pool);
        return -1;
    }
    pthread_mutex_lock(&pool->coroutines.lock);
    loop->wake = wake;
    loop->has_wake = true;
    pthread_mutex_unlock(&pool->coroutines.lock);
    if (aio_thread_start(loop_main, loop, "aio-loop") < 0) {
        aio_pool_release(pool);
        return -1;
    }
    return 0;
}

/* ---- interrupting -------------------------------------------------------- */

bool
aio_loop_is_in(AioLoop *loop, AioTask *task)
{
    pthread_mutex_lock(&loop->step_lock);
    const bool is_in = loop->current == task;
    pthread_mutex_unlock(&loop->step_lock);
    return is_in;
}

/* Raise an exception in the step that runs. `step_lock` and the GIL are held. */
static void
send_to_thread(AioLoop *loop, PyObject *exception)
{
    loop->has_sent = true;
    loop->state->loop_interruption = exception;
    PyThreadState_SetAsyncExc(loop->thread_id, exception);
    aio_blocked_interrupt_work(loop->home, AIO_BLOCKED_LOOP);
}

/* With the GIL. */
static void
interrupt(AioLoop *loop)
{
    const unsigned late = aio_coroutines_late(loop);
    bool may_break_import = false;
    pthread_mutex_lock(&loop->step_lock);
    if (loop->importing > 0 && (loop->insist || late >= LATE)) {
        PyThreadState *const thread = loop->owner_thread; /* in an import, so it does not end */
        pthread_mutex_unlock(&loop->step_lock);
        may_break_import = !aio_imports_is_in_system(thread);
        pthread_mutex_lock(&loop->step_lock);
    }
    AioTask *task = loop->current;
    if (loop->held_off > 0 || (loop->importing > 0 && !may_break_import)) {
        /* In a step, it asks itself for an interrupter when it is that no more; else the pool's
         * next round does. */
    }
    else if (task != NULL && loop->cancelled != NULL) {
        /* What it does about its cancellation is not to be cancelled in turn, within the
         * grace period. */
        const bool is_to_end = atomic_load_explicit(&task->abandoned, memory_order_relaxed) &&
                               !aio_async_call_is_cancelled(loop);
        if (!loop->has_sent && (is_to_end || loop->insist || late >= LATE)) {
            loop->insist = false;
            send_to_thread(loop, loop->cancelled);
        }
        else if (loop->has_sent && (loop->insist || late >= VERY_LATE)) { /* it swallowed that */
            loop->insist = false;
            send_to_thread(loop, loop->state->interrupted);
        }
    }
    else if (loop->thread_id != 0 && late >= VERY_LATE) {
        send_to_thread(loop, loop->state->interrupted);
    }
    pthread_mutex_unlock(&loop->step_lock);
}

bool
aio_loop_is_stuck(AioLoop *loop, int64_t now, int64_t *again, AioStuckNotice **notice)
{
    AioPool *pool = loop->pool;
    int64_t told_at = aio_pool_stopping_at_ns(pool);
    bool gives_up = false;

    *again = AIO_NEVER;
    pthread_mutex_lock(&loop->step_lock);
    AioTask *task = loop->current; /* while it is that it is not freed */
    if (told_at == 0 && task != NULL &&
        atomic_load_explicit(&task->abandoned, memory_order_acquire)) {
        told_at = loop->abandoned_step_began_ns != 0 ? loop->abandoned_step_began_ns
                                                     : task->abandoned_at_ns;
        gives_up = now >= told_at + pool->grace_ns && !task->is_given_up;
        if (gives_up) {
            task->is_given_up = true;
            *notice = aio_stuck_notice_new(task, now - told_at);
            (void)aio_stuck_tell(task, aio_container_of(loop, AioWorker, loop));
        }
    }
    pthread_mutex_unlock(&loop->step_lock);
    if (gives_up) { /* who drains the pool waits for it no longer */
        aio_pending_done(&pool->unfinished);
    }
    if (told_at == 0 || !aio_coroutines_has_thread(loop)) {
        return false;
    }
    if (now < told_at + pool->grace_ns) {
        loop->pause_ns = 0;
        *again = told_at + pool->grace_ns;
        return false;
    }
    *again = now + aio_interrupt_next_pause(&loop->pause_ns);
    return true;
}

bool
aio_loop_is_held_up(AioLoop *loop)
{
    pthread_mutex_lock(&loop->step_lock);
    const bool is_held_up = loop->current != NULL &&
                            atomic_load_explicit(&loop->current->abandoned, memory_order_relaxed);
    pthread_mutex_unlock(&loop->step_lock);
    return is_held_up;
}

void
aio_loop_insist(AioLoop *loop)
{
    if (aio_pool_is_stopping(loop->pool)) {
        (void)aio_coroutines_press(loop);
        return;
    }
    pthread_mutex_lock(&loop->step_lock);
    loop->insist = loop->current != NULL;
    pthread_mutex_unlock(&loop->step_lock);
    aio_coroutines_interrupt(loop);
}

void
aio_loop_hold_off(AioLoop *loop, int change, bool is_import)
{
    bool is_due = false;
    pthread_mutex_lock(&loop->step_lock);
    if (loop->thread_id == PyThread_get_thread_ident()) {
        *(is_import ? &loop->importing : &loop->held_off) += change;
        is_due = loop->current != NULL && loop->held_off == 0 && loop->importing == 0 &&
                 (aio_pool_is_stopping(loop->pool) ||
                  atomic_load_explicit(&loop->current->abandoned, memory_order_relaxed));
    }
    pthread_mutex_unlock(&loop->step_lock);
    if (is_due) {
        aio_coroutines_interrupt(loop);
    }
}

bool
aio_loop_has_sent(AioLoop *loop, PyObject *type)
{
    pthread_mutex_lock(&loop->step_lock);
    const bool has_sent = loop->has_sent && loop->thread_id == PyThread_get_thread_ident() &&
                          type == loop->state->loop_interruption;
    pthread_mutex_unlock(&loop->step_lock);
    return has_sent;
}

bool
aio_loop_should_stop(AioLoop *loop, bool *should_stop)
{
    pthread_mutex_lock(&loop->step_lock);
    const bool is_here = loop->thread_id == PyThread_get_thread_ident();
    AioTask *task = loop->current;
    *should_stop =
        aio_pool_is_stopping(loop->pool) ||
        (is_here && task != NULL && atomic_load_explicit(&task->abandoned, memory_order_relaxed));
    pthread_mutex_unlock(&loop->step_lock);
    return is_here;
}

static void
interrupter_main(void *argument)
{
    AioLoop *loop = argument;
    AioPool *pool = loop->pool;
    do {
        PyThreadState *tstate = PyThreadState_New(loop->interpreter);
        if (tstate == NULL) {
            (void)aio_coroutines_late(loop); /* it has looked, as far as it can */
            continue;
        }
        PyEval_RestoreThread(tstate);
        interrupt(loop);
        PyThreadState_Clear(tstate);
        PyThreadState_DeleteCurrent();
    } while (aio_coroutines_end_interrupter(loop));
    aio_pool_release(pool);
}

void
aio_loop_start_interrupter(AioLoop *loop)
{
    AioPool *pool = aio_pool_acquire(loop->pool);
    if (aio_thread_start(interrupter_main, loop, "aio-interrupt") < 0) {
        do { /* for whoever asks meanwhile, too */
            (void)aio_coroutines_late(loop);
        } while (aio_coroutines_end_interrupter(loop));
        aio_pool_release(pool);
    }
}
