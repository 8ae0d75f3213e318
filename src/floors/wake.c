/* wake.c: how long it takes to wake a thread, and to be woken by it.
 *
 *      this thread                             the other one
 *      ask ──── futex wake ──────────────────► parked
 *      epoll_wait ◄──── write to an eventfd ── answer
 *
 * That is the way of a call with everything taken out that makes it one: no
 * Python, no queue, no values. Parking and the descriptor are the core's own,
 * so a build with its portable twins measures those.
 *
 * The other thread may spin for a while before it parks, as an idle worker does.
 * And the two may be kept on cores of their own. Left alone, the kernel likes to
 * wake a thread on its waker's core, if that is about to sleep: that is soon, but
 * no use to a pool, whose workers are to run beside the loop.
 */
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "clock.h"
#include "floors.h"
#include "park.h"
#include "platform.h"
#include "wake.h"

#if defined(__linux__) && !defined(AIO_PORTABLE)
#include <sys/epoll.h>
#include <unistd.h>
#else
#include <poll.h>
#endif

typedef struct Pair {
    AioParker parker; /* the other thread's */
    AioWake wake;     /* this thread waits for it */
    int poller;       /* epoll's descriptor; unused with poll() */
    int64_t spin_ns;
    _Atomic unsigned asked; /* how often; released by this thread, acquired by the other */
    _Atomic bool ends;      /* set before the last time; `asked` publishes it */
} Pair;

/* ---- this thread waits for the descriptor ---- */

#if defined(__linux__) && !defined(AIO_PORTABLE)

static int
poller_init(Pair *pair)
{
    struct epoll_event readable = {.events = EPOLLIN};
    pair->poller = epoll_create1(EPOLL_CLOEXEC);
    if (pair->poller < 0) {
        return -1;
    }
    if (epoll_ctl(pair->poller, EPOLL_CTL_ADD, aio_wake_fd(&pair->wake), &readable) < 0) {
        close(pair->poller);
        return -1;
    }
    return 0;
}

static void
poller_destroy(Pair *pair)
{
    close(pair->poller);
}

static void
wait_for_answer(Pair *pair)
{
    struct epoll_event event;
    while (epoll_wait(pair->poller, &event, 1, -1) < 1) {
    }
    aio_wake_clear(&pair->wake);
}

#else

static int
poller_init(Pair *pair)
{
    (void)pair;
    return 0;
}

static void
poller_destroy(Pair *pair)
{
    (void)pair;
}

static void
wait_for_answer(Pair *pair)
{
    struct pollfd readable = {.fd = aio_wake_fd(&pair->wake), .events = POLLIN};
    while (poll(&readable, 1, -1) < 1) {
    }
    aio_wake_clear(&pair->wake);
}

#endif

/* ---- the other thread ---- */

/* Whether it was asked once more, within the time that it spins. */
static bool
spin(Pair *pair, unsigned answered)
{
    if (pair->spin_ns <= 0) {
        return false;
    }
    const int64_t until = aio_clock_ns() + pair->spin_ns;
    do {
        for (int i = 0; i < 20; i++) {
            if (atomic_load_explicit(&pair->asked, memory_order_acquire) != answered) {
                return true;
            }
            aio_cpu_relax();
        }
    } while (aio_clock_ns() < until);
    return false;
}

static void *
answer(void *raw)
{
    Pair *pair = raw;
    unsigned answered = 0;

    for (;;) {
        while (atomic_load_explicit(&pair->asked, memory_order_acquire) == answered) {
            if (!spin(pair, answered)) {
                aio_park(&pair->parker);
            }
        }
        answered++;
        if (atomic_load_explicit(&pair->ends, memory_order_relaxed)) {
            return NULL;
        }
        aio_wake_signal(&pair->wake);
    }
}

static void
ask(Pair *pair)
{
    atomic_fetch_add_explicit(&pair->asked, 1, memory_order_release);
    aio_unpark(&pair->parker);
}

/* ---- cores ---- */

#if defined(__linux__)

#include <sched.h>

typedef cpu_set_t Cores;

/* Let this thread run on the first of its cores only, and find the second one. `before` is what it
 * had. Returns 0, or -1 with errno set. */
static int
take_first_core(Cores *before, Cores *second)
{
    Cores first;
    int found = 0;

    if (sched_getaffinity(0, sizeof *before, before) < 0) {
        return -1;
    }
    CPU_ZERO(&first);
    CPU_ZERO(second);
    for (int core = 0; core < CPU_SETSIZE && found < 2; core++) {
        if (CPU_ISSET(core, before)) {
            CPU_SET(core, found == 0 ? &first : second);
            found++;
        }
    }
    if (found < 2) {
        errno = EINVAL;
        return -1;
    }
    return sched_setaffinity(0, sizeof first, &first);
}

static void
take_back_cores(const Cores *before)
{
    sched_setaffinity(0, sizeof *before, before);
}

static int
start_on(const Cores *cores, pthread_t *thread, Pair *pair)
{
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed) {
        return failed;
    }
    failed = pthread_attr_setaffinity_np(&attributes, sizeof *cores, cores);
    if (!failed) {
        failed = pthread_create(thread, &attributes, answer, pair);
    }
    pthread_attr_destroy(&attributes);
    return failed;
}

#else

typedef int Cores;

static int
take_first_core(Cores *before, Cores *second)
{
    (void)before;
    (void)second;
    errno = ENOTSUP;
    return -1;
}

static void
take_back_cores(const Cores *before)
{
    (void)before;
}

static int
start_on(const Cores *cores, pthread_t *thread, Pair *pair)
{
    (void)cores;
    return pthread_create(thread, NULL, answer, pair);
}

#endif

/* ---- measuring ---- */

static void
sleep_ns(int64_t duration)
{
    const struct timespec pause = {
        .tv_sec = (time_t)(duration / 1000000000),
        .tv_nsec = (long)(duration % 1000000000),
    };
    nanosleep(&pause, NULL);
}

static void
take_turns(Pair *pair, int64_t *durations, Py_ssize_t rounds, int64_t pause_ns)
{
    ask(pair); /* the thread has begun once it answers */
    wait_for_answer(pair);
    for (Py_ssize_t i = 0; i < rounds; i++) {
        if (pause_ns > 0) {
            sleep_ns(pause_ns);
        }
        const int64_t began = aio_clock_ns();
        ask(pair);
        wait_for_answer(pair);
        durations[i] = aio_clock_ns() - began;
    }
    atomic_store_explicit(&pair->ends, true, memory_order_relaxed);
    ask(pair);
}

/* Fill `durations`, in nanoseconds. `cores` may be NULL. Returns 0, or -1 with errno set. */
static int
measure(int64_t *durations, Py_ssize_t rounds, int64_t spin_ns, int64_t pause_ns,
        const Cores *cores)
{
    Pair pair = {.spin_ns = spin_ns};
    pthread_t other;
    int failed;
    int result = -1;

    if (aio_parker_init(&pair.parker) < 0) {
        errno = ENOMEM;
        return -1;
    }
    if (aio_wake_init(&pair.wake) < 0) {
        goto no_wake;
    }
    if (poller_init(&pair) < 0) {
        goto no_poller;
    }
    failed = cores != NULL ? start_on(cores, &other, &pair)
                           : pthread_create(&other, NULL, answer, &pair);
    if (failed) {
        errno = failed;
        goto no_thread;
    }
    take_turns(&pair, durations, rounds, pause_ns);
    pthread_join(other, NULL);
    result = 0;
no_thread:
    poller_destroy(&pair);
no_poller:
    aio_wake_destroy(&pair.wake);
no_wake:
    aio_parker_destroy(&pair.parker);
    return result;
}

/* The same with both threads on cores of their own. */
static int
measure_apart(int64_t *durations, Py_ssize_t rounds, int64_t spin_ns, int64_t pause_ns)
{
    Cores before;
    Cores second;
    int result;

    if (take_first_core(&before, &second) < 0) {
        return -1;
    }
    result = measure(durations, rounds, spin_ns, pause_ns, &second);
    take_back_cores(&before);
    return result;
}

static PyObject *
microseconds(const int64_t *durations, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    if (list == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *number = PyFloat_FromDouble((double)durations[i] / 1000);
        if (number == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, number);
    }
    return list;
}

PyDoc_STRVAR(wake_doc,
             "wake(rounds, spin_ns, pause_ns, apart=False)\n--\n\n"
             "Wake a thread by a futex, and wait in epoll for the eventfd that it writes.\n\n"
             "The thread spins for `spin_ns` before it parks; `pause_ns` pass before each round;\n"
             "`apart` keeps both threads on cores of their own.\n"
             "Returns the durations of the rounds in microseconds.");

static PyObject *
wake(PyObject *module, PyObject *args)
{
    Py_ssize_t rounds;
    long long spin_ns;
    long long pause_ns;
    int apart = 0;
    int failed;

    if (!PyArg_ParseTuple(args, "nLL|p:wake", &rounds, &spin_ns, &pause_ns, &apart)) {
        return NULL;
    }
    if (rounds < 1 || spin_ns < 0 || pause_ns < 0) {
        PyErr_SetString(PyExc_ValueError, "rounds must be at least 1, durations at least 0");
        return NULL;
    }
    int64_t *durations = PyMem_New(int64_t, rounds);
    if (durations == NULL) {
        return PyErr_NoMemory();
    }
    PyThreadState *saved = PyEval_SaveThread();
    failed = apart ? measure_apart(durations, rounds, spin_ns, pause_ns)
                   : measure(durations, rounds, spin_ns, pause_ns, NULL);
    PyEval_RestoreThread(saved); /* keeps errno */
    PyObject *result = NULL;
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    else {
        result = microseconds(durations, rounds);
    }
    PyMem_Free(durations);
    return result;
}

PyMethodDef floors_wake_methods[] = {
    {"wake", wake, METH_VARARGS, wake_doc},
    {NULL, NULL, 0, NULL},
};
