/* message.c: the memory of a message.
 *
 * Needs no interpreter: a message can be made, written and released by any
 * thread that owns it. What the bytes mean is in message_format.h; encode.c and
 * decode.c turn them from and to Python objects.
 */
#include "message.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "message_format.h"

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
aio_message_write_failure(AioMessage *message, const char *type_name, const char *text)
{
    aio_message_clear(message);
    if (aio_message_write_count(message, TAG_TUPLE, 4) < 0 ||
        aio_message_write_tag(message, TAG_NONE) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(type_name), type_name,
                                strlen(type_name)) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, (Py_ssize_t)strlen(text), text,
                                strlen(text)) < 0 ||
        aio_message_write_bytes(message, TAG_STR_ASCII, 0, "", 0) < 0) {
        aio_message_clear(message);
        return -1;
    }
    return 0;
}
