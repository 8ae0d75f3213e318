/* message.c: encode and decode values.
 *
 * Every value is one byte that tells its kind, and what that kind needs, with
 * lengths as 8 bytes in the machine's own order:
 *
 *     None, True, False    nothing more
 *     int                  8 bytes; or a length and two's complement bytes
 *     float, complex       8 or 16 bytes
 *     str                  length and code units of 1, 2 or 4 bytes, as CPython
 *                          stores them (so lone surrogates pass)
 *     bytes, bytearray     length and bytes
 *     memoryview           format, shape, flags, bytes
 *     tuple list set ...   count and the values; a dict: keys and values in turn
 *     pickle               length and bytes
 *
 * Only exact types are encoded so. A value in which anything else occurs is
 * handed to pickle as a whole: that keeps what its parts share, and cycles. If
 * pickle refuses, the value is tried part by part, so that what only one of the
 * two ways can carry passes side by side, and so that the error can name the
 * part at fault.
 *
 * The path to a culprit costs nothing while all goes well: it is put together
 * from the inside out while the failed encoding unwinds.
 *
 * Encoding runs Python code only through pickle; that code may change the very
 * container which is being encoded. So items are held by references of our own
 * and counts are checked again at the end.
 */
#include "message.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* Deeper values are handed to pickle, which either knows a cycle or reports
 * the depth. One level takes some 300 bytes of C stack. */
enum { MAX_DEPTH = 500 };

/* Longer paths and reprs are of no use to a reader. */
enum { MAX_PATH = 300, MAX_KEY_REPR = 60 };

typedef enum Tag {
    TAG_NONE = 'N',
    TAG_TRUE = 'T',
    TAG_FALSE = 'F',
    TAG_INT = 'i',
    TAG_LONG = 'I',
    TAG_FLOAT = 'f',
    TAG_COMPLEX = 'c',
    TAG_STR_ASCII = 'a',
    TAG_STR_1 = '1',
    TAG_STR_2 = '2',
    TAG_STR_4 = '4',
    TAG_BYTES = 'b',
    TAG_BYTEARRAY = 'B',
    TAG_MEMORYVIEW = 'm',
    TAG_TUPLE = 't',
    TAG_LIST = 'l',
    TAG_DICT = 'd',
    TAG_SET = 's',
    TAG_FROZENSET = 'z',
    TAG_PICKLE = 'p',
} Tag;

void
aio_message_init(AioMessage *message)
{
    message->data = message->inline_data;
    message->size = 0;
    message->capacity = AIO_MESSAGE_INLINE;
}

void
aio_message_clear(AioMessage *message)
{
    if (message->data != message->inline_data) {
        free(message->data);
    }
    aio_message_init(message);
}

/* ---- writing ------------------------------------------------------------- */

/* Room for `more` bytes at the end, and count them as written; NULL if there is
 * no memory (no exception is set: this needs no GIL). */
static unsigned char *
extend(AioMessage *message, size_t more)
{
    if (more > message->capacity - message->size) {
        if (more > SIZE_MAX / 4 - message->size) {
            return NULL;
        }
        size_t capacity = message->size + more;
        capacity += capacity / 2;
        bool is_inline = message->data == message->inline_data;
        unsigned char *data = realloc(is_inline ? NULL : message->data, capacity);
        if (data == NULL) {
            return NULL;
        }
        if (is_inline) {
            memcpy(data, message->inline_data, message->size);
        }
        message->data = data;
        message->capacity = capacity;
    }
    unsigned char *end = message->data + message->size;
    message->size += more;
    return end;
}

static int
write_tag(AioMessage *message, Tag tag)
{
    unsigned char *end = extend(message, 1);
    if (end == NULL) {
        return -1;
    }
    *end = (unsigned char)tag;
    return 0;
}

/* A tag and 8 bytes. */
static int
write_word(AioMessage *message, Tag tag, const void *word)
{
    unsigned char *end = extend(message, 1 + 8);
    if (end == NULL) {
        return -1;
    }
    *end = (unsigned char)tag;
    memcpy(end + 1, word, 8);
    return 0;
}

static int
write_count(AioMessage *message, Tag tag, Py_ssize_t count)
{
    const uint64_t word = (uint64_t)count;
    return write_word(message, tag, &word);
}

/* A tag, `count`, and `size` bytes (which is `count` times the unit's size). */
static int
write_bytes(AioMessage *message, Tag tag, Py_ssize_t count, const void *bytes, size_t size)
{
    const uint64_t word = (uint64_t)count;
    unsigned char *end = extend(message, 1 + 8 + size);
    if (end == NULL) {
        return -1;
    }
    *end = (unsigned char)tag;
    memcpy(end + 1, &word, 8);
    if (size > 0) {
        memcpy(end + 9, bytes, size);
    }
    return 0;
}

int
aio_message_write_failure(AioMessage *message, const char *type_name, const char *text)
{
    aio_message_clear(message);
    if (write_count(message, TAG_TUPLE, 4) < 0 || write_tag(message, TAG_NONE) < 0 ||
        write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(type_name), type_name,
                    strlen(type_name)) < 0 ||
        write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(text), text, strlen(text)) < 0 ||
        write_bytes(message, TAG_STR_ASCII, 0, "", 0) < 0) {
        aio_message_clear(message);
        return -1;
    }
    return 0;
}

/* ---- encoding ------------------------------------------------------------ */

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
    /* Once a value was refused: the name of its type, and the path to it so far
     * (both owned; NULL before). The exception that is set is pickle's own. */
    PyObject *culprit;
    PyObject *path;
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

/* The exception that is set means that `value` cannot cross: note whose fault
 * it is. What is no refusal (no memory, Ctrl-C) passes as it is. */
static void
blame(Encoder *encoder, PyObject *value)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    encoder->culprit = PyType_GetName(Py_TYPE(value));
    encoder->path = PyUnicode_FromString("");
    if (encoder->culprit == NULL || encoder->path == NULL) {
        Py_CLEAR(encoder->culprit);
        Py_CLEAR(encoder->path);
        PyErr_Clear();
    }
    PyErr_SetRaisedException(exception);
}

/* Put a part before the path of the culprit, if there is one. `part` is taken
 * (NULL is passed over). The exception that is set stays. */
static void
prepend_path(Encoder *encoder, PyObject *part)
{
    if (part != NULL && encoder->path != NULL && PyUnicode_GET_LENGTH(encoder->path) < MAX_PATH) {
        PyObject *exception = PyErr_GetRaisedException();
        PyObject *path = PyUnicode_Concat(part, encoder->path);
        if (path != NULL) {
            Py_SETREF(encoder->path, path);
        }
        else {
            PyErr_Clear();
        }
        PyErr_SetRaisedException(exception);
    }
    Py_XDECREF(part);
}

static void
prepend_index(Encoder *encoder, Py_ssize_t index)
{
    if (encoder->path == NULL) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *part = PyUnicode_FromFormat("[%zd]", index);
    PyErr_Clear();
    PyErr_SetRaisedException(exception);
    prepend_path(encoder, part);
}

/* `format` has one %U, for the repr of `key`, shortened. */
static void
prepend_key(Encoder *encoder, const char *format, PyObject *key)
{
    if (encoder->path == NULL) {
        return;
    }
    PyObject *exception = PyErr_GetRaisedException();
    PyObject *part = NULL;
    PyObject *repr = PyObject_Repr(key);
    if (repr != NULL && PyUnicode_GET_LENGTH(repr) > MAX_KEY_REPR) {
        PyObject *start = PyUnicode_Substring(repr, 0, MAX_KEY_REPR);
        Py_SETREF(repr, start == NULL ? NULL : PyUnicode_FromFormat("%U...", start));
        Py_XDECREF(start);
    }
    if (repr != NULL) {
        part = PyUnicode_FromFormat(format, repr);
    }
    else {
        PyErr_Clear();
        part = PyUnicode_FromString("[?]");
    }
    Py_XDECREF(repr);
    PyErr_Clear();
    PyErr_SetRaisedException(exception);
    prepend_path(encoder, part);
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
        blame(encoder, value);
        return FAILED;
    }
    Outcome outcome = written(write_bytes(encoder->message, TAG_PICKLE, PyBytes_GET_SIZE(pickle),
                                          PyBytes_AS_STRING(pickle),
                                          (size_t)PyBytes_GET_SIZE(pickle)));
    Py_DECREF(pickle);
    return outcome;
}

static Outcome
encode_int(AioMessage *message, PyObject *value)
{
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (!overflow) {
        return written(write_word(message, TAG_INT, &number));
    }
    const Py_ssize_t size = PyLong_AsNativeBytes(value, NULL, 0, -1);
    if (size < 0) {
        return FAILED;
    }
    if (write_bytes(message, TAG_LONG, size, NULL, 0) < 0) {
        return written(-1);
    }
    unsigned char *bytes = extend(message, (size_t)size);
    if (bytes == NULL) {
        return written(-1);
    }
    return PyLong_AsNativeBytes(value, bytes, size, -1) < 0 ? FAILED : DONE;
}

static Outcome
encode_complex(AioMessage *message, PyObject *value)
{
    const Py_complex number = PyComplex_AsCComplex(value);
    unsigned char *end = extend(message, 1 + sizeof number);
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
    const Tag tag = PyUnicode_IS_ASCII(value)   ? TAG_STR_ASCII
                    : kind == PyUnicode_1BYTE_KIND ? TAG_STR_1
                    : kind == PyUnicode_2BYTE_KIND ? TAG_STR_2
                                                   : TAG_STR_4;
    return written(write_bytes(message, tag, length, PyUnicode_DATA(value),
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
        blame(encoder, value);
        return FAILED;
    }
    const char *format = view.format == NULL ? "B" : view.format;
    const int64_t header[] = {view.len, view.itemsize, view.ndim, view.readonly,
                              (int64_t)strlen(format) + 1};
    const size_t size = 1 + sizeof header + sizeof(int64_t) * (size_t)view.ndim +
                        (size_t)header[4] + (size_t)view.len;
    unsigned char *end = extend(message, size);
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
    blame(encoder, value);
    return FAILED;
}

static Outcome
encode_tuple(Encoder *encoder, PyObject *value)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(value);
    Outcome outcome = written(write_count(encoder->message, TAG_TUPLE, count));
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        outcome = encode(encoder, PyTuple_GET_ITEM(value, i));
        if (outcome == FAILED) {
            prepend_index(encoder, i);
        }
    }
    return outcome;
}

static Outcome
encode_list(Encoder *encoder, PyObject *value)
{
    const Py_ssize_t count = PyList_GET_SIZE(value);
    Outcome outcome = written(write_count(encoder->message, TAG_LIST, count));
    for (Py_ssize_t i = 0; outcome == DONE && i < count; i++) {
        PyObject *item = PyList_GetItemRef(value, i);
        if (item == NULL) {
            PyErr_Clear(); /* the list shrank */
            return changed_size(encoder, value);
        }
        outcome = encode(encoder, item);
        if (outcome == FAILED) {
            prepend_index(encoder, i);
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
    Outcome outcome = written(write_count(encoder->message, TAG_DICT, count));

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
            prepend_key(encoder, " key %U", key);
        }
        else if (outcome == DONE && (outcome = encode(encoder, item)) == FAILED) {
            prepend_key(encoder, "[%U]", key);
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
    Outcome outcome = written(write_count(encoder->message, tag, count));
    while (outcome == DONE && (item = PyIter_Next(iterator)) != NULL) {
        seen++;
        outcome = encode(encoder, item);
        if (outcome == FAILED) {
            prepend_key(encoder, "{%U}", item);
        }
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    if (outcome == DONE && PyErr_Occurred()) {
        blame(encoder, value);
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
        return written(write_word(message, TAG_FLOAT, &number));
    }
    if (type == &PyBool_Type) {
        return written(write_tag(message, value == Py_True ? TAG_TRUE : TAG_FALSE));
    }
    if (value == Py_None) {
        return written(write_tag(message, TAG_NONE));
    }
    if (type == &PyBytes_Type) {
        return written(write_bytes(message, TAG_BYTES, PyBytes_GET_SIZE(value),
                                   PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)));
    }
    if (is_container(value)) {
        if (encoder->depth >= MAX_DEPTH) {
            return encoder->by_parts ? encode_pickled(encoder, value) : NEEDS_PICKLE;
        }
        if (Py_EnterRecursiveCall(" while sending a value to another interpreter")) {
            blame(encoder, value);
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
        return written(write_bytes(message, TAG_BYTEARRAY, PyByteArray_GET_SIZE(value),
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
    if (outcome == FAILED && encoder->culprit != NULL) {
        Py_CLEAR(encoder->culprit);
        Py_CLEAR(encoder->path);
        PyErr_Clear();
        encoder->message->size = start;
        outcome = encode(encoder, value);
    }
    return outcome;
}

/* Turn the refusal of a value, if it is one, into NotShareableError. `root` is
 * taken: how the path begins. Always returns -1. */
static int
raise_refusal(Encoder *encoder, PyObject *root)
{
    if (encoder->culprit != NULL && root != NULL) {
        PyObject *cause = PyErr_GetRaisedException();
        PyObject *message = NULL, *error = NULL, *path = NULL;
        PyObject *type = aio_helper(encoder->state, AIO_HELPER_NOT_SHAREABLE_ERROR);
        if (type != NULL) {
            path = PyUnicode_Concat(root, encoder->path);
            if (path != NULL && PyUnicode_GET_LENGTH(path) > MAX_PATH) {
                PyObject *start = PyUnicode_Substring(path, 0, MAX_PATH);
                Py_SETREF(path, start == NULL ? NULL : PyUnicode_FromFormat("%U...", start));
                Py_XDECREF(start);
            }
        }
        if (path != NULL) {
            message = PyUnicode_FromFormat("%U: %U cannot be sent to another interpreter: %S", path,
                                           encoder->culprit, cause);
        }
        if (path != NULL && message == NULL) { /* its str() raises */
            PyErr_Clear();
            message = PyUnicode_FromFormat("%U: %U cannot be sent to another interpreter", path,
                                           encoder->culprit);
        }
        if (message != NULL) {
            error = PyObject_CallOneArg(type, message);
        }
        if (error != NULL) {
            PyException_SetCause(error, Py_NewRef(cause));
            PyException_SetContext(error, Py_NewRef(cause));
            PyErr_SetObject(type, error);
        }
        Py_XDECREF(error);
        Py_XDECREF(message);
        Py_XDECREF(path);
        Py_DECREF(cause);
    }
    Py_XDECREF(root);
    Py_CLEAR(encoder->culprit);
    Py_CLEAR(encoder->path);
    return -1;
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
    return raise_refusal(&encoder, start);
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
        return raise_refusal(&encoder, PyUnicode_FromString("function"));
    }
    if (write_count(message, TAG_TUPLE, positional) < 0) {
        return written(-1);
    }
    for (Py_ssize_t i = 0; i < positional; i++) {
        if (encode_whole(&encoder, PyTuple_GET_ITEM(args, i)) != DONE) {
            return raise_refusal(&encoder, argument_root(i, NULL));
        }
    }
    if (write_count(message, TAG_DICT, keywords) < 0) {
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
            return raise_refusal(&encoder, argument_root(0, key));
        }
    }
    return 0;
}

/* ---- decoding ------------------------------------------------------------ */

typedef struct Decoder {
    AioState *state;
    const unsigned char *next;
    const unsigned char *end;
} Decoder;

static PyObject *decode(Decoder *decoder);

/* The next `size` bytes. What is read was written by this very build, so
 * running out of them is a bug of ours: an exception, not a crash. */
static const unsigned char *
take(Decoder *decoder, size_t size)
{
    if (size > (size_t)(decoder->end - decoder->next)) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: a message ends too early");
        return NULL;
    }
    const unsigned char *bytes = decoder->next;
    decoder->next += size;
    return bytes;
}

static int
take_word(Decoder *decoder, void *word)
{
    const unsigned char *bytes = take(decoder, 8);
    if (bytes == NULL) {
        return -1;
    }
    memcpy(word, bytes, 8);
    return 0;
}

/* A length, and the bytes of as many units. NULL with an exception set. */
static const unsigned char *
take_bytes(Decoder *decoder, size_t unit, Py_ssize_t *count)
{
    uint64_t length;
    if (take_word(decoder, &length) < 0) {
        return NULL;
    }
    *count = (Py_ssize_t)length;
    return take(decoder, length * unit);
}

static PyObject *
decode_str(Decoder *decoder, size_t unit, Py_UCS4 largest)
{
    Py_ssize_t length;
    const unsigned char *units = take_bytes(decoder, unit, &length);
    if (units == NULL) {
        return NULL;
    }
    if (length == 1 && unit == 1) {
        return PyUnicode_FromOrdinal(*units); /* CPython keeps one object of each */
    }
    /* The sender's string was in canonical form, so this is its kind exactly. */
    PyObject *text = PyUnicode_New(length, largest);
    if (text != NULL && length > 0) {
        memcpy(PyUnicode_DATA(text), units, (size_t)length * unit);
    }
    return text;
}

static PyObject *
decode_memoryview(Decoder *decoder)
{
    int64_t header[5];
    const unsigned char *bytes = take(decoder, sizeof header);
    if (bytes == NULL) {
        return NULL;
    }
    memcpy(header, bytes, sizeof header);
    const Py_ssize_t length = (Py_ssize_t)header[0], itemsize = (Py_ssize_t)header[1];
    const int ndim = (int)header[2];

    Py_ssize_t shape[PyBUF_MAX_NDIM];
    if (ndim > PyBUF_MAX_NDIM) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: a memoryview of too many dimensions");
        return NULL;
    }
    for (int i = 0; i < ndim; i++) {
        int64_t extent;
        if (take_word(decoder, &extent) < 0) {
            return NULL;
        }
        shape[i] = (Py_ssize_t)extent;
    }
    const char *format = (const char *)take(decoder, (size_t)header[4]);
    const unsigned char *data = format == NULL ? NULL : take(decoder, (size_t)length);
    if (data == NULL) {
        return NULL;
    }
    return aio_memory_view(decoder->state, data, length, format, itemsize, ndim, shape,
                           header[3] != 0);
}

static PyObject *
decode_pickled(Decoder *decoder)
{
    Py_ssize_t length;
    const unsigned char *bytes = take_bytes(decoder, 1, &length);
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *loads = aio_helper(decoder->state, AIO_HELPER_LOADS);
    PyObject *pickle = PyBytes_FromStringAndSize((const char *)bytes, length);
    PyObject *value = NULL;
    if (loads != NULL && pickle != NULL) {
        value = PyObject_CallOneArg(loads, pickle);
    }
    Py_XDECREF(pickle);
    return value;
}

static PyObject *
decode_tuple(Decoder *decoder, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = decode(decoder);
        if (item == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

static PyObject *
decode_list(Decoder *decoder, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = decode(decoder);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, item);
    }
    return list;
}

static PyObject *
decode_dict(Decoder *decoder, Py_ssize_t count)
{
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < count; i++) {
        PyObject *key = decode(decoder);
        PyObject *value = key == NULL ? NULL : decode(decoder);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
decode_set(Decoder *decoder, Py_ssize_t count, PyObject *(*make)(PyObject *))
{
    /* A frozenset can be filled as long as nobody else has seen it. */
    PyObject *set = make(NULL);
    for (Py_ssize_t i = 0; set != NULL && i < count; i++) {
        PyObject *item = decode(decoder);
        if (item == NULL || PySet_Add(set, item) < 0) {
            Py_CLEAR(set);
        }
        Py_XDECREF(item);
    }
    return set;
}

static PyObject *
decode_container(Decoder *decoder, Tag tag)
{
    Py_ssize_t count;
    PyObject *value;
    if (take_word(decoder, &count) < 0 ||
        Py_EnterRecursiveCall(" while receiving a value from another interpreter")) {
        return NULL;
    }
    switch (tag) {
    case TAG_TUPLE:
        value = decode_tuple(decoder, count);
        break;
    case TAG_LIST:
        value = decode_list(decoder, count);
        break;
    case TAG_DICT:
        value = decode_dict(decoder, count);
        break;
    case TAG_SET:
        value = decode_set(decoder, count, PySet_New);
        break;
    default:
        value = decode_set(decoder, count, PyFrozenSet_New);
        break;
    }
    Py_LeaveRecursiveCall();
    return value;
}

static PyObject *
decode(Decoder *decoder)
{
    const unsigned char *bytes = take(decoder, 1);
    Py_ssize_t length;
    if (bytes == NULL) {
        return NULL;
    }
    switch (*bytes) {
    case TAG_NONE:
        Py_RETURN_NONE;
    case TAG_TRUE:
        Py_RETURN_TRUE;
    case TAG_FALSE:
        Py_RETURN_FALSE;
    case TAG_INT: {
        long long number;
        return take_word(decoder, &number) < 0 ? NULL : PyLong_FromLongLong(number);
    }
    case TAG_LONG:
        bytes = take_bytes(decoder, 1, &length);
        return bytes == NULL ? NULL : PyLong_FromNativeBytes(bytes, (size_t)length, -1);
    case TAG_FLOAT: {
        double number;
        return take_word(decoder, &number) < 0 ? NULL : PyFloat_FromDouble(number);
    }
    case TAG_COMPLEX: {
        Py_complex number;
        bytes = take(decoder, sizeof number);
        if (bytes == NULL) {
            return NULL;
        }
        memcpy(&number, bytes, sizeof number);
        return PyComplex_FromCComplex(number);
    }
    case TAG_STR_ASCII:
        return decode_str(decoder, 1, 0x7f);
    case TAG_STR_1:
        return decode_str(decoder, 1, 0xff);
    case TAG_STR_2:
        return decode_str(decoder, 2, 0xffff);
    case TAG_STR_4:
        return decode_str(decoder, 4, 0x10ffff);
    case TAG_BYTES:
        bytes = take_bytes(decoder, 1, &length);
        return bytes == NULL ? NULL : PyBytes_FromStringAndSize((const char *)bytes, length);
    case TAG_BYTEARRAY:
        bytes = take_bytes(decoder, 1, &length);
        return bytes == NULL ? NULL : PyByteArray_FromStringAndSize((const char *)bytes, length);
    case TAG_MEMORYVIEW:
        return decode_memoryview(decoder);
    case TAG_PICKLE:
        return decode_pickled(decoder);
    case TAG_TUPLE:
    case TAG_LIST:
    case TAG_DICT:
    case TAG_SET:
    case TAG_FROZENSET:
        return decode_container(decoder, (Tag)*bytes);
    default:
        PyErr_Format(PyExc_SystemError, "aiointerpreters: a message has an unknown tag %d", *bytes);
        return NULL;
    }
}

static Decoder
decoder_of(AioState *state, const AioMessage *message)
{
    return (Decoder){
        .state = state, .next = message->data, .end = message->data + message->size};
}

PyObject *
aio_message_decode_value(AioState *state, const AioMessage *message)
{
    Decoder decoder = decoder_of(state, message);
    return decode(&decoder);
}

int
aio_message_decode_call(AioState *state, const AioMessage *message, bool with_callable,
                        PyObject **callable, PyObject **args, PyObject **kwargs)
{
    Decoder decoder = decoder_of(state, message);

    *callable = *args = *kwargs = NULL;
    if (with_callable && (*callable = decode(&decoder)) == NULL) {
        return -1;
    }
    if ((*args = decode(&decoder)) == NULL || (*kwargs = decode(&decoder)) == NULL) {
        Py_CLEAR(*callable);
        Py_CLEAR(*args);
        return -1;
    }
    if (PyDict_GET_SIZE(*kwargs) == 0) {
        Py_CLEAR(*kwargs);
    }
    return 0;
}
