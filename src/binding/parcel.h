/* parcel.h: what of a pickled value goes beside the pickle.
 *
 * A pickle is a copy. So what is large, or has no pickle at all, is taken out of it:
 * buffers by protocol 5 (PEP 574), and memoryviews, large strings and bytes, queues and
 * shared values by persistent ids, which are numbers in the order of appearance.
 */
#ifndef AIO_BINDING_PARCEL_H
#define AIO_BINDING_PARCEL_H

#include <Python.h>

#include "state.h"

/* aiointerpreters._core.Parcel: passed to aiointerpreters._pickling.dumps(). */
extern PyType_Spec aio_parcel_spec;

PyObject *aio_parcel_new(AioState *state);

/* Lists, borrowed: of PickleBuffer; of the objects that were taken out; and of those that
 * went into the pickle as a name only, and must live until the receiver has looked it up. */
PyObject *aio_parcel_buffers(PyObject *parcel);
PyObject *aio_parcel_objects(PyObject *parcel);
PyObject *aio_parcel_kept(PyObject *parcel);

#endif
