/* sleep.h: time.sleep() in a worker, which can be interrupted. */
#ifndef AIO_BINDING_SLEEP_H
#define AIO_BINDING_SLEEP_H

#include <Python.h>

/* aiointerpreters._core.sleep(seconds) */
PyObject *aio_sleep(PyObject *module, PyObject *seconds);

/* Put it in the place of time.sleep. 0, or -1 with an exception set. */
int aio_sleep_install(PyObject *module);

#endif
