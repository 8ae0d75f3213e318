/* block.h: memory that an interpreter lends to others.
 *
 * A block keeps an object of its owner alive, unchanged in size and place, while
 * anybody reads or writes its memory. The references to it are counted across all
 * interpreters; when the last one is dropped it goes back to its owner (home.h),
 * which alone touches the object, and lets go of it.
 */
#ifndef AIO_BINDING_BLOCK_H
#define AIO_BINDING_BLOCK_H

#include <Python.h>

#include "counted.h"
#include "home.h"

typedef enum AioBlockKind {
    AIO_BLOCK_KEPT, /* an object or a buffer: not to be copied */
    AIO_BLOCK_BYTES,
    AIO_BLOCK_BYTEARRAY,
    AIO_BLOCK_ASCII, /* str, by CPython's kind of storage */
    AIO_BLOCK_UCS1,
    AIO_BLOCK_UCS2,
    AIO_BLOCK_UCS4,
} AioBlockKind;

typedef struct AioBlock {
    AioCounted counted;
    AioReturn returned;
    AioHome *home;       /* the owner's; a reference */
    PyObject *owner_ref; /* owned; touched by the owner alone */
    /* Constant: what the receiver makes of it. */
    AioBlockKind kind;
    Py_ssize_t length; /* in bytes or characters */
    const void *data;
    size_t size; /* in bytes */
} AioBlock;

/* Keep `object` alive, no more than that. A new reference; NULL with an exception set. */
AioBlock *aio_block_keep(AioState *state, PyObject *object);

/* Lend an exact str, bytes or bytearray, of which the receiver makes a copy. A bytearray
 * can't be resized meanwhile. As above. */
AioBlock *aio_block_lend_copy(AioState *state, PyObject *object);

/* Lend the memory of anything that has a buffer. `*view`, borrowed from the block,
 * describes it. As above. */
AioBlock *aio_block_lend_buffer(AioState *state, PyObject *exporter, const Py_buffer **view);

/* A new object of the block's kind and length in the current interpreter, and where
 * the block's memory is to be copied to before anybody looks at it. */
PyObject *aio_block_new_copy(const AioBlock *block, void **to);

/* The block, or NULL if `counted` is of another kind. */
AioBlock *aio_block_of_counted(AioCounted *counted);

static inline void
aio_block_release(AioBlock *block)
{
    aio_counted_release(&block->counted);
}

#endif
