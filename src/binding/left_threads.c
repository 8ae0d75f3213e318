/* left_threads.c: the Python threads that user code left running, when their worker ends.
 *
 * What is to be known of them, _left_threads.py knows. It starts a thread that joins them one
 * after another and then calls aio_left_threads_ended(), for which the worker waits here in
 * C: so that wait has a limit, and whoever stops the pool can end it.
 */
#include "left_threads.h"

#include "core/clock.h"

/* Whether there are any, as far as `threading` knows; most workers have not even imported
 * it. Clears its own errors: sys.modules may hold anything. */
static bool
are_there_any(void)
{
    long count = 1;
    PyObject *name = PyUnicode_FromString("threading");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    PyObject *active = module == NULL ? NULL : PyObject_CallMethod(module, "active_count", NULL);
    if (active != NULL) {
        count = PyLong_AsLong(active);
    }
    PyErr_Clear();
    Py_XDECREF(active);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return count > 1;
}

void
aio_left_threads_find(AioLeftThreads *left, PyObject *module, bool is_in_a_hurry)
{
    AioState *state = aio_state_of_module(module);
    *left = (AioLeftThreads){.state = state};
    if (!are_there_any()) {
        return;
    }
    PyObject *type = aio_helper(state, AIO_HELPER_LEFT_THREADS);
    PyObject *object = type == NULL ? NULL
                                    : PyObject_CallFunction(type, "OO", module,
                                                            is_in_a_hurry ? Py_True : Py_False);
    if (object == NULL || aio_blocked_init(&left->blocked, state, true) < 0) {
        PyErr_WriteUnraisable(type);
        Py_XDECREF(object);
        return; /* CPython waits for them, then */
    }
    left->object = object;
    state->left_threads = left;
    PyObject *found = PyObject_CallMethod(object, "watch", NULL);
    if (found == NULL) {
        PyErr_WriteUnraisable(object);
    }
    if (found != Py_True) {
        aio_left_threads_clear(left);
    }
    Py_XDECREF(found);
}

bool
aio_left_threads_await(AioLeftThreads *left, int64_t timeout_ns, bool interruptible)
{
    if (left->object == NULL) {
        return true;
    }
    const int64_t deadline_ns = timeout_ns < 0 ? -1 : aio_clock_ns() + timeout_ns;
    AioBlockedResult result = AIO_BLOCKED_WOKEN;
    while (!left->ended) {
        result = aio_blocked_wait(&left->blocked, left->state, deadline_ns);
        left->ended = result == AIO_BLOCKED_WOKEN;
        PyErr_Clear();
        /* An interruption that came just too late for one wait fails the next. */
        if (result == AIO_BLOCKED_TIMED_OUT || interruptible) {
            break;
        }
    }
    return left->ended;
}

/* Take the result of a call, or print its exception. */
static void
finish_call(AioLeftThreads *left, PyObject *result)
{
    if (result == NULL) { /* a warning that is to be an error, for one */
        PyErr_WriteUnraisable(left->object);
    }
    Py_XDECREF(result);
}

void
aio_left_threads_interrupt(AioLeftThreads *left)
{
    finish_call(left, PyObject_CallMethod(left->object, "interrupt", NULL));
}

void
aio_left_threads_warn(AioLeftThreads *left, bool in_a_hurry)
{
    finish_call(left,
                PyObject_CallMethod(left->object, "warn", "O", in_a_hurry ? Py_True : Py_False));
}

void
aio_left_threads_clear(AioLeftThreads *left)
{
    if (left->object != NULL) {
        left->state->left_threads = NULL;
        aio_blocked_destroy(&left->blocked);
        Py_CLEAR(left->object);
    }
}

PyObject *
aio_left_threads_ended(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioLeftThreads *left = aio_state_of_module(module)->left_threads;
    if (left != NULL) {
        aio_blocked_wake(&left->blocked);
    }
    Py_RETURN_NONE;
}

PyObject *
aio_left_threads_interrupt_one(PyObject *module, PyObject *identifier)
{
    const unsigned long thread_id = PyLong_AsUnsignedLong(identifier);
    if (thread_id == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *type = aio_state_of_module(module)->interrupted;
    return PyBool_FromLong(PyThreadState_SetAsyncExc(thread_id, type));
}
