/* refusal.h: why a value cannot cross, and where in it the culprit is.
 *
 * The path costs nothing while all goes well: it is put together from the inside
 * out while a failed encoding unwinds. What the struct holds belongs to the
 * interpreter that encodes.
 */
#ifndef AIO_BINDING_REFUSAL_H
#define AIO_BINDING_REFUSAL_H

#include <Python.h>
#include <stdbool.h>

#include "state.h"

/* Zero-initialised: nothing was refused. */
typedef struct AioRefusal {
    PyObject *culprit; /* the name of the refused value's type; owned */
    PyObject *path;    /* to it, as far as it is known; owned */
    bool is_cut;       /* the path is too long: its outer part is left out */
} AioRefusal;

static inline bool
aio_refusal_is_set(const AioRefusal *refusal)
{
    return refusal->culprit != NULL;
}

void aio_refusal_clear(AioRefusal *refusal);

/* The exception that is set means that `value` cannot cross: note whose fault it
 * is. What is no refusal (no memory, Ctrl-C) passes as it is. */
void aio_refusal_begin(AioRefusal *refusal, PyObject *value);

/* The culprit is in a container, at that index. */
void aio_refusal_prepend_index(AioRefusal *refusal, Py_ssize_t index);

/* The culprit is in a container; `format` has one %U for the repr of `key`. */
void aio_refusal_prepend_key(AioRefusal *refusal, AioState *state, const char *format,
                             PyObject *key);

/* Turn the exception that is set, if it is a refusal, into NotShareableError with
 * that as its cause. `root` is taken: how the path begins. Always returns -1. */
int aio_refusal_raise(AioRefusal *refusal, AioState *state, PyObject *root);

#endif
