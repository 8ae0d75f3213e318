/* monitor.c: the process's timers, and the thread that fires them.
 *
 * No lock guards the start, since a forked child could find it held by a thread that it
 * does not have. Who loses the race to start takes the winner's.
 */
#include "monitor.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "fork.h"
#include "thread.h"

typedef struct Monitor {
    AioTimers timers;
    unsigned fork_generation; /* of the process whose thread runs them; constant */
} Monitor;

/* Published by the exchange (release), read by acquire. A parent's monitor stays in its
 * child's memory: its lock may be held there, for ever. */
static _Atomic(Monitor *) current_monitor;

static void
run(void *monitor)
{
    aio_timers_run_out(&((Monitor *)monitor)->timers);
}

static Monitor *
monitor_new(unsigned fork_generation)
{
    Monitor *monitor = malloc(sizeof *monitor);
    if (monitor == NULL || aio_timers_init(&monitor->timers) < 0) {
        free(monitor);
        return NULL;
    }
    monitor->fork_generation = fork_generation;
    return monitor;
}

/* This process's, made at first use; NULL where memory is short. */
static Monitor *
get_monitor(void)
{
    const unsigned fork_generation = aio_fork_generation();
    Monitor *monitor = atomic_load_explicit(&current_monitor, memory_order_acquire);
    while (monitor == NULL || monitor->fork_generation != fork_generation) {
        Monitor *made = monitor_new(fork_generation);
        if (made == NULL) {
            return NULL;
        }
        if (atomic_compare_exchange_strong_explicit(&current_monitor, &monitor, made,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            return made;
        }
        aio_timers_destroy(&made->timers);
        free(made);
    }
    return monitor;
}

/* Something has been armed: see that it fires. */
static bool
ensure_thread(Monitor *monitor)
{
    if (aio_timers_claim(&monitor->timers) && aio_thread_start(run, monitor, "aio-monitor") < 0) {
        aio_timers_disclaim(&monitor->timers);
        return false;
    }
    return true;
}

bool
aio_monitor_set(AioTimer *timer, int64_t due_ns)
{
    Monitor *monitor = get_monitor();
    return monitor != NULL && aio_timers_set(&monitor->timers, timer, due_ns) &&
           ensure_thread(monitor);
}

bool
aio_monitor_set_earlier(AioTimer *timer, int64_t due_ns)
{
    Monitor *monitor = get_monitor();
    return monitor != NULL && aio_timers_set_earlier(&monitor->timers, timer, due_ns) &&
           ensure_thread(monitor);
}

void
aio_monitor_retire(AioTimer *timer)
{
    Monitor *monitor = get_monitor();
    if (monitor != NULL) {
        aio_timers_retire(&monitor->timers, timer);
    }
}
