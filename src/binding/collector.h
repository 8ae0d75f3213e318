/* collector.h: where results come to that no event loop waits for.
 *
 *       any thread                          threads of the caller's interpreter
 *     aio_mail_post ──► channel: mailbox ──► whoever looks after it ──► CallFutures
 *                         └── rings one of these, the first that there is:
 *                               the leader: a thread in CallFuture.result()
 *                               the follower: a thread in Collector.run()
 *                               the descriptor: whoever polls it, and calls drain()
 *
 * A collector is a bridge without a loop. Its owner is no certain thread, but whichever thread
 * of its interpreter has the GIL, or on a build without one the collector's critical section.
 * Both are given up wherever Python code may run, and while a thread waits. So the rules are:
 *
 *   - What belongs to the owner is consistent, and nothing of it is remembered, wherever Python
 *     code may run or the thread waits: afterwards a mail may be freed, the collector closed.
 *   - Who takes a mail out of flight (aio_mail_let_go()) settles its future, and nobody else.
 *     A future that is in flight no more, and not done, is about to be.
 *   - Between the push of a task and its submitter's last look at it nothing of the kind
 *     happens: so no other thread has delivered and freed it by then.
 *   - Several threads may deliver at a time, each other mails: so in what order futures are
 *     settled is not certain. Only that mail which is posted first is taken first is.
 *   - A leader calls no callbacks: they may last, or wait for what another thread holds that waits
 *     for a result itself. They are the follower's, where there is one.
 *   - Who looks after the mailbox, and stops to, looks into it once more, and rings if there is
 *     something: so nothing is left lying. Who settles a future tells the leader, which may
 *     wait for just that one; and the follower, which may be in a callback that does. Who
 *     stops to lead tells that follower too, and it leads in its place.
 */
#ifndef AIO_BINDING_COLLECTOR_H
#define AIO_BINDING_COLLECTOR_H

#include <Python.h>

#include "bridge.h"
#include "state.h"

extern PyType_Spec aio_collector_spec;

/* Wait until what `slot` points to (an AioMail, reset when it is in flight no more) is NULL, or
 * another thread sees to that, or until `deadline_ns` of aio_clock_ns() (negative: never);
 * meanwhile deliver what comes. The slot is kept by the caller. Owner only. 0, or -1 with an
 * exception set. */
int aio_collector_lead(AioState *state, AioBridge *collector, AioMail *const *slot,
                       int64_t deadline_ns);

/* A future of the collector's has been settled: tell who may wait for just that one. Owner only. */
void aio_collector_tell_waiting(AioBridge *collector);

/* Leave it to the follower to call the callbacks of `future` (borrowed), which is done, if this
 * thread leads. True if so; else it is for the caller to do. Any thread of its interpreter. */
bool aio_collector_defer(AioBridge *collector, PyObject *future);

/* It has been closed: nobody need wait any more. */
void aio_collector_wake_all(AioChannel *channel);

#endif
