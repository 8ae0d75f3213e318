/* ticket.c: what binds a CallFuture to its call. */
#include "ticket.h"

#include "collector.h"
#include "core/clock.h"
#include "future.h"
#include "pool.h"
#include "task.h"

typedef struct Ticket {
    PyObject_HEAD AioMail *mail; /* borrowed, NULL unless it is in flight */
    AioBridge *collector;        /* owned */
} Ticket;

static AioState *
state_of(Ticket *ticket)
{
    return aio_state_of_module(ticket->collector->module);
}

PyObject *
aio_ticket_new_future(AioState *state, AioBridge *collector)
{
    PyObject *type = aio_helper(state, AIO_HELPER_CALL_FUTURE);
    PyObject *future = type == NULL ? NULL : PyObject_CallNoArgs(type);
    Ticket *ticket = future == NULL ? NULL : PyObject_GC_New(Ticket, state->ticket_type);
    if (ticket == NULL) {
        Py_XDECREF(future);
        return NULL;
    }
    ticket->mail = NULL;
    ticket->collector = (AioBridge *)Py_NewRef(collector);
    PyObject_GC_Track(ticket);
    if (PyObject_SetAttr(future, state->str_ticket, (PyObject *)ticket) < 0) {
        Py_CLEAR(future);
    }
    Py_DECREF(ticket);
    return future;
}

AioMail **
aio_ticket_mail_slot(AioState *state, PyObject *future)
{
    static AioMail *nothing; /* of a future that somebody has taken apart; stays NULL */
    PyObject *ticket = PyObject_GetAttr(future, state->str_ticket);
    if (ticket == NULL) {
        PyErr_Clear();
        return &nothing;
    }
    AioMail **slot = &((Ticket *)ticket)->mail;
    Py_DECREF(ticket); /* the future has it */
    return slot;
}

/* ---- settle ------------------------------------------------------------------ */

/* 0, or -1 with an exception set. */
static int
settle_once(AioState *state, PyObject *future, AioHelper how, PyObject *value)
{
    PyObject *args[] = {future, value};
    PyObject *function = aio_helper(state, how);
    PyObject *result =
        function == NULL ? NULL : PyObject_Vectorcall(function, args, value == NULL ? 1 : 2, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Clears its own errors. */
static bool
is_done(AioState *state, PyObject *future)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, state->str_done);
    const bool result = done == Py_True;
    if (done == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(done);
    return result;
}

static bool
lost_race(AioState *state, PyObject *exception)
{
    PyObject *type = aio_helper(state, AIO_HELPER_LOST_RACE);
    if (type == NULL) {
        PyErr_Clear();
    }
    return type != NULL && PyErr_GivenExceptionMatches(exception, type);
}

int
aio_ticket_settle(AioState *state, PyObject *future, AioHelper how, PyObject *value)
{
    if (settle_once(state, future, how, value) == 0) {
        return 0;
    }
    PyObject *exception = PyErr_GetRaisedException();
    if (lost_race(state, exception)) {
        Py_DECREF(exception);
        return 0;
    }
    /* It is Python code, so in the main thread a signal may have broken it off (Ctrl-C). */
    if (!is_done(state, future) && settle_once(state, future, how, value) < 0) {
        PyErr_WriteUnraisable(future);
    }
    PyErr_SetRaisedException(exception);
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_WriteUnraisable(future);
        return 0;
    }
    return -1;
}

/* ---- methods ------------------------------------------------------------------ */

/* Settle it as cancelled: in flight no more, by our doing. True, or NULL with an exception set. */
static PyObject *
cancelled(Ticket *ticket, PyObject *future)
{
    return aio_ticket_settle(state_of(ticket), future, AIO_HELPER_SET_CANCELLED, NULL) < 0
               ? NULL
               : Py_NewRef(Py_True);
}

static PyObject *
ticket_cancel(PyObject *self, PyObject *future)
{
    Ticket *ticket = (Ticket *)self;
    bool taken;
    Py_BEGIN_CRITICAL_SECTION(ticket->collector);
    taken = ticket->mail != NULL && !aio_pool_is_forked(ticket->collector->pool) &&
            aio_task_withdraw(aio_task_of_mail(ticket->mail));
    if (taken) {
        aio_collector_tell_waiting(ticket->collector);
    }
    Py_END_CRITICAL_SECTION();
    return taken ? cancelled(ticket, future) : Py_NewRef(Py_False);
}

static PyObject *
ticket_interrupt(PyObject *self, PyObject *future)
{
    Ticket *ticket = (Ticket *)self;
    bool stopped;
    Py_BEGIN_CRITICAL_SECTION(ticket->collector);
    stopped = ticket->mail != NULL;
    if (stopped) {
        aio_task_abandon(aio_task_of_mail(ticket->mail));
        aio_collector_tell_waiting(ticket->collector);
    }
    Py_END_CRITICAL_SECTION();
    return stopped ? cancelled(ticket, future) : Py_NewRef(Py_False);
}

static PyObject *
ticket_is_waiting(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *ticket = (Ticket *)self;
    bool is_waiting;
    Py_BEGIN_CRITICAL_SECTION(ticket->collector);
    is_waiting = ticket->mail != NULL && !aio_pool_is_forked(ticket->collector->pool) &&
                 aio_task_is_waiting(aio_task_of_mail(ticket->mail));
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(is_waiting);
}

/* `seconds` from now; negative where there is no limit. -1 with an exception set, or 0. */
static int
deadline_of(PyObject *seconds, int64_t *deadline_ns)
{
    *deadline_ns = AIO_NEVER;
    if (seconds != Py_None) {
        const double value = PyFloat_AsDouble(seconds);
        if (value == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        const double longest = (double)(INT64_MAX / 4) / 1e9;
        const int64_t now = aio_clock_ns();
        *deadline_ns = value < 0 ? now : value < longest ? now + (int64_t)(value * 1e9) : AIO_NEVER;
    }
    return 0;
}

static PyObject *
ticket_wait(PyObject *self, PyObject *seconds)
{
    Ticket *ticket = (Ticket *)self;
    int64_t deadline_ns;
    int result;
    if (deadline_of(seconds, &deadline_ns) < 0) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(ticket->collector);
    result = aio_collector_lead(state_of(ticket), ticket->collector, &ticket->mail, deadline_ns);
    Py_END_CRITICAL_SECTION();
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
ticket_tell(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *ticket = (Ticket *)self;
    Py_BEGIN_CRITICAL_SECTION(ticket->collector);
    /* Settled by hand: its own result comes too late. */
    if (ticket->mail != NULL) {
        aio_task_abandon(aio_task_of_mail(ticket->mail));
    }
    aio_collector_tell_waiting(ticket->collector);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyObject *
ticket_defer(PyObject *self, PyObject *future)
{
    return PyBool_FromLong(aio_collector_defer(((Ticket *)self)->collector, future));
}

static int
ticket_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Ticket *)self)->collector);
    return 0;
}

/* Nothing clears it earlier: in a cycle with it is its collector, which can be cleared. */
static void
ticket_dealloc(PyObject *self)
{
    Ticket *ticket = (Ticket *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (ticket->mail != NULL) { /* its future has been taken apart */
        aio_future_unbind(ticket->mail);
    }
    Py_DECREF(ticket->collector);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef ticket_methods[] = {
    {"cancel", ticket_cancel, METH_O,
     PyDoc_STR("cancel(future): if no worker has begun the call, take it back, and settle the\n"
               "future (its own) as cancelled; returns whether it was so.")},
    {"interrupt", ticket_interrupt, METH_O,
     PyDoc_STR("interrupt(future): as cancel, but a call that runs is stopped as well.")},
    {"is_waiting", ticket_is_waiting, METH_NOARGS,
     PyDoc_STR("Whether the call waits for a worker.")},
    {"wait", ticket_wait, METH_O,
     PyDoc_STR(
         "wait(seconds | None): settle what comes, until that is the ticket's own future, or\n"
         "another thread will settle that, or time is up.")},
    {"defer", ticket_defer, METH_O, PyDoc_STR("As that of the collector.")},
    {"settled_by_hand", ticket_tell, METH_NOARGS,
     PyDoc_STR("The future is settled: stop the call, and whoever waits for it here.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What binds a CallFuture to its call.")},
    {Py_tp_methods, ticket_methods},
    {Py_tp_traverse, ticket_traverse},
    {Py_tp_dealloc, ticket_dealloc},
    {0, NULL},
};

PyType_Spec aio_ticket_spec = {
    .name = "aiointerpreters._core.Ticket",
    .basicsize = sizeof(Ticket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ticket_slots,
};
