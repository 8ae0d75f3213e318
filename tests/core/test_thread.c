/* test_thread.c: the contract of core/thread.h. */
#include "core/thread.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core/park.h"

/* What one started thread reports to the test. */
typedef struct Report {
    AioParker ended; /* orders the rest */
    pthread_t thread;
    char name[16];
    int is_detached;
    size_t stack_size;
} Report;

static void
fill_report(void *raw)
{
    Report *report = raw;
    report->thread = pthread_self();
    CHECK(pthread_getname_np(pthread_self(), report->name, sizeof report->name) == 0);
#if defined(__linux__)
    pthread_attr_t attributes;
    CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0);
    CHECK(pthread_attr_getdetachstate(&attributes, &report->is_detached) == 0);
    CHECK(pthread_attr_getstacksize(&attributes, &report->stack_size) == 0);
    pthread_attr_destroy(&attributes);
    report->is_detached = report->is_detached == PTHREAD_CREATE_DETACHED;
#else
    report->is_detached = 1;
    report->stack_size = 8 << 20;
#endif
    aio_unpark(&report->ended);
}

/* Static, because the thread may still be inside aio_unpark() when we go on. */
static Report *
run_reporter(const char *name)
{
    static Report report;
    memset(&report, 0, sizeof report);
    CHECK(aio_parker_init(&report.ended) == 0);
    CHECK(aio_thread_start(fill_report, &report, name) == 0);
    aio_park(&report.ended);
    return &report;
}

static void
it_runs_in_another_thread_that_is_detached(void)
{
    Report *report = run_reporter("one");
    CHECK(!pthread_equal(report->thread, pthread_self()));
    CHECK(report->is_detached);
}

static void
its_name_is_shown_and_cut_to_15_characters(void)
{
    CHECK(strcmp(run_reporter("aio-worker-0")->name, "aio-worker-0") == 0);
    CHECK(strcmp(run_reporter("exactly15letter")->name, "exactly15letter") == 0);
    CHECK(strcmp(run_reporter("sixteen-letters!")->name, "sixteen-letters") == 0);
    CHECK(strcmp(run_reporter("a name that is much too long")->name, "a name that is ") == 0);
}

static void
the_name_is_only_borrowed(void)
{
    char *name = malloc(8);
    CHECK(name != NULL);
    strcpy(name, "brief");
    static Report report;
    CHECK(aio_parker_init(&report.ended) == 0);
    CHECK(aio_thread_start(fill_report, &report, name) == 0);
    memset(name, 'x', 7);
    free(name);
    aio_park(&report.ended);
    CHECK(strcmp(report.name, "brief") == 0);
}

/* Use `depth` KiB of stack, and something of each. */
static int
use_stack(int depth)
{
    volatile char block[1024];
    block[0] = (char)depth;
    return depth == 0 ? 0 : block[0] - (char)depth + 1 + use_stack(depth - 1);
}

static void
recurse(void *raw)
{
    CHECK(use_stack(4096) == 4096);
    aio_unpark(raw);
}

static void
its_stack_has_room_for_deep_recursion(void)
{
    static AioParker ended;
    CHECK(run_reporter("stack")->stack_size >= 8 << 20);
    CHECK(aio_parker_init(&ended) == 0);
    CHECK(aio_thread_start(recurse, &ended, "deep") == 0);
    aio_park(&ended);
}

enum { THREADS = 200 };

static _Atomic int runs[THREADS];
static _Atomic int left = THREADS;
static AioParker all_ended;

static void
count_run(void *raw)
{
    atomic_fetch_add((_Atomic int *)raw, 1);
    if (atomic_fetch_sub(&left, 1) == 1) {
        aio_unpark(&all_ended);
    }
}

static void
each_of_many_threads_runs_once_with_its_own_argument(void)
{
    CHECK(aio_parker_init(&all_ended) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(aio_thread_start(count_run, &runs[i], "many") == 0);
    }
    aio_park(&all_ended);
    for (int i = 0; i < THREADS; i++) {
        CHECK(atomic_load(&runs[i]) == 1);
    }
}

static void
the_cpu_count_is_what_this_process_may_use(void)
{
    CHECK(aio_cpu_count() >= 1);
#if defined(__linux__)
    cpu_set_t before, one;
    int first = 0;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CHECK(aio_cpu_count() == CPU_COUNT(&before));
    while (!CPU_ISSET(first, &before)) {
        first++;
    }
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(aio_cpu_count() == 1);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
#endif
}

int
main(void)
{
    RUN(it_runs_in_another_thread_that_is_detached);
    RUN(its_name_is_shown_and_cut_to_15_characters);
    RUN(the_name_is_only_borrowed);
    RUN(its_stack_has_room_for_deep_recursion);
    RUN(each_of_many_threads_runs_once_with_its_own_argument);
    RUN(the_cpu_count_is_what_this_process_may_use);
    return 0;
}
