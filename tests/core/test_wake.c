/* test_wake.c: the contract of core/wake.h. */
#include "core/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "check.h"

/* Wait until the descriptor is readable, or `timeout_ms` (-1: for ever) has passed. */
static bool
wait_readable(const AioWake *wake, int timeout_ms)
{
    struct pollfd descriptor = {.fd = aio_wake_fd(wake), .events = POLLIN};
    int count;
    do {
        count = poll(&descriptor, 1, timeout_ms);
    } while (count < 0 && errno == EINTR);
    CHECK(count >= 0);
    return count == 1;
}

static void
it_is_readable_from_signal_until_clear(void)
{
    AioWake wake;
    CHECK(aio_wake_init(&wake) == 0);
    CHECK(!wait_readable(&wake, 0));
    for (int i = 0; i < 3; i++) {
        aio_wake_signal(&wake);
        CHECK(wait_readable(&wake, 0));
        CHECK(wait_readable(&wake, 0));
        aio_wake_clear(&wake);
        CHECK(!wait_readable(&wake, 0));
    }
    aio_wake_destroy(&wake);
}

static void
one_clear_undoes_any_number_of_signals(void)
{
    /* 64 signals are 512 bytes, a whole buffer of the pipe's reader; 100000 are
     * more than a pipe holds. */
    static const int counts[] = {1, 2, 63, 64, 65, 128, 100000};
    AioWake wake;
    CHECK(aio_wake_init(&wake) == 0);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int left = counts[i]; left > 0; left--) {
            aio_wake_signal(&wake);
        }
        CHECK(wait_readable(&wake, 0));
        aio_wake_clear(&wake);
        CHECK(!wait_readable(&wake, 0));
    }
    aio_wake_destroy(&wake);
}

static void
clearing_without_a_signal_returns_at_once(void)
{
    AioWake wake;
    CHECK(aio_wake_init(&wake) == 0);
    aio_wake_clear(&wake);
    aio_wake_clear(&wake);
    CHECK(!wait_readable(&wake, 0));
    aio_wake_signal(&wake);
    CHECK(wait_readable(&wake, 0));
    aio_wake_destroy(&wake);
}

static void
its_descriptors_are_not_inherited_by_programs_and_never_block(void)
{
    AioWake wake;
    CHECK(aio_wake_init(&wake) == 0);
    CHECK(fcntl(wake.read_fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(wake.write_fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(wake.read_fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(wake.write_fd, F_GETFL) & O_NONBLOCK);
    aio_wake_destroy(&wake);
}

static void
destroy_closes_the_descriptors(void)
{
    AioWake wake;
    CHECK(aio_wake_init(&wake) == 0);
    aio_wake_destroy(&wake);
    CHECK(fcntl(wake.read_fd, F_GETFD) == -1 && errno == EBADF);
    CHECK(fcntl(wake.write_fd, F_GETFD) == -1 && errno == EBADF);
}

static void
init_fails_with_errno_where_no_descriptor_is_left(void)
{
    struct rlimit before, none_left;
    AioWake wake;
    const int lowest_free = dup(STDERR_FILENO);
    CHECK(lowest_free >= 0);
    CHECK(close(lowest_free) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none_left = before;
    none_left.rlim_cur = (rlim_t)lowest_free;
    CHECK(setrlimit(RLIMIT_NOFILE, &none_left) == 0);
    errno = 0;
    CHECK(aio_wake_init(&wake) == -1);
    CHECK(errno == EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    /* Nothing was left open by the failure. */
    CHECK(fcntl(lowest_free, F_GETFD) == -1);
    CHECK(aio_wake_init(&wake) == 0);
    aio_wake_destroy(&wake);
}

/* ---- several threads ----------------------------------------------------- */

enum { ROUNDS = 5000 };

typedef struct PingPong {
    AioWake ping;
    AioWake pong;
} PingPong;

static void *
answer(void *raw)
{
    PingPong *game = raw;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(wait_readable(&game->ping, -1));
        aio_wake_clear(&game->ping);
        aio_wake_signal(&game->pong);
    }
    return NULL;
}

static void
a_signal_wakes_a_thread_that_polls(void)
{
    PingPong game;
    CHECK(aio_wake_init(&game.ping) == 0);
    CHECK(aio_wake_init(&game.pong) == 0);
    pthread_t thread = start_thread(answer, &game);
    for (int round = 0; round < ROUNDS; round++) {
        aio_wake_signal(&game.ping);
        CHECK(wait_readable(&game.pong, -1));
        aio_wake_clear(&game.pong);
    }
    join_thread(thread);
    CHECK(!wait_readable(&game.ping, 0));
    CHECK(!wait_readable(&game.pong, 0));
    aio_wake_destroy(&game.ping);
    aio_wake_destroy(&game.pong);
}

enum { SIGNALLERS = 3, SIGNALS = 10000 };

typedef struct Counter {
    AioWake wake;
    _Atomic long posted;
} Counter;

static void *
post_and_signal(void *raw)
{
    Counter *counter = raw;
    for (int i = 0; i < SIGNALS; i++) {
        atomic_fetch_add(&counter->posted, 1);
        aio_wake_signal(&counter->wake);
    }
    return NULL;
}

static void
who_clears_before_looking_misses_nothing(void)
{
    Counter counter = {.posted = 0};
    pthread_t threads[SIGNALLERS];
    CHECK(aio_wake_init(&counter.wake) == 0);
    for (int i = 0; i < SIGNALLERS; i++) {
        threads[i] = start_thread(post_and_signal, &counter);
    }
    long seen;
    do {
        CHECK(wait_readable(&counter.wake, -1));
        aio_wake_clear(&counter.wake);
        seen = atomic_load(&counter.posted);
    } while (seen < SIGNALLERS * SIGNALS);
    for (int i = 0; i < SIGNALLERS; i++) {
        join_thread(threads[i]);
    }
    aio_wake_destroy(&counter.wake);
}

static void *
signal_once(void *raw)
{
    aio_wake_signal(raw);
    return NULL;
}

static void
the_waiter_may_destroy_it_as_soon_as_it_wakes(void)
{
    for (int round = 0; round < 1000; round++) {
        AioWake *wake = malloc(sizeof *wake);
        CHECK(wake != NULL);
        CHECK(aio_wake_init(wake) == 0);
        pthread_t thread = start_thread(signal_once, wake);
        CHECK(wait_readable(wake, -1));
        aio_wake_clear(wake); /* which also tells ThreadSanitizer that the signal came before */
        aio_wake_destroy(wake);
        free(wake);
        join_thread(thread);
    }
}

int
main(void)
{
    RUN(it_is_readable_from_signal_until_clear);
    RUN(one_clear_undoes_any_number_of_signals);
    RUN(clearing_without_a_signal_returns_at_once);
    RUN(its_descriptors_are_not_inherited_by_programs_and_never_block);
    RUN(destroy_closes_the_descriptors);
    RUN(init_fails_with_errno_where_no_descriptor_is_left);
    RUN(a_signal_wakes_a_thread_that_polls);
    RUN(who_clears_before_looking_misses_nothing);
    RUN(the_waiter_may_destroy_it_as_soon_as_it_wakes);
    return 0;
}
