/* sleep.c: time.sleep() in a worker, which can be interrupted.
 *
 * CPython's own sleeps on through every signal, and looks for an exception that was sent to
 * its thread only when it has slept enough. This one waits as a queue does (blocked.h).
 * Where nobody can want to interrupt it, or what it is given is nothing for it, it leaves
 * the matter to CPython's, which also complains of what is wrong.
 */
#include "sleep.h"

#include "blocked.h"
#include "core/clock.h"
#include "state.h"

/* What is shorter is over before it could be interrupted. */
static const double SHORTEST_S = 0.001;
/* A bit less than CPython's longest: it can be added to a time. */
static const double LONGEST_S = 9e9;

/* Whether the sleep, of so many seconds, is for us. False for errors, which stay set. */
static bool
is_ours(AioState *state, PyObject *seconds, double *value)
{
    const unsigned long thread_id = PyThread_get_thread_ident();
    if ((state->worker_thread_id != thread_id && state->loop_thread_id != thread_id) ||
        !(PyFloat_CheckExact(seconds) || PyLong_CheckExact(seconds))) {
        return false;
    }
    *value = PyFloat_AsDouble(seconds);
    return *value >= SHORTEST_S && *value <= LONGEST_S;
}

static PyObject *
sleep_interruptibly(AioState *state, double seconds)
{
    const int64_t until = aio_clock_ns() + (int64_t)(seconds * 1e9);
    AioBlocked blocked;
    if (PySys_Audit("time.sleep", "d", seconds) < 0 ||
        aio_blocked_init(&blocked, state, true) < 0) {
        return NULL;
    }
    const AioBlockedResult result = aio_blocked_wait(&blocked, state, until);
    aio_blocked_destroy(&blocked);
    return result == AIO_BLOCKED_FAILED ? NULL : Py_NewRef(Py_None);
}

PyObject *
aio_sleep(PyObject *module, PyObject *seconds)
{
    AioState *state = aio_state_of_module(module);
    double value;

    if (is_ours(state, seconds, &value)) {
        return sleep_interruptibly(state, value);
    }
    PyErr_Clear(); /* OverflowError: CPython's own says it better */
    PyObject *sleep = aio_helper(state, AIO_HELPER_SLEEP);
    return sleep == NULL ? NULL : PyObject_CallOneArg(sleep, seconds);
}

int
aio_sleep_install(PyObject *module)
{
    int result = -1;
    PyObject *time = PyImport_ImportModule("time");
    PyObject *ours = PyObject_GetAttrString(module, "sleep");
    /* CPython's own is remembered before its place is taken. */
    if (time != NULL && ours != NULL &&
        aio_helper(aio_state_of_module(module), AIO_HELPER_SLEEP) != NULL) {
        result = PyObject_SetAttrString(time, "sleep", ours);
    }
    Py_XDECREF(ours);
    Py_XDECREF(time);
    return result;
}
