/* thread.c: start native threads.
 *
 * Threads are detached: whoever must know that one has ended counts it with
 * an AioPending (pending.h), whose last act in the thread is aio_pending_done().
 */
#include "thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What Linux gives a main thread; musl's own default of 128 KiB would end in a
 * crash at Python's first deep recursion. Only touched pages cost memory. */
enum { STACK_SIZE = 8 << 20 };

typedef struct Start {
    void (*entry)(void *argument);
    void *argument;
    char name[16];
} Start;

static void *
thread_main(void *raw)
{
    Start start = *(Start *)raw;
    free(raw);
#if defined(__linux__)
    pthread_setname_np(pthread_self(), start.name);
#elif defined(__APPLE__)
    pthread_setname_np(start.name);
#endif
    start.entry(start.argument);
    return NULL;
}

int
aio_thread_start(void (*entry)(void *argument), void *argument, const char *name)
{
    pthread_attr_t attributes;
    pthread_t thread;
    Start *start = NULL;
    int result = -1;

    if (pthread_attr_init(&attributes) != 0) {
        return -1;
    }
    start = malloc(sizeof *start);
    if (start == NULL) {
        goto done;
    }
    start->entry = entry;
    start->argument = argument;
    snprintf(start->name, sizeof start->name, "%s", name);
    if (pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) != 0 ||
        pthread_attr_setstacksize(&attributes, STACK_SIZE) != 0) {
        goto done;
    }
    if (pthread_create(&thread, &attributes, thread_main, start) != 0) {
        goto done;
    }
    start = NULL; /* the thread owns it now */
    result = 0;
done:
    free(start);
    pthread_attr_destroy(&attributes);
    return result;
}

int
aio_cpu_count(void)
{
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        int count = CPU_COUNT(&allowed);
        if (count > 0) {
            return count;
        }
    }
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

bool
aio_may_spin(void)
{
    const char *setting = getenv("AIOINTERPRETERS_SPIN");
    return aio_cpu_count() > 1 && (setting == NULL || strcmp(setting, "0") != 0);
}
