/* seen.c: a set of addresses. */
#include "seen.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Where `object` is, or the free slot for it. There always is a free one. */
static size_t
find(const void *const *slots, size_t capacity, const void *object)
{
    /* Objects lie 16 bytes apart at least; the multiplication spreads the rest. */
    size_t i = (size_t)(((uintptr_t)object >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
    for (;; i++) {
        i &= capacity - 1;
        if (slots[i] == object || slots[i] == NULL) {
            return i;
        }
    }
}

static bool
grow(AioSeen *seen, const void **slots)
{
    const size_t capacity = seen->capacity;
    const void **larger = calloc(4 * capacity, sizeof *larger);
    if (larger == NULL) {
        return false;
    }
    for (size_t i = 0; i < capacity; i++) {
        if (slots[i] != NULL) {
            larger[find(larger, 4 * capacity, slots[i])] = slots[i];
        }
    }
    free(seen->slots);
    seen->slots = larger;
    seen->capacity = 4 * capacity;
    return true;
}

int
aio_seen_add(AioSeen *seen, const void *object)
{
    if (seen->count == 0) {
        memset(seen->inline_slots, 0, sizeof seen->inline_slots);
    }
    const void **slots = seen->slots == NULL ? seen->inline_slots : seen->slots;
    size_t place = find(slots, seen->capacity, object);

    if (slots[place] != NULL) {
        return 1;
    }
    if (seen->count >= seen->capacity / 2) {
        if (!grow(seen, slots)) {
            return -1;
        }
        slots = seen->slots;
        place = find(slots, seen->capacity, object);
    }
    slots[place] = object;
    seen->count++;
    return 0;
}

void
aio_seen_clear(AioSeen *seen)
{
    free(seen->slots);
    aio_seen_init(seen);
}
