/* core_costs.c: what the core's parts cost on this machine, in nanoseconds, as JSON.
 *
 *     core_costs        on the processors that it may use:  taskset -c 0 core_costs
 *
 * docs/scaling.md puts these numbers into its model; benchmarks/scaling.py runs this. Every number
 * is the median of many rounds (the hand-over's the least). What takes two processors is null where
 * there is one.
 *
 * One thread is pinned to a processor, all others to another one.
 *
 *   alone        one thread does it over and over: its lines stay in its cache, nobody contends
 *   hand-over    two threads write a line by turns: how long it takes from core to core, one way
 *   fed          one thread pushes, with some work in between, others pop: its CPU time per push
 *   waking       a thread that sleeps is woken: what the call costs the waker, and how long it
 * takes system call  a futex call that has nothing to do: what a lock costs both sides when it is
 * contended contended    two threads that take one lock for a moment, over and over, with some work
 * in between
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mailbox.h"
#include "core/park.h"
#include "core/platform.h"
#include "core/taskqueue.h"
#include "core/thread.h"
#include "core/wake.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

enum { NODES = 5000, ROUNDS = 15, WAKE_ROUNDS = 200, LINE = 64, MAX_CONSUMERS = 4 };
enum { WORK_BETWEEN = 1600 }; /* a microsecond or so */

/* A task as far as the core sees it, and nothing else on its lines. */
typedef struct Node {
    _Alignas(LINE) AioTaskNode task;
    _Alignas(LINE) AioMailNode mail;
} Node;

static Node nodes[NODES];

#ifdef __linux__
static cpu_set_t allowed; /* as the program found it */
#endif

static int64_t
cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* In registers alone, and not to be optimised away. */
static void
work_between(void)
{
    uint64_t work = 1;
    for (int i = 0; i < WORK_BETWEEN; i++) {
        work = work * 3 + 1;
        __asm__ __volatile__("" : "+r"(work));
    }
}

static int
compare(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double
median(double *samples, int count)
{
    qsort(samples, (size_t)count, sizeof *samples, compare);
    return samples[count / 2];
}

static void
report(const char *name, double value)
{
    static bool is_first = true;
    if (value < 0) {
        printf("%s\n  \"%s\": null", is_first ? "{" : ",", name);
    }
    else {
        printf("%s\n  \"%s\": %.1f", is_first ? "{" : ",", name, value);
    }
    is_first = false;
}

static void
pause_for(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Let `thread` run on the last processor that the program may use, or else (the main thread)
 * on the first: or two threads might happen to share one, and nothing would go from core to core.
 */
static void
pin(pthread_t thread, bool on_last)
{
#ifdef __linux__
    int first = -1, last = -1;
    cpu_set_t one;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &allowed)) {
            first = first < 0 ? i : first;
            last = i;
        }
    }
    CPU_ZERO(&one);
    CPU_SET(on_last ? last : first, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
#endif
}

/* Let the main thread run wherever it may. */
static void
unpin(void)
{
#ifdef __linux__
    pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
#endif
}

static void
start(pthread_t *thread, void *(*entry)(void *), void *argument)
{
    if (pthread_create(thread, NULL, entry, argument) != 0) {
        perror("pthread_create");
        exit(1);
    }
    pin(*thread, true);
}

/* ---- alone ---- */

static void
measure_alone(void)
{
    double push[ROUNDS], pop[ROUNDS], post[ROUNDS], take[ROUNDS];
    AioTaskQueue queue;
    AioMailbox mailbox;

    aio_taskqueue_init(&queue, 0);
    aio_mailbox_init(&mailbox);
    for (int round = 0; round < ROUNDS; round++) {
        enum { FEW = 500 }; /* they stay in the cache */
        int64_t began = aio_clock_ns();
        for (int i = 0; i < FEW; i++) {
            aio_taskqueue_push(&queue, &nodes[i].task);
        }
        push[round] = (double)(aio_clock_ns() - began) / FEW;
        began = aio_clock_ns();
        for (int i = 0; i < FEW; i++) {
            aio_taskqueue_try_pop(&queue, NULL);
        }
        pop[round] = (double)(aio_clock_ns() - began) / FEW;
        began = aio_clock_ns();
        for (int i = 0; i < FEW; i++) {
            aio_mailbox_push(&mailbox, &nodes[i].mail);
        }
        post[round] = (double)(aio_clock_ns() - began) / FEW;
        began = aio_clock_ns();
        for (AioMailNode *node = aio_mailbox_take(&mailbox); node != NULL; node = node->next) {
        }
        take[round] = (double)(aio_clock_ns() - began) / FEW;
    }
    aio_taskqueue_destroy(&queue);
    report("push_ns", median(push, ROUNDS));
    report("pop_ns", median(pop, ROUNDS));
    report("post_ns", median(post, ROUNDS));
    report("take_ns", median(take, ROUNDS));
}

/* ---- hand-over of one line ---- */

enum { BOUNCES = 5000 };
static _Alignas(LINE) _Atomic long ball;

/* Waits for the odd numbers, and makes them even. */
static void *
bounce_back(void *unused)
{
    for (long i = 1; i < 2 * BOUNCES; i += 2) {
        while (atomic_load_explicit(&ball, memory_order_acquire) != i) {
        }
        atomic_store_explicit(&ball, i + 1, memory_order_release);
    }
    return unused;
}

static double
measure_hand_over(void)
{
    double samples[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t other;
        atomic_store(&ball, 0);
        start(&other, bounce_back, NULL);
        pause_for(200000);
        const int64_t began = aio_clock_ns();
        for (long i = 1; i < 2 * BOUNCES; i += 2) {
            atomic_store_explicit(&ball, i, memory_order_release);
            while (atomic_load_explicit(&ball, memory_order_acquire) != i + 1) {
            }
        }
        samples[round] = (double)(aio_clock_ns() - began) / (2 * BOUNCES);
        pthread_join(other, NULL);
    }
    median(samples, ROUNDS);
    return samples[0]; /* the least: whatever interrupts one of the two only adds to it */
}

/* ---- one thread pushes, others pop ---- */

typedef struct Popper {
    AioTaskQueue *queue;
    AioConsumer consumer;
} Popper;

static void *
pop_all(void *raw)
{
    Popper *popper = raw;
    AioTaskNode *node;
    while (aio_taskqueue_pop(popper->queue, &popper->consumer, AIO_NEVER, &node) == AIO_POP_TASK) {
    }
    return NULL;
}

static void
measure_fed(int consumers)
{
    double push[ROUNDS];
    char name[64];

    for (int round = 0; round < ROUNDS; round++) {
        AioTaskQueue queue;
        Popper poppers[MAX_CONSUMERS];
        pthread_t threads[MAX_CONSUMERS];

        unpin(); /* the queue looks how many processors there are */
        aio_taskqueue_init(&queue, 50000);
        pin(pthread_self(), false);
        for (int i = 0; i < consumers; i++) {
            poppers[i].queue = &queue;
            aio_consumer_init(&poppers[i].consumer);
            start(&threads[i], pop_all, &poppers[i]);
        }
        pause_for(300000);
        const int64_t began = cpu_ns();
        for (int i = 0; i < NODES; i++) {
            work_between();
        }
        const int64_t worked = cpu_ns();
        for (int i = 0; i < NODES; i++) {
            work_between();
            aio_taskqueue_push(&queue, &nodes[i].task);
        }
        push[round] = (double)(cpu_ns() - worked - (worked - began)) / NODES;
        aio_taskqueue_close(&queue);
        for (int i = 0; i < consumers; i++) {
            pthread_join(threads[i], NULL);
            aio_consumer_destroy(&poppers[i].consumer);
        }
        aio_taskqueue_destroy(&queue);
    }
    snprintf(name, sizeof name, "fed_%d_push_ns", consumers);
    report(name, median(push, ROUNDS));
}

/* ---- waking ---- */

typedef struct Sleeper {
    AioParker parker;
    AioWake wake;
    int epoll;
    bool by_descriptor;
    _Atomic int64_t woken_at; /* 0: not yet */
} Sleeper;

static void *
sleep_and_tell(void *raw)
{
    Sleeper *sleeper = raw;
    for (int round = 0; round < WAKE_ROUNDS; round++) {
        int64_t now;
        if (sleeper->by_descriptor) {
            struct epoll_event event;
            epoll_wait(sleeper->epoll, &event, 1, -1);
            now = aio_clock_ns();
            aio_wake_clear(&sleeper->wake);
        }
        else {
            aio_park(&sleeper->parker);
            now = aio_clock_ns();
        }
        atomic_store(&sleeper->woken_at, now); /* and not before it can be woken again */
    }
    return NULL;
}

static void
measure_waking(const char *what, bool by_descriptor)
{
    double cost[WAKE_ROUNDS], latency[WAKE_ROUNDS];
    char name[64];
    Sleeper sleeper = {.by_descriptor = by_descriptor};
    pthread_t thread;

    aio_parker_init(&sleeper.parker);
    if (aio_wake_init(&sleeper.wake) < 0 || (sleeper.epoll = epoll_create1(0)) < 0 ||
        epoll_ctl(sleeper.epoll, EPOLL_CTL_ADD, aio_wake_fd(&sleeper.wake),
                  &(struct epoll_event){.events = EPOLLIN}) < 0) {
        perror("epoll");
        exit(1);
    }
    start(&thread, sleep_and_tell, &sleeper);
    for (int round = 0; round < WAKE_ROUNDS; round++) {
        pause_for(200000); /* it sleeps again by then */
        atomic_store(&sleeper.woken_at, 0);
        const int64_t reading = cpu_ns(); /* a system call, whose cost is taken off again */
        const int64_t cpu_began = cpu_ns();
        const int64_t began = aio_clock_ns();
        if (by_descriptor) {
            aio_wake_signal(&sleeper.wake);
        }
        else {
            aio_unpark(&sleeper.parker);
        }
        cost[round] = (double)(cpu_ns() - cpu_began - (cpu_began - reading));
        int64_t woken_at;
        while ((woken_at = atomic_load(&sleeper.woken_at)) == 0) {
            sched_yield();
        }
        latency[round] = (double)(woken_at - began);
    }
    pthread_join(thread, NULL);
    close(sleeper.epoll);
    aio_wake_destroy(&sleeper.wake);
    aio_parker_destroy(&sleeper.parker);
    snprintf(name, sizeof name, "%s_ns", what);
    report(name, median(cost, WAKE_ROUNDS));
    snprintf(name, sizeof name, "%s_latency_ns", what);
    report(name, median(latency, WAKE_ROUNDS));
}

/* ---- a system call without effect ---- */

static void
measure_system_calls(void)
{
#ifdef __linux__
    enum { CALLS = 2000 };
    double wake[ROUNDS], wait[ROUNDS];
    int word = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t began = aio_clock_ns();
        for (int i = 0; i < CALLS; i++) {
            syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
        }
        wake[round] = (double)(aio_clock_ns() - began) / CALLS;
        began = aio_clock_ns();
        for (int i = 0; i < CALLS; i++) { /* another value is expected: it returns at once */
            syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
        }
        wait[round] = (double)(aio_clock_ns() - began) / CALLS;
    }
    report("futex_wake_none_ns", median(wake, ROUNDS));
    report("futex_wait_again_ns", median(wait, ROUNDS));
#endif
}

/* ---- a contended lock ---- */

typedef struct Contended {
    _Alignas(LINE) pthread_mutex_t lock;
    _Alignas(LINE) long guarded[2 * LINE / sizeof(long)];
    _Atomic int ready;
} Contended;

enum { LOCKINGS = 5000 };

static void
lock_over_and_over(Contended *contended)
{
    for (int i = 0; i < LOCKINGS; i++) {
        pthread_mutex_lock(&contended->lock);
        contended->guarded[0]++;
        contended->guarded[LINE / sizeof(long)]++;
        pthread_mutex_unlock(&contended->lock);
        work_between();
    }
}

static void *
contend(void *raw)
{
    Contended *contended = raw;
    atomic_fetch_add(&contended->ready, 1);
    while (atomic_load(&contended->ready) < 2) {
        aio_cpu_relax();
    }
    lock_over_and_over(contended);
    return NULL;
}

/* Wall time of one locking and the work after it, in each of so many threads. */
static double
measure_contended(int kind, int threads)
{
    double samples[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        Contended contended = {.guarded = {0}};
        pthread_mutexattr_t attributes;
        pthread_t other;

        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_settype(&attributes, kind);
        pthread_mutex_init(&contended.lock, &attributes);
        atomic_init(&contended.ready, 2 - threads);
        if (threads == 2) {
            start(&other, contend, &contended);
        }
        const int64_t began = aio_clock_ns();
        contend(&contended);
        samples[round] = (double)(aio_clock_ns() - began) / LOCKINGS;
        if (threads == 2) {
            pthread_join(other, NULL);
        }
        pthread_mutex_destroy(&contended.lock);
        pthread_mutexattr_destroy(&attributes);
    }
    return median(samples, ROUNDS);
}

static void *
sleep_for_ever(void *unused)
{
    for (;;) {
        pause();
    }
    return unused;
}

int
main(void)
{
    const int processors = aio_cpu_count();
    alarm(60); /* whatever happens, it ends */
    pthread_t second;
#ifdef __linux__
    sched_getaffinity(0, sizeof allowed, &allowed);
#endif
    pin(pthread_self(), false);
    start(&second, sleep_for_ever, NULL); /* glibc's locks are cheaper where there is one thread */
    for (int i = 0; i < NODES; i++) {
        aio_task_node_init(&nodes[i].task);
    }
    measure_alone();
    report("hand_over_ns", processors > 1 ? measure_hand_over() : -1);
    for (int consumers = 1; consumers <= MAX_CONSUMERS; consumers *= 2) {
        measure_fed(consumers);
    }
    measure_waking("unpark", false);
    measure_waking("signal", true);
    measure_system_calls();
    report("lock_alone_ns", measure_contended(PTHREAD_MUTEX_NORMAL, 1));
    report("lock_contended_ns", processors > 1 ? measure_contended(PTHREAD_MUTEX_NORMAL, 2) : -1);
#ifdef __GLIBC__
    report("lock_adaptive_ns",
           processors > 1 ? measure_contended(PTHREAD_MUTEX_ADAPTIVE_NP, 2) : -1);
#else
    report("lock_adaptive_ns", -1);
#endif
    const int64_t began = aio_clock_ns();
    for (int i = 0; i < LOCKINGS; i++) {
        work_between();
    }
    report("work_between_ns", (double)(aio_clock_ns() - began) / LOCKINGS);
    printf("\n}\n");
    return 0;
}
