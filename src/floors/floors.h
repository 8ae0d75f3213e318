/* floors.h: what the module `aiointerpreters._floors` offers, one subject a file. */
#ifndef AIO_FLOORS_FLOORS_H
#define AIO_FLOORS_FLOORS_H

#include <Python.h>

extern PyMethodDef floors_interpreters_methods[];
extern PyMethodDef floors_wake_methods[];

#endif
