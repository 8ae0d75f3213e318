/* parcel.c: what of a pickled value goes beside the pickle.
 *
 * The pickler asks for the persistent id of every object that it comes across, so
 * that is answered in C. Belongs to the interpreter that pickles, for the time that
 * one pickle takes.
 */
#include "parcel.h"

#include <stdbool.h>
#include <stddef.h>

#include "encode.h"

typedef struct Parcel {
    PyObject_HEAD PyObject *module; /* owned */
    PyObject *buffers;              /* list */
    PyObject *objects;              /* list; keeps the addresses in `numbers` good */
    PyObject *kept;                 /* list */
    PyObject *numbers;              /* dict: address -> number; made at first use */
    PyObject *stdlib_queue;         /* concurrent.interpreters.Queue, if that is loaded */
} Parcel;

/* concurrent.interpreters.Queue, if there is any such object; else NULL. New reference. */
static PyObject *
loaded_stdlib_queue(void)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *module = NULL, *type = NULL;
    if (PyMapping_GetOptionalItemString(modules, "concurrent.interpreters._queues", &module) > 0) {
        type = PyObject_GetAttrString(module, "Queue");
        Py_DECREF(module);
    }
    PyErr_Clear();
    return type;
}

PyObject *
aio_parcel_new(AioState *state)
{
    Parcel *parcel = PyObject_GC_New(Parcel, state->parcel_type);
    if (parcel == NULL) {
        return NULL;
    }
    parcel->module = Py_NewRef(PyType_GetModule(state->parcel_type));
    parcel->numbers = NULL;
    parcel->stdlib_queue = loaded_stdlib_queue();
    parcel->buffers = PyList_New(0);
    parcel->objects = PyList_New(0);
    parcel->kept = PyList_New(0);
    PyObject_GC_Track(parcel);
    if (parcel->buffers == NULL || parcel->objects == NULL || parcel->kept == NULL) {
        Py_CLEAR(parcel);
    }
    return (PyObject *)parcel;
}

PyObject *
aio_parcel_buffers(PyObject *parcel)
{
    return ((Parcel *)parcel)->buffers;
}

PyObject *
aio_parcel_objects(PyObject *parcel)
{
    return ((Parcel *)parcel)->objects;
}

PyObject *
aio_parcel_kept(PyObject *parcel)
{
    return ((Parcel *)parcel)->kept;
}

/* The number of an object that is taken out, a new reference. */
static PyObject *
number_of(Parcel *parcel, PyObject *object)
{
    PyObject *number = NULL;
    PyObject *address = PyLong_FromVoidPtr(object);

    if (address == NULL || (parcel->numbers == NULL && (parcel->numbers = PyDict_New()) == NULL) ||
        PyDict_GetItemRef(parcel->numbers, address, &number) != 0) {
        goto done; /* it was found, or an exception is set */
    }
    number = PyLong_FromSsize_t(PyList_GET_SIZE(parcel->objects));
    if (number == NULL || PyDict_SetItem(parcel->numbers, address, number) < 0 ||
        PyList_Append(parcel->objects, object) < 0) {
        Py_CLEAR(number);
    }
done:
    Py_XDECREF(address);
    return number;
}

static PyObject *
parcel_persistent_id(PyObject *self, PyObject *object)
{
    Parcel *parcel = (Parcel *)self;
    if (aio_goes_beside_pickle(aio_state_of_module(parcel->module), object)) {
        return number_of(parcel, object);
    }
    if ((PyObject *)Py_TYPE(object) == parcel->stdlib_queue &&
        PyList_Append(parcel->kept, object) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
parcel_add_buffer(PyObject *self, PyObject *buffer)
{
    if (PyList_Append(((Parcel *)self)->buffers, buffer) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE; /* out of band */
}

/* Forget what was taken: the value is pickled once more, another way. */
static PyObject *
parcel_start_again(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Parcel *parcel = (Parcel *)self;
    PyObject *lists[] = {parcel->buffers, parcel->objects, parcel->kept};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (PyList_SetSlice(lists[i], 0, PY_SSIZE_T_MAX, NULL) < 0) {
            return NULL;
        }
    }
    Py_CLEAR(parcel->numbers);
    Py_RETURN_NONE;
}

static int
parcel_traverse(PyObject *self, visitproc visit, void *arg)
{
    Parcel *parcel = (Parcel *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(parcel->module);
    Py_VISIT(parcel->buffers);
    Py_VISIT(parcel->objects);
    Py_VISIT(parcel->kept);
    Py_VISIT(parcel->stdlib_queue);
    return 0;
}

static int
parcel_clear(PyObject *self)
{
    Parcel *parcel = (Parcel *)self;
    Py_CLEAR(parcel->buffers);
    Py_CLEAR(parcel->objects);
    Py_CLEAR(parcel->kept);
    Py_CLEAR(parcel->numbers);
    Py_CLEAR(parcel->stdlib_queue);
    return 0;
}

static void
parcel_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    parcel_clear(self);
    Py_DECREF(((Parcel *)self)->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef parcel_methods[] = {
    {"persistent_id", parcel_persistent_id, METH_O,
     PyDoc_STR("The number of an object that does not go into the pickle, or None.")},
    {"add_buffer", parcel_add_buffer, METH_O,
     PyDoc_STR("Take a PickleBuffer, as a pickler's buffer_callback.")},
    {"clear", parcel_start_again, METH_NOARGS, PyDoc_STR("Forget all that was taken.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef parcel_members[] = {
    {"buffers", Py_T_OBJECT_EX, offsetof(Parcel, buffers), Py_READONLY,
     PyDoc_STR("The buffers that were taken.")},
    {"objects", Py_T_OBJECT_EX, offsetof(Parcel, objects), Py_READONLY,
     PyDoc_STR("The objects that were taken, by their numbers.")},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
parcel_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return aio_parcel_new(PyType_GetModuleState(type));
}

static PyType_Slot parcel_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What of a pickled value goes beside the pickle.")},
    {Py_tp_new, parcel_new},
    {Py_tp_methods, parcel_methods},
    {Py_tp_members, parcel_members},
    {Py_tp_traverse, parcel_traverse},
    {Py_tp_clear, parcel_clear},
    {Py_tp_dealloc, parcel_dealloc},
    {0, NULL},
};

PyType_Spec aio_parcel_spec = {
    .name = "aiointerpreters._core.Parcel",
    .basicsize = sizeof(Parcel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = parcel_slots,
};
