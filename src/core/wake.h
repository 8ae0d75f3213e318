/* wake.h: wake whoever waits on a file descriptor (an event loop, or poll).
 *
 * Any thread may signal; one thread waits for the descriptor to become readable and
 * then clears it. It is an eventfd on Linux, which costs least, and a pipe elsewhere.
 *
 * For an event loop it is a pipe on Linux, too. Who writes to a pipe tells the kernel that it
 * is about to sleep itself (a synchronous wake-up, which epoll passes on since Linux 6.13): so the
 * loop is woken on the writer's core if that is the quickest, in place of a sleeping one. A worker
 * that has run a lone call does sleep next. With an eventfd the same call took 1.5 to 4 times as
 * long.
 */
#ifndef AIO_CORE_WAKE_H
#define AIO_CORE_WAKE_H

typedef struct AioWake {
    int read_fd;
    int write_fd; /* the same as read_fd for an eventfd */
} AioWake;

/* Returns 0, or -1 with errno set (too many open files, mostly). */
int aio_wake_init(AioWake *wake);
int aio_wake_init_for_loop(AioWake *wake);

/* Closes the descriptors. Nobody may signal any more. */
void aio_wake_destroy(AioWake *wake);

/* The descriptor to wait on until it is readable. */
static inline int
aio_wake_fd(const AioWake *wake)
{
    return wake->read_fd;
}

/* Make it readable. Does not touch `wake` after the write that the waiter can
 * see, so a waiter that expects this one signal may destroy it as soon as it wakes.
 * Behind a mailbox that is not enough: the reader can meet a node whose pusher has
 * yet to signal, so pushers hold a reference to the wake. */
void aio_wake_signal(AioWake *wake);

/* Make it unreadable again, until the next signal. */
void aio_wake_clear(AioWake *wake);

#endif
