/* message.c: the memory of a message.
 *
 * Needs no interpreter: a message can be made, written and released by any
 * thread that owns it. What the bytes mean is in message_format.h; encode.c and
 * decode.c turn them from and to Python objects.
 */
#include "message.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "message_format.h"

/* ---- what is held ---- */

void
aio_held_clear_all(AioHeld *held)
{
    /* Releasing can run Python code: what it may find here is empty already. */
    AioCounted **items = held->items;
    const size_t count = held->count;
    *held = (AioHeld){0};
    for (size_t i = 0; i < count; i++) {
        aio_counted_release(items[i]);
    }
    free(items);
}

int64_t
aio_message_hold(AioMessage *message, AioCounted *counted)
{
    AioHeld *held = &message->held;
    if (held->count == held->capacity) {
        const size_t capacity = held->capacity == 0 ? 4 : 2 * held->capacity;
        AioCounted **items = realloc(held->items, capacity * sizeof *items);
        if (items == NULL) {
            return -1;
        }
        held->items = items;
        held->capacity = capacity;
    }
    held->items[held->count] = counted;
    return (int64_t)held->count++;
}

/* ---- bytes ---- */

static void
reset_bytes(AioMessage *message)
{
    message->data = message->inline_data;
    message->size = 0;
    message->capacity = AIO_MESSAGE_INLINE;
}

void
aio_message_init(AioMessage *message)
{
    reset_bytes(message);
    message->held = (AioHeld){0};
}

void
aio_message_clear_bytes(AioMessage *message, AioHeld *held)
{
    if (message->data != message->inline_data) {
        free(message->data);
    }
    reset_bytes(message);
    if (held != NULL) {
        assert(held->count == 0);
        *held = message->held;
        message->held = (AioHeld){0};
    }
}

void
aio_message_clear(AioMessage *message)
{
    aio_message_clear_bytes(message, NULL);
    aio_held_clear(&message->held);
}

void
aio_message_move(AioMessage *from, AioMessage *to)
{
    *to = *from;
    if (from->data == from->inline_data) {
        to->data = to->inline_data;
    }
    aio_message_init(from);
}

void
aio_message_truncate(AioMessage *message, size_t size, size_t held_count)
{
    message->size = size;
    while (message->held.count > held_count) {
        aio_counted_release(message->held.items[--message->held.count]);
    }
}

int
aio_message_grow(AioMessage *message, size_t more)
{
    if (more > SIZE_MAX / 4 - message->size) {
        return -1;
    }
    size_t capacity = message->size + more;
    capacity += capacity / 2;
    const bool is_inline = message->data == message->inline_data;
    unsigned char *data = realloc(is_inline ? NULL : message->data, capacity);
    if (data == NULL) {
        return -1;
    }
    if (is_inline) {
        memcpy(data, message->inline_data, message->size);
    }
    message->data = data;
    message->capacity = capacity;
    return 0;
}

int
aio_message_write_failure(AioMessage *message, const char *type_name, const char *text,
                          const char *traceback)
{
    aio_message_clear(message);
    if (aio_message_write_count(message, TAG_TUPLE, 5) < 0 ||
        aio_message_write_tag(message, TAG_NONE) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(type_name), type_name,
                                strlen(type_name)) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(text), text,
                                strlen(text)) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(traceback), traceback,
                                strlen(traceback)) < 0 ||
        aio_message_write_tag(message, TAG_NONE) < 0) {
        aio_message_clear(message);
        return -1;
    }
    return 0;
}
