/* counted.c: structures that more than one interpreter uses, counted. */
#include "counted.h"

#include <stdbool.h>
#include <stddef.h>

void
aio_counted_destroy_later(AioCounted *counted, void (*free)(AioCounted *))
{
    /* Of this thread: what is to be freed, and whether somebody is at it. */
    static _Thread_local AioCounted *doomed;
    static _Thread_local bool is_freeing;

    counted->free = free;
    counted->next_doomed = doomed;
    doomed = counted;
    if (is_freeing) {
        return;
    }
    is_freeing = true;
    while (doomed != NULL) {
        AioCounted *next = doomed;
        doomed = next->next_doomed;
        next->free(next);
    }
    is_freeing = false;
}
