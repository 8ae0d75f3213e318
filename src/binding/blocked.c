/* blocked.c: a Python thread that waits in C, without the GIL, until it is woken.
 *
 * It sleeps in poll() on a descriptor of its own. What happened is told by flags under
 * the home's lock; the descriptor only says that it is time to look at them.
 *
 * Signals. CPython's handler, in whatever thread the system runs it, notes a signal and
 * writes to a descriptor, if one is set; the main thread then runs Python's handlers when
 * it next looks. To look just before poll() is not enough, as a signal may come in
 * between. So for as long as the main thread is blocked here, that descriptor is a pipe of
 * ours, which poll() watches too; what comes through it is passed on afterwards to
 * whoever had set one before (asyncio).
 *
 * Where all descriptors are taken a queue's wait is refused. But a program must be able to
 * end: its last waits then park, and look for signals some times a second.
 */
#include "blocked.h"

#include <limits.h>
#include <poll.h>

#include "core/clock.h"
#include "signals.h"

static void
raise_ending(void)
{
    PyErr_SetString(PyExc_RuntimeError, "this interpreter is ending: nothing can wait in it");
}

static const int64_t LOOK_FOR_SIGNALS_NS = 50 * 1000 * 1000;

/* The home's lock must be held. */
static void
ring(AioBlocked *blocked)
{
    if (blocked->has_wake) {
        aio_wake_signal(&blocked->wake);
    }
    else {
        aio_unpark(&blocked->parker);
    }
}

static void
destroy_wake(AioBlocked *blocked)
{
    if (blocked->has_wake) {
        aio_wake_destroy(&blocked->wake);
    }
    else {
        aio_parker_destroy(&blocked->parker);
    }
}

/* The home's lock must be held. */
static void
interrupt(AioBlocked *blocked)
{
    blocked->interrupted = true;
    ring(blocked);
}

/* Whether an exception that interrupts the task has come, and is being dealt with. */
static bool
handles_interruption(AioState *state)
{
    PyObject *handled = PyErr_GetHandledException();
    const bool matches =
        handled != NULL && PyErr_GivenExceptionMatches(handled, state->interrupted);
    Py_XDECREF(handled);
    return matches;
}

int
aio_blocked_init(AioBlocked *blocked, AioState *state, bool at_end)
{
    AioHome *home = aio_state_home(state);
    if (home == NULL) {
        return -1;
    }
    blocked->home = home;
    blocked->runs_tasks = state->worker_thread_id == PyThread_get_thread_ident();
    const int handles_signals = home->is_main ? aio_signals_are_mine(state) : 0;
    if (handles_signals < 0) {
        return -1;
    }
    blocked->handles_signals = handles_signals > 0;
    blocked->woken = false;
    blocked->interrupted = false;
    aio_list_node_init(&blocked->link);
    blocked->has_wake = aio_wake_init(&blocked->wake) == 0;
    if (!blocked->has_wake && (!at_end || aio_parker_init(&blocked->parker) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    const bool is_handled = blocked->runs_tasks && handles_interruption(state);
    pthread_mutex_lock(&home->lock);
    const bool is_refused = home->is_ending && !at_end;
    if (!is_refused) {
        aio_list_append(&home->blocked, &blocked->link);
    }
    /* CPython looks for an exception that was sent after calls, not before them: it may
     * be on its way while the thread comes here to sleep. */
    if (blocked->runs_tasks && home->task_is_interrupted && !is_handled) {
        interrupt(blocked);
    }
    pthread_mutex_unlock(&home->lock);
    if (is_refused) {
        destroy_wake(blocked);
        raise_ending();
        return -1;
    }
    return 0;
}

void
aio_blocked_destroy(AioBlocked *blocked)
{
    pthread_mutex_lock(&blocked->home->lock);
    aio_list_unlink(&blocked->link);
    pthread_mutex_unlock(&blocked->home->lock);
    destroy_wake(blocked);
}

void
aio_blocked_wake(AioBlocked *blocked)
{
    AioHome *home = blocked->home;
    pthread_mutex_lock(&home->lock);
    blocked->woken = true;
    ring(blocked);
    pthread_mutex_unlock(&home->lock);
}

void
aio_blocked_end_task(AioHome *home)
{
    pthread_mutex_lock(&home->lock);
    home->task_is_interrupted = false;
    pthread_mutex_unlock(&home->lock);
}

void
aio_blocked_interrupt_task(AioHome *home)
{
    pthread_mutex_lock(&home->lock);
    home->task_is_interrupted = true;
    for (AioListNode *link = home->blocked.head.next; link != &home->blocked.head;
         link = link->next) {
        AioBlocked *blocked = aio_container_of(link, AioBlocked, link);
        if (blocked->runs_tasks) {
            interrupt(blocked);
        }
    }
    pthread_mutex_unlock(&home->lock);
}

void
aio_blocked_end_all(AioHome *home)
{
    pthread_mutex_lock(&home->lock);
    home->is_ending = true;
    for (AioListNode *link = home->blocked.head.next; link != &home->blocked.head;
         link = link->next) {
        interrupt(aio_container_of(link, AioBlocked, link));
    }
    pthread_mutex_unlock(&home->lock);
}

typedef enum Event { NOTHING, WOKEN, INTERRUPTED, ENDING } Event;

/* What has happened; it is reset, but a wake that is outshone by something else stays. */
static Event
look(AioBlocked *blocked)
{
    Event event = NOTHING;
    if (blocked->has_wake) {
        aio_wake_clear(&blocked->wake);
    }
    pthread_mutex_lock(&blocked->home->lock);
    if (blocked->interrupted) {
        event = blocked->home->is_ending ? ENDING : INTERRUPTED;
        blocked->interrupted = false;
    }
    else if (blocked->woken) {
        event = WOKEN;
        blocked->woken = false;
    }
    pthread_mutex_unlock(&blocked->home->lock);
    return event;
}

/* For poll(): the milliseconds until then, rounded up. */
static int
milliseconds_until(int64_t deadline_ns)
{
    if (deadline_ns < 0) {
        return -1;
    }
    const int64_t left = deadline_ns - aio_clock_ns();
    if (left <= 0) {
        return 0;
    }
    return left > (int64_t)INT_MAX * 1000000 ? INT_MAX : (int)((left + 999999) / 1000000);
}

/* Sleep, without the GIL, until it is time to look at the flags, or at signals. */
static void
sleep_until(AioBlocked *blocked, int64_t deadline_ns, int signals)
{
    if (!blocked->has_wake) {
        (void)aio_park_until(&blocked->parker, aio_clock_ns() + LOOK_FOR_SIGNALS_NS);
        return;
    }
    struct pollfd readable[] = {
        {.fd = aio_wake_fd(&blocked->wake), .events = POLLIN},
        {.fd = signals, .events = POLLIN}, /* ignored if it is -1 */
    };
    if (poll(readable, 2, milliseconds_until(deadline_ns)) > 0 && readable[1].revents != 0) {
        aio_signals_note();
    }
}

/* As aio_blocked_wait(). `signals`: a descriptor to watch for them, or -1. */
static AioBlockedResult
wait_watching(AioBlocked *blocked, AioState *state, int64_t deadline_ns, int signals)
{
    for (;;) {
        Event event;
        if (PyErr_CheckSignals() < 0) {
            return AIO_BLOCKED_FAILED;
        }
        /* clang-format off */
        Py_BEGIN_ALLOW_THREADS
        sleep_until(blocked, deadline_ns, signals);
        event = look(blocked);
        Py_END_ALLOW_THREADS
            /* clang-format on */
            switch (event)
        {
        case WOKEN:
            return AIO_BLOCKED_WOKEN;
        case INTERRUPTED:
            /* The exception was sent to the thread: it arrives here and now. */
            PyThreadState_SetAsyncExc(state->worker_thread_id, NULL);
            PyErr_SetNone(state->interrupted);
            return AIO_BLOCKED_FAILED;
        case ENDING:
            raise_ending();
            return AIO_BLOCKED_FAILED;
        case NOTHING:
            break;
        }
        if (deadline_ns >= 0 && aio_clock_ns() >= deadline_ns) {
            return AIO_BLOCKED_TIMED_OUT;
        }
    }
}

AioBlockedResult
aio_blocked_wait(AioBlocked *blocked, AioState *state, int64_t deadline_ns)
{
    if (!blocked->handles_signals) {
        return wait_watching(blocked, state, deadline_ns, -1);
    }
    const int signals = aio_signals_watch();
    if (signals < 0) { /* no descriptors: a signal still interrupts poll() */
        return wait_watching(blocked, state, deadline_ns, -1);
    }
    const AioBlockedResult result = wait_watching(blocked, state, deadline_ns, signals);
    aio_signals_unwatch();
    return result;
}

void
aio_blocked_await_wake(AioBlocked *blocked)
{
    /* clang-format off */
    Py_BEGIN_ALLOW_THREADS
    while (look(blocked) != WOKEN) {
        sleep_until(blocked, -1, -1);
    }
    Py_END_ALLOW_THREADS
    /* clang-format on */
}
