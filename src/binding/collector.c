/* collector.c: where results come to that no event loop waits for.
 *
 * A thread that waits for a result (the leader) takes all that comes meanwhile, so that a call
 * takes no more wake-ups than one: by a thread for that it would take two, and two hand-overs of
 * the GIL. Somebody must look after the mailbox at all other times: the thread of an executor
 * that is in run() (the follower), or an event loop of whatever kind, which watches the
 * descriptor.
 *
 * The leader spins for some microseconds, without the GIL, before it sleeps, as an asyncio loop
 * does (bridge.c): whether that pays is learnt likewise. Then it sleeps as everything in C does
 * (blocked.h): so signals, and the end of its interpreter, wake it.
 */
#include "collector.h"

#include "blocked.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/platform.h"
#include "pool.h"

static const int64_t SPIN_NS = 25 * 1000;

/* As for the polls of bridge.c. */
enum { MAX_CREDIT = 8, COST_OF_SPINNING_IN_VAIN = 4, WAITS_PER_TRIAL = 32 };

enum { SPINS_BETWEEN_CLOCK_READS = 32 };

/* This thread leads, and delivers. */
static _Thread_local bool is_leading;

/* ---- the leader ----------------------------------------------------------- */

/* No GIL. */
static bool
spin_for_mail(AioMailbox *mailbox)
{
    const int64_t until = aio_clock_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPINS_BETWEEN_CLOCK_READS; i++) {
            aio_cpu_relax();
            if (aio_mailbox_has_mail(mailbox)) {
                return true;
            }
        }
    } while (aio_clock_ns() < until);
    return false;
}

/* Whether mail has come while we did. */
static bool
spin(AioBridge *collector)
{
    AioMailbox *mailbox = &collector->channel->mailbox;
    bool in_time;
    if (!collector->leader_may_spin) {
        return false;
    }
    if (collector->poll_credit == 0 && ++collector->submits_without_poll < WAITS_PER_TRIAL) {
        return false;
    }
    collector->submits_without_poll = 0;
    aio_mailbox_attend(mailbox);
    /* clang-format off */
    Py_BEGIN_ALLOW_THREADS
    in_time = spin_for_mail(mailbox);
    Py_END_ALLOW_THREADS
        /* clang-format on */
        const bool has_mail = aio_mailbox_leave(mailbox);
    if (in_time) {
        collector->poll_credit += collector->poll_credit < MAX_CREDIT;
    }
    else {
        collector->poll_credit -= COST_OF_SPINNING_IN_VAIN;
        collector->poll_credit = collector->poll_credit < 0 ? 0 : collector->poll_credit;
    }
    return has_mail;
}

static void
set_leader(AioChannel *channel, AioBlocked *leader)
{
    pthread_mutex_lock(&channel->home->lock);
    channel->leader = leader;
    pthread_mutex_unlock(&channel->home->lock);
}

static AioBlockedResult
sleep_as_leader(AioState *state, AioChannel *channel, AioMail *const *slot, int64_t deadline_ns)
{
    AioBlocked blocked;
    AioBlockedResult result = AIO_BLOCKED_WOKEN;
    if (aio_blocked_init(&blocked, state, false) < 0) {
        return AIO_BLOCKED_FAILED;
    }
    set_leader(channel, &blocked);
    /* What comes from now on rings: even if the follower attends, which may be in a callback. */
    if (*slot != NULL && !aio_mailbox_leave(&channel->mailbox)) {
        result = aio_blocked_wait(&blocked, state, deadline_ns);
    }
    set_leader(channel, NULL);
    aio_blocked_destroy(&blocked);
    return result;
}

/* Owner only. */
static void
wake_follower(AioBridge *collector)
{
    AioChannel *channel = collector->channel;
    if (channel != NULL && channel->home->fork_generation == aio_fork_generation()) {
        pthread_mutex_lock(&channel->home->lock);
        if (channel->follower != NULL) {
            aio_blocked_wake_locked(channel->follower);
        }
        pthread_mutex_unlock(&channel->home->lock);
    }
}

/* Owner only. */
static void
tell_follower(AioBridge *collector)
{
    if (collector->follower_waits) {
        wake_follower(collector);
    }
}

/* Wait for mail, or that somebody else settles what we wait for. */
static AioBlockedResult
await_mail(AioState *state, AioBridge *collector, AioMail *const *slot, int64_t deadline_ns)
{
    /* The collector may be closed meanwhile. */
    AioChannel *channel = aio_channel_acquire(collector->channel);
    AioBlockedResult result = AIO_BLOCKED_WOKEN;
    collector->is_led = true;
    if (!spin(collector) && *slot != NULL) {
        result = sleep_as_leader(state, channel, slot, deadline_ns);
    }
    collector->is_led = false;
    tell_follower(collector);
    aio_channel_release(channel);
    return result;
}

/* The follower, in a callback that waits for a result: another thread leads, but need not until
 * that comes. Wait until that thread has settled something, or leads no more. */
static AioBlockedResult
await_leader(AioState *state, AioBridge *collector, int64_t deadline_ns)
{
    AioChannel *channel = aio_channel_acquire(collector->channel);
    collector->follower_waits = true;
    /* Its own, further down this thread's stack. */
    const AioBlockedResult result = aio_blocked_wait(channel->follower, state, deadline_ns);
    collector->follower_waits = false;
    aio_channel_release(channel);
    return result;
}

static bool
has_mail(AioBridge *collector)
{
    return collector->arrived != NULL || aio_mailbox_has_mail(&collector->channel->mailbox);
}

int
aio_collector_lead(AioState *state, AioBridge *collector, AioMail *const *slot, int64_t deadline_ns)
{
    const bool follows = collector->follower_thread == PyThread_get_thread_ident();
    int result = 0;
    /* In flight, so the collector is open. */
    while (result == 0 && *slot != NULL) {
        if (aio_pool_is_forked(collector->pool)) {
            aio_raise_runner_error(state, "the call was made in the parent process: its result "
                                          "does not come to a forked child");
            return -1;
        }
        if (has_mail(collector)) {
            const bool was_leading = is_leading;
            is_leading = !follows;
            result = aio_bridge_deliver_all(collector);
            is_leading = was_leading;
        }
        else if ((collector->is_led && !follows) ||
                 (deadline_ns >= 0 && aio_clock_ns() >= deadline_ns)) {
            break;
        }
        else if (collector->is_led) {
            result = await_leader(state, collector, deadline_ns) == AIO_BLOCKED_FAILED ? -1 : 0;
        }
        else if (await_mail(state, collector, slot, deadline_ns) == AIO_BLOCKED_FAILED) {
            result = -1;
        }
    }
    /* What has been left, or came while only we were rung, others shall take. */
    if (collector->channel != NULL && has_mail(collector)) {
        aio_channel_ring(collector->channel);
    }
    return result;
}

void
aio_collector_tell_waiting(AioBridge *collector)
{
    if (collector->is_led && collector->channel != NULL) {
        aio_channel_ring(collector->channel);
    }
    tell_follower(collector);
}

bool
aio_collector_defer(AioBridge *collector, PyObject *future)
{
    bool is_deferred = false;
    Py_BEGIN_CRITICAL_SECTION(collector);
    if (is_leading && collector->follower_thread != PYTHREAD_INVALID_THREAD_ID) {
        if (collector->callbacks_due == NULL) {
            collector->callbacks_due = PyList_New(0);
        }
        is_deferred = collector->callbacks_due != NULL &&
                      PyList_Append(collector->callbacks_due, future) == 0;
        if (is_deferred) {
            wake_follower(collector);
        }
        else {
            PyErr_Clear();
        }
    }
    Py_END_CRITICAL_SECTION();
    return is_deferred;
}

void
aio_collector_wake_all(AioChannel *channel)
{
    AioHome *home = channel->home;
    if (home->fork_generation != aio_fork_generation()) {
        return;
    }
    pthread_mutex_lock(&home->lock);
    if (channel->leader != NULL) {
        aio_blocked_wake_locked(channel->leader);
    }
    if (channel->follower != NULL) {
        aio_blocked_wake_locked(channel->follower);
    }
    pthread_mutex_unlock(&home->lock);
    aio_wake_signal(&channel->wake);
}

/* ---- the follower ---------------------------------------------------------- */

static bool
become_follower(AioChannel *channel, AioBlocked *blocked)
{
    pthread_mutex_lock(&channel->home->lock);
    const bool is_free = channel->follower == NULL;
    if (is_free) {
        channel->follower = blocked;
    }
    pthread_mutex_unlock(&channel->home->lock);
    return is_free;
}

static void
stop_following(AioChannel *channel)
{
    pthread_mutex_lock(&channel->home->lock);
    channel->follower = NULL;
    pthread_mutex_unlock(&channel->home->lock);
}

/* Call the callbacks that leaders have left. */
static void
call_callbacks(AioState *state, AioBridge *collector)
{
    PyObject *futures = collector->callbacks_due;
    collector->callbacks_due = NULL;
    for (Py_ssize_t i = 0; futures != NULL && i < PyList_GET_SIZE(futures); i++) {
        PyObject *future = PyList_GET_ITEM(futures, i);
        PyObject *result = PyObject_CallMethodNoArgs(future, state->str_invoke_callbacks);
        if (result == NULL) {
            PyErr_WriteUnraisable(future);
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(futures);
}

/* Deliver, until the collector is closed. 0, or -1 with an exception set. */
static int
follow(AioState *state, AioBridge *collector, AioChannel *channel, AioBlocked *blocked)
{
    while (collector->channel != NULL) {
        if (collector->callbacks_due != NULL) {
            call_callbacks(state, collector);
        }
        else if (aio_bridge_deliver_all(collector) < 0) {
            PyErr_WriteUnraisable((PyObject *)collector); /* of a callback; others wait */
        }
        else if (collector->channel != NULL && !aio_mailbox_leave(&channel->mailbox)) {
            if (aio_blocked_wait(blocked, state, AIO_NEVER) == AIO_BLOCKED_FAILED) {
                return -1;
            }
            if (!collector->is_led) { /* a leader that sleeps must be rung */
                aio_mailbox_attend(&channel->mailbox);
            }
        }
    }
    return 0;
}

static int
run(AioState *state, AioBridge *collector)
{
    AioBlocked blocked;
    int result = -1;
    AioChannel *channel = aio_channel_acquire(collector->channel);
    /* It has to serve to the end, and even where all descriptors are taken. */
    if (aio_blocked_init(&blocked, state, true) == 0) {
        if (!become_follower(channel, &blocked)) {
            PyErr_SetString(PyExc_RuntimeError, "another thread is in run() of this collector");
        }
        else {
            collector->follower_thread = PyThread_get_thread_ident();
            result = follow(state, collector, channel, &blocked);
            collector->follower_thread = PYTHREAD_INVALID_THREAD_ID;
            stop_following(channel);
            call_callbacks(state, collector);
            if (aio_mailbox_leave(&channel->mailbox)) {
                aio_channel_ring(channel);
            }
        }
        aio_blocked_destroy(&blocked);
    }
    aio_channel_release(channel);
    return result;
}

/* ---- the type --------------------------------------------------------------- */

static PyObject *
collector_run(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioBridge *collector = (AioBridge *)self;
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (collector->channel != NULL && !aio_pool_is_forked(collector->pool)) {
        result = run(aio_state_of_module(collector->module), collector);
    }
    Py_END_CRITICAL_SECTION();
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
collector_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioBridge *collector = (AioBridge *)self;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (collector->channel != NULL) {
        aio_bridge_cancel_all(aio_state_of_module(collector->module), collector);
        aio_bridge_close(collector);
    }
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
collector_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioBridge *collector = (AioBridge *)self;
    int fd = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (collector->channel != NULL) {
        fd = aio_wake_fd(&collector->channel->wake);
    }
    Py_END_CRITICAL_SECTION();
    if (fd < 0) {
        PyErr_SetString(PyExc_ValueError, "the collector is closed: it has no descriptor");
        return NULL;
    }
    return PyLong_FromLong(fd);
}

static PyObject *
collector_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    bool is_closed;
    Py_BEGIN_CRITICAL_SECTION(self);
    is_closed = ((AioBridge *)self)->channel == NULL;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(is_closed);
}

static PyObject *
collector_defer(PyObject *self, PyObject *future)
{
    return PyBool_FromLong(aio_collector_defer((AioBridge *)self, future));
}

static PyMethodDef collector_methods[] = {
    {"fileno", collector_fileno, METH_NOARGS,
     PyDoc_STR("The descriptor that is readable when there is something to drain, unless a\n"
               "thread is in run(), or waits for one of the futures.")},
    {"drain", aio_bridge_drain, METH_NOARGS,
     PyDoc_STR("Settle the futures of all results that have arrived, in this thread.")},
    {"run", collector_run, METH_NOARGS,
     PyDoc_STR("Settle futures, in this thread, until the collector is closed.")},
    {"defer", collector_defer, METH_O,
     PyDoc_STR(
         "defer(future): have the callbacks of a future that is done called in the thread that\n"
         "is in run(), if this one waits for a result; returns whether that is so.")},
    {"close", collector_close, METH_NOARGS,
     PyDoc_STR("Cancel what is pending, and stop it. The pool's end does it as well.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef collector_getset[] = {
    {"closed", collector_get_closed, NULL, PyDoc_STR("No result will come any more."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot collector_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Where results come to that no event loop waits for.")},
    {Py_tp_methods, collector_methods},
    {Py_tp_getset, collector_getset},
    {Py_tp_traverse, aio_bridge_traverse},
    {Py_tp_clear, aio_bridge_clear},
    {Py_tp_dealloc, aio_bridge_dealloc},
    {0, NULL},
};

PyType_Spec aio_collector_spec = {
    .name = "aiointerpreters._core.Collector",
    .basicsize = sizeof(AioBridge),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_MANAGED_WEAKREF,
    .slots = collector_slots,
};
