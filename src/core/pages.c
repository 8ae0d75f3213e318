/* pages.c: copy large memory.
 *
 * A new large object's memory has no pages yet: the first write to each of them is an
 * interrupt in which the kernel finds and clears one, of 4 KiB mostly. That takes as
 * long as the copy itself. Linux can be asked for pages of 2 MiB, one interrupt each.
 */
#include "pages.h"

#include <stdint.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { LARGE_PAGE = 2 << 20 };

void
aio_pages_copy(void *to, const void *from, size_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (size >= 2 * LARGE_PAGE) {
        /* Whole large pages only: what lies before and after is not ours. */
        const uintptr_t start = ((uintptr_t)to + LARGE_PAGE - 1) & ~(uintptr_t)(LARGE_PAGE - 1);
        const uintptr_t end = ((uintptr_t)to + size) & ~(uintptr_t)(LARGE_PAGE - 1);
        if (end > start) {
            (void)madvise((void *)start, end - start, MADV_HUGEPAGE); /* advice: may be refused */
        }
    }
#endif
    memcpy(to, from, size);
}
