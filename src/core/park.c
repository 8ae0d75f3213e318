/* park.c: sleeping and waking by futex, and its twin by condition variable.
 *
 * The futex word has three states:
 *     EMPTY (0)     awake, no token
 *     TOKEN (1)     awake, and the next park returns at once
 *     PARKED (-1)   the owner sleeps, or is just about to
 * The owner moves EMPTY -> PARKED and TOKEN -> EMPTY, both by a subtraction;
 * a waker moves anything -> TOKEN. The kernel compares the word with PARKED
 * before it puts the owner to sleep, so a waker that came in between is not
 * missed. Wakers release, the owner acquires: what the waker wrote is seen.
 */
#include "park.h"

#include "clock.h"

#ifdef AIO_PORTABLE

#include <time.h>

int
aio_parker_init(AioParker *parker)
{
    pthread_condattr_t attributes;
    int failed;

    parker->token = false;
    if (pthread_mutex_init(&parker->lock, NULL) != 0) {
        return -1;
    }
    if (pthread_condattr_init(&attributes) != 0) {
        pthread_mutex_destroy(&parker->lock);
        return -1;
    }
#ifdef AIO_CONDATTR_HAS_CLOCK
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    failed = pthread_cond_init(&parker->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (failed) {
        pthread_mutex_destroy(&parker->lock);
        return -1;
    }
    return 0;
}

void
aio_parker_destroy(AioParker *parker)
{
    pthread_cond_destroy(&parker->changed);
    pthread_mutex_destroy(&parker->lock);
}

void
aio_park(AioParker *parker)
{
    pthread_mutex_lock(&parker->lock);
    while (!parker->token) {
        pthread_cond_wait(&parker->changed, &parker->lock);
    }
    parker->token = false;
    pthread_mutex_unlock(&parker->lock);
}

/* The moment `deadline_ns` of the monotonic clock in the clock of the condition variable. */
static struct timespec
condition_deadline(int64_t deadline_ns)
{
    struct timespec until;
#ifndef AIO_CONDATTR_HAS_CLOCK
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    deadline_ns += (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - aio_clock_ns();
#endif
    until.tv_sec = (time_t)(deadline_ns / 1000000000);
    until.tv_nsec = (long)(deadline_ns % 1000000000);
    return until;
}

bool
aio_park_until(AioParker *parker, int64_t deadline_ns)
{
    struct timespec until = condition_deadline(deadline_ns > 0 ? deadline_ns : 0);
    bool token;

    pthread_mutex_lock(&parker->lock);
    while (!parker->token) {
        if (pthread_cond_timedwait(&parker->changed, &parker->lock, &until) != 0) {
            break; /* ETIMEDOUT */
        }
    }
    token = parker->token;
    parker->token = false;
    pthread_mutex_unlock(&parker->lock);
    return token;
}

void
aio_unpark(AioParker *parker)
{
    pthread_mutex_lock(&parker->lock);
    parker->token = true;
    /* Signalled under the lock: the owner may destroy the parker as soon as it can take the lock.
     */
    pthread_cond_signal(&parker->changed);
    pthread_mutex_unlock(&parker->lock);
}

#else /* futex */

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PARKED = -1, EMPTY = 0, TOKEN = 1 };

/* Sleep while the word is `PARKED`, at most until `until` (absolute, monotonic; NULL: for ever). */
static void
futex_wait(_Atomic int32_t *word, const struct timespec *until)
{
#ifdef SYS_futex_time64
    /* A 32-bit system whose libc has moved on to 64-bit times. */
    const long number = sizeof until->tv_sec > sizeof(long) ? SYS_futex_time64 : SYS_futex;
#else
    const long number = SYS_futex;
#endif
    (void)syscall(number, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, PARKED, until, NULL,
                  FUTEX_BITSET_MATCH_ANY);
}

static void
futex_wake_one(_Atomic int32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

int
aio_parker_init(AioParker *parker)
{
    atomic_init(&parker->state, EMPTY);
    return 0;
}

void
aio_parker_destroy(AioParker *parker)
{
    (void)parker;
}

/* Take a token if there is one. */
static bool
take_token(AioParker *parker)
{
    int32_t expected = TOKEN;
    return atomic_compare_exchange_strong_explicit(&parker->state, &expected, EMPTY,
                                                   memory_order_acquire, memory_order_relaxed);
}

void
aio_park(AioParker *parker)
{
    if (atomic_fetch_sub_explicit(&parker->state, 1, memory_order_acquire) == TOKEN) {
        return;
    }
    do {
        futex_wait(&parker->state, NULL);
    } while (!take_token(parker));
}

bool
aio_park_until(AioParker *parker, int64_t deadline_ns)
{
    if (deadline_ns < 0) {
        deadline_ns = 0;
    }
    const struct timespec until = {
        .tv_sec = (time_t)(deadline_ns / 1000000000),
        .tv_nsec = (long)(deadline_ns % 1000000000),
    };

    if (atomic_fetch_sub_explicit(&parker->state, 1, memory_order_acquire) == TOKEN) {
        return true;
    }
    do {
        futex_wait(&parker->state, &until);
        if (take_token(parker)) {
            return true;
        }
    } while (aio_clock_ns() < deadline_ns);
    /* Back to EMPTY; a token that comes at this very moment is taken after all. */
    return atomic_exchange_explicit(&parker->state, EMPTY, memory_order_acquire) == TOKEN;
}

void
aio_unpark(AioParker *parker)
{
    if (atomic_exchange_explicit(&parker->state, TOKEN, memory_order_release) == PARKED) {
        futex_wake_one(&parker->state);
    }
}

#endif
