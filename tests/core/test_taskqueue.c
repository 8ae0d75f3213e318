/* test_taskqueue.c: the contract of core/taskqueue.h.
 *
 * The concurrent tests run with a spin time of zero, where an idle consumer
 * parks almost at once, and with the pool's own, where it is often met
 * spinning: the two take different ways through push() and pop().
 */
#include "core/taskqueue.h"

#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "core/clock.h"

static const int64_t MS = 1000 * 1000;
static const int64_t LONG_NS = (int64_t)30 * 1000 * 1000 * 1000; /* below the watchdog's */

static const int64_t SPIN_TIMES[] = {0, 50 * 1000};
enum { SPIN_TIMES_COUNT = sizeof SPIN_TIMES / sizeof *SPIN_TIMES };

/* ---- one thread ---------------------------------------------------------- */

static void
tasks_are_popped_in_the_order_of_pushing(void)
{
    enum { TASKS = 5 };
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[TASKS];
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < TASKS; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_taskqueue_push(&queue, &nodes[i]));
    }
    for (int i = 0; i < TASKS; i++) {
        /* The two ways of popping take from the same end. */
        AioTaskNode *node =
            i % 2 == 0 ? aio_taskqueue_pop(&queue, &consumer) : aio_taskqueue_try_pop(&queue);
        CHECK(node == &nodes[i]);
    }
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

static void
try_pop_from_an_empty_queue_returns_at_once(void)
{
    AioTaskQueue queue;
    CHECK(aio_taskqueue_init(&queue, LONG_NS) == 0);
    CHECK(aio_taskqueue_try_pop(&queue) == NULL);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_try_pop(&queue) == NULL);
    aio_taskqueue_destroy(&queue);
}

static void
remove_takes_out_a_queued_task_and_no_other(void)
{
    enum { TASKS = 4 };
    AioTaskQueue queue;
    AioTaskNode nodes[TASKS], refused;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    aio_task_node_init(&refused);
    for (int i = 0; i < TASKS; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(!aio_taskqueue_remove(&queue, &nodes[i])); /* not pushed yet */
        CHECK(aio_taskqueue_push(&queue, &nodes[i]));
    }
    CHECK(aio_taskqueue_remove(&queue, &nodes[1]));
    CHECK(!aio_taskqueue_remove(&queue, &nodes[1]));
    CHECK(aio_taskqueue_try_pop(&queue) == &nodes[0]);
    CHECK(!aio_taskqueue_remove(&queue, &nodes[0]));
    CHECK(aio_taskqueue_push(&queue, &nodes[1])); /* a removed one may come again */
    aio_taskqueue_close(&queue);
    CHECK(!aio_taskqueue_push(&queue, &refused));
    CHECK(!aio_taskqueue_remove(&queue, &refused));
    CHECK(aio_taskqueue_remove(&queue, &nodes[3])); /* from a closed queue as well */
    CHECK(aio_taskqueue_try_pop(&queue) == &nodes[2]);
    CHECK(aio_taskqueue_try_pop(&queue) == &nodes[1]);
    CHECK(aio_taskqueue_try_pop(&queue) == NULL);
    aio_taskqueue_destroy(&queue);
}

static void
a_closed_queue_refuses_pushes_and_is_still_emptied(void)
{
    AioTaskQueue queue;
    AioConsumer consumer;
    AioTaskNode nodes[2], late;
    CHECK(aio_taskqueue_init(&queue, 0) == 0);
    CHECK(aio_consumer_init(&consumer) == 0);
    for (int i = 0; i < 2; i++) {
        aio_task_node_init(&nodes[i]);
        CHECK(aio_taskqueue_push(&queue, &nodes[i]));
    }
    aio_task_node_init(&late);
    aio_taskqueue_close(&queue);
    CHECK(!aio_taskqueue_push(&queue, &late));
    CHECK(aio_taskqueue_pop(&queue, &consumer) == &nodes[0]);
    aio_taskqueue_close(&queue);
    CHECK(aio_taskqueue_pop(&queue, &consumer) == &nodes[1]);
    CHECK(aio_taskqueue_pop(&queue, &consumer) == NULL);
    CHECK(aio_taskqueue_pop(&queue, &consumer) == NULL);
    aio_taskqueue_close(&queue);
    CHECK(!aio_taskqueue_push(&queue, &late));
    aio_consumer_destroy(&consumer);
    aio_taskqueue_destroy(&queue);
}

/* ---- consumers in threads ------------------------------------------------ */

enum { MAX_WORKERS = 4 };

typedef struct Work Work;

/* A task knows what to do; what its fields mean is each test's own business. */
typedef struct Task {
    AioTaskNode node; /* first: a node is a task */
    void (*run)(struct Task *task, int worker);
    void *context;
    int pusher;
    int number;
    /* How the task came out of the queue. Not atomic: the queue orders the
     * accesses, and ThreadSanitizer reports where it does not. */
    int pops;
} Task;

typedef struct Worker {
    Work *work;
    int index;
    pthread_t thread;
    AioConsumer *consumer;
    int64_t cpu_ns; /* the processor time that the thread used; after its end */
} Worker;

struct Work {
    AioTaskQueue queue;
    int worker_count;
    Worker workers[MAX_WORKERS];
};

static void *
work_until_close(void *raw)
{
    Worker *worker = raw;
    AioTaskQueue *queue = &worker->work->queue;
    AioTaskNode *node;
    /* On the heap and freed here, as a consumer need not outlive its last pop. */
    worker->consumer = malloc(sizeof *worker->consumer);
    CHECK(worker->consumer != NULL);
    CHECK(aio_consumer_init(worker->consumer) == 0);
    while ((node = aio_taskqueue_pop(queue, worker->consumer)) != NULL) {
        Task *task = (Task *)node;
        task->pops++;
        if (task->run != NULL) {
            task->run(task, worker->index);
        }
    }
    aio_consumer_destroy(worker->consumer);
    free(worker->consumer);
    worker->cpu_ns = thread_cpu_ns();
    return NULL;
}

static void
start_work(Work *work, int workers, int64_t spin_ns)
{
    CHECK(aio_taskqueue_init(&work->queue, spin_ns) == 0);
    work->worker_count = workers;
    for (int i = 0; i < workers; i++) {
        work->workers[i] = (Worker){.work = work, .index = i};
        work->workers[i].thread = start_thread(work_until_close, &work->workers[i]);
    }
}

/* All workers come back from the queue, or this never does. */
static void
join_work(Work *work)
{
    for (int i = 0; i < work->worker_count; i++) {
        join_thread(work->workers[i].thread);
    }
    CHECK(aio_taskqueue_try_pop(&work->queue) == NULL);
    /* The accounts are even. Where they drift, work is still done, but a push
     * wakes too many workers, or after a while too few. */
    CHECK(atomic_load(&work->queue.length) == 0);
    CHECK(work->queue.waking == 0);
    CHECK(work->queue.spinning == 0);
    CHECK(aio_list_is_empty(&work->queue.idle));
    aio_taskqueue_destroy(&work->queue);
}

static void
end_work(Work *work)
{
    aio_taskqueue_close(&work->queue);
    join_work(work);
}

/* Wait until `count` workers are parked. */
static void
wait_until_parked(Work *work, int count)
{
    int parked;
    do {
        sched_yield();
        parked = 0;
        pthread_mutex_lock(&work->queue.lock);
        AioListNode *head = &work->queue.idle.head;
        for (AioListNode *link = head->next; link != head; link = link->next) {
            parked++;
        }
        pthread_mutex_unlock(&work->queue.lock);
    } while (parked < count);
}

static Task
new_task(void (*run)(Task *, int), void *context)
{
    Task task = {.run = run, .context = context, .pusher = 0, .number = 0, .pops = 0};
    return task;
}

static void
push_new(Work *work, Task *task, void (*run)(Task *, int), void *context)
{
    *task = new_task(run, context);
    aio_task_node_init(&task->node);
    CHECK(aio_taskqueue_push(&work->queue, &task->node));
}

/* Who is told by tasks that they have run. */
typedef struct Done {
    AioParker parker;
    _Atomic int left; /* the task that brings it to zero unparks */
    int last_worker;
} Done;

static void
finish(Task *task, int worker)
{
    Done *done = task->context;
    if (atomic_fetch_sub(&done->left, 1) == 1) {
        done->last_worker = worker;
        aio_unpark(&done->parker);
    }
}

/* A lost wake-up shows here: the task lies in the queue while workers sleep. */
static void
wait_until_done(Done *done)
{
    CHECK(aio_park_until(&done->parker, aio_clock_ns() + LONG_NS));
}

static void
an_idle_worker_spins_for_a_moment_only(void)
{
    Work work;
    start_work(&work, 2, 50 * 1000);
    const struct timespec while_idle = {.tv_nsec = 200 * MS};
    nanosleep(&while_idle, NULL);
    end_work(&work);
    for (int i = 0; i < 2; i++) {
        CHECK(work.workers[i].cpu_ns < 50 * MS);
    }
}

static void
close_wakes_every_parked_worker(void)
{
    for (int round = 0; round < 200; round++) {
        Work work;
        start_work(&work, MAX_WORKERS, SPIN_TIMES[round % SPIN_TIMES_COUNT]);
        if (round % 4 < 2) {
            wait_until_parked(&work, MAX_WORKERS);
        }
        end_work(&work);
    }
}

static void
the_worker_that_fell_idle_last_is_woken_first(void)
{
    Work work;
    Task task;
    Done done = {.left = 0};
    CHECK(aio_parker_init(&done.parker) == 0);
    start_work(&work, 3, 0);
    for (int round = 0; round < 200; round++) {
        /* The one at the list's end; the other two are never woken at all. */
        wait_until_parked(&work, 3);
        AioConsumer *last = aio_container_of(work.queue.idle.head.prev, AioConsumer, idle_link);
        atomic_store(&done.left, 1);
        push_new(&work, &task, finish, &done);
        wait_until_done(&done);
        CHECK(work.workers[done.last_worker].consumer == last);
    }
    end_work(&work);
    aio_parker_destroy(&done.parker);
}

static void
a_single_task_never_lies_while_workers_sleep(void)
{
    enum { ROUNDS = 5000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task task;
        Done done = {.left = 0};
        uint32_t random_state = 41;
        CHECK(aio_parker_init(&done.parker) == 0);
        start_work(&work, 3, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            /* Find the workers at work's end, spinning, about to park, parked. */
            dawdle(&random_state, round % 4 == 0 ? 60000 : 2000);
            atomic_store(&done.left, 1);
            push_new(&work, &task, finish, &done);
            wait_until_done(&done);
            CHECK(task.pops == 1);
        }
        end_work(&work);
        aio_parker_destroy(&done.parker);
    }
}

/* A task that goes on only when all the tasks of its group are running. */
typedef struct Group {
    Barrier all_running;
    Done done;
} Group;

static void
meet(Task *task, int worker)
{
    Group *group = task->context;
    barrier_wait(&group->all_running);
    Task finisher = new_task(NULL, &group->done);
    finish(&finisher, worker);
}

static void
as_many_tasks_run_at_once_as_there_are_workers(void)
{
    enum { ROUNDS = 2000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task tasks[MAX_WORKERS];
        Group group = {.done = {.left = 0}};
        uint32_t random_state = 43;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        barrier_init(&group.all_running, MAX_WORKERS);
        start_work(&work, MAX_WORKERS, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            atomic_store(&group.done.left, MAX_WORKERS);
            for (int j = 0; j < MAX_WORKERS; j++) {
                push_new(&work, &tasks[j], meet, &group);
                dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
            }
            wait_until_done(&group.done); /* one worker too few, and they wait for ever */
            dawdle(&random_state, round % 3 == 0 ? 30000 : 0);
        }
        end_work(&work);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&group.done.parker);
    }
}

static void
a_removed_task_takes_nobodys_wake_up(void)
{
    /* The first task wakes a worker, or counts on a spinning one, and is gone
     * when that looks; the two that follow need two workers all the same. */
    enum { ROUNDS = 3000 };
    for (int i = 0; i < SPIN_TIMES_COUNT; i++) {
        Work work;
        Task removed, tasks[2];
        Group group = {.done = {.left = 0}};
        Done first = {.left = 0};
        uint32_t random_state = 47;
        CHECK(aio_parker_init(&group.done.parker) == 0);
        CHECK(aio_parker_init(&first.parker) == 0);
        barrier_init(&group.all_running, 2);
        start_work(&work, 2, SPIN_TIMES[i]);
        for (int round = 0; round < ROUNDS; round++) {
            atomic_store(&first.left, 1);
            push_new(&work, &removed, finish, &first);
            dawdle(&random_state, round % 2 == 0 ? 0 : 3000);
            const bool was_removed = aio_taskqueue_remove(&work.queue, &removed.node);
            atomic_store(&group.done.left, 2);
            push_new(&work, &tasks[0], meet, &group);
            push_new(&work, &tasks[1], meet, &group);
            wait_until_done(&group.done);
            if (!was_removed) {
                wait_until_done(&first);
            }
            CHECK(removed.pops == !was_removed);
        }
        end_work(&work);
        barrier_destroy(&group.all_running);
        aio_parker_destroy(&first.parker);
        aio_parker_destroy(&group.done.parker);
    }
}

/* ---- several pushers, removes, and a close at a random moment ------------- */

enum { PUSHERS = 3, MAX_TASKS = 400 };

typedef struct Storm Storm;

typedef struct StormPusher {
    Storm *storm;
    int index;
    pthread_t thread;
    int task_count;
    Task tasks[MAX_TASKS];
    bool removed[MAX_TASKS];
    bool refused[MAX_TASKS];
} StormPusher;

struct Storm {
    Work work;
    Barrier start;
    StormPusher pushers[PUSHERS];
    _Atomic int popped;
    int last_number[MAX_WORKERS][PUSHERS]; /* of the pusher's tasks, what that worker had last */
};

static void
check_order(Task *task, int worker)
{
    Storm *storm = task->context;
    /* Each worker sees each pusher's tasks in order, whoever has the ones between. */
    int *last = &storm->last_number[worker][task->pusher];
    CHECK(task->number > *last);
    *last = task->number;
    atomic_fetch_add_explicit(&storm->popped, 1, memory_order_relaxed);
}

static void *
push_and_remove(void *raw)
{
    StormPusher *pusher = raw;
    Storm *storm = pusher->storm;
    AioTaskQueue *queue = &storm->work.queue;
    uint32_t random_state = 53u + 7u * (uint32_t)pusher->index;
    bool was_refused = false;
    barrier_wait(&storm->start);
    for (int i = 0; i < pusher->task_count; i++) {
        Task *task = &pusher->tasks[i];
        *task = new_task(check_order, storm);
        task->pusher = pusher->index;
        task->number = i;
        aio_task_node_init(&task->node);
        pusher->refused[i] = !aio_taskqueue_push(queue, &task->node);
        CHECK(pusher->refused[i] || !was_refused); /* closed once is closed for good */
        was_refused = pusher->refused[i];
        if (next_random(&random_state) % 4 == 0) {
            const int chosen = (int)(next_random(&random_state) % (uint32_t)(i + 1));
            if (aio_taskqueue_remove(queue, &pusher->tasks[chosen].node)) {
                CHECK(!pusher->refused[chosen] && !pusher->removed[chosen]);
                pusher->removed[chosen] = true;
            }
        }
        if (next_random(&random_state) % 16 == 0) {
            dawdle(&random_state, 20000); /* let the workers fall idle */
        }
    }
    return NULL;
}

/* Start it all; the caller closes when it likes. */
static Storm *
start_storm(int workers, int64_t spin_ns, int tasks_each)
{
    Storm *storm = calloc(1, sizeof *storm);
    CHECK(storm != NULL);
    for (int i = 0; i < MAX_WORKERS; i++) {
        for (int j = 0; j < PUSHERS; j++) {
            storm->last_number[i][j] = -1;
        }
    }
    barrier_init(&storm->start, PUSHERS + 1);
    start_work(&storm->work, workers, spin_ns);
    for (int i = 0; i < PUSHERS; i++) {
        StormPusher *pusher = &storm->pushers[i];
        pusher->storm = storm;
        pusher->index = i;
        pusher->task_count = tasks_each;
        pusher->thread = start_thread(push_and_remove, pusher);
    }
    barrier_wait(&storm->start);
    return storm;
}

/* Each task is popped, or removed, or refused. Returns how many were refused. */
static int
end_storm(Storm *storm)
{
    int popped = 0, refused = 0;
    for (int i = 0; i < PUSHERS; i++) {
        join_thread(storm->pushers[i].thread);
    }
    join_work(&storm->work);
    for (int i = 0; i < PUSHERS; i++) {
        StormPusher *pusher = &storm->pushers[i];
        for (int j = 0; j < pusher->task_count; j++) {
            CHECK(pusher->tasks[j].pops + pusher->removed[j] + pusher->refused[j] == 1);
            popped += pusher->tasks[j].pops;
            refused += pusher->refused[j];
        }
    }
    CHECK(popped == atomic_load(&storm->popped));
    barrier_destroy(&storm->start);
    free(storm);
    return refused;
}

/* Close at a random moment: after some tasks, and a little later. */
static void
close_at_random(Storm *storm, uint32_t *random_state, int tasks)
{
    const int enough = (int)(next_random(random_state) % (uint32_t)tasks);
    while (atomic_load_explicit(&storm->popped, memory_order_relaxed) < enough) {
        sched_yield();
    }
    dawdle(random_state, 3000);
    aio_taskqueue_close(&storm->work.queue);
}

static void
run_storms(int workers, int rounds)
{
    uint32_t random_state = 59;
    int refused = 0;
    for (int round = 0; round < rounds; round++) {
        Storm *storm = start_storm(workers, SPIN_TIMES[round % SPIN_TIMES_COUNT], MAX_TASKS);
        /* Up to a third is removed before it is popped, so don't wait for more than half. */
        close_at_random(storm, &random_state, PUSHERS * MAX_TASKS / 2);
        refused += end_storm(storm);
    }
    EXPECT_MET(refused > 0);
}

static void
each_task_is_popped_or_removed_or_refused_exactly_once(void)
{
    run_storms(3, 100);
}

static void
with_one_worker_each_pushers_tasks_come_in_order(void)
{
    run_storms(1, 50);
}

int
main(void)
{
    RUN(tasks_are_popped_in_the_order_of_pushing);
    RUN(try_pop_from_an_empty_queue_returns_at_once);
    RUN(remove_takes_out_a_queued_task_and_no_other);
    RUN(a_closed_queue_refuses_pushes_and_is_still_emptied);
    RUN(an_idle_worker_spins_for_a_moment_only);
    RUN(close_wakes_every_parked_worker);
    RUN(the_worker_that_fell_idle_last_is_woken_first);
    RUN(a_single_task_never_lies_while_workers_sleep);
    RUN(as_many_tasks_run_at_once_as_there_are_workers);
    RUN(a_removed_task_takes_nobodys_wake_up);
    RUN(each_task_is_popped_or_removed_or_refused_exactly_once);
    RUN(with_one_worker_each_pushers_tasks_come_in_order);
    return 0;
}
