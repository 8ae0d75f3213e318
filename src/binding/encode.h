/* encode.h: what encode.c shares with the pickling of what it cannot encode itself. */
#ifndef AIO_BINDING_ENCODE_H
#define AIO_BINDING_ENCODE_H

#include <Python.h>
#include <stdbool.h>

#include "state.h"

/* Whether a pickle refers to `object` by number, and it goes beside the pickle: it has
 * no pickle, or is large. */
bool aio_goes_beside_pickle(AioState *state, PyObject *object);

#endif
