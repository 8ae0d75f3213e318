/* finder.c: what a worker's import system asks first.
 *
 * Our module stands in sys.meta_path. It finds our package where the program has it, whatever user
 * code has made of sys.path; and it has `logging` and `warnings`, which most workers never import,
 * set up by _forwarding.py when they have been loaded. It knows nothing of any other module. In a
 * process of a runner it does the latter.
 *
 * Finders are asked with the import lock held, that of all modules of the interpreter. Who imports
 * there waits for another thread's module, which waits for that lock: they wait for ever. So none
 * is imported here, not even what the set-up needs. It is the loader that imports that, which holds
 * the lock of its own module alone.
 */
#include "finder.h"

#include <stdbool.h>

#include "pool.h"
#include "worker.h"

/* Those that _forwarding.py sets up. */
static const char *const forwarded[] = {"logging", "warnings"};

/* ---- the loader ------------------------------------------------------------ */

/* Loads by the real loader, which it leaves in its place, and has set up what was loaded. */
typedef struct Loader {
    PyObject_HEAD PyObject *real; /* owned */
} Loader;

/* The real loader is in its place while it creates the module. */
static PyObject *
loader_create_module(PyObject *self, PyObject *spec)
{
    PyObject *real = Py_NewRef(((Loader *)self)->real), *created = NULL;
    if (PyObject_SetAttrString(spec, "loader", real) == 0) {
        created = PyObject_CallMethod(real, "create_module", "O", spec);
        if (created != NULL && PyObject_SetAttrString(spec, "loader", self) < 0) {
            Py_CLEAR(created);
        }
    }
    Py_DECREF(real);
    return created;
}

/* 0, or -1 with an exception set. */
static int
put_in_place(PyObject *real, PyObject *module)
{
    PyObject *spec = PyObject_GetAttrString(module, "__spec__");
    int result = spec == NULL ? -1 : 0;
    if (spec != NULL && spec != Py_None) {
        result = PyObject_SetAttrString(spec, "loader", real);
    }
    Py_XDECREF(spec);
    return result < 0 ? -1 : PyObject_SetAttrString(module, "__loader__", real);
}

static PyObject *
loader_exec_module(PyObject *self, PyObject *module)
{
    PyObject *core = PyType_GetModule(Py_TYPE(self)); /* borrowed */
    PyObject *real = Py_NewRef(((Loader *)self)->real), *none = NULL, *forward;
    if (core != NULL && put_in_place(real, module) == 0) {
        none = PyObject_CallMethod(real, "exec_module", "O", module);
    }
    if (none != NULL) {
        Py_DECREF(none);
        forward = aio_helper(aio_state_of_module(core), AIO_HELPER_FORWARD);
        none = forward == NULL ? NULL : PyObject_CallOneArg(forward, module);
    }
    Py_DECREF(real);
    return none;
}

static int
loader_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Loader *)self)->real);
    return 0;
}

/* What it refers to does not refer to it, so there is nothing to clear. */
static void
loader_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((Loader *)self)->real);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef loader_methods[] = {
    {"create_module", loader_create_module, METH_O, PyDoc_STR("As the real loader's.")},
    {"exec_module", loader_exec_module, METH_O,
     PyDoc_STR("As the real loader's; then what was loaded is set up.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loader_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Loads what _forwarding.py sets up.")},
    {Py_tp_methods, loader_methods},
    {Py_tp_traverse, loader_traverse},
    {Py_tp_dealloc, loader_dealloc},
    {0, NULL},
};

static PyType_Spec loader_spec = {
    .name = "aiointerpreters._core.Loader",
    .basicsize = sizeof(Loader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loader_slots,
};

/* Put our loader before that of `spec`, if it has one. 0, or -1 with an exception set. */
static int
put_loader_before(PyObject *module, PyObject *spec)
{
    PyTypeObject *type; /* made here: most workers never come here, the others once or twice */
    Loader *loader = NULL;
    int result = -1;
    PyObject *real = PyObject_GetAttrString(spec, "loader");
    if (real == NULL || real == Py_None) {
        Py_XDECREF(real);
        return real == NULL ? -1 : 0;
    }
    type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loader_spec, NULL);
    if (type != NULL && (loader = (Loader *)type->tp_alloc(type, 0)) != NULL) {
        loader->real = Py_NewRef(real);
        result = PyObject_SetAttrString(spec, "loader", (PyObject *)loader);
    }
    Py_XDECREF(loader);
    Py_XDECREF(type);
    Py_DECREF(real);
    return result;
}

/* ---- the finder ------------------------------------------------------------ */

/* What this finder finds, None if it finds nothing; NULL with an exception set. */
static PyObject *
ask(PyObject *finder, PyObject *const *args, Py_ssize_t count)
{
    PyObject *find_spec, *spec;
    const int has = PyObject_GetOptionalAttrString(finder, "find_spec", &find_spec);
    if (has <= 0) {
        return has < 0 ? NULL : Py_NewRef(Py_None);
    }
    spec = PyObject_Vectorcall(find_spec, args, (size_t)count, NULL);
    Py_DECREF(find_spec);
    return spec;
}

/* What the other finders find, as ask(). */
static PyObject *
ask_others(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    PyObject *finders = meta_path == NULL ? PyList_New(0) : PySequence_List(meta_path);
    PyObject *spec = finders == NULL ? NULL : Py_NewRef(Py_None);
    for (Py_ssize_t i = 0; spec == Py_None && i < PyList_GET_SIZE(finders); i++) {
        PyObject *finder = PyList_GET_ITEM(finders, i);
        if (finder != module) {
            Py_SETREF(spec, ask(finder, args, count));
        }
    }
    Py_XDECREF(finders);
    return spec;
}

/* Our package, where the program has it. */
static PyObject *
find_package(PyObject *module, const AioPool *pool, PyObject *name)
{
    PyObject *start = aio_message_decode_value(NULL, &pool->start);
    PyObject *path = start == NULL ? NULL : Py_BuildValue("[O]", PyTuple_GET_ITEM(start, 3));
    PyObject *const args[] = {name, path};
    PyObject *spec = path == NULL ? NULL : ask_others(module, args, 2);
    Py_XDECREF(path);
    Py_XDECREF(start);
    return spec;
}

static bool
is_forwarded(PyObject *name)
{
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
        if (PyUnicode_EqualToUTF8(name, forwarded[i])) {
            return true;
        }
    }
    return false;
}

PyObject *
aio_finder_find_spec(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const AioWorker *worker = aio_state_of_module(module)->worker;
    if (count < 1 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "find_spec() takes a module's name");
        return NULL;
    }
    if (worker != NULL && PyUnicode_EqualToUTF8(args[0], "aiointerpreters")) {
        return find_package(module, worker->pool, args[0]);
    }
    if ((worker != NULL && !worker->pool->forwards) || !is_forwarded(args[0])) {
        Py_RETURN_NONE;
    }
    PyObject *spec = ask_others(module, args, count);
    if (spec != NULL && spec != Py_None && put_loader_before(module, spec) < 0) {
        Py_CLEAR(spec);
    }
    return spec;
}

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
aio_finder_install(AioState *state)
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
