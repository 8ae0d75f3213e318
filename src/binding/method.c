/* method.c: a runner's run() and submit(), where there is nothing to add to a call.
 *
 * `runner.run(f, x)` is what a program does most. A Python method that takes *args and **kwargs
 * costs a frame, a tuple and a dict, to hand them on; this is called with the arguments as they
 * stand on the caller's stack. It has a __dict__, for what functools and inspect look for in a
 * function. Belongs to the interpreter of the callers.
 */
#include "method.h"

#include <stdbool.h>
#include <stddef.h>

#include "call.h"
#include "pool_object.h"
#include "state.h"

typedef struct MethodObject {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *pool; /* owned: an aiointerpreters._core.Pool */
    bool runs;      /* run(), else submit() */
} MethodObject;

/* The tuple args[1:count], and a dict of those with names, or NULL. 0, or -1 with an exception
 * set. */
static int
split(PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **positional,
      PyObject **keywords)
{
    const Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    *keywords = NULL;
    *positional = PyTuple_New(count - 1);
    if (*positional == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 1; i < count; i++) {
        PyTuple_SET_ITEM(*positional, i - 1, Py_NewRef(args[i]));
    }
    if (named > 0 && (*keywords = PyDict_New()) == NULL) {
        Py_CLEAR(*positional);
        return -1;
    }
    for (Py_ssize_t i = 0; i < named; i++) {
        if (PyDict_SetItem(*keywords, PyTuple_GET_ITEM(names, i), args[count + i]) < 0) {
            Py_CLEAR(*positional);
            Py_CLEAR(*keywords);
            return -1;
        }
    }
    return 0;
}

static PyObject *
method_call(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    MethodObject *method = (MethodObject *)self;
    const Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *positional, *keywords, *result;

    if (count == 0) {
        return PyErr_Format(PyExc_TypeError, "%s() takes a function, and its arguments",
                            method->runs ? "run" : "submit");
    }
    if (split(args, count, names, &positional, &keywords) < 0) {
        return NULL;
    }
    result = method->runs
                 ? aio_call_new(method->pool, args[0], positional, keywords)
                 : aio_pool_object_submit(method->pool, args[0], positional, keywords, NULL);
    Py_XDECREF(keywords);
    Py_DECREF(positional);
    return result;
}

/* Method(pool, runs: bool) */
static PyObject *
method_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyTypeObject *pool_type = ((AioState *)PyModule_GetState(PyType_GetModule(type)))->pool_type;
    PyObject *pool;
    int runs;
    if (kwargs != NULL || !PyArg_ParseTuple(args, "O!p:Method", pool_type, &pool, &runs)) {
        if (kwargs != NULL) {
            PyErr_SetString(PyExc_TypeError, "Method(pool, runs)");
        }
        return NULL;
    }
    MethodObject *method = (MethodObject *)type->tp_alloc(type, 0);
    if (method != NULL) {
        method->vectorcall = method_call;
        method->pool = Py_NewRef(pool);
        method->runs = runs;
    }
    return (PyObject *)method;
}

static int
method_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((MethodObject *)self)->pool);
    return PyObject_VisitManagedDict(self, visit, arg);
}

static int
method_clear(PyObject *self)
{
    Py_CLEAR(((MethodObject *)self)->pool);
    PyObject_ClearManagedDict(self);
    return 0;
}

static void
method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    method_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(MethodObject, vectorcall), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Method(pool, runs): run() or submit() of a runner.")},
    {Py_tp_new, method_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members},
    {Py_tp_getset, method_getset},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_dealloc, method_dealloc},
    {0, NULL},
};

PyType_Spec aio_method_spec = {
    .name = "aiointerpreters._core.Method",
    .basicsize = sizeof(MethodObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_MANAGED_DICT,
    .slots = method_slots,
};
