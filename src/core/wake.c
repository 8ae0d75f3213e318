/* wake.c: the eventfd and its twin, the pipe. */
#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "platform.h"

#ifdef AIO_PORTABLE

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
aio_wake_init(AioWake *wake)
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

void
aio_wake_destroy(AioWake *wake)
{
    close(wake->read_fd);
    close(wake->write_fd);
}

#else

#include <sys/eventfd.h>

int
aio_wake_init(AioWake *wake)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    wake->read_fd = fd;
    wake->write_fd = fd;
    return 0;
}

void
aio_wake_destroy(AioWake *wake)
{
    close(wake->read_fd);
}

#endif

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
#ifdef AIO_PORTABLE
    char bytes[512];
    ssize_t count;
    do {
        count = read(wake->read_fd, bytes, sizeof bytes);
    } while (count == (ssize_t)sizeof bytes || (count < 0 && errno == EINTR));
#else
    uint64_t count; /* one read resets the counter */
    while (read(wake->read_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
#endif
}
