/* counted.h: structures that more than one interpreter uses, counted.
 *
 * What a message can carry besides plain bytes begins with an AioCounted: a lent
 * block, a queue, a shared value. They belong to no interpreter; whoever drops the
 * last reference destroys them, in whatever thread, with or without a GIL. As that
 * can run Python code (where a block's owner drops the last reference to it), no
 * reference is dropped while a lock is held.
 */
#ifndef AIO_BINDING_COUNTED_H
#define AIO_BINDING_COUNTED_H

#include <stdatomic.h>

typedef struct AioCounted {
    /* Increments are relaxed, since the caller has a reference already; the last
     * decrement acquires what the others released. */
    _Atomic long references;
    void (*destroy)(struct AioCounted *counted); /* constant; tells the kind, too */
    /* For aio_counted_destroy_later(), once the last reference is gone. */
    struct AioCounted *next_doomed;
    void (*free)(struct AioCounted *counted);
} AioCounted;

static inline void
aio_counted_init(AioCounted *counted, void (*destroy)(AioCounted *))
{
    atomic_init(&counted->references, 1);
    counted->destroy = destroy;
}

static inline void
aio_counted_acquire(AioCounted *counted)
{
    atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
}

static inline void
aio_counted_release(AioCounted *counted)
{
    if (atomic_fetch_sub_explicit(&counted->references, 1, memory_order_acq_rel) == 1) {
        counted->destroy(counted);
    }
}

/* For a `destroy` of what may refer to others of its kind, in long chains: call `free`,
 * but where such a call is under way in this thread, leave that to the outer one. */
void aio_counted_destroy_later(AioCounted *counted, void (*free)(AioCounted *));

#endif
