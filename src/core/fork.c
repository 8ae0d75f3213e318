/* fork.c: count forks, by a handler that runs in every child. */
#include "fork.h"

#include <pthread.h>
#include <stdatomic.h>

/* One per process, as forking is. Written by the child's only thread before
 * fork() returns there, hence before any other thread of the child exists:
 * relaxed is enough. */
static _Atomic unsigned generation;
static pthread_once_t installed = PTHREAD_ONCE_INIT;

static void
count_fork(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

static void
install(void)
{
    /* Fails only for want of memory; then forks go unnoticed, as they would without us. */
    (void)pthread_atfork(NULL, NULL, count_fork);
}

unsigned
aio_fork_generation(void)
{
    pthread_once(&installed, install);
    return atomic_load_explicit(&generation, memory_order_relaxed);
}
