/* timers.h: things to be done at a given time, and one thread that does them.
 *
 *     set ──►  [ due first … due last ]  ──fire──►  whatever the timer is part of
 *     clear          under one lock                 in the thread that runs
 *
 * A structure that wants something done later embeds an AioTimer. It is armed for one time;
 * when that has come it is armed no more, and its function is called, which can arm it
 * again. Setting and clearing are cheap: the thread sleeps until the earliest time, and is
 * woken only if a set makes that one earlier.
 *
 * Everything happens under the lock, the firing as well. So a timer that has been cleared
 * neither fires nor is firing. The price is that what fires must be short.
 */
#ifndef AIO_CORE_TIMERS_H
#define AIO_CORE_TIMERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "heap.h"
#include "park.h"

typedef struct AioTimer AioTimer;

/* Called by the timers' thread with the timers' lock held, which comes before all locks
 * that this takes: it must be short, must not wait, and must not call into the same
 * AioTimers. Returns when to fire again, by aio_clock_ns(), or AIO_NEVER (or anything
 * negative): then the timer is not touched any more, and may be gone. A time that has
 * passed is as good as now: others that are due come first. */
typedef int64_t (*AioTimerFire)(AioTimer *timer);

/* Guarded by the lock of the AioTimers with which it is used, always the same ones. */
struct AioTimer {
    AioHeapNode node; /* in a heap while it is armed: its key is when it is due */
    bool is_retired;
    AioTimerFire fire; /* constant */
};

typedef struct AioTimers {
    pthread_mutex_t lock;
    /* guarded by `lock`: */
    AioHeap armed;
    /* When the thread that runs will look by itself. It looks after whatever happens before
     * that without being woken: so this is INT64_MIN while it is awake, about to be woken,
     * or not there yet. INT64_MAX while it sleeps for good. */
    int64_t looks_at;
    bool is_stopped;
    bool is_claimed; /* somebody runs them, or is about to, until none is armed */
    /* Of the thread that runs. Unparked by whoever set `looks_at` back. */
    AioParker parker;
} AioTimers;

/* Returns 0 or -1. */
int aio_timers_init(AioTimers *timers);

/* No thread may be in any of these functions, and none run. Timers may still be armed:
 * they are forgotten. */
void aio_timers_destroy(AioTimers *timers);

/* Neither armed nor retired. */
void aio_timer_init(AioTimer *timer, AioTimerFire fire);

/* Let `timer` fire at `due_ns` by aio_clock_ns() (INT64_MAX: never, but it is armed, so that there
 * is a thread when it is set to another time), or as soon as may be if that has passed;
 * if it is armed, then instead of when it was due. False, and nothing, if it was retired.
 * Fires only when a thread runs, whoever sees to that; if they are stopped, never. The
 * timer is borrowed until it has fired or is cleared. */
bool aio_timers_set(AioTimers *timers, AioTimer *timer, int64_t due_ns);

/* As set, but leaves alone a timer that is armed for that time or an earlier one. */
bool aio_timers_set_earlier(AioTimers *timers, AioTimer *timer, int64_t due_ns);

/* Disarm it: true if it was armed. When this returns it isn't firing either; not even if
 * it was just about to be armed again by that. It may be set again. */
bool aio_timers_clear(AioTimers *timers, AioTimer *timer);

/* As clear, and from now on it can't be set. Idempotent. */
bool aio_timers_retire(AioTimers *timers, AioTimer *timer);

/* Be the thread that fires what is due, until they are stopped. One thread, once. */
void aio_timers_run(AioTimers *timers);

/* For threads that come and go. True if something is armed and nobody sees to it: then the
 * caller must have aio_timers_run_out() called, or else disclaim. */
bool aio_timers_claim(AioTimers *timers);
void aio_timers_disclaim(AioTimers *timers);

/* As run, for who has claimed that; but returns, and the claim is free, once nothing is armed
 * when it looks. */
void aio_timers_run_out(AioTimers *timers);

/* Nothing fires from now on, nothing is firing when this returns, and run returns soon, or
 * as soon as it is called. Idempotent, any thread. */
void aio_timers_stop(AioTimers *timers);

#endif
