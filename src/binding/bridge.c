/* bridge.c: how completions reach an event loop.
 *
 * No thread stands between a worker and the loop: a worker pushes its mail on
 * the channel's mailbox, and only the push that finds it empty writes to the
 * descriptor which the loop watches. The loop then calls drain(), which takes
 * the whole mailbox and settles all futures in one go.
 *
 * Polling. To sleep in epoll and be woken takes some 30 us, and a short task
 * much less: a loop that goes to sleep at once after it has submitted one mostly
 * wakes too late. So submit puts poll() on the loop's list of what to do next:
 * after everything that is ready now, it looks into the mailbox, waits there for
 * some microseconds at most, and delivers. Meanwhile the mailbox is attended, so
 * that workers don't write to the descriptor at all.
 *   The wait ends some time after the submit, not after the poll began: a loop that
 * was busy with other things meanwhile only looks. And whether waiting pays is
 * learnt: results that come in time earn a little credit, others cost much, and a
 * loop without credit goes to sleep as ever, but for one try in some calls. So
 * tasks that take longer cost next to no time on the loop.
 *
 * A bridge ends in one of two ways. Where the pool ends first, it posts a last
 * notice, upon which the bridge takes its reader off the loop. Where the loop
 * ends first, the bridge is closed by its pool, or by the garbage collector
 * with the loop: every mail in flight lets go of its future first, and only then
 * is the mailbox closed; so a worker that meets a closed mailbox frees a mail
 * that the owner no longer knows.
 */
#include "bridge.h"

#include <stdlib.h>

#include "blocked.h"
#include "collector.h"
#include "core/clock.h"
#include "core/fork.h"
#include "core/platform.h"
#include "core/thread.h"
#include "copier.h"
#include "expiry.h"
#include "future.h"
#include "pool.h"
#include "queue.h"
#include "stuck.h"
#include "task.h"

/* How long after the submit poll() waits at most: what a sleep and wake-up would cost. */
static const int64_t POLL_NS = 25 * 1000;

/* A credit of zero means not to poll, except for one in so many submits. What a wait
 * in vain costs keeps polling where four of five results come in time. */
enum { MAX_POLL_CREDIT = 8, COST_OF_WAITING_IN_VAIN = 4, SUBMITS_PER_TRIAL = 32 };

enum { SPINS_BETWEEN_CLOCK_READS = 32 };

typedef struct AioNotice {
    AioMail mail; /* first: a notice is a mail */
    AioPendingWaiter waiter;
    AioListNode postponed;
    _Atomic bool *asks; /* the pool's; NULL: it can't fail */
    bool has_failed;    /* what that was when it was posted */
} AioNotice;

/* ---- channel and mail: any thread, no GIL needed ------------------------- */

/* `home`: a collector's, borrowed; or NULL. */
static AioChannel *
channel_new(AioHome *home)
{
    AioChannel *channel = malloc(sizeof *channel);
    if (channel == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (aio_wake_init_for_loop(&channel->wake) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        free(channel);
        return NULL;
    }
    atomic_init(&channel->references, 1);
    aio_mailbox_init(&channel->mailbox);
    channel->home = home;
    channel->leader = channel->follower = NULL;
    if (home != NULL) {
        aio_counted_acquire(&home->counted);
    }
    return channel;
}

AioChannel *
aio_channel_acquire(AioChannel *channel)
{
    atomic_fetch_add_explicit(&channel->references, 1, memory_order_relaxed);
    return channel;
}

void
aio_channel_release(AioChannel *channel)
{
    if (atomic_fetch_sub_explicit(&channel->references, 1, memory_order_acq_rel) == 1) {
        aio_wake_destroy(&channel->wake);
        if (channel->home != NULL) {
            aio_home_release(channel->home);
        }
        free(channel);
    }
}

/* The home's lock is held, if it is a collector's. */
static void
ring_locked(AioChannel *channel)
{
    if (channel->leader != NULL) {
        aio_blocked_wake_locked(channel->leader);
    }
    else if (channel->follower != NULL) {
        aio_blocked_wake_locked(channel->follower);
    }
    else {
        aio_wake_signal(&channel->wake);
    }
}

void
aio_channel_ring(AioChannel *channel)
{
    AioHome *home = channel->home;
    if (home == NULL) {
        aio_wake_signal(&channel->wake);
    }
    else if (home->fork_generation == aio_fork_generation()) {
        pthread_mutex_lock(&home->lock);
        ring_locked(channel);
        pthread_mutex_unlock(&home->lock);
    }
}

/* Free a mail that has no future any more, and was not delivered. */
static void
mail_free(AioMail *mail)
{
    assert(mail->owner_future == NULL);
    switch (mail->kind) {
    case AIO_MAIL_TASK:
        aio_task_free(aio_task_of_mail(mail));
        break;
    case AIO_MAIL_QUEUE:
        aio_queue_wait_end(mail, false);
        break;
    case AIO_MAIL_EXPIRY:
        aio_expiry_free_mail(mail);
        break;
    case AIO_MAIL_STUCK:
        aio_stuck_free_mail(mail);
        break;
    default:
        free((AioNotice *)mail);
        break;
    }
}

void
aio_mail_init(AioMail *mail)
{
    mail->owner_future = NULL;
    mail->owner_slot = NULL;
    aio_list_node_init(&mail->in_flight);
}

void
aio_mail_post(AioMail *mail)
{
    /* Once pushed, the mail is the loop's and may be gone: keep its reference. */
    AioChannel *channel = mail->channel;
    switch (aio_mailbox_push(&channel->mailbox, &mail->node)) {
    case AIO_MAIL_FIRST:
        aio_channel_ring(channel);
        break;
    case AIO_MAIL_MORE:
        break;
    case AIO_MAIL_CLOSED:
        mail_free(mail);
        break;
    }
    aio_channel_release(channel);
}

void
aio_mail_follow(AioMail *mail, AioMailKind kind, const AioMail *other)
{
    mail->kind = kind;
    mail->channel = aio_channel_acquire(other->channel);
}

static void
post_notice(AioPendingWaiter *waiter)
{
    AioNotice *notice = aio_container_of(waiter, AioNotice, waiter);
    notice->has_failed = notice->asks != NULL && atomic_load(notice->asks);
    aio_mail_post(&notice->mail);
}

/* ---- the owner's side: the loop's thread --------------------------------- */

void
aio_bridge_adopt(AioBridge *bridge, AioMail *mail, AioMailKind kind, PyObject *future)
{
    mail->kind = kind;
    mail->channel = aio_channel_acquire(bridge->channel);
    mail->owner_future = Py_XNewRef(future);
    mail->owner_slot = NULL;
    aio_list_append(&bridge->in_flight, &mail->in_flight);
}

void
aio_bridge_expect_again(AioBridge *bridge, AioMail *mail)
{
    mail->channel = aio_channel_acquire(bridge->channel);
}

void
aio_mail_let_go(AioMail *mail)
{
    aio_future_unbind(mail);
    aio_list_unlink(&mail->in_flight);
    Py_CLEAR(mail->owner_future);
}

void
aio_mail_cancelled(AioMail *mail)
{
    if (mail->kind == AIO_MAIL_TASK) {
        aio_task_abandon(aio_task_of_mail(mail));
    }
    else {
        aio_queue_wait_abandon(mail);
    }
}

void
aio_mail_abandon(AioMail *mail)
{
    aio_mail_let_go(mail);
    aio_channel_release(mail->channel);
}

static AioNotice *
notice_new(AioBridge *bridge, AioMailKind kind, PyObject *future)
{
    AioNotice *notice = malloc(sizeof *notice);
    if (notice == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_bridge_adopt(bridge, &notice->mail, kind, future);
    notice->waiter.notify = post_notice;
    notice->asks = NULL;
    notice->has_failed = false;
    aio_list_node_init(&notice->postponed);
    return notice;
}

/* Free a notice that nobody waits with. */
static void
notice_take_back(AioNotice *notice)
{
    aio_mail_abandon(&notice->mail);
    free(notice);
}

int
aio_bridge_notify(AioBridge *bridge, AioPending *pending, _Atomic bool *has_failed,
                  PyObject *future)
{
    AioNotice *notice = notice_new(bridge, AIO_MAIL_NOTICE, future);
    if (notice == NULL) {
        return -1;
    }
    notice->asks = has_failed;
    if (aio_pending_wait(pending, &notice->waiter)) {
        post_notice(&notice->waiter);
    }
    return 0;
}

/* Let the bridge be told when its pool has ended; close it if that is so already. */
static int
watch_end(AioBridge *bridge)
{
    AioNotice *notice = notice_new(bridge, AIO_MAIL_ENDED, NULL);
    if (notice == NULL) {
        return -1;
    }
    if (aio_pending_wait(&bridge->pool->threads, &notice->waiter)) {
        notice_take_back(notice);
        aio_bridge_close(bridge);
        return 0;
    }
    bridge->ended = notice;
    return 0;
}

/* What a future waited for has come. As aio_future_set_result(). */
static int
settle_notice(AioState *state, PyObject *future)
{
    return future == NULL ? 0 : aio_future_set_result(state, future, Py_None);
}

static int
fail_notice(AioState *state, PyObject *future)
{
    if (future == NULL) {
        return 0;
    }
    aio_raise_runner_error(state, "not all workers were replaced: the system has no room for "
                                  "another thread; those that are left go on working");
    PyObject *error = PyErr_GetRaisedException();
    const int ended = aio_future_set_exception(state, future, error);
    Py_DECREF(error);
    return ended;
}

/* Where the pool has ended tasks have been delivered by now, but for
 * those that could not be stopped. A drain's notice may be on its way from a thread that
 * has just cancelled the last task on another loop. */
void
aio_bridge_cancel_all(AioState *state, AioBridge *bridge)
{
    AioListNode *link;
    while ((link = aio_list_pop_first(&bridge->in_flight)) != NULL) {
        AioMail *mail = aio_container_of(link, AioMail, in_flight);
        PyObject *future = Py_XNewRef(mail->owner_future);
        if (mail->kind == AIO_MAIL_TASK && future != NULL) {
            /* Which may free it: cancelling the future must not find it any more. */
            aio_task_abandon(aio_task_of_mail(mail));
            aio_future_cancel(state, future);
        }
        else {
            const bool is_notice = mail->kind == AIO_MAIL_NOTICE;
            aio_mail_let_go(mail);
            if (is_notice) {
                (void)settle_notice(state, future); /* which asyncio's loop tells who waits */
            }
        }
        Py_XDECREF(future);
    }
}

/* Take the reader off the loop. On the loop's thread, or after it was closed. */
static void
remove_reader(AioState *state, AioBridge *bridge)
{
    if (!bridge->has_reader) {
        return;
    }
    bridge->has_reader = false;
    if (state->str_remove_reader == NULL) {
        return; /* the interpreter ends, and the loop with it */
    }
    PyObject *fd = PyLong_FromLong(aio_wake_fd(&bridge->channel->wake));
    PyObject *result = NULL;
    if (fd != NULL) {
        result = PyObject_CallMethodOneArg(bridge->loop, state->str_remove_reader, fd);
    }
    if (result == NULL) {
        PyErr_Clear(); /* a closed loop has no readers */
    }
    Py_XDECREF(result);
    Py_XDECREF(fd);
}

/* What a notice tells has come, for the loop. As aio_future_set_result(). */
static int
deliver_notice(AioState *state, AioNotice *notice)
{
    PyObject *future = Py_XNewRef(notice->mail.owner_future);
    const bool has_failed = notice->has_failed;
    aio_mail_let_go(&notice->mail);
    mail_free(&notice->mail);
    const int ended = has_failed ? fail_notice(state, future) : settle_notice(state, future);
    Py_XDECREF(future);
    return ended;
}

/* Results have been delivered: perhaps nothing is copied any more, and what waits for
 * that can be settled. */
static void
settle_postponed(AioState *state, AioBridge *bridge)
{
    AioListNode *link;
    if ((aio_list_is_empty(&bridge->postponed) && !bridge->pool_has_ended) ||
        aio_copier_is_busy(bridge)) {
        return;
    }
    while ((link = aio_list_pop_first(&bridge->postponed)) != NULL) {
        /* Nothing of ours waits for one, so nothing runs here. */
        (void)deliver_notice(state, aio_container_of(link, AioNotice, postponed));
    }
    if (bridge->pool_has_ended) {
        aio_bridge_cancel_all(state, bridge);
        aio_bridge_close(bridge);
    }
}

/* Take what is in the mailbox of an open bridge. */
static void
take_arrived(AioBridge *bridge)
{
    AioMailNode *first = aio_mailbox_take(&bridge->channel->mailbox);
    if (first == NULL) {
        return;
    }
    if (bridge->arrived == NULL) {
        bridge->arrived = first;
    }
    else {
        bridge->last_arrived->next = first;
    }
    while (first->next != NULL) {
        first = first->next;
    }
    bridge->last_arrived = first;
}

static AioMail *
pop_arrived(AioBridge *bridge)
{
    AioMailNode *node = bridge->arrived;
    if (node == NULL) {
        return NULL;
    }
    bridge->arrived = node->next;
    return aio_container_of(node, AioMail, node);
}

/* Deliver one mail, which is taken. `*copied`: see copier.h. As aio_future_set_result(). */
static int
deliver(AioState *state, AioBridge *bridge, AioMail *mail, size_t *copied)
{
    switch (mail->kind) {
    case AIO_MAIL_TASK:
        if (aio_task_of_mail(mail)->message.held.count == 0 ||
            !aio_copier_defers(state, bridge, aio_task_of_mail(mail), copied)) {
            return aio_task_deliver(state, aio_task_of_mail(mail));
        }
        break;
    case AIO_MAIL_QUEUE: {
        PyObject *future = Py_XNewRef(mail->owner_future);
        aio_mail_let_go(mail);
        aio_queue_wait_end(mail, future != NULL);
        const int ended = settle_notice(state, future);
        Py_XDECREF(future);
        return ended;
    }
    case AIO_MAIL_EXPIRY:
        return aio_expiry_deliver(state, mail);
    case AIO_MAIL_STUCK:
        return aio_stuck_deliver(state, bridge, mail);
    case AIO_MAIL_NOTICE:
        if (bridge->channel == NULL || !aio_copier_is_busy(bridge)) {
            return deliver_notice(state, (AioNotice *)mail);
        }
        aio_list_append(&bridge->postponed, &((AioNotice *)mail)->postponed);
        break;
    case AIO_MAIL_ENDED:
        bridge->ended = NULL;
        aio_mail_let_go(mail);
        mail_free(mail);
        bridge->pool_has_ended = true;
        break;
    }
    return 0;
}

int
aio_bridge_deliver_all(AioBridge *bridge)
{
    AioState *state = aio_state_of_module(bridge->module);
    AioMail *mail;
    size_t copied = 0;
    int ended = 0;

    /* What is settled runs Python code, which may close this very bridge; or let the loop run, and
     * this function again, which then delivers the rest. */
    Py_INCREF(bridge);
    aio_home_settle(state->home);
    if (bridge->channel != NULL) {
        take_arrived(bridge);
    }
    while (ended == 0 && (mail = pop_arrived(bridge)) != NULL) {
        ended = deliver(state, bridge, mail, &copied);
    }
    PyObject *exception = PyErr_GetRaisedException();
    if (bridge->arrived != NULL) {
        aio_channel_ring(bridge->channel);
    }
    else if (bridge->channel != NULL) {
        if (!aio_list_is_empty(&bridge->to_copy)) {
            aio_copier_start(bridge);
        }
        settle_postponed(state, bridge);
    }
    aio_collector_tell_waiting(bridge);
    aio_home_settle(state->home);
    PyErr_SetRaisedException(exception);
    Py_DECREF(bridge);
    return ended;
}

PyObject *
aio_bridge_drain(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioBridge *bridge = (AioBridge *)self;
    int ended = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (bridge->channel != NULL) {
        /* Before the take: a push after the take signals anew. */
        aio_wake_clear(&bridge->channel->wake);
        ended = aio_bridge_deliver_all(bridge);
    }
    Py_END_CRITICAL_SECTION();
    return ended < 0 ? NULL : Py_NewRef(Py_None);
}

/* Wait for mail until that time of aio_clock_ns(). The GIL is kept: to give it up and
 * take it again would cost as much as what is waited for. */
static bool
wait_for_mail(AioMailbox *mailbox, int64_t until)
{
    do {
        for (int i = 0; i < SPINS_BETWEEN_CLOCK_READS; i++) {
            aio_cpu_relax();
            if (aio_mailbox_has_mail(mailbox)) {
                return true;
            }
        }
    } while (aio_clock_ns() < until);
    return false;
}

static PyObject *
bridge_poll(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioBridge *bridge = (AioBridge *)self;

    bridge->is_polling = false;
    if (bridge->channel == NULL) {
        Py_RETURN_NONE;
    }
    AioMailbox *mailbox = &bridge->channel->mailbox;
    const int64_t until = bridge->expected_at + POLL_NS;
    if (aio_mailbox_has_mail(mailbox) ||
        (aio_clock_ns() < until && wait_for_mail(mailbox, until))) {
        if (bridge->poll_credit < MAX_POLL_CREDIT) {
            bridge->poll_credit++;
        }
    }
    else {
        bridge->poll_credit -= COST_OF_WAITING_IN_VAIN;
        if (bridge->poll_credit < 0) {
            bridge->poll_credit = 0;
        }
    }
    if (aio_mailbox_leave(mailbox) && aio_bridge_deliver_all(bridge) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

void
aio_bridge_expect(AioState *state, AioBridge *bridge)
{
    if (!bridge->may_poll || bridge->is_polling || bridge->channel == NULL) {
        return;
    }
    if (bridge->poll_credit == 0 && ++bridge->submits_without_poll < SUBMITS_PER_TRIAL) {
        return;
    }
    bridge->submits_without_poll = 0;
    PyObject *poll = PyObject_GetAttr((PyObject *)bridge, state->str_poll);
    PyObject *handle = NULL;
    if (poll != NULL) {
        handle = PyObject_CallMethodOneArg(bridge->loop, state->str_call_soon, poll);
    }
    if (handle != NULL) {
        bridge->is_polling = true;
        bridge->expected_at = aio_clock_ns();
        aio_mailbox_attend(&bridge->channel->mailbox);
    }
    else {
        PyErr_Clear(); /* then the loop sleeps, and is woken */
    }
    Py_XDECREF(handle);
    Py_XDECREF(poll);
}

void
aio_bridge_close(AioBridge *bridge)
{
    AioChannel *channel = bridge->channel;
    AioListNode *link;

    if (channel == NULL) {
        return;
    }
    if (bridge->home != NULL) { /* before the channel goes, which is rung */
        aio_home_unlisten(bridge->home, &bridge->listener);
        aio_home_release(bridge->home);
        bridge->home = NULL;
    }
    remove_reader(aio_state_of_module(bridge->module), bridge);
    bridge->channel = NULL;
    /* In a forked child a lock may be held by a thread that does not exist there. */
    if (bridge->ended != NULL && !aio_pool_is_forked(bridge->pool) &&
        aio_pending_forget(&bridge->pool->threads, &bridge->ended->waiter)) {
        notice_take_back(bridge->ended);
    }
    bridge->ended = NULL; /* else it is in the mailbox, or about to be */
    while ((link = aio_list_pop_first(&bridge->in_flight)) != NULL) {
        AioMail *mail = aio_container_of(link, AioMail, in_flight);
        aio_mail_let_go(mail);
        if (mail->kind == AIO_MAIL_QUEUE) {
            aio_queue_wait_abandon(mail);
        }
    }
    while ((link = aio_list_pop_first(&bridge->postponed)) != NULL) {
        mail_free(&aio_container_of(link, AioNotice, postponed)->mail);
    }
    while (bridge->arrived != NULL) {
        mail_free(pop_arrived(bridge));
    }
    for (AioMailNode *node = aio_mailbox_close(&channel->mailbox); node != NULL;) {
        AioMail *mail = aio_container_of(node, AioMail, node);
        node = node->next;
        mail_free(mail);
    }
    if (channel->home != NULL) {
        aio_collector_wake_all(channel); /* there is nothing left to wait for */
    }
    aio_channel_release(channel);
    if (bridge->pool != NULL) {
        aio_pool_release(bridge->pool);
        bridge->pool = NULL;
    }
    Py_CLEAR(bridge->loop);
}

static void
ring_bridge(AioListener *listener)
{
    ring_locked(aio_container_of(listener, AioBridge, listener)->channel);
}

/* Let the loop settle what other interpreters give back. 0, or -1 with an exception set. */
static int
listen_for_returns(AioState *state, AioBridge *bridge)
{
    AioHome *home = aio_state_home(state);
    if (home == NULL) {
        return -1;
    }
    aio_counted_acquire(&home->counted);
    bridge->home = home;
    bridge->listener.ring = ring_bridge;
    aio_home_listen(home, &bridge->listener);
    return 0;
}

/* A new bridge; a collector, if there is no loop. */
static AioBridge *
bridge_new(PyObject *module, PyObject *loop, AioPool *pool)
{
    AioState *state = aio_state_of_module(module);
    AioHome *home = aio_state_home(state);
    AioBridge *bridge = NULL;

    if (home == NULL ||
        (bridge = PyObject_GC_New(AioBridge, loop == NULL ? state->collector_type
                                                          : state->bridge_type)) == NULL) {
        return NULL;
    }
    aio_list_init(&bridge->in_flight);
    aio_list_init(&bridge->to_copy);
    aio_list_init(&bridge->postponed);
    bridge->arrived = bridge->last_arrived = NULL;
    bridge->pool_has_ended = false;
    bridge->home = NULL;
    bridge->has_reader = false;
    bridge->is_polling = false;
    bridge->may_poll = loop != NULL && aio_may_spin();
    bridge->poll_credit = MAX_POLL_CREDIT;
    bridge->submits_without_poll = 0;
    bridge->expected_at = 0;
    bridge->is_led = false;
    bridge->follower_thread = PYTHREAD_INVALID_THREAD_ID;
    bridge->follower_waits = false;
    bridge->callbacks_due = NULL;
    bridge->leader_may_spin = loop == NULL && aio_may_spin();
    bridge->module = Py_NewRef(module);
    bridge->loop = Py_XNewRef(loop);
    bridge->pool = NULL;
    bridge->ended = NULL;
    bridge->channel = channel_new(loop == NULL ? home : NULL);
    PyObject_GC_Track(bridge);
    if (bridge->channel == NULL) {
        Py_CLEAR(bridge);
    }
    else if (pool != NULL) {
        bridge->pool = aio_pool_acquire(pool);
    }
    return bridge;
}

/* Let the loop call drain(). 0, or -1 with an exception set. */
static int
add_reader(AioState *state, AioBridge *bridge)
{
    PyObject *fd = PyLong_FromLong(aio_wake_fd(&bridge->channel->wake));
    PyObject *drain = PyObject_GetAttr((PyObject *)bridge, state->str_drain);
    PyObject *handle = NULL;
    if (fd != NULL && drain != NULL) {
        handle = PyObject_CallMethodObjArgs(bridge->loop, state->str_add_reader, fd, drain, NULL);
    }
    bridge->has_reader = handle != NULL;
    Py_XDECREF(handle);
    Py_XDECREF(drain);
    Py_XDECREF(fd);
    return bridge->has_reader ? 0 : -1;
}

AioBridge *
aio_bridge_new(PyObject *module, PyObject *loop, AioPool *pool)
{
    AioState *state = aio_state_of_module(module);
    AioBridge *bridge = bridge_new(module, loop, pool);
    if (bridge != NULL && (add_reader(state, bridge) < 0 || listen_for_returns(state, bridge) < 0 ||
                           (pool != NULL && watch_end(bridge) < 0))) {
        Py_CLEAR(bridge);
    }
    return bridge;
}

AioBridge *
aio_bridge_new_collector(PyObject *module, AioPool *pool)
{
    AioBridge *bridge = bridge_new(module, NULL, pool);
    if (bridge != NULL &&
        (listen_for_returns(aio_state_of_module(module), bridge) < 0 || watch_end(bridge) < 0)) {
        Py_CLEAR(bridge);
    }
    return bridge;
}

/* ---- a loop's bridge for queues ---- */

PyObject *
aio_running_loop(AioState *state, const char *what)
{
    PyObject *get_running_loop = aio_helper(state, AIO_HELPER_GET_RUNNING_LOOP);
    PyObject *loop = get_running_loop == NULL ? NULL : PyObject_CallNoArgs(get_running_loop);
    if (loop == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear();
        aio_raise_runner_error(
            state, "no event loop is running in this thread: call %s from a coroutine", what);
    }
    return loop;
}

/* The open bridge that is remembered for `loop`, a new reference; NULL if there is none,
 * or with an exception set. */
static AioBridge *
remembered_bridge(AioState *state, PyObject *key, PyObject *loop)
{
    PyObject *reference = NULL, *bridge = NULL;
    if (PyDict_GetItemRef(state->queue_bridges, key, &reference) == 1) {
        if (PyWeakref_GetRef(reference, &bridge) == 1 &&
            (((AioBridge *)bridge)->channel == NULL || ((AioBridge *)bridge)->loop != loop)) {
            Py_CLEAR(bridge); /* of an earlier loop at the same address */
        }
        Py_DECREF(reference);
    }
    return (AioBridge *)bridge;
}

/* Forget the bridges that have gone with their loops. 0, or -1 with an exception set. */
static int
sweep_queue_bridges(AioState *state)
{
    PyObject *items = PyDict_Items(state->queue_bridges);
    int result = items == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i), *bridge;
        const int alive = PyWeakref_GetRef(PyTuple_GET_ITEM(item, 1), &bridge);
        Py_XDECREF(bridge);
        if (alive == 0) { /* another thread may have been here as well */
            result = PyDict_Pop(state->queue_bridges, PyTuple_GET_ITEM(item, 0), NULL) < 0 ? -1 : 0;
        }
    }
    Py_XDECREF(items);
    return result;
}

AioBridge *
aio_bridge_for_queues(PyObject *module, PyObject *loop)
{
    AioState *state = aio_state_of_module(module);
    PyObject *reference = NULL;
    AioBridge *bridge = NULL, *result = NULL;
    PyObject *key = PyLong_FromVoidPtr(loop);

    if (key == NULL) {
        return NULL;
    }
    result = remembered_bridge(state, key, loop);
    if (result != NULL || PyErr_Occurred()) {
        goto done;
    }
    if (sweep_queue_bridges(state) < 0 || (bridge = aio_bridge_new(module, loop, NULL)) == NULL) {
        goto done;
    }
    /* The loop's reader keeps the bridge, so it goes with the loop. */
    reference = PyWeakref_NewRef((PyObject *)bridge, NULL);
    if (reference != NULL && PyDict_SetItem(state->queue_bridges, key, reference) == 0) {
        result = (AioBridge *)Py_NewRef(bridge);
    }
    else {
        aio_bridge_close(bridge);
    }
done:
    Py_XDECREF(reference);
    Py_XDECREF(bridge);
    Py_DECREF(key);
    return result;
}

/* ---- the type ------------------------------------------------------------ */

int
aio_bridge_traverse(PyObject *self, visitproc visit, void *arg)
{
    AioBridge *bridge = (AioBridge *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(bridge->module);
    Py_VISIT(bridge->loop);
    Py_VISIT(bridge->callbacks_due);
    for (AioListNode *link = bridge->in_flight.head.next; link != &bridge->in_flight.head;
         link = link->next) {
        Py_VISIT(aio_container_of(link, AioMail, in_flight)->owner_future);
    }
    return 0;
}

int
aio_bridge_clear(PyObject *self)
{
    aio_bridge_close((AioBridge *)self);
    Py_CLEAR(((AioBridge *)self)->loop);
    Py_CLEAR(((AioBridge *)self)->callbacks_due);
    return 0;
}

void
aio_bridge_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    aio_bridge_clear(self);
    Py_DECREF(((AioBridge *)self)->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
bridge_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    aio_bridge_close((AioBridge *)self);
    Py_RETURN_NONE;
}

static PyMethodDef bridge_methods[] = {
    {"drain", aio_bridge_drain, METH_NOARGS,
     PyDoc_STR("Deliver all that has arrived; the loop's reader callback.")},
    {"poll", bridge_poll, METH_NOARGS,
     PyDoc_STR("Wait some microseconds for what arrives, and deliver it.")},
    {"close", bridge_close, METH_NOARGS,
     PyDoc_STR("The loop ends: results that are still to come are dropped.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot bridge_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An event loop's end of a pool.")},
    {Py_tp_methods, bridge_methods},
    {Py_tp_traverse, aio_bridge_traverse},
    {Py_tp_clear, aio_bridge_clear},
    {Py_tp_dealloc, aio_bridge_dealloc},
    {0, NULL},
};

PyType_Spec aio_bridge_spec = {
    .name = "aiointerpreters._core.Bridge",
    .basicsize = sizeof(AioBridge),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_MANAGED_WEAKREF,
    .slots = bridge_slots,
};
