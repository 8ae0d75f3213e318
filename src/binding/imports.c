/* imports.c: how a worker imports.
 *
 * An interruption can be raised between any two bytecodes, those of importlib included: between
 * its taking of a module's lock and the `with` block that would release it. Then the worker's other
 * thread, which waits for that lock, waits for ever. And a package whose import is broken off
 * leaves parts of it in sys.modules; many, asyncio and NumPy among them, can't be imported any
 * more after that. So what imports is not interrupted before it has ended: __import__() is ours in
 * a worker, and importlib.import_module(); they do what CPython's do, and say when they begin and
 * end. Who has to end within the grace period, and has not, may be interrupted in a module's own
 * code, which is then executed in vain, but not in importlib's.
 *
 * The gate. Threads may import at the same time, but not all modules bear it. `dataclasses` takes
 * `typing` out of sys.modules, half loaded as it may be; and where threads wait for each other's
 * modules, importlib gives one of them such a module, so that they don't for ever. A worker's two
 * threads are ours, and user code can't know that there are two. So only one of them loads modules
 * at a time; what is loaded already is had without waiting. The loop's thread (loop.c) goes through
 * the gate once for all that asyncio is. Other threads are user code's, which import as the threads
 * of any program do.
 *
 * Who is in the gate runs user code, which may wait for what the other thread holds that waits at
 * the gate: a lock of a program's own, or that of `warnings`, under which CPython imports. So
 * nobody waits there for long while that does not get on: then both load, as the threads of any
 * program may.
 */
#include "imports.h"

#include <string.h>

#include "worker.h"

/* ---- the gate -------------------------------------------------------------- */

/* How long one thread waits for the other, while that loads no further module. */
static const int64_t PATIENCE_NS = INT64_C(1000) * 1000 * 1000;

/* In how many imports that need the gate the calling thread is; NULL if it is not one of the
 * worker's two, as a thread of user code is. */
static int *
depth_here(AioState *state)
{
    const unsigned long thread_id = PyThread_get_thread_ident();
    return thread_id == state->worker_thread_id ? &state->worker->import_depth
           : thread_id == state->loop_thread_id ? &state->worker->loop.import_depth
                                                : NULL;
}

static int
side_of(AioState *state, const int *depth)
{
    return depth == &state->worker->import_depth ? 0 : 1;
}

void
aio_imports_enter_gate(AioState *state)
{
    int *depth = depth_here(state);
    if (depth == NULL) {
        return;
    }
    AioGate *gate = &state->worker->import_gate;
    const int side = side_of(state, depth);
    if ((*depth)++ > 0) {
        aio_gate_step(gate, side);
        return;
    }
    /* clang-format off */
    Py_BEGIN_ALLOW_THREADS
    aio_gate_pass(gate, side, PATIENCE_NS);
    Py_END_ALLOW_THREADS
    /* clang-format on */
}

void
aio_imports_leave_gate(AioState *state)
{
    int *depth = depth_here(state);
    if (depth != NULL && --*depth == 0) {
        aio_gate_come_out(&state->worker->import_gate, side_of(state, depth));
    }
}

/* ---- what imports ---------------------------------------------------------- */

/* Whether all names of `from … import` are in the module's namespace. */
static bool
has_all(PyObject *module, PyObject *names)
{
    if (PyList_Check(names) && PyList_GET_SIZE(names) == 0) { /* what C code imports */
        return true;
    }
    PyObject *namespace = PyModule_Check(module) ? PyModule_GetDict(module) : NULL; /* borrowed */
    if (namespace == NULL || !PyTuple_Check(names)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_Contains(namespace, PyTuple_GET_ITEM(names, i)) != 1) {
            return false;
        }
    }
    return true;
}

/* Whether a call of either function finds everything loaded, or being loaded: it needs no gate,
 * and is not to wait there for another import, which may take long. Clears its own errors. */
static bool
is_there(PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    bool result = false;
    if (keywords != NULL || count < 1 || !PyUnicode_Check(args[0]) ||
        (count > 4 && PyLong_AsLong(args[4]) != 0)) { /* relative: its name is not known here */
        PyErr_Clear();
        return false;
    }
    PyObject *module = PyImport_GetModule(args[0]);
    if (module != NULL) {
        PyObject *names = count > 3 && args[3] != Py_None ? args[3] : NULL;
        result = names == NULL || has_all(module, names);
        Py_DECREF(module);
    }
    PyErr_Clear();
    return result;
}

/* A new reference to what the original returns, or NULL with an exception set. */
static PyObject *
call_original(AioState *state, AioHelper helper, PyObject *const *args, Py_ssize_t count,
              PyObject *names)
{
    PyObject *original = aio_helper(state, helper), *result; /* borrowed: kept by the state */
    if (original == NULL) {
        return NULL;
    }
    const bool loads = !is_there(args, count, names);
    (void)aio_worker_note_import(state, true);
    if (loads) {
        aio_imports_enter_gate(state);
    }
    result = PyObject_Vectorcall(original, args, (size_t)count, names);
    if (loads) {
        aio_imports_leave_gate(state);
    }
    if (aio_worker_note_import(state, false) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
import_module(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return call_original(aio_state_of_module(module), AIO_HELPER_IMPORT_MODULE, args, count, names);
}

static PyMethodDef import_module_def = {
    "import_module", (PyCFunction)(void (*)(void))import_module, METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("import_module(name, package=None): as importlib's; not interrupted.")};

/* Put `def`'s function into that module, which has been imported, in the place of what is called
 * `original` from now on. 0, or -1 with an exception set. */
static int
replace(PyObject *module, const char *place, AioHelper original, PyMethodDef *def)
{
    AioState *state = aio_state_of_module(module);
    PyObject *name = PyUnicode_FromString(place), *there = NULL, *ours = NULL;
    int result = -1;
    if (name != NULL && (there = PyImport_GetModule(name)) != NULL &&
        (ours = PyCFunction_New(def, module)) != NULL &&
        (state->helpers[original] = PyObject_GetAttrString(there, def->ml_name)) != NULL) {
        result = PyObject_SetAttrString(there, def->ml_name, ours);
    }
    else if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_RuntimeError, "sys.modules has no %s", place);
    }
    Py_XDECREF(ours);
    Py_XDECREF(there);
    Py_XDECREF(name);
    return result;
}

/* importlib is not there before user code asks for it. */
static bool
is_importlib(PyObject *name)
{
    static const char importlib[] = "importlib";
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    if (text == NULL) {
        PyErr_Clear();
    }
    return text != NULL && strncmp(text, importlib, sizeof importlib - 1) == 0;
}

static PyObject *
import(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    AioState *state = aio_state_of_module(module);
    PyObject *result = call_original(state, AIO_HELPER_IMPORT, args, count, names);
    if (result != NULL && state->helpers[AIO_HELPER_IMPORT_MODULE] == NULL && count > 0 &&
        is_importlib(args[0]) &&
        replace(module, "importlib", AIO_HELPER_IMPORT_MODULE, &import_module_def) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyMethodDef import_def = {
    "__import__", (PyCFunction)(void (*)(void))import, METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("__import__(name, globals=None, locals=None, fromlist=(), level=0): as the builtin;\n"
              "not interrupted.")};

int
aio_imports_install(PyObject *module)
{
    return replace(module, "builtins", AIO_HELPER_IMPORT, &import_def);
}

/* ---- where a thread is ----------------------------------------------------- */

bool
aio_imports_is_in_system(PyThreadState *thread)
{
    bool is_in_system = true; /* where that can't be known */
    /* Not sys._current_frames(): that makes frame objects for the threads of all interpreters, the
     * main one among them, without their GILs. */
#ifndef Py_GIL_DISABLED
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    PyCodeObject *code = frame == NULL ? NULL : PyFrame_GetCode(frame);
    const char *file = code == NULL ? NULL : PyUnicode_AsUTF8(code->co_filename);
    is_in_system = file == NULL || strncmp(file, "<frozen importlib", 17) == 0;
    PyErr_Clear();
    Py_XDECREF(code);
    Py_XDECREF(frame);
#else
    (void)thread; /* it runs on */
#endif
    return is_in_system;
}
