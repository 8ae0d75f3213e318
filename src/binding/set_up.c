/* set_up.c: what makes a fresh interpreter one of the program's workers.
 *
 * Every worker pays for it, in time and in memory. So nothing is imported here that the first call
 * of a plain function does not need, our own package neither:
 *
 *     at once      our extension module, without a search for it; sys.path and sys.argv
 *     if asked for preload, initializer (_worker.py)
 *     later        whatever else the program has told, by those who need it first: told()
 *
 * The module. What is loaded already need not be found: its definition is here. So it stands in
 * sys.modules before its package, which is imported when user code asks for it.
 *
 * The finder. The module stands in sys.meta_path as well. It finds our package where the program
 * has it, whatever user code has made of sys.path; and it passes `logging` and `warnings`, which
 * most workers never import, on to _forwarding.py. It knows nothing of any other module.
 */
#include "set_up.h"

#include "worker.h"

static const char NAME[] = "aiointerpreters._core";

/* The modules whose import _forwarding.py has to see. */
static const char *const forwarded[] = {"logging", "warnings"};

/* ---- the module ------------------------------------------------------------ */

/* What the import system would have found; `file` is where it is. */
static PyObject *
make_spec(PyObject *file)
{
    PyObject *of_sys = PySys_GetObject("__spec__"); /* borrowed: one of importlib's ModuleSpec */
    PyObject *kwargs = of_sys == NULL ? NULL : Py_BuildValue("{sO}", "origin", file);
    PyObject *args = kwargs == NULL ? NULL : Py_BuildValue("(sO)", NAME, Py_None);
    PyObject *spec = args == NULL ? NULL : PyObject_Call((PyObject *)Py_TYPE(of_sys), args, kwargs);
    if (spec == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_RuntimeError, "sys.__spec__ is missing");
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return spec;
}

static PyObject *
make_module(PyObject *file)
{
    PyObject *spec = make_spec(file);
    PyObject *module = spec == NULL ? NULL : PyModule_FromDefAndSpec(&aio_module_def, spec);
    if (module != NULL &&
        (PyModule_AddObjectRef(module, "__spec__", spec) < 0 ||
         PyModule_AddObjectRef(module, "__file__", file) < 0 ||
         PyModule_AddStringConstant(module, "__package__", "aiointerpreters") < 0 ||
         PyModule_ExecDef(module, &aio_module_def) < 0 ||
         PyDict_SetItemString(PyImport_GetModuleDict(), NAME, module) < 0)) {
        Py_CLEAR(module);
    }
    Py_XDECREF(spec);
    return module;
}

PyObject *
aio_set_up_module(const AioPool *pool)
{
    PyObject *path, *argv, *file, *package_path, *module = NULL;
    PyObject *start = aio_message_decode_value(NULL, &pool->start);
    if (start != NULL &&
        PyArg_ParseTuple(start, "O!O!UU", &PyList_Type, &path, &PyList_Type, &argv, &file,
                         &package_path) &&
        PySys_SetObject("path", path) == 0 && PySys_SetObject("argv", argv) == 0) {
        module = make_module(file);
    }
    Py_XDECREF(start);
    return module;
}

PyObject *
aio_set_up_import_again(const AioPool *pool, const char *name)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *path = Py_XNewRef(PySys_GetObject("path"));
    PyObject *start = aio_message_decode_value(NULL, &pool->start);
    PyObject *module = NULL;
    if (start != NULL && PySys_SetObject("path", PyTuple_GET_ITEM(start, 0)) == 0) {
        module = PyImport_ImportModule(name);
        PyErr_Clear();
        (void)PySys_SetObject("path", path);
    }
    Py_XDECREF(start);
    Py_XDECREF(path);
    if (module == NULL) {
        PyErr_SetRaisedException(exception);
    }
    else {
        PyErr_Clear();
        Py_DECREF(exception);
    }
    return module;
}

/* ---- what was told --------------------------------------------------------- */

PyObject *
aio_set_up_told(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioState *state = aio_state_of_module(module);
    if (state->worker == NULL) {
        Py_RETURN_NONE;
    }
    return aio_message_decode_value(state, &state->worker->pool->told);
}

int
aio_set_up_first_steps(AioState *state, const AioPool *pool)
{
    if (pool->first_steps.size == 0) {
        return 0;
    }
    PyObject *function = aio_helper(state, AIO_HELPER_FIRST_STEPS);
    PyObject *steps = function == NULL ? NULL : aio_message_decode_value(state, &pool->first_steps);
    PyObject *none = steps == NULL ? NULL : PyObject_CallObject(function, steps);
    Py_XDECREF(none);
    Py_XDECREF(steps);
    return none == NULL ? -1 : 0;
}

/* ---- the finder ------------------------------------------------------------ */

/* Whether one of those modules is loaded; -1 with an exception set. */
static int
is_any_loaded(void)
{
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
        PyObject *name = PyUnicode_FromString(forwarded[i]);
        PyObject *loaded = name == NULL ? NULL : PyImport_GetModule(name);
        Py_XDECREF(name);
        if (loaded != NULL) {
            Py_DECREF(loaded);
            return 1;
        }
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

int
aio_set_up_finder(AioState *state)
{
    AioWorker *worker = state->worker;
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    int is_loaded = 0;

    if (meta_path == NULL || !PyList_Check(meta_path)) {
        PyErr_SetString(PyExc_RuntimeError, "sys.meta_path is no list");
        return -1;
    }
    if (PyList_Insert(meta_path, 0, worker->module) < 0 ||
        (worker->pool->forwards && (is_loaded = is_any_loaded()) < 0)) {
        return -1;
    }
    if (is_loaded) { /* by a sitecustomize, say */
        PyObject *forward = aio_helper(state, AIO_HELPER_FORWARD_LOADED);
        PyObject *none = forward == NULL ? NULL : PyObject_CallNoArgs(forward);
        Py_XDECREF(none);
        return none == NULL ? -1 : 0;
    }
    return 0;
}

/* What the other finders find of our package where the program has it, which user code may have
 * taken out of sys.path since. */
static PyObject *
find_package(PyObject *module, const AioPool *pool, PyObject *name)
{
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    PyObject *finders = NULL, *path = NULL, *spec = NULL;
    PyObject *start = aio_message_decode_value(NULL, &pool->start);
    if (start == NULL || meta_path == NULL ||
        (path = Py_BuildValue("[O]", PyTuple_GET_ITEM(start, 3))) == NULL ||
        (finders = PySequence_List(meta_path)) == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(finders) && !PyErr_Occurred(); i++) {
        PyObject *finder = PyList_GET_ITEM(finders, i);
        Py_XDECREF(spec);
        spec = finder == module ? Py_NewRef(Py_None)
                                : PyObject_CallMethod(finder, "find_spec", "OO", name, path);
        if (spec != NULL && spec != Py_None) {
            break;
        }
    }
done:
    Py_XDECREF(finders);
    Py_XDECREF(path);
    Py_XDECREF(start);
    return spec != NULL || PyErr_Occurred() ? spec : Py_NewRef(Py_None);
}

PyObject *
aio_set_up_find_spec(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    AioState *state = aio_state_of_module(module);
    if (count < 1 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "find_spec() takes a module's name");
        return NULL;
    }
    if (state->worker == NULL) {
        Py_RETURN_NONE;
    }
    const AioPool *pool = state->worker->pool;
    if (PyUnicode_EqualToUTF8(args[0], "aiointerpreters")) {
        return find_package(module, pool, args[0]);
    }
    for (size_t i = 0; pool->forwards && i < sizeof forwarded / sizeof *forwarded; i++) {
        if (PyUnicode_EqualToUTF8(args[0], forwarded[i])) {
            PyObject *find_spec = aio_helper(state, AIO_HELPER_FIND_FORWARDED);
            return find_spec == NULL ? NULL
                                     : PyObject_Vectorcall(find_spec, args, (size_t)count, NULL);
        }
    }
    Py_RETURN_NONE;
}
