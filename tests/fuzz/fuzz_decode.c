/* fuzz_decode.c: the decoder, fed with arbitrary bytes.
 *
 * Linked into the extension by `make fuzz`, together with LLVM's libFuzzer, and entered
 * from fuzz_decode.py by ctypes, with the GIL. Whatever the bytes are, decoding them
 * gives values or raises an exception. It must not crash, read beyond the message, take
 * more memory than the message's size explains, or keep anything:
 *
 *   reads        the bytes are copied into memory of just their size, as
 *                AddressSanitizer guards its ends
 *   objects      as many are known to the garbage collector after an input as before
 *   references   whatever the message holds has as many after an input as before
 *   the rest     libFuzzer and LeakSanitizer look after it
 *
 * The message holds the same few things for every input, one of each kind. Nothing is
 * ever unpickled: an arbitrary pickle may do anything.
 */
#include <Python.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding/block.h"
#include "binding/message.h"
#include "binding/state.h"

#define EXPORT __attribute__((visibility("default")))

/* libFuzzer's, which has no header. Ends the process when it is done. */
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *, size_t));

/* LeakSanitizer's. */
void __lsan_register_root_region(const void *begin, size_t size);

enum { MAX_HELD = 32, INPUTS_PER_TIDY = 1024 };

/* One target a process, as in every libFuzzer program. */
static AioState *state;
static AioHeld held;          /* what every message holds */
static PyObject *get_objects; /* gc.get_objects */

static void
fail(const char *text)
{
    fprintf(stderr, "fuzz_decode: %s\n", text);
    PyErr_Print();
    abort();
}

static Py_ssize_t
count_objects(void)
{
    PyObject *objects = PyObject_CallNoArgs(get_objects);
    if (objects == NULL) {
        fail("gc.get_objects() has failed");
    }
    const Py_ssize_t count = PyList_GET_SIZE(objects);
    Py_DECREF(objects);
    return count;
}

static void
count_references(long counts[MAX_HELD])
{
    memset(counts, 0, MAX_HELD * sizeof *counts);
    for (size_t i = 0; i < held.count; i++) {
        counts[i] = atomic_load(&held.items[i]->references);
    }
}

static void
decode_value(const AioMessage *message)
{
    PyObject *value = aio_message_decode_value(state, message);
    if ((value == NULL) != (PyErr_Occurred() != NULL)) {
        fail("a value and an exception, or neither");
    }
    Py_XDECREF(value);
    PyErr_Clear();
}

static void
decode_call(const AioMessage *message, bool with_context, bool with_callable)
{
    PyObject *context = NULL, *callable = NULL, *args, *kwargs;
    const int result = aio_message_decode_call(state, message, with_context ? &context : NULL,
                                               with_callable ? &callable : NULL, &args, &kwargs);
    if ((result < 0) != (PyErr_Occurred() != NULL)) {
        fail("a call and an exception, or neither");
    }
    if (result == 0 &&
        (!PyTuple_CheckExact(args) || (context != NULL) != with_context ||
         (callable != NULL) != with_callable || (kwargs != NULL && !PyDict_CheckExact(kwargs)))) {
        fail("a call that can't be made");
    }
    Py_XDECREF(context);
    Py_XDECREF(callable);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    PyErr_Clear();
}

static int
decode_input(const uint8_t *bytes, size_t size)
{
    static unsigned count;
    AioMessage message;
    aio_message_init(&message);
    message.data = malloc(size);
    if (message.data == NULL) {
        fail("out of memory");
    }
    if (size > 0) {
        memcpy(message.data, bytes, size);
    }
    message.size = message.capacity = size;
    message.held = held;

    if (++count % INPUTS_PER_TIDY == 0) {
        PyGC_Collect();
    }
    long references_before[MAX_HELD], references_after[MAX_HELD];
    count_references(references_before);
    const Py_ssize_t objects_before = count_objects();
    decode_value(&message);
    decode_call(&message, false, false);
    decode_call(&message, false, true);
    decode_call(&message, true, true);
    if (count_objects() > objects_before) {
        fail("an object was left behind");
    }
    count_references(references_after);
    if (memcmp(references_before, references_after, sizeof references_before) != 0) {
        fail("a reference to what the message holds was kept or lost");
    }
    free(message.data);
    return 0;
}

/* ---- what fuzz_decode.py calls ---- */

/* Get ready: `to_hold` is encoded, and what its message then holds all messages hold,
 * and an object that is kept, too. `loads` is called in place of unpickling. Returns the
 * bytes of that message, which is the best of seeds. */
EXPORT PyObject *
fuzz_start(PyObject *module, PyObject *to_hold, PyObject *loads, PyObject *gc_get_objects)
{
    state = PyModule_GetState(module);
    Py_XSETREF(state->helpers[AIO_HELPER_LOADS], Py_NewRef(loads));
    get_objects = Py_NewRef(gc_get_objects);

    static AioMessage message; /* never cleared: its bytes and references stay */
    aio_message_init(&message);
    AioBlock *kept = aio_block_keep(state, Py_None);
    if (kept == NULL || aio_message_encode_value(state, &message, to_hold, "value") < 0) {
        return NULL;
    }
    if (aio_message_hold(&message, &kept->counted) < 0 || message.held.count > MAX_HELD) {
        PyErr_SetString(PyExc_ValueError, "too much to hold");
        return NULL;
    }
    held = message.held;

    /* What is made once and kept, such as what is shared, is made now. */
    decode_value(&message);
    return PyBytes_FromStringAndSize((const char *)message.data, (Py_ssize_t)message.size);
}

/* The bytes of a value's message, which must not hold anything. */
EXPORT PyObject *
fuzz_encode(PyObject *value)
{
    AioMessage message;
    PyObject *bytes = NULL;
    aio_message_init(&message);
    if (aio_message_encode_value(state, &message, value, "value") == 0) {
        bytes = PyBytes_FromStringAndSize((const char *)message.data, (Py_ssize_t)message.size);
    }
    aio_message_clear(&message);
    return bytes;
}

/* Decode one input. */
EXPORT void
fuzz_one(PyObject *bytes)
{
    decode_input((const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

/* Fuzz, with libFuzzer's arguments as bytes objects. It ends the process. Whatever the
 * frames of Python that are running refer to isn't leaked, but they lie in memory that
 * LeakSanitizer doesn't know of. */
EXPORT void
fuzz_run(PyObject *arguments)
{
    int argc = (int)PyList_GET_SIZE(arguments);
    char **argv = calloc((size_t)argc + 1, sizeof *argv);
    if (argv == NULL) {
        fail("out of memory");
    }
    for (int i = 0; i < argc; i++) {
        argv[i] = PyBytes_AS_STRING(PyList_GET_ITEM(arguments, i));
    }
    for (const _PyStackChunk *chunk = PyThreadState_Get()->datastack_chunk; chunk != NULL;
         chunk = chunk->previous) {
        __lsan_register_root_region(chunk, chunk->size);
    }
    exit(LLVMFuzzerRunDriver(&argc, &argv, decode_input));
}
