/* interpreters.c: the least that a pool of interpreters costs, in time and in memory.
 *
 * So many threads each make an interpreter with a GIL of its own, configured as a worker's is
 * (binding/interpreter.h), with nothing of ours in it. When all are there, something may be called,
 * to see what they take; then each thread ends its own.
 *
 *     caller (its GIL released)            each thread
 *     start the threads                    new interpreter, its GIL released
 *     sleep ◄──── the last one wakes ───── one less to come
 *     note the time; meanwhile()
 *     let them end ──────────────────────► sleeps until then
 *     sleep ◄──── the last one wakes ───── ends its interpreter; one less to end
 *
 * The threads never have the caller's GIL. What they share is on the caller's stack, which stays
 * until the last of them is done with it: so its own waking is the last that a thread does to it.
 */
#include "floors.h"

#include <pthread.h>
#include <stdbool.h>

#include "binding/interpreter.h"
#include "core/clock.h"
#include "core/thread.h"

typedef struct Floor {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    long to_come;
    long to_end;
    bool may_end;
    int64_t all_here_at;
    const char *error; /* static, the first that there was; NULL: none */
} Floor;

/* `lock` must be held. One has come, with that error or NULL. */
static void
come(Floor *floor, const char *error)
{
    if (floor->error == NULL) {
        floor->error = error;
    }
    if (--floor->to_come == 0) {
        floor->all_here_at = aio_clock_ns();
        pthread_cond_broadcast(&floor->changed);
    }
}

static void
thread_main(void *argument)
{
    Floor *floor = argument;
    PyThreadState *tstate = NULL;
    const char *error = NULL;

    const PyInterpreterConfig config = AIO_INTERPRETER_CONFIG;
    const PyStatus status = Py_NewInterpreterFromConfig(&tstate, &config);
    if (PyStatus_Exception(status)) {
        error = status.err_msg == NULL ? "an interpreter could not be created" : status.err_msg;
    }
    else {
        PyEval_SaveThread();
    }
    pthread_mutex_lock(&floor->lock);
    come(floor, error);
    while (!floor->may_end) {
        pthread_cond_wait(&floor->changed, &floor->lock);
    }
    pthread_mutex_unlock(&floor->lock);
    if (error == NULL) {
        PyEval_RestoreThread(tstate);
        Py_EndInterpreter(tstate);
    }
    pthread_mutex_lock(&floor->lock);
    if (--floor->to_end == 0) {
        pthread_cond_broadcast(&floor->changed);
    }
    pthread_mutex_unlock(&floor->lock);
}

/* No GIL held; `lock` must be. */
static void
wait_until_zero(Floor *floor, const long *count)
{
    while (*count > 0) {
        pthread_cond_wait(&floor->changed, &floor->lock);
    }
}

static PyObject *
interpreters(PyObject *Py_UNUSED(module), PyObject *args)
{
    long threads;
    PyObject *meanwhile = Py_None, *result = NULL, *none = NULL;
    Floor floor = {.may_end = false, .error = NULL};

    if (!PyArg_ParseTuple(args, "l|O:interpreters", &threads, &meanwhile)) {
        return NULL;
    }
    if (threads < 1) {
        PyErr_SetString(PyExc_ValueError, "interpreters() takes a number of threads, at least 1");
        return NULL;
    }
    /* With the system's own on Linux and macOS these can't fail. */
    pthread_mutex_init(&floor.lock, NULL);
    pthread_cond_init(&floor.changed, NULL);
    floor.to_come = floor.to_end = threads;

    PyThreadState *tstate = PyEval_SaveThread();
    const int64_t began = aio_clock_ns();
    for (long number = 0; number < threads; number++) {
        if (aio_thread_start(thread_main, &floor, "aio-floor") < 0) {
            pthread_mutex_lock(&floor.lock);
            floor.to_end--;
            come(&floor, "there is no room for another thread");
            pthread_mutex_unlock(&floor.lock);
        }
    }
    pthread_mutex_lock(&floor.lock);
    wait_until_zero(&floor, &floor.to_come);
    pthread_mutex_unlock(&floor.lock);

    PyEval_RestoreThread(tstate);
    if (floor.error != NULL) {
        PyErr_SetString(PyExc_RuntimeError, floor.error);
    }
    else if (meanwhile == Py_None || (none = PyObject_CallNoArgs(meanwhile)) != NULL) {
        result = PyFloat_FromDouble((double)(floor.all_here_at - began) / 1e6);
    }
    Py_XDECREF(none);
    tstate = PyEval_SaveThread();

    pthread_mutex_lock(&floor.lock);
    floor.may_end = true;
    pthread_cond_broadcast(&floor.changed);
    wait_until_zero(&floor, &floor.to_end);
    pthread_mutex_unlock(&floor.lock);
    pthread_cond_destroy(&floor.changed);
    pthread_mutex_destroy(&floor.lock);
    PyEval_RestoreThread(tstate);
    return result;
}

PyMethodDef floors_interpreters_methods[] = {
    {"interpreters", interpreters, METH_VARARGS,
     PyDoc_STR("interpreters($module, threads, meanwhile=None, /)\n--\n\n"
               "Make so many bare interpreters, each with its own GIL on a thread of its own.\n\n"
               "Returns the milliseconds until the last is there; they are ended again.\n"
               "`meanwhile` is called while all of them live.")},
    {NULL, NULL, 0, NULL},
};
