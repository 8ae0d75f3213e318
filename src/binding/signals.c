/* signals.c: let the main thread's waits be ended by signals, without a gap.
 *
 * A process has one "wakeup descriptor" of Python (signal.set_wakeup_fd), to which its C
 * handler writes each signal's number; asyncio uses it while a loop runs. It is ours only
 * while the main thread is blocked. What is state here is touched by that thread alone,
 * with the GIL or without; the pipe is kept, since a handler that runs in another thread
 * might write to it a moment later.
 */
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "core/fork.h"

/* How far waits within waits are watched: deeper ones share the outer one's watch. */
static int depth;
static unsigned fork_generation; /* of the process that all this is of */
static int previous_fd = -1;
static int pipe_fds[2] = {-1, -1};
/* What came, to be passed on; more than fits is not worth telling. */
static unsigned char noted[64];
static size_t noted_count;

int
aio_signals_are_mine(AioState *state)
{
    PyObject *main_thread = aio_helper(state, AIO_HELPER_MAIN_THREAD);
    PyObject *thread = main_thread == NULL ? NULL : PyObject_CallNoArgs(main_thread);
    PyObject *ident = thread == NULL ? NULL : PyObject_GetAttrString(thread, "ident");
    Py_XDECREF(thread);
    if (ident == NULL) {
        return -1;
    }
    /* None in the child of a fork, for a moment. */
    const bool is_mine =
        PyLong_Check(ident) && PyLong_AsUnsignedLongMask(ident) == PyThread_get_thread_ident();
    Py_DECREF(ident);
    return is_mine;
}

static int
make_pipe(void)
{
    int fds[2];
    if (pipe(fds) < 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        if (fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0 || fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0) {
            const int reason = errno;
            close(fds[0]);
            close(fds[1]);
            errno = reason;
            return -1;
        }
    }
    pipe_fds[0] = fds[0];
    pipe_fds[1] = fds[1];
    return 0;
}

int
aio_signals_watch(void)
{
    if (fork_generation != aio_fork_generation()) {
        /* A forked child: the pipe is the parent's, and its waits are not ours. */
        fork_generation = aio_fork_generation();
        depth = 0;
        pipe_fds[0] = pipe_fds[1] = -1;
    }
    if (pipe_fds[0] < 0 && make_pipe() < 0) {
        return -1;
    }
    if (depth++ == 0) {
        noted_count = 0;
        previous_fd = PySignal_SetWakeupFd(pipe_fds[1]);
    }
    return pipe_fds[0];
}

void
aio_signals_note(void)
{
    unsigned char bytes[sizeof noted];
    ssize_t count;
    while ((count = read(pipe_fds[0], bytes, sizeof bytes)) > 0) {
        for (ssize_t i = 0; i < count && noted_count < sizeof noted; i++) {
            noted[noted_count++] = bytes[i];
        }
    }
}

void
aio_signals_unwatch(void)
{
    if (--depth > 0) {
        if (noted_count > 0) { /* the outer wait has to look, too */
            const ssize_t written = write(pipe_fds[1], noted, 1);
            (void)written;
        }
        return;
    }
    PySignal_SetWakeupFd(previous_fd);
    aio_signals_note();
    if (previous_fd >= 0 && noted_count > 0) {
        /* As CPython's handler: if it is full, its reader is awake anyway. */
        const ssize_t written = write(previous_fd, noted, noted_count);
        (void)written;
    }
}
