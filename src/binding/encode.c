/* encode.c: Python values to the bytes of a message.
 *
 * Only exact types are encoded natively. A value in which anything else occurs, or any
 * object twice that has an identity to keep, is handed to pickle as a whole: that keeps
 * what its parts share, and cycles. If pickle refuses, the value is walked once more, part
 * by part, to find the part at fault, so that the error can name it.
 *
 * An object can only occur twice if it has more than one reference, besides those of our
 * own: so for most of a value one look at its count is all that this costs.
 *
 * Encoding runs Python code only through pickle; that code may change the very
 * container which is being encoded. So items are held by references of our own
 * and counts are checked again at the end.
 */
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "block.h"
#include "encode.h"
#include "home.h"
#include "message.h"
#include "message_format.h"
#include "parcel.h"
#include "queue.h"
#include "refusal.h"
#include "seen.h"
#include "shared.h"
#include "view.h"

/* Deeper values are handed to pickle, which either knows a cycle or reports
 * the depth. One level takes some 300 bytes of C stack. */
enum { MAX_DEPTH = 500 };

typedef enum Outcome {
    DONE = 0,
    FAILED = -1,      /* an exception is set */
    NEEDS_PICKLE = 1, /* something that only pickle can carry, or too deep */
} Outcome;

typedef struct Encoder {
    AioState *state;
    AioMessage *message;
    bool by_parts; /* pickle has a say: for the whole, or in the walk to find what is at fault */
    int depth;
    AioSeen seen; /* of the value at hand; its objects live as long as that does */
    AioRefusal refusal;
} Encoder;

/* `own`: how many references to the value are the encoder's own. */
static Outcome encode(Encoder *encoder, PyObject *value, Py_ssize_t own);

static Outcome
written(int failed)
{
    if (failed) {
        PyErr_NoMemory();
        return FAILED;
    }
    return DONE;
}

/* Note what may occur more than once in the value: NEEDS_PICKLE if it does. */
static Outcome
note(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
#ifndef Py_GIL_DISABLED /* without it the count is spread over threads */
    if (Py_REFCNT(value) <= 1 + own) {
        return DONE;
    }
#endif
    const int seen = aio_seen_add(&encoder->seen, value);
    return seen == 0 ? DONE : seen > 0 ? NEEDS_PICKLE : written(-1);
}

/* The same for what holds nothing else. */
static Outcome
note_leaf(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    return encoder->by_parts ? DONE : note(encoder, value, own);
}

/* Let the message hold `counted` (taken; NULL with an exception set). */
static Outcome
encode_held(Encoder *encoder, Tag tag, AioCounted *counted)
{
    if (counted == NULL) {
        return FAILED;
    }
    const int64_t place = aio_message_hold(encoder->message, counted);
    if (place < 0) {
        aio_counted_release(counted);
        return written(-1);
    }
    return written(aio_message_write_word(encoder->message, tag, &place));
}

static Outcome
encode_int(AioMessage *message, PyObject *value)
{
    int overflow = 0;
    const long long number = PyUnstable_Long_IsCompact((PyLongObject *)value)
                                 ? PyUnstable_Long_CompactValue((PyLongObject *)value)
                                 : PyLong_AsLongLongAndOverflow(value, &overflow);
    if (!overflow) {
        return written(aio_message_write_word(message, TAG_INT, &number));
    }
    const Py_ssize_t size = PyLong_AsNativeBytes(value, NULL, 0, -1);
    if (size < 0) {
        return FAILED;
    }
    if (aio_message_write_bytes(message, TAG_LONG, size, NULL, 0) < 0) {
        return written(-1);
    }
    unsigned char *bytes = aio_message_extend(message, (size_t)size);
    if (bytes == NULL) {
        return written(-1);
    }
    return PyLong_AsNativeBytes(value, bytes, size, -1) < 0 ? FAILED : DONE;
}

static Outcome
encode_complex(AioMessage *message, PyObject *value)
{
    const Py_complex number = PyComplex_AsCComplex(value);
    unsigned char *end = aio_message_extend(message, 1 + sizeof number);
    if (end == NULL) {
        return written(-1);
    }
    *end = TAG_COMPLEX;
    memcpy(end + 1, &number, sizeof number);
    return DONE;
}

/* A large str, bytes or bytearray: the receiver will copy it. */
static Outcome
lend(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    Outcome outcome = note_leaf(encoder, value, own);
    if (outcome == DONE) {
        AioBlock *block = aio_block_lend_copy(encoder->state, value);
        outcome = encode_held(encoder, TAG_LENT, block == NULL ? NULL : &block->counted);
        if (outcome == FAILED) {
            aio_refusal_begin(&encoder->refusal, value);
        }
    }
    return outcome;
}

/* Whether such a value of that size is lent. Where the interpreter ends nothing is. */
static bool
is_lent(Encoder *encoder, size_t size)
{
    return size >= AIO_LEND_MIN && !aio_home_is_closed(encoder->state->home);
}

static size_t
str_size(PyObject *value)
{
    return (size_t)PyUnicode_GET_LENGTH(value) * (size_t)PyUnicode_KIND(value);
}

static Outcome
encode_str(AioMessage *message, PyObject *value)
{
    const int kind = PyUnicode_KIND(value);
    const Tag tag = PyUnicode_IS_ASCII(value)      ? TAG_STR_ASCII
                    : kind == PyUnicode_1BYTE_KIND ? TAG_STR_1
                    : kind == PyUnicode_2BYTE_KIND ? TAG_STR_2
                                                   : TAG_STR_4;
    return written(aio_message_write_bytes(message, tag, PyUnicode_GET_LENGTH(value),
                                           PyUnicode_DATA(value), str_size(value)));
}

static Outcome
encode_bytes(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    const Py_ssize_t size = PyBytes_GET_SIZE(value);
    if (is_lent(encoder, (size_t)size)) {
        return lend(encoder, value, own);
    }
    return written(aio_message_write_bytes(encoder->message, TAG_BYTES, size,
                                           PyBytes_AS_STRING(value), (size_t)size));
}

static Outcome
encode_bytearray(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    const Py_ssize_t size = PyByteArray_GET_SIZE(value);
    if (is_lent(encoder, (size_t)size)) {
        return lend(encoder, value, own);
    }
    Outcome outcome = note_leaf(encoder, value, own);
    if (outcome == DONE) {
        Py_BEGIN_CRITICAL_SECTION(value); /* it might be resized, without a GIL */
        const Py_ssize_t now = PyByteArray_GET_SIZE(value);
        outcome = written(aio_message_write_bytes(encoder->message, TAG_BYTEARRAY, now,
                                                  PyByteArray_AS_STRING(value), (size_t)now));
        Py_END_CRITICAL_SECTION();
    }
    return outcome;
}

static Outcome
encode_memoryview(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    Outcome outcome = note_leaf(encoder, value, own);
    if (outcome == DONE) {
        AioView *view = aio_view_new(encoder->state, value);
        outcome = encode_held(encoder, TAG_MEMORYVIEW, view == NULL ? NULL : &view->counted);
        if (outcome == FAILED) {
            aio_refusal_begin(&encoder->refusal, value);
        }
    }
    return outcome;
}

/* ---- pickle ---- */

bool
aio_goes_beside_pickle(AioState *state, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyUnicode_Type) {
        return str_size(object) >= AIO_LEND_MIN;
    }
    if (type == &PyBytes_Type) {
        return PyBytes_GET_SIZE(object) >= AIO_LEND_MIN;
    }
    if (type == &PyByteArray_Type) {
        return PyByteArray_GET_SIZE(object) >= AIO_LEND_MIN;
    }
    return type == &PyMemoryView_Type || type == state->shared_type ||
           aio_queue_is_one(state, object);
}

/* An out-of-band buffer: as bytes without a shape, as pickle's own consumers get it. */
static Outcome
encode_buffer(Encoder *encoder, PyObject *buffer)
{
    PyObject *raw = PyObject_CallMethodNoArgs(buffer, encoder->state->str_raw);
    if (raw == NULL && PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Clear(); /* it is not contiguous */
        raw = PyMemoryView_FromObject(buffer);
    }
    if (raw == NULL) {
        return FAILED;
    }
    Outcome outcome = encode_memoryview(encoder, raw, 0);
    Py_DECREF(raw);
    return outcome;
}

/* What lies beside a pickle: each of `list` by `encode_item`. */
static Outcome
encode_beside(Encoder *encoder, PyObject *list, Outcome (*encode_item)(Encoder *, PyObject *))
{
    const Py_ssize_t count = PyList_GET_SIZE(list);
    Outcome outcome = written(aio_message_write_count(encoder->message, TAG_LIST, count));
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        outcome = encode_item(encoder, PyList_GET_ITEM(list, i));
    }
    return outcome;
}

static Outcome
encode_object_beside(Encoder *encoder, PyObject *object)
{
    return encode(encoder, object, 0);
}

/* Objects that the receiver finds by a name of their own are kept until it has. */
static Outcome
keep_alive(Encoder *encoder, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        AioBlock *block = aio_block_keep(encoder->state, PyList_GET_ITEM(list, i));
        if (block == NULL) {
            return FAILED;
        }
        if (aio_message_hold(encoder->message, &block->counted) < 0) {
            aio_block_release(block);
            return written(-1);
        }
    }
    return DONE;
}

static Outcome
encode_pickled(Encoder *encoder, PyObject *value)
{
    AioState *state = encoder->state;
    PyObject *pickle = NULL;
    Outcome outcome = FAILED;
    PyObject *dumps = aio_helper(state, AIO_HELPER_DUMPS);
    PyObject *parcel = dumps == NULL ? NULL : aio_parcel_new(state);

    if (parcel == NULL) {
        goto done;
    }
    pickle = PyObject_CallFunctionObjArgs(dumps, value, parcel, NULL);
    if (pickle == NULL) {
        aio_refusal_begin(&encoder->refusal, value);
        goto done;
    }
    /* Nothing is noted here: what goes beside it was met once each by the pickler. */
    assert(encoder->by_parts);
    outcome = written(aio_message_write_tag(encoder->message, TAG_PICKLE));
    if (outcome == DONE) {
        outcome = encode_bytes(encoder, pickle, 0);
    }
    if (outcome == DONE) {
        outcome = encode_beside(encoder, aio_parcel_buffers(parcel), encode_buffer);
    }
    if (outcome == DONE) {
        outcome = encode_beside(encoder, aio_parcel_objects(parcel), encode_object_beside);
    }
    if (outcome == DONE) {
        outcome = keep_alive(encoder, aio_parcel_kept(parcel));
    }
done:
    Py_XDECREF(pickle);
    Py_XDECREF(parcel);
    return outcome;
}

/* ---- containers ---- */

static Outcome
changed_size(Encoder *encoder, PyObject *value)
{
    PyErr_Format(PyExc_RuntimeError, "%T changed size while it was being sent", value);
    aio_refusal_begin(&encoder->refusal, value);
    return FAILED;
}

static Outcome
encode_tuple(Encoder *encoder, PyObject *value)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(value);
    Outcome outcome = written(aio_message_write_count(encoder->message, TAG_TUPLE, count));
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        outcome = encode(encoder, PyTuple_GET_ITEM(value, i), 0);
        if (outcome == FAILED) {
            aio_refusal_prepend_index(&encoder->refusal, i);
        }
    }
    return outcome;
}

static Outcome
encode_list(Encoder *encoder, PyObject *value)
{
    const Py_ssize_t count = PyList_GET_SIZE(value);
    Outcome outcome = written(aio_message_write_count(encoder->message, TAG_LIST, count));
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        PyObject *item = PyList_GetItemRef(value, i);
        if (item == NULL) {
            PyErr_Clear(); /* the list shrank */
            return changed_size(encoder, value);
        }
        outcome = encode(encoder, item, 1);
        if (outcome == FAILED) {
            aio_refusal_prepend_index(&encoder->refusal, i);
        }
        Py_DECREF(item);
    }
    if (outcome == DONE && PyList_GET_SIZE(value) != count) {
        return changed_size(encoder, value);
    }
    return outcome;
}

static Outcome
encode_dict(Encoder *encoder, PyObject *value)
{
    const Py_ssize_t count = PyDict_GET_SIZE(value);
    Py_ssize_t position = 0, seen = 0;
    PyObject *key, *item;
    Outcome outcome = written(aio_message_write_count(encoder->message, TAG_DICT, count));

    while (outcome == DONE) {
        bool more;
        /* PyDict_Next lends its references: take our own before anything else runs. */
        Py_BEGIN_CRITICAL_SECTION(value);
        more = PyDict_Next(value, &position, &key, &item);
        if (more) {
            Py_INCREF(key);
            Py_INCREF(item);
        }
        Py_END_CRITICAL_SECTION();
        if (!more) {
            break;
        }
        if (++seen > count) {
            outcome = changed_size(encoder, value);
        }
        else if ((outcome = encode(encoder, key, 1)) == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, encoder->state, " key %U", key);
        }
        else if (outcome == DONE && (outcome = encode(encoder, item, 1)) == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, encoder->state, "[%U]", key);
        }
        Py_DECREF(key);
        Py_DECREF(item);
    }
    if (outcome == DONE && seen != count) {
        return changed_size(encoder, value);
    }
    return outcome;
}

static Outcome
encode_set(Encoder *encoder, PyObject *value, Tag tag)
{
    const Py_ssize_t count = PySet_GET_SIZE(value);
    Py_ssize_t seen = 0;
    PyObject *item;
    PyObject *iterator = PyObject_GetIter(value);
    if (iterator == NULL) {
        return FAILED;
    }
    Outcome outcome = written(aio_message_write_count(encoder->message, tag, count));
    while (outcome == DONE && (item = PyIter_Next(iterator)) != NULL) {
        seen++;
        outcome = encode(encoder, item, 1);
        if (outcome == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, encoder->state, "{%U}", item);
        }
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    if (outcome == DONE && PyErr_Occurred()) {
        aio_refusal_begin(&encoder->refusal, value);
        return FAILED;
    }
    if (outcome == DONE && seen != count) {
        return changed_size(encoder, value);
    }
    return outcome;
}

static Outcome
encode_nested(Encoder *encoder, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyTuple_Type) {
        return encode_tuple(encoder, value);
    }
    if (type == &PyList_Type) {
        return encode_list(encoder, value);
    }
    if (type == &PyDict_Type) {
        return encode_dict(encoder, value);
    }
    return encode_set(encoder, value, type == &PySet_Type ? TAG_SET : TAG_FROZENSET);
}

static bool
is_container(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyTuple_Type || type == &PyList_Type || type == &PyDict_Type ||
           type == &PySet_Type || type == &PyFrozenSet_Type;
}

static Outcome
encode_container(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    if (encoder->depth >= MAX_DEPTH) {
        return encoder->by_parts ? encode_pickled(encoder, value) : NEEDS_PICKLE;
    }
    /* There is only one empty tuple: that it occurs twice says nothing. */
    const bool is_nothing = PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) == 0;
    Outcome outcome = is_nothing ? DONE : note(encoder, value, own);
    if (outcome == NEEDS_PICKLE && encoder->by_parts) {
        return DONE; /* it has been looked at, or is being looked at */
    }
    if (outcome != DONE) {
        return outcome;
    }
    if (Py_EnterRecursiveCall(" while sending a value to another interpreter")) {
        aio_refusal_begin(&encoder->refusal, value);
        return FAILED;
    }
    encoder->depth++;
    outcome = encode_nested(encoder, value);
    encoder->depth--;
    Py_LeaveRecursiveCall();
    return outcome;
}

static Outcome
encode(Encoder *encoder, PyObject *value, Py_ssize_t own)
{
    AioMessage *message = encoder->message;
    AioState *state = encoder->state;
    PyTypeObject *type = Py_TYPE(value);

    if (type == &PyUnicode_Type) {
        return is_lent(encoder, str_size(value)) ? lend(encoder, value, own)
                                                 : encode_str(message, value);
    }
    if (type == &PyLong_Type) {
        return encode_int(message, value);
    }
    if (type == &PyFloat_Type) {
        const double number = PyFloat_AS_DOUBLE(value);
        return written(aio_message_write_word(message, TAG_FLOAT, &number));
    }
    if (type == &PyBool_Type) {
        return written(aio_message_write_tag(message, value == Py_True ? TAG_TRUE : TAG_FALSE));
    }
    if (value == Py_None) {
        return written(aio_message_write_tag(message, TAG_NONE));
    }
    if (type == &PyBytes_Type) {
        return encode_bytes(encoder, value, own);
    }
    if (is_container(value)) {
        return encode_container(encoder, value, own);
    }
    if (type == &PyComplex_Type) {
        return encode_complex(message, value);
    }
    if (type == &PyByteArray_Type) {
        return encode_bytearray(encoder, value, own);
    }
    if (type == &PyMemoryView_Type) {
        return encode_memoryview(encoder, value, own);
    }
    if (type == state->shared_type) {
        return encode_held(encoder, TAG_SHARED, aio_shared_acquire(value));
    }
    if (aio_queue_is_one(state, value)) {
        return encode_held(encoder, type == state->queue_type ? TAG_PLAIN_QUEUE : TAG_QUEUE,
                           aio_queue_acquire(value));
    }
    return encoder->by_parts ? encode_pickled(encoder, value) : NEEDS_PICKLE;
}

/* Pickle has refused a container, which is an exception that is set: find out which of
 * its parts is at fault. The exception is replaced if that can be found. */
static void
find_culprit(Encoder *encoder, PyObject *value, size_t start, size_t held)
{
    PyObject *exception = PyErr_GetRaisedException();
    AioRefusal whole = encoder->refusal;

    encoder->refusal = (AioRefusal){0};
    aio_message_truncate(encoder->message, start, held);
    Outcome outcome = encode(encoder, value, 0);
    aio_seen_clear(&encoder->seen);
    if (outcome == FAILED && aio_refusal_is_set(&encoder->refusal)) {
        aio_refusal_clear(&whole);
        Py_DECREF(exception);
        return;
    }
    /* Each part by itself could be sent: it is the whole that can't. */
    aio_refusal_clear(&encoder->refusal);
    encoder->refusal = whole;
    PyErr_SetRaisedException(exception);
}

/* One argument or result: natively if it can be, else by pickle as a whole. */
static Outcome
encode_whole(Encoder *encoder, PyObject *value)
{
    AioMessage *message = encoder->message;
    const size_t start = message->size, held = message->held.count;

    encoder->by_parts = false;
    Outcome outcome = encode(encoder, value, 0);
    aio_seen_clear(&encoder->seen);
    if (outcome != NEEDS_PICKLE) {
        return outcome;
    }
    aio_message_truncate(message, start, held);
    encoder->by_parts = true;
    outcome = encode_pickled(encoder, value);
    if (outcome == FAILED && is_container(value) && aio_refusal_is_set(&encoder->refusal)) {
        find_culprit(encoder, value, start, held);
    }
    return outcome;
}

static void
encoder_init(Encoder *encoder, AioState *state, AioMessage *message)
{
    aio_home_settle(state->home);
    encoder->state = state;
    encoder->message = message;
    encoder->by_parts = false;
    encoder->depth = 0;
    encoder->refusal = (AioRefusal){0};
    aio_seen_init(&encoder->seen);
}

int
aio_message_encode_value(AioState *state, AioMessage *message, PyObject *value, const char *root)
{
    Encoder encoder;
    encoder_init(&encoder, state, message);
    if (encode_whole(&encoder, value) == DONE) {
        return 0;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *start = PyUnicode_FromString(root);
    PyErr_SetRaisedException(exception);
    return aio_refusal_raise(&encoder.refusal, state, start);
}

/* How the path of what has a name begins; `format` has one %R for it. */
static PyObject *
keyed_root(const char *format, PyObject *name)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *root = PyUnicode_FromFormat(format, name);
    PyErr_Clear();
    PyErr_SetRaisedException(exception);
    return root;
}

/* Append the pairs of a name and a value in `context`. 0, or -1 with an exception set. */
static int
encode_context(Encoder *encoder, PyObject *context)
{
    AioMessage *message = encoder->message;
    const Py_ssize_t count = PyTuple_GET_SIZE(context);

    if (aio_message_write_count(message, TAG_TUPLE, count) < 0) {
        return written(-1);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(context, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 0))) {
            PyErr_SetString(PyExc_TypeError, "a context is pairs of a name and a value");
            return -1;
        }
        PyObject *name = PyTuple_GET_ITEM(pair, 0);
        if (aio_message_write_count(message, TAG_TUPLE, 2) < 0) {
            return written(-1);
        }
        if (encode_str(message, name) != DONE) {
            return -1;
        }
        if (encode_whole(encoder, PyTuple_GET_ITEM(pair, 1)) != DONE) {
            return aio_refusal_raise(&encoder->refusal, encoder->state,
                                     keyed_root("context[%R]", name));
        }
    }
    return 0;
}

/* How the path of a positional argument begins. */
static PyObject *
argument_root(Py_ssize_t index)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *root = PyUnicode_FromFormat("args[%zd]", index);
    PyErr_Clear();
    PyErr_SetRaisedException(exception);
    return root;
}

int
aio_message_encode_call(AioState *state, AioMessage *message, PyObject *context, PyObject *callable,
                        PyObject *args, PyObject *kwargs)
{
    Encoder encoder;
    encoder_init(&encoder, state, message);
    const Py_ssize_t positional = PyTuple_GET_SIZE(args);
    const Py_ssize_t keywords = kwargs == NULL ? 0 : PyDict_GET_SIZE(kwargs);
    PyObject *key, *value;

    if (context != NULL && encode_context(&encoder, context) < 0) {
        return -1;
    }
    if (callable != NULL && encode_whole(&encoder, callable) != DONE) {
        return aio_refusal_raise(&encoder.refusal, state, PyUnicode_FromString("function"));
    }
    if (aio_message_write_count(message, TAG_TUPLE, positional) < 0) {
        return written(-1);
    }
    for (Py_ssize_t i = 0; i < positional; i++) {
        if (encode_whole(&encoder, PyTuple_GET_ITEM(args, i)) != DONE) {
            return aio_refusal_raise(&encoder.refusal, state, argument_root(i));
        }
    }
    if (aio_message_write_count(message, TAG_DICT, keywords) < 0) {
        return written(-1);
    }
    /* The dict was made for this call: nobody else can change it. */
    for (Py_ssize_t position = 0; keywords > 0 && PyDict_Next(kwargs, &position, &key, &value);) {
        if (!PyUnicode_CheckExact(key)) {
            PyErr_SetString(PyExc_TypeError, "keywords must be strings");
            return -1;
        }
        if (encode_str(message, key) != DONE) {
            return -1;
        }
        if (encode_whole(&encoder, value) != DONE) {
            return aio_refusal_raise(&encoder.refusal, state, keyed_root("kwargs[%R]", key));
        }
    }
    return 0;
}
