/* shutdown.c: how an interpreter waits for its pools to end.
 *
 * CPython cannot end with threads in its subinterpreters. So every interpreter
 * that starts pools keeps a list of those that may have live threads, and its
 * exit handler stops them and waits.
 *
 * Entered with the GIL of the interpreter that the pools belong to; the waiting
 * itself is done without it.
 */
#include <Python.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "core/wake.h"
#include "pool.h"
#include "shutdown.h"

/* Forget the pools whose threads have all gone. As the next one in the module's
 * critical section. */
static void
sweep_pools(AioState *state)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (aio_pending_count(&pool->threads) == 0) {
            aio_pool_release(pool);
        }
        else {
            state->pools[kept++] = pool;
        }
    }
    state->pool_count = kept;
}

int
aio_shutdown_register(AioState *state, AioPool *pool)
{
    sweep_pools(state);
    AioPool **pools = realloc(state->pools, (state->pool_count + 1) * sizeof *pools);
    if (pools == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    state->pools = pools;
    pools[state->pool_count++] = aio_pool_acquire(pool);
    return 0;
}

typedef struct BlockedWaiter {
    AioPendingWaiter waiter;
    AioWake wake;
} BlockedWaiter;

static void
wake_blocked(AioPendingWaiter *waiter)
{
    aio_wake_signal(&aio_container_of(waiter, BlockedWaiter, waiter)->wake);
}

int
aio_shutdown_wait(AioPool *pool)
{
    BlockedWaiter blocked = {.waiter = {.notify = wake_blocked}};
    int result = 0;

    if (aio_pending_count(&pool->threads) == 0) {
        return 0;
    }
    /* A descriptor, because poll() is what a signal interrupts on every system. */
    if (aio_wake_init(&blocked.wake) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!aio_pending_wait(&pool->threads, &blocked.waiter)) {
        struct pollfd readable = {.fd = aio_wake_fd(&blocked.wake), .events = POLLIN};
        bool is_over = false;
        while (!is_over) {
            int ready, reason;
            Py_BEGIN_ALLOW_THREADS ready = poll(&readable, 1, -1);
            reason = errno;
            Py_END_ALLOW_THREADS if (ready > 0)
            {
                is_over = true;
            }
            else if (result == 0 && reason == EINTR && PyErr_CheckSignals() < 0)
            {
                result = -1;
                /* If the notification is under way, it must come before we go. */
                is_over = aio_pending_forget(&pool->threads, &blocked.waiter);
            }
        }
    }
    aio_wake_destroy(&blocked.wake);
    return result;
}

/* Stop the interpreter's pools: all of them, or those that were not closed. */
static void
stop_pools(AioState *state, bool all)
{
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (!aio_pool_is_forked(pool) &&
            (all || !atomic_load_explicit(&pool->closing, memory_order_relaxed))) {
            aio_pool_close(pool, true, true);
        }
    }
}

/* A pool of this process that still has threads, a new reference; or NULL. */
static AioPool *
find_live_pool(AioState *state)
{
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (!aio_pool_is_forked(pool) && aio_pending_count(&pool->threads) > 0) {
            return aio_pool_acquire(pool);
        }
    }
    return NULL;
}

/* As aio_shutdown_wait(), for all pools. While it waits others may change the list. */
static int
wait_for_pools(AioState *state)
{
    AioPool *pool;
    int result = 0;
    while (result == 0 && (pool = find_live_pool(state)) != NULL) {
        result = aio_shutdown_wait(pool);
        aio_pool_release(pool);
    }
    return result;
}

PyObject *
aio_shutdown_all(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioState *state = aio_state_of_module(module);

    /* A pool that was closed in the ordinary way finishes its work, as promised. */
    stop_pools(state, false);
    if (wait_for_pools(state) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            return NULL;
        }
        PyErr_Clear(); /* Ctrl-C: finish no more */
        stop_pools(state, true);
        if (wait_for_pools(state) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

void
aio_shutdown_forget(AioState *state)
{
    for (size_t i = 0; i < state->pool_count; i++) {
        aio_pool_release(state->pools[i]);
    }
    free(state->pools);
    state->pools = NULL;
    state->pool_count = 0;
}
