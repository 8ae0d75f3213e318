/* bridge.h: how completions reach an event loop.
 *
 *       any thread                         the loop's thread
 *     aio_mail_post ──► channel: mailbox ──► Bridge.drain ──► futures
 *                         └── wake (fd) ──► loop's reader callback
 *
 * An AioMail is whatever ends in a future of a loop: a task, a wait for a queue, or the
 * notice that a pool has become idle or has ended. A loop has a bridge for each pool that
 * it uses, and one without a pool for its queues. Its fields belong to two sides: the
 * owner (the loop's thread, with the GIL of the interpreter that it runs in)
 * and whoever holds the mail. A mail that has been posted belongs to the loop.
 */
#ifndef AIO_BINDING_BRIDGE_H
#define AIO_BINDING_BRIDGE_H

#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/list.h"
#include "core/mailbox.h"
#include "core/pending.h"
#include "core/wake.h"
#include "home.h"
#include "state.h"

struct AioBlocked;
struct AioNotice;
struct AioPool;

/* The half of a bridge that other threads touch. Freed with the last reference:
 * the bridge has one, and so has every mail until it is posted. So nobody ever
 * writes to a descriptor that has been closed, and perhaps reopened by others. */
typedef struct AioChannel {
    /* Increments are relaxed (the caller has a reference); the last decrement
     * acquires what the earlier ones released. */
    _Atomic long references;
    AioMailbox mailbox;
    AioWake wake;
    /* A collector's (collector.h), else NULL: the home of its interpreter, a reference; and under
     * that home's lock, who is to be woken in place of the descriptor: the first that is there. */
    AioHome *home;
    struct AioBlocked *leader, *follower;
} AioChannel;

typedef enum AioMailKind {
    AIO_MAIL_TASK,   /* an AioTask */
    AIO_MAIL_QUEUE,  /* an AioQueueWait */
    AIO_MAIL_NOTICE, /* an AioNotice whose future waits for it */
    AIO_MAIL_EXPIRY, /* an AioExpiry: a call's time is up */
    AIO_MAIL_STUCK,  /* an AioStuckNotice: of a worker that is stuck */
    AIO_MAIL_ENDED,  /* an AioNotice for the bridge itself: the pool has ended */
} AioMailKind;

typedef struct AioMail {
    AioMailNode node;    /* the mailbox's, once posted */
    AioMailKind kind;    /* constant */
    AioChannel *channel; /* a reference, held until the mail is posted */
    /* Owner only. In the bridge's list from submit until the future is settled
     * or let go; then the future is NULL and the link detached. */
    AioListNode in_flight;
    PyObject *owner_future;
    /* Owner only: where the future keeps its pointer to this mail; NULL unbound. */
    struct AioMail **owner_slot;
} AioMail;

/* For a mail that is nobody's yet. */
void aio_mail_init(AioMail *mail);

/* Post a mail to its loop and wake it. Takes the mail, from any thread, with or
 * without a GIL: if the loop is gone, the mail is freed here. */
void aio_mail_post(AioMail *mail);

AioChannel *aio_channel_acquire(AioChannel *channel);
void aio_channel_release(AioChannel *channel);

/* A loop's end of a pool, or a collector: a Python object, in the caller's interpreter. */
typedef struct AioBridge {
    PyObject_HEAD PyObject *module; /* owned: keeps the state in memory to the end */
    /* Until it is closed, then NULL: */
    PyObject *loop;          /* owned; a collector has none */
    AioChannel *channel;     /* a reference */
    struct AioPool *pool;    /* a reference; NULL if the bridge is for queues */
    struct AioNotice *ended; /* waits for the pool's end; NULL also once that has come */
    AioList in_flight;       /* AioMail.in_flight */
    AioListener listener;    /* of the interpreter's home: settles in the drain */
    AioHome *home;           /* that home, a reference; NULL if not registered there */
    AioList to_copy;         /* AioTask.copy_link: results to be copied, see copier.h */
    /* Taken from the mailbox and not delivered yet, oldest first. What is delivered can make the
     * loop run again in the middle of it (nested loops), or end the program's run of it. */
    AioMailNode *arrived, *last_arrived;
    /* Once nothing is copied any more: settle these (AioNotice.postponed), which have come,
     * and if the pool has ended close the bridge. */
    AioList postponed;
    bool pool_has_ended;
    bool has_reader;
    bool is_polling; /* poll() is on the loop's list of what to do next */
    /* Whether and how often polling paid lately: see bridge.c. */
    bool may_poll;
    int poll_credit;
    unsigned submits_without_poll;
    int64_t expected_at; /* when the poll was asked for, by aio_clock_ns() */
    /* A collector's: a thread waits for a result, and takes what comes (collector.c); and
     * whether it may spin before it sleeps. */
    bool is_led;
    bool leader_may_spin;
    /* A collector's: the thread in run(), and whether it waits in a callback for who leads. */
    unsigned long follower_thread;
    bool follower_waits;
    /* A collector's: a list of settled futures whose callbacks that thread is to call; or NULL. */
    PyObject *callbacks_due;
} AioBridge;

extern PyType_Spec aio_bridge_spec;

/* A new bridge from `pool` to `loop` (both borrowed), its reader registered there.
 * It closes itself when the pool ends; if that has ended already, it is closed
 * from the start. Without a pool (NULL) it lives as long as the loop. Called on the
 * loop's thread. */
AioBridge *aio_bridge_new(PyObject *module, PyObject *loop, struct AioPool *pool);

/* The same without a loop: a new collector. */
AioBridge *aio_bridge_new_collector(PyObject *module, struct AioPool *pool);

/* Wake whoever looks after the mailbox. Any thread; no home's lock held. */
void aio_channel_ring(AioChannel *channel);

/* Deliver all that is in the mailbox of an open bridge. Owner only. 0; or -1 with an exception set
 * that ends the loop's run, or whatever the owner does: what is left is delivered when it comes
 * here again. */
int aio_bridge_deliver_all(AioBridge *bridge);

/* Settle as cancelled what is in flight, and stop it: its results are not waited for. */
void aio_bridge_cancel_all(AioState *state, AioBridge *bridge);

/* A bridge's method and slots: a collector has the same. */
PyObject *aio_bridge_drain(PyObject *self, PyObject *ignored);
int aio_bridge_traverse(PyObject *self, visitproc visit, void *arg);
int aio_bridge_clear(PyObject *self);
void aio_bridge_dealloc(PyObject *self);

/* The loop's bridge for queues, made at first use; a new reference. */
AioBridge *aio_bridge_for_queues(PyObject *module, PyObject *loop);

/* The loop that runs in this thread, a new reference; NULL with RunnerError set that
 * says who (`what`) wants to be called from a coroutine. */
PyObject *aio_running_loop(AioState *state, const char *what);

/* A task has just been submitted from the loop: if that is likely to pay, let the
 * loop look for its result before it sleeps. Clears its own errors. */
void aio_bridge_expect(AioState *state, AioBridge *bridge);

/* Make `mail` one of the bridge's: fills in all of it. `future` is borrowed and
 * may be NULL. */
void aio_bridge_adopt(AioBridge *bridge, AioMail *mail, AioMailKind kind, PyObject *future);

/* Let `mail`, which has no future, go where `other` goes, which has not been posted yet. Any
 * thread. */
void aio_mail_follow(AioMail *mail, AioMailKind kind, const AioMail *other);

/* A mail that has come, and is still in flight, is to be posted once more. */
void aio_bridge_expect_again(AioBridge *bridge, AioMail *mail);

/* Owner only: let go of the future, so that nothing will be delivered; the mail
 * itself stays with whoever holds it. */
void aio_mail_let_go(AioMail *mail);

/* Nobody waits for the mail's future any more: take back what it stands for, or leave
 * it to come. Owner only. */
void aio_mail_cancelled(AioMail *mail);

/* Undo aio_bridge_adopt() for a mail that will not be posted. Owner only. */
void aio_mail_abandon(AioMail *mail);

/* The loop is closed or gone: results that are still to come are dropped. */
void aio_bridge_close(AioBridge *bridge);

/* Let `future` (borrowed) be done once `pending`, one of the pool's, is zero, and all
 * results that this loop was sent before that have been delivered: so it takes the
 * same way, even if the count is zero now. Where `has_failed` (NULL, or part of the pool) is true
 * then, the future fails with a RunnerError: there is no room for a thread. 0, or -1 with an
 * exception set. */
int aio_bridge_notify(AioBridge *bridge, AioPending *pending, _Atomic bool *has_failed,
                      PyObject *future);

#endif
