/* batch.c: several calls that travel as one task: the worker's side, and the outcome.
 *
 * The worker encodes each result by itself, without the lock, since that can run Python code;
 * what it takes the lock for is to add the result to the others and to take the next item.
 */
#include "batch.h"

#include <stdlib.h>

#include "core/clock.h"
#include "failure.h"
#include "message_format.h"
#include "pool.h"
#include "prefetch.h"
#include "task.h"
#include "worker.h"

/* Results that are larger on the average had better travel alone. */
enum { LARGE_RESULT = 4 * 1024 };

AioBatch *
aio_batch_new(AioPool *pool, size_t room)
{
    AioBatch *batch = malloc(sizeof *batch + room * sizeof batch->ends[0]);
    if (batch == NULL || pthread_mutex_init(&batch->lock, NULL) != 0) {
        free(batch);
        PyErr_NoMemory();
        return NULL;
    }
    batch->pool = pool;
    batch->count = 0;
    batch->begun = 0;
    batch->is_counted = false;
    batch->is_closed = false;
    batch->ready = 0;
    batch->raised = false;
    batch->interrupted = false;
    batch->since_ns = 0;
    batch->spent_ns = 0;
    aio_message_init(&batch->results);
    aio_message_init(&batch->scratch);
    aio_message_init(&batch->failure);
    return batch;
}

void
aio_batch_free(AioBatch *batch)
{
    assert(!batch->is_counted);
    aio_message_clear(&batch->results);
    aio_message_clear(&batch->scratch);
    aio_message_clear(&batch->failure);
    pthread_mutex_destroy(&batch->lock);
    free(batch);
}

/* ---- counting ---- */

/* The queue counts tasks; the pool's `batched` is what there is beyond one item for each. */
void
aio_batch_count(AioBatch *batch)
{
    batch->is_counted = true;
    atomic_fetch_add_explicit(&batch->pool->batched, (long)batch->count - 1, memory_order_relaxed);
}

/* It has left the queue. `lock` must be held. */
static void
uncount(AioBatch *batch)
{
    if (batch->is_counted) {
        batch->is_counted = false;
        atomic_fetch_sub_explicit(&batch->pool->batched, (long)batch->count - 1,
                                  memory_order_relaxed);
    }
}

long
aio_batch_close(AioBatch *batch)
{
    pthread_mutex_lock(&batch->lock);
    uncount(batch);
    batch->is_closed = true;
    const size_t count = batch->count;
    pthread_mutex_unlock(&batch->lock);
    return (long)count;
}

unsigned long
aio_batch_done(AioBatch *batch)
{
    return batch->begun > 0 ? batch->begun : 1; /* none, if the function was not found */
}

/* ---- in the worker ---- */

/* Comes before each result. */
typedef struct Prefix {
    size_t size; /* of the value */
    size_t base; /* how much the results before it hold: places are counted from there */
} Prefix;

/* Let the results hold what `scratch` does. False where memory is short. */
static bool
keep_held(AioMessage *results, AioHeld *held)
{
    for (size_t i = 0; i < held->count; i++) {
        if (aio_message_hold(results, held->items[i]) < 0) {
            memmove(held->items, held->items + i, (held->count - i) * sizeof *held->items);
            held->count -= i;
            return false;
        }
    }
    held->count = 0;
    return true;
}

/* Append what is in `scratch` to the results. False where memory is short. */
static bool
keep_result(AioBatch *batch)
{
    AioMessage *results = &batch->results, *scratch = &batch->scratch;
    const Prefix prefix = {scratch->size - sizeof prefix, results->held.count};
    memcpy(scratch->data, &prefix, sizeof prefix);
    if (!keep_held(results, &scratch->held)) {
        return false;
    }
    if (results->size == 0 && scratch->data != scratch->inline_data) { /* it need not be copied */
        const AioHeld held = results->held;
        aio_message_clear_bytes(results, NULL);
        results->data = scratch->data;
        results->size = scratch->size;
        results->capacity = scratch->capacity;
        results->held = held;
        scratch->data = scratch->inline_data;
        scratch->capacity = AIO_MESSAGE_INLINE;
    }
    else {
        unsigned char *end = aio_message_extend(results, scratch->size);
        if (end == NULL) {
            return false;
        }
        memcpy(end, scratch->data, scratch->size);
    }
    scratch->size = 0;
    batch->ready++;
    return true;
}

/* Keep the result at hand, if there is one, and take the next item, unless nobody wants it:
 * where its bytes begin and end. False if there is none. */
static bool
next_item(AioBatch *batch, bool has_result, bool is_unwanted, size_t *start, size_t *end)
{
    bool has_next = false;
    pthread_mutex_lock(&batch->lock);
    const bool failed = has_result && !keep_result(batch);
    if (!failed && batch->begun < batch->count && !is_unwanted) {
        const size_t item = batch->begun++;
        *start = item == 0 ? 0 : batch->ends[item - 1];
        *end = batch->ends[item];
        has_next = true;
    }
    else {
        batch->interrupted = is_unwanted && batch->begun < batch->count;
        batch->is_closed = true;
    }
    pthread_mutex_unlock(&batch->lock);
    if (failed) {
        PyErr_NoMemory();
    }
    return has_next;
}

/* The result of the item with these bytes into `scratch`: 0, or -1 with an exception set. */
static int
run_item(AioState *state, const AioFunction *function, PyObject *callable, const AioMessage *items,
         size_t start, size_t end, AioMessage *scratch)
{
    PyObject *args = NULL, *kwargs = NULL, *value = NULL;
    int result = -1;
    AioMessage item; /* only what is read of a message that is no one's own */
    item.data = items->data + start;
    item.size = end - start;
    item.held = (AioHeld){0};

    if (aio_message_decode_call(state, &item, NULL, NULL, &args, &kwargs) < 0) {
        aio_function_note_not_begun(state, function);
        return -1;
    }
    value = PyObject_Call(callable, args, kwargs);
    if (value == NULL) {
        goto done;
    }
    if (aio_message_extend(scratch, sizeof(Prefix)) == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    result = aio_message_encode_value(state, scratch, value, "result");
done:
    Py_XDECREF(value);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    return result;
}

/* Nobody waits for the rest. What is interrupted notices by an exception, but functions in C
 * that are over at once never do. */
static bool
is_unwanted(AioTask *task)
{
    return atomic_load_explicit(&task->abandoned, memory_order_relaxed) ||
           aio_pool_is_stopping(task->pool);
}

int
aio_batch_run(AioWorker *worker, AioTask *task)
{
    AioState *state = worker->state;
    AioBatch *batch = task->batch;
    size_t start, end;

    pthread_mutex_lock(&batch->lock);
    uncount(batch);
    pthread_mutex_unlock(&batch->lock);
    PyObject *callable =
        Py_XNewRef(aio_function_resolve(state, &worker->functions, task->function));
    batch->since_ns = aio_clock_ns(); /* published with the first item that is begun */
    if (callable != NULL) {
        bool has_result = false;
        while (next_item(batch, has_result, has_result && is_unwanted(task), &start, &end)) {
            if (run_item(state, task->function, callable, &task->message, start, end,
                         &batch->scratch) < 0) {
                break;
            }
            has_result = true;
        }
        Py_DECREF(callable);
    }
    else {
        aio_function_note_not_begun(state, task->function);
    }
    (void)aio_batch_close(batch);
    batch->spent_ns = aio_clock_ns() - batch->since_ns;
    if (PyErr_Occurred()) {
        if (worker->interrupted && PyErr_ExceptionMatches(worker->interrupted_type)) {
            PyErr_Clear();
            batch->interrupted = true;
        }
        else {
            batch->raised = true;
            aio_worker_encode_failure(worker, &batch->failure);
        }
    }
    aio_message_clear(&task->message);
    if (batch->interrupted && batch->ready == 0) {
        return AIO_TASK_CANCELLED;
    }
    aio_message_move(&batch->results, &task->message);
    return AIO_TASK_RETURNED;
}

/* ---- for the owner ---- */

/* Append the values of `message` to `list`: 0, or -1 with an exception set. */
static int
decode_values(AioState *state, const AioMessage *message, size_t count, AioPrefetch *prefetch,
              PyObject *list)
{
    size_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        Prefix prefix;
        memcpy(&prefix, message->data + offset, sizeof prefix);
        offset += sizeof prefix;
        PyObject *value =
            aio_message_decode_part(state, message, offset, prefix.size, prefix.base, prefetch);
        offset += prefix.size;
        if (value == NULL) {
            return -1;
        }
        const int failed = PyList_Append(list, value);
        Py_DECREF(value);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* The error after the last result; NULL if there is none, or with an exception set. */
static PyObject *
error_of(AioState *state, AioBatch *batch)
{
    if (batch->raised) {
        return aio_failure_decode(state, &batch->failure, AIO_HELPER_REBUILD);
    }
    if (batch->interrupted) {
        PyObject *type = aio_helper(state, AIO_HELPER_CANCELLED_ERROR);
        return type == NULL ? NULL : PyObject_CallNoArgs(type);
    }
    return NULL;
}

PyObject *
aio_batch_decode(AioState *state, const AioMessage *message, size_t count, int64_t spent_ns,
                 PyObject *rest, AioTask *ended)
{
    PyObject *values = PyList_New(0), *error = NULL, *outcome = NULL;
    AioPrefetch *prefetch = ended == NULL ? NULL : ended->prefetch;
    if (values == NULL) {
        return NULL;
    }
    if (decode_values(state, message, count, prefetch, values) == 0 && ended != NULL) {
        error = error_of(state, ended->batch);
    }
    if (error == NULL && PyErr_Occurred()) {
        error = PyErr_GetRaisedException(); /* comes after what could be decoded */
    }
    const bool is_large = message->held.count > 0 || message->size > count * LARGE_RESULT;
    outcome = Py_BuildValue("(OOLOO)", values, error == NULL ? Py_None : error, (long long)spent_ns,
                            rest, is_large ? Py_True : Py_False);
    Py_XDECREF(error);
    Py_DECREF(values);
    return outcome;
}

PyObject *
aio_batch_outcome(AioState *state, AioTask *task)
{
    AioBatch *batch = task->batch;
    PyObject *rest = PyTuple_New(0);
    PyObject *outcome = rest == NULL ? NULL
                                     : aio_batch_decode(state, &task->message, batch->ready,
                                                        batch->spent_ns, rest, task);
    Py_XDECREF(rest);
    return outcome;
}
