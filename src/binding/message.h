/* message.h: values as bytes, from one interpreter to another.
 *
 * A message is plain memory that belongs to no interpreter. One side encodes
 * into it, the other decodes from it; whoever holds the task or structure that
 * the message is part of owns it (no locking here). The bytes never leave the
 * process and are only ever read by the same build that wrote them.
 *
 * What does not go into the bytes, because it is lent or shared, is held: the bytes
 * have its place among the message's references, which keep it alive. Decoding leaves
 * a message as it was, so it can be decoded more than once, even at the same time.
 */
#ifndef AIO_BINDING_MESSAGE_H
#define AIO_BINDING_MESSAGE_H

#include <Python.h>
#include <stdbool.h>
#include <stddef.h>

#include "counted.h"
#include "state.h"

/* References to what is lent or shared; the whole is zero where there are none. */
typedef struct AioHeld {
    AioCounted **items; /* owned, as are the references in it */
    size_t count;
    size_t capacity;
} AioHeld;

/* Release all, and make it empty again. Needs no GIL, but no lock may be held; where
 * the calling thread has an owner's GIL, that owner's objects are let go at once. */
void aio_held_clear_all(AioHeld *held);

/* The same, at no cost where there is nothing. */
static inline void
aio_held_clear(AioHeld *held)
{
    if (held->items != NULL) {
        aio_held_clear_all(held);
    }
}

/* Messages up to this size need no allocation of their own. */
enum { AIO_MESSAGE_INLINE = 192 };

typedef struct AioMessage {
    unsigned char *data; /* `inline_data`, or memory of malloc() */
    size_t size;
    size_t capacity;
    AioHeld held;
    unsigned char inline_data[AIO_MESSAGE_INLINE];
} AioMessage;

/* Needs no GIL, like the next one. */
void aio_message_init(AioMessage *message);

/* Release the memory and what is held, and make it empty again. As aio_held_clear(). */
void aio_message_clear(AioMessage *message);

/* As clear, but what was held stays so, in `held`, which must be empty. */
void aio_message_clear_bytes(AioMessage *message, AioHeld *held);

/* Make `to`, uninitialised, what `from` was, which is left empty. */
void aio_message_move(AioMessage *from, AioMessage *to);

/* Append a call: the context variables that it takes with it, pairs of a name and a value
 * (or NULL); its callable by pickle (or NULL where the worker finds it by name), its
 * positional arguments (a tuple) and its keyword arguments (a dict
 * or NULL). Values that cannot cross raise NotShareableError with the path to
 * the culprit. 0, or -1 with an exception set; the message is then to be cleared. */
int aio_message_encode_call(AioState *state, AioMessage *message, PyObject *context,
                            PyObject *callable, PyObject *args, PyObject *kwargs);

/* Append one value; `root` is how its path begins in an error ("result"). */
int aio_message_encode_value(AioState *state, AioMessage *message, PyObject *value,
                             const char *root);

/* The call of a message; what is found are new references, also where it fails. `context` and
 * `callable` are NULL where the message carries none; `*kwargs` is NULL if there are none. */
int aio_message_decode_call(AioState *state, const AioMessage *message, PyObject **context,
                            PyObject **callable, PyObject **args, PyObject **kwargs);

/* The one value of a message, a new reference. `state` may be NULL for values of
 * plain builtin types. */
PyObject *aio_message_decode_value(AioState *state, const AioMessage *message);

struct AioPrefetch;

/* As above, with what has been copied beforehand (prefetch.h). */
PyObject *aio_message_decode_prefetched(AioState *state, const AioMessage *message,
                                        struct AioPrefetch *prefetch);

/* The value whose bytes are that part of a message; what it holds is counted from `held_base`. */
PyObject *aio_message_decode_part(AioState *state, const AioMessage *message, size_t offset,
                                  size_t size, size_t held_base, struct AioPrefetch *prefetch);

/* Make `message` what encoding the tuple (None, type_name, text, traceback, None) gives, all of
 * ASCII: a failure that is told without the help of an interpreter. Needs no GIL.
 * 0, or -1 where memory is short. */
int aio_message_write_failure(AioMessage *message, const char *type_name, const char *text,
                              const char *traceback);

#endif
