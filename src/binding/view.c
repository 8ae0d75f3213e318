/* view.c: a memoryview of another interpreter's memory.
 *
 *    sender                      any thread              receiver
 *    memoryview ──► AioBlock ◄── AioView ◄── message
 *     of exporter   (owner_ref)     ▲
 *                                   └─────────────────── Memory ◄── memoryview
 *
 * The receiver's memoryview is one of CPython's own, over an exporter of ours that
 * repeats the sender's layout word for word: format, shape, strides, suboffsets, and
 * whether it may be written to. The sender's memory stays in its place until the last
 * reference to the view is gone, in whichever interpreter that happens.
 */
#include "view.h"

#include <stdlib.h>
#include <string.h>

static void
view_destroy(AioCounted *counted)
{
    AioView *view = (AioView *)counted;
    aio_block_release(view->block);
    free(view);
}

AioView *
aio_view_of_counted(AioCounted *counted)
{
    return counted->destroy == view_destroy ? (AioView *)counted : NULL;
}

/* A view of `block`, of which a reference is taken in any case, laid out as `layout`. */
static AioView *
view_of_block(AioBlock *block, const Py_buffer *layout)
{
    const size_t ndim = (size_t)layout->ndim;
    const char *format = layout->format == NULL ? "B" : layout->format;
    const size_t format_size = strlen(format) + 1;
    AioView *view = malloc(sizeof *view + 3 * ndim * sizeof(Py_ssize_t) + format_size);

    if (view == NULL) {
        aio_block_release(block);
        PyErr_NoMemory();
        return NULL;
    }
    aio_counted_init(&view->counted, view_destroy);
    view->block = block;
    view->layout = *layout;
    view->layout.obj = NULL;
    view->layout.internal = NULL;
    Py_ssize_t *next = view->dimensions;
    Py_ssize_t **places[] = {&view->layout.shape, &view->layout.strides, &view->layout.suboffsets};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (*places[i] != NULL) {
            memcpy(next, *places[i], ndim * sizeof *next);
            *places[i] = next;
            next += ndim;
        }
    }
    view->layout.format = memcpy(next, format, format_size);
    return view;
}

/* ---- the receiver's exporter ---- */

typedef struct Memory {
    PyObject_HEAD AioView *view; /* a reference */
} Memory;

static int
refuse(Py_buffer *buffer, const char *text)
{
    PyErr_SetString(PyExc_BufferError, text);
    buffer->obj = NULL;
    return -1;
}

/* PEP 3118: what was not asked for must not be needed. */
static int
memory_getbuffer(PyObject *self, Py_buffer *buffer, int flags)
{
    const Py_buffer *layout = &((Memory *)self)->view->layout;
    const bool wants_shape = (flags & PyBUF_ND) == PyBUF_ND;
    const bool wants_strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES;
    const bool wants_suboffsets = (flags & PyBUF_INDIRECT) == PyBUF_INDIRECT;

    if ((flags & PyBUF_WRITABLE) && layout->readonly) {
        return refuse(buffer, "the memory is read-only");
    }
    if (layout->suboffsets != NULL && !wants_suboffsets) {
        return refuse(buffer, "the memory has suboffsets");
    }
    if (((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS || !wants_strides) &&
        !PyBuffer_IsContiguous(layout, 'C')) {
        return refuse(buffer, "the memory is not C-contiguous");
    }
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && !PyBuffer_IsContiguous(layout, 'F')) {
        return refuse(buffer, "the memory is not Fortran-contiguous");
    }
    if ((flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS &&
        !PyBuffer_IsContiguous(layout, 'A')) {
        return refuse(buffer, "the memory is not contiguous");
    }
    *buffer = *layout;
    if (!(flags & PyBUF_FORMAT)) {
        buffer->format = NULL;
    }
    if (!wants_strides) {
        buffer->strides = NULL;
    }
    if (!wants_shape) {
        buffer->shape = NULL;
        buffer->ndim = 1;
    }
    buffer->obj = Py_NewRef(self);
    return 0;
}

static void
memory_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    aio_counted_release(&((Memory *)self)->view->counted);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot memory_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Memory of another interpreter.")},
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
aio_view_to_python(AioState *state, AioView *view)
{
    Memory *memory = PyObject_New(Memory, state->memory_type);
    if (memory == NULL) {
        return NULL;
    }
    aio_counted_acquire(&view->counted);
    memory->view = view;
    PyObject *result = PyMemoryView_FromObject((PyObject *)memory);
    Py_DECREF(memory);
    return result;
}

/* ---- the sender's side ---- */

/* The block behind a memoryview that arrived from elsewhere, borrowed; or NULL. It must
 * not have been released: then its base would be anything. */
static AioBlock *
known_block(AioState *state, PyObject *memoryview)
{
    PyObject *base = PyMemoryView_GET_BASE(memoryview);
    return base != NULL && Py_IS_TYPE(base, state->memory_type) ? ((Memory *)base)->view->block
                                                                : NULL;
}

/* Whether a format (PEP 3118) has pointers to Python objects in it: "O", but not as part of
 * a field's name, which stands between colons. */
static bool
has_objects(const char *format)
{
    bool in_name = false;
    for (; format != NULL && *format != '\0'; format++) {
        if (*format == ':') {
            in_name = !in_name;
        }
        else if (*format == 'O' && !in_name) {
            return true;
        }
    }
    return false;
}

AioView *
aio_view_new(AioState *state, PyObject *exporter)
{
    AioView *view = NULL;
    AioBlock *block;

    if (PyMemoryView_Check(exporter)) {
        Py_buffer layout; /* raises for a memoryview that has been released */
        if (PyObject_GetBuffer(exporter, &layout, PyBUF_FULL_RO) < 0) {
            return NULL;
        }
        if (has_objects(layout.format)) {
            PyErr_Format(PyExc_TypeError,
                         "its memory (format '%.100s') consists of references to Python objects, "
                         "which belong to one interpreter",
                         layout.format);
            PyBuffer_Release(&layout);
            return NULL;
        }
        block = known_block(state, exporter);
        if (block != NULL) {
            aio_counted_acquire(&block->counted);
            view = view_of_block(block, &layout);
        }
        PyBuffer_Release(&layout);
        if (block != NULL) {
            return view;
        }
    }
    const Py_buffer *layout;
    block = aio_block_lend_buffer(state, exporter, &layout);
    return block == NULL ? NULL : view_of_block(block, layout);
}
