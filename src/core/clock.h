/* clock.h: the monotonic clock, in nanoseconds. */
#ifndef AIO_CORE_CLOCK_H
#define AIO_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* As a deadline: there is none. (Any negative number will do.) */
enum { AIO_NEVER = -1 };

static inline int64_t
aio_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
