/* test_park.c: the contract of core/park.h. */
#include "core/park.h"

#include <sched.h>
#include <stdatomic.h>

#include "check.h"
#include "core/clock.h"

static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

static void
an_unpark_before_the_park_is_not_lost(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    aio_unpark(&parker);
    aio_park(&parker);
    aio_unpark(&parker);
    CHECK(aio_park_until(&parker, aio_clock_ns() + LONG_NS));
    aio_parker_destroy(&parker);
}

static void
a_parker_holds_at_most_one_token(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    aio_unpark(&parker);
    aio_unpark(&parker);
    aio_unpark(&parker);
    aio_park(&parker);
    CHECK(!aio_park_until(&parker, aio_clock_ns() + 5 * MS));
    aio_parker_destroy(&parker);
}

static void
park_until_returns_false_at_the_deadline_and_not_before(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    for (int i = 0; i < 10; i++) {
        const int64_t deadline = aio_clock_ns() + 3 * MS;
        CHECK(!aio_park_until(&parker, deadline));
        CHECK(aio_clock_ns() >= deadline);
    }
    aio_parker_destroy(&parker);
}

static void
park_until_a_past_deadline_takes_only_a_token_that_is_there(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    const int64_t deadlines[] = {aio_clock_ns() - MS, aio_clock_ns() - 1, 1, 0};
    for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++) {
        CHECK(!aio_park_until(&parker, deadlines[i]));
        aio_unpark(&parker);
        CHECK(aio_park_until(&parker, deadlines[i]));
    }
    aio_parker_destroy(&parker);
}

static void
a_token_that_comes_after_the_deadline_is_kept_for_the_next_park(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    CHECK(!aio_park_until(&parker, aio_clock_ns() + MS));
    aio_unpark(&parker);
    aio_park(&parker);
    CHECK(!aio_park_until(&parker, aio_clock_ns() + MS));
    aio_parker_destroy(&parker);
}

static void
a_parked_thread_uses_no_processor_time(void)
{
    AioParker parker;
    CHECK(aio_parker_init(&parker) == 0);
    const int64_t before = thread_cpu_ns();
    CHECK(!aio_park_until(&parker, aio_clock_ns() + 100 * MS));
    CHECK(thread_cpu_ns() - before < 20 * MS);
    aio_parker_destroy(&parker);
}

/* ---- two threads --------------------------------------------------------- */

enum { ROUNDS = 20000 };

typedef struct PingPong {
    AioParker ping;
    AioParker pong;
    /* Not atomic: only unpark and park order the accesses. Without that order
     * the counts go wrong, and ThreadSanitizer reports a race. */
    long value;
} PingPong;

static void *
answer(void *raw)
{
    PingPong *game = raw;
    for (long round = 0; round < ROUNDS; round++) {
        aio_park(&game->ping);
        CHECK(game->value == 2 * round + 1);
        game->value++;
        aio_unpark(&game->pong);
    }
    return NULL;
}

static void
what_was_written_before_unpark_is_seen_after_park(void)
{
    PingPong game = {.value = 0};
    CHECK(aio_parker_init(&game.ping) == 0);
    CHECK(aio_parker_init(&game.pong) == 0);
    pthread_t thread = start_thread(answer, &game);
    for (long round = 0; round < ROUNDS; round++) {
        CHECK(game.value == 2 * round);
        game.value++;
        aio_unpark(&game.ping);
        /* Half of the rounds through each way of waiting. */
        if (round % 2 == 0) {
            aio_park(&game.pong);
        }
        else {
            CHECK(aio_park_until(&game.pong, aio_clock_ns() + LONG_NS));
        }
    }
    join_thread(thread);
    CHECK(game.value == 2 * ROUNDS);
    aio_parker_destroy(&game.ping);
    aio_parker_destroy(&game.pong);
}

enum { TOKENS = 20000 };

typedef struct Late {
    AioParker parker;
    _Atomic long sent;
    _Atomic long taken;
    long value; /* not atomic: ordered by the token */
} Late;

/* The owner sleeps for one token in eight. For the others it only looks, again and
 * again, and so is at the end of its waiting as often as can be. */
static bool
sleeps_for(long token)
{
    return token % 8 == 0;
}

/* Send one token at a time, each at a random moment of the owner's waiting. */
static void *
send_tokens(void *raw)
{
    Late *late = raw;
    uint32_t random_state = 7;
    for (long i = 1; i <= TOKENS; i++) {
        dawdle(&random_state, sleeps_for(i) ? 100000 : 2000);
        late->value = i;
        atomic_store_explicit(&late->sent, i, memory_order_relaxed);
        aio_unpark(&late->parker);
        while (atomic_load_explicit(&late->taken, memory_order_acquire) < i) {
            sched_yield();
        }
    }
    return NULL;
}

static void
a_token_that_races_with_the_deadline_is_taken_exactly_once(void)
{
    Late late = {.value = 0};
    uint32_t random_state = 11;
    long taken = 0;
    long timeouts = 0;
    CHECK(aio_parker_init(&late.parker) == 0);
    pthread_t thread = start_thread(send_tokens, &late);
    while (taken < TOKENS) {
        /* About as long as the token takes, or no time at all. */
        const int64_t wait =
            sleeps_for(taken + 1) ? (int64_t)(next_random(&random_state) % 60000) : -1;
        if (!aio_park_until(&late.parker, aio_clock_ns() + wait)) {
            timeouts++;
            continue;
        }
        taken++;
        CHECK(atomic_load_explicit(&late.sent, memory_order_relaxed) == taken);
        CHECK(late.value == taken);
        atomic_store_explicit(&late.taken, taken, memory_order_release);
    }
    join_thread(thread);
    EXPECT_MET(timeouts > 0);
    CHECK(!aio_park_until(&late.parker, 0));
    aio_parker_destroy(&late.parker);
}

enum { WAKERS = 3, POSTS = 10000 };

typedef struct Posts {
    AioParker parker;
    _Atomic long posted;
} Posts;

static void *
post_and_unpark(void *raw)
{
    Posts *posts = raw;
    for (int i = 0; i < POSTS; i++) {
        atomic_fetch_add_explicit(&posts->posted, 1, memory_order_relaxed);
        aio_unpark(&posts->parker);
    }
    return NULL;
}

static void
with_many_unparkers_the_owner_never_sleeps_past_the_last_one(void)
{
    Posts posts = {.posted = 0};
    pthread_t threads[WAKERS];
    CHECK(aio_parker_init(&posts.parker) == 0);
    for (int i = 0; i < WAKERS; i++) {
        threads[i] = start_thread(post_and_unpark, &posts);
    }
    /* Tokens may merge, but after the last one the owner sees every post. */
    while (atomic_load_explicit(&posts.posted, memory_order_relaxed) < WAKERS * POSTS) {
        aio_park(&posts.parker);
    }
    for (int i = 0; i < WAKERS; i++) {
        join_thread(threads[i]);
    }
    aio_parker_destroy(&posts.parker);
}

int
main(void)
{
    RUN(an_unpark_before_the_park_is_not_lost);
    RUN(a_parker_holds_at_most_one_token);
    RUN(park_until_returns_false_at_the_deadline_and_not_before);
    RUN(park_until_a_past_deadline_takes_only_a_token_that_is_there);
    RUN(a_token_that_comes_after_the_deadline_is_kept_for_the_next_park);
    RUN(a_parked_thread_uses_no_processor_time);
    RUN(what_was_written_before_unpark_is_seen_after_park);
    RUN(a_token_that_races_with_the_deadline_is_taken_exactly_once);
    RUN(with_many_unparkers_the_owner_never_sleeps_past_the_last_one);
    return 0;
}
