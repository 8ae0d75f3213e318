/* test_fork.c: the contract of core/fork.h. */
#include "core/fork.h"

#include <sys/wait.h>

#include "check.h"

/* Fork, and return what `measure` returned (0 to 100) in the child. */
static int
in_child(int (*measure)(void))
{
    int status;
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(measure());
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static unsigned first;

static int
generations_since_first(void)
{
    return (int)(aio_fork_generation() - first);
}

static int
generations_of_a_grandchild(void)
{
    return in_child(generations_since_first);
}

static void
without_a_fork_it_stays_the_same(void)
{
    first = aio_fork_generation();
    CHECK(aio_fork_generation() == first);
}

static void
a_child_sees_another_one_than_its_parent(void)
{
    first = aio_fork_generation();
    CHECK(in_child(generations_since_first) == 1);
}

static void
a_childs_child_differs_from_both(void)
{
    first = aio_fork_generation();
    CHECK(in_child(generations_of_a_grandchild) == 2);
}

static void
the_parents_own_does_not_change_by_forking(void)
{
    first = aio_fork_generation();
    in_child(generations_since_first);
    in_child(generations_since_first);
    CHECK(aio_fork_generation() == first);
}

static void *
fork_in_thread(void *result)
{
    *(int *)result = in_child(generations_since_first);
    return NULL;
}

static void
a_fork_in_any_thread_is_noticed(void)
{
    int seen = -1;
    first = aio_fork_generation();
    join_thread(start_thread(fork_in_thread, &seen));
    CHECK(seen == 1);
}

int
main(void)
{
    RUN(without_a_fork_it_stays_the_same);
    RUN(a_child_sees_another_one_than_its_parent);
    RUN(a_childs_child_differs_from_both);
    RUN(the_parents_own_does_not_change_by_forking);
    RUN(a_fork_in_any_thread_is_noticed);
    return 0;
}
