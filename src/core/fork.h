/* fork.h: notice that this process is a forked child.
 *
 * A fork copies memory but no thread, so a pool in the child has no workers.
 * Whoever must know remembers the generation and compares it later: unlike
 * getpid() that costs no system call.
 */
#ifndef AIO_CORE_FORK_H
#define AIO_CORE_FORK_H

/* How often this process and its ancestors forked since the first call. */
unsigned aio_fork_generation(void);

#endif
