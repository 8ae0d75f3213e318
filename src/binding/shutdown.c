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
#include <stdbool.h>
#include <stdlib.h>

#include "blocked.h"
#include "home.h"
#include "pool.h"
#include "shutdown.h"
#include "worker.h"

static bool
has_threads(AioPool *pool)
{
    return aio_pending_count(&pool->threads) > 0;
}

static bool
has_lingering(AioPool *pool)
{
    return aio_pending_count(&pool->lingering) > 0;
}

/* Whether no thread of the pool is left, of any kind. */
static bool
has_gone(AioPool *pool)
{
    return !has_threads(pool) && !has_lingering(pool);
}

/* Forget the pools whose threads have all gone. As the next one in the module's
 * critical section. */
static void
sweep_pools(AioState *state)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (has_gone(pool)) {
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
    AioBlocked blocked;
} BlockedWaiter;

static void
wake_blocked(AioPendingWaiter *waiter)
{
    aio_blocked_wake(&aio_container_of(waiter, BlockedWaiter, waiter)->blocked);
}

/* Block until that count is zero, as aio_shutdown_wait() says. */
static int
wait_for_none(AioState *state, AioPending *pending)
{
    BlockedWaiter wait = {.waiter = {.notify = wake_blocked}};
    AioBlockedResult result = AIO_BLOCKED_WOKEN;

    if (aio_pending_count(pending) == 0) {
        return 0;
    }
    if (aio_blocked_init(&wait.blocked, state, true) < 0) {
        return -1;
    }
    if (!aio_pending_wait(pending, &wait.waiter)) {
        result = aio_blocked_wait(&wait.blocked, state, -1);
        if (result == AIO_BLOCKED_FAILED && !aio_pending_forget(pending, &wait.waiter)) {
            /* The notification is under way: it must come before we go. */
            aio_blocked_await_wake(&wait.blocked);
        }
    }
    aio_blocked_destroy(&wait.blocked);
    return result == AIO_BLOCKED_FAILED ? -1 : 0;
}

int
aio_shutdown_wait(AioState *state, AioPool *pool)
{
    return wait_for_none(state, &pool->threads);
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

/* A pool of this process for which `holds` is true, a new reference; or NULL. */
static AioPool *
find_pool(AioState *state, bool (*holds)(AioPool *))
{
    for (size_t i = 0; i < state->pool_count; i++) {
        AioPool *pool = state->pools[i];
        if (!aio_pool_is_forked(pool) && holds(pool)) {
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
    while (result == 0 && (pool = find_pool(state, has_threads)) != NULL) {
        result = aio_shutdown_wait(state, pool);
        aio_pool_release(pool);
    }
    return result;
}

/* Say why the end may take long. Clears its own errors. */
static void
warn_of_stuck(AioPool *pool)
{
    AioWorkersCounts counts;
    aio_workers_count(pool, &counts);
    if (counts.stuck > 0 &&
        PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                         "%d call(s) of the runner %s could not be stopped: this program ends when "
                         "they have, or at a second Ctrl-C",
                         counts.stuck, pool->name) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
}

/* End what outlives the pools. What it lent can still be read: nobody frees it. */
static int
wait_for_lingering(AioState *state)
{
    AioPool *pool;
    int result = 0;
    while (result == 0 && (pool = find_pool(state, has_lingering)) != NULL) {
        if (state->worker != NULL) { /* what we wait for may never happen */
            aio_workers_detach(state->worker);
        }
        aio_pool_evict(pool);
        warn_of_stuck(pool);
        result = wait_for_none(state, &pool->lingering);
        aio_pool_release(pool);
    }
    return result;
}

PyObject *
aio_shutdown_all(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    AioState *state = aio_state_of_module(module);

    /* A pool that was closed in the ordinary way finishes its work, as promised; unless this is a
     * worker of one that is being stopped. */
    stop_pools(state, state->worker != NULL && aio_pool_is_stopping(state->worker->pool));
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
    if (wait_for_lingering(state) < 0) {
        return NULL;
    }
    aio_home_settle(state->home);
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
