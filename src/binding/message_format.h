/* message_format.h: what the bytes of a message mean; for message.c, encode.c and
 * decode.c only.
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
 *     str, bytes and bytearray that are lent, memoryview, Queue, Shared:
 *                          their place among what is held
 *     tuple list set ...   count and the values; a dict: keys and values in turn
 *     pickle               the pickle (a bytes value), the list of its out-of-band
 *                          buffers, the list of the objects that it refers to by number
 *
 * A call is: the callable, if it has no name; the tuple of positional arguments; the
 * dict of keyword arguments.
 */
#ifndef AIO_BINDING_MESSAGE_FORMAT_H
#define AIO_BINDING_MESSAGE_FORMAT_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "message.h"

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
    TAG_LENT = 'x',
    TAG_MEMORYVIEW = 'm',
    TAG_QUEUE = 'q',
    TAG_PLAIN_QUEUE = 'Q', /* arrives as the base, which takes no import */
    TAG_SHARED = 'S',
    TAG_TUPLE = 't',
    TAG_LIST = 'l',
    TAG_DICT = 'd',
    TAG_SET = 's',
    TAG_FROZENSET = 'z',
    TAG_PICKLE = 'p',
} Tag;

/* Strings and bytes of this size or more are lent: the receiver copies them from the
 * sender's memory, once. Smaller ones are copied into the message and out of it, which
 * costs less than to lend something and give it back. */
enum { AIO_LEND_MIN = 32 * 1024 };

/* Keep a reference with the message; it is taken, unless that fails. Its place, or -1
 * where memory is short. */
int64_t aio_message_hold(AioMessage *message, AioCounted *counted);

/* Cut the message to what it was before. As aio_held_clear(). */
void aio_message_truncate(AioMessage *message, size_t size, size_t held_count);

/* Writing. None of it needs a GIL or sets an exception: NULL or -1 is want of
 * memory. In line, because every value of every call comes through here. */

/* Make room for `more` bytes at the end. */
int aio_message_grow(AioMessage *message, size_t more);

/* The next `more` bytes at the end, counted as written. */
static inline unsigned char *
aio_message_extend(AioMessage *message, size_t more)
{
    if (more > message->capacity - message->size && aio_message_grow(message, more) < 0) {
        return NULL;
    }
    unsigned char *end = message->data + message->size;
    message->size += more;
    return end;
}

static inline int
aio_message_write_tag(AioMessage *message, Tag tag)
{
    unsigned char *end = aio_message_extend(message, 1);
    if (end == NULL) {
        return -1;
    }
    *end = (unsigned char)tag;
    return 0;
}

/* A tag and 8 bytes. */
static inline int
aio_message_write_word(AioMessage *message, Tag tag, const void *word)
{
    unsigned char *end = aio_message_extend(message, 1 + 8);
    if (end == NULL) {
        return -1;
    }
    *end = (unsigned char)tag;
    memcpy(end + 1, word, 8);
    return 0;
}

/* A tag, `count`, and `size` bytes (which is `count` times the unit's size). */
static inline int
aio_message_write_bytes(AioMessage *message, Tag tag, Py_ssize_t count, const void *bytes,
                        size_t size)
{
    const uint64_t word = (uint64_t)count;
    unsigned char *end = aio_message_extend(message, 1 + 8 + size);
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

static inline int
aio_message_write_count(AioMessage *message, Tag tag, Py_ssize_t count)
{
    return aio_message_write_bytes(message, tag, count, NULL, 0);
}

#endif
