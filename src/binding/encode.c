/* encode.c: Python values to the bytes of a message.
 *
 * Only exact types are encoded natively. A value in which anything else occurs is
 * handed to pickle as a whole: that keeps what its parts share, and cycles. If
 * pickle refuses, the value is tried part by part, so that what only one of the
 * two ways can carry passes side by side, and so that the error can name the
 * part at fault.
 *
 * Encoding runs Python code only through pickle; that code may change the very
 * container which is being encoded. So items are held by references of our own
 * and counts are checked again at the end.
 */
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "message.h"
#include "message_format.h"
#include "refusal.h"

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
    bool by_parts; /* pickle what needs it where it stands, instead of giving up */
    int depth;
    AioRefusal refusal;
} Encoder;

static Outcome encode(Encoder *encoder, PyObject *value);

static Outcome
written(int failed)
{
    if (failed) {
        PyErr_NoMemory();
        return FAILED;
    }
    return DONE;
}

static Outcome
encode_pickled(Encoder *encoder, PyObject *value)
{
    PyObject *dumps = aio_helper(encoder->state, AIO_HELPER_DUMPS);
    if (dumps == NULL) {
        return FAILED;
    }
    PyObject *pickle = PyObject_CallOneArg(dumps, value);
    if (pickle == NULL) {
        aio_refusal_begin(&encoder->refusal, value);
        return FAILED;
    }
    Outcome outcome = written(
        aio_message_write_bytes(encoder->message, TAG_PICKLE, PyBytes_GET_SIZE(pickle),
                                PyBytes_AS_STRING(pickle), (size_t)PyBytes_GET_SIZE(pickle)));
    Py_DECREF(pickle);
    return outcome;
}

static Outcome
encode_int(AioMessage *message, PyObject *value)
{
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
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

static Outcome
encode_str(AioMessage *message, PyObject *value)
{
    const Py_ssize_t length = PyUnicode_GET_LENGTH(value);
    const int kind = PyUnicode_KIND(value);
    const Tag tag = PyUnicode_IS_ASCII(value)      ? TAG_STR_ASCII
                    : kind == PyUnicode_1BYTE_KIND ? TAG_STR_1
                    : kind == PyUnicode_2BYTE_KIND ? TAG_STR_2
                                                   : TAG_STR_4;
    return written(aio_message_write_bytes(message, tag, length, PyUnicode_DATA(value),
                                           (size_t)length * (size_t)kind));
}

static Outcome
encode_memoryview(Encoder *encoder, PyObject *value)
{
    AioMessage *message = encoder->message;
    Outcome outcome = FAILED;
    Py_buffer view;

    /* Raises for a view that has been released. */
    if (PyObject_GetBuffer(value, &view, PyBUF_FULL_RO) < 0) {
        aio_refusal_begin(&encoder->refusal, value);
        return FAILED;
    }
    const char *format = view.format == NULL ? "B" : view.format;
    const int64_t header[] = {view.len, view.itemsize, view.ndim, view.readonly,
                              (int64_t)strlen(format) + 1};
    const size_t size = 1 + sizeof header + sizeof(int64_t) * (size_t)view.ndim +
                        (size_t)header[4] + (size_t)view.len;
    unsigned char *end = aio_message_extend(message, size);
    if (end == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    *end++ = TAG_MEMORYVIEW;
    memcpy(end, header, sizeof header);
    end += sizeof header;
    for (int i = 0; i < view.ndim; i++) {
        const int64_t extent = view.shape[i];
        memcpy(end, &extent, sizeof extent);
        end += sizeof extent;
    }
    memcpy(end, format, (size_t)header[4]);
    end += header[4];
    if (PyBuffer_ToContiguous(end, &view, view.len, 'C') < 0) {
        goto done;
    }
    outcome = DONE;
done:
    PyBuffer_Release(&view);
    return outcome;
}

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
        outcome = encode(encoder, PyTuple_GET_ITEM(value, i));
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
        outcome = encode(encoder, item);
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
        else if ((outcome = encode(encoder, key)) == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, " key %U", key);
        }
        else if (outcome == DONE && (outcome = encode(encoder, item)) == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, "[%U]", key);
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
        outcome = encode(encoder, item);
        if (outcome == FAILED) {
            aio_refusal_prepend_key(&encoder->refusal, "{%U}", item);
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
encode(Encoder *encoder, PyObject *value)
{
    AioMessage *message = encoder->message;
    PyTypeObject *type = Py_TYPE(value);

    if (type == &PyUnicode_Type) {
        return encode_str(message, value);
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
        return written(aio_message_write_bytes(message, TAG_BYTES, PyBytes_GET_SIZE(value),
                                               PyBytes_AS_STRING(value),
                                               (size_t)PyBytes_GET_SIZE(value)));
    }
    if (is_container(value)) {
        if (encoder->depth >= MAX_DEPTH) {
            return encoder->by_parts ? encode_pickled(encoder, value) : NEEDS_PICKLE;
        }
        if (Py_EnterRecursiveCall(" while sending a value to another interpreter")) {
            aio_refusal_begin(&encoder->refusal, value);
            return FAILED;
        }
        encoder->depth++;
        Outcome outcome = encode_nested(encoder, value);
        encoder->depth--;
        Py_LeaveRecursiveCall();
        return outcome;
    }
    if (type == &PyComplex_Type) {
        return encode_complex(message, value);
    }
    if (type == &PyByteArray_Type) {
        return written(aio_message_write_bytes(message, TAG_BYTEARRAY, PyByteArray_GET_SIZE(value),
                                               PyByteArray_AS_STRING(value),
                                               (size_t)PyByteArray_GET_SIZE(value)));
    }
    if (type == &PyMemoryView_Type) {
        return encode_memoryview(encoder, value);
    }
    return encoder->by_parts ? encode_pickled(encoder, value) : NEEDS_PICKLE;
}

/* One argument or result: natively if it can be, else by pickle as a whole,
 * else part by part. */
static Outcome
encode_whole(Encoder *encoder, PyObject *value)
{
    const size_t start = encoder->message->size;

    encoder->by_parts = false;
    Outcome outcome = encode(encoder, value);
    if (outcome != NEEDS_PICKLE) {
        return outcome;
    }
    encoder->message->size = start;
    encoder->by_parts = true;
    if (!is_container(value)) {
        return encode_pickled(encoder, value);
    }
    outcome = encode_pickled(encoder, value);
    if (outcome == FAILED && aio_refusal_is_set(&encoder->refusal)) {
        aio_refusal_clear(&encoder->refusal);
        PyErr_Clear();
        encoder->message->size = start;
        outcome = encode(encoder, value);
    }
    return outcome;
}

int
aio_message_encode_value(AioState *state, AioMessage *message, PyObject *value, const char *root)
{
    Encoder encoder = {.state = state, .message = message};
    if (encode_whole(&encoder, value) == DONE) {
        return 0;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *start = PyUnicode_FromString(root);
    PyErr_SetRaisedException(exception);
    return aio_refusal_raise(&encoder.refusal, state, start);
}

/* How the path of an argument begins: args[3], or kwargs['name']. */
static PyObject *
argument_root(Py_ssize_t index, PyObject *keyword)
{
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *root = keyword == NULL ? PyUnicode_FromFormat("args[%zd]", index)
                                     : PyUnicode_FromFormat("kwargs[%R]", keyword);
    PyErr_Clear();
    PyErr_SetRaisedException(exception);
    return root;
}

int
aio_message_encode_call(AioState *state, AioMessage *message, PyObject *callable, PyObject *args,
                        PyObject *kwargs)
{
    Encoder encoder = {.state = state, .message = message};
    const Py_ssize_t positional = PyTuple_GET_SIZE(args);
    const Py_ssize_t keywords = kwargs == NULL ? 0 : PyDict_GET_SIZE(kwargs);
    PyObject *key, *value;

    if (callable != NULL && encode_pickled(&encoder, callable) != DONE) {
        return aio_refusal_raise(&encoder.refusal, state, PyUnicode_FromString("function"));
    }
    if (aio_message_write_count(message, TAG_TUPLE, positional) < 0) {
        return written(-1);
    }
    for (Py_ssize_t i = 0; i < positional; i++) {
        if (encode_whole(&encoder, PyTuple_GET_ITEM(args, i)) != DONE) {
            return aio_refusal_raise(&encoder.refusal, state, argument_root(i, NULL));
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
            return aio_refusal_raise(&encoder.refusal, state, argument_root(0, key));
        }
    }
    return 0;
}
