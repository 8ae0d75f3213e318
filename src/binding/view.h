/* view.h: a memoryview of another interpreter's memory. */
#ifndef AIO_BINDING_VIEW_H
#define AIO_BINDING_VIEW_H

#include <Python.h>

#include "block.h"
#include "counted.h"
#include "state.h"

/* What a memoryview shows, without the memoryview: part of a block's memory, and how
 * it is laid out. Constant once made, so any thread may read it. */
typedef struct AioView {
    AioCounted counted;
    AioBlock *block;         /* a reference */
    Py_buffer layout;        /* its `obj` is NULL; what it points to, but `buf`, follows below */
    Py_ssize_t dimensions[]; /* shape, strides, suboffsets; then the format */
} AioView;

/* The view of a memoryview, a PickleBuffer or anything else that has a buffer. What
 * arrived from elsewhere is not lent anew: the view refers to the first lender's block.
 * A new reference; NULL with an exception set. */
AioView *aio_view_new(AioState *state, PyObject *exporter);

/* The view, or NULL if `counted` is of another kind. */
AioView *aio_view_of_counted(AioCounted *counted);

/* A memoryview of it, in the current interpreter. */
PyObject *aio_view_to_python(AioState *state, AioView *view);

/* aiointerpreters._core.Memory: what such a memoryview has as its `obj`. */
extern PyType_Spec aio_memory_spec;

#endif
