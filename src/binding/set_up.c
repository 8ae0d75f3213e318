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
 */
#include "set_up.h"

#include "worker.h"

static const char NAME[] = "aiointerpreters._core";

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
