/* gate.h: one of two threads at a time, if that can be had within some time.
 *
 * Unlike a mutex it is no promise: who waits in vain passes nevertheless. It is for what goes wrong
 * now and then if two do it at once, but where who is in the gate may wait for the other.
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
    AioGateSide sides[2];
} AioGate;

/* `gate` is zeroed. 0, or -1 where the system has no room. */
int aio_gate_init(AioGate *gate);

void aio_gate_destroy(AioGate *gate);

/* The thread of that side, 0 or 1, which is not in the gate: wait until the other one is not
 * either, for `patience_ns` at most. */
void aio_gate_pass(AioGate *gate, int side, int64_t patience_ns);

/* The same thread, afterwards. */
void aio_gate_come_out(AioGate *gate, int side);

#endif
