/* home.h: where an interpreter gets back what other interpreters used of it.
 *
 *      any thread                              the owner, with its GIL
 *    aio_home_return ──► mailbox of returns ──► aio_home_settle: let go of the objects
 *                           └── ring ──► whoever can make the owner do that soon
 *
 * Every interpreter that loads this module has one home. What it lends (block.h),
 * and what is kept in it for others (shared.h), comes back as an AioReturn, with
 * which only the owner knows what to do. Nobody needs the owner's GIL to give
 * something back. A home outlives its interpreter, as long as anybody refers to it.
 */
#ifndef AIO_BINDING_HOME_H
#define AIO_BINDING_HOME_H

#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/list.h"
#include "core/mailbox.h"
#include "counted.h"
#include "state.h"

typedef struct AioReturn {
    AioMailNode node; /* the mailbox's, once returned */
    /* Let go of what belongs to the owner, and free the structure. With the owner's
     * GIL; may run Python code, clears its own errors. */
    void (*settle)(struct AioReturn *returned);
    /* The owner has ended: free the structure, and leave its objects alone. No GIL. */
    void (*discard)(struct AioReturn *returned);
} AioReturn;

/* Somebody who can make the owner settle soon: an event loop, an idle worker. */
typedef struct AioListener {
    AioListNode link; /* guarded by the home's lock */
    /* Called from any thread under the home's lock: must not block, nor run Python. */
    void (*ring)(struct AioListener *listener);
} AioListener;

typedef struct AioHome {
    AioCounted counted;  /* the state has a reference, and everything that will return */
    AioMailbox returned; /* closed when the interpreter ends */
    /* Guards the next four. Held while listeners are rung and blocked threads woken:
     * comes before the locks that those take (a task queue's). */
    pthread_mutex_t lock;
    AioList listeners; /* AioListener.link */
    AioList blocked;   /* AioBlocked.link: threads that wait in this interpreter */
    bool is_ending;    /* no thread of it may wait any more */
    /* An exception was sent to that work (AioBlockedWork), and no wait has seen to it yet. */
    bool is_interrupted[2];
    /* How many blocks are lent out. Changed with the owner's GIL held; atomic for
     * builds without one. */
    _Atomic long lent;
    int64_t interpreter_id; /* constant; unlike an address it is never used again */
    bool is_main;           /* constant */
    /* A call for the main thread is on its way to settle. Only this flag matters. */
    _Atomic bool has_pending_call;
    unsigned fork_generation; /* of the process in which it was made; constant */
} AioHome;

/* A home for the current interpreter; NULL with an exception set. */
AioHome *aio_home_new(void);

static inline void
aio_home_release(AioHome *home)
{
    aio_counted_release(&home->counted);
}

/* Give something back to its owner. Any thread, no lock held; no GIL needed. */
void aio_home_return(AioHome *home, AioReturn *returned);

/* Whether the calling thread has the owner's GIL, so that it may settle itself. */
bool aio_home_is_here(AioHome *home);

/* Settle all that has come back. With the owner's GIL; an exception that is set
 * stays set. */
void aio_home_settle_all(AioHome *home);

/* The same, at next to no cost where there is nothing. */
static inline void
aio_home_settle(AioHome *home)
{
    if (aio_mailbox_has_mail(&home->returned)) {
        aio_home_settle_all(home);
    }
}

/* Register a listener; it is rung at once if something is there already. */
void aio_home_listen(AioHome *home, AioListener *listener);

/* It is not rung any more once this returns. */
void aio_home_unlisten(AioHome *home, AioListener *listener);

/* The interpreter ends: settle what is there; what comes later is discarded. With its
 * GIL. */
void aio_home_close(AioHome *home);

/* The interpreter has ended, perhaps without having closed its home: discard what is
 * there, and what comes. */
void aio_home_abandon(AioHome *home);

/* Whether it has been closed. For the owner. */
static inline bool
aio_home_is_closed(AioHome *home)
{
    return aio_mailbox_is_closed(&home->returned);
}

/* The state's home. In a forked child that is a new one: the old one's lock may be
 * held by a thread that does not exist there. NULL with an exception set. */
AioHome *aio_state_home(AioState *state);

#endif
