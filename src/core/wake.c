/* wake.c: eventfd and pipe. */
#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "platform.h"

#ifndef AIO_PORTABLE
#include <sys/eventfd.h>
#endif

static int
set_flags(int fd)
{
    int status = fcntl(fd, F_GETFL);
    int descriptor = fcntl(fd, F_GETFD);
    if (status < 0 || descriptor < 0) {
        return -1;
    }
    if (fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0) {
        return -1;
    }
    return fcntl(fd, F_SETFD, descriptor | FD_CLOEXEC) < 0 ? -1 : 0;
}

int
aio_wake_init_for_loop(AioWake *wake)
{
    int fds[2];
    if (pipe(fds) < 0) {
        return -1;
    }
    wake->read_fd = fds[0];
    wake->write_fd = fds[1];
    if (set_flags(fds[0]) < 0 || set_flags(fds[1]) < 0) {
        int reason = errno;
        aio_wake_destroy(wake);
        errno = reason;
        return -1;
    }
    return 0;
}

int
aio_wake_init(AioWake *wake)
{
#ifdef AIO_PORTABLE
    return aio_wake_init_for_loop(wake);
#else
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    wake->read_fd = wake->write_fd = fd;
    return fd < 0 ? -1 : 0;
#endif
}

void
aio_wake_destroy(AioWake *wake)
{
    close(wake->read_fd);
    if (wake->write_fd != wake->read_fd) {
        close(wake->write_fd);
    }
}

/* Eight bytes, which is what an eventfd wants; a pipe takes them as well. */
void
aio_wake_signal(AioWake *wake)
{
    const uint64_t one = 1;
    const int fd = wake->write_fd;
    /* EAGAIN: the pipe or the counter is full, so the waiter is woken anyway. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void
aio_wake_clear(AioWake *wake)
{
    char bytes[512]; /* one read resets an eventfd, and as a rule empties a pipe */
    ssize_t count;
    do {
        count = read(wake->read_fd, bytes, sizeof bytes);
    } while (count == (ssize_t)sizeof bytes || (count < 0 && errno == EINTR));
}
