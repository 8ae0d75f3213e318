/* mailbox.h: completions, from many threads to one reader.
 *
 *     worker ──push──┐
 *     worker ──push──┼──► head ─► node ─► node      (newest first, lock-free)
 *     worker ──push──┘            │
 *                                 └─ take: all at once, oldest first ──► reader
 *
 * A push tells whether the mailbox was empty: only then need the reader be
 * woken, so a burst of completions costs one wake-up. The reader clears its
 * wake-up *before* it takes: a push after the take finds an empty mailbox and
 * wakes again, so nothing is left lying.
 *
 * A reader that is awake, and will look anyway before it sleeps, attends the
 * mailbox: meanwhile no push need wake it.
 *
 * The reader may close the mailbox; pushes are then refused, and the pusher
 * keeps its node. Nodes are owned by the mailbox between push and take.
 */
#ifndef AIO_CORE_MAILBOX_H
#define AIO_CORE_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct AioMailNode {
    struct AioMailNode *next;
} AioMailNode;

typedef struct AioMailbox {
    /* Newest node, NULL when empty, or the mark of a closed mailbox. A push
     * releases the node's contents, a take or close acquires them. A push, and the
     * look of aio_mailbox_leave(), are sequentially consistent, for `attended`. */
    _Atomic(AioMailNode *) head;
    /* The reader will look. Written by the reader, read by a push after it has
     * linked its node. Either the push sees that the reader has left, and wakes it;
     * or the reader, which looks after it has left, sees the node: for that all
     * four accesses are sequentially consistent. */
    _Atomic bool attended;
} AioMailbox;

typedef enum AioMailResult {
    AIO_MAIL_FIRST,  /* taken in, and the reader must be woken */
    AIO_MAIL_MORE,   /* taken in, the reader is woken or attends already */
    AIO_MAIL_CLOSED, /* refused: the caller still owns the node */
} AioMailResult;

void aio_mailbox_init(AioMailbox *mailbox);

/* Any thread. Takes `node` unless the mailbox is closed. */
AioMailResult aio_mailbox_push(AioMailbox *mailbox, AioMailNode *node);

/* The reader only: I am awake, and will call aio_mailbox_leave() before I sleep. */
void aio_mailbox_attend(AioMailbox *mailbox);

/* The reader only, instead of sleeping: from now on pushes wake me again. True if
 * there is something in the mailbox, for which no wake-up may have come. */
bool aio_mailbox_leave(AioMailbox *mailbox);

/* The reader only: a look that orders nothing; a take must follow. */
static inline bool
aio_mailbox_has_mail(AioMailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->head, memory_order_relaxed) != NULL;
}

/* The reader only: whether it has closed the mailbox. */
bool aio_mailbox_is_closed(AioMailbox *mailbox);

/* The reader only. Everything in the mailbox, oldest first, or NULL. */
AioMailNode *aio_mailbox_take(AioMailbox *mailbox);

/* The reader only. As take, and refuse all pushes from now on. */
AioMailNode *aio_mailbox_close(AioMailbox *mailbox);

#endif
