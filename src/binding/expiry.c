/* expiry.c: the time limits of one call.
 *
 * Two refer to an expiry: its call, and its timer or the mail that this becomes when it
 * fires. The timer runs in the monitor's thread, which only posts the mail.
 */
#include "expiry.h"

#include <assert.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/monitor.h"
#include "future.h"

struct AioExpiry {
    AioMail mail;
    AioTimer timer;
    /* Two at first. The last decrement acquires what the other released. */
    _Atomic int references;
    bool has_fired;                  /* guarded by the timers' lock */
    int64_t timeout_ns, deadline_ns; /* constant */
    int64_t deadline_at_ns;          /* constant; INT64_MAX: none */
    bool is_timeout;                 /* which limit it was: written before the mail is posted */
    bool is_disarmed;                /* whoever may call disarm */
};

static AioExpiry *
expiry_of_mail(AioMail *mail)
{
    return (AioExpiry *)mail;
}

static void
drop(AioExpiry *expiry)
{
    if (atomic_fetch_sub_explicit(&expiry->references, 1, memory_order_acq_rel) == 1) {
        assert(expiry->mail.owner_future == NULL);
        free(expiry);
    }
}

/* Under the timers' lock. */
static int64_t
time_is_up(AioTimer *timer)
{
    AioExpiry *expiry = aio_container_of(timer, AioExpiry, timer);
    expiry->has_fired = true;
    expiry->is_timeout = timer->node.key < expiry->deadline_at_ns;
    timer->is_retired = true; /* a worker may just begin the work, and set it once more */
    aio_mail_post(&expiry->mail);
    return -1;
}

static int64_t
later(int64_t now, int64_t span)
{
    return span > INT64_MAX - now ? INT64_MAX : now + span;
}

AioExpiry *
aio_expiry_new(AioState *state, AioBridge *bridge, PyObject *future, int64_t timeout_ns,
               int64_t deadline_ns)
{
    AioExpiry *expiry = malloc(sizeof *expiry);
    if (expiry == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_mail_init(&expiry->mail);
    aio_timer_init(&expiry->timer, time_is_up);
    atomic_init(&expiry->references, 2);
    expiry->has_fired = false;
    expiry->is_timeout = false;
    expiry->is_disarmed = false;
    expiry->timeout_ns = timeout_ns;
    expiry->deadline_ns = deadline_ns;
    expiry->deadline_at_ns = INT64_MAX;
    aio_bridge_adopt(bridge, &expiry->mail, AIO_MAIL_EXPIRY, future);
    if (deadline_ns >= 0) {
        expiry->deadline_at_ns = later(aio_clock_ns(), deadline_ns);
    }
    /* Armed from the start, if only for ever: so there is a thread to fire it, and stays. */
    if (!aio_monitor_set(&expiry->timer, expiry->deadline_at_ns)) {
        aio_expiry_release(expiry);
        aio_raise_runner_error(state, "the system has no room for the thread that enforces time "
                                      "limits: end other threads, or call without limits");
        return NULL;
    }
    return expiry;
}

void
aio_expiry_start(AioExpiry *expiry)
{
    if (expiry->timeout_ns >= 0) {
        const int64_t due = later(aio_clock_ns(), expiry->timeout_ns);
        if (due < expiry->deadline_at_ns) {
            /* Does nothing where the call has been settled, or the deadline has passed, in the
             * meantime. */
            (void)aio_monitor_set(&expiry->timer, due);
        }
    }
}

void
aio_expiry_disarm(AioExpiry *expiry)
{
    if (expiry->is_disarmed) {
        return;
    }
    expiry->is_disarmed = true;
    aio_monitor_retire(&expiry->timer);
    if (expiry->has_fired) {
        aio_mail_let_go(&expiry->mail); /* it comes too late */
    }
    else {
        aio_mail_abandon(&expiry->mail);
        drop(expiry); /* the timer's */
    }
}

void
aio_expiry_release(AioExpiry *expiry)
{
    aio_expiry_disarm(expiry);
    drop(expiry);
}

/* A TimeoutError that says which limit it was; NULL with an exception set. */
static PyObject *
timeout_error(AioExpiry *expiry)
{
    const int64_t limit_ns = expiry->is_timeout ? expiry->timeout_ns : expiry->deadline_ns;
    char seconds[32];
    PyOS_snprintf(seconds, sizeof seconds, "%.12g", (double)limit_ns / 1e9);
    PyObject *text = PyUnicode_FromFormat(
        expiry->is_timeout ? "the call was stopped after it had run for %s seconds (timeout)"
                           : "the call was not done %s seconds after it was made (deadline)",
        seconds);
    PyObject *error = text == NULL ? NULL : PyObject_CallOneArg(PyExc_TimeoutError, text);
    Py_XDECREF(text);
    return error;
}

int
aio_expiry_deliver(AioState *state, AioMail *mail)
{
    AioExpiry *expiry = expiry_of_mail(mail);
    int ended = 0;
    PyObject *future = Py_XNewRef(mail->owner_future);

    aio_mail_let_go(mail);
    if (future != NULL) {
        PyObject *error = timeout_error(expiry);
        if (error == NULL) {
            error = PyErr_GetRaisedException();
        }
        /* Takes the call back, or stops it; if its result is in the same batch, drops that. */
        aio_future_give_up(state, future);
        ended = aio_future_set_exception(state, future, error);
        Py_DECREF(error);
        Py_DECREF(future);
    }
    drop(expiry);
    return ended;
}

void
aio_expiry_free_mail(AioMail *mail)
{
    drop(expiry_of_mail(mail));
}
