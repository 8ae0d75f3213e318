/* interpreter.c: make the interpreter of a worker. */
#include "interpreter.h"

#include <pthread.h>

#if PY_VERSION_HEX < 0x030E0000
/* CPython 3.13 numbers immutable types with a counter of the process, and no lock: where two
 * interpreters that start do so at once, one may number two types alike, and takes one's
 * attributes for the other's. So they start one by one. Held while an interpreter is made,
 * and nothing else is locked, or a GIL held, by who waits for it. */
static pthread_mutex_t creation_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t creation_once = PTHREAD_ONCE_INIT;

/* In a forked child: who held it has stayed in the parent. */
static void
renew_creation_lock(void)
{
    creation_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void
watch_forks(void)
{
    /* As for aio_fork_generation(). */
    (void)pthread_atfork(NULL, NULL, renew_creation_lock);
}

static void
begin_creation(void)
{
    pthread_once(&creation_once, watch_forks);
    pthread_mutex_lock(&creation_lock);
}

static void
end_creation(void)
{
    pthread_mutex_unlock(&creation_lock);
}
#else
static void
begin_creation(void)
{
}

static void
end_creation(void)
{
}
#endif

PyStatus
aio_interpreter_new(PyThreadState **tstate)
{
    const PyInterpreterConfig config = AIO_INTERPRETER_CONFIG;
    begin_creation();
    const PyStatus status = Py_NewInterpreterFromConfig(tstate, &config);
    end_creation();
    return status;
}
