/* test_pending.c: the contract of core/pending.h. */
#include "core/pending.h"

#include <stdlib.h>

#include "check.h"
#include "core/park.h"

typedef struct Waiter {
    AioPendingWaiter waiter; /* first: a waiter is a Waiter */
    AioPending *pending;
    pthread_t notified_in;
    int notices; /* written by the notifying thread; read after it is joined, or by it */
} Waiter;

static void
count_notice(AioPendingWaiter *raw)
{
    Waiter *waiter = (Waiter *)raw;
    waiter->notices++;
    waiter->notified_in = pthread_self();
}

static Waiter
new_waiter(AioPending *pending)
{
    return (Waiter){.waiter = {.notify = count_notice}, .pending = pending};
}

static void
it_counts_from_where_it_starts(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 2) == 0);
    CHECK(aio_pending_count(&pending) == 2);
    aio_pending_add(&pending);
    CHECK(aio_pending_count(&pending) == 3);
    aio_pending_done(&pending);
    aio_pending_done(&pending);
    aio_pending_done(&pending);
    CHECK(aio_pending_count(&pending) == 0);
    aio_pending_destroy(&pending);
}

static void
waiting_for_zero_at_zero_is_over_at_once_and_registers_nothing(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 0) == 0);
    Waiter waiter = new_waiter(&pending);
    CHECK(aio_pending_wait(&pending, &waiter.waiter));
    aio_pending_add(&pending);
    aio_pending_done(&pending);
    CHECK(waiter.notices == 0);
    aio_pending_destroy(&pending);
}

static void
the_step_to_zero_notifies_every_waiter_once(void)
{
    enum { WAITERS = 3 };
    AioPending pending;
    Waiter waiters[WAITERS];
    CHECK(aio_pending_init(&pending, 2) == 0);
    for (int i = 0; i < WAITERS; i++) {
        waiters[i] = new_waiter(&pending);
        CHECK(!aio_pending_wait(&pending, &waiters[i].waiter));
    }
    aio_pending_done(&pending);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(waiters[i].notices == 0);
    }
    aio_pending_done(&pending);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(waiters[i].notices == 1);
        CHECK(pthread_equal(waiters[i].notified_in, pthread_self()));
    }
    /* The next zero is not theirs. */
    aio_pending_add(&pending);
    aio_pending_done(&pending);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(waiters[i].notices == 1);
    }
    aio_pending_destroy(&pending);
}

static void
a_forgotten_waiter_is_not_notified_and_the_others_are(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 1) == 0);
    Waiter first = new_waiter(&pending);
    Waiter second = new_waiter(&pending);
    Waiter third = new_waiter(&pending);
    CHECK(!aio_pending_wait(&pending, &first.waiter));
    CHECK(!aio_pending_wait(&pending, &second.waiter));
    CHECK(!aio_pending_wait(&pending, &third.waiter));
    CHECK(aio_pending_forget(&pending, &second.waiter));
    aio_pending_done(&pending);
    CHECK(first.notices == 1);
    CHECK(second.notices == 0);
    CHECK(third.notices == 1);
    aio_pending_destroy(&pending);
}

static void
forgetting_a_notified_waiter_says_so(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 1) == 0);
    Waiter waiter = new_waiter(&pending);
    CHECK(!aio_pending_wait(&pending, &waiter.waiter));
    aio_pending_done(&pending);
    CHECK(!aio_pending_forget(&pending, &waiter.waiter));
    CHECK(waiter.notices == 1);
    aio_pending_destroy(&pending);
}

static void
a_forgotten_waiter_may_wait_again(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 1) == 0);
    Waiter waiter = new_waiter(&pending);
    CHECK(!aio_pending_wait(&pending, &waiter.waiter));
    CHECK(aio_pending_forget(&pending, &waiter.waiter));
    CHECK(!aio_pending_wait(&pending, &waiter.waiter));
    aio_pending_done(&pending);
    CHECK(waiter.notices == 1);
    aio_pending_destroy(&pending);
}

static void
free_waiter(AioPendingWaiter *raw)
{
    Waiter *waiter = (Waiter *)raw;
    /* No lock is held, or this would never return. */
    Waiter another = new_waiter(waiter->pending);
    CHECK(aio_pending_wait(waiter->pending, &another.waiter));
    free(waiter);
}

static void
a_notified_waiter_is_the_callees_to_free(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 1) == 0);
    for (int i = 0; i < 3; i++) {
        Waiter *waiter = malloc(sizeof *waiter);
        CHECK(waiter != NULL);
        *waiter = (Waiter){.waiter = {.notify = free_waiter}, .pending = &pending};
        CHECK(!aio_pending_wait(&pending, &waiter->waiter));
    }
    aio_pending_done(&pending); /* AddressSanitizer watches */
    aio_pending_destroy(&pending);
}

static void
add_unless_zero_adds_to_any_count_but_zero(void)
{
    AioPending pending;
    CHECK(aio_pending_init(&pending, 1) == 0);
    CHECK(aio_pending_add_unless_zero(&pending));
    CHECK(aio_pending_count(&pending) == 2);
    aio_pending_done(&pending);
    aio_pending_done(&pending);
    CHECK(!aio_pending_add_unless_zero(&pending));
    CHECK(aio_pending_count(&pending) == 0);
    aio_pending_destroy(&pending);
}

/* ---- several threads ----------------------------------------------------- */

enum { THREADS = 3 };

typedef struct Crowd {
    AioPending pending;
    AioParker zero; /* unparked by the notified waiter */
    Barrier start;
    Barrier end;
    int rounds;
    long work[THREADS]; /* not atomic: done() must publish it to who waits for zero */
    int refused[THREADS];
} Crowd;

typedef struct Member {
    Crowd *crowd;
    int index;
} Member;

static void
open_crowd(Crowd *crowd, int rounds, void *(*entry)(void *), Member *members, pthread_t *threads)
{
    *crowd = (Crowd){.rounds = rounds};
    CHECK(aio_pending_init(&crowd->pending, 0) == 0);
    CHECK(aio_parker_init(&crowd->zero) == 0);
    barrier_init(&crowd->start, THREADS + 1);
    barrier_init(&crowd->end, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        members[i] = (Member){.crowd = crowd, .index = i};
        threads[i] = start_thread(entry, &members[i]);
    }
}

static void
close_crowd(Crowd *crowd, pthread_t *threads)
{
    for (int i = 0; i < THREADS; i++) {
        join_thread(threads[i]);
    }
    barrier_destroy(&crowd->start);
    barrier_destroy(&crowd->end);
    aio_parker_destroy(&crowd->zero);
    aio_pending_destroy(&crowd->pending);
}

typedef struct ParkedWaiter {
    AioPendingWaiter waiter;
    Crowd *crowd;
} ParkedWaiter;

static void
unpark_waiter(AioPendingWaiter *raw)
{
    aio_unpark(&((ParkedWaiter *)raw)->crowd->zero);
}

static void *
finish_one_each_round(void *raw)
{
    Member *member = raw;
    Crowd *crowd = member->crowd;
    uint32_t random_state = 3u + (uint32_t)member->index;
    for (int round = 0; round < crowd->rounds; round++) {
        barrier_wait(&crowd->start);
        dawdle(&random_state, 3000);
        crowd->work[member->index] = round;
        aio_pending_done(&crowd->pending);
        barrier_wait(&crowd->end);
    }
    return NULL;
}

static void
who_waits_for_zero_comes_back_after_the_last_one_and_sees_its_work(void)
{
    enum { ROUNDS = 2000 };
    Crowd crowd;
    Member members[THREADS];
    pthread_t threads[THREADS];
    uint32_t random_state = 1;
    int waited = 0;
    open_crowd(&crowd, ROUNDS, finish_one_each_round, members, threads);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < THREADS; i++) {
            aio_pending_add(&crowd.pending);
        }
        ParkedWaiter waiter = {.waiter = {.notify = unpark_waiter}, .crowd = &crowd};
        barrier_wait(&crowd.start);
        dawdle(&random_state, 3000);
        if (!aio_pending_wait(&crowd.pending, &waiter.waiter)) {
            waited++;
            aio_park(&crowd.zero); /* for ever, if the notice is lost */
        }
        CHECK(aio_pending_count(&crowd.pending) == 0);
        for (int i = 0; i < THREADS; i++) {
            CHECK(crowd.work[i] == round);
        }
        barrier_wait(&crowd.end);
    }
    EXPECT_MET(waited > 0);
    CHECK(!aio_park_until(&crowd.zero, 0)); /* nobody was notified twice */
    close_crowd(&crowd, threads);
}

/* ---- many zeros ---------------------------------------------------------- */

typedef struct SharedWaiter {
    AioPendingWaiter waiter; /* first */
    _Atomic int notices;
} SharedWaiter;

static void
count_shared_notice(AioPendingWaiter *raw)
{
    atomic_fetch_add(&((SharedWaiter *)raw)->notices, 1);
}

enum { COMINGS = 5000 };

/* Add one, wait, finish one; so the sum comes to zero ever and again, and one
 * thread's waiter may be notified by any other. */
static void *
come_and_go(void *raw)
{
    Member *member = raw;
    Crowd *crowd = member->crowd;
    /* All of them are kept until every thread has finished its last one. */
    SharedWaiter *waiters = calloc(COMINGS, sizeof *waiters);
    CHECK(waiters != NULL);
    barrier_wait(&crowd->start);
    for (int i = 0; i < COMINGS; i++) {
        AioPendingWaiter *waiter = &waiters[i].waiter;
        waiter->notify = count_shared_notice;
        aio_pending_add(&crowd->pending);
        /* Our own is still to be finished, so the count cannot be zero. */
        CHECK(!aio_pending_wait(&crowd->pending, waiter));
        if (i % 4 == 0) {
            CHECK(aio_pending_forget(&crowd->pending, waiter));
            CHECK(!aio_pending_wait(&crowd->pending, waiter));
        }
        CHECK(atomic_load(&waiters[i].notices) == 0);
        aio_pending_done(&crowd->pending);
        if (i % 4 == 1 && aio_pending_forget(&crowd->pending, waiter)) {
            CHECK(atomic_load(&waiters[i].notices) == 0);
            atomic_store(&waiters[i].notices, 1); /* never to come now; a second one would show */
        }
    }
    barrier_wait(&crowd->end);
    for (int i = 0; i < COMINGS; i++) {
        CHECK(atomic_load(&waiters[i].notices) == 1);
    }
    free(waiters);
    return NULL;
}

static void
each_waiter_is_notified_once_however_often_the_count_is_zero(void)
{
    Crowd crowd;
    Member members[THREADS];
    pthread_t threads[THREADS];
    open_crowd(&crowd, 1, come_and_go, members, threads);
    barrier_wait(&crowd.start);
    barrier_wait(&crowd.end);
    CHECK(aio_pending_count(&crowd.pending) == 0);
    close_crowd(&crowd, threads);
}

/* ---- forget against notify ----------------------------------------------- */

typedef struct Duel {
    AioPending pending;
    Barrier start;
    Barrier end;
    _Atomic int notices;
} Duel;

typedef struct DuelWaiter {
    AioPendingWaiter waiter; /* first */
    Duel *duel;
} DuelWaiter;

enum { DUELS = 4000 };

static void
note_duel(AioPendingWaiter *raw)
{
    DuelWaiter *waiter = (DuelWaiter *)raw;
    atomic_fetch_add(&waiter->duel->notices, 1);
}

static void *
finish_duels(void *raw)
{
    Duel *duel = raw;
    uint32_t random_state = 23;
    for (int round = 0; round < DUELS; round++) {
        barrier_wait(&duel->start);
        dawdle(&random_state, 300);
        aio_pending_done(&duel->pending);
        barrier_wait(&duel->end);
    }
    return NULL;
}

static void
a_waiter_is_either_forgotten_or_notified(void)
{
    Duel duel = {.notices = 0};
    uint32_t random_state = 29;
    int forgotten = 0;
    CHECK(aio_pending_init(&duel.pending, 0) == 0);
    barrier_init(&duel.start, 2);
    barrier_init(&duel.end, 2);
    pthread_t thread = start_thread(finish_duels, &duel);
    for (int round = 0; round < DUELS; round++) {
        /* On the heap, so that AddressSanitizer sees a use after we have freed it. */
        DuelWaiter *waiter = malloc(sizeof *waiter);
        CHECK(waiter != NULL);
        *waiter = (DuelWaiter){.waiter = {.notify = note_duel}, .duel = &duel};
        atomic_store(&duel.notices, 0);
        aio_pending_add(&duel.pending);
        CHECK(!aio_pending_wait(&duel.pending, &waiter->waiter));
        barrier_wait(&duel.start);
        dawdle(&random_state, 300);
        const bool got_back = aio_pending_forget(&duel.pending, &waiter->waiter);
        if (got_back) {
            free(waiter); /* ours again, at once */
            forgotten++;
        }
        barrier_wait(&duel.end);
        CHECK(atomic_load(&duel.notices) == (got_back ? 0 : 1));
        if (!got_back) {
            free(waiter);
        }
    }
    join_thread(thread);
    EXPECT_MET(forgotten > 0 && forgotten < DUELS);
    barrier_destroy(&duel.start);
    barrier_destroy(&duel.end);
    aio_pending_destroy(&duel.pending);
}

/* ---- add_unless_zero against done ---------------------------------------- */

static void *
join_in_until_refused(void *raw)
{
    Member *member = raw;
    Crowd *crowd = member->crowd;
    for (int round = 0; round < crowd->rounds; round++) {
        barrier_wait(&crowd->start);
        while (aio_pending_add_unless_zero(&crowd->pending)) {
            CHECK(aio_pending_count(&crowd->pending) >= 1);
            aio_pending_done(&crowd->pending);
        }
        /* Zero is final, as nobody adds unconditionally. */
        CHECK(aio_pending_count(&crowd->pending) == 0);
        CHECK(!aio_pending_add_unless_zero(&crowd->pending));
        crowd->refused[member->index]++;
        barrier_wait(&crowd->end);
    }
    return NULL;
}

static void
with_add_unless_zero_the_count_comes_to_zero_once(void)
{
    enum { ROUNDS = 300 };
    Crowd crowd;
    Member members[THREADS];
    pthread_t threads[THREADS];
    uint32_t random_state = 31;
    open_crowd(&crowd, ROUNDS, join_in_until_refused, members, threads);
    for (int round = 0; round < ROUNDS; round++) {
        ParkedWaiter waiter = {.waiter = {.notify = unpark_waiter}, .crowd = &crowd};
        aio_pending_add(&crowd.pending);
        CHECK(!aio_pending_wait(&crowd.pending, &waiter.waiter));
        barrier_wait(&crowd.start);
        dawdle(&random_state, 3000);
        aio_pending_done(&crowd.pending);
        aio_park(&crowd.zero);
        CHECK(!aio_pending_add_unless_zero(&crowd.pending));
        barrier_wait(&crowd.end);
        CHECK(!aio_park_until(&crowd.zero, 0)); /* notified once */
    }
    close_crowd(&crowd, threads);
    for (int i = 0; i < THREADS; i++) {
        CHECK(crowd.refused[i] == ROUNDS);
    }
}

enum { LAST_CHANCES = 30000 };

typedef struct LastChance {
    AioPending pending;
    _Atomic int adder_round;
    _Atomic int finisher_round;
    _Atomic int looked_round; /* the finisher has looked at the count of this round */
} LastChance;

/* Finish the only one while another thread tries to add to it. */
static void *
finish_and_look(void *raw)
{
    LastChance *chance = raw;
    uint32_t random_state = 71;
    bool *was_zero = calloc(LAST_CHANCES + 1, sizeof *was_zero);
    CHECK(was_zero != NULL);
    for (int round = 1; round <= LAST_CHANCES; round++) {
        line_up(&chance->finisher_round, &chance->adder_round, round);
        dawdle(&random_state, round % 2 == 0 ? 30 : 300);
        aio_pending_done(&chance->pending);
        was_zero[round] = aio_pending_count(&chance->pending) == 0;
        atomic_store(&chance->looked_round, round);
    }
    return was_zero;
}

static void
add_unless_zero_adds_to_what_is_not_finished_or_not_at_all(void)
{
    LastChance chance = {.adder_round = 0};
    uint32_t random_state = 73;
    int added_in_all = 0;
    void *was_zero;
    bool *added = calloc(LAST_CHANCES + 1, sizeof *added);
    CHECK(added != NULL);
    CHECK(aio_pending_init(&chance.pending, 0) == 0);
    pthread_t thread = start_thread(finish_and_look, &chance);
    for (int round = 1; round <= LAST_CHANCES; round++) {
        aio_pending_add(&chance.pending);
        line_up(&chance.adder_round, &chance.finisher_round, round);
        dawdle(&random_state, round % 2 == 0 ? 30 : 300);
        added[round] = aio_pending_add_unless_zero(&chance.pending);
        while (atomic_load(&chance.looked_round) < round) {
            sched_yield();
        }
        if (added[round]) {
            added_in_all++;
            aio_pending_done(&chance.pending);
        }
        CHECK(aio_pending_count(&chance.pending) == 0);
    }
    CHECK(pthread_join(thread, &was_zero) == 0);
    for (int round = 1; round <= LAST_CHANCES; round++) {
        /* What was added was kept, so the other cannot have seen a zero. */
        CHECK(((bool *)was_zero)[round] == !added[round]);
    }
    EXPECT_MET(added_in_all > 0 && added_in_all < LAST_CHANCES);
    free(was_zero);
    free(added);
    aio_pending_destroy(&chance.pending);
}

int
main(void)
{
    RUN(it_counts_from_where_it_starts);
    RUN(waiting_for_zero_at_zero_is_over_at_once_and_registers_nothing);
    RUN(the_step_to_zero_notifies_every_waiter_once);
    RUN(a_forgotten_waiter_is_not_notified_and_the_others_are);
    RUN(forgetting_a_notified_waiter_says_so);
    RUN(a_forgotten_waiter_may_wait_again);
    RUN(a_notified_waiter_is_the_callees_to_free);
    RUN(add_unless_zero_adds_to_any_count_but_zero);
    RUN(who_waits_for_zero_comes_back_after_the_last_one_and_sees_its_work);
    RUN(each_waiter_is_notified_once_however_often_the_count_is_zero);
    RUN(a_waiter_is_either_forgotten_or_notified);
    RUN(with_add_unless_zero_the_count_comes_to_zero_once);
    RUN(add_unless_zero_adds_to_what_is_not_finished_or_not_at_all);
    return 0;
}
