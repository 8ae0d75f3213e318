/* module.c: the extension module `aiointerpreters._core`.
 *
 * Multi-phase initialisation, heap types, all state per interpreter: the same
 * module works in the main interpreter, from which calls are submitted, and in
 * every worker. It declares that it needs neither a shared GIL nor any GIL.
 */
#include <Python.h>
#include <stdarg.h>

#include "bridge.h"
#include "call.h"
#include "collector.h"
#include "finder.h"
#include "fork_child.h"
#include "home.h"
#include "interrupt.h"
#include "left_threads.h"
#include "message.h"
#include "method.h"
#include "parcel.h"
#include "pool.h"
#include "pool_object.h"
#include "queue.h"
#include "set_up.h"
#include "shared.h"
#include "shutdown.h"
#include "sleep.h"
#include "state.h"
#include "ticket.h"
#include "view.h"
#include "worker.h"

/* Where each helper lives, in the order of AioHelper. */
static const struct {
    const char *module;
    const char *name;
} helper_places[AIO_HELPER_COUNT] = {
    [AIO_HELPER_DESCRIBE] = {"aiointerpreters._naming", "describe_call"},
    [AIO_HELPER_RESOLVE] = {"aiointerpreters._finding", "resolve"},
    [AIO_HELPER_DUMPS] = {"aiointerpreters._pickling", "dumps"},
    [AIO_HELPER_LOADS] = {"aiointerpreters._pickling", "loads"},
    [AIO_HELPER_PACK_FAILURE] = {"aiointerpreters._failures", "pack"},
    [AIO_HELPER_NOTE_NOT_BEGUN] = {"aiointerpreters._failures", "note_not_begun"},
    [AIO_HELPER_REBUILD] = {"aiointerpreters._failures", "rebuild"},
    [AIO_HELPER_BROKEN] = {"aiointerpreters._failures", "rebuild_broken"},
    [AIO_HELPER_STUCK_ERROR] = {"aiointerpreters._stuck", "error"},
    [AIO_HELPER_LOG_STUCK] = {"aiointerpreters._stuck", "log"},
    [AIO_HELPER_FIRST_STEPS] = {"aiointerpreters._worker", "do_first_steps"},
    [AIO_HELPER_FORWARD] = {"aiointerpreters._forwarding", "forward"},
    [AIO_HELPER_FORWARD_LOADED] = {"aiointerpreters._forwarding", "forward_loaded"},
    [AIO_HELPER_RELEASE_ALL] = {"aiointerpreters._worker", "release_all"},
    [AIO_HELPER_CALL_IN_CONTEXT] = {"aiointerpreters._context", "call"},
    [AIO_HELPER_ENTER_CONTEXT] = {"aiointerpreters._context", "enter"},
    [AIO_HELPER_RUN_LOOP] = {"aiointerpreters._coroutines", "run"},
    [AIO_HELPER_CANCELLED_ERROR] = {"asyncio", "CancelledError"},
    [AIO_HELPER_LEFT_THREADS] = {"aiointerpreters._left_threads", "LeftThreads"},
    [AIO_HELPER_RUNNER_ERROR] = {"aiointerpreters.errors", "RunnerError"},
    [AIO_HELPER_NOT_SHAREABLE_ERROR] = {"aiointerpreters.errors", "NotShareableError"},
    [AIO_HELPER_GET_RUNNING_LOOP] = {"asyncio", "get_running_loop"},
    [AIO_HELPER_FUTURE] = {"asyncio", "Future"},
    [AIO_HELPER_CALL_FUTURE] = {"aiointerpreters._call_future", "CallFuture"},
    [AIO_HELPER_SET_RESULT] = {"aiointerpreters._call_future", "set_result"},
    [AIO_HELPER_SET_EXCEPTION] = {"aiointerpreters._call_future", "set_exception"},
    [AIO_HELPER_SET_CANCELLED] = {"aiointerpreters._call_future", "set_cancelled"},
    [AIO_HELPER_LOST_RACE] = {"concurrent.futures", "InvalidStateError"},
    [AIO_HELPER_PARTIAL] = {"functools", "partial"},
    [AIO_HELPER_MAIN_THREAD] = {"threading", "main_thread"},
    [AIO_HELPER_SHORT_REPR] = {"reprlib", "repr"},
    [AIO_HELPER_INVALID_STATE_ERROR] = {"asyncio", "InvalidStateError"},
    [AIO_HELPER_SLEEP] = {"time", "sleep"},
    [AIO_HELPER_IMPORT] = {"builtins", "__import__"},
    [AIO_HELPER_IMPORT_MODULE] = {"importlib", "import_module"},
    [AIO_HELPER_QUEUE] = {"aiointerpreters.queues", "Queue"},
    [AIO_HELPER_QUEUE_EMPTY] = {"aiointerpreters.queues", "QueueEmpty"},
    [AIO_HELPER_QUEUE_FULL] = {"aiointerpreters.queues", "QueueFull"},
    [AIO_HELPER_QUEUE_SHUT_DOWN] = {"aiointerpreters.queues", "QueueShutDown"},
};

PyObject *
aio_helper(AioState *state, AioHelper helper)
{
    if (state->helpers[helper] == NULL) {
        (void)aio_worker_hold_off(state, true); /* an import is not to be broken off */
        PyObject *module = PyImport_ImportModule(helper_places[helper].module);
        if (module == NULL && state->worker != NULL &&
            PyErr_ExceptionMatches(PyExc_ModuleNotFoundError)) {
            module = aio_set_up_import_again(state->worker->pool, helper_places[helper].module);
        }
        PyObject *found =
            module == NULL ? NULL : PyObject_GetAttrString(module, helper_places[helper].name);
        Py_XDECREF(module);
        /* The import may have run code that came here first. */
        if (state->helpers[helper] == NULL) {
            state->helpers[helper] = found;
        }
        else {
            Py_XDECREF(found);
        }
        if (aio_worker_hold_off(state, false) < 0) {
            return NULL;
        }
    }
    return state->helpers[helper];
}

PyObject *
aio_raise_runner_error(AioState *state, const char *format, ...)
{
    PyObject *type = aio_helper(state, AIO_HELPER_RUNNER_ERROR);
    if (type != NULL) {
        va_list arguments;
        va_start(arguments, format);
        PyErr_FormatV(type, format, arguments);
        va_end(arguments);
    }
    return NULL;
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

static int
module_exec(PyObject *module)
{
    AioState *state = aio_state_of_module(module);
    const struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&state->str_set_result, "set_result"},
        {&state->str_set_exception, "set_exception"},
        {&state->str_cancel, "cancel"},
        {&state->str_get_loop, "get_loop"},
        {&state->str_add_reader, "add_reader"},
        {&state->str_remove_reader, "remove_reader"},
        {&state->str_is_closed, "is_closed"},
        {&state->str_drain, "drain"},
        {&state->str_poll, "poll"},
        {&state->str_call_soon, "call_soon"},
        {&state->str_raw, "raw"},
        {&state->str_done, "done"},
        {&state->str_ticket, "_ticket"},
        {&state->str_invoke_callbacks, "_invoke_callbacks"},
    };

    aio_list_init(&state->shared_list);

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *names[i].place = PyUnicode_InternFromString(names[i].text);
        if (*names[i].place == NULL) {
            return -1;
        }
    }
    if ((state->pool_type = add_type(module, &aio_pool_spec)) == NULL ||
        (state->bridge_type = add_type(module, &aio_bridge_spec)) == NULL ||
        (state->collector_type = add_type(module, &aio_collector_spec)) == NULL ||
        (state->ticket_type = add_type(module, &aio_ticket_spec)) == NULL ||
        (state->call_type = add_type(module, &aio_call_spec)) == NULL ||
        (state->method_type = add_type(module, &aio_method_spec)) == NULL ||
        (state->memory_type = add_type(module, &aio_memory_spec)) == NULL ||
        (state->parcel_type = add_type(module, &aio_parcel_spec)) == NULL ||
        (state->queue_type = add_type(module, &aio_queue_spec)) == NULL ||
        (state->queue_item_type = add_type(module, &aio_queue_item_spec)) == NULL ||
        (state->shared_type = add_type(module, &aio_shared_spec)) == NULL ||
        (state->queue_bridges = PyDict_New()) == NULL ||
        (state->shared_copies = PyDict_New()) == NULL || (state->home = aio_home_new()) == NULL) {
        return -1;
    }
    state->interrupted = PyErr_NewExceptionWithDoc(
        "aiointerpreters.Interrupted",
        "Raised in what a worker runs, to stop it: the call was cancelled, its time is up, or\n"
        "the runner is being stopped. Let it pass: `finally` blocks run, and the worker goes on\n"
        "to the next call. It is no Exception, so that `except Exception` doesn't catch it.",
        PyExc_BaseException, NULL);
    if (state->interrupted == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "Interrupted", state->interrupted);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    AioState *state = aio_state_of_module(module);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->bridge_type);
    Py_VISIT(state->collector_type);
    Py_VISIT(state->ticket_type);
    Py_VISIT(state->call_type);
    Py_VISIT(state->method_type);
    Py_VISIT(state->memory_type);
    Py_VISIT(state->parcel_type);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->queue_item_type);
    Py_VISIT(state->shared_type);
    Py_VISIT(state->queue_bridges);
    Py_VISIT(state->shared_copies);
    Py_VISIT(state->future_type);
    Py_VISIT(state->base_set_result);
    Py_VISIT(state->base_set_exception);
    Py_VISIT(state->interrupted);
    for (int i = 0; i < AIO_HELPER_COUNT; i++) {
        Py_VISIT(state->helpers[i]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    AioState *state = aio_state_of_module(module);
    for (int i = 0; i < AIO_HELPER_COUNT; i++) {
        Py_CLEAR(state->helpers[i]);
    }
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->bridge_type);
    Py_CLEAR(state->collector_type);
    Py_CLEAR(state->ticket_type);
    Py_CLEAR(state->call_type);
    Py_CLEAR(state->method_type);
    Py_CLEAR(state->memory_type);
    Py_CLEAR(state->parcel_type);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->queue_item_type);
    Py_CLEAR(state->shared_type);
    Py_CLEAR(state->queue_bridges);
    Py_CLEAR(state->shared_copies);
    Py_CLEAR(state->future_type);
    Py_CLEAR(state->base_set_result);
    Py_CLEAR(state->base_set_exception);
    Py_CLEAR(state->interrupted);
    Py_CLEAR(state->str_set_result);
    Py_CLEAR(state->str_set_exception);
    Py_CLEAR(state->str_cancel);
    Py_CLEAR(state->str_get_loop);
    Py_CLEAR(state->str_add_reader);
    Py_CLEAR(state->str_remove_reader);
    Py_CLEAR(state->str_is_closed);
    Py_CLEAR(state->str_drain);
    Py_CLEAR(state->str_poll);
    Py_CLEAR(state->str_call_soon);
    Py_CLEAR(state->str_raw);
    Py_CLEAR(state->str_done);
    Py_CLEAR(state->str_ticket);
    Py_CLEAR(state->str_invoke_callbacks);
    return 0;
}

static void
module_free(void *module)
{
    AioState *state = aio_state_of_module(module);
    if (state->home != NULL) {
        aio_shared_forget_all(state);
        aio_home_close(state->home);
        aio_home_release(state->home);
        state->home = NULL;
    }
    module_clear(module);
    aio_shutdown_forget(state);
}

static PyObject *
in_worker(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(aio_state_of_module(module)->worker_thread_id != 0);
}

/* Encode a value and decode it again, in one interpreter: what one crossing takes, and a
 * way to test it alone. */
static PyObject *
copy_value(PyObject *module, PyObject *value)
{
    AioState *state = aio_state_of_module(module);
    AioMessage message;
    PyObject *copy = NULL;
    aio_message_init(&message);
    if (aio_message_encode_value(state, &message, value, "value") == 0) {
        copy = aio_message_decode_value(state, &message);
    }
    PyObject *exception = PyErr_GetRaisedException();
    aio_message_clear(&message);
    PyErr_SetRaisedException(exception);
    return copy;
}

static PyMethodDef module_methods[] = {
    {"shut_down", aio_shutdown_all, METH_NOARGS,
     PyDoc_STR("Stop all pools of this interpreter and wait until they have ended.")},
    {"in_worker", in_worker, METH_NOARGS, PyDoc_STR("Whether this interpreter is a worker's.")},
    {"worker", aio_worker_describe, METH_NOARGS,
     PyDoc_STR("(index, name of the pool, thread's identifier) in a worker, elsewhere None.")},
    {"told", aio_set_up_told, METH_NOARGS,
     PyDoc_STR("What the program tells its workers; None in what is no worker.")},
    {"find_spec", (PyCFunction)(void (*)(void))aio_finder_find_spec, METH_FASTCALL,
     PyDoc_STR("find_spec(name, path, target): this module is a worker's finder.")},
    {"hold_off", aio_worker_py_hold_off, METH_O,
     PyDoc_STR("hold_off(begins): interrupt this thread's call only when that has ended.")},
    {"should_stop", aio_worker_should_stop, METH_NOARGS,
     PyDoc_STR("Whether nobody waits any more for what this worker runs.")},
    {"unraisable_hook", aio_interrupt_unraisable, METH_O,
     PyDoc_STR("As sys.unraisablehook; but an interruption is sent once more.")},
    {"sleep", aio_sleep, METH_O, PyDoc_STR("time.sleep(), which can be interrupted in a worker.")},
    {"left_threads_ended", aio_left_threads_ended, METH_NOARGS,
     PyDoc_STR("In a worker that ends: no thread is left running.")},
    {"interrupt_thread", aio_left_threads_interrupt_one, METH_O,
     PyDoc_STR("Raise Interrupted in a thread of this interpreter, given by its identifier.")},
    {"copy_value", copy_value, METH_O,
     PyDoc_STR("The value as it arrives when it is sent; here it is sent to nobody.")},
    {"before_fork", aio_fork_child_before, METH_NOARGS,
     PyDoc_STR("A hook for os.register_at_fork(before=...).")},
    {"after_fork", aio_fork_child_after, METH_NOARGS,
     PyDoc_STR("A hook for os.register_at_fork(after_in_parent=...).")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
    {0, NULL},
};

PyModuleDef aio_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "aiointerpreters._core",
    .m_doc = PyDoc_STR("The C core of aiointerpreters; use aiointerpreters.Runner."),
    .m_size = sizeof(AioState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&aio_module_def);
}
