/* park.h: make one thread sleep until another wakes it.
 *
 * A parker belongs to one thread, which alone may call aio_park(). Any thread
 * may call aio_unpark(). It holds at most one token: an unpark that comes
 * before the park is not lost, the park then returns at once.
 *
 * Everything written before aio_unpark() is seen after the aio_park() that it
 * ends (release and acquire on the token).
 *
 * The parker may be destroyed once the park that the last unpark ends has
 * returned: all that an unpark may still do then is to ask the kernel to wake
 * whoever sleeps at that address.
 */
#ifndef AIO_CORE_PARK_H
#define AIO_CORE_PARK_H

#include <stdbool.h>
#include <stdint.h>

#include "platform.h"

#ifdef AIO_PORTABLE
#include <pthread.h>
#else
#include <stdatomic.h>
#endif

typedef struct AioParker {
#ifdef AIO_PORTABLE
    pthread_mutex_t lock; /* guards `token` */
    pthread_cond_t changed;
    bool token;
#else
    /* The futex word: see park.c for its three states and their orders. */
    _Atomic int32_t state;
#endif
} AioParker;

/* Returns 0, or -1 where the system has no room for another one. */
int aio_parker_init(AioParker *parker);

void aio_parker_destroy(AioParker *parker);

/* Sleep until there is a token, and take it. */
void aio_park(AioParker *parker);

/* As aio_park(), but no longer than until `deadline_ns` of aio_clock_ns(), which may
 * have passed already. True if a token was taken, false if the time came first. */
bool aio_park_until(AioParker *parker, int64_t deadline_ns);

/* Leave a token, and wake the owner if it sleeps. */
void aio_unpark(AioParker *parker);

#endif
