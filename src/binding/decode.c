/* decode.c: the bytes of a message to Python values.
 *
 * Entered with the GIL of the interpreter that receives; the message belongs to
 * the caller throughout, and is only read. All values are new objects of that
 * interpreter. What is held may belong to others: here it is only referred to.
 */
#include <Python.h>
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "block.h"
#include "core/pages.h"
#include "message.h"
#include "message_format.h"
#include "prefetch.h"
#include "queue.h"
#include "shared.h"
#include "view.h"

typedef struct Decoder {
    AioState *state;
    const unsigned char *next;
    const unsigned char *end;
    /* How many values the containers begun so far still wait for, of which `next` is the
     * first. Each takes a byte at least: so what all containers together make room for is
     * bounded by the message's size, whatever counts it has. */
    size_t awaited;
    const AioHeld *held;
    size_t held_base;      /* places are counted from there */
    AioPrefetch *prefetch; /* NULL, or what of `held` is copied already */
} Decoder;

/* How a RecursionError's text ends. */
static const char while_receiving[] = " while receiving a value from another interpreter";

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
    *count = 0;
    if (take_word(decoder, &length) < 0) {
        return NULL;
    }
    if (length > (uint64_t)PY_SSIZE_T_MAX / unit) {
        return take(decoder, SIZE_MAX); /* more than there is */
    }
    *count = (Py_ssize_t)length;
    return take(decoder, (size_t)length * unit);
}

/* A container's count, each of which stands for `values` values that follow. */
static int
take_count(Decoder *decoder, size_t values, Py_ssize_t *count)
{
    uint64_t number;
    if (take_word(decoder, &number) < 0) {
        return -1;
    }
    const size_t left = (size_t)(decoder->end - decoder->next);
    if (decoder->awaited > left || number > (left - decoder->awaited) / values) {
        (void)take(decoder, SIZE_MAX); /* more than there is */
        return -1;
    }
    decoder->awaited += (size_t)number * values;
    *count = (Py_ssize_t)number;
    return 0;
}

static AioCounted *
take_held(Decoder *decoder, size_t *place)
{
    uint64_t number;
    if (take_word(decoder, &number) < 0) {
        return NULL;
    }
    if (number >= decoder->held->count - decoder->held_base) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: a message holds less than it says");
        return NULL;
    }
    *place = decoder->held_base + (size_t)number;
    return decoder->held->items[*place];
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

/* A str, bytes or bytearray that was lent: the one copy of it is made here, unless it
 * has been made beforehand. */
static PyObject *
decode_lent(Decoder *decoder)
{
    size_t place;
    AioCounted *counted = take_held(decoder, &place);
    if (counted == NULL) {
        return NULL;
    }
    if (decoder->prefetch != NULL) {
        PyObject *ready = aio_prefetch_take(decoder->prefetch, place);
        if (ready != NULL) {
            return ready;
        }
    }
    const AioBlock *block = aio_block_of_counted(counted);
    if (block == NULL) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: what a message lends is no block");
        return NULL;
    }
    void *to;
    PyObject *object = aio_block_new_copy(block, &to);
    if (object != NULL) {
        aio_pages_copy(to, block->data, block->size);
    }
    return object;
}

static PyObject *
decode_memoryview(Decoder *decoder)
{
    size_t place;
    AioCounted *counted = take_held(decoder, &place);
    AioView *view = counted == NULL ? NULL : aio_view_of_counted(counted);
    if (view == NULL) {
        if (counted != NULL) {
            PyErr_SetString(PyExc_SystemError, "aiointerpreters: what a message holds is no view");
        }
        return NULL;
    }
    return aio_view_to_python(decoder->state, view);
}

static PyObject *
decode_pickled(Decoder *decoder)
{
    PyObject *pickle = NULL, *buffers = NULL, *objects = NULL, *value = NULL;
    if (Py_EnterRecursiveCall(while_receiving)) {
        return NULL;
    }
    PyObject *loads = aio_helper(decoder->state, AIO_HELPER_LOADS);
    decoder->awaited += 3;
    if (loads != NULL && (pickle = decode(decoder)) != NULL &&
        (buffers = decode(decoder)) != NULL && (objects = decode(decoder)) != NULL) {
        value = PyObject_CallFunctionObjArgs(loads, pickle, buffers, objects, NULL);
    }
    Py_XDECREF(objects);
    Py_XDECREF(buffers);
    Py_XDECREF(pickle);
    Py_LeaveRecursiveCall();
    return value;
}

static PyObject *
decode_tuple(Decoder *decoder, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    if (tuple == NULL || count == 0) {
        return tuple;
    }
    /* Nobody shall find it by gc.get_objects() while it is half-filled. */
    PyObject_GC_UnTrack(tuple);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = decode(decoder);
        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, i, item);
    }
    PyObject_GC_Track(tuple);
    return tuple;
}

static PyObject *
decode_list(Decoder *decoder, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    if (list == NULL) {
        return NULL;
    }
    PyObject_GC_UnTrack(list); /* as above */
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = decode(decoder);
        if (item == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, item);
    }
    PyObject_GC_Track(list);
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
    if (take_count(decoder, tag == TAG_DICT ? 2 : 1, &count) < 0 ||
        Py_EnterRecursiveCall(while_receiving)) {
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

/* Whether the module is there that values need which are no plain builtins. */
static bool
has_state(Decoder *decoder)
{
    if (decoder->state == NULL) {
        PyErr_SetString(PyExc_TypeError, "plain builtins only are expected here");
    }
    return decoder->state != NULL;
}

static PyObject *
decode(Decoder *decoder)
{
    const unsigned char *bytes = take(decoder, 1);
    Py_ssize_t length;
    size_t place;
    AioCounted *counted;
    if (bytes == NULL) {
        return NULL;
    }
    assert(decoder->awaited > 0);
    decoder->awaited--;
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
    case TAG_LENT:
        return decode_lent(decoder);
    case TAG_MEMORYVIEW:
        return has_state(decoder) ? decode_memoryview(decoder) : NULL;
    case TAG_QUEUE:
    case TAG_PLAIN_QUEUE:
        counted = has_state(decoder) ? take_held(decoder, &place) : NULL;
        return counted == NULL
                   ? NULL
                   : aio_queue_to_python(decoder->state, counted, *bytes == TAG_PLAIN_QUEUE);
    case TAG_SHARED:
        counted = has_state(decoder) ? take_held(decoder, &place) : NULL;
        return counted == NULL ? NULL : aio_shared_to_python(decoder->state, counted);
    case TAG_PICKLE:
        return has_state(decoder) ? decode_pickled(decoder) : NULL;
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

/* A decoder at the first of `count` values. */
static Decoder
decoder_of(AioState *state, const AioMessage *message, size_t count)
{
    return (Decoder){
        .state = state,
        .next = message->data,
        .end = message->data + message->size,
        .awaited = count,
        .held = &message->held,
    };
}

PyObject *
aio_message_decode_value(AioState *state, const AioMessage *message)
{
    return aio_message_decode_prefetched(state, message, NULL);
}

PyObject *
aio_message_decode_prefetched(AioState *state, const AioMessage *message, AioPrefetch *prefetch)
{
    Decoder decoder = decoder_of(state, message, 1);
    decoder.prefetch = prefetch;
    return decode(&decoder);
}

PyObject *
aio_message_decode_part(AioState *state, const AioMessage *message, size_t offset, size_t size,
                        size_t held_base, AioPrefetch *prefetch)
{
    Decoder decoder = decoder_of(state, message, 1);
    decoder.next = message->data + offset;
    decoder.end = decoder.next + size;
    decoder.held_base = held_base;
    decoder.prefetch = prefetch;
    return decode(&decoder);
}

int
aio_message_decode_call(AioState *state, const AioMessage *message, PyObject **context,
                        PyObject **callable, PyObject **args, PyObject **kwargs)
{
    Decoder decoder = decoder_of(state, message, 2 + (context != NULL) + (callable != NULL));

    *args = *kwargs = NULL;
    if ((context != NULL && (*context = decode(&decoder)) == NULL) ||
        (callable != NULL && (*callable = decode(&decoder)) == NULL) ||
        (*args = decode(&decoder)) == NULL || (*kwargs = decode(&decoder)) == NULL) {
        goto failed;
    }
    if (!PyTuple_CheckExact(*args) || !PyDict_CheckExact(*kwargs)) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: a message that should be a call");
        goto failed;
    }
    if (PyDict_GET_SIZE(*kwargs) == 0) {
        Py_CLEAR(*kwargs);
    }
    return 0;
failed:
    Py_CLEAR(*args);
    Py_CLEAR(*kwargs);
    return -1;
}
