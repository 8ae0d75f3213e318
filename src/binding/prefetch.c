/* prefetch.c: copy what is large in a message before it is decoded, in another thread. */
#include "prefetch.h"

#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "core/pages.h"
#include "home.h"

typedef struct Copy {
    PyObject *owner_object; /* owned, by the interpreter that receives; NULL: none */
    void *to;
    const AioBlock *block; /* borrowed from the message */
} Copy;

struct AioPrefetch {
    AioReturn returned;
    AioHome *home; /* a reference: where the objects belong */
    size_t count;
    Copy copies[]; /* one for each thing that the message holds */
};

/* The block, if what is held there is to be copied; or NULL. */
static const AioBlock *
block_to_copy(AioCounted *counted)
{
    const AioBlock *block = aio_block_of_counted(counted);
    return block != NULL && block->kind != AIO_BLOCK_KEPT ? block : NULL;
}

size_t
aio_prefetch_size(const AioMessage *message)
{
    size_t size = 0;
    for (size_t i = 0; i < message->held.count; i++) {
        const AioBlock *block = block_to_copy(message->held.items[i]);
        size += block == NULL ? 0 : block->size;
    }
    return size;
}

static void
prefetch_settle(AioReturn *returned)
{
    AioPrefetch *prefetch = aio_container_of(returned, AioPrefetch, returned);
    for (size_t i = 0; i < prefetch->count; i++) {
        Py_XDECREF(prefetch->copies[i].owner_object);
    }
    aio_home_release(prefetch->home);
    free(prefetch);
}

static void
prefetch_discard(AioReturn *returned)
{
    AioPrefetch *prefetch = aio_container_of(returned, AioPrefetch, returned);
    aio_home_release(prefetch->home);
    free(prefetch);
}

AioPrefetch *
aio_prefetch_new(AioState *state, const AioMessage *message)
{
    const size_t count = message->held.count;
    AioHome *home = aio_state_home(state);
    AioPrefetch *prefetch =
        home == NULL ? NULL : calloc(1, sizeof *prefetch + count * sizeof(Copy));
    if (prefetch == NULL) {
        return (AioPrefetch *)(home == NULL ? NULL : PyErr_NoMemory());
    }
    prefetch->returned.settle = prefetch_settle;
    prefetch->returned.discard = prefetch_discard;
    aio_counted_acquire(&home->counted);
    prefetch->home = home;
    prefetch->count = count;
    for (size_t i = 0; i < count; i++) {
        Copy *copy = &prefetch->copies[i];
        copy->block = block_to_copy(message->held.items[i]);
        if (copy->block != NULL) {
            copy->owner_object = aio_block_new_copy(copy->block, &copy->to);
            if (copy->owner_object == NULL) {
                aio_prefetch_free(prefetch);
                return NULL;
            }
        }
    }
    return prefetch;
}

void
aio_prefetch_copy(AioPrefetch *prefetch)
{
    for (size_t i = 0; i < prefetch->count; i++) {
        const Copy *copy = &prefetch->copies[i];
        if (copy->block != NULL) {
            aio_pages_copy(copy->to, copy->block->data, copy->block->size);
        }
    }
}

PyObject *
aio_prefetch_take(AioPrefetch *prefetch, size_t place)
{
    return place < prefetch->count ? Py_XNewRef(prefetch->copies[place].owner_object) : NULL;
}

void
aio_prefetch_free(AioPrefetch *prefetch)
{
    if (aio_home_is_here(prefetch->home)) {
        prefetch_settle(&prefetch->returned);
    }
    else {
        aio_home_return(prefetch->home, &prefetch->returned);
    }
}
