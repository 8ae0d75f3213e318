/* queue.c: a first-in-first-out queue between interpreters.
 *
 *    put: encode ──► [ item … item ] ──► get: decode
 *                      AioQueue: a fifo of messages (core/fifo.h)
 *
 * The queue belongs to no interpreter, and is counted: by the Python objects that stand
 * for it, by messages that carry it, and by loops that wait for it. An item that was put
 * is plain memory, so it stays when the interpreter that put it ends; only what it lends
 * keeps that interpreter.
 *
 * Threads wait in blocked.c. A coroutine waits with an AioQueueWait, which is notified
 * by whoever puts or gets, and as a mail settles a future of its loop; then the coroutine
 * tries again. If it will not (it was cancelled, the loop is gone), whoever is next in
 * line is told in its place: so no item is left lying while somebody waits for it.
 */
#include "queue.h"

#include <math.h>
#include <stdlib.h>

#include "blocked.h"
#include "core/clock.h"
#include "core/fifo.h"
#include "core/fork.h"
#include "future.h"
#include "message.h"

typedef struct AioQueue {
    AioCounted counted;
    AioFifo fifo; /* of Item.node */
    unsigned fork_generation;
} AioQueue;

typedef struct Item {
    AioFifoNode node;
    AioMessage message;
} Item;

struct AioQueueWait {
    AioMail mail; /* first: a wait is a mail */
    AioFifoWaiter waiter;
    AioQueue *queue; /* a reference */
};

/* ---- the queue and its items: any thread, no GIL needed ---- */

static void
item_free(Item *item)
{
    aio_message_clear(&item->message);
    free(item);
}

static Item *
item_of(AioFifoNode *node)
{
    return aio_container_of(node, Item, node);
}

/* Whether this process is a forked child of the one that made the queue: whoever held its
 * lock then does not exist here. */
static bool
is_forked(AioQueue *queue)
{
    return queue->fork_generation != aio_fork_generation();
}

static void
queue_free(AioCounted *counted)
{
    AioQueue *queue = (AioQueue *)counted;
    AioFifoNode *node;
    if (is_forked(queue)) {
        return;
    }
    while (aio_fifo_try_get(&queue->fifo, &node) == AIO_FIFO_DONE) {
        item_free(item_of(node));
    }
    aio_fifo_destroy(&queue->fifo);
    free(queue);
}

/* Items may be queues, whose items are queues, and so on. */
static void
queue_destroy(AioCounted *counted)
{
    aio_counted_destroy_later(counted, queue_free);
}

static AioQueue *
queue_new(size_t max_length)
{
    AioQueue *queue = malloc(sizeof *queue);
    if (queue == NULL || aio_fifo_init(&queue->fifo, max_length) < 0) {
        free(queue);
        PyErr_NoMemory();
        return NULL;
    }
    aio_counted_init(&queue->counted, queue_destroy);
    queue->fork_generation = aio_fork_generation();
    return queue;
}

/* ---- the Python objects ---- */

typedef struct QueueObject {
    PyObject_HEAD PyObject *module; /* owned */
    AioQueue *queue;                /* a reference; NULL once detached */
} QueueObject;

/* A value that waits to be put. */
typedef struct ItemObject {
    PyObject_HEAD Item *item; /* owned; NULL once it has been put */
} ItemObject;

static AioState *
state_of(QueueObject *object)
{
    return aio_state_of_module(object->module);
}

/* 0, or -1 with an exception set where the queue cannot be used. */
static int
check_usable(QueueObject *object)
{
    if (object->queue == NULL) {
        aio_raise_runner_error(state_of(object), "the worker that had this queue has ended");
        return -1;
    }
    if (is_forked(object->queue)) {
        aio_raise_runner_error(state_of(object),
                               "the queue belongs to the parent process, and its workers do not "
                               "exist in a forked child: make a new Queue here");
        return -1;
    }
    return 0;
}

bool
aio_queue_is_one(AioState *state, PyObject *object)
{
    /* The class of the Python package, once anybody has needed it. */
    return Py_TYPE(object) == state->queue_type ||
           (state->helpers[AIO_HELPER_QUEUE] != NULL &&
            Py_TYPE(object) == (PyTypeObject *)state->helpers[AIO_HELPER_QUEUE]);
}

AioCounted *
aio_queue_acquire(PyObject *object)
{
    if (check_usable((QueueObject *)object) < 0) {
        return NULL;
    }
    AioCounted *counted = &((QueueObject *)object)->queue->counted;
    aio_counted_acquire(counted);
    return counted;
}

/* An object of `type`, of which a queue's reference is taken. */
static PyObject *
queue_object_alloc(PyTypeObject *type, PyObject *module, AioQueue *queue)
{
    QueueObject *self = (QueueObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        aio_counted_release(&queue->counted);
        return NULL;
    }
    self->module = Py_NewRef(module);
    self->queue = queue;
    return (PyObject *)self;
}

PyObject *
aio_queue_to_python(AioState *state, AioCounted *counted, bool plain)
{
    if (counted->destroy != queue_destroy) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: what a message holds is no queue");
        return NULL;
    }
    PyObject *type = plain ? (PyObject *)state->queue_type : aio_helper(state, AIO_HELPER_QUEUE);
    if (type == NULL) {
        return NULL;
    }
    aio_counted_acquire(counted);
    return queue_object_alloc((PyTypeObject *)type, PyType_GetModule(state->queue_type),
                              (AioQueue *)counted);
}

static PyObject *
queue_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"maxsize", NULL};
    Py_ssize_t max_length = 0;
    PyObject *maxsize = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Queue", keywords, &maxsize)) {
        return NULL;
    }
    if (maxsize != NULL) {
        if (!PyIndex_Check(maxsize)) {
            PyErr_Format(PyExc_TypeError, "maxsize must be an integer, not %T", maxsize);
            return NULL;
        }
        max_length = PyNumber_AsSsize_t(maxsize, NULL); /* the largest for what is larger */
        if (max_length == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    PyObject *module = PyType_GetModuleByDef(type, &aio_module_def);
    /* As queue.Queue has it: no bound, if it is not above zero. */
    AioQueue *queue = module == NULL ? NULL : queue_new(max_length > 0 ? (size_t)max_length : 0);
    if (queue == NULL) {
        return NULL;
    }
    /* From now on such objects can be met by whoever encodes. */
    if (aio_helper(aio_state_of_module(module), AIO_HELPER_QUEUE) == NULL) {
        aio_counted_release(&queue->counted);
        return NULL;
    }
    return queue_object_alloc(type, module, queue);
}

static int
queue_object_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((QueueObject *)self)->module);
    return 0;
}

static void
queue_object_dealloc(PyObject *self)
{
    QueueObject *object = (QueueObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (object->queue != NULL) {
        aio_counted_release(&object->queue->counted);
    }
    Py_XDECREF(object->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
queue_object_richcompare(PyObject *self, PyObject *other, int op)
{
    AioState *state = state_of((QueueObject *)self);
    if ((op != Py_EQ && op != Py_NE) || !PyObject_TypeCheck(other, state->queue_type)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    const bool same = ((QueueObject *)self)->queue == ((QueueObject *)other)->queue;
    return PyBool_FromLong(same == (op == Py_EQ));
}

static PyObject *
queue_object_repr(PyObject *self)
{
    AioQueue *queue = ((QueueObject *)self)->queue;
    PyObject *name = PyType_GetName(Py_TYPE(self));
    PyObject *repr = NULL;
    if (name != NULL && (queue == NULL || is_forked(queue))) {
        repr = PyUnicode_FromFormat("<%U at %p, not usable here>", name, queue);
    }
    else if (name != NULL) {
        repr = PyUnicode_FromFormat("<%U at %p maxsize=%zu items=%zu>", name, queue,
                                    queue->fifo.max_length, aio_fifo_length(&queue->fifo));
    }
    Py_XDECREF(name);
    return repr;
}

static Py_hash_t
queue_object_hash(PyObject *self)
{
    return Py_HashPointer(((QueueObject *)self)->queue);
}

/* For a worker's end: what it has of queues it needs no more. */
static PyObject *
queue_object_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioQueue *queue = ((QueueObject *)self)->queue;
    ((QueueObject *)self)->queue = NULL;
    if (queue != NULL) {
        aio_counted_release(&queue->counted);
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_object_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioState *state = state_of((QueueObject *)self);
    PyErr_SetString(PyExc_TypeError,
                    aio_queue_is_one(state, self)
                        ? "a Queue can be neither copied nor pickled, as all its ends are the same "
                          "queue: pass it itself, by aiointerpreters"
                        : "only Queue itself can be sent, no subclass of it");
    return NULL;
}

static void
item_object_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Item *item = ((ItemObject *)self)->item;
    if (item != NULL) {
        item_free(item);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- errors ---- */

/* Raise one of the package's exceptions. Returns NULL. */
static PyObject *
raise(AioState *state, AioHelper helper)
{
    PyObject *type = aio_helper(state, helper);
    if (type != NULL) {
        PyErr_SetNone(type);
    }
    return NULL;
}

/* ---- waiting in a thread ---- */

typedef struct ThreadWait {
    AioFifoWaiter waiter;
    AioBlocked blocked;
} ThreadWait;

static void
wake_thread(AioFifoWaiter *waiter)
{
    aio_blocked_wake(&aio_container_of(waiter, ThreadWait, waiter)->blocked);
}

/* Wait until it is worth while to try again, or until the deadline. 0, or -1 with an
 * exception set. */
static int
wait_in_thread(ThreadWait *wait, AioState *state, AioQueue *queue,
               bool (*register_waiter)(AioFifo *, AioFifoWaiter *), int64_t deadline_ns)
{
    if (register_waiter(&queue->fifo, &wait->waiter)) {
        return 0;
    }
    const AioBlockedResult result = aio_blocked_wait(&wait->blocked, state, deadline_ns);
    if (result == AIO_BLOCKED_WOKEN || aio_fifo_forget(&queue->fifo, &wait->waiter)) {
        return result == AIO_BLOCKED_FAILED ? -1 : 0;
    }
    /* It is being notified just now. */
    aio_blocked_await_wake(&wait->blocked);
    if (result == AIO_BLOCKED_FAILED) {
        aio_fifo_pass_on(&queue->fifo);
        return -1;
    }
    return 0;
}

/* Dropping the last reference may run Python code. */
static void
release_keeping_exception(AioQueue *queue)
{
    PyObject *exception = PyErr_GetRaisedException();
    aio_counted_release(&queue->counted);
    PyErr_SetRaisedException(exception);
}

/* Try to put or get `*node` until that is done. `deadline_ns`: 0 not to wait at all,
 * negative to wait for ever. 0, or -1 with an exception set (WOULD_BLOCK is `would_block`). */
static int
move(AioState *state, AioQueue *queue, AioFifoNode **node, bool is_get, int64_t deadline_ns)
{
    const AioHelper would_block = is_get ? AIO_HELPER_QUEUE_EMPTY : AIO_HELPER_QUEUE_FULL;
    ThreadWait wait;
    bool has_wait = false, expired = deadline_ns == 0;
    int result = -1;

    for (;;) {
        switch (is_get ? aio_fifo_try_get(&queue->fifo, node)
                       : aio_fifo_try_put(&queue->fifo, *node)) {
        case AIO_FIFO_DONE:
            result = 0;
            goto done;
        case AIO_FIFO_SHUT_DOWN:
            raise(state, AIO_HELPER_QUEUE_SHUT_DOWN);
            goto done;
        case AIO_FIFO_WOULD_BLOCK:
            break;
        }
        if (expired) {
            raise(state, would_block);
            goto done;
        }
        if (!has_wait) {
            aio_fifo_waiter_init(&wait.waiter, wake_thread);
            /* While the GIL is released the object may be detached, or go. */
            aio_counted_acquire(&queue->counted);
            if (aio_blocked_init(&wait.blocked, state, false) < 0) {
                release_keeping_exception(queue);
                goto done;
            }
            has_wait = true;
        }
        if (wait_in_thread(&wait, state, queue,
                           is_get ? aio_fifo_wait_to_get : aio_fifo_wait_to_put, deadline_ns) < 0) {
            goto done;
        }
        expired = deadline_ns >= 0 && aio_clock_ns() >= deadline_ns;
    }
done:
    if (has_wait) {
        aio_blocked_destroy(&wait.blocked);
        release_keeping_exception(queue);
    }
    return result;
}

/* ---- put and get ---- */

/* The arguments `block` and `timeout` as a deadline for move(). 0, or -1 with an
 * exception set. */
static int
parse_deadline(int block, PyObject *timeout, int64_t *deadline_ns)
{
    if (!block) {
        *deadline_ns = 0;
        return 0;
    }
    *deadline_ns = -1;
    if (timeout == Py_None) {
        return 0;
    }
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "timeout must be a number of seconds or None, not %T",
                         timeout);
        }
        return -1;
    }
    if (!(seconds >= 0)) {
        PyErr_SetString(PyExc_ValueError, "'timeout' must be a non-negative number");
        return -1;
    }
    if (seconds < 1e9) { /* else, some decades: for ever */
        *deadline_ns = aio_clock_ns() + (int64_t)ceil(seconds * 1e9);
    }
    return 0;
}

static PyObject *
get(QueueObject *object, int64_t deadline_ns)
{
    AioState *state = state_of(object);
    AioFifoNode *node;
    if (check_usable(object) < 0 || move(state, object->queue, &node, true, deadline_ns) < 0) {
        return NULL;
    }
    Item *item = item_of(node);
    PyObject *value = aio_message_decode_value(state, &item->message);
    item_free(item);
    aio_home_settle(state->home);
    return value;
}

static Item *
item_new(AioState *state, PyObject *value)
{
    Item *item = malloc(sizeof *item);
    if (item == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_message_init(&item->message);
    if (aio_message_encode_value(state, &item->message, value, "item") < 0) {
        item_free(item);
        return NULL;
    }
    return item;
}

static PyObject *
put(QueueObject *object, PyObject *value, int64_t deadline_ns)
{
    AioState *state = state_of(object);
    Item *item = check_usable(object) < 0 ? NULL : item_new(state, value);
    if (item == NULL) {
        return NULL;
    }
    AioFifoNode *node = &item->node;
    if (move(state, object->queue, &node, false, deadline_ns) < 0) {
        PyObject *exception = PyErr_GetRaisedException();
        item_free(item);
        PyErr_SetRaisedException(exception);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"block", "timeout", NULL};
    int block = 1;
    PyObject *timeout = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pO:get", keywords, &block, &timeout) ||
        parse_deadline(block, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    return get((QueueObject *)self, deadline_ns);
}

static PyObject *
queue_put(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"item", "block", "timeout", NULL};
    int block = 1;
    PyObject *value, *timeout = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|pO:put", keywords, &value, &block,
                                     &timeout) ||
        parse_deadline(block, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    return put((QueueObject *)self, value, deadline_ns);
}

static PyObject *
queue_get_nowait(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return get((QueueObject *)self, 0);
}

static PyObject *
queue_put_nowait(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"item", NULL};
    PyObject *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:put_nowait", keywords, &value)) {
        return NULL;
    }
    return put((QueueObject *)self, value, 0);
}

/* ---- for coroutines: try, wait, pass on ---- */

static PyObject *
queue_try_get(PyObject *self, PyObject *nothing)
{
    QueueObject *object = (QueueObject *)self;
    AioFifoNode *node;
    if (check_usable(object) < 0) {
        return NULL;
    }
    AioState *state = state_of(object);
    switch (aio_fifo_try_get(&object->queue->fifo, &node)) {
    case AIO_FIFO_WOULD_BLOCK:
        return Py_NewRef(nothing);
    case AIO_FIFO_SHUT_DOWN:
        return raise(state, AIO_HELPER_QUEUE_SHUT_DOWN);
    case AIO_FIFO_DONE:
        break;
    }
    Item *item = item_of(node);
    PyObject *value = aio_message_decode_value(state, &item->message);
    item_free(item);
    return value;
}

static PyObject *
queue_pack(PyObject *self, PyObject *value)
{
    AioState *state = state_of((QueueObject *)self);
    if (check_usable((QueueObject *)self) < 0) {
        return NULL;
    }
    ItemObject *packed = (ItemObject *)state->queue_item_type->tp_alloc(state->queue_item_type, 0);
    if (packed == NULL || (packed->item = item_new(state, value)) == NULL) {
        Py_CLEAR(packed);
    }
    return (PyObject *)packed;
}

static PyObject *
queue_try_put(PyObject *self, PyObject *packed)
{
    QueueObject *object = (QueueObject *)self;
    AioState *state = state_of(object);
    if (check_usable(object) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(packed, state->queue_item_type) || ((ItemObject *)packed)->item == NULL) {
        PyErr_SetString(PyExc_TypeError, "_try_put() takes what _pack() gave, once");
        return NULL;
    }
    Item **item = &((ItemObject *)packed)->item;
    switch (aio_fifo_try_put(&object->queue->fifo, &(*item)->node)) {
    case AIO_FIFO_WOULD_BLOCK:
        Py_RETURN_FALSE;
    case AIO_FIFO_SHUT_DOWN:
        return raise(state, AIO_HELPER_QUEUE_SHUT_DOWN);
    case AIO_FIFO_DONE:
        break;
    }
    *item = NULL;
    Py_RETURN_TRUE;
}

static void
post_wait(AioFifoWaiter *waiter)
{
    aio_mail_post(&aio_container_of(waiter, AioQueueWait, waiter)->mail);
}

static void
wait_free(AioQueueWait *wait)
{
    aio_counted_release(&wait->queue->counted);
    free(wait);
}

void
aio_queue_wait_end(AioMail *mail, bool delivered)
{
    AioQueueWait *wait = (AioQueueWait *)mail;
    if (!delivered && !is_forked(wait->queue)) {
        aio_fifo_pass_on(&wait->queue->fifo);
    }
    wait_free(wait);
}

void
aio_queue_wait_abandon(AioMail *mail)
{
    AioQueueWait *wait = (AioQueueWait *)mail;
    aio_mail_let_go(mail);
    if (!is_forked(wait->queue) && aio_fifo_forget(&wait->queue->fifo, &wait->waiter)) {
        aio_channel_release(mail->channel);
        wait_free(wait);
    }
}

/* A future of the running loop that is done when trying again is worth while, or None
 * if that is now. `again` (a bool): it was tried before, so it does not queue up anew. */
static PyObject *
wait_in_loop(QueueObject *object, PyObject *again,
             bool (*register_waiter)(AioFifo *, AioFifoWaiter *))
{
    AioState *state = state_of(object);
    PyObject *future = NULL;
    AioBridge *bridge = NULL;
    AioQueueWait *wait = NULL;
    PyObject *loop = check_usable(object) < 0 ? NULL : aio_running_loop(state, "aget() and aput()");

    if (loop == NULL || (bridge = aio_bridge_for_queues(object->module, loop)) == NULL ||
        (future = aio_future_new(state)) == NULL) {
        goto done;
    }
    if ((wait = malloc(sizeof *wait)) == NULL) {
        PyErr_NoMemory();
        Py_CLEAR(future);
        goto done;
    }
    aio_mail_init(&wait->mail);
    aio_fifo_waiter_init(&wait->waiter, post_wait);
    wait->waiter.has_priority = again == Py_True;
    aio_counted_acquire(&object->queue->counted);
    wait->queue = object->queue;
    aio_bridge_adopt(bridge, &wait->mail, AIO_MAIL_QUEUE, future);
    aio_future_bind(state, &wait->mail);
    if (register_waiter(&object->queue->fifo, &wait->waiter)) {
        aio_mail_abandon(&wait->mail);
        wait_free(wait);
        Py_SETREF(future, Py_NewRef(Py_None));
    }
done:
    Py_XDECREF(bridge);
    Py_XDECREF(loop);
    return future;
}

static PyObject *
queue_wait_to_get(PyObject *self, PyObject *again)
{
    return wait_in_loop((QueueObject *)self, again, aio_fifo_wait_to_get);
}

static PyObject *
queue_wait_to_put(PyObject *self, PyObject *again)
{
    return wait_in_loop((QueueObject *)self, again, aio_fifo_wait_to_put);
}

static PyObject *
queue_pass_on(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioQueue *queue = ((QueueObject *)self)->queue;
    if (queue != NULL && !is_forked(queue)) {
        aio_fifo_pass_on(&queue->fifo);
    }
    Py_RETURN_NONE;
}

/* ---- the rest ---- */

static PyObject *
queue_qsize(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    QueueObject *object = (QueueObject *)self;
    return check_usable(object) < 0 ? NULL
                                    : PyLong_FromSize_t(aio_fifo_length(&object->queue->fifo));
}

static PyObject *
queue_empty(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    QueueObject *object = (QueueObject *)self;
    return check_usable(object) < 0 ? NULL
                                    : PyBool_FromLong(aio_fifo_length(&object->queue->fifo) == 0);
}

static PyObject *
queue_full(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    QueueObject *object = (QueueObject *)self;
    if (check_usable(object) < 0) {
        return NULL;
    }
    const size_t max_length = object->queue->fifo.max_length;
    return PyBool_FromLong(max_length > 0 && aio_fifo_length(&object->queue->fifo) >= max_length);
}

static PyObject *
queue_shutdown(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"immediate", NULL};
    QueueObject *object = (QueueObject *)self;
    int immediate = 0;
    AioList dropped;
    AioListNode *link;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:shutdown", keywords, &immediate) ||
        check_usable(object) < 0) {
        return NULL;
    }
    aio_list_init(&dropped);
    aio_fifo_shut_down(&object->queue->fifo, immediate ? &dropped : NULL);
    while ((link = aio_list_pop_first(&dropped)) != NULL) {
        item_free(item_of(aio_container_of(link, AioFifoNode, link)));
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_get_maxsize(PyObject *self, void *Py_UNUSED(closure))
{
    QueueObject *object = (QueueObject *)self;
    return check_usable(object) < 0 ? NULL : PyLong_FromSize_t(object->queue->fifo.max_length);
}

#define WITH_KEYWORDS(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef queue_methods[] = {
    {"get", WITH_KEYWORDS(queue_get), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("get($self, /, block=True, timeout=None)\n--\n\n"
               "Remove and return the first item.\n\n"
               "Waits for one if need be, without the GIL: for `timeout` seconds at most (None:\n"
               "for ever), or not at all if `block` is false. In a coroutine, await aget().\n\n"
               "Raises QueueEmpty if there is none in time, QueueShutDown if there will be none.")},
    {"put", WITH_KEYWORDS(queue_put), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("put($self, /, item, block=True, timeout=None)\n--\n\n"
               "Put an item at the end.\n\n"
               "Waits for room if need be, as get() waits. In a coroutine, await aput().\n\n"
               "Raises QueueFull if there is no room in time, QueueShutDown after a shutdown(),\n"
               "NotShareableError if the item cannot be sent.")},
    {"get_nowait", queue_get_nowait, METH_NOARGS,
     PyDoc_STR("get_nowait($self, /)\n--\n\nAs get(block=False).")},
    {"put_nowait", WITH_KEYWORDS(queue_put_nowait), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("put_nowait($self, /, item)\n--\n\nAs put(item, block=False).")},
    {"qsize", queue_qsize, METH_NOARGS,
     PyDoc_STR("qsize($self, /)\n--\n\nHow many items there are, at this moment.")},
    {"empty", queue_empty, METH_NOARGS,
     PyDoc_STR("empty($self, /)\n--\n\nWhether there is no item, at this moment.")},
    {"full", queue_full, METH_NOARGS,
     PyDoc_STR("full($self, /)\n--\n\nWhether there is no room, at this moment.")},
    {"shutdown", WITH_KEYWORDS(queue_shutdown), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("shutdown($self, /, immediate=False)\n--\n\n"
               "Let all puts fail from now on, and gets once the queue is empty, with\n"
               "QueueShutDown: those that wait, too. `immediate`: drop the items that are left.")},
    {"_try_get", queue_try_get, METH_O, NULL},
    {"_pack", queue_pack, METH_O, NULL},
    {"_try_put", queue_try_put, METH_O, NULL},
    {"_wait_to_get", queue_wait_to_get, METH_O, NULL},
    {"_wait_to_put", queue_wait_to_put, METH_O, NULL},
    {"_pass_on", queue_pass_on, METH_NOARGS, NULL},
    {"_detach", queue_object_detach, METH_NOARGS, NULL},
    {"__reduce__", queue_object_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     PyDoc_STR("For annotations: Queue[int].")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_getset[] = {
    {"maxsize", queue_get_maxsize, NULL,
     PyDoc_STR("How many items there is room for; 0 if there is no bound."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Queue(maxsize=0)\n--\n\nThe base of aiointerpreters.Queue.")},
    {Py_tp_repr, queue_object_repr},
    {Py_tp_new, queue_object_new},
    {Py_tp_dealloc, queue_object_dealloc},
    {Py_tp_traverse, queue_object_traverse},
    {Py_tp_richcompare, queue_object_richcompare},
    {Py_tp_hash, queue_object_hash},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getset},
    {0, NULL},
};

PyType_Spec aio_queue_spec = {
    .name = "aiointerpreters._core.Queue",
    .basicsize = sizeof(QueueObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

static PyType_Slot queue_item_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A value that waits to be put into a Queue.")},
    {Py_tp_dealloc, item_object_dealloc},
    {0, NULL},
};

PyType_Spec aio_queue_item_spec = {
    .name = "aiointerpreters._core.QueueItem",
    .basicsize = sizeof(ItemObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = queue_item_slots,
};
