/* seen.h: which objects a value was found to hold so far, by their addresses.
 *
 * While a value is encoded natively, an object that occurs in it twice must not be sent
 * twice, or the receiver would get two of it; and a cycle would never end. Only objects
 * that anybody else refers to can occur twice, so most are never put in here. A table
 * with open addressing: a handful of objects need no allocation.
 */
#ifndef AIO_BINDING_SEEN_H
#define AIO_BINDING_SEEN_H

#include <stddef.h>

enum { AIO_SEEN_INLINE = 32 }; /* a power of two */

/* Nobody holds the objects: they must outlive the table. */
typedef struct AioSeen {
    const void **slots; /* NULL: `inline_slots` */
    size_t capacity;
    size_t count;
    const void *inline_slots[AIO_SEEN_INLINE]; /* initialised with the first object */
} AioSeen;

/* Empty. */
static inline void
aio_seen_init(AioSeen *seen)
{
    seen->slots = NULL;
    seen->capacity = AIO_SEEN_INLINE;
    seen->count = 0;
}

/* 1 if it was there already, 0 if it is now, -1 where memory is short. */
int aio_seen_add(AioSeen *seen, const void *object);

void aio_seen_clear(AioSeen *seen);

#endif
