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
 * The reader may close the mailbox; pushes are then refused, and the pusher
 * keeps its node. Nodes are owned by the mailbox between push and take.
 */
#ifndef AIO_CORE_MAILBOX_H
#define AIO_CORE_MAILBOX_H

#include <stdatomic.h>

typedef struct AioMailNode {
    struct AioMailNode *next;
} AioMailNode;

typedef struct AioMailbox {
    /* Newest node, NULL when empty, or the mark of a closed mailbox. A push
     * releases the node's contents, a take or close acquires them. */
    _Atomic(AioMailNode *) head;
} AioMailbox;

typedef enum AioMailResult {
    AIO_MAIL_FIRST,  /* taken in, and the reader must be woken */
    AIO_MAIL_MORE,   /* taken in, the reader has been woken already */
    AIO_MAIL_CLOSED, /* refused: the caller still owns the node */
} AioMailResult;

void aio_mailbox_init(AioMailbox *mailbox);

/* Any thread. Takes `node` unless the mailbox is closed. */
AioMailResult aio_mailbox_push(AioMailbox *mailbox, AioMailNode *node);

/* The reader only. Everything in the mailbox, oldest first, or NULL. */
AioMailNode *aio_mailbox_take(AioMailbox *mailbox);

/* The reader only. As take, and refuse all pushes from now on. */
AioMailNode *aio_mailbox_close(AioMailbox *mailbox);

#endif
