/* test_monitor.c: the contract of core/monitor.h, and that of threads which come and go in
 * core/timers.h.
 *
 * That the monitor's thread ends, and comes again, is told by who fires: a thread's local
 * variable is new in every thread.
 */
#include "core/monitor.h"

#include <sys/wait.h>

#include "check.h"

static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

/* ---- what fires ------------------------------------------------------------ */

typedef struct Bell {
    AioTimer timer; /* first: a timer is a bell */
    /* Guarded by the timers' lock while it is armed; the test's after `rung`. */
    int left;           /* how often it rings again by itself */
    int64_t set_for_ns; /* by the test, before it sets it */
    int in_thread;      /* the firing's number in its thread */
    _Atomic int rings;
    AioParker rung;
} Bell;

/* How many firings this thread has seen. */
static _Thread_local int fired_here;

static int64_t
ring(AioTimer *timer)
{
    Bell *bell = (Bell *)timer;
    const int64_t now = aio_clock_ns();
    CHECK(now >= bell->set_for_ns); /* never early */
    bell->in_thread = ++fired_here;
    const bool again = bell->left-- > 0;
    atomic_fetch_add(&bell->rings, 1);
    aio_unpark(&bell->rung); /* what the test looks at has been written */
    return again ? now : AIO_NEVER;
}

static void
bell_init(Bell *bell, int left)
{
    aio_timer_init(&bell->timer, ring);
    bell->left = left;
    bell->set_for_ns = 0;
    bell->in_thread = 0;
    atomic_init(&bell->rings, 0);
    CHECK(aio_parker_init(&bell->rung) == 0);
}

static void
bell_destroy(Bell *bell)
{
    aio_parker_destroy(&bell->rung);
}

static void
await_ring(Bell *bell)
{
    CHECK(aio_park_until(&bell->rung, aio_clock_ns() + LONG_NS));
}

static void
set_in(Bell *bell, int64_t span_ns)
{
    const int64_t due = aio_clock_ns() + span_ns;
    bell->set_for_ns = due;
    CHECK(aio_monitor_set(&bell->timer, due));
}

/* ---- claim and run_out ------------------------------------------------------ */

static void
who_claims_is_the_only_one_until_all_has_run_out(void)
{
    AioTimers timers;
    Bell bell;
    bell_init(&bell, 2);
    CHECK(aio_timers_init(&timers) == 0);
    CHECK(!aio_timers_claim(&timers)); /* nothing is armed */
    for (int round = 1; round <= 3; round++) {
        CHECK(aio_timers_set(&timers, &bell.timer, aio_clock_ns() - 1));
        CHECK(aio_timers_claim(&timers));
        CHECK(!aio_timers_claim(&timers));
        aio_timers_run_out(&timers); /* returns by itself, having fired what was due */
        CHECK(atomic_load(&bell.rings) == 2 + round);
        CHECK(!aio_timers_claim(&timers)); /* nothing is armed, though nobody runs */
    }
    aio_timers_destroy(&timers);
    bell_destroy(&bell);
}

static void
who_gives_up_the_claim_leaves_it_to_the_next(void)
{
    AioTimers timers;
    Bell bell;
    bell_init(&bell, 0);
    CHECK(aio_timers_init(&timers) == 0);
    CHECK(aio_timers_set(&timers, &bell.timer, 0));
    CHECK(aio_timers_claim(&timers));
    aio_timers_disclaim(&timers);
    CHECK(atomic_load(&bell.rings) == 0);
    CHECK(aio_timers_claim(&timers));
    aio_timers_run_out(&timers);
    CHECK(atomic_load(&bell.rings) == 1);
    aio_timers_destroy(&timers);
    bell_destroy(&bell);
}

static void
running_out_waits_for_what_is_armed(void)
{
    AioTimers timers;
    Bell bells[2];
    CHECK(aio_timers_init(&timers) == 0);
    const int64_t due = aio_clock_ns() + 20 * MS;
    for (int i = 0; i < 2; i++) {
        bell_init(&bells[i], 0);
        bells[i].set_for_ns = due + i * 10 * MS;
        CHECK(aio_timers_set(&timers, &bells[i].timer, bells[i].set_for_ns));
    }
    CHECK(aio_timers_claim(&timers));
    aio_timers_run_out(&timers);
    for (int i = 0; i < 2; i++) {
        CHECK(atomic_load(&bells[i].rings) == 1);
        bell_destroy(&bells[i]);
    }
    aio_timers_destroy(&timers);
}

static void *
run_out(void *timers)
{
    aio_timers_run_out(timers);
    return NULL;
}

static void
stopping_ends_the_running_out(void)
{
    for (int round = 0; round < 200; round++) {
        AioTimers timers;
        Bell bell;
        uint32_t random_state = (uint32_t)round + 1;
        bell_init(&bell, 0);
        CHECK(aio_timers_init(&timers) == 0);
        CHECK(aio_timers_set(&timers, &bell.timer, aio_clock_ns() + 10 * LONG_NS));
        CHECK(aio_timers_claim(&timers));
        const pthread_t thread = start_thread(run_out, &timers);
        dawdle(&random_state, 100000);
        aio_timers_stop(&timers);
        join_thread(thread);
        CHECK(atomic_load(&bell.rings) == 0);
        aio_timers_destroy(&timers);
        bell_destroy(&bell);
    }
}

/* Threads that set timers all the time, each of its own, and run out whatever there is when
 * nobody does: no timer may be left to nobody. */
enum { SETTERS = 3, SETS = 3000 };

typedef struct Setter {
    AioTimers *timers;
    pthread_t thread;
    uint32_t random_state;
    Bell bell;
    int ran;
} Setter;

static void
see_to(Setter *setter)
{
    if (aio_timers_claim(setter->timers)) {
        setter->ran++;
        aio_timers_run_out(setter->timers);
    }
}

static void *
set_and_await(void *raw)
{
    Setter *setter = raw;
    for (int i = 1; i <= SETS; i++) {
        const int64_t span = next_random(&setter->random_state) % (20 * 1000);
        setter->bell.set_for_ns = aio_clock_ns() + span;
        CHECK(aio_timers_set(setter->timers, &setter->bell.timer, setter->bell.set_for_ns));
        dawdle(&setter->random_state, 300);
        see_to(setter);
        await_ring(&setter->bell); /* whoever fires it */
        CHECK(atomic_load(&setter->bell.rings) == i);
    }
    return NULL;
}

static void
no_timer_is_left_to_nobody_while_who_runs_comes_and_goes(void)
{
    AioTimers timers;
    Setter setters[SETTERS];
    int ran = 0;
    CHECK(aio_timers_init(&timers) == 0);
    for (int i = 0; i < SETTERS; i++) {
        setters[i].timers = &timers;
        setters[i].random_state = 101u + (uint32_t)i;
        setters[i].ran = 0;
        bell_init(&setters[i].bell, 0);
        setters[i].thread = start_thread(set_and_await, &setters[i]);
    }
    for (int i = 0; i < SETTERS; i++) {
        join_thread(setters[i].thread);
        bell_destroy(&setters[i].bell);
        ran += setters[i].ran;
    }
    EXPECT_MET(ran > SETTERS && ran < SETTERS * SETS);
    CHECK(!aio_timers_claim(&timers));
    aio_timers_destroy(&timers);
}

/* ---- the monitor ------------------------------------------------------------- */

static void
what_is_set_fires_once_and_not_early(void)
{
    Bell bell;
    bell_init(&bell, 0);
    for (int i = 1; i <= 20; i++) {
        set_in(&bell, i % 4 * MS);
        await_ring(&bell);
        CHECK(atomic_load(&bell.rings) == i);
    }
    aio_monitor_retire(&bell.timer);
    CHECK(atomic_load(&bell.rings) == 20);
    bell_destroy(&bell);
}

static void
set_moves_what_is_armed_and_set_earlier_only_forward(void)
{
    Bell bell;
    bell_init(&bell, 0);
    CHECK(aio_monitor_set(&bell.timer, aio_clock_ns() + 10 * LONG_NS));
    set_in(&bell, MS); /* wakes the thread, which would have slept for minutes */
    await_ring(&bell);

    CHECK(aio_monitor_set(&bell.timer, aio_clock_ns() + 10 * LONG_NS));
    bell.set_for_ns = aio_clock_ns() + MS;
    CHECK(aio_monitor_set_earlier(&bell.timer, bell.set_for_ns));
    CHECK(aio_monitor_set_earlier(&bell.timer, aio_clock_ns() + 10 * LONG_NS)); /* stays */
    await_ring(&bell);

    CHECK(aio_monitor_set_earlier(&bell.timer, aio_clock_ns())); /* not armed: as set */
    await_ring(&bell);
    CHECK(atomic_load(&bell.rings) == 3);
    aio_monitor_retire(&bell.timer);
    bell_destroy(&bell);
}

static void
what_is_retired_neither_fires_nor_can_be_set(void)
{
    Bell early, late;
    bell_init(&early, 0);
    bell_init(&late, 0);
    CHECK(aio_monitor_set(&early.timer, aio_clock_ns() + 10 * LONG_NS));
    aio_monitor_retire(&early.timer);
    aio_monitor_retire(&early.timer);
    CHECK(!aio_monitor_set(&early.timer, 0));
    CHECK(!aio_monitor_set_earlier(&early.timer, 0));
    set_in(&late, 0); /* had the other been armed, it would have come before */
    await_ring(&late);
    CHECK(atomic_load(&early.rings) == 0);
    aio_monitor_retire(&late.timer);
    bell_destroy(&late);
    bell_destroy(&early);
}

static void
when_it_is_retired_it_is_not_firing(void)
{
    /* The memory is used again at once: ThreadSanitizer and the counts tell. */
    uint32_t random_state = 103;
    int fired = 0;
    enum { ROUNDS = 3000 };
    for (int i = 0; i < ROUNDS; i++) {
        Bell bell;
        bell_init(&bell, INT32_MAX); /* whenever it fires it is armed again */
        CHECK(aio_monitor_set(&bell.timer, aio_clock_ns() + 2000));
        dawdle(&random_state, 10000);
        aio_monitor_retire(&bell.timer);
        const int rings = atomic_load(&bell.rings);
        CHECK(INT32_MAX - bell.left == rings);
        fired += rings > 0;
        bell_destroy(&bell);
    }
    EXPECT_MET(fired > 0 && fired < ROUNDS);
}

static void
the_thread_ends_when_nothing_is_armed_and_comes_again(void)
{
    /* One that has found nothing armed has ended when the next timer is set, unless that
     * was quicker. */
    enum { ROUNDS = 500 };
    Bell bell;
    uint32_t random_state = 107;
    int came = 0;
    bell_init(&bell, 0);
    for (int i = 0; i < ROUNDS; i++) {
        set_in(&bell, 0);
        await_ring(&bell);
        came += bell.in_thread == 1;
        dawdle(&random_state, 100000);
    }
    EXPECT_MET(came > ROUNDS / 4);
    aio_monitor_retire(&bell.timer);
    bell_destroy(&bell);
}

static void
the_thread_stays_while_something_is_armed(void)
{
    Bell lasting, bell;
    bell_init(&lasting, 0);
    bell_init(&bell, 0);
    CHECK(aio_monitor_set(&lasting.timer, aio_clock_ns() + 10 * LONG_NS));
    set_in(&bell, 0);
    await_ring(&bell);
    const int first = bell.in_thread;
    for (int i = 1; i <= 100; i++) {
        set_in(&bell, 0);
        await_ring(&bell);
        CHECK(bell.in_thread == first + i);
    }
    aio_monitor_retire(&lasting.timer);
    CHECK(atomic_load(&lasting.rings) == 0);
    aio_monitor_retire(&bell.timer);
    bell_destroy(&bell);
    bell_destroy(&lasting);
}

/* ---- a forked child ----------------------------------------------------------- */

/* ThreadSanitizer asks for this: its own thread is missing in a child, but not needed. */
const char *__tsan_default_options(void);

const char *
__tsan_default_options(void)
{
    return "die_after_fork=0";
}

static Bell of_parent;

static int
use_in_child(void)
{
    Bell bell;
    bell_init(&bell, 0);
    for (int i = 1; i <= 3; i++) {
        set_in(&bell, MS);
        await_ring(&bell);
        CHECK(atomic_load(&bell.rings) == i);
    }
    CHECK(aio_monitor_set(&bell.timer, aio_clock_ns() + 10 * LONG_NS));
    aio_monitor_retire(&bell.timer);
    CHECK(atomic_load(&bell.rings) == 3);
    CHECK(atomic_load(&of_parent.rings) == 0); /* its timers are its own affair */
    return 0;
}

static void
a_forked_child_has_a_monitor_of_its_own(void)
{
    bell_init(&of_parent, 0);
    for (int round = 0; round < 20; round++) {
        /* The parent's thread sleeps, or is just at work. */
        CHECK(aio_monitor_set(&of_parent.timer, aio_clock_ns() + 10 * LONG_NS));
        int status;
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(WATCHDOG_SECONDS); /* a child has none of its parent's */
            _exit(use_in_child());
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    set_in(&of_parent, 0); /* the parent's still works */
    await_ring(&of_parent);
    aio_monitor_retire(&of_parent.timer);
    CHECK(atomic_load(&of_parent.rings) == 1);
    bell_destroy(&of_parent);
}

int
main(void)
{
    RUN(who_claims_is_the_only_one_until_all_has_run_out);
    RUN(who_gives_up_the_claim_leaves_it_to_the_next);
    RUN(running_out_waits_for_what_is_armed);
    RUN(stopping_ends_the_running_out);
    RUN(no_timer_is_left_to_nobody_while_who_runs_comes_and_goes);
    RUN(what_is_set_fires_once_and_not_early);
    RUN(set_moves_what_is_armed_and_set_earlier_only_forward);
    RUN(what_is_retired_neither_fires_nor_can_be_set);
    RUN(when_it_is_retired_it_is_not_firing);
    RUN(the_thread_ends_when_nothing_is_armed_and_comes_again);
    RUN(the_thread_stays_while_something_is_armed);
    RUN(a_forked_child_has_a_monitor_of_its_own);
    return 0;
}
