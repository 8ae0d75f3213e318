/* memory.c: the object behind a memoryview that arrived from elsewhere.
 *
 * memoryview.cast() can only restore native one-character formats, so a
 * memoryview of another interpreter is rebuilt over an exporter of our own,
 * which repeats the format and the shape word for word. It owns a copy of the
 * bytes. Entered with the GIL of the interpreter that it belongs to; immutable
 * after creation, but for the bytes themselves.
 */
#include "memory.h"

typedef struct Memory {
    PyObject_HEAD void *data; /* owned */
    char *format;             /* owned */
    Py_ssize_t length;
    Py_ssize_t itemsize;
    bool readonly;
    int ndim;
    Py_ssize_t *shape;   /* owned; `ndim` items, then as many of `strides` */
    Py_ssize_t *strides; /* in the memory of `shape` */
} Memory;

static int
memory_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    Memory *memory = (Memory *)self;

    if ((flags & PyBUF_WRITABLE) == PyBUF_WRITABLE && memory->readonly) {
        PyErr_SetString(PyExc_BufferError, "the memory is read-only");
        view->obj = NULL;
        return -1;
    }
    /* Always C-contiguous, so consumers that ask for less may ignore the rest;
     * but Fortran order can be had only where it is the same. */
    view->buf = memory->data;
    view->len = memory->length;
    view->itemsize = memory->itemsize;
    view->readonly = memory->readonly;
    view->format = (flags & PyBUF_FORMAT) ? memory->format : NULL;
    view->ndim = memory->ndim;
    view->shape = (flags & PyBUF_ND) ? memory->shape : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? memory->strides : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS) {
        view->strides = memory->strides;
        if (!PyBuffer_IsContiguous(view, 'F')) {
            PyErr_SetString(PyExc_BufferError, "the memory is not Fortran-contiguous");
            view->obj = NULL;
            return -1;
        }
    }
    view->obj = Py_NewRef(self);
    return 0;
}

static void
memory_dealloc(PyObject *self)
{
    Memory *memory = (Memory *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(memory->data);
    PyMem_Free(memory->format);
    PyMem_Free(memory->shape);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot memory_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Memory that arrived from another interpreter.")},
    {Py_tp_dealloc, memory_dealloc},
    {Py_bf_getbuffer, memory_getbuffer},
    {0, NULL},
};

PyType_Spec aio_memory_spec = {
    .name = "aiointerpreters._core.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = memory_slots,
};

PyObject *
aio_memory_view(AioState *state, const void *data, Py_ssize_t length, const char *format,
                Py_ssize_t itemsize, int ndim, const Py_ssize_t *shape, bool readonly)
{
    const size_t format_size = strlen(format) + 1;
    PyObject *view = NULL;
    Memory *memory = PyObject_New(Memory, state->memory_type);

    if (memory == NULL) {
        return NULL;
    }
    memory->data = PyMem_Malloc(length > 0 ? (size_t)length : 1);
    memory->format = PyMem_Malloc(format_size);
    memory->shape = PyMem_New(Py_ssize_t, 2 * (ndim > 0 ? ndim : 1));
    if (memory->data == NULL || memory->format == NULL || memory->shape == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    memcpy(memory->data, data, (size_t)length);
    memcpy(memory->format, format, format_size);
    memory->length = length;
    memory->itemsize = itemsize;
    memory->readonly = readonly;
    memory->ndim = ndim;
    memory->strides = memory->shape + ndim;
    for (Py_ssize_t i = ndim, stride = itemsize; i-- > 0;) {
        memory->shape[i] = shape[i];
        memory->strides[i] = stride;
        stride *= shape[i];
    }
    view = PyMemoryView_FromObject((PyObject *)memory);
done:
    Py_DECREF(memory);
    return view;
}
