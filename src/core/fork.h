/* fork.h: notice that this process is a forked child.
 *
 * A fork copies memory but no thread, so a pool in the child has no workers.
 * Whoever must know remembers the generation and compares it later: unlike
 * getpid() that costs no system call.
 */
#ifndef AIO_CORE_FORK_H
#define AIO_CORE_FORK_H

/* How many forks lie between the process that called this first and this one: a
 * forked child gets another number than its parent, whose own stays. */
unsigned aio_fork_generation(void);

#endif
