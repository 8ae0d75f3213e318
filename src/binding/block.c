/* block.c: memory that an interpreter lends to others.
 *
 * Lending and letting go happen with the owner's GIL; references come and go in any
 * thread. A buffer is lent by a memoryview of our own: it keeps the exporter from
 * moving its memory, and whoever made the original may release that at any time.
 */
#include "block.h"

#include <stdlib.h>

static void
block_free(AioBlock *block)
{
    aio_home_release(block->home);
    free(block);
}

static void
block_settle(AioReturn *returned)
{
    AioBlock *block = aio_container_of(returned, AioBlock, returned);
    atomic_fetch_sub_explicit(&block->home->lent, 1, memory_order_relaxed);
    Py_DECREF(block->owner_ref);
    block_free(block);
}

static void
block_discard(AioReturn *returned)
{
    block_free(aio_container_of(returned, AioBlock, returned));
}

static void
block_destroy(AioCounted *counted)
{
    AioBlock *block = (AioBlock *)counted;
    if (!aio_home_is_here(block->home)) {
        aio_home_return(block->home, &block->returned);
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    block_settle(&block->returned);
    PyErr_SetRaisedException(exception);
}

AioBlock *
aio_block_of_counted(AioCounted *counted)
{
    return counted->destroy == block_destroy ? (AioBlock *)counted : NULL;
}

AioBlock *
aio_block_keep(AioState *state, PyObject *object)
{
    AioHome *home = aio_state_home(state);
    if (home == NULL) {
        return NULL;
    }
    if (aio_home_is_closed(home)) {
        PyErr_SetString(PyExc_RuntimeError, "this interpreter is ending: it can lend nothing");
        return NULL;
    }
    AioBlock *block = calloc(1, sizeof *block);
    if (block == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_counted_init(&block->counted, block_destroy);
    block->returned.settle = block_settle;
    block->returned.discard = block_discard;
    aio_counted_acquire(&home->counted);
    block->home = home;
    block->owner_ref = Py_NewRef(object);
    block->kind = AIO_BLOCK_KEPT;
    atomic_fetch_add_explicit(&home->lent, 1, memory_order_relaxed);
    return block;
}

AioBlock *
aio_block_lend_buffer(AioState *state, PyObject *exporter, const Py_buffer **view)
{
    PyObject *own = PyMemoryView_FromObject(exporter);
    if (own == NULL) {
        return NULL;
    }
    *view = PyMemoryView_GET_BUFFER(own);
    AioBlock *block = aio_block_keep(state, own);
    Py_DECREF(own); /* the block has one */
    return block;
}

static AioBlock *
lend_bytearray(AioState *state, PyObject *object)
{
    const Py_buffer *view;
    AioBlock *block = aio_block_lend_buffer(state, object, &view);
    if (block != NULL) {
        block->kind = AIO_BLOCK_BYTEARRAY;
        block->data = view->buf;
        block->length = view->len;
        block->size = (size_t)view->len;
    }
    return block;
}

AioBlock *
aio_block_lend_copy(AioState *state, PyObject *object)
{
    if (PyByteArray_CheckExact(object)) {
        return lend_bytearray(state, object);
    }
    AioBlock *block = aio_block_keep(state, object);
    if (block == NULL) {
        return NULL;
    }
    if (PyBytes_CheckExact(object)) {
        block->kind = AIO_BLOCK_BYTES;
        block->data = PyBytes_AS_STRING(object);
        block->length = PyBytes_GET_SIZE(object);
        block->size = (size_t)block->length;
    }
    else {
        const int unit = PyUnicode_KIND(object);
        block->kind = PyUnicode_IS_ASCII(object)     ? AIO_BLOCK_ASCII
                      : unit == PyUnicode_1BYTE_KIND ? AIO_BLOCK_UCS1
                      : unit == PyUnicode_2BYTE_KIND ? AIO_BLOCK_UCS2
                                                     : AIO_BLOCK_UCS4;
        block->data = PyUnicode_DATA(object);
        block->length = PyUnicode_GET_LENGTH(object);
        block->size = (size_t)block->length * (size_t)unit;
    }
    return block;
}

PyObject *
aio_block_new_copy(const AioBlock *block, void **to)
{
    PyObject *object;
    Py_UCS4 largest;
    switch (block->kind) {
    case AIO_BLOCK_BYTES:
        object = PyBytes_FromStringAndSize(NULL, block->length);
        *to = object == NULL ? NULL : PyBytes_AS_STRING(object);
        return object;
    case AIO_BLOCK_BYTEARRAY:
        object = PyByteArray_FromStringAndSize(NULL, block->length);
        *to = object == NULL ? NULL : PyByteArray_AS_STRING(object);
        return object;
    case AIO_BLOCK_ASCII:
        largest = 0x7f;
        break;
    case AIO_BLOCK_UCS1:
        largest = 0xff;
        break;
    case AIO_BLOCK_UCS2:
        largest = 0xffff;
        break;
    case AIO_BLOCK_UCS4:
        largest = 0x10ffff;
        break;
    default:
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: a block that is no string");
        return NULL;
    }
    /* The owner's string was in canonical form, so this is its kind exactly. */
    object = PyUnicode_New(block->length, largest);
    *to = object == NULL ? NULL : PyUnicode_DATA(object);
    return object;
}
