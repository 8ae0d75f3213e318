/* check.h: what every core test is made of.
 *
 * A test is a function without arguments, named after the sentence of the
 * contract that it holds the core to. A program runs its tests in order:
 *
 *     int main(void) {
 *         RUN(a_new_list_is_empty);
 *         return 0;
 *     }
 *
 * A CHECK that fails says where and ends the program; a test that hangs is
 * ended by SIGALRM, and the last name printed is the culprit's.
 */
#ifndef AIO_TESTS_CORE_CHECK_H
#define AIO_TESTS_CORE_CHECK_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { WATCHDOG_SECONDS = 60 };

/* Unlike assert() it is there in release builds too. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: in %s: not so: %s\n", __FILE__, __LINE__, __func__, #cond);    \
            _exit(1); /* at once: other threads may be running */                                  \
        }                                                                                          \
    } while (0)

/* After a race was run many times: that it went both ways, or the test has shown
 * little. Said but no failure, since it is up to the machine. */
#define EXPECT_MET(cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("    only half tested this time: %s\n", #cond);                                 \
        }                                                                                          \
    } while (0)

#define RUN(test)                                                                                  \
    do {                                                                                           \
        alarm(WATCHDOG_SECONDS);                                                                   \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
        test();                                                                                    \
        alarm(0);                                                                                  \
    } while (0)

static inline pthread_t
start_thread(void *(*entry)(void *), void *argument)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, entry, argument) == 0);
    return thread;
}

static inline void
join_thread(pthread_t thread)
{
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Threads wait here for each other, again and again; macOS has no pthread_barrier_t. */
typedef struct Barrier {
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t complete;
    int size;
    int missing;
    unsigned round;
} Barrier;

static inline void
barrier_init(Barrier *barrier, int size)
{
    CHECK(pthread_mutex_init(&barrier->lock, NULL) == 0);
    CHECK(pthread_cond_init(&barrier->complete, NULL) == 0);
    barrier->size = size;
    barrier->missing = size;
    barrier->round = 0;
}

/* Only when every thread has come out of its last wait. */
static inline void
barrier_destroy(Barrier *barrier)
{
    pthread_cond_destroy(&barrier->complete);
    pthread_mutex_destroy(&barrier->lock);
}

static inline void
barrier_wait(Barrier *barrier)
{
    pthread_mutex_lock(&barrier->lock);
    const unsigned round = barrier->round;
    if (--barrier->missing == 0) {
        barrier->missing = barrier->size;
        barrier->round++;
        pthread_cond_broadcast(&barrier->complete);
    }
    while (round == barrier->round) {
        pthread_cond_wait(&barrier->complete, &barrier->lock);
    }
    pthread_mutex_unlock(&barrier->lock);
}

/* As barrier_wait() for two threads, but they come out at the same instant, which
 * makes a race of a few nanoseconds likely: each announces its `round`, counted
 * from 1, and spins until the other has. */
static inline void
line_up(_Atomic int *mine, _Atomic int *others, int round)
{
    atomic_store(mine, round);
    for (int spins = 1; atomic_load(others) < round; spins++) {
        if (spins % 1000 == 0) {
            sched_yield(); /* perhaps there is one processor for both */
        }
    }
}

/* xorshift32: a different, repeatable sequence for every seed. */
static inline uint32_t
next_random(uint32_t *state)
{
    uint32_t x = *state != 0 ? *state : 2463534242u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* Let a random, short time pass, to vary how threads meet. Not a wait for anything. */
static inline void
dawdle(uint32_t *random_state, uint32_t most_steps)
{
    for (volatile uint32_t left = next_random(random_state) % (most_steps + 1); left > 0;) {
        left = left - 1;
    }
}

/* The processor time that the calling thread has used. */
static inline int64_t
thread_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

#endif
