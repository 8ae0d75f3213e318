/* test_gate.c: the contract of core/gate.h. */
#include "core/gate.h"

#include <stdatomic.h>

#include "check.h"
#include "core/clock.h"

static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

static void
each_side_passes_where_the_other_is_not(void)
{
    AioGate gate = {.is_taken = false};
    CHECK(aio_gate_init(&gate) == 0);
    for (int round = 0; round < 10; round++) {
        aio_gate_pass(&gate, round % 2, LONG_NS);
        CHECK(gate.sides[round % 2].has_gate);
        aio_gate_come_out(&gate, round % 2);
        CHECK(!gate.is_taken);
    }
    aio_gate_destroy(&gate);
}

static void
who_waits_in_vain_passes_nevertheless_and_waits_no_second_time(void)
{
    AioGate gate = {.is_taken = false};
    CHECK(aio_gate_init(&gate) == 0);
    aio_gate_pass(&gate, 0, LONG_NS);
    const int64_t began = aio_clock_ns();
    aio_gate_pass(&gate, 1, 20 * MS);
    CHECK(aio_clock_ns() - began >= 20 * MS);
    CHECK(!gate.sides[1].has_gate);
    aio_gate_come_out(&gate, 1);
    CHECK(gate.is_taken); /* by the other one, still */
    aio_gate_pass(&gate, 1, LONG_NS);
    aio_gate_come_out(&gate, 1);
    aio_gate_come_out(&gate, 0);
    aio_gate_pass(&gate, 1, LONG_NS);
    CHECK(gate.sides[1].has_gate);
    aio_gate_come_out(&gate, 1);
    aio_gate_destroy(&gate);
}

/* ---- two threads --------------------------------------------------------- */

/* Much longer than a thread that wants to run is kept waiting. */
static const int64_t PATIENCE_NS = (int64_t)500 * 1000 * 1000;

static void *
pass_second(void *raw)
{
    AioGate *gate = raw;
    aio_gate_pass(gate, 1, PATIENCE_NS);
    CHECK(gate->sides[1].has_gate); /* it was waited for */
    aio_gate_come_out(gate, 1);
    return NULL;
}

static void
who_gets_on_is_waited_for(void)
{
    AioGate gate = {.is_taken = false};
    CHECK(aio_gate_init(&gate) == 0);
    aio_gate_pass(&gate, 0, LONG_NS);
    pthread_t thread = start_thread(pass_second, &gate);
    for (const int64_t end = aio_clock_ns() + 3 * PATIENCE_NS; aio_clock_ns() < end;) {
        aio_gate_step(&gate, 0);
        sched_yield();
    }
    aio_gate_come_out(&gate, 0);
    join_thread(thread);
    aio_gate_destroy(&gate);
}

enum { ROUNDS = 20000 };

typedef struct Crossing {
    AioGate gate;
    /* Not atomic: only the gate orders the accesses. */
    long inside;
    long passes;
} Crossing;

static void
cross(Crossing *crossing, int side)
{
    for (long round = 0; round < ROUNDS; round++) {
        aio_gate_pass(&crossing->gate, side, LONG_NS);
        CHECK(crossing->inside == 0);
        crossing->inside++;
        crossing->passes++;
        if (round % 64 == 0) {
            sched_yield();
        }
        crossing->inside--;
        aio_gate_come_out(&crossing->gate, side);
    }
}

static void *
cross_from_the_other_side(void *raw)
{
    cross(raw, 1);
    return NULL;
}

static void
one_is_in_it_at_a_time(void)
{
    Crossing crossing = {.inside = 0};
    CHECK(aio_gate_init(&crossing.gate) == 0);
    pthread_t thread = start_thread(cross_from_the_other_side, &crossing);
    cross(&crossing, 0);
    join_thread(thread);
    CHECK(crossing.passes == 2 * ROUNDS);
    aio_gate_destroy(&crossing.gate);
}

int
main(void)
{
    RUN(each_side_passes_where_the_other_is_not);
    RUN(who_waits_in_vain_passes_nevertheless_and_waits_no_second_time);
    RUN(who_gets_on_is_waited_for);
    RUN(one_is_in_it_at_a_time);
    return 0;
}
