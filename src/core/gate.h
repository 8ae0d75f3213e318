/* gate.h: one of two threads at a time, as long as that gets on.
 *
 * Unlike a mutex it is no promise: who waits while the other does not get on passes nevertheless.
 * It is for what goes wrong now and then if two do it at once, but where who is in the gate may
 * wait for the other.
 */
#ifndef AIO_CORE_GATE_H
#define AIO_CORE_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "park.h"

typedef struct AioGateSide {
    AioParker parker; /* of the side's thread; unparked under the lock */
    /* Guarded by the gate's lock. */
    bool waits;
    bool has_gate;
    uint64_t gave_up_on; /* whose pass it has waited for in vain: it does not do so twice */
} AioGateSide;

typedef struct AioGate {
    pthread_mutex_t
        lock; /* guards all but the parkers; held for moments, with nothing else taken */
    bool is_taken;
    uint64_t passes; /* how often it was taken; the present one's number */
    uint64_t steps;  /* by which who was in it got on */
    AioGateSide sides[2];
} AioGate;

/* `gate` is zeroed. 0, or -1 where the system has no room. */
int aio_gate_init(AioGate *gate);

void aio_gate_destroy(AioGate *gate);

/* The thread of that side, 0 or 1, which is not in the gate: wait until the other one is not
 * either, or has made no step for `patience_ns`, or (as it is not seen at once) twice as long. */
void aio_gate_pass(AioGate *gate, int side, int64_t patience_ns);

/* The same thread, then: it gets on. */
void aio_gate_step(AioGate *gate, int side);

/* And afterwards. */
void aio_gate_come_out(AioGate *gate, int side);

#endif
