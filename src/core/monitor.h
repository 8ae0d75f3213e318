/* monitor.h: the process's timers, and the thread that fires them.
 *
 * One for all pools. The thread is started when something is armed, and ends when it finds
 * nothing armed any more; it knows nothing of Python, and nobody waits for it. In a forked
 * child they are others than in its parent.
 */
#ifndef AIO_CORE_MONITOR_H
#define AIO_CORE_MONITOR_H

#include "timers.h"

/* As aio_timers_set() and aio_timers_set_earlier(). False also where there is no memory, or
 * no room for the thread. */
bool aio_monitor_set(AioTimer *timer, int64_t due_ns);
bool aio_monitor_set_earlier(AioTimer *timer, int64_t due_ns);

/* As aio_timers_retire(). */
void aio_monitor_retire(AioTimer *timer);

#endif
