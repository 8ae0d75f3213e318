/* thread.h: native threads, and what the machine offers them. */
#ifndef AIO_CORE_THREAD_H
#define AIO_CORE_THREAD_H

#include <stdbool.h>

/* Start a detached thread in `entry(argument)`. Its stack has room for deep
 * Python recursion on every libc. Returns 0, or -1 where there is no room for
 * another thread. `name` (borrowed, at most 15 characters are kept) is what
 * debuggers and `top -H` show. */
int aio_thread_start(void (*entry)(void *argument), void *argument, const char *name);

/* The number of processors that this process may run on, at least 1. */
int aio_cpu_count(void);

/* Whether a thread may wait for another one by looking again and again for a moment: there is
 * another processor to run that, and nobody has set AIOINTERPRETERS_SPIN=0 in the environment. */
bool aio_may_spin(void);

#endif
