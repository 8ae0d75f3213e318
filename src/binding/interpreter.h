/* interpreter.h: make the interpreter of a worker. */
#ifndef AIO_BINDING_INTERPRETER_H
#define AIO_BINDING_INTERPRETER_H

#include <Python.h>

/* How a worker's is configured; a floor of the benchmarks (src/floors) makes the same. */
#define AIO_INTERPRETER_CONFIG                                                                     \
    {                                                                                              \
        .use_main_obmalloc = 0,                                                                    \
        .allow_fork = 0,                                                                           \
        .allow_exec = 0,                                                                           \
        .allow_threads = 1,                                                                        \
        .allow_daemon_threads = 0,                                                                 \
        .check_multi_interp_extensions = 1,                                                        \
        .gil = PyInterpreterConfig_OWN_GIL,                                                        \
    }

/* A new interpreter with a GIL of its own, which the calling thread, that has no thread state,
 * gets with `*tstate`; or an error, and no thread state. May wait for others that are made. */
PyStatus aio_interpreter_new(PyThreadState **tstate);

#endif
