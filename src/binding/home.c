/* home.c: where an interpreter gets back what other interpreters used of it.
 *
 * Promptness without a thread for it. A return rings all listeners, but only where
 * the mailbox was empty, so a burst rings once:
 *   - an event loop is woken by its bridge's descriptor, and settles in its drain;
 *   - a worker that idles is nudged, and settles before it waits on; one that runs
 *     a task settles when that ends, or when it next sends or receives anything;
 *   - the main interpreter without a loop has a "pending call" scheduled, which
 *     CPython runs in the main thread between two bytecodes.
 * Whatever else enters this module settles on its way. So no listener is needed for
 * anything to come back; they make it come back soon.
 */
#include "home.h"

#include "blocked.h"
#include "core/fork.h"

static void
home_destroy(AioCounted *counted)
{
    AioHome *home = (AioHome *)counted;
    pthread_mutex_destroy(&home->lock);
    free(home);
}

AioHome *
aio_home_new(void)
{
    AioHome *home = calloc(1, sizeof *home);
    if (home == NULL || pthread_mutex_init(&home->lock, NULL) != 0) {
        free(home);
        PyErr_NoMemory();
        return NULL;
    }
    aio_counted_init(&home->counted, home_destroy);
    aio_mailbox_init(&home->returned);
    aio_list_init(&home->listeners);
    aio_list_init(&home->blocked);
    home->interpreter_id = PyInterpreterState_GetID(PyInterpreterState_Get());
    home->is_main = PyInterpreterState_Get() == PyInterpreterState_Main();
    home->fork_generation = aio_fork_generation();
    return home;
}

AioHome *
aio_state_home(AioState *state)
{
    if (state->home->fork_generation != aio_fork_generation()) {
        AioHome *home = aio_home_new();
        if (home == NULL) {
            return NULL;
        }
        state->home = home; /* the parent's stays as it is: threads of it may hold its lock */
    }
    return state->home;
}

bool
aio_home_is_here(AioHome *home)
{
    PyThreadState *tstate = PyThreadState_GetUnchecked();
    return tstate != NULL &&
           PyInterpreterState_GetID(PyThreadState_GetInterpreter(tstate)) == home->interpreter_id;
}

/* ---- ring ---- */

static int
settle_in_main_thread(void *argument)
{
    AioHome *home = argument;
    atomic_store(&home->has_pending_call, false);
    aio_home_settle(home);
    aio_home_release(home);
    return 0;
}

static void
ring(AioHome *home)
{
    pthread_mutex_lock(&home->lock);
    for (AioListNode *link = home->listeners.head.next; link != &home->listeners.head;
         link = link->next) {
        AioListener *listener = aio_container_of(link, AioListener, link);
        listener->ring(listener);
    }
    pthread_mutex_unlock(&home->lock);

    if (home->is_main && !atomic_exchange(&home->has_pending_call, true)) {
        aio_counted_acquire(&home->counted);
        if (Py_AddPendingCall(settle_in_main_thread, home) < 0) {
            /* CPython's list is full: somebody else will settle. */
            atomic_store(&home->has_pending_call, false);
            aio_home_release(home);
        }
    }
}

void
aio_home_listen(AioHome *home, AioListener *listener)
{
    pthread_mutex_lock(&home->lock);
    aio_list_append(&home->listeners, &listener->link);
    if (aio_mailbox_has_mail(&home->returned)) {
        listener->ring(listener);
    }
    pthread_mutex_unlock(&home->lock);
}

void
aio_home_unlisten(AioHome *home, AioListener *listener)
{
    if (home->fork_generation != aio_fork_generation()) {
        return;
    }
    pthread_mutex_lock(&home->lock);
    aio_list_unlink(&listener->link);
    pthread_mutex_unlock(&home->lock);
}

/* ---- returns ---- */

void
aio_home_return(AioHome *home, AioReturn *returned)
{
    if (home->fork_generation != aio_fork_generation()) {
        return; /* a forked child: the owner does not exist here, or has lost count */
    }
    /* Until it is settled the return refers to its home; then that may be gone. */
    aio_counted_acquire(&home->counted);
    switch (aio_mailbox_push(&home->returned, &returned->node)) {
    case AIO_MAIL_FIRST:
        ring(home);
        break;
    case AIO_MAIL_MORE:
        break;
    case AIO_MAIL_CLOSED:
        returned->discard(returned);
        break;
    }
    aio_home_release(home);
}

static void
settle_list(AioMailNode *node)
{
    while (node != NULL) {
        AioReturn *returned = aio_container_of(node, AioReturn, node);
        node = node->next;
        returned->settle(returned);
    }
}

void
aio_home_settle_all(AioHome *home)
{
    PyObject *exception = PyErr_GetRaisedException();
    settle_list(aio_mailbox_take(&home->returned));
    PyErr_SetRaisedException(exception);
}

void
aio_home_close(AioHome *home)
{
    /* Settling runs Python code, which may lead to further returns. */
    aio_home_settle_all(home);
    settle_list(aio_mailbox_close(&home->returned));
}

void
aio_home_abandon(AioHome *home)
{
    for (AioMailNode *node = aio_mailbox_close(&home->returned); node != NULL;) {
        AioReturn *returned = aio_container_of(node, AioReturn, node);
        node = node->next;
        returned->discard(returned);
    }
}
