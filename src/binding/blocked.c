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

/* What is raised in that work to interrupt it. */
static PyObject *
interruption(AioState *state, AioBlockedWork work)
{
    return work == AIO_BLOCKED_LOOP && state->loop_interruption != NULL ? state->loop_interruption
                                                                        : state->interrupted;
}

/* An exception that was sent to this thread arrives when CPython next looks for one, which it
 * does not do on the way into a C function; but where a piece of code begins. Whether it has
 * arrived before can't be told otherwise. 0, or -1 with the exception set. */
static int
let_interruption_arrive(void)
{
    PyObject *result = NULL, *code = Py_CompileString("None", "<interruption>", Py_eval_input);
    PyObject *globals = code == NULL ? NULL : PyDict_New();
    if (globals != NULL) {
        result = PyEval_EvalCode(code, globals, globals);
    }
    Py_XDECREF(globals);
    Py_XDECREF(code);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The home's lock must be held. Whether an exception was sent to this thread that it may not
 * have noticed yet; asked once. */
static bool
take_interruption(AioBlocked *blocked)
{
    const bool is_interrupted =
        blocked->work != AIO_BLOCKED_NONE && blocked->home->is_interrupted[blocked->work];
    if (is_interrupted) {
        blocked->home->is_interrupted[blocked->work] = false;
    }
    return is_interrupted;
}

/* What the calling thread does. */
static AioBlockedWork
work_of_thread(AioState *state)
{
    const unsigned long thread_id = PyThread_get_thread_ident();
    if (state->worker_thread_id == thread_id) {
        return AIO_BLOCKED_TASK;
    }
    return state->loop_thread_id == thread_id ? AIO_BLOCKED_LOOP : AIO_BLOCKED_NONE;
}

int
aio_blocked_init(AioBlocked *blocked, AioState *state, bool at_end)
{
    AioHome *home = aio_state_home(state);
    if (home == NULL) {
        return -1;
    }
    blocked->home = home;
    blocked->work = work_of_thread(state);
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
    pthread_mutex_lock(&home->lock);
    while (take_interruption(blocked)) {
        pthread_mutex_unlock(&home->lock);
        if (let_interruption_arrive() < 0) {
            destroy_wake(blocked);
            return -1;
        }
        pthread_mutex_lock(&home->lock);
    }
    const bool is_refused = home->is_ending && !at_end;
    if (!is_refused) {
        aio_list_append(&home->blocked, &blocked->link);
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
aio_blocked_wake_locked(AioBlocked *blocked)
{
    blocked->woken = true;
    ring(blocked);
}

void
aio_blocked_wake(AioBlocked *blocked)
{
    AioHome *home = blocked->home;
    pthread_mutex_lock(&home->lock);
    aio_blocked_wake_locked(blocked);
    pthread_mutex_unlock(&home->lock);
}

void
aio_blocked_end_work(AioHome *home, AioBlockedWork work)
{
    pthread_mutex_lock(&home->lock);
    home->is_interrupted[work] = false;
    pthread_mutex_unlock(&home->lock);
}

void
aio_blocked_interrupt_work(AioHome *home, AioBlockedWork work)
{
    pthread_mutex_lock(&home->lock);
    home->is_interrupted[work] = true;
    for (AioListNode *link = home->blocked.head.next; link != &home->blocked.head;
         link = link->next) {
        AioBlocked *blocked = aio_container_of(link, AioBlocked, link);
        if (blocked->work == work) {
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
        (void)take_interruption(blocked); /* it arrives in this wait */
    }
    else if (blocked->woken) {
        event = WOKEN;
        blocked->woken = false;
    }
    pthread_mutex_unlock(&blocked->home->lock);
    return event;
}

/* As poll(), until then. */
static int
poll_until(struct pollfd *readable, nfds_t count, int64_t deadline_ns)
{
    int64_t left = -1;
    if (deadline_ns >= 0) {
        left = deadline_ns - aio_clock_ns();
        left = left < 0 ? 0 : left;
    }
#ifdef __linux__
    const struct timespec span = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    return ppoll(readable, count, left < 0 ? NULL : &span, NULL);
#else
    /* In milliseconds, rounded up. */
    const int64_t longest = (int64_t)INT_MAX * 1000000;
    return poll(readable, count,
                left < 0          ? -1
                : left >= longest ? INT_MAX
                                  : (int)((left + 999999) / 1000000));
#endif
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
    if (poll_until(readable, 2, deadline_ns) > 0 && readable[1].revents != 0) {
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
            PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), NULL);
            PyErr_SetNone(interruption(state, blocked->work));
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
