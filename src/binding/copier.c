/* copier.c: large results are not copied by the loop's thread.
 *
 * The copying touches no Python object, only the memory of those that the loop's thread
 * has made (prefetch.h), so it needs no GIL. A worker that idles does it: mostly the very
 * one that has just returned the result, and is still awake. Where none idles, a thread is
 * started for all that a drain has put off, which ends with its work; and where none can
 * be had, the loop's thread copies after all.
 */
#include "copier.h"

#include <stdlib.h>

#include "core/thread.h"
#include "pool.h"
#include "prefetch.h"

/* What a drain copies itself: some tens of microseconds' worth. */
enum { MAX_COPY_ON_LOOP = 512 * 1024 };

bool
aio_copier_defers(AioState *state, AioBridge *bridge, AioTask *task, size_t *copied)
{
    if (task->prefetch != NULL || task->status != AIO_TASK_RETURNED ||
        task->mail.owner_future == NULL || bridge->channel == NULL) {
        return false;
    }
    const size_t size = aio_prefetch_size(&task->message);
    if (*copied + size <= MAX_COPY_ON_LOOP) {
        *copied += size;
        return false;
    }
    task->prefetch = aio_prefetch_new(state, &task->message);
    if (task->prefetch == NULL) {
        PyErr_Clear(); /* decoding it will fail likewise, and tell */
        return false;
    }
    aio_bridge_expect_again(bridge, &task->mail);
    aio_pending_add(&task->pool->unfinished);
    aio_list_append(&bridge->to_copy, &task->copy_link);
    return true;
}

bool
aio_copier_is_busy(AioBridge *bridge)
{
    for (AioListNode *link = bridge->in_flight.head.next; link != &bridge->in_flight.head;
         link = link->next) {
        AioMail *mail = aio_container_of(link, AioMail, in_flight);
        if (mail->kind == AIO_MAIL_TASK && aio_task_of_mail(mail)->prefetch != NULL) {
            return true;
        }
    }
    return false;
}

void
aio_copier_run(AioTask *task)
{
    aio_prefetch_copy(task->prefetch);
    aio_task_complete(task, AIO_TASK_RETURNED);
}

static void
copy_all(AioList *tasks)
{
    AioListNode *link;
    while ((link = aio_list_pop_first(tasks)) != NULL) {
        aio_copier_run(aio_container_of(link, AioTask, copy_link));
    }
}

typedef struct Job {
    AioPool *pool; /* a reference, counted in its `lingering` */
    AioList tasks; /* AioTask.copy_link */
} Job;

static void
copier_main(void *argument)
{
    Job *job = argument;
    copy_all(&job->tasks);
    aio_pending_done(&job->pool->lingering);
    aio_pool_release(job->pool);
    free(job);
}

/* Have the tasks (at least one) copied by a thread. */
static void
start_thread(AioList *tasks)
{
    AioPool *pool = aio_container_of(tasks->head.next, AioTask, copy_link)->pool;
    Job *job = malloc(sizeof *job);
    if (job == NULL) {
        copy_all(tasks);
        return;
    }
    job->pool = aio_pool_acquire(pool);
    aio_list_move(tasks, &job->tasks);
    aio_pending_add(&pool->lingering);
    if (aio_thread_start(copier_main, job, "aio-copy") < 0) {
        copier_main(job);
    }
}

void
aio_copier_start(AioBridge *bridge)
{
    AioList others;
    AioListNode *link;
    aio_list_init(&others);
    while ((link = aio_list_pop_first(&bridge->to_copy)) != NULL) {
        AioTask *task = aio_container_of(link, AioTask, copy_link);
        if (!aio_taskqueue_push_if_idle(&task->pool->queue, &task->queue_node)) {
            aio_list_append(&others, link);
        }
    }
    if (!aio_list_is_empty(&others)) {
        start_thread(&others);
    }
}
