/* method.h: a runner's run() and submit(), where there is nothing to add to a call. */
#ifndef AIO_BINDING_METHOD_H
#define AIO_BINDING_METHOD_H

#include <Python.h>

extern PyType_Spec aio_method_spec;

#endif
