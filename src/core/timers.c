/* timers.c: a heap of timers by the time at which they are due, and who fires them.
 *
 * Why no timer is missed. The thread decides how long to sleep under the lock, and tells it
 * in `looks_at`. Whoever arms a timer does so under the lock. So if it is due before the
 * thread will look, that can be seen: then the thread is woken, once, as `looks_at` says
 * from then on that it will look. If it is not, or the timer was armed while the thread was
 * awake, it is taken into account when the thread next decides.
 *
 * Whoever wakes the thread leaves a token in its parker, perhaps after it has woken up by
 * itself. Then its next sleep ends at once, and it looks once more; that is harmless.
 */
#include "timers.h"

#include "list.h"

int
aio_timers_init(AioTimers *timers)
{
    aio_heap_init(&timers->armed);
    timers->looks_at = INT64_MIN;
    timers->is_stopped = false;
    timers->is_claimed = false;
    if (aio_parker_init(&timers->parker) < 0) {
        return -1;
    }
    if (pthread_mutex_init(&timers->lock, NULL) != 0) {
        aio_parker_destroy(&timers->parker);
        return -1;
    }
    return 0;
}

void
aio_timers_destroy(AioTimers *timers)
{
    pthread_mutex_destroy(&timers->lock);
    aio_parker_destroy(&timers->parker);
}

void
aio_timer_init(AioTimer *timer, AioTimerFire fire)
{
    aio_heap_node_init(&timer->node);
    timer->is_retired = false;
    timer->fire = fire;
}

/* `lock` must be held. Whether the thread has to be unparked, after unlocking, to look at
 * something that is due at `due_ns`. */
static bool
must_wake(AioTimers *timers, int64_t due_ns)
{
    if (due_ns >= timers->looks_at) {
        return false;
    }
    timers->looks_at = INT64_MIN;
    return true;
}

static bool
set(AioTimers *timers, AioTimer *timer, int64_t due_ns, bool only_earlier)
{
    bool wakes = false;

    pthread_mutex_lock(&timers->lock);
    if (timer->is_retired) {
        pthread_mutex_unlock(&timers->lock);
        return false;
    }
    if (!only_earlier || !aio_heap_is_linked(&timer->node) || due_ns < timer->node.key) {
        aio_heap_remove(&timers->armed, &timer->node);
        aio_heap_insert(&timers->armed, &timer->node, due_ns);
        wakes = must_wake(timers, due_ns);
    }
    pthread_mutex_unlock(&timers->lock);

    /* Outside the lock, so that the woken one does not run into it. */
    if (wakes) {
        aio_unpark(&timers->parker);
    }
    return true;
}

bool
aio_timers_set(AioTimers *timers, AioTimer *timer, int64_t due_ns)
{
    return set(timers, timer, due_ns, false);
}

bool
aio_timers_set_earlier(AioTimers *timers, AioTimer *timer, int64_t due_ns)
{
    return set(timers, timer, due_ns, true);
}

/* If it was the first one, the thread will wake up for nothing; that is cheaper than to
 * wake it now, and rare: what is set over and over again is mostly set to later times. But if
 * it is the last one, and the thread sleeps for good, that is told, as it may have to end. */
static bool
clear(AioTimers *timers, AioTimer *timer, bool retires)
{
    pthread_mutex_lock(&timers->lock);
    const bool was_armed = aio_heap_is_linked(&timer->node);
    aio_heap_remove(&timers->armed, &timer->node);
    timer->is_retired |= retires;
    const bool wakes = was_armed && aio_heap_is_empty(&timers->armed) &&
                       timers->looks_at == INT64_MAX && must_wake(timers, INT64_MIN + 1);
    pthread_mutex_unlock(&timers->lock);
    if (wakes) {
        aio_unpark(&timers->parker);
    }
    return was_armed;
}

bool
aio_timers_clear(AioTimers *timers, AioTimer *timer)
{
    return clear(timers, timer, false);
}

bool
aio_timers_retire(AioTimers *timers, AioTimer *timer)
{
    return clear(timers, timer, true);
}

/* `lock` must be held. The timer that is due first if that is `now` or before, or NULL. */
static AioTimer *
take_due(AioTimers *timers, int64_t now)
{
    AioHeapNode *first = aio_heap_first(&timers->armed);
    if (first == NULL || first->key > now) {
        return NULL;
    }
    aio_heap_remove(&timers->armed, first);
    return aio_container_of(first, AioTimer, node);
}

/* `lock` must be held. */
static void
fire_due(AioTimers *timers)
{
    const int64_t now = aio_clock_ns();
    AioTimer *timer;
    while ((timer = take_due(timers, now)) != NULL) {
        const int64_t again = timer->fire(timer);
        if (again >= 0) {
            /* Not once more now, or this might never end. */
            aio_heap_insert(&timers->armed, &timer->node, again > now ? again : now + 1);
        }
    }
}

/* Sleep until `until_ns`, or until somebody unparks. No lock held. */
static void
sleep_until(AioTimers *timers, int64_t until_ns)
{
    if (until_ns == INT64_MAX) {
        aio_park(&timers->parker);
    }
    else {
        (void)aio_park_until(&timers->parker, until_ns);
    }
}

/* `lock` must be held, and is released meanwhile. `stays`: also while nothing is armed. */
static void
run(AioTimers *timers, bool stays)
{
    while (!timers->is_stopped) {
        fire_due(timers);
        const AioHeapNode *first = aio_heap_first(&timers->armed);
        if (first == NULL && !stays) {
            return;
        }
        const int64_t until = first != NULL ? first->key : INT64_MAX;
        timers->looks_at = until;
        pthread_mutex_unlock(&timers->lock);
        sleep_until(timers, until);
        pthread_mutex_lock(&timers->lock);
        timers->looks_at = INT64_MIN;
    }
}

void
aio_timers_run(AioTimers *timers)
{
    pthread_mutex_lock(&timers->lock);
    run(timers, true);
    pthread_mutex_unlock(&timers->lock);
}

void
aio_timers_run_out(AioTimers *timers)
{
    pthread_mutex_lock(&timers->lock);
    run(timers, false);
    timers->is_claimed = false;
    pthread_mutex_unlock(&timers->lock);
}

bool
aio_timers_claim(AioTimers *timers)
{
    pthread_mutex_lock(&timers->lock);
    const bool claims = !timers->is_claimed && !aio_heap_is_empty(&timers->armed);
    timers->is_claimed |= claims;
    pthread_mutex_unlock(&timers->lock);
    return claims;
}

void
aio_timers_disclaim(AioTimers *timers)
{
    pthread_mutex_lock(&timers->lock);
    timers->is_claimed = false;
    pthread_mutex_unlock(&timers->lock);
}

void
aio_timers_stop(AioTimers *timers)
{
    pthread_mutex_lock(&timers->lock);
    timers->is_stopped = true;
    const bool wakes = must_wake(timers, INT64_MIN + 1);
    pthread_mutex_unlock(&timers->lock);
    if (wakes) {
        aio_unpark(&timers->parker);
    }
}
