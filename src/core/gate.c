/* gate.c: one of two threads at a time, as long as that gets on. */
#include "gate.h"

#include "clock.h"

int
aio_gate_init(AioGate *gate)
{
    /* With the system's mutexes on Linux and macOS that can't fail. */
    if (pthread_mutex_init(&gate->lock, NULL) != 0) {
        return -1;
    }
    if (aio_parker_init(&gate->sides[0].parker) < 0) {
        pthread_mutex_destroy(&gate->lock);
        return -1;
    }
    if (aio_parker_init(&gate->sides[1].parker) < 0) {
        aio_parker_destroy(&gate->sides[0].parker);
        pthread_mutex_destroy(&gate->lock);
        return -1;
    }
    return 0;
}

void
aio_gate_destroy(AioGate *gate)
{
    aio_parker_destroy(&gate->sides[1].parker);
    aio_parker_destroy(&gate->sides[0].parker);
    pthread_mutex_destroy(&gate->lock);
}

void
aio_gate_pass(AioGate *gate, int side, int64_t patience_ns)
{
    AioGateSide *mine = &gate->sides[side];
    int64_t deadline = aio_clock_ns() + patience_ns;
    bool gets_on = true;

    pthread_mutex_lock(&gate->lock);
    uint64_t steps = gate->steps;
    while (gate->is_taken && gets_on && mine->gave_up_on != gate->passes) {
        mine->waits = true;
        pthread_mutex_unlock(&gate->lock);
        const bool in_time = aio_park_until(&mine->parker, deadline);
        pthread_mutex_lock(&gate->lock);
        mine->waits = false;
        if (!in_time) {
            gets_on = gate->steps != steps;
            steps = gate->steps;
            deadline = aio_clock_ns() + patience_ns;
        }
    }
    mine->has_gate = !gate->is_taken;
    if (mine->has_gate) {
        gate->is_taken = true;
        gate->passes++;
    }
    else {
        mine->gave_up_on = gate->passes;
    }
    pthread_mutex_unlock(&gate->lock);
}

void
aio_gate_step(AioGate *gate, int side)
{
    pthread_mutex_lock(&gate->lock);
    gate->steps += gate->sides[side].has_gate;
    pthread_mutex_unlock(&gate->lock);
}

void
aio_gate_come_out(AioGate *gate, int side)
{
    AioGateSide *mine = &gate->sides[side], *other = &gate->sides[1 - side];
    pthread_mutex_lock(&gate->lock);
    if (mine->has_gate) {
        mine->has_gate = gate->is_taken = false;
        if (other->waits) {
            aio_unpark(&other->parker);
        }
    }
    pthread_mutex_unlock(&gate->lock);
}
