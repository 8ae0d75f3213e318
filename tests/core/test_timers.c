/* test_timers.c: the contract of core/timers.h. */
#include "core/timers.h"

#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "core/list.h"

static const int64_t US = 1000;
static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

/* A timer that counts, and what it does then. Not atomic: the timers' lock orders the
 * accesses, and ThreadSanitizer reports where it does not. */
typedef struct Bell {
    AioTimer timer;
    int rings;
    int rings_left; /* how often it wants to be armed again */
    int64_t pause;  /* for how long */
    int64_t last_ring;
    AioParker *at_last;     /* or NULL: unparked when it rings and is not armed again */
    struct Bell ***log_end; /* or NULL: where all write who has rung */
} Bell;

static int64_t
ring(AioTimer *timer)
{
    Bell *bell = aio_container_of(timer, Bell, timer);
    bell->rings++;
    bell->last_ring = aio_clock_ns();
    if (bell->log_end != NULL) {
        *(*bell->log_end)++ = bell;
    }
    if (bell->rings_left > 0) {
        bell->rings_left--;
        const int64_t again = bell->last_ring + bell->pause;
        return again > 0 ? again : 0;
    }
    if (bell->at_last != NULL) {
        aio_unpark(bell->at_last);
    }
    return AIO_NEVER;
}

static void
bell_init(Bell *bell)
{
    *bell = (Bell){.rings = 0};
    aio_timer_init(&bell->timer, ring);
}

/* Timers and the thread that runs them. */
typedef struct Tower {
    AioTimers timers;
    pthread_t thread;
    AioParker parker; /* the test's own */
} Tower;

static void *
run_timers(void *raw)
{
    aio_timers_run(raw);
    return NULL;
}

static void
tower_init(Tower *tower)
{
    CHECK(aio_timers_init(&tower->timers) == 0);
    CHECK(aio_parker_init(&tower->parker) == 0);
}

static void
tower_run(Tower *tower)
{
    tower->thread = start_thread(run_timers, &tower->timers);
}

static void
tower_start(Tower *tower)
{
    tower_init(tower);
    tower_run(tower);
}

static void
tower_destroy(Tower *tower)
{
    aio_parker_destroy(&tower->parker);
    aio_timers_destroy(&tower->timers);
}

static void
tower_end(Tower *tower)
{
    aio_timers_stop(&tower->timers);
    join_thread(tower->thread);
    tower_destroy(tower);
}

static void
wait_for_bell(Tower *tower)
{
    CHECK(aio_park_until(&tower->parker, aio_clock_ns() + LONG_NS));
}

static int64_t
looks_at(Tower *tower)
{
    pthread_mutex_lock(&tower->timers.lock);
    const int64_t when = tower->timers.looks_at;
    pthread_mutex_unlock(&tower->timers.lock);
    return when;
}

/* Wait until the thread sleeps, and will do so until `when`. */
static void
wait_until_it_sleeps(Tower *tower, int64_t when)
{
    while (looks_at(tower) != when) {
        sched_yield();
    }
}

/* ---- when timers fire ------------------------------------------------------- */

static void
timers_fire_in_the_order_in_which_they_are_due(void)
{
    static const int DUE_MS[] = {7, 1, 4, 1, -3, 4, 1, 9};
    static const int EXPECTED[] = {4, 1, 3, 6, 2, 5, 0, 7};
    enum { BELLS = sizeof DUE_MS / sizeof *DUE_MS };
    for (int late = 0; late < 2; late++) { /* set before the thread runs, or after */
        Tower tower;
        Bell bells[BELLS], *log[BELLS], **log_end = log;
        tower_init(&tower);
        if (late) {
            tower_run(&tower);
        }
        const int64_t start = aio_clock_ns() + 5 * MS;
        for (int i = 0; i < BELLS; i++) {
            bell_init(&bells[i]);
            bells[i].log_end = &log_end;
            bells[i].at_last = i == BELLS - 1 ? &tower.parker : NULL;
            CHECK(aio_timers_set(&tower.timers, &bells[i].timer, start + DUE_MS[i] * MS));
        }
        if (!late) {
            tower_run(&tower);
        }
        wait_for_bell(&tower);
        tower_end(&tower);
        for (int i = 0; i < BELLS; i++) {
            Bell *bell = log[i];
            CHECK(bell->last_ring >= start + DUE_MS[bell - bells] * MS);
            CHECK(bell->rings == 1);
            /* A machine that stops for a while at the wrong moment sees other orders of those
             * that are set late. */
            CHECK(late || bell == &bells[EXPECTED[i]]);
        }
    }
}

static void
a_timer_that_fires_can_be_armed_again_by_that(void)
{
    static const int64_t PAUSES[] = {1000 * 1000, 0, -1000 * 1000};
    for (int i = 0; i < 3; i++) {
        Tower tower;
        Bell bell;
        tower_start(&tower);
        bell_init(&bell);
        bell.rings_left = 4;
        bell.pause = PAUSES[i];
        bell.at_last = &tower.parker;
        const int64_t start = aio_clock_ns();
        aio_timers_set(&tower.timers, &bell.timer, start);
        wait_for_bell(&tower);
        CHECK(!aio_timers_clear(&tower.timers, &bell.timer)); /* at last it wasn't */
        CHECK(bell.rings == 5);
        CHECK(bell.last_ring >= start + 4 * PAUSES[i]);
        aio_timers_set(&tower.timers, &bell.timer, 0); /* and may be set again, by others */
        wait_for_bell(&tower);
        tower_end(&tower);
        CHECK(bell.rings == 6);
    }
}

static void
a_timer_that_is_always_due_keeps_nobody_from_firing_or_stopping(void)
{
    Tower tower;
    Bell greedy, other;
    tower_start(&tower);
    bell_init(&greedy);
    greedy.rings_left = INT32_MAX;
    greedy.pause = INT64_MIN;
    bell_init(&other);
    other.at_last = &tower.parker;
    aio_timers_set(&tower.timers, &greedy.timer, 0);
    aio_timers_set(&tower.timers, &other.timer, aio_clock_ns() + MS);
    wait_for_bell(&tower);
    tower_end(&tower);
    CHECK(greedy.rings > 0 && other.rings == 1);
}

/* Is handed over by its firing, and then is another's, who frees it. */
typedef struct Leaflet {
    AioTimer timer;
    _Atomic(AioTimer *) *handed_over;
} Leaflet;

static int64_t
hand_over(AioTimer *timer)
{
    Leaflet *leaflet = aio_container_of(timer, Leaflet, timer);
    atomic_store(leaflet->handed_over, timer);
    return AIO_NEVER;
}

static void
a_timer_that_fires_for_the_last_time_may_be_gone_at_once(void)
{
    Tower tower;
    tower_start(&tower);
    for (int i = 0; i < 500; i++) {
        _Atomic(AioTimer *) handed_over = NULL;
        AioTimer *timer;
        Leaflet *leaflet = malloc(sizeof *leaflet);
        CHECK(leaflet != NULL);
        aio_timer_init(&leaflet->timer, hand_over);
        leaflet->handed_over = &handed_over;
        aio_timers_set(&tower.timers, &leaflet->timer, 0);
        while ((timer = atomic_load(&handed_over)) == NULL) {
            sched_yield();
        }
        free(aio_container_of(timer, Leaflet, timer));
    }
    tower_end(&tower);
}

/* ---- setting, clearing, retiring -------------------------------------------- */

static void
a_set_moves_an_armed_timer_and_set_earlier_only_forward(void)
{
    /* No thread runs: when each is due can be seen in the heap. */
    Tower tower;
    Bell bell, other;
    AioTimer *timer = &bell.timer;
    tower_init(&tower);
    bell_init(&bell);
    bell_init(&other);
    CHECK(!aio_heap_is_linked(&timer->node));
    CHECK(aio_timers_set(&tower.timers, &other.timer, 20));
    CHECK(aio_timers_set(&tower.timers, timer, 30));
    CHECK(aio_heap_first(&tower.timers.armed) == &other.timer.node);
    CHECK(aio_timers_set(&tower.timers, timer, 10));
    CHECK(aio_heap_first(&tower.timers.armed) == &timer->node);
    CHECK(aio_timers_set(&tower.timers, timer, 40));
    CHECK(aio_heap_first(&tower.timers.armed) == &other.timer.node);
    CHECK(timer->node.key == 40);
    CHECK(aio_timers_set_earlier(&tower.timers, timer, 41));
    CHECK(timer->node.key == 40);
    CHECK(aio_timers_set_earlier(&tower.timers, timer, 19));
    CHECK(timer->node.key == 19);
    CHECK(aio_heap_first(&tower.timers.armed) == &timer->node);
    CHECK(aio_timers_clear(&tower.timers, timer));
    CHECK(aio_heap_first(&tower.timers.armed) == &other.timer.node);
    CHECK(!aio_timers_clear(&tower.timers, timer));
    CHECK(aio_timers_set_earlier(&tower.timers, timer, 50)); /* armed for never */
    CHECK(timer->node.key == 50);
    CHECK(bell.rings == 0 && other.rings == 0);
    tower_destroy(&tower); /* forgets them */
}

static void *
run_out(void *timers)
{
    aio_timers_run_out(timers);
    return NULL;
}

static void
a_thread_that_sleeps_for_good_ends_when_the_last_timer_is_cleared(void)
{
    AioTimers timers;
    Bell first, second;
    bell_init(&first);
    bell_init(&second);
    CHECK(aio_timers_init(&timers) == 0);
    CHECK(aio_timers_set(&timers, &first.timer, INT64_MAX));
    CHECK(aio_timers_set(&timers, &second.timer, INT64_MAX));
    CHECK(aio_timers_claim(&timers));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_out, &timers) == 0);
    CHECK(aio_timers_clear(&timers, &first.timer));
    CHECK(aio_timers_retire(&timers, &second.timer));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(first.rings == 0 && second.rings == 0);
    CHECK(!aio_timers_claim(&timers)); /* nothing is armed */
    aio_timers_destroy(&timers);
}

static void
a_retired_timer_is_not_set_any_more(void)
{
    Tower tower;
    Bell bell, unused, other;
    tower_start(&tower);
    bell_init(&bell);
    bell_init(&unused);
    bell_init(&other);
    other.at_last = &tower.parker;
    CHECK(!aio_timers_retire(&tower.timers, &unused.timer)); /* was not armed */
    CHECK(aio_timers_set(&tower.timers, &bell.timer, aio_clock_ns() + LONG_NS));
    CHECK(aio_timers_retire(&tower.timers, &bell.timer));
    CHECK(!aio_timers_retire(&tower.timers, &bell.timer));
    CHECK(!aio_timers_clear(&tower.timers, &bell.timer));
    CHECK(!aio_timers_set(&tower.timers, &bell.timer, 0));
    CHECK(!aio_timers_set_earlier(&tower.timers, &bell.timer, 0));
    CHECK(!aio_timers_set(&tower.timers, &unused.timer, 0));
    CHECK(aio_timers_set(&tower.timers, &other.timer, 0));
    wait_for_bell(&tower);
    tower_end(&tower);
    CHECK(bell.rings == 0 && unused.rings == 0 && other.rings == 1);
}

static void
a_cleared_timer_does_not_fire_until_it_is_set_again(void)
{
    Tower tower;
    Bell bell, later;
    tower_start(&tower);
    bell_init(&bell);
    bell_init(&later);
    later.at_last = &tower.parker;
    const int64_t due = aio_clock_ns() + LONG_NS;
    aio_timers_set(&tower.timers, &bell.timer, due);
    aio_timers_set(&tower.timers, &later.timer, due + 1);
    wait_until_it_sleeps(&tower, due);
    CHECK(aio_timers_clear(&tower.timers, &bell.timer));
    aio_timers_set(&tower.timers, &later.timer, aio_clock_ns() + MS);
    wait_for_bell(&tower);
    CHECK(bell.rings == 0);
    bell.at_last = &tower.parker; /* it is ours, as it is not armed */
    aio_timers_set(&tower.timers, &bell.timer, aio_clock_ns() + MS);
    wait_for_bell(&tower);
    tower_end(&tower);
    CHECK(bell.rings == 1 && later.rings == 1);
}

static void
the_thread_is_woken_only_for_what_is_due_earlier(void)
{
    Tower tower;
    Bell near, far, now;
    const int64_t due = aio_clock_ns() + LONG_NS;
    tower_start(&tower);
    bell_init(&near);
    bell_init(&far);
    bell_init(&now);
    now.at_last = &tower.parker;
    wait_until_it_sleeps(&tower, INT64_MAX);
    aio_timers_set(&tower.timers, &near.timer, due);
    wait_until_it_sleeps(&tower, due);
    /* Whoever wakes it changes that first. */
    aio_timers_set(&tower.timers, &far.timer, due + 1);
    CHECK(looks_at(&tower) == due);
    aio_timers_set_earlier(&tower.timers, &far.timer, due);
    CHECK(looks_at(&tower) == due);
    aio_timers_set(&tower.timers, &far.timer, due + 2);
    CHECK(looks_at(&tower) == due);
    aio_timers_clear(&tower.timers, &near.timer);
    CHECK(looks_at(&tower) == due);
    aio_timers_set_earlier(&tower.timers, &far.timer, due - 1);
    wait_until_it_sleeps(&tower, due - 1);
    aio_timers_set(&tower.timers, &now.timer, 0);
    wait_for_bell(&tower);
    wait_until_it_sleeps(&tower, due - 1);
    tower_end(&tower); /* and the stop wakes it */
    CHECK(near.rings == 0 && far.rings == 0 && now.rings == 1);
}

/* ---- the end ------------------------------------------------------------------ */

static void
after_a_stop_nothing_fires_and_setting_does_no_harm(void)
{
    Tower tower;
    Bell bell, late;
    tower_start(&tower);
    bell_init(&bell);
    bell_init(&late);
    CHECK(aio_timers_set(&tower.timers, &bell.timer, aio_clock_ns() + LONG_NS));
    aio_timers_stop(&tower.timers);
    CHECK(aio_timers_set(&tower.timers, &bell.timer, 0));
    CHECK(aio_timers_set_earlier(&tower.timers, &late.timer, 0));
    join_thread(tower.thread);
    CHECK(aio_timers_set(&tower.timers, &late.timer, 1));
    aio_timers_stop(&tower.timers);
    CHECK(aio_timers_clear(&tower.timers, &bell.timer));
    CHECK(bell.rings == 0 && late.rings == 0);
    tower_destroy(&tower);
}

static void
a_thread_that_comes_after_the_stop_returns_at_once(void)
{
    Tower tower;
    Bell bell;
    tower_init(&tower);
    bell_init(&bell);
    aio_timers_set(&tower.timers, &bell.timer, 0);
    aio_timers_stop(&tower.timers);
    aio_timers_run(&tower.timers);
    CHECK(bell.rings == 0);
    tower_destroy(&tower);
}

static void
nothing_is_firing_when_the_stop_returns(void)
{
    uint32_t random_state = 89;
    int rang = 0;
    for (int round = 0; round < 300; round++) {
        Tower tower;
        Bell bell;
        bell_init(&bell);
        bell.rings_left = INT32_MAX;
        bell.pause = round % 2 * 10 * US;
        tower_start(&tower);
        aio_timers_set(&tower.timers, &bell.timer, aio_clock_ns());
        dawdle(&random_state, 100000);
        aio_timers_stop(&tower.timers);
        const int rings = bell.rings; /* a race, if it is firing, for ThreadSanitizer */
        bell.rings = -1;
        dawdle(&random_state, 3000);
        CHECK(bell.rings == -1);
        rang += rings > 0;
        join_thread(tower.thread);
        tower_destroy(&tower);
    }
    EXPECT_MET(rang > 0);
}

/* ---- against timers that are firing --------------------------------------- */

static void
a_timer_that_was_cleared_or_retired_is_not_firing(void)
{
    enum { ROUNDS = 3000 };
    Tower tower;
    uint32_t random_state = 97;
    int before = 0, after = 0, amid = 0;
    tower_start(&tower);
    for (int round = 0; round < ROUNDS; round++) {
        /* On the heap: where it fires after it was freed AddressSanitizer says so. */
        Bell *bell = malloc(sizeof *bell);
        CHECK(bell != NULL);
        bell_init(bell);
        const bool repeats = round % 2 == 0;
        bell->rings_left = repeats ? INT32_MAX : 0;
        aio_timers_set(&tower.timers, &bell->timer, aio_clock_ns() + round % 50 * US);
        dawdle(&random_state, 60000);
        const bool was_armed = round % 4 < 2 ? aio_timers_clear(&tower.timers, &bell->timer)
                                             : aio_timers_retire(&tower.timers, &bell->timer);
        /* Either it was in time or not. */
        CHECK(repeats ? was_armed : was_armed == (bell->rings == 0));
        before += bell->rings == 0;
        after += bell->rings > 0;
        amid += bell->rings > 1;
        free(bell);
    }
    tower_end(&tower);
    EXPECT_MET(before > 0 && after > 0 && amid > 0);
}

/* ---- many threads ------------------------------------------------------------- */

enum { SETTERS = 3, OWN_TIMERS = 20, COMMON_TIMERS = 10, STEPS = 4000 };

typedef struct Own {
    Bell bell;
    int sets; /* since it was ours alone the last time */
} Own;

typedef struct Setter {
    Tower *tower;
    Bell *common;
    pthread_t thread;
    uint32_t random_state;
    int cleared; /* the rest of what it is: after its end */
    int fired;
    Own own[OWN_TIMERS];
} Setter;

static bool
set_somehow(AioTimers *timers, AioTimer *timer, uint32_t *random_state)
{
    const uint32_t chosen = next_random(random_state);
    const int64_t due = aio_clock_ns() + (int64_t)(chosen % 400) * US - 50 * US;
    return chosen / 1024 % 2 == 0 ? aio_timers_set(timers, timer, due)
                                  : aio_timers_set_earlier(timers, timer, due);
}

/* Make it the setter's alone, and see what has become of it. */
static void
take_back(Setter *setter, Own *own)
{
    const bool was_armed = aio_timers_clear(&setter->tower->timers, &own->bell.timer);
    /* Each set is followed by at most one firing, and the last by one or the clear. */
    CHECK(own->bell.rings <= own->sets - was_armed);
    CHECK(own->bell.rings > 0 || was_armed == (own->sets > 0));
    setter->cleared += was_armed;
    setter->fired += own->bell.rings;
    own->bell.rings = 0;
    own->sets = 0;
}

static void *
set_and_clear(void *raw)
{
    Setter *setter = raw;
    AioTimers *timers = &setter->tower->timers;
    for (int i = 0; i < OWN_TIMERS; i++) {
        bell_init(&setter->own[i].bell);
    }
    for (int step = 0; step < STEPS; step++) {
        const uint32_t chosen = next_random(&setter->random_state);
        Own *own = &setter->own[chosen % OWN_TIMERS];
        Bell *common = &setter->common[chosen / 64 % COMMON_TIMERS];
        if (chosen / 4096 % 4 == 0) {
            take_back(setter, own);
        }
        else {
            own->sets++;
            CHECK(set_somehow(timers, &own->bell.timer, &setter->random_state));
        }
        switch (chosen / 65536 % 4) {
        case 0:
            aio_timers_clear(timers, &common->timer);
            break;
        case 1:
            set_somehow(timers, &common->timer, &setter->random_state);
            break;
        case 2:
            if (step > STEPS / 2 && chosen / 1048576 % 256 == 0) {
                aio_timers_retire(timers, &common->timer);
                CHECK(!set_somehow(timers, &common->timer, &setter->random_state));
            }
            break;
        default:
            dawdle(&setter->random_state, 20000);
        }
    }
    for (int i = 0; i < OWN_TIMERS; i++) {
        take_back(setter, &setter->own[i]);
    }
    return NULL;
}

static void
run_setters(uint32_t seed)
{
    Tower tower;
    Bell common[COMMON_TIMERS], last;
    Setter *setters = calloc(SETTERS, sizeof *setters);
    int fired = 0, cleared = 0;
    CHECK(setters != NULL);
    tower_start(&tower);
    for (int i = 0; i < COMMON_TIMERS; i++) {
        bell_init(&common[i]);
        common[i].rings_left = i % 2 * INT32_MAX;
        common[i].pause = 200 * US;
    }
    for (int i = 0; i < SETTERS; i++) {
        setters[i].tower = &tower;
        setters[i].common = common;
        setters[i].random_state = seed * 101 + (uint32_t)i;
        setters[i].thread = start_thread(set_and_clear, &setters[i]);
    }
    for (int i = 0; i < SETTERS; i++) {
        join_thread(setters[i].thread);
        fired += setters[i].fired;
        cleared += setters[i].cleared;
    }
    /* And after all that it still wakes up in time for what is due. */
    bell_init(&last);
    last.at_last = &tower.parker;
    aio_timers_set(&tower.timers, &last.timer, aio_clock_ns() + MS);
    wait_for_bell(&tower);
    tower_end(&tower);
    EXPECT_MET(fired > 0 && cleared > 0);
    free(setters);
}

static void
timers_set_and_cleared_from_many_threads_fire_at_most_once_per_set(void)
{
    for (uint32_t round = 1; round <= 15; round++) {
        run_setters(round);
    }
}

static void
no_set_is_missed_nor_early_while_the_thread_falls_asleep(void)
{
    enum { ROUNDS = 5000 };
    Tower tower;
    uint32_t random_state = 103;
    tower_start(&tower);
    for (int round = 0; round < ROUNDS; round++) {
        Bell bell;
        bell_init(&bell);
        bell.at_last = &tower.parker;
        dawdle(&random_state, round % 4 == 0 ? 60000 : 2000);
        const int64_t now = aio_clock_ns();
        /* Earlier than it would look, once or twice, by a moment. */
        aio_timers_set(&tower.timers, &bell.timer, now + LONG_NS * 2);
        if (round % 2 == 0) {
            dawdle(&random_state, 2000);
            aio_timers_set(&tower.timers, &bell.timer, now + LONG_NS * 2 - 1);
        }
        dawdle(&random_state, 2000);
        const int64_t due = now + round % 3 * 10 * US;
        aio_timers_set(&tower.timers, &bell.timer, due);
        wait_for_bell(&tower);
        CHECK(!aio_timers_clear(&tower.timers, &bell.timer)); /* before it goes */
        CHECK(bell.rings == 1 && bell.last_ring >= due);
    }
    tower_end(&tower);
}

int
main(void)
{
    RUN(timers_fire_in_the_order_in_which_they_are_due);
    RUN(a_timer_that_fires_can_be_armed_again_by_that);
    RUN(a_timer_that_is_always_due_keeps_nobody_from_firing_or_stopping);
    RUN(a_timer_that_fires_for_the_last_time_may_be_gone_at_once);
    RUN(a_set_moves_an_armed_timer_and_set_earlier_only_forward);
    RUN(a_thread_that_sleeps_for_good_ends_when_the_last_timer_is_cleared);
    RUN(a_retired_timer_is_not_set_any_more);
    RUN(a_cleared_timer_does_not_fire_until_it_is_set_again);
    RUN(the_thread_is_woken_only_for_what_is_due_earlier);
    RUN(after_a_stop_nothing_fires_and_setting_does_no_harm);
    RUN(a_thread_that_comes_after_the_stop_returns_at_once);
    RUN(nothing_is_firing_when_the_stop_returns);
    RUN(a_timer_that_was_cleared_or_retired_is_not_firing);
    RUN(no_set_is_missed_nor_early_while_the_thread_falls_asleep);
    RUN(timers_set_and_cleared_from_many_threads_fire_at_most_once_per_set);
    return 0;
}
