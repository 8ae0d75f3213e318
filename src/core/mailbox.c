/* mailbox.c: a lock-free stack that is only ever taken whole, which makes it
 * free of the ABA problem: no node is unlinked while others stay. */
#include "mailbox.h"

/* Its address marks a closed mailbox; it is never read or linked. */
static AioMailNode closed_mark;

void
aio_mailbox_init(AioMailbox *mailbox)
{
    atomic_init(&mailbox->head, NULL);
    atomic_init(&mailbox->attended, false);
}

AioMailResult
aio_mailbox_push(AioMailbox *mailbox, AioMailNode *node)
{
    AioMailNode *head = atomic_load_explicit(&mailbox->head, memory_order_relaxed);
    do {
        if (head == &closed_mark) {
            return AIO_MAIL_CLOSED;
        }
        node->next = head;
        /* Releases: the reader that takes this node sees what the pusher wrote in it. */
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->head, &head, node,
                                                    memory_order_seq_cst, memory_order_relaxed));
    return head == NULL && !atomic_load(&mailbox->attended) ? AIO_MAIL_FIRST : AIO_MAIL_MORE;
}

void
aio_mailbox_attend(AioMailbox *mailbox)
{
    atomic_store(&mailbox->attended, true);
}

bool
aio_mailbox_leave(AioMailbox *mailbox)
{
    atomic_store(&mailbox->attended, false);
    AioMailNode *head = atomic_load(&mailbox->head);
    return head != NULL && head != &closed_mark;
}

/* Turn newest-first into oldest-first. */
static AioMailNode *
reverse(AioMailNode *node)
{
    AioMailNode *reversed = NULL;
    while (node != NULL) {
        AioMailNode *next = node->next;
        node->next = reversed;
        reversed = node;
        node = next;
    }
    return reversed;
}

bool
aio_mailbox_is_closed(AioMailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->head, memory_order_relaxed) == &closed_mark;
}

AioMailNode *
aio_mailbox_take(AioMailbox *mailbox)
{
    /* Only the reader closes, so a mailbox that is open now stays so during this call. */
    if (aio_mailbox_is_closed(mailbox)) {
        return NULL;
    }
    return reverse(atomic_exchange_explicit(&mailbox->head, NULL, memory_order_acquire));
}

AioMailNode *
aio_mailbox_close(AioMailbox *mailbox)
{
    AioMailNode *head =
        atomic_exchange_explicit(&mailbox->head, &closed_mark, memory_order_acq_rel);
    return head == &closed_mark ? NULL : reverse(head);
}
