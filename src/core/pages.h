/* pages.h: copy large memory. */
#ifndef AIO_CORE_PAGES_H
#define AIO_CORE_PAGES_H

#include <stddef.h>

/* As memcpy(), for memory at `to` that mostly has not been touched since it came from
 * the system: where the system can, it is made to come in large pages. */
void aio_pages_copy(void *to, const void *from, size_t size);

#endif
