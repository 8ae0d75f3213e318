/* blocked.h: a Python thread that waits in C, without the GIL, until it is woken.
 *
 * What wakes it: whoever it waits for, by aio_blocked_wake(); its deadline; a signal
 * whose handler raises (Ctrl-C, in the main thread); and an end of its own, where it
 * belongs to a worker: the task is interrupted, or the worker's interpreter ends.
 */
#ifndef AIO_BINDING_BLOCKED_H
#define AIO_BINDING_BLOCKED_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "core/park.h"
#include "core/wake.h"
#include "home.h"
#include "state.h"

/* What can be interrupted in a worker, each by a thread of its own. */
typedef enum AioBlockedWork {
    AIO_BLOCKED_TASK, /* plain calls */
    AIO_BLOCKED_LOOP, /* coroutines */
    AIO_BLOCKED_NONE, /* any other thread */
} AioBlockedWork;

typedef struct AioBlocked {
    AioHome *home; /* borrowed: the interpreter lives while a thread of it waits */
    AioWake wake;
    AioParker parker;     /* in place of the wake, where there is no descriptor for one */
    bool has_wake;        /* constant */
    AioBlockedWork work;  /* what this thread runs in a worker; constant */
    bool handles_signals; /* this is the program's main thread; constant */
    /* Guarded by the home's lock, as is the link; the wake is signalled under it. */
    AioListNode link;
    bool woken;
    bool interrupted;
} AioBlocked;

typedef enum AioBlockedResult {
    AIO_BLOCKED_FAILED = -1, /* an exception is set */
    AIO_BLOCKED_WOKEN,
    AIO_BLOCKED_TIMED_OUT,
} AioBlockedResult;

/* On the waiting thread's stack, mostly. `at_end`: the wait is part of a pool's or the
 * interpreter's end, so it is refused neither then nor for want of a descriptor. 0, or -1
 * with an exception set. May run Python code. */
int aio_blocked_init(AioBlocked *blocked, AioState *state, bool at_end);

/* After it nobody may wake it any more. */
void aio_blocked_destroy(AioBlocked *blocked);

/* Wait, without the GIL, until woken or until `deadline_ns` of aio_clock_ns() (never,
 * if negative). Each wake is seen once. */
AioBlockedResult aio_blocked_wait(AioBlocked *blocked, AioState *state, int64_t deadline_ns);

/* Wait for a wake that is certain to come within moments, whatever else happens. */
void aio_blocked_await_wake(AioBlocked *blocked);

/* Any thread, no GIL needed. Once the waiting thread has seen it, `blocked` is not
 * touched any more. */
void aio_blocked_wake(AioBlocked *blocked);

/* The same, for who holds the home's lock. */
void aio_blocked_wake_locked(AioBlocked *blocked);

/* Interrupt the wait of the thread that does that work in that (worker's) interpreter, if
 * it is in one, or the next one that it begins, unless the exception that has been sent to it
 * before arrives earlier. */
void aio_blocked_interrupt_work(AioHome *home, AioBlockedWork work);

/* What was interrupted has ended. */
void aio_blocked_end_work(AioHome *home, AioBlockedWork work);

/* The interpreter ends: every wait in it fails, now and from now on. */
void aio_blocked_end_all(AioHome *home);

#endif
