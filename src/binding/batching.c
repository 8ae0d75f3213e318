/* batching.c: how the owner makes batches of calls, and splits them.
 *
 * Entered on the loop's thread with its GIL; or for a collector, in any thread with that. A batch
 * is filled from an iterator: each item is encoded as soon as it is pulled, so what the iterator
 * does to it afterwards has no effect on the call, as with single calls. It is sent when it has so
 * many items as are asked for, or so many bytes, or when filling it has taken so long that those it
 * has should wait no longer.
 *
 * What is large, or lends or shares something, is no part of a batch: such a call travels alone,
 * as any other.
 */
#include "batching.h"

#include "batch.h"
#include "core/clock.h"
#include "future.h"
#include "message_format.h"
#include "pool.h"
#include "pool_object.h"
#include "task.h"
#include "ticket.h"

/* The most bytes of a batch, and of one item in it. */
enum { MAX_BYTES = 64 * 1024, MAX_ITEM_BYTES = 4 * 1024 };

/* How long a batch may be filled. */
static const int64_t MAX_FILLING_NS = 100 * 1000;

PyObject *
aio_batching_py_takes_batches(PyObject *self, PyObject *callable)
{
    AioFunction *function = NULL;
    PyObject *to_send = NULL;
    bool is_coroutine = false;
    if (aio_pool_object_lookup(self, callable, &function, &to_send, &is_coroutine) < 0) {
        return NULL;
    }
    Py_XDECREF(to_send);
    return PyBool_FromLong(function != NULL && !is_coroutine &&
                           aio_pool_object_pool(self)->tasks_per_worker < 0);
}

/* ---- filling ---- */

/* What is to be called, and what has been made of it. */
typedef struct Filling {
    PyObject *pool_object;
    AioState *state;
    AioBridge *bridge;
    AioFunction *function;
    int64_t priority;
    PyObject *prefix; /* arguments before those of an item: a tuple */
    PyObject *kwargs; /* or NULL */
    PyObject *sent;   /* a list: pairs of a future and how many items it stands for */
} Filling;

static AioTask *
new_task(Filling *filling, size_t room)
{
    AioPool *pool = aio_pool_object_pool(filling->pool_object);
    AioTask *task = aio_task_new(pool, filling->function, false);
    if (task == NULL) {
        return NULL;
    }
    task->queue_node.priority = filling->priority;
    if (room > 0 && (task->batch = aio_batch_new(pool, room)) == NULL) {
        aio_task_free(task);
        return NULL;
    }
    return task;
}

/* Send the task, which is taken, and note its future: with 0 if it is a single call. 0, or -1 with
 * an exception set. */
static int
send(Filling *filling, AioTask *task)
{
    const size_t count = task->batch == NULL ? 0 : task->batch->count;
    PyObject *future = filling->bridge->loop != NULL
                           ? aio_future_new(filling->state)
                           : aio_ticket_new_future(filling->state, filling->bridge);
    PyObject *pair = future == NULL ? NULL : Py_BuildValue("(On)", future, (Py_ssize_t)count);
    int result = -1;

    if (pair == NULL) {
        aio_task_free(task);
    }
    else if (aio_pool_object_send(filling->pool_object, filling->bridge, task, future) == 0) {
        result = PyList_Append(filling->sent, pair);
    }
    Py_XDECREF(pair);
    Py_XDECREF(future);
    return result;
}

/* Encode a call with these arguments at the end of the message. 0, or -1 with an exception. */
static int
encode_item(Filling *filling, AioMessage *message, PyObject *args)
{
    PyObject *all = Py_NewRef(args);
    if (PyTuple_GET_SIZE(filling->prefix) > 0) {
        Py_SETREF(all, PySequence_Concat(filling->prefix, args));
        if (all == NULL) {
            return -1;
        }
    }
    const int result =
        aio_message_encode_call(filling->state, message, NULL, NULL, all, filling->kwargs);
    Py_DECREF(all);
    return result;
}

/* The call that begins at `start` of the batch's message becomes a task of its own, and is sent
 * after the others (or instead, if it is the first). Takes the task. */
static int
send_alone(Filling *filling, AioTask *task, size_t start)
{
    if (start == 0) {
        aio_batch_free(task->batch);
        task->batch = NULL;
        return send(filling, task);
    }
    AioTask *alone = new_task(filling, 0);
    unsigned char *bytes =
        alone == NULL ? NULL : aio_message_extend(&alone->message, task->message.size - start);
    if (bytes == NULL) {
        if (alone != NULL) {
            PyErr_NoMemory();
            aio_task_free(alone);
        }
        aio_task_free(task);
        return -1;
    }
    memcpy(bytes, task->message.data + start, task->message.size - start);
    task->message.size = start;
    alone->message.held = task->message.held;
    task->message.held = (AioHeld){0};
    if (send(filling, task) < 0) {
        aio_task_free(alone);
        return -1;
    }
    return send(filling, alone);
}

/* Pull up to `most` items from the iterator, and send them. True if it may have more. False if
 * it has ended, or with an exception set; what was pulled before that is sent all the same. */
static bool
fill(Filling *filling, PyObject *arguments, size_t most)
{
    AioTask *task = new_task(filling, most);
    if (task == NULL) {
        return false;
    }
    AioBatch *batch = task->batch;
    AioMessage *message = &task->message;
    const int64_t until = aio_clock_ns() + MAX_FILLING_NS;
    bool has_more = false;

    for (;;) {
        PyObject *args = PyIter_Next(arguments);
        if (args == NULL) {
            break;
        }
        const size_t start = message->size;
        const int failed = encode_item(filling, message, args);
        Py_DECREF(args);
        if (failed) {
            aio_message_truncate(message, start, 0);
            break;
        }
        if (message->held.count > 0 || message->size - start > MAX_ITEM_BYTES) {
            return send_alone(filling, task, start) == 0;
        }
        batch->ends[batch->count++] = message->size;
        if (batch->count == most || message->size >= MAX_BYTES || aio_clock_ns() >= until) {
            has_more = true;
            break;
        }
    }
    PyObject *exception = PyErr_GetRaisedException();
    if (batch->count == 0) {
        aio_task_free(task);
    }
    else if (send(filling, task) < 0) {
        Py_XDECREF(exception); /* the pool takes none any more */
        return false;
    }
    if (exception != NULL) {
        PyErr_SetRaisedException(exception);
    }
    return has_more;
}

PyObject *
aio_batching_py_submit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Filling filling = {.pool_object = self, .state = aio_pool_object_state(self)};
    PyObject *to_send = NULL, *error = NULL, *result = NULL;
    bool is_coroutine, has_more = false;

    if (count < 6 || count > 7 || !PyTuple_CheckExact(args[1]) || !PyDict_CheckExact(args[2]) ||
        !PyIter_Check(args[3]) || (count == 7 && !aio_pool_object_has_collector(self, args[6]))) {
        PyErr_SetString(PyExc_TypeError, "submit_batch(callable, prefix: tuple, kwargs: dict, "
                                         "arguments: iterator of tuples, most, priority, "
                                         "[collector: of this pool])");
        return NULL;
    }
    filling.prefix = args[1];
    filling.kwargs = PyDict_GET_SIZE(args[2]) == 0 ? NULL : args[2];
    const Py_ssize_t most = PyLong_AsSsize_t(args[4]);
    filling.priority = PyLong_AsLongLong(args[5]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if ((filling.sent = PyList_New(0)) == NULL) {
        return NULL;
    }
    filling.bridge = aio_pool_object_bridge(self, count == 7 ? (AioBridge *)args[6] : NULL);
    if (filling.bridge != NULL &&
        aio_pool_object_lookup(self, args[0], &filling.function, &to_send, &is_coroutine) == 0) {
        has_more = fill(&filling, args[3], most < 1 ? 1 : (size_t)most);
    }
    error = PyErr_GetRaisedException();
    result = Py_BuildValue("(OOO)", filling.sent, has_more ? Py_True : Py_False,
                           error == NULL ? Py_None : error);
    Py_XDECREF(error);
    Py_XDECREF(to_send);
    Py_XDECREF(filling.bridge);
    Py_DECREF(filling.sent);
    return result;
}

/* ---- splitting ---- */

/* What splitting a batch needs, made beforehand, since nothing that can run Python code may come
 * between the cut and the sending. */
typedef struct Split {
    size_t pieces;     /* in how many the items are cut that are taken back */
    AioTask **tasks;   /* for these, owned; NULL what is not there (any more) */
    PyObject *futures; /* a list: for the item that runs, and for each piece */
    AioMessage results;
    size_t ready; /* results in there */
    size_t taken; /* items taken back */
    int64_t spent_ns;
} Split;

/* How many items the n-th of so many pieces has. */
static size_t
piece_size(size_t items, size_t pieces, size_t n)
{
    return items / pieces + (n < items % pieces);
}

/* Items [from, from + count) of a batch as a batch of its own. False where memory is short. */
static bool
copy_items(const AioTask *of, AioTask *to, size_t from, size_t count)
{
    const AioBatch *batch = of->batch;
    const size_t start = from == 0 ? 0 : batch->ends[from - 1];
    const size_t size = batch->ends[from + count - 1] - start;
    unsigned char *bytes = aio_message_extend(&to->message, size);
    if (bytes == NULL) {
        return false;
    }
    memcpy(bytes, of->message.data + start, size);
    for (size_t i = 0; i < count; i++) {
        to->batch->ends[i] = batch->ends[from + i] - start;
    }
    to->batch->count = count;
    return true;
}

/* The task of a batch that runs, from its future; NULL if it is none. */
static AioTask *
batch_of(AioState *state, PyObject *future)
{
    if (Py_TYPE(future) != state->future_type) {
        return NULL;
    }
    AioMail *mail = aio_future_mail(future);
    AioTask *task = mail == NULL || mail->kind != AIO_MAIL_TASK ? NULL : aio_task_of_mail(mail);
    return task == NULL || task->batch == NULL || task->prefetch != NULL ? NULL : task;
}

static void
split_clear(Split *split)
{
    for (size_t i = 0; split->tasks != NULL && i < split->pieces; i++) {
        if (split->tasks[i] != NULL) {
            aio_task_free(split->tasks[i]);
        }
    }
    PyMem_Free(split->tasks);
    Py_XDECREF(split->futures);
    aio_message_clear(&split->results);
}

/* Tasks and futures for that many pieces of at most `items` items, and a future for what
 * remains. 0, or -1 with an exception set. */
static int
split_prepare(Split *split, Filling *like, size_t items, size_t pieces)
{
    split->pieces = pieces;
    split->futures = PyList_New(0);
    split->tasks = PyMem_Calloc(pieces + 1, sizeof *split->tasks);
    if (split->futures == NULL || split->tasks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i <= pieces; i++) {
        PyObject *future = aio_future_new(like->state);
        const int failed = future == NULL || PyList_Append(split->futures, future) < 0;
        Py_XDECREF(future);
        if (failed) {
            return -1;
        }
        if (i < pieces && (split->tasks[i] = new_task(like, items / pieces + 1)) == NULL) {
            return -1;
        }
    }
    return 0;
}

/* What comes after the results: pairs of a future and a count. A new reference, or NULL. */
static PyObject *
rest_of(Split *split, const size_t *counts)
{
    PyObject *rest = PyList_New(0);
    for (size_t i = 0; rest != NULL && i <= split->pieces; i++) {
        if (counts[i] == 0) {
            continue;
        }
        PyObject *pair = Py_BuildValue("(On)", PyList_GET_ITEM(split->futures, (Py_ssize_t)i),
                                       (Py_ssize_t)counts[i]);
        if (pair == NULL || PyList_Append(rest, pair) < 0) {
            Py_CLEAR(rest);
        }
        Py_XDECREF(pair);
    }
    return rest;
}

/* Send what was taken back. Where the pool takes no calls any more, their futures fail. */
static void
send_pieces(Split *split, Filling *like)
{
    for (size_t i = 0; i < split->pieces; i++) {
        AioTask *task = split->tasks[i];
        PyObject *future = PyList_GET_ITEM(split->futures, (Py_ssize_t)i + 1);
        if (task->batch->count == 0) {
            continue;
        }
        split->tasks[i] = NULL;
        if (aio_pool_object_send(like->pool_object, like->bridge, task, future) < 0) {
            PyObject *exception = PyErr_GetRaisedException();
            PyObject *result =
                PyObject_CallMethodOneArg(future, like->state->str_set_exception, exception);
            if (result == NULL) {
                PyErr_WriteUnraisable(future);
            }
            Py_XDECREF(result);
            Py_XDECREF(exception);
        }
    }
}

/* How many items that nobody has begun the batch has, and how many results could be taken. False
 * if it can't be split, or has not been at it for so long. */
static bool
look(AioBatch *batch, int64_t began_before, size_t *left, size_t *ready)
{
    pthread_mutex_lock(&batch->lock);
    const bool can_be = batch->begun > 0 && !batch->is_closed && batch->since_ns <= began_before;
    *left = batch->count - batch->begun;
    *ready = batch->ready;
    pthread_mutex_unlock(&batch->lock);
    return can_be;
}

/* Take the results that there are, and the items that have not been begun. False if it has come to
 * its end by now, or memory is short. */
static bool
cut(AioTask *task, Split *split)
{
    AioBatch *batch = task->batch;
    bool is_cut = false;

    pthread_mutex_lock(&batch->lock);
    const size_t left = batch->count - batch->begun; /* not more than before */
    if (batch->is_closed) {
        goto done;
    }
    for (size_t i = 0, from = batch->begun; i < split->pieces && from < batch->count; i++) {
        const size_t size = piece_size(left, split->pieces, i);
        if (!copy_items(task, split->tasks[i], from, size)) {
            goto done;
        }
        from += size;
    }
    split->taken = left;
    batch->count = batch->begun;
    aio_message_move(&batch->results, &split->results);
    split->ready = batch->ready;
    batch->ready = 0;
    const int64_t now = aio_clock_ns();
    split->spent_ns = now - batch->since_ns;
    batch->since_ns = now;
    is_cut = true;
done:
    pthread_mutex_unlock(&batch->lock);
    return is_cut;
}

/* The future of a batch gets what there is; what remains of it has another one from now on. */
static void
hand_over(AioState *state, AioTask *task, PyObject *future, PyObject *outcome)
{
    PyObject *old = task->mail.owner_future;
    aio_future_unbind(&task->mail);
    task->mail.owner_future = Py_NewRef(future);
    aio_future_bind(state, &task->mail);
    PyObject *result =
        outcome == NULL ? NULL : PyObject_CallMethodOneArg(old, state->str_set_result, outcome);
    if (result == NULL) {
        PyErr_WriteUnraisable(old);
    }
    Py_XDECREF(result);
    Py_DECREF(old);
}

PyObject *
aio_batching_py_split(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Filling like = {.pool_object = self, .state = aio_pool_object_state(self)};
    AioPool *pool = aio_pool_object_pool(self);
    Split split = {0};
    PyObject *rest = NULL, *outcome = NULL, *answer = NULL;
    size_t *counts = NULL, left, ready;

    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "split(future, nanoseconds, pieces)");
        return NULL;
    }
    const int64_t age_ns = PyLong_AsLongLong(args[1]);
    const Py_ssize_t most = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    AioTask *task = batch_of(like.state, args[0]);
    if (task == NULL || !look(task->batch, aio_clock_ns() - age_ns, &left, &ready) ||
        (left == 0 && ready == 0)) {
        Py_RETURN_FALSE;
    }
    if ((like.bridge = aio_pool_object_bridge(self, NULL)) == NULL) {
        PyErr_Clear(); /* it takes no calls: what has been accepted stays where it is */
        Py_RETURN_FALSE;
    }
    aio_message_init(&split.results);
    like.function = (AioFunction *)task->function;
    like.priority = task->queue_node.priority;
    const size_t pieces = most < 1 ? 1 : (size_t)most;
    if (split_prepare(&split, &like, left, pieces < left ? pieces : left) < 0 ||
        (counts = PyMem_Calloc(split.pieces + 1, sizeof *counts)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    /* Making futures can run any code. */
    if (batch_of(like.state, args[0]) != task || like.bridge->channel == NULL ||
        atomic_load_explicit(&pool->closing, memory_order_relaxed) || !cut(task, &split)) {
        answer = Py_NewRef(Py_False);
        goto done;
    }
    counts[0] = 1;
    for (size_t i = 0; i < split.pieces; i++) {
        counts[i + 1] = split.tasks[i]->batch->count;
    }
    send_pieces(&split, &like);
    if (split.taken > 0) { /* they are counted with their pieces now */
        aio_pending_done_many(&pool->unfinished, (long)split.taken);
    }
    rest = rest_of(&split, counts);
    outcome = rest == NULL ? NULL
                           : aio_batch_decode(like.state, &split.results, split.ready,
                                              split.spent_ns, rest, NULL);
    hand_over(like.state, task, PyList_GET_ITEM(split.futures, 0), outcome);
    answer = Py_NewRef(Py_True);
done:
    Py_XDECREF(outcome);
    Py_XDECREF(rest);
    PyMem_Free(counts);
    split_clear(&split);
    Py_DECREF(like.bridge);
    return answer;
}
